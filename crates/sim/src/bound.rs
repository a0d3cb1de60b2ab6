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
    let layered = Layered::of(scenario);
    let (on, off) = layered.costs(None);
    let (first, end) = (scenario.items.first(), layered.curve.last());
    let span = end.map_or(0, |(at, _)| *at) - first.map_or(0, |item| item.arrival_us);
    let work: f64 = scenario.items.iter().map(|item| float(item.lasts_us)).sum();
    Bounds {
        clairvoyant: on.iter().zip(&off).map(|(on, off)| on.min(*off)).sum(),
        shared: work * layered.off_price,
        mean: work / float(span.max(1)),
        peak: layered.peak,
    }
}

/// How many machines the bound's own course has, from each moment (us) on.
pub(crate) fn plan(scenario: &Scenario) -> Vec<(i64, u32)> {
    let layered = Layered::of(scenario);
    let mut came_from = Vec::new();
    let (on, off) = layered.costs(Some(&mut came_from));
    let mut now: Vec<bool> = on.iter().zip(&off).map(|(on, off)| on < off).collect();
    let mut plan = Vec::new();
    // Backwards: what each layer is in at a time says what it was in before.
    for (step, (at, _)) in layered.curve.iter().enumerate().take(layered.curve.len().saturating_sub(1)).rev() {
        let machines = u32::try_from(now.iter().filter(|on| **on).count()).unwrap_or(u32::MAX);
        match plan.last_mut() {
            Some((from, same)) if *same == machines => *from = *at,
            _ => plan.push((*at, machines)),
        }
        for (layer, on) in now.iter_mut().enumerate() {
            let bits = came_from[step * layered.layers.div_ceil(LAYERS_A_BYTE) + layer / LAYERS_A_BYTE];
            let bits = bits >> (2 * (layer % LAYERS_A_BYTE));
            *on = if *on { bits & FROM_OFF == 0 } else { bits & FROM_ON != 0 };
        }
    }
    plan.reverse();
    plan
}

/// A layer that is off was on before; one that is on was off before: two bits a layer.
const FROM_ON: u8 = 1;
const FROM_OFF: u8 = 2;
const LAYERS_A_BYTE: usize = 4;

/// Demand in layers of one machine's slots.
struct Layered {
    curve: Vec<(i64, i64)>,
    /// Of it, what is too long for the shared solution.
    forced: Vec<(i64, i64)>,
    peak: i64,
    layers: usize,
    slots: i64,
    on_price: f64,
    off_price: f64,
    /// Price of a start.
    boot: f64,
}

impl Layered {
    fn of(scenario: &Scenario) -> Self {
        let (machine, shared) = (scenario.machines.first(), scenario.shared.first());
        let slots = machine.map_or(1, |machine| i64::from(machine.slots));
        let per_us =
            |price: Option<skein_domain::NanoUsd>| price.map_or(NEVER, skein_domain::NanoUsd::usd) / float(HOUR_US);
        let on_price = per_us(machine.map(|machine| machine.price_per_hour));
        let curve = concurrency(scenario.items.iter().copied());
        let timeout_us = shared.filter(|_| machine.is_some()).map_or(i64::MAX, |shared| shared.timeout_us);
        let long = |item: &Item| item.lasts_us > timeout_us;
        let peak = curve.iter().map(|(_, items)| *items).max().unwrap_or(0);
        Self {
            forced: concurrency(scenario.items.iter().copied().filter(long)),
            peak,
            layers: usize::try_from((peak + slots - 1) / slots).unwrap_or(0),
            slots,
            on_price,
            off_price: per_us(shared.map(|shared| shared.price_per_hour)),
            boot: on_price * machine.map_or(0.0, |machine| machine.boot.mean()),
            curve,
        }
    }

    /// Least cost of each layer that ends on, and off; and where each of both came from, at each change of demand.
    fn costs(&self, mut came_from: Option<&mut Vec<u8>>) -> (Vec<f64>, Vec<f64>) {
        let (mut on, mut off) = (vec![self.boot; self.layers], vec![0.0_f64; self.layers]);
        let mut forced_now = 0;
        let mut forced_rest = self.forced.as_slice();
        for pair in self.curve.windows(2) {
            let ((at, items), past) = (pair[0], float(pair[1].0 - pair[0].0));
            while let Some((_, value)) = forced_rest.first().filter(|(from, _)| *from <= at) {
                forced_now = *value;
                forced_rest = &forced_rest[1..];
            }
            let mut below = 0;
            let mut bits = 0_u8;
            for (layer, (on, off)) in on.iter_mut().zip(&mut off).enumerate() {
                let cost = if forced_now > below {
                    f64::INFINITY
                } else {
                    self.off_price * float((items - below).clamp(0, self.slots)) * past
                };
                let (from_on, from_off) = (*on, *off);
                *off = from_off.min(from_on) + cost;
                *on = from_on.min(from_off + self.boot) + self.on_price * past;
                below += self.slots;
                if let Some(came_from) = &mut came_from {
                    let was = if from_on < from_off { FROM_ON } else { 0 }
                        | if from_off + self.boot < from_on { FROM_OFF } else { 0 };
                    bits |= was << (2 * (layer % LAYERS_A_BYTE));
                    if layer % LAYERS_A_BYTE == LAYERS_A_BYTE - 1 || layer + 1 == self.layers {
                        came_from.push(bits);
                        bits = 0;
                    }
                }
            }
        }
        (on, off)
    }
}
