//! Resumable uploads as gcp-storage-emulator takes them. It lets everybody in: the proxy asks for the token.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use skein_cloud::transport::{Destination, GoogleLogin, Limits, Memory, Settings, Uploaded};
use skein_cloud::{Endpoint, Secret};
use skein_image::Format;

use super::suite::{Kills, Place, conforms, limits, survives_kills, upload};
use super::support::emulator::{Emulator, gcs};
use super::support::image::{Image, MIB};
use super::support::proxy::{self, Fault, Proxy};
use super::support::{retry, skipped};

const REFUSAL: &str = r#"{"error":{"code":401,"message":"Invalid Credentials","errors":[{"reason":"authError","message":"Invalid Credentials"}]}}"#;

struct Bucket {
    proxy: Proxy,
    gcs: Emulator,
}

impl Bucket {
    async fn new() -> Option<Self> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let gcs = gcs().await?;
        let proxy = Proxy::start(gcs.address).await;
        // The emulator has no end of a session.
        proxy.next(|request| request.is("DELETE", "upload_id="), Fault::Ended);
        proxy.gate(("authorization", "Bearer good", REFUSAL));
        Some(Self { proxy, gcs })
    }
    fn with(&self, login: GoogleLogin, limits: Limits) -> Settings {
        let endpoint = Endpoint::new(self.proxy.url());
        Settings::Gcs { endpoint, bucket: "images".to_owned(), login, limits, retry: retry() }
    }
    /// Not through the proxy.
    async fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let response = reqwest::Client::builder().no_proxy().build().unwrap();
        let response = response.get(format!("http://{}{path}", self.gcs.address)).send().await.unwrap();
        (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
    }
}

impl Place for Bucket {
    const NAME: &'static str = "gcs";
    const FORMAT: Format = Format::GceTar;
    const REPLACES: bool = true;
    const FAULTS_PER_MILLE: u64 = 300;
    const FORGETS_UNFINISHED: bool = true;

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }
    fn settings(&self, limits: Limits) -> Settings {
        self.with(GoogleLogin::Token(Secret::new("good")), limits)
    }
    async fn wrong_settings(&self) -> Option<Settings> {
        Some(self.with(GoogleLogin::Token(Secret::new("sssh")), limits()))
    }
    async fn content(&self, name: &str, uploaded: &Uploaded, _: usize) -> Vec<u8> {
        assert_eq!(uploaded.reference, format!("gs://images/{name}"));
        self.get(&format!("/storage/v1/b/images/o/{name}?alt=media")).await.1
    }
    async fn unfinished(&self, _: &str) -> usize {
        unreachable!("sessions cannot be listed")
    }
    /// Nor does its session end by itself.
    async fn expire(&self, _: &str, memory: Option<Memory>) {
        assert!(memory.unwrap().handle.unwrap().expose().contains("upload_id="));
        self.proxy.next(|request| request.is("PUT", "upload_id="), Fault::Gone);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gcs_conforms() {
    let Some(bucket) = Bucket::new().await else { return };
    conforms(&bucket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_to_gcs_survives_kills() {
    let Some(bucket) = Bucket::new().await else { return };
    let kills = Kills { data: 64 * MIB, size: 100 * MIB, limits: limits(), lost_bytes: 256 << 10 };
    survives_kills(&bucket, kills).await;
}

/// A service account's key signs a claim; the token that comes for it is used until the service refuses it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_refused_is_renewed() {
    let Some(bucket) = Bucket::new().await else { return };
    let made =
        Command::new("openssl").args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]).output();
    let Some(pem) = made.ok().filter(|made| made.status.success()).map(|made| made.stdout) else {
        skipped("openssl is not installed: no service account's key could be made");
        return;
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let given = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&given);
    let serving = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let request = proxy::read(&mut client, |_| {}).await.unwrap().unwrap();
            let claim = String::from_utf8(request.body).unwrap();
            assert!(claim.contains("assertion=ey") && claim.matches('.').count() == 2, "{claim}");
            let token = if count.fetch_add(1, Ordering::SeqCst) == 0 { "old" } else { "good" };
            let body = format!(r#"{{"access_token":"{token}","expires_in":3600}}"#);
            proxy::say(&mut client, "200 OK", "", &body).await.unwrap();
        }
    });
    let key = serde_json::json!({
        "client_email": "a@b", "private_key_id": "1", "private_key": String::from_utf8(pem).unwrap(),
        "token_uri": "https://oauth2.googleapis.com/token",
    });
    let login = GoogleLogin::ServiceAccount {
        key_json: Secret::new(key.to_string()),
        token_endpoint: Some(Endpoint::new(format!("http://{address}"))),
    };
    let dir = tempfile::tempdir().unwrap();
    let image = Image::new(dir.path(), 8, 4 * MIB, MIB, 1, Format::GceTar);
    let to = Destination::new("renewed");
    let uploaded = upload(&bucket.with(login, limits()), &image, &to, &mut None).await.unwrap();
    assert_eq!(bucket.content("renewed", &uploaded, 0).await, image.expected_bytes());
    assert_eq!(given.load(Ordering::SeqCst), 2);
    serving.abort();
}

/// Bytes that changed on the way are seen at the end: the object does not stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_object_does_not_stay() {
    let Some(bucket) = Bucket::new().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let image = Image::new(dir.path(), 9, 4 * MIB, 2 * MIB, 1, Format::GceTar);
    bucket
        .proxy
        .plan(proxy::Plan::all(1, 1000).only(&[Fault::Flips]).sparing(|request| !request.is("PUT", "upload_id=")));
    let error = upload(&bucket.settings(limits()), &image, &Destination::new("damaged"), &mut None).await.unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    assert_eq!(bucket.get("/storage/v1/b/images/o/damaged").await.0, 404);
}
