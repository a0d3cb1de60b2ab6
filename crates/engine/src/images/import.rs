//! An image from a URL, taken in by the engine itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use skein_domain::UserName;
use skein_image::bytes::FileBytes;
use skein_image::store::{New, Origin};
use skein_image::{Budget, Bytes, Format};

use super::{Operation, fetch};
use crate::app::App;
use crate::http::{Fail, image_view};

/// What to take in.
pub(crate) struct Asked {
    /// From where.
    pub url: reqwest::Url,
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: BTreeSet<String>,
    /// Its format, if known.
    pub from: Option<Format>,
    /// Its SHA-256, if known, 64 hexadecimal digits.
    pub sha256: Option<String>,
    /// Keep the file too.
    pub keep: bool,
    /// Who asked.
    pub user: UserName,
}

/// Fetches, takes in, and puts into the catalogue.
pub(crate) async fn import_url(app: Arc<App>, asked: Asked, operation: Arc<Operation>) {
    let result = import(&app, asked, &operation).await;
    operation.end(result);
}

async fn import(app: &Arc<App>, asked: Asked, operation: &Arc<Operation>) -> Result<Value, Fail> {
    let spool = tempfile::tempfile_in(&app.dir).map_err(|e| Fail::disk(&e, "the image"))?;
    operation.stage(format!("fetching {}", asked.url), None);
    let (file, sha256) = fetch::fetch(app.gateways.http(), &asked.url, spool, operation.as_ref()).await?;
    if let Some(known) = asked.sha256.as_ref().filter(|known| !known.eq_ignore_ascii_case(&sha256)) {
        return Err(Fail::bad(format!("the file's SHA-256 is {sha256}, not {known}: it is another file, or damaged")));
    }
    let (shared, progress) = (Arc::clone(app), Arc::clone(operation));
    let (from, keep, name, source) = (asked.from, asked.keep, asked.name.clone(), asked.url.to_string());
    let manifest = tokio::task::spawn_blocking(move || {
        let bytes: Arc<dyn Bytes> = Arc::new(FileBytes::new(file)?);
        let spool = || tempfile::tempfile_in(&shared.dir).map_err(skein_image::Error::io("making a temporary file"));
        progress.stage("unpacking", None);
        let opened = skein_image::source::open(Arc::clone(&bytes), from, &Budget::default(), spool, progress.as_ref())?;
        progress.stage("taking in", Some(opened.disk.size()));
        let origin = Origin { name, source, sha256: Some(sha256), parent: None };
        let keep = keep.then_some(bytes);
        let new = New { disk: opened.disk.as_ref(), format: opened.format, keep, origin };
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        shared.images.store.import(new, threads, progress.as_ref()).map(|imported| imported.manifest)
    });
    let manifest = manifest.await.map_err(Fail::internal)??;
    let image = super::catalogue(app, &manifest, &asked.user, &asked.name, asked.tags).await?;
    serde_json::to_value(image_view(app, image).await?).map_err(Fail::internal)
}
