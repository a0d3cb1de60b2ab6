//! What went wrong with an image: kind, what was being done, and the next step.

/// Everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system could not read or write.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// The bytes contradict their format.
    #[error("the image is damaged or was made wrongly: {0}")]
    Corrupt(String),
    /// The format allows it, this library does not do it.
    #[error("{what} is not supported: {next_step}")]
    Unsupported {
        /// What.
        what: String,
        /// What to do instead.
        next_step: String,
    },
    /// Refused for safety, whoever asks.
    #[error("refused: {0}")]
    Refused(String),
    /// Beyond a limit of [`crate::Budget`].
    #[error("{what} is {asked} {unit}, over the limit of {most} {unit} ({limit}): raise it if the image is trusted")]
    OverBudget {
        /// Of what.
        what: String,
        /// The limit's name.
        limit: &'static str,
        /// Its unit.
        unit: &'static str,
        /// What would be needed.
        asked: u64,
        /// What is allowed.
        most: u64,
    },
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// The caller wanted it to end.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// With what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
    /// The bytes contradict their format.
    pub fn corrupt(why: impl Into<String>) -> Self {
        Self::Corrupt(why.into())
    }
}
