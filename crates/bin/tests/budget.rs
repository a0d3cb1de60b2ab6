//! Budgets with a real engine and a real agent: what is said before, what pauses, what goes on, what is refused.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod support;

use serde_json::{Value, json};
use support::{Home, until};

/// One slot that costs a dollar a second; three items that are expected to run one second, and run a tenth.
fn home(budgets: &Value) -> Home {
    let home = Home::new();
    home.write("config.json", &config(budgets));
    let task = json!({"name": "t", "command": ["sleep", "0.1"], "array": 3, "expected_run_s": 1, "longest_run_s": 60});
    home.write("t.json", &task.to_string());
    let home = Home::with_engine_in(home, &["--config", "config.json"]);
    // What finds no place at all has no price.
    until("the agent to be there", || home.skein(&["instance", "list"]).out.contains("ready"));
    home
}

fn config(budgets: &Value) -> String {
    let own = json!({"kind": "dedicated", "price_per_hour_usd": 3600, "slots_max": 1});
    json!({"solutions": {"own": own}, "budgets": budgets}).to_string()
}

/// As an editor writes it, and until it holds.
fn configure(home: &Home, session: &str, budgets: &Value) {
    let new = home.write("config.json.new", &config(budgets));
    std::fs::rename(new, home.path("config.json")).unwrap();
    let limit = budgets["session"]["usd"].as_i64().unwrap() * 1_000_000_000;
    let holds = |cap: &Value| cap["limit_nano_usd"] == limit;
    until("the new budget to hold", || {
        home.json(&["session", "show", session])["budgets"].as_array().is_some_and(|caps| caps.iter().any(holds))
    });
}

fn state(home: &Home, session: &str) -> String {
    home.json(&["session", "show", session])["state"].as_str().unwrap().to_owned()
}

fn becomes(home: &Home, session: &str, wanted: &str) {
    until(wanted, || state(home, session) == wanted);
}

#[test]
fn a_cap_pauses_says_why_and_the_session_goes_on_to_its_end_when_it_is_raised() {
    let home = home(&json!({"session": {"usd": 1.05}}));
    let plan = home.skein(&["plan", "t.json"]).ok().out;
    assert!(plan.contains("3 items, ") && plan.contains(" in all, $3.0000"), "{plan}");
    let over = "over budget: $3.0000 is $1.9500 more than is left of the budget of a session";
    assert!(plan.contains(over), "{plan}");

    let started = home.skein(&["run", "--detach", "t.json"]).ok();
    let expected = "expected to cost $3.0000; $1.0500 left of the budget of a session";
    assert!(started.err.contains(expected), "{}", started.err);
    let session = started.out.trim();
    becomes(&home, session, "paused");
    let shown = home.skein(&["session", "show", session]).ok().out;
    assert!(shown.contains("paused: the budget of a session is $1.0500: $0."), "{shown}");
    assert!(shown.contains("and this asks for $1.0000; raise budgets.session.usd in the configuration"), "{shown}");
    let why = home.skein(&["why", &format!("{session}/t[2]")]).ok().out;
    assert!(why.contains("over budget: the budget of a session is $1.0500: $0."), "{why}");
    assert!(why.contains("raise budgets.session.usd in the configuration, then 'skein session resume"), "{why}");

    home.skein(&["session", "resume", session]).ok();
    becomes(&home, session, "paused");
    configure(&home, session, &json!({"session": {"usd": 100}}));
    home.skein(&["session", "resume", session]).ok();
    becomes(&home, session, "succeeded");
}

#[test]
fn a_session_that_a_cap_refuses_leaves_nothing_and_one_given_at_launch_is_given_anew() {
    let home = home(&json!({"month": {"usd": 2, "action": "refuse"}}));
    let refused = home.skein(&["run", "t.json"]);
    assert_eq!(refused.code, 1);
    let why = "skein: the session is not started: the budget of all for 20";
    assert!(refused.err.contains(why), "{}", refused.err);
    let figures = "is $2.0000: $0.00 spent, $0.00 expected of what is open, and this asks for $3.0000; \
                   raise budgets.month.usd in the configuration, or start less";
    assert!(refused.err.contains(figures), "{}", refused.err);
    assert_eq!(home.json(&["session", "list"]), json!([]));

    let one = ["run", "--detach", "--budget", "0.5", "--set", "t.array=1", "t.json"];
    let session = home.skein(&one).ok().out.trim().to_owned();
    becomes(&home, &session, "paused");
    let shown = home.skein(&["session", "show", &session]).ok().out;
    assert!(shown.contains("'skein session resume SESSION --budget USD' with more"), "{shown}");
    home.skein(&["session", "resume", &session, "--budget", "1.5"]).ok();
    becomes(&home, &session, "succeeded");
}
