//! Trace-driven simulation of decisions: real arrivals, list prices, measured delays, and the very functions
//! of `skein_domain::decide`.
//!
//! ```text
//! scenarios.json + trace ---> Scenario ---> World (events in order of time) ---> Metrics
//!                                             ^   |
//!                                 Rule: tick, arrive, late
//! ```
//! The model. An item arrives, takes one slot for as long as it lasts, and is never moved or killed. A machine
//! has slots, is paid from launch to stop (with a minimum) and takes time to boot; it stops only when empty. A
//! shared solution starts one instance an item, cold or warm, and bills as its offer says. Delays come from
//! quantile tables read in a fixed order, so nothing is random and the same scenario gives the same figures on
//! every machine. Events of one moment go in the order machine ready, item ended, tick, invocation ended,
//! arrival. Times are microseconds, money is nano-USD.

mod bound;
mod clairvoyant;
pub mod generate;
pub mod made;
mod metrics;
mod policy;
mod quantiles;
mod rule;
mod scaled;
mod scenario;
mod swf;
mod trace;
mod world;

pub use bound::{Bounds, bounds, bounds_of_choice, bounds_of_offers};
pub use clairvoyant::BoundsPlan;
pub use metrics::Metrics;
pub use policy::{Defaults, Engine};
pub use quantiles::Quantiles;
pub use rule::{FixedAtPeak, Keda, Rule, ServerlessOnly};
pub use scaled::Scaled;
pub use scenario::{MachineOffer, Scenario, ScenarioError, Scenarios, SharedOffer};
pub use trace::{Item, Trace, concurrency, read as read_trace};
pub use world::{Course, World, play, simulate};

/// Microseconds of a second.
pub const SECOND_US: i64 = 1_000_000;
/// Microseconds of an hour: rates are per hour.
pub const HOUR_US: i64 = 3600 * SECOND_US;
