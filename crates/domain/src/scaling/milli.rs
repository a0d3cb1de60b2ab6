//! Values of metrics: thousandths, so that nothing that decides is a float.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value of a metric in thousandths of its unit. In files it is a number with at most three decimals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Milli(pub i64);

/// Beyond this, a number in a file is not exact to a thousandth any more.
const UNITS_MAX: i64 = 1_000_000_000_000;

impl Milli {
    /// So many whole units.
    pub fn units(units: i64) -> Self {
        Self(units.saturating_mul(1000))
    }

    /// From a number of a file, rounded to thousandths. None: too large, or no number.
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the range is checked before")]
    pub fn from_number(number: f64) -> Option<Self> {
        (number.abs() <= UNITS_MAX as f64).then(|| Self((number * 1000.0).round() as i64))
    }

    /// As a number of a file.
    #[expect(clippy::cast_precision_loss, reason = "within the range that is read")]
    pub fn to_number(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

impl fmt::Display for Milli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, units, rest) =
            (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs() / 1000, self.0.unsigned_abs() % 1000);
        let text = format!("{sign}{units}.{rest:03}");
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl Serialize for Milli {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 1000 == 0 {
            serializer.serialize_i64(self.0 / 1000)
        } else {
            serializer.serialize_f64(self.to_number())
        }
    }
}

impl<'de> Deserialize<'de> for Milli {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        Self::from_number(number)
            .ok_or_else(|| serde::de::Error::custom(format!("{number} is larger than {UNITS_MAX}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_a_file_is_kept_to_a_thousandth() {
        for text in ["0", "70", "-2", "0.5", "12.345", "-0.001", "1000000000000"] {
            let value: Milli = serde_json::from_str(text).unwrap();
            assert_eq!((value.to_string().as_str(), serde_json::to_string(&value).unwrap().as_str()), (text, text));
        }
        assert_eq!(serde_json::from_str::<Milli>("0.0006").unwrap(), Milli(1));
        assert!(serde_json::from_str::<Milli>("1e13").is_err());
    }
}
