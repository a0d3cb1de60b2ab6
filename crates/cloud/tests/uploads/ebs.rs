//! EBS direct: as moto speaks it (bytes, paths, signatures), and as a fake of ours, which does what moto does not:
//! it looks at digests, tokens and counts, knows parents, and gives up what nobody writes to.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use skein_cloud::transport::{Destination, Limits, Memory, Parent, Settings, Uploaded};
use skein_cloud::{Endpoint, Secret};
use skein_image::Format;

use super::suite::{Kills, Place, cancelled_after, conforms, limits, survives_kills, upload};
use super::support::aws::{Aws, REGION};
use super::support::emulator::{Emulator, moto};
use super::support::fake_ebs::FakeEbs;
use super::support::image::{Image, MIB};
use super::support::proxy::{Fault, Proxy, Request};
use super::support::retry;

const BLOCK: usize = 512 << 10;

fn settings(proxy: &Proxy, key: skein_cloud::sign::AwsKey, limits: Limits) -> Settings {
    let (ebs, ec2) = (Endpoint::new(proxy.url()), Endpoint::new(proxy.url()));
    Settings::EbsBlocks { ebs, ec2, region: REGION.to_owned(), key, limits, retry: retry() }
}

struct Moto {
    proxy: Proxy,
    aws: Aws,
    complete: Mutex<BTreeSet<String>>,
    _emulator: Emulator,
}

impl Moto {
    async fn new() -> Option<Self> {
        let moto = moto().await?;
        let aws = Aws::new(&format!("http://{}", moto.address)).await;
        // Of a request without a body moto signs its headers instead: nobody's signature fits (S3 has code of its own).
        aws.unchecked_calls(u32::MAX).await;
        Some(Self { proxy: Proxy::start(moto.address).await, aws, complete: Mutex::default(), _emulator: moto })
    }
}

impl Place for Moto {
    const NAME: &'static str = "ebs_blocks (moto)";
    const FORMAT: Format = Format::Raw;
    const REPLACES: bool = false;
    const FAULTS_PER_MILLE: u64 = 350;

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }
    fn settings(&self, limits: Limits) -> Settings {
        settings(&self.proxy, self.aws.key.clone(), limits)
    }
    async fn wrong_settings(&self) -> Option<Settings> {
        self.aws.unchecked_calls(0).await;
        let key = skein_cloud::sign::AwsKey { secret_key: Secret::new("sssh"), ..self.aws.key.clone() };
        Some(settings(&self.proxy, key, limits()))
    }
    /// moto makes a second snapshot for the same token, and calls both completed: with it, a lost answer to
    /// `StartSnapshot` cannot be tried. The fake takes that part.
    fn spares(request: &Request) -> bool {
        request.is("POST", "/snapshots HTTP")
    }
    async fn content(&self, _: &str, uploaded: &Uploaded, len: usize) -> Vec<u8> {
        self.complete.lock().unwrap().insert(uploaded.reference.clone());
        let path = format!("/snapshots/{}/blocks", uploaded.reference);
        let listed = self.aws.call("ebs", "GET", &path, &[], Vec::new()).await;
        assert_eq!(listed.status, 200, "{path}: {}", listed.text());
        let listed: serde_json::Value = serde_json::from_slice(&listed.body).unwrap();
        let mut content = vec![0; len];
        for block in listed["Blocks"].as_array().unwrap() {
            let index = block["BlockIndex"].as_str().map_or_else(|| block["BlockIndex"].to_string(), str::to_owned);
            let token = block["BlockToken"].as_str().unwrap();
            let got =
                self.aws.call("ebs", "GET", &format!("{path}/{index}"), &[("blockToken", token)], Vec::new()).await;
            let at = index.parse::<usize>().unwrap() * BLOCK;
            assert_eq!(got.body.len(), BLOCK);
            let within = BLOCK.min(len - at);
            content[at..at + within].copy_from_slice(&got.body[..within]);
        }
        content
    }
    async fn unfinished(&self, name: &str) -> usize {
        let body =
            format!("Action=DescribeSnapshots&Version=2016-11-15&Filter.1.Name=tag%3AName&Filter.1.Value.1={name}");
        let known = self.aws.form("ec2", &body).await;
        assert_eq!(known.status, 200, "{}", known.text());
        let known = known.text();
        // moto calls every snapshot completed: those are, which were read back.
        let known = known.split("<snapshotId>").skip(1).map(|rest| rest.split('<').next().unwrap().to_owned());
        let complete = self.complete.lock().unwrap();
        known.filter(|id| !complete.contains(id)).count()
    }
    async fn expire(&self, _: &str, memory: Option<Memory>) {
        let id = memory.unwrap().handle.unwrap();
        let body = format!("Action=DeleteSnapshot&Version=2016-11-15&SnapshotId={}", id.expose());
        assert_eq!(self.aws.form("ec2", &body).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ebs_conforms_in_front_of_moto() {
    let Some(moto) = Moto::new().await else { return };
    conforms(&moto).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_to_ebs_survives_kills() {
    // Not moto: the fake looks at count and digests at the end, which a wrong number of what is done would not pass.
    let fake = Fake::new().await;
    // Blocks are large: one at a time, so that twenty kills cost less than a twentieth of a small disk.
    let limits = Limits { parts_at_once: 1, ..limits() };
    let kills = Kills { data: 224 * MIB, size: 700 * MIB, limits, lost_bytes: BLOCK as u64 };
    survives_kills(&fake, kills).await;
}

struct Fake {
    proxy: Proxy,
    ebs: FakeEbs,
}

impl Fake {
    async fn new() -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let ebs = FakeEbs::start().await;
        let proxy = Proxy::start(ebs.address).await;
        proxy.service_looks();
        Self { proxy, ebs }
    }
}

impl Place for Fake {
    const NAME: &'static str = "ebs_blocks (fake)";
    const FORMAT: Format = Format::Raw;
    const REPLACES: bool = false;
    const FAULTS_PER_MILLE: u64 = 350;

    fn proxy(&self) -> Option<&Proxy> {
        Some(&self.proxy)
    }
    fn settings(&self, limits: Limits) -> Settings {
        let key = skein_cloud::sign::AwsKey {
            access_key: "right".to_owned(),
            secret_key: Secret::new("sssh"),
            session_token: None,
        };
        settings(&self.proxy, key, limits)
    }
    async fn wrong_settings(&self) -> Option<Settings> {
        let key = skein_cloud::sign::AwsKey {
            access_key: "wrong".to_owned(),
            secret_key: Secret::new("sssh"),
            session_token: None,
        };
        Some(settings(&self.proxy, key, limits()))
    }
    async fn content(&self, _: &str, uploaded: &Uploaded, len: usize) -> Vec<u8> {
        self.ebs.content(&uploaded.reference, len)
    }
    async fn unfinished(&self, name: &str) -> usize {
        self.ebs.pending(name).len()
    }
    async fn expire(&self, name: &str, _: Option<Memory>) {
        self.ebs.give_up(name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ebs_conforms_in_front_of_a_strict_fake() {
    let fake = Fake::new().await;
    conforms(&fake).await;
    assert!(fake.ebs.refused_blocks() > 0, "changed bytes were noticed by their digest");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_makes_no_second_snapshot() {
    let (fake, dir) = (Fake::new().await, tempfile::tempdir().unwrap());
    let image = Image::new(dir.path(), 4, 8 * MIB, 2 * MIB, 2, Format::Raw);
    fake.proxy.next(|request| request.is("POST", "/snapshots HTTP"), Fault::CutAfter);
    fake.proxy.next(|request| request.is("POST", "/completion/"), Fault::CutAfter);
    let to = Destination::new("once");
    upload(&fake.settings(limits()), &image, &to, &mut None).await.unwrap();
    assert_eq!(fake.ebs.count(), 1);
    // A crash between the answer and its being remembered: only the intent is known.
    let mut memory = None;
    let image = image.changed("second", 0, b"second");
    let to = Destination::new("crashed");
    cancelled_after(&fake.settings(limits()), &image, &to, &mut memory, MIB).await;
    let mut forgotten = memory.map(|memory| Memory { handle: None, ..memory });
    upload(&fake.settings(limits()), &image, &to, &mut forgotten).await.unwrap();
    assert_eq!((fake.ebs.count(), fake.ebs.pending("crashed").len()), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_sends_what_changed() {
    let (fake, dir) = (Fake::new().await, tempfile::tempdir().unwrap());
    let first = Image::new(dir.path(), 5, 64 * MIB, 32 * MIB, 4, Format::Raw);
    let settings = fake.settings(limits());
    let parent = upload(&settings, &first, &Destination::new("first"), &mut None).await.unwrap();
    // Changed: one block anew, one that was not there, one that becomes zeros.
    let raw = std::fs::read(&first.raw).unwrap();
    let block = |wanted: bool| {
        let is = |n: &usize| raw[n * BLOCK..(n + 1) * BLOCK].iter().any(|byte| *byte != 0) == wanted;
        (0..raw.len() / BLOCK).filter(is).collect::<Vec<_>>()
    };
    let (used, free) = (block(true), block(false));
    let second = first.changed("v2", (used[3] * BLOCK) as u64, b"other");
    let second = second.changed("v3", (free[1] * BLOCK) as u64, b"new");
    let second = second.changed("v4", (used[9] * BLOCK) as u64, &vec![0; BLOCK]);
    let parent = Parent { reference: parent.reference, source: Arc::new(first.source()) };
    let to = Destination { parent: Some(parent), ..Destination::new("second") };
    let uploaded = upload(&settings, &second, &to, &mut None).await.unwrap();
    assert_eq!(fake.ebs.content(&uploaded.reference, raw.len()), second.expected_bytes());
    let blocks = uploaded.sent_bytes / BLOCK as u64;
    assert_eq!(blocks, 3, "{} bytes sent for 3 changed blocks", uploaded.sent_bytes);
}
