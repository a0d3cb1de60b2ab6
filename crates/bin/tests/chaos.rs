//! Real processes under real kills: the engine and the agents are ended by SIGKILL again and again and
//! one agent is cut off (its interface goes down, where it can have one of its own), while an array runs. What each attempt did stands in a journal that no agent
//! owns, and each attempt holds a lock of its item for as long as any process of it lives.
//!
//! `SKEIN_CHAOS_KILLS=1000` makes it long.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::network::Network;
use support::{Home, until};

const ITEMS_RETRY: u32 = 1_500;
const ITEMS_FAIL: u32 = 500;
const AGENTS: usize = 3;
/// The last agent's network is cut this often, spread over the kills.
const CUTS: usize = 10;

/// What one attempt does: a line when it starts and when it ends, and a word when another attempt at
/// its item is alive.
const WORK: &str = r#"
exec 9>>"$J/lock.$SKEIN_NODE.$SKEIN_INDEX"
flock -n 9 || echo "overlap $SKEIN_NODE $SKEIN_INDEX $SKEIN_ATTEMPT" >> "$J/journal"
echo "start $SKEIN_NODE $SKEIN_INDEX $SKEIN_ATTEMPT $(cut -d' ' -f1 /proc/uptime)" >> "$J/journal"
sleep 0.06
echo "end $SKEIN_NODE $SKEIN_INDEX $SKEIN_ATTEMPT $(cut -d' ' -f1 /proc/uptime)" >> "$J/journal"
"#;

struct Site<'a> {
    home: &'a Home,
    port: u16,
    network: Arc<Network>,
    engine: Option<Child>,
    agents: Vec<Option<Child>>,
}

impl Site<'_> {
    fn start_engine(&mut self) {
        let listen = format!("{}:{}", self.network.engine_address(), self.port);
        let mut command = self.home.command(&["up", "--listen", &listen, "--config", "config.json"]);
        if !self.network.is_loopback() {
            command.arg("--tls");
        }
        self.engine = Some(quiet(&mut command).spawn().unwrap());
    }

    fn start_agent(&mut self, n: usize, token: Option<&str>) {
        let apart = n + 1 == AGENTS;
        let (address, port) = if apart {
            self.network.engine_as_seen(self.port)
        } else {
            (self.network.engine_address().to_owned(), self.port)
        };
        let scheme = if self.network.is_loopback() { "http" } else { "https" };
        let (url, dir, name) = (format!("{scheme}://{address}:{port}"), format!("agent-{n}"), format!("a{n}"));
        let mut command =
            self.home.command(&["agent", "--engine", &url, "--name", &name, "--slots", "2", "--dir", &dir]);
        if let Some(token) = token {
            command.env("SKEIN_JOIN", token);
        }
        if apart {
            command = self.network.inside(command);
        }
        self.agents[n] = Some(quiet(&mut command).spawn().unwrap());
    }

    fn kill_engine(&mut self) {
        end(self.engine.take());
        self.start_engine();
    }

    fn kill_agent(&mut self, n: usize) {
        end(self.agents[n].take());
        self.start_agent(n, None);
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        self.agents.iter_mut().for_each(|agent| end(agent.take()));
        end(self.engine.take());
    }
}

fn end(child: Option<Child>) {
    if let Some(mut child) = child {
        child.kill().ok();
        child.wait().ok();
    }
}

fn quiet(command: &mut std::process::Command) -> &mut std::process::Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

#[test]
fn kills_and_cuts_lose_nothing_double_nothing_and_overlap_nothing() {
    let kills: usize = std::env::var("SKEIN_CHAOS_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let home = Home::new();
    home.write("config.json", r#"{"lease_s": 3, "resource_time_check_s": 0.5}"#);
    let network = Arc::new(Network::new());
    let port = TcpListener::bind((network.engine_address(), 0)).unwrap().local_addr().unwrap().port();
    let mut site = Site { home: &home, port, network, engine: None, agents: (0..AGENTS).map(|_| None).collect() };
    site.start_engine();
    until("the engine to be up", || home.skein(&["session", "list"]).code == 0);
    for n in 0..AGENTS {
        let token = home.skein(&["token", "join"]).ok().out.trim().to_owned();
        site.start_agent(n, Some(&token));
    }
    let connected = || {
        let all = home.json(&["instance", "list"]);
        all.as_array().unwrap().iter().filter(|i| i["connected"] == true).count()
    };
    until("the agents to connect", || connected() == AGENTS);
    let times = u32::try_from(kills / 60).unwrap_or(1).max(1);
    let id = start(&home, times);
    let executions = torment(&mut site, kills);
    let over = || home.skein(&["session", "show", &id, "--json"]).out.contains("\"ended_at\": ");
    let deadline = Instant::now() + Duration::from_secs(60 + u64::from(times) * 120);
    while !over() || home.json(&["session", "show", &id])["ended_at"].is_null() {
        assert!(Instant::now() < deadline, "the session did not end: {}", home.skein(&["session", "show", &id]).out);
        std::thread::sleep(Duration::from_millis(200));
    }
    check(&home, &id, times);
    println!("{executions}");
}

fn start(home: &Home, times: u32) -> String {
    let journal = home.dir.path().display();
    let work = serde_json::to_string(WORK).unwrap();
    let (retry, fail) = (ITEMS_RETRY * times, ITEMS_FAIL * times);
    home.write(
        "chaos.json",
        &format!(
            r#"{{"tasks": {{
              "then": {{"command": ["sh", "-c", {work}], "array": {retry}, "env": {{"J": "{journal}"}}, "memory_mb": 64,
                         "retry": {{"lost": 1000}}}},
              "once": {{"command": ["sh", "-c", {work}], "array": {fail}, "env": {{"J": "{journal}"}}, "memory_mb": 64,
                        "on_lost": "fail"}}
            }}}}"#
        ),
    );
    home.skein(&["run", "chaos.json", "--detach"]).ok().out.trim().to_owned()
}

/// A third of the kills hit the engine. Sleeping here paces the faults; nothing is hoped for.
fn torment(site: &mut Site<'_>, kills: usize) -> String {
    let mut dice: u64 = 42;
    let mut below = |most: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % most
    };
    let (mut engines, mut agents, mut cuts, mut mending) = (0, 0, 0, Vec::new());
    for kill in 0..kills {
        std::thread::sleep(Duration::from_millis(150 + below(500)));
        if kill % 3 == 2 {
            site.kill_engine();
            engines += 1;
        } else {
            site.kill_agent(usize::try_from(below(AGENTS as u64)).unwrap());
            agents += 1;
        }
        if kill % (kills / CUTS).max(1) == 1 && cuts < CUTS {
            cuts += 1;
            let long = Duration::from_millis(300 + below(5_000));
            site.network.cut(true);
            // The network goes with the test, also when that fails meanwhile.
            let network = Arc::downgrade(&site.network);
            mending.push(std::thread::spawn(move || {
                std::thread::sleep(long);
                network.upgrade().inspect(|network| network.cut(false));
            }));
        }
    }
    for mend in mending {
        mend.join().unwrap();
    }
    format!("engine killed {engines} times, agents {agents} times, one agent's network cut {cuts} times")
}

/// Starts of one item: attempt and moment.
type Starts = BTreeMap<(String, u32), Vec<String>>;

fn check(home: &Home, id: &str, times: u32) {
    let session = home.json(&["session", "show", id]);
    let (mut ended, mut lost) = (0, 0);
    for node in session["nodes"].as_array().unwrap() {
        let items = &node["items"];
        ended += items["succeeded"].as_u64().unwrap() + items["lost"].as_u64().unwrap_or(0);
        lost += items["lost"].as_u64().unwrap_or(0);
        assert_eq!(
            items["total"],
            items["succeeded"].as_u64().unwrap() + items["lost"].as_u64().unwrap_or(0),
            "{node}"
        );
    }
    assert_eq!(ended, u64::from((ITEMS_RETRY + ITEMS_FAIL) * times), "{session}");
    let attempts = home.json(&["session", "attempts", id]);
    let mut accepted: BTreeMap<(String, u64), u32> = BTreeMap::new();
    let mut states: BTreeMap<String, String> = BTreeMap::new();
    for attempt in attempts.as_array().unwrap() {
        let item = (attempt["node"].as_str().unwrap().to_owned(), attempt["index"].as_u64().unwrap());
        let state = attempt["state"].as_str().unwrap().to_owned();
        *accepted.entry(item).or_default() += u32::from(state == "succeeded");
        states.insert(attempt["attempt"].as_str().unwrap().to_owned(), state);
    }
    assert!(accepted.values().all(|n| *n <= 1), "two accepted ends");
    let starts = starts(home.dir.path());
    let mut again = 0;
    for ((node, index), attempts) in &starts {
        let mut distinct = attempts.clone();
        distinct.dedup();
        assert_eq!(&distinct, attempts, "an attempt at {node}[{index}] started twice");
        again += attempts.len() - 1;
        assert!(node != "once" || attempts.len() == 1, "{node}[{index}] may never start twice: {attempts:?}");
        // A later start exists only where the ledger holds a lost cause for the one before.
        for earlier in &attempts[..attempts.len() - 1] {
            assert_eq!(states.get(earlier).map(String::as_str), Some("lost"), "{earlier} of {node}[{index}]");
        }
    }
    let of_lost = starts.len();
    println!("{of_lost} items started, {again} honest re-executions, {lost} items ended as lost");
}

fn starts(dir: &Path) -> Starts {
    let mut starts = Starts::new();
    let journal = std::fs::read_to_string(dir.join("journal")).unwrap();
    for line in journal.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["start", node, index, attempt, _] => {
                starts.entry((node.to_owned(), index.parse().unwrap())).or_default().push(attempt.to_owned());
            }
            ["end", ..] => {}
            _ => panic!("two attempts at one item were alive at once: {line}"),
        }
    }
    starts
}
