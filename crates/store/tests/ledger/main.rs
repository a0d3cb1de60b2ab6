//! The ledger keeps what the planner needs: what is loaded equals what was built by events, after any
//! commit, from a copy, and for one writer only.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing has failed")]

mod damage;
mod kept;
mod rows;
mod worlds;
mod writer;

use std::path::Path;

use skein_domain::decide::Snapshot;
use skein_domain::event::Event;
use skein_domain::testing::{Scene, name};
use skein_store::{Ledger as _, Side, SqliteLedger, SqliteReader, StoreError, Turn};

fn open(dir: &Path) -> SqliteLedger {
    SqliteLedger::open(dir, &name("engine")).unwrap()
}

/// A scene whose turns are committed.
struct Kept {
    dir: tempfile::TempDir,
    ledger: SqliteLedger,
    scene: Scene,
}

impl Kept {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path());
        Self { dir, ledger, scene: Scene::default() }
    }

    /// Commits what changed in the scene since the last time, with these events and other rows.
    fn commit(&mut self, events: &[Event], side: &[Side]) -> Result<(), StoreError> {
        let turn = self.scene.snapshot.turn;
        let changes = self.scene.snapshot.take_changes();
        self.ledger.commit(&Turn { turn, at: self.scene.now, events, earlier: &[], changes: &changes, side })
    }

    /// Something happens, and is committed.
    fn happen(&mut self, events: Vec<Event>) {
        let all = self.scene.happen(events);
        self.commit(&all, &[]).unwrap();
    }

    fn pass(&mut self) {
        self.scene.pass();
        self.commit(&[], &[]).unwrap();
    }

    /// Writes rows that the planner does not look at.
    fn write(&mut self, side: Side) -> Result<(), StoreError> {
        self.scene.snapshot.turn += 1;
        self.commit(&[], &[side])
    }

    fn reader(&self) -> SqliteReader {
        self.ledger.reader().unwrap()
    }

    fn loaded(&mut self) -> Snapshot {
        Snapshot::load(self.ledger.load().unwrap())
    }
}
