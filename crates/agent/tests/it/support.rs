//! What the tests share.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use skein_agent::Programs;

/// The binary that plays `skein`: an example, which `cargo test` builds with the tests.
pub fn testbin() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples/agent-testbin");
    assert!(
        path.exists(),
        "{} is missing: run 'cargo test -p skein-agent', or 'cargo build -p skein-agent --examples' first",
        path.display()
    );
    path
}

/// Said past the test harness, which keeps what a passing test prints to itself.
pub fn skipped(why: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "SKIPPED: {why}").ok();
}

pub fn programs() -> Programs {
    Programs {
        exe: testbin(),
        spawner: vec!["agent-spawner".into()],
        runner: vec!["function-runner".into()],
        lock: None,
    }
}

/// Polls until `what` gives something; fails with `name` after 20 s.
pub fn until<T>(name: &str, mut what: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(got) = what() {
            return got;
        }
        assert!(Instant::now() < deadline, "waited 20 s for: {name}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Does a process exist (and is no zombie)?
pub fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// CPU time of a process and of its direct children (their own only), microseconds.
pub fn cpu_us(pid: u32) -> (u64, u64) {
    let (mut own, mut children) = (0, 0);
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((head, rest)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let Ok(schedstat) = std::fs::read_dir(entry.path().join("task")) else { continue };
        let us: u64 = schedstat
            .flatten()
            .filter_map(|task| {
                std::fs::read_to_string(task.path().join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok()
            })
            .sum::<u64>()
            / 1000;
        if head.starts_with(&format!("{pid} ")) {
            own = us;
        } else if fields[1] == pid.to_string() {
            children += us;
        }
    }
    (own, children)
}
