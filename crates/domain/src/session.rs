//! A session: one start of a thread, with the instances it holds.
//!
//! ```text
//! session: running <-> paused; either -> (stopping ->) ended(succeeded | failed | cancelled)
//! item:    waiting -> ready -> assigned(attempt) -> ended(succeeded | failed | cancelled | lost)
//!                       ^            |
//!                       +-- retry ---+          (or `asking`, until a person decides)
//! ```
//! An array is one [`Node`] until an index leaves the default state: indices from `next` on are all
//! `waiting` (a link is open) or all `ready`. Ended indices are counted here and kept in the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::attempt::EndCause;
use crate::decide::budget::OverBudget;
use crate::decide::deployment::{Deployment, Held};
use crate::id::{AttemptKey, InstanceId, SessionId, UserName};
use crate::quantity::{NanoUsd, Timestamp};
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
    /// What an earlier session of the same thread has done already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<Earlier>,
    /// The most that it may spend, as given at its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<NanoUsd>,
}

/// What a session takes over from an earlier one of the same thread: it does not run again, and its outputs
/// are the earlier session's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// The earlier session.
    pub session: SessionId,
    /// By node, indices `from..to` that succeeded there, in order.
    pub done: BTreeMap<u32, Vec<(u32, u32)>>,
}

impl Earlier {
    /// Was this index done there?
    pub fn has(&self, node: u32, index: u32) -> bool {
        self.done.get(&node).is_some_and(|ranges| ranges.iter().any(|(from, to)| (*from..*to).contains(&index)))
    }

    /// What `before`, the earlier session's spec, and what succeeded in it since leave to be done. A node runs
    /// again unless all of it, and of every node before it, succeeded; of a node whose links are all done
    /// only what did not succeed runs again. `succeeded` gives a node's indices, in order.
    pub fn of<E>(
        session: SessionId,
        before: &SessionSpec,
        tallies: &[Tally],
        mut succeeded: impl FnMut(u32) -> Result<Vec<u32>, E>,
    ) -> Result<Self, E> {
        let mut done = BTreeMap::new();
        let mut whole: BTreeMap<u32, bool> = BTreeMap::new();
        // Links may point either way in the list of nodes: go on until a round adds none.
        loop {
            let known = whole.len();
            for (at, node) in before.thread.nodes.iter().enumerate() {
                let key = u32::try_from(at).unwrap_or(u32::MAX);
                if whole.contains_key(&key) || !node.after.iter().all(|link| whole.contains_key(&link.node)) {
                    continue;
                }
                let free = node.after.iter().all(|link| whole.get(&link.node) == Some(&true));
                let tally = tallies.get(at).copied().unwrap_or_default();
                let all = free && tally.succeeded == node.task.array;
                whole.insert(key, all);
                let ranges = match free {
                    _ if all => vec![(0, node.task.array)],
                    true if tally.succeeded > 0 => {
                        let earlier = before.earlier.as_ref().and_then(|e| e.done.get(&key)).into_iter().flatten();
                        let mut indices = succeeded(key)?;
                        indices.extend(earlier.flat_map(|(from, to)| *from..*to));
                        indices.sort_unstable();
                        as_ranges(indices)
                    }
                    _ => continue,
                };
                done.insert(key, ranges);
            }
            if whole.len() == known {
                return Ok(Self { session, done });
            }
        }
    }
}

fn as_ranges(indices: Vec<u32>) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for index in indices {
        match ranges.last_mut() {
            Some((_, to)) if *to == index => *to += 1,
            Some((_, to)) if *to > index => {}
            _ => ranges.push((index, index + 1)),
        }
    }
    ranges
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
    /// Nothing new starts; what runs may finish.
    Paused,
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
        /// What ended them.
        #[serde(default)]
        tries: Tries,
    },
    /// An attempt is open.
    Assigned {
        /// Which.
        attempt: AttemptKey,
        /// What ended the earlier ones.
        #[serde(default)]
        tries: Tries,
    },
    /// Its place was lost and a person must decide.
    Asking {
        /// Attempts so far.
        attempts: u32,
        /// What ended them.
        #[serde(default)]
        tries: Tries,
    },
}

/// Ended attempts at one item, counted apart by what ended them: each kind has a limit of its own
/// ([`crate::task::RetryLimits`]), so that a machine that keeps vanishing does not use up what the task
/// itself may fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tries {
    /// The task itself failed (status, signal, memory).
    #[serde(skip_serializing_if = "is_zero")]
    pub failed: u32,
    /// It ran longer than it may.
    #[serde(skip_serializing_if = "is_zero")]
    pub timed_out: u32,
    /// Its machine was lost.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost: u32,
    /// Its place did not start it.
    #[serde(skip_serializing_if = "is_zero")]
    pub refused: u32,
    /// Its machine was taken away by the cloud.
    #[serde(skip_serializing_if = "is_zero")]
    pub preempted: u32,
    /// It was moved, as it may be.
    #[serde(skip_serializing_if = "is_zero")]
    pub moved: u32,
    /// It was taken back before it started.
    #[serde(skip_serializing_if = "is_zero")]
    pub recalled: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Tries {
    /// The count that an end of this cause belongs to; none for a success and for what a person stopped.
    pub fn of(&mut self, cause: &EndCause) -> Option<&mut u32> {
        Some(match cause {
            EndCause::Succeeded | EndCause::Cancelled => return None,
            EndCause::Failed { .. } | EndCause::Signalled { .. } | EndCause::OutOfMemory { .. } => &mut self.failed,
            EndCause::TimedOut { .. } => &mut self.timed_out,
            EndCause::Lost { .. } => &mut self.lost,
            EndCause::NotStarted { .. } => &mut self.refused,
            EndCause::Preempted { .. } => &mut self.preempted,
            EndCause::Moved { .. } => &mut self.moved,
            EndCause::Recalled { .. } => &mut self.recalled,
        })
    }
    /// With one more attempt that ended so.
    #[must_use]
    pub fn and(mut self, cause: &EndCause) -> Self {
        if let Some(count) = self.of(cause) {
            *count = count.saturating_add(1);
        }
        self
    }
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
    /// Typical run time of its succeeded attempts, ms: about their median. Before the first it is that of the
    /// nodes it follows, if these need the same.
    pub typical_run_ms: Option<u32>,
    /// What its ended attempts cost.
    pub cost: NanoUsd,
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
    /// Takes the run time of one succeeded attempt in. Steps of an eighth towards each value settle
    /// about the median, and a single long run moves it by one step only.
    pub(crate) fn ran(&mut self, run_ms: u64) {
        let run_ms = u32::try_from(run_ms).unwrap_or(u32::MAX);
        if self.tally.succeeded == 0 {
            self.typical_run_ms = Some(run_ms);
        }
        let typical = self.typical_run_ms.get_or_insert(run_ms);
        let step = (*typical / 8).max(1);
        match run_ms.cmp(typical) {
            std::cmp::Ordering::Greater => *typical = run_ms.min(typical.saturating_add(step)),
            std::cmp::Ordering::Less => *typical = run_ms.max(typical.saturating_sub(step)),
            std::cmp::Ordering::Equal => {}
        }
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
    /// Where its thread's groups are deployed.
    pub deployment: Option<Arc<Deployment>>,
    /// The most that it may spend, as given at its start or when it was last resumed.
    pub budget: Option<NanoUsd>,
    /// The cap that paused it.
    pub over: Option<Box<OverBudget>>,
}

/// An instance held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Open attempts of this session there; not kept, since these say it.
    #[serde(skip)]
    pub attempts: u32,
    /// Since when there are none.
    pub idle_since: Timestamp,
}

impl Session {
    /// Followers of each node, from the thread's links.
    /// Does any task of it tell a receiver?
    pub fn replies(spec: &SessionSpec) -> bool {
        spec.thread.nodes.iter().any(|node| node.task.reply_to.is_some())
    }

    /// The nodes that follow each node.
    pub fn followers_of(thread: &ThreadSpec) -> Vec<Vec<u32>> {
        let mut followers = vec![BTreeSet::new(); thread.nodes.len()];
        for (at, node) in thread.nodes.iter().enumerate() {
            for link in &node.after {
                followers[link.node as usize].insert(u32::try_from(at).unwrap_or(u32::MAX));
            }
        }
        followers.into_iter().map(|set| set.into_iter().collect()).collect()
    }
    /// Holds the items of its groups' members where its deployment says; the nodes whose place that changed.
    pub(crate) fn hold_members(&mut self) -> Vec<u32> {
        let (groups, mut changed) = (&self.spec.thread.groups, Vec::new());
        for at in groups.members.iter().filter_map(|member| member.node) {
            let held = Held::of(self.id, groups, self.deployment.as_deref(), at).map(Arc::new);
            if let Some(node) = self.nodes.get_mut(at as usize).filter(|node| node.profile.held != held) {
                node.profile = Arc::new(Profile { held, ..(*node.profile).clone() });
                changed.push(at);
            }
        }
        changed
    }
    /// Sum of all nodes' ends.
    pub fn tally(&self) -> Tally {
        self.nodes.iter().map(|node| node.tally).sum()
    }
}
