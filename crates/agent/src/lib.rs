//! The agent: runs attempts on an instance, the same way in a function.
//!
//! * [`run_agent`]: `skein agent`, joined to an engine over one WebSocket it dials itself;
//! * [`run_function_host`]: the local function host, a shared solution on one machine;
//! * [`run_function_face`]: `skein function-runner`, an HTTP server on `$PORT`;
//! * [`spawner::main`]: `skein agent-spawner`, the small process per slot that starts children.
//!
//! [`core`] decides without IO; everything else carries out what it says.

mod agent;
pub mod clock;
mod connect;
mod container;
mod container_usage;
pub mod core;
mod error;
mod faces;
mod facts;
mod files;
mod folder;
mod host;
mod lane;
mod launch;
pub mod logs;
pub mod measure;
mod notice;
mod rim;
mod room;
pub mod spawner;
mod tls;

pub use agent::{AgentOptions, DRAIN_MS_DEFAULT, run_agent};
pub use error::AgentError;
pub use faces::http::run_function_face;
pub use facts::Labels;
pub use host::{FunctionHost, HostOptions, Status as HostStatus, run_function_host};
pub use spawner::Programs;
