//! Deterministic simulation of faults: the real cores of engine and agent and the real ledger on SQLite,
//! on one thread, with simulated time, network, machines and functions. A seed is a world.
//!
//! ```text
//!            inputs                      ToAgent, one connection at a time, in order
//! clients ----------> engine core  <------------------------------------------------> agent core
//!                     | commit (may fail, may be the last thing that happens)         | spawn, signal
//!                     ledger on disk                                                  simulated processes
//!                     \----> functions: answer late, twice, or refuse
//! ```
//! What is checked after every step, and counted by name: [`setup::Counts`]. Processes are the
//! simulation's own: two of one item alive at once is an overlap however the books look. A cloud
//! makes machines late, twice or never and loses answers: `unowned` counts what it has and the ledger does
//! not (and the other way round) once everything has come to rest, and processes that still run then.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a simulation that cannot go on says so by panicking")]
#![allow(missing_docs, reason = "a test tool: names say it")]

pub mod agents;
mod cloud;
pub mod dice;
pub mod ledger;
pub mod setup;
pub mod stage;
mod things;
pub mod world;

pub use setup::{Counts, Mutant, Setup};
pub use things::{CLOUD, facts, solutions, spec_of};
pub use world::run;

/// Smaller worlds that fail like the given one: fewer items, fewer agents, fewer kinds of fault.
pub fn shrink(seed: u64, failing: &Setup) -> (Setup, Counts) {
    let (mut least, mut counts) = (failing.clone(), run(seed, failing));
    loop {
        let tries = least.smaller();
        let next = tries.into_iter().map(|setup| (run(seed, &setup), setup)).find(|(counts, _)| counts.bad() > 0);
        match next {
            Some((found, setup)) => (least, counts) = (setup, found),
            None => return (least, counts),
        }
    }
}
