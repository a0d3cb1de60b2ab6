//! Patience, back-off, holds, and `next_wake`.

use crate::{gateway, placeable, places, waits};
use skein_domain::decide::{Choice, Reason};
use skein_domain::event::{Event, Then};
use skein_domain::session::ItemState;
use skein_domain::testing::{Scene, dedicated, facts, key, loose, name, shared, task};
use skein_domain::thread::assemble;
use skein_domain::{
    EndCause, HoldPolicy, ItemEnd, OnLost, RunningMode, SessionId, Solution, SolutionKind, TaskSpec, Tries,
};

fn functions(cold_start_ms: u64) -> Solution {
    let mut solution = shared("fn", 100_000, 100_000, 10);
    if let SolutionKind::Shared(shared) = &mut solution.kind {
        shared.cold_start_ms = cold_start_ms;
    }
    solution
}

/// One agent with one slot, cheaper than the functions.
fn scene() -> Scene {
    let mut scene = Scene::default();
    scene.solution(dedicated("own", 1));
    scene.solution(functions(2_000));
    scene.instance("a", "own", facts(1));
    scene
}

fn hybrid() -> TaskSpec {
    TaskSpec { running_mode: RunningMode::Hybrid, ..task("t") }
}

#[test]
fn patience_ends_a_cold_start_before_the_allowed_wait() {
    let mut scene = scene();
    let session = scene.start_task(TaskSpec { array: 2, ..hybrid() });
    let first = scene.pass();
    // Nothing is known of how often it starts cold: the 99.93rd percentile of its 2 s at the 99th is reckoned with.
    let until = scene.now.after_ms(6_140);
    assert_eq!((places(&first), first.next_wake), (vec!["a".to_owned()], Some(until)));
    let Reason::WaitsForCheaper { until: said, because } = waits(&scene, key(session, 0, 1)) else { panic!() };
    assert_eq!(
        (said, *because),
        (until, Reason::NoInstance { looked_at: 1, because: Box::new(Reason::SlotsTaken { slots: 1 }) })
    );

    scene.now = until.after_ms(0);
    let (place, choice) = placeable(&scene, key(session, 0, 1));
    assert_eq!(place, "fn");
    assert!(choice.to_string().starts_with("overflow after 6.1 s: the cheaper kind"), "{choice}");
    assert_eq!(gateway(&scene.pass()), 1);
}

#[test]
fn the_cheaper_place_is_taken_when_it_frees_up_in_time() {
    let mut scene = scene();
    let session = scene.start_task(TaskSpec { array: 2, ..hybrid() });
    scene.pass();
    scene.after_ms(6_139);
    scene.succeed(key(session, 0, 0).attempt(1));
    assert_eq!(places(&scene.pass()), ["a"]);
}

/// An item to be tried again has waited for a shorter time than the untouched ones of its class.
#[test]
fn a_retry_does_not_hold_up_those_that_waited_longer() {
    let mut scene = scene();
    let session = scene.start_task(TaskSpec { array: 2, retries: 1, ..hybrid() });
    assert_eq!(places(&scene.pass()), ["a"]);
    scene.after_ms(5_000);
    scene.start_task(TaskSpec { urgency: 60, ..hybrid() });
    let not_before = scene.now.after_ms(500);
    scene.end(key(session, 0, 0).attempt(1), EndCause::Failed { exit_code: 1 }, Then::Retry { not_before });
    let plan = scene.pass();
    assert_eq!((places(&plan), plan.next_wake), (vec!["a".to_owned()], Some(not_before)));
    scene.after_ms(1_200);
    assert!(matches!(waits(&scene, key(session, 0, 0)), Reason::WaitsForCheaper { .. }));
    assert_eq!(placeable(&scene, key(session, 0, 1)).0, "fn");
}

#[test]
fn a_retry_waits_for_its_back_off_and_is_numbered() {
    let mut scene = scene();
    let session = scene.start_task(TaskSpec { retries: 1, running_mode: RunningMode::Dedicated, ..task("t") });
    let item = key(session, 0, 0);
    scene.pass();
    let not_before = scene.now.after_ms(500);
    scene.end(item.attempt(1), EndCause::Failed { exit_code: 3 }, Then::Retry { not_before });
    assert_eq!(scene.pass().next_wake, Some(not_before));
    assert_eq!(waits(&scene, item), Reason::Backoff { until: not_before });
    scene.now = not_before;
    assert_eq!(scene.pass().assignments[0].number, 2);
}

#[test]
fn each_cause_is_counted_apart() {
    let mut scene = scene();
    let session = scene.start_task(TaskSpec { retries: 1, running_mode: RunningMode::Dedicated, ..task("t") });
    let item = key(session, 0, 0);
    let causes = [EndCause::Lost { why: "x".into() }, EndCause::Cancelled, EndCause::Failed { exit_code: 1 }];
    for (cause, (number, lost, failed)) in causes.into_iter().zip([(1, 1, 0), (2, 1, 0), (3, 1, 1)]) {
        scene.pass();
        scene.end(item.attempt(number), cause, Then::Retry { not_before: scene.now });
        let node = scene.snapshot.node(item.node).unwrap();
        let Some(ItemState::Ready { attempts, tries, .. }) = node.open.get(&0) else { panic!() };
        assert_eq!((*attempts, *tries), (number, Tries { lost, failed, ..Tries::default() }));
    }
}

#[test]
fn an_item_that_asks_waits_for_a_person() {
    let mut scene = scene();
    let spec = TaskSpec { on_lost: OnLost::Ask, running_mode: RunningMode::Dedicated, ..task("t") };
    let session = scene.start_task(spec);
    let item = key(session, 0, 0);
    scene.pass();
    scene.end(item.attempt(1), EndCause::Lost { why: "gone".into() }, Then::Ask);
    assert_eq!(waits(&scene, item), Reason::AsksPerson);
    assert!(scene.decide().assignments.is_empty());
    scene.happen(vec![Event::Answered { item, then: Then::Retry { not_before: scene.now } }]);
    assert_eq!(scene.pass().assignments[0].number, 2);
    let followed = scene.end(item.attempt(2), EndCause::Lost { why: "gone".into() }, Then::End(ItemEnd::Lost));
    assert!(matches!(followed.last(), Some(Event::SessionEnded { .. })));
}

/// A chain of two tasks on one agent, with this hold policy.
fn chain(hold: HoldPolicy) -> (Scene, SessionId) {
    let mut scene = scene();
    let on_agent = |text| TaskSpec { running_mode: RunningMode::Dedicated, ..task(text) };
    let nodes = vec![loose(on_agent("x"), &[]), loose(on_agent("y"), &[])];
    let session = scene.start(assemble(name("chain"), String::new(), nodes, &[], hold).unwrap());
    scene.pass();
    scene.instance("b", "own", facts(1));
    scene.pass();
    scene.after_ms(1_000);
    scene.succeed(key(session, 0, 0).attempt(1));
    (scene, session)
}

#[test]
fn an_idle_agent_is_given_back_when_its_time_is_over() {
    let (mut scene, session) = chain(HoldPolicy::IdleMs(3_000));
    assert!(!scene.snapshot.instances[&name("a")].is_free());
    let plan = scene.pass();
    assert_eq!((plan.releases.len(), plan.next_wake), (0, Some(scene.now.after_ms(3_000))));
    scene.after_ms(2_999);
    assert!(scene.decide().releases.is_empty());
    scene.after_ms(1);
    let plan = scene.pass();
    assert_eq!((plan.releases[0].instance.as_str(), plan.releases[0].session, plan.next_wake), ("a", session, None));
    assert!(scene.snapshot.instances[&name("a")].is_free() && !scene.snapshot.instances[&name("b")].is_free());
}

#[test]
fn an_agent_kept_until_the_end_is_free_with_the_end() {
    let (mut scene, session) = chain(HoldPolicy::SessionEnd);
    scene.after_ms(1_000_000);
    let plan = scene.pass();
    assert_eq!((plan.releases.len(), plan.next_wake), (0, None));
    scene.succeed(key(session, 1, 0).attempt(1));
    assert!(
        scene.snapshot.sessions.is_empty() && scene.snapshot.instances.values().all(skein_domain::Instance::is_free)
    );
}

/// The session may hold one agent, and `y` needs the other one: it starts as soon as the first is back.
#[test]
fn what_a_session_gives_back_it_may_take_elsewhere_at_once() {
    let mut scene = scene();
    scene.policy.instances_per_session_max = Some(1);
    let on = |text, slots| TaskSpec { running_mode: RunningMode::Dedicated, ..sized(text, slots) };
    let session = scene.start_nodes(vec![loose(on("x", 64), &[]), loose(on("y", 20_000), &["x"])], &[]);
    scene.pass();
    let mut large = facts(1);
    large.memory_mb = 32_000;
    scene.instance("b", "own", large);
    scene.succeed(key(session, 0, 0).attempt(1));
    let plan = scene.pass();
    assert_eq!((plan.assignments.len(), plan.releases.len(), plan.next_wake), (0, 1, Some(scene.now)));
    let plan = scene.pass();
    assert_eq!((places(&plan), plan.next_wake), (vec!["b".to_owned()], None));
}

fn sized(text: &str, memory_mb: u32) -> TaskSpec {
    let mut spec = task(text);
    spec.needs.memory_mb = memory_mb;
    spec
}

#[test]
fn a_full_plan_asks_to_be_called_again_at_once() {
    let mut scene = scene();
    scene.policy.plan_orders_max = 3;
    let session = scene.start_task(TaskSpec { array: 5, running_mode: RunningMode::Serverless, ..task("t") });
    let plan = scene.pass();
    assert_eq!((plan.assignments.len(), plan.next_wake), (3, Some(scene.now)));
    assert!(matches!(placeable(&scene, key(session, 0, 3)).1, Choice::Mode { .. }));
    let plan = scene.pass();
    assert_eq!((plan.assignments.len(), plan.next_wake), (2, None));
}
