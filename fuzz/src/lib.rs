//! What the fuzz targets do with their bytes: one function for each parser of what comes from outside. The first byte
//! says how the rest is to be treated (checksums mended, so that more than the first check is reached); the rest is
//! the file.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use skein_image::inspect::{self, inspect};
use skein_image::store::{ImageId, Manifest, Store};
use skein_image::{Budget, Disk, Format, Kind, Result, format, source, unwrap_to};

const MIB: u64 = 1 << 20;
/// Pieces of a disk that are looked at.
const STEPS_MAX: usize = 4_096;

/// Small, so that an input costs milliseconds, and large enough for every table of a small image.
fn budget() -> Budget {
    Budget { virtual_bytes_max: 1 << 40, metadata_bytes_max: 4 * MIB, ratio_max: 64, data_bytes_max: 16 * MIB }
}

fn memory_file() -> File {
    File::from(rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC).expect("a file in memory"))
}

/// Goes over a disk: what it says of itself must be so, whatever it was read from.
fn go_over(disk: &dyn Disk) -> Result<()> {
    let (mut at, mut left, mut buffer) = (0, 2 * MIB, vec![0xaa; 1 << 16]);
    for _ in 0..STEPS_MAX {
        if at >= disk.size() || left == 0 {
            break;
        }
        let extent = disk.extent_at(at)?;
        assert!(extent.len > 0 && extent.len <= disk.size() - at, "{extent:?} at {at} of {}", disk.size());
        let len = extent.len.min(1 << 16);
        let part = &mut buffer[..len as usize];
        disk.read_at(at, part)?;
        assert!(extent.kind == Kind::Data || part.iter().all(|byte| *byte == 0), "zeros at {at} that are none");
        if extent.kind == Kind::Data {
            left = left.saturating_sub(len);
            at += len;
        } else {
            at += extent.len;
        }
    }
    // Beyond the end is an error, never a panic.
    assert!(disk.read_at(disk.size(), &mut [0]).is_err());
    Ok(())
}

fn of(format: Format, bytes: Vec<u8>) {
    if let Ok(disk) = format::open(Arc::new(bytes), format, &budget()) {
        // An error is as good as a disk.
        go_over(disk.as_ref()).unwrap_or_default();
    }
}

fn split(bytes: &[u8]) -> (u8, Vec<u8>) {
    bytes.split_first().map_or((0, Vec::new()), |(how, rest)| (*how, rest.to_vec()))
}

/// Whatever it is.
pub fn detect(bytes: &[u8]) {
    let opened = source::open(Arc::new(bytes.to_vec()), None, &budget(), || Ok(memory_file()), &());
    if let Ok(opened) = opened {
        go_over(opened.disk.as_ref()).unwrap_or_default();
    }
}

pub fn qcow2(bytes: &[u8]) {
    of(Format::Qcow2, bytes.to_vec());
}

/// With a footer that says the same as the header, where the first byte asks for it.
pub fn vmdk(bytes: &[u8]) {
    let (how, mut bytes) = split(bytes);
    if how & 1 == 1 && bytes.len() >= 2048 {
        let end = bytes.len();
        bytes.copy_within(0..56, end - 1024);
        bytes.copy_within(64..512, end - 1024 + 64);
    }
    of(Format::Vmdk, bytes);
}

pub fn vdi(bytes: &[u8]) {
    of(Format::Vdi, bytes.to_vec());
}

fn mend_sum(bytes: &mut [u8], at: usize, len: usize, field: usize) {
    let Some(part) = at.checked_add(len).and_then(|end| bytes.get_mut(at..end)) else { return };
    part[field..field + 4].fill(0);
    let sum = !part.iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    part[field..field + 4].copy_from_slice(&sum.to_be_bytes());
}

pub fn vhd(bytes: &[u8]) {
    let (how, mut bytes) = split(bytes);
    if how & 1 == 1 && bytes.len() >= 512 {
        let end = bytes.len() - 512;
        mend_sum(&mut bytes, end, 512, 64);
        mend_sum(&mut bytes, 0, 512, 64);
        mend_sum(&mut bytes, 512, 1024, 36);
    }
    of(Format::Vhd, bytes);
}

fn seal(bytes: &mut [u8], at: usize, len: usize) {
    let Some(part) = bytes.get_mut(at..at + len) else { return };
    part[4..8].fill(0);
    let sum = crc32c::crc32c(part);
    part[4..8].copy_from_slice(&sum.to_le_bytes());
}

/// A VHDX is a MiB of headers with little in it: the input holds the parts that are not zero, and is spread out.
pub fn vhdx(bytes: &[u8]) {
    let (how, bytes) = split(bytes);
    let mut file = vec![0; 4 << 20];
    let mut rest = bytes.as_slice();
    for (at, len) in VHDX_PARTS {
        let part = rest.split_off(..len.min(rest.len())).unwrap_or_default();
        file[at..at + part.len()].copy_from_slice(part);
    }
    if how & 1 == 1 {
        for (at, len) in
            [(64 << 10, 4096), (128 << 10, 4096), (192 << 10, 65_536), (256 << 10, 65_536), (1 << 20, 4096)]
        {
            seal(&mut file, at, len);
        }
    }
    if how & 2 == 2 {
        seal(&mut file, (1 << 20) + 4096, 8192);
    }
    of(Format::Vhdx, file);
}

/// Identifier, two headers, two region tables, log, metadata table and items, block table.
pub const VHDX_PARTS: [(usize, usize); 9] = [
    (0, 16),
    (64 << 10, 96),
    (128 << 10, 96),
    (192 << 10, 96),
    (256 << 10, 96),
    (2 << 20, 256),
    ((2 << 20) + 65_536, 64),
    (3 << 20, 64),
    (1 << 20, 12_288),
];

/// An archive; each header's sum is mended where the first byte asks for it.
pub fn ova(bytes: &[u8]) {
    let (how, mut bytes) = split(bytes);
    if how & 1 == 1 {
        mend_tar(&mut bytes);
    }
    of(Format::Ova, bytes);
}

fn mend_tar(bytes: &mut [u8]) {
    for header in bytes.chunks_exact_mut(512).filter(|header| header[257..262] == *b"ustar") {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}

/// Google's tar: the input is what is packed, or, where the first byte asks for it, the packed bytes themselves.
pub fn gce(bytes: &[u8]) {
    use std::io::Write as _;
    let (how, mut bytes) = split(bytes);
    if how & 1 == 1 {
        mend_tar(&mut bytes);
    }
    if how & 2 == 0 {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&bytes).expect("memory takes it");
        bytes = gzip.finish().expect("memory takes it");
    }
    let file = memory_file();
    if format::unpack_gce(&bytes, &file, &budget(), &()).is_ok() {
        let made = file.metadata().expect("its length").len();
        assert!(made <= budget().virtual_bytes_max, "{made} bytes");
    }
}

pub fn wrapper(bytes: &[u8]) {
    let file = memory_file();
    let (budget, bytes) = (budget(), bytes.to_vec());
    // A disk of zeros is quickly as large as allowed: a little is enough.
    let budget = Budget { virtual_bytes_max: 8 * MIB, ..budget };
    if let Ok(len) = unwrap_to(&bytes, &file, &budget, &()) {
        assert_eq!(len, file.metadata().expect("its length").len());
    }
}

fn member(tar: &mut Vec<u8>, name: &str, content: &[u8]) {
    let mut header = vec![0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    mend_tar(&mut header);
    tar.extend(header);
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

/// The description of an appliance, beside a disk that is none.
pub fn ovf(bytes: &[u8]) {
    let mut tar = Vec::new();
    member(&mut tar, "a.ovf", bytes);
    member(&mut tar, "d.vmdk", b"KDMV");
    tar.resize(tar.len() + 1024, 0);
    of(Format::Ova, tar);
}

/// A VMDK's descriptor, with two extents that the caller passes.
pub fn descriptor(bytes: &[u8]) {
    let extents = || vec![Arc::new(vec![1u8; 4096]) as Arc<dyn skein_image::Bytes>, Arc::new(vec![2u8; 8192])];
    for count in 0..=2 {
        let files = extents().into_iter().take(count).collect();
        if let Ok(disk) = format::open_flat_vmdk(bytes, files, &budget()) {
            go_over(disk.as_ref()).unwrap_or_default();
        }
    }
    of(Format::Vmdk, bytes.to_vec());
}

/// What is on a disk: partition tables, file systems, systems in them.
pub fn disk(bytes: &[u8]) {
    if let Ok(disk) = format::open(Arc::new(bytes.to_vec()), Format::Raw, &budget()) {
        let disk: Arc<dyn Disk> = disk.into();
        if let Ok(facts) = inspect(&disk) {
            for name in skein_image::Profile::names() {
                let profile = skein_image::Profile::builtin(name).expect("it comes with the library");
                skein_image::fits::fits(&facts, disk.size(), &profile);
            }
        }
    }
}

pub fn initrd(bytes: &[u8]) {
    inspect::initrd_modules(bytes);
}

/// The list of chunks of a stored image: the first 8 bytes are the disk's size.
pub fn recipe(bytes: &[u8]) {
    static STORE: OnceLock<(tempfile::TempDir, Store)> = OnceLock::new();
    let (folder, store) = STORE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(folder.path()).expect("an empty store");
        (folder, store)
    });
    let Some((size, list)) = bytes.split_first_chunk::<8>() else { return };
    let id = ImageId::new(&"0".repeat(64)).expect("an id");
    let manifest = serde_json::json!({
        "id": id.as_str(), "data_bytes": 0, "origin": {"name": "", "source": ""}, "native": "raw", "written_by": "",
        "disk": {
            "bytes": u64::from_le_bytes(*size) % (1 << 41), "chunks": 0, "list": blake3::hash(list).to_hex().as_str(),
        },
    });
    let put = |name: &str, bytes: &[u8]| std::fs::write(Path::join(&folder.path().join("images"), name), bytes);
    put(&format!("{id}.chunks"), list).expect("a file");
    put(&format!("{id}.json"), &serde_json::to_vec(&manifest).expect("JSON")).expect("a file");
    match store.disk(&id) {
        Ok(disk) => go_over(&disk).unwrap_or_default(),
        Err(error) => assert!(!error.to_string().contains("missing field"), "{error}"),
    }
}

/// What is known of a stored image, and a packed chunk that somebody sends.
pub fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::read(bytes, "somewhere") {
        assert_eq!(manifest.virtual_bytes(), manifest.disk.bytes);
    }
    if let Ok(id) = skein_image::store::check_chunk(bytes) {
        assert_eq!(id.to_string().len(), 64);
    }
}
