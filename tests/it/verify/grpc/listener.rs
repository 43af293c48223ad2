//! The port that Envoy asks at: who may, what is written down, and how it begins and ends.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};

use super::{Asked, Envoy, denied, end, question, status_of};
use crate::support::client::{RawConnection, sign_in_guest};
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::h2_client::H2Client;
use crate::support::ports::free_port;
use crate::support::redis::Redis;
use crate::support::stage::USER;
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;

fn port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

fn config(address: &str) -> String {
    format!("trusted_proxies: ['127.0.0.1/32']\nforward_auth: {{ grpc: '{address}' }}")
}

#[tokio::test]
async fn only_trusted_proxies_are_answered() {
    let asked = Asked::start("").await;
    let socket = TcpSocket::new_v4().expect("there are sockets");
    socket.bind("127.0.0.2:0".parse().expect("an address")).expect("all of 127/8 is this machine");
    let mut stranger = socket.connect(asked.port).await.expect("it listens");
    let mut said = Vec::new();
    // Closed without a word from either side; a reset is a close, too.
    let _ = stranger.read_to_end(&mut said).await;
    assert!(said.is_empty(), "{said:?}");
    for path in ["/open/a", "/app"] {
        let token = format!("Bearer {}", asked.stage.user);
        let question = question("GET", path, &[("authorization", &token), ("x-forwarded-for", "127.0.0.1")]);
        assert_eq!(status_of(&asked.envoy.check(&question).await), 200);
    }
    let metrics = asked.stage.doorward.admin_get("/metrics").await.text();
    let series = "doorward_auth_decisions_total{outcome=\"deny\",principal=\"none\",reason=\"untrusted_peer\"} 1\n";
    assert!(metrics.contains(series), "{metrics}");
    // The port answers this one question and nothing else.
    let other = asked.envoy.0.ask(http::Method::GET, "/app", &[], "").await;
    assert!(other.header("x-user-id").is_none() && other.body.is_empty(), "{other:?}");
    let http = asked.stage.doorward.client().get("/_doorward/verify/open/a").send().await;
    assert_eq!(http.status, 404, "over HTTP it is another switch");
}

#[tokio::test]
async fn whoever_may_open_the_unix_socket_is_answered() {
    let directory = TempDir::new("ext-authz");
    let path = directory.join("authz.sock");
    let address = format!("unix:{}", path.display());
    let config = format!("forward_auth: {{ grpc: '{address}' }}\nroutes: [{{ path: '/open', auth: none }}]");
    let doorward = Doorward::builder().config(&config).start().await;
    let stream = UnixStream::connect(&path).await.expect("it listens");
    let envoy = Envoy(H2Client::over(stream, "doorward").await);
    assert_eq!(envoy.ask("GET", "/open", &[]).await.0, 200);
    assert_eq!(envoy.ask("GET", "/app", &[]).await.0, 401);
    drop(doorward);
    // What a killed process left behind is no obstacle.
    let again = Doorward::builder().config(&config).start().await;
    let stream = UnixStream::connect(&path).await.expect("it listens");
    assert_eq!(Envoy(H2Client::over(stream, "doorward").await).ask("GET", "/open", &[]).await.0, 200);
    drop(again);
}

#[tokio::test]
async fn a_decision_is_counted_and_logged_about_the_original_request() {
    let Asked { stage, envoy, .. } = Asked::start("").await;
    let token = format!("Bearer {}", stage.user);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let sent = [("authorization", token.as_str()), ("traceparent", trace), ("x-forwarded-for", "198.51.100.1")];
    assert_eq!(envoy.ask("PATCH", "/orders/7?token=hidden", &sent).await.0, 200);
    let line = eventually("a line in the access log", async || {
        let logs = stage.doorward.logs();
        let mut lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["log.logger"] == "access" && line["url.path"] == "/orders/7")
    })
    .await;
    for (name, value) in [
        ("handler", "verify"),
        ("http.request.method", "PATCH"),
        ("route", "route-7"),
        ("client.ip", "192.0.2.9"),
        ("trace.id", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("user.id", USER),
        ("auth.outcome", "allow"),
    ] {
        assert_eq!(line[name], value, "{name}: {line}");
    }
    assert!(!stage.doorward.logs().contains("hidden"));
    let metrics = stage.doorward.admin_get("/metrics").await.text();
    for series in [
        "http_requests_total{code=\"200\",handler=\"verify\",route=\"route-7\"} 1",
        "http_requests_in_flight{handler=\"verify\"} 0",
        "http_requests_in_flight{handler=\"proxy\"} 0",
        "auth_decisions_total{outcome=\"allow\",principal=\"user\",reason=\"ok\"} 1",
    ] {
        assert!(metrics.contains(&format!("doorward_{series}\n")), "{series}: {metrics}");
    }
}

#[tokio::test]
async fn an_outage_is_no_refusal_and_what_ended_is_refused() {
    let (redis, address) = (Redis::start().await, port());
    let asked = Doorward::builder().store(&redis.url()).config(&config(&address.to_string())).start().await;
    let other = Doorward::builder().store(&redis.url()).start().await;
    let envoy = Envoy(H2Client::connect(address).await);
    let (ended, cold) = (sign_in_guest(&other, "a").await, sign_in_guest(&other, "b").await);
    let check = async |token: &str| envoy.ask("GET", "/app", &[("authorization", &format!("Bearer {token}"))]).await;
    assert_eq!(check(&ended).await.0, 200);
    assert_eq!(other.client().delete("/auth/session").bearer(&ended).send().await.status, 200);
    eventually("the revocation to be heard", async || (check(&ended).await.0 == 401).then_some(())).await;
    redis.pause();
    let (status, answer) = check(&cold).await;
    redis.resume();
    assert_eq!((status, denied(&answer).body.as_str()), (503, r#"{"detail":"Session store unavailable"}"#));
    let retry = super::fields(&denied(&answer).headers).into_iter().find(|(name, _)| name == "retry-after");
    assert_eq!(retry.expect("it says when").1, "3");
    drop(asked);
}

#[tokio::test]
async fn many_questions_share_a_connection() {
    let Asked { stage, envoy, .. } = Asked::start("").await;
    let token = format!("Bearer {}", stage.user);
    let good = prost::Message::encode_to_vec(&question("GET", "/app", &[("authorization", &token)]));
    let bad = prost::Message::encode_to_vec(&question("GET", "/app", &[]));
    let mut calls = Vec::new();
    for number in 0..300 {
        calls.push(envoy.begin(if number % 2 == 0 { &good } else { &bad }).await);
    }
    for (number, call) in calls.into_iter().enumerate() {
        let answer = end(call).await.expect("an answer");
        assert_eq!(status_of(&answer), if number % 2 == 0 { 200 } else { 401 });
    }
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way_and_closes_the_connection() {
    let (redis, address) = (Redis::start().await, port());
    let mut doorward = Doorward::builder().store(&redis.url()).config(&config(&address.to_string())).start().await;
    let token = format!("Bearer {}", sign_in_guest(&doorward, "a").await);
    let cold = Doorward::builder().store(&redis.url()).start().await;
    let cold = format!("Bearer {}", sign_in_guest(&cold, "b").await);
    let envoy = Envoy(H2Client::connect(address).await);
    assert_eq!(envoy.ask("GET", "/app", &[("authorization", &token)]).await.0, 200);
    redis.pause();
    let question = question("GET", "/app", &[("authorization", &cold)]);
    let call = envoy.begin(&prost::Message::encode_to_vec(&question)).await;
    doorward.signal("TERM");
    let answer = end(call).await.expect("an answer");
    redis.resume();
    assert_eq!(status_of(&answer), 503, "the store is away");
    assert_eq!(doorward.wait_exit().await.code(), Some(0));
    assert!(TcpSocket::new_v4().expect("a socket").connect(address).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_drain_takes_leave_of_envoy_while_other_exchanges_go_on() {
    let (upstream, address) = (Upstream::start().await, port());
    let open = format!("{}\nroutes: [{{ path: '/**', auth: none }}]", config(&address.to_string()));
    let mut doorward = Doorward::builder().upstream(upstream.url()).config(&open).start().await;
    let envoy = Envoy(H2Client::connect(address).await);
    assert_eq!(envoy.ask("GET", "/app", &[]).await.0, 200);
    let mut slow = RawConnection::open(doorward.proxy_addr()).await;
    slow.write("GET /slow-body HTTP/1.1\r\nhost: app\r\n\r\n").await;
    upstream.wait_for(|request| request.target == "/slow-body").await;
    doorward.signal("TERM");
    envoy.0.closed().await;
    assert_eq!(doorward.admin_get("/livez").await.status, 200, "the process still runs");
    let refused = async || TcpStream::connect(address).await.is_err().then_some(());
    eventually("the port to close", refused).await;
    upstream.release();
    assert_eq!(slow.response().await.expect("an answer").text(), "first-second");
    assert_eq!(doorward.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn an_address_that_is_taken_is_a_failure_to_start() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("it has one").to_string();
    let mut doorward = Doorward::builder().config(&config(&address)).spawn();
    assert_ne!(doorward.wait_exit().await.code(), Some(0));
    let expected = format!("forward_auth.grpc: cannot listen on {address}");
    assert!(doorward.logs().contains(&expected), "{}", doorward.logs());
}
