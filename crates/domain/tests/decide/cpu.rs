//! The CPU settings 100, 1-99 and 0.

use crate::{because, places, waits};
use skein_domain::decide::{Algorithm, Policy, Reason};
use skein_domain::testing::{Scene, dedicated, facts, key, task};
use skein_domain::{Balance, Live, RunningMode, TaskSpec};

fn scene_with(instances: &[&str]) -> Scene {
    let mut scene = Scene::default();
    scene.solution(dedicated("own", 1));
    for id in instances {
        scene.instance(id, "own", facts(8));
    }
    scene
}

fn with_cpu(text: &str, cpu: u8) -> TaskSpec {
    let mut spec = TaskSpec { running_mode: RunningMode::Dedicated, ..task(text) };
    spec.needs.cpu = cpu.try_into().unwrap();
    spec
}

#[test]
fn cpu_100_is_alone_until_it_is_done() {
    let mut scene = scene_with(&["a"]);
    let alone = scene.start_task(with_cpu("alone", 100));
    let attempt = key(alone, 0, 0).attempt(1);
    assert_eq!(places(&scene.pass()), ["a"]);
    let others = [0, 40, 100].map(|cpu| scene.start_task(with_cpu("other", cpu)));
    for other in others {
        assert_eq!(because(waits(&scene, key(other, 0, 0))), Reason::TakenExclusively);
    }
    scene.succeed(attempt);
    assert_eq!(scene.pass().assignments.len(), 2);
    assert_eq!(because(waits(&scene, key(others[2], 0, 0))), Reason::NotEmpty { attempts: 2 });
}

#[test]
fn cpu_40_waits_for_an_agent_with_40_percent_free() {
    let mut scene = scene_with(&["a"]);
    let not_free = |free| Reason::NotFree { what: "% of CPU".into(), asked: 40, free };
    scene.live("a", Live { connected: true, cpu_percent: 61, memory_mb: 0 });
    let session = scene.start_task(with_cpu("t", 40));
    assert_eq!(because(waits(&scene, key(session, 0, 0))), not_free(39));
    scene.live("a", Live { connected: true, cpu_percent: 60, memory_mb: 0 });
    assert_eq!(places(&scene.pass()), ["a"]);
    // Used is the larger of measured and set aside: little is measured now, but 40 is set aside.
    scene.live("a", Live { connected: true, cpu_percent: 5, memory_mb: 0 });
    let session = scene.start_task(TaskSpec { array: 2, ..with_cpu("t", 40) });
    assert_eq!(places(&scene.pass()), ["a"]);
    assert_eq!(because(waits(&scene, key(session, 0, 1))), not_free(20));
}

#[test]
fn cpu_0_goes_through_the_configured_algorithm() {
    let place = |algorithm| {
        let mut scene = scene_with(&["a", "b"]);
        scene.policy = Policy { algorithm, balance: Balance::FirstFit, ..Policy::default() };
        let session = scene.start_task(TaskSpec { array: 2, ..with_cpu("t", 0) });
        (places(&scene.decide()), scene, session)
    };
    assert_eq!(place(Algorithm::Builtin(Balance::FewestTasks)).0, ["a", "b"]);
    assert_eq!(place(Algorithm::Builtin(Balance::Packing)).0, ["a", "a"]);
    // A user's algorithm has proposed nothing: nobody else chooses in its place, and `why` says so.
    let (placed, scene, session) = place(Algorithm::Custom { class: "mine".into() });
    assert!(placed.is_empty());
    assert_eq!(waits(&scene, key(session, 0, 0)), Reason::NoProposal { class: "mine".into() });
    // Other settings do not pass through it.
    let mut other = scene.clone();
    other.start_task(with_cpu("u", 10));
    assert_eq!(places(&other.decide()), ["a"]);
}

#[test]
fn schemes_go_by_measured_load_and_by_tasks_for_the_size() {
    let mut scene = scene_with(&["a", "b"]);
    scene.instance("large", "own", facts(32));
    for (id, cpu_percent) in [("a", 60), ("b", 20), ("large", 40)] {
        scene.live(id, Live { connected: true, cpu_percent, memory_mb: 0 });
    }
    let with = |balance| TaskSpec { balance: Some(balance), ..with_cpu("t", 0) };
    let next = |scene: &Scene, balance| {
        let mut scene = scene.clone();
        scene.start_task(with(balance));
        places(&scene.pass()).concat()
    };
    assert_eq!(next(&scene, Balance::LowestLoad), "b");
    // What is set aside counts where it is more than what is measured.
    let on_b = TaskSpec { balance: Some(Balance::LowestLoad), ..with_cpu("u", 50) };
    scene.start_task(on_b);
    assert_eq!(places(&scene.pass()), ["b"]);
    assert_eq!(next(&scene, Balance::LowestLoad), "large");
    // Of 32 slots two are taken before one of 8 is, and only then.
    scene.live("b", Live::default());
    let spread = |balance| {
        let mut scene = scene.clone();
        scene.start_task(TaskSpec { array: 5, ..with(balance) });
        places(&scene.pass())
    };
    assert_eq!(spread(Balance::ByNumber), ["large", "a", "large", "large", "large"]);
    assert_eq!(spread(Balance::FewestTasks), ["large", "a", "large", "a", "large"]);
}

#[test]
fn an_item_of_several_slots_takes_them_of_one_instance_and_says_what_lacks() {
    let mut scene = scene_with(&["a", "b"]);
    let slots = |text, slots| {
        let mut spec = with_cpu(text, 0);
        spec.needs.slots = slots;
        spec
    };
    scene.start_task(TaskSpec { array: 3, ..slots("t", 5) });
    assert_eq!(places(&scene.pass()), ["a", "b"]);
    let wide = scene.start_task(slots("w", 4));
    let free = Reason::NotFree { what: "slots".into(), asked: 4, free: 3 };
    assert_eq!(because(waits(&scene, key(wide, 0, 0))), free);
    let never = scene.start_task(slots("x", 9));
    assert_eq!(because(waits(&scene, key(never, 0, 0))), Reason::TooSmall { what: "slots".into(), asked: 9, most: 8 });
    // The limit of tasks counts tasks.
    let mut scene = scene_with(&["a"]);
    scene.policy.tasks_per_instance_max = Some(2);
    scene.start_task(TaskSpec { array: 3, ..slots("t", 3) });
    assert_eq!(places(&scene.pass()), ["a", "a"]);
}

#[test]
fn ceilings_and_caps_of_the_policy_hold() {
    let mut scene = scene_with(&["a", "b"]);
    scene.policy.cpu_ceiling_percent = Some(80);
    scene.live("a", Live { connected: true, cpu_percent: 85, memory_mb: 0 });
    scene.live("b", Live { connected: true, cpu_percent: 80, memory_mb: 0 });
    let session = scene.start_task(with_cpu("t", 0));
    assert!(matches!(because(waits(&scene, key(session, 0, 0))), Reason::NotFree { asked: 1, free: 0, .. }));

    let mut scene = scene_with(&["a", "b"]);
    scene.policy.tasks_per_instance_max = Some(1);
    scene.policy.instances_per_session_max = Some(1);
    let session = scene.start_task(TaskSpec { array: 3, ..with_cpu("t", 0) });
    assert_eq!(places(&scene.pass()), ["a"]);
    let reason = because(waits(&scene, key(session, 0, 1)));
    assert!(!reason.is_lasting(), "{reason} goes away when the session gives one back");
    assert_eq!(
        places(&{
            scene.start_task(with_cpu("u", 0));
            scene.decide()
        }),
        ["b"]
    );
}
