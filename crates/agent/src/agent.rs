//! `skein agent`: joins, connects, and runs until it is told to leave.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use skein_domain::{InstanceId, SolutionId};
use skein_wire::join::JoinToken;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use crate::clock;
use crate::connect::identity::{self, Identity};
use crate::connect::link::{self, Address};
use crate::container::ContainerEngine;
use crate::core::{Core, CoreConfig, Input};
use crate::error::AgentError;
use crate::facts::{self, Labels};
use crate::files::Cache;
use crate::folder::{Folders, private_dirs};
use crate::lane::Lane;
use crate::logs::LOG_POLL_MS;
use crate::measure::Meter;
use crate::notice;
use crate::rim::{Event, Fixed, Over, Rim};
use crate::spawner::{Programs, prepare_cgroups};

/// The machine and its attempts are measured this often, ms.
pub(crate) const MEASURE_MS: u64 = 1_000;
/// How long what runs at a SIGTERM may go on, unless the options say otherwise, ms.
pub const DRAIN_MS_DEFAULT: u64 = 30_000;
/// After the last attempt the connection and the spawners get this long to end properly, ms.
const CLOSE_MS_MAX: u64 = 2_000;
/// `Started` may wait this long for something more pressing to go with, ms: a short attempt then costs
/// the engine one frame.
const ACKNOWLEDGE_MS: u64 = 2;
/// Results may wait this long for others while every slot has its next attempts at hand, ms.
const RESULTS_MS: u64 = 12;
/// What was accepted and is not started by then is acknowledged, at the latest, ms: well before the
/// engine would send the order again.
const ACKNOWLEDGE_LATE_MS: u64 = 500;
/// Events taken in before anything is sent.
const EVENTS_MAX: usize = 256;

/// Held by every spawner of an agent's folder.
const SPAWNERS_LOCK: &str = "spawners.lock";
/// A new agent looks this often whether the spawners of an earlier one are gone, ms.
const OUTLIVE_LOOK_MS: u64 = 10;
/// And says so this often, ms.
const OUTLIVE_SAY_MS: u64 = 10_000;

/// How an agent is to run.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// `http(s)://host:port` of the engine.
    pub engine_url: String,
    /// Needed once; the identity it buys is kept in `dir`.
    pub join_token: Option<String>,
    /// Wished name; the engine may give another. The host's name when absent.
    pub name: Option<InstanceId>,
    /// The solution it belongs to.
    pub solution: SolutionId,
    /// Attempts at a time; as many as CPUs when absent.
    pub slots: Option<u32>,
    /// Its own folder: identity, cache, the attempts' folders.
    pub dir: PathBuf,
    /// What no system call says of the instance.
    pub labels: Labels,
    /// How long what runs at a SIGTERM may go on, ms.
    pub drain_ms: u64,
    /// Where the cloud announces that it takes the instance away: anything but 404 there is an announcement.
    pub notice_url: Option<String>,
    /// Keep the folders of ended attempts in `<dir>/kept`.
    pub keep_folders: bool,
    /// How our own binary is called; [`Programs::own`] when absent.
    pub programs: Option<Programs>,
}

impl AgentOptions {
    /// An agent of the solution `own` with everything else at its default.
    pub fn new(engine_url: impl Into<String>, dir: impl Into<PathBuf>) -> Result<Self, AgentError> {
        let solution = SolutionId::new("own").map_err(|e| AgentError::system("the default solution", &e))?;
        Ok(Self {
            engine_url: engine_url.into(),
            join_token: None,
            name: None,
            solution,
            slots: None,
            dir: dir.into(),
            labels: Labels::default(),
            drain_ms: DRAIN_MS_DEFAULT,
            notice_url: None,
            keep_folders: false,
            programs: None,
        })
    }
}

/// Runs an agent until a SIGTERM (or Ctrl-C) has drained it, the engine drained it, or the engine
/// refuses it for good. A second SIGTERM stops what still runs.
pub async fn run_agent(options: AgentOptions) -> Result<(), AgentError> {
    let bulk = Handle::current();
    let (result, received) = oneshot::channel();
    // The control lane and the spawners have a thread of their own: no bulk transfer delays a
    // heartbeat, and an order goes from socket to spawner without waking another thread.
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let done = match runtime {
            Ok(runtime) => runtime.block_on(run(options, bulk, result)),
            Err(e) => {
                result.send(Err(AgentError::system("starting the agent's thread", &e))).ok();
                return;
            }
        };
        if let Some((result, done)) = done {
            result.send(done).ok();
        }
    };
    std::thread::Builder::new()
        .name("agent".into())
        .spawn(run)
        .map_err(|e| AgentError::system("starting the agent's thread", &e))?;
    received.await.unwrap_or_else(|_| Err(AgentError::system("running the agent", &"its thread ended")))
}

/// Nothing comes back when nobody waits for the result any more: the agent is dropped then.
async fn run(
    options: AgentOptions,
    bulk: Handle,
    mut result: oneshot::Sender<Result<(), AgentError>>,
) -> Option<(oneshot::Sender<Result<(), AgentError>>, Result<(), AgentError>)> {
    tokio::select! {
        done = live(options, &bulk) => Some((result, done)),
        () = result.closed() => None,
    }
}

async fn live(options: AgentOptions, bulk: &Handle) -> Result<(), AgentError> {
    private_dirs(&options.dir).map_err(|e| AgentError::folder("make", &options.dir, &e))?;
    let _lock = lock(&options.dir)?;
    outlive(&options.dir).await?;
    let (mut identity, mut token) = identify(&options).await?;
    loop {
        let (events, mut received) = mpsc::unbounded_channel();
        let mut rim = start(&options, identity.clone(), events.clone(), bulk).await?;
        let address = Address {
            engine_url: options.engine_url.clone(),
            ca_digest: identity.ca_digest.clone(),
            ca_pem: identity.ca_pem.clone(),
        };
        let notices = options.notice_url.clone().map(|url| bulk.spawn(notice::watch(url, events.clone())));
        let link = tokio::spawn(link::keep(address, events));
        let over = serve(&mut rim, &mut received).await;
        close(rim, &mut received).await;
        link.abort();
        if let Some(notices) = notices {
            notices.abort();
        }
        match (over?, token.take()) {
            (Over::Left, _) => return Ok(()),
            // An identity of another life of the engine (its folder was emptied): the token buys a new one.
            (Over::Refused { .. }, Some(token)) => identity = join(&options, &token).await?,
            (Over::Refused { why, next_step }, None) => return Err(AgentError::Refused { why, next_step }),
        }
    }
}

fn lock(dir: &std::path::Path) -> Result<std::fs::File, AgentError> {
    let path = dir.join("lock");
    let file = std::fs::File::create(&path).map_err(|e| AgentError::folder("make", &path, &e))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(AgentError::InUse(dir.display().to_string())),
        Err(e) => Err(AgentError::folder("lock", &path, &e.into())),
    }
}

/// Waits until nothing of an earlier agent of this folder lives. Its spawners end its attempts when it dies,
/// but on a busy machine that takes a moment, and the hello of a new boot says that they are gone: found by a
/// thousand kills, when an item was started elsewhere in that moment.
async fn outlive(dir: &std::path::Path) -> Result<(), AgentError> {
    let path = dir.join(SPAWNERS_LOCK);
    let file = std::fs::File::create(&path).map_err(|e| AgentError::folder("make", &path, &e))?;
    let mut waited_ms = 0;
    loop {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            // It is let go of with the file: our own spawners take it next.
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
            Err(e) => return Err(AgentError::folder("lock", &path, &e.into())),
        }
        if waited_ms % OUTLIVE_SAY_MS == OUTLIVE_LOOK_MS {
            tracing::warn!(folder = %dir.display(), "attempts of an earlier agent still end; waiting for that");
        }
        tokio::time::sleep(Duration::from_millis(OUTLIVE_LOOK_MS)).await;
        waited_ms += OUTLIVE_LOOK_MS;
    }
}

/// The identity, and the token if it was not needed for it.
async fn identify(options: &AgentOptions) -> Result<(Identity, Option<JoinToken>), AgentError> {
    let token = options.join_token.as_deref().map(JoinToken::decode).transpose()?;
    match (Identity::load(&options.dir)?, token) {
        (Some(identity), Some(token)) if identity.engine != token.engine => Ok((join(options, &token).await?, None)),
        (Some(identity), token) => Ok((identity, token)),
        (None, Some(token)) => Ok((join(options, &token).await?, None)),
        (None, None) => Err(AgentError::NoToken),
    }
}

async fn join(options: &AgentOptions, token: &JoinToken) -> Result<Identity, AgentError> {
    let name = match &options.name {
        Some(name) => name.clone(),
        None => host_name()?,
    };
    identity::join(token, &options.engine_url, &name, &options.solution, &options.dir).await
}

/// The host's name, as far as it can be a name of ours.
fn host_name() -> Result<InstanceId, AgentError> {
    let name = rustix::system::uname();
    let name: String =
        name.nodename().to_string_lossy().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(63).collect();
    let name = name.trim_start_matches('-');
    InstanceId::new(if name.is_empty() { "agent" } else { name }).map_err(|e| AgentError::system("the host's name", &e))
}

async fn start(
    options: &AgentOptions,
    identity: Identity,
    events: mpsc::UnboundedSender<Event>,
    bulk: &Handle,
) -> Result<Rim, AgentError> {
    let dir = &options.dir;
    let slots = options.slots.unwrap_or_else(facts::cpus).max(1);
    let programs = match &options.programs {
        Some(programs) => programs.clone(),
        None => Programs::own().map_err(|e| AgentError::system("finding our own executable", &e))?,
    };
    let programs = Programs { lock: Some(dir.join(SPAWNERS_LOCK)), ..programs };
    let containers = ContainerEngine::find().await;
    let fixed = Fixed {
        programs,
        cgroups: prepare_cgroups(),
        facts: facts::gather(dir, slots, &options.labels, containers.is_some()),
        boot: clock::random_hex(),
        cache: Cache::open(dir).map_err(|e| AgentError::folder("make", dir, &e))?,
        folders: Folders::open(dir, options.keep_folders).map_err(|e| AgentError::folder("make", dir, &e))?,
        containers,
    };
    let lane = Lane::new(&options.engine_url, identity.ca_digest.as_deref(), identity.ca_pem.as_deref(), "")
        .map_err(|e| AgentError::Join { engine_url: options.engine_url.clone(), why: e.to_string() })?;
    let core = Core::new(CoreConfig {
        engine: identity.engine.clone(),
        slots: usize::try_from(slots).unwrap_or(1),
        drain_ms: options.drain_ms,
    });
    let mut rim = Rim::new(fixed, identity, core, lane, events, bulk.clone());
    for slot in 0..usize::try_from(slots).unwrap_or(1) {
        rim.launch_spawner(slot).map_err(|e| AgentError::system("starting a spawner", &e))?;
    }
    Ok(rim)
}

/// The loop: everything that happens comes through here, one batch at a time.
async fn serve(rim: &mut Rim, received: &mut mpsc::UnboundedReceiver<Event>) -> Result<Over, AgentError> {
    let signals = |kind| signal(kind).map_err(|e| AgentError::system("listening for signals", &e));
    let (mut terminate, mut interrupt) = (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let mut watch = interval(Duration::from_millis(LOG_POLL_MS));
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut measure = interval(Duration::from_millis(MEASURE_MS));
    measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut acknowledge = interval(Duration::from_millis(ACKNOWLEDGE_LATE_MS));
    acknowledge.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let meter = Arc::new(Mutex::new(Meter::default()));
    let late = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(late);
    let mut batch = Vec::with_capacity(EVENTS_MAX);
    loop {
        let wake = rim.core().next_wake();
        let pause = Duration::from_millis(wake.map_or(u64::from(u32::MAX), |at| at.saturating_sub(clock::now_ms())));
        tokio::select! {
            _ = received.recv_many(&mut batch, EVENTS_MAX) => {
                for event in batch.drain(..) {
                    rim.take(event);
                }
            }
            () = tokio::time::sleep(pause), if wake.is_some() => rim.step(Input::Tick),
            _ = watch.tick(), if rim.has_unwatched() => rim.watch_running(),
            _ = acknowledge.tick(), if rim.has_acknowledgements() => rim.acknowledge(),
            _ = measure.tick() => measure_once(rim, &meter),
            _ = terminate.recv() => rim.step(Input::Terminate),
            _ = interrupt.recv() => rim.step(Input::Terminate),
            () = &mut late, if rim.has_mail() => rim.flush(),
        }
        if rim.is_pressing() {
            rim.flush();
        } else if rim.has_mail() {
            let wait_ms = if rim.has_results() { RESULTS_MS } else { ACKNOWLEDGE_MS };
            let due = tokio::time::Instant::now() + Duration::from_millis(wait_ms);
            if late.is_elapsed() || due < late.deadline() {
                late.as_mut().reset(due);
            }
        }
        if let Some(over) = rim.over.take() {
            return Ok(over);
        }
    }
}

/// Reading `/proc` may take milliseconds: not on the thread that sends heartbeats.
fn measure_once(rim: &Rim, meter: &Arc<Mutex<Meter>>) {
    let (running, meter, events) = (rim.core().running(), Arc::clone(meter), rim.events());
    tokio::task::spawn_blocking(move || {
        // Still measuring: this round is left out.
        if let Ok(mut meter) = meter.try_lock() {
            events.send(Event::Core(Input::Measured(meter.read(&running)))).ok();
        }
    });
}

/// Lets the last frames out and the spawners end.
async fn close(mut rim: Rim, received: &mut mpsc::UnboundedReceiver<Event>) {
    let mut awaited = rim.close();
    let ended = async {
        while awaited > 0 {
            match received.recv().await {
                Some(event) if Rim::is_end(&event) => awaited -= 1,
                Some(_) => {}
                None => return,
            }
        }
    };
    tokio::time::timeout(Duration::from_millis(CLOSE_MS_MAX), ended).await.ok();
    rim.remove_folders();
}
