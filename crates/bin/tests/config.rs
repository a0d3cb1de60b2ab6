//! Every key of the configuration, changed on a running engine with a real agent: each must show
//! changed behaviour. A key without effect is a defect.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on says so by panicking, and waits with deadlines"
)]

mod support;

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
        let join = home.skein(&["token", "join", "--dir", "engine"]).ok().out.trim().to_owned();
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

    async fn mode_of_new_session(&self, document: Value) -> (Value, Value) {
        let session = self.start_session(document).await;
        let node = self.get(&format!("/api/v1/sessions/{session}")).await["nodes"][0].clone();
        (node["running_mode"].clone(), node["mode_source"].clone())
    }

    /// Why the only attempt of a new session of this task is where it is.
    async fn why_there(&self, document: Value) -> String {
        let session = self.start_session(document).await;
        self.ended(&session).await[0]["why"].as_str().unwrap().to_owned()
    }

    async fn heartbeats(&self) -> u64 {
        let text = self.get("/metrics").await.as_str().unwrap().to_owned();
        let line = text.lines().find(|l| l.starts_with("skein_heartbeats_total ")).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// How often the engine has said that a configuration is in force.
    fn notices(&self) -> usize {
        self.home.read("engine.log").matches("is in force").count()
    }

    /// Are events missing that were there once?
    async fn has_gap(&self) -> bool {
        let answer = self.request("GET", "/api/v1/events?after=1").send().await.unwrap().chunk().await.unwrap();
        String::from_utf8_lossy(&answer.unwrap()).contains("event: gap")
    }

    async fn join_token(&self) -> String {
        self.call("POST", "/api/v1/join-tokens", json!({})).await.1["token"].as_str().unwrap().to_owned()
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
async fn broker_and_addresses() {
    let mut bench = Bench::start().await;
    // broker.url: a listener of its own for agents, and nothing else on it.
    let at = format!("http://127.0.0.1:{}", free_port());
    bench.set(json!({"broker": {"url": at}}));
    let listens = || async { bench.http.get(format!("{at}/api/v1/addresses")).send().await.is_ok() };
    eventually("broker.url", listens).await;
    assert_eq!(bench.http.get(format!("{at}/api/v1/sessions")).send().await.unwrap().status(), 404);
    assert_eq!(bench.get("/api/v1/addresses").await["broker"], at);
    bench.set(json!({"addresses": {"images": "http://images.example"}}));
    eventually("addresses", || async { bench.get("/api/v1/addresses").await["images"] == "http://images.example" })
        .await;
    // broker.engine_identifier: agents of the old one are refused.
    bench.set(json!({"broker": {"engine_identifier": "other"}}));
    eventually("broker.engine_identifier", || async { bench.get("/healthz").await["engine"] == "other" }).await;
    bench.connected(false).await;
    let token = bench.join_token().await;
    assert!(token.starts_with("skein-join~other~"), "{token}");
    bench.stop();
}

#[tokio::test]
async fn classes() {
    let mut bench = Bench::start().await;
    for scheme in ["packing", "first-fit"] {
        bench.set(json!({"classes": {"tasking": format!("builtin:{scheme}")}}));
        eventually("classes.tasking", || async { bench.why_there(task(json!({}))).await.contains(scheme) }).await;
    }
    // classes.storage: another location; what was stored before is still read.
    let old = b"old content";
    let path = |bytes: &[u8]| format!("/api/v1/files/{}", blake3::hash(bytes).to_hex());
    assert_eq!(bench.request("PUT", &path(old)).body(old.to_vec()).send().await.unwrap().status(), 204);
    let folder = bench.home.path("elsewhere");
    bench.set(json!({"classes": {"storage": format!("folder:{}", folder.display())}}));
    let mut tries = 0_u8;
    let moved = || {
        // Something new each time: what is there already is not written again.
        tries += 1;
        let new = vec![tries; 9];
        let digest = blake3::hash(&new).to_hex().to_string();
        let (request, there) = (bench.request("PUT", &path(&new)).body(new), folder.join(&digest[..2]).join(&digest));
        async move { request.send().await.unwrap().status() == 204 && there.exists() }
    };
    eventually("classes.storage", moved).await;
    assert_eq!(bench.request("GET", &path(old)).send().await.unwrap().bytes().await.unwrap(), &old[..]);
    // classes.resource: no further instance joins.
    bench.set(json!({"classes": {"resource": "builtin:fixed"}}));
    let ask =
        json!({"secret": "0".repeat(64), "engine": "skein", "instance": "two", "solution": "own", "public_key": ""});
    let refused = || async {
        let (status, answer) = bench.call("POST", "/agent/v1/join", ask.clone()).await;
        status == 401 && answer["error"].as_str().unwrap().contains("no further instance")
    };
    eventually("classes.resource", refused).await;
    // classes.connection: agents are sent away, and come back.
    bench.set(json!({"classes": {"connection": "builtin:closed"}}));
    bench.connected(false).await;
    bench.set(json!({"classes": {}}));
    bench.connected(true).await;
    bench.stop();
}

#[tokio::test]
async fn defaults_of_tasks() {
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
    bench.set(json!({"solutions": {"own": {"kind": "dedicated", "price_per_hour_usd": 3600.0}}}));
    let priced =
        || async { bench.call("POST", "/api/v1/plan", plan.clone()).await.1["cost_nano_usd"] == 3_500_000_000_i64 };
    eventually("solutions", priced).await;
    // defaults.hold_idle_s: a session that still waits for something gives its idle agent back.
    bench.set(json!({"defaults": {"hold_idle_s": 0.2}}));
    let thread = json!({"name": "h", "tasks": {
        "a": {"command": ["true"], "running_mode": "dedicated"},
        "b": {"command": ["true"], "running_mode": "dedicated", "role": "nobody"}}});
    eventually("the new hold policy", || async { bench.get("/api/v1/config").await["defaults"]["hold_idle_s"] == 0.2 })
        .await;
    let path = format!("/api/v1/sessions/{}", bench.start_session(thread).await);
    eventually("a ends", || async { bench.get(&path).await["items"]["succeeded"] == 1 }).await;
    let ended = Instant::now();
    eventually("defaults.hold_idle_s", || async { bench.get(&path).await["holds"] == json!([]) }).await;
    assert!(ended.elapsed() < Duration::from_secs(8), "the default is 10 s");
    bench.stop();
}

#[tokio::test]
async fn users_contexts_custom_and_the_task_folder() {
    let mut bench = Bench::start().await;
    let plain = json!({"name": "t", "command": ["true"], "labels": {"team": "red"}});
    assert_eq!(bench.mode_of_new_session(plain.clone()).await.1, "default");
    bench.set(json!({"users": {"tester": {"running_mode": "dedicated"}}}));
    let by_user = || async { bench.mode_of_new_session(plain.clone()).await == (json!("dedicated"), json!("user")) };
    eventually("users", by_user).await;
    bench.set(json!({"contexts": [{"labels": {"team": "red"}, "running_mode": "hybrid"}]}));
    let by_context = || async { bench.mode_of_new_session(plain.clone()).await == (json!("hybrid"), json!("context")) };
    eventually("contexts", by_context).await;
    bench.set(json!({"custom": {"mine": [1, 2]}}));
    eventually("custom", || async { bench.get("/api/v1/config").await["custom"] == json!({"mine": [1, 2]}) }).await;
    let folder = bench.home.path("tasks");
    bench.set(json!({"tasks_directory": folder}));
    eventually("tasks_directory", || async { folder.exists() }).await;
    bench.home.write("tasks/greet.yaml", "command: [echo, hi]\n");
    let there = || async { bench.get("/api/v1/tasks/greet").await["version"] == 1 };
    eventually("a document of tasks_directory", there).await;
    bench.stop();
}

#[tokio::test]
async fn balancing_and_protection() {
    let mut bench = Bench::start().await;
    bench.set(json!({"balancing": {"scheme": "packing"}}));
    eventually("balancing.scheme", || async { bench.why_there(task(json!({"cpu": 1}))).await.contains("packing") })
        .await;
    // vm_configuration_files: a running instance takes the change, and the file's own changes.
    let vm = bench.home.write("own.json", r#"{"slots": 1}"#);
    bench.set(json!({"vm_configuration_files": {"own": vm}}));
    eventually("vm_configuration_files", || async { bench.instance().await["slots"] == 1 }).await;
    bench.home.write("own.json", r#"{"slots": 2, "custom": {"x": 1}}"#);
    eventually("the VM configuration file itself", || async { bench.instance().await["slots"] == 2 }).await;
    bench.set(json!({"balancing": {"tasks_per_instance_max": 1}}));
    eventually("balancing.tasks_per_instance_max", || async { bench.instance().await["slots"] == 1 }).await;
    for (key, word) in [("cpu_ceiling_percent", "ceiling"), ("instances_per_session_max", "for one session")] {
        bench.set(json!({"balancing": {key: 0}}));
        let refused = || async {
            let session = bench.start_session(task(json!({}))).await;
            let why = bench.get(&format!("/api/v1/sessions/{session}/nodes/t/items/0/why")).await;
            why["text"].as_str().unwrap().contains(word)
        };
        eventually(key, refused).await;
    }
    bench.set(json!({"balancing": {"plan_orders_max": 1}}));
    let apart = || async {
        let session = bench.start_session(task(json!({"array": 2}))).await;
        let attempts = bench.ended(&session).await;
        attempts[0]["assigned_at"] != attempts[1]["assigned_at"]
    };
    eventually("balancing.plan_orders_max", apart).await;
    bench.set(json!({"do_not_terminate": ["one"]}));
    let read = || async { bench.get("/api/v1/config").await["do_not_terminate"] == json!(["one"]) };
    eventually("do_not_terminate is read", read).await;
    assert_eq!(bench.call("POST", "/api/v1/instances/one/drain", json!({})).await.0, 409);
    bench.stop();
}

#[tokio::test]
async fn logging_and_bad_files() {
    let mut bench = Bench::start().await;
    let logs = bench.home.path("logs-elsewhere");
    bench.set(json!({"logging": {"logs_directory": logs}}));
    eventually("logging.logs_directory", || async { logs.exists() }).await;
    let session = bench.start_session(task(json!({"command": ["echo", "hi"]}))).await;
    bench.ended(&session).await;
    assert_eq!(std::fs::read_to_string(logs.join(&session).join("0.0.1.out")).unwrap(), "hi\n");
    // logging.configuration_file: the configuration's own notices are switched off, and on again.
    bench.home.write("levels.json", r#"{"configuration": "error"}"#);
    bench.set(json!({"logging": {"configuration_file": bench.home.path("levels.json")}}));
    let read = || async { !bench.get("/api/v1/config").await["logging"]["configuration_file"].is_null() };
    eventually("the levels are read", read).await;
    for n in 0..2 {
        // The first change may still be noticed by the old levels; the second is not.
        let before = bench.notices();
        bench.set(json!({"custom": {"n": n}}));
        eventually("a change", || async { bench.get("/api/v1/config").await["custom"]["n"] == n }).await;
        assert!(n == 0 || bench.notices() == before, "logging.configuration_file");
    }
    let before = bench.notices();
    bench.home.write("levels.json", r#"{"configuration": "info", "http": "warn"}"#);
    eventually("the file's own change", || async { bench.notices() > before }).await;
    // A bad file is reported with its line, and the one before stays in force.
    bench.home.write("config.json", "{\n  \"lease_s\": \"soon\"\n}");
    eventually("a bad file is reported", || async { bench.home.read("engine.log").contains("line 2") }).await;
    assert_eq!(bench.get("/api/v1/config").await["custom"]["n"], 1);
    bench.stop();
}

#[tokio::test]
async fn limits_and_retention() {
    let mut bench = Bench::start().await;
    let session = bench.start_session(task(json!({"command": ["echo", "hi"]}))).await;
    bench.ended(&session).await;
    let log = bench.home.path("engine/logs").join(&session);
    assert!(log.exists());
    bench.set(json!({"content": {"file_bytes_max": 4}}));
    let bytes = b"five!";
    let path = format!("/api/v1/files/{}", blake3::hash(bytes).to_hex());
    let mut extra = 0_u8;
    let refused = || {
        // Something new each time: what is there already is not taken again.
        extra += 1;
        let bytes = [bytes.as_slice(), &[extra]].concat();
        let path = format!("/api/v1/files/{}", blake3::hash(&bytes).to_hex());
        let request = bench.request("PUT", &path).body(bytes);
        async move { request.send().await.unwrap().status() == 413 }
    };
    eventually("content.file_bytes_max", refused).await;
    assert_eq!(bench.request("GET", &path).send().await.unwrap().status(), 404);
    assert!(!bench.has_gap().await);
    bench.set(json!({"retention": {"events_max": 1, "check_s": 0.2}}));
    eventually("retention.events_max and retention.check_s", || bench.has_gap()).await;
    bench.set(json!({"content": {"bytes_max": 0}}));
    let full = || {
        let bytes = b"small";
        let request = bench.request("PUT", &format!("/api/v1/files/{}", blake3::hash(bytes).to_hex()));
        async move { request.body(bytes.to_vec()).send().await.unwrap().status() == 507 }
    };
    eventually("content.bytes_max", full).await;
    bench.set(json!({"retention": {"logs_bytes_max": 0, "check_s": 0.2}}));
    eventually("retention.logs_bytes_max", || async { !log.exists() }).await;
    bench.set(json!({"retention": {"sessions_hours": 0.0, "check_s": 0.2}}));
    let path = format!("/api/v1/sessions/{session}");
    eventually("retention.sessions_hours", || async { bench.get(&path).await["error"].is_string() }).await;
    let session = bench.start_session(task(json!({}))).await;
    bench.ended(&session).await;
    bench.set(json!({"retention": {"events_hours": 0.0, "check_s": 0.2}}));
    eventually("retention.events_hours", || bench.has_gap()).await;
    bench.stop();
}

#[tokio::test]
async fn heartbeats_and_leases() {
    let mut bench = Bench::start().await;
    bench.set(json!({"resource_time_check_s": 0.1}));
    let quick = || async {
        let before = bench.heartbeats().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.heartbeats().await >= before + 5
    };
    eventually("resource_time_check_s", quick).await;
    bench.set(json!({"lease_s": 1.0}));
    eventually("lease_s is read", || async { bench.get("/api/v1/config").await["lease_s"] == 1.0 }).await;
    let beat = bench.heartbeats().await;
    eventually("a heartbeat under the new lease", || async { bench.heartbeats().await > beat + 1 }).await;
    signal(&bench.agent, "STOP");
    let stopped = Instant::now();
    eventually("lease_s", || async { bench.instance().await["state"] == "gone" }).await;
    assert!(stopped.elapsed() < Duration::from_secs(10), "the lease was 30 s before");
    bench.stop();
}

/// A class whose `assign` does this.
fn class(body: &str) -> String {
    format!("local class = {{}}\nfunction class:assign(items, instances)\n{body}\nend\nreturn class\n")
}

#[tokio::test]
async fn classes_tasking_is_a_file_of_the_users_and_read_again_when_it_changes() {
    let mut bench = Bench::start().await;
    let write = |bench: &Bench, text: &str| {
        let new = bench.home.write("mine.luau.new", text);
        std::fs::rename(new, bench.home.path("mine.luau")).unwrap();
    };
    // A class that is not there is refused, and the builtin one stays.
    bench.set(json!({"classes": {"tasking": "luau:mine.luau"}, "custom": {"wanted": "one"}}));
    let logged = |bench: &Bench, text: &str| bench.home.read("engine.log").contains(text);
    eventually("the refusal", || async { logged(&bench, "classes.tasking") }).await;
    assert!(bench.why_there(task(json!({}))).await.contains("fewest-tasks"));
    // It places by its configuration, which is the file's `custom`.
    write(
        &bench,
        &class("if instances[1].id == self.configuration.wanted then return { instances[1] } end\nreturn nil"),
    );
    bench.set(json!({"custom": {"wanted": "one"}}));
    let by = "chosen by luau:mine.luau";
    eventually("its choice", || async { bench.why_there(task(json!({}))).await == by }).await;
    let own = bench.why_there(task(json!({"balance": "packing"}))).await;
    assert!(!own.contains("mine.luau"), "a task with a scheme of its own is not for it: {own}");
    // A file that is none is named with its line, and the one before stays in force.
    write(&bench, &class("retur nil"));
    eventually("the fault", || async { logged(&bench, "mine.luau:3:") }).await;
    assert_eq!(bench.why_there(task(json!({}))).await, by);
    // One that loops: its items are placed by default, and everyone can see why.
    write(&bench, &class("while true do end"));
    let stopped = "by default, since luau:mine.luau stopped at the limit of";
    eventually("the default", || async { bench.why_there(task(json!({}))).await.starts_with(stopped) }).await;
    let metrics = bench.get("/metrics").await;
    let counted = |line: &&str| line.starts_with("skein_algorithm_failures_total{fault=");
    assert!(metrics.as_str().unwrap().lines().any(|line| counted(&line)), "{metrics}");
    assert!(logged(&bench, "the algorithm for CPU setting 0 failed"));
    // One that places nothing: they wait, and `skein why` says for whom.
    write(&bench, &class("return nil"));
    eventually("it is read", || async {
        bench.home.read("engine.log").matches("the algorithm for CPU setting 0 was read").count() >= 3
    })
    .await;
    let waiting = bench.start_session(task(json!({}))).await;
    let path = format!("/api/v1/sessions/{waiting}/nodes/t/items/0/why");
    eventually("it waits", || async { bench.get(&path).await.to_string().contains("left_waiting") }).await;
    let said = bench.home.skein(&["why", &format!("{waiting}/t"), "--dir", "engine"]).ok().out;
    assert!(said.contains("luau:mine.luau leaves it waiting"), "{said}");
    // Corrected while they wait, it places them.
    write(&bench, &class("return { instances[1].id }"));
    assert_eq!(bench.ended(&waiting).await[0]["why"], by);
    bench.stop();
}
