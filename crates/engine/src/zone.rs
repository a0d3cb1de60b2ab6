//! Time zones by their names, from the tz database that is compiled in: the same on every machine, and nothing is read.

use jiff::tz::TimeZoneDatabase;
use skein_domain::Timestamp;

/// Seconds that a zone's clocks are ahead of UTC at a moment; nothing when there is no such zone.
pub(crate) fn ahead_s(name: &str, at: Timestamp) -> Option<i32> {
    let zone = TimeZoneDatabase::bundled().get(name).ok()?;
    let at = jiff::Timestamp::from_microsecond(at.0).ok()?;
    Some(zone.to_offset(at).seconds())
}

/// Is there a zone of this name?
pub fn is_zone(name: &str) -> bool {
    TimeZoneDatabase::bundled().get(name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_ahead_by_more_in_summer() {
        // 2026-01-15 and 2026-07-15, noon UTC.
        let (winter, summer) = (Timestamp(1_768_478_400_000_000), Timestamp(1_784_116_800_000_000));
        let both = |zone| [winter, summer].map(|at| ahead_s(zone, at));
        assert_eq!(both("Europe/Paris"), [Some(3_600), Some(7_200)]);
        assert_eq!(both("America/New_York"), [Some(-18_000), Some(-14_400)]);
        assert_eq!(both("UTC"), [Some(0); 2]);
        assert_eq!(both("Europe/Parris"), [None; 2]);
    }
}
