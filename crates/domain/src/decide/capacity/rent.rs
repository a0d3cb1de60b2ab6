//! Rent or buy, layer by layer: rent until the rent paid above a machine's price equals the price of a start;
//! stop when the loss against renting equals it.

use super::super::guard::MachineFacts;
use crate::quantity::NanoUsd;

/// What having each layer's machine would have gained so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Rent {
    gained: Vec<i64>,
    stopping: u32,
}

impl Rent {
    /// How many machines are wanted, `alive` being there.
    pub(super) fn target(
        &mut self,
        machine: &MachineFacts,
        shared_per_hour: NanoUsd,
        start: NanoUsd,
        demand: u32,
        alive: u32,
        past_us: u64,
    ) -> u32 {
        let slots = machine.slots.max(1);
        let layers = alive.max(demand.div_ceil(slots)) + 1;
        let layers = usize::try_from(layers).unwrap_or(usize::MAX);
        if self.gained.len() < layers {
            self.gained.resize(layers, 0);
        }
        let price = machine.charge(past_us).0;
        let rent = NanoUsd::charge(shared_per_hour, past_us, 3_600_000_000).0;
        let (mut more, mut fewer) = (0, 0);
        for (layer, gained) in (0_u32..).zip(self.gained.iter_mut().take(layers)) {
            let used = demand.saturating_sub(layer.saturating_mul(slots)).min(slots);
            *gained += rent.saturating_mul(i64::from(used)) - price;
            if layer < alive {
                *gained = (*gained).clamp(-start.0, 0);
                fewer += u32::from(*gained <= -start.0);
            } else if *gained >= start.0 {
                *gained = 0;
                more += 1;
            } else {
                *gained = (*gained).max(0);
            }
        }
        self.stopping = if more > 0 { 0 } else { fewer };
        (alive + more).saturating_sub(self.stopping)
    }

    /// Machines went: their layers start anew.
    pub(super) fn stopped(&mut self, alive: u32, before: u32) {
        let gone = usize::try_from(before.saturating_sub(alive)).unwrap_or(0);
        if gone > 0 {
            let from = usize::try_from(alive).unwrap_or(usize::MAX).min(self.gained.len());
            self.gained[from..].iter_mut().for_each(|gained| *gained = 0);
        }
    }
}
