//! Re-reading the configuration and what it names, live.

use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use notify::{RecursiveMode, Watcher as _};

pub use super::convert::{Current, OWN, Settled};

/// Editors write in several moves; changes within this time count as one.
const DEBOUNCE: Duration = Duration::from_millis(150);

/// Calls `changed` whenever one of `paths` (or something in it, for folders) changes, until `changed`
/// returns false or the returned guard is dropped. A file that does not exist yet is watched through
/// its folder.
pub fn watch(paths: &[PathBuf], mut changed: impl FnMut() -> bool + Send + 'static) -> notify::Result<Guard> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let matters = event.is_ok_and(|e| !e.kind.is_access());
        if matters {
            // The other end goes away when watching ends.
            sender.send(()).unwrap_or_default();
        }
    })?;
    for path in paths {
        let folder = if path.is_dir() { path.as_path() } else { path.parent().unwrap_or(Path::new(".")) };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
        while receiver.recv().is_ok() {
            loop {
                match receiver.recv_timeout(DEBOUNCE) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            if !changed() {
                return;
            }
        }
    })?;
    Ok(Guard { _watcher: watcher, _thread: thread })
}

/// Watching goes on for as long as this lives.
#[derive(Debug)]
pub struct Guard {
    _watcher: notify::RecommendedWatcher,
    _thread: std::thread::JoinHandle<()>,
}
