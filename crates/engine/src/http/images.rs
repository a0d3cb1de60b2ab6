//! The image database over HTTP. Clients send what the store lacks and nothing else; see docs/decisions/0014.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use skein_api::{
    DeployRequest, DeployedView, ImageChoiceView, ImageView, ImportRequest, LabelRequest, Missing, MissingRequest,
    OperationView,
};
use skein_domain::Image;
use skein_image::store::{ChunkId, ImageId, Manifest, check_chunk};
use skein_store::Reader as _;

use super::User;
use super::fail::{Fail, typed_body};
use crate::app::App;
use crate::images::{self, Asked};

/// Chunks that one question may name.
const ASKED_MAX: usize = 4096;
/// Largest batch of chunks, bytes: as many as a client asks about, packed.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// Largest list of chunks, bytes: of a disk with 1.4 TiB of data. It is held in memory.
const LIST_BYTES_MAX: usize = 1 << 30;
/// Largest manifest, bytes.
const MANIFEST_BYTES_MAX: usize = 4 << 20;

/// Images as others see them. The store is asked on a thread of its own: it may be behind a network.
pub(crate) async fn image_views(app: &Arc<App>, images: Vec<Image>) -> Result<Vec<ImageView>, Fail> {
    let shared = Arc::clone(app);
    let listed = tokio::task::spawn_blocking(move || shared.images.shelf.list("images/")).await;
    let stored: BTreeSet<String> = listed.map_err(Fail::internal)??.into_iter().map(|entry| entry.name).collect();
    let is_stored = |image: &Image| stored.contains(&format!("images/{}.json", image.id));
    Ok(images.into_iter().map(|image| (is_stored(&image), image)).map(|(stored, image)| view(image, stored)).collect())
}

/// One image.
pub(crate) async fn image_view(app: &Arc<App>, image: Image) -> Result<ImageView, Fail> {
    let one = image_views(app, vec![image]).await?.pop();
    one.ok_or_else(|| Fail::internal("an image has no view"))
}

fn view(image: Image, stored: bool) -> ImageView {
    let deployed = image.deployed.into_iter().map(|one| DeployedView {
        solution: one.solution.to_string(),
        profile: one.profile.to_string(),
        cloud_id: one.cloud_id,
        at: one.at.0,
    });
    ImageView {
        id: image.id.to_string(),
        name: image.name,
        tags: image.tags.into_iter().collect(),
        parent: image.parent.map(|parent| parent.to_string()),
        native: image.native.to_string(),
        virtual_bytes: image.virtual_bytes,
        data_bytes: image.data_bytes,
        offers: serde_json::to_value(&image.offers).unwrap_or_default(),
        user: image.user.to_string(),
        at: image.at.0,
        deployed: deployed.collect(),
        stored,
    }
}

pub(super) async fn list(_: User, State(app): State<Arc<App>>) -> Result<Json<Vec<ImageView>>, Fail> {
    let all = app.readers.get()?.images()?;
    image_views(&app, all).await.map(Json)
}

pub(super) async fn show(
    _: User,
    State(app): State<Arc<App>>,
    Path(asked): Path<String>,
) -> Result<Json<ImageView>, Fail> {
    let image = images::find(&app, &asked)?;
    image_view(&app, image).await.map(Json)
}

pub(super) async fn label(
    _: User,
    State(app): State<Arc<App>>,
    Path(asked): Path<String>,
    request: Request,
) -> Result<Json<ImageView>, Fail> {
    let labels: LabelRequest = typed_body(request).await?;
    let found = images::find(&app, &asked)?;
    let changed = images::change(&app, &found.id, |image| {
        image.name = labels.name.unwrap_or_else(|| image.name.clone());
        image.tags.extend(labels.add_tags);
        labels.remove_tags.iter().for_each(|tag| {
            image.tags.remove(tag);
        });
        Ok(())
    });
    image_view(&app, changed.await?).await.map(Json)
}

pub(super) async fn remove(
    _: User,
    State(app): State<Arc<App>>,
    Path(asked): Path<String>,
) -> Result<StatusCode, Fail> {
    let image = images::find(&app, &asked)?;
    images::remove(&app, &image).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An object of the store.
async fn object(app: &Arc<App>, name: String) -> Result<Vec<u8>, Fail> {
    let (shared, wanted) = (Arc::clone(app), name.clone());
    let found = tokio::task::spawn_blocking(move || shared.images.shelf.get(&wanted)).await;
    found.map_err(Fail::internal)??.ok_or_else(|| Fail::not_found(format!("the image store has no {name}")))
}

pub(super) async fn manifest(_: User, State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Vec<u8>, Fail> {
    object(&app, format!("images/{}.json", ImageId::new(&id)?)).await
}

/// Reads the disk that was sent, from end to end, before it is an image.
pub(super) async fn put_manifest(
    User(user): User,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<ImageView>, Fail> {
    let text = whole_body(request, MANIFEST_BYTES_MAX, "image_manifest_bytes_max").await?;
    let sent = Manifest::read(&text, "the manifest that was sent").map_err(Fail::from)?;
    if sent.id.as_str() != id {
        return Err(Fail::bad(format!("the manifest is of {}, the request of {id}: make them equal", sent.id)));
    }
    let name = sent.origin.name.clone();
    let shared = Arc::clone(&app);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let adopted = tokio::task::spawn_blocking(move || {
        let manifest = shared.images.store.adopt(sent, threads, &())?;
        shared.images.fulfil(&shared.images.store.objects(&manifest)?);
        Ok::<_, Fail>(manifest)
    });
    let manifest = adopted.await.map_err(Fail::internal)??;
    let image = images::catalogue(&app, &manifest, &user, &name, BTreeSet::new()).await?;
    image_view(&app, image).await.map(Json)
}

fn list_object(id: &str, list: &str) -> Result<String, Fail> {
    match list {
        "chunks" | "native" => Ok(format!("images/{}.{list}", ImageId::new(id)?)),
        other => Err(Fail::not_found(format!("there is no list '{other}': ask for 'chunks' or 'native'"))),
    }
}

pub(super) async fn chunk_list(
    _: User,
    State(app): State<Arc<App>>,
    Path((id, list)): Path<(String, String)>,
) -> Result<Vec<u8>, Fail> {
    object(&app, list_object(&id, &list)?).await
}

/// A list of an image that is there is left as it is: an image is put together from what its manifest signed.
pub(super) async fn put_chunk_list(
    _: User,
    State(app): State<Arc<App>>,
    Path((id, list)): Path<(String, String)>,
    request: Request,
) -> Result<StatusCode, Fail> {
    let name = list_object(&id, &list)?;
    let bytes = whole_body(request, LIST_BYTES_MAX, "image_list_bytes_max").await?;
    app.images.promise([name.clone()])?;
    let (id, shared) = (ImageId::new(&id)?, Arc::clone(&app));
    let put = tokio::task::spawn_blocking(move || {
        if shared.images.shelf.get(&name)?.is_some_and(|there| there == bytes) {
            return Ok(());
        }
        let known = shared.images.store.manifest(&id);
        if known.is_ok_and(|known| list == "chunks" || known.native_file.is_some()) {
            let why = format!("the image {id} is there with another list: remove it first, or leave it");
            return Err(Fail::new(StatusCode::CONFLICT, why, None));
        }
        Ok(shared.images.shelf.put(&name, &bytes)?)
    });
    put.await.map_err(Fail::internal)??;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn missing(_: User, State(app): State<Arc<App>>, request: Request) -> Result<Json<Missing>, Fail> {
    let asked: MissingRequest = typed_body(request).await?;
    if asked.chunks.len() > ASKED_MAX {
        return Err(Fail::bad(format!("ask about at most {ASKED_MAX} chunks at a time (image_chunks_asked_max)")));
    }
    let names = asked.chunks.iter().map(|text| chunk_id(text).map(ChunkId::object)).collect::<Result<Vec<_>, _>>()?;
    // Promised first: a collection between the look and the promise would make a liar of the answer.
    app.images.promise(names.iter().cloned())?;
    let shared = Arc::clone(&app);
    let missing = tokio::task::spawn_blocking(move || shared.images.shelf.missing(&names)).await;
    Ok(Json(Missing { missing: missing.map_err(Fail::internal)?? }))
}

fn chunk_id(text: &str) -> Result<ChunkId, Fail> {
    ChunkId::parse(text).ok_or_else(|| Fail::bad(format!("'{text}' is no chunk: 64 hexadecimal digits")))
}

pub(super) async fn chunk(_: User, State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Vec<u8>, Fail> {
    object(&app, chunk_id(&id)?.object()).await
}

/// Chunks in a row: the length of each (4 bytes, little-endian), then its bytes. A chunk's name is what is in it.
pub(super) async fn put_chunks(_: User, State(app): State<Arc<App>>, request: Request) -> Result<StatusCode, Fail> {
    let body = whole_body(request, BATCH_BYTES_MAX, "image_batch_bytes_max").await?;
    let shared = Arc::clone(&app);
    let put = tokio::task::spawn_blocking(move || {
        let (mut rest, mut chunks) = (body.as_ref(), Vec::new());
        while let Some((head, tail)) = rest.split_first_chunk::<4>() {
            let len = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
            let short = || Fail::bad("the chunks end in the middle of one: send them again");
            let (packed, tail) = tail.split_at_checked(len).ok_or_else(short)?;
            let name = check_chunk(packed)?.object();
            chunks.push((name, packed.to_vec()));
            rest = tail;
        }
        shared.images.promise(chunks.iter().map(|(name, _)| name.clone()))?;
        Ok::<_, Fail>(shared.images.shelf.put_chunks(chunks)?)
    });
    put.await.map_err(Fail::internal)??;
    Ok(StatusCode::NO_CONTENT)
}

async fn whole_body(request: Request, limit: usize, name: &str) -> Result<Bytes, Fail> {
    axum::body::to_bytes(request.into_body(), limit).await.map_err(|error| {
        let why = format!("the body is over {limit} bytes ({name}), or broke off: {error}");
        Fail::new(StatusCode::PAYLOAD_TOO_LARGE, why, None)
    })
}

pub(super) async fn import(
    User(user): User,
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<OperationView>, Fail> {
    let asked: ImportRequest = typed_body(request).await?;
    let bad = |e: &dyn std::fmt::Display| Fail::bad(format!("'{}' is no URL: {e}", asked.url));
    let url = reqwest::Url::parse(&asked.url).map_err(|e| bad(&e))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad(&"give http:// or https://"));
    }
    let last = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
    let stem = last.split('.').next().unwrap_or_default().to_owned();
    let asked = Asked {
        name: asked.name.unwrap_or(stem),
        tags: asked.tags.into_iter().collect(),
        from: asked.from.map(|from| from.parse()).transpose().map_err(|e: skein_image::Error| Fail::from(e))?,
        sha256: asked.sha256,
        keep: asked.keep_native,
        url,
        user,
    };
    asked.tags.iter().try_for_each(|tag| skein_domain::image::check_label(tag))?;
    let operation = app.images.operations.begin("import")?;
    let view = operation.view();
    tokio::spawn(images::import_url(Arc::clone(&app), asked, operation));
    Ok(Json(view))
}

pub(super) async fn deploy(
    _: User,
    State(app): State<Arc<App>>,
    Path(asked): Path<String>,
    request: Request,
) -> Result<Json<OperationView>, Fail> {
    let asked_for: DeployRequest = typed_body(request).await?;
    let image = images::find(&app, &asked)?;
    let fallback = || format!("{}-{}", image.name, &image.id.as_str()[..12]);
    let name = asked_for.name.unwrap_or_else(fallback);
    let prepared = images::prepare(&app, images::Order { image, to: asked_for.to, name })?;
    let operation = app.images.operations.begin("deploy")?;
    let view = operation.view();
    tokio::spawn(images::deploy(Arc::clone(&app), prepared, operation));
    Ok(Json(view))
}

pub(super) async fn gc(_: User, State(app): State<Arc<App>>) -> Result<Json<OperationView>, Fail> {
    in_background(&app, "gc", |app, _| {
        let collected = app.images.store.collect(&|object| app.images.is_promised(object))?;
        serde_json::to_value(collected).map_err(Fail::internal)
    })
}

pub(super) async fn scrub(_: User, State(app): State<Arc<App>>) -> Result<Json<OperationView>, Fail> {
    in_background(&app, "scrub", |app, operation| {
        operation.stage("reading every chunk", None);
        serde_json::to_value(app.images.store.scrub(operation)?).map_err(Fail::internal)
    })
}

fn in_background(
    app: &Arc<App>,
    kind: &'static str,
    work: impl FnOnce(&App, &images::Operation) -> Result<serde_json::Value, Fail> + Send + 'static,
) -> Result<Json<OperationView>, Fail> {
    let operation = app.images.operations.begin(kind)?;
    let (view, app) = (operation.view(), Arc::clone(app));
    tokio::task::spawn_blocking(move || operation.end(work(&app, &operation)));
    Ok(Json(view))
}

pub(super) async fn operations(_: User, State(app): State<Arc<App>>) -> Json<Vec<OperationView>> {
    Json(app.images.operations.views())
}

pub(super) async fn operation(
    _: User,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<OperationView>, Fail> {
    Ok(Json(app.images.operations.get(&id)?.view()))
}

pub(super) async fn cancel(_: User, State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<StatusCode, Fail> {
    app.images.operations.get(&id)?.cancel();
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn choose(
    _: User,
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<ImageChoiceView>, Fail> {
    images::choose(&app, typed_body(request).await?).map(Json)
}
