//! Logs at volume: real processes, a real engine.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use support::{Home, until};

/// Most memory of the engine beside a burst, kB: a debug build, with its agent in another process.
const ENGINE_KB_MAX: u64 = 400_000;

fn peak_kb(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_burst_is_cut_and_says_so_and_neither_engine_nor_lease_suffer() {
    let home = Home::new();
    home.write("config.json", r#"{"resource_time_check_s": 0.2, "lease_s": 2.0}"#);
    let mut command =
        home.command(&["up", "--agent", "--listen", "127.0.0.1:0", "--config", "config.json", "--dir", "state"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut engine = support::Guard(child.unwrap());
    let skein = |args: &[&str]| home.skein(&[&args[..1], &["--dir", "state"], &args[1..]].concat());
    until("the engine", || skein(&["instance", "list"]).out.contains("ready"));
    let burst = "yes 0123456789abcdef0123456789abcdef | head -c 500000000; echo; echo the end";
    let begun = Instant::now();
    let id = skein(&["run", "--detach", "--name", "burst", "--", "sh", "-c", burst]).ok().out.trim().to_owned();
    let attempts = || skein(&["session", "attempts", &id, "--json"]).json();
    let mut slowest = Duration::ZERO;
    while attempts()[0]["ended_at"].is_null() && begun.elapsed() < Duration::from_mins(1) {
        let asked = Instant::now();
        skein(&["session", "list"]).ok();
        slowest = slowest.max(asked.elapsed());
    }
    let attempt = attempts()[0].clone();
    println!(
        "500 MB in {:?}; slowest answer meanwhile {slowest:?}; engine's peak {} kB",
        begun.elapsed(),
        peak_kb(engine.0.id())
    );
    assert_eq!(attempt["state"], "succeeded", "{attempt}");
    assert!(attempt["notes"].to_string().contains("its log was cut at 64 MiB"), "{attempt}");
    assert_eq!(attempts().as_array().unwrap().len(), 1, "no lease ended meanwhile");
    assert!(peak_kb(engine.0.id()) < ENGINE_KB_MAX, "{} kB", peak_kb(engine.0.id()));
    let log = home.path("state/logs").join(&id).join("0.0.1.out");
    assert!(log.metadata().unwrap().len() < 66 << 20);
    support::signal(&engine.0, "TERM");
    engine.0.wait().unwrap();
}

#[test]
fn a_hundred_thousand_lines_open_at_once_and_can_be_searched() {
    let home = Home::with_engine(&[]);
    let work = ["run", "--detach", "--name", "lines", "--array", "2", "--", "seq", "-f", "line %.0f", "100000"];
    let id = home.skein(&work).ok().out.trim().to_owned();
    until("the session to end", || home.json(&["session", "show", &id])["state"] == "succeeded");
    let begun = Instant::now();
    let said = home.skein(&["logs", &format!("{id}/lines[1]")]).ok();
    let took = begun.elapsed();
    println!("100,000 lines in {took:?}");
    assert_eq!(said.out.lines().count(), 100_000);
    // A debug build beside other tests; a release build takes some hundredths of a second.
    assert!(took < Duration::from_secs(5), "{took:?}");
    let begun = Instant::now();
    let found = home.skein(&["logs", &id, "--search", "line 9999"]).ok();
    println!("searched in {:?}", begun.elapsed());
    assert_eq!(found.out.lines().count(), 2 * 11);
    assert!(found.out.starts_with("lines[0] ") && found.out.contains(" out:9999: line 9999\n"), "{}", found.out);
    let found = home.skein(&["logs", &format!("{id}/lines[1]"), "--search", "^line 1?0$", "--regex"]).ok();
    assert_eq!(found.out.lines().count(), 1);
    let cut = home.skein(&["logs", &id, "--search", "line", "--limit", "5"]).ok();
    assert!(cut.out.lines().count() == 5 && cut.err.contains("there may be more"), "{}", cut.err);
    assert_eq!(home.skein(&["logs", &id, "--search", "nowhere"]).code, 1);
    assert!(home.skein(&["logs", &id, "--search", "(", "--regex"]).err.contains("pattern"));
}
