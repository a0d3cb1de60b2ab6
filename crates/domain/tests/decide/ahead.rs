//! Credit: what is sent ahead of a free slot, and how it comes back. And what wants an instance alone,
//! users' shares, pauses.

use skein_domain::decide::{Choice, Plan, Reason};
use skein_domain::event::Event;
use skein_domain::needs::CpuSetting;
use skein_domain::testing::{Scene, dedicated, facts, key, name, task};
use skein_domain::{
    AttemptEnd, AttemptKey, EndCause, ItemEnd, Live, Needs, OnLost, Place, RunningMode, SessionId, TaskSpec, Withdrawal,
};

use crate::waits;

/// One instance of `slots` slots for each name.
fn scene(names: &[&str], slots: u32) -> Scene {
    let mut scene = Scene::default();
    scene.solution(dedicated("own", 0));
    for id in names {
        scene.instance(id, "own", facts(slots));
    }
    scene
}

fn on_own(array: u32) -> TaskSpec {
    TaskSpec { array, running_mode: RunningMode::Dedicated, ..task("t") }
}

fn with_cpu(cpu: CpuSetting, array: u32) -> TaskSpec {
    let spec = on_own(array);
    TaskSpec { needs: Needs { cpu, ..spec.needs.clone() }, ..spec }
}

fn start(scene: &mut Scene, attempt: AttemptKey) {
    scene.happen(vec![Event::Sent { attempt }, Event::Started { attempt }]);
}

fn ran(scene: &mut Scene, attempt: AttemptKey, run_ms: u64) {
    let end = AttemptEnd { run_ms, ..AttemptEnd::bare(EndCause::Succeeded) };
    let then = skein_domain::event::Then::End(ItemEnd::Succeeded);
    scene.happen(vec![Event::Ended { attempt, end, then }]);
}

fn ahead(plan: &Plan) -> usize {
    plan.assignments.iter().filter(|a| matches!(a.choice, Choice::Ahead { .. })).count()
}

/// An array whose run time is known to be `run_ms`, with one item running and the rest sent ahead.
fn known(scene: &mut Scene, spec: TaskSpec, run_ms: u64) -> (SessionId, Plan) {
    let session = scene.start_task(spec);
    let first = scene.pass();
    assert_eq!(ahead(&first), 0, "nothing goes ahead before a run time is known");
    for placed in &first.assignments {
        start(scene, placed.item.attempt(1));
    }
    ran(scene, first.assignments[0].item.attempt(1), run_ms);
    (session, scene.pass())
}

#[test]
fn as_much_goes_ahead_as_runs_within_the_credit() {
    for (run_ms, expected) in [(1, 50), (10, 5), (50, 1), (400, 1), (1_000, 1), (1_001, 0), (60_000, 0)] {
        let (_, plan) = known(&mut scene(&["a"], 1), on_own(200), run_ms);
        assert_eq!(ahead(&plan), expected, "{run_ms} ms");
        assert_eq!(plan.assignments.len(), expected + 1, "the free slot first");
    }
}

#[test]
fn a_free_slot_elsewhere_comes_before_going_ahead() {
    let mut scene = scene(&["a", "b"], 1);
    let (_, plan) = known(&mut scene, on_own(4), 10);
    assert_eq!((plan.assignments.len(), ahead(&plan)), (2, 1), "one in the free slot, one ahead");
}

#[test]
fn what_is_placed_by_load_or_may_not_wait_never_goes_ahead() {
    let urgent = TaskSpec { urgency: 90, ..on_own(9) };
    let service = TaskSpec { service: true, longest_run_ms: None, ..on_own(9) };
    for spec in [with_cpu(CpuSetting::AtLeast(30), 9), with_cpu(CpuSetting::Exclusive, 9), urgent, service] {
        let (_, plan) = known(&mut scene(&["a"], 1), spec.clone(), 1);
        assert_eq!(ahead(&plan), 0, "{:?}", spec.needs.cpu);
    }
    let mut off = scene(&["a"], 1);
    off.policy.credit_ms = 0;
    assert_eq!(ahead(&known(&mut off, on_own(9), 1).1), 0);
}

#[test]
fn a_drain_calls_back_what_has_not_started_and_leaves_what_has() {
    let mut scene = scene(&["a"], 1);
    let (session, _) = known(&mut scene, on_own(4), 10);
    start(&mut scene, key(session, 0, 1).attempt(1));
    scene.happen(vec![Event::InstanceDraining { instance: name("a"), why: "asked".into() }]);
    let plan = scene.pass();
    let called: Vec<_> = plan.withdrawn.iter().map(|w| (w.attempt.item.index, w.how)).collect();
    assert_eq!(called, [(2, Withdrawal::Recall), (3, Withdrawal::Recall)]);
    assert!(scene.pass().is_idle(), "asked once");
    assert!(scene.snapshot.attempts.len() == 3, "they move on the agent's word only");
}

#[test]
fn what_may_be_moved_is_moved_unless_it_may_never_start_twice() {
    for (on_lost, moves) in [(OnLost::Retry, 1), (OnLost::Fail, 0)] {
        let mut scene = scene(&["a"], 1);
        let session = scene.start_task(TaskSpec { movable: true, on_lost, ..on_own(1) });
        scene.pass();
        start(&mut scene, key(session, 0, 0).attempt(1));
        scene.happen(vec![Event::InstanceDraining { instance: name("a"), why: "asked".into() }]);
        let plan = scene.pass();
        assert_eq!(plan.withdrawn.iter().filter(|w| w.how == Withdrawal::Move).count(), moves);
    }
}

#[test]
fn what_waits_behind_a_long_one_is_called_back_when_a_slot_is_free_elsewhere() {
    let mut scene = scene(&["a"], 1);
    let (session, plan) = known(&mut scene, on_own(3), 100);
    assert_eq!(ahead(&plan), 1);
    start(&mut scene, key(session, 0, 1).attempt(1));
    scene.instance("b", "own", facts(1));
    let plan = scene.pass();
    assert!(plan.withdrawn.is_empty(), "not yet");
    scene.now = plan.next_wake.unwrap();
    let plan = scene.pass();
    assert_eq!(plan.withdrawn.len(), 1);
    assert_eq!(plan.withdrawn[0].attempt.item.index, 2);
}

#[test]
fn an_item_that_wants_an_instance_alone_does_not_starve() {
    let mut scene = scene(&["a", "b"], 2);
    let stream = scene.start_task(on_own(1_000));
    let placed = scene.pass().assignments;
    for p in &placed {
        start(&mut scene, p.item.attempt(1));
    }
    let alone = key(scene.start_task(with_cpu(CpuSetting::Exclusive, 1)), 0, 0);
    for round in 0.. {
        assert!(round < 20, "it never got an instance: {:?}", waits(&scene, alone));
        scene.after_ms(3_000);
        let plan = scene.pass();
        if plan.assignments.iter().any(|a| a.item == alone) {
            break;
        }
        // A steady stream: one attempt ends, and its slot is asked for again.
        let running: Vec<AttemptKey> = scene.snapshot.attempts.keys().copied().collect();
        for attempt in &running {
            start(&mut scene, *attempt);
        }
        ran(&mut scene, running[0], 60_000);
    }
    assert!(scene.snapshot.attempts_of(stream).count() >= 2, "the other instance goes on");
}

/// Nothing new comes, and yet: what may move leaves where something waits for an instance alone, and goes on elsewhere.
#[test]
fn what_may_move_makes_room_for_what_wants_an_instance_alone_and_what_may_not_stays() {
    for (movable, moves) in [(true, 1), (false, 0)] {
        let mut scene = scene(&["a", "b"], 2);
        let long = TaskSpec { movable, longest_run_ms: None, ..on_own(1) };
        let sessions = [scene.start_task(long.clone()), scene.start_task(long)];
        scene.pass();
        for session in sessions {
            start(&mut scene, key(session, 0, 0).attempt(1));
        }
        let alone = key(scene.start_task(with_cpu(CpuSetting::Exclusive, 1)), 0, 0);
        let plan = scene.pass();
        assert!(plan.is_idle(), "not at once");
        scene.now = plan.next_wake.unwrap();
        let plan = scene.pass();
        assert_eq!(plan.withdrawn.iter().filter(|w| w.how == Withdrawal::Move).count(), moves, "{plan:?}");
        for moved in &plan.withdrawn {
            let then = skein_domain::event::Then::Retry { not_before: scene.now };
            scene.end(moved.attempt, EndCause::Moved { why: "asked".into() }, then);
            let placed = scene.pass().assignments;
            assert_eq!(placed.len(), 2);
            assert!(placed.iter().any(|a| a.item == alone) && placed[0].place != placed[1].place);
        }
    }
}

#[test]
fn beyond_the_cpu_ceiling_one_that_may_move_leaves_after_a_while_and_only_where_it_has_room() {
    let mut scene = scene(&["a"], 4);
    scene.policy.cpu_ceiling_percent = Some(80);
    let session = scene.start_task(TaskSpec { movable: true, ..on_own(3) });
    scene.pass();
    (0..3).for_each(|index| start(&mut scene, key(session, 0, index).attempt(1)));
    scene.live("a", Live { connected: true, cpu_percent: 95, memory_mb: 0 });
    let plan = scene.pass();
    assert!(plan.is_idle());
    scene.now = plan.next_wake.unwrap();
    assert!(scene.pass().withdrawn.is_empty(), "nowhere else to go");
    scene.instance("b", "own", facts(1));
    let plan = scene.pass();
    assert_eq!(
        plan.withdrawn.iter().map(|w| (w.attempt.item.index, w.how)).collect::<Vec<_>>(),
        [(2, Withdrawal::Move)]
    );
    assert!(scene.pass().withdrawn.is_empty(), "one at a time");
}

#[test]
fn users_share_by_weight() {
    let mut scene = scene(&["a"], 12);
    scene.policy.weights = [(name("heavy"), 300), (name("light"), 100)].into();
    for user in ["light", "heavy"] {
        let mut spec = (*skein_domain::testing::spec_of(thread(on_own(100)))).clone();
        spec.user = name(user);
        let session = SessionId::derive(40 + u64::from(user == "heavy"), 0);
        scene.happen(vec![Event::SessionStarted { session, spec: spec.into() }]);
    }
    let plan = scene.pass();
    let of = |turn| plan.assignments.iter().filter(|a| a.item.session() == SessionId::derive(turn, 0)).count();
    assert_eq!((of(40), of(41)), (4, 8), "in steps of four, a quarter and three quarters as near as that goes");
}

fn thread(task: TaskSpec) -> skein_domain::ThreadSpec {
    let nodes = vec![skein_domain::testing::loose(task, &[])];
    skein_domain::thread::assemble(name("thread"), String::new(), nodes, &[], skein_domain::HoldPolicy::IdleMs(0))
        .unwrap()
}

#[test]
fn a_paused_session_starts_nothing_and_gets_back_what_did_not_start() {
    let mut scene = scene(&["a"], 1);
    let (session, _) = known(&mut scene, on_own(5), 10);
    start(&mut scene, key(session, 0, 1).attempt(1));
    scene.happen(vec![Event::SessionPaused { session, by: name("me") }]);
    let plan = scene.pass();
    assert_eq!((plan.assignments.len(), plan.withdrawn.len()), (0, 3));
    for withdrawn in plan.withdrawn {
        let then = skein_domain::event::Then::Retry { not_before: scene.now };
        scene.end(withdrawn.attempt, EndCause::Recalled { why: "asked".into() }, then);
    }
    ran(&mut scene, key(session, 0, 1).attempt(1), 10);
    assert!(scene.pass().assignments.is_empty());
    assert_eq!(waits(&scene, key(session, 0, 4)), Reason::SessionPaused);
    scene.happen(vec![Event::SessionResumed { session, by: name("me"), budget: None }]);
    let plan = scene.pass();
    assert!(plan.assignments.iter().all(|a| a.place == Place::Instance(name("a")) && a.number == 2));
    assert_eq!(plan.assignments.len(), 3);
}

#[test]
fn a_busy_instance_is_no_place_to_wait() {
    let mut scene = scene(&["a"], 1);
    scene.policy.cpu_ceiling_percent = Some(80);
    let session = scene.start_task(on_own(9));
    scene.pass();
    start(&mut scene, key(session, 0, 0).attempt(1));
    scene.live("a", Live { connected: true, cpu_percent: 90, memory_mb: 0 });
    ran(&mut scene, key(session, 0, 0).attempt(1), 1);
    assert!(scene.pass().assignments.is_empty());
}
