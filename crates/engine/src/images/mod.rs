//! The image database [0053]: the store's bytes and the ledger's catalogue, kept in step.
//!
//! ```text
//! client: chunks, lists --> shelf        manifest --> adopt (read again) --> signed --> catalogue (a turn)
//! engine: URL --> spool --> import ----------------------------------------> signed --> catalogue
//! start: images that the folder has and the catalogue does not --> catalogue
//! ```
//! Failure paths: an engine that dies between the signed manifest and the turn finds the image at its next start.
//! One that loses its folder shows its images as not stored.

mod choose;
mod deploy;
pub mod fetch;
mod import;
mod operation;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use skein_domain::image::{Boot, Offers, TAGS_MAX, check_label};
use skein_domain::{Digest, Image, Timestamp, UserName};
use skein_image::store::{Folder, ImageId, Manifest, Shelf, Signer, Store};
use skein_store::{Reader as _, Side};

pub(crate) use choose::choose;
pub(crate) use deploy::{Order, SECRET, deploy, prepare};
pub(crate) use import::{Asked, import_url};
pub(crate) use operation::{Operation, Operations};

use crate::app::App;
use crate::clock;
use crate::core::Input;
use crate::http::Fail;

/// Objects that a client was told are there stay for so long, ms.
const PROMISE_MS: u64 = 3_600_000;
/// Most objects promised at a time: a terabyte of chunks.
const PROMISED_MAX: usize = 16 << 20;

/// The engine's images.
pub(crate) struct Images {
    /// The store.
    pub store: Store,
    /// What the store lies on.
    pub shelf: Arc<dyn Shelf>,
    /// Imports, collections, scrubs.
    pub operations: Operations,
    promised: Mutex<BTreeMap<String, Timestamp>>,
    /// Uploads under way, by what they remember: two must not share it.
    uploading: Mutex<BTreeSet<PathBuf>>,
    /// Changes of the catalogue read it first: one at a time.
    edit: tokio::sync::Mutex<()>,
}

impl Images {
    /// The store in `dir`, made if it is not there; or in an object store, with only its key in `dir`.
    pub(crate) fn open(dir: &Path, objects: Option<&BTreeMap<String, String>>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let shelf: Arc<dyn Shelf> = match objects {
            Some(settings) => Arc::new(skein_cloud::Objects::open(settings, tokio::runtime::Handle::current())?),
            None => Arc::new(Folder::open(dir)?),
        };
        let signer = Arc::new(Signer::open(&dir.join("signing.key"))?);
        Ok(Self {
            store: Store::on(Arc::clone(&shelf), Some(signer)),
            shelf,
            operations: Operations::default(),
            promised: Mutex::default(),
            uploading: Mutex::default(),
            edit: tokio::sync::Mutex::new(()),
        })
    }

    /// Takes an upload's memory for this one alone; false when another has it.
    pub(crate) fn begin_upload(&self, memory: &Path) -> bool {
        self.uploading.lock().unwrap_or_else(PoisonError::into_inner).insert(memory.to_owned())
    }

    /// It is over.
    pub(crate) fn end_upload(&self, memory: &Path) {
        self.uploading.lock().unwrap_or_else(PoisonError::into_inner).remove(memory);
    }

    /// Keeps these from the collection for a while.
    pub(crate) fn promise(&self, objects: impl IntoIterator<Item = String>) -> Result<(), Fail> {
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        if promised.len() >= PROMISED_MAX {
            promised.retain(|_, until| *until > now);
        }
        if promised.len() >= PROMISED_MAX {
            let why = format!("{PROMISED_MAX} objects are promised to imports (image_promised_max): try again later");
            return Err(Fail::busy(why));
        }
        promised.extend(objects.into_iter().map(|name| (name, now.after_ms(PROMISE_MS))));
        Ok(())
    }

    /// An image has these now, and keeps them. Another client that was promised them loses them only if that image
    /// is removed meanwhile; its import then says which are missing, and sends them when it is run again.
    pub(crate) fn fulfil(&self, objects: &BTreeSet<String>) {
        let mut promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        for name in objects {
            promised.remove(name);
        }
    }

    /// Is it kept for somebody?
    pub(crate) fn is_promised(&self, object: &str) -> bool {
        let promised = self.promised.lock().unwrap_or_else(PoisonError::into_inner);
        promised.get(object).is_some_and(|until| *until > clock::now())
    }
}

/// An image that somebody means: a name (the newest of it), an id, or the beginning of one.
pub(crate) fn find(app: &App, asked: &str) -> Result<Image, Fail> {
    let all = app.readers.get()?.images()?;
    if let Some(named) = all.iter().find(|image| image.name == asked) {
        return Ok(named.clone());
    }
    let begins = |image: &&Image| !asked.is_empty() && image.id.as_str().starts_with(asked);
    match all.iter().filter(begins).collect::<Vec<_>>().as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Fail::not_found(format!("there is no image '{asked}': 'skein image list' lists them"))),
        many => Err(Fail::bad(format!("{} images begin with '{asked}': give more of the id", many.len()))),
    }
}

/// Puts an image of the store into the catalogue; one that is there keeps its name, and gets the tags too.
pub(crate) async fn catalogue(
    app: &App,
    manifest: &Manifest,
    user: &UserName,
    name: &str,
    tags: BTreeSet<String>,
) -> Result<Image, Fail> {
    let image = of(manifest, user, name, tags)?;
    let _edit = app.images.edit.lock().await;
    if let Some(mut known) = app.readers.get()?.image(&image.id)? {
        if image.tags.is_subset(&known.tags) {
            return Ok(known);
        }
        known.tags.extend(image.tags);
        check_labels(&known)?;
        write(app, Side::Image(Box::new(known.clone()))).await?;
        return Ok(known);
    }
    check_labels(&image)?;
    write(app, Side::Image(Box::new(image.clone()))).await?;
    Ok(image)
}

fn check_labels(image: &Image) -> Result<(), Fail> {
    if image.tags.len() > TAGS_MAX {
        return Err(Fail::bad(format!("an image has at most {TAGS_MAX} tags (image_tags_max)")));
    }
    Ok(image.tags.iter().chain([&image.name]).try_for_each(|label| check_label(label))?)
}

/// Changes an image of the catalogue.
pub(crate) async fn change(
    app: &App,
    id: &Digest,
    how: impl FnOnce(&mut Image) -> Result<(), Fail>,
) -> Result<Image, Fail> {
    let _edit = app.images.edit.lock().await;
    let found = app.readers.get()?.image(id)?;
    let mut image = found.ok_or_else(|| Fail::not_found(format!("there is no image {id} any more")))?;
    how(&mut image)?;
    check_labels(&image)?;
    write(app, Side::Image(Box::new(image.clone()))).await?;
    Ok(image)
}

/// Forgets an image; its chunks go with the next collection.
pub(crate) async fn remove(app: &Arc<App>, image: &Image) -> Result<(), Fail> {
    let id = ImageId::new(image.id.as_str())?;
    let shared = Arc::clone(app);
    // First the bytes' name: a catalogue that still has it says "not stored", and can be asked again.
    let removed = tokio::task::spawn_blocking(move || match shared.images.store.remove(&id) {
        Err(skein_image::Error::Usage(_)) => Ok(()),
        removed => removed,
    });
    removed.await.map_err(Fail::internal)??;
    write(app, Side::ImageRemoved(image.id.clone())).await
}

async fn write(app: &App, side: Side) -> Result<(), Fail> {
    app.writer.ask(|reply| Input::Write { reply, side: vec![side] }).await?;
    Ok(())
}

/// Images that the folder has and the catalogue does not: what a command without an engine took in, what a restored
/// ledger does not know.
pub(crate) async fn reconcile(app: Arc<App>) {
    let shared = Arc::clone(&app);
    let listed = tokio::task::spawn_blocking(move || shared.images.store.list_all()).await;
    let all = match listed {
        Ok(Ok(all)) => all,
        Ok(Err(error)) => return tracing::error!(%error, "the image store cannot be listed"),
        Err(error) => return tracing::error!(%error, "listing the image store broke off"),
    };
    for manifest in all {
        let name = manifest.origin.name.clone();
        if let Err(fail) = catalogue(&app, &manifest, &app.local_user, &name, BTreeSet::new()).await {
            tracing::error!(image = %manifest.id, error = fail.text(), "an image could not be put into the catalogue");
        }
    }
}

fn of(manifest: &Manifest, user: &UserName, name: &str, tags: BTreeSet<String>) -> Result<Image, Fail> {
    let digest = |id: &ImageId| Digest::new(id.as_str());
    let facts = &manifest.facts;
    let boot = [(facts.bios, Boot::Bios), (facts.uefi, Boot::Uefi)];
    // A file's name may be empty or odd; the catalogue's is one that can be typed.
    let fallback = || format!("image-{}", &manifest.id.as_str()[..12]);
    Ok(Image {
        id: digest(&manifest.id)?,
        name: if check_label(name).is_ok() { name.to_owned() } else { fallback() },
        tags,
        parent: manifest.origin.parent.as_ref().map(digest).transpose()?,
        native: manifest.native.to_string().into(),
        virtual_bytes: manifest.virtual_bytes(),
        data_bytes: manifest.data_bytes,
        offers: Offers {
            os: facts.system.as_ref().map(|_| "linux".into()),
            arch: facts.system.as_ref().and_then(|system| system.arch.as_deref().map(Into::into)),
            boot: boot.into_iter().filter_map(|(can, boot)| can.then_some(boot)).collect(),
            early_drivers: facts.system.as_ref().and_then(|system| system.early_drivers.clone()),
            root_readable: facts.system.is_some(),
            encrypted: facts.encrypted,
        },
        user: user.clone(),
        at: clock::now(),
        deployed: Vec::new(),
    })
}
