//! Cases from seeds, and the question that the planner is asked for each.

use std::collections::{BTreeMap, BTreeSet};

use skein_domain::decide::deployment::{Host, Link, Question, Taken};
use skein_domain::group::{Availability, ElementKind, GroupDraft, Locality, MemberDraft, PipeDraft, Security, resolve};
use skein_domain::site::{Level, Spot};
use skein_domain::testing::Random;

use super::brute::{Case, Machine};

fn level(random: &mut Random) -> Level {
    // Sites are few: a rule about them is met seldom.
    random.pick(&[Level::Server, Level::Server, Level::Server, Level::Rack, Level::Rack, Level::Site])
}

fn machines(random: &mut Random) -> Vec<Machine> {
    let many = 2 + random.below(5);
    let one = |at: u64| {
        let (north, east, south) = (("n", Some("r1")), ("n", Some("r2")), ("s", Some("r1")));
        let unknown = [("own", None), ("cloud", None)];
        let (site, rack) = random.pick(&[north, north, north, east, east, east, south, south, unknown[0], unknown[1]]);
        Machine {
            site: site.to_owned(),
            rack: rack.map(str::to_owned),
            name: format!("m{at}"),
            cpus: 1 + random.below(5),
            memory: 1 + random.below(8),
            overcommit: if random.chance(25) { 200 } else { 100 },
            nic: random.chance(40).then(|| 5 + random.below(30)),
            others: random.chance(15),
            cloud: site == "cloud",
        }
    };
    (0..many).map(one).collect()
}

/// Assignments of most cases, at most: each of them is looked at.
const ASSIGNMENTS_MAX: u64 = 4096;

fn members(random: &mut Random, machines: &[Machine]) -> BTreeMap<String, MemberDraft> {
    let mut many = 2 + random.below(5);
    while !random.chance(4) && (machines.len() as u64).pow(u32::try_from(many).unwrap()) > ASSIGNMENTS_MAX {
        many -= 1;
    }
    let mut one = |at: u64| {
        let machine = random.pick(machines);
        let place = match random.below(3) {
            0 => machine.site.clone(),
            1 => machine.rack.as_ref().map_or_else(|| machine.site.clone(), |rack| format!("{}/{rack}", machine.site)),
            _ => machine.path(),
        };
        let draft = MemberDraft {
            kind: Some(ElementKind::Vm),
            at: random.chance(12).then_some(place),
            vcpus: Some(u32::try_from(random.below(3)).unwrap()),
            memory_mb: Some(random.below(4)),
            pinned: random.chance(20),
        };
        (format!("e{at}"), draft)
    };
    (0..many).map(&mut one).collect()
}

fn rules(random: &mut Random, group: &mut GroupDraft, leaves: usize) {
    let at_most = |random: &mut Random, most: usize| 1 + u32::try_from(random.below(most as u64)).unwrap();
    group.affinity = random.chance(20).then(|| level(random));
    group.diversity = random.chance(25).then(|| level(random));
    group.exclusivity = random.chance(12).then(|| level(random));
    if random.chance(12) {
        group.locality = Some(random.pick(&[Locality::SameMachine, Locality::Near, Locality::SamePlace]));
    }
    if random.chance(15) {
        let domains = at_most(random, leaves.min(3));
        let of = level(random);
        group.availability =
            Some(if random.chance(50) { Availability::Servers(domains) } else { Availability::Of { domains, of } });
    }
    if random.chance(10) {
        group.security = Some(if random.chance(70) { Security::Hypervisor } else { Security::Exclusive });
    }
    for number in 0..random.below(3) {
        let ends = (group.members.first().cloned(), group.members.get(1).cloned());
        let between = match ends {
            (Some(a), Some(b)) if random.chance(60) => Some(if random.chance(50) { (a, b) } else { (b, a) }),
            _ => None,
        };
        // Different bandwidths: a rule is found again by what it says.
        group.pipes.push(PipeDraft { between, mbps: 1 + 20 * number + random.below(19) });
    }
}

/// A case: groups partly nested in each other, every member in one of them at least.
pub(crate) fn case(random: &mut Random) -> Case {
    let machines = machines(random);
    let members = members(random, &machines);
    let mut uplinks = BTreeMap::new();
    for link in ["n", "s", "n/r1", "n/r2", "s/r1"] {
        if random.chance(40) {
            uplinks.insert(link.to_owned(), 10 + random.below(60));
        }
    }
    let names: Vec<String> = members.keys().cloned().collect();
    let mut case = Case { machines, uplinks, members, groups: Vec::new() };
    // Later groups may have earlier ones in them, as long as no leaf is in two members of one group.
    for number in 0..=random.below(3) {
        let mut group = GroupDraft { name: format!("g{number}"), ..GroupDraft::default() };
        let mut used = BTreeSet::new();
        for earlier in 0..number {
            let leaves: BTreeSet<String> = case.leaves(&format!("g{earlier}")).into_iter().map(str::to_owned).collect();
            if random.chance(50) && used.is_disjoint(&leaves) {
                used.extend(leaves);
                group.members.push(format!("g{earlier}"));
            }
        }
        group.members.extend(names.iter().filter(|name| !used.contains(*name) && random.chance(55)).cloned());
        if group.members.is_empty() {
            group.members.push(names[0].clone());
        }
        case.groups.push(group);
        let leaves = case.leaves(&format!("g{number}")).len();
        let mut group = case.groups.pop().unwrap();
        rules(random, &mut group, leaves);
        case.groups.push(group);
    }
    let grouped: BTreeSet<String> =
        case.groups.iter().flat_map(|group| case.leaves(&group.name)).map(str::to_owned).collect();
    case.members.retain(|name, _| grouped.contains(name));
    case
}

/// The same in another order.
pub(crate) fn mixed(case: &Case, random: &mut Random) -> Case {
    let mut mixed = case.clone();
    random.shuffle(&mut mixed.machines);
    random.shuffle(&mut mixed.groups);
    for group in &mut mixed.groups {
        random.shuffle(&mut group.members);
        random.shuffle(&mut group.pipes);
    }
    mixed
}

/// What the planner is asked.
pub(crate) fn question(case: &Case) -> Question {
    let groups = resolve(&case.groups, &case.members, &[]).unwrap_or_else(|wrong| panic!("{wrong} in {case:#?}"));
    let host = |machine: &Machine| {
        let known = match (&machine.rack, machine.cloud) {
            (Some(_), _) => Level::ALL.into(),
            (None, false) => BTreeSet::from([Level::Server]),
            (None, true) => BTreeSet::new(),
        };
        Host {
            spot: Spot {
                site: machine.site.as_str().into(),
                rack: machine.rack.as_deref().map(Into::into),
                server: machine.name.as_str().into(),
            },
            known,
            vcpus: u32::try_from(machine.cpus).unwrap(),
            memory_mb: machine.memory,
            overcommit_percent: u32::try_from(machine.overcommit).unwrap(),
            nic_mbps: machine.nic,
            taken: Taken { members: u32::from(machine.others), ..Taken::default() },
        }
    };
    let link = |(name, mbps): (&String, &u64)| (name.clone(), Link { mbps: Some(*mbps), taken_mbps: 0 });
    Question {
        groups,
        hosts: case.machines.iter().map(host).collect(),
        links: case.uplinks.iter().map(link).collect(),
        unfit: BTreeMap::new(),
    }
}

/// 200 members in 20 groups of ten (a pair near each other, all spread), on 100 servers in 10 racks in 2 sites.
pub(crate) fn large() -> Case {
    let machine = |at: u64| Machine {
        site: format!("s{}", at / 50),
        rack: Some(format!("r{}", at / 10)),
        name: format!("m{at:03}"),
        cpus: 8,
        memory: 64,
        overcommit: 100,
        nic: Some(1000),
        others: false,
        cloud: false,
    };
    let members = (0..200).map(|at| {
        let draft = MemberDraft {
            kind: Some(ElementKind::Vm),
            vcpus: Some(1 + u32::try_from(at % 3).unwrap()),
            memory_mb: Some(1 + at % 9),
            ..MemberDraft::default()
        };
        (format!("e{at:03}"), draft)
    });
    let mut groups = Vec::new();
    for number in 0..20_u64 {
        let name = |at: u64| format!("e{:03}", number * 10 + at);
        let pair = GroupDraft {
            name: format!("pair{number:02}"),
            members: vec![name(0), name(1)],
            affinity: Some(Level::Rack),
            diversity: Some(Level::Server),
            ..GroupDraft::default()
        };
        let pipes = (2..10).map(|at| PipeDraft { between: Some((pair.name.clone(), name(at))), mbps: 3 + at });
        let app = GroupDraft {
            name: format!("app{number:02}"),
            members: std::iter::once(pair.name.clone()).chain((2..10).map(name)).collect(),
            affinity: Some(Level::Site),
            availability: Some(Availability::Of { domains: 2, of: Level::Rack }),
            exclusivity: (number == 0).then_some(Level::Server),
            pipes: pipes.collect(),
            ..GroupDraft::default()
        };
        groups.extend([pair, app]);
    }
    Case { machines: (0..100).map(machine).collect(), uplinks: BTreeMap::new(), members: members.collect(), groups }
}

/// The same, with two groups over the same members that want the opposite.
pub(crate) fn large_in_conflict() -> Case {
    let mut case = large();
    let members: Vec<String> = ["e005", "e105"].map(str::to_owned).to_vec();
    let group = |name: &str| GroupDraft { name: name.to_owned(), members: members.clone(), ..GroupDraft::default() };
    case.groups.push(GroupDraft { affinity: Some(Level::Rack), ..group("tight") });
    case.groups.push(GroupDraft { diversity: Some(Level::Rack), ..group("wide") });
    case
}
