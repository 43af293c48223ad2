//! A PostHog-compatible sink: one endpoint, `POST {url}/batch/`.
//!
//! One deadline bounds each request, and only the answer's status matters. No error contains the
//! project's key.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use crate::config::outbox::Alias;
use crate::outgoing::{Client, ClientError, ClientSettings, OutgoingError, Reply};
use crate::secret::Rotating;
use crate::telemetry::with_causes;

/// The largest answer that is read, in bytes; the connection is closed on a larger one.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The configured sink.
pub(super) struct Sink {
    client: Client,
    api_key: Rotating,
    timeout: Duration,
}

/// What the sink did with a batch.
pub(super) enum SinkAnswer {
    /// It accepted the batch.
    Accepted,
    /// It refused the batch because of an event in it.
    Refused(StatusCode),
    /// Retryable: 429, 5xx, or our credentials were refused.
    Unavailable(StatusCode, HeaderMap),
    /// There was no complete answer, so the batch may have been accepted.
    Unknown(String),
}

/// Why a sink cannot be used at all: a mistake in the configuration, or something that this process lacks.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// `outbox.alias.api_key` is not set.
    #[error("outbox.alias.api_key is missing")]
    NoKey,
    /// The address or its ca cannot be used.
    #[error("outbox.alias cannot be used")]
    Client(#[from] ClientError),
}

impl Sink {
    /// Returns the configured sink; none without `outbox.alias.url`.
    pub(super) fn new(config: &Alias) -> Result<Option<Self>, SinkError> {
        let Some(url) = &config.url else { return Ok(None) };
        let api_key = Rotating::new(config.api_key.clone().ok_or(SinkError::NoKey)?);
        let url = format!("{}/batch/", url.trim_end_matches('/'));
        let settings = ClientSettings {
            deadline: Some(config.timeout),
            idle_connections: 1,
            idle_timeout: IDLE_TIMEOUT,
            ..ClientSettings::default()
        };
        let client = Client::to_url(&url, config.ca.as_deref(), &settings)?;
        Ok(Some(Self { client, api_key, timeout: config.timeout }))
    }

    /// Returns the project's key, which rotation replaces.
    pub(super) fn api_key(&self) -> Rotating {
        self.api_key.clone()
    }

    /// Sends events, in PostHog's form, as one request.
    pub(super) async fn send(&self, batch: Vec<Value>) -> SinkAnswer {
        let body = json!({ "api_key": self.api_key.current().expose(), "batch": batch }).to_string();
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        match self.client.send(Method::POST, headers, Some(body.into_bytes())).await {
            Ok(reply) => self.read(reply).await,
            Err(error) => self.unanswered(&error),
        }
    }

    async fn read(&self, reply: Reply) -> SinkAnswer {
        let status = reply.status();
        if status.is_success() {
            // An incomplete answer may come from a proxy that never reached the sink.
            return match reply.body(ANSWER_BYTES_MAX).await {
                Ok(_) | Err(OutgoingError::TooLarge(_)) => SinkAnswer::Accepted,
                Err(error) => self.unanswered(&error),
            };
        }
        if status.is_client_error() && !is_about_us(status) {
            return SinkAnswer::Refused(status);
        }
        SinkAnswer::Unavailable(status, reply.headers().clone())
    }

    fn unanswered(&self, error: &OutgoingError) -> SinkAnswer {
        SinkAnswer::Unknown(match error {
            OutgoingError::TimedOut(_) => format!("the sink did not answer within {:?}", self.timeout),
            error => format!("the sink did not answer: {}", with_causes(error)),
        })
    }
}

// A wrong key, a wrong address or too many requests: none of the events is the cause.
fn is_about_us(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403 | 404 | 405 | 407 | 408 | 429)
}
