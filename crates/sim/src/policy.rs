//! The engine's own policy in a world: it does what the functions of `skein_domain::decide` say, and nothing
//! by itself.

use skein_domain::NanoUsd;
use skein_domain::Timestamp;
use skein_domain::decide::capacity::{self, Capacity, DEDICATED, Family, Settings};
use skein_domain::decide::guard::{MachineFacts, SharedFacts, break_even_ppm};
use skein_domain::decide::offers::{self, Lengths, Offer, Out};
use skein_domain::decide::patience::{DelayTable, LATE_BUDGET_PPM, LateBudget, PPM, patience};
use skein_domain::decide::policy::{CapacityPolicy, CapacityRule};

use crate::quantiles::whole;
use crate::rule::Rule;
use crate::scenario::{MachineOffer, SharedOffer};
use crate::world::World;

/// All defaults of the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// Of capacity.
    pub capacity: Settings,
    /// Share of items that may be late, ppm.
    pub late_budget_ppm: u32,
    /// What decides between machines and shared solutions.
    pub rule: CapacityRule,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { capacity: Settings::default(), late_budget_ppm: LATE_BUDGET_PPM, rule: CapacityRule::default() }
    }
}

impl From<&CapacityPolicy> for Defaults {
    fn from(policy: &CapacityPolicy) -> Self {
        let CapacityPolicy { rule, family, late_budget_ppm } = policy;
        Self { capacity: family.clone(), late_budget_ppm: *late_budget_ppm, rule: *rule }
    }
}

/// The engine's policy.
pub struct Engine {
    defaults: Defaults,
    family: Option<Family<u32>>,
    budget: LateBudget,
    cold: DelayTable,
    /// Shared solutions, and the one that is called.
    offers: Vec<SharedFacts>,
    shared: usize,
    /// There is one that takes these items in time.
    calls: bool,
    /// Of the items so far: how many ended, how long they lasted; how long one may last at most, us.
    ended: u64,
    lasted_us: u64,
    longest_us: u64,
    /// Of the last invocation that was asked for: is there nothing warm?
    cold_now: bool,
    /// What was decided last.
    pub last: Option<Capacity>,
}

impl Engine {
    /// With these defaults.
    pub fn new(defaults: Defaults) -> Self {
        let budget = LateBudget::new(defaults.late_budget_ppm);
        Self {
            defaults,
            family: None,
            budget,
            cold: DelayTable::default(),
            offers: Vec::new(),
            shared: 0,
            calls: true,
            ended: 0,
            lasted_us: 0,
            longest_us: 0,
            cold_now: true,
            last: None,
        }
    }

    /// Which shared solution is called, from now on.
    fn choose_shared(&mut self, world: &World) {
        let typical_us = self.lasted_us.checked_div(self.ended).unwrap_or(ASSUMED_US).max(1);
        if self.offers.is_empty() {
            self.calls = false;
            return;
        }
        let allowed_wait_us = unsigned(world.allowed_wait_us());
        let lengths = Lengths { typical_us, longest_us: Some(self.longest_us), allowed_wait_us };
        let ranking = offers::shared(&self.offers, &lengths);
        // A trace does not say which items were known to be long: where only the longest would be cut off, the
        // solution that the scenario names takes them, as under the rules of reference.
        let slow = |offer: &Offer| matches!(offer.1, Err(Out::TooSlow { .. }));
        self.calls = ranking.best().is_some() || !ranking.offers.iter().all(slow);
        self.shared = ranking.best().unwrap_or(0);
        self.cold = self.offers[self.shared].cold.clone();
        if let Some(family) = &mut self.family {
            family.call(self.offers[self.shared].clone());
        }
    }

    fn overflow(&mut self, world: &mut World, item: u32) -> bool {
        let before = world.cold_starts();
        let waited = u64::try_from(world.now_us() - world.items()[index(item)].arrival_us).unwrap_or(0);
        if !world.call(item, self.shared) {
            return false;
        }
        self.cold_now = world.cold_starts() > before;
        if self.cold_now {
            let left = unsigned(world.allowed_wait_of_us(item)).saturating_sub(waited);
            self.budget.overflowed_cold(self.cold.longer_than(left), waited > 0);
        }
        true
    }
}

impl Rule for Engine {
    fn interval_us(&self) -> i64 {
        i64::try_from(self.defaults.capacity.tick_us).unwrap_or(i64::MAX)
    }

    fn begin(&mut self, world: &mut World) {
        let machines: Vec<MachineFacts> = world.machine_offers().iter().map(machine_facts).collect();
        self.offers = world.shared_offers().iter().map(shared_facts).collect();
        // A task states how long it may last at most; a trace shows it.
        self.longest_us = world.items().iter().map(|item| unsigned(item.lasts_us)).max().unwrap_or(0);
        self.choose_shared(world);
        if machines.is_empty() {
            return;
        }
        let called = self.offers.get(self.shared).cloned().unwrap_or_else(nothing_shared);
        if !self.calls {
            self.defaults.capacity.fixed = Some(DEDICATED);
        } else if self.defaults.rule == CapacityRule::Price {
            // As the engine does it: a slot against an invocation, at list prices.
            let cheaper = machines.iter().any(|machine| break_even_ppm(machine, called.price_per_hour) < PPM);
            self.defaults.capacity.fixed = Some(if cheaper { DEDICATED } else { capacity::Rule::None });
        }
        self.family = Some(Family::new(self.defaults.capacity.clone(), &machines, called));
    }

    fn tick(&mut self, world: &mut World) {
        if self.offers.len() > 1 {
            self.choose_shared(world);
        }
        let Some(family) = &mut self.family else { return };
        let capacity = family.tick(Timestamp(world.now_us()));
        for offer in 0..world.machine_offers().len() {
            let wanted = if offer == capacity.chosen.machine { capacity.chosen.target } else { 0 };
            let alive = world.alive(offer);
            if wanted > alive {
                world.launch(offer, wanted - alive);
            } else if wanted < alive {
                let idle_us = i64::try_from(self.defaults.capacity.idle_us).unwrap_or(i64::MAX);
                world.stop_idle(offer, alive - wanted, idle_us);
            }
        }
        self.last = Some(capacity);
    }

    fn arrive(&mut self, world: &mut World, item: u32) {
        self.budget.item();
        let allowed_us = unsigned(world.allowed_wait_of_us(item));
        let patience = patience(allowed_us, &self.cold, &self.budget);
        if let Some(family) = &mut self.family {
            family.arrived(item, patience.wait_us, Timestamp(world.now_us()));
        }
        if world.place(item) {
            return;
        }
        if !self.calls {
            return world.queue(item);
        }
        // Nothing to wait for when no machine is there or coming.
        let machines = (0..world.machine_offers().len()).any(|offer| world.alive(offer) > 0);
        if machines && patience.wait_us > 0 {
            world.queue(item);
            world.call_at(world.now_us().saturating_add_unsigned(patience.wait_us), item);
        } else if !self.overflow(world, item) {
            world.queue(item);
            world.call_at(world.now_us() + RETRY_US, item);
        }
    }

    fn late(&mut self, world: &mut World, item: u32) {
        if self.overflow(world, item) {
            world.unqueue(item);
        } else {
            world.call_at(world.now_us() + RETRY_US, item);
        }
    }

    fn ended(&mut self, world: &mut World, item: u32, _: Option<usize>) {
        let lasted_us = u64::try_from(world.items()[index(item)].lasts_us).unwrap_or(0);
        self.ended += 1;
        if world.waited_us(item) > world.allowed_wait_of_us(item) {
            self.budget.was_late();
        }
        self.lasted_us = self.lasted_us.saturating_add(lasted_us);
        if let Some(family) = &mut self.family {
            family.ended(item, lasted_us, self.cold_now, Timestamp(world.now_us()));
        }
    }
}

/// How long an item lasts before any was seen, us.
const ASSUMED_US: u64 = 60_000_000;
/// A shared solution that was full is asked again after this.
const RETRY_US: i64 = 100_000;

/// As the engine's configuration would state it.
fn machine_facts(offer: &MachineOffer) -> MachineFacts {
    MachineFacts {
        slots: offer.slots,
        price_per_hour: offer.price_per_hour,
        min_billed_us: unsigned(offer.min_billed_us),
        boot_us: unsigned(whole(offer.boot.mean())),
    }
}

/// As the engine's configuration would state it.
fn shared_facts(offer: &SharedOffer) -> SharedFacts {
    SharedFacts {
        price_per_hour: offer.price_per_hour,
        per_request: offer.per_request,
        granularity_us: unsigned(offer.granularity_us),
        min_billed_us: unsigned(offer.min_billed_us),
        timeout_us: unsigned(offer.timeout_us),
        keepalive_us: unsigned(offer.keepalive_us),
        bills_cold: offer.bills_cold,
        concurrency: offer.concurrency,
        cold: DelayTable::new(offer.cold.table()),
    }
}

/// Where there is no shared solution: one that takes nothing and is dearer than any machine.
fn nothing_shared() -> SharedFacts {
    SharedFacts {
        price_per_hour: NanoUsd(1_000_000_000_000_000),
        per_request: NanoUsd::ZERO,
        granularity_us: 1,
        min_billed_us: 0,
        timeout_us: 0,
        keepalive_us: 0,
        bills_cold: false,
        concurrency: 0,
        cold: DelayTable::default(),
    }
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn index(item: u32) -> usize {
    crate::world::index(item)
}
