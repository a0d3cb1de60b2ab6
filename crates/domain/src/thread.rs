//! A thread: a DAG of tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::group::Groups;
use crate::id::TaskName;
use crate::session::HoldPolicy;
use crate::task::{InputSource, TaskSpec};

/// Most nodes in one thread.
pub const THREAD_NODES_MAX: usize = 100_000;

/// When a link lets the next node go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Every item succeeded.
    #[default]
    Success,
    /// Every item ended, however.
    End,
    /// At least one item failed or was lost.
    Failure,
}

/// An edge into a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The node that must end first (its place in [`ThreadSpec::nodes`]).
    pub node: u32,
    /// On which end.
    pub when: When,
}

/// A node: a task in a thread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Its name in the thread.
    pub name: TaskName,
    /// The task, settled.
    pub task: Arc<TaskSpec>,
    /// What must end first.
    pub after: Vec<Link>,
}

/// A thread with every field settled; nodes stand in an order in which links point backwards only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ThreadSpec {
    /// Its name.
    pub name: TaskName,
    /// One line on what it does.
    pub description: String,
    /// The nodes.
    pub nodes: Vec<NodeSpec>,
    /// Sets of nodes whose items start in one plan or not at all.
    pub together: Vec<Vec<u32>>,
    /// How its sessions hold agents.
    pub hold: HoldPolicy,
    /// Groups of its nodes, and their rules.
    #[serde(default, skip_serializing_if = "Groups::is_empty")]
    pub groups: Groups,
}

/// Why a set of nodes is no thread.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadThread {
    /// A link names a node that is not there.
    #[error("task '{node}' comes after '{missing}', which is not in the thread: add it or remove the link")]
    UnknownNode {
        /// Where the link is.
        node: TaskName,
        /// What it names.
        missing: String,
    },
    /// The links run in a circle.
    #[error("the links run in a circle: {}: remove one of them", path.join(" -> "))]
    Cycle {
        /// The circle, first node repeated at its end.
        path: Vec<String>,
    },
    /// An input takes an output of a node that does not surely end before.
    #[error("task '{node}' takes '{output}' from '{from}' but does not come after it: add '{from}' to its 'after'")]
    InputNotBefore {
        /// The taker.
        node: TaskName,
        /// The giver.
        from: TaskName,
        /// The output.
        output: String,
    },
    /// Nodes of a `together` set depend on each other.
    #[error("'{a}' and '{b}' are linked to start together, but one comes after the other: remove one of the two")]
    TogetherButOrdered {
        /// One.
        a: TaskName,
        /// The other.
        b: TaskName,
    },
    /// A `together` set names a node that is not there.
    #[error("a 'together' set names '{missing}', which is not in the thread: add it or remove it from the set")]
    UnknownTogether {
        /// What it names.
        missing: String,
    },
    /// Too many nodes.
    #[error("the thread has {nodes} tasks; the limit is {THREAD_NODES_MAX}: split it, or use an array")]
    TooManyNodes {
        /// How many.
        nodes: usize,
    },
    /// No node.
    #[error("the thread has no task: add at least one under [tasks]")]
    Empty,
}

/// A node before its links are resolved to places.
#[derive(Debug, Clone)]
pub struct LooseNode {
    /// Its name.
    pub name: TaskName,
    /// The task.
    pub task: Arc<TaskSpec>,
    /// What must end first, by name.
    pub after: Vec<(String, When)>,
}

/// Orders nodes so that links point backwards (ties by name, so that the same thread always gives
/// the same order), and checks links, inputs and `together` sets.
pub fn assemble(
    name: TaskName,
    description: String,
    loose: Vec<LooseNode>,
    together: &[Vec<String>],
    hold: HoldPolicy,
) -> Result<ThreadSpec, BadThread> {
    if loose.is_empty() {
        return Err(BadThread::Empty);
    }
    if loose.len() > THREAD_NODES_MAX {
        return Err(BadThread::TooManyNodes { nodes: loose.len() });
    }
    let by_name: BTreeMap<&str, usize> = loose.iter().enumerate().map(|(i, n)| (n.name.as_str(), i)).collect();
    let mut links = Vec::with_capacity(loose.len());
    for node in &loose {
        let mut into = Vec::with_capacity(node.after.len());
        for (before, when) in &node.after {
            let at = by_name
                .get(before.as_str())
                .ok_or_else(|| BadThread::UnknownNode { node: node.name.clone(), missing: before.clone() })?;
            into.push((*at, *when));
        }
        links.push(into);
    }
    let order = topological(&loose, &links)?;
    let mut place = vec![0_u32; loose.len()];
    for (to, from) in order.iter().enumerate() {
        place[*from] = u32::try_from(to).unwrap_or(u32::MAX);
    }
    let nodes: Vec<NodeSpec> = order
        .iter()
        .map(|from| NodeSpec {
            name: loose[*from].name.clone(),
            task: loose[*from].task.clone(),
            after: links[*from].iter().map(|(n, when)| Link { node: place[*n], when: *when }).collect(),
        })
        .collect();
    check_inputs(&nodes)?;
    let together = together_sets(&nodes, together)?;
    Ok(ThreadSpec { name, description, nodes, together, hold, groups: Groups::default() })
}

/// Kahn's algorithm, smallest name first.
fn topological(loose: &[LooseNode], links: &[Vec<(usize, When)>]) -> Result<Vec<usize>, BadThread> {
    let mut open: Vec<usize> = links.iter().map(Vec::len).collect();
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); loose.len()];
    for (to, into) in links.iter().enumerate() {
        for (from, _) in into {
            next[*from].push(to);
        }
    }
    let mut ready: BTreeSet<(&str, usize)> =
        (0..loose.len()).filter(|i| open[*i] == 0).map(|i| (loose[i].name.as_str(), i)).collect();
    let mut order = Vec::with_capacity(loose.len());
    while let Some((_, at)) = ready.pop_first() {
        order.push(at);
        for to in &next[at] {
            open[*to] -= 1;
            if open[*to] == 0 {
                ready.insert((loose[*to].name.as_str(), *to));
            }
        }
    }
    if order.len() == loose.len() {
        return Ok(order);
    }
    Err(BadThread::Cycle { path: find_cycle(loose, links, &open) })
}

/// Walks backwards from a node that never became ready until a node repeats.
fn find_cycle(loose: &[LooseNode], links: &[Vec<(usize, When)>], open: &[usize]) -> Vec<String> {
    let mut at = open.iter().position(|o| *o > 0).unwrap_or(0);
    let mut seen = Vec::new();
    while !seen.contains(&at) {
        seen.push(at);
        at = links[at].iter().map(|(from, _)| *from).find(|from| open[*from] > 0).unwrap_or(at);
    }
    let start = seen.iter().position(|s| *s == at).unwrap_or(0);
    let mut path: Vec<String> = seen[start..].iter().map(|i| loose[*i].name.to_string()).collect();
    path.push(loose[at].name.to_string());
    path.reverse();
    path
}

/// Every node that surely ended before `node`, transitively.
fn ancestors(nodes: &[NodeSpec], node: usize) -> Vec<bool> {
    let mut before = vec![false; nodes.len()];
    let mut stack: Vec<u32> = nodes[node].after.iter().map(|l| l.node).collect();
    while let Some(at) = stack.pop() {
        let at = at as usize;
        if !std::mem::replace(&mut before[at], true) {
            stack.extend(nodes[at].after.iter().map(|l| l.node));
        }
    }
    before
}

fn check_inputs(nodes: &[NodeSpec]) -> Result<(), BadThread> {
    let by_name: BTreeMap<&TaskName, usize> = nodes.iter().enumerate().map(|(i, n)| (&n.name, i)).collect();
    for (at, node) in nodes.iter().enumerate() {
        let mut before: Option<Vec<bool>> = None;
        for input in &node.task.inputs {
            let InputSource::Output { from, output } = &input.source else { continue };
            let giver = by_name.get(from).copied();
            let linked = giver.is_some_and(|giver| node.after.iter().any(|link| link.node as usize == giver));
            let mut ok = || giver.is_some_and(|giver| before.get_or_insert_with(|| ancestors(nodes, at))[giver]);
            if !linked && !ok() {
                return Err(BadThread::InputNotBefore {
                    node: node.name.clone(),
                    from: from.clone(),
                    output: output.clone(),
                });
            }
        }
    }
    Ok(())
}

/// The sets by place. Sets that share a node are one: all of it starts together.
fn together_sets(nodes: &[NodeSpec], sets: &[Vec<String>]) -> Result<Vec<Vec<u32>>, BadThread> {
    let by_name: BTreeMap<&str, u32> = nodes.iter().map(|n| n.name.as_str()).zip(0..).collect();
    let mut result: Vec<BTreeSet<u32>> = Vec::with_capacity(sets.len());
    for set in sets {
        let mut places = BTreeSet::new();
        for name in set {
            let at = by_name.get(name.as_str()).ok_or_else(|| BadThread::UnknownTogether { missing: name.clone() })?;
            places.insert(*at);
        }
        while let Some(shares) = result.iter().position(|other| !other.is_disjoint(&places)) {
            places.extend(result.swap_remove(shares));
        }
        result.push(places);
    }
    result.retain(|places| !places.is_empty());
    result.sort();
    for places in &result {
        check_unordered(nodes, places)?;
    }
    Ok(result.into_iter().map(|places| places.into_iter().collect()).collect())
}

fn check_unordered(nodes: &[NodeSpec], places: &BTreeSet<u32>) -> Result<(), BadThread> {
    for a in places {
        let before = ancestors(nodes, *a as usize);
        if let Some(b) = places.iter().find(|b| before[**b as usize]) {
            return Err(BadThread::TogetherButOrdered {
                a: nodes[*a as usize].name.clone(),
                b: nodes[*b as usize].name.clone(),
            });
        }
    }
    Ok(())
}
