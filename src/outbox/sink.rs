//! A PostHog-compatible sink: one endpoint, `POST {url}/batch/`.
//!
//! One deadline for all of it, and an answer of which only the status matters. The project's key is
//! in no error.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use reqwest::{Client, Response, Url};
use serde_json::{Value, json};

use crate::config::outbox::Alias;
use crate::outgoing::{self, ClientError};
use crate::secret::Rotating;
use crate::telemetry::with_causes;

/// How much of an answer is read: then the connection is given up instead.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A sink and what it takes to reach it.
pub(super) struct Sink {
    client: Client,
    url: Url,
    api_key: Rotating,
    timeout: Duration,
}

/// What a sink said.
pub(super) enum Answer {
    /// It has the batch.
    Accepted,
    /// Something in the batch is not to its liking.
    Refused(StatusCode),
    /// It does not take anything now, or not from us.
    Turned(StatusCode, HeaderMap),
    /// Nobody knows what it did.
    None(String),
}

/// Why a sink cannot be used at all: a mistake in the configuration, or something that this process lacks.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The address is none.
    #[error("outbox.alias.url must be an http or https URL without credentials")]
    Url,
    /// There is no key.
    #[error("outbox.alias.api_key is missing")]
    NoKey,
    /// There is no client to ask it.
    #[error("outbox.alias cannot be used")]
    Client(#[from] ClientError),
}

impl Sink {
    /// Returns the configured sink, if there is one.
    pub(super) fn new(config: &Alias) -> Result<Option<Self>, SinkError> {
        let Some(url) = &config.url else { return Ok(None) };
        let api_key = Rotating::new(config.api_key.clone().ok_or(SinkError::NoKey)?);
        let url = Url::parse(&format!("{}/batch/", url.trim_end_matches('/'))).map_err(|_| SinkError::Url)?;
        let client = outgoing::builder(config.ca.as_deref(), url.scheme() != "http")?
            .timeout(config.timeout)
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build()
            .map_err(ClientError::Client)?;
        Ok(Some(Self { client, url, api_key, timeout: config.timeout }))
    }

    /// Returns the project's key, to be replaced when it is rotated.
    pub(super) fn api_key(&self) -> Rotating {
        self.api_key.clone()
    }

    /// Sends events, in PostHog's form, as one request.
    pub(super) async fn send(&self, batch: Vec<Value>) -> Answer {
        let body = json!({ "api_key": self.api_key.current().expose(), "batch": batch }).to_string();
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json").body(body);
        match request.send().await {
            Ok(response) => self.read(response).await,
            Err(error) => self.unanswered(error),
        }
    }

    async fn read(&self, mut response: Response) -> Answer {
        let status = response.status();
        if status.is_success() {
            // An answer that breaks off may come from something in between that never asked the sink.
            let mut read = 0;
            while read <= ANSWER_BYTES_MAX {
                match response.chunk().await {
                    Ok(Some(chunk)) => read += chunk.len(),
                    Ok(None) => break,
                    Err(error) => return self.unanswered(error),
                }
            }
            return Answer::Accepted;
        }
        if status.is_client_error() && !is_about_us(status) {
            return Answer::Refused(status);
        }
        Answer::Turned(status, response.headers().clone())
    }

    fn unanswered(&self, error: reqwest::Error) -> Answer {
        if error.is_timeout() {
            return Answer::None(format!("the sink did not answer within {:?}", self.timeout));
        }
        Answer::None(format!("the sink did not answer: {}", with_causes(&error.without_url())))
    }
}

// A wrong key, address or pace: no event is to blame.
fn is_about_us(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403 | 404 | 405 | 407 | 408 | 429)
}
