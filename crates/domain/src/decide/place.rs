//! Predicates: does this item fit that place, and if not, why? Shared by `decide` and `explain`, so
//! that both always say the same.

use std::sync::Arc;

use super::index::Load;
use super::policy::Policy;
use super::reason::Reason;
use super::snapshot::Snapshot;
use crate::instance::{Instance, InstanceState, Live};
use crate::needs::{CpuSetting, Needs};
use crate::solution::Shared;
use crate::task::{Profile, RunningMode};

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
    mode_allows_instances(profile)?;
    let (needs, facts) = (&profile.needs, &instance.facts);
    if let Some(asked) = needs.solution.as_ref().filter(|asked| **asked != instance.solution) {
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
    large_enough("MiB of memory", needs.memory_mb, facts.memory_mb)?;
    large_enough("MiB of storage", needs.storage_mb, facts.storage_mb)?;
    for (name, asked) in &needs.resources {
        let most = facts.resources.get(name).copied().unwrap_or(0);
        if *asked > most {
            return Err(Reason::TooSmall { what: name.clone(), asked: *asked, most });
        }
    }
    Ok(())
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
    if load.exclusive > 0 {
        return Err(Reason::TakenExclusively);
    }
    let (needs, facts) = (&profile.needs, &instance.facts);
    if needs.cpu == CpuSetting::Exclusive && load.attempts > 0 {
        return Err(Reason::NotEmpty { attempts: load.attempts });
    }
    if load.attempts >= slots {
        return Err(Reason::SlotsTaken { slots });
    }
    free("MiB of memory", needs.memory_mb, facts.memory_mb.saturating_sub(load.memory_mb))?;
    free("MiB of storage", needs.storage_mb, facts.storage_mb.saturating_sub(load.storage_mb))?;
    fits_cpu(live, load, needs, policy)?;
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

/// Attempts that fit on an instance at a time: what its agent offers, within the solution's and the
/// policy's limits.
pub fn slots(snapshot: &Snapshot, instance: &Instance, policy: &Policy) -> u32 {
    let solution = snapshot.solutions.get(&instance.solution).and_then(|s| s.dedicated());
    let limits = [solution.and_then(|d| d.slots_max), policy.tasks_per_instance_max];
    limits.into_iter().flatten().fold(instance.facts.slots, u32::min)
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
