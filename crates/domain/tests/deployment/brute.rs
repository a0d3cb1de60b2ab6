//! Every assignment of members to servers, checked against the groups as they were written. Shares nothing with
//! the planner: it reads the tree of groups, not the rules that the planner is given.

use std::collections::{BTreeMap, BTreeSet};

use skein_domain::group::{Availability, GroupDraft, Locality, MemberDraft, Security};
use skein_domain::site::Level;

/// A server, as the checker sees it.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) site: String,
    /// None: nobody knows.
    pub(crate) rack: Option<String>,
    pub(crate) name: String,
    pub(crate) cpus: u64,
    pub(crate) memory: u64,
    pub(crate) overcommit: u64,
    pub(crate) nic: Option<u64>,
    /// Members of another session are there.
    pub(crate) others: bool,
    /// Undeclared machines of a cloud: nothing is known of what is beside them.
    pub(crate) cloud: bool,
}

impl Machine {
    pub(crate) fn path(&self) -> String {
        match &self.rack {
            Some(rack) => format!("{}/{rack}/{}", self.site, self.name),
            None => format!("{}/{}", self.site, self.name),
        }
    }

    fn declares(&self, level: Level) -> bool {
        self.rack.is_some() || level == Level::Server && !self.cloud
    }
}

/// A whole case.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) machines: Vec<Machine>,
    /// By `SITE` and `SITE/RACK`.
    pub(crate) uplinks: BTreeMap<String, u64>,
    pub(crate) members: BTreeMap<String, MemberDraft>,
    pub(crate) groups: Vec<GroupDraft>,
}

/// What a rule says, and its name in a conflict.
type Check<'c> = (String, Box<dyn Fn(&Where<'c>) -> bool + 'c>);

/// A pipe: its name in a conflict, the pairs that it joins, Mbit/s.
pub(crate) type Pipe<'c> = (String, Vec<(&'c str, &'c str)>, u64);

/// Members on machines.
pub(crate) struct Where<'c> {
    pub(crate) case: &'c Case,
    pub(crate) names: Vec<&'c str>,
    pub(crate) at: Vec<usize>,
}

impl<'c> Where<'c> {
    fn of(&self, name: &str) -> &'c Machine {
        let member = self.names.iter().position(|n| *n == name).unwrap();
        &self.case.machines[self.at[member]]
    }

    fn surely_together(&self, a: &str, b: &str, level: Level) -> bool {
        let (a, b) = (self.of(a), self.of(b));
        let one = a.path() == b.path();
        match level {
            Level::Server => one,
            Level::Rack => one || a.site == b.site && a.rack.is_some() && a.rack == b.rack,
            Level::Site => a.site == b.site,
        }
    }

    fn surely_apart(&self, a: &str, b: &str, level: Level) -> bool {
        let (x, y) = (self.of(a), self.of(b));
        match level {
            Level::Server => x.path() != y.path(),
            Level::Rack => x.site != y.site || x.rack.is_some() && y.rack.is_some() && x.rack != y.rack,
            Level::Site => x.site != y.site,
        }
    }

    fn levels(&self, a: &str, b: &str) -> u64 {
        let levels = [Level::Server, Level::Rack, Level::Site];
        levels.iter().take_while(|level| !self.surely_together(a, b, **level)).count() as u64
    }
}

impl Case {
    pub(crate) fn leaves(&self, name: &str) -> BTreeSet<&str> {
        match self.groups.iter().find(|group| group.name == name) {
            Some(group) => group.members.iter().flat_map(|member| self.leaves(member)).collect(),
            None => BTreeSet::from([self.members.get_key_value(name).unwrap().0.as_str()]),
        }
    }

    /// Pairs of leaves that a pipe of the group joins.
    fn joined(&self, group: &GroupDraft, between: Option<&(String, String)>) -> Vec<(&str, &str)> {
        let (one, two) = match between {
            Some((a, b)) => (self.leaves(a), self.leaves(b)),
            None => (self.leaves(&group.name), self.leaves(&group.name)),
        };
        let all = one.iter().flat_map(|a| two.iter().map(move |b| (*a, *b)));
        all.filter(|(a, b)| between.is_some() || a < b).collect()
    }

    pub(crate) fn checks(&self) -> Vec<Check<'_>> {
        let mut checks: Vec<Check<'_>> = Vec::new();
        for (name, member) in &self.members {
            if let Some(at) = &member.at {
                let there = move |w: &Where<'_>| {
                    let path = w.of(name).path();
                    path == *at || path.starts_with(&format!("{at}/"))
                };
                checks.push((format!("'{name}' is at '{at}'"), Box::new(there)));
            }
        }
        for group in &self.groups {
            self.checks_of(group, &mut checks);
        }
        checks
    }

    fn checks_of<'c>(&'c self, group: &'c GroupDraft, checks: &mut Vec<Check<'c>>) {
        let (name, leaves) = (&group.name, self.leaves(&group.name));
        let together = |level: Level| {
            let leaves = leaves.clone();
            let check =
                move |w: &Where<'_>| leaves.iter().all(|a| leaves.iter().all(|b| w.surely_together(a, b, level)));
            Box::new(check)
        };
        if let Some(level) = group.affinity {
            checks.push((format!("affinity ({level}) of group '{name}'"), together(level)));
        }
        if let Some(locality) = group.locality {
            let (level, word) = match locality {
                Locality::SameMachine => (Level::Server, "same_machine"),
                Locality::Near => (Level::Rack, "near"),
                Locality::SamePlace => (Level::Site, "same_place"),
            };
            checks.push((format!("affinity ({level}) of group '{name}' (locality = \"{word}\")"), together(level)));
        }
        if let Some(level) = group.diversity {
            let apart = move |w: &Where<'_>| {
                let members = &group.members;
                members.iter().enumerate().all(|(at, u)| {
                    members[at + 1..].iter().all(|v| {
                        let pairs =
                            self.leaves(u).into_iter().flat_map(|x| self.leaves(v).into_iter().map(move |y| (x, y)));
                        pairs.into_iter().all(|(x, y)| w.surely_apart(x, y, level))
                    })
                })
            };
            checks.push((format!("diversity ({level}) of group '{name}'"), Box::new(apart)));
        }
        if let Some(Availability::Servers(domains)) = group.availability {
            checks.push(self.spread(group, Level::Server, domains));
        }
        if let Some(Availability::Of { domains, of }) = group.availability {
            checks.push(self.spread(group, of, domains));
        }
        if let Some(level) = group.exclusivity {
            checks.push((format!("exclusivity ({level}) of group '{name}'"), self.alone(group, level)));
        }
        if let Some(security) = group.security {
            let (level, word) = match security {
                Security::Hypervisor => (Level::Server, "hypervisor"),
                Security::Exclusive => (Level::Rack, "exclusive"),
            };
            let text = format!("exclusivity ({level}) of group '{name}' (security = \"{word}\")");
            checks.push((text, self.alone(group, level)));
        }
    }

    fn spread<'c>(&'c self, group: &'c GroupDraft, level: Level, domains: u32) -> Check<'c> {
        let check = move |w: &Where<'_>| {
            let place = |leaf: &str| {
                let machine = w.of(leaf);
                match (level, &machine.rack) {
                    (Level::Server, _) => machine.path(),
                    (Level::Rack, Some(rack)) => format!("{}/{rack}", machine.site),
                    _ => machine.site.clone(),
                }
            };
            let places: BTreeSet<String> = self.leaves(&group.name).into_iter().map(place).collect();
            places.len() >= domains as usize
        };
        let text = format!("at least {domains} {level}s for group '{}' (availability = {domains})", group.name);
        (text, Box::new(check))
    }

    fn alone<'c>(&'c self, group: &'c GroupDraft, level: Level) -> Box<dyn Fn(&Where<'c>) -> bool + 'c> {
        Box::new(move |w| {
            let inside = self.leaves(&group.name);
            inside.iter().all(|leaf| {
                let here = w.of(leaf);
                let shares = |other: &&Machine| match level {
                    Level::Server => other.path() == here.path(),
                    Level::Rack => other.site == here.site && other.rack == here.rack,
                    Level::Site => other.site == here.site,
                };
                here.declares(level)
                    && self.machines.iter().filter(shares).all(|machine| !machine.others)
                    && w.names
                        .iter()
                        .filter(|name| !inside.contains(**name))
                        .all(|other| w.surely_apart(leaf, other, level))
            })
        })
    }

    /// Pipes with their names, pairs and bandwidth.
    pub(crate) fn pipes(&self) -> Vec<Pipe<'_>> {
        let mut pipes = Vec::new();
        for group in &self.groups {
            for pipe in &group.pipes {
                let said = pipe.between.as_ref().map(|(a, b)| format!(" ({} - {})", a.min(b), a.max(b)));
                let text =
                    format!("pipe of {} Mbit/s in group '{}'{}", pipe.mbps, group.name, said.unwrap_or_default());
                pipes.push((text, self.joined(group, pipe.between.as_ref()), pipe.mbps));
            }
        }
        pipes
    }

    fn carries(&self, w: &Where<'_>, pipes: &[&Pipe<'_>]) -> bool {
        let mut used: BTreeMap<String, u64> = BTreeMap::new();
        for (_, pairs, mbps) in pipes {
            for (a, b) in pairs {
                let levels = w.levels(a, b);
                for end in [w.of(a), w.of(b)] {
                    let rack = end.rack.as_ref().map(|rack| format!("{}/{rack}", end.site));
                    let way = [Some(end.path()), rack, Some(end.site.clone())];
                    for link in way.into_iter().take(usize::try_from(levels).unwrap()).flatten() {
                        *used.entry(link).or_default() += mbps;
                    }
                }
            }
        }
        let most = |link: &str| {
            let nic = self.machines.iter().find(|machine| machine.path() == link).map(|machine| machine.nic);
            nic.unwrap_or_else(|| self.uplinks.get(link).copied())
        };
        used.iter().all(|(link, used)| most(link).is_none_or(|most| *used <= most))
    }

    fn has_room(&self, w: &Where<'_>, counts: &dyn Fn(&str) -> bool) -> bool {
        self.machines.iter().enumerate().all(|(at, machine)| {
            let (mut cpus, mut memory) = (0, 0);
            let here = w.names.iter().zip(&w.at).filter(|(name, on)| **on == at && counts(name));
            for member in here.map(|(name, _)| &self.members[*name]) {
                let weight = if member.pinned { machine.overcommit } else { 100 };
                cpus += u64::from(member.vcpus.unwrap_or(0)) * weight;
                memory += member.memory_mb.unwrap_or(0) * weight;
            }
            cpus <= machine.cpus * machine.overcommit && memory <= machine.memory * machine.overcommit
        })
    }

    /// The least (Mbit/s times levels, servers) over all assignments that keep what `keeps` names; sizes are named
    /// `size of 'MEMBER'`.
    pub(crate) fn best(&self, keeps: &dyn Fn(&str) -> bool) -> Option<(u64, u32)> {
        let names: Vec<&str> = self
            .groups
            .iter()
            .flat_map(|group| self.leaves(&group.name))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let checks: Vec<Check<'_>> = self.checks().into_iter().filter(|(text, _)| keeps(text)).collect();
        let pipes = self.pipes();
        let kept: Vec<_> = pipes.iter().filter(|(text, ..)| keeps(text)).collect();
        let mut w = Where { case: self, at: vec![0; names.len()], names };
        let mut best = None;
        loop {
            let counts = |name: &str| keeps(&format!("size of '{name}'"));
            if self.has_room(&w, &counts) && checks.iter().all(|(_, holds)| holds(&w)) && self.carries(&w, &kept) {
                let cost = Self::cost(&w, &kept);
                best = Some(best.map_or(cost, |known: (u64, u32)| known.min(cost)));
            }
            let Some(next) = w.at.iter().position(|at| at + 1 < self.machines.len()) else { return best };
            w.at[next] += 1;
            w.at[..next].fill(0);
        }
    }

    fn cost(w: &Where<'_>, pipes: &[&Pipe<'_>]) -> (u64, u32) {
        let crossed = pipes.iter().flat_map(|(_, pairs, mbps)| pairs.iter().map(move |pair| (pair, mbps)));
        let servers: BTreeSet<usize> = w.at.iter().copied().collect();
        (crossed.map(|((a, b), mbps)| w.levels(a, b) * mbps).sum(), u32::try_from(servers.len()).unwrap())
    }

    /// Does this plan keep every rule, and what does it cost?
    pub(crate) fn judge(&self, at: &BTreeMap<&str, String>) -> Result<(u64, u32), String> {
        let names: Vec<&str> = at.keys().map(|name| self.members.get_key_value(*name).unwrap().0.as_str()).collect();
        let machine = |path: &String| self.machines.iter().position(|machine| machine.path() == *path).unwrap();
        let w = Where { case: self, names, at: at.values().map(machine).collect() };
        if let Some((broken, _)) = self.checks().iter().find(|(_, holds)| !holds(&w)) {
            return Err(broken.clone());
        }
        let pipes = self.pipes();
        let all: Vec<_> = pipes.iter().collect();
        if !self.has_room(&w, &|_| true) || !self.carries(&w, &all) {
            return Err("room or bandwidth".to_owned());
        }
        Ok(Self::cost(&w, &all))
    }
}
