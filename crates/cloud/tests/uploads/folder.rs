//! A folder of this machine.

use std::path::PathBuf;

use skein_cloud::transport::{Limits, Memory, Settings, Uploaded};
use skein_image::Format;

use super::suite::{Kills, Place, conforms, limits, survives_kills};
use super::support::image::MIB;
use super::support::proxy::Proxy;

struct Local(tempfile::TempDir);

impl Local {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn parts(&self, name: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let begins = format!(".{name}.");
        entries
            .map(|e| e.unwrap())
            .filter(|e| e.file_name().to_str().unwrap().starts_with(&begins))
            .map(|e| e.path())
            .collect()
    }
}

impl Place for Local {
    const NAME: &'static str = "folder";
    const FORMAT: Format = Format::Raw;
    const REPLACES: bool = true;

    fn proxy(&self) -> Option<&Proxy> {
        None
    }
    fn settings(&self, _: Limits) -> Settings {
        Settings::File { dir: self.0.path().to_owned() }
    }
    async fn wrong_settings(&self) -> Option<Settings> {
        None
    }
    async fn content(&self, name: &str, uploaded: &Uploaded, _: usize) -> Vec<u8> {
        assert_eq!(uploaded.reference, self.0.path().join(name).display().to_string());
        std::fs::read(&uploaded.reference).unwrap()
    }
    async fn unfinished(&self, name: &str) -> usize {
        self.parts(name).len()
    }
    /// What a crash of the machine may leave: the right length, but not the right bytes.
    async fn expire(&self, name: &str, _: Option<Memory>) {
        for part in self.parts(name) {
            let len = std::fs::metadata(&part).unwrap().len();
            std::fs::write(&part, vec![9; usize::try_from(len).unwrap()]).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_conforms() {
    conforms(&Local::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_to_a_folder_survives_kills() {
    let kills = Kills { data: 96 * MIB, size: 300 * MIB, limits: limits(), lost_bytes: 128 << 10 };
    survives_kills(&Local::new(), kills).await;
}

#[tokio::test]
async fn holes_stay_holes_in_a_folder() {
    use std::os::unix::fs::MetadataExt as _;
    let (local, dir) = (Local::new(), tempfile::tempdir().unwrap());
    let image = super::support::image::Image::new(dir.path(), 3, 1 << 30, MIB, 2, Format::Raw);
    let to = skein_cloud::transport::Destination::new("sparse");
    let uploaded = super::suite::upload(&local.settings(limits()), &image, &to, &mut None).await.unwrap();
    let taken = std::fs::metadata(&uploaded.reference).unwrap().blocks() * 512;
    assert!(taken < 4 * MIB, "a disk of 1 GiB with 1 MiB of data takes {taken} bytes");
}
