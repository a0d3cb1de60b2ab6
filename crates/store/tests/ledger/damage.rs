//! Power cuts and bad disks: what was acknowledged is there or is missed loudly; what was not may be either
//! whole or absent.

use std::fs;
use std::path::Path;

use skein_domain::SessionId;
use skein_domain::decide::Snapshot;
use skein_domain::testing::{Random, Record, World};
use skein_store::{Ledger as _, Side, SqliteLedger, StoreError, Turn, copy_ledger};

use crate::open;

const SEEDS: u64 = 12;
const TURNS: u32 = 24;

/// The database, its log and the note of the last acknowledged turn, as a disk holds them.
#[derive(Clone)]
struct Disk {
    database: Vec<u8>,
    log: Vec<u8>,
    turn: Vec<u8>,
}

impl Disk {
    fn of(dir: &Path) -> Self {
        let read = |name: &str| fs::read(dir.join(name)).unwrap_or_default();
        Self { database: read("ledger.sqlite"), log: read("ledger.sqlite-wal"), turn: read("ledger.turn") }
    }

    fn opened(&self, dir: &Path) -> Result<SqliteLedger, StoreError> {
        fs::write(dir.join("ledger.sqlite"), &self.database).unwrap();
        fs::write(dir.join("ledger.sqlite-wal"), &self.log).unwrap();
        fs::write(dir.join("ledger.turn"), &self.turn).unwrap();
        SqliteLedger::open(dir, &"engine".parse().unwrap())
    }
}

fn commit(ledger: &mut SqliteLedger, record: &Record) {
    let (turn, at) = (record.turn, record.at);
    ledger
        .commit(&Turn { turn, at, events: &record.events, earlier: &[], changes: &record.changes, side: &[] })
        .unwrap();
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
    Disk { database: before.database.clone(), log, turn: before.turn.clone() }
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
    Disk { database: fs::read(copy).unwrap(), log: Vec::new(), turn: Vec::new() }
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

const LOG_HEAD: usize = 32;
const FRAME_HEAD: usize = 24;
const FRAME: usize = FRAME_HEAD + 4096;
/// Commits whose log is spoilt.
const COMMITS: usize = 60;

/// Where the bytes of a frame are that mean something, and ones in its page: the page's number, the size at the end of
/// a transaction, the salts, the checksums.
const REGIONS: [usize; 9] = [3, 7, 8, 12, 16, 23, FRAME_HEAD, FRAME_HEAD + 2048, FRAME - 1];

/// A ledger that is open, and its disk and snapshot after each of many commits; nothing of the log is in the database.
struct Written {
    dir: tempfile::TempDir,
    ledger: SqliteLedger,
    world: World,
    disks: Vec<Disk>,
    snapshots: Vec<Snapshot>,
}

impl Written {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, world) = (open(dir.path()), World::new(seed));
        let mut written = Self { dir, ledger, world, disks: Vec::new(), snapshots: Vec::new() };
        written.go_on(COMMITS);
        written
    }

    fn go_on(&mut self, commits: usize) {
        let end = self.disks.len() + commits;
        while self.disks.len() < end {
            let record = self.world.turn();
            if !record.events.is_empty() {
                commit(&mut self.ledger, &record);
                self.disks.push(Disk::of(self.dir.path()));
                self.snapshots.push(self.world.scene.snapshot.clone());
            }
        }
    }

    fn last(&self) -> (&Disk, &Snapshot) {
        (&self.disks[self.disks.len() - 1], &self.snapshots[self.snapshots.len() - 1])
    }

    /// Frames of the log after a commit.
    fn frames(&self, commit: usize) -> usize {
        (self.disks[commit].log.len() - LOG_HEAD) / FRAME
    }
}

/// Ways to spoil one frame, by name.
fn ways(frame: usize) -> Vec<(String, std::ops::Range<usize>)> {
    let at = LOG_HEAD + frame * FRAME;
    let mut all: Vec<_> = REGIONS.iter().map(|n| (format!("byte {n}"), at + n..at + n + 1)).collect();
    all.push(("its head".to_owned(), at..at + FRAME_HEAD));
    all.push(("its page".to_owned(), at + FRAME_HEAD..at + FRAME));
    all.push(("all of it".to_owned(), at..at + FRAME));
    all
}

fn garbled(disk: &Disk, range: std::ops::Range<usize>) -> Disk {
    let mut disk = disk.clone();
    disk.log[range].iter_mut().for_each(|byte| *byte ^= 0x5A);
    disk
}

#[track_caller]
fn assert_refused(disk: &Disk, dir: &Path, what: &str) {
    match disk.opened(dir) {
        Err(StoreError::Damaged { .. }) => {}
        Err(other) => panic!("{what}: {other}"),
        Ok(mut ledger) => panic!("{what} is spoilt, and turn {} is there", ledger.load().unwrap().turn),
    }
    assert!(fs::read(dir.join("ledger.sqlite-wal")).unwrap() == disk.log, "{what}: the log was changed");
    assert!(fs::read(dir.join("ledger.sqlite")).unwrap() == disk.database, "{what}: the database was changed");
}

#[test]
fn a_log_that_is_spoilt_before_acknowledged_turns_is_refused_and_left_as_it_is() {
    let written = Written::new(5);
    let (whole, _) = written.last();
    let dir = tempfile::tempdir().unwrap();
    // By the log alone: what the note beside it tells is not there.
    let log_alone = Disk { turn: Vec::new(), ..whole.clone() };
    let middle = written.frames(COMMITS - 3);
    assert!(middle > 100, "{middle} frames");
    let ends: Vec<usize> = (0..COMMITS - 2).step_by(8).map(|commit| written.frames(commit) - 1).collect();
    for frame in (0..middle).filter(|frame| frame % 61 == 0 || ends.contains(frame) || middle - frame < 4) {
        for (how, range) in ways(frame) {
            assert_refused(&garbled(&log_alone, range.clone()), dir.path(), &format!("frame {frame}, {how}"));
            if range.len() > 1 {
                let mut zeroed = log_alone.clone();
                zeroed.log[range].fill(0);
                assert_refused(&zeroed, dir.path(), &format!("frame {frame}, {how}, zeroed"));
            }
        }
    }
    for at in (0..LOG_HEAD).step_by(3) {
        assert_refused(&garbled(&log_alone, at..at + 1), dir.path(), &format!("byte {at} of the log's head"));
    }
    // With the note, also what no later frame speaks for; and what is missing altogether.
    let end = written.frames(COMMITS - 1);
    for frame in [middle, written.frames(COMMITS - 2) - 1, written.frames(COMMITS - 2), end - 1] {
        for (how, range) in ways(frame) {
            assert_refused(&garbled(whole, range), dir.path(), &format!("frame {frame}, {how}"));
        }
    }
    for commit in (0..COMMITS - 1).step_by(6).chain([COMMITS - 2]) {
        let cut = Disk { log: written.disks[commit].log.clone(), ..whole.clone() };
        assert_refused(&cut, dir.path(), &format!("the log from turn {commit} on"));
    }
    assert_refused(&Disk { log: Vec::new(), ..whole.clone() }, dir.path(), "the log");
    let said = Disk { log: Vec::new(), ..whole.clone() }.opened(dir.path()).unwrap_err().to_string();
    assert!(said.contains("was acknowledged") && said.contains("ledger.turn"), "{said}");
}

#[test]
fn a_spoilt_last_transaction_of_the_log_is_left_out_and_the_turn_before_it_is_there() {
    let mut written = Written::new(5);
    let mut transactions = 0;
    while transactions < 4 {
        let ((before, kept), first) = (written.last(), written.frames(written.disks.len() - 1));
        let (before, kept) = (before.clone(), kept.clone());
        written.go_on(1);
        let ((after, new), frames) = (written.last(), written.frames(written.disks.len() - 1));
        // One of a single frame has no inside.
        if frames < first + 3 {
            continue;
        }
        transactions += 1;
        for frame in [first, usize::midpoint(first, frames), frames - 1] {
            for (how, range) in ways(frame) {
                let mut disk = Disk { turn: before.turn.clone(), ..garbled(after, range.clone()) };
                for zeroed in [false, true] {
                    if zeroed {
                        disk.log[range.clone()].fill(0);
                    }
                    let dir = tempfile::tempdir().unwrap();
                    let what = format!("frame {frame} of {first}..{frames}, {how}, zeroed: {zeroed}");
                    let mut ledger = disk.opened(dir.path()).unwrap_or_else(|e| panic!("{what}: {e}"));
                    let loaded = Snapshot::load(ledger.load().unwrap());
                    // A byte that was zero is as good as before.
                    let there = if disk.log == after.log { new } else { &kept };
                    assert!(loaded == *there, "{what}");
                }
            }
        }
    }
}

#[test]
fn frames_that_a_log_left_behind_when_it_began_anew_are_no_part_of_it() {
    let mut written = Written::new(7);
    let all: i64 = rusqlite::Connection::open(written.dir.path().join("ledger.sqlite"))
        .unwrap()
        .query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(all, 0, "the log begins anew");
    let old = written.last().0.log.clone();
    written.go_on(3);
    let (new, snapshot) = written.last();
    assert!(
        new.log.len() == old.len() && new.log[..LOG_HEAD] != old[..LOG_HEAD],
        "the log begins anew, over the old one"
    );
    let dir = tempfile::tempdir().unwrap();
    assert!(Snapshot::load(new.opened(dir.path()).unwrap().load().unwrap()) == *snapshot);
    // A tail that is torn there has old frames behind it.
    let (first, last) = (&written.disks[written.disks.len() - 2], new);
    let at = (LOG_HEAD..last.log.len()).find(|at| first.log[*at] != last.log[*at]).unwrap();
    let torn = Disk { turn: first.turn.clone(), ..garbled(last, at..at + 1) };
    let dir = tempfile::tempdir().unwrap();
    let loaded = Snapshot::load(torn.opened(dir.path()).unwrap().load().unwrap());
    assert!(loaded == written.snapshots[written.snapshots.len() - 2]);
    // Damage in the new part is damage.
    let spoilt = Disk { turn: Vec::new(), ..garbled(last, LOG_HEAD + 100..LOG_HEAD + 101) };
    let dir = tempfile::tempdir().unwrap();
    assert_refused(&spoilt, dir.path(), "the first frame");
}

#[test]
fn frames_of_a_transaction_that_was_given_up_are_no_damage() {
    let mut written = Written::new(8);
    let mut other = rusqlite::Connection::open(written.dir.path().join("ledger.sqlite")).unwrap();
    other.pragma_update(None, "cache_size", 10).unwrap();
    let length = written.last().0.log.len();
    let given_up = other.transaction().unwrap();
    for n in 0..400 {
        let body = "x".repeat(2000);
        given_up.execute("INSERT INTO events (turn, at, body) VALUES (?1, 0, ?2)", rusqlite::params![n, body]).unwrap();
    }
    given_up.rollback().unwrap();
    written.go_on(2);
    let (disk, snapshot) = written.last();
    assert!(disk.log.len() > length + 50 * FRAME, "what was given up stands in the log: {}", disk.log.len() - length);
    let dir = tempfile::tempdir().unwrap();
    assert!(Snapshot::load(disk.opened(dir.path()).unwrap().load().unwrap()) == *snapshot);
}

#[test]
fn a_note_of_the_last_turn_that_cannot_be_read_says_nothing() {
    let written = Written::new(9);
    let (disk, snapshot) = written.last();
    let turns = [Vec::new(), vec![0; 24], disk.turn[..23].to_vec(), {
        let mut higher = disk.turn.clone();
        higher[10] ^= 1;
        higher
    }];
    for turn in turns {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Disk { turn, ..disk.clone() }.opened(dir.path()).unwrap();
        assert!(Snapshot::load(ledger.load().unwrap()) == *snapshot);
    }
}

#[test]
fn a_backup_of_a_damaged_ledger_is_refused_and_leaves_it_as_it_is() {
    let written = Written::new(10);
    let (whole, _) = written.last();
    let at = LOG_HEAD + 50 * FRAME;
    for disk in [garbled(whole, at..at + 1), Disk { log: Vec::new(), ..whole.clone() }] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ledger.lock"), "").unwrap();
        assert_refused(&disk, dir.path(), "the log");
        let refused = copy_ledger(dir.path(), &dir.path().join("copy")).unwrap_err();
        assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
        assert!(fs::read(dir.path().join("ledger.sqlite-wal")).unwrap_or_default() == disk.log);
    }
}

#[test]
fn after_a_turn_that_could_not_be_written_the_log_begins_anew() {
    let mut kept = crate::Kept::new();
    let key =
        |key: u32| Side::ClientKey { user: "tester".parse().unwrap(), key: key.to_string(), session: SessionId(1) };
    let head = |kept: &crate::Kept| Disk::of(kept.dir.path()).log[..LOG_HEAD].to_vec();
    kept.write(key(1)).unwrap();
    let before = head(&kept);
    kept.write(key(2)).unwrap();
    assert_eq!(head(&kept), before, "turns that go well are written one behind the other");
    kept.write(key(2)).unwrap_err();
    kept.write(key(3)).unwrap();
    kept.write(key(4)).unwrap();
    assert_ne!(head(&kept), before, "nothing of a turn that was given up may stand behind later turns");
}
