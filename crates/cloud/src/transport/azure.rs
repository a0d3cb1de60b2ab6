//! Azure: a fixed VHD as a page blob, or written straight into a managed disk that waits for it.
//!
//! ```text
//! HEAD blob: ours and complete -> nothing to do | ours, begun -> go on | other: refused, unless to be replaced
//!   | not there
//!   v
//! Put Blob (empty, of its whole length; its metadata say what it will be, and that it is not complete)
//!   v
//! Get Page Ranges --> each run of pages that is made again: there -> left out, else Put Page with its MD5
//!   |                                       the blob is gone: begun anew
//!   v
//! Set Blob Metadata: complete
//! ```
//! The blob itself is the memory. Pages that nothing was written to are zeros and are never sent. A page blob has one
//! content: what is replaced is gone when the upload begins.
//!
//! *A managed disk* (made with `createOption: Upload`, written by its signed address) takes no metadata. What is done
//! is noted as an offset, and the note stays when all is done: it is what says that the same content is there.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use md5::{Digest as _, Md5};
use reqwest::Method;

use super::cut::{Part, Shape};
use super::memory::recall;
use super::pump::pump;
use super::{Call, Underway, Uploaded, too_often};
use super::{Control, Destination, Limits, Memory, RESTARTS_MAX, Remembers, Source, Transport};
use crate::http::{Ask, Caller, encode};
use crate::sign::Signer;
use crate::{Endpoint, Error, Result, Retry, Surroundings, xml};

/// Bytes of a page.
const PAGE_BYTES: u64 = 512;
/// Longest run of pages in one request ("Put Page").
const RUN_BYTES_MAX: u64 = 4 << 20;
/// Ranges on one page of their list.
const RANGES_AT_ONCE: &str = "10000";
const CONTENT: &str = "x-ms-meta-skein_content";
const STATE: &str = "x-ms-meta-skein_state";
const BEGUN: &str = "begun";
const COMPLETE: &str = "complete";
const NAME: &str = "azure_pages";

/// A container of page blobs, or one disk.
pub struct AzurePages {
    caller: Caller,
    place: AzurePlace,
    limits: Limits,
}

/// Where pages are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AzurePlace {
    /// Blobs are made in it.
    Container(String),
    /// The endpoint is the blob of a disk that exists and waits for its content.
    Disk,
}

/// What a blob is.
struct Found {
    content: String,
    complete: bool,
    len: u64,
}

impl AzurePages {
    /// `at` is the account; its key or a signature for the container signs.
    pub fn container(
        at: &Endpoint,
        container: &str,
        signer: Arc<dyn Signer>,
        (limits, retry): (Limits, Retry),
        around: Surroundings,
    ) -> Result<Self> {
        let place = AzurePlace::Container(container.to_owned());
        Ok(Self { caller: Caller::new(at, signer, retry, around)?, place, limits })
    }

    /// `at` is a disk's address without its signature, which signs.
    pub fn disk(
        at: &Endpoint,
        signer: Arc<dyn Signer>,
        (limits, retry): (Limits, Retry),
        around: Surroundings,
    ) -> Result<Self> {
        Ok(Self { caller: Caller::new(at, signer, retry, around)?, place: AzurePlace::Disk, limits })
    }

    fn ask(&self, method: Method, to: &Destination, what: &str) -> Ask {
        let path = match &self.place {
            AzurePlace::Container(container) => format!("/{}/{}", encode(container, &[]), encode(&to.name, &['/'])),
            AzurePlace::Disk => String::new(),
        };
        Ask::new(method, path, format!("{what} {}", self.reference(to)))
    }

    fn reference(&self, to: &Destination) -> String {
        match &self.place {
            AzurePlace::Container(container) => format!("azure://{container}/{}", to.name),
            AzurePlace::Disk => format!("the disk '{}'", to.name),
        }
    }

    async fn head(&self, to: &Destination, underway: &Underway<'_>) -> Result<Option<Found>> {
        let mut answer =
            self.caller.call(&self.ask(Method::HEAD, to, "looking for").expect(&[403, 404]), underway).await?;
        if answer.status == 403 {
            // An answer to HEAD has no words: the same refusal is asked for with them.
            let ask = self.ask(Method::GET, to, "looking for").header("x-ms-range", "bytes=0-511").expect(&[404]);
            answer = self.caller.call(&ask, underway).await?;
        }
        if answer.status == 404 {
            return Ok(None);
        }
        let text = |name| answer.header(name).unwrap_or_default().to_owned();
        let len = text("content-length").parse().unwrap_or(0);
        Ok(Some(Found { content: text(CONTENT), complete: text(STATE) == COMPLETE, len }))
    }

    fn with_metadata(mut ask: Ask, call: &Call<'_>, state: &str) -> Ask {
        for (name, value) in &call.to.labels {
            ask = ask.header(&format!("x-ms-meta-{}", name.to_lowercase().replace('-', "_")), value);
        }
        ask.header(CONTENT, call.content.as_str()).header(STATE, state)
    }

    /// Makes the blob, if it is not there. True: it is complete already.
    async fn begun(&self, len: u64, call: &Call<'_>) -> Result<bool> {
        match self.head(call.to, call.underway).await? {
            Some(found) if found.content == call.content.as_str() && found.len == len => return Ok(found.complete),
            Some(_) if !call.to.replace => return Err(Error::Occupied { what: self.reference(call.to) }),
            _ => {}
        }
        let ask = self.ask(Method::PUT, call.to, "making").header("x-ms-blob-type", "PageBlob");
        let ask = ask.header("x-ms-blob-content-length", len.to_string());
        self.caller.call(&Self::with_metadata(ask, call, BEGUN), call.underway).await?;
        Ok(false)
    }

    /// What is written already, in order.
    async fn ranges(&self, to: &Destination, underway: &Underway<'_>) -> Result<Ranges> {
        let (mut all, mut marker) = (Vec::new(), String::new());
        loop {
            let mut ask = self.ask(Method::GET, to, "listing pages of").query("comp", "pagelist");
            ask = ask.query("maxresults", RANGES_AT_ONCE);
            if !marker.is_empty() {
                ask = ask.query("marker", &marker);
            }
            let text = self.caller.call(&ask, underway).await?.text();
            for [start, end] in xml::items(&text, "PageRange", ["Start", "End"]) {
                if let (Ok(start), Ok(end)) = (start.parse(), end.parse::<u64>()) {
                    all.push((start, end + 1));
                }
            }
            match xml::text(&text, "NextMarker") {
                Some(next) if !next.is_empty() && next != marker => marker = next,
                _ => return Ok(Ranges::new(all)),
            }
        }
    }

    async fn pages(&self, part: Part, there: &Ranges, call: (&Destination, &Underway<'_>)) -> Result<u64> {
        let ((from, end), (to, underway)) = ((part.offset, part.end()), call);
        if there.hold(from, end) {
            return Ok(end);
        }
        let bytes = part.bytes.clone();
        let md5 = tokio::task::spawn_blocking(move || STANDARD.encode(Md5::digest(&bytes))).await;
        let md5 = md5.map_err(|e| Error::io("computing digests")(std::io::Error::other(e)))?;
        let ask = self.ask(Method::PUT, to, &format!("writing bytes {from} to {end} of")).query("comp", "page");
        let ask = ask.header("x-ms-page-write", "update").header("x-ms-range", format!("bytes={from}-{}", end - 1));
        self.caller.call(&ask.header("content-md5", md5).body(part.bytes.clone()), underway).await?;
        Ok(end)
    }

    /// Writes what is not there; notes how far it is, if there is a note.
    async fn write(
        &self,
        source: &Arc<dyn Source>,
        there: &Ranges,
        call: &mut Call<'_>,
        mut note: Option<Memory>,
    ) -> Result<()> {
        let most_bytes = self.limits.part_bytes.clamp(PAGE_BYTES, RUN_BYTES_MAX) / PAGE_BYTES * PAGE_BYTES;
        let (to, underway, total) = (call.to, call.underway, source.len_known());
        let mut noted = note.as_ref().map_or(0, |note| note.done);
        pump(
            Arc::clone(source),
            Shape::Pages { most_bytes, unit_bytes: PAGE_BYTES },
            self.limits,
            underway,
            |part| Box::pin(self.pages(part, there, (to, underway))),
            |end| {
                underway.done(end, total);
                if let Some(note) = note.as_mut().filter(|_| end >= noted + self.limits.note_bytes) {
                    (note.done, noted) = (end, end);
                    call.memory.remember(note)?;
                }
                Ok(())
            },
        )
        .await
        .map(|_| ())
    }

    /// One blob from beginning to end. None: it was gone.
    async fn once(&self, source: &Arc<dyn Source>, len: u64, call: &mut Call<'_>) -> Result<Option<Uploaded>> {
        if self.begun(len, call).await? {
            return Ok(Some(call.underway.already(self.reference(call.to))));
        }
        let written = async {
            let there = self.ranges(call.to, call.underway).await?;
            self.write(source, &there, call, None).await?;
            let ask = self.ask(Method::PUT, call.to, "completing").query("comp", "metadata");
            self.caller.call(&Self::with_metadata(ask, call, COMPLETE), call.underway).await
        };
        match written.await {
            Ok(_) => Ok(Some(call.underway.uploaded(self.reference(call.to)))),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn to_disk(&self, source: Arc<dyn Source>, call: &mut Call<'_>) -> Result<Uploaded> {
        let known = recall(call.memory, NAME, &call.to.name)?.filter(|memory| memory.content == call.content);
        let memory = known.unwrap_or_else(|| Memory::intent(NAME, &call.to.name, &call.content));
        if memory.done == u64::MAX {
            return Ok(call.underway.already(self.reference(call.to)));
        }
        call.memory.remember(&memory)?;
        let there = Ranges::new(vec![(0, memory.done)]);
        self.write(&source, &there, call, Some(memory.clone())).await?;
        call.memory.remember(&Memory { done: u64::MAX, ..memory })?;
        Ok(call.underway.uploaded(self.reference(call.to)))
    }

    async fn all(&self, source: Arc<dyn Source>, call: &mut Call<'_>) -> Result<Uploaded> {
        call.to.check()?;
        let len = source.len_known().filter(|_| source.format() == skein_image::Format::Vhd);
        let len = len.ok_or_else(|| Error::Usage(format!("Azure takes a fixed VHD, not {}", source.format())))?;
        if self.place == AzurePlace::Disk {
            return self.to_disk(source, call).await;
        }
        for _ in 0..=RESTARTS_MAX {
            if let Some(uploaded) = self.once(&source, len, call).await? {
                call.memory.forget()?;
                return Ok(uploaded);
            }
        }
        Err(too_often(&self.reference(call.to), "it was gone before it was complete".to_owned()))
    }

    async fn take_away(&self, to: &Destination, memory: &mut dyn Remembers) -> Result<()> {
        let control = Control::default();
        let underway = Underway::new(&control);
        if self.place != AzurePlace::Disk
            && let Some(found) = self.head(to, &underway).await?
            && !found.content.is_empty()
            && !found.complete
        {
            self.caller.call(&self.ask(Method::DELETE, to, "abandoning").expect(&[404]), &underway).await?;
        }
        memory.forget()
    }
}

impl Transport for AzurePages {
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

/// Parts of the blob that hold something: in order, none touching the next.
struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    fn new(mut all: Vec<(u64, u64)>) -> Self {
        all.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(all.len());
        for (start, end) in all {
            match joined.last_mut() {
                Some((_, last)) if *last >= start => *last = end.max(*last),
                _ => joined.push((start, end)),
            }
        }
        Self(joined)
    }
    /// Is all of it there?
    fn hold(&self, from: u64, end: u64) -> bool {
        let next = self.0.partition_point(|(_, last)| *last <= from);
        self.0.get(next).is_some_and(|(start, last)| *start <= from && end <= *last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        let ranges = Ranges::new(vec![(4096, 8192), (0, 512), (512, 1024), (8192, 9216)]);
        assert!(ranges.hold(0, 1024) && ranges.hold(5000, 9216) && ranges.hold(512, 600));
        assert!(!ranges.hold(0, 1025) && !ranges.hold(1024, 1025) && !ranges.hold(4000, 5000));
        assert!(!Ranges::new(Vec::new()).hold(0, 1));
    }
}
