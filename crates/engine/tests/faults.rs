//! The engine's core and the real ledger under seeded faults, on one thread with simulated time:
//! crashes before and after commits, messages lost, doubled and late, agents that die or are cut off.
//! `SKEIN_FAULT_SEEDS=N` runs more seeds; `SKEIN_FAULT_SEED=N` runs one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skein_api::StartRequest;
use skein_domain::decide::{Policy, Snapshot};
use skein_domain::event::{Event, Then};
use skein_domain::{
    AttemptEnd, AttemptKey, Dedicated, EndCause, InstanceFacts, InstanceId, ItemKey, ItemState, NanoUsd, Solution,
    SolutionKind, Timestamp,
};
use skein_engine::core::{Core, Input, Output, Settings};
use skein_store::{Ledger as _, Reader as _, SqliteLedger, Turn};
use skein_wire::{AttemptRef, FromAgent, Hello};

const LEASE_MS: u64 = 10_000;
const STEP_MS: u64 = 500;
const AGENTS: usize = 3;

/// `SplitMix64`: the same numbers on every machine.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    /// True `percent` times of a hundred.
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

struct Held {
    generation: u64,
    ends_at: Timestamp,
    end: Option<AttemptEnd>,
}

/// A simulated agent: what the real one promises and nothing more.
struct Agent {
    id: InstanceId,
    boot: u32,
    up: bool,
    cut_off_until: Timestamp,
    connected: bool,
    last_lease: Timestamp,
    heartbeat: u64,
    held: BTreeMap<AttemptKey, Held>,
    newest: BTreeMap<ItemKey, u64>,
}

struct World {
    dice: Dice,
    now: Timestamp,
    dir: tempfile::TempDir,
    ledger: Option<SqliteLedger>,
    core: Option<Core>,
    agents: Vec<Agent>,
    /// Under way: when it arrives, and what.
    to_engine: Vec<(Timestamp, Input)>,
    to_agents: Vec<(Timestamp, usize, Output)>,
    starts: BTreeMap<ItemKey, u32>,
    faults: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let agents = (0..AGENTS).map(|n| Agent {
            id: InstanceId::new(&format!("a{n}")).unwrap(),
            boot: 0,
            up: true,
            cut_off_until: Timestamp(0),
            connected: false,
            last_lease: Timestamp(0),
            heartbeat: 0,
            held: BTreeMap::new(),
            newest: BTreeMap::new(),
        });
        let mut world = Self {
            dice: Dice(seed),
            now: Timestamp(1_000_000_000),
            dir: tempfile::tempdir().unwrap(),
            ledger: None,
            core: None,
            agents: agents.collect(),
            to_engine: Vec::new(),
            to_agents: Vec::new(),
            starts: BTreeMap::new(),
            faults: true,
        };
        world.start_engine();
        world
    }

    fn start_engine(&mut self) {
        let mut ledger = SqliteLedger::open(self.dir.path(), &"sim".parse().unwrap()).unwrap();
        let settings = Settings { policy: Policy::default(), lease_ms: LEASE_MS };
        let core = Core::new(Snapshot::load(ledger.load().unwrap()), settings.clone(), self.now);
        (self.ledger, self.core) = (Some(ledger), Some(core));
        let own = Dedicated { price_per_hour: NanoUsd(1000), slots_max: None, timeout_ms: 86_400_000 };
        let own = Solution { id: "own".parse().unwrap(), kind: SolutionKind::Dedicated(own) };
        self.turn(vec![Input::Configure { settings: Box::new(settings), solutions: vec![own] }]);
        for agent in &mut self.agents {
            agent.connected = false;
        }
    }

    /// The engine dies: nothing in memory or under way to it survives.
    fn crash(&mut self) {
        (self.core, self.ledger) = (None, None);
        self.to_engine.retain(|(_, input)| matches!(input, Input::Submit { .. }));
        self.start_engine();
    }

    fn turn(&mut self, inputs: Vec<Input>) {
        let mut turn = self.core.as_mut().unwrap().turn(self.now, inputs);
        let crash_before = self.faults && self.dice.chance(2);
        if crash_before {
            return self.crash();
        }
        if !turn.is_empty() {
            let row =
                Turn { turn: turn.turn, at: self.now, events: &turn.events, changes: &turn.changes, side: &turn.side };
            self.ledger.as_mut().unwrap().commit(&row).unwrap();
        }
        if self.faults && self.dice.chance(2) {
            return self.crash();
        }
        for output in std::mem::take(&mut turn.outputs) {
            self.let_out(output);
        }
    }

    fn let_out(&mut self, output: Output) {
        let to = match &output {
            Output::StartOnAgent { order } => order.attempt.place.to_string(),
            Output::Cancel { place, .. } => place.to_string(),
            Output::Recorded { instance, .. } | Output::Lease { instance, .. } => instance.to_string(),
            _ => return,
        };
        let Some(at) = self.agents.iter().position(|a| a.id.as_str() == to) else { return };
        if !self.faults || !self.dice.chance(5) {
            let arrives = self.now.after_ms(self.delay());
            self.to_agents.push((arrives, at, output));
        }
    }

    fn delay(&mut self) -> u64 {
        if self.faults && self.dice.chance(10) { self.dice.below(8_000) } else { self.dice.below(20) }
    }

    fn tell_engine(&mut self, agent: usize, messages: Vec<FromAgent>) {
        if self.faults && self.dice.chance(5) {
            return;
        }
        let copies = if self.faults && self.dice.chance(5) { 2 } else { 1 };
        for _ in 0..copies {
            let (instance, boot) = (self.agents[agent].id.clone(), self.agents[agent].boot.to_string());
            let arrives = self.now.after_ms(self.delay());
            self.to_engine.push((arrives, Input::FromAgent { instance, boot, messages: messages.clone() }));
        }
    }

    fn step(&mut self) {
        self.now = self.now.after_ms(STEP_MS);
        if self.faults {
            self.hurt();
        }
        for at in 0..AGENTS {
            self.step_agent(at);
        }
        let (due, later) = std::mem::take(&mut self.to_agents).into_iter().partition(|(when, ..)| *when <= self.now);
        self.to_agents = later;
        for (_, at, output) in due {
            self.deliver(at, output);
        }
        let (due, later): (Vec<_>, _) =
            std::mem::take(&mut self.to_engine).into_iter().partition(|(when, _)| *when <= self.now);
        self.to_engine = later;
        let mut inputs: Vec<Input> = due.into_iter().map(|(_, input)| input).collect();
        inputs.extend(self.asking().into_iter().map(|item| Input::Answer { reply: 0, item, again: true }));
        self.turn(inputs);
    }

    /// Items that wait for a person's answer.
    fn asking(&self) -> Vec<ItemKey> {
        let sessions = &self.core.as_ref().unwrap().snapshot().sessions;
        let nodes = sessions.values().flat_map(|s| s.nodes.iter().enumerate().map(|(at, node)| (s.id, at, node)));
        let items = nodes.flat_map(|(session, at, node)| {
            let key = skein_domain::NodeKey { session, node: u32::try_from(at).unwrap() };
            let asks = |state: &ItemState| matches!(state, ItemState::Asking { .. });
            node.open.iter().filter(move |(_, state)| asks(state)).map(move |(index, _)| key.item(*index))
        });
        items.collect()
    }

    fn hurt(&mut self) {
        let at = usize::try_from(self.dice.below(AGENTS as u64)).unwrap();
        let (now, roll) = (self.now, self.dice.below(100));
        let away = self.dice.below(20_000);
        let agent = &mut self.agents[at];
        match roll {
            0..2 => {
                // It dies with its children, and starts anew.
                agent.boot += 1;
                agent.held.clear();
                agent.newest.clear();
                agent.connected = false;
                agent.up = !agent.up;
            }
            2..4 => (agent.cut_off_until, agent.connected) = (now.after_ms(away), false),
            4..8 => agent.up = true,
            _ => {}
        }
    }

    fn step_agent(&mut self, at: usize) {
        let now = self.now;
        let agent = &mut self.agents[at];
        if !agent.up {
            return;
        }
        // Cut off: it stops its attempts before the lease can be over for the engine.
        if now.ms_since(agent.last_lease) > LEASE_MS - 2_000 {
            for held in agent.held.values_mut().filter(|h| h.end.is_none()) {
                held.end = Some(AttemptEnd::bare(EndCause::Lost { why: "cut off".into() }));
            }
        }
        for held in agent.held.values_mut().filter(|h| h.end.is_none() && h.ends_at <= now) {
            held.end = Some(AttemptEnd::bare(EndCause::Succeeded));
        }
        if agent.cut_off_until > now {
            return;
        }
        if !agent.connected {
            agent.connected = true;
            agent.last_lease = now;
            let input = Input::Hello { hello: Box::new(hello(agent)), solution: "own".parse().unwrap() };
            self.to_engine.push((now, input));
        }
        agent.heartbeat += 1;
        let mut messages =
            vec![FromAgent::Heartbeat { number: agent.heartbeat, cpu_percent: 10, memory_mb: 1, items: vec![] }];
        for (attempt, held) in &agent.held {
            if let Some(end) = &held.end {
                let order = AttemptRef { attempt: *attempt, generation: held.generation };
                messages.push(FromAgent::Ended { order, end: Box::new(end.clone()) });
            }
        }
        self.tell_engine(at, messages);
    }

    fn deliver(&mut self, at: usize, output: Output) {
        let run_ms = 500 + self.dice.below(6_000);
        let now = self.now;
        let agent = &mut self.agents[at];
        if !agent.up || agent.cut_off_until > now {
            return;
        }
        match output {
            Output::StartOnAgent { order } => {
                let (attempt, generation) = (order.attempt.key, order.attempt.generation);
                let newest = agent.newest.entry(attempt.item).or_default();
                // The real agent refuses what is stale, and what was ordered from an earlier boot never
                // reaches it: that connection is gone.
                if *newest >= generation || order.attempt.boot != agent.boot.to_string() {
                    return;
                }
                *newest = generation;
                agent.held.insert(attempt, Held { generation, ends_at: now.after_ms(run_ms), end: None });
                *self.starts.entry(attempt.item).or_default() += 1;
                let order = AttemptRef { attempt, generation };
                self.tell_engine(at, vec![FromAgent::Accepted(order), FromAgent::Started(order)]);
            }
            Output::Cancel { attempt, generation, .. } => {
                if let Some(held) = agent.held.get_mut(&attempt).filter(|h| h.generation == generation) {
                    held.end.get_or_insert(AttemptEnd::bare(EndCause::Cancelled));
                }
            }
            Output::Recorded { attempts, .. } => {
                agent.held.retain(|key, held| {
                    !attempts.iter().any(|a| a.attempt == *key && a.generation == held.generation && held.end.is_some())
                });
            }
            Output::Lease { .. } => agent.last_lease = now,
            _ => {}
        }
    }
}

fn hello(agent: &Agent) -> Hello {
    Hello {
        protocol: 1,
        engine: "sim".parse().unwrap(),
        instance: agent.id.clone(),
        boot: agent.boot.to_string(),
        facts: InstanceFacts {
            cpus: 2,
            memory_mb: 4096,
            storage_mb: 1000,
            os: "linux".into(),
            arch: "x86_64".into(),
            slots: 3,
            instance_type: None,
            role: None,
            image: None,
            resources: BTreeMap::new(),
            container: false,
        },
        holding: agent.held.iter().map(|(a, h)| AttemptRef { attempt: *a, generation: h.generation }).collect(),
        signature: String::new(),
        draining: false,
    }
}

fn spec() -> Arc<skein_domain::SessionSpec> {
    let document = serde_json::json!({"name": "world", "tasks": {
        "first": {"command": ["x"], "array": 6},
        "once": {"command": ["x"], "array": 4, "on_lost": "fail"},
        "asks": {"command": ["x"], "array": 2, "on_lost": "ask"},
        "then": {"command": ["x"], "array": 5, "after": ["first"]},
        "last": {"command": ["x"], "after": ["then", "asks", {"task": "once", "when": "end"}]},
    }});
    let settled = skein_engine::config::Config::default().settle().unwrap();
    let user = "sim".parse().unwrap();
    let request = StartRequest::default();
    let made = skein_engine::settle_document(document, &request, None, &user, &settled).unwrap();
    Arc::new(made)
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    let submit = Input::Submit { reply: 0, spec: spec(), client_key: Some("k".into()), digests: vec![] };
    world.faults = false;
    world.turn(vec![submit]);
    world.faults = true;
    for step in 0.. {
        world.step();
        // After a while the faults stop: everything must then come to its end.
        if step == 200 {
            world.faults = false;
            world.agents.iter_mut().for_each(|a| (a.up, a.cut_off_until) = (true, Timestamp(0)));
        }
        assert!(step < 600, "seed {seed}: stuck: {:?}", world.core.as_ref().unwrap().snapshot().sessions);
        if step > 200 && world.core.as_ref().unwrap().snapshot().sessions.is_empty() {
            break;
        }
    }
    check(seed, &world);
}

fn check(seed: u64, world: &World) {
    let reader = world.ledger.as_ref().unwrap().reader().unwrap();
    let events = reader.events(0, None, 1_000_000).unwrap();
    let mut ends: BTreeMap<ItemKey, u32> = BTreeMap::new();
    let mut attempts: BTreeSet<AttemptKey> = BTreeSet::new();
    for row in &events {
        if let Event::Ended { attempt, then, .. } = &row.event {
            assert!(attempts.insert(*attempt), "seed {seed}: two ends of {attempt}");
            if let Then::End(_) = then {
                *ends.entry(attempt.item).or_default() += 1;
            }
        }
    }
    assert!(ends.values().all(|n| *n == 1), "seed {seed}: an item ended twice: {ends:?}");
    let session = reader.sessions(skein_store::Page::ALL).unwrap().pop().unwrap();
    assert_eq!(u64::from(session.tally().ended()), session.count(), "seed {seed}: items without an end");
    let spec = reader.session_spec(session.id).unwrap().unwrap();
    for (item, starts) in &world.starts {
        let node = &spec.thread.nodes[item.node.node as usize];
        let once = node.task.on_lost == skein_domain::OnLost::Fail;
        assert!(!once || *starts <= 1, "seed {seed}: {item} says on_lost = fail and started {starts} times");
    }
}

#[test]
fn every_item_ends_exactly_once_whatever_fails() {
    if let Some(seed) = std::env::var("SKEIN_FAULT_SEED").ok().and_then(|s| s.parse().ok()) {
        return run(seed);
    }
    let seeds = std::env::var("SKEIN_FAULT_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(12);
    (0..seeds).for_each(run);
}
