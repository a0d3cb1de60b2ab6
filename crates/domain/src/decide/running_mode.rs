//! Which running mode holds when several people and places name one ([0049], [0056], [0085]).
//!
//! The order, strongest first: the **launch** (`--set task.running_mode=...`, `--mode`), the
//! **context** (a rule of the configuration that matches the session's labels), the **user**'s own
//! setting, the **task**, the **thread**, the engine's **default**. Who is nearer to this one start
//! wins over who wrote something for all starts. `auto` is an answer like the others: it lets the
//! engine pick, and does not fall through.

use serde::{Deserialize, Serialize};

use crate::task::RunningMode;

/// Who named the mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModeSource {
    /// At this launch.
    Launch,
    /// A context rule of the configuration.
    Context,
    /// The user's setting in the configuration.
    User,
    /// The task.
    Task,
    /// The thread.
    Thread,
    /// The engine's default.
    Default,
}

/// What each of them named, if anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModeWishes {
    /// At this launch.
    pub launch: Option<RunningMode>,
    /// A context rule.
    pub context: Option<RunningMode>,
    /// The user's setting.
    pub user: Option<RunningMode>,
    /// The task.
    pub task: Option<RunningMode>,
    /// The thread.
    pub thread: Option<RunningMode>,
    /// The engine's default.
    pub default: RunningMode,
}

impl ModeWishes {
    /// The mode that holds, and who named it.
    pub fn resolve(self) -> (RunningMode, ModeSource) {
        [
            (self.launch, ModeSource::Launch),
            (self.context, ModeSource::Context),
            (self.user, ModeSource::User),
            (self.task, ModeSource::Task),
            (self.thread, ModeSource::Thread),
        ]
        .into_iter()
        .find_map(|(mode, source)| Some((mode?, source)))
        .unwrap_or((self.default, ModeSource::Default))
    }
}

impl std::fmt::Display for ModeSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Launch => "launch",
            Self::Context => "context",
            Self::User => "user",
            Self::Task => "task",
            Self::Thread => "thread",
            Self::Default => "default",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RunningMode::{Auto, Dedicated, Hybrid, Serverless};

    #[test]
    fn the_nearest_to_this_start_wins() {
        let mut wishes = ModeWishes { default: Hybrid, ..ModeWishes::default() };
        assert_eq!(wishes.resolve(), (Hybrid, ModeSource::Default));
        wishes.thread = Some(Serverless);
        wishes.task = Some(Auto);
        assert_eq!(wishes.resolve(), (Auto, ModeSource::Task));
        wishes.user = Some(Dedicated);
        assert_eq!(wishes.resolve(), (Dedicated, ModeSource::User));
        wishes.context = Some(Serverless);
        wishes.launch = Some(Hybrid);
        assert_eq!(wishes.resolve(), (Hybrid, ModeSource::Launch));
    }
}
