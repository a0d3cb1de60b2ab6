//! What a world is made of, and what is counted in it.

use std::collections::BTreeSet;

/// Kinds of fault, each of which can be left out.
pub const KINDS: [&str; 10] =
    ["crash", "commit", "disk", "network", "cut", "reboot", "gateway", "control", "clock", "cloud"];

#[derive(Debug, Clone)]
pub struct Setup {
    pub items: u32,
    pub agents: usize,
    pub kinds: BTreeSet<&'static str>,
    pub mutant: Option<Mutant>,
    /// A user's algorithm places what has CPU setting 0.
    pub algorithm: bool,
}

/// A defect put in on purpose, by the harness: production code has no way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Agents believe in a lease of an hour: what an agent without the check would do.
    NoLeaseCheck,
    /// A result of an older attempt is taken for the open one's: what an engine without the check would do.
    NoGenerationCheck,
    /// A retirement is written down at once, but the planner hears of it a turn later.
    DrainOutside,
}

impl Default for Setup {
    fn default() -> Self {
        Self { items: 200, agents: 20, kinds: KINDS.into(), mutant: None, algorithm: false }
    }
}

impl Setup {
    /// The next smaller worlds.
    pub fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        if self.items > 8 {
            all.push(Self { items: self.items / 2, ..self.clone() });
        }
        if self.agents > 1 {
            all.push(Self { agents: self.agents / 2, ..self.clone() });
        }
        for kind in &self.kinds {
            let mut kinds = self.kinds.clone();
            kinds.remove(kind);
            all.push(Self { kinds, ..self.clone() });
        }
        all
    }
}

/// What was found; all but the last lines must be zero.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub lost: u64,
    pub doubled: u64,
    pub stuck: u64,
    pub misassigned: u64,
    pub killed: u64,
    pub unowned: u64,
    /// Two processes of one item at once, or a second start of what may start once.
    pub overlap: u64,
    /// More processes than slots, or company for what wants to be alone.
    pub crowded: u64,
    /// Answered, and not in the ledger afterwards.
    pub forgotten: u64,
    /// Loaded otherwise than it was built.
    pub altered: u64,
    /// Orders that do not come out again from what is on record.
    pub otherwise: u64,
    /// Success accepted for an attempt that no process of it earned.
    pub unearned: u64,
    pub crashes: u64,
    /// Turns that could not be written, and times that what was loaded was compared.
    pub unwritten: u64,
    pub compared: u64,
    pub reboots: u64,
    pub cuts: u64,
    pub again: u64,
    /// Machines that clouds made, and those that the ledger had to find by itself.
    pub made: u64,
    pub orphans: u64,
    /// Questions to a user's algorithm.
    pub asked: u64,
    pub story: Vec<String>,
}

impl Counts {
    pub fn bad(&self) -> u64 {
        [self.lost, self.doubled, self.stuck, self.misassigned, self.killed, self.unowned].iter().sum::<u64>()
            + self.overlap
            + self.crowded
            + self.forgotten
            + self.altered
            + self.otherwise
            + self.unearned
    }
    pub fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.stuck += other.stuck;
        self.misassigned += other.misassigned;
        self.killed += other.killed;
        self.unowned += other.unowned;
        self.overlap += other.overlap;
        self.crowded += other.crowded;
        self.forgotten += other.forgotten;
        self.otherwise += other.otherwise;
        self.unearned += other.unearned;
        self.altered += other.altered;
        self.crashes += other.crashes;
        self.unwritten += other.unwritten;
        self.compared += other.compared;
        self.reboots += other.reboots;
        self.cuts += other.cuts;
        self.again += other.again;
        self.made += other.made;
        self.orphans += other.orphans;
    }
}
