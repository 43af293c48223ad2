//! An application that speaks HTTP/2 in clear (h2c), as gRPC servers do.
//!
//! It echoes each piece of a request's body as it arrives, and ends with the trailer
//! `grpc-status: 0`: a unary call, a client stream and a bidirectional stream alike. Under `/hang` it
//! takes the body and never answers, under `/stuck` it does not even take more than the first window.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use h2::{RecvStream, server};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::http1::Headers;
use super::within;

/// A running h2c upstream; it and its connections end on drop.
pub struct H2Upstream {
    url: String,
    log: Arc<watch::Sender<Vec<H2Recorded>>>,
    _tasks: JoinSet<()>,
}

/// One call, as far as it has arrived.
#[derive(Clone, Debug)]
pub struct H2Recorded {
    /// The method.
    pub method: String,
    /// The path and query.
    pub path: String,
    /// The header fields.
    pub headers: Headers,
    /// The body so far.
    pub body: Vec<u8>,
    /// Whether the stream is over, one way or the other.
    pub ended: bool,
    /// Whether it was reset, or its connection lost, before its end.
    pub reset: bool,
}

struct Call {
    log: Arc<watch::Sender<Vec<H2Recorded>>>,
    index: usize,
}

impl H2Upstream {
    /// Starts one on a free TCP port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let log = Arc::new(watch::Sender::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&log);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { url, log, _tasks: tasks }
    }

    /// Starts one on a free TCP port that speaks TLS; its URL names 127.0.0.1.
    pub async fn tls(acceptor: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let url = format!("https://{}", listener.local_addr().expect("a bound socket has an address"));
        let log = Arc::new(watch::Sender::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&log);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, shared).await;
                    }
                });
            }
        });
        Self { url, log, _tasks: tasks }
    }

    /// Returns what belongs into `upstream.url`, with `upstream.protocol: http2`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits for a call, past or to come, that `wanted` accepts.
    pub async fn wait_for(&self, wanted: impl Fn(&H2Recorded) -> bool) -> H2Recorded {
        let mut log = self.log.subscribe();
        let found = |calls: &Vec<H2Recorded>| calls.iter().find(|call| wanted(call)).cloned();
        let seen = within("a call at the h2c upstream", log.wait_for(|calls| found(calls).is_some())).await;
        found(&seen.expect("the upstream outlives the wait")).expect("it was there a moment ago")
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, log: Arc<watch::Sender<Vec<H2Recorded>>>) {
    let Ok(mut connection) = server::handshake(stream).await else { return };
    let mut calls = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let mut call = Call { log: Arc::clone(&log), index: 0 };
        call.index = call.begin(&request);
        calls.spawn(async move {
            let takes = match request.uri().path() {
                "/hang" => Some(true),
                "/stuck" => Some(false),
                _ => None,
            };
            let body = request.into_body();
            let whole = match takes {
                Some(takes) => call.hang(body, respond, takes).await.is_ok(),
                None => call.echo(body, respond).await.is_ok(),
            };
            call.change(|call| (call.ended, call.reset) = (true, !whole));
        });
    }
    // The streams of a lost connection end with an error, which their calls record.
    while calls.join_next().await.is_some() {}
}

impl Call {
    fn begin(&self, request: &Request<RecvStream>) -> usize {
        let recorded = H2Recorded {
            method: request.method().to_string(),
            path: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
            headers: Headers::from(request.headers()),
            body: Vec::new(),
            ended: false,
            reset: false,
        };
        let mut index = 0;
        self.log.send_modify(|calls| {
            index = calls.len();
            calls.push(recorded);
        });
        index
    }

    fn change(&self, change: impl FnOnce(&mut H2Recorded)) {
        self.log.send_modify(|calls| change(&mut calls[self.index]));
    }

    async fn hang(
        &self,
        mut body: RecvStream,
        mut respond: server::SendResponse<Bytes>,
        takes: bool,
    ) -> Result<(), h2::Error> {
        while let Some(piece) = body.data().await {
            let piece = piece?;
            if takes {
                body.flow_control().release_capacity(piece.len())?;
            }
            self.change(|call| call.body.extend(&piece));
        }
        Err(poll_fn(|context| respond.poll_reset(context)).await?.into())
    }

    async fn echo(&self, mut body: RecvStream, mut respond: server::SendResponse<Bytes>) -> Result<(), h2::Error> {
        let head = Response::builder().header("content-type", "application/grpc").body(()).expect("a valid head");
        let mut answer = respond.send_response(head, false)?;
        while let Some(piece) = body.data().await {
            let piece = piece?;
            body.flow_control().release_capacity(piece.len())?;
            self.change(|call| call.body.extend(&piece));
            // Without a reservation h2 buffers what the peer's window does not admit: fine for tests.
            answer.send_data(piece, false)?;
        }
        let trailers =
            HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
        answer.send_trailers(trailers)
    }
}
