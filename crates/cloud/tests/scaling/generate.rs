//! Elements from a seed: every kind of policy, unit, statistic and limit, in ranges that clouds cut off.

use serde_json::{Map, Value, json};
use skein_domain::scaling::Element;
use skein_domain::testing::Random;

const METRICS: [(&str, &str); 8] = [
    ("cpu", "percent"),
    ("memory", "percent"),
    ("network_in", "bytes"),
    ("disk_write", "bytes"),
    ("queue", "count"),
    ("wait", "seconds"),
    ("lag", "milliseconds"),
    ("load", "percent"),
];
const COMPARISONS: [&str; 4] = ["above", "at_or_above", "below", "at_or_below"];
const CAPABILITIES: [&str; 10] = [
    "make_machines",
    "end_machines",
    "list_machines",
    "read_images",
    "read_metrics",
    "write_metrics",
    "write_logs",
    "read_objects",
    "write_objects",
    "read_secrets",
];

pub(crate) fn element(seed: u64) -> Element {
    let mut r = Random::new(seed);
    let metrics = metrics(&mut r);
    let names: Vec<String> = metrics.keys().cloned().collect();
    let alarms = alarms(&mut r, &names);
    let max = r.pick(&[1, 5, 20, 40, 1500]);
    let policies = policies(&mut r, &names, &alarms.keys().cloned().collect::<Vec<_>>(), max);
    let mut element = json!({
        "name": r.pick(&["web", "render-farm", "a"]),
        "metrics": metrics,
        "launch": launch(&mut r),
        "group": group(&mut r, max),
        "alarms": alarms,
        "policies": policies,
    });
    if r.chance(60) {
        let may = some_of(&mut r, &CAPABILITIES);
        if !may.is_empty() {
            element["role"] = json!({"name": "scaler", "may": may});
        }
    }
    let element: Element = serde_json::from_value(element).unwrap();
    element.check().unwrap_or_else(|bad| panic!("seed {seed}: {bad}"));
    element
}

fn some_of(r: &mut Random, all: &[&str]) -> Vec<String> {
    all.iter().filter(|_| r.chance(40)).map(|one| (*one).to_owned()).collect()
}

fn put<T>(r: &mut Random, to: &mut Value, name: &str, all: &[T])
where
    T: Clone + Into<Value>,
{
    if r.chance(60) {
        to[name] = r.pick(all).into();
    }
}

fn metrics(r: &mut Random) -> Map<String, Value> {
    let mut metrics = Map::new();
    for (name, unit) in METRICS {
        if r.chance(50) {
            let mut metric = json!({ "unit": unit });
            put(r, &mut metric, "statistic", &["average", "minimum", "maximum", "sum"]);
            put(r, &mut metric, "period_s", &[10, 45, 60, 90, 300, 3600]);
            metrics.insert(name.to_owned(), metric);
        }
    }
    metrics
}

fn alarms(r: &mut Random, metrics: &[String]) -> Map<String, Value> {
    let mut alarms = Map::new();
    for name in ["busy", "idle", "long"] {
        if metrics.is_empty() || r.chance(30) {
            continue;
        }
        let mut alarm = json!({
            "metric": r.pick(metrics),
            "comparison": r.pick(&COMPARISONS),
            "threshold": r.pick(&[json!(70), json!(0.5), json!(12.345), json!(100_000)]),
        });
        put(r, &mut alarm, "periods", &[1, 3, 10]);
        alarms.insert(name.to_owned(), alarm);
    }
    alarms
}

fn policies(r: &mut Random, metrics: &[String], alarms: &[String], max: u32) -> Map<String, Value> {
    let mut policies = Map::new();
    for name in ["up", "down", "half", "day", "night"] {
        let policy = match r.below(5) {
            0 if !metrics.is_empty() => target(r, metrics, "target"),
            1 if !metrics.is_empty() => target(r, metrics, "predictive"),
            2 if !alarms.is_empty() => stepped(r, alarms),
            3 if !alarms.is_empty() => simple(r, alarms),
            _ => scheduled(r, max),
        };
        if r.chance(70) {
            policies.insert(name.to_owned(), policy);
        }
    }
    policies
}

fn target(r: &mut Random, metrics: &[String], kind: &str) -> Value {
    let mut policy = json!({
        "kind": kind, "metric": r.pick(metrics), "target": r.pick(&[json!(50), json!(62.5), json!(0.001)]),
    });
    if kind == "target" {
        put(r, &mut policy, "scale_in", &[true, false]);
        put(r, &mut policy, "warm_up_s", &[0, 45, 300]);
    } else {
        put(r, &mut policy, "acts", &[true, false]);
        put(r, &mut policy, "ahead_s", &[0, 90, 1800, 7200]);
    }
    policy
}

fn stepped(r: &mut Random, alarms: &[String]) -> Value {
    let by = r.pick(&["machines", "percent", "exactly"]);
    let sign = if by == "exactly" || r.chance(50) { 1 } else { -1 };
    let mut bands = vec![json!({"from": 0, "change": sign})];
    for (from, change) in [(json!(10), 2), (json!(20.5), 5)] {
        if r.chance(60) {
            bands.push(json!({"from": from, "change": sign * change}));
        }
    }
    let mut policy = json!({"kind": "stepped", "alarm": r.pick(alarms), "by": by, "bands": bands});
    put(r, &mut policy, "warm_up_s", &[0, 120]);
    policy
}

fn simple(r: &mut Random, alarms: &[String]) -> Value {
    let by = r.pick(&["machines", "percent", "exactly"]);
    let change = if by == "exactly" { r.pick(&[0, 4]) } else { r.pick(&[-2, -1, 1, 3, 50]) };
    let mut policy = json!({"kind": "simple", "alarm": r.pick(alarms), "by": by, "change": change});
    put(r, &mut policy, "cooldown_s", &[0, 30, 300, 1000]);
    policy
}

fn scheduled(r: &mut Random, max: u32) -> Value {
    const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let mut days = some_of(r, &DAYS);
    if days.is_empty() {
        days = DAYS.map(str::to_owned).to_vec();
    }
    let mut policy = json!({
        "kind": "scheduled", "at": {"days": days, "hour": r.below(24), "minute": r.pick(&[0, 30])}, "min": r.small(max + 1),
    });
    put(r, &mut policy, "zone", &["UTC", "Europe/Berlin", "Asia/Seoul"]);
    put(r, &mut policy, "for_s", &[60, 3600]);
    put(r, &mut policy, "max", &[max]);
    policy
}

fn launch(r: &mut Random) -> Value {
    let mut launch = json!({"image": {"name": r.pick(&["web", "ubuntu"]), "tag": r.pick(&["latest", "v3"])}});
    if r.chance(60) {
        launch["instance_type"] = json!("type.large");
    } else {
        launch["needs"] = json!({"cpus": r.pick(&[1, 4]), "memory_mib": r.pick(&[512, 4096, 5000])});
    }
    put(r, &mut launch, "user_data", &["#!/bin/sh\necho hello\n", "x"]);
    launch["networks"] = json!(some_of(r, &["net-a", "net-b"]));
    launch["keys"] = json!(some_of(r, &["ann", "bob"]));
    let disks =
        (0..r.below(4)).map(|_| json!({"size_gib": r.pick(&[8, 100]), "kind": r.pick(&["slow", "standard", "fast"])}));
    launch["disks"] = disks.collect();
    launch
}

fn group(r: &mut Random, max: u32) -> Value {
    let min = r.small(max + 1);
    let mut group = json!({"min": min, "max": max, "zones": some_of(r, &["a", "b"]), "protect": r.chance(30)});
    put(r, &mut group, "desired", &[min, max]);
    put(r, &mut group, "health_grace_s", &[0, 45, 300, 86_400]);
    put(r, &mut group, "cooldown_s", &[0, 45, 300, 86_400]);
    put(r, &mut group, "warm_up_s", &[0, 45, 300]);
    group["do_not_terminate"] = json!(some_of(r, &["web-1", "web-2"]));
    group
}
