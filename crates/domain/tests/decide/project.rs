//! The dry run: order, time, cost, and what would be stuck.

use skein_domain::decide::Reason;
use skein_domain::decide::project::project;
use skein_domain::event::Then;
use skein_domain::testing::{Scene, dedicated, facts, key, loose, shared, task};
use skein_domain::{EndCause, NanoUsd, NodeKey, RunningMode, TaskSpec};

fn scene() -> Scene {
    let mut scene = Scene::default();
    // 1 nano-USD per ms and slot.
    scene.solution(dedicated("own", 7_200_000));
    scene.instance("a", "own", facts(2));
    scene
}

fn lasting(text: &str, ms: u64) -> TaskSpec {
    TaskSpec { expected_run_ms: Some(ms), ..task(text) }
}

#[test]
fn a_small_thread_is_projected_in_order_with_time_and_cost() {
    let mut scene = scene();
    let nodes = vec![
        loose(lasting("split", 1_000), &[]),
        loose(TaskSpec { array: 3, ..lasting("work", 10_000) }, &["split"]),
        loose(lasting("merge", 2_000), &["work"]),
    ];
    let session = scene.start_nodes(nodes, &[]);
    let before = format!("{:?}", scene.snapshot);
    let course = project(&scene.snapshot, &scene.policy, session, scene.now);
    assert_eq!(format!("{:?}", scene.snapshot), before, "a dry run changes nothing");
    let times: Vec<_> = course.items.iter().map(|i| (i.item.node.node, i.item.index, i.start_ms, i.end_ms)).collect();
    assert_eq!(
        times,
        [
            (0, 0, 0, 1_000),
            (1, 0, 1_000, 11_000),
            (1, 1, 1_000, 11_000),
            (1, 2, 11_000, 21_000),
            (2, 0, 21_000, 23_000)
        ]
    );
    assert_eq!((course.total_ms, course.cost, course.cut), (23_000, NanoUsd(33_000), false));
    assert_eq!(course.cost, course.items.iter().fold(NanoUsd::ZERO, |sum, i| sum + i.cost));
    assert!(course.stuck.is_empty());
    assert_eq!(course, project(&scene.snapshot, &scene.policy, session, scene.now));
}

#[test]
fn what_would_never_start_is_named() {
    let mut scene = scene();
    let mut gpu = task("gpu");
    gpu.needs.resources.insert("gpu".into(), 1);
    let session = scene.start_nodes(vec![loose(task("good"), &[]), loose(gpu, &[])], &[]);
    let course = project(&scene.snapshot, &scene.policy, session, scene.now);
    assert_eq!((course.items.len(), course.total_ms), (1, 10_000));
    let [(node, Reason::NoInstance { because, .. })] = course.stuck.as_slice() else { panic!("{:?}", course.stuck) };
    assert_eq!(*node, NodeKey { session, node: 1 });
    assert!(matches!(**because, Reason::TooSmall { .. }));
}

#[test]
fn an_item_that_asks_a_person_is_stuck() {
    let mut scene = scene();
    let session = scene.start_task(task("t"));
    scene.pass();
    scene.end(key(session, 0, 0).attempt(1), EndCause::Lost { why: "gone".into() }, Then::Ask);
    let course = project(&scene.snapshot, &scene.policy, session, scene.now);
    assert_eq!(course.stuck, [(NodeKey { session, node: 0 }, Reason::AsksPerson)]);
}

#[test]
fn plans_that_are_full_take_no_time() {
    let mut scene = scene();
    scene.solution(shared("fn", 1, 1_000_000, 100));
    scene.policy.plan_orders_max = 3;
    let session = scene.start_task(TaskSpec { array: 50, running_mode: RunningMode::Serverless, ..task("t") });
    let course = project(&scene.snapshot, &scene.policy, session, scene.now);
    assert_eq!((course.items.len(), course.total_ms), (50, 10_000));
}

#[test]
fn open_attempts_and_patience_are_part_of_the_course() {
    let mut scene = scene();
    scene.solution(shared("fn", 1_000_000, 1_000_000, 100));
    let session =
        scene.start_task(TaskSpec { array: 3, running_mode: RunningMode::Hybrid, allowed_wait_ms: 4_000, ..task("t") });
    scene.pass();
    scene.after_ms(1_000);
    let course = project(&scene.snapshot, &scene.policy, session, scene.now);
    // The third overflows 4 s after it was ready, 3 s from now, and lasts 10 s.
    assert_eq!(course.items.iter().map(|i| (i.item.index, i.start_ms)).collect::<Vec<_>>(), [(2, 3_000)]);
    assert_eq!(course.total_ms, 13_000);
}
