//! Which kind of place takes one item, and which place of that kind.
//!
//! Where both kinds could ever take it, a machine of ours with room does: it is paid, and how many there are was
//! decided by what they are worth ([`super::demand`]). Between an own server and a shared solution the cheaper one
//! does. When that has no room, the item waits for it for as long as its class may ([`super::patience`]), and goes
//! to the other kind.

use super::backfill::Beside;
use super::balance::{InGateway, OnInstance, Overlay, Suited};
use super::patience::{DelayTable, LateBudget, patience};
use super::reason::{Choice, Reason};
use crate::attempt::Place;
use crate::id::{InstanceId, SessionId};
use crate::quantity::{NanoUsd, Timestamp};
use crate::task::{Balance, Profile, RunningMode, URGENT};

/// A place, and why that one.
pub(super) struct Chosen {
    pub place: Place,
    pub choice: Choice,
    pub cost: NanoUsd,
}

/// Which kinds of place could ever take items of a profile: the cheapest cost there, or why not.
/// Finding out looks at every place, and what a pass gives out does not change it: a pass asks once
/// for each profile.
pub(super) struct Ever {
    instance: Result<NanoUsd, Reason>,
    gateway: Result<NanoUsd, Reason>,
    /// Kinds of instance that suit it.
    suited: Vec<Suited>,
    /// How long its class waits, and whether machines are had for it.
    class: Option<OfClass>,
    /// What it costs in the cheapest place, whatever is paid for there in any case.
    cheapest: Option<NanoUsd>,
}

/// What is decided for the class of a profile.
#[derive(Debug, Clone, Copy)]
struct OfClass {
    wait_ms: u64,
}

/// One item, as far as choosing asks.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub session: SessionId,
    pub profile: &'a Profile,
    /// Since when it could be placed.
    pub since: Timestamp,
    pub now: Timestamp,
}

impl Ever {
    /// Instances could take it, and nothing else ever.
    pub(super) fn only_instances(&self) -> bool {
        self.instance.is_ok() && self.gateway.is_err()
    }

    /// What an item costs in the cheapest of the places that could ever take it.
    pub(super) fn cheapest(&self) -> Option<NanoUsd> {
        self.cheapest
    }

    pub(super) fn of(overlay: &Overlay<'_>, profile: &Profile) -> Self {
        let gateway = overlay.any_gateway_ever(profile);
        let there = gateway.as_ref().ok().map(|found| found.cost);
        let gateway = gateway.map(|found| found.more);
        let class = overlay.snapshot.capacity_of(&profile.demand()).map(|plan| OfClass { wait_ms: plan.wait_ms });
        match overlay.suited(profile) {
            Ok(suited) => {
                let more = suited.iter().map(|kind| kind.more).min().unwrap_or(NanoUsd::ZERO);
                let cheapest = suited.iter().map(|kind| kind.cost).chain(there).min();
                Self { instance: Ok(more), gateway, suited, class, cheapest }
            }
            Err(reason) => Self { instance: Err(reason), gateway, suited: Vec::new(), class, cheapest: there },
        }
    }

    /// Kinds of instance that suit it.
    pub(super) fn suited(&self) -> &[Suited] {
        &self.suited
    }

    /// The instance that would take one item now.
    pub(super) fn instance_now(
        &self,
        overlay: &Overlay<'_>,
        session: SessionId,
        profile: &Profile,
    ) -> Option<InstanceId> {
        overlay.best_instance(&self.suited, session, profile, None).ok().map(|found| found.id)
    }

    /// An instance for an item to wait on until a slot is free there: `per_slot` may wait for each.
    pub(super) fn ahead(
        &self,
        overlay: &Overlay<'_>,
        asking: Asking<'_>,
        per_slot: u32,
        run_ms: u32,
    ) -> Option<Chosen> {
        // Nothing waits for a place that is dearer than what it could have now or soon; what is paid is not.
        let dear = |kind: &&Suited| !kind.paid && self.gateway.as_ref().is_ok_and(|there| kind.more > *there);
        let suited: Vec<Suited> = self.suited.iter().filter(|kind| !dear(kind)).copied().collect();
        let found = overlay.best_to_wait_on(&suited, asking.session, asking.profile, per_slot)?;
        Some(Chosen { place: Place::Instance(found.id), choice: Choice::Ahead { run_ms }, cost: found.cost })
    }
}

/// Chooses a place for one item.
pub(super) fn choose(overlay: &Overlay<'_>, ever: &Ever, asking: Asking<'_>) -> Result<Chosen, Reason> {
    let Asking { session, profile, .. } = asking;
    match (&ever.instance, &ever.gateway) {
        (Err(_), Err(of_gateway)) => Err(neither(overlay, asking, of_gateway)),
        (Ok(_), Err(other)) => {
            let found = overlay.best_instance(&ever.suited, session, profile, None)?;
            let choice = only(profile.mode, other, Some(found.balance));
            Ok(on_instance(profile, found, choice))
        }
        (Err(other), Ok(_)) => {
            let found = overlay.best_gateway(profile, None)?;
            Ok(in_gateway(overlay, found, only(profile.mode, other, None)))
        }
        (Ok(instance_cost), Ok(gateway_cost)) => {
            let (suited, instance_cost, gateway_cost) = (&ever.suited[..], *instance_cost, *gateway_cost);
            let paid: Vec<Suited> = suited.iter().filter(|kind| kind.paid).copied().collect();
            let both = Both { overlay, suited, asking, instance_cost, gateway_cost, class: ever.class };
            if !paid.is_empty() {
                both.paid_first(&paid)
            } else if instance_cost <= gateway_cost {
                both.instance_first()
            } else {
                both.gateway_first()
            }
        }
    }
}

fn on_instance(profile: &Profile, found: OnInstance, choice: Choice) -> Chosen {
    let choice = match profile.group.as_ref().filter(|_| found.by_group) {
        Some(group) => Choice::Group { group: group.clone() },
        None => choice,
    };
    let choice = match found.beside {
        Some(Beside { spare, at, item }) => Choice::Backfilled { item, before: at.filter(|_| !spare) },
        None => choice,
    };
    Chosen { place: Place::Instance(found.id), choice, cost: found.cost }
}

fn in_gateway(overlay: &Overlay<'_>, found: InGateway, choice: Choice) -> Chosen {
    let choice = overlay.because_paid(&found.id, found.cost).unwrap_or(choice);
    Chosen { place: Place::Gateway(found.id), choice, cost: found.cost }
}

fn only(mode: RunningMode, other: &Reason, balance: Option<Balance>) -> Choice {
    match mode {
        RunningMode::Dedicated | RunningMode::Serverless => Choice::Mode { mode, balance },
        RunningMode::Auto | RunningMode::Hybrid => Choice::OnlyKind { other: Box::new(other.clone()) },
    }
}

/// Neither kind can ever take it: the reason of the kind that the mode allows.
fn neither(overlay: &Overlay<'_>, asking: Asking<'_>, of_gateway: &Reason) -> Reason {
    match overlay.best_instance(&[], asking.session, asking.profile, None) {
        Err(Reason::ModeExcludes { .. } | Reason::FunctionNeedsGateway) => of_gateway.clone(),
        Err(reason) => reason,
        Ok(_) => Reason::PlanFull,
    }
}

/// Both kinds could take it.
struct Both<'a> {
    overlay: &'a Overlay<'a>,
    suited: &'a [Suited],
    asking: Asking<'a>,
    instance_cost: NanoUsd,
    gateway_cost: NanoUsd,
    class: Option<OfClass>,
}

impl Both<'_> {
    /// Machines that are there are paid whether they are used or not: one with room takes the item. Where there
    /// are none, or none is free in time, it is as if there were only own servers.
    fn paid_first(&self, paid: &[Suited]) -> Result<Chosen, Reason> {
        let there = self.gateway_cost;
        let found = self.overlay.best_instance(paid, self.asking.session, self.asking.profile, None);
        let because = match found {
            Ok(found) => {
                let choice = Choice::Paid { here: found.cost, there };
                return Ok(on_instance(self.asking.profile, found, choice));
            }
            Err(reason) => reason,
        };
        // An own server that costs no more is no worse.
        if let Ok(found) = self.best_instance(Some(there)) {
            let choice = self.cheaper(&found, there);
            return Ok(on_instance(self.asking.profile, found, choice));
        }
        self.wait_over(&because)?;
        let chosen = self.dearer_gateway(&because, self.instance_cost);
        chosen.or_else(|| self.dearer_instance(&because, self.instance_cost)).ok_or(because)
    }

    fn cheaper(&self, found: &OnInstance, there: NanoUsd) -> Choice {
        let instance = self.overlay.snapshot.instances.get(&found.id);
        let paid = instance.and_then(|i| self.overlay.because_paid(&i.solution, found.cost));
        paid.unwrap_or(Choice::Cheaper { here: found.cost, there })
    }

    fn best_instance(&self, cost_max: Option<NanoUsd>) -> Result<OnInstance, Reason> {
        self.overlay.best_instance(self.suited, self.asking.session, self.asking.profile, cost_max)
    }

    fn instance_first(&self) -> Result<Chosen, Reason> {
        let there = self.gateway_cost;
        let because = match self.best_instance(Some(there)) {
            Ok(found) => {
                let choice = self.cheaper(&found, there);
                return Ok(on_instance(self.asking.profile, found, choice));
            }
            Err(reason) => reason,
        };
        self.wait_over(&because)?;
        let chosen = self.dearer_gateway(&because, self.instance_cost);
        chosen.or_else(|| self.dearer_instance(&because, self.instance_cost)).ok_or(because)
    }

    fn gateway_first(&self) -> Result<Chosen, Reason> {
        let there = self.instance_cost;
        let because = match self.overlay.best_gateway(self.asking.profile, Some(there)) {
            Ok(found) => {
                let choice = Choice::Cheaper { here: found.cost, there };
                return Ok(in_gateway(self.overlay, found, choice));
            }
            Err(reason) => reason,
        };
        self.wait_all(&because)?;
        let chosen = self.dearer_instance(&because, self.gateway_cost);
        chosen.or_else(|| self.dearer_gateway(&because, self.gateway_cost)).ok_or(because)
    }

    fn dearer_instance(&self, because: &Reason, there: NanoUsd) -> Option<Chosen> {
        let found = self.best_instance(None).ok()?;
        let choice = self.overflow(because, found.cost, there);
        Some(on_instance(self.asking.profile, found, choice))
    }

    fn dearer_gateway(&self, because: &Reason, there: NanoUsd) -> Option<Chosen> {
        let found = self.overlay.best_gateway(self.asking.profile, None).ok()?;
        let choice = self.overflow(because, found.cost, there);
        Some(in_gateway(self.overlay, found, choice))
    }

    fn is_urgent(&self) -> bool {
        self.asking.profile.rank.1 >= URGENT
    }

    /// May it go to a shared solution yet, which takes a while to start?
    fn wait_over(&self, because: &Reason) -> Result<(), Reason> {
        let (allowed_ms, policy) = (self.asking.profile.allowed_wait_ms, self.overlay.policy);
        let wait_ms = self.class.map_or_else(
            || {
                // A class that is not followed: as if all of it started cold.
                let cold = DelayTable::of_p99(self.overlay.cold_start_ms() * 1_000);
                let budget = LateBudget::new(policy.capacity.late_budget_ppm);
                patience(allowed_ms * 1_000, &cold, &budget).wait_us / 1_000
            },
            |class| class.wait_ms,
        );
        self.wait_for(wait_ms, because)
    }

    /// May it go to a dearer instance yet, which starts it at once?
    fn wait_all(&self, because: &Reason) -> Result<(), Reason> {
        self.wait_for(self.asking.profile.allowed_wait_ms, because)
    }

    fn wait_for(&self, wait_ms: u64, because: &Reason) -> Result<(), Reason> {
        let until = self.asking.since.after_ms(wait_ms);
        if self.asking.now < until && !self.is_urgent() {
            return Err(Reason::WaitsForCheaper { until, because: Box::new(because.clone()) });
        }
        Ok(())
    }

    fn overflow(&self, because: &Reason, here: NanoUsd, there: NanoUsd) -> Choice {
        let because = Box::new(because.clone());
        if self.is_urgent() {
            return Choice::Urgent { because };
        }
        Choice::Overflow { waited_ms: self.asking.now.ms_since(self.asking.since), here, there, because }
    }
}
