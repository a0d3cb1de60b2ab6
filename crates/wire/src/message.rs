//! The messages.
//!
//! ```text
//! agent                                engine
//!   | ---- GET /agent/v1/connect ------> |
//!   | <--- Challenge{nonce} ------------ |
//!   | ---- Hello{signature, running} --> |   identity proved at each connect
//!   | <--- Welcome{lease, lane_token} -- |   or Refused{why, next_step}, then close
//!   | ---- Heartbeat ------------------> |
//!   | <--- Lease{ms} ------------------- |   counted from the heartbeat's departure
//!   | <--- Start / Cancel / Drain ------ |
//!   | ---- Accepted, Started, Ended ---> |   Ended is kept and sent again until Recorded
//!   | <--- Recorded{attempts} ---------- |
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skein_domain::task::RunSpec;
use skein_domain::{AttemptEnd, AttemptKey, Digest, EngineId, InstanceFacts, InstanceId, Traffic};

/// Engine to agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToAgent {
    /// First message: sign `nonce` to prove the identity.
    Challenge {
        /// 32 random bytes, base64.
        nonce: String,
        /// Who asks.
        engine: EngineId,
        /// The engine's protocol version.
        protocol: u32,
    },
    /// The agent is known; it may take orders.
    Welcome {
        /// The lease: attempts are lost for the engine this long after the last heartbeat, ms.
        lease_ms: u64,
        /// Send a heartbeat this often (the configuration's resource time check), ms.
        heartbeat_ms: u64,
        /// Bearer token for the bulk lane.
        lane_token: String,
    },
    /// The agent is not wanted.
    Refused {
        /// Why.
        why: String,
        /// What to do about it.
        next_step: String,
        /// Trying again later may help.
        retry: bool,
    },
    /// Answer to a heartbeat: the lease runs anew from that heartbeat's departure.
    Lease {
        /// The heartbeat's number.
        heartbeat: u64,
        /// Term, ms.
        lease_ms: u64,
        /// Interval from now on, ms.
        heartbeat_ms: u64,
    },
    /// Start an attempt.
    Start {
        /// Which.
        attempt: AttemptKey,
        /// Fencing token; an older one than the item's last is refused.
        generation: u64,
        /// What to do.
        order: OrderBody,
    },
    /// Stop an attempt: SIGTERM, grace, SIGKILL.
    Cancel {
        /// Which.
        attempt: AttemptKey,
        /// Its generation.
        generation: u64,
        /// It goes on elsewhere: the SIGTERM tells it to save its state, and its end is `moved`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        moving: bool,
    },
    /// Give an attempt back unless it has started: answered by `OrderRefused` when it has not and now
    /// never will, else by what it is.
    Recall {
        /// Which.
        attempt: AttemptKey,
        /// Its generation.
        generation: u64,
    },
    /// A person's word to an attempt that runs. Said once: whoever said it sees in the log what came of it.
    Command {
        /// Which.
        attempt: AttemptKey,
        /// Its generation.
        generation: u64,
        /// What.
        command: AttemptCommand,
    },
    /// These ends are in the ledger (or refused for good); forget them.
    Recorded {
        /// Which.
        attempts: Vec<AttemptRef>,
    },
    /// Take nothing new; leave when empty.
    Drain {
        /// Why.
        why: String,
    },
}

/// What can be said to an attempt that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptCommand {
    /// A signal to its process group, by number.
    Signal(i32),
    /// A line for its standard input, without its end.
    Line(String),
    /// The end of its standard input.
    EndOfInput,
}

/// An attempt with its fencing token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttemptRef {
    /// Which.
    pub attempt: AttemptKey,
    /// Its generation.
    pub generation: u64,
}

/// An order, in the frame or, when it is too large for one, to be fetched over the bulk lane
/// (`GET /agent/v1/orders/{attempt}`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderBody {
    /// Here it is.
    Inline(Box<StartOrder>),
    /// Fetch it.
    Fetch,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_one(slots: &u32) -> bool {
    *slots == 1
}

/// Everything needed to run one attempt, the same on an agent and in a function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartOrder {
    /// Which engine orders it.
    pub engine: EngineId,
    /// Which attempt.
    pub attempt: AttemptKey,
    /// Its fencing token.
    pub generation: u64,
    /// The node's name, for folders and messages.
    pub node: String,
    /// What runs; indices already put in.
    pub run: RunSpec,
    /// Environment, secrets already put in.
    pub env: BTreeMap<String, String>,
    /// Names in `env` whose values must never appear in a log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_env: Vec<String>,
    /// Files to place before the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputFile>,
    /// Patterns of files to bring back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// CPU setting, 0-100.
    pub cpu: u8,
    /// Memory limit, MiB.
    pub memory_mb: u32,
    /// Slots of the agent that it takes, at least 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub slots: u32,
    /// Time limit, ms; none for a service.
    pub limit_ms: Option<u64>,
    /// From SIGTERM to SIGKILL, ms.
    pub grace_ms: u64,
    /// Its standard input stays open and takes lines.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdin: bool,
    /// Proprietary parameters for the solution it runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proprietary: Option<serde_json::Value>,
}

/// A file to place in the working folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// Path inside the working folder.
    pub path: String,
    /// Its content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// What the agent says when it connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its protocol version.
    pub protocol: u32,
    /// The engine it joined.
    pub engine: EngineId,
    /// Its instance.
    pub instance: InstanceId,
    /// Changes with every start of the agent: attempts of an earlier boot are gone.
    pub boot: String,
    /// What the instance offers.
    pub facts: InstanceFacts,
    /// Attempts it holds: accepted or running, or ended but not yet recorded.
    pub holding: Vec<AttemptRef>,
    /// Ed25519 signature of `nonce` + `boot`, base64.
    pub signature: String,
    /// It is draining (it got a SIGTERM) and takes nothing new.
    #[serde(default)]
    pub draining: bool,
}

/// Agent to engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FromAgent {
    /// Answer to the challenge.
    Hello(Box<Hello>),
    /// Still here.
    Heartbeat {
        /// Counts up from 1 in each connection.
        number: u64,
        /// CPU in use, percent of the whole instance, rounded.
        cpu_percent: u32,
        /// Memory in use on the instance, MiB.
        memory_mb: u32,
        /// Use of each running attempt.
        #[serde(default)]
        items: Vec<ItemUse>,
        /// What the machine has counted since it booted; an agent of before does not say it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        traffic: Option<Traffic>,
    },
    /// The order is here and will be carried out.
    Accepted(AttemptRef),
    /// The order is stale, doubled or not for this agent; nothing was started.
    OrderRefused {
        /// Which.
        #[serde(flatten)]
        order: AttemptRef,
        /// Why.
        why: String,
    },
    /// Its process runs.
    Started(AttemptRef),
    /// It ended. Sent again until recorded.
    Ended {
        /// Which.
        #[serde(flatten)]
        order: AttemptRef,
        /// How.
        end: Box<AttemptEnd>,
    },
    /// The agent got a SIGTERM: it takes nothing new and leaves when empty.
    Draining,
    /// The instance will be taken away soon (a spot notice).
    Noticed {
        /// What was said.
        why: String,
    },
    /// The agent is empty and leaves now.
    Leaving,
}

/// Use of one running attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemUse {
    /// Which.
    pub attempt: AttemptKey,
    /// CPU in use, percent of the whole instance.
    pub cpu_percent: u32,
    /// Memory in use, MiB.
    pub memory_mb: u32,
}

/// What a gateway driver sends to a function: `POST` to the gateway, with the attempt and
/// generation as `Idempotency-Key` (`s-5g0.2.0.1:77`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Invocation {
    /// The order.
    pub order: StartOrder,
    /// Where the bulk lane is.
    pub engine_url: String,
    /// Bearer token for the bulk lane, good for this attempt only.
    pub lane_token: String,
    /// BLAKE3 of the engine's CA certificate (DER), when `engine_url` is https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_digest: Option<String>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InvocationResult {
    /// Which.
    #[serde(flatten)]
    pub order: AttemptRef,
    /// How it ended.
    pub end: AttemptEnd,
}
