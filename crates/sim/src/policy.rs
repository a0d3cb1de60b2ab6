//! The engine's own policy in a world: it does what the functions of `skein_domain::decide` say, and nothing
//! by itself.

use skein_domain::Timestamp;
use skein_domain::decide::capacity::{Capacity, Family, Settings};
use skein_domain::decide::guard::{MachineFacts, SharedFacts};
use skein_domain::decide::patience::{DelayTable, LATE_BUDGET_PPM, LateBudget, patience};

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
}

impl Default for Defaults {
    fn default() -> Self {
        Self { capacity: Settings::default(), late_budget_ppm: LATE_BUDGET_PPM }
    }
}

/// The engine's policy.
pub struct Engine {
    defaults: Defaults,
    family: Option<Family<u32>>,
    budget: LateBudget,
    cold: DelayTable,
    shared: usize,
    /// Of the last invocation that was asked for: is there nothing warm?
    cold_now: bool,
    /// What was decided last.
    pub last: Option<Capacity>,
}

impl Engine {
    /// With these defaults.
    pub fn new(defaults: Defaults) -> Self {
        let budget = LateBudget::new(defaults.late_budget_ppm);
        Self { defaults, family: None, budget, cold: DelayTable::default(), shared: 0, cold_now: true, last: None }
    }

    fn overflow(&mut self, world: &mut World, item: u32) -> bool {
        let before = world.cold_starts();
        let waited = u64::try_from(world.now_us() - world.items()[index(item)].arrival_us).unwrap_or(0);
        if !world.call(item, self.shared) {
            return false;
        }
        self.cold_now = world.cold_starts() > before;
        if self.cold_now {
            let left = u64::try_from(world.allowed_wait_us()).unwrap_or(0).saturating_sub(waited);
            self.budget.overflowed_cold(self.cold.longer_than(left));
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
        let shared = shared_facts(&world.shared_offers()[self.shared]);
        self.cold = shared.cold.clone();
        self.family = Some(Family::new(self.defaults.capacity.clone(), &machines, shared));
    }

    fn tick(&mut self, world: &mut World) {
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
        let allowed_us = u64::try_from(world.allowed_wait_us()).unwrap_or(0);
        let patience = patience(allowed_us, &self.cold, &self.budget);
        if let Some(family) = &mut self.family {
            family.arrived(item, patience.wait_us, Timestamp(world.now_us()));
        }
        if world.place(item) {
            return;
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
        if let Some(family) = &mut self.family {
            family.ended(item, lasted_us, self.cold_now, Timestamp(world.now_us()));
        }
    }
}

/// A shared solution that was full is asked again after this.
const RETRY_US: i64 = 100_000;

/// As the engine's configuration would state it.
pub fn machine_facts(offer: &MachineOffer) -> MachineFacts {
    MachineFacts {
        slots: offer.slots,
        price_per_hour: offer.price_per_hour,
        min_billed_us: unsigned(offer.min_billed_us),
        boot_us: unsigned(whole(offer.boot.mean())),
    }
}

/// As the engine's configuration would state it.
pub fn shared_facts(offer: &SharedOffer) -> SharedFacts {
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

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn index(item: u32) -> usize {
    crate::world::index(item)
}
