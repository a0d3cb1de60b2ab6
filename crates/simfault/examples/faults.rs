//! `cargo xtask sim faults --seeds N [--seed S]`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for a terminal")]

use skein_simfault::{Counts, Setup, run, shrink};

fn number(name: &str) -> Option<u64> {
    let mut words = std::env::args().skip_while(|word| word != name);
    words.next().and_then(|_| words.next()).map(|n| n.parse().unwrap())
}

fn main() {
    let seeds = number("--seeds").unwrap_or(100);
    let (first, last) = number("--seed").map_or((0, seeds), |seed| (seed, seed + 1));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let (sender, found) = std::sync::mpsc::channel();
    for thread in 0..threads {
        let sender = sender.clone();
        std::thread::spawn(move || {
            for seed in (first..last).filter(|seed| seed % threads == thread) {
                sender.send((seed, run(seed, &Setup::default()))).ok();
            }
        });
    }
    drop(sender);
    let (mut all, mut shown) = (Counts::default(), 0);
    for (seed, counts) in found {
        if counts.bad() > 0 && shown < 3 {
            shown += 1;
            let (least, counts) = shrink(seed, &Setup::default());
            println!(
                "seed {seed} fails: {counts:#?}\nas small as {least:?}; again: cargo xtask sim faults --seed {seed}"
            );
        }
        all.add(&counts);
    }
    println!(
        "engine crashes {}, turns not written {}, snapshots compared {}, agents started anew {}, cuts {}, honest re-executions {}, machines made {}, orphans found {}",
        all.crashes, all.unwritten, all.compared, all.reboots, all.cuts, all.again, all.made, all.orphans
    );
    println!(
        "overlaps {}, crowded {}, answered and forgotten {}, loaded otherwise {}, unearned {}",
        all.overlap, all.crowded, all.forgotten, all.altered, all.unearned
    );
    println!(
        "{} seeds: {} lost, {} doubled, {} stuck, {} misassigned, {} killed, {} unowned",
        last - first,
        all.lost,
        all.doubled,
        all.stuck,
        all.misassigned,
        all.killed,
        all.unowned
    );
    if all.bad() > 0 {
        std::process::exit(1);
    }
}
