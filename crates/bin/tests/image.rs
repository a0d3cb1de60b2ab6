//! `skein image` as its users run it, and as they kill it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod support;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use support::Home;

const KILLS: u64 = 50;
const DISK_BYTES: usize = 6 << 20;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
    /// A disk of its own: data that cannot be compressed, with a hole.
    fn disk(&mut self, path: &Path) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..DISK_BYTES).map(|_| u8::try_from(self.next() & 0xff).unwrap()).collect();
        bytes[1 << 20..2 << 20].fill(0);
        std::fs::write(path, &bytes).unwrap();
        bytes
    }
}

#[test]
fn a_newcomer_converts_imports_and_exports_without_an_engine() {
    let home = Home::new();
    let bytes = Random(1).disk(&home.path("disk.img"));
    let said = home.skein(&["image", "convert", "disk.img", "out.raw", "--to", "google-or-so"]);
    assert!(said.code == 2 && said.err.contains("google") && said.err.contains("qcow2"), "{}", said.err);
    home.skein(&["image", "convert", "disk.img", "out.raw", "--to", "firecracker"]).ok();
    assert!(std::fs::read(home.path("out.raw")).unwrap() == bytes);
    let said = home.skein(&["image", "convert", "disk.img", "out.raw", "--to", "raw"]);
    assert!(said.code == 2 && said.err.contains("--force"), "{}", said.err);
    let id = home.skein(&["image", "import", "disk.img"]).ok().out.trim().to_owned();
    let again = home.json(&["image", "import", "disk.img", "--name", "other"]);
    assert_eq!((again["known"].as_bool(), again["image"]["id"].as_str()), (Some(true), Some(&*id)));
    home.skein(&["image", "export", &id[..8], "back.raw", "--to", "raw"]).ok();
    assert!(std::fs::read(home.path("back.raw")).unwrap() == bytes);
    assert!(home.skein(&["image", "list"]).ok().out.contains("disk"));
}

#[test]
fn kills_at_any_point_of_import_export_and_collection_lose_nothing_that_an_image_has() {
    let home = Home::new();
    let mut random = Random(7);
    let mut known: std::collections::BTreeMap<String, Vec<u8>> = std::collections::BTreeMap::new();
    for round in 0..KILLS {
        let name = format!("d{round}");
        let bytes = random.disk(&home.path(&name));
        let victim: String = known.keys().next().cloned().unwrap_or_default();
        let args: Vec<&str> = match random.next() % 4 {
            0 if !known.is_empty() => vec!["image", "export", &victim, "out", "--to", "raw", "--force"],
            1 => vec!["image", "gc"],
            _ => vec!["image", "import", &name],
        };
        let mut command = home.command(&args);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Somewhere in its life, which takes some 10 to 100 ms here.
        std::thread::sleep(Duration::from_micros(random.next() % 60_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let scrub = home.json(&["image", "scrub"]);
        assert_eq!(scrub["bad"].as_array().map(Vec::len), Some(0), "round {round}: {args:?}: {scrub}");
        let list = home.json(&["image", "list"]);
        let names: Vec<&str> = list.as_array().unwrap().iter().map(|i| i["origin"]["name"].as_str().unwrap()).collect();
        assert!(known.keys().all(|name| names.contains(&name.as_str())), "round {round}: {names:?}");
        if names.contains(&name.as_str()) {
            known.insert(name.clone(), bytes);
        } else if random.next().is_multiple_of(3) {
            // Some are there for sure, so that there is something to lose.
            home.skein(&["image", "import", &name]).ok();
            known.insert(name.clone(), bytes);
        }
        std::fs::remove_file(home.path(&name)).unwrap();
    }
    home.skein(&["image", "gc"]).ok();
    assert!(known.len() > 5);
    for (name, bytes) in &known {
        home.skein(&["image", "export", name, "out", "--to", "raw", "--force"]).ok();
        assert!(std::fs::read(home.path("out")).unwrap() == *bytes, "{name}");
    }
    let left = std::fs::read_dir(home.path(".")).unwrap().flatten();
    let left: Vec<_> = left.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    println!("{} images, {KILLS} kills; beside them: {left:?}", known.len());
}
