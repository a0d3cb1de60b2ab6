//! The search: branch and bound over members, the one with the fewest servers left first.
//!
//! ```text
//! domains --choose member--> servers, cheapest first --put--> domains of the others cut --> deeper
//!                                                     a bound over the best known ends a branch
//! ```
//! Members that were left without a server weigh more, and after so many tries the search begins again with those
//! that weigh most: what is in conflict is met at the top and not again and again at the bottom.
//!
//! Every answer is one of three: the best plan (proved, or the best found within the limit of tries), proof
//! that there is none, or neither within the limit.

use super::model::{Model, Set};
use super::state::{Cost, State};

/// How a search ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// A plan: each member's server.
    Plan { at: Vec<usize>, cost: Cost, proved: bool },
    /// There is none.
    Never,
    /// None was found within the limit of tries.
    Undecided,
}

/// Searches for the best plan, or for any.
pub(super) fn search(model: &Model, tries_max: u64, any: bool) -> (Found, u64) {
    let mut search = Search {
        state: State::new(model),
        domains: model.domains.clone(),
        trail: Vec::new(),
        best: None,
        weights: vec![1; model.members()],
        tries: 0,
        tries_max: 0,
        any,
    };
    let mut whole = model.is_contradictory();
    let mut more = FIRST_TRIES;
    while !whole && search.tries < tries_max && !(any && search.best.is_some()) {
        search.tries_max = search.tries.saturating_add(more).min(tries_max);
        whole = search.deeper();
        more = more.saturating_mul(2);
    }
    let found = match search.best {
        Some((cost, at)) => {
            let proved = whole;
            let (at, cost) = if proved || any { (at, cost) } else { improve(model, at, cost) };
            Found::Plan { at, cost, proved }
        }
        None if whole => Found::Never,
        None => Found::Undecided,
    };
    (found, search.tries)
}

/// Tries before the search begins again for the first time; twice as many each time after.
const FIRST_TRIES: u64 = 500;

struct Search<'m> {
    state: State<'m>,
    domains: Vec<Set>,
    /// Words of domains as they were: member, word, value.
    trail: Vec<(usize, usize, u64)>,
    best: Option<(Cost, Vec<usize>)>,
    /// How often each member was left without a server, and one.
    weights: Vec<u64>,
    tries: u64,
    tries_max: u64,
    any: bool,
}

/// A server to try: Mbit/s times levels that it adds, whether it is a further one, which.
type Try = (u64, bool, usize);

impl Search<'_> {
    /// Looks at everything below; false when the limit, or the first plan where any will do, ended it.
    fn deeper(&mut self) -> bool {
        let Some(member) = self.next_member() else {
            let at = self.state.at.iter().map(|host| host.unwrap_or_default()).collect();
            self.best = Some((self.state.cost, at));
            return !self.any;
        };
        for (_, _, host) in self.tries_of(member) {
            if self.tries >= self.tries_max {
                return false;
            }
            self.tries += 1;
            let mark = self.trail.len();
            self.state.put(member, host);
            let whole = !self.cut(member, host) || self.is_bound() || self.deeper();
            self.state.take(member);
            self.undo(mark);
            if !whole {
                return false;
            }
        }
        true
    }

    /// The member with the fewest servers left for its weight; of these the one with the most demands and pipes, then
    /// by name.
    fn next_member(&self) -> Option<usize> {
        let model = self.state.model;
        let open = (0..model.members()).filter(|member| self.state.at[*member].is_none());
        open.min_by_key(|member| {
            let ties = model.tied[*member].len() + model.pipes[*member].len();
            let servers = u64::from(self.domains[*member].count()) * 1_000_000 / self.weights[*member];
            (servers, std::cmp::Reverse(ties), *member)
        })
    }

    /// The servers that are worth a try, the best first. Of those that are alike and unused, one.
    fn tries_of(&self, member: usize) -> Vec<Try> {
        let (state, model) = (&self.state, self.state.model);
        let mut alike: Vec<[usize; 4]> = Vec::new();
        let mut tries: Vec<Try> = Vec::new();
        for host in self.domains[member].each() {
            let ([server, rack, site], [in_rack, in_site]) = (model.kinds[host], model.within[host]);
            let key = match (state.on[host], state.in_rack[in_rack], state.in_site[in_site]) {
                (1.., ..) => None,
                (0, 1.., _) => Some([0, in_rack, server, 0]),
                (0, 0, 1..) => Some([1, in_site, rack, server]),
                (0, 0, 0) => Some([2, site, rack, server]),
            };
            if let Some(key) = key {
                if alike.contains(&key) {
                    continue;
                }
                alike.push(key);
            }
            if state.allows(member, host) {
                tries.push((state.adds_mbps(member, host), state.on[host] == 0, host));
            }
        }
        tries.sort_unstable();
        tries
    }

    /// Takes from the other members' servers what this one excludes. False: one has none left.
    fn cut(&mut self, member: usize, host: usize) -> bool {
        let model = self.state.model;
        for other in &model.tied[member] {
            if self.state.at[*other].is_some() {
                continue;
            }
            let pair = model.pair(member, *other);
            let near = pair.near.checked_sub(1).map(|rank| &model.same[usize::from(rank)][host]);
            let apart = pair.apart.checked_sub(1).map(|rank| &model.other[usize::from(rank)][host]);
            if ![near, apart].into_iter().flatten().all(|mask| self.keep_only(*other, mask)) {
                self.weights[*other] += 1;
                return false;
            }
        }
        for other in 0..model.members() {
            if self.state.at[other].is_none()
                && self.domains[other].has(host)
                && !self.state.has_room(other, host)
                && !self.strike(other, host)
            {
                self.weights[other] += 1;
                return false;
            }
        }
        model.spreads.iter().all(|spread| self.state.may_spread(spread))
    }

    fn keep_only(&mut self, member: usize, mask: &Set) -> bool {
        for (at, word) in mask.0.iter().enumerate() {
            let before = self.domains[member].0[at];
            if before & word != before {
                self.trail.push((member, at, before));
                self.domains[member].0[at] = before & word;
            }
        }
        self.domains[member].0.iter().any(|word| *word != 0)
    }

    fn strike(&mut self, member: usize, host: usize) -> bool {
        self.trail.push((member, host / 64, self.domains[member].0[host / 64]));
        self.domains[member].take(host);
        self.domains[member].0.iter().any(|word| *word != 0)
    }

    fn undo(&mut self, mark: usize) {
        while self.trail.len() > mark {
            if let Some((member, at, word)) = self.trail.pop() {
                self.domains[member].0[at] = word;
            }
        }
    }

    /// Can nothing below be better than the best known?
    fn is_bound(&self) -> bool {
        let Some((best, _)) = &self.best else { return false };
        let least =
            Cost { crossed_mbps: self.state.cost.crossed_mbps + self.least_mbps(), servers: self.state.cost.servers };
        least >= *best
    }

    /// What the pipes that have an open end will add at least.
    fn least_mbps(&self) -> u64 {
        let (state, model) = (&self.state, self.state.model);
        let mut sum = 0;
        for (member, pipes) in model.pipes.iter().enumerate().filter(|(member, _)| state.at[*member].is_none()) {
            for (other, mbps) in pipes {
                // Between two open ends it counts once.
                if state.at[*other].is_none() && *other < member {
                    continue;
                }
                let apart = u64::from(model.pair(member, *other).apart);
                let there = state.at[*other].map_or(0, |there| {
                    let near = |rank: &usize| self.domains[member].meets(&model.same[*rank][there]);
                    (0..3).find(near).unwrap_or(3) as u64
                });
                sum += mbps * apart.max(there);
            }
        }
        sum
    }
}

/// Most moves tried to make a plan better that was not proved the best.
const MOVES_MAX: usize = 200_000;

/// Moves single members, and exchanges pairs of them, while that makes the plan cheaper.
fn improve(model: &Model, at: Vec<usize>, cost: Cost) -> (Vec<usize>, Cost) {
    let mut state = State::new(model);
    at.iter().enumerate().for_each(|(member, host)| state.put(member, *host));
    let (mut moves, mut better) = (0, true);
    while std::mem::take(&mut better) {
        for (member, now) in (0..model.members()).filter_map(|m| Some((m, state.at[m]?))).collect::<Vec<_>>() {
            let before = state.cost;
            state.take(member);
            let mut best = (before, now);
            for host in model.domains[member].each().filter(|host| *host != now) {
                moves += 1;
                if !state.allows(member, host) {
                    continue;
                }
                state.put(member, host);
                if state.cost < best.0 && model.spreads.iter().all(|spread| state.may_spread(spread)) {
                    best = (state.cost, host);
                }
                state.take(member);
            }
            state.put(member, best.1);
            better |= best.0 < before;
        }
        better |= exchange(&mut state, &mut moves);
        better &= moves < MOVES_MAX;
    }
    let improved: Option<Vec<usize>> = state.at.iter().copied().collect();
    improved.filter(|_| state.cost < cost).map_or((at, cost), |improved| (improved, state.cost))
}

/// Exchanges the servers of two members wherever that makes the plan cheaper. Did it?
fn exchange(state: &mut State<'_>, moves: &mut usize) -> bool {
    let (model, mut better) = (state.model, false);
    for a in 0..model.members() {
        for b in a + 1..model.members() {
            let (Some(at_a), Some(at_b)) = (state.at[a], state.at[b]) else { continue };
            if at_a == at_b || !model.domains[a].has(at_b) || !model.domains[b].has(at_a) {
                continue;
            }
            *moves += 1;
            let before = state.cost;
            state.take(a);
            state.take(b);
            let mut done = false;
            if state.allows(a, at_b) {
                state.put(a, at_b);
                if state.allows(b, at_a) {
                    state.put(b, at_a);
                    done = state.cost < before && model.spreads.iter().all(|spread| state.may_spread(spread));
                    if !done {
                        state.take(b);
                    }
                }
                if !done {
                    state.take(a);
                }
            }
            if !done {
                state.put(a, at_a);
                state.put(b, at_b);
            }
            better |= done;
        }
    }
    better
}
