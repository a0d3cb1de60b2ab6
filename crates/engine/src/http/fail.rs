//! Errors as answers: status, what, next step.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use skein_api::ErrorBody;
use skein_domain::draft::BadDraft;
use skein_domain::id::BadId;
use skein_store::StoreError;

use crate::content::ContentError;
use crate::core::RefusalKind;
use crate::writer::Failure;

/// A refused request.
#[derive(Debug)]
pub(crate) struct Fail {
    status: StatusCode,
    body: ErrorBody,
}

impl Fail {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>, next_step: Option<&str>) -> Self {
        Self { status, body: ErrorBody { error: error.into(), next_step: next_step.map(str::to_owned) } }
    }
    pub(crate) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, None)
    }
    pub(crate) fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error, None)
    }
    /// As many as there may be are under way.
    pub(crate) fn busy(error: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, error, None)
    }
    /// The disk did not take it.
    pub(crate) fn disk(error: &std::io::Error, what: &str) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                format!("no room for {what}: make some, or 'skein image gc'"),
                None,
            ),
            std::io::ErrorKind::ReadOnlyFilesystem => Failure::ReadOnly.into(),
            _ => Self::internal(format!("writing {what}: {error}")),
        }
    }
    pub(crate) fn unauthorized(error: &str, next_step: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error, Some(next_step))
    }
    /// What went wrong, in words.
    pub(crate) fn text(self) -> String {
        self.body.error
    }
    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string(), Some("see the engine's log"))
    }
}

impl IntoResponse for Fail {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl From<crate::images::fetch::FetchError> for Fail {
    fn from(e: crate::images::fetch::FetchError) -> Self {
        match &e {
            crate::images::fetch::FetchError::Disk(error) => Self::disk(error, "what is fetched"),
            _ => Self::bad(e.to_string()),
        }
    }
}

impl From<skein_image::Error> for Fail {
    fn from(e: skein_image::Error) -> Self {
        use skein_image::Error;
        match &e {
            Error::Io { what, source } => Self::disk(source, what),
            // Of the store's own, or of what was sent: the text says which.
            Error::Corrupt(_) | Error::Refused(_) | Error::Unsupported { .. } | Error::OverBudget { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, e.to_string(), None)
            }
            Error::Usage(_) | Error::Cancelled => Self::bad(e.to_string()),
        }
    }
}

impl From<BadDraft> for Fail {
    fn from(e: BadDraft) -> Self {
        Self::bad(e.to_string())
    }
}
impl From<BadId> for Fail {
    fn from(e: BadId) -> Self {
        Self::bad(e.to_string())
    }
}
impl From<StoreError> for Fail {
    fn from(e: StoreError) -> Self {
        Self::internal(e)
    }
}
impl From<Failure> for Fail {
    fn from(e: Failure) -> Self {
        let status = match &e {
            Failure::Refused(r) if r.kind == RefusalKind::NotFound => StatusCode::NOT_FOUND,
            Failure::Refused(r) if matches!(r.kind, RefusalKind::Protected | RefusalKind::Conflict) => {
                StatusCode::CONFLICT
            }
            Failure::Refused(r) if r.kind == RefusalKind::OverBudget => StatusCode::PAYMENT_REQUIRED,
            Failure::Refused(_) | Failure::Stopping | Failure::ReadOnly => StatusCode::SERVICE_UNAVAILABLE,
            Failure::Ledger(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Failure::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        };
        Self::new(status, e.to_string(), None)
    }
}
impl From<ContentError> for Fail {
    fn from(e: ContentError) -> Self {
        let status = match &e {
            ContentError::NotFound(_) => StatusCode::NOT_FOUND,
            ContentError::Mismatch { .. } | ContentError::BrokenOff(_) => StatusCode::BAD_REQUEST,
            ContentError::Full { .. } => StatusCode::INSUFFICIENT_STORAGE,
            ContentError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            ContentError::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            ContentError::Io(error) if error.kind() == std::io::ErrorKind::ReadOnlyFilesystem => {
                return Failure::ReadOnly.into();
            }
            ContentError::Io(_) => return Self::internal(e),
        };
        Self::new(status, e.to_string(), None)
    }
}

/// Reads a JSON, TOML or YAML body within the document limit.
pub(crate) async fn document_body(request: axum::extract::Request) -> Result<serde_json::Value, Fail> {
    use skein_api::document::{BadDocument, DOCUMENT_BYTES_MAX, Format, parse};
    let kind = request.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let announced = request.headers().get("content-length").and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let too_large = |bytes| Fail::new(StatusCode::PAYLOAD_TOO_LARGE, BadDocument::TooLarge { bytes }.to_string(), None);
    if let Some(bytes) = announced.filter(|bytes| *bytes > DOCUMENT_BYTES_MAX) {
        return Err(too_large(bytes));
    }
    let body = axum::body::to_bytes(request.into_body(), DOCUMENT_BYTES_MAX).await;
    let body = body.map_err(|_| too_large(announced.unwrap_or(DOCUMENT_BYTES_MAX + 1)))?;
    parse(&body, Format::of_content_type(&kind)).map_err(|e| Fail::bad(e.to_string()))
}

/// A body in the form of one of the API's types.
pub(crate) async fn typed_body<T: serde::de::DeserializeOwned>(request: axum::extract::Request) -> Result<T, Fail> {
    let value = document_body(request).await?;
    serde_json::from_value(value).map_err(|e| Fail::bad(format!("the body is not what is expected here: {e}")))
}
