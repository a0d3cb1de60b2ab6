//! The image store of an engine, over its API: what is imported here is cut and packed here, and only what the engine
//! lacks is sent; an export reads chunks from there and converts here.

use std::sync::Mutex;

use skein_api::{ApiError, Client};
use skein_image::store::{Entry, Guard, ImageId, Shelf};
use skein_image::{Error, Result};

/// An engine's shelf.
pub(crate) struct EngineShelf {
    client: Client,
    runtime: tokio::runtime::Runtime,
    /// What the engine said of the image that was made.
    made: Mutex<Option<skein_api::ImageView>>,
}

impl EngineShelf {
    pub(crate) fn new(client: Client, runtime: tokio::runtime::Runtime) -> Self {
        Self { client, runtime, made: Mutex::default() }
    }

    /// A call, from a thread of the importer's.
    pub(crate) fn call<T>(&self, call: impl Future<Output = std::result::Result<T, ApiError>>) -> Result<T> {
        self.runtime.block_on(call).map_err(|error| match error {
            ApiError::Refused { .. } => Error::Usage(format!("the engine at {}: {error}", self.client.url())),
            other => Error::io(format!("asking the engine at {}", self.client.url()))(std::io::Error::other(other)),
        })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// What the engine said of the image that was made last.
    pub(crate) fn made(&self) -> Option<skein_api::ImageView> {
        self.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }
}

/// `chunks/ab/CHUNK`, `images/ID.json`, `images/ID.LIST`.
enum Object<'a> {
    Chunk(&'a str),
    Manifest(&'a str),
    List(&'a str, &'a str),
}

fn object(name: &str) -> Result<Object<'_>> {
    let last = name.rsplit('/').next().unwrap_or(name);
    match (name.starts_with("chunks/"), last.split_once('.')) {
        (true, None) => Ok(Object::Chunk(last)),
        (false, Some((id, "json"))) => Ok(Object::Manifest(id)),
        (false, Some((id, list))) => Ok(Object::List(id, list)),
        _ => Err(Error::Usage(format!("an engine's store has no object '{name}'"))),
    }
}

impl Shelf for EngineShelf {
    fn place(&self) -> String {
        format!("the engine at {}", self.client.url())
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let bytes = match object(name)? {
            Object::Chunk(chunk) => self.call(self.client.chunk(chunk)),
            Object::Manifest(id) => self.call(self.client.image_manifest(id)),
            Object::List(id, list) => self.call(self.client.image_list(id, list)),
        }?;
        Ok(bytes.map(Vec::from))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        match object(name)? {
            Object::Chunk(_) => self.put_chunks(vec![(name.to_owned(), bytes.to_vec())]),
            Object::List(id, list) => self.call(self.client.put_image_list(id, list, bytes.to_vec())),
            Object::Manifest(id) => {
                let made = self.call(self.client.put_image_manifest(id, bytes.to_vec()))?;
                *self.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(made);
                Ok(())
            }
        }
    }

    fn put_chunks(&self, chunks: Vec<(String, Vec<u8>)>) -> Result<()> {
        let mut framed = Vec::with_capacity(chunks.iter().map(|(_, bytes)| bytes.len() + 4).sum());
        for (name, bytes) in &chunks {
            let len = u32::try_from(bytes.len()).map_err(|_| Error::Usage(format!("{name} is over 4 GiB")))?;
            framed.extend_from_slice(&len.to_le_bytes());
            framed.extend_from_slice(bytes);
        }
        self.call(self.client.put_chunks(framed))
    }

    fn missing(&self, names: &[String]) -> Result<Vec<bool>> {
        let chunks = names.iter().map(|name| name.rsplit('/').next().unwrap_or(name).to_owned()).collect();
        self.call(self.client.missing_chunks(chunks))
    }

    /// The engine syncs before it names an image.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn list(&self, begin: &str) -> Result<Vec<Entry>> {
        if begin != "images/" {
            return Err(Error::Usage("an engine's store is collected and scrubbed by the engine".to_owned()));
        }
        let all = self.call(self.client.images())?;
        let stored = all.into_iter().filter(|image| image.stored);
        Ok(stored.map(|image| Entry { name: format!("images/{}.json", image.id), bytes: 0 }).collect())
    }

    fn remove(&self, name: &str) -> Result<()> {
        match object(name)? {
            Object::Manifest(id) => self.call(self.client.remove_image(ImageId::new(id)?.as_str())),
            // The engine takes its lists with an image.
            _ => Ok(()),
        }
    }

    /// The engine keeps its own collection away: what it was asked about is promised, and a read that meets a missing
    /// chunk says so.
    fn lock(&self, _: bool) -> Result<Guard> {
        Ok(Box::new(()))
    }
}
