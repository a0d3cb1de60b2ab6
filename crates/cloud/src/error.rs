//! What can go wrong with a cloud: what was being done, what the cloud said, and the next step.

use std::fmt;

/// Everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of fault an answer, or its absence, is. The kind decides what is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Too many requests: tried again, not before the time the service names.
    Throttled,
    /// The service failed: tried again.
    Server,
    /// No answer, or half of one; whether the request was carried out is unknown. Tried again: every request here
    /// may be sent twice.
    Cut,
    /// The service received other bytes than were sent: tried again.
    Checksum,
    /// The service does not know who asks: tried once more with a new token where there is one.
    Unauthorized,
    /// What the request is about is not there (any more).
    Missing,
    /// The service understood and says no.
    Refused,
}

/// A request that failed for good.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Its kind.
    pub class: Class,
    /// What was being done.
    pub what: String,
    /// HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// The cloud's own name of the error.
    pub code: String,
    /// The cloud's own words, or the system's where no answer came.
    pub words: String,
    /// How often it was tried.
    pub tries: u32,
}

impl Fault {
    fn next_step(&self) -> &'static str {
        match self.class {
            Class::Throttled => "the service limits requests: try again later, or allow fewer parts at a time",
            Class::Server => "the service fails: try again later, what is done is kept",
            Class::Cut => "look at the network between here and the service and try again, what is done is kept",
            Class::Checksum => "bytes change on the way: look at proxies and at this machine's memory",
            Class::Unauthorized => "check the key, secret or token, what it allows, and this machine's clock",
            Class::Missing => "check the name, the region and the endpoint",
            Class::Refused => "what the service says names what to change: permissions, names or sizes",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.what)?;
        match self.status {
            Some(status) => write!(f, "the service answered {status}")?,
            None => f.write_str("no answer")?,
        }
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.words.is_empty() {
            write!(f, " (\"{}\")", self.words)?;
        }
        if self.tries > 1 {
            write!(f, ", tried {} times", self.tries)?;
        }
        write!(f, ": {}", self.next_step())
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request failed.
    #[error("{0}")]
    Cloud(Box<Fault>),
    /// The image could not be read or converted.
    #[error("the image could not be read for the upload: {0}")]
    Image(#[from] skein_image::Error),
    /// Something else stands where the upload should go.
    #[error("{what} is there and is not this image: choose another name, or allow it to be replaced")]
    Occupied {
        /// What.
        what: String,
    },
    /// What the service has is not what was sent.
    #[error("{what} is damaged: {why}; it was not taken for good. Upload it again")]
    Damaged {
        /// What.
        what: String,
        /// How that is known.
        why: String,
    },
    /// A limit of ours or of the service's was reached.
    #[error("{what} is over the limit of {most} {unit} ({limit})")]
    OverLimit {
        /// Of what.
        what: String,
        /// The limit's name.
        limit: &'static str,
        /// Its value.
        most: u64,
        /// Its unit.
        unit: &'static str,
    },
    /// The system could not read or write.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// The service answered something that its description does not have.
    #[error("{what}: the answer cannot be understood: {why}")]
    Answer {
        /// What was being done.
        what: String,
        /// What is wrong with it.
        why: String,
    },
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
    /// The fault behind it.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Cloud(fault) => Some(fault),
            _ => None,
        }
    }
    /// Is it about something that is not there?
    pub(crate) fn is_missing(&self) -> bool {
        self.fault().is_some_and(|fault| fault.class == Class::Missing)
    }
    /// Is it this error of the cloud's?
    pub(crate) fn has_code(&self, codes: &[&str]) -> bool {
        self.fault().is_some_and(|fault| fault.code.split('/').any(|code| codes.contains(&code)))
    }
    pub(crate) fn answer(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Answer { what: what.into(), why: why.into() }
    }
}
