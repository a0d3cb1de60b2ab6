//! The lease: how long attempts may run without a sign of the engine.

use std::collections::BTreeMap;

/// Attempts are dead this long before the lease ends, ms; a tenth of a short lease. It covers a late
/// timer, the kill itself, and clocks that drift apart.
pub(crate) const LEASE_MARGIN_MS: u64 = 1_000;
/// Least margin, ms.
pub(crate) const LEASE_MARGIN_MS_MIN: u64 = 50;
/// Longest grace of an attempt that is stopped because its lease ends, ms; a fifth of a short lease.
pub(crate) const LEASE_GRACE_MS: u64 = 2_000;

/// Counted on the agent's own clock from the departure of the last heartbeat that was answered.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// When the last hello left.
    pub(super) hello_departed: u64,
    /// Its length, ms.
    pub(super) term_ms: u64,
    /// When the next heartbeat is due.
    pub(super) next_heartbeat: u64,
    ends_at: Option<u64>,
    heartbeat_ms: u64,
    number: u64,
    departed: BTreeMap<u64, u64>,
}

impl Lease {
    /// A welcome answers the hello, and starts the count of heartbeats anew.
    pub(super) fn welcomed(&mut self, now: u64, term_ms: u64, heartbeat_ms: u64) {
        self.term_ms = term_ms;
        self.heartbeat_ms = heartbeat_ms.max(1);
        self.ends_at = Some(self.hello_departed + term_ms);
        self.next_heartbeat = now;
        self.disconnected();
    }

    /// Answers to heartbeats of an earlier connection count no more.
    pub(super) fn disconnected(&mut self) {
        self.number = 0;
        self.departed.clear();
    }

    /// A heartbeat leaves now; its number.
    pub(super) fn beat(&mut self, now: u64) -> u64 {
        self.number += 1;
        self.departed.insert(self.number, now);
        self.next_heartbeat = now + self.heartbeat_ms;
        self.number
    }

    pub(super) fn renewed(&mut self, heartbeat: u64, term_ms: u64, heartbeat_ms: u64) {
        let Some(departed) = self.departed.remove(&heartbeat) else { return };
        self.departed.retain(|number, _| *number > heartbeat);
        self.term_ms = term_ms;
        self.ends_at = self.ends_at.max(Some(departed + term_ms));
        if heartbeat_ms != self.heartbeat_ms {
            // A new interval counts from the heartbeat that was answered.
            self.heartbeat_ms = heartbeat_ms.max(1);
            self.next_heartbeat = self.next_heartbeat.min(departed + self.heartbeat_ms);
        }
    }

    /// From here on attempts get SIGTERM and nothing starts; none before the first welcome.
    pub(super) fn stop_at(&self) -> Option<u64> {
        self.ends_at.map(|_| self.kill_at().saturating_sub(LEASE_GRACE_MS.min(self.term_ms / 5)))
    }

    /// Here they get SIGKILL.
    pub(super) fn kill_at(&self) -> u64 {
        let margin = (self.term_ms / 10).clamp(LEASE_MARGIN_MS_MIN, LEASE_MARGIN_MS);
        self.ends_at.unwrap_or(0).saturating_sub(margin)
    }

    /// May something start now?
    pub(super) fn holds(&self, now: u64) -> bool {
        self.stop_at().is_some_and(|at| now < at)
    }
}
