//! Fetching key sets.
//!
//! One small document from one configured address: five seconds in all and a bounded body.

use std::path::Path;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};

use crate::outgoing::{Client, ClientError, ClientSettings, OutgoingError, Versions};

const DEADLINE: Duration = Duration::from_secs(5);

/// The largest key set that is read, in bytes.
pub(super) const BODY_BYTES_MAX: usize = 256 * 1024;

/// The address of a key set.
pub(super) struct KeySetEndpoint {
    client: Client,
}

/// Why an address cannot be asked at all: a mistake in the configuration, or something that this process lacks.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndpointError {
    #[error("jwks_url must be an http or https URL without credentials")]
    Url,
    #[error(transparent)]
    Client(ClientError),
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Request(#[from] OutgoingError),
    #[error("the answer was {0}")]
    Status(StatusCode),
}

impl KeySetEndpoint {
    /// Returns an endpoint whose certificate must come from an authority in the PEM file `ca`, or
    /// from one the system trusts when `ca` is absent.
    pub(super) fn new(url: &str, ca: Option<&Path>) -> Result<Self, EndpointError> {
        let settings = ClientSettings {
            deadline: Some(DEADLINE),
            versions: Versions::Http1,
            // A connection kept for minutes is one more that can be dead when it is needed.
            idle_connections: 0,
            ..ClientSettings::default()
        };
        Ok(Self { client: Client::to_url(url, ca, &settings)? })
    }

    /// Returns the body of a 200 answer.
    pub(super) async fn fetch(&self) -> Result<Vec<u8>, FetchError> {
        let reply = self.client.send(Method::GET, HeaderMap::new(), None).await?;
        if reply.status() != StatusCode::OK {
            return Err(FetchError::Status(reply.status()));
        }
        Ok(reply.body(BODY_BYTES_MAX).await?)
    }
}

impl From<ClientError> for EndpointError {
    fn from(error: ClientError) -> Self {
        if let ClientError::Url = error { Self::Url } else { Self::Client(error) }
    }
}
