//! One engine's core on a stage: named scenarios are played on it input by input, without dice.

use std::sync::Arc;

use skein_domain::decide::Snapshot;
use skein_domain::event::Event;
use skein_domain::{
    Attempt, AttemptEnd, AttemptKey, EndCause, InstanceFacts, InstanceId, Place, SessionSpec, Solution, Timestamp,
};
use skein_engine::core::{Core, Input, Output, Settings, TurnResult};
use skein_wire::{AttemptRef, FromAgent, Hello};

/// The core, what it has said, and the time.
pub struct Stage {
    pub core: Core,
    pub now: Timestamp,
    /// Every event so far.
    pub events: Vec<Event>,
    settings: Settings,
}

impl Stage {
    /// With these settings and solutions.
    pub fn new(settings: Settings, solutions: Vec<Solution>) -> Self {
        let now = Timestamp(1_000_000_000);
        let core = Core::new(Snapshot::default(), settings.clone(), now);
        let mut stage = Self { core, now, events: Vec::new(), settings };
        let settings = Box::new(stage.settings.clone());
        stage.turn(vec![Input::Configure { settings, solutions }]);
        stage
    }

    /// One turn.
    pub fn turn(&mut self, inputs: Vec<Input>) -> TurnResult {
        let turn = self.core.turn(self.now, inputs);
        self.events.extend(turn.events.iter().cloned());
        turn
    }

    /// Time passes, with a turn whenever the core wants one.
    pub fn pass_ms(&mut self, ms: u64) -> Vec<Output> {
        let until = self.now.after_ms(ms);
        let mut outputs = Vec::new();
        while let Some(wake) = self.core.next_wake().filter(|wake| *wake <= until) {
            self.now = self.now.max(wake);
            outputs.extend(self.turn(Vec::new()).outputs);
            // A core that is due again at the same moment has more of the same to do.
            self.now = self.now.after_ms(1);
        }
        self.now = self.now.max(until);
        outputs.extend(self.turn(Vec::new()).outputs);
        outputs
    }

    pub fn submit(&mut self, spec: SessionSpec) -> TurnResult {
        self.turn(vec![Input::Submit {
            reply: 1,
            spec: Arc::new(spec),
            client_key: None,
            digests: Vec::new(),
            estimate: None,
        }])
    }

    /// An agent says hello.
    pub fn hello(&mut self, id: &str, boot: &str, solution: &str, facts: InstanceFacts) -> TurnResult {
        let hello = Box::new(Hello {
            protocol: skein_wire::PROTOCOL,
            engine: "stage".parse().unwrap(),
            instance: id.parse().unwrap(),
            boot: boot.to_owned(),
            facts,
            holding: Vec::new(),
            signature: String::new(),
            draining: false,
        });
        self.turn(vec![Input::Hello { hello, solution: solution.parse().unwrap() }])
    }

    /// An agent says something.
    pub fn says(&mut self, id: &str, boot: &str, messages: Vec<FromAgent>) -> TurnResult {
        self.turn(vec![Input::FromAgent { instance: id.parse().unwrap(), boot: boot.to_owned(), messages }])
    }

    /// The open attempt of the only item there is.
    pub fn open(&self) -> Option<&Attempt> {
        self.core.snapshot().attempts.values().next()
    }

    /// Did the core order this attempt to be started, among these outputs?
    pub fn starts(outputs: &[Output], key: AttemptKey) -> bool {
        outputs.iter().any(|output| matches!(output, Output::StartOnAgent { order } if order.attempt.key == key))
    }

    /// Instances that attempts were assigned to, in order.
    pub fn assigned_to(&self) -> Vec<InstanceId> {
        let place = |event: &Event| match event {
            Event::Assigned { attempt } => match &attempt.place {
                Place::Instance(id) => Some(id.clone()),
                Place::Gateway(_) => None,
            },
            _ => None,
        };
        self.events.iter().filter_map(place).collect()
    }
}

/// What an order is named by.
pub fn of(attempt: &Attempt) -> AttemptRef {
    AttemptRef { attempt: attempt.key, generation: attempt.generation }
}

/// It succeeded.
pub fn succeeded(order: AttemptRef) -> FromAgent {
    FromAgent::Ended { order, end: Box::new(AttemptEnd::bare(EndCause::Succeeded)) }
}
