//! Disks to upload.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skein_cloud::transport::Converted;
use skein_image::bytes::FileBytes;
use skein_image::{Budget, Format, Options, Out, convert, format};

use super::Seed;

pub const MIB: u64 = 1 << 20;

/// A sparse raw disk with noise at places that a seed chooses: noise, so that no format makes it smaller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub raw: PathBuf,
    pub id: String,
    pub format: Format,
}

impl Image {
    /// Of `size` bytes, `data` of them not zero, in `runs` runs at multiples of 64 KiB (of a MiB when they are
    /// whole ones).
    pub fn new(dir: &Path, seed: u64, size: u64, data: u64, runs: u64, format: Format) -> Self {
        let raw = dir.join(format!("{seed}-{size}.raw"));
        let file = File::create(&raw).unwrap();
        file.set_len(size).unwrap();
        let (mut noise, step, len) = (Seed(seed), size / runs, data / runs);
        for n in 0..runs {
            let unit = if len % MIB == 0 { MIB } else { 64 << 10 };
            let at = (n * step).next_multiple_of(unit) + noise.below(((step - len) / unit).max(1)) * unit;
            let len = usize::try_from(len.min(size - at)).unwrap();
            file.write_all_at(&noise.bytes(len), at).unwrap();
        }
        Self { raw, id: format!("image-{seed}-{size}"), format }
    }

    /// The same disk with other bytes at a place: a new version of it.
    pub fn changed(&self, name: &str, at: u64, bytes: &[u8]) -> Self {
        let raw = self.raw.with_file_name(format!("{name}.raw"));
        std::fs::copy(&self.raw, &raw).unwrap();
        File::options().write(true).open(&raw).unwrap().write_all_at(bytes, at).unwrap();
        Self { raw, id: format!("{}-{name}", self.id), format: self.format }
    }

    fn options(&self) -> Options {
        Options { threads: 2, size_multiple: MIB, ..Options::new(self.format) }
    }

    pub fn source(&self) -> Converted {
        let bytes = FileBytes::new(File::open(&self.raw).unwrap()).unwrap();
        let disk = format::open(Arc::new(bytes), Format::Raw, &Budget::default()).unwrap();
        Converted::new(&self.id, Arc::from(disk), self.options())
    }

    /// The file that an upload must be equal to.
    pub fn expected(&self) -> PathBuf {
        let path = self.raw.with_extension("expected");
        let bytes = FileBytes::new(File::open(&self.raw).unwrap()).unwrap();
        let disk = format::open(Arc::new(bytes), Format::Raw, &Budget::default()).unwrap();
        let file = File::create(&path).unwrap();
        convert(disk.as_ref(), &mut Out::File(&file), &self.options(), &()).unwrap();
        path
    }

    pub fn expected_bytes(&self) -> Vec<u8> {
        std::fs::read(self.expected()).unwrap()
    }
}
