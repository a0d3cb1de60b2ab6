//! What a model got wrong of late: how much, and between which bounds.

use std::collections::VecDeque;

use super::{BOUND_PPM, float};

/// How far a miss moves a bound's share.
const LEARN: f64 = 0.02;
/// A bound's share stays at or above this, however often it held.
const SHARE_MIN: f64 = 0.5;

/// One model's errors.
#[derive(Debug, Clone)]
pub(super) struct Errors {
    /// The newest, in order of time.
    newest: VecDeque<f64>,
    /// The same in order of size.
    sorted: Vec<f64>,
    kept: usize,
    /// What is left of the sums below at every point.
    fade: f64,
    sum: f64,
    values: f64,
    weight: f64,
}

impl Errors {
    /// Keeps `kept` errors for bounds; `memory` is how many points count in [`Self::recent`].
    pub(super) fn new(kept: usize, memory: usize) -> Self {
        let memory = f64::from(u32::try_from(memory).unwrap_or(u32::MAX));
        Self {
            newest: VecDeque::new(),
            sorted: Vec::new(),
            kept,
            fade: 1.0 - 1.0 / memory,
            sum: 0.0,
            values: 0.0,
            weight: 0.0,
        }
    }

    pub(super) fn add(&mut self, error: f64, value: f64) {
        self.sum = self.sum * self.fade + error.abs();
        self.values = self.values * self.fade + value.abs();
        self.weight = self.weight * self.fade + 1.0;
        if self.newest.len() >= self.kept
            && let Some(oldest) = self.newest.pop_front()
        {
            let at = self.sorted.partition_point(|e| e.total_cmp(&oldest).is_lt());
            self.sorted.remove(at);
        }
        self.newest.push_back(error);
        let at = self.sorted.partition_point(|e| e.total_cmp(&error).is_lt());
        self.sorted.insert(at, error);
    }

    /// Mean size of recent errors; nothing before the first.
    pub(super) fn recent(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }

    /// Recent errors as a share of the values.
    pub(super) fn recent_share(&self) -> Option<f64> {
        (self.values > 0.0).then(|| self.sum / self.values)
    }

    /// The error that this share of the kept ones does not exceed.
    pub(super) fn at_share(&self, share: f64) -> f64 {
        let Some(last) = self.sorted.len().checked_sub(1) else { return 0.0 };
        let place = share.clamp(0.0, 1.0) * float(i64::try_from(last).unwrap_or(i64::MAX));
        let at = usize::try_from(super::unsigned(place.floor())).unwrap_or(last).min(last);
        let (low, high) = (self.sorted[at], self.sorted[(at + 1).min(last)]);
        low + (high - low) * (place - place.floor())
    }
}

/// A bound that learns which share of past errors holds the share asked for.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    share: f64,
}

impl Bound {
    pub(super) fn new() -> Self {
        Self { share: target() }
    }

    pub(super) fn share(&self) -> f64 {
        self.share
    }

    /// Whether it held; answers the same.
    pub(super) fn learn(&mut self, held: bool) -> bool {
        self.share += if held { -LEARN * (1.0 - target()) } else { LEARN * target() };
        self.share = self.share.clamp(SHARE_MIN, 1.0);
        held
    }
}

fn target() -> f64 {
    f64::from(BOUND_PPM) / 1e6
}
