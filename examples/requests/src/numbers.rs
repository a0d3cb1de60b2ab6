//! Numbers: times are whole microseconds inside and seconds in files; quantiles are nearest-rank.

/// Microseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000;
/// Microseconds in a minute.
pub(crate) const MINUTE: u64 = 60 * SECOND;

/// A count or a number of microseconds as a float. Exact below 2^53, far above any log here.
#[expect(clippy::cast_precision_loss, reason = "logs are at most a month of microseconds, well below 2^53")]
pub(crate) fn float(value: u64) -> f64 {
    value as f64
}

/// Seconds, rounded to the millisecond, for files and people.
pub(crate) fn seconds(micros: u64) -> f64 {
    rounded(float(micros) / float(SECOND))
}

/// Three decimals: enough for milliseconds and for servers, and keeps the files small.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// A length as a count for files.
pub(crate) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// A bin number as an index. Logs are bounded when read, so nothing saturates in practice.
pub(crate) fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// The 1-based nearest rank of a percentile among `count` values: the smallest rank that has at
/// least `percent` % of the values at or below it.
pub(crate) fn rank(percent: usize, count: usize) -> usize {
    (percent * count).div_ceil(100).max(1)
}

/// The nearest-rank percentile (0 for no values). Reorders `values`.
pub(crate) fn percentile(values: &mut [u64], percent: usize) -> u64 {
    if values.is_empty() {
        return 0;
    }
    let position = rank(percent, values.len()).min(values.len()) - 1;
    *values.select_nth_unstable(position).1
}

/// `12345` as `12,345`.
pub(crate) fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let mut values: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(percentile(&mut values, 50), 50);
        assert_eq!(percentile(&mut values, 99), 99);
        assert_eq!(percentile(&mut values, 100), 100);
        assert_eq!(percentile(&mut [7, 3], 50), 3);
        assert_eq!(percentile(&mut [7, 3], 51), 7);
        assert_eq!(percentile(&mut [], 99), 0);
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(19_366), "19,366");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }
}
