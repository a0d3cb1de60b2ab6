//! Receivers of status: real webhooks, files and commands, over failures and a crash of the engine.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use support::{Home, until};

/// What a webhook was sent, and what it answers: failures first.
struct Hook {
    url: String,
    seen: Arc<Mutex<Vec<(Value, Value)>>>,
}

impl Hook {
    fn new(failures: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (taken, mut left) = (seen.clone(), failures);
        std::thread::spawn(move || {
            for peer in listener.incoming().flatten() {
                let mut reader = BufReader::new(peer);
                loop {
                    let (mut headers, mut line) = (serde_json::Map::new(), String::new());
                    if reader.read_line(&mut line).unwrap_or(0) == 0 {
                        break;
                    }
                    loop {
                        line.clear();
                        reader.read_line(&mut line).unwrap();
                        let Some((name, value)) = line.trim().split_once(": ") else { break };
                        headers.insert(name.to_lowercase(), value.into());
                    }
                    let length = headers["content-length"].as_str().unwrap().parse().unwrap();
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    let refuse = left > 0;
                    left = left.saturating_sub(1);
                    headers.insert("raw".into(), String::from_utf8(body.clone()).unwrap().into());
                    if !refuse {
                        let body = serde_json::from_slice(&body).unwrap();
                        taken.lock().unwrap().push((Value::Object(headers), body));
                    }
                    let status = if refuse { "503 Not Now" } else { "204 Taken" };
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    reader.get_mut().write_all(answer.as_bytes()).unwrap();
                }
            }
        });
        Self { url, seen }
    }

    fn states(&self, index: u64) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let mine = seen.iter().filter(|(_, body)| body["index"] == index);
        mine.map(|(_, body)| body["state"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn receivers_are_told_in_order_over_failures_and_a_crash() {
    let home = Home::new();
    home.write("config.json", r#"{"replies": {"commands": true}}"#);
    home.write("take.sh", "read -r line; echo \"$line\" >> taken\n");
    let (hook, dead) = (Hook::new(2), TcpListener::bind("127.0.0.1:0").unwrap());
    let gone = format!("http://{}/", dead.local_addr().unwrap());
    drop(dead);
    let start = || {
        let mut command =
            home.command(&["up", "--agent", "--listen", "127.0.0.1:0", "--config", "config.json", "--dir", "state"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let child = support::Guard(child);
        until("the engine", || home.skein(&["instance", "list", "--dir", "state"]).out.contains("ready"));
        child
    };
    let mut engine = start();
    let take = home.path("take.sh");
    let text = format!(
        r#"
        [tasks.hook]
        array = 3
        retries = 1
        command = ["sh", "-c", "[ {{index}} != 1 ]"]
        reply_to = "{}"
        reply_on = "changes"
        [tasks.file]
        command = ["true"]
        reply_to = "file:ends/all.jsonl"
        [tasks.command]
        command = ["true"]
        reply_to = "command:sh {}"
        [tasks.dead]
        command = ["true"]
        reply_to = "{gone}"
        "#,
        hook.url,
        take.display()
    );
    home.write("t.toml", &text);
    let id = home.skein(&["run", "t.toml", "--detach", "--dir", "state"]).ok().out.trim().to_owned();
    let show = || home.json(&["session", "show", &id, "--dir", "state"])["state"].clone();
    until("the session to end", || show() == "failed");
    // Whatever was delivered and not yet removed is delivered again: by a new engine, in order.
    engine.0.kill().unwrap();
    engine.0.wait().unwrap();
    engine = start();
    until("the hook to be told everything", || {
        (0..3).all(|i| ["succeeded", "failed"].iter().any(|s| hook.states(i).contains(&(*s).to_owned())))
    });
    let order = |states: &[String], first: &str, second: &str| {
        states.iter().position(|s| s == first).unwrap() < states.iter().rposition(|s| s == second).unwrap()
    };
    let failed = hook.states(1);
    assert!(order(&failed, "assigned", "ready") && order(&failed, "ready", "failed"), "{failed:?}");
    until("the file", || home.path("state/replies/ends/all.jsonl").exists());
    let line: Value = serde_json::from_str(home.read("state/replies/ends/all.jsonl").lines().next().unwrap()).unwrap();
    assert_eq!((&line["state"], &line["task"], &line["exit_code"]), (&"succeeded".into(), &"file".into(), &0.into()));
    until("the command", || home.path("taken").exists());
    assert!(home.read("taken").contains(r#""task":"command""#));
    // Signed as the receiver can check it.
    let secret = home.skein(&["token", "reply", "--dir", "state"]).ok().out.trim().to_owned();
    let (headers, body) = hook.seen.lock().unwrap()[0].clone();
    assert!(secret.starts_with("whsec_") && headers["webhook-signature"].as_str().unwrap().starts_with("v1,"));
    assert_eq!(headers["webhook-id"], body["id"]);
    let refused = home.write("bad.toml", "name = \"x\"\ncommand = [\"true\"]\nreply_to = \"ftp://x\"\n");
    assert!(home.skein(&["run", refused.to_str().unwrap(), "--dir", "state"]).err.contains("file:NAME"));
    engine.0.kill().unwrap();
    engine.0.wait().unwrap();
}
