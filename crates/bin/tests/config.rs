//! Every key of the configuration, changed on a running engine with a real agent: each must show
//! changed behaviour. A key without effect is a defect.

mod support;

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Home, signal};

/// Longest time until a change shows.
const SHOWS_MAX: Duration = Duration::from_secs(20);

/// An engine with a configuration file and one agent, and a client of its API.
struct Bench {
    home: Home,
    engine: Child,
    agent: Child,
    http: reqwest::Client,
    url: String,
    token: String,
    config: Value,
}

impl Bench {
    async fn start() -> Self {
        rustls::crypto::ring::default_provider().install_default().unwrap_or_default();
        let home = Home::new();
        let config = json!({});
        home.write("config.json", "{}");
        let log = std::fs::File::create(home.path("engine.log")).unwrap();
        let mut up = home.command(&["up", "--listen", "127.0.0.1:0", "--dir", "engine", "--config", "config.json"]);
        let engine = up.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let whereabouts = home.path("engine/engine.json");
        eventually("the engine is up", || async { whereabouts.exists() }).await;
        let url: Value = serde_json::from_str(&home.read("engine/engine.json")).unwrap();
        let url = url["url"].as_str().unwrap().to_owned();
        let token = home.read("engine/local.token").trim().to_owned();
        let join = home.json(&["token", "join", "--dir", "engine"])["token"].as_str().unwrap().to_owned();
        let agent = home
            .command(&["agent", "--engine", &url, "--join", &join, "--name", "one", "--slots", "2", "--dir", "agent"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let bench = Self { home, engine, agent, http: reqwest::Client::new(), url, token, config };
        bench.connected(true).await;
        bench
    }

    /// Changes keys and writes the file, as an editor would: whole, by renaming.
    fn set(&mut self, changes: Value) {
        for (key, value) in changes.as_object().unwrap() {
            self.config[key] = value.clone();
        }
        let new = self.home.write("config.json.new", &self.config.to_string());
        std::fs::rename(new, self.home.path("config.json")).unwrap();
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token)
    }

    async fn get(&self, path: &str) -> Value {
        let text = self.request("GET", path).send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let response = self.request(method, path).json(&body).send().await.unwrap();
        (response.status().as_u16(), serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
    }

    async fn start_session(&self, document: Value) -> String {
        let (status, started) = self.call("POST", "/api/v1/sessions", json!({"document": document})).await;
        assert_eq!(status, 200, "{started}");
        started["session"].as_str().unwrap().to_owned()
    }

    async fn ended(&self, session: &str) -> Value {
        let path = format!("/api/v1/sessions/{session}");
        eventually("the session ends", || async { !self.get(&path).await["ended_at"].is_null() }).await;
        self.get(&format!("{path}/attempts")).await
    }

    async fn instance(&self) -> Value {
        let all = self.get("/api/v1/instances").await;
        all.as_array().unwrap().iter().find(|i| i["instance"] == "one").cloned().unwrap_or_default()
    }

    async fn connected(&self, wanted: bool) {
        eventually("the agent's connection", || async { self.instance().await["connected"] == wanted }).await;
    }

    /// What a task with only a name and a command settles to.
    async fn settled(&self) -> Value {
        let (_, stored) = self.call("PUT", "/api/v1/tasks/probe", json!({"command": ["true"]})).await;
        assert_eq!(stored["name"], "probe", "{stored}");
        self.get("/api/v1/tasks/probe").await["resolved"].clone()
    }

    fn stop(mut self) {
        for child in [&mut self.agent, &mut self.engine] {
            signal(child, "CONT");
            signal(child, "TERM");
            child.wait().unwrap();
        }
    }
}

/// Asks again and again until it holds; panics when it takes too long.
async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + SHOWS_MAX;
    while !holds().await {
        assert!(Instant::now() < deadline, "not within {SHOWS_MAX:?}: {what}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn task(fields: Value) -> Value {
    let mut document = json!({"name": "t", "command": ["true"], "running_mode": "dedicated"});
    document.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    document
}

#[tokio::test]
async fn classes_broker_and_addresses() {
    let mut bench = Bench::start().await;
    // broker.url: a listener of its own for agents, and nothing else on it.
    let port = free_port();
    bench.set(json!({"broker": {"url": format!("http://127.0.0.1:{port}")}}));
    let at = format!("http://127.0.0.1:{port}");
    let listens = || async { bench.http.get(format!("{at}/api/v1/addresses")).send().await.is_ok() };
    eventually("broker.url", listens).await;
    assert_eq!(bench.http.get(format!("{at}/api/v1/sessions")).send().await.unwrap().status(), 404);
    assert_eq!(bench.get("/api/v1/addresses").await["broker"], at);
    // addresses
    bench.set(json!({"addresses": {"images": "http://images.example"}}));
    eventually("addresses", || async { bench.get("/api/v1/addresses").await["images"] == "http://images.example" }).await;
    // classes.tasking
    for scheme in ["packing", "first-fit"] {
        bench.set(json!({"classes": {"tasking": format!("builtin:{scheme}")}}));
        let document = task(json!({}));
        let shows = || async {
            let session = bench.start_session(document.clone()).await;
            bench.ended(&session).await[0]["why"].as_str().unwrap().contains(scheme)
        };
        eventually("classes.tasking", shows).await;
    }
    // balancing.scheme, for the other CPU settings
    bench.set(json!({"balancing": {"scheme": "packing"}}));
    let document = task(json!({"cpu": 1}));
    let shows = || async {
        let session = bench.start_session(document.clone()).await;
        bench.ended(&session).await[0]["why"].as_str().unwrap().contains("packing")
    };
    eventually("balancing.scheme", shows).await;
    // classes.storage: another location; what was stored before is still read.
    let (old, new) = (b"old content", b"new content");
    let path = |bytes: &[u8]| format!("/api/v1/files/{}", blake3::hash(bytes).to_hex());
    assert_eq!(bench.request("PUT", &path(old)).body(old.to_vec()).send().await.unwrap().status(), 204);
    let folder: PathBuf = bench.home.path("elsewhere");
    bench.set(json!({"classes": {"storage": format!("folder:{}", folder.display())}}));
    eventually("classes.storage", || async { folder.exists() }).await;
    assert_eq!(bench.request("PUT", &path(new)).body(new.to_vec()).send().await.unwrap().status(), 204);
    let digest = blake3::hash(new).to_hex().to_string();
    assert!(folder.join(&digest[..2]).join(&digest).exists());
    assert_eq!(bench.request("GET", &path(old)).send().await.unwrap().bytes().await.unwrap(), &old[..]);
    // classes.resource: no further instance joins.
    bench.set(json!({"classes": {"resource": "builtin:fixed"}}));
    let join = |name: &'static str| {
        json!({"secret": "0".repeat(64), "engine": "skein", "instance": name, "solution": "own", "public_key": ""})
    };
    let refused = || async {
        let (status, answer) = bench.call("POST", "/agent/v1/join", join("two")).await;
        status == 401 && answer["error"].as_str().unwrap().contains("no further instance")
    };
    eventually("classes.resource", refused).await;
    // classes.connection: agents are sent away, and come back.
    bench.set(json!({"classes": {"connection": "builtin:closed"}}));
    bench.connected(false).await;
    bench.set(json!({"classes": {}}));
    bench.connected(true).await;
    // broker.engine_identifier: agents of the old one are refused.
    bench.set(json!({"broker": {"engine_identifier": "other"}}));
    eventually("broker.engine_identifier", || async { bench.get("/healthz").await["engine"] == "other" }).await;
    bench.connected(false).await;
    let token = bench.home.json(&["token", "join", "--dir", "engine"])["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("skein-join~other~"), "{token}");
    bench.stop();
}

#[tokio::test]
async fn defaults_users_contexts_and_solutions() {
    let mut bench = Bench::start().await;
    for (key, value, pointer, settled) in [
        ("cpu", json!(30), "/needs/cpu", json!(30)),
        ("memory_mb", json!(77), "/needs/memory_mb", json!(77)),
        ("storage_mb", json!(5), "/needs/storage_mb", json!(5)),
        ("grace_s", json!(2), "/grace_ms", json!(2000)),
        ("allowed_wait_s", json!(3), "/allowed_wait_ms", json!(3000)),
        ("urgency", json!(61), "/urgency", json!(61)),
        ("retries", json!(4), "/retries", json!(4)),
        ("on_lost", json!("ask"), "/on_lost", json!("ask")),
        ("running_mode", json!("hybrid"), "/running_mode", json!("hybrid")),
    ] {
        bench.set(json!({"defaults": {key: value}}));
        eventually(key, || async { bench.settled().await.pointer(pointer) == Some(&settled) }).await;
    }
    let plan = json!({"document": {"name": "t", "command": ["true"]}});
    bench.set(json!({"defaults": {"assumed_run_s": 7}}));
    let assumed = || async { bench.call("POST", "/api/v1/plan", plan.clone()).await.1["total_ms"] == 7000 };
    eventually("defaults.assumed_run_s", assumed).await;
    // solutions: prices and places
    bench.set(json!({"solutions": {"own": {"kind": "dedicated", "price_per_hour_usd": 3600.0}}}));
    let priced = || async { bench.call("POST", "/api/v1/plan", plan.clone()).await.1["cost_nano_usd"] == 3_500_000_000_i64 };
    eventually("solutions", priced).await;
    // users, then contexts, which hold over users
    let user = std::env::var("USER").unwrap_or_else(|_| "tester".into());
    let mode = |document: Value| {
        let bench = &bench;
        async move {
            let session = bench.start_session(document).await;
            let shown = bench.get(&format!("/api/v1/sessions/{session}")).await;
            (shown["nodes"][0]["running_mode"].clone(), shown["nodes"][0]["mode_source"].clone())
        }
    };
    let plain = json!({"name": "t", "command": ["true"], "labels": {"team": "red"}});
    assert_eq!(mode(plain.clone()).await.1, "default");
    let mut users = json!({"tester": {"running_mode": "dedicated"}});
    users[user] = json!({"running_mode": "dedicated"});
    let config = json!({"users": users});
    let mut changed = bench.config.clone();
    changed.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    bench.set(changed.clone());
    let by_user = || async {
        let session = bench.start_session(plain.clone()).await;
        bench.get(&format!("/api/v1/sessions/{session}")).await["nodes"][0]["mode_source"] == "user"
    };
    eventually("users", by_user).await;
    bench.set(json!({"contexts": [{"labels": {"team": "red"}, "running_mode": "hybrid"}]}));
    let by_context = || async {
        let session = bench.start_session(plain.clone()).await;
        let node = bench.get(&format!("/api/v1/sessions/{session}")).await["nodes"][0].clone();
        node["mode_source"] == "context" && node["running_mode"] == "hybrid"
    };
    eventually("contexts", by_context).await;
    // custom: kept as it is
    bench.set(json!({"custom": {"mine": [1, 2]}}));
    eventually("custom", || async { bench.get("/api/v1/config").await["custom"] == json!({"mine": [1, 2]}) }).await;
    // tasks_directory: a document put there is a task
    let folder = bench.home.path("tasks");
    bench.set(json!({"tasks_directory": folder}));
    eventually("tasks_directory", || async { folder.exists() }).await;
    bench.home.write("tasks/greet.yaml", "command: [echo, hi]\n");
    eventually("a document of tasks_directory", || async { bench.get("/api/v1/tasks/greet").await["version"] == 1 }).await;
    bench.stop();
}

#[tokio::test]
async fn balancing_leases_logs_and_retention() {
    let mut bench = Bench::start().await;
    // vm_configuration_files: a running instance takes the change
    let vm = bench.home.write("own.json", r#"{"slots": 1}"#);
    bench.set(json!({"vm_configuration_files": {"own": vm}}));
    eventually("vm_configuration_files", || async { bench.instance().await["slots"] == 1 }).await;
    bench.home.write("own.json", r#"{"slots": 2, "custom": {"x": 1}}"#);
    eventually("the VM configuration file itself", || async { bench.instance().await["slots"] == 2 }).await;
    // balancing limits
    bench.set(json!({"balancing": {"tasks_per_instance_max": 1}}));
    eventually("balancing.tasks_per_instance_max", || async { bench.instance().await["slots"] == 1 }).await;
    for (key, word) in [("cpu_ceiling_percent", "ceiling"), ("instances_per_session_max", "for one session")] {
        bench.set(json!({"balancing": {key: 0}}));
        let session = bench.start_session(task(json!({}))).await;
        let why = format!("/api/v1/sessions/{session}/nodes/t/items/0/why");
        let refused = || async {
            // Placed before the change was read: ask with a new one.
            let session = bench.start_session(task(json!({}))).await;
            let why = bench.get(&format!("/api/v1/sessions/{session}/nodes/t/items/0/why")).await;
            why["text"].as_str().unwrap().contains(word)
        };
        eventually(key, refused).await;
        bench.set(json!({"balancing": {}}));
        eventually(key, || async { bench.get(&why).await["state"] == "ended" }).await;
    }
    bench.set(json!({"balancing": {"plan_orders_max": 1}}));
    let apart = || async {
        let session = bench.start_session(task(json!({"array": 2}))).await;
        let attempts = bench.ended(&session).await;
        attempts[0]["assigned_at"] != attempts[1]["assigned_at"]
    };
    eventually("balancing.plan_orders_max", apart).await;
    // do_not_terminate
    bench.set(json!({"do_not_terminate": ["one"]}));
    let refused = || async { bench.get("/api/v1/config").await["do_not_terminate"] == json!(["one"]) };
    eventually("do_not_terminate is read", refused).await;
    assert_eq!(bench.call("POST", "/api/v1/instances/one/drain", json!({})).await.0, 409);
    // defaults.hold_idle_s: a session that still waits for something gives its idle agent back
    bench.set(json!({"defaults": {"hold_idle_s": 0.2}}));
    let thread = json!({"name": "h", "tasks": {
        "a": {"command": ["true"], "running_mode": "dedicated"},
        "b": {"command": ["true"], "running_mode": "dedicated", "role": "nobody"}}});
    let given_back = || async {
        let session = bench.start_session(thread.clone()).await;
        let path = format!("/api/v1/sessions/{session}");
        eventually("a ends", || async { bench.get(&path).await["items"]["succeeded"] == 1 }).await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        bench.get(&path).await["holds"] == json!([])
    };
    eventually("defaults.hold_idle_s", given_back).await;
    // logging.logs_directory
    let logs = bench.home.path("logs-elsewhere");
    bench.set(json!({"logging": {"logs_directory": logs}}));
    eventually("logging.logs_directory", || async { logs.exists() }).await;
    let session = bench.start_session(task(json!({"command": ["echo", "hi"]}))).await;
    bench.ended(&session).await;
    assert_eq!(std::fs::read_to_string(logs.join(&session).join("0.0.1.out")).unwrap(), "hi\n");
    // logging.configuration_file: the configuration's own notices are switched off, and on again
    let notices = |bench: &Bench| bench.home.read("engine.log").matches("is in force").count();
    bench.home.write("levels.json", r#"{"configuration": "error"}"#);
    bench.set(json!({"logging": {"configuration_file": bench.home.path("levels.json")}}));
    let silent = || async {
        let config = bench.get("/api/v1/config").await;
        !config["logging"]["configuration_file"].is_null()
    };
    eventually("the levels are read", silent).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let before = notices(&bench);
    bench.set(json!({"custom": {"n": 1}}));
    eventually("a change", || async { bench.get("/api/v1/config").await["custom"]["n"] == 1 }).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(notices(&bench), before, "logging.configuration_file");
    bench.home.write("levels.json", r#"{"configuration": "info"}"#);
    eventually("the file's own change", || async { notices(&bench) > before }).await;
    // a bad file is reported, and the one before stays in force
    bench.home.write("config.json", "{\n  \"lease_s\": \"soon\"\n}");
    eventually("a bad file is reported", || async { bench.home.read("engine.log").contains("line 2") }).await;
    assert_eq!(bench.get("/api/v1/config").await["custom"]["n"], 1);
    // resource_time_check_s: the pace of heartbeats
    let beats = || async {
        let text = bench.get("/metrics").await.as_str().unwrap().to_owned();
        let line = text.lines().find(|l| l.starts_with("skein_heartbeats_total ")).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    bench.set(json!({"resource_time_check_s": 0.1}));
    let quick = || async {
        let before = beats().await;
        tokio::time::sleep(Duration::from_millis(1000)).await;
        beats().await >= before + 5
    };
    eventually("resource_time_check_s", quick).await;
    // content.file_bytes_max
    bench.set(json!({"content": {"file_bytes_max": 4}}));
    let bytes = b"five!";
    let path = format!("/api/v1/files/{}", blake3::hash(bytes).to_hex());
    let refused = || async { bench.request("PUT", &path).body(bytes.to_vec()).send().await.unwrap().status() == 413 };
    eventually("content.file_bytes_max", refused).await;
    // retention
    bench.set(json!({"retention": {"events_max": 1, "check_s": 0.2}}));
    let kept = || async {
        let first = bench.request("GET", "/api/v1/events?after=1").send().await.unwrap().chunk().await.unwrap().unwrap();
        String::from_utf8_lossy(&first).contains("event: gap")
    };
    eventually("retention.events_max and retention.check_s", kept).await;
    bench.set(json!({"retention": {"sessions_hours": 0.0, "check_s": 0.2}}));
    eventually("retention.sessions_hours", || async { bench.get(&format!("/api/v1/sessions/{session}")).await["error"].is_string() }).await;
    assert!(!logs.join(&session).exists(), "its logs go with it");
    // lease_s: an agent that is silent is gone after this
    bench.set(json!({"lease_s": 1.0, "resource_time_check_s": 0.2}));
    eventually("lease_s is read", || async { bench.get("/api/v1/config").await["lease_s"] == 1.0 }).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    signal(&bench.agent, "STOP");
    let stopped = Instant::now();
    eventually("lease_s", || async { bench.instance().await["state"] == "gone" }).await;
    assert!(stopped.elapsed() < Duration::from_secs(10), "the lease was 30 s before");
    bench.stop();
}
