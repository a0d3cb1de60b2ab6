//! Money, time and content identity. Integers only: what is compared or stored is never a float.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// Money in nano-USD (1 USD = 1,000,000,000). Rates are per hour, GB-second or request; a charge
/// is rounded up once, when it is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NanoUsd(pub i64);

impl NanoUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// `rate` x `amount` / `per`, rounded up to a nano-USD, saturating at the ends of `i64`.
    pub fn charge(rate: Self, amount: u64, per: u64) -> Self {
        let per = i128::from(per.max(1));
        let total = i128::from(rate.0) * i128::from(amount);
        let rounded = total.div_euclid(per) + i128::from(total.rem_euclid(per) != 0);
        Self(i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX }))
    }

    /// As US dollars, for showing only.
    #[expect(clippy::cast_precision_loss, reason = "shown, never compared or stored")]
    pub fn usd(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl Add for NanoUsd {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}
impl AddAssign for NanoUsd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
impl Sub for NanoUsd {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = match self.0.abs() {
            0 => 2,
            1..=999_999 => 9,
            1_000_000..=99_999_999 => 6,
            _ => 4,
        };
        f.pad(&format!("${:.decimals$}", self.usd()))
    }
}

/// Microseconds since the Unix epoch. The clock that makes it lives at the rim.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The moment `ms` milliseconds later, saturating.
    pub fn after_ms(self, ms: u64) -> Self {
        let us = i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1000);
        Self(self.0.saturating_add(us))
    }
    /// Whole microseconds since an earlier moment; 0 when it is later.
    pub fn us_since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// Milliseconds from `earlier` to here; 0 when the clock went backwards.
    pub fn ms_since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0) / 1000).unwrap_or(0)
    }
}

impl fmt::Display for Timestamp {
    /// As RFC 3339 writes it, to the second, UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(1_000_000);
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Years begin in March here, so that a leap day is the last of its year; 400 years have 146,097 days.
        let from_march = days + 719_468;
        let (era, day) = (from_march.div_euclid(146_097), from_march.rem_euclid(146_097));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let of_year = day - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let of_month = of_year - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let (hour, minute) = (second / 3_600, second / 60 % 60);
        let year = era * 400 + year + next;
        f.pad(&format!("{year:04}-{month:02}-{of_month:02}T{hour:02}:{minute:02}:{:02}Z", second % 60))
    }
}

/// BLAKE3 of some content, 64 hexadecimal digits: the address of a file in the content folder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Digest(std::sync::Arc<str>);

impl Digest {
    /// Checks that `text` is 64 lower-case hexadecimal digits (so it can name a file safely).
    pub fn new(text: &str) -> Result<Self, crate::id::BadId> {
        let hex = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if hex && text.len() == 64 {
            return Ok(Self(text.into()));
        }
        Err(crate::id::BadId {
            given: text.chars().take(80).collect(),
            what: "digest",
            rule: "a BLAKE3 digest is 64 digits 0-9a-f",
        })
    }
    /// The 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0[..12])
    }
}
impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_rounds_up_once_and_saturates() {
        assert_eq!(NanoUsd::charge(NanoUsd(42_500_000), 1000, 3_600_000), NanoUsd(11806));
        assert_eq!(NanoUsd::charge(NanoUsd(1), 1, 3_600_000), NanoUsd(1));
        assert_eq!(NanoUsd::charge(NanoUsd(0), 5, 7), NanoUsd::ZERO);
        assert_eq!(NanoUsd::charge(NanoUsd(i64::MAX), u64::MAX, 1), NanoUsd(i64::MAX));
    }

    #[test]
    fn a_clock_that_went_backwards_counts_as_no_time() {
        assert_eq!(Timestamp(5).ms_since(Timestamp(9_000_000)), 0);
        assert_eq!(Timestamp(9_000_000).ms_since(Timestamp(0)), 9000);
    }
}
