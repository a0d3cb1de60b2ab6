//! The tables: one file a cloud. The language has four things.
//!
//! *Blocks* (`[[document]]`, and `[[document.lists]]` within one) say where something stands in the cloud's form. `each`
//! repeats a block for every entry of a part of the common form (`policies`, or `.bands` of the entry); an entry is written
//! by the first block of a place that fits, and read by the first that fits. `when` says for
//! which entries. `is` always stands there and tells what it is, also in documents that others made; so does `where`.
//! `also` always stands there too, and nothing is read from it.
//! `by_key` makes a map by the entry's key of a list, `one` a single object. `only_out` is written, and read by another
//! block: bands become rules of their own (`each = "policies.*.bands"`). Names that stand nowhere are lost, and told.
//!
//! *Fields* are `[place in the cloud's form, place in the common form, conversions]`.
//! Places in the common form ([`super::path`]): `group.min`; `.target` of the entry; `@key` its name; `^.by` of the entry
//! around it; `.+.from` of the next one in its list; `.alarm>alarms.threshold` of what it refers to by name;
//! `policies<alarm` the names of those that refer to it (`policies:simple<alarm`: of that kind). `~` is a blank.
//!
//! *Conversions* ([`super::convert`]), from the common form to the cloud's, and back in the reverse order.
//!
//! *What a cloud lacks*: `defaults` is what then holds there, `lacks` says it in a sentence. `PLACE:KIND` is for policies
//! of a kind.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::ScalingError;
use super::convert::Conversion;
use super::path::{Condition, Path};

/// How the common form is said in one cloud, and back.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name: the file's.
    pub name: String,
    /// For people.
    pub title: String,
    /// Pages that say so.
    pub sources: Vec<String>,
    /// What here is not from such a page.
    pub assumed: Vec<String>,
    pub(super) defaults: BTreeMap<String, Value>,
    pub(super) lacks: BTreeMap<String, String>,
    pub(super) ignored: Vec<String>,
    pub(super) documents: Vec<Block>,
}

/// Where something stands in the cloud's form.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// A document's kind, or where a list stands in the document.
    pub(super) at: String,
    pub(super) each: Option<Path>,
    pub(super) by_key: Option<String>,
    /// There is one of it, and it is no list.
    pub(super) one: bool,
    /// Written, and read again by another block.
    pub(super) only_out: bool,
    pub(super) when: Vec<Condition>,
    pub(super) known_by: Vec<Condition>,
    pub(super) is: BTreeMap<String, Value>,
    pub(super) also: BTreeMap<String, Value>,
    pub(super) json_text: Vec<String>,
    pub(super) fields: Vec<Field>,
    pub(super) lists: Vec<Block>,
}

#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) to: String,
    pub(super) from: Path,
    pub(super) conversions: Vec<Conversion>,
    /// Written, and not read again: it says what another field says.
    pub(super) only_out: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: String,
    #[serde(default)]
    sources: Vec<String>,
    #[serde(default)]
    assumed: Vec<String>,
    #[serde(default)]
    words: BTreeMap<String, BTreeMap<String, Value>>,
    #[serde(default)]
    defaults: BTreeMap<String, Value>,
    #[serde(default)]
    lacks: BTreeMap<String, String>,
    #[serde(default)]
    ignored: Vec<String>,
    document: Vec<FileBlock>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileBlock {
    #[serde(alias = "kind")]
    at: String,
    each: Option<String>,
    by_key: Option<String>,
    #[serde(default)]
    one: bool,
    #[serde(default)]
    only_out: bool,
    #[serde(default)]
    when: Vec<String>,
    #[serde(default, rename = "where")]
    known_by: Vec<String>,
    #[serde(default)]
    is: BTreeMap<String, Value>,
    #[serde(default)]
    also: BTreeMap<String, Value>,
    #[serde(default)]
    json_text: Vec<String>,
    #[serde(default)]
    fields: Vec<Vec<String>>,
    #[serde(default)]
    lists: Vec<FileBlock>,
}

macro_rules! tables {
    ($($name:literal),* $(,)?) => {
        /// The tables that come with the library, by name.
        const BUILTIN: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../scaling/", $name, ".toml")))),*];
    };
}
tables!("alibaba", "aws", "azure", "google", "ibm", "lumen", "openstack", "oracle", "samsung");

impl Table {
    /// Names of those that come with the library.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// The one of this name that comes with the library.
    pub fn builtin(name: &str) -> Result<Self, ScalingError> {
        let found = BUILTIN.iter().find(|(known, _)| *known == name);
        let (name, text) = found.ok_or_else(|| ScalingError::UnknownCloud {
            given: name.to_owned(),
            known: Self::names().collect::<Vec<_>>().join(", "),
        })?;
        Self::from_toml(name, text)
    }

    /// Reads a table of a user's.
    pub fn from_toml(name: &str, text: &str) -> Result<Self, ScalingError> {
        let bad = |why: String| ScalingError::BadTable { table: name.to_owned(), why };
        let file: File = toml::from_str(text).map_err(|e| bad(e.to_string()))?;
        let documents = file.document.into_iter().map(|block| block.read(&file.words));
        let documents = documents.collect::<Result<_, String>>().map_err(bad)?;
        Ok(Self {
            name: name.to_owned(),
            title: file.title,
            sources: file.sources,
            assumed: file.assumed,
            defaults: file.defaults,
            lacks: file.lacks,
            ignored: file.ignored,
            documents,
        })
    }
}

type Words = BTreeMap<String, BTreeMap<String, Value>>;

impl FileBlock {
    fn read(self, words: &Words) -> Result<Block, String> {
        let at = self.at;
        let within = |why: String| format!("{at}: {why}");
        let fields =
            self.fields.iter().map(|field| Field::read(field, words)).collect::<Result<_, _>>().map_err(within)?;
        let conditions = |all: &[String]| all.iter().map(|text| Condition::read(text)).collect::<Result<Vec<_>, _>>();
        Ok(Block {
            each: self.each.as_deref().map(Path::read).transpose().map_err(within)?,
            by_key: self.by_key,
            one: self.one,
            only_out: self.only_out,
            when: conditions(&self.when).map_err(within)?,
            known_by: conditions(&self.known_by).map_err(within)?,
            is: self.is,
            also: self.also,
            json_text: self.json_text,
            lists: self.lists.into_iter().map(|list| list.read(words)).collect::<Result<_, _>>().map_err(within)?,
            fields,
            at,
        })
    }
}

impl Field {
    fn read(parts: &[String], words: &Words) -> Result<Self, String> {
        let (to, from, how) = match parts {
            [to, from] => (to, from, ""),
            [to, from, how] => (to, from, how.as_str()),
            _ => return Err(format!("{parts:?} is no field: [theirs, ours, conversions]")),
        };
        let (mut conversions, mut only_out) = (Vec::new(), false);
        for word in how.split_whitespace() {
            if word == "out" {
                only_out = true;
            } else {
                conversions.push(Conversion::read(word, words).map_err(|why| format!("{to}: {why}"))?);
            }
        }
        Ok(Self { to: to.clone(), from: Path::read(from)?, conversions, only_out })
    }
}
