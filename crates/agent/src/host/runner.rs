//! One runner process of the function host.

use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use std::os::unix::process::CommandExt;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use crate::clock;
use crate::faces::http::{DIR_ENV, HOSTED_ENV, KEY_ENV};
use crate::spawner::{BASE_ENV, CgroupBase, Programs};

/// A runner that is not ready within this is given up, ms.
pub(super) const READY_MS_MAX: u64 = 30_000;
/// After a runner is killed, what it started gets this long to end, ms.
const GONE_MS_MAX: u64 = 5_000;

/// What a runner prints when it listens.
#[derive(Deserialize)]
struct Announced {
    port: u16,
}

/// A runner that listens. Dropping it kills it and, through its spawner, its attempt.
pub(super) struct Runner {
    group: Option<Pid>,
    /// Its end tells the runner to end.
    _stdin: Option<ChildStdin>,
    pub(super) url: String,
    pub(super) key: String,
    pub(super) idle_since: u64,
    dir: PathBuf,
    gone: watch::Receiver<bool>,
    dead: Arc<AtomicBool>,
}

impl Runner {
    /// Starts a runner and waits until it listens.
    pub(super) async fn start(programs: &Programs, dir: &Path, cgroups: &CgroupBase) -> Result<Self, String> {
        let started = Self::launch(programs, dir, cgroups)
            .map_err(|e| format!("{} cannot be started: {e}", programs.exe.display()));
        let (mut runner, stdout) = started?;
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        let told = tokio::time::timeout(Duration::from_millis(READY_MS_MAX), stdout.read_line(&mut line)).await;
        let port = match told {
            Ok(Ok(_)) => {
                serde_json::from_str::<Announced>(&line).map_err(|e| format!("it said '{}': {e}", line.trim()))?.port
            }
            Ok(Err(e)) => return Err(e.to_string()),
            Err(_) => return Err(format!("it was not ready within {READY_MS_MAX} ms")),
        };
        runner.url = format!("http://127.0.0.1:{port}/");
        runner.idle_since = clock::now_ms();
        Ok(runner)
    }

    fn launch(programs: &Programs, dir: &Path, cgroups: &CgroupBase) -> std::io::Result<(Self, pipe::Receiver)> {
        let dir = dir.join(format!("runner-{}", clock::random_hex()));
        let key = clock::random_hex();
        let mut child = Command::new(&programs.exe)
            .args(&programs.runner)
            .env("PORT", "0")
            .env(DIR_ENV, &dir)
            .env(KEY_ENV, &key)
            .env(HOSTED_ENV, "1")
            .env(BASE_ENV, serde_json::to_string(cgroups)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let group = Pid::from_raw(child.id().cast_signed());
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(std::io::Error::other("a runner without pipes"));
        };
        let stdout = pipe::Receiver::from_owned_fd(stdout.into())?;
        let dead = Arc::new(AtomicBool::new(false));
        let gone = watch_end(child, pipe::Receiver::from_owned_fd(stderr.into())?, Arc::clone(&dead));
        Ok((Self { group, _stdin: stdin, url: String::new(), key, idle_since: 0, dir, gone, dead }, stdout))
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Kills it and waits until nothing of it is left: its spawner, which holds the same standard
    /// error, ends only after the attempt has.
    pub(super) async fn kill(mut self) {
        self.signal();
        let gone = self.gone.wait_for(|gone| *gone);
        if tokio::time::timeout(Duration::from_millis(GONE_MS_MAX), gone).await.is_err() {
            tracing::warn!("a killed runner's processes are still there after {GONE_MS_MAX} ms");
        }
    }

    fn signal(&self) {
        // The group is reaped only after `dead` is set, so the number is still its own.
        if let Some(group) = self.group.filter(|_| !self.is_dead()) {
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.signal();
        // What runs in it is killed a moment later by its spawner, and its folder is not needed.
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// Hands a runner's standard error to our log, reaps it, and tells when all that held it is gone.
fn watch_end(mut child: Child, stderr: pipe::Receiver, dead: Arc<AtomicBool>) -> watch::Receiver<bool> {
    let (told, gone) = watch::channel(false);
    let reap = std::thread::Builder::new().name("runner".into()).stack_size(128 * 1024);
    let reaped = reap.spawn(move || {
        let pid = Pid::from_raw(child.id().cast_signed());
        if let Some(pid) = pid {
            let look = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
            while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(rustix::process::WaitId::Pid(pid), look) {}
        }
        dead.store(true, Ordering::Relaxed);
        child.wait().ok();
    });
    if let Err(error) = reaped {
        tracing::error!(%error, "no thread to watch a runner");
    }
    tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            tracing::warn!(line, "a function runner says");
        }
        told.send(true).ok();
    });
    gone
}
