//! Projection of a series of measured values [0071]: what it will be a fixed number of points ahead.
//!
//! Six cheap models look at every value; the one whose recent error was least answers. Measured on real
//! series, no single one of them wins, and what wins costs nothing more to keep. A bound for each side comes
//! from the recent errors of the model that answers: the share of errors below it is moved up after every miss
//! and down after every hit (Gibbs and Candès, "Adaptive conformal inference under distribution shift", 2021),
//! so that it holds the stated share also when the series changes its habits.
//!
//! ```text
//! value --observe--> every model's guess for now is scored --> least recent error --forecast--> integers
//! ```
//! Floating point stays inside: what comes in and goes out is an integer in the caller's unit. Only sums,
//! products and quotients are used, which are the same bits on every machine.

mod errors;
mod models;

use std::collections::VecDeque;

use errors::{Bound, Errors};
pub use models::Model;
use models::{MODELS, Models};

/// Share of values that a bound holds, ppm.
pub const BOUND_PPM: u32 = 900_000;
/// Most points of a day: one a second.
pub const DAY_POINTS_MAX: usize = 86_400;
/// Most points of a week.
pub const WEEK_POINTS_MAX: usize = 7 * DAY_POINTS_MAX;
/// Days of errors that choose the model: long enough that a model is not dropped for one bad hour.
const CHOICE_DAYS: usize = 4;
/// Days of errors that the bounds are made of.
const BOUND_DAYS: usize = 2;

/// How a series is measured, in points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Season {
    /// Points of a day.
    pub day: usize,
    /// Points of a week.
    pub week: usize,
    /// How far ahead is asked for, points.
    pub horizon: usize,
}

impl Season {
    /// A series with a value every `every_s` seconds, asked for `ahead_s` seconds ahead. Held inside
    /// [`DAY_POINTS_MAX`]; at least one point each.
    pub fn new(every_s: u32, ahead_s: u32) -> Self {
        let every = every_s.max(1);
        let points = |seconds: u32| usize::try_from(seconds / every).unwrap_or(DAY_POINTS_MAX).max(1);
        let (day, week) = (points(86_400).min(DAY_POINTS_MAX), points(604_800).min(WEEK_POINTS_MAX));
        Self { day, week, horizon: points(ahead_s).min(week) }
    }
}

/// What is expected of a series, in the unit of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// Which model says so.
    pub model: Model,
    /// The expected value.
    pub value: i64,
    /// Below this with a share of [`BOUND_PPM`].
    pub upper: i64,
    /// Above this with a share of [`BOUND_PPM`].
    pub lower: i64,
    /// How well this was done so far.
    pub accuracy: Accuracy,
    /// Recent error of every model that had a guess: sum of errors over sum of values, ppm.
    pub recent: Vec<(Model, u64)>,
}

/// How good past forecasts were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accuracy {
    /// Forecasts whose moment has come.
    pub scored: u64,
    /// Sum of their errors over the sum of the values (WAPE), ppm.
    pub wape_ppm: u64,
    /// Values that were not above the upper bound, ppm.
    pub upper_held_ppm: u64,
    /// Values that were not below the lower bound, ppm.
    pub lower_held_ppm: u64,
}

/// What was said about a moment that has not come.
#[derive(Debug, Clone)]
struct Said {
    guesses: [Option<f64>; MODELS.len()],
    value: f64,
    upper: f64,
    lower: f64,
}

/// Looks at one series and forecasts it.
#[derive(Debug, Clone)]
pub struct Forecaster {
    season: Season,
    models: Models,
    errors: [Errors; MODELS.len()],
    upper: Bound,
    lower: Bound,
    said: VecDeque<Said>,
    scored: u64,
    wrong_sum: f64,
    value_sum: f64,
    upper_held: u64,
    lower_held: u64,
}

impl Forecaster {
    /// Nothing seen yet.
    pub fn new(season: Season) -> Self {
        let kept = season.day.saturating_mul(BOUND_DAYS).max(2);
        let memory = season.day.saturating_mul(CHOICE_DAYS).max(2);
        Self {
            season,
            models: Models::new(season),
            errors: std::array::from_fn(|_| Errors::new(kept, memory)),
            upper: Bound::new(),
            lower: Bound::new(),
            said: VecDeque::new(),
            scored: 0,
            wrong_sum: 0.0,
            value_sum: 0.0,
            upper_held: 0,
            lower_held: 0,
        }
    }

    /// The next value of the series.
    pub fn observe(&mut self, value: i64) {
        let value = float(value);
        if self.said.len() >= self.season.horizon
            && let Some(said) = self.said.pop_front()
        {
            self.score(&said, value);
        }
        self.models.observe(value);
        let said = self.say();
        self.said.push_back(said);
    }

    /// What is expected [`Season::horizon`] points after the last value; nothing before the first.
    pub fn forecast(&self) -> Option<Forecast> {
        let said = self.said.back()?;
        let model = self.best(&said.guesses)?;
        let recent = MODELS
            .iter()
            .zip(&self.errors)
            .filter_map(|(model, errors)| Some((*model, unsigned(errors.recent_share()? * 1e6))));
        Some(Forecast {
            model: MODELS[model],
            value: integer(said.value),
            upper: integer(said.upper),
            lower: integer(said.lower),
            accuracy: self.accuracy(),
            recent: recent.collect(),
        })
    }

    /// How well this was done so far.
    pub fn accuracy(&self) -> Accuracy {
        let ppm = |part: u64| part.saturating_mul(1_000_000).checked_div(self.scored).unwrap_or(0);
        Accuracy {
            scored: self.scored,
            wape_ppm: if self.value_sum > 0.0 { unsigned(self.wrong_sum / self.value_sum * 1e6) } else { 0 },
            upper_held_ppm: ppm(self.upper_held),
            lower_held_ppm: ppm(self.lower_held),
        }
    }

    fn score(&mut self, said: &Said, value: f64) {
        for (errors, guess) in self.errors.iter_mut().zip(said.guesses) {
            if let Some(guess) = guess {
                errors.add(value - guess, value);
            }
        }
        self.scored += 1;
        self.wrong_sum += (value - said.value).abs();
        self.value_sum += value.abs();
        self.upper_held += u64::from(self.upper.learn(value <= said.upper));
        self.lower_held += u64::from(self.lower.learn(value >= said.lower));
    }

    fn say(&self) -> Said {
        let guesses = self.models.guesses();
        let best = self.best(&guesses).unwrap_or(0);
        let value = guesses[best].unwrap_or(0.0);
        let errors = &self.errors[best];
        // The lower bound is the upper one of the errors turned round.
        Said {
            guesses,
            value,
            upper: value + errors.at_share(self.upper.share()),
            lower: value + errors.at_share(1.0 - self.lower.share()),
        }
    }

    /// The model with a guess and the least recent error; the first of equals. One that was never scored
    /// only answers when none was.
    fn best(&self, guesses: &[Option<f64>; MODELS.len()]) -> Option<usize> {
        let candidates = (0..MODELS.len()).filter(|at| guesses[*at].is_some());
        candidates.min_by(|a, b| {
            let of = |at: usize| self.errors[at].recent().unwrap_or(f64::MAX);
            of(*a).total_cmp(&of(*b))
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a projection; values beyond 2^53 lose what no model knows")]
fn float(value: i64) -> f64 {
    value as f64
}

#[expect(clippy::cast_possible_truncation, reason = "the one place where a projection is quantised; saturates")]
fn integer(value: f64) -> i64 {
    value.round() as i64
}

fn unsigned(value: f64) -> u64 {
    u64::try_from(integer(value)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
