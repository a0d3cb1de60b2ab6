//! The agent's side of a spawner.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::cgroup::{self, CgroupBase};
use super::{Command, Event, Launch, StopSignal};

/// How our own binary is called for its hidden subcommands.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Our executable.
    pub exe: PathBuf,
    /// Arguments that make it a spawner.
    pub spawner: Vec<String>,
    /// Arguments that make it a function runner.
    pub runner: Vec<String>,
    /// A file that every spawner holds for as long as it, or anything it started, lives.
    pub lock: Option<PathBuf>,
}

impl Programs {
    /// This very binary: `skein agent-spawner`, `skein function-runner`.
    pub fn own() -> std::io::Result<Self> {
        Ok(Self {
            exe: std::env::current_exe()?,
            spawner: vec!["agent-spawner".into()],
            runner: vec!["function-runner".into()],
            lock: None,
        })
    }
}

/// What a spawner says, with its end.
#[derive(Debug)]
pub enum SpawnerEvent {
    /// A message.
    Said(Event),
    /// Its process is gone.
    Gone,
}

/// A spawner process that belongs to one slot. Dropping it ends the process and its attempt.
#[derive(Debug)]
pub struct Spawner {
    commands: mpsc::UnboundedSender<Vec<u8>>,
}

impl Spawner {
    /// Starts one. `tell` gets its events; the first is `Ready`, the last is `Gone`. It must not block.
    pub fn launch(
        programs: &Programs,
        slot: usize,
        base: &CgroupBase,
        tell: impl Fn(SpawnerEvent) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let mut child = Process::new(&programs.exe)
            .args(&programs.spawner)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C in a terminal goes to the agent, which then drains: not to its spawners.
            .process_group(0)
            .spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(std::io::Error::other("a spawner without pipes"));
        };
        let name = format!("{}-{slot}", std::process::id());
        let spawner = Self { commands: write_to(OwnedFd::from(stdin))? };
        let lock = programs.lock.clone();
        spawner.send(&Command::Configure { name: name.clone(), cgroup: Some(base.clone()), lock });
        let base = base.clone();
        let stdout = pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?;
        tokio::spawn(async move {
            read_events(stdout, slot, &tell).await;
            let gone = move || {
                child.wait().ok();
                cgroup::remove(&base, &name);
                tell(SpawnerEvent::Gone);
            };
            tokio::task::spawn_blocking(gone).await.ok();
        });
        Ok(spawner)
    }

    /// Starts a child.
    pub fn start(&self, launch: Launch) {
        self.send(&Command::Start(Box::new(launch)));
    }

    /// Signals the child of launch `id`.
    pub fn signal(&self, id: u64, signal: StopSignal) {
        self.send(&Command::Signal { id, signal });
    }

    /// A line for the standard input of launch `id`, or its end.
    pub fn input(&self, id: u64, line: Option<String>) {
        self.send(&Command::Input { id, line });
    }

    /// Says which container is to be removed should this agent die.
    pub(crate) fn will(&self, socket: PathBuf, container: Option<String>) {
        self.send(&Command::Will { socket, container });
    }

    fn send(&self, command: &Command) {
        if let Ok(mut line) = serde_json::to_vec(command) {
            line.push(b'\n');
            // A spawner that is gone says so by itself.
            self.commands.send(line).ok();
        }
    }
}

/// Writes from a task of its own: a spawner that does not read must not hold up the agent.
fn write_to(stdin: OwnedFd) -> std::io::Result<mpsc::UnboundedSender<Vec<u8>>> {
    let mut pipe = pipe::Sender::from_owned_fd(stdin)?;
    let (sender, mut lines) = mpsc::unbounded_channel::<Vec<u8>>();
    tokio::spawn(async move {
        while let Some(line) = lines.recv().await {
            if pipe.write_all(&line).await.is_err() {
                break;
            }
        }
    });
    Ok(sender)
}

async fn read_events(stdout: pipe::Receiver, slot: usize, tell: &(impl Fn(SpawnerEvent) + Sync)) {
    let mut lines = BufReader::new(stdout);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).await.is_ok_and(|n| n > 0) {
        match serde_json::from_slice(&line) {
            Ok(event) => tell(SpawnerEvent::Said(event)),
            Err(error) => tracing::warn!(slot, %error, "a line of a spawner makes no sense"),
        }
        line.clear();
    }
}
