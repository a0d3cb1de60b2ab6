//! Which kind of place takes one item, and which place of that kind.
//!
//! Where both kinds could ever take it, the cheaper one does; when that has no room, the item waits
//! for it until its allowed wait (less the cold start it would then still have before it) is over,
//! and goes to the dearer kind ("patience").

use super::balance::{InGateway, OnInstance, Overlay};
use super::index::Class;
use super::reason::{Choice, Reason};
use crate::attempt::Place;
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
}

impl Ever {
    pub(super) fn of(overlay: &Overlay<'_>, profile: &Profile) -> Self {
        Self { instance: overlay.any_instance_ever(profile), gateway: overlay.any_gateway_ever(profile) }
    }
}

/// Chooses a place for one item that has been ready since `since`.
pub(super) fn choose(
    overlay: &Overlay<'_>,
    ever: &Ever,
    class: &Class,
    since: Timestamp,
    now: Timestamp,
) -> Result<Chosen, Reason> {
    match (&ever.instance, &ever.gateway) {
        (Err(_), Err(of_gateway)) => Err(neither(overlay, class, of_gateway)),
        (Ok(_), Err(other)) => {
            let found = overlay.best_instance(class, None)?;
            let choice = only(class.profile.mode, other, Some(found.balance));
            Ok(on_instance(class, found, choice))
        }
        (Err(other), Ok(_)) => {
            let found = overlay.best_gateway(&class.profile, None)?;
            Ok(in_gateway(found, only(class.profile.mode, other, None)))
        }
        (Ok(instance_cost), Ok(gateway_cost)) => {
            let both = Both { overlay, class, since, now, instance_cost: *instance_cost, gateway_cost: *gateway_cost };
            if instance_cost <= gateway_cost { both.instance_first() } else { both.gateway_first() }
        }
    }
}

fn on_instance(class: &Class, found: OnInstance, choice: Choice) -> Chosen {
    let choice = match class.profile.group.as_ref().filter(|_| found.by_group) {
        Some(group) => Choice::Group { group: group.clone() },
        None => choice,
    };
    Chosen { place: Place::Instance(found.id), choice, cost: found.cost }
}

fn in_gateway(found: InGateway, choice: Choice) -> Chosen {
    Chosen { place: Place::Gateway(found.id), choice, cost: found.cost }
}

fn only(mode: RunningMode, other: &Reason, balance: Option<Balance>) -> Choice {
    match mode {
        RunningMode::Dedicated | RunningMode::Serverless => Choice::Mode { mode, balance },
        RunningMode::Auto | RunningMode::Hybrid => Choice::OnlyKind { other: Box::new(other.clone()) },
    }
}

/// Neither kind can ever take it: the reason of the kind that the mode allows.
fn neither(overlay: &Overlay<'_>, class: &Class, of_gateway: &Reason) -> Reason {
    match overlay.best_instance(class, None) {
        Err(Reason::ModeExcludes { .. } | Reason::FunctionNeedsGateway) => of_gateway.clone(),
        Err(reason) => reason,
        Ok(_) => Reason::PlanFull,
    }
}

/// Both kinds could take it.
struct Both<'a> {
    overlay: &'a Overlay<'a>,
    class: &'a Class,
    since: Timestamp,
    now: Timestamp,
    instance_cost: NanoUsd,
    gateway_cost: NanoUsd,
}

impl Both<'_> {
    fn instance_first(&self) -> Result<Chosen, Reason> {
        let there = self.gateway_cost;
        let because = match self.overlay.best_instance(self.class, Some(there)) {
            Ok(found) => {
                let choice = Choice::Cheaper { here: found.cost, there };
                return Ok(on_instance(self.class, found, choice));
            }
            Err(reason) => reason,
        };
        let start_ms = self.overlay.cold_start_ms();
        self.wait_over(start_ms, &because)?;
        let chosen = self.dearer_gateway(&because, self.instance_cost);
        chosen.or_else(|| self.dearer_instance(&because, self.instance_cost)).ok_or(because)
    }

    fn gateway_first(&self) -> Result<Chosen, Reason> {
        let there = self.instance_cost;
        let because = match self.overlay.best_gateway(&self.class.profile, Some(there)) {
            Ok(found) => {
                let choice = Choice::Cheaper { here: found.cost, there };
                return Ok(in_gateway(found, choice));
            }
            Err(reason) => reason,
        };
        self.wait_over(0, &because)?;
        let chosen = self.dearer_instance(&because, self.gateway_cost);
        chosen.or_else(|| self.dearer_gateway(&because, self.gateway_cost)).ok_or(because)
    }

    fn dearer_instance(&self, because: &Reason, there: NanoUsd) -> Option<Chosen> {
        let found = self.overlay.best_instance(self.class, None).ok()?;
        let choice = self.overflow(because, found.cost, there);
        Some(on_instance(self.class, found, choice))
    }

    fn dearer_gateway(&self, because: &Reason, there: NanoUsd) -> Option<Chosen> {
        let found = self.overlay.best_gateway(&self.class.profile, None).ok()?;
        let choice = self.overflow(because, found.cost, there);
        Some(in_gateway(found, choice))
    }

    fn is_urgent(&self) -> bool {
        self.class.profile.rank.1 >= URGENT
    }

    /// May it go to a dearer place yet? `start_ms` is how long that takes to start.
    fn wait_over(&self, start_ms: u64, because: &Reason) -> Result<(), Reason> {
        let until = self.since.after_ms(self.class.profile.allowed_wait_ms.saturating_sub(start_ms));
        if self.now < until && !self.is_urgent() {
            return Err(Reason::WaitsForCheaper { until, because: Box::new(because.clone()) });
        }
        Ok(())
    }

    fn overflow(&self, because: &Reason, here: NanoUsd, there: NanoUsd) -> Choice {
        let because = Box::new(because.clone());
        if self.is_urgent() {
            return Choice::Urgent { because };
        }
        Choice::Overflow { waited_ms: self.now.ms_since(self.since), here, there, because }
    }
}
