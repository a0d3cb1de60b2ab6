//! What a plan does to `decide`: items of members go where their plan says, and others stay out of places that a
//! rule of exclusivity keeps. A hard predicate, shared by `decide` and `explain`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::live::Deployment;
use crate::decide::policy::Policy;
use crate::decide::reason::Reason;
use crate::decide::snapshot::Snapshot;
use crate::group::{Demand, Groups};
use crate::id::SessionId;
use crate::instance::{Instance, InstanceState};
use crate::site::{Level, Spot};
use crate::task::Profile;

/// Where a plan holds the items of a member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Held {
    /// Whose plan: two sessions of one thread have two.
    pub session: SessionId,
    /// The server; none while there is no plan.
    pub server: Option<Spot>,
    /// Groups that it is in and that have places of their own.
    pub alone: Vec<Arc<str>>,
}

impl Held {
    /// Where the items of a session's node are held; none of a node that is in no group.
    pub(crate) fn of(session: SessionId, groups: &Groups, deployment: Option<&Deployment>, node: u32) -> Option<Self> {
        let at = groups.members.iter().position(|member| member.node == Some(node))?;
        let server = deployment.and_then(Deployment::planned).and_then(|planned| planned.at.get(at)).cloned();
        let mut alone: Vec<Arc<str>> = exclusive(groups)
            .filter(|(_, members, _)| members.iter().any(|member| *member as usize == at))
            .map(|(group, ..)| group.clone())
            .collect();
        alone.dedup();
        Some(Self { session, server, alone })
    }
}

/// Groups that have places of their own: name, members, level.
fn exclusive(groups: &Groups) -> impl Iterator<Item = (&Arc<str>, &[u32], Level)> {
    groups.rules.iter().filter_map(|rule| match (&rule.demand, rule.units.first()) {
        (Demand::Exclusivity { level }, Some(members)) => Some((&rule.group, members.as_slice(), *level)),
        _ => None,
    })
}

/// Names of the places that a session's plan keeps for its groups, each with the group.
pub(super) fn kept_by<'g>(groups: &'g Groups, at: &[Spot]) -> Vec<(&'g Arc<str>, String)> {
    let of_group = |(group, members, level): (&'g Arc<str>, &[u32], Level)| {
        let spots = members.iter().filter_map(|member| at.get(*member as usize));
        spots.filter_map(|spot| Some((group, spot.at(level)?))).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = exclusive(groups).flat_map(of_group).collect();
    all.sort();
    all.dedup();
    all
}

/// A place kept for a group.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KeptPlace {
    place: Arc<str>,
    group: Arc<str>,
    session: SessionId,
    /// Attempts of others that were there before.
    others: u32,
}

/// Places kept for groups, as one pass sees them.
#[derive(Debug, Clone, Default)]
pub(in crate::decide) struct Kept {
    places: Arc<Vec<KeptPlace>>,
}

impl Kept {
    pub(in crate::decide) fn of(snapshot: &Snapshot, policy: &Policy) -> Self {
        let mut places = Vec::new();
        for session in snapshot.deployed() {
            let Some(planned) = session.deployment.as_deref().and_then(Deployment::planned) else { continue };
            for (group, place) in kept_by(&session.spec.thread.groups, &planned.at) {
                let others = 0;
                places.push(KeptPlace { place: place.into(), group: group.clone(), session: session.id, others });
            }
        }
        if !places.is_empty() {
            for instance in snapshot.instances.values().filter(|i| i.state != InstanceState::Gone) {
                let spot = policy.sites.spot_of(&instance.id, &instance.solution);
                for kept in places.iter_mut().filter(|kept| spot.is_in(&kept.place)) {
                    let other = |attempt: &&crate::attempt::Attempt| {
                        let node = snapshot.node(attempt.key.item.node);
                        !node.is_some_and(|node| kept.is_for(&node.profile))
                    };
                    let others = snapshot.attempts_on(&instance.id).filter(other).count();
                    kept.others = kept.others.saturating_add(u32::try_from(others).unwrap_or(u32::MAX));
                }
            }
        }
        Self { places: Arc::new(places) }
    }

    /// Is it the same for all instances that are alike?
    pub(in crate::decide) fn is_same_for_all(&self, profile: &Profile) -> bool {
        self.places.is_empty() && profile.held.is_none()
    }

    /// May an item be on this instance, as far as plans say?
    pub(in crate::decide) fn check(
        &self,
        policy: &Policy,
        profile: &Profile,
        instance: &Instance,
    ) -> Result<(), Reason> {
        if self.is_same_for_all(profile) {
            return Ok(());
        }
        let spot = policy.sites.spot_of(&instance.id, &instance.solution);
        match profile.held.as_ref().map(|held| &held.server) {
            Some(None) => return Err(Reason::NoDeployment { because: "it is being made".into() }),
            Some(Some(server)) if *server != spot => {
                return Err(Reason::OtherServer { server: server.to_string().into() });
            }
            _ => {}
        }
        for kept in self.places.iter().filter(|kept| spot.is_in(&kept.place)) {
            let (place, group) = (kept.place.clone(), kept.group.clone());
            if !kept.is_for(profile) {
                return Err(Reason::KeptForGroup { place, group, session: kept.session });
            }
            if kept.others > 0 {
                return Err(Reason::OthersThere { place, attempts: kept.others });
            }
        }
        Ok(())
    }
}

impl KeptPlace {
    fn is_for(&self, profile: &Profile) -> bool {
        profile.held.as_ref().is_some_and(|held| held.session == self.session && held.alone.contains(&self.group))
    }
}
