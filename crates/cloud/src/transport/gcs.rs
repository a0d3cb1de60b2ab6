//! Google Cloud Storage: resumable uploads (JSON API, "Perform resumable uploads").
//!
//! ```text
//! GET object: ours -> nothing to do | other: refused, unless to be replaced
//!   v
//! no session known --> POST ?uploadType=resumable (ifGenerationMatch=0 unless replacing)
//!   |                  remembered: the session's address, which is itself a key
//!   v
//! PUT "bytes */*" --> 308, so much is there --> parts made again: there -> left out, else PUT, one at a time
//!   |       after each fault the session is asked again, and only what it lacks is sent
//!   |       404, 410: the session ended (a week) --> begun anew
//!   v
//! last part, with the CRC-32C of all --> the object, compared --> forgotten
//!                                           not equal: removed, begun anew
//! ```
//! A session shows nothing before its end and costs nothing; one that nobody remembers ends by itself. What of a part
//! arrived damaged is only seen at the end: then all is sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::cut::{Part, Shape};
use super::memory::recall;
use super::pump::pump;
use super::{Call, Underway, Uploaded, too_often};
use super::{ContentId, Control, Destination, Limits, Memory, RESTARTS_MAX, Remembers, Source, Transport};
use crate::error::Class;
use crate::http::{Answer, Ask, Caller, encode};
use crate::sign::{Signer, base64};
use crate::{Endpoint, Error, Result, Retry, Surroundings};

/// Parts are multiples of this.
const PART_UNIT: u64 = 256 << 10;
const CONTENT: &str = "skein-content";
const NAME: &str = "gcs";

/// A bucket.
pub struct Gcs {
    caller: Caller,
    bucket: String,
    limits: Limits,
}

/// How far a session is.
enum State {
    /// So many bytes are there.
    Open(u64),
    /// The object exists.
    Done(Value),
    /// Nobody knows it.
    Gone,
}

impl Gcs {
    /// `at` is the service, without a path.
    pub fn new(
        at: &Endpoint,
        bucket: &str,
        signer: Arc<dyn Signer>,
        (limits, retry): (Limits, Retry),
        around: Surroundings,
    ) -> Result<Self> {
        Ok(Self { caller: Caller::new(at, signer, retry, around)?, bucket: bucket.to_owned(), limits })
    }

    fn reference(&self, to: &Destination) -> String {
        format!("gs://{}/{}", self.bucket, to.name)
    }

    fn object(&self, method: Method, to: &Destination, what: &str) -> Ask {
        let path = format!("/storage/v1/b/{}/o/{}", encode(&self.bucket, &[]), encode(&to.name, &[]));
        Ask::new(method, path, format!("{what} {}", self.reference(to)))
    }

    async fn is_there(&self, content: &ContentId, to: &Destination, underway: &Underway<'_>) -> Result<bool> {
        let ask = self.object(Method::GET, to, "looking for").expect(&[404]);
        let answer = self.caller.call(&ask, underway).await?;
        if answer.status == 404 {
            return Ok(false);
        }
        let found = answer.json(&ask.what)?;
        if found["metadata"][CONTENT] == content.as_str() {
            return Ok(true);
        }
        if to.replace { Ok(false) } else { Err(Error::Occupied { what: self.reference(to) }) }
    }

    /// The session that is gone on with, or a new one; remembered.
    async fn begun(&self, call: &mut Call<'_>) -> Result<String> {
        let known = recall(call.memory, NAME, &call.to.name)?.filter(|memory| memory.content == call.content);
        if let Some(session) = known.as_ref().and_then(Memory::handle) {
            return Ok(session.to_owned());
        }
        let what = format!("beginning the upload of {}", self.reference(call.to));
        let mut metadata = json!({ CONTENT: call.content.as_str() });
        for (name, value) in &call.to.labels {
            metadata[name] = json!(value);
        }
        let ask = Ask::new(Method::POST, format!("/upload/storage/v1/b/{}/o", encode(&self.bucket, &[])), &what);
        let mut ask = ask.query("uploadType", "resumable").query("name", &call.to.name);
        if !call.to.replace {
            ask = ask.query("ifGenerationMatch", "0");
        }
        let ask = ask.header("x-upload-content-type", "application/octet-stream");
        let answer = match self.caller.call(&ask.json(&json!({ "metadata": metadata })), call.underway).await {
            Err(error) if error.fault().is_some_and(|fault| fault.status == Some(412)) => {
                return Err(Error::Occupied { what: self.reference(call.to) });
            }
            answer => answer?,
        };
        let session = answer.header("location").ok_or_else(|| Error::answer(&what, "no Location"))?;
        let session = beyond_host(session).ok_or_else(|| Error::answer(&what, "its Location is no address"))?;
        call.memory.remember(&Memory::intent(NAME, &call.to.name, &call.content).with(&session))?;
        Ok(session)
    }

    /// A request to a session. Its address goes to the endpoint that is configured, whatever host it names.
    fn to_session(method: Method, session: &str, what: String) -> Ask {
        let (path, query) = session.split_once('?').unwrap_or((session, ""));
        let mut ask = Ask::new(method, path, what);
        let pairs = Url::parse(&format!("http://x/?{query}")).ok();
        for (name, value) in pairs.iter().flat_map(Url::query_pairs) {
            ask = ask.query(&name, value);
        }
        ask
    }

    async fn state(&self, session: &str, to: &Destination, underway: &Underway<'_>) -> Result<State> {
        let ask = Self::to_session(Method::PUT, session, format!("asking how far {} is", self.reference(to)));
        let ask = ask.header("content-range", "bytes */*").expect(&[308, 404, 410]);
        state(&self.caller.call(&ask, underway).await?, &ask.what)
    }

    /// Sends what the session lacks of a part. The state after it.
    async fn part(&self, part: Part, upload: &Upload<'_, '_>) -> Result<State> {
        let (end, crc) = (part.end(), upload.add(&part));
        let total = if part.last { end.to_string() } else { "*".to_owned() };
        let mut there = upload.there.load(Ordering::SeqCst);
        let mut tries = 0;
        // An empty last part says that it is the last.
        while there < end || (part.last && upload.done.load(Ordering::SeqCst) == 0) {
            if there < part.offset {
                // It had more before: what is missing was handed on already.
                return Ok(State::Open(there));
            }
            let range =
                if there < end { format!("bytes {there}-{}/{total}", end - 1) } else { format!("bytes */{total}") };
            let what = format!("uploading bytes {there} to {end} of {}", self.reference(upload.to));
            let mut ask = Self::to_session(Method::PUT, upload.session, what).header("content-range", range);
            if part.last {
                ask = ask.header("x-goog-hash", format!("crc32c={}", base64(crc.to_be_bytes())));
            }
            let from = usize::try_from(there - part.offset).unwrap_or(usize::MAX);
            let ask = ask.body(part.bytes.slice(from..)).expect(&[308, 404, 410]);
            tries += 1;
            let now = match self.caller.attempt(&ask, upload.underway).await? {
                Ok(answer) => state(&answer, &ask.what)?,
                Err((fault, _)) if fault.class == Class::Refused && fault.status == Some(400) => {
                    return Err(Error::Cloud(Box::new(fault)));
                }
                Err((mut fault, asked)) => {
                    fault.tries = tries;
                    if fault.class == Class::Unauthorized && tries == 1 && self.caller.renew() {
                        continue;
                    }
                    self.caller.pause(fault, asked, upload.underway).await?;
                    self.state(upload.session, upload.to, upload.underway).await?
                }
            };
            match now {
                // Some of it arrived: that is no failed try.
                State::Open(now) if now > there => (there, tries) = (now, 0),
                State::Open(now) => there = now,
                State::Done(object) => {
                    upload.done.store(1, Ordering::SeqCst);
                    return Ok(State::Done(object));
                }
                State::Gone => return Ok(State::Gone),
            }
            upload.there.store(there, Ordering::SeqCst);
            if tries >= self.caller.retry.tries_max {
                return Err(Error::answer(ask.what, format!("the session stays at {there} bytes, {tries} times")));
            }
        }
        Ok(State::Open(there))
    }

    /// One session. None: it is gone, or lost what it had.
    async fn once(&self, source: &Arc<dyn Source>, call: &mut Call<'_>) -> Result<Option<(u64, u32, Value)>> {
        let session = self.begun(call).await?;
        let there = match self.state(&session, call.to, call.underway).await? {
            State::Open(there) => there,
            // The content is made again nevertheless: to compare.
            State::Done(object) => return self.compared_with(source, object, call).await.map(Some),
            State::Gone => return Ok(None),
        };
        let upload = Upload {
            session: &session,
            to: call.to,
            underway: call.underway,
            there: AtomicU64::new(there),
            done: AtomicU32::new(0),
            crc: AtomicU32::new(0),
        };
        let (mut object, mut gone, total) = (None, false, source.len_known());
        let pumped = pump(
            Arc::clone(source),
            self.shape(),
            Limits { parts_at_once: 1, ..self.limits },
            call.underway,
            |part| Box::pin(async { Ok((part.end(), part.last, self.part(part, &upload).await?)) }),
            |(end, last, state)| {
                match state {
                    State::Done(done) => object = Some(done),
                    State::Open(there) if there >= end && !last => {}
                    State::Open(_) | State::Gone => gone = true,
                }
                call.underway.done(end, total);
                // Ends the conversion; what was sent is with the session.
                if gone { Err(Error::Cancelled) } else { Ok(()) }
            },
        )
        .await;
        if gone {
            return Ok(None);
        }
        let len = pumped?;
        let object = object.ok_or_else(|| Error::answer(self.reference(call.to), "no object after the last part"))?;
        Ok(Some((len, upload.crc.load(Ordering::SeqCst), object)))
    }

    fn shape(&self) -> Shape {
        let part_bytes = self.limits.part_bytes.next_multiple_of(PART_UNIT).max(PART_UNIT);
        Shape::Stream { part_bytes, doubles_every: u64::MAX }
    }

    /// Length and digest of the content, without sending it.
    async fn compared_with(
        &self,
        source: &Arc<dyn Source>,
        object: Value,
        call: &Call<'_>,
    ) -> Result<(u64, u32, Value)> {
        let mut crc = 0;
        let each = |part: Part| -> BoxFuture<'_, Result<Part>> { Box::pin(async { Ok(part) }) };
        let done = |part: Part| {
            crc = crc32c::crc32c_append(crc, &part.bytes);
            Ok(())
        };
        let len = pump(Arc::clone(source), self.shape(), self.limits, call.underway, each, done).await?;
        Ok((len, crc, object))
    }

    async fn remove(&self, object: &Value, call: &Call<'_>) -> Result<()> {
        let mut ask = self.object(Method::DELETE, call.to, "removing the damaged").expect(&[404, 412]);
        // Only this one: another may have taken its place.
        if let Some(generation) = object["generation"].as_str() {
            ask = ask.query("ifGenerationMatch", generation);
        }
        self.caller.call(&ask, call.underway).await.map(|_| ())
    }

    async fn all(&self, source: Arc<dyn Source>, call: &mut Call<'_>) -> Result<Uploaded> {
        call.to.check()?;
        let reference = self.reference(call.to);
        if self.is_there(&call.content, call.to, call.underway).await? {
            call.memory.forget()?;
            return Ok(call.underway.already(reference));
        }
        let mut why = String::new();
        for _ in 0..=RESTARTS_MAX {
            match self.once(&source, call).await {
                Ok(Some((len, crc, object))) => {
                    call.memory.forget()?;
                    if object["size"].as_str() == Some(&len.to_string())
                        && object["crc32c"] == base64(crc.to_be_bytes())
                    {
                        return Ok(call.underway.uploaded(reference));
                    }
                    why = format!("{len} bytes with CRC-32C {crc:08x} were sent, {object} arrived");
                    self.remove(&object, call).await?;
                }
                Ok(None) => {
                    "its session ended".clone_into(&mut why);
                    call.memory.forget()?;
                }
                // The last part's digest was wrong, or the session is at another place than it said.
                Err(error) if error.fault().is_some_and(|fault| fault.status == Some(400)) => {
                    why = error.to_string();
                    call.memory.forget()?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(too_often(&reference, why))
    }

    async fn take_away(&self, to: &Destination, memory: &mut dyn Remembers) -> Result<()> {
        let control = Control::default();
        if let Some(known) = recall(memory, NAME, &to.name)?
            && let Some(session) = known.handle()
        {
            let ask = Self::to_session(Method::DELETE, session, format!("abandoning {}", self.reference(to)));
            // 499 is how a session says that it was ended.
            self.caller.call(&ask.expect(&[404, 410, 499]), &Underway::new(&control)).await?;
        }
        memory.forget()
    }
}

/// Path and query of an address.
fn beyond_host(address: &str) -> Option<String> {
    let url = Url::parse(address).ok()?;
    Some(url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path())))
}

fn state(answer: &Answer, what: &str) -> Result<State> {
    match answer.status {
        404 | 410 => Ok(State::Gone),
        308 => Ok(State::Open(match answer.header("range") {
            // What is kept is a multiple of 256 KiB: one byte is how an emulator says none.
            None | Some("bytes=0-0") => 0,
            Some(range) => {
                let last = range.rsplit('-').next().and_then(|last| last.parse::<u64>().ok());
                last.ok_or_else(|| Error::answer(what, format!("the range '{range}'")))? + 1
            }
        })),
        _ => answer.json(what).map(State::Done),
    }
}

impl Transport for Gcs {
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
            let underway = Underway::new(control);
            let content = source.content().clone();
            self.all(source, &mut Call { content, to, memory, underway: &underway }).await
        })
    }

    fn abandon<'a>(&'a self, to: &'a Destination, memory: &'a mut dyn Remembers) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.take_away(to, memory))
    }
}

/// One session. Parts go one after the other: what is atomic here is so for the compiler.
struct Upload<'a, 'u> {
    session: &'a str,
    to: &'a Destination,
    underway: &'a Underway<'u>,
    /// Bytes that the session has.
    there: AtomicU64,
    /// 1: the object exists.
    done: AtomicU32,
    /// Of all parts so far.
    crc: AtomicU32,
}

impl Upload<'_, '_> {
    fn add(&self, part: &Part) -> u32 {
        let crc = crc32c::crc32c_append(self.crc.load(Ordering::SeqCst), &part.bytes);
        self.crc.store(crc, Ordering::SeqCst);
        crc
    }
}
