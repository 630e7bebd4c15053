//! The text of a rule set: the files of a directory, or those that ship with the server.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use handoff_domain::document::Sha256;
use sha2::Digest as _;
use thiserror::Error;

use crate::{SHIPPED_RETENTION, SHIPPED_WORKFLOWS};

/// The schema that every rule is held to. It says what the server tells the rules, so it comes with the server.
pub const SCHEMA: &str = include_str!("../handoff.cedarschema");

pub(crate) const WORKFLOWS: &str = "workflow.toml";
pub(crate) const RETENTION: &str = "retention.toml";
const RULES: &str = "cedar";

/// The most files with rules, and the most bytes of a file.
const MOST_FILES: usize = 100;
const MOST_BYTES: u64 = 256 << 10;
/// The most entries of a directory.
const MOST_ENTRIES: usize = 1_000;

/// A rule set as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Files with rules, by name, in order of their names.
    pub rules: Vec<(String, String)>,
    /// The workflow file.
    pub workflows: String,
    /// The retention file. Where there is none, nothing is disposed of.
    pub retention: Option<String>,
}

/// Where a rule set is written: files of an operator's, or what ships with the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// A directory with any number of `*.cedar`, a `workflow.toml`, and a `retention.toml` where something is to be disposed of;
    /// the shipped rules where `None`.
    pub directory: Option<PathBuf>,
    /// A workflow file that is taken instead.
    pub workflow: Option<PathBuf>,
    /// A retention file that is taken instead.
    pub retention: Option<PathBuf>,
}

impl Place {
    /// What is written there now.
    pub fn read(&self) -> Result<Source, SourceError> {
        let mut source = match &self.directory {
            Some(directory) => Source::read(directory)?,
            None => Source::shipped(),
        };
        if let Some(workflow) = &self.workflow {
            source.workflows = read_text(workflow)?;
        }
        if let Some(retention) = &self.retention {
            source.retention = Some(read_text(retention)?);
        }
        Ok(source)
    }

    /// Whether it may be written otherwise while the server runs.
    pub const fn may_change(&self) -> bool {
        self.directory.is_some() || self.workflow.is_some() || self.retention.is_some()
    }
}

/// Why a directory holds no rule set.
#[derive(Debug, Error)]
pub enum SourceError {
    /// Something can't be read.
    #[error("`{path}` can't be read: {cause}", path = path.display())]
    Unreadable {
        /// What.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// There is nothing in it.
    #[error("`{path}` holds no file that ends in `.cedar`", path = .0.display())]
    Empty(PathBuf),
    /// There is more than anybody would write.
    #[error("`{path}` is larger than {MOST_BYTES} bytes, or one of more than {MOST_FILES} files", path = .0.display())]
    TooLarge(PathBuf),
}

impl Source {
    /// The rules that ship with the server.
    pub fn shipped() -> Self {
        let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        Self {
            rules: vec![
                file("roles.cedar", include_str!("../roles.cedar")),
                file("safety.cedar", include_str!("../safety.cedar")),
            ],
            workflows: SHIPPED_WORKFLOWS.to_owned(),
            retention: Some(SHIPPED_RETENTION.to_owned()),
        }
    }

    /// The rules in `directory`: every `*.cedar`, and `workflow.toml`. Neither may be missing, so that a file which is away
    /// for a moment is never taken for one that says nothing. `retention.toml` may: without it everything is kept. Files whose
    /// name begins with a dot are left alone.
    pub fn read(directory: &Path) -> Result<Self, SourceError> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |cause| SourceError::Unreadable { path, cause }
        };
        let mut paths = Vec::new();
        for (index, entry) in fs::read_dir(directory)
            .map_err(unreadable(directory))?
            .enumerate()
        {
            if index >= MOST_ENTRIES {
                return Err(SourceError::TooLarge(directory.to_owned()));
            }
            let path = entry.map_err(unreadable(directory))?.path();
            let hidden = path
                .file_name()
                .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            if !hidden && path.extension().is_some_and(|e| e == RULES) {
                paths.push(path);
            }
            if paths.len() > MOST_FILES {
                return Err(SourceError::TooLarge(directory.to_owned()));
            }
        }
        paths.sort();
        if paths.is_empty() {
            return Err(SourceError::Empty(directory.to_owned()));
        }
        let mut rules = Vec::new();
        for path in paths {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            rules.push((name, read_text(&path)?));
        }
        let workflows = read_text(&directory.join(WORKFLOWS))?;
        let retention = directory.join(RETENTION);
        // A link that leads nowhere is no file that is missing.
        let is_there = fs::symlink_metadata(&retention).is_ok();
        let retention = is_there.then(|| read_text(&retention)).transpose()?;
        Ok(Self {
            rules,
            workflows,
            retention,
        })
    }

    /// SHA-256 over the schema, the workflows, the rules with their files' names, and retention where it is said, each with its
    /// length.
    pub fn digest(&self) -> Sha256 {
        let mut hash = sha2::Sha256::new();
        let mut part = |text: &str| {
            hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(text.as_bytes());
        };
        part(SCHEMA);
        part(&self.workflows);
        for (name, text) in &self.rules {
            part(name);
            part(text);
        }
        if let Some(retention) = &self.retention {
            part(RETENTION);
            part(retention);
        }
        Sha256(hash.finalize().into())
    }
}

/// A file's text, of at most [`MOST_BYTES`].
pub(crate) fn read_text(path: &Path) -> Result<String, SourceError> {
    let unreadable = |cause| SourceError::Unreadable {
        path: path.to_owned(),
        cause,
    };
    // To open a pipe would wait for somebody to write into it.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unreadable(std::io::Error::other("it is no file")));
    }
    let file = fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(MOST_BYTES.saturating_add(1))
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > MOST_BYTES {
        return Err(SourceError::TooLarge(path.to_owned()));
    }
    // The mark that some editors put before a text.
    if let Some(rest) = text.strip_prefix('\u{feff}') {
        return Ok(rest.to_owned());
    }
    Ok(text)
}
