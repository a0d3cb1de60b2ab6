//! `nats-server` (Debian: nats-server), spoken to in its own text protocol: JetStream's publish with an
//! acknowledgement, and a plain request and reply. <https://docs.nats.io/reference/reference-protocols/nats-protocol>

use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::noop::TRIP;
use crate::running::quiet_command;
use crate::{Report, percentile, rate};

pub(crate) const PUBLISH: &str = "17 publish with acknowledgement, window 1,000";
const MESSAGES: u32 = 100_000;
const WINDOW: u32 = 1_000;
const TRIPS: u32 = 2_000;

struct Connection {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Connection {
    async fn open(port: u16) -> anyhow::Result<Self> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => return Err(error).context("nats-server does not listen"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        stream.set_nodelay(true)?;
        let (read, mut write) = stream.into_split();
        write.write_all(b"CONNECT {\"verbose\":false}\r\n").await?;
        Ok(Self { read: BufReader::new(read), write })
    }

    /// The next message's reply subject and body.
    async fn message(&mut self) -> anyhow::Result<(String, Vec<u8>)> {
        loop {
            let mut line = String::new();
            self.read.read_line(&mut line).await?;
            let words: Vec<&str> = line.split_whitespace().collect();
            let reply = match words.as_slice() {
                ["MSG", _, _, _] => String::new(),
                ["MSG", _, _, reply, _] => (*reply).to_owned(),
                ["PING"] => {
                    self.write.write_all(b"PONG\r\n").await?;
                    continue;
                }
                ["INFO", ..] | ["+OK" | "PONG"] => continue,
                _ => anyhow::bail!("nats-server said '{}'", line.trim()),
            };
            let bytes: usize = words.last().context("a size")?.parse()?;
            let mut body = vec![0; bytes + 2];
            self.read.read_exact(&mut body).await?;
            body.truncate(bytes);
            return Ok((reply, body));
        }
    }
}

pub(crate) async fn rows(report: &mut Report) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = quiet_command("nats-server");
    let Ok(mut server) =
        command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(dir.path()).spawn()
    else {
        report.missing("nats-server", "Debian: nats-server");
        return Ok(());
    };
    let measured = measure(report, port).await;
    server.kill()?;
    server.wait()?;
    measured
}

async fn measure(report: &mut Report, port: u16) -> anyhow::Result<()> {
    let mut one = Connection::open(port).await?;
    one.write.write_all(b"SUB acks 1\r\n").await?;
    let stream = br#"{"name":"S","subjects":["s"],"storage":"file","retention":"limits","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":0,"num_replicas":1}"#;
    let ask = format!("PUB $JS.API.STREAM.CREATE.S acks {}\r\n{}\r\n", stream.len(), String::from_utf8_lossy(stream));
    one.write.write_all(ask.as_bytes()).await?;
    let (_, answer) = one.message().await?;
    anyhow::ensure!(!String::from_utf8_lossy(&answer).contains("\"error\""), "{}", String::from_utf8_lossy(&answer));
    let publish = format!("PUB s acks 200\r\n{}\r\n", "x".repeat(200));
    let start = Instant::now();
    let mut sent = 0;
    for acked in 0..MESSAGES {
        if sent < MESSAGES && sent - acked <= WINDOW / 2 {
            let more = (WINDOW / 2).min(MESSAGES - sent);
            one.write.write_all(publish.repeat(more as usize).as_bytes()).await?;
            sent += more;
        }
        one.message().await?;
    }
    report.row(PUBLISH, "JetStream", rate(MESSAGES, start.elapsed()), "/s (no fsync per message)");
    let mut other = Connection::open(port).await?;
    other.write.write_all(b"SUB ask 1\r\nPING\r\n").await?;
    let answering = tokio::spawn(async move {
        loop {
            let (reply, _) = other.message().await?;
            other.write.write_all(format!("PUB {reply} 2\r\nok\r\n").as_bytes()).await?;
        }
        #[expect(unreachable_code, reason = "names the error's type")]
        anyhow::Ok(())
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut trips = Vec::new();
    for _ in 0..TRIPS {
        let start = Instant::now();
        one.write.write_all(b"PUB ask acks 2\r\nhi\r\n").await?;
        one.message().await?;
        trips.push(start.elapsed().as_secs_f64() * 1e6);
    }
    answering.abort();
    trips.sort_by(f64::total_cmp);
    report.row(TRIP, "NATS core", percentile(&trips, 50), "us");
    Ok(())
}
