use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::Value;
use skein_agent::{FunctionHost, HostOptions, HostStatus};
use skein_domain::EndCause;
use skein_wire::lane::Stream;
use skein_wire::{Invocation, InvocationResult, StartOrder};

use crate::engine::{FakeEngine, LANE_TOKEN, of, order};
use crate::support::{alive, programs, testbin, until};

struct Host {
    url: String,
    http: reqwest::Client,
    engine: FakeEngine,
    dir: tempfile::TempDir,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn client() -> reqwest::Client {
    rustls::crypto::ring::default_provider().install_default().ok();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn host(change: impl FnOnce(&mut HostOptions)) -> Host {
    let dir = tempfile::tempdir().unwrap();
    let mut options = HostOptions::new(dir.path());
    options.programs = Some(programs());
    options.concurrency = 2;
    change(&mut options);
    let host = FunctionHost::bind(options).await.unwrap();
    let url = format!("http://{}", host.address());
    let serving = tokio::spawn(async move { host.serve().await.unwrap() });
    Host { url, http: client(), engine: FakeEngine::start().await, dir, serving }
}

impl Host {
    fn request(&self, order: &StartOrder) -> reqwest::RequestBuilder {
        let invocation = Invocation {
            order: order.clone(),
            engine_url: self.engine.url.clone(),
            lane_token: LANE_TOKEN.into(),
            ca_digest: None,
        };
        let key = format!("{}:{}", order.attempt, order.generation);
        self.http.post(format!("{}/invoke", self.url)).header("Idempotency-Key", key).json(&invocation)
    }

    async fn invoke(&self, order: &StartOrder) -> (StatusCode, InvocationResult) {
        let answer = self.request(order).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    async fn refused(&self, request: reqwest::RequestBuilder) -> (StatusCode, String) {
        let answer = request.send().await.unwrap();
        (answer.status(), answer.json::<Value>().await.unwrap()["error"].as_str().unwrap().to_owned())
    }

    async fn status(&self) -> HostStatus {
        self.http.get(format!("{}/status", self.url)).send().await.unwrap().json().await.unwrap()
    }

    async fn until(&self, name: &str, what: impl Fn(&HostStatus) -> bool) -> HostStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let status = self.status().await;
            if what(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "waited 20 s for {name}: {status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Writes its pid and a line per run, then waits for `go`.
fn waits(dir: &Path, item: u32, generation: u64) -> StartOrder {
    let d = dir.display();
    let script =
        format!("echo $$ > {d}/pid{item}; echo run >> {d}/runs{item}; while [ ! -e {d}/go ]; do sleep 0.01; done");
    order(item, generation, &["sh", "-c", &script])
}

fn pid(dir: &Path, item: u32) -> i32 {
    until("the pid", || std::fs::read_to_string(dir.join(format!("pid{item}"))).ok()?.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_gets_files_brings_files_and_logs() {
    let host = host(|_| ()).await;
    let order = StartOrder {
        inputs: vec![host.engine.add_file("data.txt", b"a\nb\n")],
        outputs: vec!["out.txt".into()],
        env: [("SECRET".into(), "hunter2".into())].into(),
        secret_env: vec!["SECRET".into()],
        ..order(0, 1, &["sh", "-c", "wc -l < data.txt > out.txt; echo $SECRET; echo e >&2"])
    };
    let (status, result) = host.invoke(&order).await;
    assert_eq!(
        (status, result.order, &result.end.cause),
        (StatusCode::OK, of(&order), &EndCause::Succeeded),
        "{result:?}"
    );
    assert!(result.end.cold_start_ms.is_some() && result.end.cpu_ms.is_some());
    let digest = result.end.outputs[0].digest.to_string();
    assert_eq!(host.engine.with(|seen| seen.files[&digest].clone()), b"2\n");
    assert_eq!(host.engine.log(of(&order), Stream::Out), "***\n");
    assert_eq!(host.engine.log(of(&order), Stream::Err), "e\n");
    // Warm now.
    let (_, result) = host.invoke(&crate::engine::order(1, 2, &["sh", "-c", "exit 4"])).await;
    assert_eq!((result.end.cause, result.end.cold_start_ms), (EndCause::Failed { exit_code: 4 }, None));
    let status = host.status().await;
    assert_eq!((status.invocations, status.cold_starts, status.warm), (2, 1, 1));
    println!("cold start {:?} ms", status.cold_start_ms_p50);
    // Warm invocations, one at a time.
    let began = Instant::now();
    for item in 10..110 {
        host.invoke(&crate::engine::order(item, 1, &["/bin/true"])).await;
    }
    println!("warm /bin/true as a function: {:?} each", began.elapsed() / 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubled_key_runs_once_and_can_be_reattached() {
    let host = host(|_| ()).await;
    let order = waits(host.dir.path(), 0, 1);
    assert_eq!(
        host.refused(host.request(&order).header("Skein-Reattach", "1")).await,
        (StatusCode::NOT_FOUND, "unknown".into())
    );
    // The caller goes away; the invocation stays.
    let gone = tokio::time::timeout(Duration::from_millis(700), host.request(&order).send());
    assert!(gone.await.is_err());
    let again = tokio::spawn(host.request(&order).send());
    let reattached = tokio::spawn(host.request(&order).header("Skein-Reattach", "1").send());
    pid(host.dir.path(), 0);
    std::fs::write(host.dir.path().join("go"), "").unwrap();
    for answer in [again, reattached] {
        let result: InvocationResult = answer.await.unwrap().unwrap().json().await.unwrap();
        assert_eq!(result.end.cause, EndCause::Succeeded);
    }
    // Done: the result is kept.
    let answer = host.request(&order).header("Skein-Reattach", "1").send().await.unwrap();
    assert_eq!(answer.json::<InvocationResult>().await.unwrap().end.cause, EndCause::Succeeded);
    assert_eq!(std::fs::read_to_string(host.dir.path().join("runs0")).unwrap(), "run\n");
    // An older generation of the same item is stale.
    let newer = StartOrder { attempt: "s-1.0.0.2".parse().unwrap(), ..crate::engine::order(0, 5, &["true"]) };
    assert_eq!(host.invoke(&newer).await.0, StatusCode::OK);
    let stale = StartOrder { attempt: "s-1.0.0.3".parse().unwrap(), ..crate::engine::order(0, 4, &["true"]) };
    assert_eq!(host.refused(host.request(&stale)).await, (StatusCode::CONFLICT, "stale".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hard_timeout_kills_everything() {
    let host = host(|options| options.timeout_ms = 700).await;
    let order = StartOrder { limit_ms: None, ..waits(host.dir.path(), 0, 1) };
    let (status, result) = host.invoke(&order).await;
    assert_eq!((status, result.end.cause), (StatusCode::GATEWAY_TIMEOUT, EndCause::TimedOut { limit_ms: 700 }));
    assert!(!alive(pid(host.dir.path(), 0)), "it is dead when the answer comes");
    // Its own limit, asked for gently.
    let (status, result) = host.invoke(&StartOrder { limit_ms: Some(200), ..waits(host.dir.path(), 1, 1) }).await;
    assert_eq!((status, result.end.cause), (StatusCode::OK, EndCause::TimedOut { limit_ms: 200 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_is_limited_and_a_cancel_obeyed() {
    let host = host(|options| options.concurrency = 1).await;
    let order = waits(host.dir.path(), 0, 1);
    let running = tokio::spawn(host.request(&order).send());
    let pid = pid(host.dir.path(), 0);
    assert_eq!(
        host.refused(host.request(&crate::engine::order(1, 1, &["true"]))).await,
        (StatusCode::TOO_MANY_REQUESTS, "busy".into())
    );
    let key = format!("{}:1", order.attempt);
    let cancelled = host.http.post(format!("{}/cancel", host.url)).header("Idempotency-Key", key).send().await.unwrap();
    assert_eq!(cancelled.status(), StatusCode::NO_CONTENT);
    let result: InvocationResult = running.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(result.end.cause, EndCause::Cancelled);
    assert!(!alive(pid));
    assert_eq!(host.invoke(&crate::engine::order(1, 1, &["true"])).await.1.end.cause, EndCause::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn runners_are_warmed_reused_and_scaled_to_zero() {
    let host = host(|options| (options.idle_ms, options.key) = (300, Some("k".into()))).await;
    assert_eq!(host.refused(host.request(&order(0, 1, &["true"]))).await.0, StatusCode::UNAUTHORIZED);
    let with_key =
        reqwest::header::HeaderMap::from_iter([(reqwest::header::AUTHORIZATION, "Bearer k".parse().unwrap())]);
    let mut host = host;
    host.http = reqwest::Client::builder().no_proxy().default_headers(with_key).build().unwrap();
    host.http.post(format!("{}/scale", host.url)).json(&serde_json::json!({"min_warm": 2})).send().await.unwrap();
    host.until("two warm runners", |status| status.warm == 2).await;
    let (_, result) = host.invoke(&order(0, 1, &["true"])).await;
    assert_eq!((result.end.cause, result.end.cold_start_ms), (EndCause::Succeeded, None));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(host.status().await.warm, 2, "kept warm though idle");
    host.http.post(format!("{}/scale", host.url)).json(&serde_json::json!({"min_warm": 0})).send().await.unwrap();
    host.until("scale to zero", |status| status.warm == 0).await;
    assert_eq!(host.status().await.cold_starts, 0);
    let (_, result) = host.invoke(&order(1, 1, &["true"])).await;
    assert!(result.end.cold_start_ms.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_ends_with_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let announce = dir.path().join("address");
    let options = format!("{},{}", dir.path().join("host").display(), announce.display());
    let mut process = std::process::Command::new(testbin()).args(["function-host", &options]).spawn().unwrap();
    let address = until("the address", || Some(std::fs::read_to_string(&announce).ok()?.trim().to_owned()));
    let engine = FakeEngine::start().await;
    let order = waits(dir.path(), 0, 1);
    let invocation =
        Invocation { order, engine_url: engine.url.clone(), lane_token: LANE_TOKEN.into(), ca_digest: None };
    let call = tokio::spawn(client().post(format!("http://{address}/invoke")).json(&invocation).send());
    let pid = pid(dir.path(), 0);
    process.kill().unwrap();
    process.wait().unwrap();
    until("the attempt to die", || (!alive(pid)).then_some(()));
    assert!(call.await.unwrap().is_err());
}
