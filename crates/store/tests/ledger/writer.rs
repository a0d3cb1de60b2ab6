//! One writer: the folder's lock, the engine's name, the epoch, the schema.

use rusqlite::Connection;
use skein_domain::decide::Snapshot;
use skein_domain::event::{Event, Then};
use skein_domain::testing::{dedicated, facts, name, task};
use skein_domain::{AttemptEnd, EndCause, ItemEnd, NanoUsd, Timestamp};
use skein_store::{Ledger as _, Limits, Reader as _, SqliteLedger, StoreError};

use crate::{Kept, open};

#[test]
fn a_second_engine_on_the_folder_is_refused_by_name() {
    let kept = Kept::new();
    let refused = SqliteLedger::open(kept.dir.path(), &name("second")).unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, StoreError::InUse { .. }), "{text}");
    let process = format!("in use by engine 'engine' (process {})", std::process::id());
    assert!(text.contains(&process) && text.contains("another folder"), "{text}");
    let dir = kept.dir;
    drop(kept.ledger);
    open(dir.path());
}

#[test]
fn the_ledger_of_another_engine_is_refused() {
    let Kept { dir, ledger, .. } = Kept::new();
    drop(ledger);
    let refused = SqliteLedger::open(dir.path(), &name("second")).unwrap_err().to_string();
    assert!(refused.contains("belongs to engine 'engine', not 'second'"), "{refused}");
    assert_eq!(open(dir.path()).epoch(), 2, "a refused engine takes no epoch");
}

#[test]
fn a_writer_whose_epoch_is_over_writes_nothing() {
    let mut kept = Kept::new();
    kept.happen(vec![Event::SolutionSet { solution: dedicated("own", 1) }]);
    let before = kept.loaded();
    // Another machine sees the same folder, and its lock does not reach there.
    let other = Connection::open(kept.dir.path().join("ledger.sqlite")).unwrap();
    other.execute("UPDATE meta SET epoch = epoch + 1", []).unwrap();
    kept.scene.happen(vec![Event::SolutionSet { solution: dedicated("more", 1) }]);
    let fenced = kept.commit(&[], &[]).unwrap_err();
    assert!(matches!(fenced, StoreError::Fenced { ours: 1 }), "{fenced}");
    let limits = Limits { sessions_age_ms: 0, events_age_ms: 0, events_max: 0 };
    assert!(matches!(kept.ledger.retain(&limits, Timestamp(i64::MAX)), Err(StoreError::Fenced { .. })));
    assert_eq!(kept.loaded(), before);
    assert_eq!(kept.reader().events(0, None, 10).unwrap().len(), 1);
}

#[test]
fn a_newer_schema_is_left_alone() {
    let Kept { dir, ledger, .. } = Kept::new();
    drop(ledger);
    let other = Connection::open(dir.path().join("ledger.sqlite")).unwrap();
    other.pragma_update(None, "user_version", 99).unwrap();
    drop(other);
    let refused = SqliteLedger::open(dir.path(), &name("engine")).unwrap_err();
    assert!(matches!(refused, StoreError::Newer { found: 99, .. }), "{refused}");
}

#[test]
fn a_ledger_of_an_older_schema_is_brought_up_to_date() {
    let mut kept = Kept::new();
    kept.scene.solution(dedicated("own", 3_600_000_000));
    kept.scene.instance("i", "own", facts(1));
    kept.scene.start_task(task("spends"));
    let spends = kept.scene.pass().assignments[0].item.attempt(1);
    let end = AttemptEnd { run_ms: 1_000, ..AttemptEnd::bare(EndCause::Succeeded) };
    kept.scene.happen(vec![Event::Ended { attempt: spends, end, then: Then::End(ItemEnd::Succeeded) }]);
    let session = kept.scene.start_task(task("t"));
    kept.commit(&[], &[]).unwrap();
    let spent: Vec<NanoUsd> = kept.scene.snapshot.spent.iter().map(|(_, cost)| cost).collect();
    assert_eq!(spent, [NanoUsd(1_000_000)], "a second of an instance of one slot");
    let (before, spec) = (kept.loaded(), kept.reader().session_spec(session).unwrap());
    let Kept { dir, ledger, .. } = kept;
    drop(ledger);
    let older = Connection::open(dir.path().join("ledger.sqlite")).unwrap();
    older
        .execute_batch(
            "ALTER TABLE sessions ADD COLUMN spec TEXT NOT NULL DEFAULT '';
             UPDATE sessions SET spec = (SELECT spec FROM specs WHERE session = id);
             DROP TABLE specs;
             DROP TABLE images;
             DROP TABLE spent;
             DROP TABLE warned;
             PRAGMA user_version = 2;",
        )
        .unwrap();
    drop(older);
    let mut ledger = open(dir.path());
    assert_eq!(Snapshot::load(ledger.load().unwrap()), before);
    assert_eq!(ledger.reader().unwrap().session_spec(session).unwrap(), spec);
}

#[test]
fn a_turn_is_on_disk_when_its_commit_returns() {
    let kept = Kept::new();
    let database = Connection::open(kept.dir.path().join("ledger.sqlite")).unwrap();
    let mode: String = database.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    assert_eq!(kept.ledger.synchronous().unwrap(), 2, "FULL: the log is synced at each commit");
}
