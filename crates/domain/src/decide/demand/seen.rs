//! Demand of one solution that has machines, as a series: for free agents and for thresholds that look ahead.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::super::forecast::{Forecaster, Season};
use super::super::snapshot::Snapshot;
use crate::id::SolutionId;
use crate::instance::InstanceState;
use crate::quantity::Timestamp;

/// A value every so often, us.
pub(super) const EVERY_US: i64 = 60_000_000;
/// Values of which the deviation is taken: an hour.
const RECENT: usize = 60;
/// How far ahead is projected, s: longer than most machines need to boot.
const AHEAD_S: u32 = 300;

/// What was seen of late, slots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemandSeen {
    /// In use and waited for.
    pub now_slots: u32,
    /// Standard deviation over the last hour.
    pub deviation_slots: u32,
    /// What is projected for five minutes ahead, if anything is yet.
    pub projected_slots: Option<u32>,
    /// Below this with a share of 90 %.
    pub upper_slots: Option<u32>,
    /// The model that says so.
    pub model: Option<String>,
    /// How well it was said so far: sum of errors over sum of values, ppm.
    pub wape_ppm: u64,
    /// Values below the upper bound so far, ppm.
    pub held_ppm: u64,
}

impl DemandSeen {
    /// Does the other say the same of demand? How well it was said so far is left out.
    pub(super) fn says(&self, other: &Self) -> bool {
        let of = |s: &Self| (s.now_slots, s.deviation_slots, s.projected_slots, s.upper_slots);
        of(self) == of(other)
    }
}

/// One series.
pub(super) struct Series {
    forecaster: Forecaster,
    recent: VecDeque<u32>,
    pub(super) due: Timestamp,
}

impl Series {
    pub(super) fn new(now: Timestamp) -> Self {
        let every_s = u32::try_from(EVERY_US / 1_000_000).unwrap_or(60);
        Self { forecaster: Forecaster::new(Season::new(every_s, AHEAD_S)), recent: VecDeque::new(), due: now }
    }

    /// Takes in a value when one is due; values that nobody looked for were as the one before.
    pub(super) fn observe(&mut self, slots: u32, now: Timestamp) -> DemandSeen {
        let missed = (now.0 - self.due.0) / EVERY_US;
        let last = self.recent.back().copied().unwrap_or(slots);
        for _ in 0..missed.clamp(0, i64::try_from(RECENT).unwrap_or(0)) {
            self.put(last);
        }
        self.put(slots);
        self.due = Timestamp(now.0.saturating_add(EVERY_US));
        let forecast = self.forecaster.forecast();
        let whole = |value: i64| u32::try_from(value.max(0)).unwrap_or(u32::MAX);
        DemandSeen {
            now_slots: slots,
            deviation_slots: self.deviation(),
            projected_slots: forecast.as_ref().map(|f| whole(f.value)),
            upper_slots: forecast.as_ref().map(|f| whole(f.upper)),
            model: forecast.as_ref().map(|f| f.model.to_string()),
            wape_ppm: forecast.as_ref().map_or(0, |f| f.accuracy.wape_ppm),
            held_ppm: forecast.as_ref().map_or(0, |f| f.accuracy.upper_held_ppm),
        }
    }

    fn put(&mut self, slots: u32) {
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(slots);
        self.forecaster.observe(slots.into());
    }

    /// Rounded up.
    fn deviation(&self) -> u32 {
        let count = u128::try_from(self.recent.len()).unwrap_or(0).max(1);
        let sum: u128 = self.recent.iter().map(|v| u128::from(*v)).sum();
        let squares: u128 = self.recent.iter().map(|v| u128::from(*v) * u128::from(*v)).sum();
        let variance = (squares * count - sum * sum) / (count * count);
        let root = variance.isqrt();
        u32::try_from(root + u128::from(root * root < variance)).unwrap_or(u32::MAX)
    }
}

/// Slots of a solution's machines that are in use, and items that its machines could take and that wait.
pub(super) fn demand(snapshot: &Snapshot, solution: &SolutionId) -> u32 {
    let on = snapshot.machines_in(solution, InstanceState::Ready..=InstanceState::Draining);
    let used: u32 = on.map(|id| snapshot.load_of(id).slots).sum();
    used.saturating_add(waiting(snapshot, solution))
}

/// Slots that items would take which a solution's machines could take and that wait.
pub(super) fn waiting(snapshot: &Snapshot, solution: &SolutionId) -> u32 {
    let Some(machines) = snapshot.solutions.get(solution).and_then(|s| s.machines()) else { return 0 };
    let ready = snapshot.index.ready.iter();
    let suits = ready.filter(|(class, _)| {
        super::super::place::suits_within(snapshot, solution, &machines.facts, &class.profile).is_ok()
    });
    let items = suits.flat_map(|(_, nodes)| nodes).filter_map(|(_, key)| snapshot.node(*key));
    let slots = |node: &crate::session::Node| node.untouched().saturating_mul(node.profile.needs.slots);
    items.map(slots).fold(0, u32::saturating_add)
}
