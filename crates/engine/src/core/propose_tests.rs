//! The core and an algorithm: who places what when it answers, fails, is late, or says nothing at all.

use std::path::Path;
use std::sync::Arc;

use skein_domain::decide::{Algorithm, Answer, Choice, Fault, Instead, Policy, Question};
use skein_domain::event::Event;
use skein_domain::testing::{Scene, dedicated, facts, task};
use skein_domain::{Balance, TaskSpec, Timestamp};

use super::{ANSWER_MS, ASK_AGAIN_MS, FAILURES_MAX, REST_MS};
use crate::core::{Core, Input, Output, Settings, TurnResult};
use crate::plugin::{Asker, Limits, Script};

const CLASS: &str = "luau:test.luau";

fn settings() -> Settings {
    let algorithm = Algorithm::Custom { class: CLASS.into() };
    Settings { policy: Policy { algorithm, balance: Balance::FirstFit, ..Policy::default() }, lease_ms: 3_600_000 }
}

/// Two instances with eight slots each, and this many items, started one after the other by `start`.
struct Rig {
    core: Core,
    now: Timestamp,
    scene: Scene,
}

impl Rig {
    fn new(items: u32) -> Self {
        let mut scene = Scene::default();
        scene.solution(dedicated("own", 1));
        for id in ["a", "b"] {
            scene.instance(id, "own", facts(8));
        }
        scene.start_task(TaskSpec { array: items, ..task("t") });
        scene.snapshot.take_changes();
        let core = Core::new(scene.snapshot.clone(), settings(), scene.now);
        Self { core, now: scene.now, scene }
    }

    fn turn(&mut self, inputs: Vec<Input>) -> TurnResult {
        self.core.turn(self.now, inputs)
    }

    /// One more item.
    fn submit(&mut self) -> TurnResult {
        let mut other = self.scene.clone();
        let session = other.start_task(task("later"));
        let spec = other.snapshot.sessions[&session].spec.clone();
        self.turn(vec![Input::Submit { reply: 1, spec, client_key: None, digests: Vec::new(), estimate: None }])
    }

    fn answers(&mut self, ask: u64, answer: Result<Answer, Fault>) -> TurnResult {
        self.turn(vec![Input::Proposed { ask, answer }])
    }
}

fn asked(turn: &TurnResult) -> Option<(u64, Arc<Question>)> {
    turn.outputs.iter().find_map(|output| match output {
        Output::AskAlgorithm { ask, question } => Some((*ask, question.clone())),
        _ => None,
    })
}

fn choices(turn: &TurnResult) -> Vec<(String, Choice)> {
    let placed = turn.events.iter().filter_map(|event| match event {
        Event::Assigned { attempt } => Some((attempt.place.to_string(), attempt.choice.clone())),
        _ => None,
    });
    placed.collect()
}

fn said(turn: &TurnResult) -> Option<(Fault, bool)> {
    turn.outputs.iter().find_map(|output| match output {
        Output::AlgorithmFailed { fault, rests, .. } => Some((fault.clone(), *rests)),
        _ => None,
    })
}

fn error() -> Fault {
    Fault::Error { what: "test".into() }
}

#[test]
fn an_answer_is_an_event_and_the_places_it_names() {
    let mut rig = Rig::new(2);
    let first = rig.turn(Vec::new());
    let (ask, question) = asked(&first).unwrap();
    // What holds from this start on is on record; asking adds nothing to it.
    let start = |event: &Event| matches!(event, Event::EngineStarted | Event::PolicySet { .. });
    assert!(first.events.iter().all(start) && first.changes.is_empty(), "asking writes nothing: {:?}", first.events);
    assert_eq!(question.items.len(), 2);
    assert!(asked(&rig.turn(Vec::new())).is_none(), "one question at a time");
    let places = [(0, "b".to_owned()), (1, "b".to_owned())].into();
    let turn = rig.answers(ask, Ok(Answer { places, ..Answer::default() }));
    assert!(matches!(turn.events[0], Event::Proposed { .. }), "recorded before what it led to: {:?}", turn.events);
    let by = Choice::Algorithm { class: CLASS.into() };
    assert_eq!(choices(&turn), [("b".to_owned(), by.clone()), ("b".to_owned(), by)]);
    assert!(rig.answers(ask, Err(error())).events.is_empty(), "a second answer to it says nothing");
}

#[test]
fn what_is_left_waiting_is_asked_about_again_when_something_changes_or_after_a_while() {
    let mut rig = Rig::new(1);
    let (ask, _) = asked(&rig.turn(Vec::new())).unwrap();
    let turn = rig.answers(ask, Ok(Answer::default()));
    assert!(asked(&turn).is_none(), "the same question: not at once");
    assert_eq!(rig.core.next_wake(), Some(rig.now.after_ms(ASK_AGAIN_MS)));
    rig.now = rig.now.after_ms(ASK_AGAIN_MS);
    let (ask, _) = asked(&rig.turn(Vec::new())).unwrap();
    let turn = rig.answers(ask, Ok(Answer::default()));
    assert!(turn.events.is_empty(), "the same answer is no news: {:?}", turn.events);
    assert!(asked(&rig.submit()).is_some(), "another question");
}

#[test]
fn a_failure_is_told_and_the_default_scheme_places_what_was_asked_about() {
    let mut rig = Rig::new(3);
    let (ask, _) = asked(&rig.turn(Vec::new())).unwrap();
    let turn = rig.answers(ask, Err(error()));
    assert_eq!(said(&turn), Some((error(), false)));
    assert_eq!(choices(&turn).len(), 3);
    for (place, choice) in choices(&turn) {
        assert!(place == "a" && matches!(choice, Choice::Instead { why: Instead::Failed { .. }, .. }), "{choice}");
    }
}

#[test]
fn one_that_never_answers_holds_nothing_up_for_longer_than_its_time() {
    let mut rig = Rig::new(1);
    let (ask, _) = asked(&rig.turn(Vec::new())).unwrap();
    let until = rig.now.after_ms(ANSWER_MS);
    assert_eq!(rig.core.next_wake(), Some(until));
    rig.now = until;
    let turn = rig.turn(Vec::new());
    assert_eq!(said(&turn), Some((Fault::NoAnswer { after_ms: ANSWER_MS }, false)));
    assert_eq!(choices(&turn).len(), 1);
    // What comes after all is late.
    let places = [(0, "b".to_owned())].into();
    assert!(rig.answers(ask, Ok(Answer { places, ..Answer::default() })).events.is_empty());
}

#[test]
fn after_several_failures_in_a_row_it_rests_and_after_the_rest_one_more_is_enough() {
    let mut rig = Rig::new(1);
    let mut turn = rig.turn(Vec::new());
    for failure in 1..=FAILURES_MAX {
        let (ask, _) = asked(&turn).unwrap();
        let failed = rig.answers(ask, Err(error()));
        assert_eq!(said(&failed), Some((error(), failure == FAILURES_MAX)));
        turn = rig.submit();
    }
    assert!(asked(&turn).is_none(), "it rests");
    assert!(matches!(&choices(&turn)[0].1, Choice::Instead { why: Instead::Rests { .. }, .. }), "{:?}", choices(&turn));
    rig.now = rig.now.after_ms(REST_MS);
    let (ask, _) = asked(&rig.submit()).unwrap();
    assert_eq!(said(&rig.answers(ask, Err(error()))), Some((error(), true)));
    // Read anew, it is asked at once, and its failures are forgotten.
    let set = Input::AlgorithmSet { class: CLASS.into(), digest: "new".into() };
    rig.turn(vec![set]);
    let (ask, _) = asked(&rig.submit()).unwrap();
    assert_eq!(said(&rig.answers(ask, Err(error()))), Some((error(), false)));
}

#[test]
fn another_algorithm_in_the_configuration_ends_the_question() {
    let mut rig = Rig::new(1);
    let (ask, _) = asked(&rig.turn(Vec::new())).unwrap();
    let solutions = rig.core.snapshot().solutions.values().cloned().collect();
    let builtin = Settings { policy: Policy::default(), ..settings() };
    let turn = rig.turn(vec![Input::Configure { settings: Box::new(builtin), solutions }]);
    assert_eq!(choices(&turn).len(), 1, "the builtin one places it");
    assert!(rig.answers(ask, Err(error())).events.is_empty());
}

/// Every way in which a class can go wrong, through the real VM and the real core: the engine goes on, says what
/// was wrong, and the default scheme places the items.
#[test]
fn whatever_a_class_does_its_items_are_placed_and_its_fault_is_told() {
    // A busy machine must not strike the backstop first.
    let limits = Limits { wall_ms: 60_000, ..Limits::default() };
    for (word, body) in [
        ("interrupts", "while true do end"),
        ("interrupts", "while true do pcall(function() while true do end end) end"),
        ("memory", "return string.rep('x', 2 ^ 30 - 1)"),
        ("interrupts", "return string.find(string.rep('a', 40), string.rep('a?', 40) .. string.rep('a', 40) .. 'b')"),
        ("error", "error('mine')"),
        ("error", "local function f() return 1 + f() end\nf()"),
        ("error", "coroutine.yield()"),
        ("error", "setmetatable(instances[1], { __index = function() while true do end end })"),
        ("answer", "return 'a'"),
        ("answer", "return { 'nowhere' }"),
        ("answer", "return { [4] = 'a' }"),
        ("answer", "local t = {}\nfor i = 1, 1e5 do t[i] = 'a' end\nreturn t"),
        ("answer", "return { function() end }"),
    ] {
        let text = format!("return {{ assign = function(self, items, instances)\n{body}\nend }}");
        let script = Script::new(CLASS, Path::new("test.luau"), text, serde_json::Map::new());
        let mut rig = Rig::new(3);
        let (ask, question) = asked(&rig.turn(Vec::new())).unwrap();
        let answer = Asker::new(&script, limits).unwrap().ask(&question, false);
        let turn = rig.answers(ask, answer);
        let (fault, _) = said(&turn).unwrap_or_else(|| panic!("not told: {body}"));
        assert_eq!(fault.word(), word, "{body}: {fault}");
        let recorded = turn.events.iter().any(|e| matches!(e, Event::AlgorithmFailed { fault: f, .. } if *f == fault));
        assert!(recorded && choices(&turn).len() == 3, "{body}: {:?}", turn.events);
    }
}
