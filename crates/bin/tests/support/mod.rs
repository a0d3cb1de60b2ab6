//! The real binary in a home of its own. Every wait has a deadline, and every process that a test
//! started is ended by the test.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod network;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

/// Longest time one command may take.
const COMMAND_MAX: Duration = Duration::from_mins(1);

/// A home, without an engine at first.
pub(crate) struct Home {
    pub(crate) dir: tempfile::TempDir,
    engine: Option<Child>,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// It ended with 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
    /// Its standard output as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let said = self.ok();
        serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e} in\n{}", said.out))
    }
    /// Its lines, in any order.
    pub(crate) fn sorted_lines(&self) -> Vec<&str> {
        let mut lines: Vec<&str> = self.out.lines().collect();
        lines.sort_unstable();
        lines
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), engine: None }
    }

    /// With an engine and an agent.
    pub(crate) fn with_engine(more: &[&str]) -> Self {
        Self::with_engine_in(Self::new(), more)
    }

    /// The same, in a home that has something already.
    pub(crate) fn with_engine_in(mut home: Self, more: &[&str]) -> Self {
        let mut command = home.command(&["up", "--agent", "--listen", "127.0.0.1:0"]);
        command.args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        home.engine = Some(child);
        let (said, up) = mpsc::channel();
        std::thread::spawn(move || {
            let mut byte = [0; 1];
            let read = out.read(&mut byte);
            said.send(read.is_ok_and(|n| n == 1)).ok();
            // Goes on reading, so that the engine never meets a closed pipe.
            std::io::copy(&mut out, &mut std::io::sink()).ok();
        });
        assert_eq!(up.recv_timeout(COMMAND_MAX), Ok(true), "the engine did not come up");
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// `skein ARGS` in this home, not started yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skein"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SKEIN_") || name.starts_with("XDG_")) {
            command.env_remove(name);
        }
        command
            .args(args)
            .env("HOME", self.dir.path())
            .env("TMPDIR", self.tmp())
            .env("USER", "tester")
            .current_dir(self.dir.path());
        command
    }

    /// The temporary folder of its commands.
    pub(crate) fn tmp(&self) -> PathBuf {
        let tmp = self.path("tmp");
        std::fs::create_dir_all(&tmp).unwrap();
        tmp
    }

    /// Runs `skein ARGS` to its end.
    #[track_caller]
    pub(crate) fn skein(&self, args: &[&str]) -> Said {
        self.skein_with(args, "")
    }

    /// The same, with something on standard input.
    #[track_caller]
    pub(crate) fn skein_with(&self, args: &[&str], input: &str) -> Said {
        use std::io::Write as _;
        let mut command = self.command(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
        finish(child, &args.join(" "), COMMAND_MAX)
    }

    /// Runs `skein ARGS --json`.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        self.skein(&[args, &["--json"]].concat()).json()
    }

    /// Nothing of a private engine is left.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        let left: Vec<PathBuf> = std::fs::read_dir(self.tmp()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        let marker = self.dir.path().display().to_string();
        let alive: Vec<String> = command_lines().into_iter().filter(|line| line.contains(&marker)).collect();
        assert!(alive.is_empty(), "still running: {alive:?}");
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            signal(&engine, "TERM");
            for _ in 0..500 {
                if engine.try_wait().is_ok_and(|ended| ended.is_some()) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            engine.kill().ok();
            engine.wait().ok();
        }
    }
}

pub(crate) fn skipped(why: &str) {
    said(&format!("SKIPPED: {why}"));
}

/// Said past the test harness, which keeps what a passing test prints to itself.
pub(crate) fn said(what: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "{what}").ok();
}

/// A process that ends with the test, also when that fails.
pub(crate) struct Guard(pub(crate) Child);

impl Drop for Guard {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }
}

/// Sends a signal to a process that the test started.
pub(crate) fn signal(child: &Child, name: &str) {
    Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
}

/// Waits for a process, and ends it when it takes too long.
#[track_caller]
pub(crate) fn finish(child: Child, what: &str, longest: Duration) -> Said {
    let id = child.id().to_string();
    let (done, ended) = mpsc::channel::<Output>();
    std::thread::spawn(move || done.send(child.wait_with_output().unwrap()).ok());
    let Ok(output) = ended.recv_timeout(longest) else {
        Command::new("kill").args(["-s", "KILL", &id]).status().unwrap();
        panic!("'skein {what}' took more than {longest:?}");
    };
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Asks again until the answer is yes.
#[track_caller]
pub(crate) fn until(what: &str, mut yes: impl FnMut() -> bool) {
    for _ in 0..600 {
        if yes() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("waited 30 s for: {what}");
}

pub(crate) fn command_lines() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let line = |process: PathBuf| std::fs::read(process.join("cmdline")).ok();
    processes.filter_map(line).map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).collect()
}

/// All bytes of all files below a folder, for looking for what must not be there.
pub(crate) fn holds_text(dir: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if std::fs::read(&path)
            .is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
        {
            found.push(path);
        }
    }
    found
}
