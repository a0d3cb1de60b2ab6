//! Which machines are wanted, and which may go.
//!
//! Deconfliction [0060]: what may go is marked first (`draining`, a turn of its own), and ended only by a
//! later pass that finds nothing on it. How many are wanted is counted from what waits for nothing but
//! room; how fast and where by cost is not decided here yet.

use super::index::Class;
use super::place::{slots, slots_of, suits_within};
use super::plan::{NewMachine, Pass, Plan};
use super::reason::{MachinesAre, Reason};
use super::snapshot::Snapshot;
use crate::id::{InstanceId, SolutionId};
use crate::instance::{Instance, InstanceState};
use crate::needs::CpuSetting;
use crate::quantity::Timestamp;
use crate::solution::Machines;

/// Machines wanted by one pass.
const WANTED_PER_PASS_MAX: u32 = 64;

/// What goes and what is wanted, into the plan.
pub(super) fn scale(pass: &mut Pass<'_>) {
    let snapshot = pass.overlay.snapshot;
    end(pass);
    for (id, solution) in &snapshot.solutions {
        if let Some(machines) = solution.dedicated().and_then(|d| d.machines.as_ref()) {
            end_what_never_came(pass, id, machines);
            want(pass, id, machines);
        }
    }
    drain_free(pass);
    forget(pass);
    tell(pass);
}

/// Draining machines with nothing on them are ended. Holds of sessions that run nothing there end first.
fn end(pass: &mut Pass<'_>) {
    let snapshot = pass.overlay.snapshot;
    for id in &snapshot.index.draining {
        let Some(instance) = snapshot.instances.get(id) else { continue };
        if may_end(snapshot, pass.overlay.policy, instance).is_ok() {
            pass.plan.ended.push((id.clone(), "it was drained, and nothing is on it".to_owned()));
        }
    }
}

/// May the cloud be asked to end this machine? Asked by the planner, and again by the engine's core in the
/// turn that writes it down.
pub fn may_end(snapshot: &Snapshot, policy: &super::Policy, instance: &Instance) -> Result<(), &'static str> {
    let attempts = snapshot.load_of(&instance.id).attempts;
    match instance.state {
        _ if instance.machine.is_none() => Err("people end it, not the engine"),
        _ if policy.do_not_terminate.contains(&instance.id) => Err("it is on the do-not-terminate list"),
        _ if attempts > 0 => Err("attempts are on it"),
        _ if !instance.held_by.is_empty() => Err("a session holds it"),
        InstanceState::Ready => Err("it takes work"),
        InstanceState::Ending | InstanceState::Gone => Err("it is ended already"),
        _ => Ok(()),
    }
}

fn end_what_never_came(pass: &mut Pass<'_>, solution: &SolutionId, machines: &Machines) {
    let snapshot = pass.overlay.snapshot;
    for id in snapshot.machines_in(solution, InstanceState::Wanted..=InstanceState::Booting) {
        let Some(instance) = snapshot.instances.get(id) else { continue };
        // Its name says when it was wanted; each state has the whole time, so that a slow cloud is no fault.
        let due = instance.since.after_ms(machines.boot_ms);
        if due > pass.now {
            pass.plan.wake_at(due);
        } else if may_end(snapshot, pass.overlay.policy, instance).is_ok() {
            let why = format!("its agent did not say hello within {} s", machines.boot_ms / 1000);
            pass.plan.ended.push((id.clone(), why));
        }
    }
}

fn alive(snapshot: &Snapshot, solution: &SolutionId) -> u32 {
    count(snapshot.machines_in(solution, InstanceState::Wanted..=InstanceState::Ending))
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

fn want(pass: &mut Pass<'_>, solution: &SolutionId, machines: &Machines) {
    let snapshot = pass.overlay.snapshot;
    if let Some(until) = snapshot.avoided.get(solution).filter(|(until, _)| *until > pass.now) {
        return pass.plan.wake_at(until.0);
    }
    let alive = alive(snapshot, solution);
    let serving = count(snapshot.machines_in(solution, InstanceState::Wanted..=InstanceState::Ready));
    let coming = count(snapshot.machines_in(solution, InstanceState::Wanted..=InstanceState::Booting));
    let for_minimum = machines.min.saturating_sub(serving);
    let for_work = asked_for(pass, solution, machines).saturating_sub(coming);
    let room = machines.max.saturating_sub(alive).min(WANTED_PER_PASS_MAX);
    for ordinal in 0..for_work.max(for_minimum).min(room) {
        let why = if ordinal < for_minimum { "the solution's minimum" } else { "items wait for room" };
        pass.plan.wanted.push(NewMachine {
            solution: solution.clone(),
            facts: machines.facts.clone(),
            why: why.to_owned(),
        });
    }
}

/// Machines that would hold what waits for nothing but room.
fn asked_for(pass: &Pass<'_>, solution: &SolutionId, machines: &Machines) -> u32 {
    let overlay = &pass.overlay;
    let slots = slots(overlay.snapshot, solution, &machines.facts, overlay.policy).max(1);
    let for_us = slots_of(overlay.snapshot, solution, &machines.facts);
    let (mut shared, mut alone) = (0_u32, 0_u32);
    for waiting in pass.plan.waiting.iter().filter(|w| is_for_room(&w.reason)) {
        let Some(node) = overlay.snapshot.node(waiting.node) else { continue };
        if suits_within(overlay.snapshot, solution, &machines.facts, &node.profile).is_err() {
            continue;
        }
        let Some(session) = overlay.snapshot.sessions.get(&waiting.node.session) else { continue };
        let items = if waiting.of_class {
            pass.left_of(&Class { user: session.spec.user.clone(), profile: node.profile.clone() })
        } else {
            pass.left(waiting.node)
        };
        // As many slots as it takes from what fits beside it: of 10 slots, three items of 3 take all.
        let at_a_time = slots.min(for_us / node.profile.needs.slots.max(1)).max(1);
        if node.profile.needs.cpu == CpuSetting::Exclusive {
            alone = alone.saturating_add(items);
        } else {
            shared = shared.saturating_add(items.saturating_mul(slots).div_ceil(at_a_time));
        }
    }
    alone.saturating_add(shared.div_ceil(slots))
}

fn is_for_room(reason: &Reason) -> bool {
    match reason {
        Reason::NoInstance { because, .. } => !matches!(**because, Reason::Reserved { .. }),
        Reason::NoneConfigured { what } => &**what == "instance",
        Reason::WaitsForCheaper { because, .. } | Reason::TogetherLacks { because, .. } => is_for_room(because),
        _ => false,
    }
}

/// Free machines beyond the minimum that no session has held for long are marked as going, unless
/// something waits for room in their solution.
fn drain_free(pass: &mut Pass<'_>) {
    let snapshot = pass.overlay.snapshot;
    let mut going = std::collections::BTreeMap::<&SolutionId, u32>::new();
    for (since, id) in &snapshot.index.free_machines {
        let Some(instance) = snapshot.instances.get(id) else { continue };
        let solution = snapshot.solutions.get(&instance.solution);
        // One whose solution is configured no more has no minimum either.
        let machines = solution.and_then(|s| s.dedicated()).and_then(|d| d.machines.as_ref());
        let (min, idle_ms) = machines.map_or((0, 0), |m| (m.min, m.idle_ms));
        let due = since.after_ms(idle_ms);
        let taken = pass.plan.holds.iter().any(|hold| hold.instance == *id);
        let protected = pass.overlay.policy.do_not_terminate.contains(id);
        if taken || protected || pass.plan.wanted.iter().any(|w| w.solution == instance.solution) {
            continue;
        }
        let gone = going.entry(&instance.solution).or_default();
        let serving = count(snapshot.machines_in(&instance.solution, InstanceState::Wanted..=InstanceState::Ready));
        if serving.saturating_sub(*gone) <= min {
            continue;
        }
        if due > pass.now {
            pass.plan.wake_at(due);
            continue;
        }
        *gone += 1;
        pass.plan.drained.push((id.clone(), format!("free for {} s", idle_ms / 1000)));
    }
}

/// What has been gone for long is no longer listed.
fn forget(pass: &mut Pass<'_>) {
    for (since, id) in &pass.overlay.snapshot.index.gone {
        let due: Timestamp = since.after_ms(pass.overlay.policy.forget_gone_ms);
        if due > pass.now {
            return pass.plan.wake_at(due);
        }
        pass.plan.forgotten.push(id.clone());
    }
}

/// What waits for room hears how it stands with the machines that would be it.
fn tell(pass: &mut Pass<'_>) {
    let snapshot = pass.overlay.snapshot;
    let mut waiting = std::mem::take(&mut pass.plan.waiting);
    for entry in waiting.iter_mut().filter(|w| is_for_room(&w.reason)) {
        let Some(node) = snapshot.node(entry.node) else { continue };
        let suits = |(id, solution): (_, &crate::solution::Solution)| {
            let machines = solution.dedicated()?.machines.as_ref()?;
            suits_within(snapshot, id, &machines.facts, &node.profile).ok().map(|()| (id.clone(), machines.max))
        };
        let Some((solution, max)) = snapshot.solutions.iter().find_map(suits) else { continue };
        let coming = count(snapshot.machines_in(&solution, InstanceState::Wanted..=InstanceState::Booting))
            + count(pass.plan.wanted.iter().filter(|w| w.solution == solution));
        let avoided = snapshot.avoided.get(&solution).filter(|(until, _)| *until > pass.now);
        let machines = match avoided {
            _ if coming > 0 => MachinesAre::Coming(coming),
            Some((_, why)) => MachinesAre::NotMade(why.clone()),
            None => MachinesAre::AtMost(max),
        };
        let because = Box::new(std::mem::replace(&mut entry.reason, Reason::PlanFull));
        entry.reason = Reason::Machine { solution, machines, because };
    }
    pass.plan.waiting = waiting;
}

impl Plan {
    /// Names of the machines that it wants: made of the turn, so that no two are ever alike.
    pub(super) fn name(solution: &SolutionId, turn: u64, ordinal: usize) -> Option<InstanceId> {
        InstanceId::new(&format!("{solution}-{turn}-{ordinal}")).ok()
    }
}
