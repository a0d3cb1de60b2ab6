//! Fetching from a server that breaks off: what came is not asked for again, unless it is another file by now.

use std::io::Read as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::*;

const BYTES: usize = 300_000;

fn content(version: u8) -> Vec<u8> {
    (0..BYTES).map(|n| u8::try_from(n % 251).unwrap() ^ version).collect()
}

#[derive(Default)]
struct Seen {
    totals: Mutex<Vec<Option<u64>>>,
    cancelled: bool,
}

impl Progress for Seen {
    fn is_cancelled(&self) -> bool {
        self.cancelled
    }
}
impl Fetching for Seen {
    fn begins(&self, total: Option<u64>) {
        self.totals.lock().unwrap().push(total);
    }
}

/// A server whose answers are `serve`; bytes that it sent.
async fn server(
    serve: impl Fn(u64, Option<(usize, String)>) -> Response + Clone + Send + Sync + 'static,
) -> (Url, &'static AtomicU64) {
    let calls: &'static AtomicU64 = Box::leak(Box::default());
    let handler = move |headers: HeaderMap| async move {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let from = text("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        serve(calls.fetch_add(1, Ordering::SeqCst), from.zip(text("if-range")))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/disk.img", listener.local_addr().unwrap())).unwrap();
    let router = axum::Router::new().route("/disk.img", axum::routing::get(handler));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, calls)
}

/// `bytes` from `from` on, cut off after `most` of them.
fn part(bytes: &[u8], from: usize, most: usize, tag: &str) -> Response {
    let rest = bytes[from..].to_vec();
    let length = rest.len().to_string();
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> = if rest.len() <= most {
        vec![Ok(rest)]
    } else {
        vec![Ok(rest[..most].to_vec()), Err(std::io::Error::other("cut"))]
    };
    // A server sends what it has when the next piece is not there yet; an error at once would take all with it.
    let pieces = futures_util::stream::iter(pieces).then(|piece| async {
        tokio::time::sleep(Duration::from_millis(if piece.is_err() { 30 } else { 0 })).await;
        piece
    });
    let body = axum::body::Body::from_stream(pieces);
    let status = if from == 0 { StatusCode::OK } else { StatusCode::PARTIAL_CONTENT };
    (status, [("etag", tag.to_owned()), ("content-length", length)], body).into_response()
}

async fn get(url: &Url, seen: &Seen) -> Result<(Vec<u8>, String), FetchError> {
    // A second test finds it installed.
    rustls::crypto::ring::default_provider().install_default().ok();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let (mut file, sha256) = fetch(&http, url, tempfile::tempfile().unwrap(), seen).await?;
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    Ok((bytes, sha256))
}

#[tokio::test]
async fn a_fetch_that_breaks_off_goes_on_where_it_was() {
    let (url, calls) = server(|_, asked| part(&content(0), asked.map_or(0, |(from, _)| from), 70_000, "\"a\"")).await;
    let seen = Seen::default();
    let (bytes, sha256) = get(&url, &seen).await.unwrap();
    assert!(bytes == content(0));
    let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
    assert_eq!(sha256, crate::clock::hex(digest.as_ref()));
    assert!(calls.load(Ordering::SeqCst) >= 5, "it was cut off again and again");
    assert_eq!(*seen.totals.lock().unwrap(), [Some(BYTES as u64)], "it began once");
}

#[tokio::test]
async fn another_file_by_now_is_fetched_from_its_beginning() {
    let (url, _) = server(|call, asked| match (call, asked) {
        (0, _) => part(&content(0), 0, 100_000, "\"old\""),
        // Its tag is another: all of it (RFC 9110, section 13.1.5).
        (_, Some((_, tag))) if tag != "\"new\"" => part(&content(9), 0, BYTES, "\"new\""),
        (_, asked) => part(&content(9), asked.map_or(0, |(from, _)| from), BYTES, "\"new\""),
    })
    .await;
    assert!(get(&url, &Seen::default()).await.unwrap().0 == content(9));
}

#[tokio::test]
async fn what_is_not_there_is_said_at_once_and_what_fails_for_good_after_some_tries() {
    let (gone, calls) = server(|_, _| StatusCode::NOT_FOUND.into_response()).await;
    assert!(get(&gone, &Seen::default()).await.unwrap_err().to_string().contains("404"));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let (ill, calls) = server(|_, _| StatusCode::BAD_GATEWAY.into_response()).await;
    assert!(get(&ill, &Seen::default()).await.unwrap_err().to_string().contains("502"));
    assert_eq!(calls.load(Ordering::SeqCst), u64::from(TRIES));
    let (good, _) = server(|_, _| part(&content(0), 0, BYTES, "\"a\"")).await;
    let cancelled = Seen { cancelled: true, ..Seen::default() };
    assert!(matches!(get(&good, &cancelled).await, Err(FetchError::Cancelled)));
}
