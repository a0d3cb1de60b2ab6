//! Where images are kept: an engine that is up, or a folder.

use std::path::PathBuf;
use std::sync::Arc;

use skein_api::ImageView;
use skein_image::store::{ImageId, Manifest, Store};

use crate::connect::Connect;
use crate::failure::usage;
use crate::image_shelf::EngineShelf;

/// Which store.
#[derive(Debug, clap::Args)]
pub(super) struct PlaceArg {
    /// A folder of images, without an engine [default: the engine's that is up, else 'images' in --dir]
    #[arg(long, value_name = "DIR", env = "SKEIN_IMAGES", hide_env_values = true)]
    store: Option<PathBuf>,
    #[command(flatten)]
    connect: Connect,
}

/// A store.
pub(super) enum Place {
    /// A folder: names are as they were given at the import.
    Folder(Store),
    /// An engine's: names and tags are its catalogue's.
    Engine {
        /// Calls it.
        shelf: Arc<EngineShelf>,
        /// Its images.
        store: Store,
    },
}

impl PlaceArg {
    /// Where it is.
    pub(super) fn open(&self) -> anyhow::Result<Place> {
        if let Some(dir) = &self.store {
            return Ok(Place::Folder(Store::open(dir)?));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        match runtime.block_on(self.connect.find())? {
            Some(client) => {
                let shelf = Arc::new(EngineShelf::new(client, runtime));
                let store = Store::on(Arc::clone(&shelf) as Arc<dyn skein_image::store::Shelf>, None);
                Ok(Place::Engine { shelf, store })
            }
            None => Ok(Place::Folder(Store::open(&self.connect.dir.path()?.join("images"))?)),
        }
    }

    /// An engine's, or why there is none.
    pub(super) fn engine(&self, what: &str) -> anyhow::Result<Arc<EngineShelf>> {
        match self.open()? {
            Place::Engine { shelf, .. } => Ok(shelf),
            Place::Folder(store) => Err(usage(format!(
                "{what} is an engine's, and none is up for {}: start one with 'skein up'",
                store.place()
            ))),
        }
    }

    /// Profiles of the user's own.
    pub(super) fn profiles(&self) -> Option<PathBuf> {
        Some(self.connect.dir.path().ok()?.join("profiles"))
    }
}

impl Place {
    /// Its images.
    pub(super) fn store(&self) -> &Store {
        match self {
            Self::Folder(store) | Self::Engine { store, .. } => store,
        }
    }

    /// The image that is meant: a name, an id, the beginning of one.
    pub(super) fn find(&self, asked: &str) -> anyhow::Result<ImageId> {
        match self {
            Self::Engine { shelf, .. } => {
                let image: ImageView = shelf.call(shelf.client().image(asked))?;
                Ok(ImageId::new(&image.id)?)
            }
            Self::Folder(store) => {
                let named: Vec<Manifest> = store.list_all()?.into_iter().filter(|m| m.origin.name == asked).collect();
                match named.as_slice() {
                    [one] => Ok(one.id.clone()),
                    [] => {
                        let found = store.find(asked).map_err(|e| usage(format!("{e}: 'skein image list' lists them")));
                        Ok(found?.id)
                    }
                    many => Err(usage(format!("{} images are named '{asked}': give the id", many.len()))),
                }
            }
        }
    }
}
