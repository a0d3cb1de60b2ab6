//! Containment: whatever a class does ends within its limits, is a fault that says which, and leaves the next
//! question as it was. Then: what a class is given, and that it cannot change it.

use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use skein_domain::decide::{Algorithm, Fault, Policy, Question, wanted};
use skein_domain::testing::{Scene, dedicated, facts, task};
use skein_domain::{Live, TaskSpec};

use super::vm::{Limits, Vm};
use super::{Plugin, Script};
use crate::core::Input;

fn script(text: &str) -> Script {
    let custom = serde_json::json!({"limits": [1, 2.5, {"deep": true}], "name": "n"});
    Script::new("luau:test.luau", Path::new("test.luau"), text.to_owned(), custom.as_object().unwrap().clone())
}

/// A class whose `assign` does this.
fn assigning(body: &str) -> Script {
    script(&format!("local class = {{}}\nfunction class:assign(items, instances, by_name)\n{body}\nend\nreturn class"))
}

fn scene(instances: u32, items: u32) -> Scene {
    let mut scene = Scene::default();
    scene.policy = Policy { algorithm: Algorithm::Custom { class: "luau:test.luau".into() }, ..Policy::default() };
    scene.solution(dedicated("own", 1_500_000_000));
    for n in 0..instances {
        scene.instance(&format!("i-{n:03}"), "own", facts(4));
    }
    scene.start_task(TaskSpec { array: items, ..task("t") });
    scene
}

fn question(scene: &Scene) -> Question {
    wanted(&scene.snapshot, &scene.policy, scene.now).unwrap()
}

/// A VM that a busy machine does not stop: its time is long.
fn vm(script: &Script) -> Vm {
    Vm::load_with(script, Limits { wall_ms: 60_000, ..Limits::default() }).unwrap()
}

fn ask(script: &Script) -> Result<skein_domain::decide::Answer, Fault> {
    vm(script).ask(&question(&scene(3, 5)))
}

fn error_of(script: &Script) -> String {
    ask(script).unwrap_err().to_string()
}

/// Or the same class would fail at one point on one machine, and at another on another. (Each coroutine counts one more
/// there: of 500,000 that is nothing.)
#[test]
fn machine_code_interrupts_as_often_as_the_interpreter() {
    let class = assigning(
        "local sum = 0
        local function deep(n) return if n > 0 then deep(n - 1) + 1 else 0 end
        for n = 1, 50 do sum += deep(n % 7) end
        for _, instance in instances do sum += instance.slots end
        for id in by_name do sum += #id end
        while sum > 3 do sum //= 2 end
        repeat sum += 1 until sum > 9
        pcall(function() error('caught') end)
        table.sort({3, 1, 2, sum}, function(a, b) return a < b end)
        return {[items[1].id] = instances[1]}",
    );
    let interrupts = |native_bytes| {
        let mut vm = Vm::load_with(&class, Limits { wall_ms: 60_000, native_bytes, ..Limits::default() }).unwrap();
        vm.ask(&question(&scene(3, 5))).unwrap();
        vm.interrupts()
    };
    let (native, interpreted) = (interrupts(usize::MAX), interrupts(0));
    assert!(native > 300, "{native}");
    assert_eq!(native, interpreted);
}

#[test]
fn what_does_not_end_is_stopped_and_says_which_limit_struck() {
    for (what, body) in [
        ("an endless loop", "while true do end"),
        ("one that catches what stops it", "while true do pcall(function() while true do end end) end"),
        ("one in a coroutine", "coroutine.wrap(function() while true do end end)()"),
        (
            "an exponential pattern",
            "return string.find(string.rep('a', 40), string.rep('a?', 40) .. string.rep('a', 40) .. 'b')",
        ),
        ("many wildcards", "return string.match(string.rep('a', 3000), '.-.-.-.-.-b')"),
        (
            "a comparison that never settles",
            "local t = table.create(1000, 0)\ntable.sort(t, function() while true do end end)",
        ),
        (
            "a sort of long texts",
            "local a = string.rep('a', 2e6)\nlocal t = {}\nfor i = 1, 20000 do t[i] = if i % 2 == 0 then a else a .. '' end\nwhile true do table.sort(t) end",
        ),
        ("one that swallows the error and answers", "pcall(function() while true do end end)\nreturn {}"),
    ] {
        let fault = ask(&assigning(body)).unwrap_err();
        assert_eq!(fault, Fault::Interrupts { most: super::INTERRUPTS_MAX }, "{what}");
    }
    // The backstop, for what is slow between interrupts.
    let limits = Limits { interrupts: u64::MAX, wall_ms: 20, ..Limits::default() };
    for body in [
        "local text = string.rep('x', 1e6)\nwhile true do text:upper() end",
        "local t = setmetatable({}, {__index = function(t, k) return t[k + 1] end})\nwhile true do pcall(function() return t[1] end) end",
    ] {
        let fault = Vm::load_with(&assigning(body), limits).unwrap().ask(&question(&scene(3, 5))).unwrap_err();
        assert_eq!(fault, Fault::WallTime { most_ms: 20 }, "{body}");
    }
}

#[test]
fn what_takes_too_much_memory_is_stopped() {
    for body in [
        "return string.rep('x', 1e9)",
        "local t = {}\nfor i = 1, 1e9 do t[i] = string.rep('y', 1e5) .. i end",
        "return table.create(6e7, 0)",
        "return buffer.create(1e9)",
        "local s = 'x'\nwhile true do s = s .. s end",
    ] {
        assert_eq!(ask(&assigning(body)), Err(Fault::Memory { most_mb: super::MEMORY_MB }), "{body}");
    }
}

#[test]
fn what_no_interrupt_reaches_is_refused_before_it_begins() {
    for (body, why) in [
        (
            "local s = string.rep('a', 4e6)\nreturn string.find(s, string.rep('a', 2e6) .. 'b', 1, true)",
            "too long together",
        ),
        ("local s = string.rep('a', 4e6)\nreturn s:find(string.rep('a', 2e6) .. 'b')", "too long together"),
        ("local s = string.rep('a', 4e6)\nreturn s:split(string.rep('a', 2e6) .. 'b')", "too long together"),
        ("table.move({}, 1, 2 ^ 31 - 1, 2)", "too many entries"),
    ] {
        assert!(error_of(&assigning(body)).contains(why), "{body}: {}", error_of(&assigning(body)));
    }
}

#[test]
fn errors_say_file_and_line_and_wrong_answers_say_what_is_wrong() {
    for (body, why) in [
        ("local x = nil\nreturn x.y", "test.luau:4: attempt to index nil with 'y'"),
        ("error('mine')", "test.luau:3: mine"),
        ("error({})", "failed"),
        ("local function f() return 1 + f() end\nf()", "stack overflow"),
        ("coroutine.yield(1)", "yield"),
        ("return 7", "assign returned 7, not a table"),
        ("return { [1] = 8 }", "item 1: 8 is no instance"),
        ("return { [0] = 'i-000' }", "0 is the id of no item"),
        ("return { [6] = 'i-000' }", "6 is the id of no item"),
        ("return { [1.5] = 'i-000' }", "1.5 is the id of no item"),
        ("return { x = 'i-000' }", "'x' is the id of no item"),
        ("return { [1] = {} }", "item 1: a table is no instance"),
        ("return { [1] = '\\xff' }", "is no instance"),
        ("local t = {}\nfor i = 1, 1e5 do t[i] = 'i-000' end\nreturn t", "more than 5 entries"),
        ("return setmetatable({}, { __iter = function() while true do end end, __len = error })", ""),
    ] {
        match ask(&assigning(body)) {
            Ok(answer) => assert!(why.is_empty() && answer.places.is_empty(), "{body}: {answer:?}"),
            Err(fault) => assert!(!why.is_empty() && fault.to_string().contains(why), "{body}: {fault}"),
        }
    }
    // Names that are none are found out against the question, and so is what may not be given back.
    let scene = scene(3, 5);
    let question = question(&scene);
    let mut vm = vm(&assigning("return { 'i-000', 'elsewhere' }"));
    let answer = vm.ask(&question).unwrap();
    assert!(question.check(answer).unwrap_err().to_string().contains("'elsewhere' is none of the instances"));
}

#[test]
fn nothing_outside_is_within_reach() {
    for name in [
        "require",
        "loadstring",
        "load",
        "dofile",
        "io",
        "os",
        "debug",
        "package",
        "collectgarbage",
        "getfenv",
        "setfenv",
        "newproxy",
        "print",
    ] {
        let fault = error_of(&assigning(&format!(
            "if _G.{name} ~= nil or {name} ~= nil then error('{name} is there') end\nerror('none')"
        )));
        assert!(fault.ends_with("none"), "{fault}");
    }
}

#[test]
fn what_is_given_cannot_be_changed_nor_the_library() {
    for body in [
        "instances[1] = nil",
        "instances[1].slots = 99",
        "by_name['i-000'] = nil",
        "items[1].fits[1] = nil",
        "items[1].id = 2",
        "rawset(instances[1], 'slots', 99)",
        "setmetatable(instances[1], {})",
        "setmetatable(instances, { __index = items })",
        "table.insert(instances, {})",
        "table.clear(instances)",
        "table.sort(instances, function(a, b) return a.id > b.id end)",
        "instances[1].sessions.x = true",
        "getmetatable('').__index = function() return 'x' end",
        "string.rep = nil",
        "math.huge = 1",
    ] {
        let fault = error_of(&assigning(body));
        assert!(
            fault.contains("readonly") || fault.contains("read only") || fault.contains("protected"),
            "{body}: {fault}"
        );
    }
    // A copy is the class's own, and what the next call sees is what is there.
    let mut vm = Vm::load(&assigning(
        "local copy = table.clone(instances)\ncopy[1] = nil\nmine = 1\nreturn { instances[1].id }",
    ))
    .unwrap();
    let question = question(&scene(3, 5));
    for _ in 0..2 {
        assert_eq!(vm.ask(&question).unwrap().places, [(0, "i-000".to_owned())].into());
    }
}

#[test]
fn a_file_that_is_no_class_says_so_with_its_line() {
    for (text, why) in [
        ("local class = {}\nlocal = 3", "test.luau:2:"),
        ("return 3", "it must return a class"),
        ("return {}", "no function 'assign'"),
        ("return { assign = 3 }", "'assign' is no function"),
        ("return { assign = print, configure = 1 }", "'configure' is no function"),
        ("error('at once')", "test.luau:1: at once"),
        ("while true do end", "stopped at the limit"),
        ("return { assign = math.max, configure = function() while true do end end }", "stopped at the limit"),
    ] {
        let fault = Vm::load(&script(text)).err().unwrap().to_string();
        assert!(fault.contains(why), "{text}: {fault}");
    }
}

#[test]
fn a_class_gets_its_configuration_and_keeps_what_it_remembers() {
    let text = "
        local class = {}
        function class:configure(custom)
            self.calls = 0
            return { first = custom.limits[2], deep = custom.limits[3].deep, name = custom.name }
        end
        function class:assign(items, instances, by_name)
            self.calls += 1
            local c = self.configuration
            assert(c.first == 2.5 and c.deep == true and c.name == 'n')
            assert(#items == 5 and #instances == 3 and by_name['i-001'] == instances[2])
            assert(#items[1].fits == 3 and items[1].fits[1] == instances[1] and items[1].task == 't')
            assert(instances[1].slots == 4 and instances[1].free_slots == 4 and instances[1].price_per_hour == 1.5)
            return { [self.calls] = instances[self.calls] }
        end
        return class";
    let mut vm = vm(&script(text));
    let question = question(&scene(3, 5));
    assert_eq!(vm.ask(&question).unwrap().places, [(0, "i-000".to_owned())].into());
    assert_eq!(vm.ask(&question).unwrap().places, [(1, "i-001".to_owned())].into());
}

#[test]
fn tables_that_are_kept_say_the_same_as_tables_built_anew() {
    let text = "
        local class = {}
        function class:assign(items, instances, by_name)
            local seen = {}
            for _, i in instances do
                table.insert(seen, table.concat({ i.id, i.attempts, i.free_slots, i.cpu_percent, i.memory_free_mb }, ' '))
            end
            for _, i in items[1].fits do table.insert(seen, 'fits ' .. i.id) end
            for name, i in by_name do assert(i.id == name) end
            error(table.concat(seen, '|'), 0)
        end
        return class";
    let script = script(text);
    let mut scene = scene(4, 30);
    let (mut kept, mut turns) = (vm(&script), 0);
    while let Some(question) = wanted(&scene.snapshot, &scene.policy, scene.now) {
        let said = kept.ask(&question).unwrap_err();
        let mut anew = vm(&script);
        assert_eq!(said, anew.ask(&question).unwrap_err());
        // Something is placed there, something is measured, one comes, one goes.
        scene.live(
            &format!("i-{:03}", turns % 4),
            Live { connected: turns % 3 != 2, cpu_percent: turns * 7 % 100, memory_mb: 0 },
        );
        scene.instance(&format!("j-{turns}"), "own", facts(1 + turns));
        let event = question.check(skein_domain::decide::Answer {
            places: question.instances.first().map(|i| (0, i.id.to_string())).into_iter().collect(),
            ..Default::default()
        });
        scene.happen(vec![event.unwrap()]);
        scene.pass();
        turns += 1;
        if turns == 20 {
            break;
        }
    }
    assert_eq!(turns, 20);
}

/// Everything that the plugin tells, as it comes.
fn plugin() -> (Plugin, std::sync::mpsc::Receiver<Input>) {
    let (said, heard) = channel();
    let said = Mutex::new(said);
    (Plugin::new(move |input| said.lock().unwrap().send(input).unwrap()), heard)
}

#[test]
fn a_fault_costs_one_question_and_the_next_has_a_new_vm() {
    let (plugin, heard) = plugin();
    let question = Arc::new(question(&scene(3, 5)));
    plugin.ask(1, question.clone());
    assert!(matches!(heard.recv().unwrap(), Input::Proposed { ask: 1, answer: Err(Fault::Panicked { .. }) }));
    let text = "
        local class, calls = {}, 0
        function class:assign(items, instances)
            calls += 1
            if calls == 2 then while true do end end
            return { instances[calls].id }
        end
        return class";
    plugin.set(Some(Arc::new(script(text))));
    assert!(matches!(heard.recv().unwrap(), Input::AlgorithmSet { .. }));
    let mut answers = Vec::new();
    for ask in 2..6 {
        plugin.ask(ask, question.clone());
        let Input::Proposed { ask: of, answer } = heard.recv().unwrap() else { panic!("an answer") };
        assert_eq!(of, ask);
        answers.push(answer.map(|answer| answer.places[&0].clone()).map_err(|fault| fault.word()));
    }
    assert_eq!(answers[0], Ok("i-000".to_owned()));
    assert!(matches!(answers[1], Err("interrupts" | "wall_time")));
    assert_eq!(answers[2], Ok("i-000".to_owned()), "what it remembered went with its VM");
    assert!(matches!(answers[3], Err("interrupts" | "wall_time")));
    // The same file again changes nothing; another one takes over at once.
    plugin.set(Some(Arc::new(script(text))));
    plugin.set(Some(Arc::new(assigning("return { [3] = 'i-002' }"))));
    assert!(matches!(heard.recv().unwrap(), Input::AlgorithmSet { .. }));
    plugin.ask(6, question);
    assert!(
        matches!(heard.recv().unwrap(), Input::Proposed { ask: 6, answer: Ok(answer) } if answer.places[&2] == "i-002")
    );
}

/// The examples, each asked by the core's own question; `decide` then does what they propose.
mod examples {
    use serde_json::json;
    use skein_domain::event::Event;
    use skein_domain::testing::name;
    use skein_domain::{InstanceId, Machines, Place, SolutionKind};

    use super::*;

    fn example(file: &str, custom: serde_json::Value) -> Script {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/algorithms").join(file);
        Script::read("luau:test.luau", &path, custom.as_object().unwrap()).unwrap()
    }

    /// Asks once, and carries out what is decided: where each item went, in order, and why.
    fn pass(scene: &mut Scene, vm: &mut Vm) -> Vec<String> {
        let question = question(scene);
        let event = question.check(vm.ask(&question).unwrap()).unwrap();
        scene.happen(vec![event]);
        let plan = scene.pass();
        assert!(plan.assignments.iter().all(|a| a.choice.to_string() == "chosen by luau:test.luau"), "{plan:?}");
        plan.assignments.iter().map(|a| a.place.to_string()).collect()
    }

    fn empty(instances: &[(&str, u32)]) -> Scene {
        let mut scene = scene(0, 1);
        let session = *scene.snapshot.sessions.keys().next().unwrap();
        scene.happen(vec![Event::SessionStopping { session, by: name("tester") }]);
        for (id, slots) in instances {
            scene.instance(id, "own", facts(*slots));
        }
        scene
    }

    #[test]
    fn affinity_keeps_kin_together_and_spreads_the_rest() {
        let mut vm = vm(&example("affinity.luau", json!({})));
        let mut scene = empty(&[("a", 3), ("b", 4), ("c", 4)]);
        scene.start_task(TaskSpec { group: Some("data".into()), array: 4, ..task("kin") });
        // The fourth finds no room beside the others.
        assert_eq!(pass(&mut scene, &mut vm), ["a", "a", "a", "b"]);
        scene.start_task(TaskSpec { array: 3, ..task("plain") });
        assert_eq!(pass(&mut scene, &mut vm), ["c", "b", "c"]);
        let bad = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/algorithms/affinity.luau");
        let wrong = json!({"affinity": {"by": "colour"}});
        let said = Script::read("luau:x", &bad, wrong.as_object().unwrap()).unwrap_err();
        assert!(said.contains("custom.affinity.by is 'colour': give group, session or user"), "{said}");
    }

    #[test]
    fn at_most_goes_above_neither_and_leaves_the_rest_waiting() {
        let mut vm = vm(&example("at_most.luau", json!({"at_most": {"tasks": 2, "cpu_percent": 75}})));
        let mut scene = empty(&[("busy", 8), ("calm", 8)]);
        scene.live("busy", Live { connected: true, cpu_percent: 75, memory_mb: 0 });
        let session = scene.start_task(TaskSpec { array: 5, ..task("t") });
        assert_eq!(pass(&mut scene, &mut vm), ["calm", "calm"]);
        scene.live("busy", Live { connected: true, cpu_percent: 74, memory_mb: 0 });
        assert_eq!(pass(&mut scene, &mut vm), ["busy", "busy"]);
        assert!(pass(&mut scene, &mut vm).is_empty());
        scene.succeed(skein_domain::testing::key(session, 0, 0).attempt(1));
        assert_eq!(pass(&mut scene, &mut vm), ["calm"]);
    }

    #[test]
    fn cheapest_asks_for_machines_uses_them_and_gives_them_back() {
        let mut vm = vm(&example("cheapest.luau", json!({})));
        let mut scene = empty(&[]);
        for (id, price) in [("dear", 900), ("cheap", 300)] {
            let mut solution = dedicated(id, price);
            if let SolutionKind::Dedicated(dedicated) = &mut solution.kind {
                let made = skein_domain::testing::machines(0, 4, facts(2));
                dedicated.machines = Some(Machines { idle_ms: 600_000, ..made });
            }
            scene.solution(solution);
        }
        let session = scene.start_task(TaskSpec { array: 3, ..task("t") });
        assert!(pass(&mut scene, &mut vm).is_empty());
        let made = |scene: &Scene| -> Vec<(InstanceId, String)> {
            scene.snapshot.instances.values().map(|i| (i.id.clone(), i.solution.to_string())).collect()
        };
        assert_eq!(made(&scene).iter().map(|(_, s)| s.as_str()).collect::<Vec<_>>(), ["cheap", "cheap"]);
        assert!(pass(&mut scene, &mut vm).is_empty(), "two are on their way: no more");
        assert_eq!(made(&scene).len(), 2);
        for (id, _) in made(&scene) {
            scene.instance(id.as_str(), "cheap", facts(2));
        }
        assert_eq!(pass(&mut scene, &mut vm).len(), 3);
        let open: Vec<_> = scene.snapshot.attempts.values().cloned().collect();
        for attempt in &open {
            assert!(matches!(&attempt.place, Place::Instance(id) if id.as_str().starts_with("cheap")));
            scene.succeed(attempt.key);
        }
        scene.pass();
        assert!(scene.snapshot.sessions.get(&session).is_none_or(|s| s.holds.is_empty()));
        pass(&mut scene, &mut vm);
        let going = scene.snapshot.instances.values().filter(|i| i.state == skein_domain::InstanceState::Draining);
        assert_eq!(going.count(), 2, "long before they would have been idle for long");
    }
}
