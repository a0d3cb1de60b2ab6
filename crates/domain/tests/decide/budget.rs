//! Caps: what is placed, what waits, what is paused and said, and what is paid for in any case.

use skein_domain::decide::budget::{Cap, CapAction, CapKey, refused, standings};
use skein_domain::decide::{Choice, Reason};
use skein_domain::event::{Event, Then};
use skein_domain::spend::Month;
use skein_domain::testing::{Scene, dedicated, facts, key, loose, name, shared, spec_of, task};
use skein_domain::thread::assemble;
use skein_domain::{
    AttemptEnd, AttemptKey, EndCause, HoldPolicy, ItemEnd, NanoUsd, RunningMode, SessionId, SessionState,
};

use crate::{placeable, waits};

/// One slot costs a micro-USD a millisecond, and a task is expected to run ten seconds.
const PER_MS: i64 = 1_000;
const ITEM: NanoUsd = NanoUsd(10_000 * PER_MS);

fn cap(limit: i64, action: CapAction) -> Cap {
    Cap { limit: NanoUsd(limit), action, warn_percent: 80 }
}

/// Room for `slots` items that cost [`ITEM`] each.
fn scene(slots: u32) -> Scene {
    let mut scene = Scene::default();
    scene.solution(dedicated("own", PER_MS * 3_600_000 * i64::from(slots)));
    scene.instance("i", "own", facts(slots));
    scene
}

fn many(scene: &mut Scene, items: u32) -> SessionId {
    let mut task = task("t");
    task.array = items;
    scene.start_task(task)
}

fn ends(scene: &mut Scene, attempt: AttemptKey, run_ms: u64) {
    let end = AttemptEnd { run_ms, ..AttemptEnd::bare(EndCause::Succeeded) };
    scene.happen(vec![Event::Ended { attempt, end, then: Then::End(ItemEnd::Succeeded) }]);
}

#[test]
fn what_is_open_counts_and_when_it_cost_less_more_is_placed() {
    let mut scene = scene(8);
    scene.policy.budgets.month = Some(cap(ITEM.0 * 3, CapAction::Pause));
    let session = many(&mut scene, 8);
    let plan = scene.pass();
    assert_eq!((plan.assignments.len(), plan.paused.len()), (3, 0), "three fit, and what is open may cost less");
    let Reason::OverBudget(over) = waits(&scene, key(session, 0, 3)) else { panic!() };
    assert_eq!((over.limit, over.spent, over.open, over.asks), (NanoUsd(ITEM.0 * 3), NanoUsd::ZERO, over.limit, ITEM));
    for index in 0..3 {
        ends(&mut scene, key(session, 0, index).attempt(1), 5_000);
    }
    assert_eq!(scene.pass().assignments.len(), 1, "half as dear as expected: one more fits");
}

#[test]
fn a_cap_pauses_once_says_why_and_goes_on_when_it_is_raised() {
    let mut scene = scene(8);
    scene.policy.budgets.session = Some(cap(ITEM.0 * 2, CapAction::Pause));
    let session = many(&mut scene, 4);
    scene.pass();
    ends(&mut scene, key(session, 0, 0).attempt(1), 10_000);
    ends(&mut scene, key(session, 0, 1).attempt(1), 10_000);
    let plan = scene.pass();
    let over = plan.pauses(session).unwrap().clone();
    assert_eq!((over.cap.clone(), over.spent, over.open), (CapKey::Session { session }, over.limit, NanoUsd::ZERO));
    assert_eq!(scene.snapshot.sessions[&session].state, SessionState::Paused);
    assert_eq!(waits(&scene, key(session, 0, 2)), Reason::OverBudget(Box::new(over.clone())));
    assert!(scene.pass().is_idle(), "once");
    let resumed = |budget| Event::SessionResumed { session, by: name("me"), budget };
    scene.happen(vec![resumed(None)]);
    assert_eq!(scene.pass().pauses(session), Some(&over), "nothing was raised");
    scene.policy.budgets.session = Some(cap(ITEM.0 * 4, CapAction::Pause));
    assert!(scene.pass().is_idle(), "a person resumes it");
    scene.happen(vec![resumed(None)]);
    assert_eq!(scene.pass().assignments.len(), 2);
}

#[test]
fn the_lower_of_two_caps_holds_and_one_given_at_launch_can_be_given_anew() {
    let mut scene = scene(8);
    scene.policy.budgets.session = Some(cap(ITEM.0 * 3, CapAction::Pause));
    let mut task = task("t");
    task.array = 8;
    let thread = assemble(name("thread"), String::new(), vec![loose(task, &[])], &[], HoldPolicy::IdleMs(0)).unwrap();
    let mut spec = spec_of(thread);
    std::sync::Arc::make_mut(&mut spec).budget = Some(ITEM);
    let session = SessionId::derive(9, 0);
    scene.happen(vec![Event::SessionStarted { session, spec }]);
    assert_eq!(scene.pass().assignments.len(), 1);
    ends(&mut scene, key(session, 0, 0).attempt(1), 10_000);
    assert_eq!(scene.pass().pauses(session).unwrap().cap, CapKey::Launch { session });
    let budget = Some(NanoUsd(ITEM.0 * 100));
    scene.happen(vec![Event::SessionResumed { session, by: name("me"), budget }]);
    assert_eq!(scene.pass().assignments.len(), 2, "now the other one is lower");
}

#[test]
fn a_cap_is_said_once_at_its_share_and_once_when_it_is_reached() {
    let mut scene = scene(10);
    scene.policy.budgets.month = Some(cap(ITEM.0 * 10, CapAction::Warn));
    let said = |scene: &mut Scene, items| {
        many(scene, items);
        let plan = scene.pass();
        assert_eq!(plan.assignments.len(), items as usize, "a warning stops nothing");
        plan.warnings.iter().map(|warning| warning.said.percent).collect::<Vec<_>>()
    };
    assert_eq!(said(&mut scene, 7), [0; 0]);
    assert_eq!(said(&mut scene, 1), [80]);
    assert_eq!(said(&mut scene, 1), [0; 0]);
    assert_eq!(said(&mut scene, 1), [100]);
    assert!(scene.pass().is_idle());
    scene.policy.budgets.month = Some(cap(ITEM.0 * 11, CapAction::Warn));
    assert_eq!(scene.pass().warnings[0].said.percent, 80, "another cap is said anew");
}

#[test]
fn what_waits_for_money_has_it_when_a_month_begins() {
    let mut scene = scene(8);
    scene.policy.budgets.user = Some(cap(ITEM.0, CapAction::Refuse));
    let session = many(&mut scene, 2);
    scene.pass();
    ends(&mut scene, key(session, 0, 0).attempt(1), 10_000);
    let plan = scene.pass();
    assert!(plan.assignments.is_empty() && plan.paused.is_empty(), "refused, not paused");
    // A place was given back: once more, since it might be a cheaper one for what waits.
    assert_eq!((plan.releases.len(), plan.next_wake), (1, Some(scene.now)));
    let plan = scene.pass();
    let next = Month::of(scene.now).next().start();
    assert_eq!(plan.next_wake, Some(next));
    scene.now = next;
    assert_eq!(scene.pass().assignments.len(), 1);
}

#[test]
fn what_costs_nothing_is_placed_whatever_is_spent() {
    let mut scene = scene(8);
    scene.solution(dedicated("own", 0));
    scene.policy.budgets.month = Some(cap(0, CapAction::Pause));
    many(&mut scene, 2);
    assert_eq!(scene.pass().assignments.len(), 2);
}

#[test]
fn an_item_waits_for_a_place_that_it_can_pay_rather_than_pausing_its_session() {
    let mut scene = scene(1);
    scene.solution(shared("fn", 1_000_000, 100_000, 8));
    scene.policy.budgets.session = Some(cap(ITEM.0 * 2, CapAction::Pause));
    let mut task = task("t");
    (task.array, task.running_mode, task.allowed_wait_ms, task.needs.memory_mb) = (2, RunningMode::Hybrid, 0, 8192);
    let session = scene.start_task(task);
    let plan = scene.pass();
    assert_eq!((plan.assignments.len(), plan.paused.len()), (1, 0));
    assert!(matches!(waits(&scene, key(session, 0, 1)), Reason::OverBudget(_)));
    ends(&mut scene, key(session, 0, 0).attempt(1), 10_000);
    assert_eq!(scene.pass().assignments.len(), 1, "the cheap place has room again");
}

#[test]
fn a_session_that_is_expected_to_exceed_a_cap_that_refuses_is_refused_with_the_figures() {
    let mut scene = scene(8);
    scene.policy.budgets.month = Some(cap(ITEM.0 * 3, CapAction::Refuse));
    scene.policy.budgets.session = Some(cap(ITEM.0, CapAction::Pause));
    many(&mut scene, 1);
    scene.pass();
    let caps = standings(&scene.snapshot, &scene.policy, (&name("tester"), SessionId::derive(9, 0), None), scene.now);
    assert_eq!(refused(&caps, NanoUsd(ITEM.0 * 2)), None, "a cap that pauses is no reason to refuse");
    let over = refused(&caps, NanoUsd(ITEM.0 * 2 + 1)).unwrap();
    let month = Month::of(scene.now);
    assert_eq!((over.cap, over.open, over.asks), (CapKey::All { month }, ITEM, NanoUsd(ITEM.0 * 2 + 1)));
}

#[test]
fn what_is_paid_in_any_case_is_used_first_and_counted_at_its_price() {
    let mut scene = scene(8);
    let mut paid = shared("fn", 1_000_000, 100_000, 8);
    paid.minimum_purchase = NanoUsd(1_000_000_000);
    scene.solution(paid);
    let mut task = task("t");
    (task.running_mode, task.needs.memory_mb) = (RunningMode::Hybrid, 1024);
    let dear = NanoUsd(10_000 * 1_000);
    let first = scene.start_task(task.clone());
    let Choice::MinimumPurchase { here, spent, .. } = placeable(&scene, key(first, 0, 0)).1 else { panic!() };
    scene.pass();
    assert_eq!((here, spent), (dear, NanoUsd::ZERO));
    ends(&mut scene, key(first, 0, 0).attempt(1), 2_000_000);
    let month = Month::of(scene.now);
    assert_eq!(scene.snapshot.spent_at(&name("fn"), month), NanoUsd(2_000_000 * 1_000), "counted at its price");
    let second = scene.start_task(task);
    let choice = placeable(&scene, key(second, 0, 0)).1;
    assert!(matches!(choice, Choice::Cheaper { .. }), "the minimum is reached: {choice}");
}
