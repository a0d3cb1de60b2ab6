//! Metrics for Prometheus: what is counted as it happens, and what is looked up when asked for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use skein_domain::decide::Snapshot;

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Bytes of logs taken.
    pub log_bytes: AtomicU64,
    /// Heartbeats of agents.
    pub heartbeats: AtomicU64,
    /// Requests to the API.
    pub requests: AtomicU64,
    /// Requests refused for want of a good token.
    pub refused: AtomicU64,
    /// Failures of the algorithm for CPU setting 0, by kind.
    algorithm_failures: Mutex<BTreeMap<&'static str, u64>>,
}

/// What is looked up at the writer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauges {
    turns: u64,
    sessions: Vec<(String, u64)>,
    ready: u64,
    attempts: Vec<(String, u64)>,
    attempts_by_user: Vec<(String, u64)>,
    instances: Vec<(String, u64)>,
    free: u64,
}

impl Gauges {
    /// Looks at a snapshot.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let mut gauges = Self { turns: snapshot.turn, ready: snapshot.ready_items(), ..Self::default() };
        for session in snapshot.sessions.values() {
            count(&mut gauges.sessions, session.spec.user.as_str());
        }
        for attempt in snapshot.attempts.values() {
            count(&mut gauges.attempts, &attempt.place.to_string());
            let session = snapshot.sessions.get(&attempt.key.item.session());
            count(&mut gauges.attempts_by_user, session.map_or("", |s| s.spec.user.as_str()));
        }
        for instance in snapshot.instances.values() {
            count(&mut gauges.instances, &format!("{:?}", instance.state).to_lowercase());
            gauges.free += u64::from(instance.is_free());
        }
        gauges
    }
}

fn count(into: &mut Vec<(String, u64)>, key: &str) {
    match into.iter_mut().find(|(k, _)| k == key) {
        Some((_, n)) => *n += 1,
        None => into.push((key.to_owned(), 1)),
    }
}

impl Metrics {
    /// Counts a failure of the algorithm for CPU setting 0.
    pub(crate) fn algorithm_failed(&self, word: &'static str) {
        *self.algorithm_failures.lock().unwrap_or_else(PoisonError::into_inner).entry(word).or_default() += 1;
    }

    /// The text format of Prometheus.
    pub(crate) fn render(&self, gauges: &Gauges) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, values: &[(Option<(&str, &str)>, u64)]| {
            let mut lines = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for (label, value) in values {
                let label = label.map(|(k, v)| format!("{{{k}=\"{v}\"}}")).unwrap_or_default();
                // Writing to a String cannot fail.
                writeln!(lines, "{name}{label} {value}").unwrap_or_default();
            }
            text.push_str(&lines);
        };
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        family("skein_turns_total", "counter", "Turns of the ledger.", &[(None, gauges.turns)]);
        family("skein_log_bytes_total", "counter", "Bytes of task logs taken.", &[(None, load(&self.log_bytes))]);
        family("skein_heartbeats_total", "counter", "Heartbeats of agents.", &[(None, load(&self.heartbeats))]);
        family("skein_requests_total", "counter", "Requests to the API.", &[(None, load(&self.requests))]);
        family(
            "skein_requests_refused_total",
            "counter",
            "Requests without a good token.",
            &[(None, load(&self.refused))],
        );
        let failures = self.algorithm_failures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let failures: Vec<_> = failures.iter().map(|(word, n)| (Some(("fault", *word)), *n)).collect();
        let help = "Answers of the algorithm for CPU setting 0 that could not be used.";
        family("skein_algorithm_failures_total", "counter", help, &failures);
        family("skein_items_ready", "gauge", "Items that wait for a place.", &[(None, gauges.ready)]);
        family("skein_instances_free", "gauge", "Agents that no session holds.", &[(None, gauges.free)]);
        let labelled = |key: &'static str, values: &[(String, u64)]| -> Vec<(Option<(&'static str, String)>, u64)> {
            values.iter().map(|(v, n)| (Some((key, v.clone())), *n)).collect()
        };
        for (name, help, values) in [
            ("skein_sessions_open", "Open sessions by user.", labelled("user", &gauges.sessions)),
            ("skein_attempts_open", "Open attempts by place.", labelled("place", &gauges.attempts)),
            ("skein_user_attempts_open", "Open attempts by user.", labelled("user", &gauges.attempts_by_user)),
            ("skein_instances", "Instances by state.", labelled("state", &gauges.instances)),
        ] {
            let borrowed: Vec<_> =
                values.iter().map(|(l, n)| (l.as_ref().map(|(k, v)| (*k, v.as_str())), *n)).collect();
            family(name, "gauge", help, &borrowed);
        }
        text
    }
}
