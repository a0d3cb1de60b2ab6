//! Each attempt has a folder of its own while it runs:
//!
//! ```text
//! <agent's dir>/attempts/<n>/work     working folder, HOME; inputs and outputs
//!                            tmp      TMPDIR
//!                            out.log  err.log
//! ```
//! Making and removing directories costs more than starting a process (on ext4 60 us to make one,
//! 140 us to remove it), so a folder that was emptied is used again by a later attempt: nothing of
//! the earlier one can be left, since the spawner ends every process of it before it reports its end.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

/// Empty folders kept for later attempts.
pub(crate) const FOLDERS_KEPT_MAX: usize = 64;

const MODE: u32 = 0o700;

struct Returned {
    number: u64,
    name: String,
    tainted: bool,
}

/// Makes folders, and empties those that come back on a thread of its own.
#[derive(Debug)]
pub(crate) struct Folders {
    root: PathBuf,
    free: Arc<Mutex<Vec<u64>>>,
    keep: bool,
    next: AtomicU64,
    janitor: Sender<Returned>,
}

impl Folders {
    /// Folders under `dir`. What an earlier agent left there is removed; with `keep`, folders of
    /// ended attempts move to `<dir>/kept/` instead of being emptied.
    pub(crate) fn open(dir: &Path, keep: bool) -> io::Result<Self> {
        let root = dir.join("attempts");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        private_dirs(&root)?;
        let free = Arc::new(Mutex::new(Vec::new()));
        let (janitor, returned) = channel::<Returned>();
        let kept = keep.then(|| dir.join("kept"));
        let (shared, attempts) = (Arc::clone(&free), root.clone());
        std::thread::Builder::new().name("janitor".into()).stack_size(256 * 1024).spawn(move || {
            for back in returned {
                let path = attempts.join(back.number.to_string());
                if let Some(kept) = &kept {
                    private_dirs(kept).and_then(|()| fs::rename(&path, kept.join(&back.name))).ok();
                } else if !back.tainted && lock(&shared).len() < FOLDERS_KEPT_MAX && emptied(&path).is_ok_and(|e| e) {
                    lock(&shared).push(back.number);
                } else if let Err(error) = fs::remove_dir_all(&path) {
                    tracing::warn!(path = %path.display(), %error, "cannot remove an attempt's folder");
                }
            }
        })?;
        Ok(Self { root, free, keep, next: AtomicU64::new(0), janitor })
    }

    /// A folder with empty `work` and `tmp`; `name` is what it is called when it is kept.
    pub(crate) fn take(&self, name: String) -> io::Result<Folder> {
        let free = lock(&self.free).pop();
        let number = free.unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed));
        let path = self.root.join(number.to_string());
        if free.is_none() {
            private_dirs(&path.join("work"))?;
            private_dirs(&path.join("tmp"))?;
        }
        let free = (!self.keep).then(|| Arc::clone(&self.free));
        Ok(Folder { path, number, name, state: AtomicU8::new(USED), free, janitor: self.janitor.clone() })
    }

    /// Removes everything; for the end of the agent.
    pub(crate) fn remove(&self) {
        fs::remove_dir_all(&self.root).ok();
    }
}

/// The folder of one attempt; goes back when dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    number: u64,
    name: String,
    state: AtomicU8,
    free: Option<Arc<Mutex<Vec<u64>>>>,
    janitor: Sender<Returned>,
}

/// It has to be emptied.
const USED: u8 = 0;
/// It is as it was.
const PRISTINE: u8 = 1;
/// It must not be used again.
const TAINTED: u8 = 2;

impl Folder {
    /// The working folder.
    pub fn work(&self) -> PathBuf {
        self.path.join("work")
    }
    /// For temporary files.
    pub fn tmp(&self) -> PathBuf {
        self.path.join("tmp")
    }
    /// Standard output.
    pub fn out_log(&self) -> PathBuf {
        self.path.join("out.log")
    }
    /// Standard error.
    pub fn err_log(&self) -> PathBuf {
        self.path.join("err.log")
    }
    /// Something may still use it: it is removed and never used again.
    pub fn taint(&self) {
        self.state.store(TAINTED, Ordering::Relaxed);
    }
    /// Nothing was left in it, so nobody has to look again.
    pub(crate) fn pristine(&self) {
        self.state.store(PRISTINE, Ordering::Relaxed);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let state = self.state.load(Ordering::Relaxed);
        if let (PRISTINE, Some(free)) = (state, &self.free) {
            lock(free).push(self.number);
            return;
        }
        let tainted = state == TAINTED;
        // Without a janitor the agent is ending and removes everything itself.
        self.janitor.send(Returned { number: self.number, name: std::mem::take(&mut self.name), tainted }).ok();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Makes a folder that only its owner can enter, and those above it.
pub(crate) fn private_dirs(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(MODE).create(path)
}

/// Empties a folder for its next use; false when the attempt changed what cannot be put back.
fn emptied(path: &Path) -> io::Result<bool> {
    for name in ["out.log", "err.log"] {
        let file = path.join(name);
        if file.symlink_metadata().is_ok_and(|m| m.len() > 0 || !m.is_file()) {
            fs::remove_file(file)?;
        }
    }
    for name in ["work", "tmp"] {
        let folder = path.join(name);
        if !is_unchanged(&folder) {
            return Ok(false);
        }
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
        }
    }
    Ok(true)
}

/// Still a folder of ours with the mode it was made with?
fn is_unchanged(folder: &Path) -> bool {
    let ours =
        |m: fs::Metadata| m.is_dir() && m.uid() == rustix::process::geteuid().as_raw() && m.mode() & 0o7777 == MODE;
    folder.symlink_metadata().is_ok_and(ours)
}

/// Unchanged, and nothing in it?
pub(crate) fn is_pristine(folder: &Path) -> bool {
    is_unchanged(folder) && fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn until(what: impl Fn() -> bool) {
        let deadline = crate::clock::now_ms() + 5_000;
        while !what() {
            assert!(crate::clock::now_ms() < deadline, "waited 5 s");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_folder_comes_back_empty_and_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::open(dir.path(), false).unwrap();
        let folder = folders.take("a".into()).unwrap();
        let work = folder.work();
        fs::create_dir(work.join("d")).unwrap();
        fs::write(work.join("d/x"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", work.join("link")).unwrap();
        fs::write(folder.out_log(), "printed").unwrap();
        drop(folder);
        until(|| !lock(&folders.free).is_empty());
        let again = folders.take("b".into()).unwrap();
        assert_eq!(again.work(), work);
        assert_eq!(fs::read_dir(&work).unwrap().count(), 0);
        assert!(!again.out_log().exists());
        again.taint();
        drop(again);
        until(|| !work.exists());
        assert!(Path::new("/etc").is_dir());
    }

    #[test]
    fn a_folder_can_be_kept() {
        let dir = tempfile::tempdir().unwrap();
        let folders = Folders::open(dir.path(), true).unwrap();
        let folder = folders.take("s-1.0.0.1".into()).unwrap();
        fs::write(folder.work().join("x"), "x").unwrap();
        drop(folder);
        until(|| dir.path().join("kept/s-1.0.0.1/work/x").exists());
    }
}
