//! The claims about images, end to end: a real engine, real files, machines that boot.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

#[allow(dead_code, reason = "only the tiny one is needed here")]
#[path = "../../image/tests/support/guest.rs"]
mod guest;
mod support;

use std::time::Duration;

use guest::TINY_SAYS;
use serde_json::json;
use support::{Home, said, skipped};

// What `guest` needs around it.

const MIB: u64 = 1 << 20;

fn have(program: &str) -> bool {
    let there = std::process::Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success());
    if !there {
        skipped(&format!("{program} is not installed"));
    }
    there
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}

/// Claims 1, 2, 7 and 14: one stored image goes to cloud A converted and to cloud B as it is kept; what boots there is
/// the disk that was taken in.
#[test]
fn claims_2_and_14_one_stored_image_goes_to_one_cloud_converted_and_to_another_as_it_is_and_both_boot() {
    let home = Home::new();
    let (a, b) = (home.path("cloud-a"), home.path("cloud-b"));
    std::fs::create_dir_all(&a).and_then(|()| std::fs::create_dir_all(&b)).unwrap();
    let at = |dir: &std::path::Path| json!({"transport": "file", "dir": dir});
    let config = json!({"images": {"destinations": {
        "cloud-a": {"profile": "azure", "at": at(&a)},
        "cloud-b": {"profile": "firecracker", "at": at(&b)},
    }}});
    home.write("config.json", &config.to_string());
    let Some(raw) = guest::tiny(&home.path("")) else { return };
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", "-c", text(&raw), text(&home.path("native.qcow2"))]);
    let home = Home::with_engine_in(home, &["--dir", "data", "--config", "config.json"]);
    let image = |args: &[&str]| home.skein(&[&["image"], args, &["--dir", "data"]].concat());

    // Claims 5, 15: a native format becomes the stored one.
    image(&["import", "native.qcow2", "--name", "tiny"]).ok();
    let chosen = |to: &str| home.json(&["image", "choose", to, "--image", "tiny", "--dir", "data"]);
    assert_eq!(chosen("azure")["form"], "converted");
    assert_eq!(chosen("firecracker")["form"], "as_stored");
    image(&["deploy", "tiny", "cloud-a", "--name", "tiny.vhd"]).ok();
    image(&["deploy", "tiny", "cloud-b", "--name", "tiny.raw"]).ok();

    let sum = |path: &std::path::Path| run("sha256sum", &[text(path)])[..64].to_owned();
    image(&["export", "tiny", "stored.raw", "--to", "raw"]).ok();
    assert_eq!(sum(&b.join("tiny.raw")), sum(&home.path("stored.raw")), "the stored bytes themselves went to B");
    for (path, driver) in [(a.join("tiny.vhd"), "vpc"), (b.join("tiny.raw"), "raw")] {
        let said = guest::boot(&path, driver, TINY_SAYS, Duration::from_mins(2));
        assert!(said.iter().any(|line| line[..64] == sum(&raw)), "{}: {said:?}", path.display());
    }

    // Claim 20: what is there is not sent again.
    let again = home.json(&["image", "deploy", "tiny", "cloud-a", "--dir", "data"]);
    assert_eq!(again["deployed"].as_array().map(Vec::len), Some(2), "{again}");
    // The other file there is what the machine said.
    let sent =
        std::fs::read_dir(&a).unwrap().flatten().filter(|e| e.path().extension().is_none_or(|end| end != "serial"));
    assert_eq!(sent.count(), 1);
    assert_eq!(chosen("cloud-a")["form"], "there");
    let nowhere = image(&["deploy", "tiny", "cloud-c"]);
    assert!(nowhere.code == 1 && nowhere.err.contains("cloud-a, cloud-b"), "{}", nowhere.err);
}
