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
    of_layers(scenario, &Layered::of(scenario))
}

/// For any mixture of a scenario's machines and shared solutions: layers of a single slot, each at the price of the
/// cheapest slot and of the shortest boot, and the cheapest of the shared solutions that start in time.
pub fn bounds_of_choice(scenario: &Scenario) -> Bounds {
    of_layers(scenario, &Layered::of_choice(scenario))
}

/// For what a scenario offers: of any mixture where there is a choice, else of the one machine and the one solution.
pub fn bounds_of_offers(scenario: &Scenario) -> Bounds {
    let choice = scenario.machines.len() > 1 || scenario.shared.len() > 1;
    if choice { bounds_of_choice(scenario) } else { bounds(scenario) }
}

fn of_layers(scenario: &Scenario, layered: &Layered) -> Bounds {
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
        let on_price = machine.map_or(NEVER, |machine| machine.price_per_hour.usd());
        let boot_us = machine.map_or(0.0, |machine| machine.boot.mean());
        let off_price = shared.map_or(NEVER, |shared| shared.price_per_hour.usd());
        let timeout_us = shared.filter(|_| machine.is_some()).map_or(i64::MAX, |shared| shared.timeout_us);
        Self::new(scenario, (slots, on_price, boot_us), (off_price, timeout_us))
    }

    fn of_choice(scenario: &Scenario) -> Self {
        let least = |values: &mut dyn Iterator<Item = f64>| values.fold(NEVER, f64::min);
        let machines = || scenario.machines.iter();
        let slot = least(&mut machines().map(|machine| machine.price_per_hour.usd() / f64::from(machine.slots)));
        let boot_us = least(&mut machines().map(|machine| machine.boot.mean()));
        // Without a machine all goes to a shared solution, late or not.
        let no_machine = scenario.machines.is_empty();
        let shared = || scenario.shared.iter().filter(|offer| no_machine || scenario.starts_in_time(offer));
        let off_price = least(&mut shared().map(|offer| offer.price_per_hour.usd()));
        let timeout_us = shared().map(|offer| offer.timeout_us).max().filter(|_| !no_machine);
        Self::new(scenario, (1, slot, boot_us), (off_price, timeout_us.unwrap_or(i64::MAX)))
    }

    /// Of a machine's slots, USD an hour and boot (us), and of the shared solution's USD an hour and longest item (us).
    fn new(scenario: &Scenario, machine: (i64, f64, f64), shared: (f64, i64)) -> Self {
        let ((slots, on_per_hour, boot_us), (off_per_hour, timeout_us)) = (machine, shared);
        let curve = concurrency(scenario.items.iter().copied());
        let long = |item: &Item| item.lasts_us > timeout_us;
        let peak = curve.iter().map(|(_, items)| *items).max().unwrap_or(0);
        let on_price = on_per_hour / float(HOUR_US);
        Self {
            forced: concurrency(scenario.items.iter().copied().filter(long)),
            peak,
            layers: usize::try_from((peak + slots - 1) / slots).unwrap_or(0),
            slots,
            on_price,
            off_price: off_per_hour / float(HOUR_US),
            boot: on_price * boot_us,
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
