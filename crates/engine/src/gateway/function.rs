//! The driver for HTTP functions that speak our runner's contract (the local function host).

use std::time::Duration;

use skein_domain::{AttemptEnd, EndCause};
use skein_wire::{AttemptRef, Invocation, InvocationResult};

use super::Address;
use crate::core::GatewayEvent;

/// Beyond an attempt's own limit we wait this long for the gateway's answer, ms.
const ANSWER_MARGIN_MS: u64 = 60_000;
/// When an attempt has no limit of its own, ms: one day.
const ANSWER_DEFAULT_MS: u64 = 86_400_000;

fn key(order: AttemptRef) -> String {
    format!("{}:{}", order.attempt, order.generation)
}

fn with_key(request: reqwest::RequestBuilder, address: &Address) -> reqwest::RequestBuilder {
    match &address.key {
        Some(key) => request.bearer_auth(key),
        None => request,
    }
}

/// Invokes and waits for the end.
pub(super) async fn invoke(address: &Address, invocation: &Invocation, reattach: bool) -> GatewayEvent {
    let order = AttemptRef { attempt: invocation.order.attempt, generation: invocation.order.generation };
    let limit = invocation.order.limit_ms.unwrap_or(ANSWER_DEFAULT_MS).saturating_add(ANSWER_MARGIN_MS);
    let mut request = address
        .http
        .post(format!("{}/invoke", address.url))
        .header("Idempotency-Key", key(order))
        .timeout(Duration::from_millis(limit))
        .json(invocation);
    if reattach {
        request = request.header("Skein-Reattach", "1");
    }
    let response = match with_key(request, address).send().await {
        Ok(response) => response,
        Err(e) if e.is_connect() && !reattach => {
            return GatewayEvent::NotTaken(format!("the gateway at {} cannot be reached: is it running?", address.url));
        }
        Err(e) => return lost(format!("the gateway did not answer: {e}")),
    };
    let status = response.status().as_u16();
    let body = match response.bytes().await {
        Ok(body) => body,
        Err(e) => return lost(format!("the gateway's answer broke off: {e}")),
    };
    match serde_json::from_slice::<InvocationResult>(&body) {
        Ok(result) if result.order == order => GatewayEvent::Ended(Box::new(result.end)),
        Ok(result) => lost(format!("the gateway answered for {} instead", result.order.attempt)),
        Err(_) if status == 404 && reattach => lost("the gateway does not know it any more".to_owned()),
        Err(_) if matches!(status, 400..=499 | 503) => {
            GatewayEvent::NotTaken(format!("the gateway refused it (status {status}): {}", text(&body)))
        }
        Err(_) => lost(format!("the gateway answered status {status}: {}", text(&body))),
    }
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned()
}

fn lost(why: String) -> GatewayEvent {
    GatewayEvent::Ended(Box::new(AttemptEnd::bare(EndCause::Lost { why })))
}

/// Asks for the end of an invocation; its result then comes as the answer to `invoke`.
pub(super) async fn cancel(address: &Address, order: AttemptRef) {
    let request = address.http.post(format!("{}/cancel", address.url)).header("Idempotency-Key", key(order));
    if let Err(error) = with_key(request, address).send().await {
        tracing::warn!(attempt = %order.attempt, %error, "the gateway was not told to cancel; its time limit ends it");
    }
}

/// Tells how many instances to keep warm.
pub(super) async fn scale(address: &Address, min_warm: u32) -> Result<(), String> {
    let request = address.http.post(format!("{}/scale", address.url)).json(&serde_json::json!({"min_warm": min_warm}));
    let response = with_key(request, address).send().await.map_err(|e| e.to_string())?;
    if response.status().is_success() { Ok(()) } else { Err(format!("status {}", response.status())) }
}
