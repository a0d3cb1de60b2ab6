//! `cargo xtask bench ledger [ATTEMPTS]`: how many attempts the ledger keeps, how quickly pages of them come
//! back, and how long it takes to open. Ten sessions of one array each, every attempt ended.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a tool for a terminal")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::time::Instant;

use skein_domain::decide::Choice;
use skein_domain::decide::change::Change;
use skein_domain::event::{Event, Then};
use skein_domain::testing::{Scene, name, task};
use skein_domain::{
    Attempt, AttemptEnd, AttemptState, EndCause, ItemEnd, NanoUsd, NodeKey, Place, RunningMode, SessionId, TaskSpec,
    Timestamp,
};
use skein_store::{Ledger as _, Page, Reader as _, SqliteLedger, Turn};

const SESSIONS: u64 = 10;
const ROWS_PER_TURN: u64 = 5_000;
const PAGE: u32 = 100;

fn ended(key: skein_domain::AttemptKey, turn: u64, at: Timestamp) -> (Attempt, AttemptEnd) {
    let attempt = Attempt {
        key,
        place: Place::Instance(name("own-7")),
        generation: turn,
        boot: "0123456789abcdef0123456789abcdef".into(),
        state: AttemptState::Started,
        withdrawn: None,
        assigned_at: at,
        started_at: Some(at),
        limit_ms: Some(60_000),
        choice: Choice::Mode { mode: RunningMode::Dedicated, balance: None },
        cost_estimate: NanoUsd(1000),
        cost: Some(NanoUsd(900)),
    };
    let end = AttemptEnd { run_ms: 12, cpu_ms: Some(3), ..AttemptEnd::bare(EndCause::Succeeded) };
    (attempt, end)
}

fn main() {
    let all: u64 = std::env::args().nth(1).map_or(1_000_000, |n| n.parse().unwrap());
    let dir = std::env::var_os("SKEIN_BENCH_DIR").map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
    let mut ledger = SqliteLedger::open(dir.path(), &name("bench")).unwrap();
    let mut scene = Scene::default();
    let each = u32::try_from(all / SESSIONS).unwrap();
    let mut ids = Vec::new();
    let begun = Instant::now();
    for _ in 0..SESSIONS {
        ids.push(scene.start_task(TaskSpec { array: each, ..task("t") }));
        let changes = scene.snapshot.take_changes();
        ledger
            .commit(&Turn {
                turn: scene.snapshot.turn,
                at: scene.now,
                events: &[],
                earlier: &[],
                changes: &changes,
                side: &[],
            })
            .unwrap();
    }
    let (mut turn, at) = (scene.snapshot.turn, scene.now);
    for id in &ids {
        let node = NodeKey { session: *id, node: 0 };
        for first in (0..u64::from(each)).step_by(usize::try_from(ROWS_PER_TURN).unwrap()) {
            turn += 1;
            let (mut changes, mut events) = (Vec::new(), Vec::new());
            for index in first..(first + ROWS_PER_TURN).min(each.into()) {
                let item = node.item(u32::try_from(index).unwrap());
                let (attempt, end) = ended(item.attempt(1), turn, at);
                events.push(Event::Ended {
                    attempt: attempt.key,
                    end: end.clone(),
                    then: Then::End(ItemEnd::Succeeded),
                });
                changes.push(Change::ItemEnded(item, ItemEnd::Succeeded, at));
                changes.push(Change::AttemptEnded(attempt, end, at));
            }
            ledger.commit(&Turn { turn, at, events: &events, earlier: &[], changes: &changes, side: &[] }).unwrap();
        }
    }
    let took = begun.elapsed();
    println!(
        "{all} ended attempts with their items and events in {took:.1?}: {:.0}/s",
        all as f64 / took.as_secs_f64()
    );
    let bytes = std::fs::metadata(dir.path().join("ledger.sqlite")).unwrap().len();
    println!("on disk: {:.2} GB, {} bytes each", bytes as f64 / 1e9, bytes / all);
    let reader = ledger.reader().unwrap();
    let middle = ids[4];
    let last = NodeKey { session: middle, node: 0 }.item(each - 200).attempt(1);
    time("sessions, first page", || reader.sessions(Page { offset: 0, limit: PAGE }).unwrap().len());
    time("a session's attempts, first page", || reader.attempts_after(middle, None, PAGE).unwrap().len());
    time("a session's attempts, last page", || reader.attempts_after(middle, Some(last), PAGE).unwrap().len());
    time("a session", || reader.session(middle).unwrap().into_iter().count());
    time("where a session ran (100,000 attempts)", || reader.places(middle, 100_000).unwrap().len());
    time("events of a session, first page", || reader.events(0, Some(middle), PAGE).unwrap().len());
    time("one item", || one(&reader, middle, each));
    drop((reader, ledger));
    let begun = Instant::now();
    let mut ledger = SqliteLedger::open(dir.path(), &name("bench")).unwrap();
    let opened = begun.elapsed();
    println!("opened and checked in {opened:.2?}, open state loaded in {:.2?}", load(&mut ledger));
}

fn one(reader: &skein_store::SqliteReader, session: SessionId, each: u32) -> usize {
    reader.item(NodeKey { session, node: 0 }.item(each / 2)).unwrap().into_iter().count()
}

fn load(ledger: &mut SqliteLedger) -> std::time::Duration {
    let begun = Instant::now();
    ledger.load().unwrap();
    begun.elapsed()
}

fn time(what: &str, mut read: impl FnMut() -> usize) {
    let mut took: Vec<_> = (0..21)
        .map(|_| {
            let begun = Instant::now();
            assert!(read() > 0, "{what}");
            begun.elapsed()
        })
        .collect();
    let first = took[0];
    took.sort_unstable();
    println!("{what}: median {:.2?}, first {first:.2?}, most {:.2?}", took[10], took[20]);
}
