//! What is in conflict when there is no plan: a set of demands that cannot all hold, of which none can be left
//! out (a deletion filter: each is left out in turn, and stays out when there is still no plan).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Effort;
use super::model::{Model, Part, Question, Relations};
use super::search::{Found, search};
use crate::group::Rule;

/// Pairs of members compared that cost as much as one try.
const COMPARED_PER_TRY: u64 = 100;

/// Demands that cannot all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Conflict {
    /// The demands.
    pub lacks: Vec<Lack>,
    /// Servers that were looked at.
    pub servers: u32,
    /// None of them can be left out. Else the limit of tries ended the search for fewer.
    pub minimal: bool,
}

/// One demand of a conflict.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "demand", rename_all = "snake_case")]
pub enum Lack {
    /// A rule.
    Rule(Rule),
    /// A member's CPUs and memory.
    Size {
        /// Which.
        member: Arc<str>,
        /// Virtual CPUs.
        vcpus: u32,
        /// MiB.
        memory_mb: u64,
    },
    /// What a member's task asks of its server (operating system, architecture, memory, ...).
    Task {
        /// Which.
        member: Arc<str>,
    },
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => rule.fmt(f),
            Self::Size { member, vcpus, memory_mb } => {
                write!(f, "the size of '{member}' ({vcpus} vCPUs, {memory_mb} MiB)")
            }
            Self::Task { member } => write!(f, "what task '{member}' asks of its instance"),
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.servers;
        if self.lacks.is_empty() {
            return write!(f, "there is no server for its groups ({servers} looked at)");
        }
        let s = if servers == 1 { "" } else { "s" };
        let lacks: Vec<String> = self.lacks.iter().map(ToString::to_string).collect();
        match &lacks[..] {
            [one] => write!(f, "{one} cannot hold on {servers} server{s}"),
            all => write!(f, "these cannot all hold on {servers} server{s}: {}", all.join("; ")),
        }
    }
}

/// Finds what is in conflict in a question that has no plan.
pub(super) fn find(question: &Question, relations: &Relations, effort: Effort) -> Conflict {
    let (members, rules) = (question.groups.members.len(), question.groups.rules.len());
    let sizes: Vec<Part> = (0..members).map(Part::Size).collect();
    let tasks: Vec<Part> = (0..members).map(Part::Task).collect();
    let rules: Vec<Part> = (0..rules).map(Part::Rule).collect();
    let mut filter = Filter {
        question,
        relations,
        kept: sizes.iter().chain(&tasks).chain(&rules).copied().collect(),
        tries_left: effort.conflict_tries_max,
        minimal: true,
    };
    // Whole kinds and halves first: what is in conflict is small most of the time.
    for parts in [sizes, tasks, rules] {
        filter.leave_out(&parts);
    }
    Conflict {
        lacks: filter.kept.iter().map(|part| lack(question, *part)).collect(),
        servers: u32::try_from(question.hosts.len()).unwrap_or(u32::MAX),
        minimal: filter.minimal,
    }
}

fn lack(question: &Question, part: Part) -> Lack {
    let groups = &question.groups;
    match part {
        Part::Rule(at) => Lack::Rule(groups.rules[at].clone()),
        Part::Size(at) => {
            let member = &groups.members[at];
            Lack::Size { member: member.name.clone(), vcpus: member.vcpus, memory_mb: member.memory_mb }
        }
        Part::Task(at) => Lack::Task { member: groups.members[at].name.clone() },
    }
}

struct Filter<'q> {
    question: &'q Question,
    relations: &'q Relations,
    kept: BTreeSet<Part>,
    tries_left: u64,
    minimal: bool,
}

impl Filter<'_> {
    /// Leaves out as many of these as can be, while there is still no plan.
    fn leave_out(&mut self, parts: &[Part]) {
        if parts.is_empty() || self.leaves_none(parts) {
            return;
        }
        if parts.len() > 1 {
            let (one, two) = parts.split_at(parts.len() / 2);
            self.leave_out(one);
            self.leave_out(two);
        }
    }

    /// Is there still no plan without these? Then they stay out.
    fn leaves_none(&mut self, parts: &[Part]) -> bool {
        if self.tries_left == 0 {
            self.minimal = false;
            return false;
        }
        let without: BTreeSet<Part> = self.kept.iter().copied().filter(|part| !parts.contains(part)).collect();
        let model = Model::new(self.question, self.relations, &|part| without.contains(&part));
        let (found, tries) = search(&model, self.tries_left, true);
        // Each search compares all members with each other before its first try.
        let members = model.members() as u64;
        let cost = tries + 1 + members * members / COMPARED_PER_TRY;
        self.tries_left -= cost.min(self.tries_left);
        match found {
            Found::Never => {
                self.kept = without;
                true
            }
            Found::Plan { .. } => false,
            Found::Undecided => {
                self.minimal = false;
                false
            }
        }
    }
}
