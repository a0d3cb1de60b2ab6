//! The control lane: joining once, then one WebSocket that the agent dials and dials again.

pub(crate) mod identity;
pub(crate) mod link;
