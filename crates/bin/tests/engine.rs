//! The CLI against an engine that is up with one agent.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::process::Stdio;
use std::time::Duration;

use support::{Home, finish, holds_text, signal, until};

#[test]
fn the_repository_keeps_versions_and_shows_defaults() {
    let home = Home::with_engine(&[]);
    home.write("hello.yaml", "name: hello\ncommand: [sh, -c, 'echo hello {index}']\ncpu: 10\n");
    assert!(home.skein(&["task", "add", "hello.yaml"]).ok().out.contains("version 1"));
    home.write("hello.yaml", "name: hello\ncommand: [sh, -c, 'echo hello again']\ncpu: 10\n");
    assert!(home.skein(&["task", "add", "hello.yaml"]).ok().out.contains("version 2"));
    let shown = home.skein(&["task", "show", "hello"]).ok().out;
    assert!(shown.contains("cpu             10\n") && shown.contains("memory_mb       256 (default)"), "{shown}");
    assert_eq!(home.skein(&["task", "run", "hello"]).ok().out, "hello again\n");
    assert_eq!(home.skein(&["task", "run", "hello", "--version", "1"]).ok().out, "hello 0\n");
    let set = home.skein(&["task", "run", "hello", "--set", "hello.array=2", "--version", "1"]).ok();
    assert_eq!(set.sorted_lines(), ["hello[0] | hello 0", "hello[1] | hello 1"]);
    assert_eq!(home.json(&["task", "list"])[0]["version"], 2);
    home.skein(&["task", "remove", "hello"]).ok();
    assert_eq!(home.skein(&["task", "run", "hello"]).code, 1);
    let wrong = home.skein(&["thread", "add", "hello.yaml"]);
    assert_eq!((wrong.code, wrong.err.contains("skein task add")), (2, true), "{}", wrong.err);
}

#[test]
fn a_session_can_be_looked_at_from_every_side() {
    let home = Home::with_engine(&[]);
    home.write(
        "t.toml",
        r#"
        description = "two"
        [tasks.first]
        array = 2
        command = ["sh", "-c", "echo out {index}; echo err {index} >&2; echo {index} > f"]
        outputs = ["f"]
        [tasks.second]
        command = ["echo", "done"]
        after = ["first"]
        "#,
    );
    let id = home.skein(&["run", "t.toml", "--detach"]).ok().out.trim().to_owned();
    until("the session to end", || home.json(&["session", "show", &id])["state"] == "succeeded");
    let list = home.json(&["session", "list"]);
    assert_eq!((&list[0]["session"], &list[0]["user"]), (&id.as_str().into(), &"tester".into()));
    assert_eq!(home.json(&["session", "attempts", &id]).as_array().unwrap().len(), 3);
    assert_eq!(home.json(&["session", "files", &id])[1]["path"], "f");
    home.skein(&["session", "files", &id, "--download", "got"]).ok();
    assert_eq!((home.read("got/first/0/f"), home.read("got/first/1/f")), ("0\n".to_owned(), "1\n".to_owned()));
    let logs = home.skein(&["logs", &id]).ok();
    assert_eq!(logs.sorted_lines(), ["first[0] | out 0", "first[1] | out 1", "second | done"]);
    assert_eq!(home.skein(&["logs", &format!("{id}/first[1]"), "--stderr"]).ok().out, "err 1\n");
    assert_eq!(home.skein(&["logs", &format!("{id}.0.1.1")]).ok().out, "out 1\n");
    assert_eq!(home.skein(&["logs", "-f", &format!("{id}/second")]).ok().out, "second | done\n");
    assert!(home.skein(&["logs", &format!("{id}/third")]).err.contains("it has: first, second"));
    assert!(home.skein(&["why", &id]).ok().out.contains("nothing waits"));
    assert_eq!(home.json(&["why", &format!("{id}/first[1]")])["state"], "ended");
    for table in [
        vec!["session", "list"],
        vec!["session", "show", &id],
        vec!["session", "attempts", &id],
        vec!["session", "files", &id],
    ] {
        let said = home.skein(&table).ok();
        assert!(said.out.lines().all(|line| line.trim_end() == line), "{}", said.out);
    }
}

#[test]
fn what_waits_says_why_and_can_be_stopped() {
    let home = Home::with_engine(&[]);
    let ask = ["run", "--detach", "--name", "big", "--memory-mb", "4000000", "--", "true"];
    let id = home.skein(&ask).ok().out.trim().to_owned();
    until("the reason", || home.skein(&["why", &id]).ok().out.contains("memory"));
    assert_eq!(home.json(&["why", &format!("{id}/big")])["state"], "waiting");
    home.skein(&["session", "stop", &id]).ok();
    until("the end", || home.json(&["session", "show", &id])["state"] == "cancelled");
}

#[test]
fn a_plan_says_where_and_starts_nothing() {
    let home = Home::with_engine(&[]);
    home.write("t.toml", "[tasks.a]\ncommand = [\"true\"]\narray = 3\nexpected_run_s = 2\n");
    until("the agent", || home.json(&["instance", "list"])[0]["connected"] == true);
    let plan = home.json(&["plan", "t.toml"]);
    assert_eq!((plan["items"].as_array().unwrap().len(), &plan["items"][0]["place"]), (3, &"local".into()));
    let table = home.skein(&["plan", "t.toml"]).ok().out;
    assert!(table.contains("0-2") && table.contains("3 items"), "{table}");
    assert_eq!(home.json(&["session", "list"]).as_array().unwrap().len(), 0);
}

#[test]
fn a_secret_is_used_and_never_shown() {
    let home = Home::with_engine(&[]);
    let value = "correct-horse-battery-staple";
    home.skein_with(&["secret", "set", "KEY"], &format!("{value}\n")).ok();
    let check = format!("test \"$K\" = {} && echo \"key: $K\"", value.replace("horse", "h''orse"));
    let said = home.skein(&["run", "--env", "K={secret:KEY}", "--", "sh", "-c", &check]).ok();
    assert_eq!(said.out, "key: ***\n");
    assert_eq!(home.json(&["secret", "list"])[0]["name"], "KEY");
    let found = holds_text(home.dir.path(), value);
    assert!(found.is_empty(), "the secret stands in {found:?}");
    assert!(home.skein_with(&["secret", "set", "EMPTY"], "\n").err.contains("empty"));
    home.skein(&["secret", "remove", "KEY"]).ok();
    let said = home.skein(&["run", "--env", "K={secret:KEY}", "--", "true"]);
    assert_eq!((said.code, said.err.contains("skein secret set KEY")), (1, true), "{}", said.err);
}

#[test]
fn tokens_are_made_once_and_revoked() {
    let home = Home::with_engine(&[]);
    let url = std::fs::read_to_string(home.path(".local/share/skein/engine.json")).unwrap();
    let url = serde_json::from_str::<serde_json::Value>(&url).unwrap()["url"].as_str().unwrap().to_owned();
    let token = home.skein(&["token", "new", "bob"]).ok().out.trim().to_owned();
    let as_bob = ["run", "--engine", &url, "--token", &token, "--", "true"];
    home.skein(&as_bob).ok();
    assert_eq!(home.json(&["session", "list"])[0]["user"], "bob");
    let id = home.json(&["token", "list"])[0]["id"].as_str().unwrap().to_owned();
    home.skein(&["token", "revoke", &id]).ok();
    assert_eq!(home.skein(&as_bob).code, 1);
    assert!(home.skein(&["token", "join"]).ok().out.starts_with("skein-join~"));
}

#[test]
fn ctrl_c_stops_a_session_and_the_engine_stays() {
    let home = Home::with_engine(&[]);
    let mut command = home.command(&["run", "--", "sleep", "300"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the start", || home.json(&["session", "list"])[0]["items"]["running"] == 1);
    signal(&child, "INT");
    assert_eq!(finish(child, "run", Duration::from_secs(30)).code, 130);
    assert_eq!(home.json(&["session", "list"])[0]["state"], "cancelled");
}

#[test]
fn a_configuration_is_checked_with_line_and_reason() {
    let home = Home::new();
    home.write("good.json", r#"{"solutions": {"own": {"kind": "dedicated", "price_per_hour_usd": 1.0}}}"#);
    home.write("bad.json", "{\n  \"solutions\": {},\n  \"colour\": 1\n}");
    home.skein(&["config", "check", "good.json"]).ok();
    let bad = home.skein(&["config", "check", "bad.json"]);
    assert_eq!(bad.code, 1);
    assert!(bad.err.contains("colour") && bad.err.contains("line 3"), "{}", bad.err);
}

#[test]
fn an_agent_killed_in_the_middle_loses_nothing_and_doubles_nothing() {
    let mut home = Home::new();
    let config = home.write("config.json", r#"{"lease_s": 3, "resource_time_check_s": 0.5}"#);
    home = Home::with_engine_in(home, &["--config", config.to_str().unwrap()]);
    let mut second = home
        .command(&["agent", "--name", "second", "--slots", "2"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the second agent to connect", || {
        home.json(&["instance", "list"])
            .as_array()
            .unwrap()
            .iter()
            .any(|i| i["instance"] == "second" && i["connected"] == true)
    });
    let id = home.skein(&["run", "--array", "8", "--detach", "--", "sleep", "0.7"]).ok().out.trim().to_owned();
    let attempts = || home.json(&["session", "attempts", &id]).as_array().unwrap().clone();
    until("the second agent to work", || attempts().iter().any(|a| a["place"] == "second" && a["state"] == "started"));
    signal(&second, "KILL");
    second.wait().unwrap();
    until("the session to end", || !home.json(&["session", "show", &id])["ended_at"].is_null());
    let all = attempts();
    let ended = |state: &str| all.iter().filter(|a| a["state"] == state).count();
    assert_eq!(home.json(&["session", "show", &id])["state"], "succeeded");
    assert_eq!(ended("succeeded"), 8, "one accepted end each: {all:?}");
    assert!(ended("lost") >= 1 && all.iter().all(|a| a["state"] != "lost" || a["place"] == "second"), "{all:?}");
}

#[test]
fn what_failed_runs_again_with_the_results_of_what_did_not() {
    let home = Home::with_engine(&[]);
    home.write(
        "t.toml",
        r#"
        [tasks.a]
        array = 4
        command = ["sh", "-c", "echo a{index} >> ran; [ {index} != 2 ] || [ -e $OK ] || exit 3; echo {index} > out"]
        env = { OK = "OKFILE" }
        outputs = ["out"]
        [tasks.side]
        command = ["sh", "-c", "echo side >> SIDEFILE"]
        [tasks.sum]
        after = ["a"]
        command = ["sh", "-c", "cat in-* > all"]
        inputs = [{ path = "in-{from_index}", from = "a", output = "out" }]
        outputs = ["all"]
        "#,
    );
    let text = home.read("t.toml");
    let at = |name: &str| home.path(name).to_str().unwrap().to_owned();
    home.write("t.toml", &text.replace("OKFILE", &at("ok")).replace("SIDEFILE", &at("side")));
    let id = home.skein(&["run", "t.toml", "--detach"]).ok().out.trim().to_owned();
    let state = |id: &str| home.json(&["session", "show", id])["state"].as_str().unwrap().to_owned();
    let early = home.skein(&["session", "rerun", &id]);
    assert!(early.code == 0 || early.err.contains("has not ended"), "{}", early.err);
    until("the session to fail", || state(&id) == "failed");
    assert_eq!(home.json(&["session", "show", &id])["actions"], serde_json::json!(["rerun", "rerun --all"]));
    home.write("ok", "");
    let again = home.skein(&["session", "rerun", &id]).ok().out.trim().to_owned();
    until("it to succeed", || state(&again) == "succeeded");
    let attempts = home.json(&["session", "attempts", &again]);
    let ran: Vec<String> =
        attempts.as_array().unwrap().iter().map(|a| format!("{}{}", a["node"], a["index"])).collect();
    assert_eq!(ran, ["\"a\"2", "\"sum\"0"], "only what failed and what comes after it");
    assert_eq!(home.read("side"), "side\n");
    home.skein(&["session", "files", &again, "--download", "got"]).ok();
    assert_eq!(home.read("got/sum/all"), "0\n1\n2\n3\n");
    assert_eq!(home.read("got/a/3/out"), "3\n", "what it took over can be fetched from it");
    let nothing = home.skein(&["session", "rerun", &again]);
    assert!(nothing.code != 0 && nothing.err.contains("--all"), "{}", nothing.err);
    let whole = home.skein(&["session", "rerun", &again, "--all"]).ok().out.trim().to_owned();
    until("all of it to run again", || state(&whole) == "succeeded");
    assert_eq!(home.json(&["session", "attempts", &whole]).as_array().unwrap().len(), 6);
    let until_a = home.skein(&["run", "t.toml", "--detach", "--until", "a"]).ok().out.trim().to_owned();
    until("it to end", || state(&until_a) == "succeeded");
    assert_eq!(home.json(&["session", "attempts", &until_a]).as_array().unwrap().len(), 4);
    assert!(home.skein(&["run", "t.toml", "--until", "b"]).err.contains("no such task (there are: a, side, sum)"));
}

#[test]
fn what_runs_takes_signals_and_lines() {
    let home = Home::with_engine(&[]);
    home.write(
        "t.toml",
        r#"
        [tasks.talk]
        stdin = true
        command = ["sh", "-c", "trap 'echo usr1; X=1' USR1; echo ready; read line; echo got $line; while [ -z $X ]; do sleep 0.05; done; cat; echo over"]
        [tasks.deaf]
        command = ["sleep", "600"]
        "#,
    );
    let id = home.skein(&["run", "t.toml", "--detach"]).ok().out.trim().to_owned();
    let (talk, deaf) = (format!("{id}/talk"), format!("{id}/deaf"));
    let log = || home.skein(&["logs", &talk]).out;
    until("it to be ready", || log().contains("ready"));
    let actions = |node: &str| {
        let open = home.json(&["session", "attempts", &id]);
        open.as_array().unwrap().iter().find(|a| a["node"] == node).map(|a| a["actions"].clone())
    };
    until("its actions", || actions("talk") == Some(serde_json::json!(["signal", "input"])));
    until("the other's", || actions("deaf") == Some(serde_json::json!(["signal"])));
    home.skein(&["session", "input", &talk, "one line"]).ok();
    until("the line to arrive", || log().contains("got one line"));
    home.skein(&["session", "signal", &talk, "SIGUSR1"]).ok();
    until("the signal to arrive", || log().contains("usr1"));
    let no = home.skein(&["session", "input", &deaf, "x"]);
    assert!(no.code != 0 && no.err.contains("stdin = true"), "{}", no.err);
    assert!(home.skein(&["session", "signal", &deaf, "NOPE"]).err.contains("is no signal"));
    home.skein(&["session", "signal", &deaf, "9"]).ok();
    home.skein(&["session", "input", &talk, "--end"]).ok();
    until("the session to end", || home.json(&["session", "show", &id])["state"] == "failed");
    assert!(log().ends_with("over\n"), "{}", log());
    let late = home.skein(&["session", "signal", &talk, "HUP"]);
    assert!(late.code != 0 && late.err.contains("nothing runs"), "{}", late.err);
}

#[test]
fn a_function_is_called_by_its_name() {
    let home = Home::new();
    home.write("greet.sh", "echo \"hello $WHO\"; echo made > out\n");
    let script = format!("greet=sh {}", home.path("greet.sh").display());
    let mut command = home.command(&["functions", "--listen", "127.0.0.1:0", "--dir", "fn", "--announce", "address"]);
    let command = command.args(["--function", &script]).stdin(Stdio::null()).stderr(Stdio::null());
    let _host = support::Guard(command.spawn().unwrap());
    until("the host to listen", || home.path("address").exists());
    let url = home.read("address");
    let config =
        serde_json::json!({"solutions": {"here": {"kind": "shared", "url": format!("http://{}", url.trim())}}});
    home.write("config.json", &config.to_string());
    let home = Home::with_engine_in(home, &["--config", "config.json"]);
    let task = |name: &str| {
        format!(
            "name = \"g\"\nfunction = \"{name}\"\nenv = {{ WHO = \"you\" }}\noutputs = [\"out\"]\nlongest_run_s = 30\n"
        )
    };
    home.write("greet.toml", &task("greet"));
    let said = home.skein(&["run", "greet.toml"]).ok();
    assert!(said.out.contains("hello you"), "{}", said.out);
    home.write("none.toml", &(task("none") + "retry = { refused = 0 }\n"));
    let said = home.skein(&["run", "none.toml"]);
    let all = said.out.clone() + &said.err;
    assert!(said.code != 0 && all.contains("there is no function 'none' here (there are: greet)"), "{all}");
}

#[test]
fn items_of_an_array_are_cancelled_by_index_and_the_rest_goes_on() {
    let home = Home::with_engine(&[]);
    home.write(
        "t.toml",
        r#"
        [tasks.a]
        array = 30
        command = ["sh", "-c", "[ {index} = 0 ] && exec sleep 600; echo {index}"]
        cpu = 100
        [tasks.b]
        after = [{ task = "a", when = "end" }]
        command = ["echo", "after"]
        "#,
    );
    let id = home.skein(&["run", "t.toml", "--detach"]).ok().out.trim().to_owned();
    let item = |text: &str| format!("{id}/a{text}");
    until("the first to run", || home.json(&["session", "attempts", &id])[0]["state"] == "started");
    // It has the machine to itself: the others wait. Some of them are cancelled, then the first itself.
    home.skein(&["session", "cancel", &item(""), "--indices", "3,10-19,29"]).ok();
    let bad = home.skein(&["session", "cancel", &item(""), "--indices", "25-30"]);
    assert!(bad.code != 0 && bad.err.contains("0..30"), "{}", bad.err);
    let items = || home.json(&["session", "show", &id])["nodes"][0]["items"].clone();
    assert_eq!((&items()["cancelled"], &items()["running"]), (&12.into(), &1.into()));
    home.skein(&["session", "cancel", &item("[0]")]).ok();
    until("the session to end", || home.json(&["session", "show", &id])["state"] == "succeeded");
    assert_eq!((&items()["cancelled"], &items()["succeeded"]), (&13.into(), &17.into()));
    let said = home.skein(&["logs", &id]).ok().out;
    assert!(said.contains("a[28] | 28") && !said.contains("a[10]") && said.contains("b | after"), "{said}");
}

/// What can be done to items of a session's only task, and how many are in which state.
fn items_of(home: &Home, id: &str) -> (Vec<String>, serde_json::Value) {
    let node = home.json(&["session", "show", id])["nodes"][0].clone();
    let actions = node["actions"].as_array().cloned().unwrap_or_default();
    (actions.iter().map(|action| action.as_str().unwrap().to_owned()).collect(), node["items"].clone())
}

#[test]
fn items_that_wait_for_their_back_off_are_tried_at_once_by_index_or_all() {
    let home = Home::with_engine(&[]);
    let go = home.path("go").display().to_string();
    let command = serde_json::json!(["sh", "-c", format!("[ -e {go} ]")]);
    let task = serde_json::json!({"name": "t", "command": command, "array": 6, "retries": 9, "retry": {"backoff_s": 600, "backoff_max_s": 600}});
    home.write("t.json", &task.to_string());
    let id = home.skein(&["run", "t.json", "--detach"]).ok().out.trim().to_owned();
    let item = |text: &str| format!("{id}/t{text}");
    let attempts = || home.json(&["session", "attempts", &id]).as_array().unwrap().len();
    let failed = || {
        let all = home.json(&["session", "attempts", &id]);
        all.as_array().unwrap().iter().filter(|a| a["state"] == "failed").count()
    };
    until("each to fail once", || failed() == 6);
    assert_eq!(items_of(&home, &id).0, ["cancel", "retry-now"]);
    home.write("go", "");
    home.skein(&["session", "retry-now", &item(""), "--indices", "0,2-3"]).ok();
    until("three to succeed", || items_of(&home, &id).1["succeeded"] == 3);
    assert_eq!(attempts(), 9, "the others still wait");
    home.skein(&["session", "retry-now", &item("[5]")]).ok();
    until("one more to succeed", || items_of(&home, &id).1["succeeded"] == 4);
    let ended = home.skein(&["session", "retry-now", &item("[5]")]);
    assert!(ended.code != 0 && ended.err.contains("waits for its back-off"), "{}", ended.err);
    let beyond = home.skein(&["session", "retry-now", &item(""), "--indices", "4-6"]);
    assert!(beyond.code != 0 && beyond.err.contains("0..6"), "{}", beyond.err);
    home.skein(&["session", "retry-now", &item("")]).ok();
    until("the session to end", || home.json(&["session", "show", &id])["state"] == "succeeded");
    assert_eq!(
        (attempts(), items_of(&home, &id).0),
        (12, Vec::new()),
        "each was tried twice, and nothing is left to do"
    );
}

#[test]
fn items_that_ask_are_answered_by_index_or_all() {
    let home = Home::with_engine(&[]);
    let agent = |token: Option<&str>| {
        let mut command = home.command(&["agent", "--name", "b", "--role", "far", "--slots", "6", "--dir", "b"]);
        if let Some(token) = token {
            command.env("SKEIN_JOIN", token);
        }
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        support::Guard(command.stderr(std::process::Stdio::null()).spawn().unwrap())
    };
    let mut first = agent(Some(home.skein(&["token", "join"]).ok().out.trim()));
    let (go, log) = (home.path("go").display().to_string(), home.path("log").display().to_string());
    let work = format!("echo {{index}} >> {log}; until [ -e {go} ]; do sleep 0.05; done");
    let task = serde_json::json!({"name": "t", "command": ["sh", "-c", work], "array": 6, "role": "far",
        "memory_mb": 16, "on_lost": "ask", "running_mode": "dedicated"});
    home.write("t.json", &task.to_string());
    let id = home.skein(&["run", "t.json", "--detach"]).ok().out.trim().to_owned();
    let item = |text: &str| format!("{id}/t{text}");
    let begun = || std::fs::read_to_string(home.path("log")).unwrap_or_default().lines().count();
    until("all to run", || begun() == 6);
    let early = home.skein(&["session", "answer", &item(""), "--all", "--again"]);
    assert!(early.code != 0 && early.err.contains("asks"), "{}", early.err);
    // Its place is lost: a new agent of that name says so.
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    let _second = agent(None);
    until("them to ask", || items_of(&home, &id).0 == ["cancel", "answer"]);
    until("all of them", || items_of(&home, &id).1["running"] == 0);
    home.skein(&["session", "answer", &item(""), "--indices", "1,3-4", "--again"]).ok();
    until("three to run again", || begun() == 9);
    home.skein(&["session", "answer", &item("[0]"), "--lost"]).ok();
    assert_eq!(items_of(&home, &id).1["lost"], 1);
    let both = home.skein(&["session", "answer", &item("[0]"), "--all"]);
    assert_ne!(both.code, 0);
    home.skein(&["session", "answer", &item(""), "--all"]).ok();
    assert_eq!(items_of(&home, &id).1["lost"], 3, "what runs again asks no more");
    home.write("go", "");
    until("the session to end", || home.json(&["session", "show", &id])["state"] == "failed");
    assert_eq!(items_of(&home, &id).1["succeeded"], 3);
}
