//! Files in and out: inputs by digest through a local cache, outputs by pattern to the engine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skein_domain::task::output_matches;
use skein_domain::{Digest, OutputFile};
use skein_wire::{InputFile, StartOrder};

use crate::clock;
use crate::core::CollectFailure;
use crate::folder::{Folder, private_dirs};
use crate::lane::{Content, Lane, LaneError, retried};

/// Inputs are asked for this long before the attempt is given up, ms.
pub(crate) const FETCH_MS_MAX: u64 = 60_000;
/// Outputs are offered this long before the attempt is given up, ms.
pub(crate) const UPLOAD_MS_MAX: u64 = 600_000;
/// Most output files of one attempt.
pub(crate) const OUTPUT_FILES_MAX: usize = 10_000;
/// Content kept for later attempts, bytes; the least recently used goes first.
pub(crate) const CACHE_BYTES_MAX: u64 = 2 << 30;
/// Up to this size a file is read and sent whole, without asking first whether the engine has it, bytes.
const SMALL_BYTES: u64 = 64 * 1024;

/// Content by digest, kept between attempts.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// A cache in `<dir>/cache`.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let root = dir.join("cache");
        private_dirs(&root)?;
        for entry in fs::read_dir(&root)?.flatten() {
            // Half-fetched files of an earlier, killed agent.
            if entry.file_name().to_string_lossy().contains(".part") {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { root })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.as_str())
    }

    async fn fetch(&self, lane: &Lane, digest: &Digest) -> Result<(), LaneError> {
        let part = self.root.join(format!("{digest}.part-{}", clock::random_hex()));
        let got = retried(FETCH_MS_MAX, || lane.get_file(digest, &part)).await;
        let done = got.and_then(|_| {
            let local = |e: io::Error| LaneError::Local { what: format!("keeping {digest}"), why: e.to_string() };
            fs::rename(&part, self.path(digest)).map_err(local)
        });
        if done.is_err() {
            fs::remove_file(&part).ok();
        }
        done
    }

    /// Removes the least recently used content until the rest fits.
    fn trim(&self, bytes_max: u64) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.root)?.flatten() {
            let meta = entry.metadata()?;
            kept.push((meta.modified()?, meta.len(), entry.path()));
        }
        let mut total: u64 = kept.iter().map(|(_, size, _)| size).sum();
        kept.sort();
        for (_, size, path) in kept {
            if total <= bytes_max {
                break;
            }
            fs::remove_file(path)?;
            total -= size;
        }
        Ok(())
    }
}

/// Places an order's inputs in its folder. The text says what, why and the next step.
pub(crate) async fn place_inputs(
    order: &StartOrder,
    folder: Arc<Folder>,
    cache: Cache,
    lane: &Lane,
) -> Result<(), String> {
    for input in &order.inputs {
        let failed = |why: String| format!("input '{}' cannot be had: {why}", input.path);
        if !cache.path(&input.digest).exists() {
            cache.fetch(lane, &input.digest).await.map_err(|e| failed(e.to_string()))?;
        }
        if let Err(first) = copied(&cache, input, &folder).await {
            tracing::warn!(digest = %input.digest, error = %first, "cached content is of no use, fetching it again");
            cache.fetch(lane, &input.digest).await.map_err(|e| failed(e.to_string()))?;
            copied(&cache, input, &folder).await.map_err(|e| failed(e.to_string()))?;
        }
    }
    if !order.inputs.is_empty() {
        let trimmed = tokio::task::spawn_blocking(move || cache.trim(CACHE_BYTES_MAX)).await;
        if let Ok(Err(error)) = trimmed {
            tracing::warn!(%error, "cannot trim the content cache");
        }
    }
    Ok(())
}

/// The copy holds the folder: when the attempt is cancelled meanwhile, it must not go to another.
async fn copied(cache: &Cache, input: &InputFile, folder: &Arc<Folder>) -> io::Result<()> {
    let (from, digest) = (cache.path(&input.digest), input.digest.clone());
    let (folder, path) = (Arc::clone(folder), input.path.clone());
    let copy = move || {
        let to = folder.work().join(path);
        if let Some(parent) = to.parent() {
            private_dirs(parent)?;
        }
        copy_checked(&from, &to, &digest)
    };
    tokio::task::spawn_blocking(copy).await.map_err(io::Error::other)?
}

/// A copy, not a link: a task may write to its inputs, and the cache must not change with it.
fn copy_checked(from: &Path, to: &Path, digest: &Digest) -> io::Result<()> {
    let mut source = File::open(from)?;
    source.set_modified(clock::wall()).ok();
    // Executable, since an input may be the program that runs.
    let mut target = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(to)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let read = source.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        target.write_all(&buffer[..read])?;
    }
    if hasher.finalize().to_hex().as_str() == digest.as_str() {
        return Ok(());
    }
    fs::remove_file(to)?;
    fs::remove_file(from)?;
    Err(io::Error::new(io::ErrorKind::InvalidData, "the cached bytes are not those of the digest"))
}

/// Finds, hashes and uploads an order's outputs.
pub(crate) async fn bring_outputs(
    order: &StartOrder,
    folder: Arc<Folder>,
    lane: &Lane,
) -> Result<Vec<OutputFile>, CollectFailure> {
    let patterns = order.outputs.clone();
    let found = tokio::task::spawn_blocking(move || find_outputs(&folder.work(), &patterns)).await;
    let found = found.map_err(|e| CollectFailure::Place(e.to_string()))?.map_err(CollectFailure::Task)?;
    let mut outputs = Vec::with_capacity(found.len());
    for (path, file) in found {
        let output = upload(&path, &file, lane).await.map_err(|e| match e {
            LaneError::Unreachable { .. } => CollectFailure::Place(format!(
                "output '{path}' could not be brought back within {} s: {e}",
                UPLOAD_MS_MAX / 1000
            )),
            refused => CollectFailure::Task(format!("output '{path}' could not be brought back: {refused}")),
        })?;
        outputs.push(output);
    }
    Ok(outputs)
}

async fn upload(path: &str, file: &Path, lane: &Lane) -> Result<OutputFile, LaneError> {
    let local = |why: String| LaneError::Local { what: format!("reading '{path}'"), why };
    let size = tokio::fs::metadata(file).await.map_err(|e| local(e.to_string()))?.len();
    let small = if size <= SMALL_BYTES {
        Some(bytes::Bytes::from(tokio::fs::read(file).await.map_err(|e| local(e.to_string()))?))
    } else {
        None
    };
    let hex = match &small {
        Some(bytes) => blake3::hash(bytes).to_hex().to_string(),
        None => hash_file(file.to_owned()).await.map_err(|e| local(e.to_string()))?,
    };
    let digest = Digest::new(&hex).map_err(|e| local(e.to_string()))?;
    retried(UPLOAD_MS_MAX, || async {
        if let Some(bytes) = &small {
            return lane.put_file(&digest, Content::Bytes(bytes.clone())).await;
        }
        if lane.has_file(&digest).await? {
            return Ok(());
        }
        let file = tokio::fs::File::open(file).await.map_err(|e| local(e.to_string()))?;
        lane.put_file(&digest, Content::File(file, size)).await
    })
    .await?;
    Ok(OutputFile { path: path.to_owned(), size: small.map_or(size, |bytes| bytes.len() as u64), digest })
}

async fn hash_file(file: PathBuf) -> io::Result<String> {
    let hash = move || {
        let mut hasher = blake3::Hasher::new();
        io::copy(&mut File::open(file)?, &mut hasher)?;
        Ok(hasher.finalize().to_hex().to_string())
    };
    tokio::task::spawn_blocking(hash).await.map_err(io::Error::other)?
}

/// The files that the patterns name, by path inside the working folder. A link that leads outside
/// is refused: outputs are what the task wrote, never a file of the machine.
fn find_outputs(work: &Path, patterns: &[String]) -> Result<BTreeMap<String, PathBuf>, String> {
    let root = work.canonicalize().map_err(|e| format!("the working folder is gone: {e}"))?;
    let mut found = BTreeMap::new();
    for pattern in patterns {
        let (dir, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
        if name.contains('*') {
            for name in names_in(&root, dir, pattern)? {
                let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                if output_matches(pattern, &path)
                    && let Some(file) = inside(&root, &path)?
                    && file.is_file()
                {
                    found.insert(path, file);
                }
            }
        } else {
            let file = inside(&root, pattern)?.ok_or_else(|| format!("output '{pattern}' is missing"))?;
            if !file.is_file() {
                return Err(format!("output '{pattern}' is not a file; name files, or use '{pattern}/*'"));
            }
            found.insert(pattern.clone(), file);
        }
        if found.len() > OUTPUT_FILES_MAX {
            return Err(format!("more than {OUTPUT_FILES_MAX} output files: pack them into an archive"));
        }
    }
    Ok(found)
}

/// The real path of something in the working folder; none when it is not there.
fn inside(root: &Path, path: &str) -> Result<Option<PathBuf>, String> {
    match root.join(path).canonicalize() {
        Ok(real) if real.starts_with(root) => Ok(Some(real)),
        Ok(_) => Err(format!("output '{path}' is a link that leads outside the task's folder: copy the file instead")),
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.kind() == io::ErrorKind::NotADirectory => Ok(None),
        Err(e) => Err(format!("output '{path}' cannot be read: {e}")),
    }
}

/// Names of a folder's entries; none when there is no such folder. What is not UTF-8 matches nothing.
fn names_in(root: &Path, dir: &str, pattern: &str) -> Result<Vec<String>, String> {
    let Some(folder) = (if dir.is_empty() { Some(root.to_owned()) } else { inside(root, dir)? }) else {
        return Ok(Vec::new());
    };
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).map_err(|e| format!("outputs '{pattern}' cannot be listed: {e}"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(work: &Path, patterns: &[&str]) -> Result<Vec<String>, String> {
        let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        find_outputs(work, &patterns).map(|found| found.into_keys().collect())
    }

    #[test]
    fn outputs_are_found_and_missing_ones_named() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path();
        fs::create_dir(work.join("d")).unwrap();
        for name in ["a.csv", "part-1.csv", "part-2.csv", "d/x"] {
            fs::write(work.join(name), name).unwrap();
        }
        assert_eq!(found(work, &["a.csv", "part-*.csv", "d/*"]).unwrap(), ["a.csv", "d/x", "part-1.csv", "part-2.csv"]);
        assert_eq!(found(work, &["none-*", "nowhere/*", "a.csv/*"]).unwrap(), Vec::<String>::new());
        assert!(found(work, &["b.csv"]).unwrap_err().contains("output 'b.csv' is missing"));
        assert!(found(work, &["d"]).unwrap_err().contains("not a file"));
    }

    #[test]
    fn a_link_that_leads_outside_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("work");
        fs::create_dir(&work).unwrap();
        fs::write(work.join("real"), "r").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", work.join("out")).unwrap();
        std::os::unix::fs::symlink("/etc", work.join("etc")).unwrap();
        std::os::unix::fs::symlink("real", work.join("fine")).unwrap();
        for pattern in ["out", "o*", "etc/passwd", "etc/pass*"] {
            assert!(found(&work, &[pattern]).unwrap_err().contains("outside"), "{pattern}");
        }
        assert_eq!(found(&work, &["fine"]).unwrap(), ["fine"]);
    }

    #[test]
    fn a_damaged_copy_in_the_cache_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::new(blake3::hash(b"right").to_hex().as_str()).unwrap();
        fs::write(dir.path().join("c"), "wrong").unwrap();
        let to = dir.path().join("t");
        assert!(copy_checked(&dir.path().join("c"), &to, &digest).is_err());
        assert!(!to.exists() && !dir.path().join("c").exists());
        fs::write(dir.path().join("c"), "right").unwrap();
        copy_checked(&dir.path().join("c"), &to, &digest).unwrap();
        assert_eq!(fs::read(to).unwrap(), b"right");
    }

    #[test]
    fn the_cache_keeps_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        for (name, age) in [("a", 3), ("b", 1), ("c", 2)] {
            let path = cache.root.join(name);
            fs::write(&path, [0; 100]).unwrap();
            File::open(&path)
                .unwrap()
                .set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(age))
                .unwrap();
        }
        cache.trim(200).unwrap();
        assert!(!cache.root.join("b").exists() && cache.root.join("a").exists() && cache.root.join("c").exists());
    }
}
