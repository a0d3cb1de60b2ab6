//! CPU and memory in use, of the machine and of process groups, and what went over its networks and disks, read from
//! `/proc` and `/sys`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use skein_domain::{AttemptKey, Traffic};
use skein_wire::ItemUse;

/// What `/proc/PID/stat` says of a process.
pub(crate) struct ProcStat {
    /// Its parent's process id.
    pub(crate) parent: i32,
    /// Its process group.
    pub(crate) group: i32,
    /// CPU time of it and of the children it waited for, ticks.
    pub(crate) cpu_ticks: u64,
    /// Resident memory, pages.
    pub(crate) resident_pages: u64,
}

/// The state of one process; none when it is gone.
pub(crate) fn stat(pid: i32) -> Option<ProcStat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<ProcStat> {
    // The name in parentheses may hold spaces and parentheses itself: fields begin after the last.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok());
    let cpu_ticks = (11..=14).filter_map(number).sum();
    Some(ProcStat {
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        cpu_ticks,
        resident_pages: number(21)?,
    })
}

/// What is in use at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU of the whole machine, percent, rounded.
    pub cpu_percent: u32,
    /// Memory of the whole machine, MiB.
    pub memory_mb: u32,
    /// Each running attempt.
    pub items: Vec<ItemUse>,
    /// What the machine has counted since it booted.
    pub traffic: Traffic,
}

/// Remembers the last reading, since CPU use is a difference.
#[derive(Default)]
pub(crate) struct Meter {
    busy: u64,
    total: u64,
    groups: BTreeMap<i32, u64>,
}

impl Meter {
    /// Reads the machine and the process groups of `running`. Takes milliseconds where thousands of
    /// processes run, so it belongs on a thread of its own.
    pub(crate) fn read(&mut self, running: &[(AttemptKey, i32)]) -> Usage {
        let (busy, total) = machine_ticks();
        let passed = total.saturating_sub(self.total);
        let percent = |ticks: u64| (ticks * 100 + passed / 2).checked_div(passed).map_or(0, to_u32);
        let cpu_percent = percent(busy.saturating_sub(self.busy));
        let groups = group_use(running);
        let items = running
            .iter()
            .filter_map(|(attempt, group)| {
                let (ticks, pages) = groups.get(group)?;
                let before = self.groups.get(group).copied().unwrap_or(0);
                Some(ItemUse {
                    attempt: *attempt,
                    cpu_percent: percent(ticks.saturating_sub(before)),
                    memory_mb: to_u32((pages * rustix::param::page_size() as u64) >> 20),
                })
            })
            .collect();
        self.groups = groups.into_iter().map(|(group, (ticks, _))| (group, ticks)).collect();
        (self.busy, self.total) = (busy, total);
        Usage { cpu_percent, memory_mb: memory_in_use_mb(), items, traffic: traffic() }
    }
}

fn to_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// (busy, all) CPU ticks since boot.
fn machine_ticks() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or("");
    // user nice system idle iowait irq softirq steal; guest time is already in user.
    let ticks: Vec<u64> = line.split_ascii_whitespace().skip(1).take(8).filter_map(|t| t.parse().ok()).collect();
    let total: u64 = ticks.iter().sum();
    let idle = ticks.get(3).unwrap_or(&0) + ticks.get(4).unwrap_or(&0);
    (total - idle, total)
}

/// What interfaces and disks have counted.
fn traffic() -> Traffic {
    let there = |folder: &str, name: &str| Path::new(folder).join(name).join("device").exists();
    let network = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let disks = fs::read_to_string("/proc/diskstats").unwrap_or_default();
    let (network_in, network_out) = network_bytes(&network, |name| there("/sys/class/net", name));
    let (disk_read, disk_write) = disk_bytes(&disks, |name| there("/sys/block", name));
    Traffic { network_in, network_out, disk_read, disk_write }
}

/// (received, sent) of `/proc/net/dev`. Where some interface is a real one, those alone: bridges and the ends of
/// containers count the same bytes once more. Inside a container none is.
fn network_bytes(text: &str, real: impl Fn(&str) -> bool) -> (u64, u64) {
    let lines = text.lines().filter_map(|line| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts.split_ascii_whitespace().map_while(|n| n.parse().ok()).collect();
        let name = name.trim();
        (name != "lo").then_some((real(name), *counts.first()?, *counts.get(8)?))
    });
    let lines: Vec<(bool, u64, u64)> = lines.collect();
    let any = lines.iter().any(|(real, ..)| *real);
    let counted = lines.iter().filter(|(real, ..)| *real || !any);
    counted.fold((0, 0), |(received, sent), (_, more, out)| (received + more, sent + out))
}

/// (read, written) of `/proc/diskstats`, in sectors of 512 bytes whatever the disk's own are: disks, and not their
/// partitions or what is made of them.
/// <https://docs.kernel.org/admin-guide/iostats.html>
fn disk_bytes(text: &str, real: impl Fn(&str) -> bool) -> (u64, u64) {
    let lines = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        real(fields.get(2)?).then_some((number(5)?, number(9)?))
    });
    lines.fold((0, 0), |(read, written), (more, out)| (read + 512 * more, written + 512 * out))
}

fn group_use(running: &[(AttemptKey, i32)]) -> BTreeMap<i32, (u64, u64)> {
    let mut groups: BTreeMap<i32, (u64, u64)> = running.iter().map(|(_, group)| (*group, (0, 0))).collect();
    if groups.is_empty() {
        return groups;
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(stat) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(stat) else { continue };
        if let Some(sum) = groups.get_mut(&stat.group) {
            sum.0 += stat.cpu_ticks;
            sum.1 += stat.resident_pages;
        }
    }
    groups
}

/// A field of `/proc/meminfo`, KiB.
fn meminfo_kb(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_ascii_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Memory of the machine, MiB.
pub(crate) fn memory_total_mb() -> u32 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    to_u32(meminfo_kb(&text, "MemTotal") / 1024)
}

fn memory_in_use_mb() -> u32 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    to_u32(meminfo_kb(&text, "MemTotal").saturating_sub(meminfo_kb(&text, "MemAvailable")) / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "12 (a) b (c)) S 7 8 9 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 5 6 77 8";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.parent, stat.group, stat.cpu_ticks, stat.resident_pages), (7, 8, 100, 77));
    }

    #[test]
    fn what_a_machine_counts_is_counted_once() {
        let network = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop\n    \
            lo: 900 1 0 0 0 0 0 0 900 1 0 0 0 0 0 0\n  \
            eth0:    1000 2 0 0 0 0 0 0 70 1 0 0 0 0 0 0\ndocker0: 400 2 0 0 0 0 0 0 50 1 0 0 0 0 0 0\n";
        assert_eq!(network_bytes(network, |name| name == "eth0"), (1000, 70));
        assert_eq!(network_bytes(network, |_| false), (1400, 120), "inside a container no interface is a real one");
        let disks = "   8  0 sda 5 0 100 3 7 0 20 1 0 4 4 0 0 0 0 0 0\n   8  1 sda1 5 0 100 3 7 0 20 1 0 4 4\n";
        assert_eq!(disk_bytes(disks, |name| name == "sda"), (51_200, 10_240));
    }

    #[test]
    fn this_machine_can_be_read() {
        let mut meter = Meter::default();
        let own = rustix::process::getpgrp().as_raw_nonzero().get();
        let key: AttemptKey = "s-1.0.0.1".parse().unwrap();
        let usage = meter.read(&[(key, own)]);
        assert!(usage.memory_mb > 0 && usage.items[0].memory_mb > 0, "{usage:?}");
        assert!(memory_total_mb() > usage.memory_mb);
    }
}
