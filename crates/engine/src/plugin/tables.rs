//! The tables that a class is given. Those of instances are kept between calls, read-only, and patched where
//! an instance changed: a question about a hundred instances costs what changed since the last.

use std::collections::BTreeMap;

use mlua::{Function, Lua, Table, Value};
use skein_domain::decide::Question;
use skein_domain::decide::wanted::{Answer, AskedInstance, AskedItem};

/// Depth of the configuration's `custom`.
const JSON_DEPTH_MAX: usize = 32;

/// What is kept.
pub(super) struct Tables {
    instance: Function,
    item: Function,
    solution: Function,
    instances: Table,
    by_name: Table,
    /// In the order of the question.
    each: Vec<(AskedInstance, Table)>,
    /// Instances that take each profile.
    fits: Vec<(Vec<u32>, Table)>,
    items: Vec<Table>,
}

/// What one call gets.
pub(super) struct Given {
    pub items: Table,
    pub instances: Table,
    pub by_name: Table,
    pub solutions: Table,
}

impl Tables {
    pub(super) fn new(lua: &Lua, instance: Function, item: Function, solution: Function) -> mlua::Result<Self> {
        let (instances, by_name) = (lua.create_table()?, lua.create_table()?);
        Ok(Self { instance, item, solution, instances, by_name, each: vec![], fits: vec![], items: vec![] })
    }

    pub(super) fn forget(&mut self) {
        self.each.clear();
        self.fits.clear();
    }

    /// Brings what is kept up to the question, and makes the rest.
    pub(super) fn update(&mut self, lua: &Lua, question: &Question) -> mlua::Result<Given> {
        self.update_instances(lua, question)?;
        self.update_fits(lua, question)?;
        self.items = question
            .items
            .iter()
            .enumerate()
            .map(|(at, item)| self.new_item(lua, at, item))
            .collect::<mlua::Result<_>>()?;
        let solutions = question.solutions.iter().map(|solution| {
            let suits = lua.create_table()?;
            for (item, table) in question.items.iter().zip(&self.items) {
                if solution.suits.contains(&item.profile) {
                    suits.raw_push(table)?;
                }
            }
            suits.set_readonly(true);
            let (price, slots) = (solution.price_per_hour.usd(), solution.slots);
            let numbers = (solution.min, solution.max, solution.alive, solution.coming);
            let (min, max, alive, coming) = numbers;
            self.solution.call::<Table>((solution.id.as_str(), price, slots, min, max, alive, coming, suits))
        });
        let solutions = solutions.collect::<mlua::Result<Vec<_>>>()?;
        Ok(Given {
            items: list(lua, &self.items)?,
            instances: self.instances.clone(),
            by_name: self.by_name.clone(),
            solutions: list(lua, &solutions)?,
        })
    }

    fn update_instances(&mut self, lua: &Lua, question: &Question) -> mlua::Result<()> {
        let same = self.each.len() == question.instances.len()
            && self.each.iter().zip(&question.instances).all(|((known, _), asked)| known.id == asked.id);
        if same {
            for (at, asked) in question.instances.iter().enumerate() {
                if self.each[at].0 != *asked {
                    self.fill(lua, asked, &self.each[at].1)?;
                    self.each[at].0 = asked.clone();
                }
            }
            return Ok(());
        }
        let known: BTreeMap<_, _> =
            self.each.drain(..).map(|(known, table)| (known.id.clone(), (known, table))).collect();
        let (instances, by_name) = (
            lua.create_table_with_capacity(question.instances.len(), 0)?,
            lua.create_table_with_capacity(0, question.instances.len())?,
        );
        let mut each = Vec::with_capacity(question.instances.len());
        for asked in &question.instances {
            let table = if let Some((known, table)) = known.get(&asked.id) {
                if known != asked {
                    self.fill(lua, asked, table)?;
                }
                table.clone()
            } else {
                let table = lua.create_table_with_capacity(0, 20)?;
                self.fill(lua, asked, &table)?;
                table
            };
            instances.raw_push(&table)?;
            by_name.raw_set(asked.id.as_str(), &table)?;
            each.push((asked.clone(), table));
        }
        instances.set_readonly(true);
        by_name.set_readonly(true);
        (self.each, self.instances, self.by_name) = (each, instances, by_name);
        self.fits.clear();
        Ok(())
    }

    fn fill(&self, lua: &Lua, asked: &AskedInstance, table: &Table) -> mlua::Result<()> {
        let sessions = if asked.held_by.is_empty() {
            None
        } else {
            let sessions = lua.create_table()?;
            for session in &asked.held_by {
                sessions.raw_set(session.to_string(), true)?;
            }
            sessions.set_readonly(true);
            Some(sessions)
        };
        table.set_readonly(false);
        let filled = self.instance.call::<()>((
            table,
            asked.id.as_str(),
            asked.solution.as_str(),
            asked.slots,
            asked.attempts,
            asked.cpus,
            asked.cpu_percent,
            asked.memory_mb,
            asked.memory_free_mb,
            asked.storage_free_mb,
            asked.price_per_hour.usd(),
            asked.machine,
            asked.free_since.is_some(),
            sessions,
            asked.instance_type.as_deref(),
            asked.role.as_deref(),
        ));
        table.set_readonly(true);
        filled
    }

    fn update_fits(&mut self, lua: &Lua, question: &Question) -> mlua::Result<()> {
        self.fits.truncate(question.fits.len());
        for (at, fits) in question.fits.iter().enumerate() {
            if self.fits.get(at).is_some_and(|(known, _)| known == fits) {
                continue;
            }
            let table = lua.create_table_with_capacity(fits.len(), 0)?;
            for instance in fits.iter().filter_map(|at| self.each.get(*at as usize)) {
                table.raw_push(&instance.1)?;
            }
            table.set_readonly(true);
            let entry = (fits.clone(), table);
            if at < self.fits.len() { self.fits[at] = entry } else { self.fits.push(entry) }
        }
        Ok(())
    }

    fn new_item(&self, lua: &Lua, at: usize, asked: &AskedItem) -> mlua::Result<Table> {
        let resources = if asked.resources.is_empty() {
            None
        } else {
            let resources = lua.create_table()?;
            for (name, amount) in &asked.resources {
                resources.raw_set(&**name, *amount)?;
            }
            resources.set_readonly(true);
            Some(resources)
        };
        let fits = self.fits.get(asked.profile as usize).map(|(_, table)| table.clone());
        self.item.call((
            at + 1,
            asked.item.to_string(),
            &*asked.task,
            asked.item.session().to_string(),
            asked.user.as_str(),
            asked.group.as_deref(),
            asked.group_on.as_ref().map(skein_domain::InstanceId::as_str),
            asked.memory_mb,
            asked.storage_mb,
            resources,
            asked.urgency,
            asked.since.0 / 1000,
            asked.attempts,
            asked.expected_run_ms,
            asked.typical_run_ms,
            fits,
        ))
    }

    /// The items that an answer left without a place.
    pub(super) fn without(&self, lua: &Lua, answer: &Answer) -> mlua::Result<Table> {
        let left: Vec<Table> = self
            .items
            .iter()
            .enumerate()
            .filter(|(at, _)| !answer.places.contains_key(at))
            .map(|(_, t)| t.clone())
            .collect();
        list(lua, &left)
    }

    /// The machines that no session holds.
    pub(super) fn free(&self, lua: &Lua, question: &Question) -> mlua::Result<Table> {
        let free = question.instances.iter().zip(&self.each).filter(|(i, _)| i.machine && i.free_since.is_some());
        let free: Vec<Table> = free.map(|(_, (_, table))| table.clone()).collect();
        list(lua, &free)
    }
}

fn list(lua: &Lua, tables: &[Table]) -> mlua::Result<Table> {
    let list = lua.create_table_with_capacity(tables.len(), 0)?;
    for table in tables {
        list.raw_push(table)?;
    }
    list.set_readonly(true);
    Ok(list)
}

/// A JSON value as the class gets it; `null` is nothing.
pub(super) fn json(lua: &Lua, value: &serde_json::Value) -> mlua::Result<Value> {
    json_at(lua, value, 0)
}

fn json_at(lua: &Lua, value: &serde_json::Value, depth: usize) -> mlua::Result<Value> {
    use serde_json::Value as Json;
    if depth > JSON_DEPTH_MAX {
        return Err(mlua::Error::runtime(format!("the configuration's 'custom' is deeper than {JSON_DEPTH_MAX}")));
    }
    Ok(match value {
        Json::Null => Value::Nil,
        Json::Bool(is) => Value::Boolean(*is),
        Json::Number(number) => Value::Number(number.as_f64().unwrap_or(0.0)),
        Json::String(text) => Value::String(lua.create_string(text)?),
        Json::Array(values) => {
            let table = lua.create_table_with_capacity(values.len(), 0)?;
            for value in values {
                table.raw_push(json_at(lua, value, depth + 1)?)?;
            }
            Value::Table(table)
        }
        Json::Object(values) => {
            let table = lua.create_table()?;
            for (key, value) in values {
                table.raw_set(key.as_str(), json_at(lua, value, depth + 1)?)?;
            }
            Value::Table(table)
        }
    })
}
