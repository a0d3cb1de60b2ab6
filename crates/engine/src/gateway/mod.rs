//! Gateway drivers: our code that calls a shared solution.
//!
//! ```text
//! order --POST /invoke (Idempotency-Key)--> gateway --> result
//! restart: POST again with `Skein-Reattach: 1` --> attached | done before | unknown -> lost
//! ```
//! Failure paths: refused before anything started (429, no connection) -> `NotTaken`, tried again;
//! broken off afterwards -> lost, since nobody knows what ran.

mod function;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use skein_domain::{Place, SolutionId};
use skein_wire::{AttemptRef, Invocation};

use crate::app::App;
use crate::core::{GatewayEvent, Input, OrderTo};
use crate::keys::Lane;

/// Invocations under way.
#[derive(Debug)]
pub(crate) struct Gateways {
    http: reqwest::Client,
    open: Mutex<BTreeSet<AttemptRef>>,
}

impl Gateways {
    /// None under way.
    pub(crate) fn new(http: reqwest::Client) -> Self {
        Self { http, open: Mutex::default() }
    }

    /// The client for calls to others.
    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Marks an invocation as under way; false when it already is.
    fn begin(&self, order: AttemptRef) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(order)
    }

    fn finish(&self, order: AttemptRef) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&order);
    }
}

/// A gateway's address and key.
#[derive(Debug, Clone)]
struct Address {
    url: String,
    key: Option<String>,
    http: reqwest::Client,
}

fn address(app: &App, solution: &SolutionId) -> Option<Address> {
    let settled = app.settled();
    let url = settled.solutions.iter().find(|s| s.id == *solution)?.shared()?.url.clone();
    let key = match settled.config.solutions.get(solution.as_str()) {
        Some(crate::config::SolutionConfig::Shared(shared)) => shared.key.clone(),
        _ => None,
    };
    Some(Address { url, key, http: app.gateways.http.clone() })
}

/// Invokes; its end comes back as an input.
pub(crate) fn start(app: &Arc<App>, order: OrderTo, resume: bool) {
    let Place::Gateway(solution) = order.attempt.place.clone() else { return };
    let reference = AttemptRef { attempt: order.attempt.key, generation: order.attempt.generation };
    if !app.gateways.begin(reference) {
        return;
    }
    let app = app.clone();
    tokio::spawn(async move {
        let event = invoke(&app, &solution, &order, resume).await;
        app.gateways.finish(reference);
        app.writer.tell(Input::FromGateway { solution, order: reference, event });
    });
}

async fn invoke(app: &Arc<App>, solution: &SolutionId, order: &OrderTo, resume: bool) -> GatewayEvent {
    let Some(address) = address(app, solution) else {
        return GatewayEvent::NotTaken(format!("solution '{solution}' is no longer configured"));
    };
    let made = match app.make_order(order) {
        Ok(made) => made,
        Err(why) => return GatewayEvent::NotTaken(why),
    };
    let reference = AttemptRef { attempt: made.attempt, generation: made.generation };
    let invocation = Invocation {
        order: made,
        engine_url: app.url(),
        lane_token: app.keys.lane_token(&Lane::Attempt(reference)),
        ca_digest: app.authority.as_ref().map(|a| a.digest.clone()),
    };
    // Whatever was invoked before a restart is attached to, never invoked twice.
    let reattach = resume && order.attempt.state != skein_domain::AttemptState::Assigned;
    app.writer.tell(Input::FromGateway { solution: solution.clone(), order: reference, event: GatewayEvent::Started });
    function::invoke(&address, &invocation, reattach).await
}

/// Asks the gateway to end an invocation.
pub(crate) fn cancel(app: &Arc<App>, solution: SolutionId, order: AttemptRef) {
    let Some(address) = address(app, &solution) else { return };
    tokio::spawn(async move { function::cancel(&address, order).await });
}

/// Sends a scale-up or scale-down message.
pub(crate) fn scale(app: &Arc<App>, solution: SolutionId, min_warm: u32) {
    let Some(address) = address(app, &solution) else { return };
    tokio::spawn(async move {
        if let Err(why) = function::scale(&address, min_warm).await {
            tracing::warn!(%solution, %why, "the scale message was not taken; it is sent again with the next change");
        }
    });
}
