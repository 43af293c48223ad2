//! Asks the application, at the address that requests are forwarded to.
//!
//! Connections are kept and are apart from the proxy's own. No more than a bounded body is read.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, Url};
use serde_json::Value;

use super::Document;
use super::source::Failure;
use crate::config;
use crate::config::upstream::{Protocol, UpstreamUrl};
use crate::outgoing::{self, ClientError};

/// The largest document that is read, in bytes.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Names the making of a document, so that an application can tell a repetition.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The application.
#[derive(Clone)]
pub(super) struct Application {
    client: Client,
    base: Url,
}

/// Why the application cannot be asked at all: a mistake in the configuration, or something that this process lacks.
#[derive(Debug, thiserror::Error)]
pub enum ApplicationError {
    /// `upstream.url` and `upstream.server_name` make no URL.
    #[error("upstream.url or upstream.server_name is no host")]
    Url,
    /// There is no client to ask it.
    #[error("upstream cannot be used")]
    Client(#[from] ClientError),
}

/// Finds one host whatever it is asked for: a name that is only for the certificate has no address.
struct Always(Arc<str>);

impl Application {
    /// Returns a client of the application; nothing is connected yet.
    pub(super) fn new(upstream: &config::Upstream) -> Result<Self, ApplicationError> {
        let target = upstream.url.as_ref().ok_or(ApplicationError::Url)?;
        let tls = matches!(target, UpstreamUrl::Tcp { tls: true, .. });
        let builder = outgoing::builder(upstream.ca.as_deref(), tls)?
            .connect_timeout(upstream.connect_timeout)
            .pool_idle_timeout(upstream.idle_timeout)
            .pool_max_idle_per_host(upstream.pool_size);
        let (builder, base) = match target {
            UpstreamUrl::Unix(path) => {
                (in_clear(builder, upstream).unix_socket(path.as_path()), "http://localhost".to_owned())
            }
            UpstreamUrl::Tcp { host, port, tls: false } => (in_clear(builder, upstream), url("http", host, *port)),
            UpstreamUrl::Tcp { host, port, tls: true } => {
                let name = upstream.server_name.as_deref().unwrap_or(host);
                (encrypted(builder, upstream, host), url("https", name, *port))
            }
        };
        let base = Url::parse(&base).map_err(|_| ApplicationError::Url)?;
        Ok(Self { client: builder.build().map_err(ClientError::Client)?, base })
    }

    /// Returns the JSON object at `path`; none when the application says 404.
    pub(super) async fn find(&self, path: &str, headers: &HeaderMap) -> Result<Option<Document>, Failure> {
        let asked = match self.send(Method::GET, path, headers, None).await {
            // A kept connection may have been closed while the request was on its way.
            Err(Failure::Request(error)) if error.is_request() && !error.is_connect() && !error.is_timeout() => {
                self.send(Method::GET, path, headers, None).await
            }
            asked => asked,
        };
        let mut response = asked?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(Failure::Status(status)),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(Failure::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        document(&body).map(Some)
    }

    /// Sends a document that is to be made; somebody else may have made it meanwhile.
    pub(super) async fn create(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        key: &str,
        body: &Value,
    ) -> Result<(), Failure> {
        let mut headers = headers.clone();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(HeaderValue::from_str(key).map(|key| (http::HeaderName::from_static(IDEMPOTENCY_KEY), key)));
        let response = self.send(method, path, &headers, Some(body.to_string())).await?;
        match response.status() {
            status if status.is_success() => Ok(()),
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Ok(()),
            status => Err(Failure::Status(status)),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Option<String>,
    ) -> Result<reqwest::Response, Failure> {
        // Joining would resolve dot segments and another host; the path is the operator's own.
        let url = Url::parse(&format!("{}{}", self.base.as_str().trim_end_matches('/'), path));
        let request = self.client.request(method, url.map_err(|_| Failure::Path)?).headers(headers.clone());
        let request = if let Some(body) = body { request.body(body) } else { request };
        request.send().await.map_err(failed)
    }
}

impl Resolve for Always {
    fn resolve(&self, _: Name) -> Resolving {
        let host = self.0.clone();
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((&*host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Returns a JSON object. What is wrong with another text is not said: it may be secret.
pub(super) fn document(text: &[u8]) -> Result<Document, Failure> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(document)) => Ok(document),
        Ok(_) | Err(_) => Err(Failure::NotAnObject),
    }
}

fn in_clear(builder: ClientBuilder, upstream: &config::Upstream) -> ClientBuilder {
    match upstream.protocol {
        Protocol::Http2 => builder.http2_prior_knowledge(),
        Protocol::Auto | Protocol::Http1 => builder.http1_only(),
    }
}

fn encrypted(builder: ClientBuilder, upstream: &config::Upstream, host: &str) -> ClientBuilder {
    let builder = match upstream.server_name {
        Some(_) => builder.dns_resolver(Always(host.into())),
        None => builder,
    };
    if upstream.protocol == Protocol::Http1 { builder.http1_only() } else { builder }
}

fn url(scheme: &str, host: &str, port: u16) -> String {
    if host.contains(':') { format!("{scheme}://[{host}]:{port}") } else { format!("{scheme}://{host}:{port}") }
}

// The address may carry a key in its query.
fn failed(error: reqwest::Error) -> Failure {
    if error.is_timeout() { Failure::TimedOut } else { Failure::Request(error.without_url()) }
}
