//! The agent: runs attempts on an instance, the same way in a function.
//!
//! * [`run_agent`]: `skein agent`, joined to an engine over one WebSocket it dials itself;
//! * [`spawner::main`]: `skein agent-spawner`, the small process per slot that starts children.
//!
//! [`core`] decides without IO; everything else carries out what it says.

mod agent;
pub mod clock;
mod connect;
mod container;
pub mod core;
mod error;
mod facts;
mod files;
mod folder;
mod lane;
mod launch;
pub mod logs;
pub mod measure;
mod rim;
pub mod spawner;
mod tls;

pub use agent::{AgentOptions, DRAIN_MS_DEFAULT, run_agent};
pub use error::AgentError;
pub use facts::Labels;
pub use spawner::Programs;
