//! What is asked of the planner of deployments, and the same in numbers: pairs of members with the nearest
//! and farthest they may be, places as sets of servers.
//!
//! Servers and members are taken in the order of their names, so that nothing depends on how they came in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::group::{Demand, Groups, Member, Rule};
use crate::site::{Level, Spot};

/// Most servers that one plan looks at.
pub const SERVERS_MAX: usize = 4096;

/// A server that a plan may use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    /// Where it is.
    pub spot: Spot,
    /// It is what a rule of exclusivity may rely on: the levels whose place the configuration declares, or that
    /// is a server which people added themselves. In a cloud that shows no inside, others may be beside it.
    pub known: BTreeSet<Level>,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mb: u64,
    /// How much of both may be promised, percent.
    pub overcommit_percent: u32,
    /// Bandwidth to its rack, Mbit/s; absent: not limited.
    pub nic_mbps: Option<u64>,
    /// What the plans of other sessions have there.
    pub taken: Taken,
}

/// What the plans of other sessions have on a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taken {
    /// Members.
    pub members: u32,
    /// Of its virtual CPUs, in hundredths of one, as the overcommitted count.
    pub vcpu_percent: u64,
    /// Of its memory, in hundredths of a MiB, as the overcommitted count.
    pub memory_mb_percent: u64,
    /// Of its bandwidth, Mbit/s.
    pub nic_mbps: u64,
}

/// A rack's or a site's link to what is above it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Mbit/s; absent: not limited.
    pub mbps: Option<u64>,
    /// Of which the plans of other sessions have this much, Mbit/s.
    pub taken_mbps: u64,
}

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// Members and rules.
    pub groups: Groups,
    /// Servers that may be used.
    pub hosts: Vec<Host>,
    /// Links by the name of the rack or site (`SITE`, `SITE/RACK`); those not named are not limited.
    pub links: BTreeMap<String, Link>,
    /// Servers on which a member cannot be, whatever the rules, by member's name: what its task asks for is not there.
    pub unfit: BTreeMap<Arc<str>, BTreeSet<Spot>>,
}

/// What a plan may be asked to leave out, to find out what is in conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// A member's CPUs and memory.
    Size(usize),
    /// What a member's task asks of its server.
    Task(usize),
    /// A rule.
    Rule(usize),
}

/// CPUs and memory that a member takes, in hundredths, as they count where so much is promised.
pub(super) fn size(member: &Member, overcommit_percent: u32) -> (u64, u64) {
    let weight = u64::from(if member.pinned { overcommit_percent.max(100) } else { 100 });
    (u64::from(member.vcpus) * weight, member.memory_mb.saturating_mul(weight))
}

/// A set of servers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Set(pub Vec<u64>);

impl Set {
    pub(super) fn empty(hosts: usize) -> Self {
        Self(vec![0; hosts.div_ceil(64)])
    }
    pub(super) fn put(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }
    pub(super) fn take(&mut self, at: usize) {
        self.0[at / 64] &= !(1 << (at % 64));
    }
    pub(super) fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }
    pub(super) fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }
    pub(super) fn each(&self) -> impl Iterator<Item = usize> + '_ {
        let bits = |(at, word): (usize, &u64)| {
            let word = *word;
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit)
        };
        self.0.iter().enumerate().flat_map(bits)
    }
}

/// Rank of a level: 1, 2, 3. 0 is no demand at all.
fn rank(level: Level) -> u8 {
    match level {
        Level::Server => 1,
        Level::Rack => 2,
        Level::Site => 3,
    }
}

/// How near and how far two members are to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pair {
    /// They share a place of this rank (1 the nearest); 0: no matter.
    pub near: u8,
    /// They share no place of this rank; 0: no matter.
    pub apart: u8,
}

/// "At least so many places of this level."
#[derive(Debug)]
pub(super) struct Spread {
    pub level: Level,
    pub domains: usize,
    pub members: Vec<usize>,
}

/// The question in numbers, some parts left out.
#[derive(Debug)]
pub(super) struct Model {
    pub hosts: usize,
    /// By member: CPUs and memory on each server (hundredths).
    sizes: Vec<(Member, bool)>,
    overcommit: Vec<u32>,
    /// By server: CPUs and memory in all, less what others have (hundredths).
    pub room: Vec<(u64, u64)>,
    /// Servers of each member.
    pub domains: Vec<Set>,
    /// By rank less one, by server: those that surely share its place, and those that surely do not.
    pub same: Others,
    pub other: Others,
    pairs: Vec<Pair>,
    /// By member: others that it has a demand with.
    pub tied: Vec<Vec<usize>>,
    /// By member: others that it has a pipe with, and its Mbit/s.
    pub pipes: Vec<Vec<(usize, u64)>>,
    pub spreads: Vec<Spread>,
    /// By server: its links, the nearest first (server, rack, site).
    pub links_of: Vec<[Option<usize>; 3]>,
    /// By link: Mbit/s left.
    pub links: Vec<u64>,
    /// By server, then rack, then site: a number that all alike share.
    pub kinds: Vec<[usize; 3]>,
    /// By server: numbers of its rack and its site.
    pub within: Vec<[usize; 2]>,
    /// By server, by domain level: number of the place that it counts as.
    pub counted: [Vec<usize>; 3],
}

impl Model {
    /// `question` has its hosts in order. `part` says what is kept.
    pub(super) fn new(question: &Question, relations: &Relations, kept: &dyn Fn(Part) -> bool) -> Self {
        let (hosts, members) = (&question.hosts, &question.groups.members);
        let rules = || question.groups.rules.iter().enumerate().filter(|(at, _)| kept(Part::Rule(*at))).map(|(_, r)| r);
        let (links_of, links) = links(question);
        let mut model = Self {
            hosts: hosts.len(),
            sizes: members.iter().enumerate().map(|(at, m)| (m.clone(), kept(Part::Size(at)))).collect(),
            overcommit: hosts.iter().map(|host| host.overcommit_percent).collect(),
            room: hosts.iter().map(room).collect(),
            domains: domains(question, kept),
            same: relations.same.clone(),
            other: relations.other.clone(),
            pairs: vec![Pair::default(); members.len() * members.len()],
            tied: vec![Vec::new(); members.len()],
            pipes: vec![Vec::new(); members.len()],
            spreads: Vec::new(),
            links_of,
            links,
            kinds: Vec::new(),
            within: within(hosts),
            counted: Level::ALL.map(|level| counted(hosts, level)),
        };
        for rule in rules() {
            model.take_rule(rule, hosts);
        }
        model.tie();
        model.fit_sizes();
        model.kinds = kinds(hosts, &model);
        model
    }

    /// Are two members to be near and apart at once, or is one left without a server?
    pub(super) fn is_contradictory(&self) -> bool {
        let both = |pair: &Pair| pair.near > 0 && pair.apart >= pair.near;
        self.pairs.iter().any(both) || self.domains.iter().any(|domain| domain.count() == 0)
    }

    pub(super) fn members(&self) -> usize {
        self.sizes.len()
    }

    /// What a member takes on a server.
    pub(super) fn size(&self, member: usize, host: usize) -> (u64, u64) {
        let (of, counts) = &self.sizes[member];
        if *counts { size(of, self.overcommit[host]) } else { (0, 0) }
    }

    pub(super) fn pair(&self, a: usize, b: usize) -> Pair {
        self.pairs[a * self.sizes.len() + b]
    }

    fn demand(&mut self, a: usize, b: usize, near: u8, apart: u8) {
        for at in [a * self.sizes.len() + b, b * self.sizes.len() + a] {
            let pair = &mut self.pairs[at];
            // Near at server holds near at rack too; apart at site holds apart at rack too.
            pair.near = [pair.near, near].into_iter().filter(|n| *n > 0).min().unwrap_or(0);
            pair.apart = pair.apart.max(apart);
        }
    }

    fn take_rule(&mut self, rule: &Rule, hosts: &[Host]) {
        let units: Vec<Vec<usize>> = rule.units.iter().map(|unit| unit.iter().map(|m| *m as usize).collect()).collect();
        let all: BTreeSet<usize> = units.iter().flatten().copied().collect();
        match &rule.demand {
            Demand::Affinity { level } => {
                let first = all.first().copied();
                for (a, b) in all.iter().flat_map(|a| all.range(a + 1..).map(move |b| (*a, *b))) {
                    // One place shared with the first is one shared with all.
                    if Some(a) == first {
                        self.demand(a, b, rank(*level), 0);
                    }
                }
            }
            Demand::Diversity { level } => {
                for (at, one) in units.iter().enumerate() {
                    for (a, b) in units[at + 1..].iter().flatten().flat_map(|b| one.iter().map(move |a| (*a, *b))) {
                        self.demand(a, b, 0, rank(*level));
                    }
                }
            }
            Demand::Exclusivity { level } => {
                let outside: Vec<usize> = (0..self.members()).filter(|m| !all.contains(m)).collect();
                for (a, b) in all.iter().flat_map(|a| outside.iter().map(move |b| (*a, *b))) {
                    self.demand(a, b, 0, rank(*level));
                }
                let own = own_places(hosts, *level, &self.same[usize::from(rank(*level)) - 1]);
                for member in all {
                    self.only(member, |host| own[host]);
                }
            }
            Demand::Spread { level, domains } => self.spreads.push(Spread {
                level: *level,
                domains: *domains as usize,
                members: all.into_iter().collect(),
            }),
            Demand::Pipe { mbps } => {
                for (a, b) in Groups::pairs(&rule.units) {
                    let (a, b) = (a as usize, b as usize);
                    self.pipes[a].push((b, *mbps));
                    self.pipes[b].push((a, *mbps));
                }
            }
            Demand::Pin { place } => all.iter().for_each(|m| self.only(*m, |host| hosts[host].spot.is_in(place))),
        }
    }

    /// Takes the servers that are not `so` from a member.
    fn only(&mut self, member: usize, so: impl Fn(usize) -> bool) {
        for host in (0..self.hosts).filter(|host| !so(*host)) {
            self.domains[member].take(host);
        }
    }

    fn fit_sizes(&mut self) {
        for member in 0..self.members() {
            let fits: Vec<bool> =
                (0..self.hosts).map(|host| within_room(self.size(member, host), self.room[host])).collect();
            self.only(member, |host| fits[host]);
        }
    }

    fn tie(&mut self) {
        let members = self.members();
        for (a, tied) in self.tied.iter_mut().enumerate() {
            *tied = (0..members).filter(|b| self.pairs[a * members + b] != Pair::default()).collect();
        }
        for pipes in &mut self.pipes {
            let mut sum: BTreeMap<usize, u64> = BTreeMap::new();
            for (other, mbps) in pipes.iter() {
                *sum.entry(*other).or_default() += mbps;
            }
            *pipes = sum.into_iter().collect();
        }
    }

    /// Levels crossed between two servers: 0 none, 3 from site to site. Where the rack is not known, it is crossed.
    pub(super) fn crossed(&self, a: usize, b: usize) -> u64 {
        let at = self.same.iter().position(|same| same[a].has(b)).unwrap_or(3);
        at as u64
    }
}

pub(super) fn within_room(asked: (u64, u64), room: (u64, u64)) -> bool {
    asked.0 <= room.0 && asked.1 <= room.1
}

fn room(host: &Host) -> (u64, u64) {
    let all =
        |amount: u64, taken: u64| amount.saturating_mul(host.overcommit_percent.max(100).into()).saturating_sub(taken);
    (all(host.vcpus.into(), host.taken.vcpu_percent), all(host.memory_mb, host.taken.memory_mb_percent))
}

/// By rank less one, by server: which others share its place.
pub(super) type Others = Arc<[Vec<Set>; 3]>;

/// Which servers share places, asked once a question.
#[derive(Debug, Clone)]
pub(super) struct Relations {
    /// Surely.
    same: Others,
    /// Surely not.
    other: Others,
}

impl Relations {
    pub(super) fn of(hosts: &[Host]) -> Self {
        let racks = numbers(hosts.iter().map(|host| (host.spot.site.clone(), host.spot.rack.clone())));
        let sites = numbers(hosts.iter().map(|host| host.spot.site.clone()));
        let known: Vec<bool> = hosts.iter().map(|host| host.spot.rack.is_some()).collect();
        let sets = |so: &dyn Fn(usize, usize) -> bool| -> Vec<Set> {
            let set = |a: usize| {
                let mut set = Set::empty(hosts.len());
                (0..hosts.len()).filter(|b| so(a, *b)).for_each(|b| set.put(b));
                set
            };
            (0..hosts.len()).map(set).collect()
        };
        let same_site = |a: usize, b: usize| sites[a] == sites[b];
        let in_rack = |a: usize, b: usize| a == b || known[a] && racks[a] == racks[b];
        let other_rack = |a: usize, b: usize| !same_site(a, b) || known[a] && known[b] && racks[a] != racks[b];
        Self {
            same: Arc::new([sets(&|a, b| a == b), sets(&in_rack), sets(&same_site)]),
            other: Arc::new([sets(&|a, b| a != b), sets(&other_rack), sets(&|a, b| !same_site(a, b))]),
        }
    }
}

fn domains(question: &Question, kept: &dyn Fn(Part) -> bool) -> Vec<Set> {
    let domain = |(at, member): (usize, &Member)| {
        let unfit = question.unfit.get(&member.name).filter(|_| kept(Part::Task(at)));
        let mut set = Set::empty(question.hosts.len());
        let fit = |host: &Host| unfit.is_none_or(|unfit| !unfit.contains(&host.spot));
        question.hosts.iter().enumerate().filter(|(_, host)| fit(host)).for_each(|(host, _)| set.put(host));
        set
    };
    question.groups.members.iter().enumerate().map(domain).collect()
}

/// Servers whose place of that level is known and has no member of another session in it.
fn own_places(hosts: &[Host], level: Level, same: &[Set]) -> Vec<bool> {
    let free = |at: usize| same[at].each().all(|other| hosts[other].taken.members == 0);
    (0..hosts.len()).map(|at| hosts[at].known.contains(&level) && free(at)).collect()
}

fn links(question: &Question) -> (Vec<[Option<usize>; 3]>, Vec<u64>) {
    let (mut left, mut by_name) = (Vec::new(), BTreeMap::new());
    let mut number = |name: Option<String>, mbps: Option<u64>, taken: u64| {
        let (name, mbps) = (name?, mbps?);
        let next = left.len();
        let at = *by_name.entry(name).or_insert(next);
        if at == next {
            left.push(mbps.saturating_sub(taken));
        }
        Some(at)
    };
    let mut of_host = |host: &Host| {
        let above = |level| {
            let name = host.spot.at(level);
            let link = name.as_ref().and_then(|name| question.links.get(name)).cloned().unwrap_or_default();
            (name, link)
        };
        let ((rack, to_site), (site, out)) = (above(Level::Rack), above(Level::Site));
        [
            number(host.spot.at(Level::Server), host.nic_mbps, host.taken.nic_mbps),
            number(rack, to_site.mbps, to_site.taken_mbps),
            number(site, out.mbps, out.taken_mbps),
        ]
    };
    (question.hosts.iter().map(&mut of_host).collect(), left)
}

/// Numbers of each server's rack and site. Servers of a site whose rack nobody knows are in one for this.
fn within(hosts: &[Host]) -> Vec<[usize; 2]> {
    let racks = numbers(hosts.iter().map(|host| (host.spot.site.clone(), host.spot.rack.clone())));
    let sites = numbers(hosts.iter().map(|host| host.spot.site.clone()));
    racks.into_iter().zip(sites).map(|(rack, site)| [rack, site]).collect()
}

/// The place that each server counts as when places are counted: racks that nobody knows may be one.
fn counted(hosts: &[Host], level: Level) -> Vec<usize> {
    let place = |host: &Host| host.spot.at(level).unwrap_or_else(|| host.spot.site.to_string());
    numbers(hosts.iter().map(place))
}

fn numbers<T: Ord + Clone>(all: impl Iterator<Item = T> + Clone) -> Vec<usize> {
    let set: BTreeSet<T> = all.clone().collect();
    let number: BTreeMap<&T, usize> = set.iter().zip(0..).collect();
    all.map(|one| number[&one]).collect()
}

/// Servers, racks and sites that are alike in all that a plan asks: while nothing is on them, one is as good as
/// the other, and the search tries the first only.
fn kinds(hosts: &[Host], model: &Model) -> Vec<[usize; 3]> {
    let column = |at: usize| model.domains.iter().map(|domain| domain.has(at)).collect::<Vec<bool>>();
    let link = |at: usize, rank: usize| model.links_of[at][rank].map(|link| model.links[link]);
    let server = |at: usize| (model.room[at], hosts[at].overcommit_percent, link(at, 0), column(at));
    let servers = numbers((0..hosts.len()).map(server));
    let of_rack = |number: usize, kinds: &[usize], within: usize| {
        let mut inside: Vec<usize> =
            (0..hosts.len()).filter(|at| model.within[*at][within] == number).map(|at| kinds[at]).collect();
        inside.sort_unstable();
        inside
    };
    let all_of = |kinds: &[usize], within: usize| {
        let count = model.within.iter().map(|numbers| numbers[within] + 1).max().unwrap_or(0);
        (0..count).map(|number| of_rack(number, kinds, within)).collect::<Vec<_>>()
    };
    let in_rack = all_of(&servers, 0);
    let rack = |at: usize| (hosts[at].spot.rack.is_some(), link(at, 1), in_rack[model.within[at][0]].clone());
    let racks = numbers((0..hosts.len()).map(rack));
    let in_site = all_of(&racks, 1);
    let sites = numbers((0..hosts.len()).map(|at| (link(at, 2), in_site[model.within[at][1]].clone())));
    (0..hosts.len()).map(|at| [servers[at], racks[at], sites[at]]).collect()
}
