//! Groups of a thread: what its parts want of the places they get, without knowing the places [0034]-[0036].
//!
//! ```text
//! [[groups]] as written --resolve--> members (leaves, by name) + rules over sets of members
//! ```
//! A group has members: tasks of the thread, elements that are not tasks (an ingress point, a VM, a physical
//! function), and other groups. Its rules hold for all that is in it, however deep. Plain words (`locality`,
//! `availability`, `security`) become the same rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::draft::BadDraft;
use crate::site::Level;
use crate::thread::NodeSpec;

/// Most groups of one thread.
pub const GROUPS_MAX: usize = 256;
/// Most members of one thread's groups.
pub const MEMBERS_MAX: usize = 1000;
/// Most pairs of members that the rules of one thread compare: members of each rule times all members.
pub const COMPARED_MAX: usize = 8_000_000;
/// Most pairs of members that the pipes of one thread join.
pub const PIPE_PAIRS_MAX: usize = 20_000;
/// Most bandwidth of one pipe, Mbit/s.
pub const PIPE_MBPS_MAX: u64 = 10_000_000;
/// Most virtual CPUs of one member.
pub const MEMBER_VCPUS_MAX: u32 = 100_000;
/// Longest name of a group or an element, bytes.
const NAME_BYTES_MAX: usize = 63;

/// A group as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupDraft {
    /// Its name.
    pub name: String,
    /// Tasks, elements and other groups by name.
    pub members: Vec<String>,
    /// All members in one place of this level.
    pub affinity: Option<Level>,
    /// No two members in one place of this level; what is in one nested group may share.
    pub diversity: Option<Level>,
    /// Nothing else in the members' places of this level.
    pub exclusivity: Option<Level>,
    /// Bandwidth between members.
    pub pipes: Vec<PipeDraft>,
    /// Near to each other, in plain words.
    pub locality: Option<Locality>,
    /// Members stay when servers, racks or sites are lost.
    pub availability: Option<Availability>,
    /// Apart from others, in plain words.
    pub security: Option<Security>,
}

/// `{between = ["a", "b"], mbps = 100}`; without `between`, for each pair of the group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PipeDraft {
    /// Two members, or nested groups: each member of the one with each of the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub between: Option<(String, String)>,
    /// Bandwidth of each pair, Mbit/s.
    pub mbps: u64,
}

/// How near members want to be, without knowing servers or racks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Locality {
    /// On one machine: no network between them.
    SameMachine,
    /// One switch apart at most: in one rack.
    Near,
    /// In one building or region: in one site.
    SamePlace,
}

/// `availability = 2`, or `{domains = 2, of = "rack"}`: members are in at least so many servers (or racks, sites),
/// so that one stays when all of these but one are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "availability is a number of servers, or {domains = NUMBER, of = \"server\" | \"rack\" | \"site\"}"
)]
pub enum Availability {
    /// So many servers.
    Servers(u32),
    /// So many places of a level.
    Of {
        /// How many.
        domains: u32,
        /// Of which level.
        of: Level,
    },
}

/// How far members want to be from others, without knowing servers or racks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// No other's member under the same hypervisor: servers of their own.
    Hypervisor,
    /// No other's member on the same hardware or its network: racks of their own.
    Exclusive,
}

/// What a member is, beside what its task says. `[members.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemberDraft {
    /// What it is, when it is no task.
    pub kind: Option<ElementKind>,
    /// Where it is: `SITE`, `SITE/RACK` or `SITE/RACK/SERVER`.
    pub at: Option<String>,
    /// Virtual CPUs (default 1 for a task, 0 for an element).
    pub vcpus: Option<u32>,
    /// Memory, MiB (default: what the task asks for; 0 for an element).
    pub memory_mb: Option<u64>,
    /// Its CPUs and memory are its own: they are not overcommitted.
    pub pinned: bool,
}

/// Members that are no tasks [0028].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ElementKind {
    /// A VM that something else makes.
    Vm,
    /// A container that something else makes.
    Container,
    /// Where traffic comes in.
    Ingress,
    /// Where traffic goes out.
    Egress,
    /// A function in hardware of its own.
    Physical,
}

/// A member: a leaf of the groups.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: Arc<str>,
    /// The node that it is; none for an element.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u32>,
    /// What it is, when it is no task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ElementKind>,
    /// Virtual CPUs. Of an array: of one item at a time.
    pub vcpus: u32,
    /// Memory, MiB. Of an array: of one item at a time.
    pub memory_mb: u64,
    /// Not overcommitted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
}

/// What a rule demands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum Demand {
    /// Everything in one place.
    Affinity {
        /// Of this level.
        level: Level,
    },
    /// No two units share a place.
    Diversity {
        /// Of this level.
        level: Level,
    },
    /// No one else is in its places.
    Exclusivity {
        /// Of this level.
        level: Level,
    },
    /// In at least so many places.
    Spread {
        /// Of this level.
        level: Level,
        /// How many.
        domains: u32,
    },
    /// Bandwidth for each pair.
    Pipe {
        /// Mbit/s.
        mbps: u64,
    },
    /// It is there.
    Pin {
        /// `SITE`, `SITE/RACK` or `SITE/RACK/SERVER`.
        place: Arc<str>,
    },
}

/// A rule over members.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule {
    /// The group that has it; of a pin, the member.
    pub group: Arc<str>,
    /// What it demands.
    #[serde(flatten)]
    pub demand: Demand,
    /// Sets of members (their places in [`Groups::members`]): of diversity, those that must be apart; of a pipe,
    /// its two ends, or one set of which it joins all pairs; one set otherwise.
    pub units: Vec<Vec<u32>>,
    /// The words that it was asked for in, when these were plain ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<Arc<str>>,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.demand {
            Demand::Affinity { level } => write!(f, "affinity ({level}) of group '{}'", self.group)?,
            Demand::Diversity { level } => write!(f, "diversity ({level}) of group '{}'", self.group)?,
            Demand::Exclusivity { level } => write!(f, "exclusivity ({level}) of group '{}'", self.group)?,
            Demand::Spread { level, domains } => {
                write!(f, "at least {domains} {level}s for group '{}'", self.group)?;
            }
            Demand::Pipe { mbps } => write!(f, "pipe of {mbps} Mbit/s in group '{}'", self.group)?,
            Demand::Pin { place } => return write!(f, "'{}' is at '{place}'", self.group),
        }
        self.said.as_ref().map_or(Ok(()), |said| write!(f, " ({said})"))
    }
}

/// The groups of a thread, settled: leaves and rules, both in an order that does not depend on how they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// Members by name.
    pub members: Vec<Member>,
    /// Rules.
    pub rules: Vec<Rule>,
}

impl Groups {
    /// Nothing is grouped.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Pairs of members that a pipe joins, the lower first.
    pub fn pairs(units: &[Vec<u32>]) -> BTreeSet<(u32, u32)> {
        let pair = |a: u32, b: u32| (a.min(b), a.max(b));
        if let [one, two] = units {
            return one.iter().flat_map(|a| two.iter().map(move |b| pair(*a, *b))).collect();
        }
        let all: BTreeSet<u32> = units.iter().flatten().copied().collect();
        all.iter().flat_map(|a| all.range(a + 1..).map(move |b| pair(*a, *b))).collect()
    }
}

/// Settles the groups of a thread whose nodes are these. Every complaint at once.
pub fn resolve(
    groups: &[GroupDraft],
    members: &BTreeMap<String, MemberDraft>,
    nodes: &[NodeSpec],
) -> Result<Groups, BadDraft> {
    if groups.is_empty() && members.is_empty() {
        return Ok(Groups::default());
    }
    let (of_group, by_name) = (BTreeMap::new(), BTreeMap::new());
    let mut resolving = Resolving { groups: by_name, of_group, members, nodes: BTreeMap::new(), wrong: Vec::new() };
    for (at, node) in nodes.iter().enumerate() {
        resolving.nodes.insert(node.name.as_str(), (u32::try_from(at).unwrap_or(u32::MAX), node));
    }
    resolving.take_groups(groups);
    resolving.check_members();
    if resolving.wrong.is_empty() {
        resolving.check_circles();
    }
    if !resolving.wrong.is_empty() {
        return Err(BadDraft(resolving.wrong));
    }
    resolving.settle()
}

/// A name's leaves, by name.
type Leaves<'a> = BTreeSet<&'a str>;

struct Resolving<'a> {
    groups: BTreeMap<&'a str, &'a GroupDraft>,
    /// The leaves of each group, once there is no circle.
    of_group: BTreeMap<&'a str, Leaves<'a>>,
    members: &'a BTreeMap<String, MemberDraft>,
    nodes: BTreeMap<&'a str, (u32, &'a NodeSpec)>,
    wrong: Vec<String>,
}

impl<'a> Resolving<'a> {
    fn take_groups(&mut self, groups: &'a [GroupDraft]) {
        if groups.len() > GROUPS_MAX {
            self.wrong.push(format!("the thread has {} groups; the limit is {GROUPS_MAX}: join some", groups.len()));
        }
        for (at, group) in groups.iter().enumerate() {
            let name = group.name.as_str();
            if name.is_empty() || name.len() > NAME_BYTES_MAX {
                self.wrong.push(format!("group {at} needs a 'name' of 1 to {NAME_BYTES_MAX} bytes"));
            } else if self.nodes.contains_key(name) || self.members.contains_key(name) {
                self.wrong.push(format!("group '{name}' has the name of a task or element: give it another"));
            } else if self.groups.insert(name, group).is_some() {
                self.wrong.push(format!("there are two groups '{name}': give one of them another name"));
            }
        }
        for group in groups {
            self.check_group(group);
        }
    }

    fn check_group(&mut self, group: &GroupDraft) {
        let name = &group.name;
        if group.members.is_empty() {
            self.wrong.push(format!("group '{name}' has no members: name some, or remove it"));
        }
        let mut seen = BTreeSet::new();
        for member in &group.members {
            if !self.knows(member) {
                self.wrong.push(format!(
                    "group '{name}': '{member}' is no task of the thread, no element under [members] and no group: add it or correct the name"
                ));
            }
            if !seen.insert(member) {
                self.wrong.push(format!("group '{name}' names '{member}' twice: name it once"));
            }
        }
        for pipe in &group.pipes {
            let outside = |end: &&String| !group.members.contains(*end);
            let ends = pipe.between.iter().flat_map(|(a, b)| [a, b]);
            if let Some(end) = ends.clone().find(outside) {
                self.wrong.push(format!("group '{name}': a pipe ends at '{end}', which is not one of its members"));
            } else if pipe.between.as_ref().is_some_and(|(a, b)| a == b) {
                self.wrong.push(format!("group '{name}': a pipe needs two different ends"));
            }
            if pipe.mbps == 0 || pipe.mbps > PIPE_MBPS_MAX {
                self.wrong.push(format!("group '{name}': a pipe's mbps = {}: give 1 to {PIPE_MBPS_MAX}", pipe.mbps));
            }
        }
        if let Some(Availability::Servers(domains) | Availability::Of { domains, .. }) = group.availability
            && (domains == 0 || domains as usize > MEMBERS_MAX)
        {
            self.wrong.push(format!("group '{name}': availability of {domains}: give 1 to {MEMBERS_MAX}"));
        }
    }

    fn knows(&self, name: &str) -> bool {
        let element = self.members.contains_key(name);
        element || self.nodes.contains_key(name) || self.groups.contains_key(name)
    }

    fn check_members(&mut self) {
        let named: BTreeSet<&str> =
            self.groups.values().flat_map(|group| group.members.iter().map(String::as_str)).collect();
        for (name, member) in self.members {
            if name.is_empty() || name.len() > NAME_BYTES_MAX {
                self.wrong.push(format!("[members.{name}]: a name has 1 to {NAME_BYTES_MAX} bytes"));
            }
            match (self.nodes.contains_key(name.as_str()), member.kind) {
                (true, Some(_)) => {
                    self.wrong.push(format!("[members.{name}] is a task: remove its 'kind'"));
                }
                (false, None) => self.wrong.push(format!(
                    "[members.{name}] is no task of the thread: give its 'kind' (vm, container, ingress, egress or physical)"
                )),
                _ => {}
            }
            if !named.contains(name.as_str()) {
                self.wrong.push(format!("[members.{name}] is in no group: add it to one, or remove it"));
            }
            if member.vcpus.is_some_and(|vcpus| vcpus > MEMBER_VCPUS_MAX) {
                self.wrong.push(format!("[members.{name}] vcpus: give 0 to {MEMBER_VCPUS_MAX}"));
            }
        }
    }

    /// Walks down from each group; meeting one that the way down began with is a circle.
    fn check_circles(&mut self) {
        let mut done = BTreeSet::new();
        for start in self.groups.keys().copied().collect::<Vec<_>>() {
            let mut path = Vec::new();
            if let Err(circle) = self.walk(start, &mut path, &mut done) {
                let circle = circle.join(" -> ");
                self.wrong.push(format!("groups contain each other in a circle: {circle}: take one out of the other"));
                return;
            }
        }
    }

    fn walk(&self, at: &'a str, path: &mut Vec<&'a str>, done: &mut BTreeSet<&'a str>) -> Result<(), Vec<&'a str>> {
        if let Some(from) = path.iter().position(|name| *name == at) {
            return Err(path[from..].iter().copied().chain([at]).collect());
        }
        let Some(group) = self.groups.get(at).filter(|_| !done.contains(at)) else { return Ok(()) };
        path.push(at);
        for member in &group.members {
            self.walk(member, path, done)?;
        }
        path.pop();
        done.insert(at);
        Ok(())
    }

    /// Fills in the leaves of a group, those of its own groups first: each once, however often it is named.
    fn find_leaves(&mut self, name: &'a str) {
        let Some(group) = self.groups.get(name).copied().filter(|_| !self.of_group.contains_key(name)) else { return };
        group.members.iter().for_each(|member| self.find_leaves(member));
        let leaves = group.members.iter().flat_map(|member| self.leaves(member)).collect();
        self.of_group.insert(name, leaves);
    }

    fn leaves(&self, name: &'a str) -> Leaves<'a> {
        self.of_group.get(name).cloned().unwrap_or_else(|| BTreeSet::from([name]))
    }

    fn settle(mut self) -> Result<Groups, BadDraft> {
        self.groups.keys().copied().collect::<Vec<_>>().into_iter().for_each(|group| self.find_leaves(group));
        let leaves: Leaves<'_> = self.of_group.values().flatten().copied().collect();
        if leaves.len() > MEMBERS_MAX {
            let many = leaves.len();
            return Err(format!("the groups have {many} members; the limit is {MEMBERS_MAX}: split the thread").into());
        }
        let place: BTreeMap<&str, u32> = leaves.iter().copied().zip(0..).collect();
        let members: Vec<Member> = leaves.iter().map(|name| self.member(name)).collect();
        let mut rules = BTreeSet::new();
        for (name, member) in self.members {
            if let (Some(at), Some(leaf)) = (&member.at, place.get(name.as_str())) {
                let demand = Demand::Pin { place: at.trim_end_matches('/').into() };
                rules.insert(Rule { group: name.as_str().into(), demand, units: vec![vec![*leaf]], said: None });
            }
        }
        for group in self.groups.values().copied().collect::<Vec<_>>() {
            self.rules_of(group, &place, &mut rules);
        }
        let piped = |rule: &Rule| matches!(rule.demand, Demand::Pipe { .. }).then(|| Groups::pairs(&rule.units).len());
        let pairs: usize = rules.iter().filter_map(piped).sum();
        let compared = |rule: &Rule| rule.units.iter().flatten().count() * members.len();
        let compared: usize = rules.iter().map(compared).sum();
        if compared > COMPARED_MAX {
            self.wrong.push(format!(
                "the rules compare {compared} pairs of members; the limit is {COMPARED_MAX}: use smaller groups or fewer rules"
            ));
        }
        if pairs > PIPE_PAIRS_MAX {
            self.wrong.push(format!("the pipes join {pairs} pairs; the limit is {PIPE_PAIRS_MAX}: name fewer ends"));
        }
        if !self.wrong.is_empty() {
            return Err(BadDraft(self.wrong));
        }
        Ok(Groups { members, rules: rules.into_iter().collect() })
    }

    fn member(&self, name: &str) -> Member {
        let (node, said) = (self.nodes.get(name), self.members.get(name));
        let memory_mb = node.map_or(0, |(_, node)| node.task.needs.memory_mb.into());
        Member {
            name: name.into(),
            node: node.map(|(at, _)| *at),
            kind: said.and_then(|said| said.kind),
            vcpus: said.and_then(|said| said.vcpus).unwrap_or(u32::from(node.is_some())),
            memory_mb: said.and_then(|said| said.memory_mb).unwrap_or(memory_mb),
            pinned: said.is_some_and(|said| said.pinned),
        }
    }

    fn rules_of(&mut self, group: &'a GroupDraft, place: &BTreeMap<&str, u32>, rules: &mut BTreeSet<Rule>) {
        let of = |leaves: Leaves<'_>| leaves.iter().filter_map(|leaf| place.get(leaf).copied()).collect::<Vec<u32>>();
        let all = vec![of(self.leaves(&group.name))];
        let mut rule = |demand, units: Vec<Vec<u32>>, said: Option<String>| {
            let (name, said) = (group.name.as_str().into(), said.map(Into::into));
            rules.insert(Rule { group: name, demand, units, said });
        };
        if let Some(level) = group.affinity {
            rule(Demand::Affinity { level }, all.clone(), None);
        }
        if let Some(locality) = group.locality {
            let (level, word) = locality.means();
            rule(Demand::Affinity { level }, all.clone(), Some(format!("locality = \"{word}\"")));
        }
        if let Some(level) = group.diversity {
            let mut units: Vec<Vec<u32>> = group.members.iter().map(|member| of(self.leaves(member))).collect();
            units.sort();
            rule(Demand::Diversity { level }, units, None);
        }
        if let Some(availability) = group.availability {
            let (domains, level) = match availability {
                Availability::Servers(domains) => (domains, Level::Server),
                Availability::Of { domains, of } => (domains, of),
            };
            rule(Demand::Spread { level, domains }, all.clone(), Some(format!("availability = {domains}")));
        }
        if let Some(level) = group.exclusivity {
            rule(Demand::Exclusivity { level }, all.clone(), None);
        }
        if let Some(security) = group.security {
            let (level, word) = security.means();
            rule(Demand::Exclusivity { level }, all.clone(), Some(format!("security = \"{word}\"")));
        }
        let mut shared = Vec::new();
        for pipe in &group.pipes {
            let mut said = None;
            let units = match &pipe.between {
                None => all.clone(),
                Some((a, b)) => {
                    said = Some(format!("{} - {}", a.min(b), a.max(b)));
                    let (one, two) = (self.leaves(a), self.leaves(b));
                    shared.extend(one.intersection(&two).map(|leaf| (a, b, *leaf)));
                    let mut units = vec![of(one), of(two)];
                    units.sort();
                    units
                }
            };
            rule(Demand::Pipe { mbps: pipe.mbps }, units, said);
        }
        let name = &group.name;
        self.wrong.extend(shared.iter().map(|(a, b, leaf)| {
            format!("group '{name}': a pipe between '{a}' and '{b}', but '{leaf}' is in both of them")
        }));
        self.check_apart(group);
    }

    /// What must be apart cannot have a member in common.
    fn check_apart(&mut self, group: &'a GroupDraft) {
        if group.diversity.is_none() {
            return;
        }
        let mut of: BTreeMap<&str, &str> = BTreeMap::new();
        for member in &group.members {
            for leaf in self.leaves(member) {
                if let Some(other) = of.insert(leaf, member) {
                    self.wrong.push(format!(
                        "group '{}' wants '{other}' and '{member}' apart, but '{leaf}' is in both of them",
                        group.name
                    ));
                }
            }
        }
    }
}

impl Locality {
    /// The level, and the word.
    fn means(self) -> (Level, &'static str) {
        match self {
            Self::SameMachine => (Level::Server, "same_machine"),
            Self::Near => (Level::Rack, "near"),
            Self::SamePlace => (Level::Site, "same_place"),
        }
    }
}

impl Security {
    /// The level, and the word.
    fn means(self) -> (Level, &'static str) {
        match self {
            Self::Hypervisor => (Level::Server, "hypervisor"),
            Self::Exclusive => (Level::Rack, "exclusive"),
        }
    }
}

/// The groups without these tasks, and without what names nothing any more.
pub fn without(groups: &mut Vec<GroupDraft>, members: &mut BTreeMap<String, MemberDraft>, gone: &BTreeSet<String>) {
    let mut gone = gone.clone();
    while !gone.is_empty() {
        members.retain(|name, _| !gone.contains(name));
        for group in groups.iter_mut() {
            group.members.retain(|name| !gone.contains(name));
            let whole =
                |pipe: &PipeDraft| pipe.between.as_ref().is_none_or(|(a, b)| !gone.contains(a) && !gone.contains(b));
            group.pipes.retain(whole);
        }
        gone = groups.iter().filter(|group| group.members.is_empty()).map(|group| group.name.clone()).collect();
        groups.retain(|group| !group.members.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn nodes(names: &[&str]) -> Vec<NodeSpec> {
        let node = |name: &&str| {
            let draft: crate::draft::TaskDraft = serde_json::from_value(json!({"command": ["x"]})).unwrap();
            let task = draft.resolve(Some(name), crate::RunningMode::Auto, &crate::draft::TaskDefaults::default());
            NodeSpec { name: name.parse().unwrap(), task: Arc::new(task.unwrap()), after: Vec::new() }
        };
        names.iter().map(node).collect()
    }

    fn settle(groups: Value, members: Value) -> Result<Groups, BadDraft> {
        let groups: Vec<GroupDraft> = serde_json::from_value(groups).map_err(|e| BadDraft::from(e.to_string()))?;
        resolve(&groups, &serde_json::from_value(members).unwrap(), &nodes(&["a", "b", "c"]))
    }

    #[test]
    fn what_cannot_be_a_group_is_refused_by_name_with_what_to_do() {
        let edge = json!({"edge": {"kind": "ingress"}});
        for (groups, members, part) in [
            (json!([{"name": "g", "members": ["z"]}]), json!({}), "'z' is no task"),
            (json!([{"name": "g", "members": []}]), json!({}), "has no members"),
            (json!([{"name": "g", "members": ["a", "a"]}]), json!({}), "twice"),
            (json!([{"name": "a", "members": ["b"]}]), json!({}), "name of a task"),
            (json!([{"name": "g", "members": ["a"]}, {"name": "g", "members": ["b"]}]), json!({}), "two groups"),
            (json!([{"name": "g", "members": ["h"]}, {"name": "h", "members": ["a", "g"]}]), json!({}), "g -> h -> g"),
            (json!([{"name": "g", "members": ["a"], "affinity": "floor"}]), json!({}), "unknown variant `floor`"),
            (json!([{"name": "g", "members": ["a", "b"], "pipes": [{"mbps": 0}]}]), json!({}), "mbps = 0"),
            (json!([{"name": "g", "members": ["a"], "pipes": [{"between": ["a", "b"], "mbps": 1}]}]), json!({}), "'b'"),
            (json!([{"name": "g", "members": ["a"], "availability": 0}]), json!({}), "availability of 0"),
            (json!([{"name": "g", "members": ["a"], "availability": "much"}]), json!({}), "a number of servers"),
            (json!([{"name": "g", "members": ["a"]}]), edge, "in no group"),
            (json!([{"name": "g", "members": ["a"]}]), json!({"a": {"kind": "vm"}}), "remove its 'kind'"),
            (json!([{"name": "g", "members": ["e"]}]), json!({"e": {"vcpus": 1}}), "give its 'kind'"),
            (
                json!([{"name": "h", "members": ["a", "b"]}, {"name": "g", "members": ["a", "h"], "diversity": "rack"}]),
                json!({}),
                "'a' is in both",
            ),
        ] {
            let text = settle(groups.clone(), members).unwrap_err().to_string();
            assert!(text.contains(part), "{part} in {text} for {groups}");
        }
    }

    #[test]
    fn nested_groups_become_leaves_and_plain_words_become_rules() {
        let groups = json!([
            {"name": "pair", "members": ["b", "a"], "locality": "near"},
            {"name": "all", "members": ["pair", "edge", "c"], "diversity": "server", "availability": {"domains": 2, "of": "rack"},
             "security": "hypervisor", "pipes": [{"between": ["edge", "pair"], "mbps": 5}]},
        ]);
        let settled = settle(groups, json!({"edge": {"kind": "ingress", "at": "north/"}, "a": {"vcpus": 3}})).unwrap();
        let names: Vec<&str> = settled.members.iter().map(|m| &*m.name).collect();
        assert_eq!(names, ["a", "b", "c", "edge"]);
        assert_eq!((settled.members[0].vcpus, settled.members[1].vcpus, settled.members[3].vcpus), (3, 1, 0));
        let said: Vec<String> = settled.rules.iter().map(|r| format!("{r} {:?}", r.units)).collect();
        assert_eq!(
            said,
            [
                "diversity (server) of group 'all' [[0, 1], [2], [3]]",
                "exclusivity (server) of group 'all' (security = \"hypervisor\") [[0, 1, 2, 3]]",
                "at least 2 racks for group 'all' (availability = 2) [[0, 1, 2, 3]]",
                "pipe of 5 Mbit/s in group 'all' (edge - pair) [[0, 1], [3]]",
                "'edge' is at 'north' [[3]]",
                "affinity (rack) of group 'pair' (locality = \"near\") [[0, 1]]",
            ]
        );
        assert_eq!(Groups::pairs(&settled.rules[3].units), BTreeSet::from([(0, 3), (1, 3)]));
        assert_eq!(Groups::pairs(&[vec![0, 2, 3]]).len(), 3);
    }

    #[test]
    fn the_order_in_which_groups_are_written_changes_nothing() {
        let one = json!([{"name": "g", "members": ["a", "b", "h"], "diversity": "rack"}, {"name": "h", "members": ["c"], "affinity": "site"}]);
        let two = json!([{"name": "h", "members": ["c"], "affinity": "site"}, {"name": "g", "members": ["h", "b", "a"], "diversity": "rack"}]);
        assert_eq!(settle(one, json!({})), settle(two, json!({})));
    }

    #[test]
    fn a_thread_cut_short_keeps_the_groups_that_still_have_members() {
        let groups = json!([{"name": "g", "members": ["a", "b"], "pipes": [{"between": ["a", "b"], "mbps": 1}]},
            {"name": "h", "members": ["b"]}, {"name": "k", "members": ["h"]}]);
        let mut groups: Vec<GroupDraft> = serde_json::from_value(groups).unwrap();
        without(&mut groups, &mut BTreeMap::new(), &BTreeSet::from(["b".to_owned()]));
        assert_eq!(groups.len(), 1);
        assert_eq!((groups[0].members.as_slice(), groups[0].pipes.len()), (["a".to_owned()].as_slice(), 0));
    }
}
