//! The real Glance, with tokens of the real Keystone.

use serde_json::{Value, json};
use skein_cloud::sign::KeystoneLogin;
use skein_cloud::transport::{Destination, Limits, Memory, Settings, Uploaded};
use skein_cloud::{Endpoint, Secret};
use skein_image::Format;

use super::suite::{Kills, Place, conforms, limits, survives_kills, upload};
use super::support::image::{Image, MIB};
use super::support::openstack::{OpenStack, PASSWORD};
use super::support::proxy::{Fault, Proxy};
use super::support::retry;

struct Project {
    proxy: Proxy,
    openstack: OpenStack,
    http: reqwest::Client,
    token: String,
}

impl Project {
    async fn new() -> Option<Self> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let openstack = OpenStack::start().await?;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let domain = json!({ "name": "Default" });
        let user = json!({ "name": "admin", "password": PASSWORD, "domain": domain });
        let body = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": user } },
            "scope": { "project": { "name": "admin", "domain": domain } },
        }});
        let asked = http.post(format!("{}/auth/tokens", openstack.keystone_url())).body(body.to_string());
        let said = asked.header("content-type", "application/json").send().await.unwrap();
        let token = said.headers()["x-subject-token"].to_str().unwrap().to_owned();
        Some(Self { proxy: Proxy::start(openstack.glance.address).await, openstack, http, token })
    }
    async fn call(&self, method: &str, path: &str) -> (u16, Vec<u8>) {
        let url = format!("http://{}/v2/images{path}", self.openstack.glance.address);
        let asked = self.http.request(method.parse().unwrap(), url).header("x-auth-token", &self.token);
        let said = asked.send().await.unwrap();
        (said.status().as_u16(), said.bytes().await.unwrap().to_vec())
    }
    async fn open(&self, name: &str) -> Vec<String> {
        let listed: Value = serde_json::from_slice(&self.call("GET", &format!("?name={name}")).await.1).unwrap();
        let images = listed["images"].as_array().unwrap().iter().filter(|image| image["status"] != "active");
        images.map(|image| image["id"].as_str().unwrap().to_owned()).collect()
    }
    fn with(&self, password: &str, limits: Limits) -> Settings {
        let login = KeystoneLogin {
            user: "admin".to_owned(),
            password: Secret::new(password),
            project: "admin".to_owned(),
            domain: "Default".to_owned(),
        };
        let (endpoint, keystone) = (Endpoint::new(self.proxy.url()), Endpoint::new(self.openstack.keystone_url()));
        Settings::Glance { endpoint, keystone, login, limits, retry: retry() }
    }
}

impl Place for Project {
    const NAME: &'static str = "glance";
    const FORMAT: Format = Format::Qcow2;
    const REPLACES: bool = false;
    const RESUMES: bool = false;
    const FAULTS_PER_MILLE: u64 = 400;
    const FAULT_KINDS_MIN: usize = 3;

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }
    fn settings(&self, limits: Limits) -> Settings {
        self.with(PASSWORD, limits)
    }
    async fn wrong_settings(&self) -> Option<Settings> {
        Some(self.with("sssh!", limits()))
    }
    async fn content(&self, _: &str, uploaded: &Uploaded, _: usize) -> Vec<u8> {
        self.call("GET", &format!("/{}/file", uploaded.reference)).await.1
    }
    async fn unfinished(&self, name: &str) -> usize {
        self.open(name).await.len()
    }
    /// Somebody deletes the image that waits for its data: its id can never be used again.
    async fn expire(&self, name: &str, _: Option<Memory>) {
        for id in self.open(name).await {
            assert_eq!(self.call("DELETE", &format!("/{id}")).await.0, 204);
        }
    }
}

/// An upload has one request with data: each kind of fault is put there.
async fn faults_of_the_data_are_outlived(project: &Project) {
    let dir = tempfile::tempdir().unwrap();
    for (seed, fault) in [(11, Fault::Flips), (12, Fault::Truncates), (13, Fault::CutAfter), (14, Fault::CutBefore)] {
        let image = Image::new(dir.path(), seed, 8 * MIB, 2 * MIB, 2, Format::Qcow2);
        let expected = image.expected_bytes();
        project.proxy.next(|request| request.is("PUT", "/file"), fault);
        let to = Destination::new(format!("{fault:?}"));
        let uploaded = upload(&project.settings(limits()), &image, &to, &mut None).await.unwrap();
        assert!(project.content(&to.name, &uploaded, 0).await == expected, "{fault:?}: other bytes");
        let all: Value = serde_json::from_slice(&project.call("GET", &format!("?name={}", to.name)).await.1).unwrap();
        assert_eq!(all["images"].as_array().unwrap().len(), 1, "{fault:?}: nothing damaged stays");
        // What arrived, and only its answer was lost, is not sent again.
        let times = if fault == Fault::CutAfter { 1 } else { 2 };
        assert_eq!(uploaded.sent_bytes / expected.len() as u64, times, "{fault:?}: {uploaded:?}");
    }
}

/// One test: starting both services takes longer than all that is tried with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn glance_conforms_and_begins_again_after_kills() {
    let Some(project) = Project::new().await else { return };
    conforms(&project).await;
    faults_of_the_data_are_outlived(&project).await;
    let kills = Kills { data: 32 * MIB, size: 64 * MIB, limits: limits(), lost_bytes: 0 };
    survives_kills(&project, kills).await;
}
