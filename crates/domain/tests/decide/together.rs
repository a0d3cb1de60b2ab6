//! Linked tasks start in one plan, or none does and `why` says what lacks.

use crate::{places, waits};
use skein_domain::decide::{Plan, Reason};
use skein_domain::event::{Event, Then};
use skein_domain::testing::{Scene, dedicated, facts, key, loose, name, task};
use skein_domain::thread::{BadThread, assemble};
use skein_domain::{EndCause, HoldPolicy, ItemEnd, TaskSpec};

fn scene(slots: u32) -> Scene {
    let mut scene = Scene::default();
    scene.solution(dedicated("own", 1));
    scene.instance("a", "own", facts(slots));
    scene
}

fn set(names: &[&str]) -> Vec<Vec<String>> {
    vec![names.iter().map(|n| (*n).to_owned()).collect()]
}

fn array(text: &str, array: u32) -> TaskSpec {
    TaskSpec { array, ..task(text) }
}

fn lacks(reason: Reason) -> (u32, u32, Reason) {
    match reason {
        Reason::TogetherLacks { lacking, of, because } => (lacking, of, *because),
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_or_none_and_why_says_what_lacks() {
    let mut scene = scene(4);
    let nodes = vec![loose(array("x", 3), &[]), loose(array("y", 2), &[]), loose(task("z"), &[])];
    let session = scene.start_nodes(nodes, &set(&["x", "y"]));
    assert_eq!(scene.pass().assignments.iter().map(|a| a.item).collect::<Vec<_>>(), [key(session, 2, 0)]);
    for item in [key(session, 0, 0), key(session, 1, 1)] {
        let (lacking, of, because) = lacks(waits(&scene, item));
        assert_eq!((lacking, of), (2, 5));
        assert_eq!(because, Reason::NoInstance { looked_at: 1, because: Box::new(Reason::SlotsTaken { slots: 4 }) });
    }
    scene.instance("b", "own", facts(2));
    assert_eq!(scene.pass().assignments.len(), 5);
}

#[test]
fn a_set_waits_for_all_its_links() {
    let mut scene = scene(9);
    let nodes = vec![loose(task("x"), &[]), loose(task("y"), &[]), loose(task("z"), &["x"])];
    let session = scene.start_nodes(nodes, &set(&["y", "z"]));
    assert_eq!(places(&scene.pass()).len(), 1);
    assert_eq!(waits(&scene, key(session, 1, 0)), Reason::TogetherNotReady { nodes: vec![name("z")] });
    scene.succeed(key(session, 0, 0).attempt(1));
    assert_eq!(places(&scene.pass()).len(), 2);
}

/// `z` can never start, so `y`, which was to start with it, does not either, and the session ends.
#[test]
fn what_was_to_start_with_a_cancelled_task_is_cancelled() {
    let mut scene = scene(9);
    let nodes = vec![loose(task("x"), &[]), loose(task("y"), &[]), loose(task("z"), &["x"])];
    let session = scene.start_nodes(nodes, &set(&["y", "z"]));
    scene.pass();
    let cause = EndCause::Failed { exit_code: 1 };
    let events = scene.end(key(session, 0, 0).attempt(1), cause, Then::End(ItemEnd::Failed));
    assert_eq!(events.iter().filter(|e| matches!(e, Event::NodeCancelled { .. })).count(), 2);
    assert!(scene.snapshot.sessions.is_empty());
}

#[test]
fn the_most_constrained_of_a_set_is_placed_first() {
    let mut scene = scene(1);
    let mut with_gpu = facts(1);
    with_gpu.resources.insert("gpu".into(), 1);
    scene.instance("0", "own", with_gpu);
    let mut gpu = task("y");
    gpu.needs.resources.insert("gpu".into(), 1);
    let mut alone = task("z");
    alone.needs.cpu = 100.try_into().unwrap();
    scene.start_nodes(vec![loose(task("x"), &[]), loose(gpu, &[])], &set(&["x", "y"]));
    assert_eq!(places(&scene.decide()), ["0", "a"]);

    let mut scene = Scene::default();
    scene.solution(dedicated("own", 1));
    scene.instance("a", "own", facts(2));
    scene.instance("b", "own", facts(2));
    scene.start_nodes(vec![loose(array("x", 2), &[]), loose(alone, &[])], &set(&["x", "z"]));
    assert_eq!(places(&scene.decide()), ["a", "b", "b"]);
}

#[test]
fn a_set_that_the_rest_of_the_plan_leaves_no_order_for_comes_next() {
    let mut scene = scene(100);
    scene.policy.plan_orders_max = 4;
    scene.start_task(TaskSpec { urgency: 60, ..array("first", 2) });
    scene.start_nodes(vec![loose(array("x", 2), &[]), loose(task("y"), &[])], &set(&["x", "y"]));
    let plan = scene.pass();
    assert_eq!((plan.assignments.len(), plan.next_wake), (2, Some(scene.now)));
    assert_eq!(scene.pass().assignments.len(), 3);
}

#[test]
fn a_set_larger_than_a_plan_says_so() {
    let mut scene = scene(100);
    scene.policy.plan_orders_max = 4;
    let session = scene.start_nodes(vec![loose(array("x", 4), &[]), loose(task("y"), &[])], &set(&["x", "y"]));
    let plan = scene.decide();
    assert_eq!(Plan { waiting: Vec::new(), ..plan }, Plan::default());
    let (_, _, because) = lacks(waits(&scene, key(session, 1, 0)));
    assert_eq!(because.to_string(), "5 orders in one plan asked for, at most 4 there");
}

#[test]
fn a_set_in_back_off_is_woken() {
    let mut scene = scene(9);
    let nodes = vec![loose(TaskSpec { retries: 1, ..task("x") }, &[]), loose(task("y"), &[])];
    let session = scene.start_nodes(nodes, &set(&["x", "y"]));
    scene.pass();
    let not_before = scene.now.after_ms(500);
    scene.end(key(session, 0, 0).attempt(1), EndCause::Failed { exit_code: 1 }, Then::Retry { not_before });
    assert_eq!(scene.pass().next_wake, Some(not_before));
    scene.now = not_before;
    assert_eq!(scene.pass().assignments.len(), 1);
}

#[test]
fn sets_that_share_a_task_are_one_and_bad_sets_are_refused() {
    let nodes = || vec![loose(task("x"), &[]), loose(task("y"), &[]), loose(task("z"), &[]), loose(task("u"), &["x"])];
    let whole = |sets: &[Vec<String>]| assemble(name("t"), String::new(), nodes(), sets, HoldPolicy::default());
    let sets = [set(&["x", "y"]), set(&["z", "y"])].concat();
    assert_eq!(whole(&sets).unwrap().together, [[0, 2, 3]], "x, y and z, after the order by name");
    assert!(matches!(whole(&set(&["x", "u"])), Err(BadThread::TogetherButOrdered { .. })));
    let unknown = whole(&set(&["x", "nobody"])).unwrap_err().to_string();
    assert!(unknown.contains("'together' set names 'nobody'"), "{unknown}");
    let circle = vec![loose(task("x"), &["y"]), loose(task("y"), &["x"])];
    let circle = assemble(name("t"), String::new(), circle, &[], HoldPolicy::default()).unwrap_err().to_string();
    assert!(circle.contains("x -> y -> x") || circle.contains("y -> x -> y"), "{circle}");
}
