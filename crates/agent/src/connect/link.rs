//! The WebSocket: dials, reads messages, writes frames, and dials again with a growing pause.
//!
//! The link knows nothing of attempts. It hands every message over and writes what it is given from
//! a task of its own, so that neither bulk transfers nor a slow disk can hold up a heartbeat.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use skein_wire::frame;
use skein_wire::lane::CONNECT_PATH;
use skein_wire::{FRAME_BYTES_MAX, ToAgent};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::clock;
use crate::lane::chain;
use crate::tls;

/// First pause before dialling again, ms.
pub(crate) const REDIAL_MS_MIN: u64 = 100;
/// Longest pause before dialling again, ms.
pub(crate) const REDIAL_MS_MAX: u64 = 5_000;
/// A connection and its handshake take at most this, ms.
pub(crate) const DIAL_MS_MAX: u64 = 10_000;
/// An engine that says nothing for this long, or for a lease when that is longer, is dialled anew, ms.
pub(crate) const SILENCE_MS_MAX: u64 = 15_000;
/// A frame that cannot be written within this ends the connection, ms.
pub(crate) const WRITE_MS_MAX: u64 = 10_000;

/// What the link tells.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// Connected; frames go out by this sender, which closes the connection when dropped.
    Up(mpsc::UnboundedSender<String>),
    /// A message.
    Message(ToAgent),
    /// The connection is gone; it dials again.
    Down(String),
}

/// Where to dial, and whom to trust.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) engine_url: String,
    pub(crate) ca_digest: Option<String>,
    pub(crate) ca_pem: Option<String>,
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
type Socket = WebSocketStream<Box<dyn Duplex>>;

/// Keeps a connection up until `events` has no receiver any more.
pub(crate) async fn keep<E: From<LinkEvent>>(address: Address, events: mpsc::UnboundedSender<E>) {
    let mut pause_ms = REDIAL_MS_MIN;
    loop {
        let dialled = tokio::time::timeout(Duration::from_millis(DIAL_MS_MAX), dial(&address)).await;
        let why = match dialled {
            Ok(Ok(socket)) => {
                let since = clock::now_ms();
                let why = converse(socket, &events).await;
                if clock::now_ms() - since > REDIAL_MS_MAX {
                    pause_ms = REDIAL_MS_MIN;
                }
                why
            }
            Ok(Err(why)) => why,
            Err(_) => format!("no connection within {DIAL_MS_MAX} ms"),
        };
        if events.send(LinkEvent::Down(why).into()).is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(clock::jittered(pause_ms))).await;
        pause_ms = (pause_ms * 2).min(REDIAL_MS_MAX);
    }
}

async fn dial(address: &Address) -> Result<Socket, String> {
    let url =
        reqwest::Url::parse(&address.engine_url).map_err(|e| format!("'{}' is no URL: {e}", address.engine_url))?;
    let host = url.host_str().ok_or("the engine's URL names no host")?;
    let port = url.port_or_known_default().ok_or("the engine's URL names no port")?;
    let plain_host = host.trim_start_matches('[').trim_end_matches(']');
    let tcp = TcpStream::connect((plain_host, port)).await.map_err(|e| format!("{host}:{port}: {e}"))?;
    tcp.set_nodelay(true).map_err(|e| e.to_string())?;
    let secure = url.scheme() == "https";
    let stream: Box<dyn Duplex> = if secure {
        let config =
            tls::client_config(address.ca_digest.as_deref(), address.ca_pem.as_deref()).map_err(|e| e.to_string())?;
        let name = ServerName::try_from(plain_host.to_owned()).map_err(|e| e.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        Box::new(connector.connect(name, tcp).await.map_err(|e| format!("TLS: {e}"))?)
    } else {
        Box::new(tcp)
    };
    let scheme = if secure { "wss" } else { "ws" };
    let path = url.path().trim_end_matches('/');
    let target = format!("{scheme}://{host}:{port}{path}{CONNECT_PATH}");
    let config = WebSocketConfig::default()
        .max_message_size(Some(2 * FRAME_BYTES_MAX))
        .max_frame_size(Some(2 * FRAME_BYTES_MAX));
    let (socket, _) = client_async_with_config(target, stream, Some(config)).await.map_err(|e| chain(&e))?;
    Ok(socket)
}

/// Reads and writes until the connection ends; says why it did.
async fn converse<E: From<LinkEvent>>(socket: Socket, events: &mpsc::UnboundedSender<E>) -> String {
    let (mut sink, mut stream) = socket.split();
    let (frames, mut to_write) = mpsc::unbounded_channel::<String>();
    let mut writer = tokio::spawn(async move {
        while let Some(text) = to_write.recv().await {
            let write = sink.send(Message::text(text));
            match tokio::time::timeout(Duration::from_millis(WRITE_MS_MAX), write).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => return format!("sending failed: {}", chain(&e)),
                Err(_) => return format!("the engine took no frame for {WRITE_MS_MAX} ms"),
            }
        }
        // A close frame on a connection that is already broken helps nobody.
        tokio::time::timeout(Duration::from_millis(500), sink.close()).await.ok();
        "closed by this agent".to_owned()
    });
    if events.send(LinkEvent::Up(frames).into()).is_err() {
        return String::new();
    }
    let mut silence_ms = SILENCE_MS_MAX;
    loop {
        let received = tokio::select! {
            received = tokio::time::timeout(Duration::from_millis(silence_ms), stream.next()) => received,
            ended = &mut writer => return ended.unwrap_or_else(|e| e.to_string()),
        };
        let frame = match received {
            Err(_) => break format!("the engine said nothing for {silence_ms} ms"),
            Ok(None | Some(Err(tungstenite::Error::ConnectionClosed))) => {
                break "the engine closed the connection".to_owned();
            }
            Ok(Some(Err(e))) => break chain(&e),
            Ok(Some(Ok(frame))) => frame,
        };
        let Message::Text(text) = frame else { continue };
        match frame::decode::<ToAgent>(&text) {
            Ok(messages) => {
                for message in messages {
                    if let ToAgent::Welcome { lease_ms, .. } | ToAgent::Lease { lease_ms, .. } = message {
                        silence_ms = lease_ms.max(SILENCE_MS_MAX);
                    }
                    if events.send(LinkEvent::Message(message).into()).is_err() {
                        writer.abort();
                        return String::new();
                    }
                }
            }
            Err(e) => {
                break format!(
                    "the engine sent what this agent does not understand: {e}; is its version older by more than one?"
                );
            }
        }
    }
}
