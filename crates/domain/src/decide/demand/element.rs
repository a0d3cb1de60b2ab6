//! A scaling element, carried out on a solution's own machines: its metrics are measured here once a minute, and what
//! its policies want becomes an event that `scale` goes by.
//!
//! ```text
//! heartbeats (CPU, memory, bytes since boot) --+
//! the snapshot (slots, items that wait) -------+--each minute--> Measured --periods--> series ----+
//! said by people and programs (custom) --------+                    \--forecasts--> projected --+--> evaluate --> event
//! ```
//! Failure paths: a machine that is not connected or not warm yet says nothing; a minute for which nothing was said is a gap, and a
//! period of gaps only ends the series there, so that no alarm holds over it; after a restart everything is measured
//! anew, and a forecast says nothing before it was right or wrong once.

use std::collections::{BTreeMap, VecDeque};

use super::super::forecast::{Forecaster, Season};
use super::super::snapshot::Snapshot;
use super::super::threshold::Scale;
use super::seen::waiting;
use crate::id::{InstanceId, SolutionId};
use crate::instance::{InstanceState, Traffic};
use crate::quantity::Timestamp;
use crate::scaling::{self, Element, Metric, Metrics, Milli, Policy, Statistic, evaluate};

/// A value every so often, s.
const EVERY_S: u32 = 60;
/// Machines of a predictive policy are there so long before they are needed, s, where it does not say.
/// <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_PredictiveScalingConfiguration.html>
/// (`SchedulingBufferTime`).
const AHEAD_S: u32 = 300;

/// A metric of an element that is carried out here, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementMetric {
    /// Whose machines.
    pub solution: SolutionId,
    /// The element's name.
    pub element: String,
    /// The metric's name.
    pub name: String,
    /// What the element says of it.
    pub metric: Metric,
    /// People and programs say its values.
    pub custom: bool,
    /// Of the newest whole period; none: nothing was measured or said in it.
    pub value: Option<Milli>,
}

/// Who knows time zones. Their database is not for functions that read nothing: the engine gives this.
#[derive(Clone, Copy)]
pub struct Zones(pub fn(&str, Timestamp) -> Option<i32>);

impl Default for Zones {
    /// UTC and no other.
    fn default() -> Self {
        Self(|name, _| (name == "UTC").then_some(0))
    }
}

impl Zones {
    /// Seconds that a zone's clocks are ahead of UTC at a moment; nothing when there is no such zone.
    pub fn ahead_s(self, name: &str, at: Timestamp) -> Option<i32> {
        self.0(name, at)
    }
}

/// Values of one minute.
#[derive(Debug, Clone, Copy)]
struct Minute {
    sum: i64,
    count: i64,
    least: i64,
    most: i64,
}

impl Minute {
    fn one(value: Milli) -> Self {
        Self { sum: value.0, count: 1, least: value.0, most: value.0 }
    }

    fn and(self, other: Self) -> Self {
        Self {
            sum: self.sum.saturating_add(other.sum),
            count: self.count + other.count,
            least: self.least.min(other.least),
            most: self.most.max(other.most),
        }
    }

    fn as_one(self, statistic: Statistic) -> Milli {
        Milli(match statistic {
            Statistic::Average => self.sum / self.count.max(1),
            Statistic::Sum => self.sum,
            Statistic::Maximum => self.most,
            Statistic::Minimum => self.least,
        })
    }
}

/// Values of one solution's machines.
#[derive(Default)]
pub(super) struct Measured {
    /// Newest first, one a minute; none where nothing was measured or said.
    values: BTreeMap<String, VecDeque<Option<Minute>>>,
    /// Said since the last minute.
    said: BTreeMap<String, Minute>,
    /// What machines had counted when they were looked at last.
    counted: BTreeMap<InstanceId, Traffic>,
    forecasts: BTreeMap<String, Forecaster>,
}

impl Measured {
    /// A value of a custom metric.
    pub(super) fn said(&mut self, metric: &str, value: Milli) {
        let value = Minute::one(value);
        self.said.entry(metric.to_owned()).and_modify(|all| *all = all.and(value)).or_insert(value);
    }

    /// Measures now what the element names, and takes what was said since the last time. A machine that is not
    /// connected, or not warm yet, says nothing.
    fn measure(
        &mut self,
        snapshot: &Snapshot,
        solution: &SolutionId,
        element: &Element,
        traffic: &BTreeMap<InstanceId, Traffic>,
        now: Timestamp,
    ) {
        let warm_up_us = u64::from(element.warm_up_s()) * 1_000_000;
        let mut minute: BTreeMap<&str, Minute> =
            self.said.iter().map(|(name, minute)| (name.as_str(), *minute)).collect();
        let mut add = |name, value| {
            let value = Minute::one(Milli(value));
            minute.entry(name).and_modify(|all| *all = all.and(value)).or_insert(value);
        };
        let (mut slots, mut used) = (0_i64, 0_i64);
        let mut counted = BTreeMap::new();
        let ready = snapshot.machines_in(solution, InstanceState::Ready..=InstanceState::Ready);
        for instance in ready.filter_map(|id| snapshot.instances.get(id)) {
            let (live, load) = (snapshot.live(&instance.id), snapshot.load_of(&instance.id));
            slots += i64::from(instance.facts.slots);
            used += i64::from(load.slots);
            if !live.connected || now.us_since(instance.since) < warm_up_us {
                continue;
            }
            add("cpu", i64::from(live.cpu_percent) * 1_000);
            add("memory", i64::from(live.memory_mb) * 100_000 / i64::from(instance.facts.memory_mb.max(1)));
            let Some(bytes) = traffic.get(&instance.id) else { continue };
            if let Some(before) = self.counted.get(&instance.id) {
                for (name, bytes) in bytes.since(before) {
                    add(name, i64::try_from(bytes).unwrap_or(i64::MAX).saturating_mul(1_000));
                }
            }
            counted.insert(instance.id.clone(), *bytes);
        }
        if slots > 0 {
            add("slots", used * 100_000 / slots);
        }
        add("queue", i64::from(waiting(snapshot, solution)) * 1_000);
        for name in element.metrics.keys() {
            let all = self.values.entry(name.clone()).or_default();
            all.push_front(minute.get(name.as_str()).copied());
            all.truncate(usize::try_from(element.looks_back_minutes(name)).unwrap_or(usize::MAX));
        }
        self.values.retain(|name, _| element.metrics.contains_key(name));
        self.counted = counted;
        self.said.clear();
    }

    /// The values of whole periods of an element's metric, newest first, up to the first without a value.
    fn periods(&self, name: &str, period_s: u32, statistic: Statistic) -> Vec<Milli> {
        let minutes = usize::try_from(period_s.div_ceil(EVERY_S)).unwrap_or(1).max(1);
        let all: Vec<Option<Minute>> = self.values.get(name).into_iter().flatten().copied().collect();
        let of = |period: &[Option<Minute>]| {
            let all = period.iter().flatten().copied().reduce(Minute::and)?;
            Some(all.as_one(statistic))
        };
        all.chunks_exact(minutes).map_while(of).collect()
    }

    /// Every metric of an element, as it stands.
    pub(super) fn seen(&self, solution: &SolutionId, element: &Element) -> Vec<ElementMetric> {
        let of = |(name, metric): (&String, &Metric)| ElementMetric {
            solution: solution.clone(),
            element: element.name.clone(),
            name: name.clone(),
            metric: metric.clone(),
            custom: element.custom().any(|custom| custom == name),
            value: self.periods(name, metric.period_s, metric.statistic).first().copied(),
        };
        element.metrics.iter().map(of).collect()
    }

    /// Upper bounds of what is projected, for the machines that are there.
    ///
    /// A mean over machines halves when machines double, so what is projected is the load: the mean times the machines.
    fn projected(
        &mut self,
        element: &Element,
        series: &BTreeMap<String, Vec<Milli>>,
        machines: u32,
    ) -> BTreeMap<String, Milli> {
        let mut ahead: BTreeMap<&str, u32> = BTreeMap::new();
        for policy in element.policies.values() {
            if let Policy::Predictive { metric, ahead_s, .. } = policy {
                let ahead_s = ahead_s.unwrap_or(AHEAD_S);
                ahead.entry(metric).and_modify(|most| *most = ahead_s.max(*most)).or_insert(ahead_s);
            }
        }
        self.forecasts.retain(|metric, _| ahead.contains_key(metric.as_str()));
        let there = i64::from(machines.max(1));
        let mut projected = BTreeMap::new();
        for (metric, ahead_s) in ahead {
            let Some(value) = series.get(metric).and_then(|values| values.first()) else { continue };
            let fresh = || Forecaster::new(Season::new(EVERY_S, ahead_s));
            let forecaster = self.forecasts.entry(metric.to_owned()).or_insert_with(fresh);
            forecaster.observe(value.0.saturating_mul(there));
            if let Some(forecast) = forecaster.forecast().filter(|forecast| forecast.accuracy.scored > 0) {
                projected.insert(metric.to_owned(), Milli(forecast.upper.max(0) / there));
            }
        }
        projected
    }
}

/// How many machines an element wants now, and why.
pub(super) fn wanted(
    snapshot: &Snapshot,
    solution: &SolutionId,
    element: &Element,
    measured: &mut Measured,
    (traffic, zones): (&BTreeMap<InstanceId, Traffic>, Zones),
    now: Timestamp,
) -> (u32, String) {
    measured.measure(snapshot, solution, element, traffic, now);
    let count = |states| u32::try_from(snapshot.machines_in(solution, states).count()).unwrap_or(u32::MAX);
    let machines = count(InstanceState::Wanted..=InstanceState::Ready);
    let empty = snapshot.index.free_machines.iter();
    let empty = empty.filter(|(_, id)| snapshot.instances.get(id).is_some_and(|i| i.solution == *solution));
    let series = element
        .metrics
        .iter()
        .map(|(name, metric)| (name.clone(), measured.periods(name, metric.period_s, metric.statistic)));
    let series: BTreeMap<String, Vec<Milli>> = series.filter(|(_, values)| !values.is_empty()).collect();
    let metrics = Metrics {
        machines,
        empty: u32::try_from(empty.count()).unwrap_or(u32::MAX),
        projected: measured.projected(element, &series, machines),
        series,
        zones_s: element.zones().filter_map(|zone| Some((zone.clone(), zones.ahead_s(zone, now)?))).collect(),
    };
    let changes = snapshot.changes.get(solution).copied().unwrap_or_default();
    let scale = evaluate(element, &metrics, &changes, now);
    // A change by the limits alone, of the group or of a schedule, is no policy's.
    let by =
        scaling::wanted(element, &metrics).policy.map_or("its limits".to_owned(), |name| format!("policy '{name}'"));
    let (target, why) = match scale {
        Scale::Up { machines: more, .. } => {
            (machines.saturating_add(more), format!("{more} more than {machines} by {by}"))
        }
        Scale::Down { machines: fewer, .. } => {
            (machines.saturating_sub(fewer), format!("{fewer} fewer than {machines} by {by}"))
        }
        Scale::Stay(_) => (machines, scale.to_string()),
    };
    (target, format!("scaling element '{}': {why}", element.name))
}
