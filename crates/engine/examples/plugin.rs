//! `cargo xtask bench plugin`: how often a class in Luau can be asked, on one core, as the engine asks it: the
//! interrupt hook on, memory counted, the answer read and checked.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a benchmark; nothing is decided by its clock")]

use std::path::Path;
use std::time::{Duration, Instant};

use skein_domain::Live;
use skein_domain::decide::{Algorithm, Policy, Question, wanted};
use skein_domain::testing::{Scene, dedicated, facts, task};
use skein_engine::plugin::{Asker, Limits, Script};

/// Each figure is the best of so many rounds of this length: another program's time is not the class's.
const ROUNDS: u32 = 5;
const ROUND: Duration = Duration::from_millis(800);

/// The best of those that fit: each item is held against each instance.
const BEST: &str = "
    local class = {}
    function class:assign(items, instances)
        local places, given = {}, {}
        for _, item in items do
            local best, best_score
            for _, instance in item.fits do
                local more = given[instance.id] or 0
                if instance.free_slots > more and instance.memory_free_mb >= item.memory_mb then
                    local score = instance.attempts + more + instance.cpu_percent / 100
                    if not best or score < best_score then
                        best, best_score = instance, score
                    end
                end
            end
            if best then
                places[item.id] = best
                given[best.id] = (given[best.id] or 0) + 1
            end
        end
        return places
    end
    return class";

fn question(items: u32, instances: u32) -> Question {
    let mut scene = Scene::default();
    scene.policy = Policy { algorithm: Algorithm::Custom { class: "luau:best".into() }, ..Policy::default() };
    scene.solution(dedicated("own", 1_000_000));
    for n in 0..instances {
        let id = format!("i-{n:03}");
        scene.instance(&id, "own", facts(8));
        scene.live(&id, Live { connected: true, cpu_percent: n * 7 % 90, memory_mb: 0 });
    }
    scene.start_task(skein_domain::TaskSpec { array: items, ..task("t") });
    wanted(&scene.snapshot, &scene.policy, scene.now).unwrap()
}

fn calls_per_s(mut call: impl FnMut()) -> f64 {
    call();
    let round = |call: &mut dyn FnMut()| {
        let (start, mut calls) = (Instant::now(), 0_u32);
        while start.elapsed() < ROUND {
            call();
            calls += 1;
        }
        f64::from(calls) / start.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(|_| round(&mut call)).fold(0.0, f64::max)
}

fn script(text: String) -> Script {
    Script::new("luau:best", Path::new("best.luau"), text, serde_json::Map::new())
}

/// The largest class file that becomes machine code, and one that is interpreted: how long each takes to load.
fn loads() {
    let limits = Limits::default();
    for bytes in [limits.native_bytes, 16 * limits.native_bytes] {
        let function =
            "local function f(a, b) local t = {} for n = a, b do t[n] = (t[n] or 0) + n * a end return t end\n";
        let functions = function.repeat(bytes / function.len() - BEST.len() / function.len() - 2);
        let class = script(format!("do\n{functions}end\n{BEST}").replace("\nlocal function f", "\nfunction f"));
        let start = Instant::now();
        Asker::new(&class, limits).unwrap();
        println!("a class file of {} bytes loads in {:.1} ms", class.text.len(), start.elapsed().as_secs_f64() * 1e3);
    }
}

fn main() {
    loads();
    let script = script(BEST.to_owned());
    println!("calls per second, one core, interrupt hook on (best of {ROUNDS} rounds)");
    println!("{:>5} {:>10} {:>12} {:>18} {:>12}", "items", "instances", "kept", "one tenth patched", "built anew");
    for (items, instances) in [(1, 100), (10, 100), (64, 100), (64, 256)] {
        let asked = question(items, instances);
        let mut changed = asked.clone();
        for instance in changed.instances.iter_mut().step_by(10) {
            instance.cpu_percent = (instance.cpu_percent + 1) % 90;
        }
        let mut asker = Asker::new(&script, Limits::default()).unwrap();
        let mut ask = |question: &Question, anew| {
            let answer = asker.ask(question, anew).unwrap();
            assert_eq!(answer.places.len(), items as usize);
            question.check(answer).unwrap();
        };
        let kept = calls_per_s(|| ask(&asked, false));
        let mut turn = false;
        let patched = calls_per_s(|| {
            turn = !turn;
            ask(if turn { &changed } else { &asked }, false);
        });
        let anew = calls_per_s(|| ask(&asked, true));
        println!("{items:>5} {instances:>10} {kept:>12.0} {patched:>18.0} {anew:>12.0}");
    }
}
