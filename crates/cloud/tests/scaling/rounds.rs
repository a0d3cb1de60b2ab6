//! There and back: what comes back is what went in, but for differences that are named, and nothing else is named.

use serde_json::Value;
use skein_cloud::scaling::{Difference, Table, Why, adopt, port};
use skein_domain::scaling::Element;

use super::generate::element;

/// What is written as well as it can be said, though not so that it could be read: told when porting.
const ONLY_WRITTEN: [&str; 1] = ["Microsoft.Insights/autoscaleSettings.properties.predictiveAutoscalePolicy"];

/// Elements for each cloud, unless `SEEDS` says more or `SEED` names one.
const SEEDS: u64 = 80;

fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    number("SEED").map_or(0..number("SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1)
}

fn tree(element: &Element) -> Value {
    serde_json::to_value(element).unwrap()
}

/// Places of both trees at which they differ, found without the code under test.
fn differing(a: &Value, b: &Value, at: &str, found: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            for key in x.keys().chain(y.keys().filter(|key| !x.contains_key(*key))) {
                let place = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                differing(x.get(key).unwrap_or(&Value::Null), y.get(key).unwrap_or(&Value::Null), &place, found);
            }
        }
        _ if a == b => {}
        _ => found.push(at.to_owned()),
    }
}

fn is_within(place: &str, field: &str) -> bool {
    place == field || place.strip_prefix(field).is_some_and(|rest| rest.starts_with('.'))
}

/// An entry without a name comes back under another one: the difference that says so covers its map.
fn covers(difference: &Difference, place: &str) -> bool {
    let map = difference.field.split('.').next().unwrap();
    let around = is_within(place, &difference.field) || is_within(&difference.field, place);
    around
        || (difference.why == Why::NoName
            && matches!(place.split('.').next(), Some("alarms" | "policies"))
            && map == "policies")
}

#[test]
fn what_comes_back_is_what_went_in_but_for_what_is_named() {
    for cloud in Table::names() {
        let table = Table::builtin(cloud).unwrap();
        for seed in seeds() {
            let asked = element(seed);
            let (documents, differences) = port(&asked, &table).unwrap();
            let (back, _) = adopt(&documents, &table).unwrap_or_else(|e| panic!("{cloud}, seed {seed}: {e}"));
            let (mut places, case) = (Vec::new(), format!("{cloud}, seed {seed}"));
            differing(&tree(&asked), &tree(&back), "", &mut places);
            for place in &places {
                assert!(differences.iter().any(|d| covers(d, place)), "{case}: {place} differs, and nothing says so");
            }
            for difference in &differences {
                assert_ne!(difference.asked, difference.instead, "{case}: {difference}");
                assert_ne!(difference.why, Why::Unexplained, "{case}: {difference}");
                let there = places.iter().any(|place| covers(difference, place));
                let name = difference.why == Why::NoName;
                assert!(there || name, "{case}: {difference}: but it does not differ");
            }
        }
    }
}

/// Two groups' managers of one kind are two things; nothing else is written twice.
const TWICE: [&str; 1] = ["vpc.instance_groups.managers"];

#[test]
fn nothing_is_written_twice() {
    for cloud in Table::names() {
        let table = Table::builtin(cloud).unwrap();
        for seed in seeds() {
            let (documents, _) = port(&element(seed), &table).unwrap();
            let mut names: Vec<_> = documents.iter().map(|d| (&d.kind, &d.name)).collect();
            names.retain(|(kind, _)| !TWICE.contains(&kind.as_str()));
            names.sort_unstable();
            let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
            assert!(twice.is_none(), "{cloud}, seed {seed}: {twice:?}");
        }
    }
}

/// What a cloud once had is not lost a second time, and its documents come back as they were.
#[test]
fn a_second_round_loses_nothing() {
    for cloud in Table::names() {
        let table = Table::builtin(cloud).unwrap();
        for seed in seeds() {
            let (documents, _) = port(&element(seed), &table).unwrap();
            let (adopted, unread) = adopt(&documents, &table).unwrap();
            let unread = unread.iter().find(|d| !ONLY_WRITTEN.iter().any(|place| d.field.starts_with(place)));
            assert!(unread.is_none(), "{cloud}, seed {seed}: {}", unread.unwrap());
            let (_, again) = port(&adopted, &table).unwrap();
            let lost = again.iter().find(|d| d.why != Why::NoName);
            assert!(lost.is_none(), "{cloud}, seed {seed}: {}", lost.unwrap());
        }
    }
}
