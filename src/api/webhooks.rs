//! `POST /webhooks/clerk`: the provider tells of users, logins and memberships (contracts §10).
//!
//! Only what one of the configured secrets signed within the last five minutes is accepted; the
//! signature is over the bytes as they came. What an event asks for is done before it is answered,
//! so that a 200 means done and a 503 that the sender must come again. Doing it twice does no harm;
//! a receipt written at the end spares most of it.

mod actions;
mod payload;
pub mod sender;
mod signature;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use serde::Serialize;

use self::payload::{Type, WebhookEvent};
pub use self::sender::WebhookSender;
use self::signature::Proof;
use crate::api::core::Core;
use crate::api::extract::{is_json, unsupported, whole};
use crate::api::json::Json;
use crate::api::operation::Operation;
use crate::api::problem::{Problem, WebhookFault, What};
use crate::metrics::Metrics;
use crate::telemetry::audit;

/// The largest event that is read, in bytes (contracts §3 rule 2).
const BODY_MAX: usize = 1024 * 1024;
/// How long a delivery is remembered (contracts §10).
const REMEMBERED: Duration = Duration::from_hours(72);
/// Where the receipts of deliveries are filed.
const SCOPE: &str = "clerk";

/// An event whose signature is good.
struct Delivery {
    id: String,
    kind: Type,
    event: WebhookEvent,
}

/// Why a request is not an event.
enum Refused {
    /// No known secret signed it, now, for us. Why exactly is for the log.
    Signature(&'static str),
    /// It was signed and cannot be understood.
    Payload,
    /// It could not be read.
    Request(Problem),
}

/// What became of an event whose signature is good: a label of `webhooks_total`.
#[derive(Clone, Copy)]
enum WebhookOutcome {
    Applied,
    Ignored,
    Duplicate,
}

#[derive(Serialize)]
struct Received {
    received: bool,
}

/// Returns the surface's operation; without a sender its path is answered 404.
pub(super) fn operations() -> Vec<Operation> {
    let deliver = Operation::new(Method::POST, "", "deliver", handle);
    vec![deliver.only_if(|core| core.sender.is_some()).prepared_by(|core| create_series(&core.metrics))]
}

async fn handle(State(core): State<Arc<Core>>, request: Request<Body>) -> Result<Json<Received>, Problem> {
    let count = |kind, outcome| core.metrics.webhooks.with_label_values(&[kind, outcome]).inc();
    let delivery = match authenticate(&core, request).await {
        Ok(delivery) => delivery,
        Err(refused) => {
            let problem = Problem::from(refused);
            count(Type::NONE, problem.what.label());
            return Err(problem);
        }
    };
    let outcome = process(&core, &delivery).await;
    let label = outcome.as_ref().map_or_else(|problem| problem.what.label(), |outcome| outcome.label());
    count(delivery.kind.label(), label);
    outcome?;
    Ok(Json(Received { received: true }))
}

// What costs least is looked at first: a body is read only under a fresh date, so that an old delivery costs nothing.
async fn authenticate(core: &Core, request: Request<Body>) -> Result<Delivery, Refused> {
    let (head, body) = request.into_parts();
    // The operation is there only with a sender.
    let sender = core.sender.as_ref().ok_or_else(|| Refused::Request(What::Internal.into()))?;
    let proof = Proof::read(&head.headers).ok_or(Refused::Signature("missing or malformed headers"))?;
    if !proof.is_fresh(core.clock.now()) {
        return Err(Refused::Signature("stale"));
    }
    let body = whole(body, BODY_MAX).await.map_err(Refused::Request)?;
    if !proof.covers(&body, &sender.secrets.load()) {
        return Err(Refused::Signature("bad signature"));
    }
    if head.headers.contains_key(CONTENT_TYPE) && !is_json(&head.headers) {
        return Err(Refused::Request(unsupported(&head.headers).into()));
    }
    let payload = payload::Payload::parse(&body).ok_or(Refused::Payload)?;
    if sender.instance_id.is_some() && payload.instance_id() != sender.instance_id.as_deref() {
        return Err(Refused::Signature("another instance"));
    }
    let event = payload.event(&sender.subject_prefix).ok_or(Refused::Payload)?;
    Ok(Delivery { id: proof.into_id(), kind: payload.kind(), event })
}

// The receipt comes last: when this stops half-way, the sender comes again and finds none.
async fn process(core: &Core, delivery: &Delivery) -> Result<WebhookOutcome, Problem> {
    if matches!(delivery.event, WebhookEvent::Ignored) {
        return Ok(WebhookOutcome::Ignored);
    }
    if core.directory.find_receipt(SCOPE, &delivery.id, core.clock.now()).await?.is_some() {
        return Ok(WebhookOutcome::Duplicate);
    }
    actions::apply(core, &delivery.event).await?;
    let now = core.clock.now();
    core.directory.keep_receipt(SCOPE, &delivery.id, None, now.plus(REMEMBERED), now).await?;
    Ok(WebhookOutcome::Applied)
}

// Every outcome that can happen, so that each series has a zero to begin from.
fn create_series(metrics: &Metrics) {
    let series = |kind, outcome| drop(metrics.webhooks.with_label_values(&[kind, outcome]));
    let refused = ["invalid_signature", "invalid_payload", "too_large", "unsupported_media_type", "bad_request"];
    for outcome in refused {
        series(Type::NONE, outcome);
    }
    for kind in Type::KNOWN {
        for outcome in ["applied", "ignored", "duplicate", "unavailable"] {
            series(kind.label(), outcome);
        }
    }
    series(Type::Other.label(), WebhookOutcome::Ignored.label());
}

impl WebhookOutcome {
    fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Ignored => "ignored",
            Self::Duplicate => "duplicate",
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Signature(reason) => {
                audit::Event { reason: Some(reason), ..audit::Action::WebhookRefused.event() }.write();
                What::RefusedWebhook(WebhookFault::Signature).into()
            }
            Refused::Payload => What::RefusedWebhook(WebhookFault::Payload).into(),
            Refused::Request(problem) => problem,
        }
    }
}
