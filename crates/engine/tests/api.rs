//! The API of a real engine on a real port, without agents: what it refuses, what it keeps.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use skein_engine::{Engine, EngineOptions};

struct Running {
    engine: Engine,
    http: reqwest::Client,
    dir: tempfile::TempDir,
}

impl Running {
    async fn start(config: Option<Value>) -> Self {
        // Another test of this process may have installed it.
        rustls::crypto::ring::default_provider().install_default().unwrap_or_default();
        let dir = tempfile::tempdir().unwrap();
        let config = config.map(|value| {
            let path = dir.path().join("config.json");
            std::fs::write(&path, value.to_string()).unwrap();
            path
        });
        let options = EngineOptions {
            dir: dir.path().join("engine"),
            listen: "127.0.0.1:0".parse().unwrap(),
            config,
            engine: "test".parse().unwrap(),
            tls: false,
        };
        Self { engine: Engine::start(options).await.unwrap(), http: reqwest::Client::new(), dir }
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        self.http.request(method, format!("{}{path}", self.engine.url())).bearer_auth(self.engine.local_token())
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        read(request.send().await.unwrap()).await
    }
}

async fn read(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn task(fields: Value) -> Value {
    let mut document = json!({"name": "t", "command": ["true"]});
    document.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({"document": document})
}

#[tokio::test]
async fn bad_input_is_refused_clearly_and_nothing_is_started() {
    let gateway = json!({"kind": "shared", "url": "http://127.0.0.1:9", "timeout_s": 60});
    let run = Running::start(Some(json!({"solutions": {"functions": gateway}}))).await;
    let cycle = json!({"document": {"name": "c", "tasks": {
        "a": {"command": ["x"], "after": ["b"]}, "b": {"command": ["x"], "after": ["a"]}}}});
    for (body, status, part) in [
        (cycle, 400, "circle: "),
        (task(json!({"colour": 1})), 400, "unknown field `colour`"),
        (task(json!({"cpu": 101})), 400, "cpu = 101"),
        (task(json!({"outputs": ["../../etc/passwd"]})), 400, "leaves the task's folder"),
        (task(json!({"solution": "nowhere"})), 400, "'nowhere', which is not configured"),
        (task(json!({"running_mode": "serverless", "longest_run_s": 61})), 422, "limit of 60 s"),
        (task(json!({"inputs": [{"path": "x", "digest": "0".repeat(64)}]})), 404, "no content with digest"),
        (json!({"document": {"command": ["x"]}}), 400, "'name' is missing"),
        (json!({"document": {"name": "n"}}), 400, "'command' is missing"),
        (json!({"document": []}), 400, "not a table"),
        (json!({"thread": "absent"}), 404, "no 'absent' in the repository"),
        (json!({"task": "a", "thread": "b"}), 400, "one of"),
    ] {
        let (got, answer) = run.call("POST", "/api/v1/sessions", Some(body.clone())).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(got == status && error.contains(part), "{body} gave {got} {answer}");
    }
    let invalid = run.request("POST", "/api/v1/sessions").body(vec![b'"', 0xff, b'"']).send().await.unwrap();
    assert!(read(invalid).await.1["error"].as_str().unwrap().contains("not UTF-8"));
    let huge = run.request("POST", "/api/v1/sessions").body(vec![b' '; 100 << 20]).send().await;
    // The engine answers before it has read 100 MB; the client may see the answer or a closed connection.
    if let Ok(response) = huge {
        assert_eq!(response.status(), 413);
    }
    let wrong =
        run.http.get(format!("{}/api/v1/sessions", run.engine.url())).bearer_auth("skein-wrong").send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    assert_eq!(run.http.get(format!("{}/api/v1/config", run.engine.url())).send().await.unwrap().status(), 401);
    assert_eq!(run.call("GET", "/api/v1/sessions", None).await, (200, json!([])));
    run.engine.stop().await;
}

#[tokio::test]
async fn the_same_client_key_is_the_same_session_also_after_a_restart() {
    let run = Running::start(None).await;
    let mut body = task(json!({}));
    body["client_key"] = "once".into();
    let (_, first) = run.call("POST", "/api/v1/sessions", Some(body.clone())).await;
    let (_, second) = run.call("POST", "/api/v1/sessions", Some(body.clone())).await;
    assert_eq!((first["new"].clone(), second["new"].clone()), (true.into(), false.into()));
    assert_eq!(first["session"], second["session"]);
    run.engine.stop().await;
    let options = EngineOptions {
        dir: run.dir.path().join("engine"),
        listen: "127.0.0.1:0".parse().unwrap(),
        config: None,
        engine: "test".parse().unwrap(),
        tls: false,
    };
    let again = Running { engine: Engine::start(options).await.unwrap(), http: reqwest::Client::new(), dir: run.dir };
    let (_, third) = again.call("POST", "/api/v1/sessions", Some(body)).await;
    assert_eq!(third, json!({"session": first["session"], "new": false}));
    let (_, why) = again
        .call("GET", &format!("/api/v1/sessions/{}/nodes/t/items/0/why", first["session"].as_str().unwrap()), None)
        .await;
    assert_eq!(why["detail"]["reason"], "none_configured", "{why}");
    assert!(why["next_step"].as_str().unwrap().contains("skein agent"));
    again.engine.stop().await;
}

#[tokio::test]
async fn documents_keep_every_version_and_sessions_their_own() {
    let run = Running::start(None).await;
    let put = |memory: u32| run.call("PUT", "/api/v1/tasks/t", Some(json!({"command": ["true"], "memory_mb": memory})));
    assert_eq!(put(100).await.1["version"], 1);
    assert_eq!(put(100).await.1["version"], 1, "the same again is no new version");
    let (_, started) = run.call("POST", "/api/v1/sessions", Some(json!({"task": "t", "set": ["t.urgency=70"]}))).await;
    assert_eq!(put(200).await.1["version"], 2);
    assert_eq!(run.call("GET", "/api/v1/tasks/t?version=1", None).await.1["document"]["memory_mb"], 100);
    let (_, shown) = run.call("GET", "/api/v1/tasks/t", None).await;
    assert_eq!(shown["resolved"]["needs"]["memory_mb"], 200);
    assert!(shown["resolved"]["defaulted"].as_array().unwrap().contains(&"urgency".into()));
    let (_, session) =
        run.call("GET", &format!("/api/v1/sessions/{}", started["session"].as_str().unwrap()), None).await;
    assert_eq!(session["overrides"], json!(["t.urgency=70"]));
    assert_eq!(run.call("DELETE", "/api/v1/tasks/t", None).await.0, 204);
    assert_eq!(run.call("GET", "/api/v1/tasks/t", None).await.0, 404);
    assert_eq!(put(300).await.1["version"], 3, "versions are never given twice");
    run.engine.stop().await;
}

fn files_under(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_under(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_secret_is_in_no_file_and_no_answer_and_tokens_can_be_revoked() {
    let run = Running::start(None).await;
    let planted = "planted-7f3a9c";
    assert_eq!(run.call("PUT", "/api/v1/secrets/DB", Some(json!({"value": planted}))).await.0, 204);
    let (_, listed) = run.call("GET", "/api/v1/secrets", None).await;
    assert_eq!(listed[0]["name"], "DB");
    let body = task(json!({"env": {"PASSWORD": {"secret": "DB"}}}));
    let (_, started) = run.call("POST", "/api/v1/sessions", Some(body)).await;
    for path in
        ["/api/v1/secrets", "/api/v1/config", &format!("/api/v1/sessions/{}", started["session"].as_str().unwrap())]
    {
        assert!(!run.call("GET", path, None).await.1.to_string().contains(planted), "{path}");
    }
    let (_, token) = run.call("POST", "/api/v1/tokens", Some(json!({"user": "ann"}))).await;
    let as_ann = || {
        run.http
            .get(format!("{}/api/v1/sessions", run.engine.url()))
            .bearer_auth(token["token"].as_str().unwrap())
            .send()
    };
    assert_eq!(as_ann().await.unwrap().status(), 200);
    assert_eq!(run.call("DELETE", &format!("/api/v1/tokens/{}", token["id"].as_str().unwrap()), None).await.0, 204);
    assert_eq!(as_ann().await.unwrap().status(), 401);
    let held = token["token"].as_str().unwrap().to_owned();
    run.engine.stop().await;
    for path in files_under(&run.dir.path().join("engine")) {
        let bytes = std::fs::read(&path).unwrap();
        let holds = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        assert!(!holds(planted) && !holds(&held), "{}", path.display());
    }
}

#[tokio::test]
async fn the_change_stream_resumes_where_it_was_left() {
    let run = Running::start(None).await;
    for _ in 0..3 {
        run.call("POST", "/api/v1/sessions", Some(task(json!({})))).await;
    }
    let first = events(&run, None, 3).await;
    assert_eq!(first.len(), 3);
    let rest = events(&run, Some(first[0].0), 2).await;
    assert_eq!(rest, first[1..].to_vec());
    run.engine.stop().await;
}

/// The first `count` events after `after`: number and data.
async fn events(run: &Running, after: Option<u64>, count: usize) -> Vec<(u64, String)> {
    let mut request = run.request("GET", "/api/v1/events");
    if let Some(after) = after {
        request = request.header("Last-Event-ID", after.to_string());
    }
    let mut response = request.send().await.unwrap();
    let mut text = String::new();
    while text.matches("\n\n").count() < count {
        let piece = tokio::time::timeout(Duration::from_secs(10), response.chunk()).await.expect("an event in time");
        text.push_str(std::str::from_utf8(&piece.unwrap().unwrap()).unwrap());
    }
    let field = |block: &str, name: &str| block.lines().find_map(|l| l.strip_prefix(name).map(|v| v.trim().to_owned()));
    let parsed =
        text.split("\n\n").filter_map(|block| Some((field(block, "id:")?.parse().ok()?, field(block, "data:")?)));
    parsed.take(count).collect()
}

#[tokio::test]
async fn a_second_engine_on_the_folder_and_an_open_address_are_refused() {
    let run = Running::start(None).await;
    let options = |dir: &Path, listen: &str, tls| EngineOptions {
        dir: dir.to_owned(),
        listen: listen.parse().unwrap(),
        config: None,
        engine: "test".parse().unwrap(),
        tls,
    };
    let second = Engine::start(options(&run.dir.path().join("engine"), "127.0.0.1:0", false)).await;
    let why = second.err().expect("refused").to_string();
    assert!(why.contains("in use by engine 'test'"), "{why}");
    let open = Engine::start(options(&run.dir.path().join("other"), "0.0.0.0:0", false)).await;
    assert!(open.err().expect("refused").to_string().contains("--tls"));
    run.engine.stop().await;
}

#[tokio::test]
async fn every_documented_operation_is_there() {
    let run = Running::start(None).await;
    let (_, document) = run.call("GET", "/api/v1/openapi.json", None).await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let concrete = path.replace("{session}", "s-zz").replace("{attempt}", "s-zz.0.0.1").replace("{stream}", "out");
        let concrete = concrete.replace("{digest}", &"0".repeat(64)).replace("{index}", "0");
        let concrete =
            concrete.replace("{node}", "x").replace("{name}", "x").replace("{instance}", "x").replace("{id}", "x");
        for method in methods.as_object().unwrap().keys() {
            let response = run.request(&method.to_uppercase(), &concrete).send().await.unwrap();
            let status = response.status();
            let stream = response.headers().get("content-type").is_some_and(|t| t == "text/event-stream");
            let body = if stream { String::new() } else { response.text().await.unwrap() };
            assert!(status != 405 && !body.contains("there is nothing here"), "{method} {path}: {status} {body}");
            operations += 1;
        }
    }
    assert!(operations > 30);
    run.engine.stop().await;
}
