//! Machines and shared solutions in the terms of [`super::super::guard`], for items of one class.

use std::collections::BTreeMap;

use super::super::guard::{MachineFacts, SharedFacts};
use super::super::patience::DelayTable;
use super::super::place::{slots, suits_gateway, suits_kind};
use super::super::policy::Policy;
use super::super::snapshot::Snapshot;
use crate::id::SolutionId;
use crate::instance::InstanceFacts;
use crate::needs::CpuSetting;
use crate::quantity::NanoUsd;
use crate::solution::{Dedicated, Machines, Shared};
use crate::task::Profile;

/// us of an hour.
const HOUR_S: u64 = 3_600;

/// Items of a profile that one machine holds at a time.
pub(crate) fn items_at_once(profile: &Profile, facts: &InstanceFacts, slots: u32) -> u32 {
    let by_cpu = match profile.needs.cpu {
        CpuSetting::Exclusive => 1,
        CpuSetting::AtLeast(percent) => 100 / u32::from(percent.max(1)),
        CpuSetting::Algorithm => u32::MAX,
    };
    let by_memory = facts.memory_mb.checked_div(profile.needs.memory_mb).unwrap_or(u32::MAX);
    slots.min(by_cpu).min(by_memory).max(1)
}

/// The solutions whose machines could take the profile.
pub(super) fn machines(
    snapshot: &Snapshot,
    policy: &Policy,
    profile: &Profile,
    boots: &BTreeMap<SolutionId, u64>,
) -> Vec<(SolutionId, MachineFacts)> {
    let made = snapshot.solutions.iter().filter_map(|(id, s)| {
        let dedicated = s.dedicated()?;
        Some((id, dedicated, dedicated.machines.as_ref()?))
    });
    let suits = made.filter(|(id, _, machines)| machines.max > 0 && suits_kind(id, &machines.facts, profile).is_ok());
    suits
        .map(|(id, dedicated, machines)| {
            let boot_us = boots.get(id).copied().unwrap_or(machines.typical_boot_ms * 1_000);
            (id.clone(), machine(snapshot, policy, profile, (id, dedicated, machines), boot_us))
        })
        .collect()
}

fn machine(
    snapshot: &Snapshot,
    policy: &Policy,
    profile: &Profile,
    (id, dedicated, machines): (&SolutionId, &Dedicated, &Machines),
    boot_us: u64,
) -> MachineFacts {
    let slots = slots(snapshot, id, &machines.facts, policy);
    MachineFacts {
        slots: items_at_once(profile, &machines.facts, slots),
        price_per_hour: dedicated.price_per_hour,
        min_billed_us: machines.min_billed_ms * 1_000,
        boot_us,
    }
}

/// The shared solutions that could take the profile.
pub(super) fn shared(snapshot: &Snapshot, profile: &Profile) -> Vec<(SolutionId, SharedFacts)> {
    let shared = snapshot.solutions.iter().filter_map(|(id, s)| Some((id, s.shared()?)));
    let suits = shared.filter(|(id, shared)| suits_gateway(id, shared, profile).is_ok());
    suits.map(|(id, shared)| (id.clone(), invocation(shared, profile))).collect()
}

fn invocation(shared: &Shared, profile: &Profile) -> SharedFacts {
    let memory_s = HOUR_S.saturating_mul(u64::from(profile.needs.memory_mb));
    SharedFacts {
        price_per_hour: NanoUsd::charge(shared.price.per_gb_s, memory_s, 1_024),
        per_request: shared.price.per_request,
        granularity_us: shared.price.granularity_ms * 1_000,
        min_billed_us: shared.price.min_billed_ms * 1_000,
        timeout_us: shared.timeout_ms * 1_000,
        keepalive_us: shared.keepalive_ms * 1_000,
        bills_cold: shared.price.bills_cold,
        concurrency: shared.concurrency,
        cold: DelayTable::of_p99(shared.cold_start_ms * 1_000),
    }
}
