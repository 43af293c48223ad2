//! Rate limits: contracts §3 rule 8.

use serde_json::json;

use super::answers::{assert_refused, token_of};
use crate::support::client::Response;
use crate::support::doorward::Doorward;
use crate::support::idp::{Idp, KID, Key};

fn assert_limited(response: &Response) {
    assert_refused(response, 429, "Too many requests");
    let seconds: u64 = response.header("retry-after").and_then(|value| value.parse().ok()).expect("seconds");
    // Two a minute: the next one is free after half of one.
    assert!((1..=30).contains(&seconds), "{seconds}");
}

async fn guest_of(doorward: &Doorward, forwarded: &[(&str, &str)]) -> Response {
    let request = doorward.client().post("/auth/anonymous").json(&json!({"device_id": "x"}));
    forwarded.iter().fold(request, |request, (name, value)| request.header(name, value)).send().await
}

#[tokio::test]
async fn guests_are_limited_by_the_address_they_really_have() {
    let doorward = Doorward::builder().config("limits: { anonymous_per_minute: 2 }").start().await;
    // What cannot start a session costs nothing.
    for _ in 0..3 {
        assert_refused(&doorward.client().post("/auth/anonymous").send().await, 422, "device_id required");
    }
    token_of(&guest_of(&doorward, &[]).await);
    token_of(&guest_of(&doorward, &[("x-forwarded-for", "192.0.2.1")]).await);
    assert_limited(&guest_of(&doorward, &[]).await);
    for spoofed in [
        ("x-forwarded-for", "192.0.2.2"),
        ("X_Forwarded_For", "192.0.2.3"),
        ("forwarded", "for=192.0.2.4"),
        ("x-real-ip", "192.0.2.5"),
        ("cf-connecting-ip", "192.0.2.6"),
    ] {
        assert_limited(&guest_of(&doorward, &[spoofed]).await);
    }
    let metrics = doorward.admin_get("/metrics").await.text();
    assert!(metrics.contains("doorward_rate_limited_total{limit=\"anonymous\"} 6\n"), "{metrics}");
}

#[tokio::test]
async fn guests_behind_a_trusted_proxy_are_limited_by_the_address_it_tells() {
    let builder = Doorward::builder().config("limits: { anonymous_per_minute: 2 }");
    let doorward = builder.config("trusted_proxies: ['127.0.0.0/8', '10.0.0.0/8']").start().await;
    let from = async |chain: &str| guest_of(&doorward, &[("x-forwarded-for", chain)]).await;
    for group in [
        ["192.0.2.1", "192.0.2.1", "192.0.2.1"],
        // Only the nearest address that is no proxy counts: what stands before it is hearsay.
        ["6.6.6.6, 192.0.2.2", "7.7.7.7, 192.0.2.2", "192.0.2.1, 192.0.2.2, 10.1.1.1"],
        // An IPv6 subscriber has a whole /64.
        ["2001:db8:1:2::1", "2001:db8:1:2:ffff::2", "2001:db8:1:2::3"],
        ["2001:db8:1:3::1", "2001:db8:1:3::1", "2001:db8:1:3::2"],
        // An IPv4 address written as IPv6 is that address.
        ["192.0.2.3", "::ffff:192.0.2.3", "::ffff:192.0.2.3"],
    ] {
        let [first, second, third] = group;
        token_of(&from(first).await);
        token_of(&from(second).await);
        assert_limited(&from(third).await);
    }
    token_of(&from("192.0.2.4").await);
}

#[tokio::test]
async fn exchanges_are_limited_by_the_proven_subject() {
    let (idp, partner) = (Idp::start().await, Idp::start().await);
    let builder = Doorward::builder().idp(&idp).config("limits: { exchange_per_minute: 2 }");
    let issuers =
        format!("issuers: {{ partner: {{ issuer: '{}', jwks_url: '{}' }} }}", partner.issuer(), partner.jwks_url());
    let doorward = builder.config(&issuers).start().await;
    let exchange = async |jwt: &str| doorward.client().post("/auth/session").bearer(jwt).send().await;
    // Whoever proves nothing cannot use up another's allowance.
    let stranger = Key::generate(KID);
    for _ in 0..3 {
        let forged = exchange(&stranger.sign(&idp.claims(&json!({"sub": "user_alice"})))).await;
        assert_refused(&forged, 401, "Invalid token: signature verification failed");
    }
    token_of(&exchange(&idp.mint_for("user_alice")).await);
    token_of(&exchange(&idp.mint_for("user_alice")).await);
    assert_limited(&exchange(&idp.mint_for("user_alice")).await);
    token_of(&exchange(&idp.mint_for("user_bob")).await);
    token_of(&exchange(&partner.mint_for("user_alice")).await);
    let metrics = doorward.admin_get("/metrics").await.text();
    assert!(metrics.contains("doorward_rate_limited_total{limit=\"exchange\"} 1\n"), "{metrics}");
}
