//! EBS direct and the part of EC2 that it needs, as their documentation describes them: client tokens, digests of
//! blocks and of snapshots, counts, parents, snapshots that are given up. It knows nothing of the code it tests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::proxy::{self, Request};

const BLOCK: usize = 512 << 10;

#[derive(Clone)]
struct Snapshot {
    token: String,
    body: Value,
    status: &'static str,
    parent: Option<String>,
    blocks: BTreeMap<usize, Vec<u8>>,
}

#[derive(Default)]
struct State {
    snapshots: BTreeMap<String, Snapshot>,
    refused_blocks: usize,
}

pub struct FakeEbs {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for FakeEbs {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

type Said = (u16, &'static str, String);

impl FakeEbs {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(State::default())));
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let Ok(Some(request)) = proxy::read(&mut client, |_| {}).await else { return };
                    let (status, kind, body) = state.lock().unwrap().answer(&request);
                    let header = if kind.is_empty() { String::new() } else { format!("x-amzn-ErrorType: {kind}\r\n") };
                    proxy::say(&mut client, &format!("{status} X"), &header, &body).await.ok();
                });
            }
        });
        Self { address, state, accepting }
    }

    pub fn count(&self) -> usize {
        self.state.lock().unwrap().snapshots.len()
    }
    pub fn refused_blocks(&self) -> usize {
        self.state.lock().unwrap().refused_blocks
    }
    pub fn pending(&self, name: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let open = state.snapshots.iter().filter(|(_, s)| s.status != "completed" && s.body["Description"] == name);
        open.map(|(id, _)| id.clone()).collect()
    }
    /// Nobody wrote to it for too long.
    pub fn give_up(&self, name: &str) {
        for id in self.pending(name) {
            self.state.lock().unwrap().snapshots.get_mut(&id).unwrap().status = "error";
        }
    }
    /// The disk of a completed snapshot: its parent's blocks under its own.
    pub fn content(&self, id: &str, len: usize) -> Vec<u8> {
        let state = self.state.lock().unwrap();
        let snapshot = &state.snapshots[id];
        assert_eq!(snapshot.status, "completed");
        let under = snapshot.parent.as_ref().map(|parent| state.snapshots[parent].blocks.clone()).unwrap_or_default();
        let mut content = vec![0; len];
        for (index, block) in under.iter().chain(&snapshot.blocks) {
            let within = BLOCK.min(len - index * BLOCK);
            content[index * BLOCK..index * BLOCK + within].copy_from_slice(&block[..within]);
        }
        content
    }
}

fn wrong(reason: &str) -> Said {
    (400, "ValidationException", json!({ "Message": "not valid", "Reason": reason }).to_string())
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().to_vec()
}

impl State {
    fn answer(&mut self, request: &Request) -> Said {
        if !request.header("authorization").is_some_and(|text| text.contains("Credential=right/")) {
            let xml =
                "<Response><Errors><Error><Code>AuthFailure</Code><Message>who?</Message></Error></Errors></Response>";
            return (401, "", xml.to_owned());
        }
        let path: Vec<&str> = request.line.split(' ').nth(1).unwrap().split('/').skip(1).collect();
        match (&request.line[..4], path.as_slice()) {
            ("POST", ["snapshots"]) => self.start(request),
            ("PUT ", ["snapshots", id, "blocks", index]) => self.put(id, index.parse().unwrap(), request),
            ("POST", ["snapshots", "completion", id]) => self.complete(id, request),
            ("POST", [""]) => self.ec2(&String::from_utf8_lossy(&request.body)),
            _ => (400, "UnknownOperationException", String::new()),
        }
    }

    fn start(&mut self, request: &Request) -> Said {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let token = body["ClientToken"].as_str().unwrap().to_owned();
        if let Some((id, known)) = self.snapshots.iter().find(|(_, snapshot)| snapshot.token == token) {
            if known.body != body {
                return (503, "ConflictException", json!({ "Message": "other parameters" }).to_string());
            }
            return (201, "", json!({ "SnapshotId": id, "Status": known.status, "BlockSize": BLOCK }).to_string());
        }
        let parent = body["ParentSnapshotId"].as_str().map(str::to_owned);
        if parent.as_ref().is_some_and(|parent| !self.snapshots.contains_key(parent)) {
            return (404, "ResourceNotFoundException", json!({ "Reason": "SNAPSHOT_NOT_FOUND" }).to_string());
        }
        let id = format!("snap-{:08x}", self.snapshots.len() + 1);
        let snapshot = Snapshot { token, body, status: "pending", parent, blocks: BTreeMap::new() };
        self.snapshots.insert(id.clone(), snapshot);
        (201, "", json!({ "SnapshotId": id, "Status": "pending", "BlockSize": BLOCK }).to_string())
    }

    fn open(&mut self, id: &str) -> Result<&mut Snapshot, Said> {
        match self.snapshots.get_mut(id) {
            None => Err((404, "ResourceNotFoundException", json!({ "Reason": "SNAPSHOT_NOT_FOUND" }).to_string())),
            Some(snapshot) if snapshot.status != "pending" => Err(wrong("INVALID_SNAPSHOT_ID")),
            Some(snapshot) => Ok(snapshot),
        }
    }

    fn put(&mut self, id: &str, index: usize, request: &Request) -> Said {
        let digest = STANDARD.encode(sha256(&request.body));
        if request.body.len() != BLOCK || request.header("x-amz-checksum") != Some(&digest) {
            self.refused_blocks += 1;
            return wrong("INVALID_BLOCK");
        }
        match self.open(id) {
            Ok(snapshot) => {
                snapshot.blocks.insert(index, request.body.clone());
                (201, "", "{}".to_owned())
            }
            Err(said) => said,
        }
    }

    fn complete(&mut self, id: &str, request: &Request) -> Said {
        match self.open(id) {
            Ok(snapshot) => {
                let digests: Vec<u8> = snapshot.blocks.values().flat_map(|block| sha256(block)).collect();
                let count = snapshot.blocks.len().to_string();
                if request.header("x-amz-changedblockscount") != Some(&count)
                    || request.header("x-amz-checksum") != Some(&STANDARD.encode(sha256(&digests)))
                    || request.header("x-amz-checksum-aggregation-method") != Some("LINEAR")
                {
                    return wrong("INVALID_PARAMETER_VALUE");
                }
                snapshot.status = "completed";
                (202, "", json!({ "Status": "pending" }).to_string())
            }
            Err(said) => said,
        }
    }

    fn ec2(&mut self, form: &str) -> Said {
        let value = |name: &str| {
            form.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap_or_default().to_owned()
        };
        let (id, tag) = (value("SnapshotId.1"), value("Filter.1.Value.1"));
        if form.contains("Action=DeleteSnapshot") {
            self.snapshots.remove(&value("SnapshotId"));
            return (200, "", "<DeleteSnapshotResponse/>".to_owned());
        }
        if !id.is_empty() && !self.snapshots.contains_key(&id) {
            let xml = "<Response><Errors><Error><Code>InvalidSnapshot.NotFound</Code></Error></Errors></Response>";
            return (400, "", xml.to_owned());
        }
        let bears =
            |snapshot: &Snapshot| snapshot.body["Tags"].as_array().unwrap().iter().any(|t| t["Value"] == tag.as_str());
        let fits = self.snapshots.iter().filter(|(known, s)| **known == id || (id.is_empty() && bears(s)));
        let items: Vec<String> = fits
            .map(|(id, s)| {
                let tags = "<tagSet><item><key>k</key><value>v</value></item></tagSet>";
                format!("<item><snapshotId>{id}</snapshotId><status>{}</status>{tags}</item>", s.status)
            })
            .collect();
        (
            200,
            "",
            format!(
                "<DescribeSnapshotsResponse><snapshotSet>{}</snapshotSet></DescribeSnapshotsResponse>",
                items.concat()
            ),
        )
    }
}
