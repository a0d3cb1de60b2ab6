//! What came of a simulation.

use crate::quantiles::float;
use crate::scenario::Scenario;
use crate::trace::{Item, concurrency};
use crate::world::{Ran, Sums};

/// Figures of one scenario under one rule. Shares are 0 to 1, money is US dollars, times are seconds: for
/// people and for comparing, never decided on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    /// All of it.
    pub cost: f64,
    /// For machines.
    pub machine_cost: f64,
    /// For shared solutions.
    pub shared_cost: f64,
    /// Hours paid for machines.
    pub machine_hours: f64,
    /// Machines launched.
    pub launches: f64,
    /// Items that went to shared solutions.
    pub shared_share: f64,
    /// Cold starts.
    pub cold_starts: f64,
    /// Mean wait.
    pub wait_mean: f64,
    /// Wait that half of the items did not exceed.
    pub wait_p50: f64,
    /// 95 %.
    pub wait_p95: f64,
    /// 99 %.
    pub wait_p99: f64,
    /// The longest.
    pub wait_max: f64,
    /// Items that waited longer than allowed.
    pub late: f64,
    /// Items that waited longer than tolerable.
    pub late_loose: f64,
    /// Mean of (wait + length) / length, where 10 s is the least length.
    pub slowdown: f64,
    /// Demand not supplied, as a share of demand, over time.
    pub under: f64,
    /// Supply not demanded, the same.
    pub over: f64,
    /// Share of the time with too little.
    pub under_time: f64,
    /// Share of the time with too much.
    pub over_time: f64,
    /// Slots used of those that were ready.
    pub used: f64,
}

impl Metrics {
    /// Names of all figures, as in the reference's table.
    pub const NAMES: [&str; 20] = [
        "cost",
        "vm_cost",
        "sl_cost",
        "vm_hours",
        "launches",
        "sl_share",
        "cold",
        "mean",
        "p50",
        "p95",
        "p99",
        "max",
        "miss",
        "miss_loose",
        "bsld",
        "th_u",
        "th_o",
        "ta_u",
        "ta_o",
        "util",
    ];

    /// The figures in the order of [`Self::NAMES`].
    pub fn values(&self) -> [f64; 20] {
        [
            self.cost,
            self.machine_cost,
            self.shared_cost,
            self.machine_hours,
            self.launches,
            self.shared_share,
            self.cold_starts,
            self.wait_mean,
            self.wait_p50,
            self.wait_p95,
            self.wait_p99,
            self.wait_max,
            self.late,
            self.late_loose,
            self.slowdown,
            self.under,
            self.over,
            self.under_time,
            self.over_time,
            self.used,
        ]
    }

    pub(crate) fn of(scenario: &Scenario, items: &[Item], sums: &Sums) -> Self {
        let mut waits: Vec<i64> = items.iter().zip(&sums.started_us).map(|(i, start)| start - i.arrival_us).collect();
        let slowdown: f64 = waits.iter().zip(items).map(|(wait, item)| slowdown(*wait, item.lasts_us)).sum();
        let late = waits.iter().enumerate().filter(|(item, wait)| **wait > scenario.allowed_us(*item)).count();
        waits.sort_unstable();
        let all = float(i64::try_from(items.len()).unwrap_or(i64::MAX));
        let above = |limit: i64| float(count(waits.len() - waits.partition_point(|wait| *wait <= limit))) / all;
        let shared = sums.ran.iter().filter(|ran| **ran == Ran::Shared).count();
        let elasticity = Elasticity::of(items, sums);
        Self {
            cost: (sums.machine_cost + sums.shared_cost).usd(),
            machine_cost: sums.machine_cost.usd(),
            shared_cost: sums.shared_cost.usd(),
            machine_hours: float(sums.machine_us) / 3.6e9,
            launches: float(i64::try_from(sums.launches).unwrap_or(i64::MAX)),
            shared_share: float(count(shared)) / all,
            cold_starts: float(i64::try_from(sums.cold_starts).unwrap_or(i64::MAX)),
            wait_mean: waits.iter().map(|wait| float(*wait)).sum::<f64>() / 1e6 / all,
            wait_p50: higher(&waits, 500),
            wait_p95: higher(&waits, 950),
            wait_p99: higher(&waits, 990),
            wait_max: higher(&waits, 1000),
            late: float(count(late)) / all,
            late_loose: above(scenario.loose_wait_us),
            slowdown: slowdown / all,
            under: elasticity.under,
            over: elasticity.over,
            under_time: elasticity.under_time,
            over_time: elasticity.over_time,
            used: if sums.ready_slot_us == 0 { 0.0 } else { big(sums.busy_slot_us) / big(sums.ready_slot_us) },
        }
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a ratio of two sums, shown")]
fn big(value: i128) -> f64 {
    value as f64
}

fn slowdown(wait_us: i64, lasts_us: i64) -> f64 {
    (float(wait_us + lasts_us) / float(lasts_us.max(10_000_000))).max(1.0)
}

/// The quantile of sorted waits, of those between two the higher, s.
fn higher(waits: &[i64], per_mille: usize) -> f64 {
    let Some(last) = waits.len().checked_sub(1) else { return 0.0 };
    float(waits[(last * per_mille).div_ceil(1000)]) / 1e6
}

/// The elasticity measures of SPEC (Herbst et al.): how much and how long supply was below or above demand.
#[derive(Debug, Default)]
struct Elasticity {
    under: f64,
    over: f64,
    under_time: f64,
    over_time: f64,
}

impl Elasticity {
    fn of(items: &[Item], sums: &Sums) -> Self {
        let demand = concurrency(items.iter().copied());
        let mut moments: Vec<i64> = demand.iter().chain(&sums.supply).map(|(at, _)| *at).collect();
        moments.extend([0, sums.end_us]);
        moments.retain(|at| *at <= sums.end_us);
        moments.sort_unstable();
        moments.dedup();
        let (mut of_demand, mut of_supply) = (Curve::new(&demand), Curve::new(&sums.supply));
        let mut sum = Self::default();
        for pair in moments.windows(2) {
            let (demand, supply) = (of_demand.at(pair[0]), of_supply.at(pair[0]));
            let (past, difference) = (float(pair[1] - pair[0]), float(supply - demand));
            let share = difference.abs() / float(demand.max(1)) * past;
            if supply < demand {
                sum.under += share;
                sum.under_time += past;
            } else if supply > demand {
                sum.over += share;
                sum.over_time += past;
            }
        }
        let all = float(sums.end_us.max(1));
        for figure in [&mut sum.under, &mut sum.over, &mut sum.under_time, &mut sum.over_time] {
            *figure /= all;
        }
        sum
    }
}

/// A curve of steps, read from left to right.
struct Curve<'a> {
    rest: &'a [(i64, i64)],
    value: i64,
}

impl<'a> Curve<'a> {
    fn new(points: &'a [(i64, i64)]) -> Self {
        Self { rest: points, value: 0 }
    }

    fn at(&mut self, moment: i64) -> i64 {
        while let Some((_, value)) = self.rest.first().filter(|(at, _)| *at <= moment) {
            self.value = *value;
            self.rest = &self.rest[1..];
        }
        self.value
    }
}
