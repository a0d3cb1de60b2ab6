//! Container items, with a Podman of this machine. Visibly skipped where there is none that works.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use skein_domain::EndCause;
use skein_domain::task::RunSpec;
use skein_wire::lane::Stream;
use skein_wire::{StartOrder, ToAgent};

use crate::agent::Agent;
use crate::engine::{FakeEngine, of, order};
use crate::support::{skipped, until};

const IMAGE: &str = "localhost/skein-busybox:latest";

struct Podman {
    dir: tempfile::TempDir,
    service: Option<Child>,
}

impl Podman {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        let dir = self.dir.path().display();
        command.args(["--storage-driver", "vfs", "--root", &format!("{dir}/root"), "--runroot", &format!("{dir}/run")]);
        command.args(args).env("CONTAINERS_CONF", self.dir.path().join("containers.conf")).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Result<String, String> {
        let output = self.command(args).output().map_err(|e| e.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("podman.sock")
    }

    /// A Podman that runs containers here, with an image of nothing but a static busybox.
    fn start() -> Result<Self, String> {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .find(|p| Path::new(p).exists())
            .ok_or("no static busybox")?;
        let mut podman = Self { dir: tempfile::tempdir().unwrap(), service: None };
        let runtime =
            if Path::new("/usr/sbin/runc").exists() || Path::new("/usr/bin/runc").exists() { "runc" } else { "crun" };
        let conf = format!(
            "[containers]\nnetns = \"none\"\ndefault_ulimits = [\"nofile=1000:1000\", \"nproc=1000:1000\"]\n[engine]\nruntime = \"{runtime}\"\nevents_logger = \"file\"\n"
        );
        std::fs::write(podman.dir.path().join("containers.conf"), conf).unwrap();
        let bin = podman.dir.path().join("image/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::copy(busybox, bin.join("busybox")).unwrap();
        for name in ["sh", "sleep", "echo", "cat", "wc", "pwd", "env", "head", "tail"] {
            std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
        let tar = podman.dir.path().join("image.tar");
        let image = podman.dir.path().join("image");
        Command::new("tar").args(["cf", tar.to_str().unwrap(), "-C", image.to_str().unwrap(), "."]).status().unwrap();
        podman.run(&["import", "-c", "ENV PATH=/bin", tar.to_str().unwrap(), IMAGE])?;
        podman.run(&["run", "--rm", IMAGE, "echo", "works"])?;
        let url = format!("unix://{}", podman.socket().display());
        let service = podman
            .command(&["system", "service", "--time=0", &url])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        podman.service = Some(service.map_err(|e| e.to_string())?);
        until("podman's socket", || podman.socket().exists().then_some(()));
        Ok(podman)
    }

    fn containers(&self) -> String {
        self.run(&["ps", "--all", "--quiet"]).unwrap()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if let Some(service) = &mut self.service {
            service.kill().ok();
            service.wait().ok();
        }
        self.run(&["rm", "--all", "--force", "--time=0"]).ok();
        self.run(&["rmi", "--all", "--force"]).ok();
    }
}

/// Busy for one to two seconds.
const BUSY: &str = "end=$(($(date +%s) + 2)); while [ $(date +%s) -lt $end ]; do :; done";

async fn uses_are_measured(engine: &FakeEngine, busy: &StartOrder) {
    // What it used is read from its cgroup, where this machine has those files.
    engine.start_order(busy);
    let end = engine.end_of(of(busy)).await;
    println!("a container that was busy for 1 to 2 s: {:?} ms of CPU, peak {:?} kB", end.cpu_ms, end.peak_memory_kb);
    if end.cpu_ms.is_none() {
        skipped("no cpuacct.usage or cpu.stat of containers here");
    }
    assert!(end.cpu_ms.is_none_or(|ms| (50..20_000).contains(&ms)), "{end:?}");
    assert!(end.peak_memory_kb.is_none_or(|kb| kb > 100), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_run_like_commands() {
    let Some(podman) = Podman::start().inspect_err(|why| skipped(&format!("no working podman here: {why}"))).ok()
    else {
        return;
    };
    let engine = FakeEngine::start().await;
    let dir = tempfile::tempdir().unwrap();
    let host = format!("unix://{}", podman.socket().display());
    let agent = Agent::start_with(&engine, dir.path(), 2, &[("CONTAINER_HOST", &host)]);
    assert!(engine.hello(1).await.facts.container);
    let container = |item: u32, image: &str, script: &str| StartOrder {
        run: RunSpec::Container { image: image.into(), args: vec!["sh".into(), "-c".into(), script.into()] },
        ..order(item, 1, &[])
    };

    let full = StartOrder {
        inputs: vec![engine.add_file("in.txt", b"1\n2\n")],
        outputs: vec!["out.txt".into()],
        env: [("SECRET".into(), "hunter2".into())].into(),
        secret_env: vec!["SECRET".into()],
        ..container(
            0,
            IMAGE,
            "pwd > out.txt; cat in.txt | wc -l >> out.txt; echo $SECRET; echo e >&2; echo $SKEIN_INDEX $HOME > /tmp/x",
        )
    };
    engine.start_order(&full);
    engine.started(of(&full)).await;
    let end = engine.end_of(of(&full)).await;
    assert_eq!(end.cause, EndCause::Succeeded, "{end:?}");
    let digest = end.outputs[0].digest.to_string();
    assert_eq!(engine.with(|seen| String::from_utf8(seen.files[&digest].clone()).unwrap()), "/work\n2\n");
    assert_eq!(engine.log(of(&full), Stream::Out), "***\n");
    assert_eq!(engine.log(of(&full), Stream::Err), "e\n");

    uses_are_measured(&engine, &container(9, IMAGE, BUSY)).await;

    let fails = container(1, IMAGE, "exit 5");
    let unknown = container(2, "localhost/no-such-image", "true");
    let stubborn =
        StartOrder { limit_ms: Some(500), ..container(3, IMAGE, "trap '' TERM; while true; do sleep 0.1; done") };
    let hungry = StartOrder {
        memory_mb: 32,
        ..container(4, IMAGE, "head -c 200000000 /dev/zero | tail -c 150000000 > /tmp/big")
    };
    for order in [&fails, &unknown, &stubborn, &hungry] {
        engine.start_order(order);
    }
    assert_eq!(engine.end_of(of(&fails)).await.cause, EndCause::Failed { exit_code: 5 });
    let EndCause::NotStarted { why } = engine.end_of(of(&unknown)).await.cause else { panic!() };
    assert!(why.contains("no-such-image"), "{why}");
    assert_eq!(engine.end_of(of(&stubborn)).await.cause, EndCause::TimedOut { limit_ms: 500 });
    assert_ne!(engine.end_of(of(&hungry)).await.cause, EndCause::Succeeded);
    until("all containers to be removed", || podman.containers().is_empty().then_some(()));

    // Cancelled; then the agent is killed: its container goes with it.
    let long = container(5, IMAGE, "sleep 1000");
    engine.start_order(&long);
    engine.started(of(&long)).await;
    engine.send(ToAgent::Cancel { attempt: long.attempt, generation: 1, moving: false });
    assert_eq!(engine.end_of(of(&long)).await.cause, EndCause::Cancelled);
    let orphan = container(6, IMAGE, "sleep 1000");
    engine.start_order(&orphan);
    engine.started(of(&orphan)).await;
    assert!(!podman.containers().is_empty());
    agent.signal("-KILL");
    until("the orphan to be removed", || podman.containers().is_empty().then_some(()));
}
