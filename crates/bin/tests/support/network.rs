//! A network between an engine and one agent that can be cut: a network namespace of the agent's own where this
//! machine lets the test make one, else a proxy.

use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

/// Tries with other names and addresses before there is none.
const TRIES: usize = 5;

/// The way of one agent to the engine.
pub(crate) enum Network {
    Namespace(Namespace),
    Proxy(Cable),
}

impl Network {
    /// The kernel's own network, if it can be had.
    pub(crate) fn new() -> Self {
        for _ in 0..TRIES {
            if let Some(namespace) = Namespace::made() {
                super::said(&format!("one agent is cut off in a network namespace of its own ({})", namespace.name));
                return Self::Namespace(namespace);
            }
        }
        super::said("one agent is cut off by a proxy: this machine does not let the test make a network namespace");
        Self::Proxy(Cable::new())
    }

    /// Where the engine has to listen: an address, and with TLS unless it is loopback.
    pub(crate) fn engine_address(&self) -> &str {
        match self {
            Self::Namespace(namespace) => &namespace.near,
            Self::Proxy(_) => "127.0.0.1",
        }
    }

    pub(crate) fn is_loopback(&self) -> bool {
        matches!(self, Self::Proxy(_))
    }

    /// Where the agent finds the engine that listens on this port.
    pub(crate) fn engine_as_seen(&self, port: u16) -> (String, u16) {
        match self {
            Self::Namespace(namespace) => (namespace.near.clone(), port),
            Self::Proxy(cable) => ("127.0.0.1".to_owned(), cable.to(port)),
        }
    }

    /// The same command, where the agent is.
    pub(crate) fn inside(&self, command: Command) -> Command {
        let Self::Namespace(namespace) = self else { return command };
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &namespace.name]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            inside.current_dir(dir);
        }
        inside
    }

    pub(crate) fn cut(&self, cut: bool) {
        match self {
            Self::Namespace(namespace) => {
                let state = if cut { "down" } else { "up" };
                let ip = ["netns", "exec", &namespace.name, "ip", "link", "set", &namespace.inner, state];
                assert!(done("ip", &ip), "the link of {} cannot be set {state}", namespace.name);
            }
            Self::Proxy(cable) => cable.cut.store(cut, Ordering::Relaxed),
        }
    }
}

/// A namespace with a pair of interfaces that lead there; both go with it.
pub(crate) struct Namespace {
    name: String,
    outer: String,
    inner: String,
    /// The address of this end.
    near: String,
}

impl Namespace {
    fn made() -> Option<Self> {
        // Random: other tests, and other users of this machine, make theirs.
        let dice = std::collections::hash_map::RandomState::new().build_hasher().finish();
        let [a, b, c, d, ..] = dice.to_le_bytes();
        let subnet = format!("10.{}.{b}", 64 + a % 128);
        let host = c & 0xFC;
        let id = format!("{:06x}", dice >> 40);
        let namespace = Self {
            name: format!("skein-{id}{d:02x}"),
            outer: format!("sko{id}{d:02x}"),
            inner: format!("ski{id}{d:02x}"),
            near: format!("{subnet}.{}", host + 1),
        };
        let (near, far) = (format!("{}/30", namespace.near), format!("{subnet}.{}/30", host + 2));
        let Self { name, outer, inner, .. } = &namespace;
        if routed(&namespace.near) || !done("ip", &["netns", "add", name]) {
            // Nothing of it is ours.
            std::mem::forget(namespace);
            return None;
        }
        let made = done("ip", &["link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name])
            && done("ip", &["addr", "add", &near, "dev", outer])
            && done("ip", &["link", "set", outer, "up"])
            && done("ip", &["netns", "exec", name, "ip", "addr", "add", &far, "dev", inner])
            && done("ip", &["netns", "exec", name, "ip", "link", "set", "lo", "up"])
            && done("ip", &["netns", "exec", name, "ip", "link", "set", inner, "up"]);
        made.then_some(namespace)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        done("ip", &["link", "del", &self.outer]);
        done("ip", &["netns", "del", &self.name]);
    }
}

/// Does a link of this machine lead there already?
fn routed(address: &str) -> bool {
    let mut command = Command::new("ip");
    let output = command.args(["-4", "route", "show", "table", "all", "match", address]).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).lines().any(|line| !line.starts_with("default")))
}

fn done(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    let status = command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// A way to the engine that can be cut: what is sent meanwhile arrives late or never.
pub(crate) struct Cable {
    port: u16,
    engine: Arc<AtomicU16>,
    cut: Arc<AtomicBool>,
}

impl Cable {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let cable = Self { port, engine: Arc::default(), cut: Arc::default() };
        let (engine, cut) = (cable.engine.clone(), cable.cut.clone());
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(("127.0.0.1", engine.load(Ordering::Relaxed))) else { continue };
                let (near2, far2) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                let (one, two) = (cut.clone(), cut.clone());
                std::thread::spawn(move || forward(near, far, &one));
                std::thread::spawn(move || forward(far2, near2, &two));
            }
        });
        cable
    }

    fn to(&self, engine: u16) -> u16 {
        self.engine.store(engine, Ordering::Relaxed);
        self.port
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read) = from.read(&mut buffer) {
        while cut.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    to.shutdown(std::net::Shutdown::Both).ok();
}
