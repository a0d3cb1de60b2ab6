//! Where images are kept: the disk's bytes as they are (raw: a form that some clouds take unconverted), in chunks
//! that are kept once however many images have them, on a [`Shelf`].
//!
//! Failure paths: an import that dies leaves chunks that no image has, and the next collection takes them. An image
//! is there when its manifest is; that is put after everything it needs has been synced. A collection runs alone and
//! removes only what no image there has, so dying in its middle loses nothing. A damaged chunk is found when it is
//! read, and by [`Store::scrub`] before that; a changed manifest by its signature.

mod chunk;
mod folder;
mod import;
mod manifest;
mod recipe;
mod shelf;
mod sign;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use chunk::ChunkId;
pub use folder::Folder;
pub use manifest::{ImageId, Kept, Manifest, Origin};
pub use recipe::StoredDisk;
pub use shelf::{Entry, Guard, Shelf};
pub use sign::{Signature, Signer};

use crate::convert::Progress;
use crate::{Bytes, Disk, Error, Format, Result, digest, format, inspect};
use import::Taken;
use recipe::{List, Part};

/// Images on a shelf.
#[derive(Clone)]
pub struct Store {
    shelf: Arc<dyn Shelf>,
    signer: Option<Arc<Signer>>,
}

/// An image that was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// What is known of it.
    pub manifest: Manifest,
    /// It was there before.
    pub known: bool,
    /// Bytes that its new chunks take.
    pub new_bytes: u64,
}

/// An image to be taken in.
pub struct New<'a> {
    /// Its disk.
    pub disk: &'a dyn Disk,
    /// The format that it came in.
    pub format: Format,
    /// The file that it came in, if that is to be kept too.
    pub keep: Option<Arc<dyn Bytes>>,
    /// Where it came from.
    pub origin: Origin,
}

/// What a collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Objects removed: chunks, and lists of images that never came to be.
    pub chunks: u64,
    /// Bytes that they took.
    pub bytes: u64,
    /// Chunks that are left.
    pub kept: u64,
}

/// What a scrub found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrubbed {
    /// Chunks read and found whole.
    pub good: u64,
    /// Chunks that are damaged or missing, with the images that have them.
    pub bad: Vec<(String, Vec<ImageId>)>,
}

impl Store {
    /// The store in the folder `dir`, made if it is not there; it signs with its own key, `dir/signing.key`.
    pub fn open(dir: &Path) -> Result<Self> {
        let shelf = Folder::open(dir)?;
        let signer = Signer::open(&dir.join("signing.key"))?;
        Ok(Self::on(Arc::new(shelf), Some(Arc::new(signer))))
    }

    /// The store on a shelf. Without a signer what it takes in is not signed.
    pub fn on(shelf: Arc<dyn Shelf>, signer: Option<Arc<Signer>>) -> Self {
        Self { shelf, signer }
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        self.shelf.place()
    }

    /// The key that it signs with, 64 hexadecimal digits.
    pub fn key(&self) -> Option<String> {
        self.signer.as_ref().map(|signer| signer.public())
    }

    /// Keeps an image. The same disk again costs its reading only.
    pub fn import(&self, new: New<'_>, threads: usize, progress: &dyn Progress) -> Result<Imported> {
        let lock = self.shelf.lock(false)?;
        let taken = import::take(self.shelf.as_ref(), new.disk, threads, progress)?;
        let id = ImageId::new(&taken.root)?;
        let known = self.whole(&id)?;
        let wants_native = new.keep.is_some();
        if let Some(manifest) = known.clone().filter(|m| m.native_file.is_some() || !wants_native) {
            return Ok(Imported { manifest, known: true, new_bytes: taken.new_bytes });
        }
        let (mut new_bytes, mut native_file) = (taken.new_bytes, None);
        if let Some(bytes) = new.keep {
            let file = format::open(bytes, Format::Raw, &crate::Budget::default())?;
            let kept = import::take(self.shelf.as_ref(), file.as_ref(), threads, &())?;
            new_bytes += kept.new_bytes;
            native_file = Some(self.list(&id, List::Native, file.size(), &kept)?);
        }
        let disk = self.list(&id, List::Disk, new.disk.size(), &taken)?;
        let stored = StoredDisk::new(Arc::clone(&self.shelf), disk.bytes, taken.parts, lock);
        let facts = inspect::inspect(&(Arc::new(stored) as Arc<dyn Disk>))?;
        let manifest = Manifest {
            id,
            data_bytes: taken.data_bytes,
            origin: new.origin,
            native: new.format,
            disk,
            native_file,
            facts,
            written_by: concat!("skein-image ", env!("CARGO_PKG_VERSION")).to_owned(),
            signature: None,
        };
        let lock = self.shelf.lock(false)?;
        let manifest = self.name(manifest)?;
        drop(lock);
        Ok(Imported { manifest, known: known.is_some(), new_bytes })
    }

    /// Takes in an image whose chunks and lists somebody put on the shelf: what they say is looked at again.
    pub fn adopt(&self, manifest: Manifest, threads: usize, progress: &dyn Progress) -> Result<Manifest> {
        let id = &manifest.id;
        let known = self.whole(id)?.filter(|known| known.native_file.is_some() || manifest.native_file.is_none());
        if let Some(known) = known {
            return Ok(known);
        }
        let disk = self.parts(id, List::Disk, &manifest.disk)?;
        let disk = StoredDisk::new(Arc::clone(&self.shelf), manifest.disk.bytes, disk, self.shelf.lock(false)?);
        let root = digest::of(&disk, threads, progress)?;
        if root != id.as_str() {
            return Err(Error::corrupt(format!("the disk that was sent as {id} is {root}")));
        }
        if let Some(kept) = &manifest.native_file {
            let parts = self.parts(id, List::Native, kept)?;
            let file = StoredDisk::new(Arc::clone(&self.shelf), kept.bytes, parts, self.shelf.lock(false)?);
            digest::of(&file, threads, progress)?;
        }
        let facts = inspect::inspect(&(Arc::new(disk) as Arc<dyn Disk>))?;
        let lock = self.shelf.lock(false)?;
        let named = self.name(Manifest { facts, ..manifest });
        drop(lock);
        named
    }

    /// Puts a list; what is written of it in the manifest.
    fn list(&self, id: &ImageId, list: List, bytes: u64, taken: &Taken) -> Result<Kept> {
        let encoded = recipe::encode(&taken.parts);
        self.shelf.put(&list.object(id), &encoded)?;
        let list = blake3::hash(&encoded).to_hex().to_string();
        Ok(Kept { bytes, list, chunks: taken.parts.len() as u64 })
    }

    /// From here on the image is there.
    fn name(&self, mut manifest: Manifest) -> Result<Manifest> {
        let text = manifest.seal(self.signer.as_deref())?;
        self.shelf.sync()?;
        self.shelf.put(&object(&manifest.id), &text)?;
        Ok(manifest)
    }

    /// Every image, by id.
    pub fn list_all(&self) -> Result<Vec<Manifest>> {
        let mut all = Vec::new();
        for entry in self.shelf.list("images/")? {
            let id = entry.name.strip_prefix("images/").and_then(|name| name.strip_suffix(".json"));
            if let Some(id) = id {
                all.push(self.manifest(&ImageId::new(id)?)?);
            }
        }
        Ok(all)
    }

    /// The one image whose id begins so.
    pub fn find(&self, begin: &str) -> Result<Manifest> {
        let begins = |m: &Manifest| !begin.is_empty() && m.id.as_str().starts_with(begin);
        let found: Vec<Manifest> = self.list_all()?.into_iter().filter(begins).collect();
        match found.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(Error::Usage(format!("there is no image '{begin}'"))),
            many => Err(Error::Usage(format!("{} images begin with '{begin}': give more of the id", many.len()))),
        }
    }

    /// What is known of an image.
    pub fn manifest(&self, id: &ImageId) -> Result<Manifest> {
        self.look(id)?.ok_or_else(|| Error::Usage(format!("there is no image {id} in {}", self.shelf.place())))
    }

    fn look(&self, id: &ImageId) -> Result<Option<Manifest>> {
        let name = object(id);
        let text = self.shelf.get(&name)?;
        text.map(|text| Manifest::read(&text, &format!("{name} in {}", self.shelf.place()))).transpose()
    }

    /// What is known of an image whose manifest and lists are whole: of one that is damaged, nothing, since taking
    /// it in again mends it.
    fn whole(&self, id: &ImageId) -> Result<Option<Manifest>> {
        let known = match self.look(id) {
            Err(Error::Corrupt(_)) => None,
            looked => looked?,
        };
        let lists = |manifest: &Manifest| lists_of(manifest).all(|(list, kept)| self.parts(id, list, kept).is_ok());
        Ok(known.filter(lists))
    }

    fn parts(&self, id: &ImageId, list: List, kept: &Kept) -> Result<Vec<Part>> {
        recipe::read(self.shelf.as_ref(), &list.object(id), &kept.list, kept.bytes)
    }

    /// An image's disk. It stays readable for as long as this lives: no collection runs meanwhile.
    pub fn disk(&self, id: &ImageId) -> Result<StoredDisk> {
        let lock = self.shelf.lock(false)?;
        let manifest = self.manifest(id)?;
        let parts = self.parts(id, List::Disk, &manifest.disk)?;
        Ok(StoredDisk::new(Arc::clone(&self.shelf), manifest.disk.bytes, parts, lock))
    }

    /// The file that an image came in, byte for byte.
    pub fn native(&self, id: &ImageId) -> Result<StoredDisk> {
        let lock = self.shelf.lock(false)?;
        let kept = self.manifest(id)?.native_file;
        let kept = kept.ok_or_else(|| {
            Error::Usage(format!("the file that {id} came in was not kept: import it again with its native form"))
        })?;
        let parts = self.parts(id, List::Native, &kept)?;
        Ok(StoredDisk::new(Arc::clone(&self.shelf), kept.bytes, parts, lock))
    }

    /// Reads all of an image: is its disk what its name says?
    pub fn check(&self, id: &ImageId, threads: usize, progress: &dyn Progress) -> Result<()> {
        let root = digest::of(&self.disk(id)?, threads, progress)?;
        if root == id.as_str() { Ok(()) } else { Err(Error::corrupt(format!("the disk of {id} is {root}"))) }
    }

    /// Names of the objects that an image is made of, its manifest aside.
    pub fn objects(&self, manifest: &Manifest) -> Result<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        for (list, kept) in lists_of(manifest) {
            all.insert(list.object(&manifest.id));
            all.extend(self.parts(&manifest.id, list, kept)?.into_iter().map(|part| part.chunk.object()));
        }
        Ok(all)
    }

    /// Forgets an image; its chunks go with the next collection.
    pub fn remove(&self, id: &ImageId) -> Result<()> {
        self.manifest(id)?;
        // The manifest goes first: without it the lists are nobody's.
        let lists = [List::Disk.object(id), List::Native.object(id)];
        std::iter::once(object(id)).chain(lists).try_for_each(|name| self.shelf.remove(&name))
    }

    /// Removes chunks that no image has, but for objects that are `promised` to somebody. Runs alone: it is an error
    /// while an import or a read is under way.
    pub fn collect(&self, promised: &dyn Fn(&str) -> bool) -> Result<Collected> {
        let _lock = self.shelf.lock(true)?;
        let images = self.list_all()?;
        let (mut reachable, mut lists) = (BTreeSet::new(), BTreeSet::new());
        for manifest in &images {
            for (list, kept) in lists_of(manifest) {
                reachable.extend(self.parts(&manifest.id, list, kept)?.into_iter().map(|part| part.chunk));
                lists.insert(list.object(&manifest.id));
            }
        }
        let mut done = Collected::default();
        for entry in self.shelf.list("chunks/")? {
            let wanted = ChunkId::of_object(&entry.name).is_some_and(|id| reachable.contains(&id));
            if wanted || promised(&entry.name) {
                done.kept += 1;
            } else {
                self.throw(&entry, &mut done)?;
            }
        }
        lists.extend(images.iter().map(|manifest| object(&manifest.id)));
        for entry in &self.shelf.list("images/")? {
            if !lists.contains(&entry.name) && !promised(&entry.name) {
                self.throw(entry, &mut done)?;
            }
        }
        Ok(done)
    }

    fn throw(&self, entry: &Entry, done: &mut Collected) -> Result<()> {
        self.shelf.remove(&entry.name)?;
        done.chunks += 1;
        done.bytes += entry.bytes;
        Ok(())
    }

    /// Reads every chunk of every image and says which are damaged or missing. Its progress is in bytes.
    pub fn scrub(&self, progress: &dyn Progress) -> Result<Scrubbed> {
        let _lock = self.shelf.lock(false)?;
        let mut used: BTreeMap<ChunkId, Vec<ImageId>> = BTreeMap::new();
        for manifest in self.list_all()? {
            for (list, kept) in lists_of(&manifest) {
                for part in self.parts(&manifest.id, list, kept)? {
                    let images = used.entry(part.chunk).or_default();
                    if images.last() != Some(&manifest.id) {
                        images.push(manifest.id.clone());
                    }
                }
            }
        }
        let (mut found, mut read) = (Scrubbed::default(), 0);
        for (id, images) in used {
            if progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            match chunk::read(self.shelf.as_ref(), id) {
                Ok(content) => {
                    found.good += 1;
                    read += content.len() as u64;
                    progress.at(read);
                }
                Err(_) => found.bad.push((id.to_string(), images)),
            }
        }
        Ok(found)
    }

    /// Bytes that the chunks take.
    pub fn stored_bytes(&self) -> Result<u64> {
        Ok(self.shelf.list("chunks/")?.iter().map(|entry| entry.bytes).sum())
    }
}

/// The name of the chunk that these packed bytes are: what a client sends is named by what is in it.
pub fn check_chunk(packed: &[u8]) -> Result<ChunkId> {
    chunk::name_of(packed)
}

fn object(id: &ImageId) -> String {
    format!("images/{id}.json")
}

fn lists_of(manifest: &Manifest) -> impl Iterator<Item = (List, &Kept)> {
    let native = manifest.native_file.iter().map(|kept| (List::Native, kept));
    std::iter::once((List::Disk, &manifest.disk)).chain(native)
}
