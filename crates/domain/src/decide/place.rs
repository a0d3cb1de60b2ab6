//! Predicates: does this item fit that place, and if not, why? Shared by `decide` and `explain`, so
//! that both always say the same.

use std::sync::Arc;

use super::index::Load;
use super::policy::Policy;
use super::reason::Reason;
use super::snapshot::Snapshot;
use crate::id::SolutionId;
use crate::instance::{Instance, InstanceFacts, InstanceState, Live};
use crate::needs::{CpuSetting, Needs};
use crate::solution::Shared;
use crate::task::{Profile, RunningMode, URGENT};

/// Does the mode allow instances at all?
pub fn mode_allows_instances(profile: &Profile) -> Result<(), Reason> {
    match profile.mode {
        RunningMode::Serverless => Err(Reason::ModeExcludes { mode: profile.mode }),
        _ if profile.function_only => Err(Reason::FunctionNeedsGateway),
        _ => Ok(()),
    }
}

/// Could this instance ever take it, were it empty?
pub fn suits_instance(instance: &Instance, profile: &Profile) -> Result<(), Reason> {
    suits_kind(&instance.solution, &instance.facts, profile)?;
    large_enough("MiB of storage", profile.needs.storage_mb, instance.facts.storage_mb)
}

/// Could an instance of that solution that offers that ever take it? Storage is left out: it differs
/// between instances that are alike otherwise.
pub fn suits_kind(solution: &SolutionId, facts: &InstanceFacts, profile: &Profile) -> Result<(), Reason> {
    mode_allows_instances(profile)?;
    let needs = &profile.needs;
    if let Some(asked) = needs.solution.as_ref().filter(|asked| *asked != solution) {
        return Err(Reason::OtherSolution { asked: asked.clone() });
    }
    same("operating system", needs.os.as_ref(), Some(&facts.os))?;
    same("architecture", needs.arch.as_ref(), Some(&facts.arch))?;
    same("instance type", needs.instance_type.as_ref(), facts.instance_type.as_ref())?;
    same("role", needs.role.as_ref(), facts.role.as_ref())?;
    same("image", needs.image.as_ref(), facts.image.as_ref())?;
    if needs.container && !facts.container {
        return Err(differs("container engine", "yes", "none"));
    }
    large_enough("slots", needs.slots, facts.slots)?;
    large_enough("MiB of memory", needs.memory_mb, facts.memory_mb)?;
    for (name, asked) in &needs.resources {
        let most = facts.resources.get(name).copied().unwrap_or(0);
        if *asked > most {
            return Err(Reason::TooSmall { what: name.clone(), asked: *asked, most });
        }
    }
    Ok(())
}

/// As [`suits_kind`], within the slots that the solution's configuration leaves.
pub fn suits_within(
    snapshot: &Snapshot,
    solution: &SolutionId,
    facts: &InstanceFacts,
    profile: &Profile,
) -> Result<(), Reason> {
    suits_kind(solution, facts, profile)?;
    large_enough("slots", profile.needs.slots, slots_of(snapshot, solution, facts))
}

/// Could this instance take it, now or once it is empty? One that takes nothing new will not.
pub fn could_take(instance: &Instance, profile: &Profile) -> Result<(), Reason> {
    suits_instance(instance, profile)?;
    if instance.state >= InstanceState::Draining {
        return Err(Reason::NotReady { state: instance.state });
    }
    Ok(())
}

/// Can this instance, with `load` taken and `live` measured, take it now?
pub fn fits_instance(
    instance: &Instance,
    live: Live,
    load: &Load,
    slots: u32,
    profile: &Profile,
    policy: &Policy,
) -> Result<(), Reason> {
    suits_instance(instance, profile)?;
    if instance.state != InstanceState::Ready {
        return Err(Reason::NotReady { state: instance.state });
    }
    if !live.connected {
        return Err(Reason::Unreachable);
    }
    fits_beside(&instance.facts, load, slots, &profile.needs, policy)?;
    fits_cpu(live, load, &profile.needs, policy)
}

/// Does it fit beside what is set aside in `load`, whatever is measured there? `slots` is how many slots the
/// instance has for us.
pub fn fits_beside(
    facts: &InstanceFacts,
    load: &Load,
    slots: u32,
    needs: &Needs,
    policy: &Policy,
) -> Result<(), Reason> {
    if load.exclusive > 0 {
        return Err(Reason::TakenExclusively);
    }
    if needs.cpu == CpuSetting::Exclusive && load.attempts > 0 {
        return Err(Reason::NotEmpty { attempts: load.attempts });
    }
    large_enough("slots", needs.slots, slots)?;
    if load.slots >= slots {
        return Err(Reason::SlotsTaken { slots });
    }
    free("slots", needs.slots, slots - load.slots)?;
    if let Some(most) = policy.tasks_per_instance_max.filter(|most| load.attempts >= *most) {
        let what = "more tasks for one instance".into();
        return Err(Reason::NotFree { what, asked: 1, free: most.saturating_sub(load.attempts).into() });
    }
    free("MiB of memory", needs.memory_mb, facts.memory_mb.saturating_sub(load.memory_mb))?;
    free("MiB of storage", needs.storage_mb, facts.storage_mb.saturating_sub(load.storage_mb))?;
    if let CpuSetting::AtLeast(asked) = needs.cpu {
        free("% of CPU", u32::from(asked), 100 - load.cpu_percent.min(100))?;
    }
    for (name, asked) in &needs.resources {
        let taken = load.resources.get(name).copied().unwrap_or(0);
        let left = facts.resources.get(name).copied().unwrap_or(0).saturating_sub(taken);
        if *asked > left {
            return Err(Reason::NotFree { what: name.clone(), asked: *asked, free: left });
        }
    }
    Ok(())
}

/// CPU in use is the larger of what is measured and what is set aside [0068].
fn fits_cpu(live: Live, load: &Load, needs: &Needs, policy: &Policy) -> Result<(), Reason> {
    let used = live.cpu_percent.max(load.cpu_percent).min(100);
    let free_percent = 100 - used;
    if let CpuSetting::AtLeast(asked) = needs.cpu {
        free("% of CPU", u32::from(asked), free_percent)?;
    }
    if let Some(ceiling) = policy.cpu_ceiling_percent.filter(|ceiling| used >= *ceiling) {
        let what = "% of CPU below the ceiling".into();
        return Err(Reason::NotFree { what, asked: 1, free: u64::from(ceiling.saturating_sub(used)) });
    }
    Ok(())
}

/// Could this shared solution ever take it?
pub fn suits_gateway(id: &crate::id::SolutionId, shared: &Shared, profile: &Profile) -> Result<(), Reason> {
    if profile.mode == RunningMode::Dedicated {
        return Err(Reason::ModeExcludes { mode: profile.mode });
    }
    if profile.held.is_some() {
        return Err(Reason::HeldToServer);
    }
    let needs = &profile.needs;
    if let Some(asked) = needs.solution.as_ref().filter(|asked| *asked != id) {
        return Err(Reason::OtherSolution { asked: asked.clone() });
    }
    if profile.service {
        return Err(Reason::ServiceNeedsInstance);
    }
    within_time(shared.timeout_ms, profile)?;
    same("operating system", needs.os.as_ref(), Some(&Arc::from(shared.os.as_str())))?;
    same("architecture", needs.arch.as_ref(), Some(&Arc::from(shared.arch.as_str())))?;
    same("instance type", needs.instance_type.as_ref(), None)?;
    same("role", needs.role.as_ref(), None)?;
    same("image", needs.image.as_ref(), None)?;
    if needs.container {
        return Err(differs("container engine", "yes", "none"));
    }
    // An invocation runs one item and has no slots to give: whoever asks for several means an instance's.
    large_enough("slots", needs.slots, 1)?;
    large_enough("MiB of memory", needs.memory_mb, shared.memory_mb_max)?;
    match needs.resources.iter().next() {
        Some((name, asked)) => Err(Reason::TooSmall { what: name.clone(), asked: *asked, most: 0 }),
        None => Ok(()),
    }
}

/// Would the place's time limit end it early [0059]? In `auto` an unknown run time is a no; whoever
/// asks for hybrid or serverless takes the place's limit as the task's.
fn within_time(limit_ms: u64, profile: &Profile) -> Result<(), Reason> {
    match (profile.longest_run_ms, profile.expected_run_ms) {
        (Some(longest_ms), _) if longest_ms > limit_ms => Err(Reason::OverTimeLimit { longest_ms, limit_ms }),
        (None, Some(expected)) if expected > limit_ms => Err(Reason::OverTimeLimit { longest_ms: expected, limit_ms }),
        (None, None) if profile.mode == RunningMode::Auto => Err(Reason::RunTimeUnknown { limit_ms }),
        _ => Ok(()),
    }
}

/// Can this shared solution, with `open` invocations, take it now?
pub fn fits_gateway(id: &crate::id::SolutionId, shared: &Shared, open: u32, profile: &Profile) -> Result<(), Reason> {
    suits_gateway(id, shared, profile)?;
    if open >= shared.concurrency {
        return Err(Reason::ConcurrencyReached { limit: shared.concurrency });
    }
    Ok(())
}

/// Attempts of one slot that fit on an instance at a time: what its agent offers, within the solution's and
/// the policy's limits.
pub fn slots(snapshot: &Snapshot, solution: &SolutionId, facts: &InstanceFacts, policy: &Policy) -> u32 {
    let slots = slots_of(snapshot, solution, facts);
    policy.tasks_per_instance_max.map_or(slots, |most| most.min(slots))
}

/// Slots of an instance: what its agent offers, within the solution's limit. The policy's limit counts
/// attempts, whatever each takes.
pub fn slots_of(snapshot: &Snapshot, solution: &SolutionId, facts: &InstanceFacts) -> u32 {
    let solution = snapshot.solutions.get(solution).and_then(|s| s.dedicated());
    solution.and_then(|d| d.slots_max).map_or(facts.slots, |most| most.min(facts.slots))
}

/// Most items that wait at an agent for one of its slots, for each slot.
pub const CREDIT_PER_SLOT_MAX: u32 = 64;

/// Items that may wait at an agent for each of its slots, so that a slot that becomes free has its next
/// attempt at hand: as many as run within the policy's credit, and one of what takes up to twenty times
/// as long (of those, an answer's way there and back is still worth it). None before a run time is
/// known: what is sent ahead is bound to its place. Neither what sets CPU or resources aside (it is
/// placed by the load of the moment) nor what takes several slots, a service or what is urgent.
pub fn credit_per_slot(profile: &Profile, typical_run_ms: Option<u32>, policy: &Policy) -> u32 {
    let needs = &profile.needs;
    let bound = needs.cpu != CpuSetting::Algorithm || !needs.resources.is_empty() || needs.slots > 1;
    let Some(run_ms) = typical_run_ms.filter(|_| !bound && !profile.service && profile.rank.1 < URGENT) else {
        return 0;
    };
    if run_ms > policy.credit_ms.saturating_mul(20) {
        return 0;
    }
    (policy.credit_ms / run_ms.max(1)).clamp(1, CREDIT_PER_SLOT_MAX)
}

/// May an item wait on this instance for one of its `slots`? Whatever `slots` of the attempts there run
/// at a time, they fit into its memory.
pub fn may_wait_on(instance: &Instance, load: &Load, slots: u32, waiting_max: u32, profile: &Profile) -> bool {
    let most = load.memory_mb_most().max(profile.needs.memory_mb);
    // A limit below what the agent would start by itself cannot be kept by an agent that holds more.
    slots == instance.facts.slots
        && load.exclusive == 0
        && load.slots >= slots
        && load.slots < slots.saturating_add(waiting_max)
        && u64::from(most) * u64::from(slots) <= u64::from(instance.facts.memory_mb)
        && load.storage_mb.saturating_add(profile.needs.storage_mb) <= instance.facts.storage_mb
}

fn same(what: &str, asked: Option<&Arc<str>>, found: Option<&Arc<str>>) -> Result<(), Reason> {
    match asked {
        Some(asked) if found != Some(asked) => Err(differs(what, asked, found.map_or("none", |f| f))),
        _ => Ok(()),
    }
}

fn differs(what: &str, asked: &str, found: &str) -> Reason {
    Reason::Differs { what: what.into(), asked: asked.into(), found: found.into() }
}

fn large_enough(what: &str, asked: u32, most: u32) -> Result<(), Reason> {
    if asked > most {
        return Err(Reason::TooSmall { what: what.into(), asked: asked.into(), most: most.into() });
    }
    Ok(())
}

fn free(what: &str, asked: u32, free: u32) -> Result<(), Reason> {
    if asked > free {
        return Err(Reason::NotFree { what: what.into(), asked: asked.into(), free: free.into() });
    }
    Ok(())
}
