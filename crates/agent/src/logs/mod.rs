//! Logs: the attempt writes two files; while it runs, and once more at its end, what is new is
//! redacted and sent to the engine over the bulk lane, as much at a time as the engine has room for.

mod pump;
mod redact;
mod tail;

pub use pump::{Pump, Watch};
pub use redact::Redactor;

/// Longest log of one attempt, both streams together, bytes; beyond it a line says that it was cut.
pub const LOG_BYTES_MAX: u64 = 64 << 20;
/// Running attempts' logs are looked at this often, ms.
pub const LOG_POLL_MS: u64 = 100;
/// A log whose attempt has ended is offered this long, ms.
pub const LOG_OFFER_MS_MAX: u64 = 600_000;
