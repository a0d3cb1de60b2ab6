//! One class of items, followed: its family of rules, its late budget, its shared solution.

use std::collections::BTreeMap;

use super::super::capacity::{Capacity, DEDICATED, Family, Rule, Settings};
use super::super::guard::{MachineFacts, SharedFacts, break_even_ppm};
use super::super::offers::{self, Lengths};
use super::super::patience::{LateBudget, PPM, patience};
use super::super::policy::{CapacityRule, Policy};
use super::super::snapshot::Snapshot;
use super::facts::{self, Offer};
use super::{CapacityPlan, WantedMachines};
use crate::id::{ItemKey, SolutionId};
use crate::quantity::Timestamp;
use crate::task::{Profile, RunningMode};

/// What is known of a class beside its family.
pub(super) struct Followed {
    machines: Vec<Offer>,
    shared: Vec<(SolutionId, SharedFacts)>,
    /// Of these, the one that is called.
    called: usize,
    /// None where no machine is made for the class: only its patience is followed then.
    family: Option<Family<ItemKey>>,
    budget: LateBudget,
    open: usize,
    ended: u64,
    lasted_us: u64,
    wait_us: u64,
    last_call: Option<Timestamp>,
    last_seen: Timestamp,
    looked: bool,
    wants: bool,
}

impl Followed {
    /// None when not both kinds of place could take the class.
    pub(super) fn new(
        snapshot: &Snapshot,
        policy: &Policy,
        class: &Profile,
        boots: &BTreeMap<SolutionId, u64>,
    ) -> Option<Self> {
        if matches!(class.mode, RunningMode::Dedicated | RunningMode::Serverless) || class.function_only {
            return None;
        }
        let machines = facts::machines(snapshot, policy, class, boots);
        let shared = facts::shared(snapshot, class);
        let budget = LateBudget::new(policy.capacity.late_budget_ppm);
        let mut followed = Self {
            machines,
            called: 0,
            shared,
            family: None,
            budget,
            open: 0,
            ended: 0,
            lasted_us: 0,
            wait_us: 0,
            last_call: None,
            last_seen: Timestamp::default(),
            looked: false,
            wants: false,
        };
        followed.choose_shared(class);
        let (_, called) = followed.shared.get(followed.called)?;
        if !followed.machines.is_empty() {
            let settings = followed.settings(policy);
            let machines: Vec<MachineFacts> = followed.machines.iter().map(|offer| offer.facts.clone()).collect();
            followed.family = Some(Family::new(settings, &machines, called.clone()));
        }
        followed.wait_us = followed.patience_us(class);
        Some(followed)
    }

    /// The plain comparison of prices [0065] is a rule that is followed whatever it costs.
    fn settings(&self, policy: &Policy) -> Settings {
        let settings = policy.capacity.family.clone();
        let fixed = match policy.capacity.rule {
            CapacityRule::LeastCost => settings.fixed,
            CapacityRule::Price => {
                let per_hour = self.shared.get(self.called).map(|(_, s)| s.price_per_hour).unwrap_or_default();
                let cheaper = self.machines.iter().any(|offer| break_even_ppm(&offer.facts, per_hour) < PPM);
                Some(if cheaper { DEDICATED } else { Rule::None })
            }
        };
        Settings { fixed, ..settings }
    }

    fn choose_shared(&mut self, class: &Profile) {
        let stated_us = class.expected_run_ms.map(|ms| ms * 1_000);
        let typical_us = self.lasted_us.checked_div(self.ended).or(stated_us).unwrap_or(ASSUMED_US).max(1);
        // What suits the class at all was asked before: here one is only ranked against the others.
        let longest_us = Some(class.longest_run_ms.map_or(0, |ms| ms * 1_000));
        let lengths = Lengths { typical_us, longest_us, allowed_wait_us: class.allowed_wait_ms * 1_000 };
        let all: Vec<SharedFacts> = self.shared.iter().map(|(_, facts)| facts.clone()).collect();
        self.called = offers::shared(&all, &lengths).best().unwrap_or(0);
        if let (Some(family), Some((_, facts))) = (&mut self.family, self.shared.get(self.called)) {
            family.call(facts.clone());
        }
    }

    fn patience_us(&self, class: &Profile) -> u64 {
        let Some((_, facts)) = self.shared.get(self.called) else { return 0 };
        patience(class.allowed_wait_ms * 1_000, &facts.cold, &self.budget).wait_us
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn never_looked(&self) -> bool {
        !self.looked
    }

    /// Nothing is open and nothing wanted, for so long.
    pub(super) fn is_over(&self, now: Timestamp, after_us: i64) -> bool {
        self.open == 0 && !self.wants && now.0 - self.last_seen.0 > after_us
    }

    pub(super) fn arrived(&mut self, item: ItemKey, now: Timestamp) {
        self.open += 1;
        self.last_seen = now;
        self.budget.item();
        if let Some(family) = &mut self.family {
            family.arrived(item, self.wait_us, now);
        }
    }

    fn is_cold(&self, now: Timestamp) -> bool {
        let keepalive_us = self.shared.get(self.called).map_or(0, |(_, s)| s.keepalive_us);
        self.last_call.is_none_or(|last| now.us_since(last) > keepalive_us)
    }

    pub(super) fn assigned(&mut self, waited_us: u64, in_gateway: bool, allowed_ms: u64, now: Timestamp) {
        let left_us = allowed_ms.saturating_mul(1_000).checked_sub(waited_us);
        let Some(left_us) = left_us else { return self.budget.was_late() };
        if in_gateway && self.is_cold(now) {
            let late_ppm = self.shared.get(self.called).map_or(0, |(_, s)| s.cold.longer_than(left_us));
            self.budget.overflowed_cold(late_ppm, waited_us >= PATIENT_US);
        }
    }

    pub(super) fn ended(&mut self, item: ItemKey, lasted_us: u64, in_gateway: bool, now: Timestamp) {
        let cold = self.is_cold(now);
        self.open = self.open.saturating_sub(1);
        self.ended += 1;
        self.lasted_us = self.lasted_us.saturating_add(lasted_us);
        if let Some(family) = &mut self.family {
            family.ended(item, lasted_us, cold, now);
        }
        if in_gateway {
            self.last_call = Some(now);
        }
        self.last_seen = now;
    }

    pub(super) fn left(&mut self, item: ItemKey, now: Timestamp) {
        self.open = self.open.saturating_sub(1);
        if let Some(family) = &mut self.family {
            family.left(item, now);
        }
    }

    /// What is wanted now.
    pub(super) fn look(&mut self, snapshot: &Snapshot, class: &Profile, now: Timestamp) -> Option<CapacityPlan> {
        self.looked = true;
        self.choose_shared(class);
        let (shared, facts) = self.shared.get(self.called)?;
        let waits = patience(class.allowed_wait_ms * 1_000, &facts.cold, &self.budget);
        self.wait_us = waits.wait_us;
        let (machines, why) = match &mut self.family {
            None => (Vec::new(), waits.to_string()),
            Some(family) => {
                let capacity = family.tick(now);
                let beyond = family.running().saturating_sub(facts.concurrency);
                let most: Vec<u32> = self.machines.iter().map(|offer| offer.most(snapshot, now)).collect();
                (targets(&self.machines, &capacity, beyond, &most), format!("{capacity}; {waits}"))
            }
        };
        self.wants = machines.iter().any(|wanted| wanted.machines > 0);
        // To a tenth of a second: a plan is written down whenever it differs.
        let wait_ms = waits.wait_us / 100_000 * 100;
        Some(CapacityPlan { machines, shared: shared.clone(), wait_ms, why })
    }
}

/// Machines by solution; `beyond` items find no room in the shared solution, whatever it costs. What is not wanted
/// is named too, so that what was wanted before is given up.
///
/// What the chosen size may not have (`most`: its limit, or its cloud is left in peace) is asked of the others, the
/// cheapest on paper first, and of none more than the same rule would have there.
fn targets(machines: &[Offer], capacity: &Capacity, beyond: u32, most: &[u32]) -> Vec<WantedMachines> {
    let chosen = &capacity.chosen;
    let slots = |at: usize| machines.get(at).map_or(1, |offer| offer.facts.slots.max(1));
    let least = |at: usize| beyond.div_ceil(slots(at));
    let mut wanted = vec![0; machines.len()];
    let mut left = u64::from(chosen.target.max(least(chosen.machine))) * u64::from(slots(chosen.machine));
    let mut ask = |at: usize, target: u32| {
        let (Some(wanted), Some(most)) = (wanted.get_mut(at), most.get(at)) else { return };
        let for_left = u32::try_from(left.div_ceil(slots(at).into())).unwrap_or(u32::MAX);
        let more = for_left.min(target.min(*most).saturating_sub(*wanted));
        *wanted += more;
        left = left.saturating_sub(u64::from(more) * u64::from(slots(at)));
    };
    ask(chosen.machine, chosen.target.max(least(chosen.machine)));
    let alike = capacity.alternatives.iter().filter(|a| a.rule == chosen.rule && a.machine != chosen.machine);
    for other in alike {
        ask(other.machine, other.target);
    }
    // What finds no room elsewhere, where a slot costs least: a rule that wants no machines names none.
    let mut by_price: Vec<usize> = (0..machines.len()).collect();
    by_price.sort_by_key(|at| machines[*at].facts.price_per_hour.0 / i64::from(slots(*at)));
    for at in by_price {
        ask(at, least(at));
    }
    let target = |(offer, machines): (&Offer, u32)| WantedMachines {
        solution: offer.solution.clone(),
        instance_type: offer.instance_type.clone(),
        machines,
    };
    machines.iter().zip(wanted).map(target).collect()
}

/// How long an item lasts before any was seen, us.
const ASSUMED_US: u64 = 60_000_000;
/// Who waited less than this did not wait: a pass takes that long, us.
const PATIENT_US: u64 = 100_000;
