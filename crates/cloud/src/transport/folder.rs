//! A folder on this machine.
//!
//! ```text
//! NAME is there --compare--> equal: nothing is written | other: refused, or replaced at the end
//! .NAME.CONTENT.part --compare and write what differs--> sync --> rename to NAME
//! ```
//! Nothing is remembered and nothing trusted: bytes that stand there already are read and compared, so a part that a
//! crash of the machine left with holes is completed like any other. Zeros stay holes.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use skein_image::bytes::FileBytes;
use skein_image::out::Pieces;
use skein_image::{Bytes as _, Progress};
use tokio_util::sync::CancellationToken;

use super::{Control, Destination, Remembers, Source, Transport, Underway, Uploaded};
use crate::{Error, Result};

/// Images as files in a folder.
#[derive(Debug, Clone)]
pub struct Folder {
    dir: PathBuf,
}

impl Folder {
    /// The folder must exist.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn path(&self, to: &Destination) -> Result<PathBuf> {
        to.check()?;
        if to.name.contains('/') || to.name.starts_with('.') {
            return Err(Error::Usage(format!("'{}' is no name of a file in a folder: give one without '/'", to.name)));
        }
        Ok(self.dir.join(&to.name))
    }

    fn is_part(to: &Destination, name: &str) -> bool {
        name.strip_prefix(&format!(".{}.", to.name)).is_some_and(|rest| {
            rest.strip_suffix(".part").is_some_and(|id| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()))
        })
    }

    fn remove_parts(&self, to: &Destination) -> Result<()> {
        let failed = |e| Error::io(format!("removing what is left in {}", self.dir.display()))(e);
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if Self::is_part(to, &entry.file_name().to_string_lossy()) {
                std::fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }
}

impl Transport for Folder {
    fn name(&self) -> &'static str {
        "file"
    }

    fn upload<'a>(
        &'a self,
        source: Arc<dyn Source>,
        to: &'a Destination,
        _: &'a mut dyn Remembers,
        control: &'a Control,
    ) -> BoxFuture<'a, Result<Uploaded>> {
        Box::pin(async move {
            let path = self.path(to)?;
            let part = self.dir.join(format!(".{}.{}.part", to.name, source.content()));
            let stop = control.cancel.child_token();
            let _stops = stop.clone().drop_guard();
            let writer =
                Writer { source, path: path.clone(), part, replace: to.replace, control: control.clone(), stop };
            let written = tokio::task::spawn_blocking(move || writer.write()).await;
            let written = written.map_err(|e| Error::io("writing the image")(std::io::Error::other(e)))??;
            let underway = Underway::new(control);
            let reference = path.display().to_string();
            Ok(match written {
                None => underway.already(reference),
                Some(sent_bytes) => Uploaded { sent_bytes, ..underway.uploaded(reference) },
            })
        })
    }

    fn abandon<'a>(&'a self, to: &'a Destination, _: &'a mut dyn Remembers) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.path(to)?;
            self.remove_parts(to)
        })
    }
}

struct Writer {
    source: Arc<dyn Source>,
    path: PathBuf,
    part: PathBuf,
    replace: bool,
    control: Control,
    stop: CancellationToken,
}

impl Progress for Writer {
    fn is_cancelled(&self) -> bool {
        self.stop.is_cancelled()
    }
}

impl Writer {
    /// Bytes written; none when the file was there.
    fn write(&self) -> Result<Option<u64>> {
        match File::open(&self.path) {
            Ok(file) => {
                if self.is_in(&file)? {
                    return Ok(None);
                }
                if !self.replace {
                    return Err(Error::Occupied { what: self.path.display().to_string() });
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(format!("opening {}", self.path.display()))(e)),
        }
        let failed = |e| Error::io(format!("writing {}", self.part.display()))(e);
        let mut open = OpenOptions::new();
        let file = open.read(true).write(true).create(true).truncate(false).open(&self.part).map_err(failed)?;
        let mut to = Comparing::new(&file, self)?;
        self.source.write(&mut to, self).map_err(cancelled)?;
        let written = to.written;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&self.part, &self.path).map_err(failed)?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(Some(written))
    }

    /// Does the file hold the image already?
    fn is_in(&self, file: &File) -> Result<bool> {
        let mut to = Comparing { read_only: true, ..Comparing::new(file, self)? };
        match self.source.write(&mut to, self) {
            Ok(()) => Ok(true),
            Err(skein_image::Error::Cancelled) if !self.stop.is_cancelled() => Ok(false),
            Err(error) => Err(cancelled(error)),
        }
    }
}

fn cancelled(error: skein_image::Error) -> Error {
    match error {
        skein_image::Error::Cancelled => Error::Cancelled,
        error => Error::Image(error),
    }
}

/// Writes what differs. `read_only`: the first difference ends it.
struct Comparing<'a> {
    file: &'a File,
    there: FileBytes,
    writer: &'a Writer,
    read_only: bool,
    at: u64,
    written: u64,
    buffer: Vec<u8>,
}

impl<'a> Comparing<'a> {
    fn new(file: &'a File, writer: &'a Writer) -> Result<Self> {
        let there = FileBytes::new(file.try_clone().map_err(Error::io("opening the image again"))?)?;
        Ok(Self { file, there, writer, read_only: false, at: 0, written: 0, buffer: Vec::new() })
    }

    fn same(&mut self, offset: u64, bytes: &[u8]) -> skein_image::Result<bool> {
        if offset + bytes.len() as u64 > self.there.len() {
            return Ok(false);
        }
        self.buffer.resize(bytes.len(), 0);
        self.there.read_at(offset, &mut self.buffer)?;
        Ok(self.buffer == bytes)
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) -> skein_image::Result<()> {
        if self.same(offset, bytes)? {
            return Ok(());
        }
        if self.read_only {
            return Err(skein_image::Error::Cancelled);
        }
        self.file.write_all_at(bytes, offset).map_err(skein_image::Error::io("writing the image"))?;
        self.written += bytes.len() as u64;
        self.writer.control.progress.sent(bytes.len() as u64);
        Ok(())
    }

    /// What lies between two pieces must be zeros there too; where it is a hole, nothing is to be done.
    fn zeros_to(&mut self, end: u64) -> skein_image::Result<()> {
        const ZEROS: &[u8] = &[0; 1 << 16];
        let end = end.min(self.there.len());
        while self.at < end {
            let (hole, len) = self.there.hole_at(self.at)?;
            let len = len.min(end - self.at);
            if hole {
                self.at += len;
                continue;
            }
            let len = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROS.len());
            self.put(self.at, &ZEROS[..len])?;
            self.at += len as u64;
        }
        Ok(())
    }
}

impl Pieces for Comparing<'_> {
    fn piece(&mut self, offset: u64, bytes: &[u8]) -> skein_image::Result<()> {
        self.zeros_to(offset)?;
        self.put(offset, bytes)?;
        self.at = offset + bytes.len() as u64;
        self.writer.control.progress.done(self.at, self.writer.source.len_known());
        Ok(())
    }
    fn finish(&mut self, len: u64) -> skein_image::Result<()> {
        self.zeros_to(len)?;
        if self.read_only {
            return if self.there.len() == len { Ok(()) } else { Err(skein_image::Error::Cancelled) };
        }
        self.file.set_len(len).map_err(skein_image::Error::io("setting the image's length"))
    }
}
