//! What the engine itself costs: an agent that says each attempt has ended as soon as it is told to start it.
//! It joins, signs and speaks the protocol like any other; only nothing is started.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use skein_domain::{AttemptEnd, EndCause, InstanceFacts, InstanceId};
use skein_wire::join::{JoinRequest, JoinToken};
use skein_wire::{AttemptRef, FromAgent, Hello, PROTOCOL, ToAgent, frame};
use tokio_tungstenite::tungstenite::Message;

use crate::running::Running;
use crate::{Report, percentile, rate};

pub(crate) const RATE: &str = "3 no-op tasks per second, durable";
pub(crate) const TRIP: &str = "18 round trip, p50";
const TASKS: u32 = 100_000;
const TRIPS: u64 = 2_000;

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

struct Agent {
    socket: Socket,
}

impl Agent {
    async fn join(running: &Running, name: &str, slots: u32) -> anyhow::Result<Self> {
        let token = JoinToken::decode(&running.client.join_token().await?.token)?;
        let key = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).ok().context("a key")?;
        let key = Ed25519KeyPair::from_pkcs8(key.as_ref()).ok().context("a key")?;
        let instance = InstanceId::new(name)?;
        let ask = JoinRequest {
            secret: token.secret,
            engine: token.engine.clone(),
            instance: instance.clone(),
            solution: "own".parse()?,
            public_key: STANDARD.encode(key.public_key().as_ref()),
        };
        let answer = reqwest::Client::new().post(format!("{}/agent/v1/join", running.url)).json(&ask).send().await?;
        if !answer.status().is_success() {
            bail!("joining: {}", answer.text().await?);
        }
        let url = format!("{}/agent/v1/connect", running.url.replace("http", "ws"));
        let (socket, _) = tokio_tungstenite::connect_async(url).await?;
        let mut agent = Self { socket };
        let Some(ToAgent::Challenge { nonce, engine, .. }) = agent.receive().await?.into_iter().next() else {
            bail!("no challenge")
        };
        let boot = "bench".to_owned();
        let signed = [STANDARD.decode(&nonce)?, boot.as_bytes().to_vec()].concat();
        let hello = Hello {
            protocol: PROTOCOL,
            engine,
            instance,
            boot,
            facts: facts(slots),
            holding: Vec::new(),
            signature: STANDARD.encode(key.sign(&signed)),
            draining: false,
        };
        agent.send(&[FromAgent::Hello(Box::new(hello))]).await?;
        Ok(agent)
    }

    async fn receive(&mut self) -> anyhow::Result<Vec<ToAgent>> {
        while let Some(message) = self.socket.next().await {
            if let Message::Text(text) = message? {
                return Ok(frame::decode(text.as_str())?);
            }
        }
        bail!("the engine ended the connection")
    }

    async fn send(&mut self, messages: &[FromAgent]) -> anyhow::Result<()> {
        let (frames, _) = frame::pack(messages)?;
        for text in frames {
            self.socket.feed(Message::Text(text.into())).await?;
        }
        Ok(self.socket.flush().await?)
    }

    fn heartbeat(number: u64) -> FromAgent {
        FromAgent::Heartbeat { number, cpu_percent: 1, memory_mb: 100, items: Vec::new(), traffic: None }
    }

    /// Ends everything at once, until the connection ends.
    async fn pretend(mut self) -> anyhow::Result<()> {
        let mut beat = tokio::time::interval(Duration::from_secs(2));
        let mut number = 0;
        loop {
            let messages = tokio::select! {
                messages = self.receive() => messages?,
                _ = beat.tick() => {
                    number += 1;
                    self.send(&[Self::heartbeat(number)]).await?;
                    continue;
                }
            };
            let ended = |message| match message {
                ToAgent::Start { attempt, generation, .. } => Some(FromAgent::Ended {
                    order: AttemptRef { attempt, generation },
                    end: Box::new(AttemptEnd::bare(EndCause::Succeeded)),
                }),
                _ => None,
            };
            let ends: Vec<FromAgent> = messages.into_iter().filter_map(ended).collect();
            self.send(&ends).await?;
        }
    }
}

fn facts(slots: u32) -> InstanceFacts {
    InstanceFacts {
        slots,
        memory_mb: 1_000_000,
        storage_mb: 1_000_000,
        cpus: 64,
        os: "linux".into(),
        arch: "x86_64".into(),
        instance_type: None,
        role: None,
        image: None,
        resources: std::collections::BTreeMap::new(),
        container: false,
    }
}

pub(crate) async fn rows(report: &mut Report) -> anyhow::Result<()> {
    let running = Running::start(false).await?;
    let mut agent = Agent::join(&running, "trips", 1).await?;
    let mut trips = Vec::new();
    for number in 1..=TRIPS {
        let start = Instant::now();
        agent.send(&[Agent::heartbeat(number)]).await?;
        while !agent
            .receive()
            .await?
            .iter()
            .any(|m| matches!(m, ToAgent::Lease { heartbeat, .. } if *heartbeat == number))
        {}
        trips.push(start.elapsed().as_secs_f64() * 1e6);
    }
    trips.sort_by(f64::total_cmp);
    report.row(TRIP, "skein", percentile(&trips, 50), "us");
    drop((agent, running));
    for slots in [64, 16] {
        let running = Running::start(false).await?;
        let agent = tokio::spawn(Agent::join(&running, "noop", slots).await?.pretend());
        running.run(1_000).await?;
        let cpu = running.cpu_s()?;
        let took = running.run(TASKS).await?;
        report.row(RATE, &format!("skein, {slots} slots"), rate(TASKS, took), "/s");
        let cpu_us = (running.cpu_s()? - cpu) * 1e6 / f64::from(TASKS);
        report.row("3 engine CPU per no-op task", &format!("skein, {slots} slots"), cpu_us, "us");
        agent.abort();
    }
    Ok(())
}
