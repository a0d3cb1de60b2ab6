//! The OpenAPI 3.1 document, from the types and one table of operations. A test holds the table to the
//! router.

use serde_json::{Value, json};
use utoipa::OpenApi;

/// One operation of the API.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// Schema of the request's body.
    takes: Option<&'static str>,
    /// Schema of the answer, `[Name]` for a list, or a media type.
    gives: Option<&'static str>,
}

const fn op(
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    takes: Option<&'static str>,
    gives: Option<&'static str>,
) -> Operation {
    Operation { method, path, summary, takes, gives }
}

const OPERATIONS: &[Operation] = &[
    op("get", "/healthz", "Is the engine up?", None, Some("Health")),
    op("get", "/metrics", "Metrics for Prometheus", None, Some("text/plain")),
    op("get", "/api/v1/addresses", "Addresses of the parts", None, Some("application/json")),
    op("get", "/api/v1/sessions", "Sessions, newest first", None, Some("[SessionSummary]")),
    op("post", "/api/v1/sessions", "Start a session", Some("StartRequest"), Some("Started")),
    op("get", "/api/v1/sessions/{session}", "One session", None, Some("SessionDetail")),
    op("post", "/api/v1/sessions/{session}/stop", "Stop a session", None, None),
    op("post", "/api/v1/sessions/{session}/pause", "Start nothing new in a session", Some("PauseRequest"), None),
    op("post", "/api/v1/sessions/{session}/resume", "Let a paused session go on", Some("ResumeRequest"), None),
    op(
        "post",
        "/api/v1/sessions/{session}/rerun",
        "Run a session's thread again",
        Some("RerunRequest"),
        Some("Started"),
    ),
    op("get", "/api/v1/sessions/{session}/logs/search", "Lines of a session's logs", None, Some("LogSearch")),
    op("post", "/api/v1/sessions/{session}/nodes/{node}/cancel", "Cancel items of a task", Some("CancelRequest"), None),
    op(
        "post",
        "/api/v1/sessions/{session}/nodes/{node}/answer",
        "Answer items whose place was lost (on_lost = ask)",
        Some("AnswersRequest"),
        None,
    ),
    op(
        "post",
        "/api/v1/sessions/{session}/nodes/{node}/retry-now",
        "Have items that wait for their back-off tried now",
        Some("RetryNowRequest"),
        None,
    ),
    op("get", "/api/v1/sessions/{session}/attempts", "A session's attempts", None, Some("[AttemptView]")),
    op(
        "get",
        "/api/v1/sessions/{session}/stream",
        "A session's events and logs, live",
        None,
        Some("text/event-stream"),
    ),
    op(
        "get",
        "/api/v1/sessions/{session}/nodes/{node}/items/{index}/why",
        "Why an item is where it is",
        None,
        Some("Why"),
    ),
    op(
        "post",
        "/api/v1/sessions/{session}/nodes/{node}/items/{index}/answer",
        "Answer an item whose place was lost (on_lost = ask)",
        Some("AnswerRequest"),
        None,
    ),
    op("post", "/api/v1/plan", "What a session would do", Some("StartRequest"), Some("PlanView")),
    op("get", "/api/v1/events", "The change stream", None, Some("text/event-stream")),
    op("get", "/api/v1/attempts/{attempt}", "One attempt", None, Some("AttemptView")),
    op("post", "/api/v1/attempts/{attempt}/signal", "Send an attempt a signal", Some("SignalRequest"), None),
    op(
        "post",
        "/api/v1/attempts/{attempt}/input",
        "Give an attempt's standard input a line",
        Some("InputRequest"),
        None,
    ),
    op("get", "/api/v1/attempts/{attempt}/log/{stream}", "An attempt's log", None, Some("application/octet-stream")),
    op("get", "/api/v1/tasks", "Tasks of the repository", None, Some("[DocumentView]")),
    op("get", "/api/v1/tasks/{name}", "One task", None, Some("DocumentView")),
    op("put", "/api/v1/tasks/{name}", "Store a version of a task", Some("application/json"), Some("DocumentView")),
    op("delete", "/api/v1/tasks/{name}", "Remove a task", None, None),
    op("get", "/api/v1/threads", "Threads of the repository", None, Some("[DocumentView]")),
    op("get", "/api/v1/threads/{name}", "One thread", None, Some("DocumentView")),
    op("put", "/api/v1/threads/{name}", "Store a version of a thread", Some("application/json"), Some("DocumentView")),
    op("delete", "/api/v1/threads/{name}", "Remove a thread", None, None),
    op("get", "/api/v1/reply-secret", "The secret that webhooks are signed with", None, Some("ReplySecret")),
    op("get", "/api/v1/solutions", "Solutions", None, Some("[SolutionView]")),
    op("get", "/api/v1/instances", "Instances", None, Some("[InstanceView]")),
    op("post", "/api/v1/instances/{instance}/drain", "Drain an instance", None, None),
    op("post", "/api/v1/instances/{instance}/notice", "Say that its cloud takes an instance away", None, None),
    op("get", "/api/v1/metrics", "Metrics of scaling elements that the engine carries out", None, Some("[MetricView]")),
    op("put", "/api/v1/metrics/{metric}", "Say a value of a custom metric", Some("MetricValue"), None),
    op("get", "/api/v1/secrets", "Names of secrets", None, Some("[SecretView]")),
    op("put", "/api/v1/secrets/{name}", "Set a secret", Some("SecretValue"), None),
    op("delete", "/api/v1/secrets/{name}", "Remove a secret", None, None),
    op("get", "/api/v1/tokens", "API tokens", None, Some("[TokenView]")),
    op("post", "/api/v1/tokens", "Make an API token", Some("TokenRequest"), Some("NewToken")),
    op("delete", "/api/v1/tokens/{id}", "Revoke an API token", None, None),
    op("post", "/api/v1/join-tokens", "Make a one-time join token", None, Some("NewToken")),
    op("get", "/api/v1/config", "The configuration in force", None, Some("application/json")),
    op("get", "/api/v1/openapi.json", "This document", None, Some("application/json")),
    op("get", "/api/v1/files/{digest}", "Content by digest", None, Some("application/octet-stream")),
    op("put", "/api/v1/files/{digest}", "Store content", Some("application/octet-stream"), None),
    op("get", "/api/v1/images", "The image catalogue", None, Some("[ImageView]")),
    op("post", "/api/v1/images/import", "Take an image in from a URL", Some("ImportRequest"), Some("OperationView")),
    op(
        "post",
        "/api/v1/images/choose",
        "Choose an image for a machine",
        Some("ChooseRequest"),
        Some("ImageChoiceView"),
    ),
    op("post", "/api/v1/images/gc", "Free the room of what no image has", None, Some("OperationView")),
    op("post", "/api/v1/images/scrub", "Read all of the image store", None, Some("OperationView")),
    op("post", "/api/v1/images/missing", "Which chunks the store lacks", Some("MissingRequest"), Some("Missing")),
    op("post", "/api/v1/images/chunks", "Send chunks", Some("application/octet-stream"), None),
    op("get", "/api/v1/images/chunks/{chunk}", "A chunk, packed", None, Some("application/octet-stream")),
    op("get", "/api/v1/images/{image}", "One image, by id or name", None, Some("ImageView")),
    op("patch", "/api/v1/images/{image}", "Change its name and tags", Some("LabelRequest"), Some("ImageView")),
    op("delete", "/api/v1/images/{image}", "Forget an image", None, None),
    op(
        "post",
        "/api/v1/images/{image}/deploy",
        "Bring an image to a destination",
        Some("DeployRequest"),
        Some("OperationView"),
    ),
    op("get", "/api/v1/images/{image}/manifest", "What the store says of it", None, Some("application/json")),
    op(
        "put",
        "/api/v1/images/{image}/manifest",
        "Make an image of the chunks that were sent",
        Some("application/json"),
        Some("ImageView"),
    ),
    op("get", "/api/v1/images/{image}/lists/{list}", "A list of its chunks", None, Some("application/octet-stream")),
    op("put", "/api/v1/images/{image}/lists/{list}", "Send a list", Some("application/octet-stream"), None),
    op("get", "/api/v1/operations", "Imports, collections, scrubs", None, Some("[OperationView]")),
    op("get", "/api/v1/operations/{operation}", "One of them", None, Some("OperationView")),
    op("delete", "/api/v1/operations/{operation}", "End one", None, None),
];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Skein",
        description = "Runs threads of tasks over every cloud you have.",
        license(name = "Apache-2.0")
    ),
    components(schemas(
        skein_api::ErrorBody,
        skein_api::StartRequest,
        skein_api::Started,
        skein_api::Counts,
        skein_api::SessionSummary,
        skein_api::SessionDetail,
        skein_api::NodeView,
        skein_api::HoldView,
        skein_api::PlaceCount,
        skein_api::AttemptView,
        skein_api::FileView,
        skein_api::Why,
        skein_api::CandidateView,
        skein_api::PlanView,
        skein_api::DeploymentView,
        skein_api::DeployedMember,
        skein_api::DeployedPipe,
        skein_api::HeldRuleView,
        skein_api::PlannedItem,
        skein_api::StuckView,
        skein_api::DocumentView,
        skein_api::SolutionView,
        skein_api::InstanceView,
        skein_api::SecretView,
        skein_api::MetricValue,
        skein_api::MetricView,
        skein_api::SecretValue,
        skein_api::TokenView,
        skein_api::TokenRequest,
        skein_api::NewToken,
        skein_api::AnswerRequest,
        skein_api::AnswersRequest,
        skein_api::RetryNowRequest,
        skein_api::PauseRequest,
        skein_api::BudgetView,
        skein_api::RerunRequest,
        skein_api::ResumeRequest,
        skein_api::CancelRequest,
        skein_api::LogSearch,
        skein_api::ReplySecret,
        skein_api::SignalRequest,
        skein_api::InputRequest,
        skein_api::LogPiece,
        skein_api::EventView,
        skein_api::ImageView,
        skein_api::DeployedView,
        skein_api::LabelRequest,
        skein_api::DeployRequest,
        skein_api::ImportRequest,
        skein_api::MissingRequest,
        skein_api::Missing,
        skein_api::ChooseRequest,
        skein_api::ImageChoiceView,
        skein_api::PassedOverView,
        skein_api::OperationView,
        skein_api::Health
    ))
)]
struct Types;

/// The document, pretty JSON.
pub fn document() -> String {
    let mut document = serde_json::to_value(Types::openapi()).unwrap_or_default();
    let mut paths = serde_json::Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = describe(operation);
    }
    document["paths"] = Value::Object(paths);
    document["components"]["securitySchemes"] = json!({"token": {"type": "http", "scheme": "bearer"}});
    document["security"] = json!([{"token": []}]);
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

fn describe(operation: &Operation) -> Value {
    let parameters: Vec<Value> = operation
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    let good = match operation.gives {
        Some(gives) => json!({"description": operation.summary, "content": content(gives)}),
        None => json!({"description": operation.summary}),
    };
    let status = if operation.gives.is_some() { "200" } else { "204" };
    let mut described = json!({
        "summary": operation.summary,
        "operationId": operation_id(operation),
        "responses": {
            status: good,
            "default": {"description": "What went wrong and what to do about it", "content": content("ErrorBody")},
        },
    });
    if !parameters.is_empty() {
        described["parameters"] = Value::Array(parameters);
    }
    if let Some(takes) = operation.takes {
        described["requestBody"] = json!({"required": true, "content": content(takes)});
    }
    described
}

fn content(what: &str) -> Value {
    if what.contains('/') {
        return json!({what: {}});
    }
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let schema = match what.strip_prefix('[').and_then(|w| w.strip_suffix(']')) {
        Some(name) => json!({"type": "array", "items": reference(name)}),
        None => reference(what),
    };
    json!({"application/json": {"schema": schema}})
}

fn operation_id(operation: &Operation) -> String {
    let path = operation.path.trim_start_matches("/api/v1").replace(['/', '.', '-'], "_").replace(['{', '}'], "");
    format!("{}{path}", operation.method)
}
