//! A plan that is being made: members on servers, with what that takes and what it costs so far.

use super::model::{Model, Spread, within_room};

/// What a plan costs; less is better, the first part first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost {
    /// Sum over pipes of Mbit/s times levels crossed.
    pub crossed_mbps: u64,
    /// Servers used.
    pub servers: u32,
}

/// Members on servers.
#[derive(Debug, Clone)]
pub(super) struct State<'m> {
    pub model: &'m Model,
    pub at: Vec<Option<usize>>,
    /// Members on each server.
    pub on: Vec<u32>,
    /// Members in each rack and site.
    pub in_rack: Vec<u32>,
    pub in_site: Vec<u32>,
    room: Vec<(u64, u64)>,
    links: Vec<u64>,
    pub cost: Cost,
}

impl<'m> State<'m> {
    pub(super) fn new(model: &'m Model) -> Self {
        let numbers = |at: usize| model.within.iter().map(|within| within[at] + 1).max().unwrap_or(0);
        Self {
            model,
            at: vec![None; model.members()],
            on: vec![0; model.hosts],
            in_rack: vec![0; numbers(0)],
            in_site: vec![0; numbers(1)],
            room: model.room.clone(),
            links: model.links.clone(),
            cost: Cost::default(),
        }
    }

    /// May this member be on that server, as far as the members that are placed say? Its domain is not looked at.
    pub(super) fn allows(&self, member: usize, host: usize) -> bool {
        self.has_room(member, host) && self.suits_pairs(member, host) && self.has_bandwidth(member, host)
    }

    pub(super) fn has_room(&self, member: usize, host: usize) -> bool {
        within_room(self.model.size(member, host), self.room[host])
    }

    fn suits_pairs(&self, member: usize, host: usize) -> bool {
        self.model.tied[member].iter().all(|other| {
            let Some(there) = self.at[*other] else { return true };
            let pair = self.model.pair(member, *other);
            let near = pair.near == 0 || self.model.same[usize::from(pair.near) - 1][host].has(there);
            near && (pair.apart == 0 || self.model.other[usize::from(pair.apart) - 1][host].has(there))
        })
    }

    fn has_bandwidth(&self, member: usize, host: usize) -> bool {
        let mut asked: Vec<(usize, u64)> = Vec::new();
        for (other, mbps) in &self.model.pipes[member] {
            let Some(there) = self.at[*other] else { continue };
            self.each_link(host, there, |link| match asked.iter_mut().find(|(known, _)| *known == link) {
                Some((_, sum)) => *sum += mbps,
                None => asked.push((link, *mbps)),
            });
        }
        asked.iter().all(|(link, mbps)| *mbps <= self.links[*link])
    }

    /// The links on the way between two servers.
    fn each_link(&self, a: usize, b: usize, mut link: impl FnMut(usize)) {
        // A link lies on the way when the ends differ at its level: a server's own for other servers, a rack's for
        // other racks. What is not known to be shared is crossed.
        for rank in 0..3 {
            if self.model.same[rank][a].has(b) {
                break;
            }
            [a, b].into_iter().filter_map(|end| self.model.links_of[end][rank]).for_each(&mut link);
        }
    }

    /// What placing it there adds to the bandwidth carried over levels.
    pub(super) fn adds_mbps(&self, member: usize, host: usize) -> u64 {
        let placed = self.model.pipes[member].iter().filter_map(|(other, mbps)| Some((self.at[*other]?, *mbps)));
        placed.map(|(there, mbps)| mbps * self.model.crossed(host, there)).sum()
    }

    pub(super) fn put(&mut self, member: usize, host: usize) {
        self.cost.crossed_mbps += self.adds_mbps(member, host);
        self.cost.servers += u32::from(self.on[host] == 0);
        self.count(member, host, true);
        self.at[member] = Some(host);
    }

    pub(super) fn take(&mut self, member: usize) {
        let Some(host) = self.at[member].take() else { return };
        self.count(member, host, false);
        self.cost.crossed_mbps -= self.adds_mbps(member, host);
        self.cost.servers -= u32::from(self.on[host] == 0);
    }

    fn count(&mut self, member: usize, host: usize, more: bool) {
        let step = |count: &mut u32| *count = if more { *count + 1 } else { *count - 1 };
        let [rack, site] = self.model.within[host];
        step(&mut self.on[host]);
        step(&mut self.in_rack[rack]);
        step(&mut self.in_site[site]);
        let (cpu, memory) = self.model.size(member, host);
        let left = &mut self.room[host];
        *left = if more { (left.0 - cpu, left.1 - memory) } else { (left.0 + cpu, left.1 + memory) };
        let mut links: Vec<(usize, u64)> = Vec::new();
        for (other, mbps) in &self.model.pipes[member] {
            let Some(there) = self.at[*other] else { continue };
            self.each_link(host, there, |link| links.push((link, *mbps)));
        }
        for (link, mbps) in links {
            self.links[link] = if more { self.links[link] - mbps } else { self.links[link] + mbps };
        }
    }

    /// Could this many places still be reached?
    pub(super) fn may_spread(&self, spread: &Spread) -> bool {
        let counted = &self.model.counted[spread.level as usize];
        let mut places: Vec<usize> = Vec::with_capacity(spread.domains);
        let mut open = 0;
        for member in &spread.members {
            match self.at[*member] {
                None => open += 1,
                Some(host) if !places.contains(&counted[host]) => places.push(counted[host]),
                Some(_) => {}
            }
            if places.len() + open >= spread.domains {
                return true;
            }
        }
        false
    }
}
