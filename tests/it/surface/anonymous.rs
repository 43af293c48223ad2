//! `POST /auth/anonymous`: contracts §5.2.

use futures_util::future::join_all;
use serde_json::json;

use super::answers::{Caller, PATIENT, assert_refused, distinct, guest, identity_of, token_of};
use crate::support::doorward::Doorward;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;

/// Header fields and body of a request, status and text of its answer.
type Row<'a> = (&'a [(&'a str, &'a str)], &'a str, u16, &'a str);

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_device_id_has_one_to_two_hundred_characters_not_bytes() {
    let doorward = Doorward::builder().start().await;
    for caller in Caller::both(&doorward).await {
        let ask = async |device: &str| {
            let body = json!({ "device_id": device }).to_string();
            caller.send("POST", "/auth/anonymous", &[JSON], &body).await
        };
        for good in ["x", &"x".repeat(200), &"é".repeat(200), &"😀".repeat(200), "8A6E0804-2BD0-4672-B79D-D97027F9071A"]
        {
            token_of(&ask(good).await);
        }
        for empty in ["", " ", "\t\n", "\u{2003}"] {
            assert_refused(&ask(empty).await, 422, "device_id required");
        }
        for long in ["x".repeat(201), "é".repeat(201), "😀".repeat(201)] {
            assert_refused(&ask(&long).await, 422, "device_id must be 1-200 characters");
        }
    }
}

#[tokio::test]
async fn a_body_that_names_no_device_is_answered_with_what_is_wrong() {
    let doorward = Doorward::builder().start().await;
    let large = format!(r#"{{"device_id":"{}"}}"#, "x".repeat(64 * 1024));
    let widest = format!(r#"{{"device_id":"x","more":"{}"}}"#, "x".repeat(64 * 1024 - 27));
    assert_eq!(widest.len(), 64 * 1024);
    let deep = format!(r#"{{"device_id":"x","more":{}{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
    let rows: [Row<'_>; 22] = [
        (&[], "", 422, "device_id required"),
        (&[JSON], "", 422, "device_id required"),
        (&[("content-type", "text/plain")], "", 422, "device_id required"),
        (&[JSON], "{}", 422, "device_id required"),
        (&[JSON], r#"{"device_id":null}"#, 422, "device_id required"),
        (&[JSON], r#"{"deviceId":"x"}"#, 422, "device_id required"),
        (&[JSON], r#"{"device_id":7}"#, 422, "device_id must be a string"),
        (&[JSON], r#"{"device_id":["x"]}"#, 422, "device_id must be a string"),
        (&[JSON], r#"{"device_id":{"x":1}}"#, 422, "device_id must be a string"),
        (&[JSON], r#"{"device_id":true}"#, 422, "device_id must be a string"),
        (&[JSON], "[]", 422, "Invalid JSON body"),
        (&[JSON], r#""x""#, 422, "Invalid JSON body"),
        (&[JSON], r#"{"device_id":"x"}{}"#, 422, "Invalid JSON body"),
        (&[JSON], r#"{"device_id":"x""#, 422, "Invalid JSON body"),
        (&[JSON], r#"{"device_id":"a","device_id":"b"}"#, 422, "Invalid JSON body"),
        (&[JSON], r#"{"device_id":"\ud800"}"#, 422, "Invalid JSON body"),
        (&[JSON], &deep, 422, "Invalid JSON body"),
        (&[], r#"{"device_id":"x"}"#, 415, "Unsupported media type"),
        (&[("content-type", "text/plain")], r#"{"device_id":"x"}"#, 415, "Unsupported media type"),
        (&[("content-type", "application/jsonp")], r#"{"device_id":"x"}"#, 415, "Unsupported media type"),
        (&[JSON, ("content-type", "text/plain")], r#"{"device_id":"x"}"#, 415, "Unsupported media type"),
        (&[JSON], &large, 413, "Request body too large"),
    ];
    for caller in Caller::both(&doorward).await {
        for (headers, body, status, text) in rows {
            assert_refused(&caller.send("POST", "/auth/anonymous", headers, body).await, status, text);
        }
        for (content_type, body) in [
            ("application/json", widest.as_str()),
            ("application/json; charset=utf-8", r#"{"device_id":"x"}"#),
            ("Application/JSON", r#"{"device_id":"x","clerk_user_id":{"a":[1]}}"#),
        ] {
            token_of(&caller.send("POST", "/auth/anonymous", &[("content-type", content_type)], body).await);
        }
    }
}

#[tokio::test]
async fn an_authorization_header_is_not_looked_at() {
    let doorward = Doorward::builder().start().await;
    for caller in Caller::both(&doorward).await {
        for authorization in ["Bearer dw_garbage", "Basic eA==", "Bearer a.b.c", "nonsense"] {
            let headers = [JSON, ("authorization", authorization), ("authorization", "Bearer second")];
            token_of(&caller.send("POST", "/auth/anonymous", &headers, r#"{"device_id":"x"}"#).await);
        }
    }
}

#[tokio::test]
async fn a_device_is_one_guest_however_many_ask_at_once() {
    let upstream = Upstream::start().await;
    let doorward = Doorward::builder().upstream(upstream.url()).start().await;
    let tokens = join_all((0..16).map(|_| guest(&doorward, "one device"))).await;
    assert_eq!(distinct(&tokens), 16, "each call has a token of its own");
    let seen = join_all(tokens.iter().map(|token| identity_of(&doorward, &upstream, token))).await;
    assert_eq!(distinct(&seen), 1, "{seen:?}");
    let (user, tenant) = &seen[0];
    let uuid = user.strip_prefix("anon:").expect("a guest's name");
    assert_eq!(uuid::Uuid::parse_str(uuid).map(|parsed| parsed.to_string()).as_deref(), Ok(uuid));
    assert_eq!(tenant, "default");
    // Not trimmed, not folded: another text is another device.
    for other in ["One device", "one device ", "two devices"] {
        let token = guest(&doorward, other).await;
        assert_ne!(identity_of(&doorward, &upstream, &token).await.0, *user, "{other:?}");
    }
}

#[tokio::test]
async fn a_device_is_the_same_guest_at_every_replica() {
    let (upstream, redis) = (Upstream::start().await, Redis::start().await);
    let replica = || Doorward::builder().store(&redis.url()).config(PATIENT).upstream(upstream.url()).start();
    let (first, second) = tokio::join!(replica(), replica());
    let tokens = join_all((0..16).map(|n| guest(if n % 2 == 0 { &first } else { &second }, "shared"))).await;
    // Each token is shown to the replica that did not make it.
    let seen = join_all(
        tokens
            .iter()
            .enumerate()
            .map(|(n, token)| identity_of(if n % 2 == 0 { &second } else { &first }, &upstream, token)),
    );
    assert_eq!(distinct(seen.await), 1);
}
