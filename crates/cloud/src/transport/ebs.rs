//! EBS direct: a snapshot written block by block, of which an image of EC2 is made. No bucket, no role, no file.
//!
//! ```text
//! DescribeSnapshots by tag: completed -> nothing to do
//!   |               remembered: generation
//!   v
//! StartSnapshot, its token derived from content, destination and generation: asked again, it gives the same one
//!   |               remembered: its id
//!   v
//! PutSnapshotBlock for each block that holds something, beyond what is noted as acknowledged
//!   |               remembered, every note_bytes: every block before N is acknowledged
//!   |     the snapshot is gone, or ended in error because nobody wrote to it: next generation
//!   v
//! CompleteSnapshot with the number of blocks and a digest over their digests --> DescribeSnapshots until completed
//! ```
//! A snapshot that is pending cannot be listed ("Frequently asked questions" of the EBS direct APIs), so what is done
//! is noted here; blocks are acknowledged in order up to a few, so one number says it. A block sent twice is the same
//! block. Blocks that hold nothing are never sent. With a parent, only blocks that differ are ([`super::ebs_parent`]).

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::Method;
use ring::digest::{Context, SHA256};
use serde_json::json;

use super::cut::{Part, Shape};
use super::ebs_parent::Changes;
use super::memory::recall;
use super::pump::pump;
use super::{ContentId, Control, Destination, Limits, Memory, RESTARTS_MAX, Remembers, Source, Transport};
use super::{Underway, Uploaded, too_often};
use crate::http::{Ask, Caller, encode};
use crate::sign::{AwsKey, SigV4, base64, sha256};
use crate::{Endpoint, Error, Result, Retry, Surroundings, xml};

/// Bytes of a block: the service knows no other.
pub(super) const BLOCK_BYTES: u64 = 512 << 10;
const GIB: u64 = 1 << 30;
/// Minutes without a block after which the service gives a snapshot up (`Timeout`: 10 to 4320).
const TIMEOUT_MINUTES: u32 = 4320;
/// Looks at a snapshot that is being completed: about an hour.
const POLLS_MAX: u32 = 720;
/// Between the first two looks, and later ones at most, ms.
const POLL_FIRST_MS: u64 = 100;
const POLL_MS: u64 = 5_000;
const CONTENT_TAG: &str = "skein-content";
const NAME: &str = "ebs_blocks";

/// Snapshots in one region of one account.
pub struct EbsBlocks {
    ebs: Caller,
    ec2: Caller,
    limits: Limits,
}

impl EbsBlocks {
    /// `ebs` and `ec2` are the region's two services.
    pub fn new(
        (ebs, ec2): (&Endpoint, &Endpoint),
        region: &str,
        key: AwsKey,
        (limits, retry): (Limits, Retry),
        around: Surroundings,
    ) -> Result<Self> {
        let signer = |service| Arc::new(SigV4 { key: key.clone(), region: region.to_owned(), service });
        Ok(Self {
            ebs: Caller::new(ebs, signer("ebs"), retry, around.clone())?,
            ec2: Caller::new(ec2, signer("ec2"), retry, around)?,
            limits,
        })
    }

    /// Snapshots that fit: id and status.
    async fn describe(&self, which: &[(&str, &str)], underway: &Underway<'_>) -> Result<Vec<[String; 2]>> {
        let pairs = which.iter().map(|(name, value)| format!("&{}={}", encode(name, &[]), encode(value, &[])));
        let body = format!("Action=DescribeSnapshots&Version=2016-11-15{}", pairs.collect::<String>());
        let answer = self.ec2.call(&form(body, "looking for snapshots"), underway).await?;
        Ok(xml::items(&answer.text(), "item", ["snapshotId", "status"]))
    }

    /// The completed snapshot that bears this content.
    async fn there(&self, content: &ContentId, underway: &Underway<'_>) -> Result<Option<String>> {
        let tag = format!("tag:{CONTENT_TAG}");
        let which = [("Owner.1", "self"), ("Filter.1.Name", tag.as_str()), ("Filter.1.Value.1", content.as_str())];
        let mut found = self.describe(&which, underway).await?;
        found.retain(|[id, status]| !id.is_empty() && status == "completed");
        found.sort();
        Ok(found.into_iter().next().map(|[id, _]| id))
    }

    async fn status(&self, id: &str, underway: &Underway<'_>) -> Result<Option<String>> {
        match self.describe(&[("SnapshotId.1", id)], underway).await {
            Ok(found) => Ok(found.into_iter().find(|[found, _]| found == id).map(|[_, status]| status)),
            Err(error) if error.is_missing() || error.has_code(&["InvalidSnapshot.NotFound"]) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The snapshot that is gone on with, or a new one; remembered.
    async fn begun(&self, gib: u64, call: &mut Call<'_>) -> Result<Memory> {
        let known = recall(call.memory, NAME, &call.to.name)?.filter(|memory| memory.content == call.token);
        let memory = known.unwrap_or_else(|| Memory::intent(NAME, &call.to.name, &call.token));
        if memory.handle.is_some() {
            return Ok(memory);
        }
        call.memory.remember(&memory)?;
        let what = format!("starting the snapshot '{}'", call.to.name);
        let token = ContentId::derived(&[call.token.as_str(), &call.to.name, &memory.generation.to_string()]);
        let mut tags = vec![json!({ "Key": CONTENT_TAG, "Value": call.content.as_str() })];
        tags.push(json!({ "Key": "Name", "Value": call.to.name }));
        tags.extend(call.to.labels.iter().map(|(name, value)| json!({ "Key": name, "Value": value })));
        let mut body = json!({
            "VolumeSize": gib, "Description": call.to.name, "Tags": tags,
            "ClientToken": &token.as_str()[..32], "Timeout": TIMEOUT_MINUTES,
        });
        if let Some(parent) = &call.to.parent {
            body["ParentSnapshotId"] = json!(parent.reference);
        }
        let answer = self.ebs.call(&Ask::new(Method::POST, "/snapshots", &what).json(&body), call.underway).await?;
        let answer = answer.json(&what)?;
        let id = answer["SnapshotId"].as_str().ok_or_else(|| Error::answer(&what, "no SnapshotId"))?;
        let memory = memory.with(id);
        call.memory.remember(&memory)?;
        Ok(memory)
    }

    /// Sends a block, unless it was acknowledged.
    async fn block(&self, part: Part, id: &str, done: u64, underway: &Underway<'_>) -> Result<Acknowledged> {
        let bytes = part.bytes.clone();
        let digest = tokio::task::spawn_blocking(move || sha256(&bytes)).await;
        let digest = digest.map_err(|e| Error::io("computing digests")(std::io::Error::other(e)))?;
        let index = part.number;
        if index >= done {
            let ask = Ask::new(
                Method::PUT,
                format!("/snapshots/{id}/blocks/{index}"),
                format!("writing block {index} of {id}"),
            );
            let ask = ask.header("content-type", "application/octet-stream");
            let ask = ask.header("x-amz-data-length", BLOCK_BYTES.to_string());
            let ask = ask.header("x-amz-checksum", base64(digest)).header("x-amz-checksum-algorithm", "SHA256");
            self.ebs.call(&ask.body(part.bytes.clone()), underway).await?;
        }
        Ok(Acknowledged { index, digest })
    }

    /// All blocks; how many there are, and the digest over theirs ("LINEAR").
    async fn blocks(&self, source: &Arc<dyn Source>, mut memory: Memory, call: &mut Call<'_>) -> Result<(u64, String)> {
        let (id, underway) = (memory.handle().unwrap_or_default().to_owned(), call.underway);
        let (mut all, mut count, mut unnoted, done) = (Context::new(&SHA256), 0, 0, memory.done);
        let total = source.len_known();
        pump(
            Arc::clone(source),
            Shape::Blocks { block_bytes: BLOCK_BYTES },
            self.limits,
            underway,
            |part| Box::pin(self.block(part, &id, done, underway)),
            |block: Acknowledged| {
                all.update(block.digest.as_ref());
                count += 1;
                underway.done((block.index + 1) * BLOCK_BYTES, total);
                if block.index < done {
                    return Ok(());
                }
                memory.done = block.index + 1;
                unnoted += BLOCK_BYTES;
                if unnoted >= self.limits.note_bytes {
                    unnoted = 0;
                    call.memory.remember(&memory)?;
                }
                Ok(())
            },
        )
        .await?;
        Ok((count, base64(all.finish())))
    }

    async fn complete(&self, id: &str, (count, digest): (u64, String), underway: &Underway<'_>) -> Result<()> {
        let ask = Ask::new(Method::POST, format!("/snapshots/completion/{id}"), format!("completing {id}"));
        let ask = ask.header("x-amz-changedblockscount", count.to_string()).header("x-amz-checksum", digest);
        let ask =
            ask.header("x-amz-checksum-algorithm", "SHA256").header("x-amz-checksum-aggregation-method", "LINEAR");
        match self.ebs.call(&ask, underway).await {
            Ok(_) => {}
            // The answer to a call before this one was lost: what matters is the snapshot's status.
            Err(error) if self.status(id, underway).await?.as_deref() == Some("completed") => drop(error),
            Err(error) => return Err(error),
        }
        for poll in 0..POLLS_MAX {
            match self.status(id, underway).await?.as_deref() {
                Some("completed") => return Ok(()),
                Some("pending") => {}
                status => {
                    let why = format!("its status is {}", status.unwrap_or("gone"));
                    return Err(Error::Damaged { what: id.to_owned(), why });
                }
            }
            tokio::select! {
                () = underway.cancelled() => return Err(Error::Cancelled),
                () = tokio::time::sleep(Duration::from_millis(POLL_MS.min(POLL_FIRST_MS << poll.min(10)))) => {}
            }
        }
        let what = format!("the time that {id} takes to complete");
        Err(Error::OverLimit { what, limit: "POLLS_MAX", most: u64::from(POLLS_MAX) * POLL_MS / 1000, unit: "s" })
    }

    /// One snapshot from beginning to end. None: it is gone, the next generation is remembered.
    async fn once(&self, source: &Arc<dyn Source>, gib: u64, call: &mut Call<'_>) -> Result<Option<String>> {
        let memory = self.begun(gib, call).await?;
        let id = memory.handle().unwrap_or_default().to_owned();
        let ended = match self.blocks(source, memory.clone(), call).await {
            Ok(blocks) => self.complete(&id, blocks, call.underway).await,
            Err(error) => Err(error),
        };
        let Err(error) = ended else { return Ok(Some(id)) };
        let may_be_gone = error.is_missing()
            || error.has_code(&["ValidationException", "ConflictException"])
            || matches!(error, Error::Damaged { .. });
        if !may_be_gone {
            return Err(error);
        }
        match self.status(&id, call.underway).await?.as_deref() {
            None => {}
            Some("error") => self.delete(&id, call.underway).await?,
            Some(_) => return Err(error),
        }
        call.memory.remember(&memory.next())?;
        Ok(None)
    }

    async fn delete(&self, id: &str, underway: &Underway<'_>) -> Result<()> {
        let body = format!("Action=DeleteSnapshot&Version=2016-11-15&SnapshotId={id}");
        match self.ec2.call(&form(body, &format!("deleting {id}")), underway).await {
            Err(error) if error.is_missing() || error.has_code(&["InvalidSnapshot.NotFound"]) => Ok(()),
            ended => ended.map(|_| ()),
        }
    }

    async fn all(&self, source: Arc<dyn Source>, call: &mut Call<'_>) -> Result<Uploaded> {
        call.to.check()?;
        let gib = volume_gib(source.as_ref())?;
        let known =
            recall(call.memory, NAME, &call.to.name)?.is_some_and(|m| m.content == call.token && m.handle.is_some());
        // What is under way needs no search.
        if !known && let Some(id) = self.there(&call.content, call.underway).await? {
            call.memory.forget()?;
            return Ok(call.underway.already(id));
        }
        for _ in 0..=RESTARTS_MAX {
            if let Some(id) = self.once(&source, gib, call).await? {
                call.memory.forget()?;
                return Ok(call.underway.uploaded(id));
            }
        }
        Err(too_often(&format!("the snapshot '{}'", call.to.name), "it was gone before it was complete".to_owned()))
    }

    async fn take_away(&self, to: &Destination, memory: &mut dyn Remembers) -> Result<()> {
        let control = Control::default();
        if let Some(known) = recall(memory, NAME, &to.name)?
            && let Some(id) = known.handle()
        {
            self.delete(id, &Underway::new(&control)).await?;
        }
        memory.forget()
    }
}

impl Transport for EbsBlocks {
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
            let source: Arc<dyn Source> = match &to.parent {
                Some(parent) => Arc::new(Changes::new(source, parent)),
                None => source,
            };
            let token = source.content().clone();
            self.all(source, &mut Call { content, token, to, memory, underway: &underway }).await
        })
    }

    fn abandon<'a>(&'a self, to: &'a Destination, memory: &'a mut dyn Remembers) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.take_away(to, memory))
    }
}

fn form(body: String, what: &str) -> Ask {
    Ask::new(Method::POST, "/", what)
        .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
        .body(body)
}

fn volume_gib(source: &dyn Source) -> Result<u64> {
    let len = source.len_known().filter(|_| source.format() == skein_image::Format::Raw);
    let len = len.ok_or_else(|| Error::Usage(format!("EBS takes the raw disk, not {}", source.format())))?;
    Ok(len.div_ceil(GIB).max(1))
}

/// One call.
struct Call<'a> {
    /// What the snapshot will hold: its tag.
    content: ContentId,
    /// What is written into it: differs from `content` when there is a parent.
    token: ContentId,
    to: &'a Destination,
    memory: &'a mut dyn Remembers,
    underway: &'a Underway<'a>,
}

struct Acknowledged {
    index: u64,
    digest: ring::digest::Digest,
}
