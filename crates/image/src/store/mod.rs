//! Where images are kept: the disk's bytes as they are (raw: a form that some clouds take unconverted), in chunks
//! that are kept once however many images have them.
//!
//! ```text
//! DIR/chunks/ab/abcdef...   one chunk: zstd, named by the BLAKE3 of what is in it
//! DIR/images/ID.json        what is known of an image: written last, by rename
//! DIR/images/ID.chunks      its chunks in order
//! DIR/lock                  held, shared, by whoever writes or reads; alone by the collection
//! ```
//! Failure paths: an import that dies leaves chunks that no image has, and the next collection takes them. An image
//! is there when its `.json` is; that is renamed into place after everything it needs has been synced. A collection
//! runs alone and removes only what no image there has, so dying in its middle loses nothing. A damaged chunk is
//! found when it is read, and by [`Store::scrub`] before that.

mod chunk;
mod import;
mod recipe;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use chunk::ChunkId;
pub use import::{Imported, Origin};
pub use recipe::StoredDisk;

use crate::convert::Progress;
use crate::{Disk, Error, Format, Result};

/// An image's name: the digest of its disk, 64 hexadecimal digits. The same content has the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(String);

impl ImageId {
    /// From text.
    pub fn new(text: &str) -> Result<Self> {
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::Usage(format!("'{text}' is not an image's id: 64 hexadecimal digits")))
    }
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ImageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// What is known of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its name: BLAKE3 over the digests of its disk's MiB ([`crate::digest`]).
    pub id: ImageId,
    /// Size of its disk, bytes.
    pub virtual_bytes: u64,
    /// Of these, not zero.
    pub data_bytes: u64,
    /// Where it came from.
    pub origin: Origin,
    /// Format that it came in; it is kept raw.
    pub native: Format,
    /// BLAKE3 of the chunk list: a list that was changed is refused.
    pub chunks_digest: String,
    /// Number of chunks, zero runs not counted.
    pub chunks: u64,
    /// The library that wrote it.
    pub written_by: String,
}

/// A folder of images.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

/// What a collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Chunks removed.
    pub chunks: u64,
    /// Bytes that they took.
    pub bytes: u64,
    /// Chunks that are left.
    pub kept: u64,
}

/// What a scrub found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Scrubbed {
    /// Chunks read and found whole.
    pub good: u64,
    /// Chunks that are damaged or missing, with the images that have them.
    pub bad: Vec<(String, Vec<ImageId>)>,
}

impl Store {
    /// The store in `dir`, made if it is not there.
    pub fn open(dir: &Path) -> Result<Self> {
        for part in ["chunks", "images"] {
            let path = dir.join(part);
            fs::create_dir_all(&path).map_err(Error::io(format!("making {}", path.display())))?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// Keeps a disk. The same disk again costs its reading only.
    pub fn import(
        &self,
        disk: &dyn Disk,
        native: Format,
        origin: Origin,
        threads: usize,
        progress: &dyn Progress,
    ) -> Result<Imported> {
        let _lock = self.lock(false)?;
        import::import(self, disk, native, origin, threads, progress)
    }

    /// Every image, by id.
    pub fn list(&self) -> Result<Vec<Manifest>> {
        let mut all = Vec::new();
        for name in names(&self.dir.join("images"))? {
            if let Some(id) = name.strip_suffix(".json") {
                all.push(self.manifest(&ImageId::new(id)?)?);
            }
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(all)
    }

    /// The one image whose id begins so.
    pub fn find(&self, begin: &str) -> Result<Manifest> {
        let found: Vec<Manifest> =
            self.list()?.into_iter().filter(|m| !begin.is_empty() && m.id.as_str().starts_with(begin)).collect();
        match found.len() {
            1 => found.into_iter().next().ok_or_else(|| Error::corrupt("the list changed")),
            0 => Err(Error::Usage(format!("there is no image '{begin}'"))),
            many => Err(Error::Usage(format!("{many} images begin with '{begin}': give more of the id"))),
        }
    }

    /// What is known of an image.
    pub fn manifest(&self, id: &ImageId) -> Result<Manifest> {
        let path = self.dir.join("images").join(format!("{id}.json"));
        let text = fs::read(&path).map_err(Error::io(format!("reading {}", path.display())))?;
        serde_json::from_slice(&text).map_err(|e| Error::corrupt(format!("{}: {e}", path.display())))
    }

    /// An image's disk. It stays readable for as long as this lives: no collection runs meanwhile.
    pub fn disk(&self, id: &ImageId) -> Result<StoredDisk> {
        let lock = self.lock(false)?;
        let manifest = self.manifest(id)?;
        StoredDisk::open(&self.dir, &manifest, lock)
    }

    /// Forgets an image; its chunks go with the next collection.
    pub fn remove(&self, id: &ImageId) -> Result<()> {
        let images = self.dir.join("images");
        for name in [format!("{id}.json"), format!("{id}.chunks")] {
            let path = images.join(name);
            fs::remove_file(&path).map_err(Error::io(format!("removing {}", path.display())))?;
        }
        sync_dir(&images)
    }

    /// Removes chunks that no image has. Runs alone: it is an error while an import or a read is under way.
    pub fn collect(&self) -> Result<Collected> {
        let _lock = self.lock(true)?;
        let mut reachable: BTreeSet<ChunkId> = BTreeSet::new();
        for manifest in self.list()? {
            reachable.extend(recipe::read(&self.dir, &manifest)?.into_iter().filter_map(|part| part.chunk));
        }
        let mut done = Collected::default();
        for (path, id) in self.chunk_files()? {
            if id.is_some_and(|id| reachable.contains(&id)) {
                done.kept += 1;
                continue;
            }
            done.bytes += fs::metadata(&path).map_or(0, |m| m.len());
            fs::remove_file(&path).map_err(Error::io(format!("removing {}", path.display())))?;
            done.chunks += 1;
        }
        Ok(done)
    }

    /// Reads every chunk of every image and says which are damaged or missing.
    pub fn scrub(&self) -> Result<Scrubbed> {
        let _lock = self.lock(false)?;
        let mut used: std::collections::BTreeMap<ChunkId, Vec<ImageId>> = std::collections::BTreeMap::new();
        for manifest in self.list()? {
            for id in recipe::read(&self.dir, &manifest)?.into_iter().filter_map(|part| part.chunk) {
                let images = used.entry(id).or_default();
                if images.last() != Some(&manifest.id) {
                    images.push(manifest.id.clone());
                }
            }
        }
        let mut found = Scrubbed::default();
        for (id, images) in used {
            if chunk::read(&self.dir, &id).is_ok() {
                found.good += 1;
            } else {
                found.bad.push((id.to_string(), images));
            }
        }
        Ok(found)
    }

    /// Bytes that the chunks take.
    pub fn stored_bytes(&self) -> Result<u64> {
        Ok(self.chunk_files()?.iter().map(|(path, _)| fs::metadata(path).map_or(0, |m| m.len())).sum())
    }

    /// Every file among the chunks; without an id when it is no chunk (what a killed import left).
    fn chunk_files(&self) -> Result<Vec<(PathBuf, Option<ChunkId>)>> {
        let chunks = self.dir.join("chunks");
        let mut all = Vec::new();
        for part in names(&chunks)? {
            let folder = chunks.join(&part);
            for name in names(&folder)? {
                all.push((folder.join(&name), ChunkId::parse(&name)));
            }
        }
        Ok(all)
    }

    fn lock(&self, alone: bool) -> Result<File> {
        let path = self.dir.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::io(format!("opening {}", path.display())))?;
        let taken = if alone { file.try_lock() } else { file.try_lock_shared() };
        match taken {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => {
                let who = if alone { "an import or an export is" } else { "a collection of chunks is" };
                Err(Error::Usage(format!("{who} under way in {}: try again when it is over", self.dir.display())))
            }
            Err(fs::TryLockError::Error(source)) => Err(Error::io(format!("locking {}", path.display()))(source)),
        }
    }
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let fail = |e| Error::io(format!("listing {}", dir.display()))(e);
    let entries = fs::read_dir(dir).map_err(fail)?;
    entries.map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()).map_err(fail)).collect()
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io(format!("syncing {}", dir.display())))
}
