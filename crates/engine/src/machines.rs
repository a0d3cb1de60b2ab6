//! Machine drivers: how a cloud is asked for machines. The first one runs commands of the user's, so that
//! whatever has a command line can be a cloud; drivers of clouds speak the same words.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use skein_domain::{InstanceId, SolutionId};
use tokio::io::AsyncReadExt as _;

use crate::app::App;
use crate::clock;
use crate::config::{MachinesConfig, SolutionConfig};
use crate::core::{CloudEvent, Input, Listed};

/// Most commands at a time, over all solutions.
const COMMANDS_MAX: usize = 8;
/// Most bytes of a command's output that are looked at.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;
/// Most characters of what a failed command said that are passed on.
const SAID_CHARS_MAX: usize = 500;
/// What a command said is waited for so long after its end.
const PIPES_MAX: Duration = Duration::from_millis(500);
/// `EX_TEMPFAIL` of sysexits.h: no capacity now.
const NO_CAPACITY: i32 = 75;

/// Requests under way.
#[derive(Debug)]
pub(crate) struct Machines {
    /// The same request again, while one is under way, is the same request.
    open: Mutex<BTreeSet<(Verb, SolutionId, Option<InstanceId>)>>,
    room: tokio::sync::Semaphore,
}

impl Default for Machines {
    fn default() -> Self {
        Self { open: Mutex::default(), room: tokio::sync::Semaphore::new(COMMANDS_MAX) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verb {
    Create,
    End,
    List,
}

/// Asks for a machine.
pub(crate) fn make(app: &Arc<App>, solution: SolutionId, instance: InstanceId, size: Option<&str>) {
    ask(app, Verb::Create, solution, Some(instance), size.map(str::to_owned));
}

/// Has every machine of a name ended.
pub(crate) fn end(app: &Arc<App>, solution: SolutionId, instance: InstanceId) {
    ask(app, Verb::End, solution, Some(instance), None);
}

/// Asks what there is.
pub(crate) fn list(app: &Arc<App>, solution: SolutionId) {
    ask(app, Verb::List, solution, None, None);
}

fn ask(app: &Arc<App>, verb: Verb, solution: SolutionId, instance: Option<InstanceId>, size: Option<String>) {
    let key = (verb, solution.clone(), instance.clone());
    if !app.machines.open.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
        return;
    }
    let app = app.clone();
    tokio::spawn(async move {
        let event = carry_out(&app, verb, &solution, instance, size).await;
        app.machines.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        if let Some(event) = event {
            app.writer.tell(Input::FromCloud { solution, event });
        }
    });
}

async fn carry_out(
    app: &App,
    verb: Verb,
    solution: &SolutionId,
    name: Option<InstanceId>,
    size: Option<String>,
) -> Option<CloudEvent> {
    let Ok(_room) = app.machines.room.acquire().await else { return None };
    let settled = app.settled();
    let config = settled.config.solutions.get(solution.as_str());
    let Some(SolutionConfig::Dedicated { machines: Some(config), .. }) = config else {
        tracing::warn!(%solution, "machines of this solution are configured no more; what it has stays as it is");
        return None;
    };
    let asked_at = clock::now();
    match (verb, name) {
        (Verb::Create, Some(instance)) => Some(create(app, config, solution, instance, size).await),
        (Verb::End, Some(instance)) => match run(app, config, &config.end, solution, Some(&instance), &[]).await {
            Ok(_) => Some(CloudEvent::Ended(instance)),
            Err(why) => {
                // The next listing shows it again, and it is asked for again.
                tracing::warn!(%solution, %instance, why = why.to_string(), "a machine could not be ended; tried again");
                None
            }
        },
        _ => match run(app, config, &config.list, solution, None, &[])
            .await
            .map(|text| listed(&text, app.engine().as_str()))
        {
            Ok(Ok(machines)) => Some(CloudEvent::Listed { asked_at, machines }),
            Ok(Err(line)) => {
                tracing::warn!(%solution, line, "machines.list printed a line that is not 'ENGINE NAME CLOUD_NAME'; nothing is taken from it");
                None
            }
            Err(why) => {
                tracing::warn!(%solution, why = why.to_string(), "the machines could not be listed; tried again");
                None
            }
        },
    }
}

async fn create(
    app: &App,
    config: &MachinesConfig,
    solution: &SolutionId,
    instance: InstanceId,
    size: Option<String>,
) -> CloudEvent {
    let token = match crate::new_join_token(app).await {
        Ok(token) => token,
        Err(error) => return CloudEvent::NotMade { instance, why: format!("no join token: {error:#}") },
    };
    app.writer.tell(Input::FromCloud { solution: solution.clone(), event: CloudEvent::Asked(instance.clone()) });
    let extra = [("SKEIN_JOIN", Some(token)), ("SKEIN_INSTANCE_TYPE", size)];
    match run(app, config, &config.create, solution, Some(&instance), &extra).await {
        Ok(text) => {
            let cloud_id = text.lines().next().unwrap_or("").trim().to_owned();
            CloudEvent::Made { instance, cloud_id }
        }
        Err(why) => CloudEvent::NotMade { instance, why: why.to_string() },
    }
}

/// Why a command did not do what it was to do.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("'{0}' cannot be run: {1}")]
    Run(String, std::io::Error),
    #[error("'{program}' did not end within {s} s")]
    Slow { program: String, s: u64 },
    #[error("there is no capacity now{}", said(.0))]
    NoCapacity(String),
    #[error("'{program}' ended with {status}{}", said(.text))]
    Status { program: String, status: std::process::ExitStatus, text: String },
}

fn said(text: &str) -> String {
    let text: String = text.trim().chars().take(SAID_CHARS_MAX).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}

async fn run(
    app: &App,
    config: &MachinesConfig,
    command: &[String],
    solution: &SolutionId,
    name: Option<&InstanceId>,
    extra: &[(&str, Option<String>)],
) -> Result<String, Failed> {
    let (program, arguments) = command.split_first().map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
    let mut process = tokio::process::Command::new(program);
    process.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    process.env("SKEIN_ENGINE", app.engine().as_str()).env("SKEIN_SOLUTION", solution.as_str());
    process.env("SKEIN_URL", app.agents_url());
    name.inspect(|name| {
        process.env("SKEIN_NAME", name.as_str());
    });
    for (key, value) in extra {
        value.as_ref().inspect(|value| {
            process.env(key, value);
        });
    }
    let seconds = config.command_s.unwrap_or(120.0).max(0.1);
    let failed = |error| Failed::Run(program.to_owned(), error);
    let mut child = process.spawn().map_err(failed)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // The command's end counts, not that of its pipes: what it left running may hold them open.
    let whole = async {
        let (out, err) = (tokio::spawn(read(stdout)), tokio::spawn(read(stderr)));
        let status = child.wait().await;
        let rest =
            |text| async { tokio::time::timeout(PIPES_MAX, text).await.ok().and_then(Result::ok).unwrap_or_default() };
        (status, rest(out).await, rest(err).await)
    };
    let Ok((status, out, err)) = tokio::time::timeout(Duration::from_secs_f64(seconds), whole).await else {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a checked number of seconds")]
        return Err(Failed::Slow { program: program.to_owned(), s: seconds as u64 });
    };
    let status = status.map_err(failed)?;
    match status.code() {
        Some(0) => Ok(out),
        Some(NO_CAPACITY) => Err(Failed::NoCapacity(err)),
        _ => Err(Failed::Status { program: program.to_owned(), status, text: err }),
    }
}

async fn read(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // What cannot be read is as good as nothing said.
        pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).await.unwrap_or_default();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Lines `ENGINE NAME CLOUD_NAME`; the first that is not one is the error, since a list that is read in part
/// would make machines look missing. Those of other engines are none of our business.
fn listed(text: &str, engine: &str) -> Result<Vec<Listed>, String> {
    let mut ours = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.split_whitespace();
        let (Some(owner), Some(name), Some(cloud_id), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(line.to_owned());
        };
        if owner == engine {
            let instance = InstanceId::new(name).map_err(|_| line.to_owned())?;
            ours.push(Listed { instance, cloud_id: cloud_id.to_owned() });
        }
    }
    Ok(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_taken_whole_or_not_at_all() {
        let two = listed("me lab-1-0 i-1\n\n me lab-2-0\ti-2 \nother lab-3-0 i-3\n", "me").unwrap();
        assert_eq!(two.len(), 2);
        assert_eq!(two[1], Listed { instance: "lab-2-0".parse().unwrap(), cloud_id: "i-2".into() });
        assert_eq!(listed("me lab-1-0 i-1\nError: no such region\n", "me"), Err("Error: no such region".into()));
        assert_eq!(listed("lonely lab-1-0", "me"), Err("lonely lab-1-0".into()));
    }
}
