//! Bringing an image to a destination: the choice of `decide`, carried out by an upload transport, and written into
//! the catalogue, so that the next choice finds it there.
//!
//! ```text
//! choose --there----------------------------------------------> done, nothing is sent
//!        --as stored--> the kept bytes --+
//!        --converted--> the converter ---+--> transport --> catalogue: deployed
//! ```
//! Failure paths: a deployment that an engine's end, a cloud or a person cut short goes on when it is asked for again:
//! what the service must be asked with is kept in `uploads/` in the engine's folder.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::Value;
use skein_cloud::Surroundings;
use skein_cloud::transport::{AsKept, Control, Converted, Destination, FileMemory, Settings, Source, Transport};
use skein_domain::Image;
use skein_domain::decide::image::{Form, ImageChoice, Receiver, Takes};
use skein_domain::image::Deployed;
use skein_image::store::ImageId;
use skein_image::{Bytes, Disk, Format, Progress as _};

use super::{Operation, choose};
use crate::app::App;
use crate::clock;
use crate::http::{Fail, image_view};

/// Interval of looking whether somebody wants it to end.
const LOOK: Duration = Duration::from_millis(200);
/// A text in the settings of a destination or a store that begins so is a secret of the engine's.
pub(crate) const SECRET: &str = "secret:";

/// What to bring where.
pub(crate) struct Order {
    pub image: Image,
    /// The destination's name in the configuration.
    pub to: String,
    /// What it is called there.
    pub name: String,
}

/// What stands before anything is sent: the choice, and the way there.
pub(crate) struct Prepared {
    order: Order,
    takes: Takes,
    choice: ImageChoice,
    transport: Box<dyn Transport>,
}

/// Checks all that can be known before.
pub(crate) fn prepare(app: &App, order: Order) -> Result<Prepared, Fail> {
    let settled = app.settled();
    let known = || settled.config.images.destinations.keys().cloned().collect::<Vec<_>>().join(", ");
    let destination = settled.config.images.destinations.get(&order.to).ok_or_else(|| {
        let why = format!("there is no destination '{}' in the configuration's images.destinations", order.to);
        Fail::not_found(format!("{why} (there are: {})", known()))
    })?;
    let takes = choose::takes(app, &order.to)?;
    if takes.receiver == Receiver::Gateway {
        let next = "write it with 'skein image export --to oci', and push that with podman or skopeo";
        return Err(Fail::new(StatusCode::NOT_IMPLEMENTED, "containers are not pushed to registries yet", Some(next)));
    }
    let choice = choose::one(&order.image, &takes)?;
    let settings = with_secrets(app, destination.at.clone())?;
    let settings: Settings = serde_json::from_value(settings)
        .map_err(|e| Fail::bad(format!("images.destinations.{}.at cannot be used: {e}", order.to)))?;
    let transport = settings.open(surroundings()).map_err(fail)?;
    Ok(Prepared { order, takes, choice, transport })
}

fn fail(error: skein_cloud::Error) -> Fail {
    Fail::bad(error.to_string())
}

/// Secrets by name stand in the configuration; their values do not.
fn with_secrets(app: &App, value: Value) -> Result<Value, Fail> {
    Ok(match value {
        Value::String(text) => match text.strip_prefix(SECRET) {
            Some(name) => Value::String(app.secret(name).map_err(Fail::bad)?),
            None => Value::String(text),
        },
        Value::Object(fields) => {
            let with = |(key, value)| Ok::<_, Fail>((key, with_secrets(app, value)?));
            Value::Object(fields.into_iter().map(with).collect::<Result<_, _>>()?)
        }
        Value::Array(all) => Value::Array(all.into_iter().map(|one| with_secrets(app, one)).collect::<Result<_, _>>()?),
        other => other,
    })
}

/// Carries it out.
pub(crate) async fn deploy(app: Arc<App>, prepared: Prepared, operation: Arc<Operation>) {
    let result = match memory_path(&app, &prepared.order) {
        Err(fail) => Err(fail),
        Ok(memory) if !app.images.begin_upload(&memory) => Err(Fail::busy(format!(
            "'{}' is being brought to {} already: 'skein image deploy' again when that is over",
            prepared.order.name, prepared.order.to
        ))),
        Ok(memory) => {
            let result = carry_out(&app, prepared, &memory, &operation).await;
            app.images.end_upload(&memory);
            result
        }
    };
    operation.end(result);
}

async fn carry_out(
    app: &Arc<App>,
    prepared: Prepared,
    memory: &std::path::Path,
    operation: &Arc<Operation>,
) -> Result<Value, Fail> {
    let Prepared { order, takes, choice, transport } = prepared;
    if let Form::There { cloud_id } = &choice.form {
        operation.stage(format!("it is there already, as {cloud_id}"), None);
        return serde_json::to_value(image_view(app, order.image).await?).map_err(Fail::internal);
    }
    let (shared, form, id) = (Arc::clone(app), choice.form.clone(), ImageId::new(order.image.id.as_str())?);
    let profile = skein_image::Profile::find(&takes.profile, Some(&app.dir.join("profiles")))?;
    let source = tokio::task::spawn_blocking(move || {
        let kept = Arc::new(shared.images.store.disk(&id)?);
        let source: Arc<dyn Source> = match form {
            Form::AsStored => Arc::new(AsKept::new(id.as_str(), kept as Arc<dyn Bytes>, Format::Raw)),
            _ => Arc::new(Converted::new(id.as_str(), kept as Arc<dyn Disk>, profile.options())),
        };
        Ok::<_, skein_image::Error>(source)
    });
    let source = source.await.map_err(Fail::internal)??;
    operation.stage(format!("uploading to {} as {}", order.to, order.name), source.len_known());
    let mut memory = FileMemory::new(memory);
    let control = Control { progress: Arc::clone(operation) as Arc<_>, ..Control::default() };
    let cancel = control.cancel.clone();
    let mut to = Destination::new(&order.name);
    to.labels.insert("skein-engine".to_owned(), app.engine().to_string());
    let upload = transport.upload(source, &to, &mut memory, &control);
    let watch = async {
        while !operation.is_cancelled() {
            tokio::time::sleep(LOOK).await;
        }
        cancel.cancel();
        std::future::pending::<()>().await;
    };
    let uploaded = tokio::select! {
        uploaded = upload => uploaded.map_err(fail)?,
        () = watch => unreachable!("it never ends"),
    };
    let profile = Arc::clone(&takes.profile);
    let deployed = Deployed { solution: takes.solution, profile, cloud_id: uploaded.reference, at: clock::now() };
    let changed = super::change(app, &order.image.id, |image| {
        image.deployed.retain(|one| (&one.solution, &one.profile) != (&deployed.solution, &deployed.profile));
        image.deployed.push(deployed);
        Ok(())
    });
    serde_json::to_value(image_view(app, changed.await?).await?).map_err(Fail::internal)
}

/// One for each upload: two must not share what they remember.
fn memory_path(app: &App, order: &Order) -> Result<std::path::PathBuf, Fail> {
    let dir = app.dir.join("uploads");
    std::fs::create_dir_all(&dir).map_err(|e| Fail::disk(&e, "what an upload remembers"))?;
    let name = blake3::hash(format!("{}\n{}", order.to, order.name).as_bytes()).to_hex();
    Ok(dir.join(format!("{name}.json")))
}

fn surroundings() -> Surroundings {
    // Waits are spread by it; that the system gives none only makes them alike.
    let random = || clock::random_32().map_or(0, |bytes| u64::from_le_bytes(bytes[..8].try_into().unwrap_or([0; 8])));
    let now = || jiff::Timestamp::from_microsecond(clock::now().0).unwrap_or_default();
    Surroundings { now: Arc::new(now), random: Arc::new(random) }
}

impl skein_cloud::transport::Progress for Operation {
    fn done(&self, offset: u64, total: Option<u64>) {
        self.is_at(offset, total);
    }
}
