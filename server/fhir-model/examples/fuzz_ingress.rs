//! Damages resources at random for a given time and checks what must hold of every input:
//! `cargo run --release -p handoff-fhir-model --example fuzz_ingress -- --seconds 600 [--seed N]`.
//! Prints the seed and the number of inputs; fails with the first input that breaks a rule.

#[path = "../tests/mutations/mod.rs"]
mod mutations;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mutations::{Random, holds, input};

fn main() -> ExitCode {
    let mut seconds = 60u64;
    let mut seed = RandomState::new().build_hasher().finish();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let number = words.next().and_then(|n| n.parse().ok());
        match (word.as_str(), number) {
            ("--seconds", Some(n)) => seconds = n,
            ("--seed", Some(n)) => seed = n,
            _ => {
                eprintln!("usage: fuzz_ingress [--seconds N] [--seed N]");
                return ExitCode::from(2);
            }
        }
    }
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut inputs, mut taken) = (0u64, 0u64);
    while Instant::now() < until {
        let data = input(&mut random);
        inputs += 1;
        match holds(&data) {
            Ok(was_taken) => taken += u64::from(was_taken),
            Err(what) => {
                println!(
                    "input {inputs} of seed {seed}: {what}\n{}",
                    String::from_utf8_lossy(&data)
                );
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{inputs} inputs, {taken} of them taken, none did harm");
    ExitCode::SUCCESS
}
