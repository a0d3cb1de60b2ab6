//! `skein scaling` as its users run it, on the example.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::Home;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/scaling/render.toml");

#[test]
fn the_example_is_ported_to_every_cloud_and_adopted_again() {
    let home = Home::new();
    let checked = home.skein(&["scaling", "check", EXAMPLE]).ok();
    assert_eq!(
        checked.out,
        "render: 2 to 20 machines; it holds together\n2 metrics, 2 alarms, 5 policies\n\
         the engine can carry it out on own servers\n"
    );
    let clouds = home.json(&["scaling", "clouds"]);
    assert_eq!(clouds.as_array().unwrap().len(), 9);
    for cloud in clouds.as_array().unwrap() {
        let name = cloud["cloud"].as_str().unwrap();
        assert!(!cloud["sources"].as_array().unwrap().is_empty(), "{name} says where it has its words from");
        let ported = home.skein(&["scaling", "port", EXAMPLE, "--cloud", name]).ok();
        std::fs::write(home.path("documents.json"), &ported.out).unwrap();
        let adopted = home.skein(&["scaling", "adopt", "documents.json", "--cloud", name]).ok();
        std::fs::write(home.path("adopted.toml"), &adopted.out).unwrap();
        let again = home.skein(&["scaling", "check", "adopted.toml"]).ok();
        assert!(again.out.starts_with("render: 2 to 20 machines"), "{name}: {}", again.out);
    }
}

#[test]
fn what_differs_is_said_beside_the_documents_and_within_json() {
    let home = Home::new();
    let aws = home.skein(&["scaling", "port", EXAMPLE, "--cloud", "aws"]).ok();
    assert_eq!(aws.err, "it comes back as it was asked for\n", "{}", aws.out);
    let google = home.json(&["scaling", "port", EXAMPLE, "--cloud", "google"]);
    let differences = google["differences"].as_array().unwrap();
    let spared = differences.iter().find(|d| d["field"] == "group.do_not_terminate").unwrap();
    assert_eq!(spared["why"]["kind"], "no_field", "{spared}");
    assert!(spared["asked"].as_array().unwrap().len() == 1 && spared["instead"].as_array().unwrap().is_empty());
}

#[test]
fn a_file_that_does_not_hold_together_and_a_cloud_that_nobody_knows_are_named() {
    let home = Home::new();
    let text = std::fs::read_to_string(EXAMPLE).unwrap().replace("alarm = \"idle\"", "alarm = \"lazy\"");
    std::fs::write(home.path("bad.toml"), text).unwrap();
    let bad = home.skein(&["scaling", "check", "bad.toml"]);
    assert!(bad.code == 2 && bad.err.contains("policies.down.alarm: there is no alarm 'lazy'"), "{}", bad.err);
    let moon = home.skein(&["scaling", "port", EXAMPLE, "--cloud", "moon"]);
    assert!(moon.code == 2 && moon.err.contains("'moon'") && moon.err.contains("openstack"), "{}", moon.err);
}

/// On own servers: what it measures and what is said, with a real engine.
#[test]
fn metrics_of_an_element_that_is_carried_out_are_shown_and_custom_ones_are_said() {
    let home = Home::new();
    let element = serde_json::json!({
        "name": "orders",
        "metrics": {"orders": {"unit": "count", "statistic": "maximum"}, "queue": {"unit": "count"}},
        "launch": {"image": {"name": "any"}, "instance_type": "any"},
        "group": {"min": 0, "max": 3},
        "policies": {"each": {"kind": "target", "metric": "orders", "target": 10}},
    });
    home.write("orders.json", &element.to_string());
    let command = serde_json::json!(["false"]);
    let machines = serde_json::json!({"create": command, "end": command, "list": ["true"], "max": 3, "slots": 2,
                                       "scaling_element": "orders.json"});
    let config = serde_json::json!({"solutions": {"lab": {"kind": "dedicated", "machines": machines}}});
    home.write("config.json", &config.to_string());
    let home = Home::with_engine_in(home, &["--config", "config.json"]);
    home.skein(&["scaling", "say", "orders", "12.5", "--solution", "lab"]).ok();
    let wrong = home.skein(&["scaling", "say", "ordres", "12"]);
    assert!(wrong.code != 0 && wrong.err.contains("there are: orders"), "{}", wrong.err);
    let seen = home.json(&["scaling", "metrics"]);
    let named: Vec<(&str, bool)> =
        seen.as_array().unwrap().iter().map(|m| (m["metric"].as_str().unwrap(), m["custom"] == true)).collect();
    assert_eq!(named, [("orders", true), ("queue", false)]);
    assert_eq!(seen[1]["value"], 0.0, "the queue was looked at when the engine started: {seen}");
    assert!(home.skein(&["scaling", "metrics"]).ok().out.contains("60 s, maximum"));
}
