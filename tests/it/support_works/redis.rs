//! Redis, and the proxy in front of it.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::Value;

use crate::support::chaos::Chaos;
use crate::support::redis::Redis;
use crate::support::{eventually, ports, within};

/// Asks through `port` on a connection of its own; the redis crate gives up after half a second.
async fn ping(redis: &Redis, port: u16) -> Option<String> {
    let client = redis::Client::open(redis.url_through(port)).ok()?;
    let mut connection = client.get_multiplexed_async_connection().await.ok()?;
    redis::cmd("PING").query_async(&mut connection).await.ok()
}

#[test]
fn free_ports_differ() {
    let ports: BTreeSet<u16> = (0..100).map(|_| ports::free_port()).collect();
    assert_eq!(ports.len(), 100);
}

#[tokio::test]
async fn commands_reach_the_server() {
    let redis = Redis::start().await;
    redis.command::<()>(&["SET", "colour", "blue"]).await;
    assert_eq!(redis.command::<String>(&["GET", "colour"]).await, "blue");
    assert!(redis.try_command::<Value>(&["NONSENSE"]).await.is_err());
}

#[tokio::test]
async fn calls_are_counted_without_the_counting() {
    let redis = Redis::start().await;
    let before = redis.calls().await;
    assert_eq!(redis.calls_since(&before).await.total(), 0);
    for _ in 0..3 {
        redis.command::<Option<String>>(&["GET", "colour"]).await;
    }
    let since = redis.calls_since(&before).await;
    assert_eq!((since.of("get"), since.of("set"), since.total()), (3, 0, 3));
}

#[tokio::test]
async fn a_password_is_required_and_in_the_url() {
    let redis = Redis::options().password("open-sesame").start().await;
    assert!(redis.url().contains("open-sesame"));
    assert_eq!(ping(&redis, redis.port()).await.as_deref(), Some("PONG"));
    let anonymous = redis::Client::open(format!("redis://127.0.0.1:{}/", redis.port())).expect("a valid URL");
    let mut connection = anonymous.get_multiplexed_async_connection().await.expect("connecting needs no password");
    let refused = redis::cmd("PING").query_async::<String>(&mut connection).await.expect_err("commands do");
    assert_eq!(refused.code(), Some("NOAUTH"));
}

#[tokio::test]
async fn directives_are_applied() {
    let redis = Redis::options().directive(&["maxmemory", "3mb"]).start().await;
    let answer: Vec<String> = redis.command(&["CONFIG", "GET", "maxmemory"]).await;
    assert_eq!(answer, ["maxmemory", "3145728"]);
}

#[tokio::test]
async fn a_paused_server_answers_again_when_resumed() {
    let redis = Redis::start().await;
    redis.pause();
    assert_eq!(ping(&redis, redis.port()).await, None);
    redis.resume();
    assert_eq!(redis.command::<String>(&["PING"]).await, "PONG");
}

#[tokio::test]
async fn a_restart_forgets_unless_append_only() {
    let mut forgetful = Redis::start().await;
    let mut durable = Redis::options().append_only().start().await;
    for redis in [&mut forgetful, &mut durable] {
        redis.command::<()>(&["SET", "colour", "blue"]).await;
        let url = redis.url();
        redis.kill();
        assert!(redis.try_command::<Value>(&["PING"]).await.is_err());
        redis.restart().await;
        assert_eq!(redis.url(), url);
    }
    assert_eq!(forgetful.command::<Option<String>>(&["GET", "colour"]).await, None);
    assert_eq!(durable.command::<Option<String>>(&["GET", "colour"]).await.as_deref(), Some("blue"));
}

#[tokio::test]
async fn a_replica_follows_a_primary_with_a_password() {
    let primary = Redis::options().password("open-sesame").start().await;
    let replica = Redis::options().replica_of(&primary).start().await;
    primary.command::<()>(&["SET", "colour", "blue"]).await;
    let replicated = async || replica.try_command::<Option<String>>(&["GET", "colour"]).await.ok().flatten();
    assert_eq!(eventually("the replica to follow", replicated).await, "blue");
}

#[tokio::test]
async fn a_cut_closes_connections_and_refuses_new_ones() {
    let redis = Redis::start().await;
    let chaos = Chaos::to(redis.port()).await;
    let client = redis::Client::open(redis.url_through(chaos.port())).expect("a valid URL");
    let mut held = client.get_multiplexed_async_connection().await.expect("the proxy is open");
    chaos.cut();
    let lost = redis::cmd("PING").query_async::<String>(&mut held).await.expect_err("the connection is cut");
    assert!(!lost.is_timeout(), "closed, not silent: {lost}");
    assert_eq!(ping(&redis, chaos.port()).await, None);
    chaos.restore();
    assert_eq!(ping(&redis, chaos.port()).await.as_deref(), Some("PONG"));
}

#[tokio::test]
async fn silence_keeps_connections_open() {
    let redis = Redis::start().await;
    let chaos = Chaos::to(redis.port()).await;
    let client = redis::Client::open(redis.url_through(chaos.port())).expect("a valid URL");
    let mut held = client.get_multiplexed_async_connection().await.expect("the proxy is open");
    chaos.silence();
    let passed = chaos.passed();
    let unanswered = redis::cmd("PING").query_async::<String>(&mut held).await.expect_err("nothing passes");
    assert!(unanswered.is_timeout(), "silent, not closed: {unanswered}");
    assert_eq!(chaos.passed(), passed);
    chaos.restore();
    assert_eq!(redis::cmd("PING").query_async::<String>(&mut held).await.ok().as_deref(), Some("PONG"));
}

#[tokio::test]
async fn a_slow_proxy_still_delivers() {
    let redis = Redis::start().await;
    let chaos = Chaos::to(redis.port()).await;
    chaos.slow(Duration::from_millis(30));
    let answer = within("a slow answer", ping(&redis, chaos.port())).await;
    assert_eq!(answer.as_deref(), Some("PONG"));
    assert!(chaos.passed() > 0);
}
