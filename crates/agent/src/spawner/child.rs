//! The spawner's own side: what runs in the small process, on one thread.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, kill_process, kill_process_group, pidfd_open, waitid,
};
use wait4::Wait4;

use super::cgroup::SlotCgroup;
use super::{Command, Event, Exit, Launch, SWEEP_MS_MAX, StopSignal};
use crate::{clock, container, folder};

/// `Started` is told after this, or with the end when that comes first: a short attempt wakes its
/// agent once, microseconds.
const STARTED_DELAY_US: u64 = 2_000;
/// Where the kernel has no pidfd, a child's end is looked for this often, microseconds.
const LOOK_US: u64 = 2_000;

/// A child that was started and not yet reaped.
struct Running {
    launch: Launch,
    child: Child,
    pid: Pid,
    pidfd: Option<OwnedFd>,
    started_us: u64,
    started_told: bool,
    notes: Vec<String>,
}

struct Server {
    slot: SlotCgroup,
    running: Option<Running>,
    /// Socket and name of a container to remove when the agent dies.
    will: Option<(PathBuf, String)>,
    /// Bytes of commands that are not whole lines yet.
    input: Vec<u8>,
}

/// The hidden subcommand `skein agent-spawner`: serves commands on standard input until it ends,
/// then kills what it started.
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // Standard error may be closed; nobody can be told then.
            writeln!(io::stderr(), "skein agent-spawner: {e}; it is started by 'skein agent', not by hand").ok();
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let mut server = Server { slot: SlotCgroup::enter(None, ""), running: None, will: None, input: Vec::new() };
    let Some(Command::Configure { name, cgroup, lock }) = server.first()? else {
        return Err(io::Error::other("the first line must be a configuration"));
    };
    // Let go of by the system when this process is gone, and that is after everything it started.
    let _lock = lock.map(|path| hold(&path)).transpose()?;
    // What an attempt leaves behind becomes our child, also when it left its process group.
    rustix::process::set_child_subreaper(Some(getpid()))?;
    server.slot = SlotCgroup::enter(cgroup.as_ref(), &name);
    tell(&[Event::Ready { notes: server.slot.notes() }]);
    let served = server.run();
    // The agent is gone: so is its attempt.
    if let Some(running) = server.running.take() {
        kill_process_group(running.pid, Signal::KILL).ok();
        server.reap(running);
    }
    if let Some((socket, name)) = server.will.take() {
        // Nobody is there to be told of a failure.
        container::remove_blocking(&socket, &name).ok();
    }
    server.slot.leave();
    served
}

/// Whoever wants to be sure that no attempt of an earlier agent lives takes this lock for itself.
fn hold(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockShared)?;
    Ok(file)
}

/// A closed pipe means that the agent died; the end of standard input says so too.
fn tell(events: &[Event]) {
    let mut lines = Vec::new();
    for event in events {
        if serde_json::to_writer(&mut lines, event).is_ok() {
            lines.push(b'\n');
        }
    }
    let mut out = io::stdout().lock();
    out.write_all(&lines).and_then(|()| out.flush()).ok();
}

impl Server {
    fn first(&mut self) -> io::Result<Option<Command>> {
        loop {
            if let Some(command) = self.next()? {
                return Ok(Some(command));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Reads what is there; false at the end of standard input.
    fn fill(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        let read = io::stdin().lock().read(&mut buffer)?;
        self.input.extend_from_slice(&buffer[..read]);
        Ok(read > 0)
    }

    /// The next whole command that was read.
    fn next(&mut self) -> io::Result<Option<Command>> {
        let Some(end) = self.input.iter().position(|b| *b == b'\n') else { return Ok(None) };
        let command = serde_json::from_slice(&self.input[..end]).map_err(io::Error::other);
        self.input.drain(..=end);
        command.map(Some)
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            while let Some(command) = self.next()? {
                match command {
                    Command::Configure { .. } => return Err(io::Error::other("configured twice")),
                    Command::Start(launch) => self.start(*launch),
                    Command::Will { socket, container } => self.will = container.map(|name| (socket, name)),
                    Command::Signal { id, signal } => self.signal(id, signal),
                    Command::Input { id, line } => self.give_input(id, line),
                }
            }
            let (commands, ended) = self.wait()?;
            if ended && let Some(running) = self.running.take() {
                let mut events = Vec::with_capacity(2);
                if !running.started_told {
                    events.push(Event::Started { id: running.launch.id, pid: running.pid.as_raw_pid() });
                }
                events.push(Event::Exited(self.reap(running)));
                tell(&events);
            }
            self.tell_started();
            if commands && !self.fill()? {
                return Ok(());
            }
        }
    }

    /// Waits for commands, for the end of the child, or until its start is to be told.
    fn wait(&self) -> io::Result<(bool, bool)> {
        let stdin = io::stdin();
        let pidfd = self.running.as_ref().and_then(|running| running.pidfd.as_ref());
        let mut fds = vec![PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
        fds.extend(pidfd.map(|fd| PollFd::new(fd, PollFlags::IN)));
        let timeout = self.timeout().map(|us| Timespec { tv_sec: 0, tv_nsec: i64::try_from(us * 1000).unwrap_or(0) });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let ended = match &self.running {
            Some(Running { pidfd: None, pid, .. }) => has_ended(*pid),
            Some(_) => ready(1),
            None => false,
        };
        Ok((ready(0), ended))
    }

    fn timeout(&self) -> Option<u64> {
        let running = self.running.as_ref()?;
        let look = running.pidfd.is_none().then_some(LOOK_US);
        let tell =
            (!running.started_told).then(|| (running.started_us + STARTED_DELAY_US).saturating_sub(clock::now_us()));
        look.into_iter().chain(tell).min()
    }

    fn tell_started(&mut self) {
        if let Some(running) = &mut self.running
            && !running.started_told
            && clock::now_us() >= running.started_us + STARTED_DELAY_US
        {
            running.started_told = true;
            tell(&[Event::Started { id: running.launch.id, pid: running.pid.as_raw_pid() }]);
        }
    }

    fn start(&mut self, launch: Launch) {
        let id = launch.id;
        if self.running.is_some() {
            tell(&[Event::StartFailed { id, why: "the slot is taken: an attempt still runs in it".into() }]);
            return;
        }
        let notes: Vec<String> = self.slot.limit_memory(launch.memory_mb).into_iter().collect();
        let started_us = clock::now_us();
        match spawn(&launch) {
            Err(why) => tell(&[Event::StartFailed { id, why }]),
            Ok(child) => {
                let Some(pid) = Pid::from_raw(child.id().cast_signed()) else { return };
                let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok();
                self.running = Some(Running { launch, child, pid, pidfd, started_us, started_told: false, notes });
            }
        }
    }

    /// The child is not reaped before it is taken out of `running`, so its process id is still its own.
    fn signal(&self, id: u64, signal: StopSignal) {
        if let Some(running) = self.running.as_ref().filter(|running| running.launch.id == id) {
            let signal = match signal {
                StopSignal::Term => Some(Signal::TERM),
                StopSignal::Kill => Some(Signal::KILL),
                StopSignal::Other(number) => Signal::from_named_raw(number),
            };
            if let Some(signal) = signal {
                kill_process_group(running.pid, signal).ok();
            }
        }
    }

    /// A pipe that is full takes nothing: whoever does not read must not hold up its own end.
    fn give_input(&mut self, id: u64, line: Option<String>) {
        let Some(running) = self.running.as_mut().filter(|running| running.launch.id == id) else { return };
        let (Some(line), Some(stdin)) = (line, running.child.stdin.as_mut()) else {
            running.child.stdin = None;
            return;
        };
        if let Err(error) = stdin.write_all(format!("{line}\n").as_bytes()) {
            running.notes.push(format!("a line for its standard input was not taken: {error}"));
        }
    }

    fn reap(&mut self, running: Running) -> Exit {
        let Running { launch, child, pid, started_us, mut notes, .. } = running;
        // Looks without reaping: the process id stays taken while the rest of its group is killed.
        while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        {
        }
        let ended_us = clock::now_us();
        kill_process_group(pid, Signal::KILL).ok();
        let used = child.wait4();
        notes.extend(sweep());
        let (code, signal) = used.as_ref().map_or((None, None), |u| (u.status.code(), u.status.signal()));
        let cpu = used.as_ref().ok().map(|u| u.rusage.utime + u.rusage.stime);
        let bytes = |path: &Path| path.metadata().map_or(0, |m| m.len());
        let log_bytes = bytes(&launch.out) + bytes(&launch.err);
        Exit {
            id: launch.id,
            code,
            signal,
            cpu_ms: cpu.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            peak_memory_kb: used.as_ref().ok().map(|u| u.rusage.maxrss / 1024),
            run_ms: ended_us.saturating_sub(started_us) / 1000,
            out_of_memory: self.slot.out_of_memory(),
            log_bytes,
            clean: log_bytes == 0 && notes.is_empty() && launch.folders.iter().all(|path| folder::is_pristine(path)),
            notes,
        }
    }
}

fn never_wait_for_reader(child: &Child) {
    if let Some(stdin) = &child.stdin {
        // Else a reader that sleeps would hold up this process; without the flag it merely could.
        rustix::fs::fcntl_setfl(stdin, rustix::fs::OFlags::NONBLOCK).ok();
    }
}

fn has_ended(pid: Pid) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    !matches!(waitid(WaitId::Pid(pid), look), Ok(None) | Err(rustix::io::Errno::INTR))
}

/// `std` keeps to `posix_spawn` as long as there is no hook and the program is a path, so that a
/// start costs the same whatever the size of this process.
fn spawn(launch: &Launch) -> Result<Child, String> {
    let Some((program, args)) = launch.argv.split_first() else {
        return Err("the command is empty: give a program".into());
    };
    let path = look_up(program, launch.env.get("PATH").map_or("", String::as_str))?;
    let log = |path: &Path| open_log(path).map_err(|e| format!("cannot make the log file {}: {e}", path.display()));
    std::process::Command::new(path)
        .arg0(program)
        .args(args)
        .env_clear()
        .envs(&launch.env)
        .current_dir(&launch.cwd)
        .stdin(if launch.stdin { Stdio::piped() } else { Stdio::null() })
        .stdout(log(&launch.out)?)
        .stderr(log(&launch.err)?)
        .process_group(0)
        .spawn()
        .map_err(|e| format!("cannot start '{program}': {e}"))
        .inspect(never_wait_for_reader)
}

/// Appending, so that a file that is cut while the attempt runs does not grow back with a hole.
fn open_log(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    if file.metadata()?.size() > 0 {
        file.set_len(0)?;
    }
    Ok(file)
}

/// The program's path, as `execvp` would find it in the attempt's own PATH. A relative path with a
/// '/' is left alone: it is relative to the working folder.
fn look_up(program: &str, path: &str) -> Result<PathBuf, String> {
    if program.contains('/') {
        return Ok(PathBuf::from(program));
    }
    let is_program = |path: &PathBuf| path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    let mut candidates =
        path.split(':').filter(|folder| !folder.is_empty()).map(|folder| Path::new(folder).join(program));
    candidates.find(is_program).ok_or_else(|| {
        format!("cannot start '{program}': no such program in PATH ({path}); install it there or give its path")
    })
}

/// Ends and reaps everything the attempt left: all of it is our child by now, or becomes it when
/// its own parent is killed. One system call when nothing is left.
fn sweep() -> Option<String> {
    let deadline = clock::now_ms() + SWEEP_MS_MAX;
    loop {
        match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => {
                let left = own_children();
                for pid in &left {
                    kill_process(*pid, Signal::KILL).ok();
                }
                if clock::now_ms() > deadline {
                    return Some(format!("{} processes of it could not be ended", left.len()));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(_) => return None,
        }
    }
}

fn own_children() -> Vec<Pid> {
    let own = getpid().as_raw_pid();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| crate::measure::stat(*pid).is_some_and(|stat| stat.parent == own))
        .filter_map(Pid::from_raw)
        .collect()
}
