//! The qcow2 reader and writer against QEMU's.
#![allow(clippy::cast_possible_truncation, reason = "sizes of tests")]

mod oracle;

use std::path::Path;

use oracle::{disks, has_qemu_img, open, options, qemu_img, text, write};
use skein_image::convert::{Compression, Effort};
use skein_image::{Format, Options};

const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Zlib, Compression::Zstd];

/// `qemu-img` finds nothing wrong with the image, and the disk in it is that of `raw`; so does our reader.
fn assert_good(image: &Path, raw: &Path, what: &str) {
    qemu_img(&["check", "-q", "-f", "qcow2", text(image)]);
    qemu_img(&["compare", "-q", "-f", "raw", "-F", "qcow2", text(raw), text(image)]);
    oracle::assert_same(&*open(raw, Format::Raw).unwrap(), &*open(image, Format::Qcow2).unwrap(), what);
}

#[test]
fn what_is_written_is_right_for_qemu_and_for_the_reader() {
    if !has_qemu_img("qcow2 writer") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    for raw in disks(dir.path()) {
        for compression in COMPRESSIONS {
            for effort in [Effort::Fast, Effort::Archive] {
                let options = Options { effort, ..options(Format::Qcow2, compression) };
                let report = write(&raw, Format::Raw, &image, &options);
                let what = format!("{} {compression:?} {effort:?}", raw.display());
                assert_eq!(report.bytes, image.metadata().unwrap().len(), "{what}");
                assert_good(&image, &raw, &what);
            }
        }
    }
}
