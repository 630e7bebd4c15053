//! The migrations are embedded when this crate is built: build it again when they change.

fn main() {
    println!("cargo::rerun-if-changed=../../migrations");
}
