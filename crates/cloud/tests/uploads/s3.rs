//! S3 as moto speaks it, with signatures checked.

use skein_cloud::transport::{Destination, Limits, Memory, Settings, Uploaded};
use skein_cloud::{Endpoint, Secret};
use skein_image::Format;

use super::suite::{Kills, Place, cancelled_after, conforms, limits, peak_mib, survives_kills, upload};
use super::support::aws::{Aws, REGION};
use super::support::emulator::{Emulator, moto};
use super::support::image::{Image, MIB};
use super::support::proxy::Proxy;
use super::support::retry;

struct Bucket {
    proxy: Proxy,
    aws: Aws,
    _emulator: Emulator,
}

impl Bucket {
    async fn new() -> Option<Self> {
        let moto = moto().await?;
        let aws = Aws::new(&format!("http://{}", moto.address)).await;
        let made = aws.call("s3", "PUT", "/images", &[], Vec::new()).await;
        assert_eq!(made.status, 200, "{}", made.text());
        Some(Self { proxy: Proxy::start(moto.address).await, aws, _emulator: moto })
    }
    async fn uploads(&self, name: &str) -> Vec<String> {
        let said = self.aws.call("s3", "GET", "/images", &[("uploads", "")], Vec::new()).await.text();
        let of_name = said.split("<Upload>").skip(1).filter(|upload| upload.contains(&format!("<Key>{name}</Key>")));
        of_name.map(|upload| upload.split("<UploadId>").nth(1).unwrap().split('<').next().unwrap().to_owned()).collect()
    }
}

impl Place for Bucket {
    const NAME: &'static str = "s3";
    const FORMAT: Format = Format::Vmdk;
    const REPLACES: bool = true;

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }
    fn settings(&self, limits: Limits) -> Settings {
        Settings::S3 {
            endpoint: Endpoint::new(self.proxy.url()),
            region: REGION.to_owned(),
            bucket: "images".to_owned(),
            key: self.aws.key.clone(),
            limits,
            retry: retry(),
        }
    }
    async fn wrong_settings(&self) -> Option<Settings> {
        let mut settings = self.settings(limits());
        if let Settings::S3 { key, .. } = &mut settings {
            key.secret_key = Secret::new("sssh");
        }
        Some(settings)
    }
    async fn content(&self, name: &str, uploaded: &Uploaded, _: usize) -> Vec<u8> {
        assert_eq!(uploaded.reference, format!("s3://images/{name}"));
        self.aws.call("s3", "GET", &format!("/images/{name}"), &[], Vec::new()).await.body
    }
    async fn unfinished(&self, name: &str) -> usize {
        self.uploads(name).await.len()
    }
    async fn expire(&self, name: &str, _: Option<Memory>) {
        for id in self.uploads(name).await {
            self.aws.call("s3", "DELETE", &format!("/images/{name}"), &[("uploadId", &id)], Vec::new()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_conforms() {
    let Some(bucket) = Bucket::new().await else { return };
    conforms(&bucket).await;
}

/// A crash between the service's answer and its being remembered: the upload that stands there is gone on with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_whose_id_was_lost_is_adopted() {
    let Some(bucket) = Bucket::new().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let image = Image::new(dir.path(), 4, 16 * MIB, 4 * MIB, 2, Format::Vmdk);
    let (settings, to, mut memory) = (bucket.settings(limits()), Destination::new("adopted"), None);
    cancelled_after(&settings, &image, &to, &mut memory, 3 * MIB).await;
    let mut lost = memory.map(|memory| Memory { handle: None, ..memory });
    // A crash before the service was asked leaves the same memory, and nothing to adopt.
    let mut nothing = lost.clone().map(|memory: Memory| Memory { to: "fresh".to_owned(), ..memory });
    let uploaded = upload(&settings, &image, &to, &mut lost).await.unwrap();
    assert!(uploaded.sent_bytes < 2 * MIB, "{uploaded:?}: its parts were there");
    assert_eq!((bucket.unfinished("adopted").await, lost), (0, None));
    let fresh = upload(&settings, &image, &Destination::new("fresh"), &mut nothing).await.unwrap();
    assert!(bucket.content("fresh", &fresh, 0).await == image.expected_bytes());
}

/// 64 MiB and 2 MiB for each of two threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_depend_on_the_image() {
    let Some(bucket) = Bucket::new().await else { return };
    let peak = peak_mib(&bucket, 160 * MIB).await;
    assert!((1..=68).contains(&peak), "{peak} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_to_s3_survives_kills() {
    let Some(bucket) = Bucket::new().await else { return };
    let limits = Limits { parts_at_once: 2, ..limits() };
    let kills = Kills { data: 48 * MIB, size: 70 * MIB, limits, lost_bytes: 2 * (64 << 10) };
    survives_kills(&bucket, kills).await;
}
