//! An image's root file system as a container image: what a shared solution starts (claims 4, 13). Nothing is
//! mounted and nothing needs root.
//!
//! The result is a tar of an OCI image layout (image-spec 1.1): `oci-layout`, `index.json`, and the blobs: one layer,
//! its configuration, the manifest. `podman load`, `skopeo copy oci-archive:` and registries take it. The same disk
//! gives the same bytes: files in order of their names, times from the file system, none from a clock.
//!
//! Left out: devices, sockets and pipes (a container's runtime makes its own). Hard links become copies and extended
//! attributes are not carried over, since the reader of ext4 that is used here shows neither.

use std::fs::File;
use std::io::{BufWriter, Read, Seek as _, SeekFrom, Write};
use std::sync::Arc;

use ext4_view::{Ext4, FileType, Metadata};
use ring::digest::{Context, SHA256};
use serde_json::{Value, json};
use tar::{EntryType, Header};

use crate::convert::{Effort, Progress};
use crate::digest::hex;
use crate::{Disk, Error, Result, inspect};

/// Deepest folder: a file system that loops ends here.
const DEPTH_MAX: usize = 128;
/// Most files.
const FILES_MAX: u64 = 10_000_000;

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Contained {
    /// Files, folders and links.
    pub files: u64,
    /// Bytes of the layer's tar: what it takes where it runs.
    pub unpacked_bytes: u64,
    /// Bytes of the packed layer.
    pub layer_bytes: u64,
    /// Bytes that were written.
    pub bytes: u64,
    /// SHA-256 of the layer's tar (OCI: `diff_id`), 64 hexadecimal digits.
    pub diff_id: String,
    /// Devices, sockets and pipes that were left out.
    pub left_out: u64,
}

/// Writes the container image of the system on `disk` to `out`. `spool` is an empty temporary file: a layer's
/// length and digest stand before it in the tar. The progress is in bytes of files.
pub fn write(
    disk: &Arc<dyn Disk>,
    out: &mut dyn Write,
    spool: File,
    effort: Effort,
    progress: &dyn Progress,
) -> Result<Contained> {
    let Some((root, arch)) = inspect::root(disk)? else {
        return Err(Error::Unsupported {
            what: "a container of a disk on which no root file system can be read".to_owned(),
            next_step: "have the system on ext4 in a partition; 'skein image show' says what is there".to_owned(),
        });
    };
    let level = if effort == Effort::Archive { 9 } else { 1 };
    let packed = flate2::GzBuilder::new().write(Hashed::new(BufWriter::new(spool)), flate2::Compression::new(level));
    let mut layer = Layer { tar: tar::Builder::new(Hashed::new(packed)), done: Contained::default(), progress, at: 0 };
    layer.folder(&root, "/", 0)?;
    let (mut done, raw) = (layer.done, layer.tar.into_inner().map_err(io)?);
    (done.unpacked_bytes, done.diff_id) = (raw.bytes, raw.hex());
    let mut packed = raw.inner.finish().map_err(io)?;
    packed.flush().map_err(io)?;
    (done.layer_bytes, done.bytes) = (packed.bytes, 0);
    let layer_digest = packed.hex();
    let mut spool = packed.inner.into_inner().map_err(|e| io(e.into_error()))?;
    spool.seek(SeekFrom::Start(0)).map_err(io)?;
    done.bytes = layout(out, &mut spool, &done, &layer_digest, arch.as_deref())?;
    Ok(done)
}

fn io(source: std::io::Error) -> Error {
    Error::io("writing the container image")(source)
}

fn read(error: ext4_view::Ext4Error) -> Error {
    Error::corrupt(format!("the file system: {error}"))
}

/// A layer under way.
struct Layer<'a, W: Write> {
    tar: tar::Builder<W>,
    done: Contained,
    progress: &'a dyn Progress,
    at: u64,
}

impl<W: Write> Layer<'_, W> {
    fn folder(&mut self, root: &Ext4, path: &str, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(Error::corrupt(format!("folders are nested over {DEPTH_MAX} deep (container_depth_max)")));
        }
        let mut names = Vec::new();
        for entry in root.read_dir(path).map_err(read)? {
            let entry = entry.map_err(read)?;
            let name = entry.file_name();
            let name = name.as_str().map_err(|_| Error::corrupt(format!("a name in {path} is not UTF-8")))?;
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        for name in names {
            let full = format!("{}/{name}", path.trim_end_matches('/'));
            let meta = root.symlink_metadata(full.as_str()).map_err(read)?;
            self.entry(root, &full, &meta)?;
            if meta.is_dir() {
                self.folder(root, &full, depth + 1)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, root: &Ext4, full: &str, meta: &Metadata) -> Result<()> {
        if self.progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        self.done.files += 1;
        if self.done.files > FILES_MAX {
            return Err(Error::corrupt(format!("there are over {FILES_MAX} files (container_files_max)")));
        }
        let name = full.trim_start_matches('/');
        let mut header = header(meta);
        match meta.file_type() {
            FileType::Regular => {
                header.set_entry_type(EntryType::Regular);
                header.set_size(meta.len());
                let file = root.open(full).map_err(read)?;
                self.tar.append_data(&mut header, name, Contents(file).take(meta.len())).map_err(io)?;
                self.at += meta.len();
                self.progress.at(self.at);
            }
            FileType::Directory => {
                header.set_entry_type(EntryType::Directory);
                self.tar.append_data(&mut header, format!("{name}/"), std::io::empty()).map_err(io)?;
            }
            FileType::Symlink => {
                header.set_entry_type(EntryType::Symlink);
                let target = root.read_link(full).map_err(read)?;
                let target = target.to_str().map_err(|_| Error::corrupt(format!("{full} points to no UTF-8 name")))?;
                // As it stands: the tar library would tidy it.
                if header.set_link_name_literal(target).is_ok() {
                    self.tar.append_data(&mut header, name, std::io::empty()).map_err(io)?;
                } else {
                    self.tar.append_link(&mut header, name, target).map_err(io)?;
                }
            }
            _ => {
                self.done.files -= 1;
                self.done.left_out += 1;
            }
        }
        Ok(())
    }
}

fn header(meta: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(u32::from(meta.mode() & 0o7777));
    header.set_uid(u64::from(meta.uid()));
    header.set_gid(u64::from(meta.gid()));
    header.set_mtime(u64::try_from(meta.modified().seconds()).unwrap_or(0));
    header.set_size(0);
    header
}

/// A file of the file system as a stream.
struct Contents(ext4_view::File);

impl Read for Contents {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read_bytes(buffer).map_err(std::io::Error::other)
    }
}

/// Counts and digests what passes.
struct Hashed<W> {
    inner: W,
    hash: Context,
    bytes: u64,
}

impl<W> Hashed<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Context::new(&SHA256), bytes: 0 }
    }
    fn hex(&self) -> String {
        hex(self.hash.clone().finish().as_ref())
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// The archive around the layer; its bytes.
fn layout(out: &mut dyn Write, layer: &mut File, done: &Contained, digest: &str, arch: Option<&str>) -> Result<u64> {
    // The names of Go's runtime, which OCI uses.
    let arch = match arch {
        Some("x86_64") | None => "amd64",
        Some("aarch64") => "arm64",
        Some(other) => other,
    };
    let config = blob(&json!({
        "architecture": arch, "os": "linux", "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", done.diff_id)]},
    }));
    let refer = |kind: &str, digest: &str, size: u64| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{digest}"), "size": size});
    let manifest = blob(&json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": refer("config.v1+json", &config.0, config.1.len() as u64),
        "layers": [refer("layer.v1.tar+gzip", digest, done.layer_bytes)],
    }));
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [refer("manifest.v1+json", &manifest.0, manifest.1.len() as u64)],
    });
    let mut archive = tar::Builder::new(Hashed::new(out));
    let mut put = |name: &str, bytes: &mut dyn Read, size: u64| {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(size);
        archive.append_data(&mut header, name, bytes).map_err(io)
    };
    let small = |value: &Value| value.to_string().into_bytes();
    let version = small(&json!({"imageLayoutVersion": "1.0.0"}));
    let index = small(&index);
    put("oci-layout", &mut version.as_slice(), version.len() as u64)?;
    put("index.json", &mut index.as_slice(), index.len() as u64)?;
    for (digest, bytes) in [&config, &manifest] {
        put(&format!("blobs/sha256/{digest}"), &mut bytes.as_slice(), bytes.len() as u64)?;
    }
    put(&format!("blobs/sha256/{digest}"), layer, done.layer_bytes)?;
    let mut written = archive.into_inner().map_err(io)?;
    written.flush().map_err(io)?;
    Ok(written.bytes)
}

fn blob(value: &Value) -> (String, Vec<u8>) {
    let bytes = value.to_string().into_bytes();
    (hex(ring::digest::digest(&SHA256, &bytes).as_ref()), bytes)
}
