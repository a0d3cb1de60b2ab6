//! What holds each rule in a plan, for people.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::group::{Demand, Groups, Rule};
use crate::site::{Level, Spot};

/// Places that are named one by one; more are counted.
const NAMED_MAX: usize = 6;

/// A rule, and what holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRule {
    /// The rule.
    pub rule: String,
    /// What of the plan holds it.
    pub by: String,
}

/// Says of every rule what holds it. `at` has each member's place, in the members' order.
pub fn held(groups: &Groups, at: &[Spot]) -> Vec<HeldRule> {
    groups.rules.iter().map(|rule| HeldRule { rule: rule.to_string(), by: by(groups, rule, at) }).collect()
}

fn by(groups: &Groups, rule: &Rule, at: &[Spot]) -> String {
    let spots = |members: &[u32]| members.iter().filter_map(|m| at.get(*m as usize)).cloned().collect::<Vec<Spot>>();
    let all: Vec<u32> = rule.units.iter().flatten().copied().collect();
    match &rule.demand {
        Demand::Affinity { level } => format!("all in {}", places(&spots(&all), *level)),
        Demand::Exclusivity { level } => format!("no one else in {}", places(&spots(&all), *level)),
        Demand::Spread { level, .. } => places(&spots(&all), *level),
        Demand::Diversity { level } => {
            let units: Vec<String> = rule.units.iter().map(|unit| places(&spots(unit), *level)).collect();
            units.join(" | ")
        }
        Demand::Pipe { .. } => {
            let name = |m: u32| groups.members.get(m as usize).map_or("?", |member| &*member.name);
            let pairs = Groups::pairs(&rule.units);
            let way = |(a, b): &(u32, u32)| {
                Some(format!("{} - {}: {}", name(*a), name(*b), way(at.get(*a as usize)?, at.get(*b as usize)?)))
            };
            let mut ways: Vec<String> = pairs.iter().take(NAMED_MAX).filter_map(way).collect();
            if pairs.len() > NAMED_MAX {
                ways.push(format!("and {} more", pairs.len() - NAMED_MAX));
            }
            ways.join(", ")
        }
        Demand::Pin { .. } => places(&spots(&all), Level::Server),
    }
}

/// How far it is from one server to another, in words.
pub fn way(a: &Spot, b: &Spot) -> &'static str {
    let shares = |level| a.shares(b, level);
    match (shares(Level::Server), shares(Level::Rack), shares(Level::Site)) {
        (Some(true), ..) => "in one server",
        (_, Some(true), _) => "in one rack",
        (_, _, Some(true)) => "in one site",
        _ => "between sites",
    }
}

fn places(spots: &[Spot], level: Level) -> String {
    let place = |spot: &Spot| spot.at(level).unwrap_or_else(|| format!("{} (rack not known)", spot.site));
    let places: BTreeSet<String> = spots.iter().map(place).collect();
    let mut named: Vec<String> = places.iter().take(NAMED_MAX).cloned().collect();
    if places.len() > NAMED_MAX {
        named.push(format!("and {} more", places.len() - NAMED_MAX));
    }
    named.join(", ")
}
