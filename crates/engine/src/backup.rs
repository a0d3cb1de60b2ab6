//! Backup and restore of an engine's folder, one file each: what it takes to go on elsewhere.
//!
//! The file is a tar: the ledger (a copy of one moment between two turns, taken while the engine goes on),
//! the keys, the identities of agents that live in the folder, the content that sessions and documents refer
//! to, the logs and the images' bytes if asked for; and last a manifest with each file's size and BLAKE3. A restore checks every one
//! of them before it puts anything in place.
//!
//! What the engine did after the backup is unknown to a restored ledger. Its turns go on far behind those of
//! the backup, so no id or generation is ever used twice; what runs on agents unknown to it is ended by their
//! leases; machines made since are orphans and are ended (docs/decisions/0008).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use skein_store::{BACKUP_SUFFIX, BACKUPS, Reader as _, SqliteReader, adopt_copy, copy_ledger};

use crate::clock;

const LEDGER: &str = "ledger.sqlite";
const MANIFEST: &str = "manifest.json";
/// Files of the folder that are kept, when they are there.
const KEYS: [&str; 5] = ["engine.key", "local.token", "ca.pem", "ca.key", "images/signing.key"];
/// Form of the manifest.
const FORM: u32 = 1;

/// What a backup holds.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    form: u32,
    version: String,
    /// Microseconds since the epoch.
    at: i64,
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    blake3: String,
}

/// Folders that a backup is made of, besides the engine's own.
#[derive(Debug, Clone, Copy)]
pub struct Folders<'a> {
    /// The content.
    pub content: &'a Path,
    /// The logs, if they are wanted.
    pub logs: Option<&'a Path>,
    /// The images' bytes, if they are wanted.
    pub images: Option<&'a Path>,
}

/// What was done.
#[derive(Debug, Clone, Serialize)]
pub struct Done {
    /// The backup, or the folder.
    pub path: PathBuf,
    /// Files in it.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Content that is referred to and was not there.
    pub missing: usize,
    /// Images whose bytes are not in it.
    pub images_left_out: usize,
    /// Where the folder that was there before is now.
    pub before: Option<PathBuf>,
}

/// Writes a backup of the engine's folder `dir` to `to` (by default a new file in its `backups`).
pub fn backup(dir: &Path, to: Option<&Path>, folders: Folders<'_>) -> anyhow::Result<Done> {
    ensure!(dir.join(LEDGER).exists(), "there is no engine's ledger in {}", dir.display());
    let to = match to {
        Some(to) => to.to_owned(),
        None => dir.join(BACKUPS).join(format!("skein-{}{BACKUP_SUFFIX}", clock::now().0 / 1_000_000)),
    };
    ensure!(!to.exists(), "{} is there already: name another file", to.display());
    let parent = to.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    std::fs::create_dir_all(&parent).with_context(|| format!("making {}", parent.display()))?;
    // Beside the backup, so that its disk is the one that has to have room.
    let work = tempfile::Builder::new().prefix(".skein-backup-").tempdir_in(&parent).context("making a work folder")?;
    let copy = work.path().join(LEDGER);
    copy_ledger(dir, &copy)?;
    let part = work.path().join("part");
    let file = File::create(&part).with_context(|| format!("writing {}", part.display()))?;
    crate::keys::only_ours(&part)?;
    let mut out = Pack { tar: tar::Builder::new(file), files: BTreeMap::new() };
    out.add(LEDGER, &copy)?;
    for name in KEYS {
        out.add_if_there(name, &dir.join(name))?;
    }
    for agent in entries(&dir.join("agents"))? {
        let name = agent.file_name().unwrap_or_default().to_string_lossy().into_owned();
        out.add_if_there(&format!("agents/{name}/identity.json"), &agent.join("identity.json"))?;
    }
    let mut missing = 0;
    for digest in SqliteReader::open(work.path())?.referenced()? {
        let name = format!("{}/{digest}", &digest.as_str()[..2]);
        let there = out.add_if_there(&format!("content/{name}"), &folders.content.join(&name))?;
        missing += usize::from(!there);
    }
    if let Some(logs) = folders.logs {
        out.add_folder("logs", logs)?;
    }
    let catalogue = SqliteReader::open(work.path())?.images()?.len();
    if let Some(images) = folders.images.filter(|images| images.is_dir()) {
        out.add_images(images)?;
    }
    let images_left_out = if folders.images.is_some() { 0 } else { catalogue };
    let done = out.finish(&part)?;
    std::fs::rename(&part, &to).with_context(|| format!("putting {} in place", to.display()))?;
    sync_folder(&parent)?;
    Ok(Done { path: to, missing, images_left_out, ..done })
}

struct Pack {
    tar: tar::Builder<File>,
    files: BTreeMap<String, Entry>,
}

impl Pack {
    fn add(&mut self, name: &str, path: &Path) -> anyhow::Result<()> {
        let reading = || format!("reading {}", path.display());
        let file = File::open(path).with_context(reading)?;
        // As long as it is now: a log that grows meanwhile is cut there.
        let bytes = file.metadata().with_context(reading)?.len();
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes);
        header.set_mode(0o600);
        header.set_entry_type(tar::EntryType::Regular);
        let mut read = Digested { from: file.take(bytes), hash: blake3::Hasher::new() };
        self.tar.append_data(&mut header, name, &mut read).with_context(|| format!("packing {}", path.display()))?;
        let blake3 = read.hash.finalize().to_hex().to_string();
        self.files.insert(name.to_owned(), Entry { bytes, blake3 });
        Ok(())
    }

    fn add_if_there(&mut self, name: &str, path: &Path) -> anyhow::Result<bool> {
        let there = path.is_file();
        if there {
            self.add(name, path)?;
        }
        Ok(there)
    }

    fn add_folder(&mut self, name: &str, path: &Path) -> anyhow::Result<()> {
        for entry in entries(path)? {
            let below = format!("{name}/{}", entry.file_name().unwrap_or_default().to_string_lossy());
            if entry.is_dir() {
                self.add_folder(&below, &entry)?;
            } else if entry.is_file() {
                self.add(&below, &entry)?;
            }
        }
        Ok(())
    }

    /// Manifests before chunks, which are there before them: an image that comes meanwhile is left out whole. No
    /// collection takes chunks away meanwhile.
    fn add_images(&mut self, dir: &Path) -> anyhow::Result<()> {
        let _no_collection = skein_image::store::Shelf::lock(&skein_image::store::Folder::open(dir)?, false)?;
        for part in ["images", "chunks"] {
            self.add_folder(&format!("images/{part}"), &dir.join(part))?;
        }
        Ok(())
    }

    fn finish(mut self, path: &Path) -> anyhow::Result<Done> {
        let (files, bytes) = (self.files.len(), self.files.values().map(|entry| entry.bytes).sum());
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let manifest = Manifest { form: FORM, version, at: clock::now().0, files: self.files };
        let text = serde_json::to_vec_pretty(&manifest).context("writing the manifest")?;
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        self.tar.append_data(&mut header, MANIFEST, text.as_slice()).context("packing the manifest")?;
        let mut file = self.tar.into_inner().context("ending the backup")?;
        file.flush().and_then(|()| file.sync_all()).context("writing the backup to its disk")?;
        Ok(Done { path: path.to_owned(), files, bytes, missing: 0, images_left_out: 0, before: None })
    }
}

/// What is read is also digested.
struct Digested<R> {
    from: R,
    hash: blake3::Hasher,
}

impl<R: Read> Read for Digested<R> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(to)?;
        self.hash.update(&to[..read]);
        Ok(read)
    }
}

/// Puts a backup in the place of the engine's folder `dir`. One that holds something is left alone, unless
/// `force` is set: then it is kept beside, under the name that the answer tells.
pub fn restore(from: &Path, dir: &Path, force: bool) -> anyhow::Result<Done> {
    let dir = std::path::absolute(dir).with_context(|| format!("finding {}", dir.display()))?;
    // A backup is often kept in the very folder that is to be replaced.
    let file = File::open(from).with_context(|| format!("reading {}", from.display()))?;
    let occupied = !entries(&dir)?.is_empty();
    if occupied && !force {
        bail!("{} holds something: name another folder with --dir, or say --force (it is kept beside)", dir.display());
    }
    nobody_uses(&dir)?;
    let parent = dir.parent().context("the folder has no place to be in")?;
    std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    let work = tempfile::Builder::new().prefix(".skein-restore-").tempdir_in(parent).context("making a work folder")?;
    let done = unpack(file, work.path()).with_context(|| format!("the backup {}", from.display()))?;
    adopt_copy(&work.path().join(LEDGER))?;
    let before = occupied.then(|| beside(&dir));
    if let Some(before) = &before {
        std::fs::rename(&dir, before).with_context(|| format!("keeping {} beside", dir.display()))?;
        // Other backups stay where they are looked for.
        if before.join(BACKUPS).is_dir() {
            std::fs::rename(before.join(BACKUPS), work.path().join(BACKUPS)).context("keeping the backups")?;
        }
    } else if dir.exists() {
        std::fs::remove_dir(&dir).with_context(|| format!("replacing {}", dir.display()))?;
    }
    let placed = std::fs::rename(work.path(), &dir).with_context(|| format!("putting {} in place", dir.display()));
    if let (Err(_), Some(before)) = (&placed, &before) {
        std::fs::rename(before, &dir).with_context(|| format!("putting {} back", before.display()))?;
    }
    placed?;
    sync_folder(parent)?;
    Ok(Done { path: dir, before, ..done })
}

fn beside(dir: &Path) -> PathBuf {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    dir.with_file_name(format!("{name}.before-restore-{}", clock::now().0 / 1_000_000))
}

/// A running engine must not lose its folder.
fn nobody_uses(dir: &Path) -> anyhow::Result<()> {
    let Ok(lock) = File::open(dir.join("ledger.lock")) else { return Ok(()) };
    match lock.try_lock() {
        Err(std::fs::TryLockError::WouldBlock) => bail!("an engine is up in {}: stop it first", dir.display()),
        _ => Ok(()),
    }
}

/// Every file into `to`, each checked.
fn unpack(file: File, to: &Path) -> anyhow::Result<Done> {
    let mut archive = tar::Archive::new(file);
    let (mut found, mut manifest) = (BTreeMap::new(), None);
    for entry in archive.entries().context("is not a tar")? {
        let mut entry = entry.context("breaks off")?;
        let name = entry.path().context("has a file with a bad name")?.into_owned();
        let safe = name.components().all(|part| matches!(part, Component::Normal(_)));
        ensure!(safe && entry.header().entry_type().is_file(), "has a file that is none of ours: {}", name.display());
        if name == Path::new(MANIFEST) {
            manifest =
                Some(serde_json::from_reader::<_, Manifest>(entry).context("has a manifest that makes no sense")?);
            continue;
        }
        let path = to.join(&name);
        let folder = path.parent().unwrap_or(to);
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let mut out = File::create(&path).with_context(|| format!("writing {}", path.display()))?;
        crate::keys::only_ours(&path)?;
        let mut read = Digested { from: &mut entry, hash: blake3::Hasher::new() };
        let bytes = std::io::copy(&mut read, &mut out).with_context(|| format!("breaks off in {}", name.display()))?;
        out.sync_all().with_context(|| format!("writing {}", path.display()))?;
        found.insert(name.to_string_lossy().into_owned(), (bytes, read.hash.finalize().to_hex().to_string()));
    }
    let manifest = manifest.context("has no manifest: it was never finished, or its end is missing")?;
    ensure!(manifest.form <= FORM, "is of a newer form ({}): use the newer build", manifest.form);
    ensure!(found.contains_key(LEDGER), "has no ledger");
    for (name, entry) in &manifest.files {
        let same = found.get(name).is_some_and(|(bytes, blake3)| (*bytes, blake3) == (entry.bytes, &entry.blake3));
        ensure!(same, "is damaged: {name} is not what was packed");
    }
    ensure!(manifest.files.len() == found.len(), "holds files that its manifest does not name");
    let bytes = found.values().map(|(bytes, _)| bytes).sum();
    Ok(Done { path: to.to_owned(), files: found.len(), bytes, missing: 0, images_left_out: 0, before: None })
}

/// What is in a folder, by name; nothing when there is none.
fn entries(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut all = match std::fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
    .with_context(|| format!("reading {}", dir.display()))?;
    all.sort();
    Ok(all)
}

fn sync_folder(dir: &Path) -> anyhow::Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("writing {}", dir.display()))
}
