//! A process of its own that uploads: the one that is killed. It is this test's program, started again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skein_cloud::transport::{Control, Destination, FileMemory, Progress, Settings, Uploaded};

use super::image::Image;
use super::surroundings;

const TASK: &str = "SKEIN_UPLOAD_CHILD";

/// What the child is to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    pub settings: Settings,
    pub image: Image,
    pub name: String,
    pub memory: PathBuf,
    pub result: PathBuf,
    /// How long it rests after each piece that it wrote, microseconds: a disk is faster than who looks how far it is.
    pub rest_us: u64,
}

struct Rests(u64);

impl Progress for Rests {
    fn sent(&self, _: u64) {
        std::thread::sleep(std::time::Duration::from_micros(self.0));
    }
}

impl Order {
    pub fn start(&self, dir: &Path) -> Child {
        let path = dir.join("order.json");
        std::fs::write(&path, serde_json::to_vec(self).unwrap()).unwrap();
        std::fs::remove_file(&self.result).ok();
        Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "the_process_that_is_killed", "--nocapture"])
            .env(TASK, path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }
    pub fn result(&self) -> Uploaded {
        serde_json::from_slice(&std::fs::read(&self.result).unwrap()).unwrap()
    }
}

/// The child's part.
pub async fn obey() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let path = std::env::var_os(TASK).expect("started by the tests that kill it");
    let order: Order = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let transport = order.settings.open(surroundings()).unwrap();
    let mut memory = FileMemory::new(&order.memory);
    let to = Destination::new(&order.name);
    let source = Arc::new(order.image.source());
    let mut control = Control::default();
    if order.rest_us > 0 {
        control.progress = Arc::new(Rests(order.rest_us));
    }
    let uploaded = transport.upload(source, &to, &mut memory, &control).await.unwrap();
    std::fs::write(&order.result, serde_json::to_vec(&uploaded).unwrap()).unwrap();
}
