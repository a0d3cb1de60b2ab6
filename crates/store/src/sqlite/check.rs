//! Is what is acknowledged still whole? Looked at when the ledger is opened, before anything is written.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::{FILE, LOCK, acknowledged, int, wal};
use crate::StoreError;

/// Checking takes at most this long; a ledger too large for it is checked as far as that goes.
const CHECK_MAX: Duration = Duration::from_secs(5);
/// Where `skein backup` puts backups when it is not told otherwise, below the engine's folder.
pub const BACKUPS: &str = "backups";
/// How a backup's name ends.
pub const BACKUP_SUFFIX: &str = ".skein-backup";
/// Steps of the database's virtual machine between two looks at the clock.
const STEPS: i32 = 100_000;

/// `made`: the database has our tables.
#[expect(clippy::disallowed_methods, reason = "a limit of the work; nothing that is kept depends on it")]
pub(super) fn check(connection: &Connection, dir: &Path, made: bool) -> Result<(), StoreError> {
    turns(connection, dir, made)?;
    let until = Instant::now() + CHECK_MAX;
    connection.progress_handler(STEPS, Some(move || Instant::now() >= until))?;
    let found = pages(connection);
    connection.progress_handler(0, None::<fn() -> bool>)?;
    match found {
        Ok(()) => Ok(()),
        Err(Found::TooLarge) => {
            let limit_s = CHECK_MAX.as_secs();
            tracing::info!(
                limit_s,
                "the ledger is too large to be checked whole at the start; no damage was seen so far"
            );
            Ok(())
        }
        Err(Found::Damage(why)) => Err(damaged(dir, why)),
        Err(Found::Other(error)) => Err(of_sqlite(error, dir)),
    }
}

/// Is the log whole, but for a tail that nobody was told of? For a folder whose lock is held.
pub(super) fn log(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join(format!("{FILE}-wal"));
    match wal::damage(&path) {
        Ok(None) => Ok(()),
        Ok(Some(why)) => Err(damaged(dir, why)),
        Err(source) => Err(StoreError::Io { what: "reading", path, source }),
    }
}

enum Found {
    TooLarge,
    Damage(String),
    Other(rusqlite::Error),
}

impl From<rusqlite::Error> for Found {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::OperationInterrupted) => Self::TooLarge,
            _ => Self::Other(error),
        }
    }
}

/// Every page is a page, and every table's entries are in order.
fn pages(connection: &Connection) -> Result<(), Found> {
    let said: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if said == "ok" { Ok(()) } else { Err(Found::Damage(said)) }
}

/// The ledger's turn is not behind what its events tell of, nor behind what was acknowledged.
fn turns(connection: &Connection, dir: &Path, made: bool) -> Result<(), StoreError> {
    let (turn, told): (i64, Option<i64>) = if made {
        let sql = "SELECT turn, (SELECT turn FROM events ORDER BY seq DESC LIMIT 1) FROM meta";
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).map_err(|error| of_sqlite(error, dir))?
    } else {
        (0, None)
    };
    if let Some(told) = told.filter(|told| *told > turn) {
        return Err(damaged(dir, format!("its last turn is {turn}, but there are events of turn {told}")));
    }
    match acknowledged::read(dir).map(int).filter(|acknowledged| *acknowledged > turn) {
        Some(acknowledged) => Err(damaged(
            dir,
            format!(
                "its last turn is {turn}, but turn {acknowledged} was acknowledged ({} says so: without that file \
                 the engine would go on and have forgotten what came after turn {turn})",
                acknowledged::FILE
            ),
        )),
        None => Ok(()),
    }
}

/// The database's own word for damage becomes ours, with what to do about it.
pub(super) fn of_sqlite(error: rusqlite::Error, dir: &Path) -> StoreError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => damaged(dir, error.to_string()),
        _ => StoreError::Sqlite(error),
    }
}

fn damaged(dir: &Path, why: String) -> StoreError {
    StoreError::Damaged { file: dir.join(FILE), why, backup: newest_backup(dir) }
}

/// The newest backup in the usual place.
pub fn newest_backup(dir: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir.join(BACKUPS)).ok()?.flatten();
    let backups = entries.map(|entry| entry.path()).filter(|p| p.to_string_lossy().ends_with(BACKUP_SUFFIX));
    let age = |path: &PathBuf| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    backups.max_by_key(age)
}

/// Writes a consistent copy of the ledger in `dir` to `to`, which must not exist. Whoever writes to the ledger
/// goes on meanwhile; the copy is of one moment between two turns. A damaged ledger is refused.
pub fn copy_ledger(dir: &Path, to: &Path) -> Result<(), StoreError> {
    // With nobody writing, the log lies still. The lock is held for no longer than looking takes.
    if let Ok(lock) = File::open(dir.join(LOCK))
        && lock.try_lock().is_ok()
    {
        log(dir)?;
    }
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(dir.join(FILE), flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    // Whoever may write here brings the log into the database; a copy leaves the folder as it is.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let to = to.to_str().ok_or_else(|| StoreError::Io {
        what: "writing to",
        path: to.to_owned(),
        source: std::io::Error::other("its name is not UTF-8"),
    })?;
    let schema: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    turns(&connection, dir, schema > 0)?;
    connection.execute("VACUUM INTO ?1", [to]).map_err(|error| of_sqlite(error, dir))?;
    Ok(())
}

/// Turns that a restored ledger leaves out, so that no id of its future is one of what it has forgotten.
const TURNS_LEFT_OUT: i64 = 1 << 32;

/// Makes a copied ledger fit to be the ledger: what happened after it was copied is unknown to it, and agents may
/// still know of that.
pub fn adopt_copy(path: &Path) -> Result<(), StoreError> {
    let connection = Connection::open(path)?;
    connection.execute("UPDATE meta SET turn = turn + ?1", [TURNS_LEFT_OUT])?;
    connection.close().map_err(|(_, error)| StoreError::Sqlite(error))
}
