//! Scaling by thresholds [0060], for those who want to say themselves when machines come and go: up above a
//! first threshold, down below a second, each as a percentage of slots, as a number of free slots, or from what
//! is projected.
//!
//! ```text
//!            use above `up`, or too few free        use below `down`, or too many free
//!   Stay ------------------------------------> Up   Stay --------------------------------> Down
//!     ^  cooldown; at the maximum                     ^  cooldown; just went up; would go up again; none empty
//! ```
//! Two things keep it from flapping: after a change the other direction waits for longer than the same one, and
//! machines only go as far as what is left stays below the threshold at which they would come back. A machine
//! with an attempt on it never goes ([`may_go`]).

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::patience::PPM;
use crate::id::InstanceId;
use crate::quantity::Timestamp;

/// Where a threshold lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    /// Share of slots in use, ppm.
    Share(u32),
    /// Free slots.
    Free(u32),
    /// What is projected for the time a machine needs to boot: its upper bound must find room.
    Projected,
}

/// When machines come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thresholds {
    /// More when use is above, or free slots below.
    pub up: Threshold,
    /// Fewer when use is below, or free slots above.
    pub down: Threshold,
    /// No second change in the same direction for so long, us.
    pub cooldown_us: u64,
    /// No change in the other direction for so long, us.
    pub turn_us: u64,
    /// Fewest machines.
    pub min: u32,
    /// Most machines.
    pub max: u32,
    /// Most machines of one change.
    pub change_max: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            up: Threshold::Share(800_000),
            down: Threshold::Share(500_000),
            cooldown_us: 60_000_000,
            turn_us: 300_000_000,
            min: 0,
            max: 1_000,
            change_max: 64,
        }
    }
}

/// How it stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Machines there and coming.
    pub machines: u32,
    /// Slots of each.
    pub slots: u32,
    /// Slots in use.
    pub used: u32,
    /// Items that wait for a slot.
    pub waiting: u32,
    /// Slots that will be wanted when a machine ordered now is ready: the upper bound of the projection.
    pub projected: Option<u32>,
    /// Machines with nothing on them.
    pub empty: u32,
}

/// When machines last came and went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// Last time that more were wanted.
    pub up: Option<Timestamp>,
    /// Last time that fewer were wanted.
    pub down: Option<Timestamp>,
}

/// What is to be done, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scale {
    /// More machines.
    Up {
        /// How many.
        machines: u32,
        /// Slots wanted, against slots there.
        wanted: u32,
        /// Slots there and coming.
        there: u32,
    },
    /// Fewer machines, of those that are empty.
    Down {
        /// How many.
        machines: u32,
        /// Slots wanted, against slots there.
        wanted: u32,
        /// Slots there and coming.
        there: u32,
    },
    /// As it is.
    Stay(Held),
}

/// Why nothing changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Between the thresholds.
    Between,
    /// A change was made not long ago; until then.
    Cooldown(Timestamp),
    /// The most, or the fewest, machines are there.
    Limit(u32),
    /// No machine is empty.
    NoneEmpty,
    /// Fewer would be above the upper threshold again.
    WouldTurn,
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up { machines, wanted, there } => write!(f, "{machines} more: {wanted} slots wanted, {there} there"),
            Self::Down { machines, wanted, there } => {
                write!(f, "{machines} fewer: {wanted} slots wanted, {there} there")
            }
            Self::Stay(Held::Between) => f.write_str("as it is: between the thresholds"),
            Self::Stay(Held::Cooldown(_)) => f.write_str("as it is: changed not long ago"),
            Self::Stay(Held::Limit(machines)) => write!(f, "as it is: the limit of {machines} machines"),
            Self::Stay(Held::NoneEmpty) => f.write_str("as it is: every machine has work"),
            Self::Stay(Held::WouldTurn) => f.write_str("as it is: fewer would be too few"),
        }
    }
}

impl Threshold {
    /// Fewest slots at which use is not above it.
    fn slots_up(self, load: &Load) -> u32 {
        let demand = load.used.saturating_add(load.waiting);
        match self {
            Self::Share(ppm) => {
                let slots = (u64::from(demand) * PPM).div_ceil(u64::from(ppm.max(1)));
                u32::try_from(slots).unwrap_or(u32::MAX)
            }
            Self::Free(free) => demand.saturating_add(free),
            Self::Projected => load.projected.unwrap_or(demand).max(demand),
        }
    }

    /// Is use below it, with so many slots?
    fn is_below(self, load: &Load, slots: u32) -> bool {
        let demand = load.used.saturating_add(load.waiting);
        match self {
            Self::Share(ppm) => u64::from(demand) * PPM < u64::from(slots) * u64::from(ppm),
            Self::Free(free) => slots.saturating_sub(demand) > free,
            Self::Projected => load.projected.unwrap_or(demand).max(demand) < slots,
        }
    }
}

/// More, fewer, or as it is.
pub fn scale(load: &Load, thresholds: &Thresholds, changes: &Changes, now: Timestamp) -> Scale {
    let slots = load.slots.max(1);
    let there = load.machines.saturating_mul(slots);
    let wanted = thresholds.up.slots_up(load);
    let need = wanted.div_ceil(slots).max(thresholds.min);
    if need > load.machines {
        let room = thresholds.max.saturating_sub(load.machines);
        if room == 0 {
            return Scale::Stay(Held::Limit(thresholds.max));
        }
        if let Some(until) = held(changes.up, changes.down, thresholds, now) {
            return Scale::Stay(Held::Cooldown(until));
        }
        let machines = (need - load.machines).min(room).min(thresholds.change_max);
        return Scale::Up { machines, wanted, there };
    }
    if load.machines <= need || !thresholds.down.is_below(load, there) {
        let turn = load.machines > thresholds.min && thresholds.down.is_below(load, there);
        return Scale::Stay(if turn { Held::WouldTurn } else { Held::Between });
    }
    if load.empty == 0 {
        return Scale::Stay(Held::NoneEmpty);
    }
    if let Some(until) = held(changes.down, changes.up, thresholds, now) {
        return Scale::Stay(Held::Cooldown(until));
    }
    let machines = (load.machines - need).min(load.empty).min(thresholds.change_max);
    Scale::Down { machines, wanted, there }
}

/// Until when a change waits for the last one in the same direction, or in the other.
fn held(same: Option<Timestamp>, other: Option<Timestamp>, t: &Thresholds, now: Timestamp) -> Option<Timestamp> {
    let after = |at: Timestamp, us: u64| Timestamp(at.0.saturating_add_unsigned(us));
    let same = same.map(|at| after(at, t.cooldown_us));
    let other = other.map(|at| after(at, t.turn_us));
    same.into_iter().chain(other).max().filter(|until| *until > now)
}

/// A machine that could go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub instance: InstanceId,
    /// Attempts on it, open or ordered.
    pub attempts: u32,
    /// A session holds it.
    pub held: bool,
    /// Since when it has been empty.
    pub empty_since: Option<Timestamp>,
}

/// The machines of a scale-down: empty, held by no session, not on the list, the one empty longest first. A
/// machine with an attempt on it is never among them, whatever was asked for.
pub fn may_go(candidates: &[Candidate], most: u32, kept: &BTreeSet<InstanceId>) -> Vec<InstanceId> {
    let mut empty: Vec<(Timestamp, &InstanceId)> = candidates
        .iter()
        .filter(|c| c.attempts == 0 && !c.held && !kept.contains(&c.instance))
        .filter_map(|c| Some((c.empty_since?, &c.instance)))
        .collect();
    empty.sort_unstable();
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    empty.into_iter().take(most).map(|(_, instance)| instance.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;

    fn load(machines: u32, used: u32, empty: u32) -> Load {
        Load { machines, slots: 4, used, empty, ..Load::default() }
    }

    #[test]
    fn each_kind_of_threshold_moves_both_ways() {
        let now = Timestamp(0);
        let say = |t: &Thresholds, load: &Load| scale(load, t, &Changes::default(), now);
        let share = Thresholds::default();
        assert_eq!(say(&share, &load(2, 7, 0)), Scale::Up { machines: 1, wanted: 9, there: 8 });
        assert_eq!(say(&share, &load(4, 7, 2)), Scale::Down { machines: 1, wanted: 9, there: 16 });
        assert_eq!(say(&share, &load(3, 7, 0)), Scale::Stay(Held::Between));
        let free = Thresholds { up: Threshold::Free(2), down: Threshold::Free(8), ..share };
        assert_eq!(say(&free, &load(2, 7, 0)), Scale::Up { machines: 1, wanted: 9, there: 8 });
        assert_eq!(say(&free, &load(5, 7, 3)), Scale::Down { machines: 2, wanted: 9, there: 20 });
        let projected = Thresholds { up: Threshold::Projected, down: Threshold::Projected, ..share };
        let soon = |slots| Load { projected: Some(slots), ..load(3, 7, 1) };
        assert_eq!(say(&projected, &soon(20)), Scale::Up { machines: 2, wanted: 20, there: 12 });
        assert_eq!(say(&projected, &soon(2)), Scale::Down { machines: 1, wanted: 7, there: 12 });
    }

    #[test]
    fn limits_and_cooldowns_say_so() {
        let thresholds = Thresholds { max: 2, ..Thresholds::default() };
        let up = |at| Changes { up: Some(Timestamp(at)), down: None };
        let at = |s: i64| Timestamp(s * S);
        assert_eq!(scale(&load(2, 8, 0), &thresholds, &Changes::default(), at(0)), Scale::Stay(Held::Limit(2)));
        let default = Thresholds::default();
        assert_eq!(scale(&load(2, 8, 0), &default, &up(0), at(59)), Scale::Stay(Held::Cooldown(at(60))));
        assert!(matches!(scale(&load(2, 8, 0), &default, &up(0), at(60)), Scale::Up { .. }));
        assert_eq!(scale(&load(9, 2, 8), &default, &up(0), at(299)), Scale::Stay(Held::Cooldown(at(300))));
        assert_eq!(scale(&load(9, 9, 0), &default, &up(0), at(300)), Scale::Stay(Held::NoneEmpty));
        // 2 of 4 x 1 used is below half of 8, but one machine less would be at the upper threshold.
        let tight = Thresholds { down: Threshold::Share(900_000), ..default };
        assert_eq!(scale(&load(2, 6, 0), &tight, &Changes::default(), at(0)), Scale::Stay(Held::WouldTurn));
    }

    /// Under any load that stands still, and under one that swings between two values, it comes to rest.
    #[test]
    fn it_does_not_flap() {
        for used in 0..200 {
            for (up, down) in [(800_000, 500_000), (700_000, 690_000), (1_000_000, 1_000_000)] {
                let t = Thresholds { up: Threshold::Share(up), down: Threshold::Share(down), ..Thresholds::default() };
                let (mut machines, mut changes, mut turns) = (0_u32, Changes::default(), Vec::new());
                for minute in 0..60 {
                    let now = Timestamp(minute * 60 * S);
                    let empty = machines.saturating_sub(u32::div_ceil(used, 4));
                    match scale(&load(machines, used.min(machines * 4), empty), &t, &changes, now) {
                        Scale::Up { machines: more, .. } => {
                            machines += more;
                            changes.up = Some(now);
                            turns.push(1);
                        }
                        Scale::Down { machines: fewer, .. } => {
                            machines -= fewer;
                            changes.down = Some(now);
                            turns.push(-1);
                        }
                        Scale::Stay(_) => {}
                    }
                }
                turns.dedup();
                assert!(turns.len() <= 1, "{used} slots, {up}/{down}: {turns:?}");
            }
        }
    }

    #[test]
    fn a_machine_with_work_never_goes() {
        let candidate = |name: &str, attempts, held, since| Candidate {
            instance: InstanceId::new(name).unwrap(),
            attempts,
            held,
            empty_since: Some(Timestamp(since)),
        };
        let all = [
            candidate("busy", 1, false, 0),
            candidate("held", 0, true, 0),
            candidate("kept", 0, false, 0),
            candidate("later", 0, false, 9),
            candidate("first", 0, false, 3),
        ];
        let kept = BTreeSet::from([InstanceId::new("kept").unwrap()]);
        let names = |most| may_go(&all, most, &kept).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(100), ["first", "later"]);
        assert_eq!(names(1), ["first"]);
    }
}
