//! What every transport must do, whatever its service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use skein_cloud::transport::{Control, Destination, Limits, Memory, Progress, Remembers as _, Settings, Uploaded};
use skein_cloud::{Error, Result};
use skein_image::Format;

use super::support::child::Order;
use super::support::image::{Image, MIB};
use super::support::proxy::{Plan, Proxy, Request};
use super::support::{Seed, surroundings, until};

/// Kills of the process that uploads.
const KILLS: u64 = 20;

/// One service that is tried.
pub trait Place: Sync + 'static {
    const NAME: &'static str;
    /// The form in which images go there.
    const FORMAT: Format;
    /// Something else of that name can be replaced.
    const REPLACES: bool;
    /// What was sent before a kill is kept.
    const RESUMES: bool = true;
    /// It cannot say what was begun and is not complete.
    const FORGETS_UNFINISHED: bool = false;

    /// In front of the service. None: there is no network (a folder).
    fn proxy(&self) -> Option<&Proxy>;
    fn settings(&self, limits: Limits) -> Settings;
    /// With a secret that is wrong.
    async fn wrong_settings(&self) -> Option<Settings>;
    /// Faults of a thousand requests.
    const FAULTS_PER_MILLE: u64 = 120;
    /// Kinds of faults that two uploads must have met: who sends few requests meets few.
    const FAULT_KINDS_MIN: usize = 5;
    /// Requests whose faults the service itself cannot bear (an emulator's shortcoming, said where it is).
    fn spares(_: &Request) -> bool {
        false
    }
    /// What is there, as the file that was to arrive.
    async fn content(&self, name: &str, uploaded: &Uploaded, len: usize) -> Vec<u8>;
    /// Uploads that were begun and are not complete.
    async fn unfinished(&self, name: &str) -> usize;
    /// Ends what is remembered behind the transport's back.
    async fn expire(&self, name: &str, memory: Option<Memory>);
}

/// Small parts: a small image then has as many as a large one in practice.
pub fn limits() -> Limits {
    Limits { part_bytes: 64 << 10, parts_at_once: 3, memory_bytes: MIB, note_bytes: 64 << 10 }
}

pub async fn upload(
    settings: &Settings,
    image: &Image,
    to: &Destination,
    memory: &mut Option<Memory>,
) -> Result<Uploaded> {
    let transport = settings.clone().open(surroundings())?;
    transport.upload(Arc::new(image.source()), to, memory, &Control::default()).await
}

fn is_same(what: &str, found: &[u8], expected: &[u8]) {
    assert_eq!(found.len(), expected.len(), "{what}: another length");
    let differs = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{what}: other bytes");
}

/// All of it, but the kills.
pub async fn conforms<P: Place>(place: &P) {
    let dir = tempfile::tempdir().unwrap();
    let image = Image::new(dir.path(), 1, 24 * MIB, 6 * MIB, 5, P::FORMAT);
    arrives_and_the_same_again_sends_nothing(place, &image).await;
    something_else_is_not_overwritten(place, &image).await;
    faults_are_outlived(place, &image).await;
    cancelled_and_taken_away(place, &image).await;
    an_expired_upload_begins_again(place, &image).await;
    a_wrong_key_is_said(place, &image).await;
}

async fn arrives_and_the_same_again_sends_nothing<P: Place>(place: &P, image: &Image) {
    let (expected, to, mut memory) = (image.expected_bytes(), Destination::new("first"), None);
    let settings = place.settings(limits());
    let before = place.proxy().map_or(0, Proxy::body_bytes);
    let first = upload(&settings, image, &to, &mut memory).await.unwrap();
    is_same(P::NAME, &place.content(&to.name, &first, expected.len()).await, &expected);
    assert!(!first.already && first.sent_bytes > 0, "{first:?}");
    let zeros = P::FORMAT == Format::Raw || P::FORMAT == Format::Vhd;
    // 6 MiB of noise in 5 runs: with whole blocks at both ends, but without the 18 MiB of zeros.
    let most = if zeros { 6 * MIB + 10 * (512 << 10) } else { expected.len() as u64 + expected.len() as u64 / 20 };
    assert!(first.sent_bytes <= most, "{}: {} bytes sent, {most} would do", P::NAME, first.sent_bytes);
    if let Some(proxy) = place.proxy() {
        let counted = proxy.body_bytes() - before;
        assert!(counted <= most && counted >= first.sent_bytes * 9 / 10, "{counted} {first:?}");
    }
    let before = place.proxy().map_or(0, Proxy::body_bytes);
    for mut memory in [memory, None] {
        let again = upload(&settings, image, &to, &mut memory).await.unwrap();
        assert!(again.already && again.reference == first.reference, "{}: {again:?} {first:?}", P::NAME);
    }
    let sent = place.proxy().map_or(0, Proxy::body_bytes) - before;
    assert!(sent < 2048, "{}: asking what is there took {sent} bytes", P::NAME);
}

async fn something_else_is_not_overwritten<P: Place>(place: &P, image: &Image) {
    let other = image.changed("other", 5 * MIB, &[7; 4096]);
    let settings = place.settings(limits());
    let mut to = Destination::new("first");
    if !P::REPLACES {
        return;
    }
    let refused = upload(&settings, &other, &to, &mut None).await.unwrap_err();
    assert!(matches!(refused, Error::Occupied { .. }), "{}: {refused}", P::NAME);
    to.replace = true;
    let replaced = upload(&settings, &other, &to, &mut None).await.unwrap();
    let expected = other.expected_bytes();
    is_same(P::NAME, &place.content(&to.name, &replaced, expected.len()).await, &expected);
}

async fn faults_are_outlived<P: Place>(place: &P, image: &Image) {
    let Some(proxy) = place.proxy() else { return };
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 1..=2_u64 {
        let to = Destination::new(format!("faults-{seed}"));
        let image = &image.changed(&format!("seed-{seed}"), 0, &seed.to_le_bytes());
        let expected = image.expected_bytes();
        proxy.faults();
        proxy.plan(Plan::all(seed, P::FAULTS_PER_MILLE).sparing(P::spares));
        let uploaded = upload(&place.settings(limits()), image, &to, &mut None).await;
        proxy.plan(Plan::none());
        let faults = proxy.faults();
        let uploaded = uploaded.unwrap_or_else(|e| panic!("{}, seed {seed}: {e}\n{faults:?}", P::NAME));
        is_same(P::NAME, &place.content(&to.name, &uploaded, expected.len()).await, &expected);
        kinds.extend(faults.iter().map(|(kind, _)| format!("{kind:?}")));
    }
    assert!(kinds.len() >= P::FAULT_KINDS_MIN, "{}: too few kinds of faults: {kinds:?}", P::NAME);
}

/// Cancels when so much was sent.
struct After {
    bytes: u64,
    sent: AtomicU64,
    control: Control,
}

impl Progress for After {
    fn sent(&self, bytes: u64) {
        if self.sent.fetch_add(bytes, Ordering::SeqCst) + bytes >= self.bytes {
            self.control.cancel.cancel();
        }
    }
}

pub async fn cancelled_after(
    settings: &Settings,
    image: &Image,
    to: &Destination,
    memory: &mut Option<Memory>,
    bytes: u64,
) {
    let control = Control::default();
    let after = After { bytes, sent: AtomicU64::new(0), control: control.clone() };
    let control = Control { progress: Arc::new(after), ..control };
    let transport = settings.clone().open(surroundings()).unwrap();
    let ended = transport.upload(Arc::new(image.source()), to, memory, &control).await;
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
}

async fn cancelled_and_taken_away<P: Place>(place: &P, image: &Image) {
    let image = &image.changed("cancelled", 0, b"cancelled");
    let (settings, to, mut memory) = (place.settings(limits()), Destination::new("cancelled"), None);
    cancelled_after(&settings, image, &to, &mut memory, 2 * MIB).await;
    if !P::FORGETS_UNFINISHED {
        assert_eq!(place.unfinished(&to.name).await, 1, "{}: what was sent is kept", P::NAME);
    }
    let transport = settings.open(surroundings()).unwrap();
    transport.abandon(&to, &mut memory).await.unwrap();
    assert_eq!(memory, None, "{}: nothing is remembered", P::NAME);
    if !P::FORGETS_UNFINISHED {
        assert_eq!(place.unfinished(&to.name).await, 0, "{}: nothing is left", P::NAME);
    }
    transport.abandon(&to, &mut memory).await.unwrap();
}

async fn an_expired_upload_begins_again<P: Place>(place: &P, image: &Image) {
    let image = &image.changed("expired", 0, b"expired");
    let (settings, to, mut memory) = (place.settings(limits()), Destination::new("expired"), None);
    cancelled_after(&settings, image, &to, &mut memory, 2 * MIB).await;
    place.expire(&to.name, memory.recall().unwrap()).await;
    let uploaded = upload(&settings, image, &to, &mut memory).await.unwrap();
    let expected = image.expected_bytes();
    is_same(P::NAME, &place.content(&to.name, &uploaded, expected.len()).await, &expected);
    if !P::FORGETS_UNFINISHED {
        assert_eq!(place.unfinished(&to.name).await, 0, "{}", P::NAME);
    }
}

async fn a_wrong_key_is_said<P: Place>(place: &P, image: &Image) {
    let Some(settings) = place.wrong_settings().await else { return };
    let error = upload(&settings, image, &Destination::new("wrong-key"), &mut None).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("check the key") && text.contains("40"), "{}: {text}", P::NAME);
    assert!(!text.contains("c2VjcmV0") && !text.contains("sssh"), "{}: a secret is shown: {text}", P::NAME);
}

/// What the kills are tried with.
pub struct Kills {
    /// Bytes of noise.
    pub data: u64,
    pub size: u64,
    pub limits: Limits,
    /// Bytes that a kill may cost: what is under way, and acknowledged but not yet noted.
    pub lost_bytes: u64,
}

/// A process that uploads is killed at random points, again and again; all that it sends is counted.
pub async fn survives_kills<P: Place>(place: &P, kills: Kills) {
    let dir = tempfile::tempdir().unwrap();
    let image = Image::new(dir.path(), 2, kills.size, kills.data, 8, P::FORMAT);
    let expected = image.expected();
    let len = std::fs::metadata(&expected).unwrap().len();
    let path = |name: &str| dir.path().join(name);
    let order = Order {
        settings: place.settings(kills.limits),
        image,
        name: "killed".to_owned(),
        memory: path("memory.json"),
        result: path("result.json"),
        rest_us: if place.proxy().is_none() { 300 } else { 0 },
    };
    let mut counter = Counter { proxy: place.proxy(), before: place.proxy().map_or(0, Proxy::body_bytes), last: 0 };
    let (mut chance, mut sent, mut killed, mut peak_kib) = (Seed(7), 0, 0, 0);
    let kills_wanted = if P::RESUMES { KILLS } else { 3 };
    let between = if P::RESUMES { kills.data / KILLS * 15 / 10 } else { kills.data * 9 / 10 };
    for kill in 0..=kills_wanted {
        // The last one is left alone.
        let after = if kill == kills_wanted { u64::MAX } else { chance.below(between) };
        let mut child = order.start(dir.path());
        let pid = child.id();
        until("the upload ends or sends enough", 120, async || {
            peak_kib = peak_rss_kib(pid).max(peak_kib);
            counter.look(pid) >= after || child.try_wait().unwrap().is_some()
        })
        .await;
        if child.try_wait().unwrap().is_none() {
            killed += 1;
            stop(pid);
            until("a process stops", 10, async || {
                std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap().contains("State:\tT")
            })
            .await;
            counter.look(pid);
            child.kill().unwrap();
        }
        let ended = child.wait().unwrap();
        assert!(kill < kills_wanted || ended.success(), "{}: the last try failed: {ended}", P::NAME);
        if ended.success() {
            // The end may be missed by looking.
            counter.last = counter.last.max(order.result().sent_bytes);
        }
        sent += counter.restart();
    }
    let told = format!(
        "{}: {killed} kills, {sent} bytes sent of {} ({} of a thousand), peak {} MiB",
        P::NAME,
        kills.data,
        sent * 1000 / kills.data,
        peak_kib >> 10
    );
    tell(&told);
    assert!(killed >= kills_wanted * 3 / 4, "{told}: too few kills");
    let most = kills.data * 1015 / 1000 + killed * kills.lost_bytes;
    if P::RESUMES {
        assert!(sent <= most, "{told}: a kill costs more than what is under way ({most})");
        assert!(sent < kills.data * 105 / 100, "{told}: over 1.05");
    }
    assert!(sent >= kills.data * 99 / 100, "{told}: not all was counted");
    assert!(peak_kib > 0 && peak_kib < 64 << 10, "{told}: memory");
    let found = place.content("killed", &order.result(), usize::try_from(len).unwrap()).await;
    is_same(P::NAME, &found, &std::fs::read(&expected).unwrap());
}

/// The most memory that a process takes which uploads so much noise with the limits that stand by default.
pub async fn peak_mib<P: Place>(place: &P, data: u64) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let order = Order {
        settings: place.settings(Limits::default()),
        image: Image::new(dir.path(), 21, data * 2, data, 4, P::FORMAT),
        name: "large".to_owned(),
        memory: dir.path().join("memory.json"),
        result: dir.path().join("result.json"),
        rest_us: 0,
    };
    let (mut child, mut peak_kib) = (order.start(dir.path()), 0);
    until("the upload ends", 120, async || {
        peak_kib = peak_rss_kib(child.id()).max(peak_kib);
        child.try_wait().unwrap().is_some()
    })
    .await;
    assert!(order.result().sent_bytes >= data);
    tell(&format!("{}: peak {} MiB with {} MiB of data", P::NAME, peak_kib >> 10, data >> 20));
    peak_kib >> 10
}

fn tell(told: &str) {
    use std::io::Write as _;
    std::io::stderr().write_all(format!("{told}\n").as_bytes()).unwrap();
}

/// Counts what a process sends: at the proxy, or, where there is no network, what it writes.
struct Counter<'a> {
    proxy: Option<&'a Proxy>,
    before: u64,
    last: u64,
}

impl Counter<'_> {
    /// Bytes since the last restart.
    fn look(&mut self, pid: u32) -> u64 {
        let now = self.proxy.map_or_else(|| written(pid), |proxy| proxy.body_bytes() - self.before);
        self.last = self.last.max(now);
        self.last
    }
    fn restart(&mut self) -> u64 {
        let sent = self.proxy.map_or(self.last, |proxy| proxy.body_bytes() - self.before);
        (self.before, self.last) = (self.before + sent, 0);
        sent
    }
}

fn field(pid: u32, file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Bytes that it gave to `write`.
fn written(pid: u32) -> u64 {
    field(pid, "io", "wchar:")
}

fn peak_rss_kib(pid: u32) -> u64 {
    field(pid, "status", "VmHWM:")
}

/// Stopped, so that what is counted then is all.
fn stop(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
}
