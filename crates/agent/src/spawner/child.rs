//! The spawner's own side: what runs in the small process.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, kill_process_group, waitid};
use wait4::Wait4;

use super::cgroup::SlotCgroup;
use super::{Command, Event, Exit, Launch, SWEEP_MS_MAX, StopSignal};
use crate::clock;

/// A child that was started and not yet reaped.
struct Running {
    id: u64,
    child: Child,
    started_us: u64,
    out: PathBuf,
    err: PathBuf,
    notes: Vec<String>,
}

/// Which launch owns which process group. Held while a child is reaped, so that a signal can never
/// hit a process id that the kernel has given to someone else.
type Current = Arc<Mutex<Option<(u64, Pid)>>>;

/// The hidden subcommand `skein agent-spawner`: serves commands on standard input until it ends,
/// then kills what it started.
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            report(&format!("skein agent-spawner: {e}; it is started by 'skein agent', not by hand"));
            ExitCode::FAILURE
        }
    }
}

/// Standard error may be closed; nobody can be told then.
fn report(text: &str) {
    writeln!(io::stderr(), "{text}").ok();
}

fn serve() -> io::Result<()> {
    let mut input = BufReader::new(io::stdin().lock());
    let Some(Command::Configure { name, cgroup }) = next(&mut input)? else {
        return Err(io::Error::other("the first line must be a configuration"));
    };
    // What an attempt leaves behind becomes our child, also when it left its process group.
    rustix::process::set_child_subreaper(Some(getpid()))?;
    let slot = Arc::new(Mutex::new(SlotCgroup::enter(cgroup.as_ref(), &name)));
    let current: Current = Arc::new(Mutex::new(None));
    let (to_waiter, from_main) = sync_channel(1);
    let waiter = {
        let (slot, current) = (Arc::clone(&slot), Arc::clone(&current));
        std::thread::Builder::new().name("waiter".into()).stack_size(256 * 1024).spawn(move || wait_loop(&from_main, &slot, &current))?
    };
    emit(&Event::Ready { notes: lock(&slot).notes() });
    while let Some(command) = next(&mut input)? {
        match command {
            Command::Configure { .. } => return Err(io::Error::other("configured twice")),
            Command::Start(launch) => start(&launch, &slot, &current, &to_waiter),
            Command::Signal { id, signal } => deliver(id, signal, &current),
        }
    }
    // The agent is gone: so is its attempt.
    kill_current(&current);
    drop(to_waiter);
    waiter.join().ok();
    lock(&slot).leave();
    Ok(())
}

fn next(input: &mut impl BufRead) -> io::Result<Option<Command>> {
    let mut line = String::new();
    // An unreadable command can come only from a half-written line of a dying agent.
    if input.read_line(&mut line)? == 0 || !line.ends_with('\n') {
        return Ok(None);
    }
    serde_json::from_str(&line).map(Some).map_err(io::Error::other)
}

fn emit(event: &Event) {
    let Ok(mut line) = serde_json::to_vec(event) else { return };
    line.push(b'\n');
    let mut out = io::stdout().lock();
    // A closed pipe means that the agent died; the end of standard input says so too.
    out.write_all(&line).and_then(|()| out.flush()).ok();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn start(launch: &Launch, slot: &Mutex<SlotCgroup>, current: &Current, to_waiter: &SyncSender<Running>) {
    if lock(current).is_some() {
        emit(&Event::StartFailed { id: launch.id, why: "the slot is taken: an attempt still runs in it".into() });
        return;
    }
    let notes: Vec<String> = lock(slot).limit_memory(launch.memory_mb).into_iter().collect();
    let started_us = clock::now_us();
    match spawn(launch) {
        Err(why) => emit(&Event::StartFailed { id: launch.id, why }),
        Ok(child) => {
            let pid = child.id().cast_signed();
            *lock(current) = Pid::from_raw(pid).map(|pid| (launch.id, pid));
            emit(&Event::Started { id: launch.id, pid });
            let running =
                Running { id: launch.id, child, started_us, out: launch.out.clone(), err: launch.err.clone(), notes };
            if to_waiter.send(running).is_err() {
                kill_current(current);
            }
        }
    }
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
        .stdin(Stdio::null())
        .stdout(log(&launch.out)?)
        .stderr(log(&launch.err)?)
        .process_group(0)
        .spawn()
        .map_err(|e| format!("cannot start '{program}': {e}"))
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
    let found = path.split(':').filter(|folder| !folder.is_empty()).map(|folder| Path::new(folder).join(program)).find(
        |candidate| candidate.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0),
    );
    found.ok_or_else(|| format!("cannot start '{program}': no such program in PATH ({path}); install it there or give its path"))
}

fn deliver(id: u64, signal: StopSignal, current: &Current) {
    let guard = lock(current);
    if let Some((_, group)) = guard.filter(|(running, _)| *running == id) {
        let signal = match signal {
            StopSignal::Term => Signal::TERM,
            StopSignal::Kill => Signal::KILL,
        };
        kill_process_group(group, signal).ok();
    }
}

fn kill_current(current: &Current) {
    if let Some((_, group)) = *lock(current) {
        kill_process_group(group, Signal::KILL).ok();
    }
}

fn wait_loop(from_main: &Receiver<Running>, slot: &Mutex<SlotCgroup>, current: &Current) {
    while let Ok(running) = from_main.recv() {
        let exit = wait(running, slot, current);
        emit(&Event::Exited(exit));
    }
}

fn wait(running: Running, slot: &Mutex<SlotCgroup>, current: &Current) -> Exit {
    let Running { id, child, started_us, out, err, mut notes } = running;
    let pid = Pid::from_raw(child.id().cast_signed());
    if let Some(pid) = pid {
        // Looks without reaping: the process id stays taken while the rest of its group is killed.
        while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {}
    }
    let ended_us = clock::now_us();
    let used = {
        let mut current = lock(current);
        if let Some(pid) = pid {
            kill_process_group(pid, Signal::KILL).ok();
        }
        *current = None;
        child.wait4()
    };
    notes.extend(sweep());
    let (code, signal) = used.as_ref().map_or((None, None), |u| (u.status.code(), u.status.signal()));
    let cpu = used.as_ref().ok().map(|u| u.rusage.utime + u.rusage.stime);
    let bytes = |path: &Path| path.metadata().map_or(0, |m| m.len());
    Exit {
        id,
        code,
        signal,
        cpu_ms: cpu.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        peak_memory_kb: used.as_ref().ok().map(|u| u.rusage.maxrss / 1024),
        run_ms: ended_us.saturating_sub(started_us) / 1000,
        out_of_memory: lock(slot).out_of_memory(),
        log_bytes: bytes(&out) + bytes(&err),
        notes,
    }
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
    pids.filter(|pid| crate::measure::stat(*pid).is_some_and(|stat| stat.parent == own)).filter_map(Pid::from_raw).collect()
}
