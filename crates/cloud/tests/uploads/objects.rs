//! An image store in an object store, in front of third parties' emulators.

use std::collections::BTreeMap;
use std::sync::Arc;

use skein_cloud::Objects;
use skein_image::store::{New, Origin, Shelf, Store};
use skein_image::{Budget, Bytes, Disk, Format, format};
use tokio::runtime::Handle;

use super::azure::{ACCOUNT, Account, KEY};
use super::support::aws::{Aws, REGION};
use super::support::emulator::moto;

fn disk(seed: u8) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[7]
    };
    let mut bytes: Vec<u8> = (0..3 << 20).map(|_| next()).collect();
    bytes[1 << 20..2 << 20].fill(0);
    bytes
}

/// Takes images in, gives one back, forgets the other, collects, and finds what was spoilt.
fn serves(shelf: &Arc<dyn Shelf>) {
    let store = Store::on(Arc::clone(shelf), None);
    let take = |bytes: Vec<u8>| {
        let disk = format::open(Arc::new(bytes), Format::Raw, &Budget::default()).unwrap();
        let new = New { disk: disk.as_ref(), format: Format::Raw, keep: None, origin: Origin::default() };
        store.import(new, 2, &()).unwrap()
    };
    let (first, second) = (take(disk(1)), take(disk(2)));
    let again = take(disk(1));
    assert!(again.known && again.new_bytes == 0 && first.new_bytes > 1 << 20);
    assert_eq!(store.list_all().unwrap().len(), 2);
    let back = store.disk(&first.manifest.id).unwrap();
    let mut bytes = vec![0; usize::try_from(Disk::size(&back)).unwrap()];
    Bytes::read_at(&back, 0, &mut bytes).unwrap();
    assert!(bytes == disk(1));
    assert!(store.collect(&|_| false).unwrap_err().to_string().contains("under way"), "not while it is read");
    drop(back);
    store.remove(&second.manifest.id).unwrap();
    let (chunks, bytes) = (shelf.list("chunks/").unwrap().len(), store.stored_bytes().unwrap());
    let done = store.collect(&|_| false).unwrap();
    assert!(done.kept > 10 && done.chunks > 10 && done.bytes > 1 << 20, "{done:?} of {chunks}, {bytes} bytes");
    assert!(store.scrub(&()).unwrap().bad.is_empty());
    let some = shelf.list("chunks/").unwrap().remove(3).name;
    shelf.put(&some, b"spoilt").unwrap();
    assert_eq!(store.scrub(&()).unwrap().bad.len(), 1);
    assert!(shelf.get("images/none").unwrap().is_none());
    shelf.remove("images/none").unwrap();
}

fn open(settings: &[(&str, &str)]) -> Arc<dyn Shelf> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let settings: BTreeMap<String, String> =
        settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Arc::new(Objects::open(&settings, Handle::current()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_kept_in_a_bucket_of_s3() {
    let Some(moto) = moto().await else { return };
    let url = format!("http://{}", moto.address);
    let aws = Aws::new(&url).await;
    assert_eq!(aws.call("s3", "PUT", "/images", &[], Vec::new()).await.status, 200);
    // Moto computes the signature over the slashes of a list's prefix as they came; S3, and the library, over their
    // escapes. Signatures are the library's own affair here.
    aws.unchecked_calls(1_000_000).await;
    let key = aws.key.clone();
    let shelf = open(&[
        ("service", "s3"),
        ("bucket", "images"),
        ("root", "/skein"),
        ("endpoint", &url),
        ("region", REGION),
        ("access_key_id", &key.access_key),
        ("secret_access_key", key.secret_key.expose()),
    ]);
    assert_eq!(shelf.place(), "s3://images/skein/");
    tokio::task::spawn_blocking(move || serves(&shelf)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_kept_in_a_container_of_azure() {
    let Some(account) = Account::new().await else { return };
    let url = format!("http://{}/{ACCOUNT}", account.azurite.address);
    let shelf = open(&[
        ("service", "azblob"),
        ("container", "images"),
        ("root", "/skein"),
        ("endpoint", &url),
        ("account_name", ACCOUNT),
        ("account_key", KEY),
    ]);
    tokio::task::spawn_blocking(move || serves(&shelf)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_not_built_in_is_named() {
    let settings = BTreeMap::from([("service".to_owned(), "ftp".to_owned())]);
    let refused = Objects::open(&settings, Handle::current()).err().unwrap().to_string();
    assert!(refused.contains("'ftp'") && refused.contains("azblob"), "{refused}");
}
