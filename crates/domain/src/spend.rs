//! What was spent: by month, user and solution, from what ended attempts cost.
//!
//! A month is a civil month in UTC, the one in which the attempt ended. What is open counts towards the month of
//! now: that is when it is about to end.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{SolutionId, UserName};
use crate::quantity::{NanoUsd, Timestamp};

/// Months that are looked at, the newest in which something was spent included; the ledger keeps older ones too.
pub const MONTHS_MAX: i32 = 13;

const DAY_US: i64 = 86_400_000_000;

/// A civil month in UTC: months since January of the year 0 (proleptic Gregorian).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Month(pub i32);

impl Month {
    /// The month of a moment.
    pub fn of(at: Timestamp) -> Self {
        // Days to civil date (H. Hinnant, "chrono-compatible low-level date algorithms"): eras of 400 years that
        // begin in March, so that a leap day is the last day of its year.
        let days = at.0.div_euclid(DAY_US) + 719_468;
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let since_march = (5 * of_year + 2) / 153;
        let month = (era * 400 + year) * 12 + since_march + 2;
        Self(i32::try_from(month).unwrap_or(i32::MAX))
    }

    /// Its first moment.
    pub fn start(self) -> Timestamp {
        // The same, backwards.
        let (year, month) = (i64::from(self.0).div_euclid(12), i64::from(self.0).rem_euclid(12));
        let since_march = (month + 10) % 12;
        let year = if month < 2 { year - 1 } else { year };
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let of_year = (153 * since_march + 2) / 5;
        let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
        Timestamp(days.saturating_mul(DAY_US))
    }

    /// The month after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:04}-{:02}", self.0.div_euclid(12), self.0.rem_euclid(12) + 1))
    }
}

/// When, by whom, where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SpentKey {
    /// In which month.
    pub month: Month,
    /// By whom.
    pub user: UserName,
    /// Where.
    pub solution: SolutionId,
}

/// What was spent in the last [`MONTHS_MAX`] months.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spent(BTreeMap<SpentKey, NanoUsd>);

impl FromIterator<(SpentKey, NanoUsd)> for Spent {
    fn from_iter<T: IntoIterator<Item = (SpentKey, NanoUsd)>>(all: T) -> Self {
        let mut spent = Self(all.into_iter().collect());
        spent.forget();
        spent
    }
}

impl Spent {
    /// Adds what an attempt cost. What costs nothing leaves no trace.
    pub(crate) fn add(&mut self, key: SpentKey, cost: NanoUsd) {
        if cost > NanoUsd::ZERO {
            *self.0.entry(key).or_default() += cost;
            self.forget();
        }
    }

    /// Leaves out months that nobody asks for any more.
    fn forget(&mut self) {
        let Some(newest) = self.0.last_key_value().map(|(key, _)| key.month) else { return };
        let old = |key: &SpentKey| key.month.0 <= newest.0.saturating_sub(MONTHS_MAX);
        while self.0.first_key_value().is_some_and(|(key, _)| old(key)) {
            self.0.pop_first();
        }
    }

    /// What was spent there.
    pub fn of(&self, key: &SpentKey) -> NanoUsd {
        self.0.get(key).copied().unwrap_or_default()
    }

    /// Everything, oldest month first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&SpentKey, NanoUsd)> {
        self.0.iter().map(|(key, cost)| (key, *cost))
    }

    /// What was spent in a month. Newest first, so this reads what it gives, not what there was before.
    pub fn in_month(&self, month: Month) -> impl Iterator<Item = (&SpentKey, NanoUsd)> {
        let newest = self.iter().rev().skip_while(move |(key, _)| key.month > month);
        newest.take_while(move |(key, _)| key.month == month)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::name;

    fn at(second: i64) -> Timestamp {
        Timestamp(second * 1_000_000)
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        // Seconds as `date -u -d '2024-02-29' +%s` gives them.
        for (second, month) in [
            (0, "1970-01"),
            (-1, "1969-12"),
            (951_782_400, "2000-02"),   // 2000-02-29, a leap year
            (1_709_164_800, "2024-02"), // 2024-02-29
            (1_709_251_199, "2024-02"), // its last second
            (1_709_251_200, "2024-03"),
            (1_735_689_599, "2024-12"),
            (1_735_689_600, "2025-01"),
            (4_107_542_400, "2100-03"), // 2100 is no leap year: the day after 28 February
        ] {
            assert_eq!(Month::of(at(second)).to_string(), month, "{second}");
        }
    }

    #[test]
    fn a_month_goes_from_its_start_to_the_next_ones() {
        for number in -5_000..40_000 {
            let month = Month(number);
            let (start, end) = (month.start(), month.next().start());
            assert_eq!((Month::of(start), Month::of(Timestamp(end.0 - 1))), (month, month));
            assert!((28..=31).contains(&((end.0 - start.0) / DAY_US)), "{month}");
        }
    }

    #[test]
    fn only_so_many_months_are_looked_at_whether_added_or_loaded() {
        let key = |month| SpentKey { month: Month(month), user: name("u"), solution: name("s") };
        let mut added = Spent::default();
        for month in 0..40 {
            added.add(key(month), NanoUsd(1));
        }
        assert_eq!(added.iter().count(), MONTHS_MAX as usize);
        assert_eq!((0..40).map(|month| (key(month), NanoUsd(1))).collect::<Spent>(), added);
        assert_eq!(added.in_month(Month(39)).count(), 1);
        assert_eq!(added.in_month(Month(40)).count(), 0);
    }
}
