//! The nouns of Skein and the pure decisions over them.
//!
//! Nothing here does IO, reads a clock or draws a random number: time comes in as an
//! argument, and the same input gives the same bytes out (ARCHITECTURE.md, invariants 1 and 9).

pub mod actions;
pub mod attempt;
pub mod decide;
pub mod draft;
pub mod event;
pub mod group;
pub mod id;
pub mod image;
pub mod instance;
pub mod needs;
pub mod quantity;
pub mod scaling;
pub mod session;
pub mod site;
pub mod solution;
pub mod spend;
pub mod task;
#[cfg(feature = "testing")]
pub mod testing;
pub mod thread;

pub use attempt::{Attempt, AttemptEnd, AttemptState, EndCause, OutputFile, Place, Withdrawal};

pub use event::Event;
pub use id::{AttemptKey, EngineId, InstanceId, ItemKey, NodeKey, SessionId, SolutionId, TaskName, UserName};
pub use image::Image;
pub use instance::{Instance, InstanceFacts, InstanceState, Live, Machine, Traffic};
pub use needs::{CpuSetting, Needs};
pub use quantity::{Digest, NanoUsd, Timestamp};
pub use session::{HoldPolicy, ItemEnd, ItemState, Node, Outcome, Session, SessionSpec, SessionState, Tries};
pub use solution::{Dedicated, Machines, Shared, SharedPrice, Solution, SolutionKind};
pub use task::{Balance, EnvValue, OnLost, ReplyOn, ReplyTo, RetryLimits, RunSpec, RunningMode, TaskSpec};
pub use thread::{Link, NodeSpec, ThreadSpec, When};
