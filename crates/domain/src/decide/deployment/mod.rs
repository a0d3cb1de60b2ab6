//! Deployment plans [0034]-[0036]: members of a thread's groups onto servers in racks in sites, so that every
//! rule of the groups holds; or which of the rules are in conflict.
//!
//! ```text
//! groups (crate::group) + servers --Question--> plan --> Plan: a server for each member, cheapest
//!                                                    --> Conflict: rules that cannot all hold
//!                                                    --> neither within the limit of tries
//! live: which servers there are now, and what of a session is held where (`decide` looks at Held only)
//! ```
//! Cheapest is: least Mbit/s times levels crossed, then fewest servers. Equally cheap plans are told apart by the
//! order of names alone, so that the order in which things were written changes nothing.
//!
//! Known and not known. Two servers whose racks nobody knows may be in one rack, or not: no rule may claim
//! either. So affinity and diversity of racks hold between them only through the site (another site is another
//! rack) or through one server (one server is one rack). Exclusivity holds where the configuration declares
//! the place, since a cloud does not say who else is in it.

mod conflict;
mod held;
mod hold;
mod live;
mod model;
mod search;
mod state;

pub use conflict::{Conflict, Lack};
pub use held::{HeldRule, held, way};
pub use hold::Held;
pub(super) use hold::Kept;
pub use live::{Deployed, Deployment, REPLANNED_MAX, deploy, replan};
pub use model::{Host, Link, Question, SERVERS_MAX, Taken};

use crate::site::Spot;
use search::Found;

/// How much one question may cost. Counted, not timed: the same question has the same answer everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Servers tried for members while searching for the best plan.
    pub tries_max: u64,
    /// The same, for all searches together that find out which rules are in conflict; setting one up counts too.
    pub conflict_tries_max: u64,
}

impl Default for Effort {
    /// What a submit may cost.
    fn default() -> Self {
        Self { tries_max: 20_000, conflict_tries_max: 100_000 }
    }
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Each member's server, in the members' order.
    pub at: Vec<Spot>,
    /// Sum over pipes of Mbit/s times levels crossed.
    pub crossed_mbps: u64,
    /// Servers used.
    pub servers: u32,
    /// No plan is cheaper. Else it is the best found within the limit of tries.
    pub proved: bool,
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A plan.
    Plan(Plan),
    /// There is none, and why.
    Never(Conflict),
    /// None was found, and none was proved impossible.
    Undecided {
        /// Servers tried for members.
        tries: u64,
    },
}

/// Plans. Same question, same answer, in whatever order its parts are given.
pub fn plan(question: &Question, effort: Effort) -> Answer {
    let mut question = question.clone();
    question.hosts.sort();
    question.hosts.dedup_by(|a, b| a.spot == b.spot);
    let all = question.hosts.len() <= SERVERS_MAX;
    question.hosts.truncate(SERVERS_MAX);
    let relations = model::Relations::of(&question.hosts);
    let model = model::Model::new(&question, &relations, &|_| true);
    match search::search(&model, effort.tries_max, false) {
        (Found::Plan { at, cost, proved }, _) => Answer::Plan(Plan {
            at: at.into_iter().map(|host| question.hosts[host].spot.clone()).collect(),
            crossed_mbps: cost.crossed_mbps,
            servers: cost.servers,
            proved: proved && all,
        }),
        (Found::Never, _) if all => Answer::Never(conflict::find(&question, &relations, effort)),
        // Of servers beyond the limit nothing is known.
        (Found::Never | Found::Undecided, tries) => Answer::Undecided { tries },
    }
}
