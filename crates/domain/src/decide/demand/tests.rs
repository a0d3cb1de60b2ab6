use super::*;
use crate::instance::{InstanceFacts, InstanceState, Live};
use crate::quantity::NanoUsd;
use crate::solution::{FreeAgents, Machines, Solution, SolutionKind};
use crate::task::{RunningMode, TaskSpec};
use crate::testing::{Scene, dedicated, facts, shared, task};

/// A scene whose demand is followed as the engine does, and whose machines come when they are wanted.
struct Followed {
    scene: Scene,
    demands: Demands,
    said: Vec<Event>,
    runs: BTreeMap<crate::id::AttemptKey, Timestamp>,
    traffic: BTreeMap<InstanceId, Traffic>,
}

fn cloud(price: i64, change: impl FnOnce(&mut Machines)) -> Solution {
    let mut solution = dedicated("cloud", price);
    let SolutionKind::Dedicated(facts_of) = &mut solution.kind else { panic!() };
    let mut machines =
        Machines { idle_ms: 300_000, ..crate::testing::machines(0, 40, InstanceFacts { cpus: 4, ..facts(4) }) };
    change(&mut machines);
    facts_of.machines = Some(machines);
    solution
}

/// Work for both kinds, known to be short.
fn both() -> TaskSpec {
    TaskSpec {
        expected_run_ms: Some(20_000),
        longest_run_ms: Some(60_000),
        running_mode: RunningMode::Auto,
        ..task("t")
    }
}

impl Followed {
    fn new(solutions: impl IntoIterator<Item = Solution>) -> Self {
        let mut scene = Scene::default();
        solutions.into_iter().for_each(|solution| scene.solution(solution));
        Self {
            scene,
            demands: Demands::new(Zones(zones)),
            said: Vec::new(),
            runs: BTreeMap::new(),
            traffic: BTreeMap::new(),
        }
    }

    fn happen(&mut self, events: Vec<Event>) {
        let now = self.scene.now;
        for event in self.scene.happen(events) {
            self.demands.observe(&event, now);
        }
    }

    fn start(&mut self, task: TaskSpec) {
        self.scene.start_task(task);
    }

    /// One turn: what is due ends, machines wanted for `boot_ms` come, demand is looked at, the plan is carried out.
    fn turn(&mut self, boot_ms: u64) -> crate::decide::Plan {
        let now = self.scene.now;
        let due: Vec<_> = self.runs.iter().filter(|(_, end)| **end <= now).map(|(key, _)| *key).collect();
        for attempt in due {
            self.runs.remove(&attempt);
            let end = AttemptEnd { run_ms: 20_000, ..AttemptEnd::bare(crate::attempt::EndCause::Succeeded) };
            self.happen(vec![Event::Ended { attempt, end, then: Then::End(crate::session::ItemEnd::Succeeded) }]);
        }
        let instances: Vec<_> = self.scene.snapshot.instances.values().cloned().collect();
        for i in instances {
            if i.state == InstanceState::Wanted && now.ms_since(i.since) >= boot_ms {
                let (instance, solution, facts) = (i.id.clone(), i.solution.clone(), i.facts.clone());
                self.happen(vec![Event::InstanceReady { instance, solution, facts, boot: "b".into() }]);
                self.scene.snapshot.set_live(&i.id, Live { connected: true, ..Live::default() });
            } else if i.state == InstanceState::Ending {
                self.happen(vec![Event::InstanceGone { instance: i.id, why: String::new() }]);
            }
        }
        self.demands.arrivals(&self.scene.snapshot, &self.scene.policy, now);
        self.scene.snapshot.take_changes();
        let said = self.demands.look(&self.scene.snapshot, &self.scene.policy, now);
        self.said.extend(said.clone());
        self.happen(said);
        let plan = self.scene.decide();
        for placed in &plan.assignments {
            let end = now.after_ms(20_000);
            self.runs.insert(placed.item.attempt(placed.number), end);
        }
        let turn = self.scene.snapshot.turn + 1;
        let events = plan.clone().into_events(&self.scene.snapshot, turn, now);
        self.happen(events);
        plan
    }

    fn machines(&self) -> usize {
        let all = self.scene.snapshot.instances.values();
        all.filter(|i| i.machine.is_some() && i.state < InstanceState::Draining).count()
    }
}

/// Steady work: functions bridge the start, then as many machines as it is worth take it; when it ends they go.
#[test]
fn functions_bridge_until_machines_that_are_worth_it_come_and_machines_go_when_the_work_does() {
    // 10,000 nano-USD a GB-s is 36,000,000 an hour for each item; a machine of four slots costs half of four.
    let mut world = Followed::new([cloud(72_000_000, |_| ()), shared("fn", 10_000, 900_000, 1_000)]);
    let (mut in_gateway, mut on_machines) = (0_u32, 0_u32);
    for second in 0..2_400_u64 {
        if second < 1_800 && second % 2 == 0 {
            world.start(TaskSpec { needs: crate::needs::Needs { memory_mb: 1_024, ..both().needs }, ..both() });
        }
        for placed in world.turn(40_000).assignments {
            match placed.place {
                Place::Gateway(_) => in_gateway += 1,
                Place::Instance(_) => on_machines += u32::from(second > 900),
            }
        }
        if second == 30 {
            assert!(in_gateway >= 10, "nobody waits for machines that boot: {in_gateway}");
        }
        if second == 1_700 {
            // Ten items at a time: three machines of four hold them.
            assert!((2..=3).contains(&world.machines()), "{}", world.machines());
        }
        world.scene.after_ms(1_000);
    }
    assert!(on_machines > 400, "half an hour of it ran on machines: {on_machines} of 450, {in_gateway} elsewhere");
    assert_eq!(world.machines(), 0, "what is worth nothing goes");
    let said = world.said.iter().filter(|e| matches!(e, Event::CapacitySet { .. })).count();
    assert!(said < 2_400 / 15, "what did not change is not said again: {said}");
}

#[test]
fn prices_alone_decide_where_people_want_that() {
    for (price, machines) in [(72_000_000, true), (300_000_000, false)] {
        let mut world = Followed::new([cloud(price, |_| ()), shared("fn", 10_000, 900_000, 1_000)]);
        world.scene.policy.capacity.rule = super::super::policy::CapacityRule::Price;
        let one = TaskSpec { needs: crate::needs::Needs { memory_mb: 1_024, ..both().needs }, array: 8, ..both() };
        world.start(one);
        world.turn(0);
        assert_eq!(world.machines() > 0, machines, "a machine for {price}");
    }
}

#[test]
fn what_finds_no_room_in_a_full_shared_solution_gets_machines_whatever_they_cost() {
    let mut world = Followed::new([cloud(10_000_000_000, |_| ()), shared("fn", 10, 900_000, 4)]);
    world.start(TaskSpec { array: 12, ..both() });
    world.turn(0);
    assert_eq!(world.machines(), 2, "eight items beyond the four of the function");

    let mut dear = cloud(11_000_000_000, |_| ());
    dear.id = crate::testing::name("dear");
    let mut world = Followed::new([cloud(10_000_000_000, |_| ()), dear, shared("fn", 10, 900_000, 4)]);
    world.scene.policy.capacity.family.fixed = Some(super::super::capacity::Rule::None);
    let until = world.scene.now.after_ms(60_000);
    world.happen(vec![Event::SolutionAvoided {
        solution: crate::testing::name("cloud"),
        until,
        why: "no capacity".into(),
    }]);
    world.start(TaskSpec { array: 12, ..both() });
    world.turn(0);
    assert_eq!(world.machines(), 2, "of the other cloud, while the first has none");
}

#[test]
fn free_agents_are_refilled_when_one_is_taken_and_the_rest_go() {
    let free = FreeAgents { min: 2, max: Some(3), ..FreeAgents::default() };
    let mut world = Followed::new([cloud(1, |m| m.free = free.clone())]);
    for _ in 0..3 {
        world.turn(0);
    }
    assert_eq!(world.machines(), 2);
    world.start(TaskSpec { running_mode: RunningMode::Dedicated, ..both() });
    for _ in 0..3 {
        world.turn(0);
    }
    assert_eq!(world.machines(), 3, "one is held, two are free");
    for _ in 0..400 {
        world.scene.after_ms(1_000);
        world.turn(0);
    }
    assert_eq!(world.machines(), 2, "held no more, and idle for long: two stay");
    let mut quota = Followed::new([cloud(1, |m| (m.free, m.cpus_max) = (free.clone(), Some(7)))]);
    for _ in 0..3 {
        quota.turn(0);
    }
    assert_eq!(quota.machines(), 1, "a quota of seven CPUs holds one machine of four");
}

#[test]
fn thresholds_say_it_where_people_gave_some_and_demand_is_on_record() {
    use super::super::threshold::{Threshold, Thresholds};
    let thresholds = Thresholds { up: Threshold::Free(4), down: Threshold::Free(9), ..Thresholds::default() };
    let mut world = Followed::new([cloud(1, |m| (m.thresholds, m.idle_ms) = (Some(thresholds), 0))]);
    // A value is taken every minute: what starts now is there at the second.
    for _ in 0..105 {
        world.turn(0);
        world.scene.after_ms(1_000);
    }
    assert_eq!(world.machines(), 1, "four slots are to be free");
    world.start(TaskSpec { running_mode: RunningMode::Dedicated, array: 3, ..both() });
    for _ in 0..120 {
        world.turn(0);
        world.scene.after_ms(1_000);
    }
    let peak = world.said.iter().filter_map(|e| match e {
        Event::DemandSeen { seen, .. } => Some(seen.now_slots),
        _ => None,
    });
    assert_eq!(peak.max(), Some(3));
    assert!(world.machines() <= 2, "{}", world.machines());
}

/// Batches of one item at a time waste three slots of four: the small machine wins although its slot is no cheaper.
#[test]
fn the_size_of_machine_that_costs_least_is_made() {
    use crate::solution::MachineSize;
    let small = MachineSize {
        price_per_hour: NanoUsd(18_000_000),
        facts: InstanceFacts { instance_type: Some("small".into()), cpus: 1, ..facts(1) },
    };
    let mut world = Followed::new([cloud(72_000_000, |m| m.sizes = vec![small]), shared("fn", 10_000, 900_000, 1_000)]);
    let needs = crate::needs::Needs { memory_mb: 1_024, ..both().needs };
    let mut made = Vec::new();
    for second in 0..5_400_u64 {
        if second % 20 == 0 {
            world.start(TaskSpec { needs: needs.clone(), ..both() });
        }
        let plan = world.turn(40_000);
        made.extend(plan.wanted.into_iter().map(|machine| machine.facts.instance_type));
        world.scene.after_ms(1_000);
    }
    let alive = world.scene.snapshot.instances.values();
    let alive: Vec<_> =
        alive.filter(|i| i.state == InstanceState::Ready).map(|i| i.facts.instance_type.clone()).collect();
    assert!(alive.iter().all(|size| size.as_deref() == Some("small")), "{alive:?} of {made:?}");
    assert!(!alive.is_empty());
    // Dedicated work goes to the size at which an item costs least, too.
    let mut only = TaskSpec { running_mode: RunningMode::Dedicated, ..both() };
    only.needs.memory_mb = 900;
    let big = MachineSize {
        price_per_hour: NanoUsd(1_000_000),
        facts: InstanceFacts { instance_type: Some("big".into()), cpus: 16, memory_mb: 1_024, ..facts(16) },
    };
    let mut world = Followed::new([cloud(72_000_000, |m| m.sizes = vec![big])]);
    world.start(only);
    let wanted = world.turn(0).wanted;
    assert_eq!(wanted.iter().map(|m| m.facts.instance_type.as_deref()).collect::<Vec<_>>(), [Some("big")]);
}

#[test]
fn a_shared_solution_is_told_what_comes_and_never_to_keep_less_than_works_there() {
    let with = |min_warm, warm_max| {
        let mut function = shared("fn", 10_000, 900_000, 1_000);
        let SolutionKind::Shared(facts) = &mut function.kind else { panic!() };
        (facts.min_warm, facts.warm_max, facts.keepalive_ms) = (min_warm, warm_max, 60_000);
        function
    };
    let mut world = Followed::new([dedicated("own", 0), with(1, 5)]);
    world.scene.instance("a", "own", facts(1));
    let one = TaskSpec { array: 4, ..both() };
    world.start(one);
    let told = |plan: crate::decide::Plan| plan.warm.iter().map(|w| w.warm).collect::<Vec<_>>();
    // One runs on the own server, three wait for it and will go to the function.
    assert_eq!(told(world.turn(0)), [3]);
    let (mut all, mut least) = (Vec::new(), u32::MAX);
    for _ in 0..200 {
        world.scene.after_ms(1_000);
        let open = world.scene.snapshot.open_in(&crate::testing::name("fn"));
        let warm = told(world.turn(0));
        least = warm.iter().copied().filter(|_| open > 0).min().unwrap_or(least).min(least);
        all.extend(warm);
    }
    assert_eq!(all.last(), Some(&1), "released to what is always kept: {all:?}");
    assert!(least >= 1, "{least}");
    world.start(TaskSpec { running_mode: RunningMode::Serverless, array: 4, ..both() });
    world.turn(0);
    assert!(!super::super::reserve::may_keep(&world.scene.snapshot, &crate::testing::name("fn"), 1), "four work there");
}

/// The element's own words: more when items wait, fewer when slots are idle, within its limits and after its cooldowns.
#[test]
fn a_scaling_element_is_carried_out_on_own_machines() {
    let element = Arc::new(element(serde_json::json!({
        "metrics": {"queue": {"unit": "count", "statistic": "maximum"}, "slots": {"unit": "percent"}},
        "group": {"min": 1, "max": 5, "cooldown_s": 60},
        "alarms": {
            "behind": {"metric": "queue", "comparison": "above", "threshold": 2, "periods": 1},
            "idle": {"metric": "slots", "comparison": "below", "threshold": 20, "periods": 2},
        },
        "policies": {
            "more": {"kind": "simple", "alarm": "behind", "change": 2, "cooldown_s": 60},
            "fewer": {"kind": "simple", "alarm": "idle", "change": -1, "cooldown_s": 60},
        },
    })));
    let mut world = Followed::new([cloud(1, |m| m.element = Some(element.clone()))]);
    let (mut most, mut seen) = (0, Vec::new());
    for second in 0..3_000_u64 {
        if second == 100 {
            world.start(TaskSpec { running_mode: RunningMode::Dedicated, array: 400, ..both() });
        }
        world.turn(30_000);
        most = most.max(world.machines());
        if second % 60 == 59 {
            seen.push(i64::try_from(world.machines()).unwrap());
        }
        world.scene.after_ms(1_000);
    }
    assert_eq!((seen[0], most, seen.last()), (1, 5, Some(&1)), "{seen:?}");
    let steps: Vec<i64> = seen.windows(2).map(|pair| pair[1] - pair[0]).filter(|step| *step != 0).collect();
    assert!(steps.iter().all(|step| *step == 2 || *step == -1), "as its policies say: {steps:?}");
}

/// Summer.
fn zones(name: &str, _: Timestamp) -> Option<i32> {
    [("UTC", 0), ("Europe/Paris", 7_200)].into_iter().find(|(zone, _)| *zone == name).map(|(_, ahead_s)| ahead_s)
}

fn is_zone(name: &str) -> bool {
    zones(name, Timestamp(0)).is_some()
}

fn element(rest: serde_json::Value) -> crate::scaling::Element {
    let mut element = serde_json::json!({
        "name": "render",
        "launch": {"image": {"name": "render"}, "instance_type": "any"},
        "group": {"min": 1, "max": 8, "cooldown_s": 0},
    });
    element.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    let element: crate::scaling::Element = serde_json::from_value(element).unwrap();
    element.check().and_then(|()| element.check_here(is_zone)).unwrap();
    element
}

/// Minutes of an element on own machines: `each` says something before every minute. Machines after each.
fn minutes(element: crate::scaling::Element, count: u32, mut each: impl FnMut(u32, &mut Followed)) -> Vec<usize> {
    let element = Arc::new(element);
    let mut world = Followed::new([cloud(1, |m| m.element = Some(element.clone()))]);
    let mut seen = Vec::new();
    for minute in 0..count {
        each(minute, &mut world);
        for _ in 0..2 {
            world.turn(30_000);
            world.scene.after_ms(30_000);
        }
        seen.push(world.machines());
    }
    seen
}

fn says(world: &mut Followed, metric: &str, value: i64) {
    let value = crate::scaling::Milli::units(value);
    let (metric, by) = (metric.to_owned(), crate::testing::name("ana"));
    world.happen(vec![Event::MetricSaid { metric, solution: None, value, by }]);
}

/// Values of a minute become one by the metric's statistic; a minute without any is no value: no alarm holds over it.
#[test]
fn a_custom_metric_scales_own_machines_by_what_is_said() {
    let orders = element(serde_json::json!({
        "metrics": {"orders": {"unit": "count", "statistic": "sum"}},
        "alarms": {
            "many": {"metric": "orders", "comparison": "above", "threshold": 100, "periods": 2},
            "few": {"metric": "orders", "comparison": "below", "threshold": 10, "periods": 1},
        },
        "policies": {
            "more": {"kind": "simple", "alarm": "many", "change": 2, "cooldown_s": 0},
            "fewer": {"kind": "simple", "alarm": "few", "change": -2, "cooldown_s": 0},
        },
    }));
    let seen = minutes(orders, 16, |minute, world| match minute {
        // 60 and 60 are above 100, but only in every second minute.
        2 | 4 => (0..2).for_each(|_| says(world, "orders", 60)),
        6 | 7 => (0..2).for_each(|_| says(world, "orders", 60)),
        12 => says(world, "orders", 3),
        _ => {}
    });
    assert_eq!((seen[5], seen[8], seen[11], seen[15]), (1, 3, 3, 1), "{seen:?}");
}

/// Who was told that it is taken is not forgotten because nobody had looked yet.
#[test]
fn a_value_said_as_soon_as_there_is_an_element_counts() {
    let each = element(serde_json::json!({
        "metrics": {"orders": {"unit": "count"}},
        "policies": {"each": {"kind": "target", "metric": "orders", "target": 10}},
    }));
    let mut world = Followed::new([cloud(1, |_| ())]);
    world.turn(0);
    world.happen(vec![Event::SolutionSet { solution: cloud(1, |m| m.element = Some(Arc::new(each))) }]);
    says(&mut world, "orders", 40);
    world.scene.after_ms(61_000);
    world.turn(0);
    assert_eq!(world.machines(), 4);
}

/// What machines count since they boot becomes bytes a minute and machine.
#[test]
fn traffic_of_own_machines_is_a_metric() {
    let busy = element(serde_json::json!({
        "metrics": {"network_in": {"unit": "bytes"}},
        "policies": {"each": {"kind": "target", "metric": "network_in", "target": 1_000_000, "scale_in": false}},
    }));
    let seen = minutes(busy, 8, |minute, world| {
        let ready = world.scene.snapshot.instances.values().filter(|i| i.state == InstanceState::Ready);
        let ids: Vec<InstanceId> = ready.map(|i| i.id.clone()).collect();
        let each = if minute < 5 { 900_000 } else { 3_000_000 / ids.len().max(1) as u64 };
        for id in ids {
            // Since it booted: an hour's worth was there before anybody looked.
            let counted =
                world.traffic.entry(id.clone()).or_insert(Traffic { network_in: 1 << 40, ..Traffic::default() });
            counted.network_in += each;
            world.demands.counted(&id, *counted);
        }
    });
    assert_eq!((seen[4], seen.last()), (1, Some(&3)), "{seen:?}");
}

/// Nine in Paris is seven in UTC in summer.
#[test]
fn a_schedule_goes_by_its_own_time_zone() {
    let nine = element(serde_json::json!({
        "policies": {"day": {"kind": "scheduled", "at": {"days": ["wednesday"], "hour": 9, "minute": 0},
                              "zone": "Europe/Paris", "for_s": 3_600, "min": 4}},
    }));
    // Wednesday, 2026-07-15, 06:00 UTC.
    let seen = minutes(nine, 180, |minute, world| {
        if minute == 0 {
            world.scene.now = Timestamp(1_784_095_200_000_000);
        }
    });
    assert_eq!((seen[58], seen[62], seen[118]), (1, 4, 4), "{seen:?}");
}

/// A load that grows by as much every minute: the machines for what comes are there before it does.
#[test]
fn a_predictive_policy_has_machines_ahead() {
    let grows = |policy: serde_json::Value| {
        let element = element(serde_json::json!({
            "metrics": {"load": {"unit": "count"}},
            "policies": {"ahead": policy},
        }));
        // The load of all is 2 more each minute, and each machine is to have 10.
        minutes(element, 25, |minute, world| {
            let there = i64::try_from(world.machines().max(1)).unwrap();
            says(world, "load", i64::from(minute) * 2 / there);
        })
    };
    let follows = grows(serde_json::json!({"kind": "target", "metric": "load", "target": 10, "scale_in": false}));
    let ahead = grows(serde_json::json!({"kind": "predictive", "metric": "load", "target": 10, "ahead_s": 600}));
    let first = |seen: &[usize], machines| seen.iter().position(|there| *there >= machines).unwrap();
    assert!(first(&ahead, 4) + 3 <= first(&follows, 4), "{ahead:?} {follows:?}");
}

#[test]
fn what_the_engine_cannot_carry_out_is_refused_by_name() {
    let bad = |change: fn(&mut crate::scaling::Element)| {
        let mut element = element(serde_json::json!({
            "metrics": {"orders": {"unit": "count"}},
            "alarms": {"many": {"metric": "orders", "comparison": "above", "threshold": 1}},
            "policies": {"day": {"kind": "scheduled", "at": {"days": ["monday"], "hour": 9, "minute": 0}, "min": 2}},
        }));
        change(&mut element);
        element.check().unwrap();
        element.check_here(is_zone).unwrap_err().field
    };
    let zone = |element: &mut crate::scaling::Element| {
        let Some(crate::scaling::Policy::Scheduled { zone, .. }) = element.policies.get_mut("day") else { panic!() };
        "Europe/Parris".clone_into(zone);
    };
    assert_eq!(bad(zone), "policies.day.zone");
    let long = |element: &mut crate::scaling::Element| {
        element.metrics.get_mut("orders").unwrap().period_s = 3_600;
        element.alarms.get_mut("many").unwrap().periods = 200;
    };
    assert_eq!(bad(long), "metrics.orders.period_s");
}

/// The configuration is re-read live: a family made with other settings is not followed any longer.
#[test]
fn another_rule_holds_from_the_moment_it_is_set() {
    let mut world = Followed::new([cloud(72_000_000, |_| ()), shared("fn", 10_000, 900_000, 1_000)]);
    world.scene.policy.capacity.family.fixed = Some(super::super::capacity::Rule::None);
    let one = TaskSpec { needs: crate::needs::Needs { memory_mb: 1_024, ..both().needs }, array: 8, ..both() };
    world.start(one.clone());
    world.turn(0);
    assert_eq!(world.machines(), 0);
    world.scene.policy.capacity = super::super::policy::CapacityPolicy {
        rule: super::super::policy::CapacityRule::Price,
        ..super::super::policy::CapacityPolicy::default()
    };
    let policy = Box::new(world.scene.policy.clone());
    world.happen(vec![Event::PolicySet { policy }]);
    world.start(one);
    world.turn(0);
    assert!(world.machines() > 0, "a slot costs less than an invocation");
}

/// Two clouds that could both take an item would both be paid if both made a machine for it.
#[test]
fn what_waits_asks_one_cloud_for_machines_the_cheapest_that_may_have_more() {
    let two = |spread_ppm, avoided: bool| {
        let mut dear = cloud(220_000_000, |m| m.max = 9);
        dear.id = crate::testing::name("dear");
        let mut world = Followed::new([dear, cloud(200_000_000, |m| m.max = 2)]);
        world.scene.policy.goals.spread_ppm = spread_ppm;
        if avoided {
            let until = world.scene.now.after_ms(3_600_000);
            let solution = crate::testing::name("cloud");
            world.happen(vec![Event::SolutionAvoided { solution, until, why: "no capacity".into() }]);
        }
        move |items| {
            world.start(TaskSpec { running_mode: RunningMode::Dedicated, array: items, ..both() });
            (0..4).for_each(|_| drop(world.turn(30_000)));
            let all = world.scene.snapshot.instances.values().map(|i| i.solution.to_string());
            let all: Vec<String> = all.collect();
            let of = |id: &str| all.iter().filter(|solution| *solution == id).count();
            (of("cloud"), of("dear"))
        }
    };
    let mut world = two(0, false);
    assert_eq!(world(4), (1, 0), "the cheapest");
    assert_eq!(world(3), (2, 0), "what is coming is full");
    assert_eq!(world(1), (2, 0), "what is coming has room");
    assert_eq!(world(9), (2, 3), "it has all that it may have");
    assert_eq!(two(0, true)(8), (0, 2), "it is left in peace");
    assert_eq!(two(200_000, false)(8), (1, 1), "vendors that cost about the same take turns");
    assert_eq!(two(50_000, false)(8), (2, 0), "this one costs a tenth more");
}

/// What a class is worth machines for is not lost with one cloud: what it may not have, the next cheapest makes.
#[test]
fn what_the_best_cloud_may_not_have_another_makes() {
    let made = |max, avoided: bool| {
        let mut dear = cloud(80_000_000, |m| m.max = 9);
        dear.id = crate::testing::name("dear");
        let mut world = Followed::new([dear, cloud(72_000_000, |m| m.max = max), shared("fn", 10_000, 900_000, 1_000)]);
        for second in 0..900_u64 {
            if avoided && second % 60 == 0 {
                let (solution, until) = (crate::testing::name("cloud"), world.scene.now.after_ms(90_000));
                world.happen(vec![Event::SolutionAvoided { solution, until, why: "no capacity".into() }]);
            }
            if second % 2 == 0 {
                world.start(TaskSpec { needs: crate::needs::Needs { memory_mb: 1_024, ..both().needs }, ..both() });
            }
            world.turn(40_000);
            world.scene.after_ms(1_000);
        }
        let all = world.scene.snapshot.instances.values().filter(|i| i.state < InstanceState::Draining);
        let (cheap, dear): (Vec<_>, Vec<_>) = all.partition(|i| i.solution.as_str() == "cloud");
        (cheap.len(), dear.len())
    };
    // Ten items at a time: three machines of four hold them.
    assert_eq!(made(40, false).1, 0, "the cheapest has room");
    assert!(matches!(made(1, false), (1, 1..=2)), "{:?}", made(1, false));
    assert!(matches!(made(40, true), (0, 2..=3)), "{:?}", made(40, true));
}
