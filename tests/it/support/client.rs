//! Callers: exact bytes over a socket, ordinary HTTP/1.1 requests, and web sockets.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::doorward::Doorward;
use super::http1::{Headers, Wire};
use super::idp::Idp;
use super::within;

/// An answer that has arrived completely.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    /// What followed the body; only HTTP/2 answers have it here.
    pub trailers: Option<Headers>,
}

/// A caller of one address; every request goes over a connection of its own.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    address: SocketAddr,
}

/// A request about to be sent.
#[must_use]
pub struct RequestBuilder {
    address: SocketAddr,
    request: http::request::Builder,
    body: Bytes,
}

/// An answer whose body is still arriving; dropping it closes the connection.
pub struct Streaming {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: Headers,
    body: Incoming,
    _connection: JoinSet<()>,
}

/// A connection to which a test writes exact bytes.
pub struct RawConnection<S = TcpStream>(Wire<S>);

impl Response {
    /// Returns the value of the first header field called `name`.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.first(name)
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON; fails the test when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the {} answer {:?}", self.status, self.text()))
    }
}

impl Client {
    /// Returns a caller of `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Begins a request; `path` goes out as it is.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = Request::builder().method(method).uri(path).header("host", self.address.to_string());
        RequestBuilder { address: self.address, request, body: Bytes::new() }
    }

    /// Begins a GET.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// Begins a POST.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    /// Begins a DELETE.
    pub fn delete(&self, path: &str) -> RequestBuilder {
        self.request(Method::DELETE, path)
    }

    /// Exchanges a fresh JWT of `subject` for a session and returns its token.
    pub async fn sign_in(&self, idp: &Idp, subject: &str) -> String {
        token(&self.post("/auth/session").bearer(&idp.mint_for(subject)).send().await)
    }

    /// Signs the guest on `device` in and returns its token.
    pub async fn sign_in_guest(&self, device: &str) -> String {
        token(&self.post("/auth/anonymous").json(&serde_json::json!({ "device_id": device })).send().await)
    }

    /// Opens a WebSocket with further header fields, e.g. `("authorization", "Bearer …")`; the
    /// answer when the server refuses the upgrade.
    pub async fn web_socket(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<WebSocketStream<TcpStream>, Box<Response>> {
        let mut request = format!("ws://{}{path}", self.address).into_client_request().expect("a valid address");
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().expect("a valid header"));
        }
        let stream = TcpStream::connect(self.address).await.expect("the server listens");
        let handshake = tokio_tungstenite::client_async(request, stream);
        match within("a WebSocket handshake", handshake).await {
            Ok((socket, _)) => Ok(socket),
            Err(Error::Http(refusal)) => {
                let (head, body) = refusal.into_parts();
                Err(Box::new(Response {
                    status: head.status.as_u16(),
                    headers: Headers::from(&head.headers),
                    body: body.unwrap_or_default(),
                    trailers: None,
                }))
            }
            Err(error) => panic!("the WebSocket handshake failed: {error}"),
        }
    }
}

impl RequestBuilder {
    /// Adds a header field.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// Adds `Authorization: Bearer`.
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Adds a cookie header with one cookie.
    pub fn cookie(self, name: &str, value: &str) -> Self {
        self.header("cookie", &format!("{name}={value}"))
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a JSON body and its content type.
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// Sends the request and returns the whole answer; a broken connection fails the test.
    pub async fn send(self) -> Response {
        self.try_send().await.unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    /// Sends the request and returns the whole answer, or what was wrong with the connection.
    pub async fn try_send(self) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
        let Streaming { status, headers, body, _connection } = self.start().await?;
        let body = within("the rest of an answer", body.collect()).await?.to_bytes().to_vec();
        Ok(Response { status, headers, body, trailers: None })
    }

    /// Sends the request and returns the answer as soon as its head is there.
    pub async fn stream(self) -> Streaming {
        self.start().await.unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    async fn start(self) -> Result<Streaming, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // Its errors reach the request.
            let _ = connection.await;
        });
        let answer = send.send_request(self.request.body(Full::new(self.body))?);
        let (head, body) = within("an answer", answer).await?.into_parts();
        let headers = Headers::from(&head.headers);
        Ok(Streaming { status: head.status.as_u16(), headers, body, _connection: tasks })
    }
}

impl Streaming {
    /// Waits for the next piece of the body; `None` once it is complete or the connection broke.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            let frame = within("more of an answer", self.body.frame()).await?.ok()?;
            if let Ok(data) = frame.into_data() {
                return Some(data);
            }
        }
    }

    /// Waits until the body is over; returns whether it ended properly, not by a broken connection.
    pub async fn ended(&mut self) -> bool {
        loop {
            match within("an answer to end", self.body.frame()).await {
                Some(Ok(_)) => {}
                Some(Err(_)) => return false,
                None => return true,
            }
        }
    }
}

impl RawConnection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("the server listens"))
    }

    /// Connects; `None` when nobody listens.
    pub async fn try_open(address: SocketAddr) -> Option<Self> {
        TcpStream::connect(address).await.ok().map(Self::over)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RawConnection<S> {
    /// Speaks over a connection that stands.
    pub fn over(stream: S) -> Self {
        Self(Wire::new(stream))
    }

    /// Returns the connection, from which nothing may be left unread.
    pub fn into_stream(self) -> S {
        let (stream, unread) = self.0.into_parts();
        assert!(unread.is_empty(), "unread: {:?}", String::from_utf8_lossy(&unread));
        stream
    }

    /// Writes exactly `bytes`; the server may have closed already, which the answer shows.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within("the server to read", self.0.write(bytes.as_ref())).await;
    }

    /// Waits for the next final answer (not 1xx, except 101); `None` when the server closes instead.
    pub async fn response(&mut self) -> Option<Response> {
        self.response_to(false).await
    }

    /// Waits for the next final answer to a HEAD request.
    pub async fn head_response(&mut self) -> Option<Response> {
        self.response_to(true).await
    }

    /// Waits until the server closes the connection; returns what it sent before.
    pub async fn closed(&mut self) -> Vec<u8> {
        within("the server to close the connection", self.0.until_close()).await
    }

    async fn response_to(&mut self, head_request: bool) -> Option<Response> {
        let reading = async {
            loop {
                let head = self.0.head().await?;
                let status = head.status();
                if (100..200).contains(&status) && status != 101 {
                    continue;
                }
                let body = self.0.whole(head.response_body(head_request)).await;
                return Some(Response { status, headers: head.headers, body, trailers: None });
            }
        };
        within("an answer on a raw connection", reading).await
    }
}

/// Writes exactly `bytes` to a new connection and returns the first answer; `None` when the server
/// closes without one.
pub async fn raw(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Option<Response> {
    let mut connection = RawConnection::open(address).await;
    connection.write(bytes).await;
    connection.response().await
}

/// Exchanges a fresh JWT of `subject` for a session and returns its token.
pub async fn sign_in(doorward: &Doorward, idp: &Idp, subject: &str) -> String {
    doorward.client().sign_in(idp, subject).await
}

/// Signs the guest on `device` in and returns its token.
pub async fn sign_in_guest(doorward: &Doorward, device: &str) -> String {
    doorward.client().sign_in_guest(device).await
}

fn token(answer: &Response) -> String {
    assert_eq!(answer.status, 200, "sign-in: {}", answer.text());
    answer.json()["token"].as_str().expect("the answer has a token").to_owned()
}
