//! Delays that look measured and are never random.

use crate::SECOND_US;

/// The golden ratio's fraction: its multiples fill 0 to 1 evenly, in any language the same.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// A table of quantiles of a delay, and how many were read from it.
#[derive(Debug, Clone)]
pub struct Quantiles {
    /// Share (0 to 1) and the delay that this share does not exceed, us; both ascending.
    points: Vec<(f64, f64)>,
    read: u32,
}

impl Quantiles {
    /// From shares and seconds.
    pub fn new(table: &[(f64, f64)]) -> Self {
        Self { points: table.iter().map(|(share, s)| (*share, s * 1e6)).collect(), read: 0 }
    }

    /// The next delay, us.
    pub fn draw(&mut self) -> i64 {
        self.read += 1;
        whole(self.at((f64::from(self.read) * GOLDEN).fract()))
    }

    /// The delay that a share does not exceed, us.
    pub(crate) fn at(&self, share: f64) -> f64 {
        let last = self.points.last().map_or(0.0, |(_, us)| *us);
        let pair = self.points.windows(2).find(|pair| share <= pair[1].0);
        pair.map_or(last, |pair| {
            let ((a, from), (b, to)) = (pair[0], pair[1]);
            from + (to - from) * (share - a) / (b - a)
        })
    }

    /// The longest delay, us.
    pub(crate) fn most(&self) -> i64 {
        whole(self.points.last().map_or(0.0, |(_, us)| *us))
    }

    /// Mean delay, us.
    pub fn mean(&self) -> f64 {
        self.points.windows(2).map(|pair| (pair[1].0 - pair[0].0) * f64::midpoint(pair[0].1, pair[1].1)).sum()
    }

    /// The table as integers: ppm and us.
    pub fn table(&self) -> Vec<(u32, u64)> {
        let ppm = |share: f64| u32::try_from(whole(share * 1e6)).unwrap_or(0);
        self.points.iter().map(|(share, us)| (ppm(*share), u64::try_from(whole(*us)).unwrap_or(0))).collect()
    }
}

/// Nearest whole number.
#[expect(clippy::cast_possible_truncation, reason = "rounded first; saturates, and delays are far from the ends")]
pub(crate) fn whole(value: f64) -> i64 {
    value.round() as i64
}

/// As a float, for figures that are shown.
#[expect(clippy::cast_precision_loss, reason = "for figures; 2^53 us are 285 years")]
pub(crate) fn float(value: i64) -> f64 {
    value as f64
}

/// Seconds as microseconds.
pub(crate) fn us(seconds: f64) -> i64 {
    whole(seconds * float(SECOND_US))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_follow_their_table_in_a_fixed_order() {
        let mut delays = Quantiles::new(&[(0.0, 10.0), (0.5, 20.0), (1.0, 100.0)]);
        assert_eq!([delays.draw(), delays.draw()], [38_885_438, 14_721_360], "u = 0.618..., 0.236...");
        assert!((delays.mean() - 37.5e6).abs() < 1.0);
        let mut drawn: Vec<i64> = (0..1_000).map(|_| delays.draw()).collect();
        drawn.sort_unstable();
        assert!((drawn[499] - 20_000_000).abs() < 200_000, "the median is the table's");
    }
}
