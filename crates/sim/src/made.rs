//! Scenarios from seeds: shapes of load that the shipped traces do not have, from steady to a flash crowd, from
//! seconds to days. None may be dropped from a table because it looks bad.

use crate::SECOND_US;
use crate::generate::{Arrivals, Lengths, Recipe, generate};
use crate::scenario::{Scenario, ScenarioError, Scenarios};

/// One of them: its name, its recipe, the shared solution beside `aws:c6i.xlarge`, the allowed wait in s.
type Made = (&'static str, Recipe, &'static str, i64);

const HOUR_S: f64 = 3_600.0;
const DAY_S: f64 = 24.0 * HOUR_S;

const STEADY: Recipe = Recipe {
    seed: 11,
    items: 150_000,
    span_s: 6.0 * HOUR_S,
    arrivals: Arrivals::Steady,
    lengths: Lengths::Exponential { mean_s: 30.0 },
};
const DAILY: Recipe = Recipe {
    seed: 12,
    items: 60_000,
    span_s: 3.0 * DAY_S,
    arrivals: Arrivals::Daily { swing: 10.0 },
    lengths: Lengths::Exponential { mean_s: 60.0 },
};
const FLASH: Recipe = Recipe {
    seed: 13,
    items: 20_000,
    span_s: 2.0 * DAY_S,
    arrivals: Arrivals::Flash { times: 30.0 },
    lengths: Lengths::Exponential { mean_s: 20.0 },
};
const HEAVY: Recipe = Recipe {
    seed: 14,
    items: 10_000,
    span_s: 10.0 * DAY_S,
    arrivals: Arrivals::Batches { size: 20.0 },
    lengths: Lengths::Heavy { least_s: 10.0, most_s: 36.0 * HOUR_S, shape: 0.5 },
};
/// As many items, and as many machines at the peak, as the largest log that this was compared on: 188,041, and 840 of
/// [`MACHINE`] that hold what runs at once if none waits. The span is what sets the peak.
const LARGE: Recipe = Recipe {
    seed: 15,
    items: 188_041,
    span_s: 22.8 * DAY_S,
    arrivals: Arrivals::Batches { size: 500.0 },
    lengths: Lengths::Heavy { least_s: 60.0, most_s: 72.0 * HOUR_S, shape: 0.45 },
};

const MADE: &[Made] = &[
    ("made-steady", STEADY, "lambda-1769", 5),
    ("made-daily", DAILY, "lambda-1769", 5),
    ("made-flash", FLASH, "lambda-1769", 5),
    ("made-heavy", HEAVY, "cloudrun-job-1x2", 180),
    ("made-heavy-fargate", HEAVY, "fargate-1x2", 180),
    ("made-large", LARGE, "cloudrun-job-1x2", 300),
];

/// The machine of all of them.
const MACHINE: &str = "aws:c6i.xlarge";

/// Their names.
pub fn names() -> impl Iterator<Item = &'static str> {
    MADE.iter().map(|(name, ..)| *name)
}

/// One by its name; nothing when there is none of that name.
pub fn make(name: &str, offers: &Scenarios) -> Option<Result<Scenario, ScenarioError>> {
    let (name, recipe, shared, wait_s) = MADE.iter().find(|(known, ..)| *known == name)?;
    let made = || {
        Ok(Scenario {
            name: (*name).to_owned(),
            items: generate(recipe),
            left_out: 0,
            machines: vec![offers.machine(MACHINE)?],
            shared: vec![offers.shared(shared)?],
            allowed_wait_us: wait_s * SECOND_US,
            allowed_waits_us: Vec::new(),
            loose_wait_us: 4 * wait_s * SECOND_US,
        })
    };
    Some(made())
}

/// The same with other machines at their list prices, from one slot to eight, and every shared solution that takes the
/// longest item: size and kind are decided too.
pub fn with_choice(mut scenario: Scenario, offers: &Scenarios) -> Result<Scenario, ScenarioError> {
    for name in offers.machine_names() {
        if scenario.machines.iter().all(|known| known.name != name) {
            scenario.machines.push(offers.machine(name)?);
        }
    }
    let longest_us = scenario.items.iter().map(|item| item.lasts_us).max().unwrap_or(0);
    for other in offers.all_shared()? {
        if other.name != scenario.shared[0].name && other.timeout_us >= longest_us {
            scenario.shared.push(other);
        }
    }
    scenario.name.push_str(", size and kind chosen");
    Ok(scenario)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::concurrency;

    #[test]
    fn the_large_load_fills_840_machines_of_four_slots_at_its_peak() {
        let items = generate(&LARGE);
        let peak = concurrency(items.iter().copied()).into_iter().map(|(_, at_once)| at_once).max().unwrap();
        assert_eq!((items.len(), (peak + 3) / 4), (188_041, 840), "{peak} at once");
    }
}
