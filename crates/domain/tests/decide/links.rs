//! Links open, or can never open; sessions end when everything has.

use skein_domain::event::{Event, Then};
use skein_domain::testing::{Scene, dedicated, facts, key, loose, task};
use skein_domain::thread::{LooseNode, When};
use skein_domain::{EndCause, ItemEnd, Outcome, SessionId, SessionState, TaskSpec};

use crate::waits;

fn scene() -> Scene {
    let mut scene = Scene::default();
    scene.solution(dedicated("own", 1));
    scene.instance("a", "own", facts(100));
    scene
}

fn node(text: &str, after: &[(&str, When)]) -> LooseNode {
    LooseNode { after: after.iter().map(|(n, when)| ((*n).to_owned(), *when)).collect(), ..loose(task(text), &[]) }
}

fn fail(scene: &mut Scene, session: SessionId, node: u32) -> Vec<Event> {
    let attempt = key(session, node, 0).attempt(1);
    scene.end(attempt, EndCause::Failed { exit_code: 1 }, Then::End(ItemEnd::Failed))
}

/// Names of the nodes that are placed now.
fn started(scene: &mut Scene, session: SessionId) -> Vec<String> {
    let plan = scene.pass();
    let Some(session) = scene.snapshot.sessions.get(&session) else { return Vec::new() };
    let name = |node: u32| session.spec.thread.nodes[node as usize].name.to_string();
    plan.assignments.iter().map(|a| name(a.item.node.node)).collect()
}

#[test]
fn each_kind_of_link_opens_on_its_end() {
    let nodes = || {
        let after = |when| [("a", when)];
        vec![
            node("a", &[]),
            node("on-end", &after(When::End)),
            node("on-failure", &after(When::Failure)),
            node("on-success", &after(When::Success)),
        ]
    };
    let mut scene = scene();
    let good = scene.start_nodes(nodes(), &[]);
    assert_eq!(started(&mut scene, good), ["a"]);
    assert_eq!(waits(&scene, key(good, 3, 0)).to_string(), "waits for a");
    scene.succeed(key(good, 0, 0).attempt(1));
    assert_eq!(started(&mut scene, good), ["on-end", "on-success"]);
    let bad = scene.start_nodes(nodes(), &[]);
    assert_eq!(started(&mut scene, bad), ["a"]);
    fail(&mut scene, bad, 0);
    assert_eq!(started(&mut scene, bad), ["on-end", "on-failure"]);
}

#[test]
fn a_failure_cancels_what_comes_after_it_and_the_session_fails() {
    let mut scene = scene();
    let session = scene.start_nodes(vec![node("a", &[]), loose(task("b"), &["a"]), loose(task("c"), &["b"])], &[]);
    scene.pass();
    let events = fail(&mut scene, session, 0);
    let cancelled = events.iter().filter(|e| matches!(e, Event::NodeCancelled { .. })).count();
    assert_eq!(cancelled, 2);
    assert_eq!(events.last(), Some(&Event::SessionEnded { session, outcome: Outcome::Failed }));
}

/// Both predecessors of `c` fail, one after the other: `c` is over once, not twice.
#[test]
fn a_node_whose_links_fail_one_by_one_is_cancelled_once() {
    let mut scene = scene();
    let nodes = vec![
        node("a", &[]),
        node("b", &[]),
        loose(task("c"), &["a", "b"]),
        node("d", &[]),
        node("e", &[("c", When::End)]),
    ];
    let session = scene.start_nodes(nodes, &[]);
    assert_eq!(started(&mut scene, session), ["a", "b", "d"]);
    let at = |scene: &Scene, name: &str| {
        let nodes = &scene.snapshot.sessions[&session].spec.thread.nodes;
        u32::try_from(nodes.iter().position(|n| n.name.as_str() == name).unwrap()).unwrap()
    };
    let (a, b, d, e) = (at(&scene, "a"), at(&scene, "b"), at(&scene, "d"), at(&scene, "e"));
    fail(&mut scene, session, a);
    assert_eq!(scene.snapshot.sessions[&session].nodes_open, 3);
    fail(&mut scene, session, b);
    assert_eq!(scene.snapshot.sessions[&session].nodes_open, 2);
    assert_eq!(started(&mut scene, session), ["e"]);
    scene.succeed(key(session, e, 0).attempt(1));
    assert!(scene.snapshot.sessions.contains_key(&session), "d still runs");
    let events = scene.succeed(key(session, d, 0).attempt(1));
    assert!(matches!(events.last(), Some(Event::SessionEnded { outcome: Outcome::Failed, .. })));
}

#[test]
fn stopping_cancels_the_waiting_at_once_and_the_running_in_order() {
    let mut scene = scene();
    scene.policy.tasks_per_instance_max = Some(2);
    let session =
        scene.start_nodes(vec![loose(TaskSpec { array: 5, ..task("a") }, &[]), loose(task("b"), &["a"])], &[]);
    scene.pass();
    let by = "tester".parse().unwrap();
    let events = scene.happen(vec![Event::SessionStopping { session, by }]);
    assert_eq!(events.iter().filter(|e| matches!(e, Event::Cancelling { .. })).count(), 2);
    let state = &scene.snapshot.sessions[&session];
    assert_eq!((state.state, state.tally().cancelled), (SessionState::Stopping, 4));
    assert!(scene.pass().assignments.is_empty());
    for index in 0..2 {
        scene.end(key(session, 0, index).attempt(1), EndCause::Cancelled, Then::End(ItemEnd::Cancelled));
    }
    assert!(scene.snapshot.sessions.is_empty());
}

#[test]
fn a_session_stopped_before_anything_ran_ends_cancelled() {
    let mut scene = Scene::default();
    let session = scene.start_task(task("a"));
    let events = scene.happen(vec![Event::SessionStopping { session, by: "tester".parse().unwrap() }]);
    assert_eq!(events.last(), Some(&Event::SessionEnded { session, outcome: Outcome::Cancelled }));
}
