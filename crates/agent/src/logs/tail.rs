//! One attempt's log: two files that grow, and what of them the engine has.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use skein_wire::lane::Stream;

use super::{LOG_BYTES_MAX, Redactor};

/// Redacted bytes held in memory for one stream until the engine takes them, bytes; the rest waits
/// in the file.
const PENDING_MAX: usize = 1 << 20;

/// One stream of one attempt.
pub(super) struct Tail {
    pub(super) stream: Stream,
    path: PathBuf,
    file: Option<File>,
    /// How far the file was read.
    read_to: u64,
    redactor: Redactor,
    /// Redacted, not yet accepted.
    pending: Vec<u8>,
    /// Bytes of the redacted stream that the engine has.
    accepted: u64,
    at_end: bool,
    finished: bool,
    cut: bool,
}

impl Tail {
    pub(super) fn new(stream: Stream, path: PathBuf, redactor: Redactor) -> Self {
        Self {
            stream,
            path,
            file: None,
            read_to: 0,
            redactor,
            pending: Vec::new(),
            accepted: 0,
            at_end: false,
            finished: false,
            cut: false,
        }
    }

    /// Reads what is new. `left` is what the attempt's log may still grow by; `over` says that the
    /// attempt has ended and its files grow no more.
    pub(super) fn read(&mut self, left: &mut u64, over: bool) -> std::io::Result<()> {
        if self.file.is_none() {
            // Read and write: a log that is cut is also cut on the disk.
            self.file = OpenOptions::new().read(true).write(true).open(&self.path).ok();
        }
        let Some(file) = &self.file else {
            self.at_end = true;
            self.finish_if(over);
            return Ok(());
        };
        if self.cut {
            // The attempt appends: it goes on at the start of the emptied file.
            if !over && file.metadata()?.len() > LOG_BYTES_MAX {
                file.set_len(0)?;
            }
            return Ok(());
        }
        self.at_end = false;
        let mut buffer = vec![0; 64 * 1024];
        while self.pending.len() < PENDING_MAX {
            let room = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
            if room == 0 {
                if file.metadata()?.len() > self.read_to {
                    self.cut_off();
                } else {
                    self.at_end = true;
                }
                break;
            }
            let read = file.read_at(&mut buffer[..room], self.read_to)?;
            if read == 0 {
                self.at_end = true;
                break;
            }
            self.read_to += read as u64;
            *left -= read as u64;
            self.redactor.push(&buffer[..read], &mut self.pending);
        }
        self.finish_if(over);
        Ok(())
    }

    fn finish_if(&mut self, over: bool) {
        if over && self.at_end && !self.finished {
            self.redactor.finish(&mut self.pending);
            self.finished = true;
        }
    }

    fn cut_off(&mut self) {
        self.redactor.finish(&mut self.pending);
        let line = format!(
            "\n[skein: this log was cut at {} MiB; send less to it, or write an output file]\n",
            LOG_BYTES_MAX >> 20
        );
        self.pending.extend_from_slice(line.as_bytes());
        (self.cut, self.finished, self.at_end) = (true, true, true);
    }

    /// Up to `most` bytes to send, and where they belong.
    pub(super) fn next(&self, most: usize) -> Option<(u64, &[u8])> {
        let bytes = &self.pending[..self.pending.len().min(most)];
        (!bytes.is_empty()).then_some((self.accepted, bytes))
    }

    /// The engine has the first `bytes` of what is pending.
    pub(super) fn accept(&mut self, bytes: usize) {
        self.pending.drain(..bytes);
        self.accepted += bytes as u64;
    }

    /// Bytes that wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Everything is read and accepted.
    pub(super) fn is_done(&self) -> bool {
        self.finished && self.pending.is_empty()
    }

    pub(super) fn was_cut(&self) -> bool {
        self.cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_is_cut_at_its_limit_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        std::fs::write(&path, "0123456789").unwrap();
        let mut tail = Tail::new(Stream::Out, path.clone(), Redactor::new([]));
        let mut left = 8;
        tail.read(&mut left, false).unwrap();
        tail.read(&mut left, false).unwrap();
        let (offset, bytes) = tail.next(usize::MAX).unwrap();
        assert_eq!(offset, 0);
        assert!(bytes.starts_with(b"01234567\n[skein: this log was cut"), "{}", String::from_utf8_lossy(bytes));
        assert!(tail.was_cut());
        let all = tail.waiting();
        tail.accept(all);
        assert!(tail.is_done());
    }

    #[test]
    fn exactly_the_limit_is_not_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        std::fs::write(&path, "01234567").unwrap();
        let mut tail = Tail::new(Stream::Out, path, Redactor::new([]));
        let mut left = 8;
        tail.read(&mut left, true).unwrap();
        tail.read(&mut left, true).unwrap();
        assert!(!tail.was_cut());
        assert_eq!(tail.next(100).unwrap().1, b"01234567");
    }

    #[test]
    fn a_secret_is_redacted_while_the_file_grows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.log");
        let mut file = std::fs::File::create(&path).unwrap();
        let mut tail = Tail::new(Stream::Out, path, Redactor::new(["hunter2"]));
        let mut left = 1000;
        file.write_all(b"pass hunt").unwrap();
        tail.read(&mut left, false).unwrap();
        assert_eq!(tail.next(100).unwrap(), (0, &b"pass "[..]));
        tail.accept(5);
        file.write_all(b"er2!").unwrap();
        tail.read(&mut left, true).unwrap();
        assert_eq!(tail.next(100).unwrap(), (5, &b"***!"[..]));
        tail.accept(4);
        assert!(tail.is_done());
    }
}
