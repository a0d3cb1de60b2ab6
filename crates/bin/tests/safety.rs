//! What happens to the engine's folder: backup and restore, a full disk, a disk that only reads.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Guard, Home, signal, until};

/// An engine of the test's own on a folder, ended with it.
struct Up<'a> {
    home: &'a Home,
    dir: String,
    child: std::process::Child,
}

impl<'a> Up<'a> {
    fn new(home: &'a Home, dir: &str) -> Self {
        let up = Self::started(home, dir, &["--agent"], None);
        until("the engine to be up", || up.skein(&["instance", "list"]).out.contains("ready"));
        up
    }

    /// Without waiting; perhaps with a library between it and the system.
    fn started(home: &'a Home, dir: &str, more: &[&str], shim: Option<&Path>) -> Self {
        let mut command = home.command(&[&["up", "--listen", "127.0.0.1:0", "--dir", dir], more].concat());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some(shim) = shim {
            command.env("LD_PRELOAD", shim);
        }
        Self { home, dir: dir.to_owned(), child: command.spawn().unwrap() }
    }

    fn url(&self) -> String {
        let text = std::fs::read_to_string(self.home.path(&self.dir).join("engine.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["url"].as_str().unwrap().to_owned()
    }

    /// An answer of its API: status and body.
    fn http(&self, request: &str, body: &str) -> (u16, serde_json::Value) {
        use std::io::{Read as _, Write as _};
        let url = self.url();
        let address = url.strip_prefix("http://").unwrap();
        let token = std::fs::read_to_string(self.home.path(&self.dir).join("local.token")).unwrap();
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let (token, length) = (token.trim(), body.len());
        let head = format!(
            "{request} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    fn health(&self) -> (u16, serde_json::Value) {
        self.http("GET /healthz", "")
    }

    fn skein(&self, args: &[&str]) -> support::Said {
        // Before the rest: behind '--' it would be the task's.
        self.home.skein(&[&args[..1], &["--dir", &self.dir], &args[1..]].concat())
    }

    fn stop(mut self) {
        signal(&self.child, "TERM");
        self.child.wait().unwrap();
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            signal(&self.child, "TERM");
            self.child.wait().ok();
        }
    }
}

#[test]
fn a_backup_taken_while_the_engine_runs_brings_everything_back() {
    let home = Home::new();
    let up = Up::new(&home, "state");
    home.write("w.toml", "name = \"w\"\ncommand = [\"sh\", \"-c\", \"echo made > f\"]\noutputs = [\"f\"]\n");
    let id = up.skein(&["run", "w.toml", "--detach"]).ok().out.trim().to_owned();
    until("the session to end", || up.skein(&["session", "show", &id]).out.contains("succeeded"));
    let long = up.skein(&["run", "--detach", "--name", "long", "--", "sleep", "600"]).ok().out.trim().to_owned();
    let said = up.skein(&["backup", "--to", "b.skein-backup"]).ok().out;
    assert!(said.contains("backed up to b.skein-backup"), "{said}");
    let after = up.skein(&["run", "--detach", "--name", "after", "--", "true"]).ok().out.trim().to_owned();
    let refused = up.skein(&["restore", "b.skein-backup", "--force"]);
    assert!(refused.code != 0 && refused.err.contains("an engine is up"), "{}", refused.err);
    up.stop();
    std::fs::remove_dir_all(home.path("state")).unwrap();
    home.skein(&["restore", "b.skein-backup", "--dir", "state"]).ok();
    let again = Up::new(&home, "state");
    assert!(again.skein(&["session", "show", &id]).ok().out.contains("succeeded"));
    again.skein(&["session", "files", &id, "--download", "got"]).ok();
    assert_eq!(home.read("got/f"), "made\n");
    assert_ne!(again.skein(&["session", "show", &after]).code, 0, "it came after the backup");
    let new = again.skein(&["run", "--detach", "--name", "new", "--", "true"]).ok().out.trim().to_owned();
    assert!(
        (new.len(), &new) > (after.len(), &after),
        "ids of the forgotten future are not used again: {new} and {after}"
    );
    again.skein(&["session", "stop", &long]).ok();
    again.stop();
    let taken = home.skein(&["restore", "b.skein-backup", "--dir", "state"]);
    assert!(taken.code != 0 && taken.err.contains("holds something"), "{}", taken.err);
    let mut bytes = std::fs::read(home.path("b.skein-backup")).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    std::fs::write(home.path("bad.skein-backup"), &bytes[..]).unwrap();
    let bad = home.skein(&["restore", "bad.skein-backup", "--dir", "other"]);
    assert!(bad.code != 0 && bad.err.contains("is damaged") && !home.path("other").exists(), "{}", bad.err);
    bytes.truncate(bytes.len() / 2);
    std::fs::write(home.path("bad.skein-backup"), &bytes[..]).unwrap();
    assert_ne!(home.skein(&["restore", "bad.skein-backup", "--dir", "other"]).code, 0);
}

/// A disk that turns read-only for as long as a file is there. The kernel lets nobody do that to a mount while
/// something on it is open for writing, as the ledger is, so it is done between the engine and the system.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>
static int below(const char *path) { return strncmp(path, FOLDER, strlen(FOLDER)) == 0 && access(SWITCH, F_OK) == 0; }
static int fixed(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return below(path);
}
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define REFUSE do { errno = EROFS; return -1; } while (0)
ssize_t write(int fd, const void *from, size_t n) { if (fixed(fd)) REFUSE; return REAL(write)(fd, from, n); }
ssize_t writev(int fd, const struct iovec *from, int n) { if (fixed(fd)) REFUSE; return REAL(writev)(fd, from, n); }
ssize_t pwrite(int fd, const void *from, size_t n, off_t at) { if (fixed(fd)) REFUSE; return REAL(pwrite)(fd, from, n, at); }
ssize_t pwrite64(int fd, const void *from, size_t n, off64_t at) { if (fixed(fd)) REFUSE; return REAL(pwrite64)(fd, from, n, at); }
int ftruncate(int fd, off_t to) { if (fixed(fd)) REFUSE; return REAL(ftruncate)(fd, to); }
int ftruncate64(int fd, off64_t to) { if (fixed(fd)) REFUSE; return REAL(ftruncate64)(fd, to); }
int unlink(const char *path) { if (below(path)) REFUSE; return REAL(unlink)(path); }
int mkdir(const char *path, mode_t mode) { if (below(path)) REFUSE; return REAL(mkdir)(path, mode); }
int rename(const char *from, const char *to) { if (below(from) || below(to)) REFUSE; return REAL(rename)(from, to); }
#define OPENS(name) \
    int name(const char *path, int how, ...) { \
        va_list more; va_start(more, how); mode_t mode = how & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; va_end(more); \
        if ((how & (O_WRONLY | O_RDWR | O_CREAT)) && below(path)) REFUSE; \
        return REAL(name)(path, how, mode); \
    }
OPENS(open)
OPENS(open64)
"#;

struct Switch {
    library: PathBuf,
    file: PathBuf,
}

impl Switch {
    /// For everything below a folder of the home.
    fn of(home: &Home, folder: &str) -> Option<Self> {
        let (source, library) = (home.write("shim.c", SHIM), home.path("shim.so"));
        let file = home.path("read-only");
        let define = |name: &str, path: &Path| format!("-D{name}=\"{}\"", path.display());
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source);
        command.args([define("FOLDER", &home.path(folder)), define("SWITCH", &file)]).arg("-ldl");
        if command.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            return Some(Self { library, file });
        }
        support::skipped("there is no C compiler to make a disk turn read-only with");
        None
    }

    fn on(&self) {
        std::fs::write(&self.file, "").unwrap();
    }

    fn off(&self) {
        std::fs::remove_file(&self.file).unwrap();
    }
}

const LEASE: Duration = Duration::from_secs(2);

/// Something runs on an agent while the engine's disk takes no turns for longer than a lease: it goes on, its
/// result is recorded when there is a disk again, and so is new work. What was taken ends well.
fn what_runs_outlasts(home: &Home, shim: Option<&Path>, outage: impl FnOnce(), mend: impl FnOnce(), said: &str) {
    let config = format!(r#"{{"lease_s": {}, "resource_time_check_s": 0.2}}"#, LEASE.as_secs());
    home.write("config.json", &config);
    let up = Up::started(home, "small/state", &["--config", "config.json"], shim);
    until("the engine to be up", || up.skein(&["session", "list"]).code == 0);
    let token = up.skein(&["token", "join"]).ok().out.trim().to_owned();
    let mut agent = home.command(&["agent", "--engine", &up.url(), "--name", "a", "--slots", "2", "--dir", "agent"]);
    agent.env("SKEIN_JOIN", token).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _agent = Guard(agent.spawn().unwrap());
    until("the agent to be ready", || up.skein(&["instance", "list"]).out.contains("ready"));
    let at = home.dir.path().display();
    let work =
        format!("echo began >> {at}/journal; until [ -e {at}/go ]; do sleep 0.05; done; echo ended >> {at}/journal");
    // The other one becomes due meanwhile: from then on every turn wants to write that it starts.
    let due = format!("echo tried >> {at}/tries; [ -e {at}/go ]");
    let document = serde_json::json!({"tasks": {
        "long": {"command": ["sh", "-c", work], "on_lost": "fail"},
        "due": {"command": ["sh", "-c", due], "retries": 3, "retry": {"backoff_s": 3}},
    }});
    home.write("long.json", &document.to_string());
    let long = up.skein(&["run", "--detach", "long.json"]).ok().out.trim().to_owned();
    until("the task to run", || std::fs::read_to_string(home.path("journal")).is_ok_and(|text| text == "began\n"));
    until("the other to have failed once", || {
        let attempts = up.skein(&["session", "attempts", &long, "--json"]).json();
        attempts.as_array().unwrap().iter().any(|a| a["state"] == "failed")
    });
    assert_eq!(up.health().0, 200);
    outage();
    // Large, so that no room that is left by chance holds it.
    let document = serde_json::json!({"name": "much", "command": ["true", "x".repeat(100_000)]});
    let much = serde_json::json!({ "document": document }).to_string();
    let (mut taken, mut refused, mut unwell) = (Vec::new(), 0, 0);
    let mut until_then = None;
    while until_then.is_none_or(|then| Instant::now() < then) {
        let (status, answer) = up.http("POST /api/v1/sessions", &much);
        if status < 300 {
            assert!(taken.len() < 200, "the disk takes everything");
            taken.push(answer["session"].as_str().unwrap().to_owned());
            continue;
        }
        let why = answer["error"].as_str().unwrap();
        assert!(matches!(status, 503 | 507) && why.contains(said), "{status} {why}");
        refused += 1;
        until_then = until_then.or(Some(Instant::now() + 4 * LEASE));
        let (status, health) = up.health();
        assert!(status == 200 || (health["status"] == "unwritten" && health["why"].as_str().unwrap().contains(said)));
        unwell += u32::from(status == 503);
    }
    assert!(refused > 3 && unwell > 0, "{refused} refused, not well {unwell} times");
    assert_eq!((home.read("journal"), home.read("tries")), ("began\n".to_owned(), "tried\n".to_owned()));
    home.write("go", "");
    until("the task to end", || home.read("journal") == "began\nended\n");
    mend();
    until("the engine to be well by itself", || up.health().0 == 200);
    until("what ran to be recorded", || up.skein(&["session", "show", &long]).out.contains("succeeded"));
    assert_eq!((home.read("journal").as_str(), home.read("tries").as_str()), ("began\nended\n", "tried\ntried\n"));
    taken.push(up.skein(&["run", "--detach", "--", "true"]).ok().out.trim().to_owned());
    until("everything that was taken to end well", || {
        taken.iter().all(|id| up.skein(&["session", "show", id]).out.contains("succeeded"))
    });
    up.stop();
}

#[test]
fn a_disk_that_turns_read_only_refuses_new_work_loses_nothing_and_stops_nothing_that_runs() {
    let home = Home::new();
    let Some(switch) = Switch::of(&home, "small") else { return };
    what_runs_outlasts(&home, Some(&switch.library), || switch.on(), || switch.off(), "read-only");
}

#[test]
fn a_full_disk_stops_nothing_that_runs() {
    let home = Home::new();
    let at = home.path("small");
    let Some(_disk) = SmallDisk::mounted(&at, "size=6m") else { return };
    let filler = at.join("filler");
    let fill = || {
        let mut file = std::fs::File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    };
    what_runs_outlasts(&home, None, fill, || std::fs::remove_file(&filler).unwrap(), "full");
}

#[test]
fn a_disk_that_its_system_gives_up_loses_nothing_that_was_taken() {
    let home = Home::new();
    let (image, at) = (home.path("image"), home.path("small"));
    std::fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let (image, at_text) = (image.display().to_string(), at.display().to_string());
    std::fs::create_dir(&at).unwrap();
    if !run("mkfs.ext4", &["-q", "-F", &image]) || !run("mount", &["-o", "loop", &image, &at_text]) {
        return support::skipped("this machine does not let the test mount an ext4 image");
    }
    let _disk = SmallDisk(&at);
    let up = Up::new(&home, "small/state");
    let submit = |up: &Up<'_>, n: u32| up.skein(&["run", "--detach", "--name", &format!("n{n}"), "--", "true"]);
    let taken: Vec<String> = (0..20).map(|n| submit(&up, n).ok().out.trim().to_owned()).collect();
    // What the system does when a write fails: the disk only reads from here on.
    assert!(run("mount", &["-o", "remount,abort", &at_text]));
    until("new work to be refused", || submit(&up, 100).code != 0);
    let refused = submit(&up, 101);
    assert!(refused.code != 0 && refused.err.contains("read-only"), "{}", refused.err);
    let (status, health) = up.health();
    assert!(status == 503 && health["why"].as_str().unwrap().contains("read-only"), "{status} {health}");
    assert_eq!(up.skein(&["session", "list"]).code, 0, "what is there can be seen");
    up.stop();
    assert!(run("umount", &[&at_text]) && run("mount", &["-o", "loop", &image, &at_text]));
    let again = Up::new(&home, "small/state");
    until("everything that was taken to end well", || {
        taken.iter().all(|id| again.skein(&["session", "show", id]).out.contains("succeeded"))
    });
    submit(&again, 102).ok();
    again.stop();
}

/// A small disk of its own, where this machine lets us make one.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mounted(at: &'a Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mut command = Command::new("mount");
        let done = command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).stderr(Stdio::null()).status();
        if done.is_ok_and(|status| status.success()) {
            return Some(Self(at));
        }
        support::skipped("this machine does not let the test mount a tmpfs");
        None
    }

    fn read_only(&self) {
        let status = Command::new("mount").args(["-o", "remount,ro"]).arg(self.0).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0).status().ok();
    }
}

#[test]
fn a_full_disk_refuses_new_work_loses_nothing_and_is_over_when_there_is_room() {
    let home = Home::new();
    let at = home.path("small");
    let Some(_disk) = SmallDisk::mounted(&at, "size=6m") else { return };
    let up = Up::new(&home, "small/state");
    std::fs::write(at.join("filler"), vec![0; 3 << 20]).unwrap();
    let submit = |n: u32| up.skein(&["run", "--detach", "--name", &format!("n{n}"), "--array", "3", "--", "true"]);
    let (mut taken, mut refused) = (Vec::new(), None);
    for n in 0..400 {
        let said = submit(n);
        if said.code != 0 {
            refused = Some(said);
            break;
        }
        taken.push(said.out.trim().to_owned());
        if n == 5 {
            // What is left of the disk, but for some pages.
            let mut filler = std::fs::OpenOptions::new().append(true).open(at.join("filler")).unwrap();
            while std::io::Write::write_all(&mut filler, &[0; 4096]).is_ok() {}
            let length = filler.metadata().unwrap().len();
            filler.set_len(length.saturating_sub(120 << 10)).unwrap();
        }
    }
    let refused = refused.expect("a full disk refuses");
    assert!(refused.err.contains("disk") && refused.err.contains("full"), "{}", refused.err);
    assert!(taken.len() > 5);
    std::fs::remove_file(at.join("filler")).unwrap();
    until("new work to be taken again", || submit(1000).code == 0);
    until("everything that was taken to end well", || {
        taken.iter().all(|id| up.skein(&["session", "show", id]).out.contains("succeeded"))
    });
    up.stop();
}

#[test]
fn a_disk_that_only_reads_is_named_at_the_start() {
    let home = Home::new();
    let at = home.path("fixed");
    let Some(disk) = SmallDisk::mounted(&at, "size=6m") else { return };
    Up::new(&home, "fixed/state").stop();
    disk.read_only();
    let said = home.skein(&["up", "--listen", "127.0.0.1:0", "--dir", "fixed/state"]);
    assert_ne!(said.code, 0);
    assert!(said.err.contains("fixed/state") && said.err.to_lowercase().contains("read-only"), "{}", said.err);
}
