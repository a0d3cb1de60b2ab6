//! Traces from a seed, for what the real ones do not show. The same seed gives the same trace, but for the last
//! digit of a logarithm, which libraries round in their own ways.

use crate::SECOND_US;
use crate::quantiles::{float, whole};
use crate::trace::Item;

/// How work comes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// At a steady rate.
    Steady,
    /// As a wave over each day: the rate at its peak is so many times that at its low.
    Daily {
        /// Peak over low.
        swing: f64,
    },
    /// Steady, and for some minutes every few hours so many times as much.
    Flash {
        /// How many times.
        times: f64,
    },
    /// In groups that arrive together: a user sends a whole batch.
    Batches {
        /// Mean items of one.
        size: f64,
    },
}

/// How long items last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lengths {
    /// Exponentially spread around a mean.
    Exponential {
        /// Mean, s.
        mean_s: f64,
    },
    /// Heavy-tailed (Pareto) between two ends.
    Heavy {
        /// Shortest, s.
        least_s: f64,
        /// Longest, s.
        most_s: f64,
        /// The smaller, the heavier.
        shape: f64,
    },
}

/// A trace to be made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recipe {
    /// Where its numbers begin.
    pub seed: u64,
    /// How many items.
    pub items: u32,
    /// Over how long, s.
    pub span_s: f64,
    /// How they come.
    pub arrivals: Arrivals,
    /// How long they last.
    pub lengths: Lengths,
}

/// `SplitMix64` (Steele, Lea and Flood, 2014): few lines, and the same in any language.
struct Dice(u64);

impl Dice {
    /// Between 0 and 1, neither included.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        (float(i64::try_from(mixed >> 12).unwrap_or(0)) + 0.5) / 4_503_599_627_370_496.0
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.share().ln()
    }

    fn length_s(&mut self, lengths: Lengths) -> f64 {
        match lengths {
            Lengths::Exponential { mean_s } => self.exponential(mean_s).max(0.01),
            Lengths::Heavy { least_s, most_s, shape } => {
                let (low, high) = (least_s.powf(-shape), most_s.powf(-shape));
                (low - self.share() * (low - high)).powf(-1.0 / shape)
            }
        }
    }
}

/// Makes a trace.
pub fn generate(recipe: &Recipe) -> Vec<Item> {
    let mut dice = Dice(recipe.seed);
    let mut items = Vec::new();
    let all = usize::try_from(recipe.items).unwrap_or(usize::MAX);
    while items.len() < all {
        let at_s = dice.share() * recipe.span_s;
        if dice.share() > chance(recipe.arrivals, at_s) {
            continue;
        }
        let together = match recipe.arrivals {
            Arrivals::Batches { size } => whole(dice.exponential(size).ceil()).max(1),
            _ => 1,
        };
        for _ in 0..together {
            // A batch is sent within a few seconds.
            let arrival_s = at_s + if together > 1 { dice.share() * 5.0 } else { 0.0 };
            let lasts_s = dice.length_s(recipe.lengths);
            items.push(Item { arrival_us: us(arrival_s), lasts_us: us(lasts_s).max(1) });
        }
    }
    items.truncate(all);
    items.sort_by_key(|item| item.arrival_us);
    let first = items.first().map_or(0, |item| item.arrival_us);
    for item in &mut items {
        item.arrival_us -= first;
    }
    items
}

/// Rate at a moment as a share of the most.
fn chance(arrivals: Arrivals, at_s: f64) -> f64 {
    const DAY_S: f64 = 86_400.0;
    const FLASH_EVERY_S: f64 = 10_800.0;
    const FLASH_S: f64 = 300.0;
    match arrivals {
        Arrivals::Daily { swing } => {
            let wave = f64::midpoint(1.0, -(at_s / DAY_S * std::f64::consts::TAU).cos());
            (1.0 + wave * (swing - 1.0)) / swing
        }
        Arrivals::Flash { times } if at_s % FLASH_EVERY_S > FLASH_S => 1.0 / times,
        Arrivals::Steady | Arrivals::Batches { .. } | Arrivals::Flash { .. } => 1.0,
    }
}

fn us(seconds: f64) -> i64 {
    whole(seconds * float(SECOND_US))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::concurrency;

    #[test]
    fn a_seed_gives_one_trace_in_order_with_the_lengths_asked_for() {
        let lengths = Lengths::Heavy { least_s: 10.0, most_s: 1_000.0, shape: 0.5 };
        let recipe =
            Recipe { seed: 1, items: 5_000, span_s: 90_000.0, arrivals: Arrivals::Flash { times: 30.0 }, lengths };
        let items = generate(&recipe);
        assert_eq!(items, generate(&recipe));
        assert_ne!(items, generate(&Recipe { seed: 2, ..recipe }));
        assert_eq!(items.len(), 5_000);
        assert!(items[0].arrival_us == 0 && items.is_sorted_by_key(|item| item.arrival_us));
        assert!(items.iter().all(|item| (9_999_999..=1_000_000_001).contains(&item.lasts_us)));
        // Bounded Pareto: half of them are below 1 / (midpoint of the ends' roots) squared.
        let median = 4.0 / (10.0_f64.powf(-0.5) + 1_000.0_f64.powf(-0.5)).powi(2);
        let below = items.iter().filter(|item| float(item.lasts_us) < median * 1e6).count();
        assert!(below.abs_diff(2_500) < 150, "{below}");
        let peak = concurrency(items.iter().copied()).into_iter().map(|(_, at_once)| at_once).max().unwrap();
        let mean = items.iter().map(|item| item.lasts_us).sum::<i64>() / us(recipe.span_s);
        assert!(peak > 4 * mean, "{peak} at most, {mean} in the mean");
    }
}
