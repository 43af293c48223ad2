//! `POST /webhooks/clerk`: the provider tells of users, logins and memberships (contracts §10).
//!
//! Only what one of the configured secrets signed within the last five minutes is believed; the
//! signature is over the bytes as they came. What an event asks for is done before it is answered,
//! so that a 200 means done and a 503 that the sender must come again. Doing it twice does no harm;
//! a receipt written at the end spares most of it.

mod actions;
mod payload;
mod signature;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::rand::SecureRandom;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request};
use serde::Serialize;

use self::payload::{Event, Type};
use self::signature::Proof;
use crate::accounts::Resolver;
use crate::api::error::{Error, Kind, json_text};
use crate::api::extract::{is_json, whole};
use crate::api::session::dialect;
use crate::config::Config;
use crate::config::webhooks::SigningSecret;
use crate::directory::Directory;
use crate::metrics::Metrics;
use crate::session::Sessions;
use crate::telemetry::audit;
use crate::time::Clock;

/// The largest event that is read, in bytes (contracts §3 rule 2).
const BODY_MAX: usize = 1024 * 1024;
/// How long a delivery is remembered (contracts §10).
const REMEMBERED: Duration = Duration::from_hours(72);
/// Where the receipts of deliveries are filed.
const SCOPE: &str = "clerk";

/// What the surface works with.
pub struct App {
    /// Ends sessions.
    pub sessions: Arc<Sessions>,
    /// Knows which users the events are about.
    pub resolver: Arc<Resolver>,
    /// Users, and the deliveries that were seen to.
    pub directory: Arc<Directory>,
    /// Whom to believe; without it there is no endpoint.
    pub sender: Option<Arc<Sender>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counts deliveries.
    pub metrics: Arc<Metrics>,
    /// Makes request ids for requests that came without one.
    pub random: Arc<dyn SecureRandom + Send + Sync>,
}

/// The Clerk instance whose events are believed.
pub struct Sender {
    secrets: ArcSwap<Vec<SigningSecret>>,
    instance_id: Option<String>,
    subject_prefix: String,
}

/// An event that was believed.
struct Delivery {
    id: String,
    kind: Type,
    event: Event,
}

/// Why a request is not an event.
enum Refused {
    /// Nobody we know signed it, now, for us. Why exactly is for the log.
    Signature(&'static str),
    /// It was signed and cannot be understood.
    Payload,
    /// It could not be read.
    Request(Error),
}

/// What became of an event that was believed: a label of `webhooks_total`.
#[derive(Clone, Copy)]
enum Outcome {
    Applied,
    Ignored,
    Duplicate,
}

#[derive(Serialize)]
struct Received {
    received: bool,
}

impl Sender {
    /// Returns the sender that a configuration names, if it names one.
    pub fn from_config(config: &Config) -> Option<Self> {
        let (believed, issuer) = (config.webhooks.clerk.as_ref()?, config.clerk.as_ref()?);
        Some(Self {
            secrets: ArcSwap::from_pointee(believed.secrets.clone()),
            instance_id: believed.instance_id.clone(),
            subject_prefix: issuer.subject_prefix.clone(),
        })
    }

    /// Believes what one of `secrets` signed, and nothing else, from now on.
    pub fn use_secrets(&self, secrets: &[SigningSecret]) {
        self.secrets.store(Arc::new(secrets.to_vec()));
    }
}

/// Returns the surface, which takes the one path and answers 404 when there is no sender.
pub fn router(app: App) -> Router {
    create_series(&app.metrics);
    let random = Arc::clone(&app.random);
    let endpoint = if app.sender.is_some() { post(handle) } else { any(nothing_here) };
    Router::new()
        .route("/webhooks/clerk", endpoint)
        .layer(from_fn_with_state(random, dialect::speak))
        .with_state(Arc::new(app))
}

async fn nothing_here() -> Error {
    Kind::NotFound.into()
}

async fn handle(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Error> {
    let count = |kind, outcome| app.metrics.webhooks.with_label_values(&[kind, outcome]).inc();
    let delivery = match believe(&app, request).await {
        Ok(delivery) => delivery,
        Err(refused) => {
            count(Type::NONE, refused.label());
            return Err(refused.into());
        }
    };
    let outcome = see_to(&app, &delivery).await;
    count(delivery.kind.label(), outcome.as_ref().map_or_else(|error| error.kind.label(), |outcome| outcome.label()));
    outcome?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(CONTENT_TYPE, json)], json_text(&Received { received: true })).into_response())
}

// What costs least is looked at first: a stranger's body is read only under a fresh date.
async fn believe(app: &App, request: Request<Body>) -> Result<Delivery, Refused> {
    let Some(sender) = &app.sender else { return Err(Refused::Request(Kind::NotFound.into())) };
    let (head, body) = request.into_parts();
    let proof = Proof::read(&head.headers).ok_or(Refused::Signature("missing or malformed headers"))?;
    if !proof.is_fresh(app.clock.now()) {
        return Err(Refused::Signature("stale"));
    }
    let body = whole(body, BODY_MAX).await.map_err(Refused::Request)?;
    if !proof.covers(&body, &sender.secrets.load()) {
        return Err(Refused::Signature("bad signature"));
    }
    if head.headers.contains_key(CONTENT_TYPE) && !is_json(&head.headers) {
        return Err(Refused::Request(Kind::UnsupportedMediaType.into()));
    }
    let payload = payload::Payload::parse(&body).ok_or(Refused::Payload)?;
    if sender.instance_id.is_some() && payload.instance_id() != sender.instance_id.as_deref() {
        return Err(Refused::Signature("another instance"));
    }
    let event = payload.event(&sender.subject_prefix).ok_or(Refused::Payload)?;
    Ok(Delivery { id: proof.into_id(), kind: payload.kind(), event })
}

// The receipt comes last: whatever stops this half-way, the sender comes again and finds none.
async fn see_to(app: &App, delivery: &Delivery) -> Result<Outcome, Error> {
    if matches!(delivery.event, Event::Ignored) {
        return Ok(Outcome::Ignored);
    }
    if app.directory.find_receipt(SCOPE, &delivery.id, app.clock.now()).await?.is_some() {
        return Ok(Outcome::Duplicate);
    }
    actions::apply(app, &delivery.event).await?;
    let now = app.clock.now();
    app.directory.keep_receipt(SCOPE, &delivery.id, None, now.plus(REMEMBERED), now).await?;
    Ok(Outcome::Applied)
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
    series(Type::Other.label(), Outcome::Ignored.label());
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Ignored => "ignored",
            Self::Duplicate => "duplicate",
        }
    }
}

impl Refused {
    fn label(&self) -> &'static str {
        match self {
            Self::Signature(_) => "invalid_signature",
            Self::Payload => "invalid_payload",
            Self::Request(error) => error.kind.label(),
        }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Signature(reason) => {
                audit::Event { reason: Some(reason), ..audit::Action::WebhookRefused.event() }.write();
                Self::new(Kind::BadRequest, "Invalid webhook signature")
            }
            Refused::Payload => Self::new(Kind::BadRequest, "Invalid webhook payload"),
            Refused::Request(error) => error,
        }
    }
}
