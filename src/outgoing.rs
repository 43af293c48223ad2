//! The one HTTP client of this crate: it fetches key sets and bootstrap sections, asks the rebind
//! hook, and sends aliases and spans.
//!
//! No redirects, no proxy from the environment, and TLS that is always verified: against the
//! authorities of one PEM file, or against those the system trusts. A body is read up to a bound
//! that its caller names. No error shows a URL, because a URL may carry a key in its query.

mod upstream;

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use reqwest::{Certificate, ClientBuilder, Url, redirect, retry};
use rustls::crypto::CryptoProvider;

pub use self::upstream::{UpstreamAddress, UpstreamTls};

/// How long a client waits, what it speaks and which connections it keeps.
#[derive(Clone, Copy, Debug)]
pub struct ClientSettings {
    /// The bound on one request and the whole of its answer; none where the caller bounds the call itself.
    pub deadline: Option<Duration>,
    /// The bound on one connection attempt, TLS included.
    pub connect_timeout: Option<Duration>,
    /// Which versions of HTTP it speaks.
    pub versions: Versions,
    /// How many unused connections are kept for each host.
    pub idle_connections: usize,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Whether a request that an HTTP/2 peer says it did not process is sent again on its own.
    pub resends: bool,
}

/// Which versions of HTTP a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// HTTP/1.1 in clear; over TLS the one that ALPN settles on.
    Negotiated,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 without negotiation in clear; over TLS the one that ALPN settles on.
    Http2,
}

/// A client of one URL. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: Url,
}

/// An answer whose body has not been read.
pub struct Reply(reqwest::Response);

/// Why there is no client: a mistake in the configuration, or something that this process lacks.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not a URL that a client can ask.
    #[error("it must be an http or https URL without credentials")]
    Url,
    /// The process has no TLS provider.
    #[error("no TLS provider is installed in this process")]
    NoTlsProvider,
    /// The file with authorities cannot be read.
    #[error("ca cannot be read")]
    UnreadableCa(#[source] io::Error),
    /// The file holds no certificate.
    #[error("ca holds no PEM certificate")]
    NoCertificate,
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made")]
    Build(#[source] TransportError),
}

/// Why there is no answer, or not the whole of one.
#[derive(Debug, thiserror::Error)]
pub enum OutgoingError {
    /// The deadline or the connection's own passed.
    #[error("the request took too long")]
    TimedOut(#[source] TransportError),
    /// There was no connection: the peer has not seen the request.
    #[error("no connection could be made")]
    Unreachable(#[source] TransportError),
    /// The connection broke: the peer may have acted on the request.
    #[error("the request failed")]
    Broken(#[source] TransportError),
    /// The answer's body is larger than the caller allows, in bytes.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// What the HTTP library says of a failure, without the URL.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TransportError(reqwest::Error);

/// A path that would not stay on the client's own host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path makes no URL")]
pub struct InvalidPath;

impl Default for ClientSettings {
    /// Returns settings without bounds of time that keep no connection.
    fn default() -> Self {
        Self {
            deadline: None,
            connect_timeout: None,
            versions: Versions::Negotiated,
            idle_connections: 0,
            idle_timeout: Duration::from_secs(30),
            resends: true,
        }
    }
}

impl Client {
    /// Returns a client of `url` that trusts the authorities in the PEM file `ca`, or those the
    /// system trusts when `ca` is absent. Nothing is connected yet.
    pub fn to_url(url: &str, ca: Option<&Path>, settings: &ClientSettings) -> Result<Self, ClientError> {
        let url = web_url(url)?;
        Self::build(builder(ca, url.scheme() == "https")?, url, settings)
    }

    /// Returns a client of the application's root, at the address that requests are forwarded to,
    /// on connections of its own. Nothing is connected yet.
    pub fn to_upstream(upstream: &UpstreamAddress<'_>, settings: &ClientSettings) -> Result<Self, ClientError> {
        let url = web_url(&upstream.url())?;
        let builder = builder(upstream.ca(), url.scheme() == "https")?;
        Self::build(upstream.reached_by(builder), url, settings)
    }

    /// Returns the client of another path on the same host, which begins with a slash and may have a query.
    pub fn at(&self, path: &str) -> Result<Self, InvalidPath> {
        // Joining would let a path that begins with two slashes choose another host.
        let text = format!("{}{path}", self.url.origin().ascii_serialization());
        let url = Url::parse(&text).map_err(|_| InvalidPath)?;
        let stays = path.starts_with('/') && url.origin() == self.url.origin();
        if stays { Ok(Self { http: self.http.clone(), url }) } else { Err(InvalidPath) }
    }

    /// Returns the client of `path` if the URL has no path of its own.
    #[must_use]
    pub fn with_default_path(mut self, path: &str) -> Self {
        if self.url.path() == "/" {
            self.url.set_path(path);
        }
        self
    }

    /// Sends one request; returns its answer as soon as the head is there.
    pub async fn send(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Option<Vec<u8>>,
    ) -> Result<Reply, OutgoingError> {
        let mut request = self.http.request(method, self.url.clone()).headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        }
        request.send().await.map(Reply).map_err(OutgoingError::from_library)
    }

    fn build(builder: ClientBuilder, url: Url, settings: &ClientSettings) -> Result<Self, ClientError> {
        let mut builder =
            builder.pool_max_idle_per_host(settings.idle_connections).pool_idle_timeout(settings.idle_timeout);
        if let Some(deadline) = settings.deadline {
            builder = builder.timeout(deadline);
        }
        if let Some(timeout) = settings.connect_timeout {
            builder = builder.connect_timeout(timeout);
        }
        if !settings.resends {
            builder = builder.retry(retry::never());
        }
        builder = match (settings.versions, url.scheme()) {
            (Versions::Negotiated | Versions::Http2, "https") => builder,
            (Versions::Http2, _) => builder.http2_prior_knowledge(),
            (Versions::Negotiated | Versions::Http1, _) => builder.http1_only(),
        };
        let http = builder.build().map_err(|error| ClientError::Build(TransportError::new(error)))?;
        Ok(Self { http, url })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Reply {
    /// Returns the answer's status.
    pub fn status(&self) -> StatusCode {
        self.0.status()
    }

    /// Returns the answer's header fields.
    pub fn headers(&self) -> &HeaderMap {
        self.0.headers()
    }

    /// Returns the whole body; a larger one than `bytes_max` ends the connection instead.
    pub async fn body(mut self, bytes_max: usize) -> Result<Vec<u8>, OutgoingError> {
        let mut body = Vec::new();
        while let Some(chunk) = self.0.chunk().await.map_err(OutgoingError::from_library)? {
            if body.len() + chunk.len() > bytes_max {
                return Err(OutgoingError::TooLarge(bytes_max));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl OutgoingError {
    fn from_library(error: reqwest::Error) -> Self {
        let (timed_out, unconnected) = (error.is_timeout(), error.is_connect());
        let cause = TransportError::new(error);
        match (timed_out, unconnected) {
            (true, _) => Self::TimedOut(cause),
            (false, true) => Self::Unreachable(cause),
            (false, false) => Self::Broken(cause),
        }
    }
}

impl TransportError {
    fn new(error: reqwest::Error) -> Self {
        Self(error.without_url())
    }
}

fn web_url(text: &str) -> Result<Url, ClientError> {
    let url = Url::parse(text).map_err(|_| ClientError::Url)?;
    let anonymous = url.username().is_empty() && url.password().is_none();
    if anonymous && ["http", "https"].contains(&url.scheme()) { Ok(url) } else { Err(ClientError::Url) }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that makes HTTP clients")]
fn builder(ca: Option<&Path>, tls: bool) -> Result<ClientBuilder, ClientError> {
    // reqwest panics without one; `main` installs it first of all.
    if CryptoProvider::get_default().is_none() {
        return Err(ClientError::NoTlsProvider);
    }
    let builder = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("doorward/", env!("CARGO_PKG_VERSION")));
    Ok(match ca {
        Some(path) => builder.tls_certs_only(authorities(path)?),
        // Lets a container without system certificates ask a neighbour in clear.
        None if !tls => builder.tls_certs_only([]),
        None => builder,
    })
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, ClientError> {
    let pem = std::fs::read(path).map_err(ClientError::UnreadableCa)?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(ClientError::NoCertificate),
    }
}

#[cfg(test)]
mod tests;
