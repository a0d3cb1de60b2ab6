//! Deciding, purely: `decide(&Snapshot, &Policy, now) -> Plan`.
//!
//! ```text
//! events --apply--> Snapshot --decide--> Plan --(the engine stores it)--> events --apply--> ...
//!                      |
//!                      +--explain--> why one item is where it is
//!                      +--project--> what a session would do (dry run)
//! ```
//! No IO, clock or randomness; integers only; ordered containers only, so that equal snapshots give
//! the same plan bytes.

pub mod apply;
mod asked;
mod backfill;
pub mod balance;
pub mod budget;
pub mod capacity;
pub mod change;
mod choose;
pub mod cost;
pub mod demand;
pub mod deployment;
pub mod explain;
pub mod forecast;
pub mod goals;
pub mod guard;
pub mod image;
pub mod index;
pub mod offers;
pub mod patience;
pub mod place;
pub mod plan;
pub mod policy;
pub mod project;
mod proposal;
pub mod reason;
pub mod replay;
pub mod reserve;
pub mod retry;
mod rooms;
pub mod running_mode;
pub mod scale;
pub mod settle;
pub mod snapshot;
pub mod threshold;
pub mod wanted;
mod withdraw;

pub use plan::{Assignment, Plan, Release, decide};
pub use policy::{Algorithm, Policy};
pub use reason::{Choice, Fault, Instead, Reason};
pub use snapshot::Snapshot;
pub use wanted::{Answer, Question, wanted};
