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

/// A scenario of one SWF log beside the shipped prices.
fn swf(home: &Home, log: &str) {
    let shipped: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(SCENARIOS).unwrap()).unwrap();
    let scenario = serde_json::json!({"trace": "log.swf", "vm": "aws:c6i.xlarge", "serverless": "lambda-1769",
        "slo_wait_s": 60, "loose_slo_s": 300});
    let all = serde_json::json!({"vm_types": shipped["vm_types"], "serverless": shipped["serverless"],
        "scenarios": {"grid": scenario}});
    std::fs::write(home.path("s.json"), all.to_string()).unwrap();
    std::fs::write(home.path("log.swf"), log).unwrap();
}

#[test]
fn a_log_in_the_standard_workload_format_is_played_and_one_that_is_not_is_named_with_its_line() {
    let home = Home::new();
    swf(
        &home,
        "; UnixStartTime: 0\n1 100 1 60 2 -1 -1 2 -1 -1 1 1 1 1 1 1 -1 -1\n2 130 1 -1 4 -1 -1 4 -1 -1 5 1 1 1 1 1 -1 -1\n",
    );
    let played = home.json(&["simulate", "--scenarios", "s.json", "--policy", "serverless-only"]);
    let figures = &played[0]["policies"][0]["figures"];
    assert_eq!((played[0]["items"].as_u64(), played[0]["left_out"].as_u64()), (Some(2), Some(1)), "{played}");
    assert!((figures["cost"].as_f64().unwrap() - 2.0 * 60.0 * 2.87925e-5).abs() < 1e-4, "{figures}");
    swf(&home, "1 100 1 sixty 2\n");
    let wrong = home.skein(&["simulate", "--scenarios", "s.json"]);
    assert!(wrong.code == 2 && wrong.err.contains("line 1: 'sixty' in 'run_s' is no number"), "{}", wrong.err);
}

#[test]
fn policies_of_files_stand_beside_the_named_ones_and_a_chart_is_drawn_of_each_scenario() {
    let home = Home::new();
    std::fs::write(home.path("night.toml"), "rule = \"price\"\nlate_budget_percent = 1.0\n").unwrap();
    let day = r#"{"scaling": {"thresholds": {"up_percent": 70, "down_percent": 40}, "max": 2}}"#;
    std::fs::write(home.path("day.json"), day).unwrap();
    let one = ["simulate", "--scenarios", SCENARIOS, "--scenario", "azllm-code", "--charts", "charts"];
    let asked = [&one[..], &["--policy", "engine", "--policy", "night.toml", "--policy", "day.json"]].concat();
    let played = home.json(&asked);
    let policies = played[0]["policies"].as_array().unwrap();
    let names: Vec<&str> = policies.iter().filter_map(|policy| policy["policy"].as_str()).collect();
    assert_eq!(names, ["engine", "night", "day"]);
    // A slot costs less than an invocation, so by price machines take what they can, used or not.
    assert!(policies[1]["figures"]["sl_share"].as_f64() < policies[0]["figures"]["sl_share"].as_f64(), "{played}");
    let drawn = home.read("charts/azllm-code.svg");
    assert!(drawn.ends_with("</svg>\n") && names.iter().all(|name| drawn.contains(&format!(">{name}</text>"))));
    assert!(
        drawn.contains("prefers-color-scheme:dark")
            && drawn.contains("USD")
            && drawn.contains("minutes from the start")
    );
    std::fs::write(home.path("wrong.toml"), "late_bugdet_percent = 1.0\n").unwrap();
    let wrong = home.skein(&["simulate", "--scenarios", SCENARIOS, "--policy", "wrong.toml"]);
    assert!(
        wrong.code == 2 && wrong.err.contains("wrong.toml") && wrong.err.contains("late_bugdet_percent"),
        "{}",
        wrong.err
    );
}
