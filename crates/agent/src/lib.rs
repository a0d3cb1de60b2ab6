//! The agent: runs attempts on an instance, the same way in a function.
//!
//! * [`run_agent`]: `skein agent`, joined to an engine over one WebSocket it dials itself;
//! * [`run_function_host`]: the local function host, a shared solution on one machine;
//! * [`run_function_face`]: `skein function-runner`, an HTTP server on `$PORT`;
//! * [`spawner::main`]: `skein agent-spawner`, the small process per slot that starts children.
//!
//! [`core`] decides without IO; everything else carries out what it says.

pub mod clock;
pub mod core;
pub mod measure;
pub mod spawner;
