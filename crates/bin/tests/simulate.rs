//! `skein simulate` as its users run it, on the trace that comes with the simulator.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::Home;

const SCENARIOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sim/data/scenarios.json");

#[test]
fn policies_stand_side_by_side_and_the_engine_does_not_lose_to_a_fixed_mode() {
    let home = Home::new();
    let played = home.json(&["simulate", "--scenarios", SCENARIOS, "--scenario", "azllm-code"]);
    let policies = played[0]["policies"].as_array().unwrap();
    let cost = |name: &str| {
        let found = policies.iter().find(|policy| policy["policy"] == name).unwrap();
        found["cost_over_bound"].as_f64().unwrap()
    };
    assert_eq!((policies.len(), played[0]["items"].as_u64()), (6, Some(8819)));
    assert!(cost("engine") <= 1.05 * cost("keda").min(cost("serverless-only")), "{played}");
    let table =
        home.skein(&["simulate", "--scenarios", SCENARIOS, "--scenario", "azllm-code", "--policy", "engine"]).ok();
    assert!(table.out.contains("OVER BOUND") && !table.out.contains("keda"), "{}", table.out);
}

#[test]
fn a_scenario_that_is_not_there_is_named_and_one_without_its_trace_is_skipped_with_a_word() {
    let home = Home::new();
    let wrong = home.skein(&["simulate", "--scenarios", SCENARIOS, "--scenario", "moon"]);
    assert!(wrong.code == 2 && wrong.err.contains("'moon'") && wrong.err.contains("azllm-code"), "{}", wrong.err);
    std::fs::create_dir(home.path("empty")).unwrap();
    let skipped =
        home.skein(&["simulate", "--scenarios", SCENARIOS, "--traces", "empty", "--scenario", "azllm-code"]).ok();
    assert!(skipped.out.is_empty() && skipped.err.contains("skipped: there is no"), "{}", skipped.err);
}
