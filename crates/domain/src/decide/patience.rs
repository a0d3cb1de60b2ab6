//! Patience: how long an item that finds no slot waits for one before it goes to a shared solution.
//!
//! ```text
//! arrival ---- waits for a slot ----> overflow ---- cold start ----> it starts
//! |<----------- allowed wait, but for a share of the late budget ----------->|
//! ```
//! A cold start that takes longer than what is left makes the item late. So the wait is the allowed wait less
//! the quantile of the cold start at which the share of all items that is expected to be late stays inside the
//! late budget: were every item to overflow cold, a budget of 0.1 % would ask for the 99.9th percentile; when
//! one in fifty does, the 95th is enough. What was risked so far is kept in [`LateBudget`], so that a burst
//! after a quiet time cannot spend what was never saved.
//!
//! Fixed at p99, as the first guess had it, 0.01 to 1 % of items are late: too little margin where most items
//! overflow, and wait thrown away where few do.

use std::fmt;

/// One in a million.
pub const PPM: u64 = 1_000_000;
/// Share of items that may start later than allowed, ppm.
pub const LATE_BUDGET_PPM: u32 = 1_000;
/// Share of the budget that is aimed at, ppm: what is drawn is not what is expected.
const AIM_PPM: u64 = 700_000;
/// Items counted as at risk before any was seen: the first ones are careful.
const PRIOR_ITEMS: u64 = 200;
/// Items over which the share at risk is measured; older ones fade.
const MEMORY_ITEMS: u64 = 4_000;

/// Quantiles of a delay: share in ppm and us, both ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DelayTable {
    points: Vec<(u32, u64)>,
}

impl DelayTable {
    /// From shares (ppm) and delays (us); put in order.
    pub fn new(mut points: Vec<(u32, u64)>) -> Self {
        points.sort_unstable();
        Self { points }
    }

    /// A delay of which only one quantile is known, as configurations state it: beyond it nothing is known, so
    /// it counts as twice that in the end.
    pub fn of_p99(us: u64) -> Self {
        Self { points: vec![(0, us / 2), (990_000, us), (1_000_000, us.saturating_mul(2))] }
    }

    /// The delay that a share does not exceed, us: between two points on the line between them, rounded up.
    pub fn at(&self, ppm: u32) -> u64 {
        let at = self.points.partition_point(|(share, _)| *share < ppm);
        let Some((to_ppm, to)) = self.points.get(at).copied() else {
            return self.points.last().map_or(0, |(_, us)| *us);
        };
        let Some((from_ppm, from)) = at.checked_sub(1).and_then(|before| self.points.get(before).copied()) else {
            return to;
        };
        let (part, whole) = (u128::from(ppm - from_ppm), u128::from(to_ppm - from_ppm));
        let rise = (u128::from(to.saturating_sub(from)) * part).div_ceil(whole);
        from.saturating_add(u64::try_from(rise).unwrap_or(u64::MAX))
    }

    /// Share of delays that take longer, ppm.
    pub fn longer_than(&self, us: u64) -> u32 {
        // The table is ascending: the share at which it passes `us`, to a ppm.
        let (mut low, mut high) = (0, 1_000_000);
        if self.at(high) <= us {
            return 0;
        }
        while low < high {
            let middle = u32::midpoint(low, high);
            if self.at(middle) <= us { low = middle + 1 } else { high = middle }
        }
        1_000_000 - low.saturating_sub(1)
    }

    /// Mean, us.
    pub fn mean(&self) -> u64 {
        let sum: u128 = self
            .points
            .windows(2)
            .map(|pair| u128::from(pair[1].0 - pair[0].0) * (u128::from(pair[0].1) + u128::from(pair[1].1)) / 2)
            .sum();
        u64::try_from(sum / u128::from(PPM)).unwrap_or(u64::MAX)
    }
}

/// How long to wait, and why so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// From the item's arrival, us.
    pub wait_us: u64,
    /// The cold start that is reckoned with, us.
    pub cold_us: u64,
    /// Its quantile, ppm.
    pub quantile_ppm: u32,
    /// Items that are at risk: they overflow and start cold, ppm.
    pub at_risk_ppm: u32,
    /// Share of an overflowing cold start that is expected to be late, ppm.
    pub late_ppm: u32,
}

impl fmt::Display for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |us: u64| format!("{}.{:01} s", us / 1_000_000, us % 1_000_000 / 100_000);
        write!(
            f,
            "waits {} for a slot: a start elsewhere takes {} at the {}.{:02}th percentile, and {}.{:02} % of items need one",
            s(self.wait_us),
            s(self.cold_us),
            self.quantile_ppm / 10_000,
            self.quantile_ppm % 10_000 / 100,
            self.at_risk_ppm / 10_000,
            self.at_risk_ppm % 10_000 / 100
        )
    }
}

/// What may be late, and what was risked so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateBudget {
    budget_ppm: u32,
    /// Items seen.
    items: u64,
    /// Expected late items, ppm of one.
    risked: u64,
    /// Items that did start late.
    late: u64,
    /// Of recent items, how many, x 1,024.
    recent: u64,
    /// Of those, how many overflowed and started cold, x 1,024.
    recent_cold: u64,
}

const FIXED: u64 = 1_024;

impl LateBudget {
    /// Nothing seen.
    pub fn new(budget_ppm: u32) -> Self {
        Self { budget_ppm, items: 0, risked: 0, late: 0, recent: 0, recent_cold: 0 }
    }

    /// An item arrived.
    pub fn item(&mut self) {
        self.items += 1;
        self.recent += FIXED - self.recent / MEMORY_ITEMS;
        self.recent_cold -= self.recent_cold.div_ceil(MEMORY_ITEMS);
    }

    /// One overflowed and started cold, with this chance of being late (see [`Patience::late_ppm`]). One that did
    /// not wait first is not at risk by its patience.
    pub fn overflowed_cold(&mut self, late_ppm: u32, waited: bool) {
        self.risked = self.risked.saturating_add(u64::from(late_ppm));
        self.recent_cold += if waited { FIXED } else { 0 };
    }

    /// One did start later than allowed, for whatever reason.
    pub fn was_late(&mut self) {
        self.late += 1;
    }

    /// Items at risk, ppm: measured over recent items, and all of them before any was seen.
    pub fn at_risk_ppm(&self) -> u32 {
        let of = self.recent + PRIOR_ITEMS * FIXED;
        let cold = self.recent_cold + PRIOR_ITEMS * FIXED;
        u32::try_from(cold.saturating_mul(PPM).div_ceil(of)).unwrap_or(u32::MAX).clamp(1, 1_000_000)
    }

    /// The share of overflowing cold starts that may be late now, ppm.
    fn affordable_ppm(&self) -> u32 {
        let budget = u64::from(self.budget_ppm) * AIM_PPM / PPM;
        let share = budget * PPM / u64::from(self.at_risk_ppm());
        // What the budget has grown to, against what was risked already, or what came of it.
        let saved = (self.items + 1).saturating_mul(budget);
        let spent = self.risked.max(self.late.saturating_mul(PPM));
        let open = if spent >= saved { budget / 2 } else { share };
        u32::try_from(open.min(PPM)).unwrap_or(u32::MAX)
    }
}

/// How long an item that is allowed to wait for `allowed_us` waits before it overflows.
pub fn patience(allowed_us: u64, cold: &DelayTable, budget: &LateBudget) -> Patience {
    let affordable_ppm = budget.affordable_ppm();
    let quantile_ppm = 1_000_000_u32.saturating_sub(affordable_ppm);
    let cold_us = cold.at(quantile_ppm);
    let wait_us = allowed_us.saturating_sub(cold_us);
    let late_ppm = cold.longer_than(allowed_us - wait_us.min(allowed_us));
    Patience { wait_us, cold_us, quantile_ppm, at_risk_ppm: budget.at_risk_ppm(), late_ppm }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn containers() -> DelayTable {
        let s = 1_000_000;
        DelayTable::new(vec![(0, 8 * s), (500_000, 16 * s), (900_000, 30 * s), (990_000, 60 * s), (1_000_000, 120 * s)])
    }

    #[test]
    fn a_table_is_read_both_ways() {
        let table = containers();
        assert_eq!(
            [table.at(0), table.at(500_000), table.at(995_000), table.at(1_000_000)],
            [8_000_000, 16_000_000, 90_000_000, 120_000_000]
        );
        for ppm in [1, 250_000, 900_000, 991_000, 999_999] {
            let longer = table.longer_than(table.at(ppm));
            assert!((1_000_000 - ppm).abs_diff(longer) <= 1, "{ppm}: {longer}");
        }
        assert_eq!((table.longer_than(120_000_000), table.longer_than(1)), (0, 1_000_000));
        assert_eq!(table.mean(), (12 * 5 + 23 * 4) * 100_000 + 45 * 90_000 + 90 * 10_000);
    }

    #[test]
    fn where_everything_overflows_the_margin_is_the_budgets_quantile() {
        let allowed = 180_000_000;
        let first = patience(allowed, &containers(), &LateBudget::new(LATE_BUDGET_PPM));
        assert_eq!((first.quantile_ppm, first.cold_us, first.late_ppm), (999_300, 115_800_000, 700));
        let said = "waits 64.2 s for a slot: a start elsewhere takes 115.8 s at the 99.93th percentile, and 100.00 % of items \
                    need one";
        assert_eq!(first.to_string(), said);
        let mut seldom = LateBudget::new(LATE_BUDGET_PPM);
        (0..100_000).for_each(|_| seldom.item());
        let later = patience(allowed, &containers(), &seldom);
        assert!(later.wait_us > 120_000_000 && later.at_risk_ppm < 50_000, "{later:?}");
    }

    #[test]
    fn an_allowed_wait_shorter_than_a_cold_start_leaves_no_patience() {
        let none = patience(1_000_000, &containers(), &LateBudget::new(LATE_BUDGET_PPM));
        assert_eq!((none.wait_us, none.late_ppm), (0, 1_000_000), "nothing helps: it goes at once");
    }

    /// Whatever share overflows, and however it changes, what is risked stays inside the budget.
    #[test]
    fn what_is_risked_stays_inside_the_budget() {
        for seed in 0..40_u64 {
            let mut budget = LateBudget::new(LATE_BUDGET_PPM);
            for at in 0..50_000_u64 {
                budget.item();
                let now = patience(180_000_000, &containers(), &budget);
                let burst = at / (500 + 97 * seed) % 2 == 1 || seed % 5 == 0;
                if burst && (at * 7919) % 100 < 20 + 2 * seed {
                    budget.overflowed_cold(now.late_ppm, true);
                }
            }
            assert!(budget.risked <= 50_000 * u64::from(LATE_BUDGET_PPM) * 11 / 10, "seed {seed}: {budget:?}");
        }
    }
}
