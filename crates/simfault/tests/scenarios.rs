//! Windows in which peers lose work, each by its name (features.md part 3), played on the real core.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing has failed")]

use skein_domain::decide::Policy;
use skein_domain::event::Event;
use skein_domain::scaling::{Element, Milli};
use skein_domain::{AttemptState, InstanceId, InstanceState, SolutionKind};
use skein_engine::core::{CloudEvent, Core, Input, Listed, Output, Settings};
use skein_simfault::stage::{Stage, of, succeeded};
use skein_simfault::{CLOUD, facts, solutions, spec_of};
use skein_wire::FromAgent;

const LEASE_MS: u64 = 10_000;

fn stage_with(policy: Policy) -> Stage {
    Stage::new(Settings { policy, lease_ms: LEASE_MS }, solutions())
}

fn one(more: &serde_json::Value) -> skein_domain::SessionSpec {
    let mut task = serde_json::json!({"command": ["x"], "running_mode": "dedicated", "solution": CLOUD});
    task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec_of(serde_json::json!({"name": "one", "hold": {"idle_s": 0.0}, "tasks": {"a": task}}))
}

/// The minimum's machine, up and free.
fn machine(stage: &mut Stage) -> String {
    let outputs = stage.pass_ms(10);
    let wanted = |output: &Output| match output {
        Output::MakeMachine { instance, .. } => Some(instance.to_string()),
        _ => None,
    };
    let mut names = outputs.iter().filter_map(wanted);
    let name = names.next().unwrap_or_else(|| {
        let events = stage.events.iter().rev();
        let wanted = |event: &Event| match event {
            Event::InstanceWanted { instance, .. } => Some(instance.to_string()),
            _ => None,
        };
        events.into_iter().find_map(wanted).unwrap()
    });
    stage.hello(&name, "1", CLOUD, facts(2));
    name
}

fn state(stage: &Stage, name: &str) -> InstanceState {
    stage.core.snapshot().instances[&name.parse::<InstanceId>().unwrap()].state
}

fn ends(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| matches!(output, Output::EndMachine { .. }))
}

/// Karpenter #3185: work is bound to a node in the seconds in which it is being deleted as empty.
#[test]
fn assignment_racing_a_retirement() {
    let mut stage = stage_with(Policy::default());
    let name = machine(&mut stage);
    // In one turn the machine is to go and an item comes: whichever is first, it is not given out there.
    let drain = Input::Drain { reply: 2, instance: name.parse().unwrap(), why: "empty".into() };
    let spec = std::sync::Arc::new(one(&serde_json::json!({})));
    let submit = Input::Submit { reply: 1, spec, client_key: None, digests: Vec::new(), estimate: None };
    stage.turn(vec![submit, drain]);
    assert!(!stage.assigned_to().contains(&name.parse().unwrap()), "{:?}", stage.events);
    let outputs = stage.pass_ms(1_000);
    assert!(state(&stage, &name) >= InstanceState::Ending);
    assert!(ends(&outputs) || stage.events.iter().any(|e| matches!(e, Event::InstanceEnding { .. })));
    // The other way round: what is assigned first keeps the machine until it has ended.
    let mut stage = stage_with(Policy::default());
    let name = machine(&mut stage);
    stage.submit(one(&serde_json::json!({})));
    let order = of(stage.open().unwrap());
    stage.turn(vec![Input::Drain { reply: 2, instance: name.parse().unwrap(), why: "empty".into() }]);
    stage.says(&name, "1", vec![FromAgent::Started(order)]);
    assert!(!ends(&stage.pass_ms(5_000)) && state(&stage, &name) == InstanceState::Draining);
    stage.says(&name, "1", vec![succeeded(order)]);
    stage.pass_ms(1_000);
    assert_eq!(state(&stage, &name), InstanceState::Ending);
}

/// KEDA #157: scaling in ends what runs.
#[test]
fn scale_in_while_tasks_run() {
    let mut stage = stage_with(Policy::default());
    let first = machine(&mut stage);
    stage.submit(one(&serde_json::json!({"array": 5, "cpu": 100})));
    stage.pass_ms(10);
    let wanted: Vec<String> = stage
        .events
        .iter()
        .filter_map(|event| match event {
            Event::InstanceWanted { instance, .. } if instance.as_str() != first => Some(instance.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(wanted.len(), 4, "one for each item that wants one alone");
    for name in &wanted {
        stage.hello(name, "1", CLOUD, facts(2));
    }
    stage.pass_ms(10);
    let running: Vec<_> = stage.core.snapshot().attempts.values().map(|a| (a.place.to_string(), of(a))).collect();
    assert_eq!(running.len(), 5);
    for (place, order) in &running {
        stage.says(place, "1", vec![FromAgent::Started(*order)]);
    }
    // All but one end; then what is idle may go, and what runs may not, however long that takes.
    for (place, order) in &running[1..] {
        stage.says(place, "1", vec![succeeded(*order)]);
    }
    for _ in 0..20 {
        for (place, _) in &running {
            let beat =
                FromAgent::Heartbeat { number: 1, cpu_percent: 0, memory_mb: 0, items: Vec::new(), traffic: None };
            stage.says(place, "1", vec![beat]);
        }
        stage.pass_ms(2_000);
    }
    assert_eq!(state(&stage, &running[0].0), InstanceState::Ready);
    let going = running[1..].iter().filter(|(place, _)| state(&stage, place) >= InstanceState::Ending).count();
    assert_eq!(going, 4, "the minimum is the one that works");
    assert!(stage.core.snapshot().attempts.contains_key(&running[0].1.attempt));
}

/// The list holds against a person, against idleness and against a lease that is over.
#[test]
fn do_not_terminate_has_no_way_round() {
    let mut stage = stage_with(Policy::default());
    let name = machine(&mut stage);
    let policy = Policy { do_not_terminate: [name.parse().unwrap()].into(), ..Policy::default() };
    let settings = Box::new(Settings { policy, lease_ms: LEASE_MS });
    stage.turn(vec![Input::Configure { settings, solutions: solutions() }]);
    stage.turn(vec![Input::Drain { reply: 2, instance: name.parse().unwrap(), why: "a person".into() }]);
    assert_eq!(state(&stage, &name), InstanceState::Ready);
    let mut outputs = stage.pass_ms(LEASE_MS + 60_000);
    assert_eq!(state(&stage, &name), InstanceState::Gone, "its agent is silent");
    let listed = vec![Listed { instance: name.parse().unwrap(), cloud_id: "i-1".into() }];
    let event = CloudEvent::Listed { asked_at: stage.now, machines: listed };
    outputs.extend(stage.turn(vec![Input::FromCloud { solution: CLOUD.parse().unwrap(), event }]).outputs);
    let of_it = |o: &Output| matches!(o, Output::EndMachine { instance, .. } if instance.as_str() == name);
    assert!(!outputs.iter().any(of_it), "and the cloud is not asked to end it");
    stage.hello(&name, "1", CLOUD, facts(2));
    assert_eq!(state(&stage, &name), InstanceState::Ready, "it comes back as it was");
}

/// Airflow #13542: a task whose machine was silent for a while ends twice, or starts a second time beside itself.
#[test]
fn zombie_after_lost_heartbeat() {
    let mut stage = stage_with(Policy::default());
    stage.hello("a", "1", "own", facts(1));
    stage.submit(spec_of(
        serde_json::json!({"name": "z", "tasks": {"a": {"command": ["x"], "running_mode": "dedicated",
        "solution": "own"}}}),
    ));
    let first = of(stage.open().unwrap());
    stage.says("a", "1", vec![FromAgent::Started(first)]);
    stage.pass_ms(LEASE_MS + 1_000);
    assert!(stage.open().is_none(), "it is lost, and not given out where nobody answers");
    // It comes back and says that it succeeded: too late, nobody believes it.
    stage.hello("a", "1", "own", facts(1));
    stage.says("a", "1", vec![succeeded(first)]);
    stage.pass_ms(60_000);
    stage.hello("b", "1", "own", facts(1));
    stage.pass_ms(1_000);
    let second = of(stage.open().unwrap());
    assert!(second.attempt.number > 1 && second.generation > first.generation);
    let ended = stage.says("b", "1", vec![FromAgent::Started(second), succeeded(second), succeeded(second)]).events;
    assert_eq!(ended.iter().filter(|e| matches!(e, Event::Ended { .. })).count(), 1, "one accepted end");
    assert!(stage.core.snapshot().sessions.is_empty());
}

/// A call back and a start that cross: the item moves only when its agent says that it has not started.
#[test]
fn recall_racing_a_start() {
    let mut stage = stage_with(Policy::default());
    stage.hello("a", "1", "own", facts(1));
    stage.hello("b", "1", "own", facts(1));
    let spec = serde_json::json!({"name": "r", "tasks": {"a": {"command": ["x"], "running_mode": "dedicated",
        "solution": "own"}}});
    stage.submit(spec_of(spec));
    let order = of(stage.open().unwrap());
    let place = stage.open().unwrap().place.to_string();
    let drained = stage.turn(vec![Input::Drain { reply: 2, instance: place.parse().unwrap(), why: "going".into() }]);
    assert!(drained.outputs.iter().any(|o| matches!(o, Output::Recall { .. })), "{:?}", drained.outputs);
    assert_eq!(stage.assigned_to().len(), 1, "not before the agent has answered");
    // The start was quicker: it runs where it is, and ends there.
    stage.says(&place, "1", vec![FromAgent::Started(order)]);
    stage.pass_ms(100);
    assert_eq!(stage.open().map(|a| a.state), Some(AttemptState::Started));
    stage.says(&place, "1", vec![succeeded(order)]);
    assert_eq!(stage.assigned_to().len(), 1);
    assert!(stage.core.snapshot().sessions.is_empty());
}

/// Machines that nobody owns keep costing: an engine dies between asking and hearing.
#[test]
fn a_machine_whose_answer_was_never_heard_is_found_and_ended() {
    let mut stage = stage_with(Policy::default());
    let orphan: InstanceId = "cloud-9-9".parse().unwrap();
    let listed = vec![Listed { instance: orphan.clone(), cloud_id: "i-7".into() }];
    let event = CloudEvent::Listed { asked_at: stage.now, machines: listed };
    let said = stage.turn(vec![Input::FromCloud { solution: CLOUD.parse().unwrap(), event }]);
    let ended = |o: &Output| matches!(o, Output::EndMachine { instance, .. } if *instance == orphan);
    assert!(said.outputs.iter().any(ended));
    assert!(said.events.iter().any(|e| matches!(e, Event::OrphanFound { protected: false, .. })));
}

/// A solution that is configured no more leaves nothing that is due for ever: the engine would spin.
#[test]
fn an_engine_whose_machines_were_taken_from_its_configuration_sleeps() {
    let mut stage = stage_with(Policy::default());
    stage.pass_ms(10);
    let solutions = solutions().into_iter().filter(|s| s.id.as_str() != CLOUD).collect();
    let settings = Box::new(Settings { policy: Policy::default(), lease_ms: LEASE_MS });
    stage.turn(vec![Input::Configure { settings, solutions }]);
    stage.pass_ms(600_000);
    assert!(
        stage.core.next_wake().is_none_or(|wake| wake > stage.now),
        "{:?} at {:?}",
        stage.core.next_wake(),
        stage.now
    );
}

/// Seed 718: an engine starts again, its first turn cannot be written, and nobody waits for the invocations that the
/// engine before it had open.
#[test]
fn a_restart_whose_first_turn_cannot_be_written_takes_up_invocations_with_the_next() {
    let mut stage = stage_with(Policy::default());
    let task = serde_json::json!({"command": ["x"], "running_mode": "serverless", "longest_run_s": 60});
    stage.submit(spec_of(serde_json::json!({"name": "one", "tasks": {"a": task}})));
    let open = stage.open().unwrap().key;
    let taken_up = |outputs: &[Output]| {
        let of_it =
            |output: &&Output| matches!(output, Output::StartInGateway { order, .. } if order.attempt.key == open);
        let resumes = |output: &Output| matches!(output, Output::StartInGateway { resume: true, .. });
        outputs.iter().filter(of_it).map(resumes).collect::<Vec<bool>>()
    };
    let (ledger, settings) =
        (stage.core.snapshot().clone(), Settings { policy: Policy::default(), lease_ms: LEASE_MS });

    stage.core = Core::new(ledger.clone(), settings.clone(), stage.now);
    for time in 1..=2 {
        // Its outputs are never let out: the turn is not in the ledger.
        let failed = stage.core.turn(stage.now, Vec::new());
        assert_eq!(taken_up(&failed.outputs), [true], "turn {time}");
        stage.core = Core::reloaded(ledger.clone(), settings.clone(), stage.now, failed.resumes, failed.owed);
    }
    let written = stage.turn(Vec::new());
    assert_eq!(taken_up(&written.outputs), [true]);

    // Of a later turn that fails they are not taken up: somebody waits for them already.
    let failed = stage.turn(Vec::new());
    assert!(taken_up(&failed.outputs).is_empty(), "{:?}", failed.outputs);
    stage.core = Core::reloaded(ledger, settings, stage.now, failed.resumes, failed.owed);
    assert!(taken_up(&stage.pass_ms(60)).is_empty());
}

/// What is said of a custom metric makes machines with the element's next look, and only what an element names is taken.
#[test]
fn a_value_that_is_said_makes_machines() {
    let element: Element = serde_json::from_value(serde_json::json!({
        "name": "orders",
        "metrics": {"orders": {"unit": "count", "statistic": "maximum"}, "cpu": {"unit": "percent"}},
        "launch": {"image": {"name": "any"}, "instance_type": "any"},
        "group": {"min": 1, "max": 5, "cooldown_s": 0},
        "policies": {"each": {"kind": "target", "metric": "orders", "target": 10}},
    }))
    .unwrap();
    let mut solutions = solutions();
    let cloud = solutions.iter_mut().find(|s| s.id.as_str() == CLOUD).unwrap();
    let SolutionKind::Dedicated(dedicated) = &mut cloud.kind else { panic!() };
    dedicated.machines.as_mut().unwrap().element = Some(std::sync::Arc::new(element));
    let mut stage = Stage::new(Settings { policy: Policy::default(), lease_ms: LEASE_MS }, solutions);
    let first = machine(&mut stage);
    let say = |stage: &mut Stage, metric: &str, solution: Option<&str>| {
        let solution = solution.map(|id| id.parse().unwrap());
        let (metric, by) = (metric.to_owned(), "ana".parse().unwrap());
        let said = stage.turn(vec![Input::SayMetric { reply: 7, metric, solution, value: Milli::units(40), by }]);
        let answer = |output: &Output| match output {
            Output::Reply { answer, .. } => Some(answer.as_ref().map(|_| ()).map_err(|refusal| refusal.why.clone())),
            _ => None,
        };
        said.outputs.iter().find_map(answer).unwrap()
    };
    assert_eq!(say(&mut stage, "orders", Some(CLOUD)), Ok(()));
    for (metric, solution, why) in [
        ("ordres", None, "there are: orders"),
        ("cpu", None, "measured on the machines themselves"),
        ("orders", Some("moon"), "no solution 'moon'"),
        ("orders", Some("own"), "no scaling element of 'own'"),
    ] {
        let refused = say(&mut stage, metric, solution).unwrap_err();
        assert!(refused.contains(why), "{metric}: {refused}");
    }
    stage.says(
        &first,
        "1",
        vec![FromAgent::Heartbeat { number: 1, cpu_percent: 0, memory_mb: 0, items: Vec::new(), traffic: None }],
    );
    let made = stage.pass_ms(60_000);
    let made = made.iter().filter(|output| matches!(output, Output::MakeMachine { .. })).count();
    let (wants, why) = stage.core.snapshot().element_wants(&CLOUD.parse().unwrap()).unwrap();
    assert!((*wants, made >= 3) == (4, true), "{wants}, {made} made: {why}");
    assert_eq!(stage.core.element_metrics()[1].value, Some(Milli::units(40)));
}
