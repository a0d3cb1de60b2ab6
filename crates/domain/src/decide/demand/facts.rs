//! Machines and shared solutions in the terms of [`super::super::guard`], for items of one class.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::guard::{MachineFacts, SharedFacts};
use super::super::patience::DelayTable;
use super::super::place::{slots, suits_gateway, suits_within};
use super::super::policy::Policy;
use super::super::snapshot::Snapshot;
use crate::id::SolutionId;
use crate::instance::{InstanceFacts, InstanceState};
use crate::needs::CpuSetting;
use crate::quantity::{NanoUsd, Timestamp};
use crate::solution::Shared;
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
    // The limit of tasks counts tasks, whatever slots they take.
    let by_slots = facts.slots / profile.needs.slots.max(1);
    slots.min(by_slots).min(by_cpu).min(by_memory).max(1)
}

/// A size of machine that could take a profile.
pub(super) struct Offer {
    pub(super) solution: SolutionId,
    pub(super) instance_type: Option<Arc<str>>,
    pub(super) facts: MachineFacts,
}

impl Offer {
    /// Most machines of it that may be had now: what the solution's limit allows; of a cloud that is left in peace,
    /// those that are there.
    pub(super) fn most(&self, snapshot: &Snapshot, now: Timestamp) -> u32 {
        let avoided = snapshot.avoided.get(&self.solution).is_some_and(|(until, _)| *until > now);
        if !avoided {
            return snapshot.solutions.get(&self.solution).and_then(|s| s.machines()).map_or(0, |m| m.max);
        }
        let there = snapshot.machines_in(&self.solution, InstanceState::Wanted..=InstanceState::Ready);
        let alike =
            there.filter(|id| snapshot.instances.get(id).is_some_and(|i| i.facts.instance_type == self.instance_type));
        u32::try_from(alike.count()).unwrap_or(u32::MAX)
    }
}

/// The sizes of machines that could take the profile.
pub(super) fn machines(
    snapshot: &Snapshot,
    policy: &Policy,
    profile: &Profile,
    boots: &BTreeMap<SolutionId, u64>,
) -> Vec<Offer> {
    let made = snapshot.solutions.iter().filter_map(|(id, s)| {
        let dedicated = s.dedicated()?;
        Some((id, dedicated, dedicated.machines.as_ref()?))
    });
    let mut offers = Vec::new();
    for (id, dedicated, machines) in made.filter(|(_, _, machines)| machines.max > 0) {
        let boot_us = boots.get(id).copied().unwrap_or(machines.typical_boot_ms * 1_000);
        let min_billed_us = machines.min_billed_ms * 1_000;
        for (price_per_hour, size) in
            dedicated.sizes().filter(|(_, size)| suits_within(snapshot, id, size, profile).is_ok())
        {
            let slots = items_at_once(profile, size, slots(snapshot, id, size, policy));
            let facts = MachineFacts { slots, price_per_hour, min_billed_us, boot_us };
            offers.push(Offer { solution: id.clone(), instance_type: size.instance_type.clone(), facts });
        }
    }
    offers
}

/// The shared solutions that could take the profile.
pub(super) fn shared(snapshot: &Snapshot, profile: &Profile) -> Vec<(SolutionId, SharedFacts)> {
    let shared = snapshot.solutions.iter().filter_map(|(id, s)| Some((id, s.shared()?)));
    let suits = shared.filter(|(id, shared)| suits_gateway(id, shared, profile).is_ok());
    suits
        .map(|(id, shared)| {
            let mut facts = invocation(shared, profile);
            // What leaves is paid with each item, as a request is.
            let out = snapshot.solutions.get(id).map(|s| super::super::cost::expected_data_out(s, profile));
            facts.per_request += out.unwrap_or_default();
            (id.clone(), facts)
        })
        .collect()
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
