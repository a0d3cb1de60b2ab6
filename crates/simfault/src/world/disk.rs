//! The engine's disk: how its commits end, and when. A commit may take longer than a lease, may fail, may fail
//! for a while, and may be the last thing that the engine's process does. What comes in meanwhile gathers, as it
//! does in the writer's channel.

use skein_domain::Timestamp;
use skein_domain::decide::Snapshot;
use skein_engine::core::{Core, Input, Output, TurnResult};
use skein_store::{Ledger as _, Turn};

use super::{Coming, LEASE_MS, World};
use crate::dice::Dice;

/// The writer waits this long after a turn that could not be written, ms, times the failures in a row, and no longer
/// than the second.
const RETRY_MS: u64 = 50;
const RETRY_MS_MAX: u64 = 1_000;

/// What a disk does has dice of its own: a world without its faults stays the world it was.
pub(super) struct Disk {
    dice: Dice,
    /// Turns cannot be written until then.
    broken_until: Timestamp,
    failures: u64,
    /// The writer waits: for a commit, or to try again.
    waits: Option<Waits>,
    /// What has come in since.
    inbox: Vec<Input>,
}

enum Waits {
    Commit(Box<Commit>),
    Again,
}

struct Commit {
    turn: TurnResult,
    at: Timestamp,
    end: End,
    /// What the ledger has if the turn is not in it.
    before: Option<Snapshot>,
}

/// How a commit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Written,
    Failed,
    /// The process dies in it; the turn is there, or not.
    Dies {
        durable: bool,
    },
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        let dice = Dice::new(seed ^ 0x6469_736B);
        Self { dice, broken_until: Timestamp(0), failures: 0, waits: None, inbox: Vec::new() }
    }

    /// How long the next commit takes, and how it ends.
    fn next(&mut self, now: Timestamp) -> (u64, End) {
        if self.dice.chance(1) {
            self.broken_until = now.after_ms(self.dice.below(LEASE_MS * 3 / 2));
        }
        if now < self.broken_until {
            return (0, End::Failed);
        }
        if !self.dice.chance(6) {
            return (0, End::Written);
        }
        let most = [300, LEASE_MS / 2, LEASE_MS * 3 / 2][usize::try_from(self.dice.below(3)).unwrap()];
        let end = match self.dice.below(10) {
            0 => End::Failed,
            1 => End::Dies { durable: self.dice.chance(500) },
            _ => End::Written,
        };
        (1 + self.dice.below(most), end)
    }
}

impl World {
    /// One turn of the engine, or later when it waits for its disk.
    pub(super) fn turn(&mut self, inputs: Vec<Input>) {
        if self.disk.waits.is_some() {
            return self.disk.inbox.extend(inputs);
        }
        let (ms, mut end) = if self.has("disk") { self.disk.next(self.now) } else { (0, End::Written) };
        let dies_first = self.has("crash") && self.dice.chance(3);
        // What would be thrown: only a turn that has something to write throws.
        let fails = self.has("commit") && self.dice.clone().chance(2);
        let keep = dies_first || fails || end != End::Written;
        let before = keep.then(|| self.core.as_ref().unwrap().snapshot().clone());
        let turn = self.core.as_mut().unwrap().turn(self.now, inputs);
        if dies_first {
            return self.crash(before.as_ref());
        }
        if turn.is_empty() {
            return self.let_all_out(turn);
        }
        if self.has("commit") && self.dice.chance(2) {
            end = End::Failed;
        }
        let at = self.now;
        if ms == 0 {
            return self.ended(Commit { turn, at, end, before });
        }
        self.disk.waits = Some(Waits::Commit(Box::new(Commit { turn, at, end, before })));
        self.later(ms, Coming::Synced(self.engine));
    }

    /// What the writer waited for is over: it takes what came in meanwhile.
    pub(super) fn synced(&mut self, engine: u64) {
        if engine != self.engine {
            return;
        }
        if let Some(Waits::Commit(commit)) = self.disk.waits.take() {
            self.ended(*commit);
        }
        let due = self.core.as_ref().and_then(Core::next_wake).is_some_and(|wake| wake <= self.now);
        if engine == self.engine && self.disk.waits.is_none() && (due || !self.disk.inbox.is_empty()) {
            let inputs = std::mem::take(&mut self.disk.inbox);
            self.turn(inputs);
        }
    }

    fn ended(&mut self, commit: Commit) {
        let Commit { turn, at, end, before } = commit;
        if end == End::Failed {
            return self.failed(turn, &before.expect("kept for this"));
        }
        if end == (End::Dies { durable: false }) {
            return self.crash(before.as_ref());
        }
        let row = Turn {
            turn: turn.turn,
            at,
            events: &turn.events,
            earlier: &turn.earlier,
            changes: &turn.changes,
            side: &turn.side,
        };
        self.ledger.as_mut().unwrap().commit(&row).unwrap();
        self.disk.failures = 0;
        for event in &turn.events {
            self.books.take(event, &mut self.counts);
            self.earned_is(event);
        }
        if end != End::Written {
            return self.crash(None);
        }
        self.let_all_out(turn);
    }

    fn let_all_out(&mut self, turn: TurnResult) {
        if self.has("crash") && self.dice.chance(3) {
            return self.crash(None);
        }
        let engine = self.engine;
        for output in turn.outputs {
            self.let_out(output);
        }
        if engine == self.engine
            && let Some(wake) = self.core.as_ref().and_then(Core::next_wake)
        {
            self.at(wake.max(self.now.after_ms(1)), Coming::EngineTick(engine));
        }
    }

    /// Nothing but leases leaves, and the core is loaded anew.
    fn failed(&mut self, turn: TurnResult, before: &Snapshot) {
        self.counts.unwritten += 1;
        let engine = self.engine;
        for output in turn.outputs.into_iter().filter(|output| matches!(output, Output::Lease { .. })) {
            self.let_out(output);
        }
        let mut snapshot = Snapshot::load(self.ledger.as_mut().unwrap().load().unwrap());
        self.is_as_before(&snapshot, Some(before));
        let old = self.core.take().unwrap();
        for id in old.snapshot().instances.keys() {
            snapshot.set_live(id, old.snapshot().live(id));
        }
        self.core = Some(Core::reloaded(snapshot, self.settings(), self.now, turn.resumes, turn.owed));
        self.disk.failures += 1;
        self.disk.waits = Some(Waits::Again);
        self.later((self.disk.failures * RETRY_MS).min(RETRY_MS_MAX), Coming::Synced(engine));
        self.later(501, Coming::EngineTick(engine));
    }

    /// The engine dies: what is in memory and on the way to it is gone. `durable` is what the ledger has; what the
    /// core has, when there is none.
    fn crash(&mut self, durable: Option<&Snapshot>) {
        self.counts.crashes += 1;
        let core = self.core.take().unwrap();
        self.ledger = None;
        self.disk.waits = None;
        self.disk.inbox.clear();
        if self.has("clock") {
            // The wall clock may be set while the engine is down.
            let jump = i64::try_from(self.dice.below(4_000)).unwrap() - 500;
            self.now = Timestamp(self.now.0 + jump.max(0) * 1000);
        }
        self.start_engine(Some(durable.unwrap_or(core.snapshot())));
    }

    /// What is loaded is what the core had at its last durable turn: whatever dies there, nothing is otherwise.
    pub(super) fn is_as_before(&mut self, loaded: &Snapshot, durable: Option<&Snapshot>) {
        let Some(durable) = durable else { return };
        self.counts.compared += 1;
        if loaded != durable {
            self.counts.altered += 1;
            self.books.say(format!("!! turn {} was loaded otherwise than it was built", durable.turn));
        }
    }
}
