//! Third parties' emulators: found in the folder that `SKEIN_EMULATORS` names (`.ci/run` fills one) or on the PATH.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{skipped, until};

/// A program that was started, and ends with this.
pub struct Emulator {
    child: Child,
    pub address: SocketAddr,
    pub dir: tempfile::TempDir,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Where a program is. None: it is not installed, and that was said.
pub fn find(program: &str) -> Option<PathBuf> {
    let mut dirs: Vec<PathBuf> = Vec::new();
    if let Some(dir) = std::env::var_os("SKEIN_EMULATORS") {
        let dir = PathBuf::from(dir);
        dirs.extend([dir.join("venv/bin"), dir.join("node_modules/.bin"), dir.join("openstack/bin")]);
    }
    dirs.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let found = dirs.into_iter().map(|dir| dir.join(program)).find(|path| path.is_file());
    if found.is_none() {
        skipped(&format!("{program} is not installed (see .ci/run): its uploads were not tested"));
    }
    found
}

/// A port that nothing listened on a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Emulator {
    /// Starts it with arguments that depend on its port and folder, and waits until it listens.
    pub async fn start(mut command: Command, port: u16, dir: tempfile::TempDir) -> Self {
        let log = std::fs::File::create(dir.path().join("emulator.log")).unwrap();
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let emulator = Self { child, address, dir };
        until("an emulator listens", 60, async || TcpStream::connect(address).is_ok()).await;
        emulator
    }

    /// What it said, for a test that fails.
    #[allow(dead_code, reason = "for a person who looks into a failure")]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("emulator.log")).unwrap_or_default()
    }
}

/// S3, EC2, IAM and EBS. The part size that S3 wants is lowered, so that a small image has many parts.
pub async fn moto() -> Option<Emulator> {
    let program = find("moto_server")?;
    let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
    let mut command = Command::new(program);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).env("S3_UPLOAD_PART_MIN_SIZE", "1024");
    Some(Emulator::start(command, port, dir).await)
}

/// Azure's storage.
pub async fn azurite() -> Option<Emulator> {
    let program = find("azurite-blob")?;
    let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
    let mut command = Command::new(program);
    command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--inMemoryPersistence"]);
    command.args(["--skipApiVersionCheck", "--disableTelemetry", "--silent"]);
    Some(Emulator::start(command, port, dir).await)
}

/// Google's storage, with a bucket `images`.
pub async fn gcs() -> Option<Emulator> {
    let program = find("gcp-storage-emulator")?;
    let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
    let mut command = Command::new(program);
    command.args(["start", "--host=127.0.0.1", &format!("--port={port}"), "--in-memory", "--default-bucket=images"]);
    Some(Emulator::start(command, port, dir).await)
}
