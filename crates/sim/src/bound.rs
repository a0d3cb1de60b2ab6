//! The clairvoyant bound: what a planner who knows the future would pay at least if nothing waits.
//!
//! Demand is cut into layers of one machine's slots. Each layer is, at every moment, either on a machine (its
//! price, and the mean boot time paid at every start) or in the shared solution (its price times the use).
//! Layers do not touch each other, so the best course of each is found exactly by two states that are carried
//! through time. It is a lower bound because items could move between layers, and rounding, fees and cold
//! starts cost nothing.

use crate::HOUR_US;
use crate::quantiles::float;
use crate::scenario::Scenario;
use crate::trace::{Item, concurrency};

/// Bounds of one scenario, US dollars.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Best of machines and shared solution.
    pub clairvoyant: f64,
    /// Everything in the shared solution, without rounding and fees.
    pub shared: f64,
    /// Mean of what runs at once.
    pub mean: f64,
    /// Most that runs at once.
    pub peak: i64,
}

/// Price of what is not there, USD an hour: nothing that is there comes near it.
const NEVER: f64 = 1e9;

/// For the first machine and the first shared solution of a scenario; where it has none, the other takes all.
pub fn bounds(scenario: &Scenario) -> Bounds {
    let (machine, shared) = (scenario.machines.first(), scenario.shared.first());
    let slots = machine.map_or(1, |machine| i64::from(machine.slots));
    let per_us = |price: Option<skein_domain::NanoUsd>| price.map_or(NEVER, |price| price.usd()) / float(HOUR_US);
    let on_price = per_us(machine.map(|machine| machine.price_per_hour));
    let off_price = per_us(shared.map(|shared| shared.price_per_hour));
    let boot = on_price * machine.map_or(0.0, |machine| machine.boot.mean());
    let curve = concurrency(scenario.items.iter().copied());
    let timeout_us = shared.filter(|_| machine.is_some()).map_or(i64::MAX, |shared| shared.timeout_us);
    let long = |item: &Item| item.lasts_us > timeout_us;
    let forced = concurrency(scenario.items.iter().copied().filter(long));
    let peak = curve.iter().map(|(_, items)| *items).max().unwrap_or(0);
    let layers = usize::try_from((peak + slots - 1) / slots).unwrap_or(0);
    let (mut on, mut off) = (vec![boot; layers], vec![0.0_f64; layers]);
    let mut forced_now = 0;
    let mut forced_rest = forced.as_slice();
    for pair in curve.windows(2) {
        let ((at, items), past) = (pair[0], float(pair[1].0 - pair[0].0));
        while let Some((_, value)) = forced_rest.first().filter(|(from, _)| *from <= at) {
            forced_now = *value;
            forced_rest = &forced_rest[1..];
        }
        let mut below = 0;
        for (on, off) in on.iter_mut().zip(&mut off) {
            let cost = if forced_now > below {
                f64::INFINITY
            } else {
                off_price * float((items - below).clamp(0, slots)) * past
            };
            let (from_on, from_off) = (*on, *off);
            *off = from_off.min(from_on) + cost;
            *on = from_on.min(from_off + boot) + on_price * past;
            below += slots;
        }
    }
    let work: f64 = scenario.items.iter().map(|item| float(item.lasts_us)).sum();
    let span = curve.last().map_or(0, |(at, _)| *at) - scenario.items.first().map_or(0, |i| i.arrival_us);
    Bounds {
        clairvoyant: on.iter().zip(&off).map(|(on, off)| on.min(*off)).sum(),
        shared: work * off_price,
        mean: work / float(span.max(1)),
        peak,
    }
}
