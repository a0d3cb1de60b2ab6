//! One Luau VM with a class in it, and the limits of one call.
//!
//! ```text
//! load: prelude -> sealed (sandbox) -> the file, read -> configure(custom) -> ready
//! ask:  tables patched -> assign -> allocate -> deallocate -> Answer
//! ```
//! Failure paths: a limit that strikes is an error inside the VM that nothing there can hold up, and a
//! [`Fault`] outside, also when the class caught it and went on. After a fault the VM is thrown away: whoever
//! keeps it loads a new one.

use std::cell::Cell;
use std::rc::Rc;

use mlua::chunk::Compiler;
use mlua::{Error, Function, IntoLuaMulti, Lua, LuaOptions, StdLib, Table, Value, VmState};
use skein_domain::decide::{Answer, Fault, Question};

use super::answer;
use super::script::Script;
use super::tables::{Makers, Tables};
use crate::clock;

/// Interrupts (calls, and turns of loops) of one call.
pub const INTERRUPTS_MAX: u64 = 500_000;
/// Time of one call, ms: the backstop, for what is slow between two interrupts.
pub const WALL_MS: u64 = 50;
/// Memory of a VM, with everything in it, MiB.
pub const MEMORY_MB: u64 = 16;
/// Largest class file that becomes machine code, bytes: of a larger one that would take too long, and it is interpreted.
const NATIVE_BYTES_MAX: usize = 64 << 10;
/// Time for reading a file and its configuration, ms.
const LOAD_WALL_MS: u64 = 500;
/// The clock is read every so many interrupts.
const CLOCK_EVERY: u64 = 16;
/// Characters kept of an error's text.
const ERROR_CHARS_MAX: usize = 300;

const PRELUDE: &str = include_str!("prelude.luau");

/// What one call may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Interrupts.
    pub interrupts: u64,
    /// Time, ms.
    pub wall_ms: u64,
    /// Memory, MiB.
    pub memory_mb: u64,
    /// Largest class file that becomes machine code, bytes. It interrupts as often either way.
    pub native_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { interrupts: INTERRUPTS_MAX, wall_ms: WALL_MS, memory_mb: MEMORY_MB, native_bytes: NATIVE_BYTES_MAX }
    }
}

/// Counts what one call uses.
#[derive(Debug)]
struct Meter {
    limits: Limits,
    interrupts: Cell<u64>,
    until_us: Cell<i64>,
    wall_ms: Cell<u64>,
    struck: Cell<Option<Struck>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Struck {
    Interrupts,
    WallTime,
}

impl Meter {
    fn new(limits: Limits) -> Rc<Self> {
        let (interrupts, until_us, wall_ms) = (Cell::new(0), Cell::new(0), Cell::new(0));
        Rc::new(Self { limits, interrupts, until_us, wall_ms, struck: Cell::new(None) })
    }

    fn start(&self, wall_ms: u64) {
        self.interrupts.set(0);
        self.wall_ms.set(wall_ms);
        self.until_us.set(clock::now().after_ms(wall_ms).0);
        self.struck.set(None);
    }

    fn interrupt(&self) -> mlua::Result<VmState> {
        let count = self.interrupts.get() + 1;
        self.interrupts.set(count);
        if self.struck.get().is_none() {
            if count > self.limits.interrupts {
                self.struck.set(Some(Struck::Interrupts));
            } else if count.is_multiple_of(CLOCK_EVERY) && clock::now().0 > self.until_us.get() {
                self.struck.set(Some(Struck::WallTime));
            }
        }
        match self.struck.get() {
            Some(_) => Err(Error::runtime("a limit of the engine's")),
            None => Ok(VmState::Continue),
        }
    }
}

/// A VM with a class.
pub(super) struct Vm {
    lua: Lua,
    meter: Rc<Meter>,
    class: Table,
    assign: Option<Function>,
    allocate: Option<Function>,
    deallocate: Option<Function>,
    tables: Tables,
}

impl Vm {
    /// A new VM with the class of this file.
    pub(super) fn load(script: &Script) -> Result<Self, Fault> {
        Self::load_with(script, Limits::default())
    }

    /// The same, with other limits.
    pub(super) fn load_with(script: &Script, limits: Limits) -> Result<Self, Fault> {
        let meter = Meter::new(limits);
        let lua = new_lua(&meter).map_err(|error| panicked(&error))?;
        meter.start(LOAD_WALL_MS);
        let made = prepare(&lua, &meter, script);
        let (tables, class) = made.map_err(|error| fault_of(&meter, &error))?;
        let method = |name: &str| match class.raw_get::<Value>(name) {
            Ok(Value::Function(function)) => Ok(Some(function)),
            Ok(Value::Nil) => Ok(None),
            _ => Err(error(&format!("{}: the class's '{name}' is no function", script.name()))),
        };
        let (assign, allocate, deallocate) = (method("assign")?, method("allocate")?, method("deallocate")?);
        if assign.is_none() {
            return Err(error(&format!("{}: the class has no function 'assign'", script.name())));
        }
        Ok(Self { lua, meter, class, assign, allocate, deallocate, tables })
    }

    /// One question.
    pub(super) fn ask(&mut self, question: &Question) -> Result<Answer, Fault> {
        // What is built for it counts as memory, not as time: its size is the question's.
        self.meter.start(self.meter.limits.wall_ms);
        let given = self.tables.update(&self.lua, question).map_err(|error| self.fault(&error))?;
        self.meter.start(self.meter.limits.wall_ms);
        let mut answer = Answer::default();
        if !question.items.is_empty() {
            let said = self.call(self.assign.as_ref(), (given.items, given.instances, given.by_name))?;
            answer.places = answer::places(&said, question.items.len())?;
        }
        if self.allocate.is_some() && !question.solutions.is_empty() {
            let waiting = self.tables.without(&self.lua, question, &answer).map_err(|error| self.fault(&error))?;
            let said = self.call(self.allocate.as_ref(), (waiting, given.solutions.clone()))?;
            answer.machines = answer::machines(&said)?;
        }
        if self.deallocate.is_some() && question.instances.iter().any(|i| i.machine && i.free_since.is_some()) {
            let free = self.tables.free(&self.lua, question).map_err(|error| self.fault(&error))?;
            let said = self.call(self.deallocate.as_ref(), (free, given.solutions))?;
            answer.give_back = answer::give_back(&said)?;
        }
        Ok(answer)
    }

    /// Everything that is kept between calls is built anew by the next.
    pub(super) fn forget(&mut self) -> Result<(), Fault> {
        self.tables.forget(&self.lua).map_err(|error| self.fault(&error))
    }

    /// Interrupts of the last call.
    #[cfg(test)]
    pub(super) fn interrupts(&self) -> u64 {
        self.meter.interrupts.get()
    }

    fn call<A: IntoLuaMulti>(&self, function: Option<&Function>, arguments: A) -> Result<Value, Fault> {
        let Some(function) = function else { return Ok(Value::Nil) };
        let bound = arguments.into_lua_multi(&self.lua).map_err(|error| self.fault(&error))?;
        let mut all = mlua::MultiValue::with_capacity(bound.len() + 1);
        all.push_back(Value::Table(self.class.clone()));
        all.extend(bound);
        let said = function.call::<Value>(all).map_err(|error| self.fault(&error))?;
        // It may have caught the error and gone on.
        self.meter.struck.get().map_or(Ok(said), |_| Err(self.fault(&Error::runtime(""))))
    }

    fn fault(&self, error: &Error) -> Fault {
        fault_of(&self.meter, error)
    }
}

fn new_lua(meter: &Rc<Meter>) -> mlua::Result<Lua> {
    let libraries =
        StdLib::COROUTINE | StdLib::TABLE | StdLib::STRING | StdLib::UTF8 | StdLib::BIT | StdLib::MATH | StdLib::BUFFER;
    let lua = Lua::new_with(libraries, LuaOptions::default())?;
    lua.set_memory_limit(usize::try_from(meter.limits.memory_mb << 20).unwrap_or(usize::MAX))?;
    lua.set_compiler(Compiler::new().set_optimization_level(2));
    let counted = meter.clone();
    lua.set_interrupt(move |_| counted.interrupt());
    Ok(lua)
}

/// The prelude, the seal, the file and its configuration.
fn prepare(lua: &Lua, meter: &Meter, script: &Script) -> mlua::Result<(Tables, Table)> {
    let (instances, items, pick, solution) = lua.load(PRELUDE).set_name("=prelude").call(())?;
    lua.sandbox(true)?;
    lua.enable_jit(script.text.len() <= meter.limits.native_bytes);
    let tables = Tables::new(lua, Makers { instances, items, pick, solution })?;
    meter.start(LOAD_WALL_MS);
    let class: Value = lua.load(&script.text).set_name(format!("={}", script.name())).call(())?;
    let Value::Table(class) = class else {
        return Err(Error::runtime(format!("{}: it must return a class, a table with 'assign'", script.name())));
    };
    let custom = super::tables::json(lua, &serde_json::Value::Object(script.custom.clone()))?;
    let configured = match class.raw_get::<Value>("configure")? {
        Value::Nil => custom,
        Value::Function(configure) => configure.call((class.clone(), custom))?,
        _ => return Err(Error::runtime(format!("{}: the class's 'configure' is no function", script.name()))),
    };
    class.raw_set("configuration", configured)?;
    match meter.struck.get() {
        Some(_) => Err(Error::runtime("")),
        None => Ok((tables, class)),
    }
}

fn fault_of(meter: &Meter, error: &Error) -> Fault {
    match meter.struck.get() {
        Some(Struck::Interrupts) => Fault::Interrupts { most: meter.limits.interrupts },
        Some(Struck::WallTime) => Fault::WallTime { most_ms: meter.wall_ms.get() },
        None if is_memory(error) => Fault::Memory { most_mb: meter.limits.memory_mb },
        None => self::error(&error.to_string()),
    }
}

fn is_memory(error: &Error) -> bool {
    match error {
        Error::MemoryError(_) => true,
        Error::CallbackError { cause, .. } | Error::WithContext { cause, .. } => is_memory(cause),
        _ => false,
    }
}

fn error(text: &str) -> Fault {
    let line = text.lines().next().unwrap_or_default();
    let line = ["runtime error: ", "syntax error: "].iter().find_map(|s| line.strip_prefix(s)).unwrap_or(line);
    Fault::Error { what: line.chars().take(ERROR_CHARS_MAX).collect::<String>().into() }
}

fn panicked(error: &Error) -> Fault {
    Fault::Panicked { what: error.to_string().into() }
}
