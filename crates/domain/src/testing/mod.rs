//! Scenes and random worlds for tests, here and in other crates (feature `testing`).
//!
//! A [`Scene`] is a snapshot with a clock and a policy, changed as the engine changes it: events in
//! turns. A [`World`] is a scene in which everything happens at random, from a seed: the same seed
//! gives the same events. Nothing here is in a shipped binary.

mod draw;
mod random;
mod scene;
mod world;

pub use random::Random;
pub use scene::{Scene, dedicated, facts, key, loose, machines, name, shared, spec_of, task};
pub use world::{Record, World, apply_live};
