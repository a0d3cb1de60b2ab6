//! The ledger in SQLite: WAL, `synchronous = FULL` (an answered turn survives a power cut).

mod acknowledged;
mod check;
mod commit;
mod load;
mod read;
mod wal;

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use skein_domain::EngineId;

use crate::StoreError;
pub use check::{BACKUP_SUFFIX, BACKUPS, adopt_copy, copy_ledger, newest_backup};

const SCHEMA: u32 = 5;
/// What each later schema adds to the one before it.
const STEPS: [&str; 4] = [
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
];
const FILE: &str = "ledger.sqlite";
const LOCK: &str = "ledger.lock";

/// The one writer.
#[derive(Debug)]
pub struct SqliteLedger {
    connection: Connection,
    epoch: u64,
    dir: PathBuf,
    acknowledged: acknowledged::Acknowledged,
    /// Transactions that were begun and failed: what is left of them in the log is not to be taken for turns.
    unfinished: u32,
    /// Held for as long as the ledger is open; the system lets go of it when the process ends.
    _lock: File,
}

/// One reader.
#[derive(Debug)]
pub struct SqliteReader {
    connection: Connection,
}

impl SqliteLedger {
    /// Opens, or makes, the ledger in `dir` for `engine`; takes the folder's lock and a new epoch.
    pub fn open(dir: &Path, engine: &EngineId) -> Result<Self, StoreError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { what, path, source }
        };
        std::fs::create_dir_all(dir).map_err(io("making the folder", dir))?;
        let lock = take_lock(dir, engine)?;
        check::log(dir)?;
        let connection = open_writer(dir, engine).map_err(|error| match error {
            StoreError::Sqlite(error) => check::of_sqlite(error, dir),
            other => other,
        })?;
        let owner: String = connection.query_row("SELECT engine FROM meta", [], |row| row.get(0))?;
        if owner != engine.as_str() {
            return Err(StoreError::OtherEngine { dir: dir.to_owned(), owner, asked: engine.to_string() });
        }
        let epoch = connection
            .query_row("UPDATE meta SET epoch = epoch + 1 RETURNING epoch", [], |row| row.get::<_, i64>(0))?;
        let turn: i64 = connection.query_row("SELECT turn FROM meta", [], |row| row.get(0))?;
        let acknowledged = acknowledged::Acknowledged::open(dir, turn.unsigned_abs());
        Ok(Self {
            connection,
            epoch: epoch.unsigned_abs(),
            dir: dir.to_owned(),
            acknowledged,
            unfinished: 0,
            _lock: lock,
        })
    }

    /// A reader of the same ledger.
    pub fn reader(&self) -> Result<SqliteReader, StoreError> {
        SqliteReader::open(&self.dir)
    }

    /// How carefully the database syncs: 2 is `FULL`.
    pub fn synchronous(&self) -> Result<u32, StoreError> {
        Ok(self.connection.pragma_query_value(None, "synchronous", |row| row.get(0))?)
    }

    /// The database knows only that a write failed; the system says why, when the same is tried beside it.
    fn explained(&self, error: StoreError) -> StoreError {
        use rusqlite::ErrorCode::{CannotOpen, ReadOnly, SystemIoFailure};
        let StoreError::Sqlite(cause) = &error else { return error };
        if !matches!(cause.sqlite_error_code(), Some(CannotOpen | ReadOnly | SystemIoFailure)) {
            return error;
        }
        match self.acknowledged.try_again() {
            Ok(()) => error,
            Err(source) => StoreError::Io { what: "writing to", path: self.dir.join(FILE), source },
        }
    }

    /// A transaction is on disk. After one that failed, all of the log goes into the database, so that it begins
    /// anew: frames of the failed one would stand behind those of the next turns for a long time.
    fn finished(&mut self) {
        self.unfinished = self.unfinished.saturating_sub(1);
        if self.unfinished == 0 {
            return;
        }
        // Where readers or the disk are in the way, there is a next time.
        let done = self
            .connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok(row.get::<_, i64>(1)? == row.get::<_, i64>(2)?));
        if done.is_ok_and(|all| all) {
            self.unfinished = 0;
        }
    }

    /// The epoch that every transaction of this writer asserts.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl SqliteReader {
    /// A reader of the ledger in `dir`, which a writer has open or has left.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(dir.join(FILE), flags)?;
        prepare(&connection)?;
        Ok(Self { connection })
    }
}

fn open_writer(dir: &Path, engine: &EngineId) -> Result<Connection, StoreError> {
    let connection = Connection::open(dir.join(FILE))?;
    // A ledger that is refused is left as it is: with its log, in which there may be more than the database sees.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    prepare(&connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let schema: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    check::check(&connection, dir, schema > 0)?;
    migrate(&connection, schema, engine)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "foreign_keys", "ON")?;
    Ok(())
}

fn take_lock(dir: &Path, engine: &EngineId) -> Result<File, StoreError> {
    let path = dir.join(LOCK);
    let fail = |source| StoreError::Io { what: "locking", path: path.clone(), source };
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(fail)?;
            // It writes its name just after it takes the lock.
            let holder = match holder.trim() {
                "" => "another engine".to_owned(),
                name => name.to_owned(),
            };
            return Err(StoreError::InUse { dir: dir.to_owned(), holder });
        }
        Err(std::fs::TryLockError::Error(source)) => return Err(fail(source)),
    }
    file.set_len(0).map_err(fail)?;
    file.rewind().map_err(fail)?;
    writeln!(file, "engine '{engine}' (process {})", std::process::id()).map_err(fail)?;
    Ok(file)
}

fn migrate(connection: &Connection, found: u32, engine: &EngineId) -> Result<(), StoreError> {
    if found > SCHEMA {
        return Err(StoreError::Newer { found, known: SCHEMA });
    }
    if found == 0 {
        let transaction = connection.unchecked_transaction()?;
        transaction.execute_batch(include_str!("schema.sql"))?;
        transaction.execute("INSERT INTO meta (one, engine, epoch, turn) VALUES (1, ?1, 0, 0)", [engine.as_str()])?;
        transaction.pragma_update(None, "user_version", 1)?;
        transaction.commit()?;
    }
    for (step, sql) in (1..).zip(STEPS).filter(|(step, _)| *step >= found.max(1)) {
        let transaction = connection.unchecked_transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", step + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

/// SQLite's integers are signed; our counters never come near the sign.
fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
