//! S3 and what speaks its protocol: multipart uploads.
//!
//! ```text
//! HEAD key: ours -> nothing to do | other: refused, unless to be replaced
//!   |
//!   v             remembered: an upload is about to be made
//! no id known --> ListMultipartUploads (only if that was remembered by a call before) | CreateMultipartUpload
//!   |             remembered: its id
//!   v
//! ListParts --> each part that is made again: size and digest as listed -> left out, else UploadPart
//!   |                                   NoSuchUpload: HEAD key (completed, the answer was lost?), else begun anew
//!   v
//! CompleteMultipartUpload --> HEAD key: content and length as they should be --> forgotten
//! ```
//! The key shows nothing before `Complete`. An upload that is neither completed nor abandoned is paid for: buckets
//! should have a rule that ends old ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use md5::{Digest as _, Md5};
use reqwest::Method;

use super::cut::{Part, Shape};
use super::memory::recall;
use super::pump::pump;
use super::s3_wire::{self, Listed, PART_DIGEST_HEADER};
use super::{Call, ContentId, too_often};
use super::{Control, Destination, Limits, Memory, RESTARTS_MAX, Remembers, Source, Transport, Underway, Uploaded};
use crate::http::{Answer, Ask, Caller, encode};
use crate::sign::{AwsKey, SigV4, base64, hex, sha256};
use crate::{Endpoint, Error, Result, Retry, Surroundings};

/// Parts of one size; then they double. With parts of 8 MiB, 10,000 parts are 1.2 TiB, the last of them 512 MiB long.
const PARTS_OF_ONE_SIZE: u64 = 1_500;
/// Parts that an upload may have ("Amazon S3 multipart upload limits").
const PARTS_MAX: u64 = 10_000;
const CONTENT: &str = "x-amz-meta-skein-content";
const NAME: &str = "s3";

/// A bucket.
pub struct S3 {
    caller: Caller,
    bucket: String,
    limits: Limits,
}

impl S3 {
    /// `at` is the service, without the bucket.
    pub fn new(
        at: &Endpoint,
        region: &str,
        bucket: &str,
        key: AwsKey,
        (limits, retry): (Limits, Retry),
        around: Surroundings,
    ) -> Result<Self> {
        let signer = SigV4 { key, region: region.to_owned(), service: "s3" };
        let caller = Caller::new(at, Arc::new(signer), retry, around)?;
        Ok(Self { caller, bucket: bucket.to_owned(), limits })
    }

    fn ask(&self, method: Method, to: &Destination, what: &str) -> Ask {
        let path = format!("/{}/{}", encode(&self.bucket, &[]), encode(&to.name, &['/']));
        Ask::new(method, path, format!("{what} {}", self.reference(to)))
    }

    fn reference(&self, to: &Destination) -> String {
        format!("s3://{}/{}", self.bucket, to.name)
    }

    /// What stands there: its content's digest and length.
    async fn head(&self, to: &Destination, underway: &Underway<'_>) -> Result<Option<(Option<String>, u64)>> {
        let ask = self.ask(Method::HEAD, to, "looking for").expect(&[403, 404]);
        let mut answer = self.caller.call(&ask, underway).await?;
        if answer.status == 403 {
            // An answer to HEAD has no words: the same refusal is asked for with them.
            let ask = self.ask(Method::GET, to, "looking for").header("range", "bytes=0-0").expect(&[404]);
            answer = self.caller.call(&ask, underway).await?;
        }
        if answer.status == 404 {
            return Ok(None);
        }
        let length = answer.header("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
        Ok(Some((answer.header(CONTENT).map(str::to_owned), length)))
    }

    async fn is_there(&self, content: &ContentId, to: &Destination, underway: &Underway<'_>) -> Result<bool> {
        match self.head(to, underway).await? {
            None => Ok(false),
            Some((Some(found), _)) if found == content.as_str() => Ok(true),
            Some(_) if to.replace => Ok(false),
            Some(_) => Err(Error::Occupied { what: self.reference(to) }),
        }
    }

    /// The upload that is gone on with, or a new one. Its id is remembered.
    async fn begun(&self, call: &mut Call<'_>) -> Result<String> {
        let known = recall(call.memory, NAME, &call.to.name)?.filter(|memory| memory.content == call.content);
        if let Some(id) = known.as_ref().and_then(Memory::handle) {
            return Ok(id.to_owned());
        }
        let intent = Memory::intent(NAME, &call.to.name, &call.content);
        let adopted = match known {
            // Our call before this one may have made it, and the answer was lost.
            Some(_) => self.uploads(call.to, call.underway).await?.pop(),
            None => None,
        };
        let id = if let Some(id) = adopted {
            id
        } else {
            call.memory.remember(&intent)?;
            self.create(call).await?
        };
        call.memory.remember(&intent.with(&id))?;
        Ok(id)
    }

    async fn create(&self, call: &Call<'_>) -> Result<String> {
        let mut ask = self.ask(Method::POST, call.to, "beginning the upload of").query("uploads", "");
        ask = ask.header("content-type", "application/octet-stream").header(CONTENT, call.content.as_str());
        ask = ask.header("x-amz-checksum-algorithm", "SHA256");
        for (name, value) in &call.to.labels {
            ask = ask.header(&format!("x-amz-meta-{}", name.to_lowercase()), value);
        }
        let answer = self.caller.call(&ask, call.underway).await?;
        s3_wire::upload_id(&answer).ok_or_else(|| Error::answer(ask.what, "no UploadId"))
    }

    /// Ids of the uploads of exactly this key, oldest first.
    async fn uploads(&self, to: &Destination, underway: &Underway<'_>) -> Result<Vec<String>> {
        let what = format!("listing uploads of {}", self.reference(to));
        let path = format!("/{}", encode(&self.bucket, &[]));
        let ask = Ask::new(Method::GET, path, what).query("uploads", "").query("prefix", &to.name);
        // One page: it begins with the key itself, and a key that begins like it comes after it.
        Ok(s3_wire::uploads(&self.caller.call(&ask, underway).await?, &to.name))
    }

    async fn listed(&self, id: &str, to: &Destination, underway: &Underway<'_>) -> Result<BTreeMap<u64, Listed>> {
        let (mut all, mut marker) = (BTreeMap::new(), String::new());
        loop {
            let mut ask = self.ask(Method::GET, to, "listing parts of").query("uploadId", id);
            if !marker.is_empty() {
                ask = ask.query("part-number-marker", &marker);
            }
            let answer = self.caller.call(&ask, underway).await?;
            let next = s3_wire::parts(&answer, &mut all);
            match next {
                Some(next) if next != marker => marker = next,
                _ => return Ok(all),
            }
        }
    }

    /// Sends one part, unless it is there. Gives its number and tag.
    async fn part(&self, part: Part, upload: &Upload<'_, '_>) -> Result<Sent> {
        let number = part.number + 1;
        if number > PARTS_MAX {
            let what = format!("the length of {}", self.reference(upload.to));
            return Err(Error::OverLimit { what, limit: "PARTS_MAX", most: PARTS_MAX, unit: "parts" });
        }
        let digests = digests(part.bytes.clone()).await?;
        let there = upload.listed.get(&number).filter(|listed| listed.is(part.bytes.len() as u64, &digests));
        let tag = match there {
            Some(listed) => listed.tag.clone(),
            None => self.send(number, &part, &digests, upload).await?,
        };
        Ok(Sent { number, tag, sha256: digests.sha256, end: part.end() })
    }

    async fn send(&self, number: u64, part: &Part, digests: &Digests, upload: &Upload<'_, '_>) -> Result<String> {
        let ask = self.ask(Method::PUT, upload.to, &format!("uploading part {number} of"));
        let ask = ask.query("partNumber", number.to_string()).query("uploadId", upload.id);
        let ask = ask.header("content-md5", &digests.md5_base64).header(PART_DIGEST_HEADER, &digests.sha256);
        let ask = ask.body(part.bytes.clone());
        let mut damaged = 0;
        loop {
            let answer = self.caller.call(&ask, upload.underway).await?;
            let tag = answer.header("etag").unwrap_or_default().to_owned();
            if s3_wire::says_the_same(&answer, &tag, digests) {
                return Ok(tag);
            }
            damaged += 1;
            if damaged == RESTARTS_MAX {
                return Err(too_often(&self.reference(upload.to), format!("part {number} arrived as other bytes")));
            }
        }
    }

    async fn complete(&self, id: &str, parts: &[Sent], call: &Call<'_>) -> Result<Answer> {
        let ask = self.ask(Method::POST, call.to, "completing").query("uploadId", id);
        let ask = ask.header("content-type", "application/xml").body(s3_wire::complete(parts));
        self.caller.call(&ask, call.underway).await
    }

    /// One upload from beginning to end; false: it is gone, begin anew.
    async fn once(&self, source: &Arc<dyn Source>, call: &mut Call<'_>) -> Result<bool> {
        let id = self.begun(call).await?;
        let ended = self.parts_and_end(source, &id, call).await;
        match ended {
            Ok(len) => self.compare(len, call).await.map(|()| true),
            // Completed by a request whose answer was lost, or ended by somebody.
            Err(error) if error.is_missing() => {
                let arrived = matches!(
                    self.head(call.to, call.underway).await?,
                    Some((Some(found), _)) if found == call.content.as_str()
                );
                if !arrived {
                    call.memory.forget()?;
                }
                Ok(arrived)
            }
            Err(error) => Err(error),
        }
    }

    async fn parts_and_end(&self, source: &Arc<dyn Source>, id: &str, call: &Call<'_>) -> Result<u64> {
        let listed = self.listed(id, call.to, call.underway).await?;
        let upload = Upload { id, to: call.to, listed, underway: call.underway };
        let shape = Shape::Stream { part_bytes: self.limits.part_bytes, doubles_every: PARTS_OF_ONE_SIZE };
        let (mut sent, total) = (Vec::new(), source.len_known());
        let len = pump(
            Arc::clone(source),
            shape,
            self.limits,
            call.underway,
            |part| Box::pin(self.part(part, &upload)),
            |part: Sent| {
                call.underway.done(part.end, total);
                sent.push(part);
                Ok(())
            },
        )
        .await?;
        self.complete(id, &sent, call).await?;
        Ok(len)
    }

    /// What stands there now is what was sent.
    async fn compare(&self, len: u64, call: &Call<'_>) -> Result<()> {
        let found = self.head(call.to, call.underway).await?;
        let right = matches!(&found, Some((Some(id), there)) if id == call.content.as_str() && *there == len);
        if right {
            return Ok(());
        }
        let why = format!("{len} bytes of {} were sent, the bucket says {found:?}", call.content);
        Err(Error::Damaged { what: self.reference(call.to), why })
    }

    async fn all(&self, source: Arc<dyn Source>, call: &mut Call<'_>) -> Result<Uploaded> {
        call.to.check()?;
        let reference = self.reference(call.to);
        if self.is_there(&call.content, call.to, call.underway).await? {
            call.memory.forget()?;
            return Ok(call.underway.already(reference));
        }
        for _ in 0..=RESTARTS_MAX {
            if self.once(&source, call).await? {
                call.memory.forget()?;
                return Ok(call.underway.uploaded(reference));
            }
        }
        Err(too_often(&reference, "its upload was ended by somebody else or by a rule of the bucket".to_owned()))
    }

    async fn take_away(&self, to: &Destination, memory: &mut dyn Remembers) -> Result<()> {
        let control = Control::default();
        let underway = Underway::new(&control);
        let ids = match recall(memory, NAME, &to.name)? {
            None => Vec::new(),
            Some(known) => match known.handle() {
                Some(id) => vec![id.to_owned()],
                None => self.uploads(to, &underway).await?,
            },
        };
        for id in ids {
            let ask = self.ask(Method::DELETE, to, "abandoning").query("uploadId", id).expect(&[404]);
            self.caller.call(&ask, &underway).await?;
        }
        memory.forget()
    }
}

impl Transport for S3 {
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
            let mut call = Call { content: source.content().clone(), to, memory, underway: &underway };
            self.all(source, &mut call).await
        })
    }

    fn abandon<'a>(&'a self, to: &'a Destination, memory: &'a mut dyn Remembers) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.take_away(to, memory))
    }
}

/// One upload that was begun.
struct Upload<'a, 'u> {
    id: &'a str,
    to: &'a Destination,
    listed: BTreeMap<u64, Listed>,
    underway: &'a Underway<'u>,
}

/// A part that is there.
pub(super) struct Sent {
    pub(super) number: u64,
    pub(super) tag: String,
    pub(super) sha256: String,
    end: u64,
}

/// Digests of a part's bytes.
pub(super) struct Digests {
    pub(super) md5_hex: String,
    md5_base64: String,
    pub(super) sha256: String,
}

/// Digests are a fraction of a second of work for a large part: not on a thread that others wait for.
async fn digests(bytes: Bytes) -> Result<Digests> {
    let digests = tokio::task::spawn_blocking(move || {
        let md5 = Md5::digest(&bytes);
        let md5_base64 = base64::engine::general_purpose::STANDARD.encode(md5);
        Digests { md5_hex: hex(md5), md5_base64, sha256: base64(sha256(&bytes)) }
    });
    digests.await.map_err(|e| Error::io("computing digests")(std::io::Error::other(e)))
}
