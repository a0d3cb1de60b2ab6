//! The store: what goes in comes out, once; what is damaged is named; nothing reachable is collected.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use skein_image::store::{ImageId, Imported, New, Origin, Store};
use skein_image::{Budget, Bytes as _, Disk, Format, Kind, Options, Out, format};

/// A disk with data at these places: (offset, bytes, seed).
fn disk(size: usize, data: &[(usize, usize, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for (offset, len, seed) in data {
        let mut state = *seed;
        for byte in &mut bytes[*offset..offset + len] {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = u8::try_from(state >> 56).unwrap() | 1;
        }
    }
    bytes
}

fn take(store: &Store, bytes: &[u8]) -> Imported {
    take_as(store, bytes, Origin::default(), false)
}

fn take_as(store: &Store, bytes: &[u8], origin: Origin, keep: bool) -> Imported {
    let file: Arc<dyn skein_image::Bytes> = Arc::new(bytes.to_vec());
    let disk = format::open(Arc::clone(&file), Format::Raw, &Budget::default()).unwrap();
    let new = New { disk: disk.as_ref(), format: Format::Raw, keep: keep.then_some(file), origin };
    store.import(new, 2, &()).unwrap()
}

fn all(disk: &dyn Disk) -> Vec<u8> {
    let mut bytes = vec![1; usize::try_from(disk.size()).unwrap()];
    // Odd pieces: reads cross chunks and holes at every place.
    let mut at = 0;
    while at < bytes.len() {
        let to = (at + 100_003).min(bytes.len());
        disk.read_at(at as u64, &mut bytes[at..to]).unwrap();
        at = to;
    }
    bytes
}

fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let (dirs, mut all): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    all.extend(dirs.iter().flat_map(|dir| files(dir)));
    all.sort();
    all
}

#[test]
fn what_goes_in_comes_out_and_zeros_are_known_without_reading() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for size in [0, 1, 511, 65_535, 65_537, 1 << 20, (9 << 20) + 513] {
        let bytes = disk(size, &[(0, size.min(70_000), 1), (size / 2, size / 9, 2)]);
        let kept = store.disk(&take(&store, &bytes).manifest.id).unwrap();
        assert!(all(&kept) == bytes, "{size}");
        let (mut at, mut zero) = (0, 0);
        while at < Disk::size(&kept) {
            let extent = kept.extent_at(at).unwrap();
            let mut part = vec![1; usize::try_from(extent.len).unwrap()];
            Disk::read_at(&kept, at, &mut part).unwrap();
            if extent.kind == Kind::Zero {
                assert!(part.iter().all(|b| *b == 0));
                zero += extent.len;
            }
            at += extent.len;
        }
        assert!(size < 9 << 20 || zero > 3 << 20, "holes are kept as such: {zero}");
    }
    assert_eq!(store.list_all().unwrap().len(), 7);
}

#[test]
fn the_same_disk_is_one_image_and_what_moved_within_it_is_kept_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let data = disk(8 << 20, &[(0, 6 << 20, 7)]);
    let first = take(&store, &data);
    assert!(!first.known && first.new_bytes > 5 << 20);
    let again = take(&store, &data);
    assert!(again.known && again.new_bytes == 0 && again.manifest == first.manifest);
    // The same content, moved by 3 sectors, with some before it.
    let mut moved = disk(9 << 20, &[(0, 1536, 8)]);
    moved[1536..1536 + (6 << 20)].copy_from_slice(&data[..6 << 20]);
    let moved = take(&store, &moved);
    assert!(moved.manifest.id != first.manifest.id && moved.new_bytes < 1 << 20, "{}", moved.new_bytes);
}

#[test]
fn the_stored_form_is_read_as_it_is_where_a_cloud_takes_it_unconverted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let bytes = disk(3 << 20, &[(4096, 1 << 20, 3)]);
    let kept = store.disk(&take(&store, &bytes).manifest.id).unwrap();
    let mut uploaded = vec![0; usize::try_from(kept.len()).unwrap()];
    skein_image::Bytes::read_at(&kept, 0, &mut uploaded).unwrap();
    assert!(uploaded == bytes);
    let mut out = Vec::new();
    skein_image::convert(&kept, &mut Out::stream(&mut out), &Options::new(Format::Raw), &()).unwrap();
    assert!(out == bytes);
}

#[test]
fn a_collection_takes_what_no_image_has_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (one, two) = (disk(2 << 20, &[(0, 1 << 20, 1)]), disk(2 << 20, &[(0, 1 << 20, 2)]));
    let (first, second) = (take(&store, &one).manifest.id, take(&store, &two).manifest.id);
    // What a killed import leaves.
    let part = files(&dir.path().join("chunks"))[0].with_file_name(".tmpXYZ");
    std::fs::write(&part, "x").unwrap();
    store.remove(&first).unwrap();
    let open = store.disk(&second).unwrap();
    assert!(store.collect(&|_| false).unwrap_err().to_string().contains("under way"), "not while an image is read");
    drop(open);
    let done = store.collect(&|_| false).unwrap();
    assert!(done.chunks > 4 && done.kept > 4 && !part.exists(), "{done:?}");
    assert!(all(&store.disk(&second).unwrap()) == two);
    assert!(store.manifest(&first).is_err() && store.collect(&|_| false).unwrap().chunks == 0);
}

#[test]
fn a_flipped_bit_in_a_chunk_or_a_list_is_found_and_the_same_image_again_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let bytes = disk(1 << 20, &[(0, 1 << 20, 5)]);
    let id = take(&store, &bytes).manifest.id;
    assert!(store.scrub(&()).unwrap().bad.is_empty());
    let chunk = files(&dir.path().join("chunks")).pop().unwrap();
    let whole = std::fs::read(&chunk).unwrap();
    for bit in [0, whole.len() * 4, whole.len() * 8 - 1] {
        let mut spoilt = whole.clone();
        spoilt[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&chunk, &spoilt).unwrap();
        let found = store.scrub(&()).unwrap();
        assert_eq!((found.bad.len(), &found.bad[0].1[..]), (1, &[id.clone()][..]), "bit {bit}");
    }
    take(&store, &bytes);
    assert!(store.scrub(&()).unwrap().bad.is_empty());
    let list = dir.path().join("images").join(format!("{id}.chunks"));
    let mut spoilt = std::fs::read(&list).unwrap();
    spoilt[3] ^= 1;
    std::fs::write(&list, spoilt).unwrap();
    assert!(store.disk(&id).err().unwrap().to_string().contains("not the list"));
    take(&store, &bytes);
    assert!(all(&store.disk(&id).unwrap()) == bytes, "taking it in again mends the list");
}

#[test]
fn a_manifest_is_signed_and_one_that_was_changed_is_refused_until_the_image_is_taken_in_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let bytes = disk(1 << 20, &[(0, 1 << 18, 5)]);
    let origin = Origin { name: "good".into(), ..Origin::default() };
    let manifest = take_as(&store, &bytes, origin, false).manifest;
    assert_eq!(manifest.signature.as_ref().unwrap().key, store.key().unwrap());
    assert_eq!(store.key(), Store::open(dir.path()).unwrap().key(), "the key is kept");
    let path = dir.path().join("images").join(format!("{}.json", manifest.id));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("good", "evil")).unwrap();
    let refused = store.manifest(&manifest.id).unwrap_err().to_string();
    assert!(refused.contains("signature does not hold"), "{refused}");
    take(&store, &bytes);
    assert_eq!(store.manifest(&manifest.id).unwrap().origin.name, "");
}

#[test]
fn the_file_that_an_image_came_in_is_kept_if_asked_and_comes_back_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let bytes = disk(4 << 20, &[(0, 1 << 20, 5), (3 << 20, 4096, 6)]);
    let mut qcow2 = tempfile::tempfile().unwrap();
    let raw = format::open(Arc::new(bytes.clone()), Format::Raw, &Budget::default()).unwrap();
    skein_image::convert(raw.as_ref(), &mut Out::File(&qcow2), &Options::new(Format::Qcow2), &()).unwrap();
    let mut file = Vec::new();
    std::io::Read::read_to_end(&mut qcow2, &mut file).unwrap();
    let without = take(&store, &bytes).manifest;
    assert!(store.native(&without.id).err().unwrap().to_string().contains("not kept"));
    let kept: Arc<dyn skein_image::Bytes> = Arc::new(file.clone());
    let opened = format::open(Arc::clone(&kept), Format::Qcow2, &Budget::default()).unwrap();
    let new = New { disk: opened.as_ref(), format: Format::Qcow2, keep: Some(kept), origin: Origin::default() };
    let imported = store.import(new, 2, &()).unwrap();
    assert!(imported.known && imported.manifest.id == without.id, "the same disk");
    assert!(imported.new_bytes < 1 << 19, "its clusters are the disk's own: {}", imported.new_bytes);
    assert!(all(&store.native(&without.id).unwrap()) == file);
    assert!(store.collect(&|_| false).unwrap().chunks == 0 && all(&store.native(&without.id).unwrap()) == file);
}

#[test]
fn what_another_sends_is_looked_at_again_before_it_is_an_image() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (source, target) = (Store::open(from.path()).unwrap(), Store::open(to.path()).unwrap());
    let bytes = disk(2 << 20, &[(0, 1 << 20, 5)]);
    let manifest = take(&source, &bytes).manifest;
    let objects = |kind: &str| files(&from.path().join(kind));
    let send = |path: &std::path::Path| {
        let to = to.path().join(path.strip_prefix(from.path()).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(path, to).unwrap();
    };
    let send_all = |paths: &mut dyn Iterator<Item = &std::path::PathBuf>| paths.for_each(|p| send(p));
    send_all(&mut objects("images").iter().filter(|p| p.extension().is_some_and(|end| end == "chunks")));
    send_all(&mut objects("chunks").iter().skip(1));
    assert!(target.adopt(manifest.clone(), 1, &()).is_err(), "a chunk is missing");
    send_all(&mut objects("chunks").iter());
    let other = ImageId::new(&"0".repeat(64)).unwrap();
    let list = |id: &ImageId| to.path().join("images").join(format!("{id}.chunks"));
    std::fs::copy(list(&manifest.id), list(&other)).unwrap();
    let lie = skein_image::store::Manifest { id: other, ..manifest.clone() };
    assert!(target.adopt(lie, 1, &()).unwrap_err().to_string().contains("was sent as"), "another disk's name");
    let adopted = target.adopt(manifest.clone(), 1, &()).unwrap();
    assert!(adopted.id == manifest.id && adopted.signature.unwrap().key == target.key().unwrap());
    assert!(all(&target.disk(&manifest.id).unwrap()) == bytes);
    let promised = target.collect(&|name| name.contains("0000")).unwrap();
    assert_eq!(promised.chunks, 0, "what was promised stays");
    assert_eq!(target.collect(&|_| false).unwrap().chunks, 1, "a list of an image that never came to be goes");
}

#[test]
fn an_image_is_found_by_the_beginning_of_its_id_and_ids_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let id = take(&store, &disk(1 << 16, &[(0, 1 << 16, 5)])).manifest.id;
    assert_eq!(store.find(&id.as_str()[..8]).unwrap().id, id);
    assert!(store.find("zz").is_err() && store.find("").is_err());
    for bad in ["", "../../etc/passwd", &"g".repeat(64)] {
        assert!(ImageId::new(bad).is_err(), "{bad}");
    }
}
