//! Processes of our own program: agents and function hosts that a command starts beside itself.
//!
//! Each has its own process group, so that Ctrl-C reaches the command only, which then ends them in
//! order. Each holds the read end of a pipe whose write end is ours: when the command is killed, the
//! pipe closes and they end by themselves ([`leash`]).

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};

/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// Lines of its log shown when it ended by itself.
const TAIL_LINES: usize = 5;

/// A process of ours. Dropped, it is killed.
pub(crate) struct OwnChild {
    what: String,
    log: PathBuf,
    child: Child,
    /// Its leash: closed when we are gone.
    _leash: Option<ChildStdin>,
}

impl OwnChild {
    /// Starts `skein ARGS --leashed`; what it says goes to the file `log`.
    pub(crate) fn start<A: AsRef<OsStr>>(
        what: &str,
        args: impl IntoIterator<Item = A>,
        env: &[(&str, &str)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let said = || format!("cannot start {what}");
        let exe = std::env::current_exe().with_context(said)?;
        let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let err = out.try_clone().with_context(said)?;
        let mut child = Command::new(exe)
            .args(args)
            .arg("--leashed")
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(said)?;
        let leash = child.stdin.take();
        Ok(Self { what: what.to_owned(), log: log.to_owned(), child, _leash: leash })
    }

    /// Waits until it ends, which it should not do by itself; says how it did.
    pub(crate) async fn lost(&mut self) -> anyhow::Error {
        let how = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.trim_end().lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        anyhow!("{} ended ({how}); the end of its log, {}:\n{tail}", self.what, self.log.display())
    }

    /// SIGTERM, a grace, SIGKILL.
    pub(crate) async fn stop(mut self) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let asked = pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok());
        let ended = asked && tokio::time::timeout(GRACE, self.child.wait()).await.is_ok();
        if !ended && let Err(error) = self.child.kill().await {
            tracing::warn!("{} could not be ended: {error}", self.what);
        }
    }
}

/// In such a process: ends it when the pipe on its standard input closes.
pub(crate) fn leash() {
    std::thread::spawn(|| {
        let ended = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        tracing::warn!("the command that started this process is gone: {ended:?}");
        std::process::exit(1);
    });
}
