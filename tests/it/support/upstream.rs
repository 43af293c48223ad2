//! The application behind Doorward: an HTTP/1.1 server that records the exact bytes it received.
//!
//! What it does depends on the path:
//! - `/hang`: takes the body and never answers
//! - `/slow-body`: sends the head and half of the body, the rest after [`Upstream::release`]
//! - `/sse`: sends events until the connection is closed
//! - `/ws`: completes a WebSocket handshake, echoes, and records the messages as its body
//! - `.../upgrade`: takes any `Upgrade` with 101 and records all that follows as its body
//! - `/upload`: reads the body slowly
//! - `/status/NNN`: answers NNN
//! - what [`Upstream::respond`] was given: exactly those bytes; then closes if the path begins with `/closing/`
//! - anything else: 200 and JSON of what it received

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::http1::{Body, Broken, Head, Headers, Wire};
use super::within;

/// What an event stream sends first.
pub const FIRST_EVENT: &str = "data: 0\n\n";

/// A running upstream; it and its connections end on drop.
pub struct Upstream {
    url: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

/// One request, as far as it has arrived.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Which connection it came on, counted from 1.
    pub connection: u64,
    /// The exact bytes of the head, with the empty line.
    pub head: Vec<u8>,
    /// The method.
    pub method: String,
    /// The request target, as sent.
    pub target: String,
    /// The header fields.
    pub headers: Headers,
    /// The exact bytes of the body, with chunk headers.
    pub raw_body: Vec<u8>,
    /// What the body means.
    pub body: Vec<u8>,
    /// Whether the body has arrived completely.
    pub complete: bool,
}

struct Shared {
    log: watch::Sender<Log>,
    responses: Mutex<BTreeMap<String, Vec<u8>>>,
    released: Semaphore,
}

#[derive(Default)]
struct Log {
    connections: u64,
    requests: Vec<Recorded>,
    closed: BTreeSet<u64>,
}

/// One request being answered.
struct Exchange<'a> {
    shared: &'a Shared,
    index: usize,
    head: Head,
    method: String,
    path: String,
}

/// Whether the connection can carry another request.
#[derive(PartialEq, Eq)]
enum Next {
    Request,
    Close,
}

impl Upstream {
    /// Starts one on a free TCP port.
    pub async fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts one on a given address, e.g. again where another was.
    pub async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        Self::running(format!("http://{address}"), |shared| async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // Small writes must not wait for each other's acknowledgement.
                let _ = stream.set_nodelay(true);
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        })
    }

    /// Starts one on a free TCP port that speaks TLS; its URL names 127.0.0.1.
    pub async fn tls(acceptor: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        Self::running(format!("https://{address}"), |shared| async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, shared).await;
                    }
                });
            }
        })
    }

    /// Starts one on a Unix socket at `path`.
    pub fn unix(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("the path is free");
        Self::running(format!("unix:{}", path.display()), |shared| async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        })
    }

    fn running<F: Future<Output = ()> + Send + 'static>(url: String, accept: impl FnOnce(Arc<Shared>) -> F) -> Self {
        let shared = Arc::new(Shared {
            log: watch::Sender::default(),
            responses: Mutex::default(),
            released: Semaphore::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(Arc::clone(&shared)));
        Self { url, shared, _tasks: tasks }
    }

    /// Returns what belongs into `upstream.url`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Answers requests for `path` with exactly `response`.
    pub fn respond(&self, path: &str, response: &str) {
        let mut responses = self.shared.responses.lock().expect("no holder panics");
        responses.insert(path.to_owned(), response.as_bytes().to_vec());
    }

    /// Lets one waiting `/slow-body` send its rest, now or when it comes to wait.
    pub fn release(&self) {
        self.shared.released.add_permits(1);
    }

    /// Returns every request so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.log.borrow().requests.clone()
    }

    /// Returns how many requests there were so far.
    pub fn count(&self) -> usize {
        self.shared.log.borrow().requests.len()
    }

    /// Returns the requests after the first `count`.
    pub fn requests_after(&self, count: usize) -> Vec<Recorded> {
        self.shared.log.borrow().requests[count..].to_vec()
    }

    /// Returns how many connections were accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.log.borrow().connections
    }

    /// Waits for a request, past or to come, that `wanted` accepts.
    pub async fn wait_for(&self, wanted: impl Fn(&Recorded) -> bool) -> Recorded {
        let mut log = self.shared.log.subscribe();
        let found = |log: &Log| log.requests.iter().find(|request| wanted(request)).cloned();
        let seen = within("a request at the upstream", log.wait_for(|log| found(log).is_some())).await;
        found(&seen.expect("the upstream outlives the wait")).expect("it was there a moment ago")
    }

    /// Waits for a request for `target`, past or to come, whose connection is still open.
    pub async fn wait_for_open(&self, target: &str) -> Recorded {
        let mut log = self.shared.log.subscribe();
        // On the log at hand: whoever asked for it again in here could wait for a writer that waits for us.
        let found = |log: &Log| {
            let wanted = |request: &&Recorded| request.target == target && !log.closed.contains(&request.connection);
            log.requests.iter().find(wanted).cloned()
        };
        let seen = within("an open request at the upstream", log.wait_for(|log| found(log).is_some())).await;
        found(&seen.expect("the upstream outlives the wait")).expect("it was there a moment ago")
    }

    /// Waits until the connection that carried `request` is closed.
    pub async fn closed(&self, request: &Recorded) {
        let mut log = self.shared.log.subscribe();
        let closed = log.wait_for(|log| log.closed.contains(&request.connection));
        within("a connection to the upstream to be closed", closed).await.expect("the upstream outlives the wait");
    }

    /// Returns whether the connection that carried `request` is still open.
    pub fn is_open(&self, request: &Recorded) -> bool {
        !self.shared.log.borrow().closed.contains(&request.connection)
    }
}

impl Recorded {
    /// Returns the value of the first header field called `name`.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.first(name)
    }
}

impl Shared {
    fn request(&self, index: usize, change: impl FnOnce(&mut Recorded)) {
        self.log.send_modify(|log| change(&mut log.requests[index]));
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let mut connection = 0;
    shared.log.send_modify(|log| {
        log.connections += 1;
        connection = log.connections;
    });
    let mut wire = Wire::new(stream);
    while let Some(head) = wire.head().await {
        let exchange = begin(&shared, connection, head);
        if exchange.path == "/ws" {
            exchange.web_socket(wire).await;
            break;
        }
        if exchange.path.ends_with("/upgrade") && exchange.head.headers.first("upgrade").is_some() {
            exchange.tunnel(wire).await;
            break;
        }
        if !matches!(exchange.answer(&mut wire).await, Ok(Next::Request)) {
            break;
        }
    }
    shared.log.send_modify(|log| {
        log.closed.insert(connection);
    });
}

fn begin(shared: &Shared, connection: u64, head: Head) -> Exchange<'_> {
    let mut words = head.start.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let request = Recorded {
        connection,
        head: head.raw.clone(),
        method: method.clone(),
        target,
        headers: head.headers.clone(),
        raw_body: Vec::new(),
        body: Vec::new(),
        complete: head.request_body() == Body::Done,
    };
    let mut index = 0;
    shared.log.send_modify(|log| {
        index = log.requests.len();
        log.requests.push(request);
    });
    Exchange { shared, index, head, method, path }
}

impl Exchange<'_> {
    async fn answer<S: AsyncRead + AsyncWrite + Unpin>(self, wire: &mut Wire<S>) -> Result<Next, Broken> {
        match self.path.as_str() {
            "/hang" => {
                self.read_body(wire, None).await?;
                wire.until_close().await;
                return Ok(Next::Close);
            }
            "/sse" => return self.events(wire).await,
            "/slow-body" => {
                self.read_body(wire, None).await?;
                wire.write(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nfirst-").await?;
                self.shared.released.acquire().await.map_err(|_| Broken)?.forget();
                wire.write(b"second").await?;
            }
            "/upload" => {
                self.read_body(wire, Some(Duration::from_millis(5))).await?;
                self.json(wire, 200).await?;
            }
            path => {
                let canned = self.shared.responses.lock().expect("no holder panics").get(path).cloned();
                let status = path.strip_prefix("/status/").and_then(|status| status.parse().ok()).unwrap_or(200);
                self.read_body(wire, None).await?;
                match canned {
                    Some(response) => wire.write(&response).await?,
                    None => self.json(wire, status).await?,
                }
            }
        }
        let close = self.head.headers.all("connection").iter().any(|value| value.eq_ignore_ascii_case("close"));
        Ok(if close || self.path.starts_with("/closing/") { Next::Close } else { Next::Request })
    }

    async fn read_body<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        wire: &mut Wire<S>,
        pace: Option<Duration>,
    ) -> Result<(), Broken> {
        let mut body = self.head.request_body();
        if self.head.headers.first("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            wire.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        while let Some(piece) = wire.piece(&mut body).await? {
            self.shared.request(self.index, |request| {
                request.raw_body.extend(&piece.raw);
                request.body.extend(&piece.data);
            });
            if let Some(pace) = pace {
                tokio::time::sleep(pace).await;
            }
        }
        self.shared.request(self.index, |request| request.complete = true);
        Ok(())
    }

    async fn json<S: AsyncRead + AsyncWrite + Unpin>(&self, wire: &mut Wire<S>, status: u16) -> Result<(), Broken> {
        let body = {
            let log = self.shared.log.borrow();
            let request = &log.requests[self.index];
            json!({
                "method": request.method,
                "target": request.target,
                "headers": request.headers.0,
                "body": String::from_utf8_lossy(&request.body),
            })
            .to_string()
        };
        let head = format!("HTTP/1.1 {status} Answer\r\ncontent-type: application/json\r\n");
        let response = match (status, self.method.as_str()) {
            (204 | 304, _) => format!("{head}\r\n"),
            (_, "HEAD") => format!("{head}content-length: {}\r\n\r\n", body.len()),
            _ => format!("{head}content-length: {}\r\n\r\n{body}", body.len()),
        };
        wire.write(response.as_bytes()).await
    }

    async fn events<S: AsyncRead + AsyncWrite + Unpin>(&self, wire: &mut Wire<S>) -> Result<Next, Broken> {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        wire.write(head.as_bytes()).await?;
        wire.write(chunk(FIRST_EVENT).as_bytes()).await?;
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for number in 1_u64.. {
            tokio::select! {
                _ = tick.tick() => {}
                _ = wire.until_close() => break,
            }
            wire.write(chunk(&format!("data: {number}\n\n")).as_bytes()).await?;
        }
        Ok(Next::Close)
    }

    async fn tunnel<S: AsyncRead + AsyncWrite + Unpin>(self, mut wire: Wire<S>) {
        let protocol = self.head.headers.first("upgrade").unwrap_or_default();
        let head = format!("HTTP/1.1 101 Switching Protocols\r\nupgrade: {protocol}\r\nconnection: upgrade\r\n\r\n");
        if wire.write(head.as_bytes()).await.is_ok() {
            let taken = wire.until_close().await;
            self.shared.request(self.index, |request| request.body.extend(taken));
        }
    }

    async fn web_socket<S: AsyncRead + AsyncWrite + Unpin>(self, mut wire: Wire<S>) {
        let accept = derive_accept_key(self.head.headers.first("sec-websocket-key").unwrap_or_default().as_bytes());
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
        );
        if wire.write(head.as_bytes()).await.is_err() {
            return;
        }
        let (stream, read) = wire.into_parts();
        let mut socket = WebSocketStream::from_partially_read(stream, read, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if !message.is_text() && !message.is_binary() {
                continue;
            }
            self.shared.request(self.index, |request| request.body.extend(message.clone().into_data()));
            if socket.send(message).await.is_err() {
                break;
            }
        }
    }
}

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}
