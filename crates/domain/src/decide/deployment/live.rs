//! Plans of open sessions over the servers that there are.
//!
//! ```text
//! submit --deploy--> planned ----------------------> (a server it uses is gone) --+
//!               \--> waits (possible, but not now) <----------------------------- replan
//!               \--> refused, with what is in conflict      (servers changed)  ---^
//! ```
//! Failure paths: servers that are gone take their members to another plan, those on servers that are still
//! there stay if that is possible; else the session waits with the conflict as its reason, and what runs goes on.
//! A plan and its waiting are events ([`Event::Deployed`]): a restart has the same.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::hold::kept_by;
use super::model::size;
use super::{Answer, Effort, Host, Link, Question, Taken, plan};
use crate::decide::place::suits_instance;
use crate::decide::policy::Policy;
use crate::decide::snapshot::Snapshot;
use crate::event::Event;
use crate::group::{Demand, Groups, Rule};
use crate::id::SessionId;
use crate::instance::{Instance, InstanceState};
use crate::session::Session;
use crate::site::{Level, Server, Sites, Spot};
use crate::task::Profile;
use crate::thread::ThreadSpec;

/// How a session's groups are deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "deployment", rename_all = "snake_case")]
pub enum Deployment {
    /// By this plan.
    Planned(Deployed),
    /// Not yet: it waits for servers.
    Waits {
        /// What is in conflict on the servers that are there.
        because: String,
        /// The servers that this was found with, as a number.
        seen: u64,
    },
}

/// A plan that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    /// Each member's server, in the members' order.
    pub at: Vec<Spot>,
    /// Sum over pipes of Mbit/s times levels crossed.
    pub crossed_mbps: u64,
    /// Servers used.
    pub servers: u32,
    /// No plan was cheaper when it was made.
    pub proved: bool,
}

impl Deployment {
    /// The plan, when there is one.
    pub fn planned(&self) -> Option<&Deployed> {
        match self {
            Self::Planned(planned) => Some(planned),
            Self::Waits { .. } => None,
        }
    }
}

/// Deploys the groups of a session that is to start; none when it has no groups. An error names what can never
/// hold, whatever instances come to the servers that are declared.
pub fn deploy(
    snapshot: &Snapshot,
    policy: &Policy,
    session: SessionId,
    thread: &ThreadSpec,
    effort: Effort,
) -> Result<Option<Deployment>, String> {
    if thread.groups.is_empty() {
        return Ok(None);
    }
    let world = World::of(snapshot, policy);
    let because = match plan(&world.question(session, thread, When::Now), effort) {
        Answer::Plan(plan) => return Ok(Some(planned(plan))),
        no => said(no),
    };
    match plan(&world.question(session, thread, When::Ever), effort) {
        Answer::Plan(_) => Ok(Some(Deployment::Waits { because, seen: world.seen(session) })),
        no => Err(said(no)),
    }
}

fn planned(plan: super::Plan) -> Deployment {
    let super::Plan { at, crossed_mbps, servers, proved } = plan;
    Deployment::Planned(Deployed { at, crossed_mbps, servers, proved })
}

fn said(answer: Answer) -> String {
    match answer {
        Answer::Never(conflict) => conflict.to_string(),
        Answer::Undecided { tries } => {
            format!("no plan was found in {tries} tries, and none was proved impossible: use fewer members or rules")
        }
        Answer::Plan(_) => String::new(),
    }
}

/// Most sessions that are planned again at a time: the rest has its turn at the next call.
pub const REPLANNED_MAX: usize = 16;

/// New plans for sessions that use a server that is gone or that wait while the servers changed: one event each, at
/// most [`REPLANNED_MAX`].
pub fn replan(snapshot: &Snapshot, policy: &Policy, effort: Effort) -> Vec<Event> {
    if snapshot.deployed().next().is_none() {
        return Vec::new();
    }
    let (mut world, mut events) = (World::of(snapshot, policy), Vec::new());
    let sessions: Vec<&Session> = snapshot.deployed().collect();
    for session in sessions {
        if let Some((deployment, why)) = world.again(session, effort) {
            world.plans.insert(session.id, deployment.planned().map(|planned| planned.at.clone()));
            events.push(Event::Deployed { session: session.id, deployment: Box::new(deployment), why });
        }
        if events.len() >= REPLANNED_MAX {
            break;
        }
    }
    events
}

/// For which servers a question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Instances that can take work now, beside the plans of other sessions.
    Now,
    /// All that are declared or known, empty.
    Ever,
}

/// Servers with their instances, and what other sessions' plans say.
struct World<'a> {
    snapshot: &'a Snapshot,
    sites: &'a Sites,
    declared: BTreeMap<Spot, &'a Server>,
    by_spot: BTreeMap<Spot, Vec<&'a Instance>>,
    /// Plans made meanwhile.
    plans: BTreeMap<SessionId, Option<Vec<Spot>>>,
    /// The servers as a number, once that is asked for.
    servers: OnceCell<u64>,
}

impl<'a> World<'a> {
    fn of(snapshot: &'a Snapshot, policy: &'a Policy) -> Self {
        let declared: BTreeMap<Spot, &Server> = policy.sites.servers().collect();
        let mut by_spot: BTreeMap<Spot, Vec<&Instance>> =
            declared.keys().map(|spot| (spot.clone(), Vec::new())).collect();
        for instance in snapshot.instances.values().filter(|i| i.state != InstanceState::Gone) {
            by_spot.entry(policy.sites.spot_of(&instance.id, &instance.solution)).or_default().push(instance);
        }
        Self { snapshot, sites: &policy.sites, declared, by_spot, plans: BTreeMap::new(), servers: OnceCell::new() }
    }

    /// Plans of other sessions, with their groups.
    fn others(&self, session: SessionId) -> impl Iterator<Item = (&'a Groups, Vec<Spot>)> {
        self.snapshot.deployed().filter(move |other| other.id != session).filter_map(|other| {
            let at = match self.plans.get(&other.id) {
                Some(new) => new.clone(),
                None => other.deployment.as_deref().and_then(Deployment::planned).map(|planned| planned.at.clone()),
            };
            Some((&other.spec.thread.groups, at?))
        })
    }

    fn question(&self, session: SessionId, thread: &ThreadSpec, when: When) -> Question {
        let kept: Vec<String> = match when {
            When::Now => {
                let of = |(groups, at): (&'a Groups, Vec<Spot>)| {
                    kept_by(groups, &at).into_iter().map(|(_, p)| p).collect::<Vec<_>>()
                };
                self.others(session).flat_map(of).collect()
            }
            When::Ever => Vec::new(),
        };
        let mut question = Question { groups: thread.groups.clone(), links: self.links(), ..Question::default() };
        for (spot, instances) in &self.by_spot {
            let usable = |i: &&&Instance| when == When::Ever || i.state == InstanceState::Ready;
            let usable: Vec<&Instance> = instances.iter().filter(usable).copied().collect();
            if kept.iter().any(|place| spot.is_in(place)) || spot.rack.is_none() && usable.is_empty() {
                continue;
            }
            question.hosts.push(self.host(spot, &usable, when));
            for member in &thread.groups.members {
                let Some(node) = member.node.and_then(|at| thread.nodes.get(at as usize)) else { continue };
                let profile = node.task.profile();
                let suits = |i: &&Instance| suits_instance(i, &profile).is_ok();
                let may_come = when == When::Ever && instances.is_empty();
                if !may_come && !usable.iter().any(suits) {
                    question.unfit.entry(member.name.clone()).or_default().insert(spot.clone());
                }
            }
        }
        if when == When::Now {
            self.take_others(session, &mut question);
        }
        question
    }

    fn host(&self, spot: &Spot, instances: &[&Instance], when: When) -> Host {
        let declared = self.declared.get(spot);
        // Several agents of one server each see all of it.
        let vcpus = instances.iter().map(|i| i.facts.cpus).max();
        let memory_mb = instances.iter().map(|i| i.facts.memory_mb.into()).max();
        // Of a server that nobody described and that has no instance yet, nobody knows how large it is.
        let unknown = if when == When::Ever { u32::MAX } else { 0 };
        let solution = instances.first().and_then(|i| self.snapshot.solutions.get(&i.solution));
        let own = solution.is_none_or(|s| s.dedicated().is_some_and(|d| d.machines.is_none()));
        let known = match declared {
            Some(_) => Level::ALL.into(),
            None if own => BTreeSet::from([Level::Server]),
            None => BTreeSet::new(),
        };
        Host {
            spot: spot.clone(),
            known,
            vcpus: declared.and_then(|d| d.vcpus).or(vcpus).unwrap_or(unknown),
            memory_mb: declared.and_then(|d| d.memory_mb).or(memory_mb).unwrap_or(unknown.into()),
            overcommit_percent: declared.map_or(100, |d| d.overcommit_percent),
            nic_mbps: declared.and_then(|d| d.nic_mbps),
            taken: Taken::default(),
        }
    }

    fn links(&self) -> BTreeMap<String, Link> {
        let mut links = BTreeMap::new();
        for (site, of_site) in self.sites.by_name() {
            links.insert(site.to_string(), Link { mbps: of_site.uplink_mbps, taken_mbps: 0 });
            for (rack, of_rack) in &of_site.racks {
                links.insert(format!("{site}/{rack}"), Link { mbps: of_rack.uplink_mbps, taken_mbps: 0 });
            }
        }
        links
    }

    /// What the plans of other sessions have on servers and links.
    fn take_others(&self, session: SessionId, question: &mut Question) {
        let at: BTreeMap<Spot, usize> = question.hosts.iter().map(|h| h.spot.clone()).zip(0..).collect();
        for (groups, spots) in self.others(session) {
            for (member, spot) in groups.members.iter().zip(&spots) {
                let Some(host) = at.get(spot).map(|at| &mut question.hosts[*at]) else { continue };
                let (cpu, memory) = size(member, host.overcommit_percent);
                host.taken.members += 1;
                host.taken.vcpu_percent += cpu;
                host.taken.memory_mb_percent += memory;
            }
            for rule in &groups.rules {
                let Demand::Pipe { mbps } = rule.demand else { continue };
                for (a, b) in Groups::pairs(&rule.units) {
                    let (Some(a), Some(b)) = (spots.get(a as usize), spots.get(b as usize)) else { continue };
                    take_pipe(question, &at, a, b, mbps);
                }
            }
        }
    }

    /// The servers and the plans there are, as a number: whoever waits asks again when it is another one.
    fn seen(&self, session: SessionId) -> u64 {
        let mut sum = Sum(*self.servers.get_or_init(|| self.sum_of_servers()));
        self.others(session).for_each(|(_, at)| sum.add(&format!("{at:?}")));
        sum.0
    }

    fn sum_of_servers(&self) -> u64 {
        let mut sum = Sum::default();
        for (spot, instances) in &self.by_spot {
            sum.add(&spot.to_string());
            for instance in instances.iter().filter(|i| i.state == InstanceState::Ready) {
                sum.add(&format!("{} {:?}", instance.id, instance.facts));
            }
        }
        sum.add(&format!("{:?}", self.sites));
        sum.0
    }

    /// The next deployment of a session, if it needs one, and why.
    fn again(&self, session: &Session, effort: Effort) -> Option<(Deployment, String)> {
        let (thread, seen) = (&session.spec.thread, || self.seen(session.id));
        let (pins, why) = match session.deployment.as_deref() {
            Some(Deployment::Waits { seen: before, .. }) if *before == seen() => return None,
            None | Some(Deployment::Waits { .. }) => (Vec::new(), "there are other servers now".to_owned()),
            Some(Deployment::Planned(planned)) => {
                let gone = self.gone(session, planned)?;
                let stays = |(member, spot): (usize, &Spot)| (*spot != gone).then(|| pin(session, member, spot));
                (planned.at.iter().enumerate().filter_map(stays).collect(), format!("server '{gone}' is gone"))
            }
        };
        let question = self.question(session.id, thread, When::Now);
        if !pins.is_empty() {
            let mut stable = question.clone();
            stable.groups.rules.extend::<Vec<Rule>>(pins);
            if let Answer::Plan(plan) = plan(&stable, Effort { conflict_tries_max: 0, ..effort }) {
                return Some((planned(plan), why));
            }
        }
        Some(match plan(&question, effort) {
            Answer::Plan(plan) => (planned(plan), why),
            no => (Deployment::Waits { because: said(no), seen: seen() }, why),
        })
    }

    /// The first server of a plan that can take the items of a member no more.
    fn gone(&self, session: &Session, planned: &Deployed) -> Option<Spot> {
        let mut members = session.spec.thread.groups.members.iter().zip(&planned.at);
        let lost = |(member, spot): (&crate::group::Member, &Spot)| {
            let node = session.nodes.get(member.node? as usize).filter(|node| !node.is_over())?;
            let takes = |i: &&Instance| i.state == InstanceState::Ready && suits(i, &node.profile);
            let there = self.by_spot.get(spot).into_iter().flatten().copied();
            (!there.into_iter().any(|i| takes(&i))).then(|| spot.clone())
        };
        members.find_map(lost)
    }
}

fn suits(instance: &Instance, profile: &Profile) -> bool {
    suits_instance(instance, profile).is_ok()
}

/// What keeps a member where it is.
fn pin(session: &Session, member: usize, spot: &Spot) -> Rule {
    let name = session.spec.thread.groups.members.get(member).map_or_else(|| Arc::from(""), |m| m.name.clone());
    let units = vec![vec![u32::try_from(member).unwrap_or(u32::MAX)]];
    Rule { group: name, demand: Demand::Pin { place: spot.to_string().into() }, units, said: None }
}

fn take_pipe(question: &mut Question, at: &BTreeMap<Spot, usize>, a: &Spot, b: &Spot, mbps: u64) {
    for level in Level::ALL {
        if a.shares(b, level) == Some(true) {
            return;
        }
        for end in [a, b] {
            match (level, at.get(end)) {
                (Level::Server, Some(host)) => question.hosts[*host].taken.nic_mbps += mbps,
                (Level::Server, None) => {}
                _ => {
                    if let Some(link) = end.at(level).and_then(|name| question.links.get_mut(&name)) {
                        link.taken_mbps += mbps;
                    }
                }
            }
        }
    }
}

/// FNV-1a: the same everywhere, and no secret depends on it.
struct Sum(u64);

impl Default for Sum {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Sum {
    fn add(&mut self, text: &str) {
        for byte in text.bytes().chain([0]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
