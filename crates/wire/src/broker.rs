//! The broker: how orders reach agents and answers come back ([0039], connection classname of [0052]).
//!
//! The embedded broker keeps one WebSocket per agent inside the engine. What any other (NATS
//! JetStream: one subject per agent, `task.<engine>.<instance>`) must keep: per-agent order, at
//! least once, and the engine identifier in every address so that two engines never mix.
//! Exactly-once effects come from attempt keys and generations, never from the broker.

use skein_domain::InstanceId;

use crate::message::ToAgent;

/// The agent cannot be reached now; what was to be sent is in the ledger and is sent again when it
/// says hello.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("agent '{0}' is not connected")]
pub struct Unreachable(pub InstanceId);

/// The engine's side of a broker.
pub trait Broker: Send + Sync {
    /// Hands messages over, in order. Must not block.
    fn send(&self, to: &InstanceId, messages: Vec<ToAgent>) -> Result<(), Unreachable>;
    /// Ends the connection of an agent that is no longer wanted.
    fn disconnect(&self, agent: &InstanceId);
}
