//! `skein simulate --from-ledger`: what an engine did, decided once more; then what it would have cost under other
//! policies.
//!
//! ```text
//! ledger --replay--> the same orders, byte for byte?        (what happened)
//!    |
//!    +--items that ended, solutions, policy on record--> Scenario --play--> side by side   (what it would have cost)
//! ```

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;
use skein_domain::attempt::Place;
use skein_domain::decide::patience::DelayTable;
use skein_domain::decide::replay::{Played, Replay};
use skein_domain::solution::{Shared, Solution};
use skein_domain::{NanoUsd, SessionId, SolutionId};
use skein_engine::config::PlayedPolicy;
use skein_engine::history;
use skein_sim::{Item, MachineOffer, Quantiles, Scenario, SharedOffer};

use super::policies::{Policy, asked};
use super::report::{Form, compare};
use crate::failure::{Ended, FAILED, OK, usage};
use crate::output::{self, line};

/// Differences that are printed.
const SHOWN: usize = 5;
/// Name of the policy on record, and of the scenario.
const ON_RECORD: &str = "on record";
const SCENARIO: &str = "history";
const S_OF_HOUR: u64 = 3_600;

/// Replays the ledger in `dir`, compares its orders with what is decided now, and plays its items under the policy on
/// record and under `policies`.
pub(super) fn run(dir: &Path, session: Option<&str>, policies: &[String], form: Form<'_>) -> Ended {
    let session = session.map(|id| id.parse::<SessionId>().map_err(|e| usage(e.to_string()))).transpose()?;
    let others = asked(policies, false)?;
    let replay = history::replay(dir, session).map_err(|e| usage(e.to_string()))?;
    if !form.json {
        print(&replay);
    }
    let played = what_if(&replay, others, form)?;
    if form.json {
        let differences: Vec<_> = replay
            .differences
            .iter()
            .map(|d| json!({"turn": d.turn, "recorded": d.recorded, "decided": d.decided}))
            .collect();
        output::json(&json!({
            "plans": replay.plans, "orders_equal": replay.equal, "orders_differing": replay.differing,
            "differences": differences, "items": replay.played.len(), "played": played,
        }))?;
    }
    Ok(if replay.differing == 0 { OK } else { FAILED })
}

fn print(replay: &Replay) {
    line(&format!(
        "{} plans decided once more: {} orders the same, byte for byte, {} otherwise; {} items ended",
        replay.plans,
        replay.equal,
        replay.differing,
        replay.played.len()
    ));
    for difference in replay.differences.iter().take(SHOWN) {
        line(&format!("turn {}:", difference.turn));
        line(&format!("  on record: {}", difference.recorded.as_deref().unwrap_or("nothing")));
        line(&format!("  now:       {}", difference.decided.as_deref().unwrap_or("nothing")));
    }
}

/// What the items would have cost; nothing when none ended.
fn what_if(replay: &Replay, others: Vec<Policy>, form: Form<'_>) -> anyhow::Result<Option<serde_json::Value>> {
    let Some(History { scenario, assumed }) = history(replay) else { return Ok(None) };
    let thresholds = replay.snapshot.solutions.values().find_map(|solution| solution.machines()?.thresholds);
    let on_record = PlayedPolicy { capacity: replay.policy.capacity.clone(), thresholds };
    let mut policies = vec![Policy::set(ON_RECORD, on_record)];
    policies.extend(others);
    if !form.json {
        line("\nwhat it would have cost, assuming that");
        for one in &assumed {
            line(&format!("- {one}"));
        }
    }
    let mut played = compare(&scenario, &policies, form)?;
    played["assumed"] = json!(assumed);
    Ok(Some(played))
}

/// A history as a scenario, and what is assumed in it.
struct History {
    scenario: Scenario,
    assumed: Vec<String>,
}

fn history(replay: &Replay) -> Option<History> {
    let mut items: Vec<&Played> = replay.played.values().collect();
    items.sort_by_key(|item| (item.ready_at, item.attempt));
    let first = items.first()?.ready_at.0;
    let used = used(replay);
    let memory_mb = memory_mb(&items);
    let most_used = |id: &SolutionId| Reverse(used.get(id).copied().unwrap_or(0));
    let mut solutions: Vec<&Solution> = replay.snapshot.solutions.values().collect();
    solutions.sort_by_key(|solution| (most_used(&solution.id), &solution.id));
    let machines: Vec<MachineOffer> = solutions.iter().flat_map(|solution| machines(replay, solution)).collect();
    let shared = solutions.iter().filter_map(|s| Some(shared(s.id.as_str(), s.shared()?, memory_mb)));
    let shared: Vec<SharedOffer> = shared.collect();
    let waits: Vec<i64> = items.iter().map(|item| us(item.allowed_wait_ms)).collect();
    let (least, most) = (waits.iter().min()?, waits.iter().max()?);
    let assumed = assumed(&machines, &shared, memory_mb);
    let scenario = Scenario {
        name: SCENARIO.to_owned(),
        items: items
            .iter()
            .map(|item| Item { arrival_us: item.ready_at.0 - first, lasts_us: us(item.run_ms).max(1) })
            .collect(),
        left_out: 0,
        machines,
        shared,
        allowed_wait_us: *least,
        loose_wait_us: most.saturating_mul(4),
        allowed_waits_us: if least == most { Vec::new() } else { waits },
    };
    Some(History { scenario, assumed })
}

/// Items that ended in each solution.
fn used(replay: &Replay) -> BTreeMap<SolutionId, u64> {
    let mut used = BTreeMap::new();
    for item in replay.played.values() {
        let solution = match &item.place {
            Place::Gateway(solution) => Some(solution.clone()),
            Place::Instance(instance) => replay.snapshot.instances.get(instance).map(|i| i.solution.clone()),
        };
        if let Some(solution) = solution {
            *used.entry(solution).or_default() += 1;
        }
    }
    used
}

/// Memory of one invocation, MiB: the mean of the items, each by how long it lasted.
fn memory_mb(items: &[&Played]) -> u32 {
    let of = |item: &Played| u128::from(item.run_ms.max(1));
    let all: u128 = items.iter().map(|item| of(item)).sum();
    let memory: u128 = items.iter().map(|item| of(item) * u128::from(item.memory_mb)).sum();
    u32::try_from(memory.div_ceil(all.max(1))).unwrap_or(u32::MAX)
}

/// Machines of a dedicated solution: those that may be made; else those that joined.
fn machines(replay: &Replay, solution: &Solution) -> Vec<MachineOffer> {
    let Some(dedicated) = solution.dedicated() else { return Vec::new() };
    let slots = |offered: u32| dedicated.slots_max.map_or(offered, |most| offered.min(most)).max(1);
    let at = |ms: u64| Quantiles::new(&[(0.0, seconds(ms)), (1.0, seconds(ms))]);
    if let Some(machines) = dedicated.machines.as_ref().filter(|machines| machines.max > 0) {
        let offer = |(price_per_hour, size): (NanoUsd, &skein_domain::InstanceFacts)| MachineOffer {
            name: format!("{} {}", solution.id, size.instance_type.as_deref().unwrap_or("machine")),
            slots: slots(size.slots),
            price_per_hour,
            min_billed_us: us(machines.min_billed_ms),
            boot: at(machines.typical_boot_ms),
            least: machines.min,
            most: machines.max,
        };
        return dedicated.sizes().map(offer).collect();
    }
    let mut alike: BTreeMap<u32, u32> = BTreeMap::new();
    for instance in replay.snapshot.instances.values().filter(|instance| instance.solution == solution.id) {
        *alike.entry(slots(instance.facts.slots)).or_default() += 1;
    }
    let own = |(slots, most): (u32, u32)| MachineOffer {
        name: format!("{} (there already)", solution.id),
        slots,
        price_per_hour: dedicated.price_per_hour,
        min_billed_us: 0,
        boot: at(0),
        least: most,
        most,
    };
    alike.into_iter().map(own).collect()
}

fn shared(name: &str, shared: &Shared, memory_mb: u32) -> SharedOffer {
    let memory_s = S_OF_HOUR.saturating_mul(u64::from(memory_mb));
    let cold = seconds(shared.cold_start_ms);
    SharedOffer {
        name: name.to_owned(),
        price_per_hour: NanoUsd::charge(shared.price.per_gb_s, memory_s, 1_024),
        per_request: shared.price.per_request,
        granularity_us: us(shared.price.granularity_ms).max(1),
        min_billed_us: us(shared.price.min_billed_ms),
        timeout_us: us(shared.timeout_ms),
        keepalive_us: us(shared.keepalive_ms),
        warm_us: 0,
        bills_cold: shared.price.bills_cold,
        concurrency: shared.concurrency,
        // As `DelayTable::of_p99` takes a delay of which only that is known.
        cold: Quantiles::new(&[(0.0, cold / 2.0), (0.99, cold), (1.0, 2.0 * cold)]),
    }
}

/// In words, for who reads the table.
fn assumed(machines: &[MachineOffer], shared: &[SharedOffer], memory_mb: u32) -> Vec<String> {
    let mut assumed = vec![
        "every item that ended comes when it could be placed on record, whatever else would have ended sooner"
            .to_owned(),
        "it lasts as long as it did there, wherever it goes, takes one slot or one invocation, and suits every place"
            .to_owned(),
    ];
    for machine in machines {
        let MachineOffer { name, slots, price_per_hour: price, least, most, .. } = machine;
        let boot = machine.boot.mean() / 1e6;
        assumed.push(if least == most {
            format!(
                "{name}: {most} of {slots} slots at {price} an hour, there and paid from the first item to the last \
                 (only the bound may do without)"
            )
        } else {
            format!(
                "{name}: {least} to {most} machines of {slots} slots at {price} an hour, paid from the wish to the end, \
                 ready after {boot:.0} s"
            )
        });
    }
    for offer in shared {
        let cold_us = DelayTable::new(offer.cold.table()).mean();
        let cold_s = std::time::Duration::from_micros(cold_us).as_secs_f64();
        assumed.push(format!(
            "{}: an invocation of {memory_mb} MiB (the items' mean) at {} an hour and {} a call, cold after {cold_s:.1} s \
             in the mean",
            offer.name, offer.price_per_hour, offer.per_request
        ));
    }
    assumed
}

fn us(ms: u64) -> i64 {
    i64::try_from(ms.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use skein_domain::{AttemptKey, NodeKey, Timestamp};

    use super::*;

    fn solution(json: serde_json::Value) -> Solution {
        serde_json::from_value(json).unwrap()
    }

    fn replay() -> Replay {
        let facts = json!({"cpus": 2, "memory_mb": 4096, "storage_mb": 1, "os": "linux", "arch": "x86_64", "slots": 8});
        let machines = json!({"min": 0, "max": 3, "idle_ms": 1, "boot_ms": 1, "avoid_ms": 1, "list_ms": 1,
            "typical_boot_ms": 40_000, "facts": facts});
        let made = solution(json!({"id": "cloud", "kind": {"dedicated":
            {"price_per_hour": 100_000_000, "slots_max": 2, "timeout_ms": 1, "machines": machines}}}));
        let price = json!({"per_request": 200, "per_gb_s": 16_667, "granularity_ms": 1, "min_billed_ms": 0});
        let called =
            solution(json!({"id": "fn", "kind": {"shared": {"url": "http://127.0.0.1:1", "timeout_ms": 900_000,
            "concurrency": 10, "memory_mb_max": 1, "price": price, "cold_start_ms": 500, "min_warm": 0, "os": "linux",
            "arch": "x86_64"}}}));
        let mut replay = Replay::new(None);
        for solution in [made, called] {
            replay.snapshot.solutions.insert(solution.id.clone(), solution);
        }
        let node = NodeKey { session: SessionId(1), node: 0 };
        for (index, (at_s, run_ms, allowed_wait_ms)) in [(30, 2_000, 1_000), (10, 4_000, 1_000)].into_iter().enumerate()
        {
            let attempt = AttemptKey { item: node.item(u32::try_from(index).unwrap()), number: 1 };
            let ready_at = Timestamp(at_s * 1_000_000);
            let place = Place::Gateway("fn".parse().unwrap());
            replay
                .played
                .insert(attempt.item, Played { attempt, ready_at, run_ms, allowed_wait_ms, place, memory_mb: 1_024 });
        }
        replay
    }

    #[test]
    fn a_history_is_a_scenario_with_what_was_on_record_and_says_what_it_assumes() {
        let History { scenario, assumed } = history(&replay()).unwrap();
        let items: Vec<(i64, i64)> = scenario.items.iter().map(|i| (i.arrival_us, i.lasts_us)).collect();
        assert_eq!(items, [(0, 4_000_000), (20_000_000, 2_000_000)], "in the order of arrival");
        let machine = &scenario.machines[0];
        assert_eq!((machine.slots, machine.most, machine.min_billed_us), (2, 3, 60_000_000));
        assert_eq!((scenario.allowed_wait_us, scenario.allowed_waits_us.len()), (1_000_000, 0));
        // 1 GiB: 6 s at 16,667 nano-USD, and two calls.
        let form = Form { json: true, wide: false, charts: None };
        let played = what_if(&replay(), asked(&["serverless-only".to_owned()], false).unwrap(), form).unwrap().unwrap();
        let names: Vec<&str> =
            played["policies"].as_array().unwrap().iter().filter_map(|p| p["policy"].as_str()).collect();
        assert_eq!(names, [ON_RECORD, "serverless-only"]);
        let cost = played["policies"][1]["figures"]["cost"].as_f64().unwrap();
        assert!((cost - (6.0 * 16_667.0 + 400.0) / 1e9).abs() < 1e-8, "{cost}");
        assert!(assumed.iter().any(|one| one.contains("cloud machine: 0 to 3 machines of 2 slots")), "{assumed:?}");
    }

    #[test]
    fn items_that_may_wait_for_different_times_keep_each_their_own() {
        let mut replay = replay();
        replay.played.first_entry().unwrap().get_mut().allowed_wait_ms = 9_000;
        let scenario = history(&replay).unwrap().scenario;
        assert_eq!(scenario.allowed_waits_us, [1_000_000, 9_000_000]);
        assert!(history(&Replay::new(None)).is_none(), "nothing ended, nothing is played");
    }
}
