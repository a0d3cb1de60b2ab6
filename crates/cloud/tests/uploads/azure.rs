//! Page blobs as Azurite keeps them, with the account's key and with a shared access signature.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use skein_cloud::sign::{AzureKey, Signer as _, Unsigned};
use skein_cloud::transport::{AzureLogin, Destination, Limits, Memory, Settings, Uploaded};
use skein_cloud::{Endpoint, Secret};
use skein_image::Format;

use super::suite::{Kills, Place, cancelled_after, conforms, limits, survives_kills, upload};
use super::support::emulator::{Emulator, azurite};
use super::support::image::{Image, MIB};
use super::support::proxy::Proxy;
use super::support::retry;

/// The account that every Azurite has; its key is published.
pub(super) const ACCOUNT: &str = "devstoreaccount1";
pub(super) const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

pub(super) struct Account {
    proxy: Proxy,
    pub(super) azurite: Emulator,
}

impl Account {
    pub(super) async fn new() -> Option<Self> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let azurite = azurite().await?;
        let account = Self { proxy: Proxy::start(azurite.address).await, azurite };
        let (status, body) = account.call("PUT", "images", &[("restype", "container")], &[]).await;
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
        Some(account)
    }

    async fn call(&self, method: &str, path: &str, query: &[(&str, &str)], headers: &[(&str, &str)]) -> (u16, Vec<u8>) {
        let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let mut unsigned = Unsigned {
            method: method.to_owned(),
            base: format!("http://{}", self.azurite.address).parse().unwrap(),
            path: format!("/{ACCOUNT}/{path}"),
            query: own(query),
            headers: own(headers),
            body: bytes::Bytes::new(),
        };
        let key = AzureKey::new(ACCOUNT, Secret::new(KEY)).unwrap();
        key.sign(&mut unsigned, Timestamp::now()).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request =
            client.request(method.parse().unwrap(), unsigned.url().unwrap()).header("content-length", "0");
        for (name, value) in &unsigned.headers {
            request = request.header(name, value);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
    }

    fn with(&self, login: AzureLogin, limits: Limits) -> Settings {
        let endpoint = Endpoint::new(format!("{}/{ACCOUNT}", self.proxy.url()));
        Settings::AzurePages { endpoint, container: Some("images".to_owned()), login, limits, retry: retry() }
    }

    /// A signature for one blob, for an hour ("Create a service SAS").
    fn sas(blob: &str) -> Secret {
        let ends = (Timestamp::now() + SignedDuration::from_hours(1)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let text = format!("rwd\n\n{ends}\n/blob/{ACCOUNT}/images/{blob}\n\n\n\n2020-02-10\nb\n\n\n\n\n\n");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &STANDARD.decode(KEY).unwrap());
        let sig = STANDARD.encode(ring::hmac::sign(&key, text.as_bytes()));
        let sig = sig.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        Secret::new(format!("?sv=2020-02-10&sr=b&sp=rwd&se={}&sig={sig}", ends.replace(':', "%3A")))
    }
}

impl Place for Account {
    const NAME: &'static str = "azure_pages";
    const FORMAT: Format = Format::Vhd;
    const REPLACES: bool = true;

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }
    fn settings(&self, limits: Limits) -> Settings {
        self.with(AzureLogin::Key { account: ACCOUNT.to_owned(), key: Secret::new(KEY) }, limits)
    }
    async fn wrong_settings(&self) -> Option<Settings> {
        Some(self.with(AzureLogin::Key { account: ACCOUNT.to_owned(), key: Secret::new("c2VjcmV0") }, limits()))
    }
    async fn content(&self, name: &str, uploaded: &Uploaded, _: usize) -> Vec<u8> {
        assert!(uploaded.reference.contains(name));
        self.call("GET", &format!("images/{name}"), &[], &[]).await.1
    }
    async fn unfinished(&self, name: &str) -> usize {
        let (_, listed) = self
            .call("GET", "images", &[("restype", "container"), ("comp", "list"), ("include", "metadata")], &[])
            .await;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let blobs = listed.split("<Blob>").skip(1).filter(|blob| blob.contains(&format!("<Name>{name}</Name>")));
        blobs.filter(|blob| blob.contains(">begun<")).count()
    }
    async fn expire(&self, name: &str, _: Option<Memory>) {
        assert_eq!(self.call("DELETE", &format!("images/{name}"), &[], &[]).await.0, 202);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azure_conforms() {
    let Some(account) = Account::new().await else { return };
    conforms(&account).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_to_azure_survives_kills() {
    let Some(account) = Account::new().await else { return };
    let limits = Limits { parts_at_once: 2, ..limits() };
    let kills = Kills { data: 48 * MIB, size: 300 * MIB, limits, lost_bytes: 2 * (64 << 10) };
    survives_kills(&account, kills).await;
}

/// A disk that waits for its content stands there as an empty blob that only its signed address opens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_managed_disk_is_written_by_its_signed_address() {
    let Some(account) = Account::new().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let image = Image::new(dir.path(), 6, 24 * MIB, 6 * MIB, 3, Format::Vhd);
    let expected = image.expected_bytes();
    let length = expected.len().to_string();
    let headers = [("x-ms-blob-type", "PageBlob"), ("x-ms-blob-content-length", length.as_str())];
    assert_eq!(account.call("PUT", "images/disk", &[], &headers).await.0, 201);
    let settings = Settings::AzurePages {
        endpoint: Endpoint::new(format!("{}/{ACCOUNT}/images/disk", account.proxy.url())),
        container: None,
        login: AzureLogin::Sas(Account::sas("disk")),
        limits: limits(),
        retry: retry(),
    };
    let (to, mut memory) = (Destination::new("disk"), None);
    cancelled_after(&settings, &image, &to, &mut memory, 3 * MIB).await;
    let rest = upload(&settings, &image, &to, &mut memory).await.unwrap();
    assert!(rest.sent_bytes < 4 * MIB, "{rest:?}: it goes on where it was");
    assert_eq!(account.content("disk", &rest, expected.len()).await, expected);
    let again = upload(&settings, &image, &to, &mut memory).await.unwrap();
    assert!(again.already && again.sent_bytes == 0, "{again:?}");
}
