//! Runs a conversion on a thread of its own and hands its parts to a transport, several at a time, within memory.
//!
//! ```text
//! blocking thread: source --> cutter --hold memory--> channel --> at most parts_at_once futures --> in order
//!        ^                                                                |
//!        +--- ends: the channel is closed, or its token was cancelled <---+  (error, cancellation, dropped future)
//! ```

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::cut::{Cutter, Part, Parts, Shape};
use super::{Limits, Source, Underway};
use crate::{Error, Result};

/// Memory is counted in these, bytes.
const HELD_UNIT: u64 = 1024;

struct ToChannel {
    parts: mpsc::Sender<Part>,
    memory: Arc<Semaphore>,
    memory_units: u32,
    runtime: tokio::runtime::Handle,
}

impl Parts for ToChannel {
    fn hold(&mut self, bytes: u64) -> skein_image::Result<Option<OwnedSemaphorePermit>> {
        // A part that is larger than the limit takes all of it: it then is the only one.
        let units = u32::try_from(bytes.div_ceil(HELD_UNIT)).unwrap_or(u32::MAX).min(self.memory_units);
        let held = self.runtime.block_on(Arc::clone(&self.memory).acquire_many_owned(units));
        held.map(Some).map_err(|_| skein_image::Error::Cancelled)
    }
    fn part(&mut self, part: Part) -> skein_image::Result<()> {
        self.parts.blocking_send(part).map_err(|_| skein_image::Error::Cancelled)
    }
}

/// Ends a conversion.
struct Until(CancellationToken);

impl skein_image::Progress for Until {
    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// Hands each part to `each`, `parts_at_once` at a time, and the results to `done`, in order of the parts. Gives
/// the image's length.
pub(super) async fn pump<'f, T>(
    source: Arc<dyn Source>,
    shape: Shape,
    limits: Limits,
    underway: &Underway<'_>,
    each: impl FnMut(Part) -> BoxFuture<'f, Result<T>>,
    mut done: impl FnMut(T) -> Result<()>,
) -> Result<u64> {
    let memory_units = u32::try_from((limits.memory_bytes / HELD_UNIT).max(1)).unwrap_or(u32::MAX);
    let memory = Arc::new(Semaphore::new(memory_units as usize));
    let (sender, mut receiver) = mpsc::channel(1);
    let stop = underway.control.cancel.child_token();
    // Also when this future is dropped the conversion ends.
    let _stops = stop.clone().drop_guard();
    let until = Until(stop.clone());
    let runtime = tokio::runtime::Handle::current();
    let mut to = ToChannel { parts: sender, memory: Arc::clone(&memory), memory_units, runtime };
    let converting = tokio::task::spawn_blocking(move || {
        let mut cutter = Cutter::new(shape, &mut to);
        source.write(&mut cutter, &until)?;
        Ok::<u64, skein_image::Error>(cutter.len)
    });
    let taken = {
        let parts = futures_util::stream::poll_fn(|context| receiver.poll_recv(context));
        let mut results = parts.map(each).buffered(limits.parts_at_once.max(1));
        let all = async {
            while let Some(result) = results.next().await {
                done(result?)?;
            }
            Ok(())
        };
        tokio::select! {
            () = underway.cancelled() => Err(Error::Cancelled),
            taken = all => taken,
        }
    };
    stop.cancel();
    memory.close();
    drop(receiver);
    let converted = converting.await;
    taken?;
    match converted {
        Ok(Ok(len)) => Ok(len),
        Ok(Err(skein_image::Error::Cancelled)) => Err(Error::Cancelled),
        Ok(Err(error)) => Err(error.into()),
        Err(e) => Err(Error::io("converting the image")(std::io::Error::other(e))),
    }
}
