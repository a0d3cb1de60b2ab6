//! What happens to the engine's folder: backup and restore, a full disk, a disk that only reads.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use support::{Home, signal, until};

/// An engine of the test's own on a folder, ended with it.
struct Up<'a> {
    home: &'a Home,
    dir: String,
    child: std::process::Child,
}

impl<'a> Up<'a> {
    fn new(home: &'a Home, dir: &str) -> Self {
        let mut command = home.command(&["up", "--agent", "--listen", "127.0.0.1:0", "--dir", dir]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let up = Self { home, dir: dir.to_owned(), child };
        until("the engine to be up", || up.skein(&["instance", "list"]).out.contains("ready"));
        up
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
