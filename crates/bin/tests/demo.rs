//! The main job: `skein demo` on the real data, also when it is killed half-way.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use support::{Home, finish, until};

/// Attempts that end before the demo is killed.
const ENDED_BEFORE_THE_KILL: usize = 15;
/// A slow machine with other tests beside it.
const DEMO_MAX: Duration = Duration::from_mins(10);

/// Starts the demo and kills it when some attempts have ended; gives its session.
fn killed_half_way(home: &Home) -> String {
    let mut command = home.command(&["demo", "--json", "--no-stay", "--dir", "d"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut session = String::new();
    let mut ended = 0;
    for line in lines {
        if let Some(rest) = line.strip_prefix("session") {
            rest.trim_start().split(':').next().unwrap().clone_into(&mut session);
        }
        ended += usize::from(line.contains("succeeded; why there: "));
        if ended == ENDED_BEFORE_THE_KILL {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(ended, ENDED_BEFORE_THE_KILL, "the demo ended by itself");
    until("its agents and functions to end", || {
        let marker = home.dir.path().display().to_string();
        !support::command_lines().iter().any(|line| line.contains(&marker))
    });
    session
}

#[test]
fn the_demo_survives_a_kill_and_uses_both_kinds_of_place() {
    let home = Home::new();
    let session = killed_half_way(&home);
    let mut command = home.command(&["demo", "--json", "--no-stay", "--dir", "d"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let said = finish(child, "demo", DEMO_MAX).ok();
    assert!(said.err.contains("it goes on"), "{}", said.err);
    let summary: Value = serde_json::from_str(said.out.trim()).unwrap();
    assert_eq!((&summary["session"], &summary["state"]), (&session.into(), &"succeeded".into()), "{summary}");
    // Each item has exactly one accepted end.
    assert_eq!((&summary["items"]["total"], &summary["items"]["succeeded"]), (&69.into(), &69.into()), "{summary}");
    for kind in ["instance", "function"] {
        assert!(summary["attempts_by_kind"][kind].as_u64().is_some_and(|count| count > 0), "{summary}");
    }
    assert!(summary["cost_usd"].as_f64().is_some_and(|cost| cost > 0.0), "{summary}");
    let figures: Value = serde_json::from_str(&home.read("d/results/figures.json")).unwrap();
    assert_eq!(figures["logs"].as_array().unwrap().len(), 2);
    assert!(home.read("d/results/load.svg").ends_with("</svg>\n"));
    home.assert_clean();
    // What both engines decided comes out again, byte for byte, from what is on record.
    let again = home.json(&["simulate", "--from-ledger", "d", "--session", summary["session"].as_str().unwrap()]);
    assert_eq!((&again["orders_differing"], &again["items"]), (&0.into(), &69.into()), "{again}");
    assert!(again["orders_equal"].as_u64().is_some_and(|orders| orders >= 69), "{again}");
    // And what its items would have cost otherwise.
    let (played, policy) = (&again["played"], &again["played"]["policies"][0]);
    assert_eq!((&played["items"], &policy["policy"]), (&again["items"], &"on record".into()), "{played}");
    assert!(policy["figures"]["cost"].as_f64().is_some_and(|cost| cost > 0.0), "{policy}");
}
