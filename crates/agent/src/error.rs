//! What can end an agent or a function host.

use std::path::Path;

/// Why it cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A folder or file of its own.
    #[error("cannot {what} {path}: {why}; give the agent a folder it may write to")]
    Folder {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: String,
        /// The operating system's error.
        why: String,
    },
    /// Another agent uses the folder.
    #[error("another agent uses the folder {0}: give each agent its own")]
    InUse(String),
    /// The identity file is damaged.
    #[error("the identity in {path} cannot be used ({why}); remove it and join again with 'skein token join'")]
    Identity {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Neither identity nor token.
    #[error("this agent has not joined an engine yet: give a join token ('skein token join' on the engine makes one)")]
    NoToken,
    /// A token that is none.
    #[error(transparent)]
    Token(#[from] skein_wire::join::BadJoinToken),
    /// Joining failed.
    #[error("cannot join the engine at {engine_url}: {why}")]
    Join {
        /// Where.
        engine_url: String,
        /// Why.
        why: String,
    },
    /// The engine does not want this agent.
    #[error("the engine refused this agent: {why}; {next_step}")]
    Refused {
        /// Why.
        why: String,
        /// What to do.
        next_step: String,
    },
    /// A listening address.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        why: String,
    },
    /// The operating system did not give what is needed to run.
    #[error("{what}: {why}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        why: String,
    },
}

impl AgentError {
    pub(crate) fn folder(what: &'static str, path: &Path, why: &std::io::Error) -> Self {
        Self::Folder { what, path: path.display().to_string(), why: why.to_string() }
    }

    pub(crate) fn system(what: &'static str, why: &impl ToString) -> Self {
        Self::System { what, why: why.to_string() }
    }
}
