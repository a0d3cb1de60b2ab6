//! Caps hold, and what was spent is what the ended attempts cost: both summed up anew from attempts.

use std::collections::BTreeMap;

use skein_domain::decide::Snapshot;
use skein_domain::decide::budget::{Cap, CapAction};
use skein_domain::decide::change::Change;
use skein_domain::event::Event;
use skein_domain::spend::{MONTHS_MAX, Month};
use skein_domain::testing::Record;
use skein_domain::{NanoUsd, SessionId, SessionState};

/// What ended attempts cost, from the rows that were written.
#[derive(Debug, Default)]
pub(crate) struct Cash {
    by_month: BTreeMap<Month, NanoUsd>,
}

impl Cash {
    pub(crate) fn turn(&mut self, record: &Record, after: &Snapshot) {
        for change in &record.changes {
            if let Change::AttemptEnded(attempt, _, at) = change {
                *self.by_month.entry(Month::of(*at)).or_default() += attempt.cost.unwrap_or_default();
            }
        }
        let newest = self.by_month.keys().next_back().map_or(0, |month| month.0);
        for (month, cost) in self.by_month.iter().filter(|(month, _)| month.0 > newest - MONTHS_MAX) {
            let spent: NanoUsd = after.spent.in_month(*month).fold(NanoUsd::ZERO, |sum, (_, cost)| sum + cost);
            assert_eq!(spent, *cost, "spent in {month}");
        }
    }
}

fn of_session(snapshot: &Snapshot, session: SessionId) -> NanoUsd {
    let open = snapshot.attempts_of(session).fold(NanoUsd::ZERO, |sum, a| sum + a.cost_estimate);
    snapshot.sessions[&session].nodes.iter().fold(open, |sum, node| sum + node.cost)
}

fn of_month(snapshot: &Snapshot, month: Month) -> NanoUsd {
    let open = snapshot.attempts.values().fold(NanoUsd::ZERO, |sum, a| sum + a.cost_estimate);
    snapshot.spent.in_month(month).fold(open, |sum, (_, cost)| sum + cost)
}

/// What a plan places is within every cap that stops, as things stood before it: only what was open already can
/// have cost more than was expected of it.
pub(crate) fn caps(record: &Record) {
    let (before, budgets) = (&record.before, &record.policy.budgets);
    let mut given: BTreeMap<SessionId, NanoUsd> = BTreeMap::new();
    for placed in record.plan.assignments.iter().filter(|placed| placed.cost > NanoUsd::ZERO) {
        *given.entry(placed.item.session()).or_default() += placed.cost;
    }
    let stops = |cap: &&Cap| cap.action != CapAction::Warn;
    for (session, cost) in &given {
        let asked = of_session(before, *session) + *cost;
        let launch = before.sessions[session].budget;
        let limits = launch.into_iter().chain(budgets.session.as_ref().filter(stops).map(|cap| cap.limit));
        for limit in limits {
            assert!(asked <= limit, "{session} may spend {limit}, and {asked} is spent, open or placed");
        }
    }
    let all = given.values().fold(NanoUsd::ZERO, |sum, cost| sum + *cost);
    let user = "tester".parse().unwrap();
    let of_user = budgets.users.get(&user).or(budgets.user.as_ref());
    for cap in of_user.into_iter().chain(&budgets.month).filter(stops) {
        let asked = of_month(before, Month::of(record.at)) + all;
        assert!(all == NanoUsd::ZERO || asked <= cap.limit, "{asked} of {} spent, open or placed", cap.limit);
    }
    paused(record);
}

/// A cap pauses a session once, says why, and nothing of it is placed meanwhile.
fn paused(record: &Record) {
    for (session, over) in &record.plan.paused {
        assert_eq!(record.before.sessions[session].state, SessionState::Running);
        assert!(over.spent + over.open + over.asks > over.limit, "{over}");
        let told =
            record.events.iter().filter(|e| matches!(e, Event::BudgetReached { session: s, .. } if s == session));
        assert_eq!(told.count(), 1);
    }
    for placed in &record.plan.assignments {
        assert_eq!(record.before.sessions[&placed.item.session()].state, SessionState::Running);
    }
}
