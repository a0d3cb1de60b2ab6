//! `decide`, `explain` and `project` by example.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing has failed")]

mod ahead;
mod algorithm;
mod budget;
mod choice;
mod cpu;
mod deployed;
mod links;
mod project;
mod time;
mod together;

use skein_domain::decide::explain::Explanation;
use skein_domain::decide::{Choice, Plan, Reason};
use skein_domain::testing::Scene;
use skein_domain::{ItemKey, Place};

/// Where the plan puts each item, in order.
fn places(plan: &Plan) -> Vec<String> {
    plan.assignments.iter().map(|a| a.place.to_string()).collect()
}

/// Where one item will go and why, as `explain` says.
fn placeable(scene: &Scene, item: ItemKey) -> (String, Choice) {
    match scene.explain(item) {
        Some(Explanation::Placeable { place, choice, .. }) => (place.to_string(), choice),
        other => panic!("{item} is not placeable: {other:?}"),
    }
}

/// Why one item waits, as `explain` says.
fn waits(scene: &Scene, item: ItemKey) -> Reason {
    match scene.explain(item) {
        Some(Explanation::Waiting { reason, .. }) => reason,
        other => panic!("{item} does not wait: {other:?}"),
    }
}

/// The commonest reason of all instances.
fn because(reason: Reason) -> Reason {
    match reason {
        Reason::NoInstance { because, .. } => *because,
        other => panic!("not about instances: {other:?}"),
    }
}

fn gateway(plan: &Plan) -> usize {
    plan.assignments.iter().filter(|a| matches!(a.place, Place::Gateway(_))).count()
}
