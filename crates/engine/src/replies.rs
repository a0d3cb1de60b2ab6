//! Tells receivers what the turns wrote for them (docs/decisions/0009).
//!
//! ```text
//! replies (rows) --oldest of each receiver--> deliver --ok--> removed
//!                                                |
//!                                                +-- not: this receiver waits, 1 s to 5 min; a row older than a day
//!                                                    is given up
//! ```
//! A crash between a delivery and its removal delivers it again, under the same id.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use skein_domain::{ReplyTo, Timestamp};
use skein_store::{Reader as _, ReplyRow, Side};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use crate::app::App;
use crate::clock;
use crate::core::Input;

/// Receivers served at a time.
const RECEIVERS_MAX: usize = 64;
/// Rows of one receiver read at a time.
const ROWS_MAX: u32 = 100;
/// Longest wait for a receiver's answer.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// First pause after a failure, ms ...
const PAUSE_MS_MIN: u64 = 1_000;
/// ... doubled with each, up to this.
const PAUSE_MS_MAX: u64 = 300_000;
/// What could not be delivered for so long is given up, ms: a day.
const AGE_MS_MAX: u64 = 86_400_000;
/// While a receiver waits, it is looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// A receiver that did not take what it was sent.
#[derive(Debug, Clone, Copy)]
struct Pause {
    failures: u32,
    until: Timestamp,
}

/// Delivers for as long as the engine runs.
pub(crate) async fn run(app: Arc<App>) {
    let mut served: JoinSet<(String, bool)> = JoinSet::new();
    let mut active: BTreeSet<String> = BTreeSet::new();
    let mut pauses: BTreeMap<String, Pause> = BTreeMap::new();
    // What an earlier life of the engine left.
    app.to_tell.notify_one();
    loop {
        tokio::select! {
            () = app.to_tell.notified() => {}
            // Only receivers that wait for their time, or for room, come round by themselves.
            () = tokio::time::sleep(LOOK), if !pauses.is_empty() || active.len() >= RECEIVERS_MAX => {}
            Some(Ok((receiver, good))) = served.join_next() => {
                active.remove(&receiver);
                if good {
                    pauses.remove(&receiver);
                } else {
                    let pause = pauses.entry(receiver).or_insert(Pause { failures: 0, until: clock::now() });
                    pause.failures += 1;
                    let ms = (PAUSE_MS_MIN << (pause.failures - 1).min(20)).min(PAUSE_MS_MAX);
                    pause.until = clock::now().after_ms(spread(ms));
                }
            }
        }
        let receivers = match app.readers.get().and_then(|reader| reader.receivers()) {
            Ok(receivers) => receivers,
            Err(error) => {
                tracing::warn!(%error, "what receivers are to be told cannot be read; tried again");
                tokio::time::sleep(LOOK).await;
                app.to_tell.notify_one();
                continue;
            }
        };
        let now = clock::now();
        pauses.retain(|receiver, _| receivers.contains(receiver));
        for receiver in receivers {
            let waits = pauses.get(&receiver).is_some_and(|pause| pause.until > now);
            if !waits && active.len() < RECEIVERS_MAX && active.insert(receiver.clone()) {
                let app = app.clone();
                served.spawn(async move {
                    let good = serve(&app, &receiver).await;
                    (receiver, good)
                });
            }
        }
    }
}

/// Up to a quarter more: receivers that failed together are not asked together again.
fn spread(ms: u64) -> u64 {
    let byte = clock::random_32().map_or(0, |random| u64::from(random[0]));
    ms + ms * byte / 1024
}

/// Delivers one receiver's rows until there are none; false when it takes no more for now.
async fn serve(app: &App, receiver: &str) -> bool {
    loop {
        let rows = match app.readers.get().and_then(|reader| reader.replies(receiver, ROWS_MAX)) {
            Ok(rows) if rows.is_empty() => return true,
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(%error, receiver, "what it is to be told cannot be read; tried again");
                return false;
            }
        };
        let (mut done, mut good) = (Vec::new(), true);
        for row in &rows {
            match deliver(app, receiver, row).await {
                Ok(()) => done.push(row.id),
                Err(why) if clock::now().ms_since(row.at) > AGE_MS_MAX => {
                    tracing::warn!(receiver, id = row.id, why, "given up after a day: a receiver was not told");
                    done.push(row.id);
                }
                Err(why) => {
                    tracing::info!(receiver, id = row.id, why, "a receiver was not told; tried again later");
                    good = false;
                    break;
                }
            }
        }
        if !done.is_empty() {
            let written = app.writer.ask(|reply| Input::Write { reply, side: vec![Side::RepliesDone(done)] }).await;
            // They are delivered again, under the same ids.
            good &= written.is_ok();
        }
        if !good {
            return false;
        }
    }
}

async fn deliver(app: &App, receiver: &str, row: &ReplyRow) -> Result<(), String> {
    let id = format!("{}-{}", app.engine(), row.id);
    let body = with_id(&row.body, &id);
    match ReplyTo::try_from(receiver.to_owned())? {
        ReplyTo::Webhook(url) => post(app, &url, &id, body).await,
        ReplyTo::File(name) => append(app, &name, &body),
        ReplyTo::Command(line) => command(app, &line, &id, body).await,
    }
}

/// The status with its delivery's id in it.
fn with_id(body: &str, id: &str) -> String {
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(body) {
        Ok(mut status) => {
            status.insert("id".to_owned(), id.into());
            serde_json::Value::Object(status).to_string()
        }
        Err(_) => body.to_owned(),
    }
}

/// As <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md> says.
async fn post(app: &App, url: &str, id: &str, body: String) -> Result<(), String> {
    let now_s = clock::now().0 / 1_000_000;
    let signature = sign(&app.keys.reply_key(), id, now_s, &body);
    let request = app.gateways.http().post(url).timeout(ANSWER_MAX).header("content-type", "application/json");
    let request = request.header("webhook-id", id).header("webhook-timestamp", now_s.to_string());
    let answer = request.header("webhook-signature", signature).body(body).send().await.map_err(|e| e.to_string())?;
    if answer.status().is_success() { Ok(()) } else { Err(format!("it answered {}", answer.status())) }
}

fn sign(key: &[u8], id: &str, now_s: i64, body: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    let tag = ring::hmac::sign(&key, format!("{id}.{now_s}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(tag.as_ref()))
}

fn append(app: &App, name: &str, body: &str) -> Result<(), String> {
    let folder = app.settled().config.replies.directory.clone().unwrap_or_else(|| app.dir.join("replies"));
    let path = folder.join(name);
    let write = || -> std::io::Result<()> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path)?;
        file.write_all(format!("{body}\n").as_bytes())?;
        file.sync_data()
    };
    write().map_err(|e| format!("{}: {e}", path.display()))
}

async fn command(app: &App, line: &str, id: &str, body: String) -> Result<(), String> {
    if !app.settled().config.replies.commands {
        return Err("the configuration's replies.commands does not allow commands".to_owned());
    }
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    let mut child = tokio::process::Command::new(program)
        .args(words)
        .env("SKEIN_REPLY_ID", id)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("'{program}' cannot be run: {e}"))?;
    let stdin = child.stdin.take();
    let whole = async {
        if let Some(mut stdin) = stdin {
            // A program that does not want to read may still say that it is content.
            stdin.write_all(body.as_bytes()).await.unwrap_or_default();
        }
        child.wait().await
    };
    match tokio::time::timeout(ANSWER_MAX, whole).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("'{program}' ended with {status}")),
        Ok(Err(error)) => Err(format!("'{program}': {error}")),
        Err(_) => Err(format!("'{program}' did not end within {} s", ANSWER_MAX.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification's reference libraries.
    #[test]
    fn signatures_are_those_of_the_specification() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
