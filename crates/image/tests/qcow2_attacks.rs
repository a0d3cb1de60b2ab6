//! Images made to harm: each is refused in words, quickly, and without a panic.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "sizes of tests")]

mod support;

use std::sync::Arc;

use skein_image::convert::Compression;
use skein_image::{Budget, Error, Format, format};
use support::{MIB, have, mutants, options_with, qemu_img, raw, read_all, scattered, text, usage, write};

const CLUSTER: usize = 1 << 16;
const L1: usize = CLUSTER;
const L2: usize = 2 * CLUSTER;
const REFCOUNTS: usize = 3 * CLUSTER;
const COUNTS: usize = 4 * CLUSTER;
const DATA: usize = 5 * CLUSTER;
const COMPRESSED: u64 = 1 << 62;

/// An image made by hand; `new` gives a good one: a disk of 8 clusters, of which the first is data.
struct Image(Vec<u8>);

impl Image {
    fn new() -> Self {
        let mut image = Self(vec![0; 8 * CLUSTER]);
        image.be32(0, 0x5146_49fb).be32(4, 3).be32(20, 16).be64(24, 8 * CLUSTER as u64);
        image.be32(36, 1).be64(40, L1 as u64).be64(48, REFCOUNTS as u64).be32(56, 1);
        image.be32(96, 4).be32(100, 112);
        image.be64(L1, L2 as u64 | 1 << 63).be64(L2, DATA as u64 | 1 << 63).be64(REFCOUNTS, COUNTS as u64);
        image.0[DATA..DATA + CLUSTER].fill(0x5a);
        image
    }
    fn be32(&mut self, at: usize, number: u32) -> &mut Self {
        self.0[at..at + 4].copy_from_slice(&number.to_be_bytes());
        self
    }
    fn be64(&mut self, at: usize, number: u64) -> &mut Self {
        self.0[at..at + 8].copy_from_slice(&number.to_be_bytes());
        self
    }
    /// One compressed cluster that is 64 KiB of the same letter; `entry` is its L2 entry.
    fn packed(&mut self) -> u64 {
        let mut packed = vec![0; CLUSTER];
        let level = libdeflater::CompressionLvl::new(9).unwrap();
        let len = libdeflater::Compressor::new(level).deflate_compress(&vec![b'!'; CLUSTER], &mut packed).unwrap();
        assert!(len <= 512);
        self.0[DATA..DATA + 512].copy_from_slice(&packed[..512]);
        COMPRESSED | DATA as u64
    }
    /// Opens it and goes over the disk.
    fn go_over(self) -> skein_image::Result<u64> {
        self.go_over_within(&Budget::default())
    }
    fn go_over_within(self, budget: &Budget) -> skein_image::Result<u64> {
        let began = usage::thread_cpu();
        let result = format::open(Arc::new(self.0), Format::Qcow2, budget).and_then(|disk| read_all(&*disk, 64 * MIB));
        let took = usage::thread_cpu().saturating_sub(began);
        assert!(took.as_millis() < 1_000, "it took {took:?} of CPU");
        result
    }
}

/// The patched image is refused with an error that has this word.
fn refused(word: &str, patch: impl FnOnce(&mut Image)) {
    let mut image = Image::new();
    patch(&mut image);
    match image.go_over() {
        Ok(read) => panic!("'{word}' was expected, but {read} bytes were read"),
        Err(error) => assert!(error.to_string().contains(word), "'{word}' was expected: {error}"),
    }
}

#[test]
fn the_image_that_attacks_are_made_of_is_good() {
    assert_eq!(Image::new().go_over().unwrap(), CLUSTER as u64);
    let mut image = Image::new();
    let entry = image.packed();
    image.be64(L2, entry);
    assert_eq!(image.go_over().unwrap(), CLUSTER as u64);
    if have("qemu-img") {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, Image::new().0).unwrap();
        qemu_img(&["convert", "-f", "qcow2", "-O", "raw", text(&path), text(&dir.path().join("raw"))]);
    }
}

#[test]
fn nothing_that_an_image_names_is_opened() {
    let name = b"/etc/passwd";
    refused("is a layer over another file (\"/etc/passwd\")", |image| {
        image.be64(8, 512).be32(16, name.len() as u32).0[512..512 + name.len()].copy_from_slice(name);
    });
    refused("is a layer over another file", |image| {
        image.be64(8, u64::MAX).be32(16, u32::MAX);
    });
    refused("external data file", |image| {
        image.be64(72, 1 << 2);
    });
    refused("names another file for its data", |image| {
        image.be32(112, 0x4441_5441).be32(116, name.len() as u32).0[120..120 + name.len()].copy_from_slice(name);
    });
    for method in [1, 2, 3] {
        refused("encrypted", |image| {
            image.be32(32, method);
        });
    }
}

#[test]
fn a_header_that_is_none_is_refused() {
    for bits in [0, 8, 22, 63, 64, 1 << 31] {
        refused("clusters of 2^", |image| {
            image.be32(20, bits);
        });
    }
    for len in [0, 103, 113, 1 << 20, u32::MAX] {
        refused("a header of", |image| {
            image.be32(100, len);
        });
    }
    for (word, at, number) in [
        ("no qcow2 header", 0, 0),
        ("qcow version 1", 4, 1),
        ("qcow version 4", 4, 4),
        ("refcounts of 2^7", 96, 7),
        ("snapshots", 60, u32::MAX),
        ("snapshot table", 60, 65_536),
        ("L1 table has 17179869176 bytes", 36, (1 << 31) - 1),
        ("L1 table has 0 entries", 36, 0),
        ("no refcount table", 56, 0),
        ("refcount table", 56, u32::MAX),
        ("ends beyond its cluster", 112, 0x6803_f857),
    ] {
        refused(word, |image| {
            image.be32(116, if at == 112 { u32::MAX } else { 0 }).be32(at, number);
        });
    }
    for (word, at, number) in [
        ("marked as damaged", 72, 1 << 1),
        ("incompatible bit 5", 72, 1 << 5),
        ("incompatible bit 63", 72, 1 << 63),
        ("contradict each other", 72, 1 << 3),
        ("contradict each other", 104, 1 << 56),
        ("compression type 2", 104, 2 << 56),
        ("virtual_bytes_max", 24, u64::MAX),
        ("the size needs", 24, 1 << 40),
        ("L1 table stands at", 40, 0),
        ("L1 table stands at", 40, 513),
        ("ends beyond", 40, 1 << 40),
        ("L1 table stands at", 40, u64::MAX << 16),
        ("refcount table stands at", 48, 1),
        ("ends beyond", 48, 1 << 40),
        ("in use", 40, REFCOUNTS as u64),
        ("snapshot table stands at", 64, 77),
        ("snapshot table stands at", 64, u64::MAX << 16),
        ("how its data file is kept", 88, 1 << 1),
        // An end of the extensions that has a length.
        ("ends beyond its cluster", 112, 0xffff),
    ] {
        refused(word, |image| {
            image.be64(at, number);
        });
    }
}

#[test]
fn a_dirty_image_is_read() {
    let mut image = Image::new();
    image.be64(72, 1);
    assert_eq!(image.go_over().unwrap(), CLUSTER as u64);
}

#[test]
fn entries_point_only_at_places_of_their_own() {
    for table in [L1, L2, REFCOUNTS, COUNTS] {
        refused("in use for something else", |image| {
            image.be64(L2 + 8, table as u64);
        });
        refused("in use for something else", |image| {
            image.be64(L2 + 8, COMPRESSED | table as u64 | 512);
        });
        refused("in use for something else", |image| {
            // Only reserved, but reserved all the same.
            image.be64(L2 + 8, table as u64 | 1);
        });
    }
    refused("in use for something else", |image| {
        image.be64(L2 + 8, DATA as u64);
    });
    refused("in use for something else", |image| {
        image.be64(L2 + 8, COMPRESSED | DATA as u64);
    });
    refused("in use for something else", |image| {
        image.be64(REFCOUNTS + 8, L2 as u64);
    });
    refused("no whole cluster", |image| {
        image.be64(L1, 9 << 16);
    });
    refused("no whole cluster", |image| {
        image.be64(L1, L2 as u64 + 512);
    });
    refused("L1 entry 0", |image| {
        image.be64(L1, L2 as u64 + 1);
    });
    for entry in [8 << 16, 1 << 55, COMPRESSED | 8 << 16, COMPRESSED | ((1 << 54) - 512)] {
        refused("beyond the file's end", |image| {
            image.be64(L2, entry);
        });
    }
    for entry in [DATA as u64 + 512, DATA as u64 + 2, 1 << 61, 1 << 56] {
        refused("the L2 entry", |image| {
            image.be64(L2, entry);
        });
    }
    refused("version 2", |image| {
        image.be32(4, 2).be64(L2, 1);
    });
    refused("there and zero as well", |image| {
        image.be64(72, 1 << 4).be64(L2 + 8, 1 << 32 | 1);
    });
    refused("no place", |image| {
        image.be64(72, 1 << 4).be64(L2, 0).be64(L2 + 8, 1);
    });
    refused("16 KiB", |image| {
        image.be64(72, 1 << 4).be32(20, 12);
    });
}

#[test]
fn a_snapshot_table_that_is_none_is_refused() {
    // Its L1 table is the disk's L2 table.
    refused("in use for something else", |image| {
        image.be32(60, 1).be64(64, 6 << 16).be64(6 << 16, L2 as u64).be32((6 << 16) + 8, 1);
    });
    refused("are asked for", |image| {
        image.be32(60, 2).be64(64, 6 << 16).be32((6 << 16) + 36, u32::MAX);
    });
    refused("the snapshot table points at", |image| {
        image.be32(60, 1).be64(64, 6 << 16).be32((6 << 16) + 36, u32::MAX);
    });
    refused("in use", |image| {
        image.be32(60, 1).be64(64, L2 as u64);
    });
}

#[test]
fn one_table_for_a_whole_disk_is_refused() {
    // 512 KiB that would be 4 TiB.
    refused("an L2 table points at", |image| {
        let entry = image.packed();
        image.be32(36, 8_192).be64(24, 4 << 40);
        for n in 0..CLUSTER / 8 {
            image.be64(L1 + n * 8, L2 as u64 | 1 << 63).be64(L2 + n * 8, entry);
        }
    });
}

#[test]
fn one_compressed_cluster_for_many_is_refused() {
    refused("twice", |image| {
        let entry = image.packed();
        image.be64(24, 512 * MIB);
        for n in 0..CLUSTER / 8 {
            image.be64(L2 + n * 8, entry);
        }
    });
}

#[test]
fn compressed_clusters_over_each_other_are_held_to_the_budget() {
    // Tables whose entries all differ by a byte: only the sum says that it is too much.
    let tables = 3;
    let mut image = Image::new();
    image.0.resize((8 + tables) * CLUSTER, 0);
    image.be32(36, tables as u32).be64(24, tables as u64 * 512 * MIB);
    for table in 0..tables {
        let at = (8 + table) * CLUSTER;
        image.be64(L1 + table * 8, at as u64);
        for n in 0..CLUSTER / 8 {
            image.be64(at + n * 8, COMPRESSED | (DATA + n) as u64);
        }
    }
    let disk = format::open(Arc::new(image.0), Format::Qcow2, &Budget::default()).unwrap();
    assert!(disk.extent_at(0).is_ok() && disk.extent_at(512 * MIB).is_ok());
    let error = disk.extent_at(1024 * MIB).unwrap_err();
    assert!(matches!(error, Error::OverBudget { limit: "ratio_max", .. }), "{error}");
}

#[test]
fn a_compressed_cluster_that_is_none_is_refused() {
    refused("the compressed cluster at", |image| {
        image.be64(L2, COMPRESSED | DATA as u64);
    });
    // Less than a cluster.
    refused("has 3 bytes", |image| {
        image.0[DATA..DATA + 8].copy_from_slice(&[1, 3, 0, 0xfc, 0xff, 1, 2, 3]);
        image.be64(L2, COMPRESSED | DATA as u64);
    });
    // More than a cluster, in a frame that says so, and in one that does not.
    for pledged in [true, false] {
        refused("the compressed cluster at", |image| {
            let whole = vec![7; 4 * CLUSTER];
            let mut frame = if pledged {
                zstd::bulk::compress(&whole, 1).unwrap()
            } else {
                zstd::stream::encode_all(&whole[..], 1).unwrap()
            };
            frame.resize(512, 0);
            image.0[DATA..DATA + 512].copy_from_slice(&frame);
            image.be64(72, 1 << 3).be64(104, 1 << 56).be64(L2, COMPRESSED | DATA as u64);
        });
    }
}

#[test]
fn tables_are_held_to_the_budget() {
    let budget = Budget { metadata_bytes_max: CLUSTER as u64, ..Budget::default() };
    let error = Image::new().go_over_within(&budget).unwrap_err();
    assert!(matches!(error, Error::OverBudget { limit: "metadata_bytes_max", .. }), "{error}");
    let budget = Budget { virtual_bytes_max: 1000, ..Budget::default() };
    let error = Image::new().go_over_within(&budget).unwrap_err();
    assert!(matches!(error, Error::OverBudget { limit: "virtual_bytes_max", .. }), "{error}");
}

/// Small good images of every kind.
fn good_images() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let (disk, image) = (dir.path().join("raw"), dir.path().join("image"));
    raw(&disk, 2 * MIB, &scattered(2 * MIB, 5, 41));
    let mut images = vec![Image::new().0];
    for compression in [Compression::None, Compression::Zlib, Compression::Zstd] {
        write(&disk, Format::Raw, &image, &options_with(Format::Qcow2, compression));
        images.push(std::fs::read(&image).unwrap());
    }
    if have("qemu-img") {
        for args in [&["-c", "-o", "cluster_size=512"][..], &["-o", "extended_l2=on"], &["-o", "compat=0.10"]] {
            let mut all = vec!["convert", "-f", "raw", "-O", "qcow2"];
            all.extend(args);
            all.extend([text(&disk), text(&image)]);
            qemu_img(&all);
            qemu_img(&["snapshot", "-c", "one", text(&image)]);
            images.push(std::fs::read(&image).unwrap());
        }
    }
    images
}

#[test]
fn mutants_do_no_harm() {
    let images = || good_images().into_iter().map(|image| (image, vec![0..72, 72..120])).collect();
    mutants::try_all("mutants_do_no_harm", mutants::PEAK_BYTES_MAX, images, |image| {
        format::open(Arc::new(image), Format::Qcow2, &Budget::default())
            .and_then(|disk| read_all(&*disk, 8 * MIB))
            .map(|_| ())
    });
}
