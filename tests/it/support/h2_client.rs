//! A client that speaks HTTP/2 in clear with prior knowledge, down to single frames.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::{RecvStream, SendStream, client};
use http::{HeaderMap, Method, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::client::Response;
use super::http1::Headers;
use super::{eventually, within};

/// An open h2c connection, closed on drop.
pub struct H2Client {
    send: client::SendRequest<Bytes>,
    authority: String,
    _connection: JoinSet<()>,
}

/// One call under way.
pub struct H2Call {
    response: Option<client::ResponseFuture>,
    body: Option<RecvStream>,
    send: SendStream<Bytes>,
}

impl H2Client {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        Self::over(stream, &address.to_string()).await
    }

    /// Speaks HTTP/2 over a connection that stands, to the server called `authority`.
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, authority: &str) -> Self {
        let (send, connection) = within("the h2c handshake", client::handshake(stream)).await.expect("it speaks h2c");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // Its errors reach the calls.
            let _ = connection.await;
        });
        Self { send, authority: authority.to_owned(), _connection: tasks }
    }

    /// Waits until the server has said that it takes no more calls, or is gone.
    pub async fn closed(&self) {
        let refused = async || self.send.clone().ready().await.is_err().then_some(());
        eventually("the connection to close", refused).await;
    }

    /// Opens a POST call, to be written and read piece by piece; fields go out in the order given.
    pub async fn open(&self, path: &str, headers: &[(&str, &str)]) -> H2Call {
        let mut ready = within("a free h2c stream", self.send.clone().ready()).await.expect("the connection is open");
        let mut request = Request::post(format!("http://{}{path}", self.authority));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a valid request");
        let (response, send) = ready.send_request(request, false).expect("the connection is open");
        H2Call { response: Some(response), body: None, send }
    }

    /// Sends a request without a body and returns the whole answer, or how the stream was reset.
    pub async fn send(&self, request: Request<()>) -> Result<Response, h2::Error> {
        let mut ready = within("a free h2c stream", self.send.clone().ready()).await?;
        let (response, send) = ready.send_request(request, true)?;
        let (head, mut body) = within("an h2c answer", response).await?.into_parts();
        let mut answer =
            Response { status: head.status.as_u16(), headers: Headers::from(&head.headers), ..Response::default() };
        while let Some(piece) = within("more of an h2c answer", body.data()).await.transpose()? {
            body.flow_control().release_capacity(piece.len())?;
            answer.body.extend(piece);
        }
        drop(send);
        Ok(answer)
    }

    /// Sends a request without a body; an error when its stream was reset instead of answered.
    pub async fn request(&self, method: Method, path: &str, headers: &[(&str, &[u8])]) -> Result<Response, h2::Error> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.authority));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(()).expect("a valid request")).await
    }

    /// Sends `body` in one POST and returns the whole answer.
    pub async fn call(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut call = self.open(path, headers).await;
        call.send(body);
        call.finish();
        let mut response = call.head().await;
        while let Ok(Some(piece)) = call.next().await {
            response.body.extend(piece);
        }
        response.trailers = call.trailers().await.as_ref().map(Headers::from);
        response
    }

    /// Sends any request and returns the whole answer; without a body its head ends the stream.
    pub async fn ask(&self, method: http::Method, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut ready = within("a free h2c stream", self.send.clone().ready()).await.expect("the connection is open");
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.authority));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a valid request");
        let (response, send) = ready.send_request(request, body.is_empty()).expect("the connection is open");
        let mut call = H2Call { response: Some(response), body: None, send };
        if !body.is_empty() {
            call.send(body);
            call.finish();
        }
        let mut response = call.head().await;
        while let Ok(Some(piece)) = call.next().await {
            response.body.extend(piece);
        }
        response
    }
}

impl H2Call {
    /// Sends one piece of the body.
    pub fn send(&mut self, piece: impl AsRef<[u8]>) {
        // A refused call's stream may be closed already; what came of it is in the answer.
        let _ = self.send.send_data(Bytes::copy_from_slice(piece.as_ref()), false);
    }

    /// Ends the body.
    pub fn finish(&mut self) {
        let _ = self.send.send_data(Bytes::new(), true);
    }

    /// Waits for the head of the answer; to be called once, before [`H2Call::next`].
    pub async fn head(&mut self) -> Response {
        self.try_head().await.expect("the stream was not reset")
    }

    /// As [`H2Call::head`]; an error when the stream was reset instead.
    pub async fn try_head(&mut self) -> Result<Response, h2::Error> {
        let response = self.response.take().expect("head is called once");
        let (head, body) = within("an h2c answer", response).await?.into_parts();
        self.body = Some(body);
        Ok(Response { status: head.status.as_u16(), headers: Headers::from(&head.headers), ..Response::default() })
    }

    /// Waits for the next piece of the answer's body; `None` at its end, an error when the stream was reset.
    pub async fn next(&mut self) -> Result<Option<Bytes>, h2::Error> {
        let body = self.body.as_mut().expect("head was called");
        let Some(piece) = within("more of an h2c answer", body.data()).await.transpose()? else { return Ok(None) };
        body.flow_control().release_capacity(piece.len())?;
        Ok(Some(piece))
    }

    /// Waits for the rest of the answer; an error when the stream was reset before its end.
    pub async fn whole(&mut self) -> Result<Response, h2::Error> {
        let whole = async {
            let mut response = self.try_head().await?;
            while let Some(piece) = self.next().await? {
                response.body.extend(piece);
            }
            Ok(response)
        };
        within("the rest of an HTTP/2 answer", whole).await
    }

    /// Waits for the trailers that follow the body.
    pub async fn trailers(&mut self) -> Option<HeaderMap> {
        let body = self.body.as_mut().expect("head was called");
        within("h2c trailers", body.trailers()).await.ok().flatten()
    }
}
