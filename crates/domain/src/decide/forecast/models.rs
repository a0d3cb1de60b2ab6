//! The six models. Each says what the series will be `horizon` points after its last value.

use std::collections::VecDeque;
use std::fmt;

use super::Season;

/// One way to guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Model {
    /// As now.
    Last,
    /// As at this time of the day before.
    Daily,
    /// As at this time of the week before.
    Weekly,
    /// As of late: the newer, the more it counts.
    Ewma,
    /// Between now and the day before.
    LastAndDaily,
    /// Level, trend and time of day (Holt and Winters, additive).
    HoltWinters,
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Last => "last",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Ewma => "ewma",
            Self::LastAndDaily => "last and daily",
            Self::HoltWinters => "holt-winters",
        })
    }
}

/// All of them, the simplest first: the first of equals answers.
pub(super) const MODELS: [Model; 6] =
    [Model::Last, Model::Daily, Model::Weekly, Model::Ewma, Model::LastAndDaily, Model::HoltWinters];

/// Weight of the newest value in a level.
const ALPHA: f64 = 0.3;
/// Weight of the newest change in the trend.
const BETA: f64 = 0.01;
/// Weight of the newest value in its time of day.
const GAMMA: f64 = 0.3;

/// What the models keep of a series.
#[derive(Debug, Clone)]
pub(super) struct Models {
    season: Season,
    /// The last week's values and the one before them, newest last.
    values: VecDeque<f64>,
    ewma: f64,
    winters: Option<HoltWinters>,
}

#[derive(Debug, Clone)]
struct HoltWinters {
    level: f64,
    trend: f64,
    times: Vec<f64>,
    /// Time of day of the last value.
    at: usize,
}

impl Models {
    pub(super) fn new(season: Season) -> Self {
        Self { season, values: VecDeque::new(), ewma: 0.0, winters: None }
    }

    pub(super) fn observe(&mut self, value: f64) {
        if self.values.is_empty() {
            self.ewma = value;
        }
        self.ewma += ALPHA * (value - self.ewma);
        match &mut self.winters {
            Some(winters) => winters.observe(value),
            None if self.values.len() + 1 == self.season.day => {
                let day = self.values.iter().copied().chain([value]);
                self.winters = Some(HoltWinters::new(day.collect()));
            }
            None => {}
        }
        self.values.push_back(value);
        if self.values.len() > self.season.week + 1 {
            self.values.pop_front();
        }
    }
}

impl Models {
    /// What each says, in the order of [`MODELS`]; nothing where the series is too short for it.
    pub(super) fn guesses(&self) -> [Option<f64>; MODELS.len()] {
        let Season { day, week, horizon } = self.season;
        let last = self.values.back().copied();
        // The newest value at the same time of day, of week: a whole number of days before the moment asked for.
        let daily = self.before((day * horizon.div_ceil(day)).saturating_sub(horizon));
        let weekly = self.before(week.saturating_sub(horizon));
        MODELS.map(|model| match model {
            Model::Last => last,
            Model::Daily => daily,
            Model::Weekly => weekly,
            Model::Ewma => last.map(|_| self.ewma),
            Model::LastAndDaily => Some(f64::midpoint(last?, daily?)),
            Model::HoltWinters => self.winters.as_ref().map(|w| w.ahead(horizon)),
        })
    }

    /// The value so many points before the last.
    fn before(&self, points: usize) -> Option<f64> {
        let at = self.values.len().checked_sub(points + 1)?;
        self.values.get(at).copied()
    }
}

impl HoltWinters {
    /// From the first day.
    fn new(day: Vec<f64>) -> Self {
        let points = f64::from(u32::try_from(day.len()).unwrap_or(u32::MAX));
        let level = day.iter().sum::<f64>() / points;
        let at = day.len() - 1;
        Self { level, trend: 0.0, times: day.into_iter().map(|value| value - level).collect(), at }
    }

    fn observe(&mut self, value: f64) {
        self.at = (self.at + 1) % self.times.len();
        let (before, time) = (self.level, self.times[self.at]);
        self.level = ALPHA * (value - time) + (1.0 - ALPHA) * (self.level + self.trend);
        self.trend = BETA * (self.level - before) + (1.0 - BETA) * self.trend;
        self.times[self.at] = GAMMA * (value - self.level) + (1.0 - GAMMA) * time;
    }

    /// What is measured here is never below nothing.
    fn ahead(&self, horizon: usize) -> f64 {
        let points = f64::from(u32::try_from(horizon).unwrap_or(u32::MAX));
        let time = self.times[(self.at + horizon) % self.times.len()];
        (self.level + points * self.trend + time).max(0.0)
    }
}
