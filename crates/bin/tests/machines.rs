//! Machines made and ended by commands: here each is a process group of its own with a real agent in it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{Home, until};

/// Makes a machine of a name, unless there is one; prints the "cloud's" name for it.
const CREATE: &str = r#"
cd "$1"
if [ ! -e "$SKEIN_ENGINE~$SKEIN_NAME.pid" ]; then
  setsid "$2" agent --engine "$SKEIN_URL" --name "$SKEIN_NAME" --solution "$SKEIN_SOLUTION" --slots 2 \
    --dir "$1/$SKEIN_ENGINE~$SKEIN_NAME.dir" --drain-s 5 </dev/null >"$SKEIN_ENGINE~$SKEIN_NAME.log" 2>&1 &
  echo $! >"$SKEIN_ENGINE~$SKEIN_NAME.pid"
  echo "$SKEIN_NAME" >>made
fi
cat "$SKEIN_ENGINE~$SKEIN_NAME.pid"
"#;
const END: &str = r#"
cd "$1"
[ -e "$SKEIN_ENGINE~$SKEIN_NAME.pid" ] || exit 0
kill -s KILL -- "-$(cat "$SKEIN_ENGINE~$SKEIN_NAME.pid")" 2>/dev/null
rm -f "$SKEIN_ENGINE~$SKEIN_NAME.pid"
echo "$SKEIN_NAME" >>ended
"#;
const LIST: &str = r#"
cd "$1"
echo "$SKEIN_ENGINE" >>listed
for f in *.pid; do [ -e "$f" ] && n="${f%.pid}" && echo "${n%~*} ${n#*~} i-$(cat "$f")"; done
exit 0
"#;

fn lab(home: &Home, more: &Value) -> Value {
    let (cloud, skein) = (home.path("cloud"), env!("CARGO_BIN_EXE_skein"));
    std::fs::create_dir_all(&cloud).unwrap();
    let command = |script: &str| serde_json::json!(["sh", "-c", script, "sh", cloud.to_str(), skein]);
    let mut machines = serde_json::json!({
        "create": command(CREATE), "end": command(END), "list": command(LIST),
        "max": 2, "idle_s": 1, "boot_s": 20, "list_s": 1, "avoid_s": 1, "slots": 2, "memory_mb": 512,
    });
    machines.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::json!({
        "resource_time_check_s": 0.2, "lease_s": 2.0,
        "defaults": {"hold_idle_s": 0.5},
        "solutions": {"lab": {"kind": "dedicated", "price_per_hour_usd": 0.1, "machines": machines}},
    })
}

fn with_lab(more: &Value) -> Home {
    let home = Home::new();
    let config = lab(&home, more);
    home.write("config.json", &config.to_string());
    Home::with_engine_in(home, &["--config", "config.json"])
}

/// Ends the machines that are left, whatever becomes of the test.
struct Cloud(std::path::PathBuf);

impl Drop for Cloud {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let pid = std::fs::read_to_string(entry.path()).unwrap_or_default();
            if entry.path().extension().is_some_and(|e| e == "pid") {
                Command::new("kill").args(["-s", "KILL", "--", &format!("-{}", pid.trim())]).status().ok();
            }
        }
    }
}

fn lines(home: &Home, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(home.path("cloud").join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn there(home: &Home) -> usize {
    let entries = std::fs::read_dir(home.path("cloud")).unwrap().flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|e| e == "pid")).count()
}

fn states(home: &Home) -> Vec<(String, String)> {
    let all = home.json(&["instance", "list", "--all"]);
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let lab = all.as_array().unwrap().iter().filter(|row| row["solution"] == "lab");
    lab.map(|row| (text(row, "instance"), text(row, "state"))).collect()
}

#[test]
fn machines_come_with_the_work_and_go_when_it_is_done() {
    let home = with_lab(&serde_json::json!({}));
    let _cloud = Cloud(home.path("cloud"));
    let work =
        ["run", "--name", "w", "--array", "12", "--set", "w.solution=lab", "--", "sh", "-c", "sleep 0.2; echo ok"];
    assert_eq!(home.skein(&work).ok().out.matches("ok").count(), 12);
    let mut made = lines(&home, "made");
    made.sort();
    assert!((1..=2).contains(&made.len()), "{made:?}");
    until("every machine to be ended", || there(&home) == 0);
    until("the ledger to know", || states(&home).iter().all(|(_, state)| state == "gone"));
    let mut ended = lines(&home, "ended");
    ended.sort();
    ended.dedup();
    assert_eq!(ended, made, "each that was made was ended");
}

#[test]
fn what_nobody_owns_is_ended_and_what_is_protected_is_not() {
    let home = with_lab(&serde_json::json!({}));
    let sleeper = |name: &str| {
        let child = Command::new("setsid").args(["sleep", "600"]).stdin(Stdio::null()).spawn().unwrap();
        home.write(&format!("cloud/skein~{name}.pid"), &child.id().to_string());
        child
    };
    let mut orphan = sleeper("lab-0-7");
    until("the orphan to be ended", || there(&home) == 0);
    assert!(orphan.wait().unwrap().code().is_none(), "it was ended by a signal");
    let mut config = lab(&home, &serde_json::json!({}));
    config["do_not_terminate"] = serde_json::json!(["lab-0-8"]);
    home.write("config.json", &config.to_string());
    until("the configuration to be in force", || home.skein(&["config", "show"]).out.contains("lab-0-8"));
    let mut kept = sleeper("lab-0-8");
    let mut second = sleeper("lab-0-9");
    until("the other orphan to be ended", || there(&home) == 1);
    second.wait().unwrap();
    assert!(kept.try_wait().unwrap().is_none(), "the protected one is still there");
    Command::new("kill").arg(kept.id().to_string()).status().unwrap();
    kept.wait().unwrap();
    std::fs::remove_file(home.path("cloud/skein~lab-0-8.pid")).unwrap();
}

#[test]
fn a_machine_that_vanishes_is_replaced_and_its_work_goes_on() {
    let home = with_lab(&serde_json::json!({"max": 1}));
    let _cloud = Cloud(home.path("cloud"));
    let work = ["run", "--detach", "--name", "w", "--set", "w.solution=lab", "--", "sh", "-c", "sleep 1; echo ok"];
    let id = home.skein(&work).ok().out.trim().to_owned();
    until("it to run", || home.json(&["session", "attempts", &id])[0]["state"] == "started");
    let pid =
        std::fs::read_to_string(home.path("cloud").join(format!("skein~{}.pid", lines(&home, "made")[0]))).unwrap();
    Command::new("kill").args(["-s", "KILL", "--", &format!("-{}", pid.trim())]).status().unwrap();
    until("the session to end", || home.json(&["session", "show", &id])["state"] == "succeeded");
    assert_eq!(lines(&home, "made").len(), 2, "another one was made");
    until("every machine to be ended", || there(&home) == 0);
}

#[test]
fn a_cloud_without_capacity_is_left_in_peace_and_says_why() {
    let home =
        with_lab(&serde_json::json!({"create": ["sh", "-c", "echo asked >>cloud/asked; echo full >&2; exit 75"]}));
    let id = home.skein(&["run", "--detach", "--name", "w", "--set", "w.solution=lab", "--", "true"]).ok().out;
    until("it to be asked twice", || lines(&home, "asked").len() >= 2);
    let why = home.skein(&["why", id.trim()]).ok().out;
    assert!(why.contains("there is no capacity now: full"), "{why}");
    assert!(Path::new(&home.path("cloud")).is_dir());
    home.skein(&["session", "stop", id.trim()]).ok();
}

/// Answers 404, and once it is told so a notice.
fn notices() -> (String, std::sync::Arc<std::sync::atomic::AtomicBool>) {
    use std::io::{Read as _, Write as _};
    use std::sync::atomic::{AtomicBool, Ordering};
    let (listener, going) =
        (std::net::TcpListener::bind("127.0.0.1:0").unwrap(), std::sync::Arc::new(AtomicBool::new(false)));
    let (url, told) = (format!("http://{}/spot/instance-action", listener.local_addr().unwrap()), going.clone());
    std::thread::spawn(move || {
        for mut peer in listener.incoming().flatten() {
            let mut ask = [0; 2048];
            let read = peer.read(&mut ask).unwrap_or(0);
            let is_look = ask[..read].starts_with(b"GET");
            let body = r#"{"action": "terminate", "time": "2026-01-01T00:00:00Z"}"#;
            let answer = if is_look && told.load(Ordering::Relaxed) {
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
            } else {
                "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
            };
            peer.write_all(answer.as_bytes()).ok();
        }
    });
    (url, going)
}

#[test]
fn a_spot_notice_moves_what_may_move_and_what_ends_with_the_machine_was_preempted() {
    let home = Home::new();
    home.write("config.json", r#"{"resource_time_check_s": 0.2, "lease_s": 2.0}"#);
    let home = Home::with_engine_in(home, &["--config", "config.json"]);
    let (url, going) = notices();
    let mut command = home.command(&["agent", "--name", "spot", "--role", "spot", "--slots", "2", "--dir", "spot"]);
    command.args(["--notice-url", &url]).stderr(Stdio::null());
    let mut spot = support::Guard(command.spawn().unwrap());
    let start = |name: &str, more: &str, work: &str| {
        let task = format!("name = \"{name}\"\ncommand = [\"sh\", \"-c\", \"{work}\"]\n{more}");
        home.write(&format!("{name}.toml"), &task);
        home.skein(&["run", &format!("{name}.toml"), "--detach"]).ok().out.trim().to_owned()
    };
    until("the agent to join", || home.skein(&["instance", "list"]).out.contains("spot"));
    let moves = start("moves", "movable = true\nrole = \"spot\"", "sleep 30");
    let stays = start("stays", "role = \"spot\"", "sleep 30");
    let on = |id: &str| home.json(&["session", "attempts", id]);
    let ending = |id: &str| on(id)[0]["ending"].as_str().unwrap_or_default().to_owned();
    until("both to run", || [&moves, &stays].iter().all(|id| on(id)[0]["state"] == "started"));
    going.store(true, std::sync::atomic::Ordering::Relaxed);
    until("it to be moved", || ending(&moves).starts_with("moved"));
    assert!(home.skein(&["instance", "list"]).out.contains("draining"));
    assert_eq!(on(&stays)[0]["state"], "started", "what may not move goes on");
    spot.0.kill().unwrap();
    spot.0.wait().unwrap();
    until("it to be preempted", || ending(&stays).starts_with("preempted"));
    for id in [&moves, &stays] {
        home.skein(&["session", "stop", id]).ok();
    }
}

#[test]
fn two_engines_on_one_machine_and_one_cloud_take_nothing_of_each_other() {
    let home = Home::new();
    let mut config = lab(&home, &serde_json::json!({"max": 1, "idle_s": 30}));
    // Nobody is to lose a machine to a busy test machine here.
    config["lease_s"] = 15.0.into();
    let _cloud = Cloud(home.path("cloud"));
    let mut up = Vec::new();
    for name in ["one", "two"] {
        let mut own = config.clone();
        own["broker"] = serde_json::json!({"engine_identifier": name});
        home.write(&format!("{name}.json"), &own.to_string());
        let (file, dir) = (format!("{name}.json"), format!("state-{name}"));
        let mut command = home.command(&["up", "--listen", "127.0.0.1:0", "--config", &file, "--dir", &dir]);
        let engine = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        up.push(support::Guard(engine.unwrap()));
    }
    let skein = |name: &str, args: &[&str]| {
        home.skein(&[&args[..1], &["--dir", &format!("state-{name}")], &args[1..]].concat())
    };
    for name in ["one", "two"] {
        until("the engines", || skein(name, &["session", "list"]).code == 0);
    }
    let work = |name: &str| {
        let start = [
            "run",
            "--detach",
            "--name",
            "w",
            "--array",
            "4",
            "--set",
            "w.solution=lab",
            "--",
            "sh",
            "-c",
            "echo $SKEIN_ENGINE",
        ];
        skein(name, &start).ok().out.trim().to_owned()
    };
    let ids = [("one", work("one")), ("two", work("two"))];
    for (name, id) in &ids {
        until("their sessions to end", || skein(name, &["session", "show", id]).out.contains("succeeded"));
        let said = skein(name, &["logs", id]).ok().out;
        assert!(said.lines().count() == 4 && said.lines().all(|line| line.ends_with(name)), "{said}");
    }
    // Both machines live on through some rounds of listing, each engine's its own.
    assert_eq!(there(&home), 2);
    let rounds = lines(&home, "listed").len() + 6;
    until("some rounds", || lines(&home, "listed").len() >= rounds);
    let story = || ["one", "two"].map(|n| skein(n, &["instance", "list", "--all", "--json"]).out).join("\n");
    assert_eq!((there(&home), lines(&home, "ended")), (2, Vec::new()), "nobody ended the other's: {}", story());
    // An agent of one is refused by the other, whatever address it is given.
    let url = |name: &str| {
        serde_json::from_str::<Value>(&home.read(&format!("state-{name}/engine.json"))).unwrap()["url"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let token = skein("one", &["token", "join"]).ok().out.trim().to_owned();
    let mut command = home.command(&["agent", "--engine", &url("two"), "--name", "stray", "--dir", "stray"]);
    let stray = command.env("SKEIN_JOIN", token).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let said = support::finish(stray.spawn().unwrap(), "agent", std::time::Duration::from_secs(20));
    assert!(said.code != 0 && said.err.contains("for engine 'one', this is 'two'"), "{}", said.err);
    for engine in &mut up {
        support::signal(&engine.0, "TERM");
        engine.0.wait().unwrap();
    }
}

/// Both kinds of place could take it: functions bridge the start of the machines that it is worth, machines take
/// the rest, `why` says what was reckoned, and all of it comes out again from the ledger.
#[test]
fn functions_bridge_the_start_of_machines_that_the_work_is_worth() {
    let home = Home::new();
    let mut function = home.command(&["functions", "--listen", "127.0.0.1:0", "--dir", "fn", "--announce", "address"]);
    let function = function.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _function = support::Guard(function.spawn().unwrap());
    until("the function host to listen", || home.path("address").exists());
    let mut config = lab(&home, &serde_json::json!({"max": 2, "typical_boot_s": 2, "min_billed_s": 1}));
    let url = format!("http://{}", home.read("address").trim());
    config["solutions"]["fn"] = serde_json::json!({
        "kind": "shared", "url": url, "concurrency": 4, "timeout_s": 60,
        "price": {"per_request_usd": 0.0, "per_gb_s_usd": 0.001, "granularity_ms": 1, "min_billed_ms": 1},
    });
    config["scaling"] = serde_json::json!({"look_s": 1, "idle_s": 1});
    home.write("config.json", &config.to_string());
    let home = Home::with_engine_in(home, &["--config", "config.json"]);
    let _cloud = Cloud(home.path("cloud"));
    let sets = ["w.expected_run_s=0.5", "w.longest_run_s=5", "w.allowed_wait_s=3", "w.memory_mb=256"];
    let mut work = vec!["run", "--detach", "--name", "w", "--array", "40"];
    for set in sets {
        work.extend(["--set", set]);
    }
    work.extend(["--", "sleep", "0.5"]);
    let session = home.skein(&work).ok().out.trim().to_owned();
    let mut said = String::new();
    until("the session to end", || {
        let why = home.json(&["why", &format!("{session}/w")]);
        said = why["class"].as_str().map_or(std::mem::take(&mut said), str::to_owned);
        home.json(&["session", "show", &session])["state"] == "succeeded"
    });
    assert!(said.contains(" machines by '") && said.contains("waits "), "{said:?}");
    let places = home.json(&["session", "show", &session])["places"].clone();
    let of = |at: &dyn Fn(&str) -> bool| -> u64 {
        let all = places.as_array().unwrap().iter();
        all.filter(|p| at(p["place"].as_str().unwrap())).map(|p| p["attempts"].as_u64().unwrap()).sum()
    };
    let (on_functions, on_machines) = (of(&|place| place == "fn"), of(&|place| place.starts_with("lab-")));
    assert!(on_functions > 0 && on_machines > 0, "{places}");
    until("every machine to be ended", || there(&home) == 0);
    let again = home.json(&["simulate", "--from-ledger", ".local/share/skein"]);
    assert_eq!(again["orders_differing"], 0, "{again}");
}
