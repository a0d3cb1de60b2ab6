//! The agent's core: a state machine without IO, clock or randomness.
//!
//! One attempt:
//! ```text
//!  Start ──> fetching ──> preparing ──> ready ──> running ──> finishing ──> ended ──Recorded──> (gone)
//!              │ (only a    │ (only with  │ (slot     │  │        │ outputs up,  ^
//!              │ large one) │ inputs)     │ free,     │  │        │ log's tail   │ sent again at each
//!              │            │             │ lease ok) │  │        │ accepted     │ connect, and every 10 s
//!              └────────────┴─────────────┴───────────┘  └ stop ──┘              │
//!                cancel, lease over, files not to be had ────────────────────────┘
//! ```
//! Stopping (`stop`): SIGTERM now, SIGKILL after the grace; the first reason decides the cause.
//!
//! Failure paths:
//! * stale or doubled order: `OrderRefused`, or the same answer again; nothing starts twice;
//! * ordered while the lease is over: refused (seed 577 of the fault simulation: kept, it started with the
//!   next welcome although the engine had given it to another);
//! * an attempt that takes several slots: it starts in one, and as many others stay free while it runs; it waits
//!   for them at the head of the queue, so that what comes behind it does not take them;
//! * recalled: given back unless it has started, and never started afterwards by the same order;
//! * cut off, or no heartbeat answered: every attempt is stopped so that it is dead a named margin
//!   before the lease ends, and ends as lost; nothing starts until the lease is renewed;
//! * the spawner of a slot dies: its process group is killed, the attempt ends as lost;
//! * outputs cannot be brought back: lost (the engine cannot be reached) or failed (it refuses them);
//! * the log's tail is not taken within [`LOG_WAIT_MS`]: the end goes out with a note;
//! * SIGTERM: what has not started is given back, what runs may finish within `drain_ms`, then it is
//!   stopped and ends as lost; the agent leaves when every end is recorded, or [`LEAVE_WAIT_MS`] later.

mod io;
mod lease;
mod orders;
mod run;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use skein_domain::{AttemptEnd, AttemptKey, EngineId, ItemKey};
use skein_wire::message::AttemptRef;
use skein_wire::{FromAgent, StartOrder, ToAgent};

use crate::measure::Usage;
pub use io::{CollectFailure, Input, Output};
use lease::Lease;
pub(crate) use run::end_of;

/// An attempt's log may hold back its end this long, ms.
pub const LOG_WAIT_MS: u64 = 5_000;
/// An end that is not recorded is sent again this often, ms.
pub const ENDED_RESEND_MS: u64 = 10_000;
/// An agent that is empty waits this long for its last ends to be recorded, ms.
pub const LEAVE_WAIT_MS: u64 = 5_000;
/// Most attempts an agent holds, whatever their phase.
pub const HELD_MAX: usize = 10_000;
/// Items whose last generation is remembered; beyond it the oldest generations are refused whole.
pub const GENERATIONS_MAX: usize = 20_000;
/// An attempt that ran at least this long may have a watched log, ms.
pub const LOG_WATCH_MS: u64 = 100;

/// What does not change while the agent runs.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// The engine it belongs to.
    pub engine: EngineId,
    /// Attempts at a time.
    pub slots: usize,
    /// What runs at a SIGTERM may finish within this, ms.
    pub drain_ms: u64,
}

/// Why an attempt is being stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
enum StopWhy {
    TimedOut { limit_ms: u64 },
    Cancelled,
    Moved,
    Lost(String),
}

#[derive(Debug)]
struct Stop {
    why: StopWhy,
    kill_at: u64,
    killed: bool,
}

#[derive(Debug)]
enum Phase {
    Fetching,
    Preparing,
    Ready,
    Running { slot: usize, launch: u64, pid: Option<i32>, started: bool, deadline: Option<u64>, stop: Option<Stop> },
    Finishing { end: Box<AttemptEnd>, collecting: bool, log_until: Option<u64> },
    Ended { end: Box<AttemptEnd>, sent_at: u64 },
}

#[derive(Debug)]
struct Held {
    generation: u64,
    order: Option<Arc<StartOrder>>,
    phase: Phase,
}

impl Held {
    fn is_live(&self) -> bool {
        !matches!(self.phase, Phase::Finishing { .. } | Phase::Ended { .. })
    }
}

#[derive(Debug, Clone)]
enum Slot {
    Down,
    Free { notes: Vec<String> },
    Busy { attempt: AttemptKey, slots: usize, notes: Vec<String> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    /// The engine asked: everything accepted is finished, however long it takes.
    Asked,
    /// SIGTERM: what runs is stopped at this moment.
    Until(u64),
}

/// The agent's state.
#[derive(Debug)]
pub struct Core {
    config: CoreConfig,
    connected: bool,
    lease: Lease,
    held: BTreeMap<AttemptKey, Held>,
    ready: VecDeque<AttemptKey>,
    slots: Vec<Slot>,
    generations: BTreeMap<ItemKey, u64>,
    by_generation: BTreeSet<(u64, ItemKey)>,
    generation_floor: u64,
    launches: u64,
    usage: Usage,
    drain: Drain,
    /// The cloud said that it takes the instance away.
    notice: Option<String>,
    /// Not later than the first deadline, kill or repetition of any attempt; looking at every
    /// attempt on every step would cost more than the attempts themselves.
    due_at: u64,
    lease_over: bool,
    drain_over: bool,
    leave_at: Option<u64>,
    left: bool,
    out: Vec<Output>,
}

impl Core {
    /// An agent that holds nothing and has no slot yet.
    pub fn new(config: CoreConfig) -> Self {
        Self {
            connected: false,
            lease: Lease::default(),
            held: BTreeMap::new(),
            ready: VecDeque::new(),
            slots: vec![Slot::Down; config.slots],
            generations: BTreeMap::new(),
            by_generation: BTreeSet::new(),
            generation_floor: 0,
            launches: 0,
            usage: Usage::default(),
            drain: Drain::No,
            notice: None,
            due_at: u64::MAX,
            lease_over: false,
            drain_over: false,
            leave_at: None,
            left: false,
            out: Vec::new(),
            config,
        }
    }

    /// Takes what happened at `now` (own clock, ms) and says what to do.
    pub fn step(&mut self, now: u64, input: Input) -> Vec<Output> {
        match input {
            Input::HelloSent => self.lease.hello_departed = now,
            Input::Message(message) => self.message(now, message),
            Input::Disconnected => {
                self.connected = false;
                self.lease.disconnected();
            }
            Input::Noticed(why) => {
                self.send(FromAgent::Noticed { why: why.clone() });
                self.notice = Some(why);
            }
            Input::SlotReady { slot, notes } => self.slot_ready(slot, notes),
            Input::SlotDown { slot } => self.slot_down(now, slot),
            Input::OrderFetched(of, result) => self.order_fetched(now, of, result),
            Input::Prepared(of, result) => self.prepared(now, of, result),
            Input::Started { slot, launch, pid } => self.started(now, slot, launch, pid),
            Input::StartFailed { slot, launch, why } => self.start_failed(now, slot, launch, why),
            Input::Exited { slot, exit } => self.exited(now, slot, exit),
            Input::Collected(of, result) => self.collected(now, of, result),
            Input::LogFlushed(of, note) => self.log_flushed(now, of, note),
            Input::Measured(usage) => self.usage = usage,
            Input::Terminate => self.terminate(now),
            Input::Tick => {}
        }
        self.tick(now);
        std::mem::take(&mut self.out)
    }

    /// Everything it holds, for `Hello`.
    pub fn holding(&self) -> Vec<AttemptRef> {
        self.held.iter().map(|(attempt, held)| AttemptRef { attempt: *attempt, generation: held.generation }).collect()
    }

    /// Attempts that wait for a slot.
    pub fn at_hand(&self) -> usize {
        self.ready.len()
    }

    /// It takes nothing new.
    pub fn draining(&self) -> bool {
        self.drain != Drain::No
    }

    /// Attempts with a process, with its group, for measuring.
    pub fn running(&self) -> Vec<(AttemptKey, i32)> {
        let group = |held: &Held| match held.phase {
            Phase::Running { pid, .. } => pid,
            _ => None,
        };
        self.held.iter().filter_map(|(attempt, held)| Some((*attempt, group(held)?))).collect()
    }

    /// When time alone may change something, on the clock that `step` gets.
    pub fn next_wake(&self) -> Option<u64> {
        if self.left {
            return None;
        }
        let live = !self.held.is_empty();
        let times = [
            Some(self.due_at).filter(|at| *at < u64::MAX),
            self.connected.then_some(self.lease.next_heartbeat),
            self.lease.stop_at().filter(|_| live && !self.lease_over),
            self.leave_at,
            match self.drain {
                Drain::Until(at) => Some(at).filter(|_| live && !self.drain_over),
                _ => None,
            },
        ];
        times.into_iter().flatten().min()
    }

    fn attempt_wake(&self, held: &Held) -> Option<u64> {
        match &held.phase {
            Phase::Running { deadline, stop, .. } => match stop {
                Some(stop) => (!stop.killed).then_some(stop.kill_at),
                None => *deadline,
            },
            Phase::Finishing { log_until, .. } => *log_until,
            Phase::Ended { sent_at, .. } => self.connected.then_some(sent_at + ENDED_RESEND_MS),
            _ => None,
        }
    }

    fn message(&mut self, now: u64, message: ToAgent) {
        match message {
            ToAgent::Welcome { lease_ms, heartbeat_ms, .. } => {
                self.connected = true;
                self.lease.welcomed(now, lease_ms, heartbeat_ms);
                self.tell_all(now);
                self.due(now + ENDED_RESEND_MS);
            }
            ToAgent::Lease { heartbeat, lease_ms, heartbeat_ms } => {
                self.lease.renewed(heartbeat, lease_ms, heartbeat_ms);
            }
            ToAgent::Start { attempt, generation, order } => {
                self.start_ordered(now, AttemptRef { attempt, generation }, order);
            }
            ToAgent::Cancel { attempt, generation, moving } => {
                let why = if moving { StopWhy::Moved } else { StopWhy::Cancelled };
                self.cancel(now, AttemptRef { attempt, generation }, why);
            }
            ToAgent::Command { attempt, generation, command } => {
                // What ended meanwhile needs no word any more.
                if let Some(Held { generation: held, phase: Phase::Running { slot, launch, .. }, .. }) =
                    self.held.get(&attempt)
                    && *held == generation
                {
                    self.out.push(Output::Command { slot: *slot, launch: *launch, command });
                }
            }
            ToAgent::Recall { attempt, generation } => self.recall(now, AttemptRef { attempt, generation }),
            ToAgent::Recorded { attempts } => {
                for of in attempts {
                    self.recorded(of);
                }
            }
            ToAgent::Drain { .. } => {
                if self.drain == Drain::No {
                    self.drain = Drain::Asked;
                    self.send(FromAgent::Draining);
                }
            }
            // The handshake is the connection's business.
            ToAgent::Challenge { .. } | ToAgent::Refused { .. } => {}
        }
    }

    /// What is due at `now`.
    fn tick(&mut self, now: u64) {
        if self.left {
            return;
        }
        if self.connected && now >= self.lease.next_heartbeat {
            let number = self.lease.beat(now);
            let Usage { cpu_percent, memory_mb, items, traffic } = self.usage.clone();
            self.send(FromAgent::Heartbeat { number, cpu_percent, memory_mb, items, traffic: Some(traffic) });
        }
        self.end_overdue(now);
        if now >= self.due_at {
            self.attempts_due(now);
            self.due_at = self.held.values().filter_map(|held| self.attempt_wake(held)).min().unwrap_or(u64::MAX);
        }
        self.start_ready(now);
        self.leave_if_empty(now);
    }

    /// Stops everything, once, when the lease or the time to drain is over. What is ordered while
    /// the lease is over is refused.
    fn end_overdue(&mut self, now: u64) {
        let over = self.lease.stop_at().is_some_and(|at| now >= at);
        if over && !self.lease_over {
            let (kill_at, term) = (self.lease.kill_at(), self.lease.term_ms);
            self.stop_all(
                now,
                kill_at,
                &format!("no heartbeat of this agent was answered within its lease of {term} ms"),
            );
        }
        self.lease_over = over;
        if let Drain::Until(at) = self.drain
            && now >= at
            && !self.drain_over
        {
            self.drain_over = true;
            self.stop_all(now, u64::MAX, "its agent was told to end and could not wait for it any longer");
        }
    }

    fn terminate(&mut self, now: u64) {
        if let Drain::Until(_) = self.drain {
            (self.drain, self.drain_over) = (Drain::Until(now), false);
            return;
        }
        self.drain = Drain::Until(now + self.config.drain_ms);
        self.send(FromAgent::Draining);
        let waiting: Vec<AttemptKey> = self
            .held
            .iter()
            .filter(|(_, h)| h.is_live() && !matches!(h.phase, Phase::Running { .. }))
            .map(|(k, _)| *k)
            .collect();
        for attempt in waiting {
            if let Some(held) = self.held.remove(&attempt) {
                let of = AttemptRef { attempt, generation: held.generation };
                self.refuse(of, "the agent got a SIGTERM before it started");
                self.out.push(Output::Discard(of));
            }
        }
        self.ready.clear();
    }

    fn leave_if_empty(&mut self, now: u64) {
        let busy = self.held.values().any(|held| !matches!(held.phase, Phase::Ended { .. }));
        if self.drain == Drain::No || busy {
            self.leave_at = None;
            return;
        }
        let leave_at = *self.leave_at.get_or_insert(now + LEAVE_WAIT_MS);
        if self.held.is_empty() || now >= leave_at {
            self.left = true;
            self.leave_at = None;
            self.send(FromAgent::Leaving);
            self.out.push(Output::Leave);
        }
    }

    /// Something is due at `at`.
    fn due(&mut self, at: u64) {
        self.due_at = self.due_at.min(at);
    }

    /// Only what is said while connected is sent: all else is said again after the next welcome.
    fn send(&mut self, message: FromAgent) {
        if self.connected {
            self.out.push(Output::Send(message));
        }
    }

    fn refuse(&mut self, order: AttemptRef, why: &str) {
        self.send(FromAgent::OrderRefused { order, why: why.to_owned() });
    }
}
