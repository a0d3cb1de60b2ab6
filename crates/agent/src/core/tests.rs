//! The core by example, with a clock of its own.

use std::collections::BTreeMap;

use skein_domain::task::RunSpec;
use skein_domain::{Digest, EndCause};
use skein_wire::{InputFile, OrderBody};

use super::*;
use crate::spawner::{Exit, StopSignal};

const LEASE_MS: u64 = 10_000;

/// A core, its time, and what it last said.
struct Bench {
    core: Core,
    now: u64,
}

impl Bench {
    /// Two slots, connected, welcomed.
    fn new() -> Self {
        let mut bench = Self::unconnected();
        bench.connect();
        bench
    }

    fn unconnected() -> Self {
        let engine = EngineId::new("e").unwrap();
        let mut bench = Self { core: Core::new(CoreConfig { engine, slots: 2, drain_ms: 5_000 }), now: 1_000 };
        for slot in 0..2 {
            bench.step(Input::SlotReady { slot, notes: vec!["unlimited".into()] });
        }
        bench
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        self.core.step(self.now, input)
    }

    fn connect(&mut self) -> Vec<FromAgent> {
        sent(&self.welcome())
    }

    fn welcome(&mut self) -> Vec<Output> {
        self.step(Input::HelloSent);
        self.message(ToAgent::Welcome { lease_ms: LEASE_MS, heartbeat_ms: 1_000, lane_token: "t".into() })
    }

    fn message(&mut self, message: ToAgent) -> Vec<Output> {
        self.step(Input::Message(message))
    }

    fn start(&mut self, order: StartOrder) -> Vec<Output> {
        let (attempt, generation) = (order.attempt, order.generation);
        self.message(ToAgent::Start { attempt, generation, order: OrderBody::Inline(Box::new(order)) })
    }

    /// Starts an attempt and lets its process run.
    fn run(&mut self, order: StartOrder) -> (usize, u64) {
        let out = self.start(order);
        let (slot, launch) = spawned(&out);
        self.step(Input::Started { slot, launch, pid: Some(77) });
        (slot, launch)
    }

    fn exit(&mut self, slot: usize, launch: u64, code: i32) -> Vec<Output> {
        self.step(Input::Exited { slot, exit: Exit { id: launch, code: Some(code), run_ms: 1, ..Exit::default() } })
    }

    fn lease(&mut self, heartbeat: u64) -> Vec<Output> {
        self.message(ToAgent::Lease { heartbeat, lease_ms: LEASE_MS, heartbeat_ms: 1_000 })
    }

    /// Time passes step by step, as the core itself asks, up to `until`; answers no heartbeat.
    fn pass(&mut self, until: u64) -> Vec<Output> {
        let mut out = Vec::new();
        while let Some(at) = self.core.next_wake().filter(|at| *at <= until) {
            assert!(at >= self.now, "a wake in the past would spin: {at} at {}", self.now);
            self.now = at;
            out.extend(self.step(Input::Tick));
            assert!(self.core.next_wake().is_none_or(|next| next > at), "it would spin at {at}");
        }
        self.now = until;
        out
    }
}

fn order(item: u32, generation: u64) -> StartOrder {
    StartOrder {
        engine: EngineId::new("e").unwrap(),
        attempt: format!("s-1.0.{item}.1").parse().unwrap(),
        generation,
        node: "n".into(),
        run: RunSpec::Command(vec!["true".into()]),
        env: BTreeMap::new(),
        secret_env: vec![],
        inputs: vec![],
        outputs: vec![],
        cpu: 0,
        memory_mb: 64,
        slots: 1,
        limit_ms: None,
        stdin: false,
        grace_ms: 500,
        proprietary: None,
    }
}

fn of(item: u32, generation: u64) -> AttemptRef {
    let order = order(item, generation);
    AttemptRef { attempt: order.attempt, generation }
}

fn sent(out: &[Output]) -> Vec<FromAgent> {
    let message = |o: &Output| match o {
        Output::Send(FromAgent::Heartbeat { .. }) => None,
        Output::Send(message) => Some(message.clone()),
        _ => None,
    };
    out.iter().filter_map(message).collect()
}

fn spawned(out: &[Output]) -> (usize, u64) {
    let spawn = |o: &Output| match o {
        Output::Spawn { slot, launch, .. } => Some((*slot, *launch)),
        _ => None,
    };
    out.iter().find_map(spawn).unwrap_or_else(|| panic!("nothing spawned: {out:?}"))
}

fn end(out: &[Output]) -> AttemptEnd {
    let end = |m: FromAgent| match m {
        FromAgent::Ended { end, .. } => Some(*end),
        _ => None,
    };
    sent(out).into_iter().find_map(end).unwrap_or_else(|| panic!("no end: {out:?}"))
}

fn signals(out: &[Output]) -> Vec<StopSignal> {
    let signal = |o: &Output| match o {
        Output::Signal { signal, .. } => Some(*signal),
        _ => None,
    };
    out.iter().filter_map(signal).collect()
}

fn refused(out: &[Output]) -> Option<String> {
    sent(out).into_iter().find_map(|m| match m {
        FromAgent::OrderRefused { why, .. } => Some(why),
        _ => None,
    })
}

#[test]
fn a_silent_attempt_ends_at_once_and_is_kept_until_recorded() {
    let mut bench = Bench::new();
    let out = bench.start(order(0, 5));
    assert_eq!(sent(&out), [FromAgent::Accepted(of(0, 5))]);
    let (slot, launch) = spawned(&out);
    let out = bench.step(Input::Started { slot, launch, pid: Some(9) });
    assert_eq!(sent(&out), [FromAgent::Started(of(0, 5))]);
    assert_eq!(bench.core.running(), [(of(0, 5).attempt, 9)]);
    let out = bench.exit(slot, launch, 0);
    assert_eq!(end(&out).cause, EndCause::Succeeded);
    assert_eq!(end(&out).notes, ["unlimited"]);
    assert!(out.contains(&Output::Discard(of(0, 5))));
    assert_eq!(bench.core.holding(), [of(0, 5)]);
    bench.message(ToAgent::Recorded { attempts: vec![of(0, 4)] });
    assert_eq!(bench.core.holding(), [of(0, 5)], "another generation was recorded");
    bench.message(ToAgent::Recorded { attempts: vec![of(0, 5)] });
    assert_eq!(bench.core.holding(), []);
}

#[test]
fn an_end_is_sent_again_until_recorded() {
    let mut bench = Bench::new();
    let (slot, launch) = bench.run(order(0, 5));
    bench.step(Input::Disconnected);
    let out = bench.exit(slot, launch, 3);
    assert!(sent(&out).is_empty());
    let again = bench.connect();
    assert!(
        matches!(&again[..], [FromAgent::Ended { end, .. }] if end.cause == EndCause::Failed { exit_code: 3 }),
        "{again:?}"
    );
    let at = bench.now + ENDED_RESEND_MS;
    let out = bench.pass(at);
    assert_eq!(end(&out).cause, EndCause::Failed { exit_code: 3 });
}

#[test]
fn an_older_generation_and_a_doubled_order_start_nothing() {
    let mut bench = Bench::new();
    let (slot, launch) = bench.run(order(0, 5));
    let out = bench.start(order(0, 5));
    assert_eq!(sent(&out), [FromAgent::Started(of(0, 5))], "answered again, not started again");
    assert!(refused(&bench.start(order(0, 4))).unwrap().contains("stale"));
    bench.exit(slot, launch, 0);
    assert_eq!(end(&bench.start(order(0, 5))).cause, EndCause::Succeeded);
    bench.message(ToAgent::Recorded { attempts: vec![of(0, 5)] });
    assert!(refused(&bench.start(order(0, 5))).unwrap().contains("stale"), "recorded: it must not start a second time");
    spawned(&bench.start(order(0, 6)));
}

#[test]
fn forgotten_generations_are_refused_as_a_whole() {
    let mut bench = Bench::new();
    for number in 0..=GENERATIONS_MAX {
        let item = u32::try_from(number).unwrap();
        let at = of(item, 10 + number as u64);
        bench.message(ToAgent::Cancel { attempt: at.attempt, generation: at.generation, moving: false });
        bench.message(ToAgent::Recorded { attempts: vec![at] });
    }
    assert_eq!(bench.core.generations.len(), GENERATIONS_MAX);
    assert!(refused(&bench.start(order(0, 10))).is_some());
    assert!(refused(&bench.start(order(u32::MAX, 10))).is_some());
    spawned(&bench.start(order(0, 11)));
}

#[test]
fn more_orders_than_slots_wait_their_turn() {
    let mut bench = Bench::new();
    let (slot, launch) = bench.run(order(0, 5));
    bench.run(order(1, 5));
    let out = bench.start(order(2, 5));
    assert_eq!(sent(&out), [FromAgent::Accepted(of(2, 5))]);
    assert_eq!(out.len(), 1);
    let out = bench.exit(slot, launch, 0);
    assert_eq!(spawned(&out).0, slot);
}

#[test]
fn a_time_limit_asks_then_kills() {
    let mut bench = Bench::new();
    let (slot, launch) = bench.run(StartOrder { limit_ms: Some(2_000), ..order(0, 5) });
    let began = bench.now;
    bench.lease(1);
    assert_eq!(signals(&bench.pass(began + 1_999)), []);
    assert_eq!(signals(&bench.pass(began + 2_000)), [StopSignal::Term]);
    assert_eq!(signals(&bench.pass(began + 2_499)), []);
    assert_eq!(signals(&bench.pass(began + 2_600)), [StopSignal::Kill]);
    let out = bench.exit(slot, launch, 0);
    assert_eq!(end(&out).cause, EndCause::TimedOut { limit_ms: 2_000 });
}

#[test]
fn a_cancel_works_in_every_phase() {
    let mut bench = Bench::new();
    let cancel = |of: AttemptRef| ToAgent::Cancel { attempt: of.attempt, generation: of.generation, moving: false };
    // Running.
    let (slot, launch) = bench.run(order(0, 5));
    assert!(refused(&bench.message(cancel(of(0, 6)))).is_some());
    assert_eq!(signals(&bench.message(cancel(of(0, 5)))), [StopSignal::Term]);
    assert_eq!(end(&bench.exit(slot, launch, 0)).cause, EndCause::Cancelled);
    // Fetching inputs.
    let input = InputFile { path: "x".into(), digest: Digest::new(&"0".repeat(64)).unwrap(), size: 1 };
    let out = bench.start(StartOrder { inputs: vec![input], ..order(1, 5) });
    assert!(matches!(out[1], Output::Prepare(_)));
    assert_eq!(end(&bench.message(cancel(of(1, 5)))).cause, EndCause::Cancelled);
    assert!(bench.step(Input::Prepared(of(1, 5), Ok(()))).is_empty(), "too late");
    // Not here yet: the start that follows must not run.
    assert_eq!(end(&bench.message(cancel(of(2, 5)))).cause, EndCause::Cancelled);
    assert_eq!(end(&bench.start(order(2, 5))).cause, EndCause::Cancelled);
    assert!(refused(&bench.message(cancel(of(2, 4)))).is_some());
}

#[test]
fn without_answers_everything_is_dead_before_the_lease_ends() {
    for cut_off in [false, true] {
        let mut bench = Bench::new();
        let (slot, launch) = bench.run(StartOrder { grace_ms: 60_000, ..order(0, 5) });
        bench.run(order(1, 5));
        bench.start(order(2, 5));
        let welcomed = bench.now;
        if cut_off {
            bench.step(Input::Disconnected);
        }
        let kill_at = welcomed + LEASE_MS - lease::LEASE_MARGIN_MS;
        let out = bench.pass(kill_at - 1);
        assert_eq!(
            signals(&out),
            [StopSignal::Term, StopSignal::Term, StopSignal::Kill],
            "the short grace is over already"
        );
        if !cut_off {
            assert!(matches!(end(&out).cause, EndCause::Lost { .. }), "what waited is lost at once");
        }
        assert_eq!(signals(&bench.pass(kill_at)), [StopSignal::Kill]);
        assert!(signals(&bench.pass(kill_at + 60_000)).is_empty());
        bench.exit(slot, launch, 0);
        let told = if cut_off { bench.connect() } else { sent(&bench.start(order(0, 5))) };
        assert!(
            told.iter()
                .any(|m| matches!(m, FromAgent::Ended { end, .. } if matches!(end.cause, EndCause::Lost { .. }))),
            "{told:?}"
        );
    }
}

#[test]
fn an_answer_renews_the_lease_from_the_heartbeats_departure() {
    let mut bench = Bench::new();
    let (slot, launch) = bench.run(order(0, 5));
    let welcomed = bench.now;
    let out = bench.pass(welcomed + 3_000);
    let beats = out.iter().filter(|o| matches!(o, Output::Send(FromAgent::Heartbeat { .. }))).count();
    assert_eq!(beats, 3);
    // Number 3 left at +2000 and is answered at +3000; an answer to nothing changes nothing.
    bench.lease(3);
    bench.lease(99);
    let stop_at = welcomed + 2_000 + LEASE_MS - lease::LEASE_MARGIN_MS - lease::LEASE_GRACE_MS;
    assert_eq!(signals(&bench.pass(stop_at - 1)), []);
    assert_eq!(signals(&bench.pass(stop_at)), [StopSignal::Term]);
    assert!(matches!(end(&bench.exit(slot, launch, 0)).cause, EndCause::Lost { .. }));
}

#[test]
fn nothing_starts_without_a_lease() {
    let mut bench = Bench::unconnected();
    assert!(bench.start(order(0, 5)).is_empty());
    assert_eq!(bench.connect(), [], "what came before the welcome is not kept for it");
    let (mut late, now) = (Bench::new(), 1_000 + LEASE_MS);
    late.now = now;
    let out = late.start(order(0, 5));
    assert!(out.iter().all(|o| !matches!(o, Output::Spawn { .. })), "{out:?}");
    assert!(out.iter().any(|o| matches!(o, Output::Send(FromAgent::OrderRefused { .. }))), "{out:?}");
    // A new hello brings a new lease.
    late.step(Input::Disconnected);
    late.connect();
    spawned(&late.start(order(1, 5)));
}

#[test]
fn outputs_and_log_are_waited_for() {
    let mut bench = Bench::new();
    let with_outputs = StartOrder { outputs: vec!["x".into()], ..order(0, 5) };
    let (slot, launch) = bench.run(with_outputs.clone());
    let exit = Exit { id: launch, code: Some(0), log_bytes: 3, ..Exit::default() };
    let out = bench.step(Input::Exited { slot, exit });
    assert!(matches!(&out[..], [Output::Collect(_), Output::FlushLog(_)]), "{out:?}");
    assert!(bench.step(Input::LogFlushed(of(0, 5), Some("cut".into()))).is_empty());
    let out = bench.step(Input::Collected(of(0, 5), Ok(vec![])));
    assert_eq!(
        (end(&out).cause, end(&out).notes),
        (EndCause::Succeeded, vec!["unlimited".to_owned(), "cut".to_owned()])
    );
    // The outputs are missing; the log hangs.
    let (slot, launch) = bench.run(StartOrder { attempt: of(1, 5).attempt, ..with_outputs });
    let exit = Exit { id: launch, code: Some(0), log_bytes: 3, ..Exit::default() };
    bench.step(Input::Exited { slot, exit });
    bench.step(Input::Collected(of(1, 5), Err(CollectFailure::Task("output 'x' is missing".into()))));
    let until = bench.now + LOG_WAIT_MS;
    assert!(sent(&bench.pass(until - 1)).is_empty());
    let end = end(&bench.pass(until));
    assert_eq!(end.cause, EndCause::Failed { exit_code: 0 });
    assert!(end.notes[1].contains("output 'x' is missing") && end.notes[2].contains("log"), "{end:?}");
}

#[test]
fn what_cannot_run_here_is_not_started() {
    let mut bench = Bench::new();
    let foreign = StartOrder { engine: EngineId::new("other").unwrap(), ..order(0, 5) };
    let escape = StartOrder { outputs: vec!["../x".into()], ..order(1, 5) };
    let function = StartOrder { run: RunSpec::Function { reference: "f".into() }, ..order(2, 5) };
    for (order, part) in
        [(foreign, "engine 'other'"), (escape, "leaves the task's folder"), (function, "shared solution")]
    {
        let EndCause::NotStarted { why } = end(&bench.start(order)).cause else { panic!() };
        assert!(why.contains(part), "{why}");
    }
    let out = bench.message(ToAgent::Start { attempt: of(3, 5).attempt, generation: 5, order: OrderBody::Fetch });
    assert_eq!(out[1], Output::FetchOrder(of(3, 5)));
    let out = bench.step(Input::OrderFetched(of(3, 5), Err("404".into())));
    assert!(matches!(end(&out).cause, EndCause::NotStarted { .. }));
}

#[test]
fn a_dead_spawner_loses_its_attempt_and_its_slot_comes_back() {
    let mut bench = Bench::new();
    let (slot, _) = bench.run(order(0, 5));
    let out = bench.step(Input::SlotDown { slot });
    assert!(out.contains(&Output::KillGroup(77)));
    assert!(matches!(end(&out).cause, EndCause::Lost { .. }));
    bench.run(order(1, 5));
    assert!(bench.start(order(2, 5)).iter().all(|o| !matches!(o, Output::Spawn { .. })));
    let out = bench.step(Input::SlotReady { slot, notes: vec![] });
    assert_eq!(spawned(&out).0, slot);
}

#[test]
fn a_newer_attempt_waits_until_the_older_is_dead() {
    let mut bench = Bench::new();
    let (slot, launch) = bench.run(order(0, 5));
    let newer = StartOrder { attempt: "s-1.0.0.2".parse().unwrap(), ..order(0, 6) };
    let out = bench.start(newer);
    assert_eq!(signals(&out), [StopSignal::Term]);
    assert!(out.iter().all(|o| !matches!(o, Output::Spawn { .. })));
    let out = bench.exit(slot, launch, 0);
    assert!(matches!(end(&out).cause, EndCause::Lost { .. }));
    spawned(&out);
}

#[test]
fn a_sigterm_gives_back_what_waits_and_finishes_what_runs() {
    let mut bench = Bench::new();
    let (slot, launch) = bench.run(order(0, 5));
    let (other, second) = bench.run(order(1, 5));
    bench.start(order(2, 5));
    let out = bench.step(Input::Terminate);
    assert!(sent(&out).contains(&FromAgent::Draining) && refused(&out).is_some());
    assert!(refused(&bench.start(order(3, 5))).unwrap().contains("drains"));
    bench.exit(slot, launch, 0);
    bench.lease(1);
    let at = bench.now + 5_000;
    let out = bench.pass(at);
    assert_eq!(signals(&out), [StopSignal::Term], "time to drain is over");
    let out = bench.exit(other, second, 0);
    assert!(matches!(end(&out).cause, EndCause::Lost { .. }));
    assert!(!out.contains(&Output::Leave), "ends are to be recorded first");
    let out = bench.message(ToAgent::Recorded { attempts: vec![of(0, 5), of(1, 5)] });
    assert_eq!(sent(&out), [FromAgent::Leaving]);
    assert!(out.contains(&Output::Leave));
}

#[test]
fn an_agent_that_is_cut_off_still_leaves() {
    let mut bench = Bench::new();
    let (slot, launch) = bench.run(order(0, 5));
    bench.step(Input::Disconnected);
    bench.step(Input::Terminate);
    bench.exit(slot, launch, 0);
    let at = bench.now + LEAVE_WAIT_MS;
    assert!(bench.pass(at).contains(&Output::Leave));
}

#[test]
fn an_engines_drain_finishes_everything_accepted() {
    let mut bench = Bench::new();
    let (slot, launch) = bench.run(order(0, 5));
    bench.run(order(1, 5));
    bench.start(order(2, 5));
    let out = bench.message(ToAgent::Drain { why: "scale down".into() });
    assert_eq!(sent(&out), [FromAgent::Draining]);
    spawned(&bench.exit(slot, launch, 0));
}

/// What must hold whatever happens, in whatever order: nothing runs twice, no slot holds two, no
/// item runs twice at a time, and without answers everything is killed before the lease ends.
#[derive(Default)]
struct Rules {
    spawned: BTreeSet<(AttemptKey, u64)>,
    running: BTreeMap<usize, (AttemptKey, u64, bool)>,
}

impl Rules {
    fn check(&mut self, out: &[Output]) {
        for output in out {
            match output {
                Output::Spawn { slot, launch, order } => {
                    assert!(self.spawned.insert((order.attempt, order.generation)), "started twice: {order:?}");
                    assert!(
                        self.running.values().all(|(other, ..)| other.item != order.attempt.item),
                        "an item runs twice"
                    );
                    assert!(
                        self.running.insert(*slot, (order.attempt, *launch, false)).is_none(),
                        "slot {slot} holds two"
                    );
                }
                Output::Signal { slot, launch, signal } => {
                    let (_, running, killed) = self.running.get_mut(slot).expect("a signal to an empty slot");
                    assert_eq!(running, launch);
                    *killed |= *signal == StopSignal::Kill;
                }
                _ => {}
            }
        }
    }
}

#[test]
fn whatever_happens_the_rules_hold() {
    for seed in 0..300_u32 {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let mut draw = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % below
        };
        let mut bench = Bench::new();
        let mut rules = Rules::default();
        let (mut generation, mut beats, mut cut, mut welcomed) = (1, 0, false, bench.now);
        for _ in 0..200 {
            let item = draw(4);
            let running = rules.running.iter().nth(draw(2) as usize).map(|(slot, (_, launch, _))| (*slot, *launch));
            let out = match (draw(12), running) {
                (0..=2, _) if !cut => {
                    generation += u64::from(draw(2));
                    let number = u32::try_from(generation).unwrap();
                    let attempt = format!("s-1.0.{item}.{number}").parse().unwrap();
                    let limit_ms = (draw(2) == 0).then_some(u64::from(draw(3_000)));
                    bench.start(StartOrder {
                        attempt,
                        limit_ms,
                        grace_ms: u64::from(draw(2_000)),
                        ..order(item, generation)
                    })
                }
                (3 | 4, Some((slot, launch))) => bench.step(Input::Started { slot, launch, pid: Some(5) }),
                (5 | 6, Some((slot, launch))) => {
                    rules.running.remove(&slot);
                    bench.exit(slot, launch, i32::try_from(draw(2)).unwrap())
                }
                (7, Some((slot, _))) => {
                    rules.running.remove(&slot);
                    let mut out = bench.step(Input::SlotDown { slot });
                    out.extend(bench.step(Input::SlotReady { slot, notes: vec![] }));
                    out
                }
                (8, _) if !cut => {
                    let attempt =
                        format!("s-1.0.{item}.{}", 1 + draw(u32::try_from(generation).unwrap())).parse().unwrap();
                    bench.message(ToAgent::Cancel { attempt, generation: u64::from(draw(40)), moving: draw(2) == 0 })
                }
                (9, _) if !cut => {
                    cut = true;
                    bench.step(Input::Disconnected)
                }
                (10, _) if cut => {
                    (cut, beats, welcomed) = (false, 0, bench.now);
                    bench.welcome()
                }
                _ => {
                    let until = bench.now + u64::from(draw(1_500));
                    bench.pass(until)
                }
            };
            rules.check(&out);
            beats += out.iter().filter(|o| matches!(o, Output::Send(FromAgent::Heartbeat { .. }))).count();
            if !cut && draw(3) == 0 && beats > 0 {
                let out = bench.lease(beats as u64);
                rules.check(&out);
                beats += out.iter().filter(|o| matches!(o, Output::Send(FromAgent::Heartbeat { .. }))).count();
                welcomed = bench.now;
            }
        }
        // Silence from now on: all that runs is killed in time, counted from the last answer at most.
        let out = bench.pass(welcomed + LEASE_MS - lease::LEASE_MARGIN_MS_MIN);
        rules.check(&out);
        assert!(rules.running.values().all(|(.., killed)| *killed), "seed {seed}: {:?}", rules.running);
    }
}

#[test]
fn an_attempt_of_two_slots_starts_when_both_are_free_and_nothing_passes_it() {
    let mut bench = Bench::new();
    let first = bench.run(order(0, 1));
    let none = |out: &[Output]| !out.iter().any(|o| matches!(o, Output::Spawn { .. }));
    assert!(none(&bench.start(StartOrder { slots: 2, ..order(1, 2) })), "one slot is taken");
    assert!(none(&bench.start(order(2, 3))), "the free slot is kept for what came first");
    let two = spawned(&bench.exit(first.0, first.1, 0));
    assert!(none(&bench.start(order(3, 4))), "both slots are taken");
    // The spawner of the slot that nothing runs in may come and go.
    let other = 1 - two.0;
    assert!(none(&bench.step(Input::SlotDown { slot: other })));
    assert!(none(&bench.step(Input::SlotReady { slot: other, notes: vec![] })));
    let out = bench.exit(two.0, two.1, 0);
    assert_eq!(out.iter().filter(|o| matches!(o, Output::Spawn { .. })).count(), 2, "{out:?}");
}

#[test]
fn what_takes_more_slots_than_there_are_is_refused_with_both_numbers() {
    let mut bench = Bench::new();
    let end = end(&bench.start(StartOrder { slots: 3, ..order(0, 1) }));
    let EndCause::NotStarted { why } = end.cause else { panic!("{end:?}") };
    assert!(why.contains("3 slots") && why.contains("has 2"), "{why}");
}
