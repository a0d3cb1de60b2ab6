//! The simulator says what a simulator written apart from it, in another language, says of the same traces.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};

use skein_sim::{BoundsPlan, FixedAtPeak, Keda, Metrics, Rule, Scenarios, ServerlessOnly, bounds, simulate};

/// Largest difference of a figure, as a share of it; of the shares of time, as a share of all time: what happens
/// in one moment here is a last digit apart in floating point there.
const CLOSE: f64 = 0.001;

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// Figures of one scenario and rule: cost over the bound, then those of [`Metrics::NAMES`].
fn expected(scenario: &str, rule: &str) -> Vec<f64> {
    let mut rows = csv::Reader::from_path(data().join("reference.csv")).unwrap();
    let names: Vec<String> = rows.headers().unwrap().iter().skip(3).map(str::to_owned).collect();
    assert_eq!(names, Metrics::NAMES);
    let row = rows.records().map(Result::unwrap).find(|row| &row[0] == scenario && &row[1] == rule).unwrap();
    row.iter().skip(2).map(|figure| figure.parse().unwrap()).collect()
}

fn compare(scenario: &str, rule: &str, play: &mut dyn Rule) {
    let scenarios = Scenarios::read(&data().join("scenarios.json")).unwrap();
    let scenario = scenarios.load(scenario, &data()).unwrap();
    let expected = expected(&scenario.name, rule);
    let metrics = simulate(&scenario, play);
    let over = metrics.cost / bounds(&scenario).clairvoyant;
    let names = ["cost_over_clairvoyant"].into_iter().chain(Metrics::NAMES);
    let mut wrong = Vec::new();
    for ((name, found), expected) in names.zip([over].into_iter().chain(metrics.values())).zip(expected) {
        let of = if name.starts_with("ta_") { 1.0 } else { expected.abs() };
        if (found - expected).abs() > CLOSE * of {
            wrong.push(format!("{name}: {found} here, {expected} there"));
        }
    }
    assert!(wrong.is_empty(), "{} under {rule}: {wrong:#?}", scenario.name);
}

#[test]
fn fixed_at_peak_costs_what_the_reference_says() {
    for scenario in ["azllm-code", "azllm-conv"] {
        compare(scenario, "static-peak", &mut FixedAtPeak);
    }
}

#[test]
fn serverless_only_costs_what_the_reference_says() {
    for scenario in ["azllm-code", "azllm-conv"] {
        compare(scenario, "serverless-only", &mut ServerlessOnly::default());
    }
}

#[test]
fn keda_costs_what_the_reference_says() {
    for scenario in ["azllm-code", "azllm-conv"] {
        compare(scenario, "keda+ca", &mut Keda::default());
    }
}

/// Of two courses that cost the bound the same, here and there may take another each: only the cost is compared.
#[test]
fn the_bounds_own_plan_with_items_fixed_in_place_costs_what_the_reference_says() {
    let scenarios = Scenarios::read(&data().join("scenarios.json")).unwrap();
    for name in ["azllm-code", "azllm-conv"] {
        let scenario = scenarios.load(name, &data()).unwrap();
        let cost = simulate(&scenario, &mut BoundsPlan::new(&scenario)).cost;
        let reference = expected(name, "oracle-schedule")[1];
        assert!((cost / reference - 1.0).abs() < CLOSE, "{name}: {cost} here, {reference} there");
    }
}
