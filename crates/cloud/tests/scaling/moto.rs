//! Amazon's documents, judged by third parties: boto3 checks each against Amazon's service models, moto takes them, and
//! what moto then describes is adopted: the element that was ported. Skipped, with a word, where they are not installed.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use skein_cloud::scaling::{Document, Table, adopt, port};
use skein_domain::scaling::DiskKind;

use super::documents::example;

struct Moto {
    child: Child,
    address: SocketAddr,
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A program in the folder that `SKEIN_EMULATORS` names, or on the PATH.
fn find(program: &str) -> Option<PathBuf> {
    let own = std::env::var_os("SKEIN_EMULATORS").map(|dir| PathBuf::from(dir).join("venv/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    own.into_iter().chain(std::env::split_paths(&path)).map(|dir| dir.join(program)).find(|path| path.is_file())
}

impl Moto {
    fn start() -> Option<Self> {
        let program = find("moto_server")?;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let moto = Self { child, address };
        // A minute, at most.
        for _ in 0..600 {
            if TcpStream::connect(address).is_ok() {
                return Some(moto);
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        panic!("moto does not listen after a minute");
    }
}

/// Some when boto3 is there.
fn python() -> Option<PathBuf> {
    let python = find("python3")?;
    let found = Command::new(&python).args(["-c", "import boto3"]).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success()).then_some(python)
}

/// What Amazon adds to what it was given, and the common form does not say.
const ADDED: [&str; 7] = [
    "CreateAutoScalingGroup.CapacityRebalance",
    "CreateAutoScalingGroup.HealthCheckType",
    "CreateAutoScalingGroup.ServiceLinkedRoleARN",
    "CreateAutoScalingGroup.TerminationPolicies[]",
    "CreateRole.MaxSessionDuration",
    "CreateRole.Path",
    "PutMetricAlarm.ActionsEnabled",
];

#[test]
fn what_moto_describes_is_the_element_that_was_ported() {
    let (Some(python), Some(moto)) = (python(), Moto::start()) else {
        eprintln!(
            "SKIPPED: moto_server and boto3 are not installed (see .ci/run): Amazon's scaling documents were not judged"
        );
        return;
    };
    let table = Table::builtin("aws").unwrap();
    let mut asked = example();
    // moto drops the IOPS of volumes that a group's machines are made with, and then misses them.
    asked.launch.disks.iter_mut().for_each(|disk| disk.kind = DiskKind::Standard);
    // And it does not keep a group's warm-up.
    asked.group.warm_up_s = None;
    let (documents, differences) = port(&asked, &table).unwrap();
    assert!(differences.is_empty(), "{differences:?}");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scaling/moto.py");
    let mut command = Command::new(python);
    command.arg(script).arg(format!("http://{}", moto.address)).env("NO_PROXY", "127.0.0.1");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(&documents).unwrap()).unwrap();
    let said = child.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let described: Vec<Document> = serde_json::from_slice(&said.stdout).unwrap();
    let (back, unread) = adopt(&described, &table).unwrap();
    let tree = |element: &skein_domain::scaling::Element| serde_json::to_value(element).unwrap();
    assert_eq!(tree(&back), tree(&asked), "{}", String::from_utf8_lossy(&said.stdout));
    let added: Vec<&str> = unread.iter().map(|d| d.field.as_str()).collect();
    assert!(added.iter().all(|field| ADDED.contains(field)), "{added:?}");
}
