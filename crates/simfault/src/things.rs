//! The solutions and sessions of a world.

use std::collections::BTreeMap;
use std::sync::Arc;

use skein_domain::solution::FreeAgents;
use skein_domain::{
    Dedicated, InstanceFacts, Machines, NanoUsd, SessionSpec, Shared, SharedPrice, Solution, SolutionKind,
};
use skein_engine::core::OrderTo;
use skein_wire::StartOrder;

pub(crate) fn start_order(order: &OrderTo) -> StartOrder {
    let node = &order.spec.thread.nodes[order.attempt.key.item.node.node as usize];
    StartOrder {
        engine: "sim".parse().unwrap(),
        attempt: order.attempt.key,
        generation: order.attempt.generation,
        node: node.name.to_string(),
        run: node.task.run.clone(),
        env: BTreeMap::new(),
        secret_env: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        cpu: node.task.needs.cpu.into(),
        memory_mb: node.task.needs.memory_mb,
        slots: node.task.needs.slots,
        limit_ms: order.attempt.limit_ms,
        grace_ms: node.task.grace_ms,
        stdin: node.task.stdin,
        proprietary: None,
    }
}

/// The solution whose machines are made.
pub const CLOUD: &str = "cloud";
/// Slots of each of its machines.
pub(crate) const CLOUD_SLOTS: usize = 2;

/// What every machine offers.
pub fn facts(slots: usize) -> InstanceFacts {
    InstanceFacts {
        cpus: 4,
        memory_mb: 4096,
        storage_mb: 10_000,
        os: "linux".into(),
        arch: "x86_64".into(),
        slots: u32::try_from(slots).unwrap(),
        instance_type: None,
        role: None,
        image: None,
        resources: BTreeMap::new(),
        container: false,
    }
}

pub fn solutions() -> Vec<Solution> {
    let own = Dedicated { price_per_hour: NanoUsd(1000), slots_max: None, timeout_ms: 86_400_000, machines: None };
    let machines = Machines {
        min: 1,
        max: 6,
        idle_ms: 5_000,
        boot_ms: 40_000,
        avoid_ms: 3_000,
        list_ms: 7_000,
        typical_boot_ms: 10_000,
        min_billed_ms: 0,
        cpus_max: None,
        free: FreeAgents::default(),
        thresholds: None,
        element: None,
        facts: facts(CLOUD_SLOTS),
        sizes: Vec::new(),
    };
    let cloud = Dedicated { machines: Some(machines), ..own.clone() };
    let price = SharedPrice {
        per_request: NanoUsd(10),
        per_gb_s: NanoUsd(10),
        granularity_ms: 1,
        min_billed_ms: 1,
        bills_cold: false,
    };
    let shared = |id: &str, concurrency| Solution {
        id: id.parse().unwrap(),
        kind: SolutionKind::Shared(Shared {
            url: "http://127.0.0.1:1".into(),
            timeout_ms: 900_000,
            concurrency,
            memory_mb_max: 2048,
            price: price.clone(),
            cold_start_ms: 100,
            keepalive_ms: 420_000,
            min_warm: 0,
            warm_max: 0,
            os: "linux".into(),
            arch: "x86_64".into(),
        }),
        minimum_purchase: NanoUsd::ZERO,
        per_gb_out: NanoUsd::ZERO,
    };
    let dedicated = |id: &str, kind| Solution {
        id: id.parse().unwrap(),
        kind: SolutionKind::Dedicated(kind),
        minimum_purchase: NanoUsd::ZERO,
        per_gb_out: NanoUsd::ZERO,
    };
    vec![dedicated("own", own), dedicated(CLOUD, cloud), shared("fn-a", 3), shared("fn-b", 2)]
}

/// Three sessions that hold about `items` items of every kind.
pub(crate) fn specs(items: u32) -> Vec<Arc<SessionSpec>> {
    let many = |percent: u32| (items * percent / 100).max(1);
    let limits = serde_json::json!({"lost": 100_000, "refused": 100_000, "timed_out": 3});
    let mixed = serde_json::json!({"name": "mixed", "tasks": {
        "plain": {"command": ["x"], "array": many(30), "retries": 3, "retry": limits, "running_mode": "dedicated"},
        "once": {"command": ["x"], "array": many(10), "on_lost": "fail", "running_mode": "dedicated"},
        "asks": {"command": ["x"], "array": many(3), "on_lost": "ask", "running_mode": "dedicated"},
        "move": {"command": ["x"], "array": many(7), "movable": true, "retry": limits, "running_mode": "dedicated"},
        "then": {"command": ["x"], "array": many(5), "retry": limits, "after": [{"task": "plain", "when": "end"}]},
        "last": {"command": ["x"], "retry": limits, "after": [{"task": "then", "when": "end"}, {"task": "once", "when": "end"}]},
    }});
    let heavy = serde_json::json!({"name": "heavy", "tasks": {
        "alone": {"command": ["x"], "array": many(4), "cpu": 100, "retry": limits, "running_mode": "dedicated"},
        "wide": {"command": ["x"], "array": many(4), "slots": 2, "retry": limits, "running_mode": "dedicated"},
        "share": {"command": ["x"], "array": many(15), "cpu": 40, "retry": limits, "running_mode": "dedicated"},
    }});
    let hybrid = serde_json::json!({"name": "hybrid", "tasks": {
        "any": {"command": ["x"], "array": many(25), "longest_run_s": 60, "expected_run_s": 1, "retry": limits,
                "running_mode": "hybrid", "allowed_wait_s": 1},
    }});
    // It is paused when that is spent; a person gives it more.
    let hybrid = SessionSpec { budget: Some(NanoUsd(100)), ..spec_of(hybrid) };
    [spec_of(mixed), spec_of(heavy), hybrid].into_iter().map(Arc::new).collect()
}

/// What a session of a document would be.
pub fn spec_of(document: serde_json::Value) -> SessionSpec {
    let settled = skein_engine::config::Config::default().settle().unwrap();
    let request = skein_api::StartRequest::default();
    skein_engine::settle_document(document, &request, None, &"sim".parse().unwrap(), &settled).unwrap()
}
