//! Fetching key sets.
//!
//! One small document from one configured address: five seconds in all and a bounded body.

use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use reqwest::{Client, Url};

use crate::outgoing::{self, ClientError};

const DEADLINE: Duration = Duration::from_secs(5);

/// The largest key set that is read, in bytes.
pub(super) const BODY_BYTES_MAX: usize = 256 * 1024;

/// An address and what it takes to ask it.
pub(super) struct Endpoint {
    client: Client,
    url: Url,
}

/// Why an address cannot be asked at all: a mistake in the configuration, or something that this process lacks.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndpointError {
    #[error("jwks_url must be an http or https URL without credentials")]
    Url,
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the request failed")]
    Request(#[source] reqwest::Error),
    #[error("the answer was {0}")]
    Status(StatusCode),
    #[error("the answer is larger than {BODY_BYTES_MAX} bytes")]
    TooLarge,
}

impl Endpoint {
    /// Returns an endpoint whose certificate must come from an authority in the PEM file `ca`, or
    /// from one the system trusts when `ca` is absent.
    pub(super) fn new(url: &str, ca: Option<&Path>) -> Result<Self, EndpointError> {
        let url = Url::parse(url).map_err(|_| EndpointError::Url)?;
        let plain = url.scheme() == "http";
        let anonymous = url.username().is_empty() && url.password().is_none();
        if !anonymous || !(plain || url.scheme() == "https") {
            return Err(EndpointError::Url);
        }
        let client = outgoing::builder(ca, !plain)?
            .http1_only()
            .timeout(DEADLINE)
            .connect_timeout(DEADLINE)
            // A connection kept for minutes is one more that can be dead when it is needed.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(ClientError::Client)?;
        Ok(Self { client, url })
    }

    /// Returns the body of a 200 answer.
    pub(super) async fn fetch(&self) -> Result<Vec<u8>, FetchError> {
        let mut response = self.client.get(self.url.clone()).send().await.map_err(request_error)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(request_error)? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

// The address may carry a key in its query.
fn request_error(error: reqwest::Error) -> FetchError {
    FetchError::Request(error.without_url())
}
