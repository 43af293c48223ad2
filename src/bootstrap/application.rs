//! Asks the application, at the address that requests are forwarded to.
//!
//! Connections are kept and are apart from the proxy's own. No more than a bounded body is read.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::Value;

use super::call::Document;
use super::section_error::SectionError;
use crate::config;
use crate::outgoing::{Client, ClientError, ClientSettings, OutgoingError};
use crate::wire::headers::IDEMPOTENCY_KEY;
use crate::wire::json::parse_object;

/// The largest document that is read, in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// The application.
#[derive(Clone)]
pub(super) struct Application {
    client: Client,
}

/// Why the application cannot be asked at all: a mistake in the configuration, or something that this process lacks.
#[derive(Debug, thiserror::Error)]
pub enum ApplicationError {
    /// A section comes from the application, and `upstream.url` is null.
    #[error("upstream.url is null")]
    NoUpstream,
    /// There is no client to ask it.
    #[error("upstream cannot be used")]
    Client(#[from] ClientError),
}

impl Application {
    /// Returns a client of the application; nothing is connected yet.
    pub(super) fn new(upstream: &config::Upstream) -> Result<Self, ApplicationError> {
        let settings = ClientSettings {
            // The section's own timeout bounds the call.
            deadline: None,
            connect_timeout: Some(upstream.connect_timeout),
            versions: upstream.versions(),
            idle_connections: upstream.pool_size,
            idle_timeout: upstream.idle_timeout,
            resends: true,
        };
        let address = upstream.address().ok_or(ApplicationError::NoUpstream)?;
        Ok(Self { client: Client::to_upstream(&address, &settings)? })
    }

    /// Returns the JSON object at `path`; none when the application says 404.
    pub(super) async fn find(&self, path: &str, headers: &HeaderMap) -> Result<Option<Document>, SectionError> {
        let client = self.client.at(path)?;
        let reply = match client.send(Method::GET, headers.clone(), None).await {
            // A kept connection may have been closed while the request was on its way.
            Err(OutgoingError::Broken(_)) => client.send(Method::GET, headers.clone(), None).await?,
            asked => asked?,
        };
        match reply.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(SectionError::Status(status)),
        }
        parse_object(&reply.body(BODY_BYTES_MAX).await?).map(Some).ok_or(SectionError::NotAnObject)
    }

    /// Asks the application to create a document; 409 and 412 mean that another request has created it.
    pub(super) async fn create(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        key: &str,
        body: &Value,
    ) -> Result<(), SectionError> {
        let mut headers = headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // The same for every replica, so that an application can tell a repetition.
        headers.extend(HeaderValue::from_str(key).map(|key| (IDEMPOTENCY_KEY, key)));
        let reply = self.client.at(path)?.send(method, headers, Some(body.to_string().into_bytes())).await?;
        match reply.status() {
            status if status.is_success() => Ok(()),
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Ok(()),
            status => Err(SectionError::Status(status)),
        }
    }
}
