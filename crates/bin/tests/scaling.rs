//! `skein scaling` as its users run it, on the example.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::Home;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/scaling/render.toml");

#[test]
fn the_example_is_ported_to_every_cloud_and_adopted_again() {
    let home = Home::new();
    let checked = home.skein(&["scaling", "check", EXAMPLE]).ok();
    assert_eq!(checked.out, "render: 2 to 20 machines; it holds together\n2 metrics, 2 alarms, 5 policies\n");
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
