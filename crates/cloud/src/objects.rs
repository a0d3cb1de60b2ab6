//! Any object store as a shelf for images: S3 and what speaks its protocol (Oracle, IBM, `MinIO`), Azure blobs, Google,
//! Alibaba OSS, Swift.
//!
//! An object appears whole or not at all with all of them, so nothing is put under another name first. Whether a chunk
//! is there is asked by name; its bytes are looked at when it is read, and by a scrub. The lock is this process's:
//! one engine collects in one place (its ledger's writer is one), and two engines are given two prefixes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::{StreamExt as _, TryStreamExt as _};
use opendal::layers::RetryLayer;
use opendal::{ErrorKind, Operator};
use skein_image::store::{Entry, Guard, Shelf};
use skein_image::{Error, Result};
use tokio::runtime::Handle;

/// Requests under way at once for one call.
const AT_ONCE: usize = 16;
/// Tries of one request.
const TRIES: usize = 5;
/// The key that names the service among the settings.
const SERVICE: &str = "service";
/// Services that are built in.
const SERVICES: [&str; 5] = ["s3", "azblob", "gcs", "oss", "swift"];

/// Objects in a bucket or container.
pub struct Objects {
    operator: Operator,
    runtime: Handle,
    place: String,
    holders: Arc<Holders>,
}

impl Objects {
    /// Settings as texts: `service` (`s3`, `azblob`, `gcs`, `oss`, `swift`), `bucket` or `container`, `root` (a prefix),
    /// `endpoint`, and the service's keys, as its page at <https://opendal.apache.org> names them. Calls are made on
    /// `runtime`, and wait for it: from its own tasks they must come through `spawn_blocking`.
    pub fn open(settings: &BTreeMap<String, String>, runtime: Handle) -> crate::Result<Self> {
        let bad = |why: String| crate::Error::Usage(format!("the image store cannot be used: {why}"));
        let service = settings.get(SERVICE).map(String::as_str).unwrap_or_default();
        if !SERVICES.contains(&service) {
            return Err(bad(format!("there is no service '{service}' (there are: {})", SERVICES.join(", "))));
        }
        opendal::init_default_registry();
        // The one that the features of `opendal` itself install brings another TLS provider.
        opendal_http_transport_reqwest::install_default();
        let given = settings.iter().filter(|(key, _)| *key != SERVICE).map(|(key, value)| (key.clone(), value.clone()));
        let operator = Operator::via_iter(service, given).map_err(|e| bad(e.to_string()))?;
        let operator = operator.layer(RetryLayer::new().with_max_times(TRIES).with_jitter());
        let name = operator.info().name().clone();
        let place = format!("{service}://{name}{}", operator.info().root());
        Ok(Self { operator, runtime, place, holders: Arc::default() })
    }

    fn fail(&self, what: &str) -> impl FnOnce(opendal::Error) -> Error {
        let io = Error::io(format!("{what} in {}", self.place));
        move |error| io(std::io::Error::other(error))
    }
}

impl Shelf for Objects {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match self.runtime.block_on(self.operator.read(name)) {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.fail(&format!("reading {name}"))(error)),
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let put = self.operator.write(name, bytes.to_vec());
        self.runtime.block_on(put).map(|_| ()).map_err(self.fail(&format!("writing {name}")))
    }

    fn put_chunks(&self, chunks: Vec<(String, Vec<u8>)>) -> Result<()> {
        let all = futures_util::stream::iter(chunks.into_iter().map(Ok));
        let put = |(name, bytes): (String, Vec<u8>)| async move { self.operator.write(&name, bytes).await.map(|_| ()) };
        let done = all.try_for_each_concurrent(AT_ONCE, put);
        self.runtime.block_on(done).map_err(self.fail("writing chunks"))
    }

    fn missing(&self, names: &[String]) -> Result<Vec<bool>> {
        let look = |name: String| async move { self.operator.exists(&name).await.map(|there| !there) };
        let all = futures_util::stream::iter(names.to_vec()).map(look).buffered(AT_ONCE).try_collect();
        self.runtime.block_on(all).map_err(self.fail("looking for chunks"))
    }

    /// What was acknowledged is kept.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn list(&self, begin: &str) -> Result<Vec<Entry>> {
        let folder = begin.rfind('/').map_or("", |at| &begin[..=at]);
        let listed = async {
            let mut all = Vec::new();
            let mut lister = self.operator.lister_with(folder).recursive(true).await?;
            while let Some(entry) = lister.try_next().await? {
                if entry.metadata().is_file() && entry.path().starts_with(begin) {
                    let bytes = entry.metadata().content_length();
                    all.push(Entry { name: entry.path().to_owned(), bytes });
                }
            }
            Ok(all)
        };
        let mut all = self.runtime.block_on(listed).map_err(self.fail(&format!("listing {begin}")))?;
        all.sort_by(|a: &Entry, b| a.name.cmp(&b.name));
        Ok(all)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.runtime.block_on(self.operator.delete(name)).map_err(self.fail(&format!("removing {name}")))
    }

    fn lock(&self, alone: bool) -> Result<Guard> {
        let busy = || {
            let who = if alone { "an import or an export is" } else { "a collection of chunks is" };
            Error::Usage(format!("{who} under way in {}: try again when it is over", self.place))
        };
        Holders::take(&self.holders, alone).map(|held| Box::new(held) as Guard).ok_or_else(busy)
    }
}

/// Those who hold the lock: their number, or [`ALONE`].
#[derive(Debug, Default)]
struct Holders(AtomicI64);

const ALONE: i64 = -1;

/// Let go when it is dropped.
struct Held(Arc<Holders>, bool);

impl Holders {
    fn take(this: &Arc<Self>, alone: bool) -> Option<Held> {
        let next = |now: i64| match (alone, now) {
            (true, 0) => Some(ALONE),
            (false, 0..) => Some(now + 1),
            _ => None,
        };
        this.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).ok().map(|_| Held(Arc::clone(this), alone))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_add(if self.1 { 1 } else { -1 }, Ordering::SeqCst);
    }
}
