//! Goals: which running mode a session gets when it leaves that to the engine [0057].
//!
//! ```text
//! the session, projected in each mode --> those that can do it --> within cost cap and time --> the best by objective
//!                                             (else: why not)         (else: every figure)
//! ```
//! Without a goal `auto` stays `auto`: each item goes where it costs least. With one, the whole session is looked at
//! before it starts.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::policy::Policy;
use super::project::{Projection, project};
use super::snapshot::Snapshot;
use crate::event::Event;
use crate::id::{SessionId, SolutionId};
use crate::quantity::{NanoUsd, Timestamp};
use crate::session::SessionSpec;
use crate::task::{RunningMode, URGENT};

/// What is best.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The cheapest.
    #[default]
    Cost,
    /// The one that ends first.
    Speed,
}

/// What a session is to reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Goals {
    /// What is best among those within the rest.
    pub objective: Option<Objective>,
    /// Most it may cost.
    pub cost_max: Option<NanoUsd>,
    /// Time within which it is to end, ms.
    pub within_ms: Option<u64>,
    /// Most machines that may be made for it.
    pub machines_max: Option<u32>,
    /// Among shared solutions that cost at most this much more than the cheapest, the one with least open takes an
    /// item, and among clouds the one with fewest machines makes the next, ppm: work is spread between vendors.
    pub spread_ppm: u32,
}

impl Goals {
    /// Is a whole session to be looked at before it starts?
    pub fn asks(&self) -> bool {
        self.objective.is_some() || self.cost_max.is_some() || self.within_ms.is_some() || self.machines_max.is_some()
    }

    /// With what a launch asks for in the place of what holds otherwise.
    #[must_use]
    pub fn or(&self, otherwise: &Self) -> Self {
        Self {
            objective: self.objective.or(otherwise.objective),
            cost_max: self.cost_max.or(otherwise.cost_max),
            within_ms: self.within_ms.or(otherwise.within_ms),
            machines_max: self.machines_max.or(otherwise.machines_max),
            spread_ppm: otherwise.spread_ppm,
        }
    }

    fn met_by(&self, p: &Projection) -> Result<(), Miss> {
        let over = |most: u64, is: u64| (is > most).then_some((most, is));
        if let Some((_, reason)) = p.stuck.first() {
            return Err(Miss::Stuck { reason: reason.to_string() });
        }
        if let Some(most) = self.cost_max.filter(|most| p.total_cost() > *most) {
            return Err(Miss::Cost { most, is: p.total_cost() });
        }
        if let Some((most_ms, is_ms)) = self.within_ms.and_then(|most| over(most, p.total_ms)) {
            return Err(Miss::Time { most_ms, is_ms });
        }
        match self.machines_max {
            Some(most) if p.machines > most => Err(Miss::Machines { most, is: p.machines }),
            _ => Ok(()),
        }
    }
}

/// Why a mode does not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Miss {
    /// Part of it would find no place.
    Stuck {
        /// Why.
        reason: String,
    },
    /// It would cost too much.
    Cost {
        /// The cap.
        most: NanoUsd,
        /// The projection.
        is: NanoUsd,
    },
    /// It would take too long.
    Time {
        /// The limit, ms.
        most_ms: u64,
        /// The projection, ms.
        is_ms: u64,
    },
    /// It would need too many machines.
    Machines {
        /// The cap.
        most: u32,
        /// The projection.
        is: u32,
    },
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stuck { reason } => write!(f, "part of it finds no place ({reason})"),
            Self::Cost { most, is } => write!(f, "it would cost {is}, over {most}"),
            Self::Time { most_ms, is_ms } => {
                write!(f, "it would take {} s, over {} s", is_ms.div_ceil(1_000), most_ms / 1_000)
            }
            Self::Machines { most, is } => write!(f, "it would have {is} machines made, over {most}"),
        }
    }
}

/// What a session would be in one mode, or in one solution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projected {
    /// The mode.
    pub mode: RunningMode,
    /// The only solution, where one is looked at by itself.
    pub solution: Option<SolutionId>,
    /// Its course.
    pub course: Projection,
    /// Why it does not do, if it does not.
    pub miss: Option<Miss>,
}

/// The mode that a session gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeChoice {
    /// Which.
    pub mode: RunningMode,
    /// Why, with the others' figures.
    pub why: String,
}

/// The modes that a session is looked at in.
const MODES: [RunningMode; 4] =
    [RunningMode::Auto, RunningMode::Hybrid, RunningMode::Dedicated, RunningMode::Serverless];

/// Projects a session that would start now in each mode, and in each solution by itself.
pub fn compare(
    snapshot: &Snapshot,
    policy: &Policy,
    spec: &SessionSpec,
    goals: &Goals,
    now: Timestamp,
) -> Vec<Projected> {
    let of = |mode: RunningMode, solution: Option<&SolutionId>| {
        let course = course(snapshot, policy, spec, (mode, solution), now);
        let miss = goals.met_by(&course).err();
        Projected { mode, solution: solution.cloned(), course, miss }
    };
    let in_modes = MODES.into_iter().map(|mode| of(mode, None));
    let alone = snapshot.solutions.iter().map(|(id, solution)| {
        let mode = if solution.shared().is_some() { RunningMode::Serverless } else { RunningMode::Dedicated };
        of(mode, Some(id))
    });
    in_modes.chain(alone).collect()
}

/// The course of a session whose open modes are `mode`; in `solution` only, if one is given.
fn course(
    snapshot: &Snapshot,
    policy: &Policy,
    spec: &SessionSpec,
    (mode, solution): (RunningMode, Option<&SolutionId>),
    now: Timestamp,
) -> Projection {
    let mut spec = in_mode(spec, mode);
    if let Some(solution) = solution {
        for node in &mut spec.thread.nodes {
            let task = Arc::make_mut(&mut node.task);
            task.running_mode = mode;
            task.needs.solution.get_or_insert_with(|| solution.clone());
        }
    }
    let mut world = snapshot.clone();
    let turn = world.turn + 1;
    let session = SessionId::derive(turn, 0);
    world.apply_all(turn, now, vec![Event::SessionStarted { session, spec: Arc::new(spec) }]);
    project(&world, policy, session, now)
}

/// The session with every mode that is left to the engine settled.
#[must_use]
pub fn in_mode(spec: &SessionSpec, mode: RunningMode) -> SessionSpec {
    let mut spec = spec.clone();
    for node in spec.thread.nodes.iter_mut().filter(|node| node.task.running_mode == RunningMode::Auto) {
        Arc::make_mut(&mut node.task).running_mode = mode;
    }
    spec
}

/// The best of the modes that reach the goals; else every mode with what it misses.
pub fn choose_mode(spec: &SessionSpec, goals: &Goals, projected: &[Projected]) -> Result<ModeChoice, String> {
    let urgent = spec.thread.nodes.iter().any(|node| node.task.urgency >= URGENT);
    let objective = goals.objective.unwrap_or(if urgent { Objective::Speed } else { Objective::Cost });
    let modes = || projected.iter().filter(|p| p.solution.is_none());
    let rank = |p: &&Projected| {
        let (cost, time) = (p.course.total_cost().0, i64::try_from(p.course.total_ms).unwrap_or(i64::MAX));
        if objective == Objective::Cost { (cost, time) } else { (time, cost) }
    };
    let said = |p: &Projected| {
        let figures = format!("{} {} in {} s", p.mode, p.course.total_cost(), p.course.total_ms.div_ceil(1_000));
        p.miss.as_ref().map_or(figures, |miss| format!("{}: {miss}", p.mode))
    };
    let others =
        |but: Option<RunningMode>| modes().filter(|p| Some(p.mode) != but).map(said).collect::<Vec<_>>().join("; ");
    // Of equal ones the first: what leaves most open.
    match modes().filter(|p| p.miss.is_none()).min_by_key(rank) {
        Some(best) => {
            let what = if objective == Objective::Cost { "cheapest" } else { "quickest" };
            let why = format!("the {what}: {}, against {}", said(best), others(Some(best.mode)));
            Ok(ModeChoice { mode: best.mode, why })
        }
        None => Err(others(None)),
    }
}

/// Is any mode left to the engine?
pub fn is_open(spec: &SessionSpec) -> bool {
    spec.thread.nodes.iter().any(|node| node.task.running_mode == RunningMode::Auto)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::TaskSpec;
    use crate::testing::{Scene, dedicated, facts, loose, shared, spec_of, task};
    use crate::thread::assemble;

    /// A hundred items of ten seconds: one free server with two slots, or functions that cost.
    fn compared(goals: &Goals) -> (SessionSpec, Vec<Projected>) {
        let mut scene = Scene::default();
        scene.solution(dedicated("own", 0));
        scene.solution(shared("fn", 10_000, 900_000, 50));
        scene.instance("a", "own", facts(2));
        let one = TaskSpec { expected_run_ms: Some(10_000), longest_run_ms: Some(20_000), array: 100, ..task("t") };
        let name = "t".parse().unwrap();
        let thread = assemble(name, String::new(), vec![loose(one, &[])], &[], crate::session::HoldPolicy::default());
        let spec = SessionSpec::clone(&spec_of(thread.unwrap()));
        let projected = compare(&scene.snapshot, &scene.policy, &spec, goals, scene.now);
        (spec, projected)
    }

    #[test]
    fn cost_time_and_their_limits_pick_the_mode() {
        let choose = |goals: Goals| {
            let (spec, projected) = compared(&goals);
            choose_mode(&spec, &goals, &projected).map(|choice| choice.mode)
        };
        let cheap = Goals { objective: Some(Objective::Cost), ..Goals::default() };
        assert_eq!(choose(cheap.clone()), Ok(RunningMode::Dedicated), "a free server costs nothing");
        let quick = Goals { objective: Some(Objective::Speed), ..Goals::default() };
        let quickest = choose(quick).unwrap();
        assert!([RunningMode::Auto, RunningMode::Hybrid, RunningMode::Serverless].contains(&quickest), "{quickest}");
        let soon = Goals { within_ms: Some(60_000), ..cheap.clone() };
        assert_ne!(choose(soon), Ok(RunningMode::Dedicated), "one server needs 500 s");
        let both = Goals { within_ms: Some(60_000), cost_max: Some(NanoUsd(1)), ..cheap };
        let why = choose(both).unwrap_err();
        for mode in ["auto", "hybrid", "dedicated: it would take 500 s, over 60 s", "serverless: it would cost"] {
            assert!(why.contains(mode), "{why}");
        }
    }

    #[test]
    fn each_solution_is_projected_by_itself_with_wait_and_use() {
        let (_, projected) = compared(&Goals::default());
        let of = |id: &str| projected.iter().find(|p| p.solution.as_ref().is_some_and(|s| s.as_str() == id)).unwrap();
        let (own, function) = (&of("own").course, &of("fn").course);
        assert_eq!((own.items.len(), own.total_ms, own.cost, own.gateway_ms), (100, 500_000, NanoUsd::ZERO, 0));
        assert_eq!((own.wait_max_ms, own.wait_mean_ms, own.instance_ms), (490_000, 245_000, 1_000_000));
        assert!(
            function.total_ms < 25_000 && function.cost > NanoUsd::ZERO && function.instance_ms == 0,
            "{function:?}"
        );
    }
}
