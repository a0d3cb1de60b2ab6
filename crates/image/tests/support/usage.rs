//! What something costs: CPU time and memory, which a busy machine does not change as it changes the time on the wall.

use std::process::{Command, Stdio};
use std::time::Duration;

use wait4::Wait4 as _;

/// CPU time of this thread so far.
pub(crate) fn thread_cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap(), u32::try_from(now.tv_nsec).unwrap())
}

/// What a process used in its life.
#[derive(Debug, Clone)]
pub(crate) struct Used {
    pub(crate) cpu: Duration,
    pub(crate) peak_bytes: u64,
    /// What it wrote to its standard output.
    pub(crate) said: String,
}

/// CPU time that converting 2 TiB with a few pieces of data may take, making the disk and comparing included.
pub(crate) const HOLES_CPU_MAX: Duration = Duration::from_millis(250);

const CHILD: &str = "SKEIN_TEST_CHILD";
const PEAK: &str = "peak bytes: ";

/// Most memory that this process had. What `wait4` says of a child begins with what its parent had when it was made.
pub(crate) fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Does `what` in a process of its own and gives what that used: this test, called again by its name, with nothing
/// beside it. In that process it gives nothing, and the test ends there.
pub(crate) fn alone(test: &str, what: impl FnOnce()) -> Option<Used> {
    if std::env::var(CHILD).is_ok_and(|name| name == test) {
        what();
        println!("\n{PEAK}{}", peak_bytes());
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, test);
    Some(used_by(&mut command))
}

/// Runs it to its end, which must be good, and gives what it used.
pub(crate) fn used_by(command: &mut Command) -> Used {
    use std::io::Read as _;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    let ended = child.wait4().unwrap();
    assert!(ended.status.success(), "{command:?}: {}\n{said}", ended.status);
    let peak_bytes = said.lines().find_map(|line| line.strip_prefix(PEAK)?.parse().ok());
    Used { cpu: ended.rusage.utime + ended.rusage.stime, peak_bytes: peak_bytes.unwrap_or(ended.rusage.maxrss), said }
}

/// Does `what` take less CPU time than this, process and all?
pub(crate) fn assert_cpu_below(test: &str, most: Duration, what: impl FnOnce()) {
    if let Some(used) = alone(test, what) {
        assert!(used.cpu < most, "{test}: {:?} of CPU, {most:?} are allowed", used.cpu);
    }
}
