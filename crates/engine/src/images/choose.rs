//! Which image a machine of a solution would start from: the catalogue, and what the solution takes, to `decide`.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use skein_api::{ChooseRequest, ImageChoiceView, PassedOverView};
use skein_domain::decide::image::{self, Form, ImageChoice, PassedOver, Receiver, Takes, Wants};
use skein_domain::image::Boot;
use skein_domain::{Image, SolutionId, SolutionKind};
use skein_image::Profile;
use skein_store::Reader as _;

use crate::app::App;
use crate::config::Settled;
use crate::http::Fail;

/// The deployment form of own servers: a machine there is a KVM guest unless it is said otherwise.
const OF_OWN_SERVERS: &str = "kvm";

/// Chooses.
pub(crate) fn choose(app: &App, request: ChooseRequest) -> Result<ImageChoiceView, Fail> {
    let takes = takes(app, &request.to)?;
    let wants = Wants {
        image: request.image,
        os: request.os.map(Into::into),
        arch: request.arch.map(Into::into),
        tags: request.tags.into_iter().collect(),
        disk_bytes: request.disk_bytes,
    };
    let images = app.readers.get()?.images()?;
    Ok(match image::choose(&wants, &takes, &images) {
        Ok(choice) => {
            let (form, says) = match &choice.form {
                Form::There { cloud_id } => ("there", format!("it is there already, as {cloud_id}")),
                Form::AsStored => ("as_stored", format!("as it is kept ({}), without conversion", image::STORED)),
                Form::Converted { to, because } => ("converted", format!("converted to {to}: {because}")),
            };
            ImageChoiceView {
                image: Some(choice.image.to_string()),
                name: Some(choice.name),
                form: Some(form.to_owned()),
                says,
                receiver: Some(if choice.receiver == Receiver::Agent { "agent" } else { "gateway" }.to_owned()),
                virtual_bytes: Some(choice.virtual_bytes),
                unsure: choice.unsure.iter().map(ToString::to_string).collect(),
                passed_over: passed_over(&choice.passed_over),
            }
        }
        Err(none) => ImageChoiceView {
            image: None,
            name: None,
            form: None,
            says: if none.is_empty() {
                "the catalogue has no image: 'skein image import' brings one".to_owned()
            } else {
                format!("none of {} images fits", none.len())
            },
            receiver: None,
            virtual_bytes: None,
            unsure: Vec::new(),
            passed_over: passed_over(&none),
        },
    })
}

fn passed_over(all: &[PassedOver]) -> Vec<PassedOverView> {
    let view = |one: &PassedOver| PassedOverView {
        image: one.image.to_string(),
        name: one.name.clone(),
        because: one.because.iter().map(ToString::to_string).collect(),
    };
    all.iter().map(view).collect()
}

/// This image there, or what stands against it.
pub(super) fn one(image: &Image, takes: &Takes) -> Result<ImageChoice, Fail> {
    let wants = Wants { image: Some(image.id.to_string()), ..Wants::default() };
    image::choose(&wants, takes, std::slice::from_ref(image)).map_err(|against| {
        let why: Vec<String> = against.iter().flat_map(|one| &one.because).map(ToString::to_string).collect();
        let text = format!("'{}' would not start as {}: {}", image.name, takes.profile, why.join("; "));
        Fail::new(StatusCode::UNPROCESSABLE_ENTITY, text, Some("'skein image fits' says more, and what to do"))
    })
}

/// The profile's name, and the solution that it is for.
fn form_of(settled: &Settled, to: &str) -> (String, String) {
    if let Some(destination) = settled.config.images.destinations.get(to) {
        let solution = destination.solution.clone().unwrap_or_else(|| to.to_owned());
        return (destination.profile.clone(), solution);
    }
    let profile = settled.solutions.iter().find(|solution| solution.id.as_str() == to).map(|solution| {
        let named = settled.image_profiles.get(&solution.id).cloned();
        named.unwrap_or_else(|| match solution.kind {
            SolutionKind::Dedicated(_) => OF_OWN_SERVERS.to_owned(),
            SolutionKind::Shared(_) => skein_image::profile::CONTAINER.to_owned(),
        })
    });
    (profile.unwrap_or_else(|| to.to_owned()), to.to_owned())
}

/// The deployment form of a destination or a solution; or, before there is a solution, the form of that name.
pub(super) fn takes(app: &App, to: &str) -> Result<Takes, Fail> {
    let (named, solution) = form_of(&app.settled(), to);
    let profile = Profile::find(&named, Some(&app.dir.join("profiles")))
        .map_err(|e| Fail::bad(format!("there is no destination and no solution '{to}'; and {e}")))?;
    let ways = profile.boot.iter().filter_map(|way| match way.as_str() {
        "bios" => Some(Boot::Bios),
        "uefi" => Some(Boot::Uefi),
        "kernel" => Some(Boot::Kernel),
        _ => None,
    });
    Ok(Takes {
        solution: SolutionId::new(&solution)?,
        receiver: if profile.is_container() { Receiver::Gateway } else { Receiver::Agent },
        format: profile.format.to_string().into(),
        also: profile.also.iter().map(|format| format.to_string().into()).collect(),
        size_multiple: profile.size_multiple_bytes,
        size: (profile.size_min_bytes, profile.size_max_bytes),
        boot: ways.collect(),
        disk_drivers: profile.disk_drivers().map(str::to_owned).collect::<BTreeSet<_>>(),
        profile: profile.name.into(),
    })
}
