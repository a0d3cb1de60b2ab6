//! The common form on own servers: each kind of policy, limits, waits, and that it comes to rest.

use serde_json::json;

use super::*;

fn element(alarms: serde_json::Value, policies: serde_json::Value) -> Element {
    let element: Element = serde_json::from_value(json!({
        "name": "web",
        "metrics": {"cpu": {"unit": "percent"}, "queue": {"unit": "count"}},
        "launch": {"image": {"name": "web"}, "instance_type": "small"},
        "group": {"min": 1, "max": 20, "cooldown_s": 60},
        "alarms": alarms,
        "policies": policies,
    }))
    .unwrap();
    element.check().unwrap();
    element
}

fn stepped() -> Element {
    element(
        json!({
            "busy": {"metric": "cpu", "comparison": "at_or_above", "threshold": 70, "periods": 2},
            "idle": {"metric": "cpu", "comparison": "below", "threshold": 30, "periods": 2},
        }),
        json!({
            "up": {"kind": "stepped", "alarm": "busy", "bands": [{"change": 1}, {"from": 20, "change": 4}]},
            "down": {"kind": "stepped", "alarm": "idle", "by": "percent", "bands": [{"change": -50}]},
        }),
    )
}

fn metrics(machines: u32, name: &str, values: &[i64]) -> Metrics {
    let series = values.iter().map(|value| Milli::units(*value)).collect();
    Metrics { machines, empty: machines, series: [(name.to_owned(), series)].into(), ..Metrics::default() }
}

fn at(second: i64) -> Timestamp {
    Timestamp(second * SECOND_US)
}

fn first(element: &Element, metrics: &Metrics) -> Scale {
    evaluate(element, metrics, &Changes::default(), at(0))
}

#[test]
fn a_band_is_chosen_by_how_far_the_value_is_beyond_and_only_after_every_period() {
    let say = |values: &[i64]| first(&stepped(), &metrics(4, "cpu", values));
    assert_eq!(say(&[75, 71]), Scale::Up { machines: 1, wanted: 5, there: 4 });
    assert_eq!(say(&[90, 71]), Scale::Up { machines: 4, wanted: 8, there: 4 });
    assert_eq!(say(&[75, 69]), Scale::Stay(Held::Between), "one period is not two");
    assert_eq!(say(&[75]), Scale::Stay(Held::Between), "a value is missing");
    assert_eq!(say(&[20, 20]), Scale::Down { machines: 2, wanted: 2, there: 4 });
}

#[test]
fn a_target_is_met_upwards_at_once_and_left_downwards_only_with_room() {
    let target = |scale_in: bool| {
        let policy = json!({"kind": "target", "metric": "cpu", "target": 50, "scale_in": scale_in});
        element(json!({}), json!({ "half": policy }))
    };
    assert_eq!(first(&target(true), &metrics(4, "cpu", &[90])), Scale::Up { machines: 4, wanted: 8, there: 4 });
    assert_eq!(first(&target(true), &metrics(8, "cpu", &[22])), Scale::Down { machines: 4, wanted: 4, there: 8 });
    assert_eq!(first(&target(false), &metrics(8, "cpu", &[22])), Scale::Stay(Held::Between));
    // Seven of eight would be at 49.1 of 50: too near to go.
    assert_eq!(first(&target(true), &metrics(8, "cpu", &[43])), Scale::Stay(Held::Between));
}

#[test]
fn simple_changes_count_machines_percent_or_an_exact_number_within_the_limits() {
    let simple = |by: &str, change: i32| {
        element(
            json!({"long": {"metric": "queue", "comparison": "above", "threshold": 10}}),
            json!({"go": {"kind": "simple", "alarm": "long", "by": by, "change": change, "cooldown_s": 10}}),
        )
    };
    let say = |by: &str, change| first(&simple(by, change), &metrics(6, "queue", &[11]));
    assert_eq!(say("machines", 3), Scale::Up { machines: 3, wanted: 9, there: 6 });
    assert_eq!(say("percent", 50), Scale::Up { machines: 3, wanted: 9, there: 6 });
    assert_eq!(say("exactly", 2), Scale::Down { machines: 4, wanted: 2, there: 6 });
    assert_eq!(say("machines", 99), Scale::Up { machines: 14, wanted: 105, there: 6 }, "the group's most");
    assert_eq!(say("machines", -99), Scale::Down { machines: 5, wanted: 0, there: 6 }, "the group's fewest");
    let up = Changes { up: Some(at(0)), down: None };
    let again = |now| evaluate(&simple("machines", 1), &metrics(6, "queue", &[11]), &up, at(now));
    assert_eq!(again(9), Scale::Stay(Held::Cooldown(at(10))), "its own cooldown, not the group's");
    assert!(matches!(again(10), Scale::Up { .. }));
}

#[test]
fn a_schedule_sets_bounds_at_local_time_for_as_long_as_it_says() {
    let mut element = element(
        json!({}),
        json!({"day": {"kind": "scheduled", "at": {"days": ["thursday"], "hour": 8}, "zone": "Europe/Berlin",
            "for_s": 3600, "min": 5, "max": 6}}),
    );
    let berlin = Metrics { zones_s: [("Europe/Berlin".to_owned(), 3600)].into(), ..metrics(2, "cpu", &[50]) };
    let say = |element: &Element, hour: i64| evaluate(element, &berlin, &Changes::default(), at(hour * 3600));
    assert_eq!(say(&element, 6), Scale::Stay(Held::Between));
    assert_eq!(say(&element, 7), Scale::Up { machines: 3, wanted: 2, there: 2 }, "1 January 1970 was a Thursday");
    assert_eq!(say(&element, 8), Scale::Stay(Held::Between), "the hour is over");
    let many = Metrics { machines: 9, empty: 9, ..berlin.clone() };
    assert!(matches!(evaluate(&element, &many, &Changes::default(), at(7 * 3600)), Scale::Stay(_)));
    element.policies.insert(
        "projected".to_owned(),
        serde_json::from_value(json!({"kind": "predictive", "metric": "cpu", "target": 50})).unwrap(),
    );
    let soon = Metrics { projected: [("cpu".to_owned(), Milli::units(200))].into(), ..berlin };
    let up = evaluate(&element, &soon, &Changes::default(), at(7 * 3600));
    assert_eq!(up, Scale::Up { machines: 4, wanted: 8, there: 2 }, "8 wanted, 6 at most");
}

#[test]
fn what_is_protected_or_not_measured_stays() {
    let mut element = stepped();
    assert_eq!(first(&element, &Metrics { machines: 4, empty: 4, ..Metrics::default() }), Scale::Stay(Held::Between));
    element.group.protect = true;
    element.group.do_not_terminate.insert("web-1".to_owned());
    assert_eq!(first(&element, &metrics(4, "cpu", &[20, 20])), Scale::Stay(Held::Limit(4)));
    assert_eq!(kept(&element), BTreeSet::from([InstanceId::new("web-1").unwrap()]));
}

/// Under any load that stands still it goes one way and then rests: the value is what the machines then share.
#[test]
fn it_does_not_flap() {
    let half = json!({"half": {"kind": "target", "metric": "cpu", "target": 50}});
    let close = json!({
        "up": {"kind": "simple", "alarm": "busy", "change": 1},
        "down": {"kind": "simple", "alarm": "idle", "change": -2},
    });
    let alarms = json!({
        "busy": {"metric": "cpu", "comparison": "above", "threshold": 60},
        "idle": {"metric": "cpu", "comparison": "below", "threshold": 55},
    });
    for element in [stepped(), element(json!({}), half), element(alarms, close)] {
        for work in (0..1000_u32).step_by(7) {
            for start in [1_u32, 4, 20] {
                let (mut machines, mut changes, mut ways) = (start, Changes::default(), Vec::new());
                for minute in 0..120 {
                    let value = Milli((i64::from(work) * 1000 / i64::from(machines.max(1))).min(100_000));
                    let mut stood = metrics(machines, "cpu", &[]);
                    stood.series.insert("cpu".to_owned(), vec![value; 2]);
                    match evaluate(&element, &stood, &changes, at(minute * 60)) {
                        Scale::Up { machines: more, .. } => {
                            machines += more;
                            changes.up = Some(at(minute * 60));
                            ways.push(1);
                        }
                        Scale::Down { machines: fewer, .. } => {
                            machines -= fewer;
                            changes.down = Some(at(minute * 60));
                            ways.push(-1);
                        }
                        Scale::Stay(_) => {}
                    }
                }
                ways.dedup();
                // A value cut off at 100 hides how much is wanted: up may overshoot once, then it comes down and rests.
                assert!(ways.len() <= 1 || ways == [1, -1], "{work} of work from {start}: {ways:?}");
            }
        }
    }
}
