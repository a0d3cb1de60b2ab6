//! Randomness from a seed.

use skein_domain::testing::Random;

/// The same numbers on every machine.
#[derive(Debug, Clone)]
pub struct Dice(Random);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }
    /// Less than `most`, which is at least 1.
    pub fn below(&mut self, most: u64) -> u64 {
        self.0.below(most)
    }
    /// True `of_1000` times of a thousand.
    pub fn chance(&mut self, of_1000: u64) -> bool {
        self.below(1000) < of_1000
    }
}
