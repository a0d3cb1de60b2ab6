//! Groups, from the thread file to the agents that run their tasks: two agents on two servers of the configuration.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::process::Stdio;

use serde_json::{Value, json};
use support::{Guard, Home, until};

const THREAD: &str = include_str!("../../../examples/groups/thread.toml");
const ENGINE: &str = include_str!("../../../examples/groups/engine.json");

fn engine(home: &Home) -> Guard {
    let mut up = home.command(&["up", "--listen", "127.0.0.1:0", "--config", "engine.json"]);
    let up = Guard(up.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    until("the engine to be up", || home.skein(&["instance", "list"]).code == 0);
    up
}

fn agent(home: &Home, name: &str) -> Guard {
    let mut command = home.command(&["agent", "--name", name, "--slots", "4", "--dir", name]);
    command.env("SKEIN_JOIN", home.skein(&["token", "join"]).ok().out.trim());
    let agent = Guard(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    until("the agent to join", || ready(home, name));
    agent
}

fn ready(home: &Home, name: &str) -> bool {
    let all = home.json(&["instance", "list"]);
    all.as_array().unwrap().iter().any(|i| i["instance"] == name && i["state"] == "ready" && i["connected"] == true)
}

fn thread(home: &Home, name: &str, tasks: Value, groups: Value) {
    let thread = json!({"name": name, "running_mode": "dedicated", "tasks": tasks, "groups": groups});
    home.write(&format!("{name}.json"), &thread.to_string());
}

/// Where each node of an ended session ran.
fn places(home: &Home, id: &str) -> BTreeMap<String, String> {
    until("the session to end", || home.json(&["session", "show", id])["state"] == "succeeded");
    let attempts = home.json(&["session", "attempts", id]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    attempts.as_array().unwrap().iter().map(|a| (text(&a["node"]), text(&a["place"]))).collect()
}

#[test]
fn the_example_is_planned_and_runs_as_it_was_planned() {
    let home = Home::new();
    home.write("engine.json", ENGINE);
    home.write("thread.toml", THREAD);
    let _up = engine(&home);
    let _agents = [agent(&home, "alpha"), agent(&home, "beta")];
    let plan = home.json(&["plan", "thread.toml"]);
    let deployment = &plan["deployment"];
    assert_eq!((&deployment["state"], &deployment["proved"]), (&json!("planned"), &json!(true)), "{deployment}");
    let server = |name: &str| {
        let members = deployment["members"].as_array().unwrap();
        members.iter().find(|m| m["name"] == name).unwrap()["server"].as_str().unwrap().to_owned()
    };
    assert_eq!((server("front"), server("cache")), ("s2".to_owned(), "s2".to_owned()), "near the door");
    assert_ne!(server("store-a"), server("store-b"));
    let rules = deployment["rules"].as_array().unwrap();
    assert!(rules.iter().all(|rule| !rule["by"].as_str().unwrap().is_empty()) && rules.len() >= 9, "{rules:?}");
    let shown = home.skein(&["plan", "thread.toml"]).ok().out;
    for part in [
        "  north",
        "    r1",
        "      s1: store-",
        "pipe cache - front: 400 Mbit/s, in one server",
        "held by north/r2 | north/r1",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let id = home.skein(&["run", "thread.toml", "--detach"]).ok().out.trim().to_owned();
    let instance = BTreeMap::from([("s1", "alpha"), ("s2", "beta")]);
    for (node, place) in places(&home, &id) {
        assert_eq!(place, instance[server(&node).as_str()], "{node}");
    }
}

#[test]
fn a_plan_outlives_the_engine_and_waits_for_its_servers() {
    let home = Home::new();
    home.write("engine.json", ENGINE);
    let mut up = engine(&home);
    let alpha = agent(&home, "alpha");
    let go = home.path("go").display().to_string();
    let wait = json!({"command": ["sh", "-c", format!("until [ -e {go} ]; do sleep 0.05; done")], "memory_mb": 16});
    let tasks = json!({"a": wait, "b": wait});
    thread(&home, "apart", tasks.clone(), json!([{"name": "g", "members": ["a", "b"], "diversity": "server"}]));
    thread(&home, "beside", tasks.clone(), json!([{"name": "g", "members": ["a", "b"], "affinity": "server"}]));
    let three = json!({"a": wait, "b": wait, "c": wait});
    thread(&home, "wide", three, json!([{"name": "g", "members": ["a", "b", "c"], "diversity": "server"}]));

    // What no server could ever hold is refused by name; what only lacks an agent waits, and says for what.
    let refused = home.skein(&["run", "wide.json", "--detach"]);
    assert!(refused.code != 0 && refused.err.contains("diversity (server) of group 'g'"), "{}", refused.err);
    let apart = home.skein(&["run", "apart.json", "--detach"]).ok().out.trim().to_owned();
    let why = home.skein(&["why", &format!("{apart}/a")]).out;
    assert!(why.contains("no deployment plan") && why.contains("diversity (server) of group 'g'"), "{why}");
    let beside = home.skein(&["run", "beside.json", "--detach"]).ok().out.trim().to_owned();
    let deployed = |id: &str| home.json(&["session", "show", id])["deployment"].clone();
    assert_eq!((&deployed(&apart)["state"], &deployed(&beside)["state"]), (&json!("waits"), &json!("planned")));

    // Killed, the engine has the same plans when it is back.
    let before = (deployed(&apart), deployed(&beside));
    drop(alpha);
    up.0.kill().unwrap();
    up.0.wait().unwrap();
    let _up = engine(&home);
    assert_eq!((deployed(&apart), deployed(&beside)), before);

    let mut command = home.command(&["agent", "--name", "alpha", "--slots", "4", "--dir", "alpha"]);
    let _alpha = Guard(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    until("alpha to be back", || ready(&home, "alpha"));
    let _beta = agent(&home, "beta");
    until("the plan", || deployed(&apart)["state"] == "planned");
    home.write("go", "");
    let went = places(&home, &apart);
    assert_ne!(went["a"], went["b"]);
    let went = places(&home, &beside);
    assert_eq!((went["a"].as_str(), went["b"].as_str()), ("alpha", "alpha"));
}
