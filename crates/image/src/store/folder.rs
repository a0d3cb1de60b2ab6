//! A folder as a shelf. Objects appear by rename.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::chunk;
use super::shelf::{Entry, Guard, Shelf};
use crate::{Error, Result};

/// Names of files under way; a collection removes what a killed writer left.
const PART: &str = ".part-";

/// A folder of objects.
#[derive(Debug, Clone)]
pub struct Folder {
    dir: PathBuf,
}

impl Folder {
    /// The folder `dir`, made if it is not there.
    pub fn open(dir: &Path) -> Result<Self> {
        for part in ["chunks", "images"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).map_err(Error::io(format!("making {}", path.display())))?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    fn write(&self, name: &str, bytes: &[u8], sync: bool) -> Result<PathBuf> {
        let path = self.dir.join(name);
        let what = || format!("writing {}", path.display());
        let folder = path.parent().unwrap_or(&self.dir);
        fs::create_dir_all(folder).map_err(Error::io(what()))?;
        let mut part = tempfile::Builder::new().prefix(PART).tempfile_in(folder).map_err(Error::io(what()))?;
        part.write_all(bytes).map_err(Error::io(what()))?;
        if sync {
            part.as_file().sync_all().map_err(Error::io(what()))?;
        }
        part.persist(&path).map_err(|e| Error::io(what())(e.error))?;
        Ok(folder.to_owned())
    }

    fn list_into(&self, under: &str, begin: &str, all: &mut Vec<Entry>) -> Result<()> {
        let dir = self.dir.join(under);
        let fail = |e| Error::io(format!("listing {}", dir.display()))(e);
        for entry in fs::read_dir(&dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = format!("{under}/{}", entry.file_name().to_string_lossy());
            let meta = entry.metadata().map_err(fail)?;
            if meta.is_dir() {
                self.list_into(&name, begin, all)?;
            } else if name.starts_with(begin) {
                all.push(Entry { name, bytes: meta.len() });
            }
        }
        Ok(())
    }
}

impl Shelf for Folder {
    fn place(&self) -> String {
        self.dir.display().to_string()
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.dir.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(format!("reading {}", path.display()))(e)),
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        sync_dir(&self.write(name, bytes, true)?)
    }

    /// Without a sync each: one of the whole file system comes before an image is named.
    fn put_chunks(&self, chunks: Vec<(String, Vec<u8>)>) -> Result<()> {
        chunks.iter().try_for_each(|(name, bytes)| self.write(name, bytes, false).map(|_| ()))
    }

    /// Each is read: one that a power cut left empty or short is written again.
    fn missing(&self, names: &[String]) -> Result<Vec<bool>> {
        names.iter().map(|name| Ok(!self.get(name)?.is_some_and(|packed| chunk::is_whole(name, &packed)))).collect()
    }

    fn sync(&self) -> Result<()> {
        let file = File::open(&self.dir).map_err(Error::io("opening the store"))?;
        rustix::fs::syncfs(&file).map_err(|e| Error::io("syncing the store")(e.into()))
    }

    fn list(&self, begin: &str) -> Result<Vec<Entry>> {
        let under = begin.split('/').next().unwrap_or(begin);
        let mut all = Vec::new();
        self.list_into(under, begin, &mut all)?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.dir.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("removing {}", path.display()))(e))
            }
            _ if name.starts_with("images/") => sync_dir(path.parent().unwrap_or(&self.dir)),
            _ => Ok(()),
        }
    }

    fn lock(&self, alone: bool) -> Result<Guard> {
        let path = self.dir.join("lock");
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        let file = opened.map_err(Error::io(format!("opening {}", path.display())))?;
        let taken = if alone { file.try_lock() } else { file.try_lock_shared() };
        match taken {
            Ok(()) => Ok(Box::new(file)),
            Err(fs::TryLockError::WouldBlock) => {
                let who = if alone { "an import or an export is" } else { "a collection of chunks is" };
                Err(Error::Usage(format!("{who} under way in {}: try again when it is over", self.dir.display())))
            }
            Err(fs::TryLockError::Error(source)) => Err(Error::io(format!("locking {}", path.display()))(source)),
        }
    }
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io(format!("syncing {}", dir.display())))
}
