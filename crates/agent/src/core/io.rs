//! What goes into the core and what comes out of it.

use std::sync::Arc;

use skein_domain::OutputFile;
use skein_wire::message::AttemptRef;
use skein_wire::{AttemptCommand, FromAgent, StartOrder, ToAgent};

use crate::measure::Usage;
use crate::spawner::{Exit, StopSignal};

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// `Hello` left for the engine.
    HelloSent,
    /// A message of the engine, after `Hello`.
    Message(ToAgent),
    /// The connection is gone.
    Disconnected,
    /// The instance will be taken away soon, as its cloud says.
    Noticed(String),
    /// A slot has a spawner that waits.
    SlotReady {
        /// Which slot.
        slot: usize,
        /// What it cannot limit.
        notes: Vec<String>,
    },
    /// A slot's spawner is gone.
    SlotDown {
        /// Which slot.
        slot: usize,
    },
    /// A large order came over the bulk lane, or could not be had.
    OrderFetched(AttemptRef, Result<Box<StartOrder>, String>),
    /// Folder and inputs are there, or cannot be had.
    Prepared(AttemptRef, Result<(), String>),
    /// The process runs.
    Started {
        /// The slot.
        slot: usize,
        /// The launch.
        launch: u64,
        /// Its process group, when it has one of its own.
        pid: Option<i32>,
    },
    /// The process could not be started.
    StartFailed {
        /// The slot.
        slot: usize,
        /// The launch.
        launch: u64,
        /// What, why and the next step.
        why: String,
    },
    /// The process ended.
    Exited {
        /// The slot.
        slot: usize,
        /// How; `id` is the launch.
        exit: Exit,
    },
    /// The outputs are with the engine, or not.
    Collected(AttemptRef, Result<Vec<OutputFile>, CollectFailure>),
    /// The log's tail is with the engine, or never will be.
    LogFlushed(AttemptRef, Option<String>),
    /// New measurements.
    Measured(Usage),
    /// SIGTERM; the second one hurries.
    Terminate,
    /// Time passed.
    Tick,
}

/// Why outputs are not with the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CollectFailure {
    /// The task did not leave what it declared, or what the engine takes.
    Task(String),
    /// The engine could not be reached for too long.
    Place(String),
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send to the engine.
    Send(FromAgent),
    /// Get a large order over the bulk lane; answer `OrderFetched`.
    FetchOrder(AttemptRef),
    /// Make the folder and fetch the inputs; answer `Prepared`.
    Prepare(Arc<StartOrder>),
    /// Start it; answer `Started` or `StartFailed`, later `Exited`.
    Spawn {
        /// In this slot.
        slot: usize,
        /// The launch's number.
        launch: u64,
        /// What.
        order: Arc<StartOrder>,
    },
    /// Signal the process group.
    Signal {
        /// In this slot.
        slot: usize,
        /// The launch.
        launch: u64,
        /// What.
        signal: StopSignal,
    },
    /// A person's word to what runs in this slot.
    Command {
        /// In this slot.
        slot: usize,
        /// The launch.
        launch: u64,
        /// What.
        command: AttemptCommand,
    },
    /// Kill a process group whose spawner is gone.
    KillGroup(i32),
    /// Match, hash and upload outputs; answer `Collected`.
    Collect(Arc<StartOrder>),
    /// Bring the log's tail to the engine; answer `LogFlushed`.
    FlushLog(AttemptRef),
    /// Its folder may go; stop whatever is under way for it.
    Discard(AttemptRef),
    /// The agent is empty: end the process.
    Leave,
}
