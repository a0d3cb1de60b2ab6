//! A simulated machine: the real agent's core, and processes that are only numbers.

use std::collections::BTreeMap;

use skein_agent::core::{Core, CoreConfig, Input, Output};
use skein_agent::spawner::{Exit, StopSignal};
use skein_domain::{AttemptKey, InstanceId, Timestamp};
use skein_wire::message::AttemptRef;
use skein_wire::{FromAgent, Hello};

/// A process of an attempt.
#[derive(Debug, Clone)]
pub struct Process {
    pub attempt: AttemptKey,
    pub launch: u64,
    pub ends_at: Timestamp,
    pub code: i32,
    pub signal: Option<i32>,
    pub told: bool,
}

pub struct Machine {
    pub id: InstanceId,
    pub solution: &'static str,
    pub boot: u32,
    pub slots: usize,
    pub up: bool,
    pub cut_until: Timestamp,
    /// The present connection; 0 for none. What was sent on another is gone with it.
    pub connection: u64,
    /// The agent's clock runs this much faster, parts per thousand.
    pub skew: i64,
    pub core: Core,
    pub processes: BTreeMap<usize, Process>,
    pub outbox: Vec<FromAgent>,
    pub spawned: Vec<(usize, u64, AttemptKey)>,
    pub signals: Vec<(usize, u64, StopSignal)>,
    pub welcomed: bool,
    pub left: bool,
}

impl Machine {
    pub fn new(n: usize, slots: usize, skew: i64) -> Self {
        Self::named(InstanceId::new(&format!("a{n:02}")).unwrap(), "own", slots, skew)
    }

    /// One of a solution, with a name of its own.
    pub fn named(id: InstanceId, solution: &'static str, slots: usize, skew: i64) -> Self {
        let mut machine = Self {
            id,
            solution,
            boot: 1,
            slots,
            up: true,
            cut_until: Timestamp(0),
            connection: 0,
            skew,
            core: Self::core(slots),
            processes: BTreeMap::new(),
            outbox: Vec::new(),
            spawned: Vec::new(),
            signals: Vec::new(),
            welcomed: false,
            left: false,
        };
        machine.slots_ready(Timestamp(0));
        machine
    }

    fn core(slots: usize) -> Core {
        Core::new(CoreConfig { engine: "sim".parse().unwrap(), slots, drain_ms: 5_000 })
    }

    fn slots_ready(&mut self, now: Timestamp) {
        for slot in 0..self.slots {
            self.step(now, Input::SlotReady { slot, notes: Vec::new() });
        }
    }

    /// The machine's own clock, ms.
    pub fn clock(&self, now: Timestamp) -> u64 {
        u64::try_from(now.0 / 1000 * (1000 + self.skew) / 1000).unwrap()
    }

    /// When a moment of its own clock comes, or a little later.
    pub fn at(&self, clock_ms: u64) -> Timestamp {
        Timestamp((i64::try_from(clock_ms).unwrap_or(i64::MAX / 4) * 1000 / (1000 + self.skew) + 1) * 1000)
    }

    /// It dies with its processes and begins anew.
    pub fn reboot(&mut self, now: Timestamp) {
        self.boot += 1;
        self.core = Self::core(self.slots);
        self.processes.clear();
        self.connection = 0;
        (self.welcomed, self.left, self.up) = (false, false, true);
        self.slots_ready(now);
    }

    pub fn step(&mut self, now: Timestamp, input: Input) {
        let at = self.clock(now);
        let mut more = vec![input];
        while let Some(input) = more.pop() {
            for output in self.core.step(at, input) {
                match output {
                    Output::Send(message) => self.outbox.push(message),
                    Output::Spawn { slot, launch, order } => self.spawned.push((slot, launch, order.attempt)),
                    Output::Signal { slot, launch, signal } => self.signals.push((slot, launch, signal)),
                    Output::Prepare(order) => {
                        more.push(Input::Prepared(of(order.attempt, order.generation), Ok(())));
                    }
                    Output::Collect(order) => {
                        more.push(Input::Collected(of(order.attempt, order.generation), Ok(Vec::new())));
                    }
                    Output::FlushLog(of) => more.push(Input::LogFlushed(of, None)),
                    Output::Leave => self.left = true,
                    Output::FetchOrder(_) | Output::KillGroup(_) | Output::Discard(_) | Output::Command { .. } => {}
                }
            }
        }
    }

    /// A process of a slot is over: the core is told.
    pub fn exit(&mut self, now: Timestamp, slot: usize) {
        let Some(process) = self.processes.remove(&slot) else { return };
        if !process.told {
            self.step(now, Input::Started { slot, launch: process.launch, pid: Some(1) });
        }
        let exit = Exit {
            id: process.launch,
            code: process.signal.is_none().then_some(process.code),
            signal: process.signal,
            run_ms: 20,
            ..Exit::default()
        };
        self.step(now, Input::Exited { slot, exit });
    }

    pub fn hello(&self) -> Hello {
        Hello {
            protocol: skein_wire::PROTOCOL,
            engine: "sim".parse().unwrap(),
            instance: self.id.clone(),
            boot: self.boot.to_string(),
            facts: crate::things::facts(self.slots),
            holding: self.core.holding(),
            signature: String::new(),
            draining: self.core.draining(),
        }
    }
}

fn of(attempt: AttemptKey, generation: u64) -> AttemptRef {
    AttemptRef { attempt, generation }
}
