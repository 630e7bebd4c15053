//! The blob store over a directory: one file an object, `{tenant}/{id}`, written aside and put in place whole.
//! Knows no keys but checked ones; all waiting for the disk happens on tokio's blocking threads.

mod listing;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use handoff_domain::document::{BLOCK_SIZE, Sha256};
use handoff_domain::ids::TenantId;
use handoff_domain::ports::{
    BlobError, BlobPin, BlobStore, BoxFuture, ByteStream, Listed, Listing, Uploaded,
};
use tempfile::NamedTempFile;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::digest::Digester;
use crate::key::Key;

/// Where uploads grow until they are whole. No tenant is called so: a key has no dot in front.
const INCOMING: &str = ".incoming";
/// Bytes gathered before one trip to a blocking thread.
const WRITE_BATCH: usize = 1024 * 1024;
/// Bytes read in one trip; with many slow readers this is what each of them holds.
const READ_SIZE: usize = BLOCK_SIZE;

/// Objects as files under one folder. The pin's `ETag` is the content's SHA-256 and length; a read notices that the
/// file is gone or of another length, and content of the same length is left to the reader's block digests.
#[derive(Debug, Clone)]
pub struct DirectoryStore {
    root: PathBuf,
}

impl DirectoryStore {
    /// Opens the folder, and makes it, for its owner alone, where it is missing.
    pub async fn open(path: &Path) -> Result<Self, BlobError> {
        let root = path.to_path_buf();
        blocking(move || {
            create_private_dir(&root)?;
            create_private_dir(&root.join(INCOMING))?;
            Ok(Self { root })
        })
        .await
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.tenant()).join(key.id())
    }

    /// That a file is not there may be the whole volume missing, which is no word on the object.
    fn absent(&self, error: BlobError) -> BlobError {
        match error {
            BlobError::NotFound if !self.root.join(INCOMING).is_dir() => missing(),
            error => error,
        }
    }

    async fn store(&self, key: Key, mut content: ByteStream, limit: u64) -> Result<Uploaded, BlobError> {
        let (root, path) = (self.root.clone(), self.path(&key));
        let mut incoming = blocking(move || Incoming::begin(&root, &path, limit)).await?;
        let mut batch = Vec::new();
        let mut gathered = 0usize;
        while let Some(chunk) = content.next().await {
            let chunk = chunk?;
            gathered = gathered.saturating_add(chunk.len());
            batch.push(chunk);
            if gathered >= WRITE_BATCH {
                incoming = incoming.write(std::mem::take(&mut batch)).await?;
                gathered = 0;
            }
        }
        let incoming = incoming.write(batch).await?;
        let (root, tenant) = (self.root.clone(), self.root.join(key.tenant()));
        let path = self.path(&key);
        blocking(move || incoming.publish(&root, &tenant, &path, key.to_name())).await
    }

    /// Removes an object of this length.
    async fn remove(&self, key: &Key, size: u64) -> Result<(), BlobError> {
        let (path, tenant) = (self.path(key), self.root.join(key.tenant()));
        let store = self.clone();
        blocking(
            move || match open_pinned(&path, size).map_err(|e| store.absent(e)) {
                Ok(_) => {
                    fs::remove_file(&path)
                        .or_else(absent_is_fine)
                        .map_err(|e| explain(&e))?;
                    sync_dir(&tenant)
                }
                Err(BlobError::NotFound) => Ok(()),
                Err(error) => Err(error),
            },
        )
        .await
    }

    async fn read(&self, pin: &BlobPin, range: Range<u64>) -> Result<ByteStream, BlobError> {
        let path = self.path(&Key::parse(&pin.key)?);
        let size = pinned_size(&pin.etag).ok_or(BlobError::Changed)?;
        if range.end > size || range.start > range.end {
            return Err(BlobError::Changed);
        }
        let left = range.end - range.start;
        let store = self.clone();
        let file = blocking(move || {
            let mut file = open_pinned(&path, size).map_err(|e| store.absent(e))?;
            file.seek(SeekFrom::Start(range.start)).map_err(|e| explain(&e))?;
            Ok(file)
        })
        .await?;
        Ok(Box::pin(stream::try_unfold(
            (file, left),
            |(file, left)| async move {
                if left == 0 {
                    return Ok(None);
                }
                let (file, chunk) = blocking(move || read_chunk(file, left)).await?;
                let rest = left.saturating_sub(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
                Ok(Some((chunk, (file, rest))))
            },
        )))
    }
}

impl BlobStore for DirectoryStore {
    fn put<'a>(
        &'a self,
        key: &'a str,
        _content_type: &'a str,
        content: ByteStream,
        limit: u64,
    ) -> BoxFuture<'a, Result<Uploaded, BlobError>> {
        Box::pin(async move { self.store(Key::parse(key)?, content, limit).await })
    }

    fn get<'a>(
        &'a self,
        pin: &'a BlobPin,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<ByteStream, BlobError>> {
        Box::pin(self.read(pin, range))
    }

    fn list<'a>(
        &'a self,
        tenant: &'a TenantId,
        from: Option<String>,
    ) -> BoxFuture<'a, Result<Listing, BlobError>> {
        let (store, folder) = (self.clone(), self.root.join(tenant.as_str()));
        Box::pin(blocking(move || {
            match listing::list(&folder, &store.root.join(INCOMING), from.as_deref()) {
                // Nothing was ever stored for this tenant, if it is not that the whole volume is missing.
                Err(error) => match store.absent(error) {
                    BlobError::NotFound => Ok(Listing::default()),
                    error => Err(error),
                },
                listed => listed,
            }
        }))
    }

    fn delete<'a>(&'a self, pin: &'a BlobPin) -> BoxFuture<'a, Result<(), BlobError>> {
        Box::pin(async move {
            let size = pinned_size(&pin.etag).ok_or(BlobError::Changed)?;
            self.remove(&Key::parse(&pin.key)?, size).await
        })
    }

    fn remove_listed<'a>(
        &'a self,
        tenant: &'a TenantId,
        object: &'a Listed,
    ) -> BoxFuture<'a, Result<(), BlobError>> {
        Box::pin(async move {
            let key = Key::parse(&format!("{tenant}/{}", object.name))?;
            self.remove(&key, object.size).await
        })
    }

    fn sweep(&self, older_than_seconds: u64) -> BoxFuture<'_, Result<u64, BlobError>> {
        let incoming = self.root.join(INCOMING);
        Box::pin(blocking(move || {
            listing::sweep(&incoming, Duration::from_secs(older_than_seconds))
        }))
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), BlobError>> {
        let incoming = self.root.join(INCOMING);
        Box::pin(blocking(move || new_file(&incoming).map(drop)))
    }
}

/// An upload that is not whole yet. Dropped, it takes its file along.
struct Incoming {
    file: Option<NamedTempFile>,
    digester: Option<Digester>,
}

impl Incoming {
    fn begin(root: &Path, target: &Path, limit: u64) -> Result<Self, BlobError> {
        if target.try_exists().map_err(|e| explain(&e))? {
            return Err(BlobError::Changed);
        }
        Ok(Self {
            file: Some(new_file(&root.join(INCOMING))?),
            digester: Some(Digester::new(limit)),
        })
    }

    async fn write(mut self, batch: Vec<Bytes>) -> Result<Self, BlobError> {
        blocking(move || {
            if let (Some(file), Some(digester)) = (&mut self.file, &mut self.digester) {
                for chunk in &batch {
                    digester.update(chunk)?;
                    file.write_all(chunk).map_err(|e| explain(&e))?;
                }
            }
            Ok(self)
        })
        .await
    }

    /// Makes the bytes durable, then visible, then their being visible durable.
    fn publish(
        mut self,
        root: &Path,
        tenant: &Path,
        target: &Path,
        key: String,
    ) -> Result<Uploaded, BlobError> {
        let (Some(file), Some(digester)) = (self.file.take(), self.digester.take()) else {
            return Err(BlobError::SourceFailed);
        };
        file.as_file().sync_all().map_err(|e| explain(&e))?;
        create_private_dir(tenant)?;
        sync_dir(root)?;
        file.persist_noclobber(target).map_err(|e| match e.error.kind() {
            ErrorKind::AlreadyExists => BlobError::Changed,
            _ => explain(&e.error),
        })?;
        if let Err(error) = sync_dir(tenant) {
            let _ = fs::remove_file(target);
            return Err(error);
        }
        let digests = digester.finish();
        let etag = etag(&digests.sha256, digests.size);
        Ok(digests.at(BlobPin {
            key,
            version_id: None,
            etag,
        }))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Unlinking gigabytes takes its time; an upload that its caller dropped must not hold up the runtime.
        if let (Some(file), Ok(runtime)) = (self.file.take(), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(file));
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(BlobError::Unavailable("the disk's thread was stopped".to_owned())),
    }
}

fn etag(sha256: &Sha256, size: u64) -> String {
    format!("\"{}-{size}\"", sha256.to_hex())
}

/// The length that an `ETag` of ours states.
fn pinned_size(etag: &str) -> Option<u64> {
    let (digest, size) = etag.strip_prefix('"')?.strip_suffix('"')?.split_once('-')?;
    Sha256::parse_hex(digest)?;
    size.parse().ok()
}

fn open_pinned(path: &Path, size: u64) -> Result<File, BlobError> {
    let file = File::open(path).map_err(|e| explain(&e))?;
    let found = file.metadata().map_err(|e| explain(&e))?;
    if !found.is_file() {
        return Err(BlobError::NotFound);
    }
    if found.len() == size {
        Ok(file)
    } else {
        Err(BlobError::Changed)
    }
}

/// The next bytes of an open file. One that ends early was cut after it was opened.
fn read_chunk(file: File, left: u64) -> Result<(File, Bytes), BlobError> {
    let most = usize::try_from(left).unwrap_or(READ_SIZE).min(READ_SIZE);
    let mut chunk = vec![0; most];
    match (&file).read_exact(&mut chunk) {
        Ok(()) => Ok((file, Bytes::from(chunk))),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(BlobError::Changed),
        Err(error) => Err(explain(&error)),
    }
}

/// A file of its own name for its owner alone, removed when dropped.
fn new_file(folder: &Path) -> Result<NamedTempFile, BlobError> {
    tempfile::Builder::new()
        .prefix("")
        .tempfile_in(folder)
        .map_err(|e| match e.kind() {
            ErrorKind::NotFound => missing(),
            _ => explain(&e),
        })
}

fn create_private_dir(path: &Path) -> Result<(), BlobError> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path).map_err(|e| explain(&e))
}

fn sync_dir(path: &Path) -> Result<(), BlobError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| explain(&e))
}

fn missing() -> BlobError {
    BlobError::Unavailable("the directory is missing".to_owned())
}

fn absent_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}

fn explain(error: &io::Error) -> BlobError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => BlobError::NotFound,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => BlobError::Full,
        kind => BlobError::Unavailable(format!("the disk answers: {kind}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_from_a_broken_one() {
        let full = io::Error::from_raw_os_error(28);
        assert_eq!(explain(&full), BlobError::Full);
        let broken = io::Error::from_raw_os_error(5);
        assert!(matches!(explain(&broken), BlobError::Unavailable(_)));
    }

    #[test]
    fn an_etag_states_the_length() {
        assert_eq!(pinned_size(&etag(&Sha256([7; 32]), 42)), Some(42));
        for text in ["", "\"\"", "\"0x8D\"", "42", "\"zz-42\""] {
            assert_eq!(pinned_size(text), None, "{text}");
        }
    }
}
