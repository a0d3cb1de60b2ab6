//! The content folder: files by BLAKE3 digest. A file appears under its name only when it is complete
//! and its digest is checked; equal content is stored once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use skein_domain::Digest;
use tokio::io::AsyncWriteExt as _;

/// Content younger than this is never collected: whoever uploaded it may not have referred to it yet, s.
pub(crate) const COLLECT_GRACE_S: u64 = 3600;

/// What can go wrong with content.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContentError {
    /// Not there.
    #[error("there is no content with digest {0}: upload it first")]
    NotFound(Digest),
    /// The bytes are others than announced.
    #[error("the bytes have digest {found}, not {announced}: upload them again")]
    Mismatch {
        /// As announced.
        announced: Digest,
        /// As found.
        found: String,
    },
    /// Too large.
    #[error("the file is over the limit of {limit} bytes (content.file_bytes_max)")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The folder is full.
    #[error(
        "the content folder holds {held} bytes; its limit is {limit} (content.bytes_max): raise it, or shorten retention.sessions_hours"
    )]
    Full {
        /// Bytes held.
        held: u64,
        /// The limit.
        limit: u64,
    },
    /// The sender stopped.
    #[error("the upload broke off: {0}")]
    BrokenOff(String),
    /// The disk.
    #[error("content folder: {0}")]
    Io(#[from] std::io::Error),
}

/// The folder.
#[derive(Debug)]
pub(crate) struct Content {
    dir: PathBuf,
    limit: AtomicU64,
    limit_all: AtomicU64,
    /// Bytes held, as counted at the start and at each collection, plus what came since.
    held: AtomicU64,
    uploads: AtomicU64,
    /// Where content was kept before: still read, never written.
    earlier: Option<std::sync::Arc<Content>>,
}

impl Content {
    /// Opens, or makes, the folder; removes what broken-off uploads left.
    pub(crate) fn open(dir: &Path, limit: u64) -> std::io::Result<Self> {
        let uploading = dir.join("uploading");
        if uploading.exists() {
            std::fs::remove_dir_all(&uploading)?;
        }
        std::fs::create_dir_all(&uploading)?;
        let content = Self {
            dir: dir.to_owned(),
            limit: limit.into(),
            limit_all: AtomicU64::new(u64::MAX),
            held: AtomicU64::new(0),
            uploads: AtomicU64::new(0),
            earlier: None,
        };
        let mut held = 0;
        content.visit(|_, meta| {
            held += meta.len();
            Ok(())
        })?;
        content.held.store(held, Ordering::Relaxed);
        Ok(content)
    }

    /// Content that is not here is looked for there.
    pub(crate) fn with_earlier(mut self, earlier: std::sync::Arc<Self>) -> Self {
        self.earlier = Some(earlier);
        self
    }

    /// Where content that is there can be read.
    pub(crate) fn find(&self, digest: &Digest) -> Result<PathBuf, ContentError> {
        let path = self.path(digest);
        if path.exists() {
            return Ok(path);
        }
        self.earlier.as_ref().ok_or_else(|| ContentError::NotFound(digest.clone()))?.find(digest)
    }

    /// Changes the limits of one file and of the whole folder, bytes.
    pub(crate) fn set_limits(&self, file: u64, all: u64) {
        self.limit.store(file, Ordering::Relaxed);
        self.limit_all.store(all, Ordering::Relaxed);
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(&digest.as_str()[..2]).join(digest.as_str())
    }

    /// Bytes of content that is there.
    pub(crate) fn size(&self, digest: &Digest) -> Result<u64, ContentError> {
        Ok(std::fs::metadata(self.find(digest)?)?.len())
    }

    /// Takes content; checks its digest before it gets its name.
    pub(crate) async fn put<E: std::fmt::Display>(
        &self,
        digest: &Digest,
        mut body: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<(), ContentError> {
        if self.size(digest).is_ok() {
            return Ok(());
        }
        let (held, limit) = (self.held.load(Ordering::Relaxed), self.limit_all.load(Ordering::Relaxed));
        if held >= limit {
            return Err(ContentError::Full { held, limit });
        }
        let number = self.uploads.fetch_add(1, Ordering::Relaxed);
        let temporary = self.dir.join("uploading").join(number.to_string());
        let result = self.receive(digest, &mut body, &temporary).await;
        if result.is_err() {
            tokio::fs::remove_file(&temporary).await.or_else(ignore_missing)?;
        }
        result
    }

    async fn receive<E: std::fmt::Display>(
        &self,
        digest: &Digest,
        body: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
        temporary: &Path,
    ) -> Result<(), ContentError> {
        let limit = self.limit.load(Ordering::Relaxed);
        let mut file = tokio::fs::File::create(temporary).await?;
        let mut hasher = blake3::Hasher::new();
        let mut size = 0_u64;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|e| ContentError::BrokenOff(e.to_string()))?;
            size += piece.len() as u64;
            if size > limit {
                return Err(ContentError::TooLarge { limit });
            }
            hasher.update(&piece);
            file.write_all(&piece).await?;
        }
        let found = hasher.finalize().to_hex();
        if found.as_str() != digest.as_str() {
            return Err(ContentError::Mismatch { announced: digest.clone(), found: found.to_string() });
        }
        // A result may refer to it in the next transaction: it must be on disk by then.
        file.sync_all().await?;
        drop(file);
        let path = self.path(digest);
        if let Some(parent) = path.parent() {
            tokio::fs::create_dir_all(parent).await?;
        }
        tokio::fs::rename(temporary, path).await?;
        self.held.fetch_add(size, Ordering::Relaxed);
        Ok(())
    }

    /// Removes content that nothing refers to and that is older than the grace; returns files and
    /// bytes removed. `now_s` is seconds since the epoch.
    pub(crate) fn collect(&self, referenced: &BTreeSet<Digest>, now_s: u64) -> std::io::Result<(u64, u64)> {
        let (mut files, mut bytes, mut held) = (0, 0, 0);
        self.visit(|digest, meta| {
            let modified = meta.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
            if referenced.contains(&digest) || modified + COLLECT_GRACE_S > now_s {
                held += meta.len();
                return Ok(());
            }
            std::fs::remove_file(self.path(&digest))?;
            files += 1;
            bytes += meta.len();
            Ok(())
        })?;
        self.held.store(held, Ordering::Relaxed);
        Ok((files, bytes))
    }

    /// Every file of the folder.
    fn visit(&self, mut each: impl FnMut(Digest, std::fs::Metadata) -> std::io::Result<()>) -> std::io::Result<()> {
        for folder in std::fs::read_dir(&self.dir)? {
            let folder = folder?.path();
            if !folder.is_dir() || folder.ends_with("uploading") {
                continue;
            }
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                let named = entry.file_name();
                if let Some(digest) = named.to_str().and_then(|name| Digest::new(name).ok()) {
                    each(digest, entry.metadata()?)?;
                }
            }
        }
        Ok(())
    }
}

fn ignore_missing(e: std::io::Error) -> std::io::Result<()> {
    if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(bytes: &'static [u8]) -> impl Stream<Item = Result<Bytes, String>> + Unpin {
        futures_util::stream::iter([Ok(Bytes::from_static(bytes))])
    }

    fn digest_of(bytes: &[u8]) -> Digest {
        Digest::new(blake3::hash(bytes).to_hex().as_str()).unwrap()
    }

    #[tokio::test]
    async fn content_is_checked_stored_once_limited_and_collected() {
        let dir = tempfile::tempdir().unwrap();
        let content = Content::open(dir.path(), 8).unwrap();
        let (kept, loose) = (digest_of(b"kept"), digest_of(b"loose"));
        content.put(&kept, body(b"kept")).await.unwrap();
        content.put(&kept, body(b"kept")).await.unwrap();
        content.put(&loose, body(b"loose")).await.unwrap();
        assert_eq!(content.size(&kept).unwrap(), 4);
        let wrong = content.put(&digest_of(b"x"), body(b"y")).await.unwrap_err();
        assert!(matches!(wrong, ContentError::Mismatch { .. }));
        let large = content.put(&digest_of(b"123456789"), body(b"123456789")).await.unwrap_err();
        assert!(large.to_string().contains("8 bytes"));
        assert_eq!(std::fs::read_dir(dir.path().join("uploading")).unwrap().count(), 0);
        let all = BTreeSet::from([kept.clone()]);
        let now_s = u64::try_from(crate::clock::now().0 / 1_000_000).unwrap();
        assert_eq!(content.collect(&all, now_s).unwrap(), (0, 0), "within the grace");
        assert_eq!(content.collect(&all, now_s + COLLECT_GRACE_S + 1).unwrap(), (1, 5));
        content.set_limits(8, 4);
        let full = content.put(&digest_of(b"y"), body(b"y")).await.unwrap_err();
        assert!(full.to_string().contains("content.bytes_max"), "{full}");
        assert!(content.size(&loose).is_err() && content.size(&kept).is_ok());
    }
}
