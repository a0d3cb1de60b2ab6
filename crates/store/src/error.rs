//! What can go wrong with the ledger.

use std::path::PathBuf;

fn restore(backup: Option<&std::path::Path>) -> String {
    match backup {
        Some(path) => format!("The newest backup is {}: 'skein restore {} --force'", path.display(), path.display()),
        None => "There is no backup in its folder: restore one with 'skein restore FILE --force'".to_owned(),
    }
}

impl StoreError {
    /// The disk is full: it passes when there is room again.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    /// The disk only reads: it passes when it can be written to again.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::ReadOnly),
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::ReadOnlyFilesystem,
            _ => false,
        }
    }
}

/// An error of the ledger: what, why, next step.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another engine has the folder.
    #[error("the folder {} is in use by {holder}: stop that engine, or name another folder with --dir", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// Engine and process, as it wrote them.
        holder: String,
    },
    /// The folder belongs to an engine with another identifier.
    #[error("the ledger in {} belongs to engine '{owner}', not '{asked}': name another folder, or start as '{owner}'", dir.display())]
    OtherEngine {
        /// The folder.
        dir: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who asks.
        asked: String,
    },
    /// A newer version wrote it.
    #[error("the ledger has schema {found}, this build knows up to {known}: use the newer build, or restore a backup")]
    Newer {
        /// Found.
        found: u32,
        /// Known.
        known: u32,
    },
    /// Another writer took over.
    #[error("another writer has taken over the ledger (epoch {ours} is over): this engine must stop")]
    Fenced {
        /// Our epoch.
        ours: u64,
    },
    /// What was acknowledged is no longer whole.
    #[error("the ledger {} is damaged: {why}. Nothing was changed. {}", file.display(), restore(backup.as_deref()))]
    Damaged {
        /// The database.
        file: PathBuf,
        /// What was found.
        why: String,
        /// The newest backup that is known.
        backup: Option<PathBuf>,
    },
    /// A row that cannot be read.
    #[error("the ledger's {table} row {key} cannot be read ({why}): restore a backup, or report this")]
    Corrupt {
        /// Table.
        table: &'static str,
        /// Key.
        key: String,
        /// Why.
        why: String,
    },
    /// The database.
    #[error("the ledger's database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The disk.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A value that cannot be written.
    #[error("writing a row: {0}")]
    Json(#[from] serde_json::Error),
}
