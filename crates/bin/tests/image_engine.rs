//! Images that an engine keeps, from a client's side.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use support::{Home, until};

/// A disk with data that cannot be compressed, and a hole.
fn disk(path: &Path, seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).unwrap()
    };
    let mut disk: Vec<u8> = (0..bytes).map(|_| next()).collect();
    disk[1 << 20..2 << 20].fill(0);
    std::fs::write(path, &disk).unwrap();
    disk
}

fn chunks(home: &Home) -> usize {
    let parts = std::fs::read_dir(home.path("data/images/chunks")).into_iter().flatten().flatten();
    parts.flat_map(|part| std::fs::read_dir(part.path()).unwrap()).count()
}

#[test]
fn an_import_that_was_killed_sends_only_what_had_not_arrived() {
    let home = Home::with_engine(&["--dir", "data"]);
    let bytes = disk(&home.path("disk.img"), 1, 48 << 20);
    let import = ["image", "import", "disk.img", "--dir", "data", "--tag", "web"];
    let mut child = home.command(&import).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("chunks to arrive", || chunks(&home) > 60);
    child.kill().unwrap();
    child.wait().unwrap();
    let arrived: u64 = u64::try_from(chunks(&home)).unwrap() * 16_384;
    assert!(home.json(&["image", "list", "--dir", "data"]).as_array().unwrap().is_empty(), "half an image is none");
    let done = home.json(&import);
    let new = done["new_bytes"].as_u64().unwrap();
    assert!(new + arrived <= bytes.len() as u64, "{new} sent again, of {} of which {arrived} had arrived", bytes.len());
    let list = home.json(&["image", "list", "--dir", "data"]);
    assert_eq!((&list[0]["name"], &list[0]["tags"][0]), (&"disk".into(), &"web".into()), "{list}");
    home.skein(&["image", "export", "disk", "back", "--to", "raw", "--dir", "data"]).ok();
    assert!(std::fs::read(home.path("back")).unwrap() == bytes);
}

/// Serves `content` on one address for as long as the test runs; the first answer breaks off in its middle.
fn server(content: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/some.qcow2", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                head.extend_from_slice(&byte);
            }
            let head = String::from_utf8(head).unwrap().to_lowercase();
            let from = head.split("range: bytes=").nth(1).and_then(|rest| rest.split('-').next()?.parse().ok());
            let from: usize = from.unwrap_or(0);
            let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
            let rest = &content[from..];
            let head = format!("HTTP/1.1 {status}\r\netag: \"x\"\r\ncontent-length: {}\r\n\r\n", rest.len());
            let most = if n == 0 { rest.len() / 2 } else { rest.len() };
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&rest[..most])).ok();
        }
    });
    url
}

#[test]
fn the_engine_fetches_from_a_url_keeps_the_file_and_says_what_a_machine_would_start_from() {
    let home = Home::with_engine(&["--dir", "data"]);
    let bytes = disk(&home.path("disk.img"), 2, 8 << 20);
    home.skein(&["image", "convert", "disk.img", "some.qcow2", "--to", "qcow2", "--compress", "zstd"]).ok();
    let file = std::fs::read(home.path("some.qcow2")).unwrap();
    let url = server(file.clone());
    let image = |args: &[&str]| home.skein(&[&["image"], args, &["--dir", "data"]].concat());
    let sum = Command::new("sha256sum").arg(home.path("some.qcow2")).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap()[..64].to_owned();
    let wrong = image(&["import", &url, "--sha256", &"0".repeat(64)]);
    assert!(wrong.code == 1 && wrong.err.contains(&sum), "{}", wrong.err);
    let id = image(&["import", &url, "--sha256", &sum, "--keep-native", "--tag", "a"]).ok().out.trim().to_owned();
    image(&["export", "some", "native", "--to", "native"]).ok();
    assert!(std::fs::read(home.path("native")).unwrap() == file, "byte for byte");
    image(&["export", "some", "raw", "--to", "raw"]).ok();
    assert!(std::fs::read(home.path("raw")).unwrap() == bytes);
    assert_eq!(image(&["check", "some"]).ok().out.trim(), id);

    image(&["tag", "some", "--name", "base", "--add", "b", "--remove", "a"]).ok();
    let shown = home.json(&["image", "list", "--dir", "data"]);
    assert_eq!((&shown[0]["name"], &shown[0]["tags"]), (&"base".into(), &serde_json::json!(["b"])));
    let bad = image(&["tag", "base", "--add", "two\nlines"]);
    assert!(bad.code == 1 && bad.err.contains("one line"), "{}", bad.err);
    // Nothing on it starts: firmware finds no boot code. Where the kernel is given beside the disk, it goes as it is kept.
    let none = image(&["choose", "azure"]);
    assert!(none.code == 1 && none.out.contains("starts by nothing"), "{}", none.out);
    let chosen = home.json(&["image", "choose", "firecracker", "--image", "base", "--dir", "data"]);
    assert_eq!((&chosen["image"], &chosen["form"]), (&id.clone().into(), &"as_stored".into()), "{chosen}");

    image(&["remove", "base"]).ok();
    image(&["gc"]).ok();
    assert_eq!((chunks(&home), image(&["scrub"]).ok().code), (0, 0));
}

#[test]
fn an_image_taken_in_without_an_engine_is_in_the_catalogue_of_the_next() {
    let home = Home::new();
    disk(&home.path("disk.img"), 3, 4 << 20);
    let id =
        home.skein(&["image", "import", "disk.img", "--name", "early", "--dir", "data"]).ok().out.trim().to_owned();
    let home = Home::with_engine_in(home, &["--dir", "data"]);
    until("the catalogue to have it", || {
        let list = home.json(&["image", "list", "--dir", "data"]);
        list[0]["id"] == id.as_str() && list[0]["name"] == "early" && list[0]["stored"] == true
    });
}

#[test]
fn a_backup_says_that_images_are_left_out_and_takes_them_along_if_asked() {
    let home = Home::with_engine(&["--dir", "data"]);
    let bytes = disk(&home.path("disk.img"), 4, 4 << 20);
    home.skein(&["image", "import", "disk.img", "--name", "kept", "--dir", "data"]).ok();
    let without = home.skein(&["backup", "--dir", "data", "--to", "without"]).ok();
    assert!(without.err.contains("1 images") && without.err.contains("--with-images"), "{}", without.err);
    let with = home.skein(&["backup", "--dir", "data", "--to", "with", "--with-images"]).ok();
    assert!(!with.err.contains("--with-images"), "{}", with.err);
    home.skein(&["restore", "with", "--dir", "again"]).ok();
    home.skein(&["image", "export", "kept", "back", "--to", "raw", "--dir", "again"]).ok();
    assert!(std::fs::read(home.path("back")).unwrap() == bytes);
}

/// An emulator of S3, ended with the test.
struct Moto(std::process::Child, String);

impl Moto {
    /// None where it is not installed.
    fn start() -> Option<Self> {
        let dir = std::env::var_os("SKEIN_EMULATORS").map(std::path::PathBuf::from).unwrap_or_default();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let start = |program: &Path| {
            let mut command = Command::new(program);
            command
                .args(["-H", "127.0.0.1", "-p", &port.to_string()])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        };
        let child = start(&dir.join("venv/bin/moto_server")).or_else(|_| start(Path::new("moto_server"))).ok()?;
        let moto = Self(child, format!("127.0.0.1:{port}"));
        until("moto to listen", || std::net::TcpStream::connect(&moto.1).is_ok());
        Some(moto)
    }

    fn make_bucket(&self, name: &str) {
        let mut stream = std::net::TcpStream::connect(&self.1).unwrap();
        let who = "AWS4-HMAC-SHA256 Credential=k/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        write!(stream, "PUT /{name} HTTP/1.0\r\nHost: {}\r\nAuthorization: {who}\r\n\r\n", self.1).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn an_engine_keeps_its_images_in_an_object_store() {
    let Some(moto) = Moto::start() else { return support::skipped("moto_server is not installed (see .ci/run)") };
    moto.make_bucket("images");
    let home = Home::new();
    let store = serde_json::json!({
        "service": "s3", "bucket": "images", "root": "/skein", "endpoint": format!("http://{}", moto.1),
        "region": "us-east-1", "access_key_id": "k", "secret_access_key": "s",
    });
    home.write("config.json", &serde_json::json!({"images": {"store": store}}).to_string());
    let home = Home::with_engine_in(home, &["--dir", "data", "--config", "config.json"]);
    let bytes = disk(&home.path("disk.img"), 5, 6 << 20);
    let image = |args: &[&str]| home.skein(&[&["image"], args, &["--dir", "data"]].concat());
    image(&["import", "disk.img", "--name", "far", "--tag", "a"]).ok();
    let list = home.json(&["image", "list", "--dir", "data"]);
    assert_eq!((&list[0]["name"], &list[0]["stored"]), (&"far".into(), &true.into()), "{list}");
    assert_eq!(chunks(&home), 0, "none of them is here");
    image(&["export", "far", "back", "--to", "raw"]).ok();
    assert!(std::fs::read(home.path("back")).unwrap() == bytes);
    image(&["remove", "far"]).ok();
    image(&["gc"]).ok();
    assert!(image(&["scrub"]).ok().err.contains("0 chunks are whole"));
}
