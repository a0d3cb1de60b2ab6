//! The tables that a class is given. Those of instances are kept between calls, read-only, and patched where
//! an instance changed: a question about a hundred instances costs what changed since the last.

use mlua::{Function, Lua, Table, Value};
use skein_domain::decide::Question;
use skein_domain::decide::wanted::{Answer, AskedInstance, AskedSolution};

use super::records::Records;

/// Depth of the configuration's `custom`.
const JSON_DEPTH_MAX: usize = 32;

/// Functions of the prelude that make tables.
pub(super) struct Makers {
    pub instances: Function,
    pub items: Function,
    pub pick: Function,
    pub solution: Function,
}

/// What is kept.
pub(super) struct Tables {
    make: Makers,
    records: Records,
    instances: Table,
    by_name: Table,
    /// In the order of the question.
    each: Vec<AskedInstance>,
    /// Instances that take each profile.
    fits: Vec<(Vec<u32>, Table)>,
    items: Table,
}

/// What one call gets.
pub(super) struct Given {
    pub items: Table,
    pub instances: Table,
    pub by_name: Table,
    pub solutions: Table,
}

impl Tables {
    pub(super) fn new(lua: &Lua, make: Makers) -> mlua::Result<Self> {
        let (instances, by_name, items) = (lua.create_table()?, lua.create_table()?, lua.create_table()?);
        Ok(Self { make, records: Records::default(), instances, by_name, each: vec![], fits: vec![], items })
    }

    pub(super) fn forget(&mut self, lua: &Lua) -> mlua::Result<()> {
        self.each.clear();
        self.fits.clear();
        self.by_name = lua.create_table()?;
        Ok(())
    }

    /// Brings what is kept up to the question, and makes the rest.
    pub(super) fn update(&mut self, lua: &Lua, question: &Question) -> mlua::Result<Given> {
        self.update_instances(lua, question)?;
        self.update_fits(lua, question)?;
        self.records.clear();
        question.items.iter().for_each(|item| self.records.item(item));
        let fits = list(lua, self.fits.iter().map(|(_, table)| table))?;
        self.items = self.make.items.call((self.records.buffer(lua)?, question.items.len(), fits))?;
        let solutions = question.solutions.iter().map(|solution| self.new_solution(lua, question, solution));
        let solutions = solutions.collect::<mlua::Result<Vec<_>>>()?;
        Ok(Given {
            items: self.items.clone(),
            instances: self.instances.clone(),
            by_name: self.by_name.clone(),
            solutions: list(lua, &solutions)?,
        })
    }

    fn new_solution(&mut self, lua: &Lua, question: &Question, solution: &AskedSolution) -> mlua::Result<Table> {
        let suited = (0_u32..).zip(&question.items).filter(|(_, item)| solution.suits.contains(&item.profile));
        let suits = self.pick(lua, &self.items.clone(), suited.map(|(at, _)| at))?;
        let AskedSolution { slots, min, max, alive, coming, .. } = *solution;
        let price = solution.price_per_hour.usd();
        self.make.solution.call((solution.id.as_str(), price, slots, min, max, alive, coming, suits))
    }

    fn update_instances(&mut self, lua: &Lua, question: &Question) -> mlua::Result<()> {
        self.records.clear();
        let same = self.each.len() == question.instances.len()
            && self.each.iter().zip(&question.instances).all(|(known, asked)| known.id == asked.id);
        if same {
            let mut changed = 0_usize;
            for (known, asked) in self.each.iter_mut().zip(&question.instances).filter(|(known, asked)| known != asked)
            {
                self.records.instance(asked);
                self.by_name.raw_get::<Table>(asked.id.as_str())?.set_readonly(false);
                known.clone_from(asked);
                changed += 1;
            }
            if changed > 0 {
                let again = lua.create_table()?;
                self.make.instances.call::<()>((self.records.buffer(lua)?, changed, &self.by_name, again))?;
            }
            return Ok(());
        }
        // Also those that are known: their tables are filled again, so that a class that kept one sees it change.
        for asked in &question.instances {
            self.records.instance(asked);
            if let Some(known) = self.by_name.raw_get::<Option<Table>>(asked.id.as_str())? {
                known.set_readonly(false);
            }
        }
        let count = question.instances.len();
        let by_name = lua.create_table_with_capacity(0, count)?;
        let made = self.make.instances.call((self.records.buffer(lua)?, count, &self.by_name, by_name));
        (self.instances, self.by_name) = made?;
        self.each.clone_from(&question.instances);
        self.fits.clear();
        Ok(())
    }

    fn update_fits(&mut self, lua: &Lua, question: &Question) -> mlua::Result<()> {
        self.fits.truncate(question.fits.len());
        for (at, fits) in question.fits.iter().enumerate() {
            if self.fits.get(at).is_some_and(|(known, _)| known == fits) {
                continue;
            }
            let table = self.pick(lua, &self.instances.clone(), fits.iter().copied())?;
            let entry = (fits.clone(), table);
            if at < self.fits.len() { self.fits[at] = entry } else { self.fits.push(entry) }
        }
        Ok(())
    }

    /// Entries of a list, by their places.
    fn pick(&mut self, lua: &Lua, of: &Table, places: impl Iterator<Item = u32>) -> mlua::Result<Table> {
        self.records.clear();
        let mut count = 0_usize;
        self.records.places(places.inspect(|_| count += 1));
        self.make.pick.call((of, self.records.buffer(lua)?, count))
    }

    /// The items that an answer left without a place.
    pub(super) fn without(&mut self, lua: &Lua, question: &Question, answer: &Answer) -> mlua::Result<Table> {
        let left = (0_u32..).zip(0..question.items.len()).filter(|(_, at)| !answer.places.contains_key(at));
        self.pick(lua, &self.items.clone(), left.map(|(at, _)| at))
    }

    /// The machines that no session holds.
    pub(super) fn free(&mut self, lua: &Lua, question: &Question) -> mlua::Result<Table> {
        let free = (0_u32..).zip(&question.instances).filter(|(_, i)| i.machine && i.free_since.is_some());
        self.pick(lua, &self.instances.clone(), free.map(|(at, _)| at))
    }
}

fn list<'a>(lua: &Lua, tables: impl IntoIterator<Item = &'a Table>) -> mlua::Result<Table> {
    let list = lua.create_sequence_from(tables)?;
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
