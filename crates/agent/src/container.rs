//! Container items over the REST interface that Docker and Podman share, on a Unix socket.
//!
//! ```text
//! create (pull when the image is missing) -> start -> wait, logs to the attempt's files -> inspect -> remove
//! ```
//! Failure paths: the engine answers no -> not started, with its words; a stop before the start ->
//! never started; the agent dies -> the slot's spawner removes the container (its last will).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt;
use reqwest::{Client, Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use skein_wire::StartOrder;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::io::StreamReader;

use crate::clock;
use crate::container_usage::{self, ContainerUsage};
use crate::folder::Folder;
use crate::lane::chain;
use crate::launch;
use crate::spawner::{ATTEMPT_PIDS_MAX, Event, Exit, StopSignal};

/// An answer that is no wait, pull or log takes at most this, ms.
const CALL_MS_MAX: u64 = 60_000;
/// Pulling an image takes at most this, ms.
const PULL_MS_MAX: u64 = 900_000;
/// After its end, a container's log is read for at most this, ms.
const LOG_TAIL_MS_MAX: u64 = 5_000;
/// Marks our containers.
const LABEL: &str = "io.skein.attempt";

/// What to run.
pub(crate) struct ContainerRun {
    pub(crate) launch: u64,
    pub(crate) image: String,
    pub(crate) args: Vec<String>,
    pub(crate) order: Arc<StartOrder>,
    pub(crate) folder: Arc<Folder>,
}

impl ContainerRun {
    /// Known before the container is: what may have to be removed can always be named.
    pub(crate) fn name(order: &StartOrder) -> String {
        format!("skein-{}-{}-{}", order.engine, order.attempt, order.generation)
    }
}

/// A container engine that answers on its socket.
#[derive(Debug, Clone)]
pub(crate) struct ContainerEngine {
    http: Client,
    pub(crate) socket: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    state: ContainerState,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerState {
    #[serde(default)]
    pid: i32,
    #[serde(default)]
    exit_code: i32,
    #[serde(rename = "OOMKilled", default)]
    oom_killed: bool,
}

/// What the container engine answered.
enum Trouble {
    NoSuchImage,
    Other(String),
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self::Other(why)
    }
}

impl ContainerEngine {
    /// The first engine that answers at one of the usual places, or at `CONTAINER_HOST` / `DOCKER_HOST`.
    pub(crate) async fn find() -> Option<Self> {
        let named = ["CONTAINER_HOST", "DOCKER_HOST"].into_iter().filter_map(|name| std::env::var(name).ok());
        let named: Vec<PathBuf> = named.filter_map(|url| url.strip_prefix("unix://").map(PathBuf::from)).collect();
        let session = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("podman/podman.sock"));
        let usual = ["/var/run/docker.sock", "/run/podman/podman.sock"].into_iter().map(PathBuf::from);
        for socket in named.into_iter().chain(session).chain(usual) {
            if !socket.exists() {
                continue;
            }
            let builder = Client::builder().unix_socket(socket.clone()).no_proxy();
            let tls = crate::tls::client_config(None, None).ok()?;
            let engine = Self { http: builder.tls_backend_preconfigured(tls).build().ok()?, socket };
            if engine.call(Method::GET, "/_ping", None).await.is_ok() {
                return Some(engine);
            }
            tracing::info!(socket = %engine.socket.display(), "no container engine answers there");
        }
        None
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response, Trouble> {
        let mut request = self.http.request(method.clone(), format!("http://container{path}"));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer =
            request.send().await.map_err(|e| format!("{} does not answer: {}", self.socket.display(), chain(&e)))?;
        let status = answer.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(answer);
        }
        let text = answer.text().await.unwrap_or_default();
        if status == StatusCode::NOT_FOUND && path.starts_with("/containers/create") {
            return Err(Trouble::NoSuchImage);
        }
        Err(format!("the container engine answered {status} to {method} {path}: {}", text.trim()).into())
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response, String> {
        match tokio::time::timeout(Duration::from_millis(CALL_MS_MAX), self.send(method, path, body)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Trouble::NoSuchImage)) => Err("no such image".into()),
            Ok(Err(Trouble::Other(why))) => Err(why),
            Err(_) => Err(format!("the container engine did not answer {path} within {} s", CALL_MS_MAX / 1000)),
        }
    }

    /// Runs a container to its end, and tells what a spawner would tell. A closed `signals` kills it.
    pub(crate) async fn run(
        &self,
        run: ContainerRun,
        mut signals: UnboundedReceiver<StopSignal>,
        tell: impl Fn(Event),
    ) {
        let (id, name) = (run.launch, ContainerRun::name(&run.order));
        let started = tokio::select! {
            started = self.start(&run, &name) => started,
            _ = signals.recv() => {
                self.remove(&name).await;
                tell(Event::Exited(Exit { id, signal: Some(15), ..Exit::default() }));
                return;
            }
        };
        let began_us = clock::now_us();
        let pid = match started {
            Ok(pid) => {
                tell(Event::Started { id, pid });
                pid
            }
            Err(why) => {
                self.remove(&name).await;
                tell(Event::StartFailed { id, why });
                return;
            }
        };
        let used = Arc::new(Mutex::new(ContainerUsage::default()));
        let watched = tokio::spawn(container_usage::watch(pid, Arc::clone(&used)));
        let logs = self.copy_logs(&name, &run.folder);
        let ended = self.wait(&name, &mut signals);
        tokio::pin!(logs);
        let (log_result, ended) = tokio::select! {
            ended = ended => (tokio::time::timeout(Duration::from_millis(LOG_TAIL_MS_MAX), &mut logs).await.ok(), ended),
            // The log ends with the container, so this is the usual way; the wait follows at once.
            early = &mut logs => (Some(early), self.wait(&name, &mut signals).await),
        };
        watched.abort();
        let used = *used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut exit = match ended {
            Ok(state) => Exit { code: Some(state.exit_code), out_of_memory: state.oom_killed, ..Exit::default() },
            Err(why) => Exit { notes: vec![why], ..Exit::default() },
        };
        if let Some(Err(why)) = log_result {
            exit.notes.push(format!("its log is not whole: {why}"));
        }
        let bytes = |path: PathBuf| path.metadata().map_or(0, |m| m.len());
        exit.log_bytes = bytes(run.folder.out_log()) + bytes(run.folder.err_log());
        (exit.cpu_ms, exit.peak_memory_kb) = (used.cpu_ms, used.peak_memory_kb);
        exit.run_ms = clock::now_us().saturating_sub(began_us) / 1000;
        self.remove(&name).await;
        tell(Event::Exited(Exit { id, ..exit }));
    }

    /// Creates and starts it; the process id of its first process on this machine.
    async fn start(&self, run: &ContainerRun, name: &str) -> Result<i32, String> {
        let body = create_body(run);
        let path = format!("/containers/create?name={name}");
        match self.send(Method::POST, &path, Some(&body)).await {
            Ok(_) => {}
            Err(Trouble::Other(why)) => return Err(why),
            Err(Trouble::NoSuchImage) => {
                self.pull(&run.image).await?;
                self.call(Method::POST, &path, Some(&body)).await?;
            }
        }
        self.call(Method::POST, &format!("/containers/{name}/start"), None).await?;
        Ok(self.inspect(name).await.map_or(0, |state| state.pid))
    }

    async fn pull(&self, image: &str) -> Result<(), String> {
        let failed = |why: String| format!("image '{image}' is not on this instance and cannot be pulled: {why}");
        let mut url = reqwest::Url::parse("http://container/images/create").map_err(|e| failed(e.to_string()))?;
        url.query_pairs_mut().append_pair("fromImage", image);
        let path = format!("/images/create?{}", url.query().unwrap_or(""));
        let pull =
            async {
                let answer = self.send(Method::POST, &path, None).await.map_err(|trouble| match trouble {
                    Trouble::NoSuchImage => "no such image".to_owned(),
                    Trouble::Other(why) => why,
                })?;
                // Progress line by line; an error comes with status 200, in the last one.
                let text = answer.text().await.map_err(|e| chain(&e))?;
                match text.lines().rev().find_map(|line| {
                    serde_json::from_str::<Value>(line).ok()?.get("error")?.as_str().map(str::to_owned)
                }) {
                    Some(error) => Err(error),
                    None => Ok(()),
                }
            };
        let pulled = tokio::time::timeout(Duration::from_millis(PULL_MS_MAX), pull).await;
        pulled.unwrap_or_else(|_| Err(format!("it took longer than {} s", PULL_MS_MAX / 1000))).map_err(failed)
    }

    async fn inspect(&self, name: &str) -> Result<ContainerState, String> {
        let answer = self.call(Method::GET, &format!("/containers/{name}/json"), None).await?;
        answer.json::<Inspected>().await.map(|inspected| inspected.state).map_err(|e| chain(&e))
    }

    /// Waits for the end, passing signals on.
    async fn wait(&self, name: &str, signals: &mut UnboundedReceiver<StopSignal>) -> Result<ContainerState, String> {
        let path = format!("/containers/{name}/wait");
        let ended = async {
            let answer = self.send(Method::POST, &path, None).await.map_err(|trouble| match trouble {
                Trouble::NoSuchImage => "the container is gone".to_owned(),
                Trouble::Other(why) => why,
            })?;
            answer.bytes().await.map_err(|e| chain(&e))
        };
        tokio::pin!(ended);
        let mut open = true;
        loop {
            tokio::select! {
                ended = &mut ended => {
                    ended?;
                    return self.inspect(name).await;
                }
                signal = signals.recv(), if open => {
                    open = signal.is_some();
                    let signal = match signal {
                        Some(StopSignal::Term) => "SIGTERM".to_owned(),
                        Some(StopSignal::Other(number)) => number.to_string(),
                        Some(StopSignal::Kill) | None => "SIGKILL".to_owned(),
                    };
                    if let Err(why) = self.call(Method::POST, &format!("/containers/{name}/kill?signal={signal}"), None).await {
                        tracing::warn!(name, why, "a container could not be signalled");
                    }
                }
            }
        }
    }

    async fn remove(&self, name: &str) {
        if let Err(why) = self.call(Method::DELETE, &format!("/containers/{name}?force=true&v=true"), None).await {
            tracing::debug!(name, why, "a container could not be removed");
        }
    }

    async fn copy_logs(&self, name: &str, folder: &Folder) -> Result<(), String> {
        let path = format!("/containers/{name}/logs?follow=true&stdout=true&stderr=true");
        let answer = match self.send(Method::GET, &path, None).await {
            Ok(answer) => answer,
            Err(Trouble::Other(why)) => return Err(why),
            Err(Trouble::NoSuchImage) => return Err("the container is gone".into()),
        };
        let stream = StreamReader::new(answer.bytes_stream().map_err(std::io::Error::other));
        split_streams(stream, &folder.out_log(), &folder.err_log()).await.map_err(|e| e.to_string())
    }
}

fn create_body(run: &ContainerRun) -> Value {
    let ContainerRun { order, folder, image, args, .. } = run;
    let mut env = launch::environment(order, Path::new("/work"), Path::new("/tmp"));
    if !order.env.contains_key("PATH") {
        // The image has its own.
        env.remove("PATH");
    }
    let env: Vec<String> = env.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut body = json!({
        "Image": image,
        "Env": env,
        "WorkingDir": "/work",
        "Labels": { LABEL: order.attempt.to_string() },
        "HostConfig": {
            "Binds": [format!("{}:/work", folder.work().display()), format!("{}:/tmp", folder.tmp().display())],
            "PidsLimit": ATTEMPT_PIDS_MAX,
        },
    });
    if !args.is_empty() {
        body["Cmd"] = json!(args);
    }
    if order.memory_mb > 0 {
        body["HostConfig"]["Memory"] = json!(u64::from(order.memory_mb) << 20);
    }
    body
}

/// The engine sends both streams in one, in frames: stream (1 or 2), three zeros, length, bytes.
async fn split_streams(mut stream: impl AsyncRead + Unpin, out: &Path, err: &Path) -> std::io::Result<()> {
    let open = || tokio::fs::OpenOptions::new().append(true).create(true).clone();
    let (mut out, mut err) = (open().open(out).await?, open().open(err).await?);
    let mut header = [0; 8];
    loop {
        match stream.read_exact(&mut header).await {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e),
        }
        let [kind, _, _, _, a, b, c, d] = header;
        let mut frame = (&mut stream).take(u64::from(u32::from_be_bytes([a, b, c, d])));
        let file = if kind == 2 { &mut err } else { &mut out };
        tokio::io::copy(&mut frame, file).await?;
        file.flush().await?;
    }
}

/// Removes a container by a request written by hand: the last will of an agent, carried out by a
/// spawner, which has no HTTP client and no runtime.
pub(crate) fn remove_blocking(socket: &Path, name: &str) -> std::io::Result<()> {
    use std::io::{Read, Write};
    let limit = Some(Duration::from_secs(10));
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    stream.write_all(
        format!("DELETE /containers/{name}?force=true&v=true HTTP/1.0\r\nHost: container\r\n\r\n").as_bytes(),
    )?;
    stream.read_to_end(&mut Vec::new()).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_two_streams_come_apart() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = Vec::new();
        for (kind, text) in [(1_u8, "out "), (2, "err"), (1, "more")] {
            bytes.extend_from_slice(&[kind, 0, 0, 0, 0, 0, 0, u8::try_from(text.len()).unwrap()]);
            bytes.extend_from_slice(text.as_bytes());
        }
        let (out, err) = (dir.path().join("o"), dir.path().join("e"));
        split_streams(&bytes[..], &out, &err).await.unwrap();
        assert_eq!(
            (std::fs::read_to_string(out).unwrap(), std::fs::read_to_string(err).unwrap()),
            ("out more".into(), "err".into())
        );
    }
}
