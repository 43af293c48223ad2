//! HTTP/1.1 from the wire, read as leniently as needed to record what a peer really sent.
//!
//! It keeps every byte. It is not a judge: which messages are legal is for the tests to say.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Header fields in the order and spelling of the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

/// The head of a message: everything up to and with the empty line.
#[derive(Clone, Debug)]
pub struct Head {
    /// The exact bytes.
    pub raw: Vec<u8>,
    /// The request line or status line.
    pub start: String,
    /// The header fields.
    pub headers: Headers,
}

/// How much of a body is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    Done,
    /// So many bytes.
    Length(usize),
    /// A chunk header comes next.
    Chunked,
    /// So many bytes of a chunk, then its line break.
    Chunk(usize),
    /// All until the connection is closed.
    UntilClose,
}

/// Some bytes of a body.
#[derive(Clone, Debug, Default)]
pub struct Piece {
    /// As they arrived, with chunk headers.
    pub raw: Vec<u8>,
    /// What they mean.
    pub data: Vec<u8>,
}

/// The connection ended in the middle of a message.
#[derive(Clone, Copy, Debug)]
pub struct Broken;

/// A connection with what was read from it but not yet used.
pub struct Wire<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl Headers {
    /// Returns the value of the first field called `name`, whatever its case.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Returns the values of all fields called `name`, whatever their case.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.0.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }
}

impl From<&http::HeaderMap> for Headers {
    fn from(map: &http::HeaderMap) -> Self {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Self(map.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect())
    }
}

impl Head {
    fn parse(raw: Vec<u8>) -> Self {
        let text = String::from_utf8_lossy(&raw).into_owned();
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_owned(), value.trim().to_owned())
        };
        let headers = Headers(lines.filter(|line| !line.is_empty()).map(field).collect());
        Self { raw, start, headers }
    }

    /// Returns how the body of a request with this head is framed.
    pub fn request_body(&self) -> Body {
        self.declared_body().unwrap_or(Body::Done)
    }

    /// Returns how the body of a response with this head is framed; `head` tells that the request was HEAD.
    pub fn response_body(&self, head: bool) -> Body {
        match self.status() {
            _ if head => Body::Done,
            100..=199 | 204 | 304 => Body::Done,
            _ => self.declared_body().unwrap_or(Body::UntilClose),
        }
    }

    /// Returns the status of a response head, 0 if it has none.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    fn declared_body(&self) -> Option<Body> {
        if self.headers.first("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return Some(Body::Chunked);
        }
        self.headers.first("content-length")?.parse().ok().map(Body::Length)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Wraps a connection from which nothing was read yet.
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Returns the connection and what was read from it but not used.
    pub fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.buffer)
    }

    /// Writes exactly `bytes`.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.stream.write_all(bytes).await.map_err(|_| Broken)?;
        self.stream.flush().await.map_err(|_| Broken)
    }

    /// Reads a message head; `None` when the connection ends before one is complete.
    pub async fn head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                return Some(Head::parse(self.take(end + 4)));
            }
            self.fill().await.ok()?;
        }
    }

    /// Reads on in a body: some bytes, or `None` when it is complete.
    pub async fn piece(&mut self, body: &mut Body) -> Result<Option<Piece>, Broken> {
        match *body {
            Body::Done | Body::Length(0) => {
                *body = Body::Done;
                Ok(None)
            }
            Body::Length(left) => {
                let data = self.some(left).await?;
                *body = Body::Length(left - data.len());
                Ok(Some(Piece { raw: data.clone(), data }))
            }
            Body::UntilClose => {
                let Ok(data) = self.some(usize::MAX).await else { return Ok(None) };
                Ok(Some(Piece { raw: data.clone(), data }))
            }
            Body::Chunked => {
                let raw = self.line().await?;
                let size = std::str::from_utf8(&raw).ok().and_then(|line| line.trim().split(';').next());
                let size = size.and_then(|size| usize::from_str_radix(size, 16).ok()).ok_or(Broken)?;
                if size > 0 {
                    *body = Body::Chunk(size);
                    return Ok(Some(Piece { raw, data: Vec::new() }));
                }
                *body = Body::Done;
                Ok(Some(Piece { raw: self.trailers(raw).await?, data: Vec::new() }))
            }
            Body::Chunk(0) => {
                *body = Body::Chunked;
                Ok(Some(Piece { raw: self.line().await?, data: Vec::new() }))
            }
            Body::Chunk(left) => {
                let data = self.some(left).await?;
                *body = Body::Chunk(left - data.len());
                Ok(Some(Piece { raw: data.clone(), data }))
            }
        }
    }

    /// Reads a whole body and returns its data, broken off where the connection was.
    pub async fn whole(&mut self, mut body: Body) -> Vec<u8> {
        let mut data = Vec::new();
        while let Ok(Some(piece)) = self.piece(&mut body).await {
            data.extend(piece.data);
        }
        data
    }

    /// Waits until the peer closes, and returns what it sent before.
    pub async fn until_close(&mut self) -> Vec<u8> {
        while self.fill().await.is_ok() {}
        std::mem::take(&mut self.buffer)
    }

    async fn trailers(&mut self, mut raw: Vec<u8>) -> Result<Vec<u8>, Broken> {
        loop {
            let line = self.line().await?;
            raw.extend(&line);
            if line == b"\r\n" {
                return Ok(raw);
            }
        }
    }

    async fn line(&mut self) -> Result<Vec<u8>, Broken> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                return Ok(self.take(end + 2));
            }
            self.fill().await?;
        }
    }

    async fn some(&mut self, most: usize) -> Result<Vec<u8>, Broken> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        Ok(self.take(most.min(self.buffer.len())))
    }

    async fn fill(&mut self) -> Result<(), Broken> {
        self.buffer.reserve(16 * 1024);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(length) if length > 0 => Ok(()),
            _ => Err(Broken),
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        self.buffer.drain(..length).collect()
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
