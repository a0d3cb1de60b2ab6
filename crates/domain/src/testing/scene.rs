//! A scene: a snapshot, a clock and a policy, and short ways to put things into it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::str::FromStr;
use std::sync::Arc;

use crate::attempt::{AttemptEnd, EndCause};
use crate::decide::explain::{Explanation, explain};
use crate::decide::{Plan, Policy, Snapshot, decide};
use crate::event::{Event, Then};
use crate::id::{AttemptKey, InstanceId, ItemKey, NodeKey, SessionId};
use crate::instance::{InstanceFacts, Live};
use crate::needs::{CpuSetting, Needs};
use crate::quantity::{NanoUsd, Timestamp};
use crate::session::{HoldPolicy, ItemEnd, SessionSpec};
use crate::solution::{Dedicated, FreeAgents, Machines, Shared, SharedPrice, Solution, SolutionKind};
use crate::task::{OnLost, RetryLimits, RunSpec, RunningMode, ServiceLevel, TaskSpec};
use crate::thread::{LooseNode, ThreadSpec, When, assemble};

/// A valid name of any kind.
pub fn name<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().unwrap_or_else(|e| unreachable!("'{text}' is a valid name: {e:?}"))
}

/// The item of `session` at `node` and `index`.
pub fn key(session: SessionId, node: u32, index: u32) -> ItemKey {
    NodeKey { session, node }.item(index)
}

/// A task that asks for next to nothing; tests change what they are about.
pub fn task(text: &str) -> TaskSpec {
    TaskSpec {
        name: name(text),
        run: RunSpec::Command(vec!["/bin/true".into()]),
        env: BTreeMap::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        needs: Needs {
            cpu: CpuSetting::Algorithm,
            memory_mb: 64,
            storage_mb: 0,
            slots: 1,
            os: None,
            arch: None,
            instance_type: None,
            role: None,
            image: None,
            solution: None,
            resources: BTreeMap::new(),
            container: false,
        },
        expected_run_ms: Some(10_000),
        data_out_mb: 0,
        longest_run_ms: Some(60_000),
        service: false,
        grace_ms: 5_000,
        service_level: ServiceLevel::Standard,
        urgency: 50,
        allowed_wait_ms: 10_000,
        movable: false,
        stdin: false,
        group: None,
        running_mode: RunningMode::Auto,
        balance: None,
        array: 1,
        retries: 0,
        retry: RetryLimits::default(),
        on_lost: OnLost::Retry,
        labels: BTreeMap::new(),
        reply_to: None,
        reply_on: crate::task::ReplyOn::default(),
        proprietary: BTreeMap::new(),
        custom: serde_json::Map::new(),
        defaulted: BTreeSet::new(),
    }
}

/// A node of a thread, after the success of others.
pub fn loose(task: TaskSpec, after: &[&str]) -> LooseNode {
    let after = after.iter().map(|n| ((*n).to_owned(), When::Success)).collect();
    LooseNode { name: task.name.clone(), task: Arc::new(task), after }
}

/// A session's spec around a thread.
pub fn spec_of(thread: ThreadSpec) -> Arc<SessionSpec> {
    let mode_sources = vec!["task".to_owned(); thread.nodes.len()];
    Arc::new(SessionSpec {
        thread,
        user: name("tester"),
        version: None,
        overrides: Vec::new(),
        mode_sources,
        earlier: None,
        budget: None,
    })
}

/// A plain Linux server with `slots` slots, 4 CPUs and 8 GiB.
pub fn facts(slots: u32) -> InstanceFacts {
    InstanceFacts {
        cpus: 4,
        memory_mb: 8192,
        storage_mb: 100_000,
        os: "linux".into(),
        arch: "x86_64".into(),
        slots,
        instance_type: None,
        role: None,
        image: None,
        resources: BTreeMap::new(),
        container: false,
    }
}

/// A dedicated solution; `price` in nano-USD per hour.
pub fn dedicated(id: &str, price: i64) -> Solution {
    let kind = Dedicated { price_per_hour: NanoUsd(price), slots_max: None, timeout_ms: 3_600_000, machines: None };
    Solution {
        id: name(id),
        kind: SolutionKind::Dedicated(kind),
        minimum_purchase: NanoUsd::ZERO,
        per_gb_out: NanoUsd::ZERO,
    }
}

/// Machines of a cloud that makes and ends them at once.
pub fn machines(min: u32, max: u32, facts: InstanceFacts) -> Machines {
    Machines {
        min,
        max,
        idle_ms: 60_000,
        boot_ms: 60_000,
        avoid_ms: 1_000,
        list_ms: 60_000,
        typical_boot_ms: 40_000,
        min_billed_ms: 60_000,
        cpus_max: None,
        free: FreeAgents::default(),
        thresholds: None,
        element: None,
        facts,
        sizes: Vec::new(),
    }
}

/// A shared solution that bills by the ms; `price` in nano-USD per GB-second.
pub fn shared(id: &str, price: i64, timeout_ms: u64, concurrency: u32) -> Solution {
    let price = SharedPrice {
        per_request: NanoUsd::ZERO,
        per_gb_s: NanoUsd(price),
        granularity_ms: 1,
        min_billed_ms: 1,
        bills_cold: false,
    };
    let kind = Shared {
        url: "http://127.0.0.1:1".into(),
        timeout_ms,
        concurrency,
        memory_mb_max: 10_240,
        price,
        cold_start_ms: 0,
        keepalive_ms: 420_000,
        min_warm: 0,
        warm_max: 0,
        os: "linux".into(),
        arch: "x86_64".into(),
    };
    Solution {
        id: name(id),
        kind: SolutionKind::Shared(kind),
        minimum_purchase: NanoUsd::ZERO,
        per_gb_out: NanoUsd::ZERO,
    }
}

/// A snapshot with a clock and a policy.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The policy.
    pub policy: Policy,
    /// Now.
    pub now: Timestamp,
    pub(super) started: u64,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            snapshot: Snapshot::default(),
            policy: Policy::default(),
            now: Timestamp(1_700_000_000_000_000),
            started: 0,
        }
    }
}

impl Scene {
    /// One turn of events; returns them with what followed.
    pub fn happen(&mut self, events: Vec<Event>) -> Vec<Event> {
        let turn = self.snapshot.turn + 1;
        self.snapshot.apply_all(turn, self.now, events)
    }

    /// A solution is known from now on.
    pub fn solution(&mut self, solution: Solution) {
        self.happen(vec![Event::SolutionSet { solution }]);
    }

    /// An agent of `solution` says hello and is connected.
    pub fn instance(&mut self, id: &str, solution: &str, facts: InstanceFacts) -> InstanceId {
        let instance: InstanceId = name(id);
        let ready =
            Event::InstanceReady { instance: instance.clone(), solution: name(solution), facts, boot: "boot".into() };
        self.happen(vec![ready]);
        self.live(id, Live { connected: true, ..Live::default() });
        instance
    }

    /// What is measured there.
    pub fn live(&mut self, id: &str, live: Live) {
        self.snapshot.set_live(&name(id), live);
    }

    /// Starts a thread.
    pub fn start(&mut self, thread: ThreadSpec) -> SessionId {
        self.started += 1;
        let session = SessionId::derive(self.started, 0);
        self.happen(vec![Event::SessionStarted { session, spec: spec_of(thread) }]);
        session
    }

    /// Starts nodes as a thread that holds no instance for longer than it uses it.
    pub fn start_nodes(&mut self, nodes: Vec<LooseNode>, together: &[Vec<String>]) -> SessionId {
        let thread = assemble(name("thread"), String::new(), nodes, together, HoldPolicy::IdleMs(0));
        self.start(thread.unwrap_or_else(|e| unreachable!("a thread: {e}")))
    }

    /// Starts one task.
    pub fn start_task(&mut self, task: TaskSpec) -> SessionId {
        self.start_nodes(vec![loose(task, &[])], &[])
    }

    /// One plan, not carried out.
    pub fn decide(&self) -> Plan {
        decide(&self.snapshot, &self.policy, self.now)
    }

    /// One plan, carried out.
    pub fn pass(&mut self) -> Plan {
        let plan = self.decide();
        let turn = self.snapshot.turn + 1;
        let events = plan.clone().into_events(&self.snapshot, turn, self.now);
        self.snapshot.apply_all(turn, self.now, events);
        plan
    }

    /// Ends an attempt with success.
    pub fn succeed(&mut self, attempt: AttemptKey) -> Vec<Event> {
        self.end(attempt, EndCause::Succeeded, Then::End(ItemEnd::Succeeded))
    }

    /// Ends an attempt.
    pub fn end(&mut self, attempt: AttemptKey, cause: EndCause, then: Then) -> Vec<Event> {
        self.happen(vec![Event::Ended { attempt, end: AttemptEnd::bare(cause), then }])
    }

    /// Why an item is where it is.
    pub fn explain(&self, item: ItemKey) -> Option<Explanation> {
        explain(&self.snapshot, &self.policy, item, self.now)
    }

    /// Time goes on.
    pub fn after_ms(&mut self, ms: u64) {
        self.now = self.now.after_ms(ms);
    }
}
