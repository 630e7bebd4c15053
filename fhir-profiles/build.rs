//! Lists the JSON files of the artifact folders, so that a new artifact is a new file and nothing else.
//! It reads names only; what stands in the files is read, and checked by tests, in the crate itself.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const ARTIFACT_FOLDERS: &[&str] = &[
    "structure-definitions",
    "code-systems",
    "value-sets",
    "concept-maps",
    "search-parameters",
    "operation-definitions",
];
const EXAMPLE_FOLDERS: &[&str] = &["examples"];

fn main() -> io::Result<()> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let mut source = String::new();
    list(&mut source, "ARTIFACT_FILES", ARTIFACT_FOLDERS, &root)?;
    list(&mut source, "EXAMPLE_FILES", EXAMPLE_FOLDERS, &root)?;
    println!("cargo::rerun-if-changed=build.rs");
    fs::write(Path::new(&variable("OUT_DIR")?).join("files.rs"), source)
}

fn list(source: &mut String, constant: &str, folders: &[&str], root: &Path) -> io::Result<()> {
    let mut body = String::new();
    for folder in folders {
        println!("cargo::rerun-if-changed={folder}");
        let mut names = Vec::new();
        for entry in fs::read_dir(root.join(folder))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
        }
        names.sort();
        for name in names {
            writeln!(
                body,
                "    (\"{folder}/{name}\", include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/{folder}/{name}\"))),"
            )
            .map_err(io::Error::other)?;
        }
    }
    writeln!(source, "const {constant}: &[(&str, &str)] = &[\n{body}];").map_err(io::Error::other)
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(io::Error::other)
}
