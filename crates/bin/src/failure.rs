//! How a command ends: its exit status, and what is said when it failed.

use std::fmt;
use std::process::ExitCode;

/// What a command gives back: its exit status (0 ok, 1 failed, or the task's own).
pub(crate) type Ended = anyhow::Result<u8>;

/// It did what was asked.
pub(crate) const OK: u8 = 0;
/// It failed.
pub(crate) const FAILED: u8 = 1;
/// What was typed cannot be done.
pub(crate) const USAGE: u8 = 2;
/// Ended by Ctrl-C, as a shell counts it.
pub(crate) const INTERRUPTED: u8 = 130;

/// What was typed cannot be done; exit status 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Usage {}

/// A usage error as an [`anyhow::Error`].
pub(crate) fn usage(text: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Usage(text.into()))
}

/// Says what failed and gives the exit status.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    crate::output::note(&format!("skein: {error:#}"));
    let code = if error.is::<Usage>() { USAGE } else { FAILED };
    ExitCode::from(code)
}
