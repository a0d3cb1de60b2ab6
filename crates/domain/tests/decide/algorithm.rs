//! The custom algorithm: what it is asked, what becomes of what it says, and what happens without it.

use crate::{placeable, places, waits};
use skein_domain::decide::wanted::{Answer, INSTANCES_MAX, ITEMS_MAX, MACHINES_ASKED_MAX};
use skein_domain::decide::{Algorithm, Choice, Fault, Instead, Policy, Question, Reason, wanted};
use skein_domain::event::Event;
use skein_domain::testing::{Scene, dedicated, facts, key, machines, name, task};
use skein_domain::{
    Balance, CpuSetting, InstanceState, Live, NanoUsd, RunningMode, SessionId, Solution, SolutionKind, TaskSpec,
};

const CLASS: &str = "luau:mine";

fn scene_with(instances: &[(&str, u32)]) -> Scene {
    let mut scene = Scene::default();
    let algorithm = Algorithm::Custom { class: CLASS.into() };
    scene.policy = Policy { algorithm, balance: Balance::FirstFit, ..Policy::default() };
    scene.solution(dedicated("own", 7));
    for (id, slots) in instances {
        scene.instance(id, "own", facts(*slots));
    }
    scene
}

fn many(text: &str, array: u32) -> TaskSpec {
    TaskSpec { running_mode: RunningMode::Dedicated, array, ..task(text) }
}

fn question(scene: &Scene) -> Question {
    wanted(&scene.snapshot, &scene.policy, scene.now).unwrap()
}

/// The answer that names these instances for the first items; an empty name leaves one waiting.
fn answer(names: &[&str]) -> Answer {
    let named = names.iter().enumerate().filter(|(_, name)| !name.is_empty());
    Answer { places: named.map(|(at, name)| (at, (*name).to_owned())).collect(), ..Answer::default() }
}

fn says(scene: &mut Scene, said: Answer) {
    let event = question(scene).check(said).unwrap();
    scene.happen(vec![event]);
}

fn fails(scene: &mut Scene, rests_ms: Option<u64>) -> Fault {
    let fault = Fault::Interrupts { most: 9 };
    let items = question(scene).items.iter().map(|asked| asked.item).collect();
    let rests_until = rests_ms.map(|ms| scene.now.after_ms(ms));
    let event = Event::AlgorithmFailed { class: CLASS.into(), items, fault: fault.clone(), rests_until };
    let stored: Event = serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
    assert_eq!(stored, event);
    scene.happen(vec![event]);
    fault
}

#[test]
fn it_is_asked_about_what_waits_for_it_and_what_could_take_that() {
    let mut scene = scene_with(&[("a", 4), ("b", 4), ("full", 1), ("gone", 4)]);
    scene.live("gone", Live { connected: false, ..Live::default() });
    assert!(wanted(&scene.snapshot, &scene.policy, scene.now).is_none(), "nothing waits");
    let other = TaskSpec { balance: Some(Balance::FirstFit), ..many("own-scheme", 1) };
    scene.start_task(other);
    let mut percent = many("percent", 1);
    percent.needs.cpu = CpuSetting::AtLeast(10);
    scene.start_task(percent);
    assert!(wanted(&scene.snapshot, &scene.policy, scene.now).is_none(), "others' schemes place these");
    let first = scene.start_task(many("first", 1));
    says(&mut scene, answer(&["full"]));
    scene.pass();
    let session = scene.start_task(TaskSpec { group: Some("g".into()), ..many("t", 3) });
    let asked = question(&scene);
    assert_eq!(asked.items.iter().map(|i| i.item).collect::<Vec<_>>(), [0, 1, 2].map(|n| key(session, 0, n)));
    let names: Vec<&str> = asked.instances.iter().map(|i| i.id.as_str()).collect();
    assert_eq!(names, ["a", "b"], "a full one and one that is not connected take nothing");
    assert_eq!((asked.instances[0].price_per_hour, asked.fits), (NanoUsd(7), vec![vec![0, 1]]));
    assert_eq!(scene.snapshot.attempts[&key(first, 0, 0).attempt(1)].place.to_string(), "full");
    // Where its group is, once something of it is there.
    says(&mut scene, answer(&["b"]));
    scene.pass();
    assert!(question(&scene).items.iter().all(|i| i.group_on == Some(name("b"))));
    // The same state gives the same question.
    assert_eq!(question(&scene), question(&scene.clone()));
}

#[test]
fn a_question_has_limits() {
    let names: Vec<String> = (0..INSTANCES_MAX + 40).map(|n| format!("i-{n:04}")).collect();
    let instances: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let mut scene = scene_with(&instances);
    scene.start_task(many("t", 10_000));
    let asked = question(&scene);
    assert_eq!((asked.items.len(), asked.instances.len()), (ITEMS_MAX, INSTANCES_MAX));
    assert!(asked.instances.is_sorted_by(|a, b| a.id < b.id));
}

#[test]
fn what_it_proposes_is_done_and_says_so() {
    let mut scene = scene_with(&[("a", 4), ("b", 4)]);
    let session = scene.start_task(many("t", 3));
    assert_eq!(waits(&scene, key(session, 0, 0)), Reason::NoProposal { class: CLASS.into() });
    let event = question(&scene).check(answer(&["b", "b", "a"])).unwrap();
    // What is recorded is all that a replay needs.
    let stored: Event = serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
    assert_eq!(stored, event);
    let mut replayed = scene.clone();
    replayed.happen(vec![stored]);
    scene.happen(vec![event]);
    assert_eq!(replayed.decide(), scene.decide());
    assert_eq!(placeable(&scene, key(session, 0, 0)), ("b".to_owned(), Choice::Algorithm { class: CLASS.into() }));
    assert_eq!(places(&scene.pass()), ["b", "b", "a"]);
    assert!(wanted(&scene.snapshot, &scene.policy, scene.now).is_none());
}

#[test]
fn what_it_leaves_waiting_waits_and_items_of_a_node_are_alike() {
    let mut scene = scene_with(&[("a", 4)]);
    let session = scene.start_task(many("t", 3));
    let other = scene.start_task(many("u", 1));
    // The place for the second of three is the first's; that of another node of the class is its own.
    says(&mut scene, answer(&["", "a", "", "a"]));
    let plan = scene.pass();
    let placed: Vec<_> = plan.assignments.iter().map(|a| a.item).collect();
    assert_eq!(placed, [key(session, 0, 0), key(other, 0, 0)]);
    assert_eq!(waits(&scene, key(session, 0, 1)), Reason::LeftWaiting { class: CLASS.into() });
}

#[test]
fn what_does_not_fit_is_refused_and_the_default_scheme_places_it() {
    let mut scene = scene_with(&[("a", 1), ("b", 2)]);
    let session = scene.start_task(many("t", 4));
    // One slot, two items for it: the second is refused, and goes where the default puts it.
    says(&mut scene, answer(&["a", "a", "b"]));
    let plan = scene.pass();
    assert_eq!(places(&plan), ["a", "b", "b"]);
    let because = Box::new(Reason::SlotsTaken { slots: 1 });
    let why = Instead::Refused { instance: name("a"), because };
    let Choice::Instead { class, why: said, then } = &plan.assignments[1].choice else { panic!("{plan:?}") };
    assert_eq!((&**class, said), (CLASS, &why));
    assert!(matches!(**then, Choice::Mode { balance: Some(Balance::FirstFit), .. }));
    assert_eq!(
        plan.assignments[1].choice.to_string(),
        "by default, since luau:mine proposed 'a', which does not take it (all 1 slots taken): dedicated mode, first-fit"
    );
    // With no room by the default either, both say why.
    let gone = Event::Proposed {
        class: CLASS.into(),
        items: vec![skein_domain::event::ProposedPlace { item: key(session, 0, 3), on: Some(name("never")) }],
        machines: vec![],
        give_back: vec![],
    };
    scene.happen(vec![gone]);
    let Reason::Instead { why: Instead::Refused { because: refused, .. }, because, .. } =
        waits(&scene, key(session, 0, 3))
    else {
        panic!("{}", waits(&scene, key(session, 0, 3)))
    };
    assert_eq!(*refused, Reason::NotReady { state: InstanceState::Gone });
    assert_eq!(crate::because(*because), Reason::SlotsTaken { slots: 1 });
}

#[test]
fn limits_exclusivity_and_the_session_s_instances_hold_against_it() {
    // Each of the two could be had; the policy allows one, and the CPU ceiling the other not at all.
    let mut scene = scene_with(&[("a", 4), ("b", 4), ("hot", 4)]);
    scene.policy.instances_per_session_max = Some(1);
    scene.policy.cpu_ceiling_percent = Some(80);
    scene.live("hot", Live { connected: true, cpu_percent: 90, memory_mb: 0 });
    scene.start_task(many("t", 2));
    let asked = question(&scene);
    assert!(asked.instances.iter().all(|i| i.id.as_str() != "hot"));
    says(&mut scene, answer(&["a", "b"]));
    assert_eq!(places(&scene.pass()), ["a", "a"], "the second instance is one too many");
    let mut scene = scene_with(&[("a", 4), ("b", 4)]);
    let mut alone = many("alone", 1);
    alone.needs.cpu = CpuSetting::Exclusive;
    scene.start_task(alone);
    scene.start_task(many("t", 1));
    let said = answer(&["a"]);
    says(&mut scene, answer(&["b"]));
    assert_eq!(places(&scene.pass()), ["a", "b"]);
    scene.start_task(many("u", 1));
    assert!(question(&scene).check(said).is_err(), "what is taken alone is not asked about");
}

#[test]
fn when_it_fails_the_default_scheme_places_what_it_was_asked_about() {
    let mut scene = scene_with(&[("a", 1), ("b", 2)]);
    let session = scene.start_task(many("t", 4));
    let fault = fails(&mut scene, None);
    let plan = scene.pass();
    assert_eq!(places(&plan), ["a", "b", "b"]);
    assert!(
        plan.assignments.iter().all(
            |a| matches!(&a.choice, Choice::Instead { why, .. } if *why == Instead::Failed { fault: fault.clone() })
        )
    );
    let reason = waits(&scene, key(session, 0, 3));
    assert!(reason.to_string().ends_with("luau:mine stopped at the limit of 9 interrupts"), "{reason}");
    // What comes later is not the failure's: it is asked about.
    scene.succeed(key(session, 0, 0).attempt(1));
    scene.pass();
    let later = scene.start_task(many("later", 1));
    assert_eq!(waits(&scene, key(later, 0, 0)), Reason::NoProposal { class: CLASS.into() });
}

#[test]
fn while_it_rests_everything_goes_by_default_until_it_is_over() {
    let mut scene = scene_with(&[("a", 1)]);
    scene.start_task(many("t", 1));
    let fault = fails(&mut scene, Some(5_000));
    let until = scene.now.after_ms(5_000);
    scene.pass();
    let later = scene.start_task(many("later", 1));
    let plan = scene.decide();
    assert_eq!((plan.next_wake, plan.waiting.len()), (Some(until), 1));
    let Reason::Instead { why, .. } = waits(&scene, key(later, 0, 0)) else { panic!() };
    assert_eq!(why, Instead::Rests { fault });
    scene.now = until;
    assert_eq!(waits(&scene, key(later, 0, 0)), Reason::NoProposal { class: CLASS.into() });
    // Read anew, nothing of what was said holds.
    fails(&mut scene, Some(5_000));
    scene.happen(vec![Event::AlgorithmSet { class: CLASS.into(), digest: "d".into() }]);
    assert_eq!(waits(&scene, key(later, 0, 0)), Reason::NoProposal { class: CLASS.into() });
}

#[test]
fn a_dry_run_asks_nobody_and_goes_by_default() {
    let mut scene = scene_with(&[("a", 2)]);
    let session = scene.start_task(many("t", 3));
    let course = skein_domain::decide::project::project(&scene.snapshot, &scene.policy, session, scene.now);
    assert_eq!((course.items.len(), course.stuck.len()), (3, 0));
}

#[test]
fn a_set_that_starts_together_starts_only_when_all_of_it_is_placed() {
    use skein_domain::testing::loose;
    let mut scene = scene_with(&[("a", 4)]);
    let nodes = vec![loose(many("x", 1), &[]), loose(many("y", 1), &[])];
    scene.start_nodes(nodes, &[vec!["x".to_owned(), "y".to_owned()]]);
    says(&mut scene, answer(&["a"]));
    assert!(scene.pass().assignments.is_empty());
    says(&mut scene, answer(&["a", "a"]));
    assert_eq!(places(&scene.pass()), ["a", "a"]);
}

fn with_machines(min: u32, max: u32) -> Scene {
    let mut scene = scene_with(&[]);
    let machines = machines(min, max, facts(2));
    let mut solution: Solution = dedicated("cloud", 9);
    if let SolutionKind::Dedicated(dedicated) = &mut solution.kind {
        dedicated.machines = Some(machines);
    }
    scene.solution(solution);
    scene
}

fn asks(count: u32) -> Answer {
    Answer { machines: vec![("cloud".to_owned(), count, "two for each".to_owned())], ..Answer::default() }
}

fn started(scene: &mut Scene, array: u32) -> SessionId {
    scene.start_task(TaskSpec { running_mode: RunningMode::Dedicated, ..many("t", array) })
}

#[test]
fn machines_it_asks_for_are_made_within_the_limits_and_once() {
    let mut scene = with_machines(0, 3);
    started(&mut scene, 8);
    // Nothing is made for what waits for the algorithm: it says how many.
    assert!(scene.pass().wanted.is_empty());
    assert_eq!((question(&scene).solutions[0].max, question(&scene).solutions[0].suits.clone()), (3, vec![0]));
    says(&mut scene, asks(2));
    let plan = scene.pass();
    assert_eq!(plan.wanted.iter().map(|w| w.why.as_str()).collect::<Vec<_>>(), ["two for each", "two for each"]);
    assert!(scene.pass().wanted.is_empty(), "asked for once");
    assert_eq!(question(&scene).solutions[0].coming, 2);
    says(&mut scene, asks(5));
    assert_eq!(scene.pass().wanted.len(), 1, "no more than the most");
    // What could not be made is not made later without being asked for again.
    let first = scene.snapshot.instances.keys().next().unwrap().clone();
    scene.happen(vec![Event::InstanceGone { instance: first, why: "test".into() }]);
    assert!(scene.pass().wanted.is_empty());
    for (said, what) in [
        (
            Answer { machines: vec![("own".to_owned(), 1, String::new())], ..Answer::default() },
            "no machines are made in 'own'",
        ),
        (asks(MACHINES_ASKED_MAX + 1), "at most"),
    ] {
        let fault = question(&scene).check(said).unwrap_err();
        assert!(fault.to_string().contains(what), "{fault}");
    }
}

#[test]
fn machines_it_gives_back_go_unless_they_are_needed_or_protected() {
    let mut scene = with_machines(1, 4);
    for id in ["m-1", "m-2", "m-3", "m-4"] {
        let instance = name(id);
        let wanted = Event::InstanceWanted { instance, solution: name("cloud"), facts: facts(2), why: String::new() };
        scene.happen(vec![wanted]);
        scene.instance(id, "cloud", facts(2));
    }
    scene.policy.do_not_terminate = [name("m-2")].into();
    let session = started(&mut scene, 1);
    let asked = question(&scene);
    says(&mut scene, Answer { places: answer(&["m-1"]).places, ..Answer::default() });
    scene.pass();
    let give = |names: &[&str]| Answer {
        give_back: names.iter().map(|name| ((*name).to_owned(), "idle".to_owned())).collect(),
        ..Answer::default()
    };
    // The question was asked while it was free; meanwhile a session holds it.
    let event = asked.check(give(&["m-1", "m-2", "m-3", "m-4"])).unwrap();
    scene.happen(vec![event]);
    let drained: Vec<_> = scene.pass().drained;
    assert_eq!(drained, [(name("m-3"), "idle".to_owned()), (name("m-4"), "idle".to_owned())]);
    assert!(scene.pass().drained.is_empty());
    let fault = question(&scene).check(give(&["m-1"])).unwrap_err();
    assert!(fault.to_string().contains("'m-1'"), "{fault}");
    // Down to the minimum, not below it.
    scene.succeed(key(session, 0, 0).attempt(1));
    scene.policy.do_not_terminate.clear();
    scene.pass();
    says(&mut scene, give(&["m-1", "m-2"]));
    assert_eq!(scene.pass().drained.len(), 1);
}
