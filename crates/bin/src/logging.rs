//! What our own parts say of themselves: to standard error or a file, by level.

use std::fs::File;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;

/// Names a level, or a level per component (`info,skein_engine=debug`).
const LEVEL_ENV: &str = "SKEIN_LOG";

fn filter(default: &str) -> EnvFilter {
    EnvFilter::try_from_env(LEVEL_ENV).unwrap_or_else(|_| EnvFilter::new(default))
}

/// To standard error, from this level on.
pub(crate) fn to_stderr(default: &str) {
    let made = tracing_subscriber::fmt().with_env_filter(filter(default)).with_writer(std::io::stderr).with_ansi(false);
    // Only the engine may have been first, and then its configuration holds.
    made.try_init().unwrap_or_default();
}

/// To a file, made anew.
pub(crate) fn to_file(path: &Path, default: &str) -> std::io::Result<()> {
    let file = Mutex::new(File::create(path)?);
    let made = tracing_subscriber::fmt().with_env_filter(filter(default)).with_writer(file).with_ansi(false);
    made.try_init().unwrap_or_default();
    Ok(())
}
