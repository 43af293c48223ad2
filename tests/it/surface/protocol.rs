//! Paths and methods of the surface: 404, 405, HEAD, OPTIONS; what is framed how on the wire.

use http::Method;

use super::answers::{Caller, assert_answer, assert_refused, detail};
use crate::support::client::{RawConnection, Response};
use crate::support::doorward::Doorward;
use crate::support::upstream::Upstream;

const ENDPOINTS: [(&str, &str); 4] =
    [("/auth/session", "POST,DELETE"), ("/auth/anonymous", "POST"), ("/auth/revoke", "POST"), ("/auth/logout", "POST")];

fn no_route(method: &str, path: &str) -> String {
    format!(r#"{{"statusCode":404,"message":"Cannot {method} {path}","error":"Not Found","detail":"Not Found"}}"#)
}

fn common_headers(response: &Response) {
    for (name, value) in [("cache-control", "no-store"), ("x-content-type-options", "nosniff")] {
        assert_eq!(response.headers.all(name), [value], "{name}");
    }
    assert!(response.header("x-request-id").is_some_and(|id| id.len() == 16));
}

#[tokio::test]
async fn an_unknown_path_is_answered_in_the_shape_of_both_surfaces_and_never_forwarded() {
    let upstream = Upstream::start().await;
    let builder = Doorward::builder().upstream(upstream.url());
    let doorward = builder.config("routes: [{ path: '/**', auth: none }]").start().await;
    for caller in Caller::both(&doorward).await {
        for path in ["/auth", "/auth/", "/auth/x", "/auth/session/", "/auth/Session", "/auth/session/x", "/auth/%22"] {
            for method in ["GET", "POST", "DELETE", "PUT", "OPTIONS"] {
                let response = caller.send(method, &format!("{path}?token=secret"), &[], "").await;
                assert_answer(&response, 404, &no_route(method, path));
            }
        }
        // Two readings of one path: refused before anybody looks for a route.
        for path in ["/auth//session", "/auth/./session", "/auth/session%2Fx", "/x/../auth/session", "/auth%2fsession"]
        {
            assert_refused(&caller.send("POST", path, &[], "").await, 400, "Bad Request");
        }
        // One reading: these are that path.
        let response = caller.send("POST", "/auth/sess%69on", &[], "").await;
        assert_refused(&response, 401, "Missing Bearer token");
    }
    assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());
    // The surface is a path segment, not a prefix of characters.
    let response = doorward.client().get("/authors").send().await;
    assert_eq!((response.status, upstream.requests().len()), (200, 1));
}

#[tokio::test]
async fn another_method_is_told_what_is_allowed() {
    let doorward = Doorward::builder().start().await;
    for caller in Caller::both(&doorward).await {
        for (path, allowed) in ENDPOINTS {
            for method in ["GET", "PUT", "PATCH", "DELETE", "TRACE", "BREW"] {
                if allowed.split(',').any(|allowed| allowed == method) {
                    continue;
                }
                let response = caller.send(method, path, &[], "").await;
                assert_refused(&response, 405, "Method Not Allowed");
                assert_eq!(response.headers.all("allow"), [allowed], "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn options_needs_no_token_and_has_no_body() {
    let doorward = Doorward::builder().start().await;
    for caller in Caller::both(&doorward).await {
        for (path, allowed) in ENDPOINTS {
            let response = caller.send("OPTIONS", path, &[("origin", "https://evil.example")], "").await;
            assert_eq!((response.status, response.text().as_str()), (204, ""), "{path}");
            assert_eq!(response.headers.all("allow"), [allowed], "{path}");
            common_headers(&response);
            // RFC 9110 §8.6: a 204 has no Content-Length. No origin is allowed by default.
            for absent in ["content-length", "content-type", "transfer-encoding", "access-control-allow-origin"] {
                assert_eq!(response.header(absent), None, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn head_is_get_without_the_body_but_with_its_length() {
    let doorward = Doorward::builder().start().await;
    for caller in Caller::both(&doorward).await {
        for (path, _) in ENDPOINTS.into_iter().chain([("/auth/x", ""), ("/auth", "")]) {
            let get = caller.send("GET", path, &[], "").await;
            let head = caller.send("HEAD", path, &[], "").await;
            assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
            common_headers(&head);
            for same in ["content-type", "content-length", "allow"] {
                assert_eq!(head.headers.all(same), get.headers.all(same), "{same} {path}");
            }
            assert_eq!(head.header("content-length"), Some(&*get.body.len().to_string()), "{path}");
        }
    }
}

#[tokio::test]
async fn answers_leave_a_connection_usable() {
    let doorward = Doorward::builder().start().await;
    let mut connection = RawConnection::open(doorward.proxy_addr()).await;
    for _ in 0..2 {
        for method in [Method::HEAD, Method::GET, Method::OPTIONS, Method::POST, Method::DELETE] {
            connection.write(format!("{method} /auth/session HTTP/1.1\r\nhost: a\r\n\r\n")).await;
            let answer =
                if method == Method::HEAD { connection.head_response().await } else { connection.response().await };
            let answer = answer.unwrap_or_else(|| panic!("{method} ended the connection"));
            let status = match method {
                Method::OPTIONS => 204,
                Method::POST | Method::DELETE => 401,
                _ => 405,
            };
            assert_eq!(answer.status, status, "{method}");
            assert_ne!(answer.header("connection"), Some("close"), "{method}");
        }
    }
    connection.write("POST /auth/session HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let last = String::from_utf8_lossy(&connection.closed().await).into_owned();
    assert!(last.ends_with(&detail("Missing Bearer token")), "{last}");
}

#[tokio::test]
async fn an_http_1_0_caller_gets_a_whole_answer() {
    let doorward = Doorward::builder().start().await;
    let mut connection = RawConnection::open(doorward.proxy_addr()).await;
    connection.write("POST /auth/session HTTP/1.0\r\n\r\n").await;
    let answer = String::from_utf8_lossy(&connection.closed().await).to_ascii_lowercase();
    assert!(answer.contains(" 401 unauthorized\r\n"), "{answer}");
    assert!(answer.contains("\r\ncontent-length: 33\r\n"), "{answer}");
    assert!(!answer.contains("transfer-encoding"), "{answer}");
    assert!(answer.ends_with(&detail("Missing Bearer token").to_ascii_lowercase()), "{answer}");
}
