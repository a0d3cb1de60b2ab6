//! The log folder: `<session>/<node>.<index>.<number>.<out|err>`. Not in the ledger: log bytes stream
//! here while attempts run and stay when the agent is gone.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use skein_domain::{AttemptKey, SessionId};
use skein_wire::lane::{LogChunk, Stream};
use tokio::sync::broadcast;

/// Announcements kept for slow followers; one that falls behind looks at the files instead.
const ANNOUNCED_MAX: usize = 4096;

/// The folder.
#[derive(Debug)]
pub(crate) struct Logs {
    dir: std::sync::RwLock<PathBuf>,
    grown: broadcast::Sender<AttemptKey>,
}

impl Logs {
    /// Opens, or makes, the folder.
    pub(crate) fn open(dir: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(Self { dir: std::sync::RwLock::new(dir.to_owned()), grown: broadcast::channel(ANNOUNCED_MAX).0 })
    }

    /// From now on logs go to another folder; the old one stays as it is.
    pub(crate) fn move_to(&self, dir: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        *self.dir.write().unwrap_or_else(std::sync::PoisonError::into_inner) = dir.to_owned();
        Ok(())
    }

    /// Announces attempts whose log grew.
    pub(crate) fn grown(&self) -> broadcast::Receiver<AttemptKey> {
        self.grown.subscribe()
    }

    fn session_dir(&self, session: SessionId) -> PathBuf {
        let dir = self.dir.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        dir.join(session.to_string())
    }

    /// Where a stream is.
    pub(crate) fn path(&self, attempt: AttemptKey, stream: Stream) -> PathBuf {
        let end = match stream {
            Stream::Out => "out",
            Stream::Err => "err",
        };
        let item = attempt.item;
        self.session_dir(item.session()).join(format!("{}.{}.{}.{end}", item.node.node, item.index, attempt.number))
    }

    /// Appends a chunk where it belongs. What is already there is not written twice; a hole is named.
    pub(crate) fn append(&self, chunk: &LogChunk) -> std::io::Result<()> {
        let path = self.path(chunk.attempt, chunk.stream);
        let mut options = std::fs::OpenOptions::new();
        options.create(true).append(true);
        let mut file = match options.open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                std::fs::create_dir_all(self.session_dir(chunk.attempt.item.session()))?;
                options.open(&path)?
            }
            other => other?,
        };
        let have = file.metadata()?.len();
        if chunk.offset > have {
            // The agent gave up sending these bytes (its log limit, or a restart of the engine's disk).
            let missing = chunk.offset - have;
            writeln!(file, "[skein: {missing} bytes of this log are missing]")?;
        }
        let skip = usize::try_from(have.saturating_sub(chunk.offset)).unwrap_or(usize::MAX);
        if let Some(fresh) = chunk.bytes.get(skip..).filter(|fresh| !fresh.is_empty()) {
            file.write_all(fresh)?;
            // Nobody may be following.
            self.grown.send(chunk.attempt).map(|_| ()).unwrap_or_default();
        }
        Ok(())
    }

    /// Bytes of a stream from `offset`, at most `limit`; empty when there are none.
    pub(crate) fn read(
        &self,
        attempt: AttemptKey,
        stream: Stream,
        offset: u64,
        limit: usize,
    ) -> std::io::Result<Vec<u8>> {
        let mut file = match std::fs::File::open(self.path(attempt, stream)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(limit as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Removes the oldest sessions' logs until at most `limit` bytes are left; says whose. Session ids
    /// grow with time.
    pub(crate) fn shrink(&self, limit: u64) -> std::io::Result<Vec<SessionId>> {
        let dir = self.dir.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let mut sessions = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let Some(session) = entry.file_name().to_str().and_then(|n| n.parse::<SessionId>().ok()) else { continue };
            let mut bytes = 0;
            for file in std::fs::read_dir(entry.path())? {
                bytes += file?.metadata()?.len();
            }
            sessions.push((session, bytes));
        }
        sessions.sort_unstable();
        let mut total: u64 = sessions.iter().map(|(_, bytes)| bytes).sum();
        let mut removed = Vec::new();
        for (session, bytes) in sessions {
            if total <= limit {
                break;
            }
            self.remove(session)?;
            total -= bytes;
            removed.push(session);
        }
        Ok(removed)
    }

    /// The folder of a session's logs.
    pub(crate) fn of_session(&self, session: SessionId) -> PathBuf {
        self.session_dir(session)
    }

    /// Removes a session's logs.
    pub(crate) fn remove(&self, session: SessionId) -> std::io::Result<()> {
        match std::fs::remove_dir_all(self.session_dir(session)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_land_once_and_holes_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::open(dir.path()).unwrap();
        let attempt: AttemptKey = "s-1.0.0.1".parse().unwrap();
        let chunk = |offset, bytes: &[u8]| LogChunk { attempt, stream: Stream::Out, offset, bytes: bytes.to_vec() };
        logs.append(&chunk(0, b"hello ")).unwrap();
        logs.append(&chunk(0, b"hello world")).unwrap();
        logs.append(&chunk(6, b"world")).unwrap();
        assert_eq!(logs.read(attempt, Stream::Out, 0, 100).unwrap(), b"hello world");
        assert_eq!(logs.read(attempt, Stream::Out, 6, 2).unwrap(), b"wo");
        logs.append(&chunk(20, b"!")).unwrap();
        let text = String::from_utf8(logs.read(attempt, Stream::Out, 11, 100).unwrap()).unwrap();
        assert!(text.contains("9 bytes of this log are missing") && text.ends_with('!'), "{text}");
        assert!(logs.read(attempt, Stream::Err, 0, 10).unwrap().is_empty());
        let newer: AttemptKey = "s-2.0.0.1".parse().unwrap();
        logs.append(&LogChunk { attempt: newer, stream: Stream::Out, offset: 0, bytes: b"new".to_vec() }).unwrap();
        assert_eq!(logs.shrink(3).unwrap(), [attempt.item.session()], "the oldest go first");
        assert_eq!(logs.read(newer, Stream::Out, 0, 10).unwrap(), b"new");
    }
}
