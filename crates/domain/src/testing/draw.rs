//! Random nouns: tasks, threads, instances, solutions, policies. Whatever is drawn can be satisfied
//! once a world is calm ([`super::World::calm_down`]): no task asks for what no place could ever have.

use std::sync::Arc;

use super::random::Random;
use super::scene::{dedicated, facts, name, shared, task};
use crate::decide::budget::{Budgets, Cap, CapAction};
use crate::decide::{Algorithm, Policy};
use crate::instance::InstanceFacts;
use crate::needs::CpuSetting;
use crate::quantity::NanoUsd;
use crate::session::HoldPolicy;
use crate::solution::{Solution, SolutionKind};
use crate::task::{Balance, OnLost, RunSpec, RunningMode, ServiceLevel, TaskSpec};
use crate::thread::{LooseNode, ThreadSpec, When, assemble};

/// Most items of a `together` set: a calm world has room for that many exclusive ones at once.
pub(super) const TOGETHER_ITEMS_MAX: u32 = 6;

const SCHEMES: [Balance; 5] =
    [Balance::FewestTasks, Balance::Packing, Balance::FirstFit, Balance::LowestLoad, Balance::ByNumber];

pub(super) fn thread(random: &mut Random) -> ThreadSpec {
    let nodes = 1 + random.small(6);
    let mut loose: Vec<LooseNode> = Vec::new();
    for at in 0..nodes {
        let mut after = Vec::new();
        for before in 0..at {
            if random.chance(30) {
                after.push((format!("n{before}"), link(random)));
            }
        }
        let task = Arc::new(draw_task(random, &format!("n{at}")));
        loose.push(LooseNode { name: task.name.clone(), task, after });
    }
    let hold = random.pick(&[HoldPolicy::SessionEnd, HoldPolicy::IdleMs(0), HoldPolicy::IdleMs(3000)]);
    let together = together(random, &loose);
    let whole = assemble(name("t"), String::new(), loose.clone(), &together, hold);
    // The set may be in the order of a link; then without it.
    whole.or_else(|_| assemble(name("t"), String::new(), loose, &[], hold)).unwrap_or_else(|e| unreachable!("{e}"))
}

fn link(random: &mut Random) -> When {
    random.pick(&[When::Success, When::Success, When::Success, When::End, When::Failure])
}

fn together(random: &mut Random, loose: &[LooseNode]) -> Vec<Vec<String>> {
    let mut set = Vec::new();
    let mut items = 0;
    for node in loose {
        if random.chance(40) && items + node.task.array <= TOGETHER_ITEMS_MAX {
            items += node.task.array;
            set.push(node.name.to_string());
        }
    }
    if set.len() > 1 && random.chance(60) { vec![set] } else { Vec::new() }
}

fn draw_task(random: &mut Random, text: &str) -> TaskSpec {
    use RunningMode::{Auto, Dedicated, Hybrid, Serverless};
    let mut task = task(text);
    task.running_mode = random.pick(&[Auto, Auto, Dedicated, Hybrid, Hybrid, Serverless]);
    let function = task.running_mode != Dedicated && random.chance(5);
    if function {
        task.run = RunSpec::Function { reference: "f".into() };
    }
    task.expected_run_ms = random.some(if function { 100 } else { 70 }, |r| 1 + r.below(120_000));
    let least = task.expected_run_ms.unwrap_or(1);
    task.longest_run_ms = random.some(60, |r| least + r.below(120_000));
    task.needs.cpu = match random.below(10) {
        0..=4 => CpuSetting::Algorithm,
        5..=7 => CpuSetting::AtLeast(u8::try_from(1 + random.below(99)).unwrap_or(1)),
        _ => CpuSetting::Exclusive,
    };
    task.needs.memory_mb = random.pick(&[16, 512, 2048]);
    task.array = random.pick(&[1, 1, 1, 2, 3, 9]);
    task.retries = random.small(3);
    task.movable = random.chance(60);
    task.on_lost = random.pick(&[OnLost::Retry, OnLost::Retry, OnLost::Fail, OnLost::Ask]);
    task.urgency = random.pick(&[10, 50, 50, 90]);
    task.service_level = random.pick(&[ServiceLevel::BestEffort, ServiceLevel::Standard, ServiceLevel::Standard]);
    task.allowed_wait_ms = random.pick(&[0, 2000, 20_000]);
    task.balance = random.some(20, |r| r.pick(&SCHEMES));
    task.group = random.some(20, |r| r.pick(&["g", "h"]).to_owned());
    needs(random, &mut task, function);
    task
}

fn needs(random: &mut Random, task: &mut TaskSpec, function: bool) {
    let gateway_only = function || task.running_mode == RunningMode::Serverless;
    let needs = &mut task.needs;
    needs.os = random.some(20, |_| "linux".into());
    needs.arch = random.some(20, |_| "x86_64".into());
    if gateway_only {
        needs.solution = random.some(10, |_| name("fn"));
        return;
    }
    if random.chance(5) {
        task.service = true;
        task.longest_run_ms = None;
    }
    needs.storage_mb = random.pick(&[0, 0, 50_000]);
    needs.slots = random.pick(&[1, 1, 1, 2, 3]);
    needs.solution = random.some(10, |_| name("own"));
    needs.role = random.some(8, |_| "db".into());
    needs.instance_type = random.some(8, |_| "m".into());
    needs.image = random.some(8, |_| "img".into());
    needs.container = random.chance(8);
    if random.chance(12) {
        needs.resources.insert("gpu".into(), 1 + random.below(2));
    }
}

pub(super) fn some_facts(random: &mut Random) -> InstanceFacts {
    let mut facts = facts(1 + random.small(4));
    facts.memory_mb = random.pick(&[1024, 4096]);
    facts.os = random.pick(&["linux", "linux", "windows"]).into();
    facts.arch = random.pick(&["x86_64", "x86_64", "aarch64"]).into();
    facts.role = random.some(30, |_| "db".into());
    facts.instance_type = random.some(30, |_| "m".into());
    facts.image = random.some(30, |_| "img".into());
    facts.container = random.chance(40);
    if random.chance(50) {
        facts.resources.insert("gpu".into(), random.below(4));
    }
    facts
}

/// An instance that has everything that anything asks for.
pub(super) fn big_facts() -> InstanceFacts {
    let mut facts = facts(1000);
    (facts.memory_mb, facts.storage_mb) = (10_000_000, 10_000_000);
    facts.role = Some("db".into());
    facts.instance_type = Some("m".into());
    facts.image = Some("img".into());
    facts.container = true;
    facts.resources.insert("gpu".into(), 1000);
    facts
}

pub(super) fn solution(random: &mut Random, id: &str) -> Solution {
    let price = i64::try_from(random.below(40_000)).unwrap_or(0);
    let minimum_purchase = random.some(20, money).unwrap_or(NanoUsd::ZERO);
    if id.starts_with("fn") {
        let timeout_ms = random.pick(&[10_000, 100_000, 900_000]);
        let mut solution = shared(id, price, timeout_ms, random.small(4));
        if let SolutionKind::Shared(shared) = &mut solution.kind {
            shared.memory_mb_max = random.pick(&[256, 3008]);
            shared.cold_start_ms = random.below(4000);
            shared.price.per_request = NanoUsd(price / 100);
            shared.price.granularity_ms = random.pick(&[1, 100, 1000]);
        }
        return Solution { minimum_purchase, ..solution };
    }
    let mut solution = dedicated(id, price * 3600);
    if let SolutionKind::Dedicated(dedicated) = &mut solution.kind {
        dedicated.slots_max = random.some(20, |r| 1 + r.small(3));
    }
    Solution { minimum_purchase, ..solution }
}

/// A solution that takes whatever suits its kind.
pub(super) fn generous(id: &str) -> Solution {
    if id.starts_with("fn") { shared(id, 1, 1_000_000_000, 1000) } else { dedicated(id, 1) }
}

pub(super) fn policy(random: &mut Random) -> Policy {
    let algorithm = match random.below(10) {
        0 => Algorithm::Custom { class: "mine".into() },
        _ => Algorithm::Builtin(random.pick(&SCHEMES)),
    };
    Policy {
        balance: random.pick(&SCHEMES),
        algorithm,
        plan_orders_max: random.pick(&[1, 3, 8, 256]),
        assumed_run_ms: 60_000,
        tasks_per_instance_max: random.some(15, |r| 1 + r.small(3)),
        cpu_ceiling_percent: random.some(15, |r| 50 + r.small(50)),
        instances_per_session_max: random.some(15, |r| 1 + r.small(3)),
        exclusive_wait_ms: random.pick(&[0, 2000, 5000]),
        budgets: if random.chance(50) { budgets(random) } else { Budgets::default() },
        ..Policy::default()
    }
}

/// Money that a few items of most tasks cost.
pub(super) fn money(random: &mut Random) -> NanoUsd {
    NanoUsd(i64::try_from(random.below(30_000_000)).unwrap_or(0))
}

fn budgets(random: &mut Random) -> Budgets {
    let cap = |r: &mut Random| Cap {
        limit: money(r),
        action: r.pick(&[CapAction::Warn, CapAction::Pause, CapAction::Pause, CapAction::Refuse]),
        warn_percent: r.pick(&[50, 80]),
    };
    Budgets {
        session: random.some(40, cap),
        user: random.some(30, cap),
        users: random.some(20, |r| (name("tester"), cap(r))).into_iter().collect(),
        month: random.some(40, cap),
    }
}
