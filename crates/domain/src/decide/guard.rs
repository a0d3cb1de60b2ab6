//! The guard: when a machine is worth its price.
//!
//! Demand is looked at in layers of one machine's slots. A machine for a layer is worth it while the layer was
//! used above the *break-even share*: the machine's price over what the same slots would cost in the shared
//! solution. Two corrections, both measured, because list prices alone say "machine" or "function" too often:
//!
//! * what the shared solution really bills for a second of these items (rounding, least billed time, cold
//!   starts, requests): see [`SharedFacts::billed`] and [`Billing`];
//! * the share of paid slots that is really used: items cannot move, so a machine drains late and a slot beside
//!   a long item stays empty.

use std::collections::VecDeque;

use super::patience::{DelayTable, PPM};
use crate::quantity::NanoUsd;

/// us of an hour.
const HOUR_US: u64 = 3_600_000_000;

/// A machine, as far as its worth depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineFacts {
    /// Items at a time.
    pub slots: u32,
    /// Its price.
    pub price_per_hour: NanoUsd,
    /// Least time paid, us.
    pub min_billed_us: u64,
    /// Typical time from launch to ready, us.
    pub boot_us: u64,
}

/// A shared solution, as far as its worth depends on it; for items of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedFacts {
    /// One invocation of that size.
    pub price_per_hour: NanoUsd,
    /// For every call.
    pub per_request: NanoUsd,
    /// Billed time is rounded up to this, us.
    pub granularity_us: u64,
    /// Least billed time, us.
    pub min_billed_us: u64,
    /// Longest an item may last there, us.
    pub timeout_us: u64,
    /// Idle instances stay warm for this, us; 0 never.
    pub keepalive_us: u64,
    /// A cold start is billed.
    pub bills_cold: bool,
    /// Invocations at a time.
    pub concurrency: u32,
    /// Start of a cold instance.
    pub cold: DelayTable,
}

impl MachineFacts {
    /// For a time that it is paid.
    pub fn charge(&self, us: u64) -> NanoUsd {
        NanoUsd::charge(self.price_per_hour, us, HOUR_US)
    }
}

impl SharedFacts {
    /// For a time that an item runs there, before rounding.
    pub fn charge(&self, us: u64) -> NanoUsd {
        NanoUsd::charge(self.price_per_hour, us, HOUR_US)
    }

    /// What an item that lasts so long is billed.
    pub fn billed(&self, lasts_us: u64, cold: bool) -> NanoUsd {
        let start_us = if cold && self.bills_cold { self.cold.mean() } else { 0 };
        let granularity = self.granularity_us.max(1);
        let rounded = lasts_us.saturating_add(start_us).div_ceil(granularity).saturating_mul(granularity);
        self.charge(rounded.max(self.min_billed_us)) + self.per_request
    }
}

/// What the shared solution bills for a second of the items that came of late.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Billing {
    /// Time they lasted, us.
    lasted_us: u64,
    /// What they were or would have been billed.
    billed: NanoUsd,
    items: u64,
}

/// Items over which billing is measured; older ones fade.
const BILLING_ITEMS: u64 = 2_000;

impl Billing {
    /// An item ended after `lasts_us`; `cold` when such items start cold there.
    pub fn ended(&mut self, shared: &SharedFacts, lasts_us: u64, cold: bool) {
        if self.items >= BILLING_ITEMS {
            self.lasted_us -= self.lasted_us / BILLING_ITEMS;
            self.billed = NanoUsd(self.billed.0 - self.billed.0 / i64::try_from(BILLING_ITEMS).unwrap_or(1));
        } else {
            self.items += 1;
        }
        self.lasted_us = self.lasted_us.saturating_add(lasts_us);
        self.billed += shared.billed(lasts_us, cold);
    }

    /// Price of one invocation for an hour of such items; the list price before any ended.
    pub fn price_per_hour(&self, shared: &SharedFacts) -> NanoUsd {
        if self.lasted_us == 0 {
            return shared.price_per_hour;
        }
        NanoUsd::charge(self.billed, HOUR_US, self.lasted_us)
    }
}

/// The use above which a machine is cheaper than the shared solution, ppm of its slots; above a million it
/// never is.
pub fn break_even_ppm(machine: &MachineFacts, shared_per_hour: NanoUsd) -> u64 {
    let rented = i128::from(shared_per_hour.0.max(0)) * i128::from(machine.slots.max(1));
    if rented == 0 {
        return u64::MAX;
    }
    u64::try_from(i128::from(machine.price_per_hour.0.max(0)) * i128::from(PPM) / rented).unwrap_or(u64::MAX)
}

/// Demand of a window, in layers of one machine's slots.
#[derive(Debug, Clone)]
pub struct Layers {
    slots: u64,
    samples_max: usize,
    samples: VecDeque<u32>,
    /// For each layer, the sum of what of it was used in all samples.
    used: Vec<u64>,
}

impl Layers {
    /// Over the last `samples_max` samples.
    pub fn new(slots: u32, samples_max: usize) -> Self {
        Self {
            slots: u64::from(slots.max(1)),
            samples_max: samples_max.max(1),
            samples: VecDeque::new(),
            used: Vec::new(),
        }
    }

    /// Items that run or wait now.
    pub fn sample(&mut self, demand: u32) {
        if self.samples.len() >= self.samples_max
            && let Some(oldest) = self.samples.pop_front()
        {
            let (full, rest) = self.split(oldest);
            self.used[..full].iter_mut().for_each(|used| *used -= self.slots);
            if rest > 0 {
                self.used[full] -= rest;
            }
        }
        let (full, rest) = self.split(demand);
        if self.used.len() < full + 1 {
            self.used.resize(full + 1, 0);
        }
        self.used[..full].iter_mut().for_each(|used| *used += self.slots);
        self.used[full] += rest;
        self.samples.push_back(demand);
    }

    fn split(&self, demand: u32) -> (usize, u64) {
        let demand = u64::from(demand);
        (usize::try_from(demand / self.slots).unwrap_or(usize::MAX), demand % self.slots)
    }

    /// Mean use of a layer, ppm of its slots.
    pub fn use_ppm(&self, layer: usize) -> u64 {
        let samples = u64::try_from(self.samples.len()).unwrap_or(u64::MAX).max(1);
        self.used.get(layer).map_or(0, |used| used.saturating_mul(PPM) / (self.slots * samples))
    }

    /// How many layers were used above a share, ppm. A layer is never used more than the one below it.
    pub fn above(&self, share_ppm: u64) -> u32 {
        let samples = u64::try_from(self.samples.len()).unwrap_or(u64::MAX).max(1);
        let limit = u128::from(share_ppm) * u128::from(self.slots) * u128::from(samples);
        let count = self.used.partition_point(|used| u128::from(*used) * u128::from(PPM) > limit);
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Most items at once in the window.
    pub fn peak(&self) -> u32 {
        self.samples.iter().copied().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lambda() -> SharedFacts {
        SharedFacts {
            price_per_hour: NanoUsd(103_653_000),
            per_request: NanoUsd(200),
            granularity_us: 1_000,
            min_billed_us: 0,
            timeout_us: 900_000_000,
            keepalive_us: 420_000_000,
            bills_cold: true,
            concurrency: 1_000,
            cold: DelayTable::of_p99(800_000),
        }
    }

    fn c6i() -> MachineFacts {
        let price_per_hour = NanoUsd(170_000_000);
        MachineFacts { slots: 4, price_per_hour, min_billed_us: 60_000_000, boot_us: 41_000_000 }
    }

    #[test]
    fn break_even_of_list_prices() {
        assert_eq!(break_even_ppm(&c6i(), lambda().price_per_hour), 410_021);
        assert_eq!(break_even_ppm(&c6i(), NanoUsd::ZERO), u64::MAX, "what costs nothing is never dearer");
    }

    #[test]
    fn short_items_make_a_least_billed_time_dear() {
        let fargate =
            SharedFacts { min_billed_us: 60_000_000, granularity_us: 1_000_000, bills_cold: false, ..lambda() };
        let mut billing = Billing::default();
        assert_eq!(billing.price_per_hour(&fargate), fargate.price_per_hour);
        (0..3_000).for_each(|_| billing.ended(&fargate, 20_000_000, true));
        let price = billing.price_per_hour(&fargate).0;
        let thrice = 3 * fargate.price_per_hour.0 + 200 * 180;
        assert!((price - thrice).abs() < thrice / 1000, "60 s billed for 20 s, and a request: {price}");
    }

    #[test]
    fn layers_are_what_a_count_by_hand_says() {
        let mut layers = Layers::new(4, 3);
        for demand in [100, 5, 9, 0] {
            layers.sample(demand);
        }
        // Of 5, 9 and 0: the first layer 4 + 4 + 0, the second 1 + 4 + 0, the third 0 + 1 + 0.
        let share = |sum: u64| sum * PPM / 12;
        assert_eq!([0, 1, 2, 3].map(|layer| layers.use_ppm(layer)), [share(8), share(5), share(1), 0]);
        assert_eq!((layers.above(400_000), layers.above(700_000), layers.peak()), (2, 0, 9));
    }
}
