use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use skein_domain::EndCause;
use skein_wire::lane::Stream;
use skein_wire::{FromAgent, OrderBody, StartOrder, ToAgent};

use crate::engine::{FakeEngine, of, order};
use crate::support::{alive, cpu_us, testbin, until};

/// An agent as a real process; killed when dropped.
pub struct Agent(Child);

impl Agent {
    fn start(engine: &FakeEngine, dir: &Path, slots: u32) -> Self {
        Self::start_with(engine, dir, slots, &[])
    }

    pub fn start_with(engine: &FakeEngine, dir: &Path, slots: u32, env: &[(&str, &str)]) -> Self {
        let args = ["agent", &engine.url, &engine.token(), dir.to_str().unwrap(), &slots.to_string()];
        Self(Command::new(testbin()).args(args).envs(env.iter().copied()).spawn().unwrap())
    }

    pub fn signal(&self, name: &str) {
        Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap();
    }

    fn ended(mut self) -> bool {
        until("the agent to end", || self.0.try_wait().unwrap()).success()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

async fn ready(slots: u32) -> (FakeEngine, tempfile::TempDir, Agent) {
    let engine = FakeEngine::start().await;
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(&engine, dir.path(), slots);
    engine.hello(1).await;
    (engine, dir, agent)
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_says_hello_and_runs_an_attempt() {
    let (engine, dir, agent) = ready(2).await;
    let hello = engine.hello(1).await;
    assert_eq!((hello.facts.slots, hello.facts.os.as_ref(), hello.holding.len()), (2, "linux", 0));
    assert!(hello.facts.cpus > 0 && hello.facts.memory_mb > 100 && hello.facts.storage_mb > 0);
    let identity = dir.path().join("identity.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&identity.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let silent = order(0, 1, &["true"]);
    engine.start_order(&silent);
    let end = engine.end_of(of(&silent)).await;
    assert_eq!(end.cause, EndCause::Succeeded);
    assert_eq!(engine.with(|seen| seen.log_requests), 0, "nothing printed, nothing sent");

    let input = engine.add_file("in/data.txt", b"three\nlines\nhere\n");
    let script = "wc -l < in/data.txt > count.txt; echo to-out; echo to-err >&2; echo $SECRET; printenv | sort > env.txt; pwd >> env.txt; skein-agent-is-not-here || exit 0";
    let full = StartOrder {
        inputs: vec![input],
        outputs: vec!["*.txt".into()],
        env: [("SECRET".into(), "hunter2".into()), ("OWN".into(), "1".into())].into(),
        secret_env: vec!["SECRET".into()],
        ..order(1, 2, &["sh", "-c", script])
    };
    engine.start_order(&full);
    let end = engine.end_of(of(&full)).await;
    assert_eq!(end.cause, EndCause::Succeeded, "{end:?}");
    let names: Vec<_> = end.outputs.iter().map(|o| o.path.as_str()).collect();
    assert_eq!(names, ["count.txt", "env.txt"]);
    let content =
        |n: usize| engine.with(|seen| String::from_utf8(seen.files[end.outputs[n].digest.as_str()].clone()).unwrap());
    assert_eq!(content(0).trim(), "3");
    let env = content(1);
    let bin = testbin().parent().unwrap().display().to_string();
    for part in [
        "SKEIN_SESSION=s-1\n",
        "SKEIN_NODE=node\n",
        "SKEIN_INDEX=1\n",
        "SKEIN_ATTEMPT=s-1.0.1.1\n",
        "SKEIN_ENGINE=test-engine\n",
        "OWN=1\n",
        "LANG=",
        &format!("PATH={bin}:"),
    ] {
        assert!(env.contains(part), "{part} is not in {env}");
    }
    let work = env.lines().last().unwrap();
    assert!(env.contains(&format!("HOME={work}\n")), "{env}");
    assert_eq!(engine.log(of(&full), Stream::Out), "to-out\n***\n");
    assert!(engine.log(of(&full), Stream::Err).starts_with("to-err\n"));
    until("the folder to be emptied", || (std::fs::read_dir(work).unwrap().count() == 0).then_some(()));

    agent.signal("-TERM");
    engine.wait("leaving", |m| (*m == FromAgent::Leaving).then_some(())).await;
    assert!(agent.ended());
    assert!(!dir.path().join("attempts").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_apart() {
    let (engine, _dir, _agent) = ready(2).await;
    let missing = StartOrder { outputs: vec!["result.csv".into()], ..order(0, 1, &["true"]) };
    let limit = StartOrder { limit_ms: Some(200), ..order(1, 1, &["sleep", "1000"]) };
    let no_input = StartOrder { inputs: vec![engine.add_file("x", b"x")], ..order(2, 1, &["true"]) };
    engine.with(|seen| seen.files.clear());
    let unknown = order(3, 1, &["no-such-program"]);
    let fails = order(4, 1, &["sh", "-c", "exit 7"]);
    let signalled = order(5, 1, &["sh", "-c", "kill -11 $$"]);
    for order in [&missing, &limit, &no_input, &unknown, &fails, &signalled] {
        engine.start_order(order);
    }
    let end = engine.end_of(of(&missing)).await;
    assert_eq!(end.cause, EndCause::Failed { exit_code: 0 });
    assert!(end.notes.iter().any(|n| n.contains("output 'result.csv' is missing")), "{end:?}");
    assert_eq!(engine.end_of(of(&limit)).await.cause, EndCause::TimedOut { limit_ms: 200 });
    let EndCause::NotStarted { why } = engine.end_of(of(&no_input)).await.cause else { panic!() };
    assert!(why.contains("input 'x' cannot be had") && why.contains("404"), "{why}");
    let EndCause::NotStarted { why } = engine.end_of(of(&unknown)).await.cause else { panic!() };
    assert!(why.contains("no-such-program"), "{why}");
    assert_eq!(engine.end_of(of(&fails)).await.cause, EndCause::Failed { exit_code: 7 });
    assert_eq!(engine.end_of(of(&signalled)).await.cause, EndCause::Signalled { signal: 11 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_order_is_refused_and_a_cancel_obeyed() {
    let (engine, _dir, _agent) = ready(1).await;
    let long = order(0, 5, &["sleep", "1000"]);
    engine.start_order(&long);
    engine.started(of(&long)).await;
    let stale = order(0, 4, &["true"]);
    engine.start_order(&stale);
    let why = engine.wait("a refusal", |m| match m {
        FromAgent::OrderRefused { order, why } if *order == of(&stale) => Some(why.clone()),
        _ => None,
    });
    assert!(why.await.contains("stale"));
    engine.send(ToAgent::Cancel { attempt: long.attempt, generation: 5, moving: false });
    assert_eq!(engine.end_of(of(&long)).await.cause, EndCause::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_survives_a_short_cut_and_a_lost_answer() {
    let (engine, dir, _agent) = ready(1).await;
    engine.manners(|m| m.records = false);
    let go = dir.path().join("go");
    let waits = order(0, 1, &["sh", "-c", &format!("while [ ! -e {} ]; do sleep 0.01; done", go.display())]);
    engine.start_order(&waits);
    engine.started(of(&waits)).await;
    engine.cut();
    let hello = engine.hello(2).await;
    assert_eq!((hello.holding, hello.boot), (vec![of(&waits)], engine.hello(1).await.boot));
    std::fs::write(&go, "").unwrap();
    assert_eq!(engine.end_of(of(&waits)).await.cause, EndCause::Succeeded);
    // Not recorded: it is held, and told again after the next hello.
    engine.cut();
    assert_eq!(engine.hello(3).await.holding, [of(&waits)]);
    let told = |times: usize| {
        until("the end to be told again", || {
            let told = engine.with(|s| s.messages.iter().filter(|m| matches!(m, FromAgent::Ended { .. })).count());
            (told >= times).then_some(())
        });
    };
    told(2);
    engine.manners(|m| m.records = true);
    engine.cut();
    told(3);
    until("the end to be forgotten", || {
        engine.cut();
        let hellos = engine.with(|s| s.hellos.len());
        until("another hello", || engine.with(|s| (s.hellos.len() > hellos).then_some(())));
        engine.with(|s| s.hellos[hellos].holding.is_empty()).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_for_longer_than_the_lease_everything_stops_in_time() {
    let engine = FakeEngine::start().await;
    engine.manners(|m| m.lease_ms = 1_500);
    let dir = tempfile::tempdir().unwrap();
    let _agent = Agent::start(&engine, dir.path(), 1);
    engine.hello(1).await;
    let pid_file = dir.path().join("pid");
    let stubborn = order(
        0,
        1,
        &["sh", "-c", &format!("trap '' TERM; echo $$ > {}; while true; do sleep 0.05; done", pid_file.display())],
    );
    engine.start_order(&stubborn);
    engine.started(of(&stubborn)).await;
    let pid = until("the pid", || std::fs::read_to_string(&pid_file).ok()?.trim().parse().ok());
    // It runs for longer than a lease, as long as heartbeats are answered.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(alive(pid));
    engine.manners(|m| m.takes_connections = false);
    let cut = Instant::now();
    engine.cut();
    until("the attempt to be stopped", || (!alive(pid)).then_some(()));
    let took = cut.elapsed();
    assert!(took < Duration::from_millis(1_500), "it lived {took:?} after the cut, the lease is 1.5 s");
    engine.manners(|m| m.takes_connections = true);
    let EndCause::Lost { why } = engine.end_of(of(&stubborn)).await.cause else { panic!() };
    assert!(why.contains("lease"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_followed_live_and_resent() {
    let (engine, dir, _agent) = ready(1).await;
    let go = dir.path().join("go");
    let script =
        format!("echo first; while [ ! -e {} ]; do sleep 0.01; done; seq 1 200000; echo last >&2", go.display());
    let prints = order(0, 1, &["sh", "-c", &script]);
    engine.start_order(&prints);
    until("the first line", || (engine.log(of(&prints), Stream::Out) == "first\n").then_some(()));
    engine.manners(|m| m.takes_logs = false);
    std::fs::write(&go, "").unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    engine.manners(|m| m.takes_logs = true);
    let end = engine.end_of(of(&prints)).await;
    assert_eq!((end.cause, end.notes.iter().any(|n| n.contains("log"))), (EndCause::Succeeded, false));
    let expected = (1..=200_000).map(|n: u32| n.to_string() + "\n").collect::<String>();
    assert!(engine.log(of(&prints), Stream::Out) == format!("first\n{expected}"));
    assert_eq!(engine.log(of(&prints), Stream::Err), "last\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_order_comes_over_the_bulk_lane() {
    let (engine, _dir, _agent) = ready(1).await;
    let env = [("LONG".to_owned(), "x".repeat(100_000))].into();
    let large = StartOrder { env, ..order(0, 1, &["sh", "-c", "exit $((${#LONG} / 50000))"]) };
    engine.with(|seen| seen.orders.insert(large.attempt.to_string(), large.clone()));
    engine.send(ToAgent::Start { attempt: large.attempt, generation: 1, order: OrderBody::Fetch });
    assert_eq!(engine.end_of(of(&large)).await.cause, EndCause::Failed { exit_code: 2 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agents_children_end_and_the_next_start_is_clean() {
    let (engine, dir, agent) = ready(1).await;
    let pid_file = dir.path().join("pid");
    let long = order(0, 1, &["sh", "-c", &format!("echo $$ > {}; sleep 1000", pid_file.display())]);
    engine.start_order(&long);
    engine.started(of(&long)).await;
    let pid = until("the pid", || std::fs::read_to_string(&pid_file).ok()?.trim().parse().ok());
    agent.signal("-KILL");
    until("the attempt to die", || (!alive(pid)).then_some(()));
    drop(agent);
    let _again = Agent::start(&engine, dir.path(), 1);
    let hello = engine.hello(2).await;
    assert_eq!(hello.holding, []);
    assert_ne!(hello.boot, engine.hello(1).await.boot);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_in_the_same_folder_is_refused() {
    let (engine, dir, _agent) = ready(1).await;
    let args = ["agent", &engine.url, &engine.token(), dir.path().to_str().unwrap(), "1"];
    let output = Command::new(testbin()).args(args).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("another agent uses the folder"));
}

/// A thousand kills on a busy machine found an item that ran twice: the new agent's hello said that what ran
/// before had ended with the old one, and a spawner had not got round to it yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_agent_says_nothing_while_a_spawner_of_the_old_one_lives() {
    let engine = FakeEngine::start().await;
    let dir = tempfile::tempdir().unwrap();
    let held = std::fs::File::create(dir.path().join("spawners.lock")).unwrap();
    held.lock_shared().unwrap();
    let _agent = Agent::start(&engine, dir.path(), 1);
    // Long enough for an agent that does not wait: those of the other tests are there within some 50 ms.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(engine.with(|seen| seen.hellos.is_empty()), "an attempt of the old one may still live");
    drop(held);
    engine.hello(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_bulk_lanes_delay_no_heartbeat() {
    let (engine, _dir, _agent) = ready(2).await;
    engine.manners(|m| m.heartbeat_ms = 50);
    let script =
        "yes 0123456789abcdef | head -c 20000000; for i in 1 2 3; do head -c 15000000 /dev/urandom > big$i; done";
    let bulky = |item| StartOrder { outputs: vec!["big*".into()], ..order(item, 1, &["sh", "-c", script]) };
    let orders = [bulky(0), bulky(1)];
    for order in &orders {
        engine.start_order(order);
    }
    for order in &orders {
        let end = engine.end_of(of(order)).await;
        assert_eq!((end.cause, end.outputs.len()), (EndCause::Succeeded, 3));
    }
    let beats = engine.with(|seen| seen.heartbeats.clone());
    let longest = beats.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    println!("longest gap between heartbeats every 50 ms beside 130 MB of logs and files: {longest:?}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    for order in &orders {
        until("the whole log", || (engine.log(of(order), Stream::Out).len() == 20_000_000).then_some(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_only_the_tokens_ca_is_trusted() {
    let engine = FakeEngine::start_tls().await;
    let dir = tempfile::tempdir().unwrap();
    let mut other = engine.clone();
    other.ca_digest = Some("0".repeat(64));
    let mut refused = Agent::start(&other, dir.path(), 1);
    // It would try again for a while: the engine may be about to start.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(refused.0.try_wait().unwrap().is_none_or(|status| !status.success()));
    assert_eq!(engine.with(|seen| seen.public_key.len()), 0, "it joined an engine with another CA");
    drop(refused);
    let _agent = Agent::start(&engine, dir.path(), 1);
    engine.hello(1).await;
    let order = StartOrder {
        inputs: vec![engine.add_file("in", b"content")],
        outputs: vec!["out".into()],
        ..order(0, 1, &["sh", "-c", "cat in | tee out"])
    };
    engine.start_order(&order);
    assert_eq!(engine.end_of(of(&order)).await.cause, EndCause::Succeeded);
    assert_eq!(engine.log(of(&order), Stream::Out), "content");
}

/// Prints what one agent makes of `/bin/true`: a window of pre-sent orders on two slots, then one
/// at a time. A floor is asserted, since this machine is shared.
#[tokio::test(flavor = "multi_thread")]
async fn throughput_of_bin_true() {
    let (engine, _dir, agent) = ready(2).await;
    let before = cpu_us(agent.0.id());
    let ended = |engine: &FakeEngine| {
        engine.with(|s| s.messages.iter().filter(|m| matches!(m, FromAgent::Ended { .. })).count())
    };
    let count = 2_000;
    let began = Instant::now();
    for item in 0..count {
        engine.start_order(&order(item, 1, &["/bin/true"]));
    }
    while ended(&engine) < count as usize {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(began.elapsed() < Duration::from_mins(1));
    }
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    let after = cpu_us(agent.0.id());
    let each = |after: u64, before: u64| (after - before) / u64::from(count);
    println!("agent CPU {} us an attempt, spawners {} us", each(after.0, before.0), each(after.1, before.1));
    let mut times: Vec<Duration> = Vec::new();
    for item in count..count + 200 {
        let order = order(item, 1, &["/bin/true"]);
        let began = Instant::now();
        engine.start_order(&order);
        while ended(&engine) <= item as usize {
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        times.push(began.elapsed());
    }
    times.sort();
    println!(
        "agent: {rate:.0} /bin/true per second on 2 slots; one at a time p50 {:?} p99 {:?}",
        times[100], times[197]
    );
    assert_eq!(engine.with(|seen| seen.log_requests), 0);
    let began = Instant::now();
    let first = count + 200;
    for item in first..first + 500 {
        engine.start_order(&order(item, 1, &["/bin/echo", "hello"]));
    }
    while ended(&engine) < (first + 500) as usize {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(began.elapsed() < Duration::from_mins(1));
    }
    let requests = engine.with(|seen| seen.log_requests);
    println!(
        "agent: {:.0} /bin/echo per second, {requests} log requests for 500",
        500.0 / began.elapsed().as_secs_f64()
    );
}
