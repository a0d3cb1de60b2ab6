//! A proxy in front of a service that makes faults from a seed, and counts what is sent to it.
//!
//! It reads a request whole (counting its body as it comes), decides by seed and number, and forwards it on a
//! connection of its own. Where a fault changes the body and the request bears a digest, it answers as the service
//! would: emulators do not check every digest that the services they stand for check.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Digest as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::Seed;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Not forwarded: 500 or 503.
    Fails,
    /// Not forwarded: 429, `Retry-After: 1`.
    Throttles,
    /// Not forwarded, no answer.
    CutBefore,
    /// Forwarded, no answer.
    CutAfter,
    /// Forwarded after a while.
    Slow,
    /// A byte of the body is another.
    Flips,
    /// Half of the body, then nothing.
    Truncates,
    /// Not forwarded: 410.
    Gone,
    /// Not forwarded: 499, Google's word for a session that was ended.
    Ended,
}

pub const ALL: &[Fault] =
    &[Fault::Fails, Fault::Throttles, Fault::CutBefore, Fault::CutAfter, Fault::Slow, Fault::Flips, Fault::Truncates];

type Rule = Arc<dyn Fn(&Request) -> bool + Send + Sync>;

/// How often what goes wrong.
#[derive(Clone)]
pub struct Plan {
    pub seed: u64,
    /// Of a thousand requests.
    pub per_mille: u64,
    pub kinds: Vec<Fault>,
    /// Requests that are left alone.
    pub spares: Rule,
}

impl Plan {
    pub fn none() -> Self {
        Self { seed: 0, per_mille: 0, kinds: Vec::new(), spares: Arc::new(|_| false) }
    }
    pub fn all(seed: u64, per_mille: u64) -> Self {
        Self { seed, per_mille, kinds: ALL.to_vec(), ..Self::none() }
    }
    pub fn only(self, kinds: &[Fault]) -> Self {
        Self { kinds: kinds.to_vec(), ..self }
    }
    pub fn sparing(self, rule: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        Self { spares: Arc::new(rule), ..self }
    }
}

pub struct Request {
    /// "PUT /path?query HTTP/1.1".
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.line.starts_with(method) && self.line.contains(part)
    }
}

struct State {
    upstream: SocketAddr,
    plan: Mutex<Plan>,
    /// What goes wrong next, whatever the plan says.
    next: Mutex<VecDeque<(Rule, Fault)>>,
    requests: AtomicU64,
    body_bytes: AtomicU64,
    faults: Mutex<Vec<(Fault, String)>>,
    /// The service checks digests itself.
    service_looks: AtomicBool,
    /// What requests must bear, and what they are told that do not: for emulators that let everybody in.
    gate: Mutex<Option<Gate>>,
}

/// A header, its value, and the answer to who lacks it.
pub type Gate = (&'static str, &'static str, &'static str);

/// Listening on a port of this machine until it is dropped.
pub struct Proxy {
    state: Arc<State>,
    pub address: SocketAddr,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Proxy {
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            upstream,
            plan: Mutex::new(Plan::none()),
            next: Mutex::default(),
            requests: AtomicU64::new(0),
            body_bytes: AtomicU64::new(0),
            faults: Mutex::default(),
            service_looks: AtomicBool::new(false),
            gate: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                // What a client that was killed leaves half done is no fault of the proxy's.
                tokio::spawn(async move { serve(client, &state).await.unwrap_or_default() });
            }
        });
        Self { state, address, accepting }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
    pub fn plan(&self, plan: Plan) {
        *self.state.plan.lock().unwrap() = plan;
    }
    /// The next request that fits gets this fault.
    pub fn next(&self, fits: impl Fn(&Request) -> bool + Send + Sync + 'static, fault: Fault) {
        self.state.next.lock().unwrap().push_back((Arc::new(fits), fault));
    }
    pub fn gate(&self, gate: Gate) {
        *self.state.gate.lock().unwrap() = Some(gate);
    }
    /// The service checks digests itself: changed bodies are handed to it.
    pub fn service_looks(&self) {
        self.state.service_looks.store(true, Ordering::SeqCst);
    }
    /// Bytes of bodies that clients sent, also of those that were cut.
    pub fn body_bytes(&self) -> u64 {
        self.state.body_bytes.load(Ordering::SeqCst)
    }
    /// What went wrong since this was asked last.
    pub fn faults(&self) -> Vec<(Fault, String)> {
        std::mem::take(&mut *self.state.faults.lock().unwrap())
    }
}

impl State {
    fn fault(&self, request: &Request) -> Option<Fault> {
        let mut next = self.next.lock().unwrap();
        if let Some(at) = next.iter().position(|(fits, _)| fits(request)) {
            let (_, fault) = next.remove(at).unwrap();
            self.note(fault, request);
            return Some(fault);
        }
        let plan = self.plan.lock().unwrap().clone();
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let mut seed = Seed(plan.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        if plan.kinds.is_empty() || (plan.spares)(request) || seed.below(1000) >= plan.per_mille {
            return None;
        }
        let fault = plan.kinds[usize::try_from(seed.below(plan.kinds.len() as u64)).unwrap()];
        // Content is changed; what has none gets another fault.
        let fault = match fault {
            Fault::Flips | Fault::Truncates if request.body.len() < 4096 => Fault::CutAfter,
            fault => fault,
        };
        self.note(fault, request);
        Some(fault)
    }
    fn note(&self, fault: Fault, request: &Request) {
        self.faults.lock().unwrap().push((fault, request.line.clone()));
    }
}

async fn serve(mut client: TcpStream, state: &State) -> std::io::Result<()> {
    let counts = |bytes: usize| {
        state.body_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
    };
    let Some(mut request) = read(&mut client, counts).await? else { return Ok(()) };
    let gate = *state.gate.lock().unwrap();
    if let Some((_, _, refusal)) = gate.filter(|(name, value, _)| request.header(name) != Some(value)) {
        return say(&mut client, "401 Unauthorized", "", refusal).await;
    }
    let fault = state.fault(&request);
    match fault {
        None => {}
        Some(Fault::Fails) if request.body.len() % 2 == 0 => return say(&mut client, "500 Oops", "", "").await,
        Some(Fault::Fails) => return say(&mut client, "503 Busy", "", "busy").await,
        Some(Fault::Throttles) => return say(&mut client, "429 Too Many", "Retry-After: 1\r\n", "slow down").await,
        Some(Fault::Ended) => return say(&mut client, "499 Client Closed Request", "", "").await,
        Some(Fault::Gone) => return say(&mut client, "410 Gone", "", "").await,
        Some(Fault::CutBefore) => return Ok(()),
        Some(Fault::Slow) => tokio::time::sleep(Duration::from_millis(150)).await,
        Some(Fault::CutAfter) => {
            forward(&request, state, request.body.len()).await?;
            return Ok(());
        }
        Some(Fault::Truncates) => {
            forward(&request, state, request.body.len() / 2).await.ok();
            return Ok(());
        }
        Some(Fault::Flips) => {
            let at = request.body.len() / 3;
            request.body[at] ^= 0x10;
            if !state.service_looks.load(Ordering::SeqCst)
                && let Some((status, headers, body)) = digest_refused(&request)
            {
                return say(&mut client, status, headers, body).await;
            }
        }
    }
    let answer = forward(&request, state, request.body.len()).await?;
    client.write_all(&answer).await?;
    client.shutdown().await
}

pub async fn say(client: &mut TcpStream, status: &str, headers: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    client.write_all(text.as_bytes()).await?;
    client.shutdown().await
}

/// Reads a request whole; `counts` is told of the bytes of its body as they come.
pub async fn read(client: &mut TcpStream, counts: impl Fn(usize)) -> std::io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
            break at;
        }
        if client.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let headers: Vec<(String, String)> =
        lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let body = bytes.split_off(end + 4);
    counts(body.len());
    let mut request = Request { line, headers, body };
    let length: Option<usize> = request.header("content-length").and_then(|length| length.parse().ok());
    let chunked = request.header("transfer-encoding").is_some();
    let whole = |body: &[u8]| if chunked { body.ends_with(b"0\r\n\r\n") } else { body.len() >= length.unwrap_or(0) };
    while !whole(&request.body) {
        let got = client.read_buf(&mut request.body).await?;
        counts(got);
        if got == 0 {
            return Ok(None);
        }
    }
    Ok(Some(request))
}

/// Sends it on, with so much of its body, and reads the answer to its end.
async fn forward(request: &Request, state: &State, body_bytes: usize) -> std::io::Result<Vec<u8>> {
    let mut upstream = TcpStream::connect(state.upstream).await?;
    let mut head = format!("{}\r\n", request.line);
    for (name, value) in request.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("connection")) {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("Connection: close\r\n\r\n");
    upstream.write_all(head.as_bytes()).await?;
    upstream.write_all(&request.body[..body_bytes]).await?;
    if body_bytes < request.body.len() {
        upstream.shutdown().await?;
    }
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).await?;
    // The client must not use the connection again either.
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n").unwrap_or(0);
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let kept = head.split("\r\n").filter(|line| !line.to_lowercase().starts_with("connection:"));
    let mut whole = kept.collect::<Vec<_>>().join("\r\n").into_bytes();
    whole.extend_from_slice(b"\r\nConnection: close");
    whole.extend_from_slice(&answer[end..]);
    Ok(whole)
}

/// What the service says when a digest does not fit. None: the request bears none.
fn digest_refused(request: &Request) -> Option<(&'static str, &'static str, &'static str)> {
    let sha256 = || STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, &request.body));
    let md5 = || STANDARD.encode(md5::Md5::digest(&request.body));
    if let Some(given) = request.header("x-amz-checksum") {
        assert_ne!(given, sha256());
        let body = r#"{"Message":"the checksum does not match","Reason":"INVALID_BLOCK"}"#;
        return Some(("400 Bad", "x-amzn-ErrorType: ValidationException\r\n", body));
    }
    if let Some(given) = request.header("content-md5") {
        assert_ne!(given, md5());
        if request.header("x-ms-version").is_some() {
            return Some(("400 Bad", "x-ms-error-code: Md5Mismatch\r\n", "<Error><Code>Md5Mismatch</Code></Error>"));
        }
        let body = "<?xml version=\"1.0\"?><Error><Code>BadDigest</Code><Message>no</Message></Error>";
        return Some(("400 Bad", "", body));
    }
    request.header("x-amz-content-sha256").map(|_| {
        let body = "<?xml version=\"1.0\"?><Error><Code>XAmzContentSHA256Mismatch</Code></Error>";
        ("400 Bad", "", body)
    })
}
