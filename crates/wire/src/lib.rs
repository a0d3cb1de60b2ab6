//! Messages between the engine and what runs attempts (agents, function runners), and how they travel.
//!
//! Two lanes, kept apart so that bulk never delays a heartbeat:
//! * the **control lane**: one WebSocket per agent, dialled by the agent, frames of JSON up to
//!   [`FRAME_BYTES_MAX`]; orders, acknowledgements, results and heartbeats only;
//! * the **bulk lane**: plain HTTP requests for logs, files, and whatever outgrows a frame.
//!
//! Every message names its fields, so that engine N understands agent N-1: a field may be added with
//! a default, never renamed or given another meaning (golden frames in `tests/` hold us to it).

pub mod broker;
pub mod frame;
pub mod join;
pub mod lane;
pub mod message;

pub use frame::{BadFrame, FRAME_BYTES_MAX, decode, encode};
pub use message::{
    AttemptCommand, AttemptRef, FromAgent, Hello, InputFile, Invocation, InvocationResult, ItemUse, OrderBody,
    StartOrder, ToAgent,
};

/// Version of the messages. An engine accepts its own and the one before.
pub const PROTOCOL: u32 = 1;

/// Oldest version that this build still understands.
pub const PROTOCOL_MIN: u32 = 1;
