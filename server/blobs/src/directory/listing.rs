//! What lies in a folder: the objects of a tenant, and what broken uploads left. Age is told by the file system's own clock, which
//! need not be this machine's.

use std::fs::{self, DirEntry};
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime};

use handoff_domain::ports::{BlobError, Listed, Listing};
use handoff_domain::time::Span;

use super::{explain, new_file};

/// How many are told at once.
const PAGE: usize = 5000;

/// Some of the files of a folder: those whose names come after `after`.
pub(super) fn list(folder: &Path, incoming: &Path, after: Option<&str>) -> Result<Listing, BlobError> {
    let now = now(incoming)?;
    let mut files: Vec<(String, DirEntry)> = Vec::new();
    let mut more = false;
    for entry in fs::read_dir(folder).map_err(|e| explain(&e))? {
        let entry = entry.map_err(|e| explain(&e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if after.is_none_or(|after| name.as_str() > after) {
            files.push((name, entry));
        }
        // Of a full folder only the next names are kept.
        if files.len() >= 4 * PAGE {
            more |= cut(&mut files);
        }
    }
    more |= cut(&mut files);
    let next = files.last().filter(|_| more).map(|(name, _)| name.clone());
    let mut objects = Vec::with_capacity(files.len());
    for (name, entry) in files {
        // As it is opened when it is read. A file may go while we look, and a link that leads nowhere is none of ours.
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let found = match fs::metadata(entry.path()) {
            Ok(found) => found,
            Err(error) if is_link || error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(BlobError::Unavailable(format!(
                    "the disk answers: {}",
                    error.kind()
                )));
            }
        };
        if found.is_file() {
            let age = found.modified().ok().and_then(|at| now.duration_since(at).ok());
            objects.push(Listed {
                name,
                size: found.len(),
                etag: None,
                age: Span(age.map_or(0, |age| i64::try_from(age.as_micros()).unwrap_or(i64::MAX))),
            });
        }
    }
    Ok(Listing { objects, next })
}

/// Leaves a page of them, in the order of their names; answers whether there were more.
fn cut(files: &mut Vec<(String, DirEntry)>) -> bool {
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    let more = files.len() > PAGE;
    files.truncate(PAGE);
    more
}

fn now(incoming: &Path) -> Result<SystemTime, BlobError> {
    let probe = new_file(incoming)?;
    let found = probe.as_file().metadata().and_then(|m| m.modified());
    found.map_err(|e| explain(&e))
}

/// Removes what uploads left behind that broke off longer ago than this; answers how many.
pub(super) fn sweep(incoming: &Path, older_than: Duration) -> Result<u64, BlobError> {
    let now = now(incoming)?;
    let mut removed = 0;
    for entry in fs::read_dir(incoming).map_err(|e| explain(&e))? {
        let entry = entry.map_err(|e| explain(&e))?;
        // An upload may end, and its file go, while we look.
        let Ok(modified) = entry.metadata().and_then(|m| m.modified()) else {
            continue;
        };
        let stale = now.duration_since(modified).is_ok_and(|age| age >= older_than);
        if stale && fs::remove_file(entry.path()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}
