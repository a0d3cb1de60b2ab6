//! A scaling element, carried out on a solution's own machines: its metrics are measured here once a minute, and what
//! its policies want becomes an event that `scale` goes by.

use std::collections::{BTreeMap, VecDeque};

use super::super::snapshot::Snapshot;
use super::super::threshold::Scale;
use super::seen::waiting;
use crate::id::SolutionId;
use crate::instance::InstanceState;
use crate::quantity::Timestamp;
use crate::scaling::{Element, Metrics, Milli, Statistic, evaluate};

/// Minutes that are kept of each metric: the longest period that a policy may look at, and a few of them.
const MINUTES_MAX: usize = 240;
/// A value every so often, s.
const EVERY_S: u32 = 60;

/// Values of one solution's machines, newest first, one a minute.
#[derive(Default)]
pub(super) struct Measured {
    values: BTreeMap<&'static str, VecDeque<Milli>>,
}

impl Measured {
    /// Measures now: `cpu` and `memory` (percent of machines that take work), `slots` (percent in use) and `queue`
    /// (items that wait). A machine that is not connected says nothing.
    fn measure(&mut self, snapshot: &Snapshot, solution: &SolutionId) {
        let ready = snapshot.machines_in(solution, InstanceState::Ready..=InstanceState::Ready);
        let ready = ready.filter_map(|id| snapshot.instances.get(id));
        let (mut cpu, mut memory, mut machines) = (0_i64, 0_i64, 0_i64);
        let (mut slots, mut used) = (0_i64, 0_i64);
        for instance in ready {
            let (live, load) = (snapshot.live(&instance.id), snapshot.load_of(&instance.id));
            slots += i64::from(instance.facts.slots);
            used += i64::from(load.slots);
            if live.connected {
                machines += 1;
                cpu += i64::from(live.cpu_percent) * 1_000;
                memory += i64::from(live.memory_mb) * 100_000 / i64::from(instance.facts.memory_mb.max(1));
            }
        }
        let share = |sum: i64, of: i64| sum.checked_div(of);
        let queue = i64::from(waiting(snapshot, solution));
        let values = [
            ("cpu", share(cpu, machines)),
            ("memory", share(memory, machines)),
            ("slots", share(used * 100_000, slots)),
            ("queue", Some(queue * 1_000)),
        ];
        for (name, value) in values {
            let Some(value) = value else { continue };
            let all = self.values.entry(name).or_default();
            all.push_front(Milli(value));
            all.truncate(MINUTES_MAX);
        }
    }

    /// The values of whole periods of an element's metric, newest first.
    fn periods(&self, name: &str, period_s: u32, statistic: Statistic) -> Vec<Milli> {
        let minutes = usize::try_from(period_s.div_ceil(EVERY_S)).unwrap_or(1).max(1);
        let all: Vec<i64> = self.values.get(name).into_iter().flatten().map(|value| value.0).collect();
        let of = |period: &[i64]| {
            let count = i64::try_from(period.len()).unwrap_or(1);
            match statistic {
                Statistic::Average => period.iter().sum::<i64>() / count,
                Statistic::Sum => period.iter().sum(),
                Statistic::Maximum => period.iter().copied().max().unwrap_or(0),
                Statistic::Minimum => period.iter().copied().min().unwrap_or(0),
            }
        };
        all.chunks_exact(minutes).map(|period| Milli(of(period))).collect()
    }
}

/// How many machines an element wants now, and why.
pub(super) fn wanted(
    snapshot: &Snapshot,
    solution: &SolutionId,
    element: &Element,
    measured: &mut Measured,
    now: Timestamp,
) -> (u32, String) {
    measured.measure(snapshot, solution);
    let count = |states| u32::try_from(snapshot.machines_in(solution, states).count()).unwrap_or(u32::MAX);
    let machines = count(InstanceState::Wanted..=InstanceState::Ready);
    let empty = snapshot.index.free_machines.iter();
    let empty = empty.filter(|(_, id)| snapshot.instances.get(id).is_some_and(|i| i.solution == *solution));
    let series = element
        .metrics
        .iter()
        .map(|(name, metric)| (name.clone(), measured.periods(name, metric.period_s, metric.statistic)));
    let metrics = Metrics {
        machines,
        empty: u32::try_from(empty.count()).unwrap_or(u32::MAX),
        series: series.filter(|(_, values)| !values.is_empty()).collect(),
        ..Metrics::default()
    };
    let changes = snapshot.changes.get(solution).copied().unwrap_or_default();
    let scale = evaluate(element, &metrics, &changes, now);
    let target = match scale {
        Scale::Up { machines: more, .. } => machines.saturating_add(more),
        Scale::Down { machines: fewer, .. } => machines.saturating_sub(fewer),
        Scale::Stay(_) => machines,
    };
    (target, format!("scaling element '{}': {scale}", element.name))
}
