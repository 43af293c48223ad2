//! The client against servers of a few lines each.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::*;
use crate::config::tests::TestDirectory;
use crate::telemetry::with_causes;

const PATIENCE: Duration = Duration::from_secs(20);

fn settings() -> ClientSettings {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    ClientSettings { deadline: Some(PATIENCE), ..ClientSettings::default() }
}

/// Reads one request head, answers `answer`, and returns the head.
async fn serve_once(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, answer: &str) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a request comes"));
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(head).unwrap()
}

async fn listening() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[test]
fn a_file_without_authorities_makes_no_client() {
    let client = |ca, url| Client::to_url(url, ca, &settings());
    let missing = client(Some(Path::new("/nonexistent/ca.pem")), "https://localhost");
    assert!(matches!(missing, Err(ClientError::UnreadableCa(_))), "{missing:?}");
    let text = client(Some(Path::new("/dev/null")), "https://localhost");
    assert!(matches!(text, Err(ClientError::NoCertificate)), "{text:?}");
    for url in ["http://localhost", "https://localhost"] {
        assert!(client(None, url).is_ok(), "{url}");
    }
}

#[test]
fn only_web_addresses_without_credentials_make_a_client() {
    for url in ["", "localhost", "file:///etc/passwd", "unix:/run/app.sock", "http://a@b", "https://a:b@c/", "http://"]
    {
        let client = Client::to_url(url, None, &settings());
        assert!(matches!(client, Err(ClientError::Url)), "{url}: {client:?}");
    }
}

#[test]
fn a_path_stays_on_its_host() {
    let client = Client::to_url("http://app:3000", None, &settings()).unwrap();
    for (path, url) in [
        ("/profile", "http://app:3000/profile"),
        ("/profile?of=me", "http://app:3000/profile?of=me"),
        ("//elsewhere/x", "http://app:3000//elsewhere/x"),
        ("/@elsewhere", "http://app:3000/@elsewhere"),
    ] {
        assert_eq!(client.at(path).unwrap().url.as_str(), url);
    }
    for path in ["", "profile", "@elsewhere/", ".elsewhere/", "http://elsewhere/", "0/x", "?a"] {
        assert_eq!(client.at(path).err(), Some(InvalidPath), "{path}");
    }
}

#[test]
fn a_url_without_a_path_gets_the_default_one() {
    for (url, expected) in [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("http://collector:4318/?key=a", "http://collector:4318/v1/traces?key=a"),
        ("http://collector:4318/otlp", "http://collector:4318/otlp"),
    ] {
        let client = Client::to_url(url, None, &settings()).unwrap().with_default_path("/v1/traces");
        assert_eq!(client.url.as_str(), expected);
    }
}

#[test]
fn the_upstreams_url_has_the_name_of_its_certificate() {
    let tls = |server_name| Some(UpstreamTls { ca: None, server_name });
    for (host, tls, url) in [
        ("app", None, "http://app:3000"),
        ("::1", None, "http://[::1]:3000"),
        ("app", tls(None), "https://app:3000"),
        ("127.0.0.1", tls(Some("app.internal")), "https://app.internal:3000"),
    ] {
        assert_eq!(UpstreamAddress::Tcp { host, port: 3000, tls }.url(), url);
    }
}

#[tokio::test]
async fn an_application_on_a_unix_socket_is_asked() {
    let directory = TestDirectory::new();
    let socket = directory.path().join("app.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let client = Client::to_upstream(&UpstreamAddress::Unix(&socket), &settings()).unwrap().at("/profile").unwrap();
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    let serving = async { serve_once(listener.accept().await.unwrap().0, answer).await };
    let (head, reply) = tokio::join!(serving, client.send(Method::GET, HeaderMap::new(), None));
    assert!(head.starts_with("GET /profile HTTP/1.1\r\n"), "{head}");
    assert_eq!(reply.unwrap().body(2).await.unwrap(), b"{}");
}

#[tokio::test]
async fn a_body_is_read_up_to_its_bound_and_a_redirect_is_an_answer() {
    let (listener, port) = listening().await;
    let client = Client::to_url(&format!("http://127.0.0.1:{port}/"), None, &settings()).unwrap();
    for (bytes_max, fits) in [(5, true), (4, false)] {
        let answer = "HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 5\r\n\r\nhello";
        let serving = async { serve_once(listener.accept().await.unwrap().0, answer).await };
        let (_, reply) = tokio::join!(serving, client.send(Method::POST, HeaderMap::new(), Some(Vec::new())));
        let reply = reply.unwrap();
        assert_eq!(reply.status(), StatusCode::FOUND);
        assert_eq!(reply.headers()["location"], "/elsewhere");
        match reply.body(bytes_max).await {
            Ok(body) => assert!(fits && body == b"hello"),
            Err(error) => assert!(!fits && matches!(error, OutgoingError::TooLarge(4)), "{error}"),
        }
    }
}

#[tokio::test]
async fn failures_are_told_apart_and_show_no_url() {
    let (listener, port) = listening().await;
    let url = format!("http://127.0.0.1:{port}/secret-path?key=secret-key");
    let told = |error: &OutgoingError| {
        let text = format!("{} {error:?}", with_causes(error));
        assert!(!text.contains("secret"), "{text}");
    };
    let client = Client::to_url(&url, None, &settings()).unwrap();
    let serving = async { serve_once(listener.accept().await.unwrap().0, "").await };
    let (_, broken) = tokio::join!(serving, client.send(Method::GET, HeaderMap::new(), None));
    let broken = broken.err().expect("nothing was answered");
    assert!(matches!(broken, OutgoingError::Broken(_)), "{broken:?}");
    told(&broken);

    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort";
    let serving = async { serve_once(listener.accept().await.unwrap().0, answer).await };
    let (_, reply) = tokio::join!(serving, client.send(Method::GET, HeaderMap::new(), None));
    let cut = reply.unwrap().body(100).await.expect_err("the body is cut off");
    assert!(matches!(cut, OutgoingError::Broken(_)), "{cut:?}");
    told(&cut);

    // The kernel accepts and no answer comes.
    let hurried = ClientSettings { deadline: Some(Duration::from_millis(50)), ..settings() };
    let client = Client::to_url(&url, None, &hurried).unwrap();
    let late = client.send(Method::GET, HeaderMap::new(), None).await.err().expect("nothing was answered");
    assert!(matches!(late, OutgoingError::TimedOut(_)), "{late:?}");
    told(&late);

    drop(listener);
    let client = Client::to_url(&url, None, &settings()).unwrap();
    let closed = client.send(Method::GET, HeaderMap::new(), None).await.err().expect("the port is closed");
    assert!(matches!(closed, OutgoingError::Unreachable(_)), "{closed:?}");
    told(&closed);
}
