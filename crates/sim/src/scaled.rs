//! Machines by thresholds, as people set them ([`skein_domain::decide::threshold`]), for comparison: percentages
//! of slots, or what the forecast says. What finds no slot waits as long as its patience lasts, and overflows.

use skein_domain::Timestamp;
use skein_domain::decide::forecast::{Forecaster, Season};
use skein_domain::decide::patience::{DelayTable, LATE_BUDGET_PPM, LateBudget, patience};
use skein_domain::decide::threshold::{Changes, Load, Scale, Threshold, Thresholds, scale};

use crate::SECOND_US;
use crate::rule::Rule;
use crate::world::World;

/// Time between two looks, s.
const TICK_S: u32 = 15;
/// How far ahead the forecast looks: until a machine ordered now is ready, s.
const AHEAD_S: u32 = 60;
/// A shared solution that was full is asked again after this.
const RETRY_US: i64 = 100_000;

/// Machines by thresholds.
pub struct Scaled {
    thresholds: Thresholds,
    changes: Changes,
    demand: Forecaster,
    budget: LateBudget,
    cold: DelayTable,
}

impl Scaled {
    /// By these thresholds.
    pub fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            changes: Changes::default(),
            demand: Forecaster::new(Season::new(TICK_S, AHEAD_S)),
            budget: LateBudget::new(LATE_BUDGET_PPM),
            cold: DelayTable::default(),
        }
    }

    /// By percentages, with the defaults.
    pub fn by_share() -> Self {
        Self::new(Thresholds::default())
    }

    /// By the upper bound of the forecast.
    pub fn by_projection() -> Self {
        let (up, down) = (Threshold::Projected, Threshold::Projected);
        Self::new(Thresholds { up, down, ..Thresholds::default() })
    }

    fn call(&mut self, world: &mut World, item: u32) {
        let (before, left) = (world.cold_starts(), world.allowed_wait_of_us(item) - world.waits_us(item));
        if !world.call(item, 0) {
            world.call_at(world.now_us() + RETRY_US, item);
            return;
        }
        world.unqueue(item);
        if world.cold_starts() > before {
            self.budget.overflowed_cold(self.cold.longer_than(u64::try_from(left).unwrap_or(0)), true);
        }
    }
}

impl Rule for Scaled {
    fn interval_us(&self) -> i64 {
        i64::from(TICK_S) * SECOND_US
    }

    fn begin(&mut self, world: &mut World) {
        self.cold =
            world.shared_offers().first().map(|shared| DelayTable::new(shared.cold.table())).unwrap_or_default();
    }

    fn tick(&mut self, world: &mut World) {
        let now = Timestamp(world.now_us());
        let (used, waiting) = (world.busy() + world.inflight(0), world.queued());
        self.demand.observe(i64::from(used + waiting));
        let projected = self.demand.forecast().map(|forecast| u32::try_from(forecast.upper.max(0)).unwrap_or(u32::MAX));
        let (machines, slots, empty) = (world.alive(0), world.machine_offers()[0].slots, world.empty(0));
        let load = Load { machines, slots, used, waiting, projected, empty };
        match scale(&load, &self.thresholds, &self.changes, now) {
            Scale::Up { machines, .. } => {
                world.launch(0, machines);
                self.changes.up = Some(now);
            }
            Scale::Down { machines, .. } => {
                world.stop_idle(0, machines, 0);
                self.changes.down = Some(now);
            }
            Scale::Stay(_) => {}
        }
    }

    fn arrive(&mut self, world: &mut World, item: u32) {
        self.budget.item();
        if world.place(item) {
            return;
        }
        let allowed_us = u64::try_from(world.allowed_wait_of_us(item)).unwrap_or(0);
        let wait_us = if world.alive(0) > 0 { patience(allowed_us, &self.cold, &self.budget).wait_us } else { 0 };
        world.queue(item);
        if !world.shared_offers().is_empty() {
            world.call_at(world.now_us().saturating_add_unsigned(wait_us), item);
        }
    }

    fn late(&mut self, world: &mut World, item: u32) {
        self.call(world, item);
    }

    fn ended(&mut self, world: &mut World, item: u32, _: Option<usize>) {
        if world.waited_us(item) > world.allowed_wait_of_us(item) {
            self.budget.was_late();
        }
    }
}
