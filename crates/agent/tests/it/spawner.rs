use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use skein_agent::spawner::{CgroupBase, Event, Exit, Launch, Spawner, SpawnerEvent, StopSignal, prepare_cgroups};
use tokio::sync::mpsc;

use crate::support::{alive, programs, skipped, testbin, until};

struct Slot {
    spawner: Spawner,
    events: mpsc::UnboundedReceiver<SpawnerEvent>,
    notes: Vec<String>,
    next: u64,
}

impl Slot {
    async fn new(number: usize, base: &CgroupBase) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let spawner = Spawner::launch(&programs(), number, base, move |e| drop(sender.send(e))).unwrap();
        let mut slot = Self { spawner, events, notes: Vec::new(), next: 0 };
        let Event::Ready { notes } = slot.event().await else { panic!("not ready") };
        slot.notes = notes;
        slot
    }

    async fn event(&mut self) -> Event {
        match tokio::time::timeout(Duration::from_secs(20), self.events.recv()).await.unwrap().unwrap() {
            SpawnerEvent::Said(event) => event,
            SpawnerEvent::Gone => panic!("the spawner is gone"),
        }
    }

    fn start(&mut self, dir: &Path, argv: &[&str], memory_mb: u32) -> u64 {
        self.next += 1;
        self.spawner.start(Launch {
            id: self.next,
            argv: argv.iter().map(ToString::to_string).collect(),
            env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
            cwd: dir.to_owned(),
            folders: vec![],
            out: dir.join("out.log"),
            err: dir.join("err.log"),
            memory_mb,
            stdin: false,
        });
        self.next
    }

    async fn exit(&mut self) -> Exit {
        loop {
            if let Event::Exited(exit) = self.event().await {
                return exit;
            }
        }
    }

    async fn run(&mut self, dir: &Path, argv: &[&str]) -> Exit {
        self.start(dir, argv, 0);
        self.exit().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exits_signals_and_output_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut slot = Slot::new(10, &CgroupBase::default()).await;
    assert_eq!(slot.notes, ["memory not limited: no cgroup write access"]);
    let exit = slot.run(dir.path(), &["true"]).await;
    assert_eq!((exit.code, exit.signal, exit.log_bytes), (Some(0), None, 0), "{exit:?}");
    assert_eq!(slot.run(dir.path(), &["false"]).await.code, Some(1));
    let exit = slot.run(dir.path(), &["sh", "-c", "echo out; echo err >&2; pwd; kill -9 $$"]).await;
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
    let out = std::fs::read_to_string(dir.path().join("out.log")).unwrap();
    assert_eq!(out, format!("out\n{}\n", dir.path().canonicalize().unwrap().display()));
    assert_eq!(std::fs::read_to_string(dir.path().join("err.log")).unwrap(), "err\n");
    assert_eq!(exit.log_bytes, out.len() as u64 + 4);
    let exit = slot.run(dir.path(), &["sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"]).await;
    assert!(exit.cpu_ms.unwrap() > 5 && exit.peak_memory_kb.unwrap() > 100, "{exit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let mut slot = Slot::new(11, &CgroupBase::default()).await;
    for (argv, part) in
        [(&["no-such-program"][..], "no such program in PATH"), (&["./none"], "cannot start './none'"), (&[], "empty")]
    {
        slot.start(dir.path(), argv, 0);
        let Event::StartFailed { why, .. } = slot.event().await else { panic!() };
        assert!(why.contains(part), "{why}");
    }
    assert_eq!(slot.run(dir.path(), &["true"]).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_whole_group_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut slot = Slot::new(12, &CgroupBase::default()).await;
    // A child that ignores SIGTERM, and one that left the process group.
    let script = "trap '' TERM; setsid sleep 1000 & echo $! > free; sleep 1001 & echo $! > child; echo up > up; wait; sleep 1002";
    let id = slot.start(dir.path(), &["sh", "-c", script], 0);
    until("the script to be up", || dir.path().join("up").exists().then_some(()));
    let pid = |name: &str| -> i32 { std::fs::read_to_string(dir.path().join(name)).unwrap().trim().parse().unwrap() };
    slot.spawner.signal(id + 1, StopSignal::Kill);
    slot.spawner.signal(id, StopSignal::Term);
    assert!(alive(pid("free")));
    slot.spawner.signal(id, StopSignal::Kill);
    let exit = slot.exit().await;
    assert_eq!(exit.signal, Some(9));
    assert!(!alive(pid("child")) && !alive(pid("free")), "something was left: {exit:?}");
    assert_eq!(slot.run(dir.path(), &["true"]).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_limited_where_the_machine_allows() {
    let base = prepare_cgroups();
    let Some(folder) = base.memory.clone() else {
        skipped("this machine gives no memory cgroup");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut slot = Slot::new(13, &base).await;
    assert!(slot.notes.is_empty());
    let name = format!("skein-slot-{}-13", std::process::id());
    assert!(folder.join(&name).is_dir());
    slot.start(dir.path(), &["sh", "-c", "head -c 200000000 /dev/zero | tail -c 150000000 > big; exit 3"], 32);
    let exit = slot.exit().await;
    assert!(exit.out_of_memory, "{exit:?}");
    assert!(!slot.run(dir.path(), &["true"]).await.out_of_memory);
    drop(slot);
    until("the cgroup to be removed", || (!folder.join(&name).exists()).then_some(()));
}

/// A process that starts a spawner and an attempt, then is killed itself: nothing may survive.
#[test]
fn children_die_with_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let configure = r#"{"configure":{"name":"dies","cgroup":null}}"#;
    let env = r#"{"PATH":"/usr/bin:/bin"}"#;
    let d = dir.path().display();
    let start = format!(
        r#"{{"start":{{"id":1,"argv":["sh","-c","echo $$ > pid.part; setsid sleep 1000 & echo $! > free; mv pid.part pid; sleep 1000"],"env":{env},"cwd":"{d}","folders":[],"out":"{d}/o","err":"{d}/e","memory_mb":0}}}}"#
    );
    // The shell is the agent: it holds the pipe, and dies by SIGKILL.
    let script = format!(
        "(printf '%s\\n' '{configure}' '{}'; sleep 1000) | '{}' agent-spawner",
        start.replace('\'', "'\\''"),
        testbin().display()
    );
    let mut agent = Tree(
        Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).process_group_of_its_own().spawn().unwrap(),
    );
    let pid = until("the attempt to run", || {
        std::fs::read_to_string(dir.path().join("pid")).ok()?.trim().parse::<i32>().ok()
    });
    let free: i32 = std::fs::read_to_string(dir.path().join("free")).unwrap().trim().parse().unwrap();
    assert!(alive(pid) && alive(free));
    let holder = sleeper_of(agent.0.id());
    Command::new("kill").args(["-9", &holder.to_string()]).status().unwrap();
    until("the attempt to die", || (!alive(pid) && !alive(free)).then_some(()));
    agent.0.wait().unwrap();
}

/// A process group that ends with the test, also when the test fails.
struct Tree(std::process::Child);

impl Drop for Tree {
    fn drop(&mut self) {
        Command::new("kill").args(["-9", "--", &format!("-{}", self.0.id())]).stderr(Stdio::null()).status().ok();
        self.0.wait().ok();
    }
}

trait OwnGroup {
    fn process_group_of_its_own(&mut self) -> &mut Self;
}
impl OwnGroup for Command {
    fn process_group_of_its_own(&mut self) -> &mut Self {
        std::os::unix::process::CommandExt::process_group(self, 0)
    }
}

/// The process of group `group` that holds the write end of the spawner's pipe: `sleep`.
fn sleeper_of(group: u32) -> i32 {
    until("the sleeping holder of the pipe", || {
        std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let (name, rest) = stat.rsplit_once(')')?;
            let its_group: u32 = rest.split_ascii_whitespace().nth(2)?.parse().ok()?;
            (its_group == group && name.ends_with("(sleep")).then_some(pid)
        })
    })
}

/// Not a benchmark, a floor: 2,000 processes on two spawners.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_processes_start_and_end() {
    let each = 1_000;
    let base = prepare_cgroups();
    let began = Instant::now();
    let run = |number: usize| {
        let base = base.clone();
        async move {
            let dir = tempfile::tempdir().unwrap();
            let mut slot = Slot::new(number, &base).await;
            for _ in 0..each {
                assert_eq!(slot.run(dir.path(), &["/bin/true"]).await.code, Some(0));
            }
        }
    };
    let (a, b) = (tokio::spawn(run(14)), tokio::spawn(run(15)));
    a.await.unwrap();
    b.await.unwrap();
    let seconds = began.elapsed().as_secs_f64();
    println!("spawner rate: {:.0}/s on 2 slots", 2.0 * f64::from(each) / seconds);
    assert!(seconds < 60.0, "2,000 processes took {seconds} s");
}
