//! One world: what happens next, what goes wrong, and what is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skein_agent::core::Input as AgentInput;
use skein_agent::spawner::StopSignal;
use skein_domain::decide::budget::{Budgets, Cap, CapAction};
use skein_domain::decide::replay::Replay;
use skein_domain::decide::{Algorithm, Policy, Snapshot};
use skein_domain::event::Event;
use skein_domain::{
    AttemptEnd, AttemptKey, CpuSetting, EndCause, InstanceId, ItemKey, ItemState, NanoUsd, OnLost, Place, SessionSpec,
    Timestamp,
};
use skein_engine::core::{Core, GatewayEvent, Input, OrderTo, Output, Settings};
use skein_store::{Ledger as _, SqliteLedger};
use skein_wire::message::AttemptRef;
use skein_wire::{FromAgent, OrderBody, ToAgent};

use crate::agents::{Machine, Process};
use crate::cloud::Cloud;
use crate::dice::Dice;
use crate::ledger::Books;
use crate::setup::{Counts, Mutant, Setup};
use crate::things::{CLOUD, solutions, specs, start_order};

mod algorithm;
mod clouds;
mod disk;

use disk::Disk;

const LEASE_MS: u64 = 10_000;
const HEARTBEAT_MS: u64 = 2_000;
/// Faults happen for this long, ms; then everything must come to its end.
const FAULTS_MS: u64 = 60_000;
/// After the last session, machines come and go for this long, ms.
const REST_MS: u64 = 180_000;
/// And within this, ms.
const QUIET_MS: u64 = 900_000;

/// What is under way.
#[derive(Debug)]
enum Coming {
    /// To the engine's process of this number, by a connection of an agent (or none).
    Engine(u64, Option<(usize, u64)>, Input),
    Agent(usize, u64, ToAgent),
    /// A process of a machine's boot may be over.
    Exit(usize, u32, usize, u64),
    Tick(usize, u32),
    EngineTick(u64),
    Dial(usize),
    /// A client that has no answer yet asks again.
    Client(usize),
    /// A person answers what asks.
    Person,
    /// The cloud is asked, and does it.
    Make(u64, InstanceId),
    End(u64, InstanceId),
    List(u64),
    /// A machine of a name appears: perhaps long after it was asked for.
    Appear(InstanceId),
    Fault,
    /// The commit that the engine's process of this number waits for is over, or it tries again.
    Synced(u64),
}

pub struct World {
    setup: Setup,
    dice: Dice,
    pub now: Timestamp,
    queue: BTreeMap<(Timestamp, u64), Coming>,
    ordinal: u64,
    dir: tempfile::TempDir,
    ledger: Option<SqliteLedger>,
    core: Option<Core>,
    /// The engine's process: what was on its way to an earlier one is gone.
    engine: u64,
    machines: Vec<Machine>,
    last_on: BTreeMap<(u64, bool), Timestamp>,
    connections: u64,
    books: Books,
    pub counts: Counts,
    specs: Vec<Arc<SessionSpec>>,
    answered: BTreeSet<skein_domain::SessionId>,
    /// Clients that know it.
    acknowledged: BTreeSet<usize>,
    runs: BTreeMap<ItemKey, u32>,
    earned: BTreeSet<AttemptKey>,
    invoked: BTreeMap<AttemptKey, (Timestamp, bool)>,
    cloud: Cloud,
    disk: Disk,
    /// Dice of the user's algorithm, when there is one.
    algorithm: Dice,
    faults: bool,
    /// When the last session had ended.
    over: Option<Timestamp>,
}

/// Plays the world of `seed` to its end.
pub fn run(seed: u64, setup: &Setup) -> Counts {
    let mut world = World::new(seed, setup);
    world.play();
    world.finish()
}

impl World {
    pub fn new(seed: u64, setup: &Setup) -> Self {
        let mut dice = Dice::new(seed);
        let machines = (0..setup.agents)
            .map(|n| {
                let slots = usize::try_from(1 + dice.below(4)).unwrap();
                Machine::new(n, slots, i64::try_from(dice.below(21)).unwrap() - 10)
            })
            .collect();
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let mut world = Self {
            setup: setup.clone(),
            dice,
            now: Timestamp(1_000_000_000),
            queue: BTreeMap::new(),
            ordinal: 0,
            dir: dir.unwrap(),
            ledger: None,
            core: None,
            engine: 0,
            machines,
            last_on: BTreeMap::new(),
            connections: 0,
            books: Books::default(),
            counts: Counts::default(),
            specs: specs(setup.items),
            answered: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            runs: BTreeMap::new(),
            earned: BTreeSet::new(),
            invoked: BTreeMap::new(),
            cloud: Cloud::default(),
            disk: Disk::new(seed),
            algorithm: Dice::new(seed ^ 0xa190),
            faults: true,
            over: None,
        };
        world.start_engine(None);
        for n in 0..world.machines.len() {
            world.later(10 + 37 * n as u64, Coming::Dial(n));
        }
        for n in 0..world.specs.len() {
            world.submit(n, 50 + 4_000 * n as u64);
        }
        world.later(500, Coming::Fault);
        world.later(3_000, Coming::Person);
        world
    }

    fn has(&self, kind: &str) -> bool {
        self.faults && self.setup.kinds.contains(kind)
    }

    fn later(&mut self, ms: u64, coming: Coming) {
        self.at(self.now.after_ms(ms), coming);
    }

    fn at(&mut self, when: Timestamp, coming: Coming) {
        self.ordinal += 1;
        self.queue.insert((when.max(self.now), self.ordinal), coming);
    }

    fn submit(&mut self, n: usize, ms: u64) {
        let spec = self.specs[n].clone();
        let (reply, client_key) = (n as u64 + 1, Some(format!("k{n}")));
        self.later(
            ms,
            Coming::Engine(0, None, Input::Submit { reply, spec, client_key, digests: vec![], estimate: None }),
        );
        self.later(ms + 3_000, Coming::Client(n));
    }

    fn settings(&self) -> Settings {
        // What is said of a cap is to be there again after every crash.
        let warn = Cap { limit: NanoUsd(500), action: CapAction::Warn, warn_percent: 80 };
        let budgets = Budgets { session: Some(warn), month: Some(warn), ..Budgets::default() };
        let mut policy = Policy { exclusive_wait_ms: 2_000, budgets, ..Policy::default() };
        if self.setup.algorithm {
            policy.algorithm = Algorithm::Custom { class: algorithm::CLASS.into() };
        }
        Settings { policy, lease_ms: LEASE_MS }
    }

    /// `durable` is what the ledger must have, whole.
    fn start_engine(&mut self, durable: Option<&Snapshot>) {
        self.engine += 1;
        let mut ledger = SqliteLedger::open(self.dir.path(), &"sim".parse().unwrap()).unwrap();
        let snapshot = Snapshot::load(ledger.load().unwrap());
        self.is_as_before(&snapshot, durable);
        let known = skein_store::Reader::sessions(&ledger.reader().unwrap(), skein_store::Page::ALL).unwrap();
        let known: BTreeSet<_> = known.iter().map(|row| row.id).collect();
        self.counts.forgotten += self.answered.difference(&known).count() as u64;
        self.core = Some(Core::new(snapshot, self.settings(), self.now));
        self.ledger = Some(ledger);
        for n in 0..self.machines.len() {
            self.disconnect(n);
        }
        let settings = Box::new(self.settings());
        self.turn(vec![Input::Configure { settings, solutions: solutions() }]);
    }

    fn disconnect(&mut self, n: usize) {
        let machine = &mut self.machines[n];
        if machine.connection == 0 {
            return;
        }
        (machine.connection, machine.welcomed) = (0, false);
        machine.outbox.clear();
        let (instance, boot) = (machine.id.clone(), machine.boot.to_string());
        self.carry_out(n, AgentInput::Disconnected);
        let again = 100 + self.dice.below(2_000);
        self.later(again, Coming::Dial(n));
        let engine = self.engine;
        self.later(1, Coming::Engine(engine, None, Input::Disconnected { instance, boot }));
    }

    fn earned_is(&mut self, event: &Event) {
        if let Event::Ended { attempt, end, .. } = event
            && end.cause == EndCause::Succeeded
            && !self.earned.contains(attempt)
        {
            self.counts.unearned += 1;
        }
    }

    /// As the broker does: orders and leases are for the boot that they were given to.
    fn is_connected_as_another_boot(&self, id: &InstanceId, boot: &str) -> bool {
        self.machines.iter().any(|m| m.id == *id && m.connection != 0 && m.boot.to_string() != boot)
    }

    fn let_out(&mut self, output: Output) {
        let lease_ms = if self.setup.mutant == Some(Mutant::NoLeaseCheck) { 3_600_000 } else { LEASE_MS };
        match output {
            Output::Reply { answer, reply } => self.answered(reply, answer),
            Output::StartOnAgent { order } => {
                let Place::Instance(id) = &order.attempt.place else { return };
                if self.is_connected_as_another_boot(id, &order.attempt.boot) {
                    return;
                }
                let (attempt, generation) = (order.attempt.key, order.attempt.generation);
                let body = OrderBody::Inline(Box::new(start_order(&order)));
                self.send(&id.to_string(), ToAgent::Start { attempt, generation, order: body });
            }
            Output::Cancel { attempt, generation, place: Place::Instance(id), moving } => {
                self.send(&id.to_string(), ToAgent::Cancel { attempt, generation, moving });
            }
            Output::Recall { attempt, generation, instance } => {
                self.send(&instance.to_string(), ToAgent::Recall { attempt, generation });
            }
            Output::Recorded { instance, attempts } => {
                self.send(&instance.to_string(), ToAgent::Recorded { attempts });
            }
            Output::Lease { instance, boot, heartbeat } => {
                if self.is_connected_as_another_boot(&instance, &boot) {
                    return;
                }
                let lease = ToAgent::Lease { heartbeat, lease_ms, heartbeat_ms: HEARTBEAT_MS };
                self.send(&instance.to_string(), lease);
            }
            Output::DrainAgent { instance, why } => self.send(&instance.to_string(), ToAgent::Drain { why }),
            Output::StartInGateway { order, resume } => self.invoke(&order, resume),
            Output::MakeMachine { instance, .. } => {
                let ms = self.cloud_ms();
                self.later(ms, Coming::Make(self.engine, instance));
            }
            Output::EndMachine { instance, .. } => {
                let ms = self.cloud_ms();
                self.later(ms, Coming::End(self.engine, instance));
            }
            Output::AskAlgorithm { ask, question } => self.ask_algorithm(ask, &question),
            Output::ListMachines { .. } => {
                let ms = self.cloud_ms();
                self.later(ms, Coming::List(self.engine));
            }
            _ => {}
        }
    }

    fn answered(&mut self, reply: u64, answer: Result<skein_engine::core::Answer, skein_engine::core::Refusal>) {
        let n = usize::try_from(reply).unwrap_or(0);
        if n == 0 || n > self.specs.len() {
            return;
        }
        match answer {
            Ok(skein_engine::core::Answer::Session { session, .. })
                if !self.has("network") || self.dice.chance(800) =>
            {
                self.answered.insert(session);
                self.acknowledged.insert(n - 1);
            }
            // The answer was lost, or it was refused: the client asks again with the same key.
            _ => {}
        }
    }

    /// On a connection what is sent arrives in order, or the connection breaks.
    fn send(&mut self, id: &str, message: ToAgent) {
        let Some(n) = self.machines.iter().position(|m| m.id.as_str() == id && m.connection != 0) else { return };
        let connection = self.machines[n].connection;
        if let Some(when) = self.arrival(n, connection, false) {
            self.at(when, Coming::Agent(n, connection, message));
        }
    }

    fn arrival(&mut self, n: usize, connection: u64, to_engine: bool) -> Option<Timestamp> {
        if connection == 0 {
            return None;
        }
        if self.has("network") && self.dice.chance(4) {
            self.disconnect(n);
            return None;
        }
        let slow = self.has("network") && self.dice.chance(30);
        let delay = if slow { self.dice.below(4_000) } else { self.dice.below(5) };
        let cut = self.machines[n].cut_until;
        let last = self.last_on.get(&(connection, to_engine)).copied().unwrap_or(Timestamp(0));
        let when = self.now.after_ms(delay).max(cut).max(last);
        self.last_on.insert((connection, to_engine), when);
        Some(when)
    }

    fn invoke(&mut self, order: &OrderTo, resume: bool) {
        let (key, generation) = (order.attempt.key, order.attempt.generation);
        let Place::Gateway(solution) = order.attempt.place.clone() else { return };
        let order_ref = AttemptRef { attempt: key, generation };
        let (engine, now) = (self.engine, self.now);
        let news = |event| Input::FromGateway { solution: solution.clone(), order: order_ref, event };
        if !resume && self.has("gateway") && self.dice.chance(30) {
            self.later(5, Coming::Engine(engine, None, news(GatewayEvent::NotTaken("full".into()))));
            return;
        }
        let known = self.invoked.contains_key(&key);
        let run_ms = 20 + self.dice.below(3_000);
        let (ends, _) = *self.invoked.entry(key).or_insert((now.after_ms(run_ms), true));
        if !known {
            self.ran(key);
            self.earned.insert(key);
        }
        let end = || GatewayEvent::Ended(Box::new(AttemptEnd::bare(EndCause::Succeeded)));
        self.later(2, Coming::Engine(engine, None, news(GatewayEvent::Started)));
        self.at(ends, Coming::Engine(engine, None, news(end())));
        if self.has("gateway") && self.dice.chance(100) {
            self.at(ends.after_ms(700), Coming::Engine(engine, None, news(end())));
        }
    }

    /// One more execution of an item begins.
    fn ran(&mut self, attempt: AttemptKey) {
        let once = self.task(attempt).is_some_and(|task| task.on_lost == OnLost::Fail);
        let runs = self.runs.entry(attempt.item).or_default();
        *runs += 1;
        if *runs > 1 {
            self.counts.again += 1;
            self.counts.overlap += u64::from(once);
            if once {
                self.books.blame(attempt.item, format!("{attempt} is a second start of what may start once"));
            }
        }
    }

    fn task(&self, attempt: AttemptKey) -> Option<Arc<skein_domain::TaskSpec>> {
        let session = attempt.item.session();
        let spec = match self.core.as_ref().and_then(|core| core.snapshot().sessions.get(&session)) {
            Some(open) => open.spec.clone(),
            None => return None,
        };
        Some(spec.thread.nodes[attempt.item.node.node as usize].task.clone())
    }

    pub fn play(&mut self) {
        let stop = self.now.after_ms(FAULTS_MS);
        let end = stop.after_ms(QUIET_MS);
        while let Some(((when, _), coming)) = self.queue.pop_first() {
            self.now = self.now.max(when);
            if self.faults && self.now > stop {
                self.heal();
            }
            self.happen(coming);
            if !self.faults {
                self.resume_paused();
            }
            let over = self.books.sessions_ended >= self.specs.len();
            if !self.faults && over && self.machines.iter().all(|m| m.processes.is_empty()) {
                // The clouds are to come to rest too: nothing but the minimum is left.
                let since = *self.over.get_or_insert(self.now);
                if self.now.ms_since(since) > REST_MS {
                    return;
                }
            }
            if self.now > end {
                let open = self.core.as_ref().map_or(1, |core| core.snapshot().sessions.len());
                self.counts.stuck += open.max(1) as u64;
                return;
            }
        }
        self.counts.stuck += 1;
    }

    /// Faults are over: whoever is down comes back, paused sessions go on.
    fn heal(&mut self) {
        self.faults = false;
        for n in 0..self.machines.len() {
            self.machines[n].cut_until = Timestamp(0);
            let made = self.machines[n].solution == CLOUD;
            if !made && (!self.machines[n].up || self.machines[n].left || self.machines[n].core.draining()) {
                self.disconnect(n);
                self.machines[n].reboot(self.now);
                self.later(10, Coming::Dial(n));
            }
        }
        self.resume_paused();
    }

    /// Also what is paused after the faults, by a request that was on its way for long (seeds 2462 and 3345).
    fn resume_paused(&mut self) {
        let Some(core) = &self.core else { return };
        let paused = core.snapshot().sessions.values().filter(|s| s.state == skein_domain::SessionState::Paused);
        let by: skein_domain::UserName = "sim".parse().unwrap();
        let inputs: Vec<Input> = paused
            .map(|s| Input::Resume { reply: 0, session: s.id, by: by.clone(), budget: Some(NanoUsd(i64::MAX)) })
            .collect();
        if !inputs.is_empty() {
            self.turn(inputs);
        }
    }

    fn happen(&mut self, coming: Coming) {
        match coming {
            Coming::Engine(engine, by, input) => {
                let there = engine == 0 || engine == self.engine;
                let connected = by.is_none_or(|(n, connection)| self.machines[n].connection == connection);
                if there && connected && !self.is_known(&input) {
                    let input = self.mutate(input);
                    self.turn(vec![input]);
                }
            }
            Coming::Agent(n, connection, message) => {
                if self.machines[n].connection == connection && self.machines[n].up {
                    self.carry_out(n, AgentInput::Message(message));
                }
            }
            Coming::Exit(n, boot, slot, launch) => self.exit(n, boot, slot, launch),
            Coming::Tick(n, boot) => {
                if self.machines[n].boot == boot && self.machines[n].up {
                    self.carry_out(n, AgentInput::Tick);
                }
            }
            Coming::EngineTick(engine) => {
                let due = self.core.as_ref().and_then(Core::next_wake).is_some_and(|wake| wake <= self.now);
                if engine == self.engine && due {
                    self.turn(Vec::new());
                }
            }
            Coming::Person => {
                self.later(3_000, Coming::Person);
                let items = self.asking();
                let answer = |item: ItemKey| {
                    let ranges = vec![(item.index, item.index + 1)];
                    Input::Answer { reply: 0, node: item.node, ranges, again: true }
                };
                if !items.is_empty() {
                    self.turn(items.into_iter().map(answer).collect());
                }
            }
            Coming::Dial(n) => self.dial(n),
            Coming::Client(n) => {
                if !self.acknowledged.contains(&n) {
                    self.submit(n, 0);
                }
            }
            Coming::Make(engine, name) => self.make(engine, name),
            Coming::End(engine, name) => self.end_machines(engine, name),
            Coming::List(engine) => self.list_machines(engine),
            Coming::Appear(name) => self.appear(name),
            Coming::Fault => self.fault(),
            Coming::Synced(engine) => self.synced(engine),
        }
    }

    /// As the rim does: a client's key that the ledger knows is answered from there.
    fn is_known(&mut self, input: &Input) -> bool {
        let Input::Submit { spec, client_key: Some(key), reply, .. } = input else { return false };
        let reader = self.ledger.as_ref().unwrap().reader().unwrap();
        let known = skein_store::Reader::client_key(&reader, spec.user.as_str(), key).unwrap();
        if let Some(session) = known {
            self.answered.insert(session);
            self.acknowledged.insert(usize::try_from(*reply).unwrap() - 1);
        }
        known.is_some()
    }

    fn mutate(&mut self, input: Input) -> Input {
        let Some(Mutant::NoGenerationCheck) = self.setup.mutant else { return input };
        let Input::FromAgent { instance, boot, messages } = input else { return input };
        let snapshot = self.core.as_ref().unwrap().snapshot();
        let open_of = |item: ItemKey| match snapshot.node(item.node).and_then(|node| node.open.get(&item.index)) {
            Some(ItemState::Assigned { attempt, .. }) => snapshot.attempts.get(attempt),
            _ => None,
        };
        let mut moved = Vec::new();
        let mut kept = Vec::new();
        for message in messages {
            match message {
                FromAgent::Ended { order, end } => match open_of(order.attempt.item) {
                    Some(open) if open.key != order.attempt => {
                        let order = AttemptRef { attempt: open.key, generation: open.generation };
                        if let Place::Instance(id) = &open.place {
                            moved.push((id.clone(), FromAgent::Ended { order, end }));
                        }
                    }
                    _ => kept.push(FromAgent::Ended { order, end }),
                },
                other => kept.push(other),
            }
        }
        for (id, message) in moved {
            let boot = snapshot.instances.get(&id).map(|i| i.boot.clone()).unwrap_or_default();
            let engine = self.engine;
            self.ordinal += 1;
            let input = Input::FromAgent { instance: id, boot, messages: vec![message] };
            self.queue.insert((self.now, self.ordinal), Coming::Engine(engine, None, input));
        }
        Input::FromAgent { instance, boot, messages: kept }
    }

    fn asking(&self) -> Vec<ItemKey> {
        let mut all = Vec::new();
        for session in self.core.as_ref().unwrap().snapshot().sessions.values() {
            for (at, node) in session.nodes.iter().enumerate() {
                let key = skein_domain::NodeKey { session: session.id, node: u32::try_from(at).unwrap() };
                let asks = node.open.iter().filter(|(_, state)| matches!(state, ItemState::Asking { .. }));
                all.extend(asks.map(|(index, _)| key.item(*index)));
            }
        }
        all
    }

    fn dial(&mut self, n: usize) {
        let machine = &mut self.machines[n];
        if !machine.up || machine.left || machine.connection != 0 {
            return;
        }
        if machine.cut_until > self.now {
            let until = machine.cut_until;
            return self.at(until, Coming::Dial(n));
        }
        self.connections += 1;
        machine.connection = self.connections;
        let (connection, engine) = (self.connections, self.engine);
        self.carry_out(n, AgentInput::HelloSent);
        let hello = Box::new(self.machines[n].hello());
        let lease_ms = if self.setup.mutant == Some(Mutant::NoLeaseCheck) { 3_600_000 } else { LEASE_MS };
        let welcome = ToAgent::Welcome { lease_ms, heartbeat_ms: HEARTBEAT_MS, lane_token: String::new() };
        self.later(2, Coming::Agent(n, connection, welcome));
        let solution = self.machines[n].solution.parse().unwrap();
        self.later(2, Coming::Engine(engine, Some((n, connection)), Input::Hello { hello, solution }));
        self.last_on.insert((connection, true), self.now.after_ms(2));
        self.last_on.insert((connection, false), self.now.after_ms(2));
    }

    /// The agent's core takes an input; what it says is carried out.
    fn carry_out(&mut self, n: usize, input: AgentInput) {
        let now = self.now;
        self.machines[n].step(now, input);
        for (slot, launch, attempt) in std::mem::take(&mut self.machines[n].spawned) {
            self.spawn(n, slot, launch, attempt);
        }
        for (slot, launch, signal) in std::mem::take(&mut self.machines[n].signals) {
            self.signal(n, slot, launch, signal);
        }
        let (connection, engine) = (self.machines[n].connection, self.engine);
        let messages = std::mem::take(&mut self.machines[n].outbox);
        if !messages.is_empty()
            && let Some(when) = self.arrival(n, connection, true)
        {
            let (instance, boot) = (self.machines[n].id.clone(), self.machines[n].boot.to_string());
            let input = Input::FromAgent { instance, boot, messages };
            self.at(when, Coming::Engine(engine, Some((n, connection)), input));
        }
        let machine = &self.machines[n];
        if let Some(wake) = machine.core.next_wake() {
            let (when, boot) = (machine.at(wake), machine.boot);
            self.at(when.max(now.after_ms(1)), Coming::Tick(n, boot));
        }
    }

    fn spawn(&mut self, n: usize, slot: usize, launch: u64, attempt: AttemptKey) {
        let of_item = |p: &&Process| p.attempt.item == attempt.item;
        let alive: Vec<_> = self.machines.iter().flat_map(|m| m.processes.values()).filter(of_item).cloned().collect();
        self.counts.overlap += alive.len() as u64;
        if !alive.is_empty() {
            let at = self.now;
            self.books.blame(attempt.item, format!("{at:?}: {attempt} starts on a{n:02} while there is {alive:?}"));
        }
        let invoked = self.invoked.iter().any(|(key, (ends, _))| key.item == attempt.item && *ends > self.now);
        self.counts.overlap += u64::from(invoked);
        self.ran(attempt);
        let alone = |world: &Self, key| world.task(key).is_some_and(|t| t.needs.cpu == CpuSetting::Exclusive);
        let company = self.machines[n].processes.values().map(|p| p.attempt).collect::<Vec<_>>();
        let crowded = company.iter().any(|other| alone(self, *other)) || !company.is_empty() && alone(self, attempt);
        let all = company.iter().chain([&attempt]).filter_map(|key| self.task(*key));
        let slots: u32 = all.map(|task| task.needs.slots).sum();
        self.counts.crowded += u64::from(crowded || slots as usize > self.machines[n].slots);
        let long = self.dice.chance(100);
        let run_ms = if long { self.dice.below(20_000) } else { 1 + self.dice.below(60) };
        let code = i32::from(self.faults && self.dice.chance(20));
        let ends_at = self.now.after_ms(run_ms);
        let process = Process { attempt, launch, ends_at, code, signal: None, told: false };
        let boot = self.machines[n].boot;
        self.machines[n].processes.insert(slot, process);
        self.at(ends_at, Coming::Exit(n, boot, slot, launch));
        if run_ms > 2 {
            let now = self.now;
            self.machines[n].processes.get_mut(&slot).unwrap().told = true;
            self.machines[n].step(now, AgentInput::Started { slot, launch, pid: Some(1) });
        }
    }

    fn signal(&mut self, n: usize, slot: usize, launch: u64, signal: StopSignal) {
        let (now, boot) = (self.now, self.machines[n].boot);
        // Some end at once when asked, some only when they are killed.
        let obeys = signal == StopSignal::Kill || self.dice.chance(600);
        let Some(process) = self.machines[n].processes.get_mut(&slot).filter(|p| p.launch == launch && obeys) else {
            return;
        };
        (process.ends_at, process.signal) = (now, Some(if signal == StopSignal::Kill { 9 } else { 15 }));
        self.at(now, Coming::Exit(n, boot, slot, launch));
    }

    fn exit(&mut self, n: usize, boot: u32, slot: usize, launch: u64) {
        let now = self.now;
        let machine = &mut self.machines[n];
        let due = machine.processes.get(&slot).is_some_and(|p| p.launch == launch && p.ends_at <= now);
        if machine.boot != boot || !due {
            return;
        }
        let process = &machine.processes[&slot];
        if process.code == 0 && process.signal.is_none() {
            self.earned.insert(process.attempt);
        }
        machine.exit(now, slot);
        self.carry_out(n, AgentInput::Tick);
    }

    fn fault(&mut self) {
        if !self.faults {
            return;
        }
        self.later(400, Coming::Fault);
        let n = usize::try_from(self.dice.below(self.machines.len() as u64)).unwrap();
        let long = self.dice.below(25_000);
        match self.dice.below(100) {
            0..=14 if self.has("cut") => {
                self.counts.cuts += 1;
                self.machines[n].cut_until = self.now.after_ms(long);
                if self.dice.chance(500) {
                    self.disconnect(n);
                }
            }
            15..=24 if self.has("reboot") && self.machines[n].up => {
                self.counts.reboots += 1;
                self.disconnect(n);
                self.machines[n].reboot(self.now);
                self.later(50, Coming::Dial(n));
            }
            25..=29 if self.has("cloud") && self.machines[n].solution == CLOUD => {
                // The cloud loses it.
                self.cloud.lose(n);
                self.vanish(n);
            }
            25..=29 if self.has("reboot") => {
                // It vanishes; another of that name may come much later.
                self.disconnect(n);
                self.machines[n].reboot(self.now);
                self.machines[n].up = false;
            }
            25..=34 if self.machines[n].solution == CLOUD => {}
            30..=34 if !self.machines[n].up => {
                self.machines[n].up = true;
                self.later(5, Coming::Dial(n));
            }
            35..=44 if self.has("control") => self.control(n),
            _ => {}
        }
    }

    fn control(&mut self, n: usize) {
        let engine = self.engine;
        let (instance, by): (_, skein_domain::UserName) = (self.machines[n].id.clone(), "sim".parse().unwrap());
        let open: Vec<_> = self.core.as_ref().unwrap().snapshot().sessions.keys().copied().collect();
        let session = (!open.is_empty()).then(|| open[usize::try_from(self.dice.below(open.len() as u64)).unwrap()]);
        let stop_running = self.dice.chance(300);
        let input = match (self.dice.below(10), session) {
            (0, _) => Input::Notice { reply: 0, instance, why: "a spot notice".to_owned() },
            (1..=4, _) => {
                let why = "scale in".to_owned();
                if self.setup.mutant == Some(Mutant::DrainOutside) {
                    let event = Event::InstanceDraining { instance: instance.clone(), why: why.clone() };
                    self.books.take(&event, &mut self.counts);
                    self.later(300, Coming::Engine(engine, None, Input::Drain { reply: 0, instance, why }));
                    return;
                }
                Input::Drain { reply: 0, instance, why }
            }
            (5..=6, Some(session)) => Input::Pause { reply: 0, session, by, stop_running },
            (7..=8, Some(session)) => Input::Resume { reply: 0, session, by, budget: None },
            (9, Some(session)) if self.dice.chance(400) => {
                let node = skein_domain::NodeKey { session, node: 0 };
                let from = u32::try_from(self.dice.below(40)).unwrap();
                let ranges = vec![(from, from + 1 + u32::try_from(self.dice.below(5)).unwrap())];
                if from % 4 == 0 {
                    let input = Input::RetryNow { reply: 0, node, ranges: ranges.clone(), by: by.clone() };
                    self.later(1, Coming::Engine(engine, None, input));
                }
                Input::CancelItems { reply: 0, node, ranges, by }
            }
            (9, Some(session)) if self.dice.chance(200) => Input::Stop { reply: 0, session, by },
            _ => return,
        };
        self.later(1, Coming::Engine(engine, None, input));
    }

    /// Orders on record that do not come out again when everything on record is decided once more.
    fn decided_otherwise(&self) -> u64 {
        let reader = self.ledger.as_ref().unwrap().reader().unwrap();
        let mut replay = Replay::new(None);
        let mut after = 0;
        loop {
            let page = skein_store::Reader::events(&reader, after, None, 10_000).unwrap();
            let Some(last) = page.last() else { break };
            after = last.seq;
            for row in &page {
                replay.take(row.turn, row.at, &row.event).unwrap();
            }
        }
        replay.finish();
        replay.differing
    }

    fn finish(mut self) -> Counts {
        let core = self.core.as_ref().unwrap();
        let reader = self.ledger.as_ref().unwrap().reader().unwrap();
        let sessions = skein_store::Reader::sessions(&reader, skein_store::Page::ALL).unwrap();
        for session in sessions.iter().filter(|session| session.ended_at.is_some()) {
            self.counts.lost += session.count() - u64::from(session.tally().ended());
        }
        self.counts.unowned += if core.snapshot().sessions.is_empty() {
            self.machines.iter().map(|m| m.processes.len() as u64).sum()
        } else {
            0
        };
        self.counts.unowned += self.without_owner();
        self.counts.otherwise += self.decided_otherwise();
        let stored = self.ledger.as_mut().unwrap().load().unwrap();
        let rebuilt = Snapshot::load(stored);
        self.counts.forgotten += u64::from(rebuilt != *self.core.as_ref().unwrap().snapshot());
        if self.counts.bad() > 0 {
            self.counts.story = self.books.tell();
        }
        self.counts
    }
}
