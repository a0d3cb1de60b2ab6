//! Budgets: caps on what is spent, and what happens at each.
//!
//! ```text
//! spent + open + asked <= cap        it is placed
//!                      >  cap        it waits (OverBudget) for what is open to end: that may have cost less
//! spent +        asked >  cap        and the cap pauses: its session is paused, and said why; a person raises the
//!                                    cap and resumes it (without that it is paused again)
//! ```
//! Open is what attempts are expected to cost. So a cap is exceeded by no more than attempts that were open already
//! cost beyond what was expected of them. What costs nothing more is always placed. Failure paths: a cap that is
//! lowered below what is spent stops what costs anything; a month that begins gives its caps anew by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::plan::{Pass, Plan};
use super::policy::Policy;
use super::snapshot::Snapshot;
use crate::attempt::{Attempt, Place};
use crate::id::{SessionId, SolutionId, UserName};
use crate::quantity::{NanoUsd, Timestamp};
use crate::session::Session;
use crate::solution::Solution;
use crate::spend::{Month, SpentKey};

/// Share of a cap at which it is said that it is nearly spent, percent.
pub const WARN_PERCENT: u8 = 80;

/// What happens at a cap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapAction {
    /// It is said, and nothing else.
    Warn,
    /// What would exceed it is not placed, and its session is paused.
    #[default]
    Pause,
    /// What would exceed it is not placed, and a session that is expected to exceed it is not accepted.
    Refuse,
}

impl fmt::Display for CapAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Warn => "warn",
            Self::Pause => "pause",
            Self::Refuse => "refuse",
        })
    }
}

/// The most that may be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cap {
    /// So much.
    pub limit: NanoUsd,
    /// What happens then.
    pub action: CapAction,
    /// Said at this share of it, percent.
    pub warn_percent: u8,
}

/// Caps that a person has set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budgets {
    /// For each session.
    pub session: Option<Cap>,
    /// For each user and month, if not named below.
    pub user: Option<Cap>,
    /// For these users and each month.
    pub users: BTreeMap<UserName, Cap>,
    /// For all users together and each month.
    pub month: Option<Cap>,
}

impl Budgets {
    fn of_user(&self, user: &UserName) -> Option<Cap> {
        self.users.get(user).copied().or(self.user)
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a cap is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "snake_case")]
pub enum CapKey {
    /// One session, given when it was started or last resumed.
    Launch {
        /// Which.
        session: SessionId,
    },
    /// One session, as every session has it.
    Session {
        /// Which.
        session: SessionId,
    },
    /// One user in one month.
    User {
        /// Which.
        user: UserName,
        /// When.
        month: Month,
    },
    /// All users in one month.
    All {
        /// When.
        month: Month,
    },
}

impl CapKey {
    /// The session that it is for, when it is for one.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::Launch { session } | Self::Session { session } => Some(*session),
            Self::User { .. } | Self::All { .. } => None,
        }
    }

    /// The month that it is for, when it is for one.
    pub fn month(&self) -> Option<Month> {
        match self {
            Self::User { month, .. } | Self::All { month } => Some(*month),
            Self::Launch { .. } | Self::Session { .. } => None,
        }
    }

    /// How it is raised.
    pub fn raise(&self) -> &'static str {
        match self {
            Self::Launch { .. } => "give it more (--budget)",
            Self::Session { .. } => "raise budgets.session.usd in the configuration",
            Self::User { .. } => "raise the user's budgets.users.NAME.usd (or budgets.user.usd) in the configuration",
            Self::All { .. } => "raise budgets.month.usd in the configuration",
        }
    }

    /// How it is raised, and what is to be done then.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Launch { .. } => "'skein session resume SESSION --budget USD' with more",
            Self::Session { .. } => {
                "raise budgets.session.usd in the configuration, then 'skein session resume SESSION' if it is paused"
            }
            Self::User { .. } => {
                "raise the user's budgets.users.NAME.usd (or budgets.user.usd) in the configuration, then \
                 'skein session resume SESSION' if it is paused"
            }
            Self::All { .. } => {
                "raise budgets.month.usd in the configuration, then 'skein session resume SESSION' if it is paused"
            }
        }
    }
}

impl fmt::Display for CapKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launch { .. } => f.write_str("the budget given to the session"),
            Self::Session { .. } => f.write_str("the budget of a session"),
            Self::User { user, month } => write!(f, "the budget of user '{user}' for {month}"),
            Self::All { month } => write!(f, "the budget of all for {month}"),
        }
    }
}

/// What a cap does not allow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OverBudget {
    /// Which cap.
    pub cap: CapKey,
    /// The most that may be spent.
    pub limit: NanoUsd,
    /// What is spent.
    pub spent: NanoUsd,
    /// What open attempts are expected to cost.
    pub open: NanoUsd,
    /// What this asks for more.
    pub asks: NanoUsd,
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cap, limit, spent, open, asks } = self;
        write!(f, "{cap} is {limit}: {spent} spent, {open} expected of what is open, and this asks for {asks}")
    }
}

/// What was said last about a cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warned {
    /// The cap then; another one is said anew.
    pub limit: NanoUsd,
    /// At which share of it, percent.
    pub percent: u8,
}

/// A cap that is spent as far as is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Which.
    pub cap: CapKey,
    /// What is said.
    pub said: Warned,
    /// What is spent.
    pub spent: NanoUsd,
    /// What open attempts are expected to cost.
    pub open: NanoUsd,
}

/// How it stands with a cap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What it is for.
    pub key: CapKey,
    /// The cap.
    pub cap: Cap,
    /// What is spent.
    pub spent: NanoUsd,
    /// What open attempts are expected to cost.
    pub open: NanoUsd,
}

impl Standing {
    /// What may still be asked for.
    pub fn left(&self) -> NanoUsd {
        (self.cap.limit - self.spent - self.open).max(NanoUsd::ZERO)
    }

    /// May so much more be asked for? What costs nothing may always.
    fn allows(&self, asks: NanoUsd) -> Result<(), OverBudget> {
        if asks <= NanoUsd::ZERO || self.spent + self.open + asks <= self.cap.limit {
            return Ok(());
        }
        let (cap, limit, spent, open) = (self.key.clone(), self.cap.limit, self.spent, self.open);
        Err(OverBudget { cap, limit, spent, open, asks })
    }
}

/// Sums of money, of which each part is taken off again: they must not saturate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sums<K: Ord>(BTreeMap<K, i128>);

impl<K: Ord> Default for Sums<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Sums<K> {
    fn add(&mut self, key: K, amount: i128) {
        let entry = self.0.entry(key);
        if let std::collections::btree_map::Entry::Occupied(mut known) = entry {
            *known.get_mut() += amount;
            if *known.get() == 0 {
                known.remove();
            }
        } else if amount != 0 {
            entry.or_insert(amount);
        }
    }

    fn of(&self, key: &K) -> NanoUsd {
        narrow(self.0.get(key).copied().unwrap_or(0))
    }
}

fn narrow(sum: i128) -> NanoUsd {
    NanoUsd(i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX }))
}

/// What open attempts are expected to cost, and what open sessions have spent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Money {
    all: i128,
    users: Sums<UserName>,
    sessions: Sums<SessionId>,
    places: Sums<Place>,
    /// What ended attempts of open sessions cost.
    ended: Sums<SessionId>,
    /// Open sessions that have a cap of their own.
    pub(super) launch: BTreeSet<SessionId>,
}

impl Money {
    pub(super) fn opened(&mut self, attempt: &Attempt, user: &UserName) {
        self.change(attempt.key.item.session(), user, &attempt.place, attempt.cost_estimate.0.into());
    }

    pub(super) fn closed(&mut self, attempt: &Attempt, user: &UserName) {
        self.change(attempt.key.item.session(), user, &attempt.place, -i128::from(attempt.cost_estimate.0));
    }

    fn change(&mut self, session: SessionId, user: &UserName, place: &Place, amount: i128) {
        self.all += amount;
        self.users.add(user.clone(), amount);
        self.sessions.add(session, amount);
        self.places.add(place.clone(), amount);
    }

    pub(super) fn ended(&mut self, session: SessionId, cost: NanoUsd) {
        self.ended.add(session, cost.0.into());
    }

    /// A session is there, or has another cap of its own.
    pub(super) fn set_launch(&mut self, session: SessionId, budget: Option<NanoUsd>) {
        if budget.is_some() {
            self.launch.insert(session);
        } else {
            self.launch.remove(&session);
        }
    }

    pub(super) fn session_over(&mut self, session: SessionId) {
        self.launch.remove(&session);
        self.ended.0.remove(&session);
    }
}

/// What one pass knows of money.
#[derive(Debug, Clone)]
pub(super) struct Purse {
    month: Month,
    /// There are caps at all.
    any: bool,
    spent_all: NanoUsd,
    spent_by: BTreeMap<UserName, NanoUsd>,
    /// What this pass gave out.
    given: Money,
    /// Sessions to be paused, and why.
    pub over: BTreeMap<SessionId, OverBudget>,
}

impl Purse {
    pub(super) fn new(snapshot: &Snapshot, policy: &Policy, now: Timestamp) -> Self {
        let month = Month::of(now);
        let any = !policy.budgets.is_empty() || !snapshot.index.money.launch.is_empty();
        let mut purse = Self {
            month,
            any,
            spent_all: NanoUsd::ZERO,
            spent_by: BTreeMap::new(),
            given: Money::default(),
            over: BTreeMap::new(),
        };
        for (key, cost) in snapshot.spent.in_month(month).filter(|_| any) {
            purse.spent_all += cost;
            *purse.spent_by.entry(key.user.clone()).or_default() += cost;
        }
        purse
    }

    fn of_month(&self, snapshot: &Snapshot, policy: &Policy, user: &UserName) -> impl Iterator<Item = Standing> {
        let open = &snapshot.index.money;
        let of_user = policy.budgets.of_user(user).map(|cap| Standing {
            key: CapKey::User { user: user.clone(), month: self.month },
            cap,
            spent: self.spent_by.get(user).copied().unwrap_or_default(),
            open: open.users.of(user) + self.given.users.of(user),
        });
        of_user.into_iter().chain(self.of_all(snapshot, policy))
    }

    fn of_all(&self, snapshot: &Snapshot, policy: &Policy) -> Option<Standing> {
        policy.budgets.month.map(|cap| Standing {
            key: CapKey::All { month: self.month },
            cap,
            spent: self.spent_all,
            open: narrow(snapshot.index.money.all + self.given.all),
        })
    }

    fn of_session(&self, snapshot: &Snapshot, policy: &Policy, session: &Session) -> impl Iterator<Item = Standing> {
        let (id, money) = (session.id, &snapshot.index.money);
        let (spent, open) = (money.ended.of(&id), money.sessions.of(&id) + self.given.sessions.of(&id));
        caps_of_session(policy, id, session.budget).map(move |(key, cap)| Standing { key, cap, spent, open })
    }

    /// May an item of the session be placed at this cost? `cheapest`: what it would cost at least, were there room.
    pub(super) fn allows(
        &mut self,
        (snapshot, policy): (&Snapshot, &Policy),
        session: &Session,
        asks: NanoUsd,
        cheapest: NanoUsd,
    ) -> Result<(), OverBudget> {
        if !self.any || asks <= NanoUsd::ZERO {
            return Ok(());
        }
        let of_session = self.of_session(snapshot, policy, session);
        let all: Vec<Standing> = of_session.chain(self.of_month(snapshot, policy, &session.spec.user)).collect();
        for standing in all.iter().filter(|standing| standing.cap.action != CapAction::Warn) {
            let Err(over) = standing.allows(asks) else { continue };
            let in_any_case = cheapest > NanoUsd::ZERO && standing.spent + cheapest > standing.cap.limit;
            if standing.cap.action == CapAction::Pause && in_any_case {
                self.over.insert(session.id, over.clone());
            }
            return Err(over);
        }
        Ok(())
    }

    pub(super) fn give(&mut self, session: SessionId, user: &UserName, place: &Place, cost: NanoUsd) {
        if self.any {
            self.given.change(session, user, place, cost.0.into());
        }
    }

    /// Takes back what was given since `before`.
    pub(super) fn take_back(&mut self, before: Money) {
        self.given = before;
    }

    pub(super) fn given(&self) -> Money {
        self.given.clone()
    }
}

fn caps_of_session(
    policy: &Policy,
    session: SessionId,
    launch: Option<NanoUsd>,
) -> impl Iterator<Item = (CapKey, Cap)> + use<> {
    let launch = launch.map(|limit| Cap { limit, action: CapAction::Pause, warn_percent: WARN_PERCENT });
    let launch = launch.map(|cap| (CapKey::Launch { session }, cap));
    launch.into_iter().chain(policy.budgets.session.map(|cap| (CapKey::Session { session }, cap)))
}

impl Pass<'_> {
    /// Sessions that a cap pauses, and what is to be said of caps.
    pub(super) fn settle_budgets(&mut self) {
        let (snapshot, policy) = (self.overlay.snapshot, self.overlay.policy);
        let minimum = snapshot.solutions.values().any(|s| s.minimum_purchase > NanoUsd::ZERO);
        if minimum && !self.plan.waiting.is_empty() {
            self.plan.wake_at(self.purse.month.next().start());
        }
        if !self.purse.any {
            return;
        }
        let budgets = &policy.budgets;
        if budgets.month.is_some() || budgets.user.is_some() || !budgets.users.is_empty() {
            // What waits for money has it then; and what is open counts then.
            self.plan.wake_at(self.purse.month.next().start());
        }
        let (open, given) = (&snapshot.index.money, &self.purse.given);
        let users: BTreeSet<&UserName> =
            open.users.0.keys().chain(given.users.0.keys()).chain(self.purse.spent_by.keys()).collect();
        let sessions: BTreeSet<SessionId> = open.sessions.0.keys().chain(given.sessions.0.keys()).copied().collect();
        let sessions = sessions.iter().filter_map(|id| snapshot.sessions.get(id));
        let of_sessions = sessions.flat_map(|session| self.purse.of_session(snapshot, policy, session));
        let of_user = |user| self.purse.of_month(snapshot, policy, user).find(|s| s.key != self.purse.all_key());
        let of_users = users.into_iter().filter_map(of_user);
        let all = of_sessions.chain(of_users).chain(self.purse.of_all(snapshot, policy));
        self.plan.warnings = all.filter_map(|standing| warning(snapshot, standing)).collect();
        self.plan.paused = std::mem::take(&mut self.purse.over).into_iter().collect();
        if !self.plan.paused.is_empty() {
            // What a paused session has waiting at agents is called back.
            self.plan.wake_at(self.now);
        }
    }
}

impl Purse {
    fn all_key(&self) -> CapKey {
        CapKey::All { month: self.month }
    }
}

fn warning(snapshot: &Snapshot, standing: Standing) -> Option<Warning> {
    let Standing { key, cap, spent, open } = standing;
    let (used, limit) = (i128::from((spent + open).0) * 100, i128::from(cap.limit.0));
    let percent = match used {
        _ if used <= 0 => return None,
        _ if used >= limit * 100 => 100,
        _ if used >= limit * i128::from(cap.warn_percent) => cap.warn_percent,
        _ => return None,
    };
    let said = snapshot.warned.get(&key).filter(|said| said.limit == cap.limit);
    let new = said.is_none_or(|said| said.percent < percent);
    new.then_some(Warning { cap: key, said: Warned { limit: cap.limit, percent }, spent, open })
}

/// How it stands with every cap that holds for a session of `user`; `launch` is the one given to it.
pub fn standings(
    snapshot: &Snapshot,
    policy: &Policy,
    (user, session, launch): (&UserName, SessionId, Option<NanoUsd>),
    now: Timestamp,
) -> Vec<Standing> {
    let purse = Purse::new(snapshot, policy, now);
    let money = &snapshot.index.money;
    let (spent, open) = (money.ended.of(&session), money.sessions.of(&session));
    let own = caps_of_session(policy, session, launch).map(|(key, cap)| Standing { key, cap, spent, open });
    own.chain(purse.of_month(snapshot, policy, user)).collect()
}

/// Why a session that is expected to cost so much is not accepted.
pub fn refused(standings: &[Standing], estimate: NanoUsd) -> Option<OverBudget> {
    let mut refusing = standings.iter().filter(|standing| standing.cap.action == CapAction::Refuse);
    refusing.find_map(|standing| standing.allows(estimate).err())
}

impl Snapshot {
    /// What was spent in a month at a solution, and what is expected of what is open there.
    pub fn spent_at(&self, solution: &SolutionId, month: Month) -> NanoUsd {
        let spent = self.spent.in_month(month).filter(|(key, _)| key.solution == *solution);
        let here = |place: &Place| match place {
            Place::Gateway(id) => id == solution,
            Place::Instance(id) => self.instances.get(id).is_some_and(|i| i.solution == *solution),
        };
        let open = self.index.money.places.0.iter().filter(|(place, _)| here(place)).map(|(_, sum)| *sum);
        let ended = spent.fold(NanoUsd::ZERO, |sum, (_, cost)| sum + cost);
        ended + narrow(open.sum())
    }

    /// Where and by whom an attempt's cost is counted.
    pub(super) fn spent_key(&self, at: Timestamp, attempt: &Attempt) -> Option<SpentKey> {
        let user = self.sessions.get(&attempt.key.item.session())?.spec.user.clone();
        let solution = match &attempt.place {
            Place::Gateway(id) => id.clone(),
            Place::Instance(id) => self.instances.get(id)?.solution.clone(),
        };
        Some(SpentKey { month: Month::of(at), user, solution })
    }

    /// No cap holds: for a projection, which says what everything would cost.
    pub(super) fn lift_budgets(&mut self) {
        self.sessions.values_mut().for_each(|session| session.budget = None);
        self.index.money.launch.clear();
    }
}

/// Solutions at which less was spent this month than is paid for in any case: what is spent, and the least.
pub(super) fn below_minimum(snapshot: &Snapshot, now: Timestamp) -> BTreeMap<SolutionId, (NanoUsd, NanoUsd)> {
    let month = Month::of(now);
    let minimum = |s: &&Solution| s.minimum_purchase > NanoUsd::ZERO;
    let all = snapshot.solutions.values().filter(minimum);
    let all = all.map(|s| (s.id.clone(), (snapshot.spent_at(&s.id, month), s.minimum_purchase)));
    all.filter(|(_, (spent, least))| spent < least).collect()
}

impl Plan {
    /// Is a session among those that this plan pauses?
    pub fn pauses(&self, session: SessionId) -> Option<&OverBudget> {
        self.paused.iter().find(|(id, _)| *id == session).map(|(_, over)| over)
    }
}
