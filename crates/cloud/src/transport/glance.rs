//! `OpenStack`'s Glance: one stream an image (Image API v2).
//!
//! ```text
//! id derived from content, destination and generation
//! GET image --> active, ours: nothing to do
//!   | 404          | queued: made, without its data       | saving: another try is under way, or was cut: waited for,
//!   v              |                                      |   then deleted, next generation
//! POST image       |   409: an image of this id was deleted, ids are never used again: next generation
//!   +--------------+
//!   v
//! PUT file --> GET image: active, with the digest of what was sent
//!   | cut, 5xx: queued again --> once more from the beginning        | other digest: deleted, next generation
//! ```
//! Glance takes no parts: an upload that was cut begins again, and that is Glance's, not ours. What is remembered
//! is only what `abandon` needs: id and status say the rest. It looks into the data: what is not of the format that was said is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use reqwest::Method;
use ring::digest::{Context, SHA512};
use serde_json::{Value, json};
use skein_image::Format;
use tokio::sync::mpsc;

use super::cut::{Part, Shape};
use super::memory::recall;
use super::pump::pump;
use super::{ContentId, Control, Destination, Limits, Memory, RESTARTS_MAX, Remembers, Source, Transport};
use super::{Underway, Uploaded, too_often};
use crate::error::{Class, Fault};
use crate::http::{Ask, Caller};
use crate::sign::{Signer, hex};
use crate::{Endpoint, Error, Result, Retry, Surroundings};

/// Images of one content that were begun and deleted: their ids are used up.
const GENERATIONS_MAX: u32 = 16;
/// How long an image that is being saved by somebody is waited for, looks of [`SAVING_MS`].
const SAVING_LOOKS: u32 = 30;
/// Between two such looks, ms.
const SAVING_MS: u64 = 1_000;
/// Bytes handed to the network at a time.
const PART_BYTES_MAX: u64 = 1 << 20;
const CONTENT: &str = "skein_content";
const NAME: &str = "glance";

/// Images of one project.
pub struct Glance {
    caller: Caller,
    limits: Limits,
}

/// What became of one id.
enum Once {
    Done(Uploaded),
    /// It cannot be used: the next one, and why.
    Next(String),
}

impl Glance {
    /// `at` is the image service, without `/v2`.
    pub fn new(
        at: &Endpoint,
        signer: Arc<dyn Signer>,
        (limits, retry): (Limits, Retry),
        around: Surroundings,
    ) -> Result<Self> {
        Ok(Self { caller: Caller::new(at, signer, retry, around)?, limits })
    }

    async fn look(&self, id: &str, underway: &Underway<'_>) -> Result<Option<Value>> {
        let ask = image(Method::GET, id, "looking for").expect(&[404]);
        let answer = self.caller.call(&ask, underway).await?;
        if answer.status == 404 { Ok(None) } else { answer.json(&ask.what).map(Some) }
    }

    /// False: its id was used up.
    async fn make(&self, id: &str, source: &dyn Source, to: &Destination, underway: &Underway<'_>) -> Result<bool> {
        let (disk, container) = match source.format() {
            Format::Ova => ("vmdk", "ova"),
            Format::GceTar => return Err(Error::Usage("Glance takes no image of Google's form".to_owned())),
            format => (format.word(), "bare"),
        };
        let mut body = json!({
            "id": id, "name": to.name, "disk_format": disk, "container_format": container,
            CONTENT: source.content().as_str(),
        });
        for (name, value) in &to.labels {
            body[name] = json!(value);
        }
        let what = format!("making image {id}");
        let ask = Ask::new(Method::POST, "/v2/images", what).json(&body).expect(&[409]);
        Ok(self.caller.call(&ask, underway).await?.status != 409)
    }

    async fn delete(&self, id: &str, underway: &Underway<'_>) -> Result<()> {
        self.caller.call(&image(Method::DELETE, id, "deleting").expect(&[404]), underway).await.map(|_| ())
    }

    /// Sends all of it. Gives length and digest, or the fault.
    async fn send(&self, source: &Arc<dyn Source>, id: &str, underway: &Underway<'_>) -> Result<Sent> {
        let ask = image(Method::PUT, id, "uploading the data of");
        let ask = Ask { path: format!("{}/file", ask.path), ..ask }.header("content-type", "application/octet-stream");
        let (sender, receiver) = mpsc::channel(1);
        let whole = Arc::new(AtomicBool::new(false));
        let body = reqwest::Body::wrap_stream(body(receiver, Arc::clone(&whole)));
        let shape = Shape::Stream { part_bytes: self.limits.part_bytes.min(PART_BYTES_MAX), doubles_every: u64::MAX };
        let (mut digest, total) = (Context::new(&SHA512), source.len_known());
        let limits = Limits { parts_at_once: 1, ..self.limits };
        let making = async {
            let each = |part: Part| -> BoxFuture<'_, Result<u64>> {
                digest.update(&part.bytes);
                let (sender, bytes, end) = (sender.clone(), part.bytes.clone(), part.end());
                Box::pin(async move {
                    underway.sends(bytes.len() as u64);
                    sender.send(bytes).await.map_err(|_| Error::Cancelled)?;
                    Ok(end)
                })
            };
            let done = |end| {
                underway.done(end, total);
                Ok(())
            };
            let len = pump(Arc::clone(source), shape, limits, underway, each, done).await;
            whole.store(len.is_ok(), Ordering::SeqCst);
            drop(sender);
            len
        };
        let (made, tried) = tokio::join!(making, self.caller.stream(&ask, body, underway));
        match (made, tried?) {
            // When the service hangs up, the conversion is cancelled: then the service's word counts.
            (Err(error), _) if !matches!(error, Error::Cancelled) => Err(error),
            (_, Err((fault, asked))) => Ok(Sent::Failed(fault, asked)),
            (made, Ok(_)) => Ok(Sent::All(made?, hex(digest.finish()))),
        }
    }

    /// Sends until the image has data that were sent whole, and compares them.
    async fn data(&self, source: &Arc<dyn Source>, id: &str, underway: &Underway<'_>) -> Result<Once> {
        for tries in 1.. {
            let sent = self.send(source, id, underway).await?;
            if let Sent::Failed(fault, asked) = &sent {
                let (mut fault, again) = (fault.clone(), fault.class == Class::Unauthorized && tries == 1);
                fault.tries = tries;
                // An answer of 409 is how Glance says that somebody else is at it.
                let busy = fault.status == Some(409);
                let renewed = again && self.caller.renew();
                if !busy && !renewed {
                    self.caller.pause(fault, *asked, underway).await?;
                }
            }
            let image = self.settled(id, underway).await?;
            let Some(image) = image else { return Ok(Once::Next("it stays half saved, or was deleted".to_owned())) };
            match (image["status"].as_str().unwrap_or_default(), sent) {
                ("active", Sent::All(len, digest)) => return self.compared(&image, len, &digest, id, underway).await,
                // All of it arrived, and the answer was lost: what it should be is known only by making it again.
                ("active", Sent::Failed(..)) => {
                    let (len, digest) = self.made_again(source, underway).await?;
                    return self.compared(&image, len, &digest, id, underway).await;
                }
                ("queued", _) if tries < self.caller.retry.tries_max => {}
                (status, _) => return Ok(Once::Next(format!("its status is '{status}' after {tries} tries"))),
            }
        }
        unreachable!("tries are limited")
    }

    /// Length and digest of the content, without sending it.
    async fn made_again(&self, source: &Arc<dyn Source>, underway: &Underway<'_>) -> Result<(u64, String)> {
        let shape = Shape::Stream { part_bytes: PART_BYTES_MAX, doubles_every: u64::MAX };
        let mut digest = Context::new(&SHA512);
        let each = |part: Part| -> BoxFuture<'_, Result<Part>> { Box::pin(async { Ok(part) }) };
        let done = |part: Part| {
            digest.update(&part.bytes);
            Ok(())
        };
        let len = pump(Arc::clone(source), shape, self.limits, underway, each, done).await?;
        Ok((len, hex(digest.finish())))
    }

    /// The image, when nobody is saving it any more. None: it is gone, or is never done.
    async fn settled(&self, id: &str, underway: &Underway<'_>) -> Result<Option<Value>> {
        for _ in 0..SAVING_LOOKS {
            let Some(image) = self.look(id, underway).await? else { return Ok(None) };
            if !matches!(image["status"].as_str(), Some("saving" | "uploading" | "importing")) {
                return Ok(Some(image));
            }
            tokio::select! {
                () = underway.cancelled() => return Err(Error::Cancelled),
                () = tokio::time::sleep(Duration::from_millis(SAVING_MS)) => {}
            }
        }
        Ok(None)
    }

    /// Glance's digest is SHA-512 unless its operator chose another; then the length has to do.
    async fn compared(&self, image: &Value, len: u64, digest: &str, id: &str, underway: &Underway<'_>) -> Result<Once> {
        let same = image["os_hash_algo"] != "sha512" || image["os_hash_value"] == digest;
        if same && image["size"] == len {
            return Ok(Once::Done(underway.uploaded(id)));
        }
        self.delete(id, underway).await?;
        Ok(Once::Next(format!("{len} bytes with SHA-512 {digest} were sent, {image} arrived")))
    }

    async fn once(
        &self,
        source: &Arc<dyn Source>,
        id: &str,
        to: &Destination,
        underway: &Underway<'_>,
    ) -> Result<Once> {
        if self.look(id, underway).await?.is_none() && !self.make(id, source.as_ref(), to, underway).await? {
            // Made by a request whose answer was lost? Else it was deleted.
            if self.look(id, underway).await?.is_none() {
                return Ok(Once::Next(String::new()));
            }
        }
        let Some(image) = self.settled(id, underway).await? else {
            self.delete(id, underway).await?;
            return Ok(Once::Next("it stays half saved".to_owned()));
        };
        let ours = image[CONTENT] == source.content().as_str();
        match image["status"].as_str() {
            Some("active") if ours => Ok(Once::Done(underway.already(id))),
            Some("queued") if ours => self.data(source, id, underway).await,
            status => Ok(Once::Next(format!("its status is '{}'", status.unwrap_or("unknown")))),
        }
    }

    async fn all(&self, source: Arc<dyn Source>, to: &Destination, underway: &Underway<'_>) -> Result<Uploaded> {
        to.check()?;
        let (mut restarts, mut last) = (0, String::new());
        for generation in 0..GENERATIONS_MAX {
            match self.once(&source, &id(source.content(), to, generation), to, underway).await? {
                Once::Done(uploaded) => return Ok(uploaded),
                Once::Next(why) if why.is_empty() => {}
                Once::Next(why) => {
                    (restarts, last) = (restarts + 1, why);
                    if restarts > RESTARTS_MAX {
                        return Err(too_often(&format!("the image '{}'", to.name), last));
                    }
                }
            }
        }
        let what = format!("how often the image '{}' was made and deleted ({last})", to.name);
        Err(Error::OverLimit { what, limit: "GENERATIONS_MAX", most: u64::from(GENERATIONS_MAX), unit: "times" })
    }

    async fn take_away(&self, to: &Destination, memory: &mut dyn Remembers) -> Result<()> {
        let control = Control::default();
        let underway = Underway::new(&control);
        if let Some(known) = recall(memory, NAME, &to.name)? {
            for generation in 0..GENERATIONS_MAX {
                let id = id(&known.content, to, generation);
                if self.look(&id, &underway).await?.is_some_and(|image| image["status"] != "active") {
                    self.delete(&id, &underway).await?;
                }
            }
        }
        memory.forget()
    }
}

impl Transport for Glance {
    fn name(&self) -> &'static str {
        NAME
    }

    fn upload<'a>(
        &'a self,
        source: Arc<dyn Source>,
        to: &'a Destination,
        memory: &'a mut dyn Remembers,
        control: &'a Control,
    ) -> BoxFuture<'a, Result<Uploaded>> {
        Box::pin(async move {
            recall(memory, NAME, &to.name)?;
            // Only what is needed to take it away.
            memory.remember(&Memory::intent(NAME, &to.name, source.content()))?;
            let uploaded = self.all(source, to, &Underway::new(control)).await?;
            memory.forget()?;
            Ok(uploaded)
        })
    }

    fn abandon<'a>(&'a self, to: &'a Destination, memory: &'a mut dyn Remembers) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.take_away(to, memory))
    }
}

fn image(method: Method, id: &str, what: &str) -> Ask {
    Ask::new(method, format!("/v2/images/{id}"), format!("{what} image {id}"))
}

/// What became of sending the data.
enum Sent {
    /// Length and digest.
    All(u64, String),
    Failed(Fault, Option<Duration>),
}

/// A UUID (version 8: of our own making) that derives from what it names.
fn id(content: &ContentId, to: &Destination, generation: u32) -> String {
    let text = ContentId::derived(&[NAME, content.as_str(), &to.name, &generation.to_string()]);
    let hex = text.as_str();
    format!("{}-{}-8{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

/// What comes through the channel; an error at its end, unless it was all: half of an image must not look whole.
fn body(
    mut parts: mpsc::Receiver<Bytes>,
    whole: Arc<AtomicBool>,
) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> {
    let mut ended = false;
    futures_util::stream::poll_fn(move |context| {
        if ended {
            return Poll::Ready(None);
        }
        parts.poll_recv(context).map(|part| {
            if let Some(part) = part {
                return Some(Ok(part));
            }
            ended = true;
            let cut = || Err(std::io::Error::other("the image ended early"));
            if whole.load(Ordering::SeqCst) { None } else { Some(cut()) }
        })
    })
}
