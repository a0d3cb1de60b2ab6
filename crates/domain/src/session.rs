//! A session: one start of a thread, with the instances it holds.
//!
//! ```text
//! session: running -> (stopping ->) ended(succeeded | failed | cancelled)
//! item:    waiting -> ready -> assigned(attempt) -> ended(succeeded | failed | cancelled | lost)
//!                       ^            |
//!                       +-- retry ---+          (or `asking`, until a person decides)
//! ```
//! An array is one [`Node`] until an index leaves the default state: indices from `next` on are all
//! `waiting` (a link is open) or all `ready`. Ended indices are counted here and kept in the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{AttemptKey, InstanceId, SessionId, UserName};
use crate::quantity::Timestamp;
use crate::task::Profile;
use crate::thread::ThreadSpec;

/// How long a session keeps an instance that it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldPolicy {
    /// Until the session ends.
    SessionEnd,
    /// Until nothing of the session ran there for this many ms.
    IdleMs(u64),
}

impl Default for HoldPolicy {
    /// Ten seconds: long enough for the next link of a chain, short enough not to starve others.
    fn default() -> Self {
        Self::IdleMs(10_000)
    }
}

/// What was asked for at the start; never changes afterwards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionSpec {
    /// The thread, settled, overrides applied.
    pub thread: ThreadSpec,
    /// Who started it.
    pub user: UserName,
    /// Version of the thread or task in the repository, when it came from there.
    pub version: Option<u64>,
    /// Overrides given at launch, as given.
    pub overrides: Vec<String>,
    /// Where each node's running mode came from.
    pub mode_sources: Vec<String>,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// No item failed or was lost.
    Succeeded,
    /// An item failed or was lost.
    Failed,
    /// It was stopped.
    Cancelled,
}

/// How an item ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemEnd {
    /// An attempt succeeded.
    Succeeded,
    /// Every allowed attempt failed.
    Failed,
    /// Stopped, or a link never opened.
    Cancelled,
    /// Its place was lost and it may not start twice.
    Lost,
}

/// Where a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Working.
    Running,
    /// Asked to stop; open attempts are being cancelled.
    Stopping,
    /// Over.
    Ended(Outcome),
}

/// An item that has left its node's default state and has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ItemState {
    /// To be tried again, not before the given moment.
    Ready {
        /// When the back-off is over.
        not_before: Timestamp,
        /// Attempts so far.
        attempts: u32,
        /// Of these, how many failed by themselves.
        failures: u32,
    },
    /// An attempt is open.
    Assigned {
        /// Which.
        attempt: AttemptKey,
        /// Of the earlier ones, how many failed by themselves.
        failures: u32,
    },
    /// Its place was lost and a person must decide.
    Asking {
        /// Attempts so far.
        attempts: u32,
        /// Of these, how many failed by themselves.
        failures: u32,
    },
}

/// How many items ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Succeeded.
    pub succeeded: u32,
    /// Failed.
    pub failed: u32,
    /// Cancelled.
    pub cancelled: u32,
    /// Lost.
    pub lost: u32,
}

impl Tally {
    /// All that ended.
    pub fn ended(self) -> u32 {
        self.succeeded + self.failed + self.cancelled + self.lost
    }
    /// Counts one end.
    pub fn add(&mut self, end: ItemEnd, count: u32) {
        match end {
            ItemEnd::Succeeded => self.succeeded += count,
            ItemEnd::Failed => self.failed += count,
            ItemEnd::Cancelled => self.cancelled += count,
            ItemEnd::Lost => self.lost += count,
        }
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            succeeded: sum.succeeded + one.succeeded,
            failed: sum.failed + one.failed,
            cancelled: sum.cancelled + one.cancelled,
            lost: sum.lost + one.lost,
        })
    }
}

/// A node of a running session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Array size.
    pub count: u32,
    /// Indices from here on are untouched.
    pub next: u32,
    /// Items that left the default state and have not ended.
    pub open: BTreeMap<u32, ItemState>,
    /// Of these, the ones to be tried again, by when.
    pub retry: BTreeSet<(Timestamp, u32)>,
    /// Items that ended.
    pub tally: Tally,
    /// Links that have not opened yet.
    pub links_open: u32,
    /// When the last link opened.
    pub ready_at: Timestamp,
    /// What the planner sees.
    pub profile: Arc<Profile>,
}

impl Node {
    /// Every item ended.
    pub fn is_over(&self) -> bool {
        self.tally.ended() == self.count
    }
    /// Untouched items.
    pub fn untouched(&self) -> u32 {
        self.count - self.next
    }
}

/// A running session.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// What was asked for.
    pub spec: Arc<SessionSpec>,
    /// Where it is.
    pub state: SessionState,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// Its nodes, as in the thread.
    pub nodes: Vec<Node>,
    /// Nodes that come after each node.
    pub followers: Arc<Vec<Vec<u32>>>,
    /// Nodes that have not ended.
    pub nodes_open: u32,
    /// Instances it holds, with the moment since when nothing of it runs there.
    pub holds: BTreeMap<InstanceId, Hold>,
    /// Where each group's items go.
    pub groups: BTreeMap<Arc<str>, InstanceId>,
}

/// An instance held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Open attempts of this session there.
    pub attempts: u32,
    /// Since when there are none.
    pub idle_since: Timestamp,
}

impl Session {
    /// Followers of each node, from the thread's links.
    pub fn followers_of(thread: &ThreadSpec) -> Vec<Vec<u32>> {
        let mut followers = vec![BTreeSet::new(); thread.nodes.len()];
        for (at, node) in thread.nodes.iter().enumerate() {
            for link in &node.after {
                followers[link.node as usize].insert(u32::try_from(at).unwrap_or(u32::MAX));
            }
        }
        followers.into_iter().map(|set| set.into_iter().collect()).collect()
    }
    /// Sum of all nodes' ends.
    pub fn tally(&self) -> Tally {
        self.nodes.iter().map(|node| node.tally).sum()
    }
}
