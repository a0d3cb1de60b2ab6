//! Nothing is placed where it does not fit, and `explain` says what `decide` does.

use std::collections::BTreeMap;

use skein_domain::decide::explain::{Explanation, explain};
use skein_domain::decide::place::CREDIT_PER_SLOT_MAX;
use skein_domain::decide::{Assignment, Choice, Snapshot};
use skein_domain::event::Event;
use skein_domain::needs::CpuSetting;
use skein_domain::session::ItemState;
use skein_domain::task::{Profile, RunningMode};
use skein_domain::testing::{Random, Record, key};
use skein_domain::{Instance, InstanceId, InstanceState, ItemKey, Place, SessionState, SolutionId};

fn profile(snapshot: &Snapshot, item: ItemKey) -> &Profile {
    &snapshot.node(item.node).unwrap().profile
}

pub(crate) fn plan(record: &Record) {
    let (before, plan) = (&record.before, &record.plan);
    assert!(plan.assignments.len() <= record.policy.plan_orders_max as usize);
    let mut on: BTreeMap<&InstanceId, Vec<&Assignment>> = BTreeMap::new();
    let mut gateways: BTreeMap<&SolutionId, u32> = BTreeMap::new();
    for placed in &plan.assignments {
        was_ready(record, placed);
        match &placed.place {
            Place::Instance(id) => on.entry(id).or_default().push(placed),
            Place::Gateway(id) => {
                suits_gateway(before, id, placed);
                *gateways.entry(id).or_default() += 1;
            }
        }
    }
    for (id, placed) in on {
        has_room(record, &before.instances[id], &placed);
        for p in placed {
            suits_instance(before, &before.instances[id], p);
        }
    }
    for (id, more) in gateways {
        let limit = before.solutions[id].shared().unwrap().concurrency;
        assert!(before.open_in(id) + more <= limit, "more than {limit} in {id}");
    }
    held_before_assigned(record);
    within_session_limit(record);
    backfilled_ends_in_time(record);
    for release in &plan.releases {
        let mut there = before.attempts_on(&release.instance);
        assert!(there.all(|a| a.key.item.session() != release.session), "released in use: {release:?}");
    }
}

fn was_ready(record: &Record, placed: &Assignment) {
    let session = &record.before.sessions[&placed.item.session()];
    let node = &session.nodes[placed.item.node.node as usize];
    assert_eq!((session.state, node.links_open), (SessionState::Running, 0), "{placed:?}");
    match node.open.get(&placed.item.index) {
        Some(ItemState::Ready { not_before, attempts, .. }) => {
            assert!(*not_before <= record.at && placed.number == attempts + 1, "{placed:?}");
        }
        None => assert!(placed.item.index >= node.next && placed.number == 1, "{placed:?}"),
        Some(other) => panic!("{placed:?} was {other:?}"),
    }
}

fn suits_gateway(before: &Snapshot, id: &SolutionId, placed: &Assignment) {
    let (shared, profile) = (before.solutions[id].shared().unwrap(), profile(before, placed.item));
    let needs = &profile.needs;
    assert!(profile.mode != RunningMode::Dedicated && !profile.service && needs.memory_mb <= shared.memory_mb_max);
    assert!(profile.longest_run_ms.or(profile.expected_run_ms).is_none_or(|ms| ms <= shared.timeout_ms), "{placed:?}");
    assert!(needs.slots == 1, "an invocation has one slot: {placed:?}");
    assert!(needs.solution.as_ref().is_none_or(|asked| asked == id) && needs.resources.is_empty() && !needs.container);
    assert!(placed.limit_ms.is_some_and(|ms| ms <= shared.timeout_ms), "{placed:?}");
    if profile.mode == RunningMode::Auto {
        assert!(profile.longest_run_ms.or(profile.expected_run_ms).is_some(), "{placed:?}");
    }
}

fn suits_instance(before: &Snapshot, instance: &Instance, placed: &Assignment) {
    let (facts, profile) = (&instance.facts, profile(before, placed.item));
    let needs = &profile.needs;
    assert!(profile.mode != RunningMode::Serverless && !profile.function_only, "{placed:?}");
    assert!(instance.state == InstanceState::Ready && before.live(&instance.id).connected, "{placed:?}");
    assert!(needs.os.as_ref().is_none_or(|os| *os == facts.os) && needs.arch.as_ref().is_none_or(|a| *a == facts.arch));
    assert!(needs.role.is_none() || needs.role == facts.role);
    assert!(needs.image.is_none() || needs.image == facts.image);
    assert!(needs.instance_type.is_none() || needs.instance_type == facts.instance_type);
    assert!(needs.solution.as_ref().is_none_or(|asked| *asked == instance.solution));
    assert!(facts.container || !needs.container);
    assert_eq!(
        placed.limit_ms.is_none(),
        profile.service || (profile.longest_run_ms.is_none() && !before.solutions.contains_key(&instance.solution))
    );
    assert!(profile.longest_run_ms.is_none() || placed.limit_ms == profile.longest_run_ms, "{placed:?}");
}

/// What is there already and what comes, together, within what the instance offers.
fn has_room(record: &Record, instance: &Instance, placed: &[&Assignment]) {
    let (before, facts, policy) = (&record.before, &instance.facts, &record.policy);
    let there = before.attempts_on(&instance.id).map(|a| a.key.item);
    let needs: Vec<_> = there.chain(placed.iter().map(|p| p.item)).map(|item| &profile(before, item).needs).collect();
    let slots_max = before.solutions.get(&instance.solution).and_then(|s| s.dedicated()).and_then(|d| d.slots_max);
    let slots = slots_max.map_or(facts.slots, |most| most.min(facts.slots));
    let is_ahead = |p: &&&Assignment| matches!(p.choice, Choice::Ahead { .. });
    let ahead = placed.iter().any(|p| is_ahead(&p));
    let times = if ahead { 1 + CREDIT_PER_SLOT_MAX } else { 1 };
    let taken: u32 = needs.iter().map(|n| n.slots).sum();
    assert!(taken <= slots * times, "{taken} slots taken of {slots} of {}", instance.id);
    if let Some(most) = policy.tasks_per_instance_max {
        assert!(needs.len() <= (most * times) as usize, "{} tasks on {}, at most {most}", needs.len(), instance.id);
    }
    // Whatever runs at a time fits, in whatever order what waits there starts.
    let mut memory_mb: Vec<u32> = needs.iter().map(|n| n.memory_mb).collect();
    memory_mb.sort_unstable_by(|a, b| b.cmp(a));
    assert!(memory_mb.iter().take(slots as usize).sum::<u32>() <= facts.memory_mb, "memory of {}", instance.id);
    assert!(needs.iter().map(|n| n.storage_mb).sum::<u32>() <= facts.storage_mb, "storage of {}", instance.id);
    for name in needs.iter().flat_map(|n| n.resources.keys()) {
        let asked: u64 = needs.iter().filter_map(|n| n.resources.get(name)).sum();
        assert!(asked <= facts.resources[name], "{name} of {}", instance.id);
    }
    let exclusive = needs.iter().any(|n| n.cpu == CpuSetting::Exclusive);
    assert!(!exclusive || needs.len() == 1, "exclusive, but not alone on {}", instance.id);
    let reserved: u32 = needs.iter().map(|n| n.cpu.reserved_percent()).sum();
    let percent: Vec<u32> = placed.iter().map(|p| profile(before, p.item).needs.cpu.reserved_percent()).collect();
    if percent.iter().any(|p| (1..100).contains(p)) {
        assert!(reserved <= 100, "{reserved} % of CPU set aside on {}", instance.id);
        let most = percent.iter().filter(|p| **p < 100).max().unwrap();
        assert!(before.live(&instance.id).cpu_percent.min(100) + most <= 100, "CPU measured on {}", instance.id);
    }
    if let Some(ceiling) = policy.cpu_ceiling_percent {
        // What was placed last found all the others there.
        let last = placed.iter().rev().find(|p| !is_ahead(p));
        let before_last = last.map_or(0, |p| reserved - profile(before, p.item).needs.cpu.reserved_percent());
        let used = before.live(&instance.id).cpu_percent.max(before_last);
        assert!(used < ceiling, "{used} % of CPU in use on {}, at most {ceiling}", instance.id);
    }
}

/// A session never holds more instances than the policy allows.
fn within_session_limit(record: &Record) {
    let Some(most) = record.policy.instances_per_session_max else { return };
    for hold in &record.plan.holds {
        let new = record.plan.holds.iter().filter(|other| other.session == hold.session).count();
        let all = record.before.sessions[&hold.session].holds.len() + new;
        assert!(all <= most as usize, "{} holds {all} instances, at most {most}", hold.session);
    }
}

/// What goes before its turn where room is reserved until a time is stopped by then at the latest.
fn backfilled_ends_in_time(record: &Record) {
    for placed in &record.plan.assignments {
        if let Choice::Backfilled { before: Some(at), .. } = placed.choice {
            let ends = placed.limit_ms.map(|ms| record.at.after_ms(ms));
            assert!(ends.is_some_and(|ends| ends <= at), "{placed:?}");
        }
    }
}

/// Whatever happened: what has an instance to itself has it to itself.
pub(crate) fn one_exclusive_owner(snapshot: &Snapshot) {
    for id in snapshot.instances.keys() {
        let there: Vec<_> = snapshot.attempts_on(id).map(|a| a.key.item).collect();
        let exclusive =
            there.iter().filter(|item| profile(snapshot, **item).needs.cpu == CpuSetting::Exclusive).count();
        assert!(exclusive == 0 || there.len() == 1, "{exclusive} of {} on {id} want it alone", there.len());
    }
}

/// A session holds an instance before it uses it.
fn held_before_assigned(record: &Record) {
    let mut held = record.before.instances.clone();
    for event in record.plan.clone().into_events(&record.before, record.turn, record.at) {
        match event {
            Event::InstanceHeld { instance, session } => {
                assert!(held.get_mut(&instance).unwrap().held_by.insert(session), "held twice");
            }
            Event::Assigned { attempt } => {
                assert_eq!(attempt.generation, record.turn);
                if let Place::Instance(id) = &attempt.place {
                    assert!(held[id].held_by.contains(&attempt.key.item.session()), "{attempt:?} without a hold");
                    assert_eq!(attempt.boot, held[id].boot);
                }
            }
            _ => {}
        }
    }
}

/// All ready items of a `together` set are in one plan, or none is.
pub(crate) fn together(record: &Record) {
    for session in record.before.sessions.values() {
        for set in &session.spec.thread.together {
            let nodes = || set.iter().map(|at| (*at, &session.nodes[*at as usize]));
            let due = |node: &skein_domain::Node| node.retry.iter().filter(|(at, _)| *at <= record.at).count();
            let ready: usize = nodes().map(|(_, n)| n.untouched() as usize + due(n)).sum();
            let mine = |a: &&Assignment| a.item.session() == session.id && set.contains(&a.item.node.node);
            let placed = record.plan.assignments.iter().filter(mine).count();
            assert!(placed == 0 || placed == ready, "{placed} of {ready} of a set that starts together");
            let started = nodes().filter(|(_, n)| n.next > 0).count();
            assert!(started == 0 || started == set.len(), "a set started in part");
        }
    }
}

/// Items explained each turn: each costs a pass.
const EXPLAINED_MAX: usize = 6;

/// Placed by the plan <-> `Placeable`, there and for that reason; not placed <-> `Waiting`.
pub(crate) fn explanations(record: &Record) {
    record.plan.assignments.iter().for_each(cheaper_is_cheaper);
    let placed: BTreeMap<ItemKey, &Assignment> = record.plan.assignments.iter().map(|a| (a.item, a)).collect();
    let mut items: Vec<ItemKey> = Vec::new();
    for session in record.before.sessions.values() {
        for (node, at) in session.nodes.iter().zip(0..) {
            items.extend((0..node.count).map(|index| key(session.id, at, index)));
        }
    }
    Random::new(record.turn).shuffle(&mut items);
    for item in items.into_iter().take(EXPLAINED_MAX) {
        let node = record.before.node(item.node).unwrap();
        match (node.open.get(&item.index), explain(&record.before, &record.policy, item, record.at)) {
            (None, None) if item.index < node.next => {}
            (Some(ItemState::Assigned { attempt, .. }), Some(Explanation::Placed { attempt: a, .. })) => {
                assert_eq!(a, *attempt);
            }
            (_, Some(Explanation::Placeable { place, choice, .. })) => {
                let planned = placed.get(&item).unwrap_or_else(|| panic!("{item} is not placed"));
                assert_eq!((&planned.place, &planned.choice), (&place, &choice));
            }
            (_, Some(Explanation::Waiting { reason, .. })) => {
                assert!(!placed.contains_key(&item), "{item} is placed, but said to wait: {reason}");
            }
            (state, explained) => panic!("{item} is {state:?}, explained as {explained:?}"),
        }
    }
}

fn cheaper_is_cheaper(placed: &Assignment) {
    if let Choice::Cheaper { here, there } = &placed.choice {
        assert!(here <= there && *here == placed.cost, "{placed:?}");
    }
    if let Choice::Overflow { here, .. } = &placed.choice {
        assert_eq!(*here, placed.cost, "{placed:?}");
    }
}
