//! Scaling elements [0062] in each cloud's own form, and back.
//!
//! ```text
//!   Element --write--> documents of the cloud --read--> Element'      port:  Element against Element'
//!   documents --read--> Element --write--> documents'                 adopt: documents against documents'
//!                   ^ both by the same table: `scaling/CLOUD.toml`
//! ```
//! What differs between clouds is data; this interprets it and knows no cloud. Every difference is found by going there
//! and back and comparing, so none can be forgotten and none can be claimed that is not there. Why it differs was written
//! down on the way ([`Why`]), or the table says it.
//!
//! Names of images, networks, keys and roles are ours: whoever sends a document puts in the identifiers that its cloud
//! knows them by. `${KIND.NAME.FIELD}` stands for what the cloud answered when another document was sent.

mod convert;
mod difference;
mod path;
mod read;
mod table;
mod tree;
mod write;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use skein_domain::scaling::{BadElement, Element};

pub use difference::{Difference, Why};
pub use table::Table;

/// A document as a cloud's API takes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Which request it is the body of, in the cloud's words.
    pub kind: String,
    /// What it is about, for people: an entry's name, or the element's.
    #[serde(default)]
    pub name: String,
    /// The document.
    pub body: Value,
}

/// What cannot be ported or adopted.
#[derive(Debug, thiserror::Error)]
pub enum ScalingError {
    /// No such cloud.
    #[error("there is no scaling table for '{given}' (there are: {known})")]
    UnknownCloud {
        /// What was asked for.
        given: String,
        /// Names of those that there are.
        known: String,
    },
    /// A table that cannot be used.
    #[error("the scaling table '{table}' cannot be used: {why}")]
    BadTable {
        /// Its name.
        table: String,
        /// What is wrong with it.
        why: String,
    },
    /// The element does not hold together.
    #[error(transparent)]
    BadElement(#[from] BadElement),
    /// The documents make no element.
    #[error("these documents make no scaling element: {why}")]
    NoElement {
        /// What is missing or wrong.
        why: String,
    },
}

/// An element in a cloud's form, and each field in which it will not be what was asked for.
pub fn port(element: &Element, table: &Table) -> Result<(Vec<Document>, Vec<Difference>), ScalingError> {
    element.check()?;
    let asked = tree::of(element);
    let written = write::write(&asked, table);
    let back = read::read(&written.documents, table, Some((&asked, &written)))?;
    let mut differences = difference::of_elements(&asked, &tree::of(&back.element), &written.reasons, table);
    differences.extend(back.unnamed.iter().map(|(place, name)| Difference::no_name(place, name)));
    Ok((written.documents, differences))
}

/// The element that a cloud's documents make, and each field of theirs that it does not say.
pub fn adopt(documents: &[Document], table: &Table) -> Result<(Element, Vec<Difference>), ScalingError> {
    let element = read::read(documents, table, None)?.element;
    element.check()?;
    let again = write::write(&tree::of(&element), table).documents;
    let differences = difference::of_documents(documents, &again, table);
    Ok((element, differences))
}
