//! Power cuts and bad disks: what was acknowledged is there or is missed loudly; what was not may be either
//! whole or absent.

use std::fs;
use std::path::Path;

use skein_domain::decide::Snapshot;
use skein_domain::testing::{Random, Record, World};
use skein_store::{Ledger as _, SqliteLedger, StoreError, Turn, copy_ledger};

use crate::open;

const SEEDS: u64 = 12;
const TURNS: u32 = 24;

/// The database and its log, as a disk holds them.
#[derive(Clone)]
struct Disk {
    database: Vec<u8>,
    log: Vec<u8>,
}

impl Disk {
    fn of(dir: &Path) -> Self {
        let read = |name: &str| fs::read(dir.join(name)).unwrap_or_default();
        Self { database: read("ledger.sqlite"), log: read("ledger.sqlite-wal") }
    }

    fn opened(&self, dir: &Path) -> Result<SqliteLedger, StoreError> {
        fs::write(dir.join("ledger.sqlite"), &self.database).unwrap();
        fs::write(dir.join("ledger.sqlite-wal"), &self.log).unwrap();
        SqliteLedger::open(dir, &"engine".parse().unwrap())
    }
}

fn commit(ledger: &mut SqliteLedger, record: &Record) {
    let (turn, at) = (record.turn, record.at);
    ledger.commit(&Turn { turn, at, events: &record.events, changes: &record.changes, side: &[] }).unwrap();
}

/// The un-synced tail of the log in some state: cut off, torn, or with other bytes in it.
fn spoil(random: &mut Random, before: &Disk, after: &Disk) -> Disk {
    let (from, to) = (before.log.len(), after.log.len());
    let mut log = after.log.clone();
    let (how, many) = (random.below(3), random.below(20));
    let mut place = || from + usize::try_from(random.below((to - from) as u64)).unwrap();
    let at = place();
    match how {
        0 => log.truncate(at),
        1 => {
            for _ in 0..=many {
                let at = place();
                log[at] ^= 0x5A;
            }
        }
        _ => log[at..].fill(0),
    }
    Disk { database: before.database.clone(), log }
}

#[test]
fn a_torn_or_garbled_tail_of_the_log_loses_nothing_that_was_acknowledged() {
    let mut spoilt = 0;
    for seed in 0..SEEDS {
        let (dir, mut world) = (tempfile::tempdir().unwrap(), World::new(seed));
        let mut random = Random::new(seed);
        let mut ledger = open(dir.path());
        let mut before = (Disk::of(dir.path()), world.scene.snapshot.clone());
        for _ in 0..TURNS {
            let record = world.turn();
            if record.events.is_empty() {
                continue;
            }
            commit(&mut ledger, &record);
            let after = (Disk::of(dir.path()), world.scene.snapshot.clone());
            // A log that began anew has no tail behind what was acknowledged.
            if after.0.log.len() > before.0.log.len() && before.0.log.len() > 32 {
                let copy = tempfile::tempdir().unwrap();
                let disk = spoil(&mut random, &before.0, &after.0);
                let loaded = Snapshot::load(disk.opened(copy.path()).unwrap().load().unwrap());
                assert!(loaded == before.1 || loaded == after.1, "seed {seed}: something else than a turn");
                assert!(loaded.turn >= before.1.turn, "seed {seed}: an acknowledged turn is missing");
                spoilt += 1;
            }
            before = after;
        }
    }
    assert!(spoilt > 50, "{spoilt} tails were spoilt");
}

/// A ledger of some turns, with everything in the database and nothing in the log.
fn settled(dir: &Path) -> Disk {
    let mut world = World::new(3);
    let mut ledger = open(dir);
    for _ in 0..TURNS {
        commit(&mut ledger, &world.turn());
    }
    drop(ledger);
    let copy = dir.join("copy.sqlite");
    copy_ledger(dir, &copy).unwrap();
    Disk { database: fs::read(copy).unwrap(), log: Vec::new() }
}

#[test]
fn damage_in_what_was_acknowledged_is_named_at_the_start_with_the_newest_backup() {
    let dir = tempfile::tempdir().unwrap();
    let whole = settled(dir.path());
    let backups = tempfile::tempdir().unwrap();
    fs::create_dir(backups.path().join("backups")).unwrap();
    fs::write(backups.path().join("backups/skein-1.skein-backup"), "").unwrap();
    let page = 4096;
    let mut seen = 0;
    for at in (0..whole.database.len() / page).map(|n| n * page) {
        let mut disk = whole.clone();
        // The head of a page: its kind and where its cells are.
        let head = if at == 0 { 0 } else { at };
        disk.database[head..head + 12].fill(0xA5);
        match disk.opened(backups.path()).and_then(|mut ledger| ledger.load().map(drop)) {
            Err(StoreError::Damaged { .. }) => seen += 1,
            Ok(()) => panic!("page {} is spoilt and nothing was said", at / page),
            Err(other) => panic!("page {}: {other}", at / page),
        }
    }
    assert!(seen > 5, "{seen} pages");
    let mut disk = whole;
    disk.database[page..page + 12].fill(0xA5);
    let said = disk.opened(backups.path()).unwrap_err().to_string();
    assert!(said.contains("is damaged") && said.contains("skein-1.skein-backup"), "{said}");
}

#[test]
fn a_ledger_that_has_lost_turns_its_events_tell_of_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    settled(dir.path());
    let connection = rusqlite::Connection::open(dir.path().join("ledger.sqlite")).unwrap();
    connection.execute("UPDATE meta SET turn = 1", []).unwrap();
    drop(connection);
    let said = SqliteLedger::open(dir.path(), &"engine".parse().unwrap()).unwrap_err().to_string();
    assert!(said.contains("its last turn is 1, but there are events of turn"), "{said}");
}
