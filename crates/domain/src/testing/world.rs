//! A world in which everything happens at random, from a seed: instances come, go, drain, lose and
//! find their connection; sessions start and stop; attempts end in every way; prices and limits change.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::draw;
use super::random::Random;
use super::scene::{Scene, name, spec_of};
use crate::attempt::{Attempt, AttemptEnd, AttemptState, EndCause};
use crate::decide::change::Change;
use crate::decide::wanted::AskedItem;
use crate::decide::{Fault, Plan, Policy, Snapshot, decide, retry, wanted};
use crate::event::{Event, ProposedPlace, Then};
use crate::id::{AttemptKey, InstanceId, ItemKey, NodeKey, SessionId};
use crate::instance::{InstanceFacts, InstanceState, Live};
use crate::quantity::{NanoUsd, Timestamp};
use crate::session::{ItemEnd, ItemState, SessionState};

const SOLUTIONS: [&str; 4] = ["own", "cloud", "fn", "fn2"];
const INSTANCES_MAX: u64 = 6;
const SESSIONS_MAX: usize = 4;

/// One turn of a world.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its number.
    pub turn: u64,
    /// When.
    pub at: Timestamp,
    /// The policy in force.
    pub policy: Policy,
    /// The snapshot before it.
    pub start: Snapshot,
    /// What was measured, before the inputs.
    pub live: Vec<(InstanceId, Live)>,
    /// What came in; each about another thing, so that their order does not matter.
    pub inputs: Vec<Event>,
    /// The snapshot that was decided on.
    pub before: Snapshot,
    /// The plan.
    pub plan: Plan,
    /// Everything that happened, in order.
    pub events: Vec<Event>,
    /// The rows to write.
    pub changes: Vec<Change>,
}

/// The world.
#[derive(Debug, Clone)]
pub struct World {
    /// Its snapshot, clock and policy.
    pub scene: Scene,
    random: Random,
    calm: bool,
    sessions: u64,
    boots: u64,
    next_wake: Option<Timestamp>,
    /// Attempts that something already happened to in this turn.
    used: BTreeSet<AttemptKey>,
    /// How long what ends in this turn ran, ms: the same, so that the order of ends does not matter.
    run_ms: u64,
}

/// Takes measurements, as a turn does before its inputs.
pub fn apply_live(snapshot: &mut Snapshot, live: &[(InstanceId, Live)]) {
    for (instance, live) in live {
        snapshot.set_live(instance, *live);
    }
}

impl World {
    /// The world of this seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut scene = Scene { policy: draw::policy(&mut random), ..Scene::default() };
        scene.now = Timestamp(scene.now.0 + i64::try_from(random.below(1000)).unwrap_or(0));
        Self { scene, random, calm: false, sessions: 0, boots: 0, next_wake: None, used: BTreeSet::new(), run_ms: 0 }
    }

    /// From now on nothing new comes, nothing fails, and there is room for everything.
    pub fn calm_down(&mut self) {
        self.calm = true;
        self.scene.policy = Policy::default();
    }

    /// Numbers for the test's own choices.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// The next turn: what comes in, the plan, and what follows.
    pub fn turn(&mut self) -> Record {
        self.pass_time();
        if !self.calm && self.random.chance(5) {
            self.scene.policy = draw::policy(&mut self.random);
        }
        let live = self.live();
        let inputs = self.inputs();
        let turn = self.scene.snapshot.turn + 1;
        let (at, policy) = (self.scene.now, self.scene.policy.clone());
        let snapshot = &mut self.scene.snapshot;
        let start = snapshot.clone();
        apply_live(snapshot, &live);
        let mut events = snapshot.apply_all(turn, at, inputs.clone());
        let before = snapshot.clone();
        let plan = decide(snapshot, &policy, at);
        self.next_wake = plan.next_wake;
        let planned = plan.clone().into_events(snapshot, turn, at);
        events.extend(snapshot.apply_all(turn, at, planned));
        let changes = snapshot.take_changes();
        Record { turn, at, policy, start, live, inputs, before, plan, events, changes }
    }

    fn pass_time(&mut self) {
        let now = self.scene.now;
        self.scene.now = match (self.random.below(4), self.next_wake) {
            (0, Some(wake)) => wake.max(now),
            (1, _) => now,
            _ => now.after_ms(self.random.below(3000)),
        };
    }

    fn live(&mut self) -> Vec<(InstanceId, Live)> {
        let ids: Vec<InstanceId> = self.scene.snapshot.instances.keys().cloned().collect();
        let mut changes = Vec::new();
        for id in ids {
            let was = self.scene.snapshot.live(&id);
            let cpu_percent = if self.calm { 0 } else { self.random.small(101) };
            if self.calm {
                changes.push((id, Live { connected: true, cpu_percent, ..was }));
            } else if self.random.chance(30) {
                changes.push((id, Live { connected: self.random.chance(80), cpu_percent, ..was }));
            }
        }
        changes
    }

    fn inputs(&mut self) -> Vec<Event> {
        self.used.clear();
        self.run_ms = self.random.below(200_000);
        let mut events = Vec::new();
        if self.calm {
            self.calm_instances(&mut events);
            self.calm_sessions(&mut events);
        } else {
            self.sessions(&mut events);
            self.solutions(&mut events);
            self.instances(&mut events);
        }
        self.attempts(&mut events);
        self.answers(&mut events);
        self.proposals(&mut events);
        events
    }

    /// An algorithm of a user's says anything: what was asked for, places that take nothing, or nothing at all.
    fn proposals(&mut self, events: &mut Vec<Event>) {
        let (snapshot, policy, now) = (&self.scene.snapshot, &self.scene.policy, self.scene.now);
        let Some(question) = wanted(snapshot, policy, now).filter(|_| self.random.chance(60)) else { return };
        let class = question.class.clone();
        if self.random.chance(20) {
            let rests_until = self.random.chance(30).then(|| now.after_ms(self.random.below(3000)));
            let items = question.items.iter().map(|asked| asked.item).collect();
            let fault = Fault::Error { what: "drawn".into() };
            events.push(Event::AlgorithmFailed { class, items, fault, rests_until });
            return;
        }
        let all: Vec<InstanceId> = snapshot.instances.keys().cloned().collect();
        let place = |asked: &AskedItem| ProposedPlace {
            item: asked.item,
            on: (!all.is_empty() && self.random.chance(80)).then(|| self.random.pick(&all)),
        };
        let items = question.items.iter().map(place).collect();
        events.push(Event::Proposed { class, items, machines: Vec::new(), give_back: Vec::new() });
    }

    fn hello(&mut self, id: &InstanceId, facts: InstanceFacts, events: &mut Vec<Event>) {
        self.boots += 1;
        let solution = name(if self.random.chance(70) { "own" } else { "cloud" });
        let boot = format!("boot-{}", self.boots);
        events.push(Event::InstanceReady { instance: id.clone(), solution, facts, boot });
    }

    fn instances(&mut self, events: &mut Vec<Event>) {
        if !self.random.chance(30) {
            return;
        }
        let id: InstanceId = name(&format!("i-{}", self.random.below(INSTANCES_MAX)));
        let why = "drawn".to_owned();
        let state = self.scene.snapshot.instances.get(&id).map_or(InstanceState::Gone, |i| i.state);
        match (state, self.random.below(10)) {
            (InstanceState::Ready, 0..=1) => events.push(Event::InstanceDraining { instance: id, why }),
            (InstanceState::Ready, 2..=4) | (InstanceState::Draining, 0..=4) => {
                self.lose(&id, events);
                let held = self.scene.snapshot.instances.get(&id).map(|i| i.held_by.clone()).unwrap_or_default();
                let released = held.into_iter();
                events.extend(released.map(|session| Event::InstanceReleased {
                    instance: id.clone(),
                    session,
                    why: why.clone(),
                }));
                events.push(Event::InstanceGone { instance: id, why });
            }
            (InstanceState::Ready, 5..=6) | (InstanceState::Gone, _) => {
                self.lose(&id, events);
                let facts = draw::some_facts(&mut self.random);
                self.hello(&id, facts, events);
            }
            _ => {}
        }
    }

    fn lose(&mut self, id: &InstanceId, events: &mut Vec<Event>) {
        let there: Vec<Attempt> = self.scene.snapshot.attempts_on(id).cloned().collect();
        for attempt in there {
            events.push(self.ended(&attempt, EndCause::Lost { why: "drawn".into() }));
        }
    }

    fn calm_instances(&mut self, events: &mut Vec<Event>) {
        for id in SOLUTIONS {
            let solution = draw::generous(id);
            if self.scene.snapshot.solutions.get(&solution.id) != Some(&solution) {
                events.push(Event::SolutionSet { solution });
            }
        }
        for number in 0..draw::TOGETHER_ITEMS_MAX {
            let id: InstanceId = name(&format!("big-{number}"));
            if !self.scene.snapshot.instances.contains_key(&id) {
                let (solution, boot) = (name("own"), "boot".to_owned());
                events.push(Event::InstanceReady { instance: id, solution, facts: draw::big_facts(), boot });
            }
        }
    }

    fn sessions(&mut self, events: &mut Vec<Event>) {
        let open: Vec<SessionId> = self.scene.snapshot.sessions.keys().copied().collect();
        if self.random.chance(35) && open.len() < SESSIONS_MAX {
            self.sessions += 1;
            let session = SessionId::derive(self.scene.snapshot.turn + 1, self.sessions % 7);
            let mut spec = spec_of(draw::thread(&mut self.random));
            if self.random.chance(20) {
                Arc::make_mut(&mut spec).budget = Some(draw::money(&mut self.random));
            }
            events.push(Event::SessionStarted { session, spec });
        }
        if self.random.chance(8) && !open.is_empty() {
            let node = NodeKey { session: self.random.pick(&open), node: self.random.small(3) };
            let (from, many) = (self.random.small(4), self.random.small(3));
            // Of a set that starts together the engine cancels all or nothing.
            let sets = &self.scene.snapshot.sessions[&node.session].spec.thread.together;
            if !sets.iter().any(|set| set.contains(&node.node)) {
                events.push(Event::ItemsCancelled { node, from, to: from + 1 + many, by: name("tester") });
            }
        }
        if self.random.chance(8) && !open.is_empty() {
            let node = NodeKey { session: self.random.pick(&open), node: self.random.small(3) };
            let (from, many) = (self.random.small(4), self.random.small(3));
            events.push(Event::ItemsDue { node, from, to: from + 1 + many, by: name("tester") });
        }
        let mut stopped = None;
        if self.random.chance(3) && !open.is_empty() {
            let session = self.random.pick(&open);
            stopped = Some(session);
            events.push(Event::SessionStopping { session, by: name("tester") });
        }
        for session in self.paused().into_iter().filter(|session| Some(*session) != stopped) {
            if self.random.chance(25) {
                let budget = self.random.some(30, draw::money);
                events.push(Event::SessionResumed { session, by: name("tester"), budget });
            }
        }
    }

    fn paused(&self) -> Vec<SessionId> {
        let paused = self.scene.snapshot.sessions.values().filter(|s| s.state == SessionState::Paused);
        paused.map(|session| session.id).collect()
    }

    /// Money is no object.
    fn calm_sessions(&self, events: &mut Vec<Event>) {
        let budget = Some(NanoUsd(i64::MAX));
        let go_on = |session| Event::SessionResumed { session, by: name("tester"), budget };
        events.extend(self.paused().into_iter().map(go_on));
    }

    fn solutions(&mut self, events: &mut Vec<Event>) {
        if self.random.chance(15) {
            let id = self.random.pick(&SOLUTIONS);
            events.push(match self.random.below(5) {
                0 => Event::SolutionRemoved { solution: name(id) },
                _ => Event::SolutionSet { solution: draw::solution(&mut self.random, id) },
            });
        }
    }

    fn attempts(&mut self, events: &mut Vec<Event>) {
        let open: Vec<Attempt> = self.scene.snapshot.attempts.values().cloned().collect();
        for attempt in open.iter().filter(|a| !self.used.contains(&a.key)).cloned().collect::<Vec<_>>() {
            let key = attempt.key;
            match (self.random.below(10), attempt.state) {
                (0..=2, AttemptState::Assigned) => events.push(Event::Sent { attempt: key }),
                (3..=4, AttemptState::Assigned | AttemptState::Sent) => events.push(Event::Started { attempt: key }),
                (5..=7, _) => {
                    let cause = self.cause(attempt.is_cancelling());
                    events.push(self.ended(&attempt, cause));
                }
                _ => {}
            }
        }
    }

    fn cause(&mut self, cancelling: bool) -> EndCause {
        match self.random.below(20) {
            _ if self.calm => EndCause::Succeeded,
            0..=9 if cancelling => EndCause::Cancelled,
            0..=1 => EndCause::Failed { exit_code: 1 },
            2 => EndCause::TimedOut { limit_ms: 1000 },
            3 => EndCause::NotStarted { why: "drawn".into() },
            4 => EndCause::Lost { why: "drawn".into() },
            _ => EndCause::Succeeded,
        }
    }

    /// The end, and what becomes of the item: as the engine settles it.
    fn ended(&mut self, attempt: &Attempt, cause: EndCause) -> Event {
        self.used.insert(attempt.key);
        let then = retry::then(&self.scene.snapshot, attempt.key, &cause, self.scene.now)
            .unwrap_or(Then::End(ItemEnd::Cancelled));
        let run_ms = if cause.ran() { self.run_ms } else { 0 };
        Event::Ended { attempt: attempt.key, end: AttemptEnd { run_ms, ..AttemptEnd::bare(cause) }, then }
    }

    fn answers(&mut self, events: &mut Vec<Event>) {
        let mut asking: Vec<ItemKey> = Vec::new();
        for session in self.scene.snapshot.sessions.values() {
            for (node, at) in session.nodes.iter().zip(0..) {
                let items = node.open.iter().filter(|(_, state)| matches!(state, ItemState::Asking { .. }));
                asking.extend(items.map(|(index, _)| super::key(session.id, at, *index)));
            }
        }
        for item in asking {
            if self.calm || self.random.chance(20) {
                let not_before = self.scene.now;
                let then = self.random.pick(&[Then::Retry { not_before }, Then::End(ItemEnd::Failed)]);
                events.push(Event::Answered { item, then });
            }
        }
    }
}
