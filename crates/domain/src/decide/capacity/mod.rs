//! How many machines of which kind are worth having, beside shared solutions.
//!
//! Rules for that are many and cheap, and none is best everywhere: what wins on requests of seconds loses on a
//! batch of hours. So a family of them is followed on paper ([`shadow`]) with the work that really comes, and
//! the one that would have cost least of late is what is done. Two members are there so that "picked by cost"
//! does not lose to a fixed mode: no machines at all, and machines for everything.
//!
//! ```text
//! arrived, ended ---> every rule's shadow ---> what it would have cost (older costs fade)
//! tick -------------> every rule's target         |
//!                          least cost, by a margin v
//!                     Capacity { machines wanted, price, alternatives, why }
//! ```
//! The family costs a few hundred bytes an open item and a few microseconds an event. Integers only; what it is
//! told, in the order it is told, is all that it depends on.

mod rent;
mod shadow;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::guard::{Billing, Layers, MachineFacts, SharedFacts, break_even_ppm};
use super::patience::PPM;
use crate::quantity::{NanoUsd, Timestamp};
use rent::Rent;
use shadow::{At, Open, Shadow};

/// Defaults of [`Settings`], each with its reason.
impl Default for Settings {
    fn default() -> Self {
        Self {
            tick_us: 15_000_000,
            idle_us: 15_000_000,
            memory_us: 6 * 3_600_000_000,
            switch_ppm: 30_000,
            settle_looks: 60,
            windows_us: vec![15_000_000, 60_000_000, 300_000_000, 900_000_000, 3_600_000_000, 14_400_000_000],
            shares_ppm: vec![700_000, 1_000_000, 1_400_000, 1_900_000],
            fixed: None,
        }
    }
}

/// What a person can set about capacity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Time between two looks, us. Looking more often than every 15 s gains nothing; every 300 s costs 6-10 %.
    pub tick_us: u64,
    /// A machine beyond the target goes after it was empty for so long, us: one look. Longer costs more
    /// in the mean of the loads tried, and at 240 s a quarter more on one of them.
    pub idle_us: u64,
    /// What a rule cost so long ago counts a third, us.
    pub memory_us: u64,
    /// Another rule is followed when it would have cost less by this share, ppm: against flapping.
    pub switch_ppm: u32,
    /// What was looked at fewer times than this must be cheaper by as many times that share: a few looks say little.
    pub settle_looks: u32,
    /// Windows of demand that rules look at, us. Short ones answer a crowd before it has gone, and buy a machine for an
    /// item that lasts while it still waits; long ones keep what is used every hour.
    pub windows_us: Vec<u64>,
    /// Shares of the break-even use at which a layer gets a machine, ppm: above a million for slots that are
    /// paid and not used.
    pub shares_ppm: Vec<u64>,
    /// Follow this rule whatever it costs: for who wants the plain comparison of prices, or a fixed mode.
    pub fixed: Option<Rule>,
}

/// One way to say how many machines are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// None: everything goes to the shared solution.
    None,
    /// For every layer of demand that was used above a share of the break-even use.
    Layers {
        /// How far back it looks, s.
        window_s: u32,
        /// The share, ppm.
        share_ppm: u64,
    },
    /// For all demand of the last minutes.
    Peak {
        /// How far back it looks, s.
        window_s: u32,
    },
    /// Rent until the rent paid equals the price of a machine's start.
    Rent {
        /// Times the price of a start, ppm.
        times_ppm: u64,
    },
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("no machines"),
            Self::Layers { window_s, share_ppm } => {
                write!(f, "layers used above {} % of break-even for {window_s} s", share_ppm / 10_000)
            }
            Self::Peak { window_s } => write!(f, "the peak of the last {window_s} s"),
            Self::Rent { times_ppm } => write!(f, "rent until {} % of a start is paid", times_ppm / 10_000),
        }
    }
}

/// A rule for a kind of machine, and what it would have cost of late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alternative {
    /// Which rule.
    pub rule: Rule,
    /// For which of the machines asked about.
    pub machine: usize,
    /// What it would have cost; older costs faded.
    pub cost: NanoUsd,
    /// Machines it wants now.
    pub target: u32,
}

/// How many machines are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// What is done, and its price.
    pub chosen: Alternative,
    /// Every rule, cheapest first.
    pub alternatives: Vec<Alternative>,
    /// Use above which a machine is worth it, ppm.
    pub break_even_ppm: u64,
    /// What an invocation costs an hour, all that is billed included.
    pub shared_per_hour: NanoUsd,
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Alternative { rule, cost, target, .. } = self.chosen;
        write!(f, "{target} machines by '{rule}' (recently {cost}")?;
        if let Some(other) = self.alternatives.iter().find(|a| a.rule != rule) {
            write!(f, "; '{}' {}", other.rule, other.cost)?;
        }
        write!(f, "; a slot is worth it above {} % use)", self.break_even_ppm / 10_000)
    }
}

struct Member {
    rule: Rule,
    machine: usize,
    shadow: Shadow,
    rent: Option<Rent>,
    spent: NanoUsd,
    target: u32,
}

/// Follows every rule on paper. `K` names an item.
pub struct Family<K> {
    settings: Settings,
    shared: SharedFacts,
    members: Vec<Member>,
    /// Windows of demand that rules look at, us, and for each machine's slots what was seen in each.
    windows_us: Vec<u64>,
    layers: Vec<Vec<Layers>>,
    billing: Billing,
    items: BTreeMap<K, usize>,
    open: Vec<Open>,
    spare: Vec<usize>,
    /// Ended, and waiting in some shadow still.
    limbo: Vec<usize>,
    running: u32,
    leader: usize,
    ticked_us: Option<i64>,
    looks: u32,
}

/// Machines for everything: the rule where there is no shared solution.
pub const DEDICATED: Rule = Rule::Peak { window_s: PEAK_S };
/// The rule that is followed before anything was measured: the break-even of list prices over a quarter hour.
const FIRST: Rule = Rule::Layers { window_s: 900, share_ppm: 1_000_000 };
/// Items that ended since the last look, before they are looked through early.
const LIMBO: usize = 4_096;
/// Window of the rule that wants machines for everything, s.
const PEAK_S: u32 = 300;

impl<K: Ord + Copy> Family<K> {
    /// Every rule of the settings, for one machine.
    pub fn rules(settings: &Settings) -> Vec<Rule> {
        let machine = MachineFacts { slots: 1, price_per_hour: NanoUsd::ZERO, min_billed_us: 0, boot_us: 0 };
        members(settings, 0, &machine).iter().map(|member| member.rule).collect()
    }

    /// For items of one class: the machines that suit it, and the shared solution that would take it.
    pub fn new(settings: Settings, machines: &[MachineFacts], shared: SharedFacts) -> Self {
        let mut members: Vec<Member> =
            machines.iter().enumerate().flat_map(|(at, m)| members(&settings, at, m)).collect();
        if let Some(fixed) = settings.fixed {
            members.retain(|member| member.rule == fixed);
        }
        let samples = |window: &u64| usize::try_from(window / settings.tick_us.max(1)).unwrap_or(usize::MAX);
        let peak_us = u64::from(PEAK_S) * 1_000_000;
        let mut windows_us = settings.windows_us.clone();
        windows_us.extend((!windows_us.contains(&peak_us)).then_some(peak_us));
        let layers = |m: &MachineFacts| windows_us.iter().map(|w| Layers::new(m.slots, samples(w))).collect();
        Self {
            shared,
            layers: machines.iter().map(layers).collect(),
            windows_us,
            leader: members.iter().position(|m| m.rule == FIRST).unwrap_or(0),
            members,
            settings,
            billing: Billing::default(),
            items: BTreeMap::new(),
            open: Vec::new(),
            spare: Vec::new(),
            limbo: Vec::new(),
            running: 0,
            ticked_us: None,
            looks: 0,
        }
    }

    /// Another shared solution takes what machines do not, from now on; what was charged stays.
    pub fn call(&mut self, shared: SharedFacts) {
        if self.shared != shared {
            self.billing = Billing::default();
            self.shared = shared;
        }
    }

    /// An item arrived that may wait for `wait_us`.
    pub fn arrived(&mut self, item: K, wait_us: u64, now: Timestamp) {
        let fresh = Open { at: vec![At::Over; self.members.len()], lasted_us: None, waiting: 0 };
        let at = if let Some(at) = self.spare.pop() {
            self.open[at] = fresh;
            at
        } else {
            self.open.push(fresh);
            self.open.len() - 1
        };
        self.items.insert(item, at);
        self.running += 1;
        let until = now.0.saturating_add_unsigned(wait_us);
        for (me, member) in self.members.iter_mut().enumerate() {
            member.shadow.advance(now.0, me, &mut self.open, &self.shared);
            member.shadow.arrive(now.0, until, at, me, &mut self.open, &self.shared);
        }
    }

    /// An item ended after `lasted_us` of work; `cold` when items start cold in the shared solution now.
    pub fn ended(&mut self, item: K, lasted_us: u64, cold: bool, now: Timestamp) {
        if self.items.contains_key(&item) {
            self.billing.ended(&self.shared, lasted_us, cold);
            self.over(item, lasted_us, now);
        }
    }

    /// An item will not be placed any more: it was cancelled. Nothing of it is billed.
    pub fn left(&mut self, item: K, now: Timestamp) {
        self.over(item, 0, now);
    }

    fn over(&mut self, item: K, lasted_us: u64, now: Timestamp) {
        let Some(at) = self.items.remove(&item) else { return };
        self.running -= 1;
        self.open[at].lasted_us = Some(lasted_us);
        for (me, member) in self.members.iter_mut().enumerate() {
            member.shadow.advance(now.0, me, &mut self.open, &self.shared);
            member.shadow.ended(now.0, lasted_us, at, me, &mut self.open, &self.shared);
        }
        self.limbo.push(at);
        if self.limbo.len() > LIMBO {
            self.recycle();
        }
    }

    /// Items that arrived and have not ended.
    pub fn running(&self) -> u32 {
        self.running
    }

    fn recycle(&mut self) {
        let (open, spare) = (&self.open, &mut self.spare);
        self.limbo.retain(|at| {
            let waits = open[*at].waiting > 0;
            if !waits {
                spare.push(*at);
            }
            waits
        });
    }

    /// Looks at all rules, and says what to do.
    pub fn tick(&mut self, now: Timestamp) -> Capacity {
        for layers in self.layers.iter_mut().flatten() {
            layers.sample(self.running);
        }
        let per_hour = self.billing.price_per_hour(&self.shared);
        let past_us = self.ticked_us.map_or(0, |before| u64::try_from(now.0 - before).unwrap_or(0));
        self.ticked_us = Some(now.0);
        self.looks = self.looks.saturating_add(1);
        for me in 0..self.members.len() {
            let member = &mut self.members[me];
            member.shadow.advance(now.0, me, &mut self.open, &self.shared);
            member.shadow.accrue(now.0, &self.shared);
            let fade = i128::from(member.spent.0) * i128::from(past_us) / i128::from(self.settings.memory_us.max(1));
            let cost = member.shadow.take_cost();
            member.spent = NanoUsd(member.spent.0 - i64::try_from(fade).unwrap_or(0)) + cost;
            self.aim(me, per_hour, past_us, now);
        }
        self.recycle();
        self.lead();
        self.capacity(per_hour)
    }

    /// Lets one rule say how many machines it wants, and its shadow have them.
    fn aim(&mut self, me: usize, per_hour: NanoUsd, past_us: u64, now: Timestamp) {
        let member = &mut self.members[me];
        let facts = &member.shadow.machine;
        let break_even = break_even_ppm(facts, per_hour);
        let alive = member.shadow.alive();
        let window = |window_s: u32| {
            let at = self.windows_us.iter().position(|w| *w == u64::from(window_s) * 1_000_000)?;
            self.layers[member.machine].get(at)
        };
        member.target = match member.rule {
            Rule::None => 0,
            Rule::Layers { window_s, share_ppm } => {
                let limit = u128::from(break_even) * u128::from(share_ppm) / u128::from(PPM);
                let limit = u64::try_from(limit).unwrap_or(u64::MAX);
                window(window_s).map_or(0, |layers| layers.above(limit))
            }
            Rule::Peak { window_s } => window(window_s).map_or(0, Layers::peak).div_ceil(facts.slots.max(1)),
            Rule::Rent { times_ppm } => {
                let start = NanoUsd::charge(start(facts), times_ppm, PPM);
                let rent = member.rent.get_or_insert_default();
                rent.target(facts, per_hour, start, self.running, alive, past_us)
            }
        };
        let idle_us = i64::try_from(self.settings.idle_us).unwrap_or(i64::MAX);
        let target = member.target;
        member.shadow.aim(now.0, target, idle_us);
        if let Some(rent) = &mut member.rent {
            rent.stopped(member.shadow.alive(), alive);
        }
    }

    /// Follows another rule when it would have cost less by more than changing over costs, and by a share of what was
    /// spent besides. The best is the best after changing over: at once to the one that is cheapest by itself may be
    /// too dear where one nearly as cheap is had for nothing.
    fn lead(&mut self) {
        let from = &self.members[self.leader];
        let over = |to: &Member| to.spent.0 + changed(from, to);
        let Some((best, to)) = self.members.iter().enumerate().min_by_key(|(at, to)| (over(to), *at)) else { return };
        let settled = self.settings.settle_looks.max(1);
        let share = i128::from(from.spent.0) * i128::from(self.settings.switch_ppm) / i128::from(PPM);
        let share = share * i128::from(settled) / i128::from(self.looks.clamp(1, settled));
        if i128::from(from.spent.0) - i128::from(over(to)) > share {
            self.leader = best;
        }
    }

    fn capacity(&self, per_hour: NanoUsd) -> Capacity {
        let alternative =
            |m: &Member| Alternative { rule: m.rule, machine: m.machine, cost: m.spent, target: m.target };
        let mut alternatives: Vec<Alternative> = self.members.iter().map(alternative).collect();
        alternatives.sort_by_key(|a| (a.cost, a.rule, a.machine));
        let leader = &self.members[self.leader];
        Capacity {
            chosen: alternative(leader),
            alternatives,
            break_even_ppm: break_even_ppm(&leader.shadow.machine, per_hour),
            shared_per_hour: per_hour,
        }
    }
}

/// What following one rule instead of another costs at once: a start of every machine that one has and the other has
/// not.
fn changed(from: &Member, to: &Member) -> i64 {
    let (had, has) = (from.shadow.alive(), to.shadow.alive());
    if from.machine == to.machine {
        start(&to.shadow.machine).0 * i64::from(had.abs_diff(has))
    } else {
        start(&from.shadow.machine).0 * i64::from(had) + start(&to.shadow.machine).0 * i64::from(has)
    }
}

/// What a machine costs before it works and at the least.
fn start(machine: &MachineFacts) -> NanoUsd {
    machine.charge(machine.boot_us.saturating_add(machine.min_billed_us))
}

fn members(settings: &Settings, machine: usize, facts: &MachineFacts) -> Vec<Member> {
    let seconds = |us: &u64| u32::try_from(us / 1_000_000).unwrap_or(u32::MAX);
    let layers = settings.windows_us.iter().flat_map(|window| {
        let window_s = seconds(window);
        settings.shares_ppm.iter().map(move |share| Rule::Layers { window_s, share_ppm: *share })
    });
    let rent = [1_000_000, 4_000_000].map(|times_ppm| Rule::Rent { times_ppm });
    let others = layers.chain([Rule::Peak { window_s: PEAK_S }]).chain(rent);
    // Without machines, one is like another.
    let none = (machine == 0).then_some(Rule::None);
    none.into_iter()
        .chain(others)
        .map(|rule| Member {
            rule,
            machine,
            shadow: Shadow::new(facts.clone()),
            rent: None,
            spent: NanoUsd::ZERO,
            target: 0,
        })
        .collect()
}

#[cfg(test)]
mod tests;
