//! Agents: joining, and the control lane.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use skein_domain::SolutionId;
use skein_store::{AgentIdentity, Reader as _, Side};
use skein_wire::join::{JoinRequest, JoinResponse};
use skein_wire::{FRAME_BYTES_MAX, FromAgent, Hello, OrderBody, PROTOCOL, PROTOCOL_MIN, ToAgent, frame};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::fail::{Fail, typed_body};
use crate::app::App;
use crate::clock;
use crate::core::Input;
use crate::keys::Lane;

/// An agent that has not said hello by then is disconnected.
const HELLO_WAIT: Duration = Duration::from_secs(10);

/// `POST /agent/v1/join`: a one-time token buys an identity.
pub(super) async fn join(State(app): State<Arc<App>>, request: Request) -> Result<Json<JoinResponse>, Fail> {
    let ask: JoinRequest = typed_body(request).await?;
    let engine = app.engine();
    if ask.engine != engine {
        let why = format!("the token is for engine '{}', this is '{engine}'", ask.engine);
        return Err(Fail::bad(why));
    }
    let settled = app.settled();
    if !settled.connection_open {
        return Err(Fail::unauthorized(
            "agents may not connect here",
            "the configuration's classes.connection is builtin:closed",
        ));
    }
    if !settled.joins_open {
        return Err(Fail::unauthorized(
            "no further instance may join",
            "the configuration's classes.resource is builtin:fixed",
        ));
    }
    if !settled.solutions.iter().any(|s| s.id == ask.solution && s.dedicated().is_some()) {
        return Err(Fail::bad(format!(
            "there is no dedicated solution '{}': add it to the configuration",
            ask.solution
        )));
    }
    let hash = crate::tokens::hash(&ask.secret);
    let reader = app.readers.get()?;
    let token = reader.join_token(&hash)?.filter(|t| !t.used && t.expires_at > clock::now());
    if token.is_none() {
        return Err(Fail::unauthorized(
            "the join token is unknown, used or expired",
            "make a new one with 'skein token join'",
        ));
    }
    if reader.identity(&ask.instance)?.is_some_and(|known| known.public_key != ask.public_key) {
        return Err(Fail::bad(format!("an instance named '{}' has joined already: choose another name", ask.instance)));
    }
    drop(reader);
    let identity = AgentIdentity { instance: ask.instance.clone(), solution: ask.solution, public_key: ask.public_key };
    let side = vec![Side::Identity(identity), Side::JoinTokenUsed(hash)];
    app.writer.ask(|reply| Input::Write { reply, side }).await?;
    let ca_pem = app.authority.as_ref().map(|a| a.ca_pem.clone());
    Ok(Json(JoinResponse { instance: ask.instance, engine, ca_pem }))
}

/// `GET /agent/v1/connect`: the control lane.
pub(super) async fn connect(State(app): State<Arc<App>>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.max_message_size(FRAME_BYTES_MAX).max_frame_size(FRAME_BYTES_MAX).on_upgrade(move |socket| async move {
        if let Err(error) = serve(&app, socket).await {
            tracing::debug!(%error, "an agent's connection ended");
        }
    })
}

async fn serve(app: &Arc<App>, mut socket: WebSocket) -> anyhow::Result<()> {
    let nonce = clock::random_32()?;
    let challenge = ToAgent::Challenge { nonce: STANDARD.encode(nonce), engine: app.engine(), protocol: PROTOCOL };
    send(&mut socket, &challenge).await?;
    let hello = match tokio::time::timeout(HELLO_WAIT, receive_hello(&mut socket)).await {
        Ok(hello) => hello?,
        Err(_) => anyhow::bail!("no hello within {} s", HELLO_WAIT.as_secs()),
    };
    let solution = match check(app, &hello, &nonce) {
        Ok(solution) => solution,
        Err(refused) => {
            send(&mut socket, &refused).await?;
            return Ok(socket.send(Message::Close(None)).await?);
        }
    };
    let (instance, boot) = (hello.instance.clone(), hello.boot.clone());
    let (queue, receiver) = unbounded_channel();
    let settled = app.settled();
    queue.send(vec![ToAgent::Welcome {
        lease_ms: settled.settings.lease_ms,
        heartbeat_ms: settled.heartbeat_ms,
        lane_token: app.keys.lane_token(&Lane::Agent(instance.clone())),
    }])?;
    let number = app.connections.add(&instance, &boot, queue);
    app.writer.tell(Input::Hello { hello: Box::new(hello), solution });
    let (sink, mut stream) = socket.split();
    let mut writing = tokio::spawn(write(sink, receiver));
    loop {
        let message = tokio::select! {
            message = stream.next() => message,
            _ = &mut writing => None,
        };
        let text = match message {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            _ => break,
        };
        match frame::decode::<FromAgent>(text.as_str()) {
            Ok(messages) => {
                app.writer.tell(Input::FromAgent { instance: instance.clone(), boot: boot.clone(), messages });
            }
            Err(error) => {
                tracing::warn!(%instance, %error, "a frame was refused; the connection is closed");
                break;
            }
        }
    }
    writing.abort();
    if app.connections.remove(&instance, number) {
        app.writer.tell(Input::Disconnected { instance, boot });
    }
    Ok(())
}

async fn send(socket: &mut WebSocket, message: &ToAgent) -> anyhow::Result<()> {
    Ok(socket.send(Message::Text(frame::encode(std::slice::from_ref(message))?.into())).await?)
}

async fn receive_hello(socket: &mut WebSocket) -> anyhow::Result<Hello> {
    while let Some(message) = socket.recv().await {
        let Message::Text(text) = message? else { continue };
        if let Some(FromAgent::Hello(hello)) = frame::decode(text.as_str())?.into_iter().next() {
            return Ok(*hello);
        }
    }
    anyhow::bail!("it left without a hello")
}

/// Its solution when it is who it says; else the refusal.
fn check(app: &App, hello: &Hello, nonce: &[u8]) -> Result<SolutionId, ToAgent> {
    let refuse = |why: String, next_step: &str, retry| ToAgent::Refused { why, next_step: next_step.to_owned(), retry };
    if !app.settled().connection_open {
        let why = "agents may not connect here".to_owned();
        return Err(refuse(why, "the configuration's classes.connection is builtin:closed", true));
    }
    let engine = app.engine();
    if hello.engine != engine {
        let why = format!("the agent joined engine '{}', this is '{engine}'", hello.engine);
        return Err(refuse(why, "join this engine with a token of its own", false));
    }
    if !(PROTOCOL_MIN..=PROTOCOL).contains(&hello.protocol) {
        let why = format!("the agent speaks protocol {}, this engine {PROTOCOL_MIN} to {PROTOCOL}", hello.protocol);
        return Err(refuse(why, "update the older of the two", false));
    }
    let unavailable = |e: skein_store::StoreError| refuse(e.to_string(), "see the engine's log", true);
    let reader = app.readers.get().map_err(unavailable)?;
    let identity = reader.identity(&hello.instance).map_err(unavailable)?;
    let signed = identity.filter(|i| is_signed(i, hello, nonce));
    match signed {
        Some(identity) => Ok(identity.solution),
        None => Err(refuse(
            format!("'{}' did not prove its identity", hello.instance),
            "join again with a new token ('skein token join')",
            false,
        )),
    }
}

fn is_signed(identity: &AgentIdentity, hello: &Hello, nonce: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (STANDARD.decode(&identity.public_key), STANDARD.decode(&hello.signature)) else {
        return false;
    };
    let message = [nonce, hello.boot.as_bytes()].concat();
    ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key).verify(&message, &signature).is_ok()
}

/// Writes what is queued, as many messages to a frame as fit.
async fn write(mut sink: SplitSink<WebSocket, Message>, mut queue: UnboundedReceiver<Vec<ToAgent>>) {
    const BATCHES_MAX: usize = 64;
    let mut batches = Vec::new();
    while queue.recv_many(&mut batches, BATCHES_MAX).await > 0 {
        let messages: Vec<ToAgent> = batches.drain(..).flatten().collect();
        let Ok((mut frames, large)) = frame::pack(&messages) else { return };
        if !large.is_empty() {
            // In their place: what was queued behind an order may be about it.
            let small = |message| if large.contains(&message) { to_fetch(message) } else { Some(message) };
            let messages: Vec<ToAgent> = messages.into_iter().filter_map(small).collect();
            let Ok((again, _)) = frame::pack(&messages) else { return };
            frames = again;
        }
        for text in frames {
            if sink.send(Message::Text(text.into())).await.is_err() {
                return;
            }
        }
    }
    // The queue was closed: a newer connection took over, or the agent is not wanted.
    sink.close().await.unwrap_or_default();
}

/// An order that is too large for a frame is fetched over the bulk lane; nothing else is ever so large.
fn to_fetch(message: ToAgent) -> Option<ToAgent> {
    match message {
        ToAgent::Start { attempt, generation, .. } => {
            Some(ToAgent::Start { attempt, generation, order: OrderBody::Fetch })
        }
        _ => None,
    }
}
