//! Which place, and the cause that `why` names.

use crate::{because, gateway, placeable, places, waits};
use skein_domain::decide::explain::never_fits;
use skein_domain::decide::{Choice, Policy, Reason};
use skein_domain::event::Event;
use skein_domain::testing::{Scene, dedicated, facts, key, loose, name, shared, task};
use skein_domain::{Balance, InstanceState, NanoUsd, RunningMode, SessionId, TaskSpec};

/// 10 s on one of two slots of `own` cost 5 s of its hourly price; in `fn`, 10 s x 64 MiB.
const OWN_CHEAP: i64 = 3_600_000;
const OWN_DEAR: i64 = 36_000_000_000;
const FN: i64 = 100_000;

fn hybrid(text: &str) -> TaskSpec {
    TaskSpec { running_mode: RunningMode::Hybrid, ..task(text) }
}

/// Two agents with two slots each, and functions that may run for 100 s.
fn estate(own_price: i64) -> Scene {
    let mut scene = Scene::default();
    scene.solution(dedicated("own", own_price));
    scene.solution(shared("fn", FN, 100_000, 10));
    scene.instance("a", "own", facts(2));
    scene.instance("b", "own", facts(2));
    scene
}

#[test]
fn swapping_the_prices_swaps_the_places() {
    let mut scene = estate(OWN_CHEAP);
    let session = scene.start_task(hybrid("t"));
    let (place, choice) = placeable(&scene, key(session, 0, 0));
    assert_eq!((place.as_str(), &choice), ("a", &Choice::Cheaper { here: NanoUsd(5_000), there: NanoUsd(62_500) }));

    // 1 USD an hour for the function, a nano-USD for the agent -> the other way round.
    scene.solution(dedicated("own", OWN_DEAR));
    let (place, choice) = placeable(&scene, key(session, 0, 0));
    assert_eq!(
        (place.as_str(), &choice),
        ("fn", &Choice::Cheaper { here: NanoUsd(62_500), there: NanoUsd(50_000_000) })
    );
    assert_eq!(choice.to_string(), "cheaper here: $0.000062500 against $0.050000");
    assert_eq!(scene.pass().assignments[0].choice, choice);
}

#[test]
fn halving_the_functions_time_limit_moves_what_may_run_longer() {
    let mut scene = estate(OWN_DEAR);
    let session = scene.start_nodes(vec![loose(hybrid("long"), &[]), loose(short(), &[])], &[]);
    assert_eq!(places(&scene.decide()), ["fn", "fn"]);

    scene.solution(shared("fn", FN, 50_000, 10));
    let (place, choice) = placeable(&scene, key(session, 0, 0));
    let other = Box::new(Reason::OverTimeLimit { longest_ms: 60_000, limit_ms: 50_000 });
    assert_eq!((place.as_str(), &choice), ("a", &Choice::OnlyKind { other }));
    let text = choice.to_string();
    assert!(text.contains("longest run time of 60 s is over the limit of 50 s"), "{text}");
    assert_eq!(placeable(&scene, key(session, 1, 0)).0, "fn");
}

fn short() -> TaskSpec {
    TaskSpec { longest_run_ms: Some(20_000), ..hybrid("short") }
}

#[test]
fn stopping_one_agent_sends_its_share_elsewhere() {
    let four = || TaskSpec { array: 4, allowed_wait_ms: 0, ..hybrid("four") };
    let mut scene = estate(OWN_CHEAP);
    scene.start_task(four());
    assert_eq!(places(&scene.decide()), ["a", "b", "a", "b"]);

    let mut scene = estate(OWN_CHEAP);
    scene.happen(vec![Event::InstanceGone { instance: name("b"), why: "stopped".into() }]);
    let session = scene.start_task(four());
    let plan = scene.decide();
    assert_eq!(places(&plan), ["a", "a", "fn", "fn"]);
    let (_, choice) = placeable(&scene, key(session, 0, 2));
    let Choice::Overflow { because, waited_ms: 0, .. } = choice else { panic!("{choice:?}") };
    assert_eq!(*because, Reason::NoInstance { looked_at: 1, because: Box::new(Reason::SlotsTaken { slots: 2 }) });
}

#[test]
fn a_draining_agent_takes_nothing_and_is_not_waited_for() {
    let mut scene = estate(OWN_CHEAP);
    for id in ["a", "b"] {
        scene.happen(vec![Event::InstanceDraining { instance: name(id), why: "stopping".into() }]);
    }
    let session = scene.start_task(hybrid("t"));
    let (place, choice) = placeable(&scene, key(session, 0, 0));
    let other = Box::new(Reason::NotReady { state: InstanceState::Draining });
    assert_eq!((place.as_str(), choice), ("fn", Choice::OnlyKind { other }));
}

#[test]
fn auto_keeps_an_unknown_run_time_off_functions_and_hybrid_does_not() {
    let unknown = |mode| TaskSpec { expected_run_ms: None, longest_run_ms: None, running_mode: mode, ..task("t") };
    let mut scene = estate(OWN_DEAR);
    let session = scene.start_task(unknown(RunningMode::Auto));
    let (place, choice) = placeable(&scene, key(session, 0, 0));
    let other = Box::new(Reason::RunTimeUnknown { limit_ms: 100_000 });
    assert_eq!((place.as_str(), choice), ("a", Choice::OnlyKind { other }));
    let session = scene.start_task(unknown(RunningMode::Hybrid));
    assert_eq!(placeable(&scene, key(session, 0, 0)).0, "fn");
}

#[test]
fn a_service_and_the_modes_stay_where_they_belong() {
    let mut scene = estate(OWN_DEAR);
    let service = TaskSpec { service: true, longest_run_ms: None, ..hybrid("service") };
    let session = scene.start_task(service);
    let plan = scene.decide();
    assert_eq!((places(&plan), plan.assignments[0].limit_ms), (vec!["a".to_owned()], None));
    assert_eq!(
        placeable(&scene, key(session, 0, 0)).1,
        Choice::OnlyKind { other: Box::new(Reason::ServiceNeedsInstance) }
    );
    for (mode, place) in [(RunningMode::Dedicated, "a"), (RunningMode::Serverless, "fn")] {
        let mut scene = estate(if place == "a" { OWN_DEAR } else { OWN_CHEAP });
        let session = scene.start_task(TaskSpec { running_mode: mode, ..task("t") });
        let (found, choice) = placeable(&scene, key(session, 0, 0));
        assert!(found == place && matches!(choice, Choice::Mode { mode: m, .. } if m == mode), "{choice:?}");
    }
}

#[test]
fn forced_to_serverless_but_over_the_limit_is_refused_with_the_limit() {
    let scene = estate(OWN_CHEAP);
    let forced =
        |longest| TaskSpec { longest_run_ms: Some(longest), running_mode: RunningMode::Serverless, ..task("t") };
    let never = |task: TaskSpec| never_fits(&scene.snapshot, &scene.policy, &task.profile(), scene.now);
    assert_eq!(never(forced(100_000)), None);
    assert_eq!(never(forced(100_001)), Some(Reason::OverTimeLimit { longest_ms: 100_001, limit_ms: 100_000 }));
    assert_eq!(never(TaskSpec { longest_run_ms: Some(100_001), ..hybrid("t") }), None);
}

#[test]
fn limits_of_place_and_task_make_the_attempts_limit() {
    let limit = |longest_run_ms, mode| {
        let mut scene = estate(OWN_CHEAP);
        scene.start_task(TaskSpec { longest_run_ms, running_mode: mode, ..task("t") });
        scene.decide().assignments[0].limit_ms
    };
    // An own server's limit is for those who state none; a function's holds for all.
    assert_eq!(limit(Some(7_200_000), RunningMode::Dedicated), Some(7_200_000));
    assert_eq!(limit(None, RunningMode::Dedicated), Some(3_600_000));
    assert_eq!(limit(Some(50_000), RunningMode::Serverless), Some(50_000));
    assert_eq!(limit(None, RunningMode::Serverless), Some(100_000));
}

#[test]
fn fewest_tasks_spreads_packing_fills_first_fit_takes_the_first() {
    let place = |balance, asked| {
        let mut scene = estate(OWN_CHEAP);
        scene.policy = Policy { balance, ..Policy::default() };
        scene.instance("c", "own", facts(2));
        let cpu = 1.try_into().unwrap();
        let mut spec = TaskSpec { array: 3, balance: asked, ..hybrid("t") };
        spec.needs.cpu = cpu;
        scene.start_task(spec);
        places(&scene.decide())
    };
    assert_eq!(place(Balance::FewestTasks, None), ["a", "b", "c"]);
    assert_eq!(place(Balance::Packing, None), ["a", "a", "b"]);
    assert_eq!(place(Balance::FirstFit, None), ["a", "a", "b"]);
    assert_eq!(place(Balance::FewestTasks, Some(Balance::Packing)), ["a", "a", "b"]);
}

#[test]
fn agents_of_other_sessions_come_last() {
    let mut scene = estate(OWN_CHEAP);
    scene.start_task(hybrid("mine"));
    assert_eq!(places(&scene.pass()), ["a"]);
    scene.instance("0", "own", facts(1));
    scene.start_task(TaskSpec { array: 5, allowed_wait_ms: 60_000, ..hybrid("other") });
    // "a" is held by the first session: used, but only when nothing else has room.
    assert_eq!(places(&scene.decide()), ["0", "b", "b", "a"]);
}

#[test]
fn a_group_goes_where_it_is_while_there_is_room() {
    let mut scene = estate(OWN_CHEAP);
    let grouped = |text| TaskSpec { group: Some("g".into()), array: 2, ..hybrid(text) };
    let session = scene.start_nodes(vec![loose(grouped("x"), &[]), loose(grouped("y"), &[])], &[]);
    let plan = scene.pass();
    assert_eq!(places(&plan), ["a", "a", "b", "b"]);
    assert_eq!(plan.assignments[1].choice, Choice::Group { group: "g".into() });
    assert_eq!(scene.snapshot.sessions[&session].groups.values().next(), Some(&name("b")));
}

#[test]
fn urgent_items_wait_for_no_price() {
    let mut scene = estate(OWN_CHEAP);
    scene.start_task(TaskSpec { array: 4, ..hybrid("fill") });
    scene.pass();
    let patient = scene.start_task(hybrid("patient"));
    let urgent = scene.start_task(TaskSpec { urgency: 90, ..hybrid("urgent") });
    assert!(matches!(waits(&scene, key(patient, 0, 0)), Reason::WaitsForCheaper { .. }));
    let (place, choice) = placeable(&scene, key(urgent, 0, 0));
    assert!(place == "fn" && matches!(choice, Choice::Urgent { .. }), "{choice:?}");
}

#[test]
fn higher_rank_is_served_first() {
    let mut scene = Scene::default();
    scene.solution(dedicated("own", OWN_CHEAP));
    scene.instance("a", "own", facts(1));
    let low = scene.start_task(task("low"));
    let high = scene.start_task(TaskSpec { urgency: 60, ..task("high") });
    let plan = scene.decide();
    assert_eq!(plan.assignments.iter().map(|a| a.item.session()).collect::<Vec<SessionId>>(), [high]);
    assert_eq!(because(waits(&scene, key(low, 0, 0))), Reason::SlotsTaken { slots: 1 });
}

/// Prices differ within a kind, too: a dear server is not taken in the name of a cheap one.
#[test]
fn cheaper_means_the_very_place_chosen() {
    let mut scene = Scene::default();
    scene.solution(dedicated("own", OWN_CHEAP));
    scene.solution(dedicated("cloud", OWN_DEAR));
    scene.solution(shared("fn", FN, 100_000, 1));
    scene.instance("a", "cloud", facts(2));
    scene.instance("b", "own", facts(2));
    scene.start_task(TaskSpec { array: 4, allowed_wait_ms: 0, ..hybrid("t") });
    let plan = scene.decide();
    assert_eq!(places(&plan), ["b", "b", "fn", "a"]);
    assert_eq!(plan.assignments[0].choice, Choice::Cheaper { here: NanoUsd(5_000), there: NanoUsd(62_500) });
    assert!(matches!(plan.assignments[3].choice, Choice::Overflow { here: NanoUsd(50_000_000), .. }));
}

#[test]
fn one_suitable_instance_among_hundreds_is_found() {
    let mut scene = Scene::default();
    scene.solution(dedicated("own", OWN_CHEAP));
    scene.solution(shared("fn", FN, 100_000, 1));
    for number in 0..200 {
        scene.instance(&format!("x{number:03}"), "own", facts(1));
    }
    let mut arm = facts(1);
    arm.arch = "aarch64".into();
    scene.instance("z", "own", arm);
    let mut spec = hybrid("t");
    spec.needs.arch = Some("aarch64".into());
    scene.start_task(spec);
    assert_eq!(places(&scene.decide()), ["z"]);
}

#[test]
fn what_no_place_has_is_named() {
    let mut scene = estate(OWN_CHEAP);
    let needing = |change: fn(&mut TaskSpec)| {
        let mut spec = hybrid("t");
        change(&mut spec);
        spec
    };
    let gpu = scene.start_task(needing(|t| t.needs.resources.extend([("gpu".into(), 1)])));
    let large = scene.start_task(needing(|t| t.needs.memory_mb = 20_000));
    let other = scene.start_task(needing(|t| t.needs.solution = Some(name("elsewhere"))));
    let too_small = |what: &str, asked, most| Reason::TooSmall { what: what.into(), asked, most };
    assert_eq!(because(waits(&scene, key(gpu, 0, 0))), too_small("gpu", 1, 0));
    assert_eq!(because(waits(&scene, key(large, 0, 0))), too_small("MiB of memory", 20_000, 8192));
    assert_eq!(because(waits(&scene, key(other, 0, 0))), Reason::OtherSolution { asked: name("elsewhere") });
    assert_eq!(gateway(&scene.decide()), 0);
    let nothing = Scene::default();
    let mut empty = nothing.clone();
    let session = empty.start_task(hybrid("t"));
    assert_eq!(waits(&empty, key(session, 0, 0)), Reason::NoneConfigured { what: "instance".into() });
}
