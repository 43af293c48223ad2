//! `POST /auth/session`: contracts §5.1. Which JWTs are believed is in `identity`.

use serde_json::json;

use super::answers::{
    Caller, PATIENT, assert_guard_refuses, assert_refused, guest, identity_of, known_key, now, stray_token, token_of,
};
use crate::support::client::sign_in;
use crate::support::doorward::Doorward;
use crate::support::idp::Idp;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use doorward::model::TokenKind;
use std::time::Duration;

#[tokio::test]
async fn a_jwt_becomes_a_token_that_opens_the_door() {
    let (upstream, idp) = (Upstream::start().await, Idp::start().await);
    let doorward = Doorward::builder().upstream(upstream.url()).idp(&idp).start().await;
    for caller in Caller::both(&doorward).await {
        let bearer = format!("bEaReR   {}", idp.mint_for("user_alice"));
        let first = token_of(&caller.send("POST", "/auth/session", &[("authorization", &bearer)], "").await);
        let second = token_of(&caller.send("POST", "/auth/session", &[("authorization", &bearer)], "").await);
        assert_ne!(first, second, "every call mints a new token");
        for token in [&first, &second] {
            let who = identity_of(&doorward, &upstream, token).await;
            assert_eq!(who, ("user_alice".to_owned(), "default".to_owned()));
        }
    }
}

#[tokio::test]
async fn only_a_jwt_is_exchanged() {
    let idp = Idp::start().await;
    let doorward = Doorward::builder().idp(&idp).config(&known_key()).start().await;
    let jwt = format!("Bearer {}", idp.mint_for("user_alice"));
    let own = format!("Bearer {}", sign_in(&doorward, &idp, "user_alice").await);
    let guest = format!("Bearer {}", guest(&doorward, "x").await);
    let long = format!("Bearer {}", "x".repeat(8193));
    let missing = "Missing Bearer token";
    let expected = "Invalid token: expected a Clerk JWT";
    let malformed = "Invalid token: malformed";
    let rows: [(&[&str], &str); 17] = [
        (&[], missing),
        (&["Basic YTpi"], missing),
        (&["Bearer"], missing),
        (&["Bearer "], missing),
        (&["Bearerx"], missing),
        (&["Token abc"], missing),
        (&[&own], expected),
        (&[&guest], expected),
        (&["Bearer opaque"], expected),
        (&["Bearer a.b"], expected),
        (&["Bearer a.b.c.d.e"], expected),
        (&["Bearer two words"], malformed),
        (&["Bearer a,b"], malformed),
        (&["Bearer ü"], malformed),
        (&[&long], malformed),
        (&[&jwt, &jwt], malformed),
        (&[&jwt, "Basic YTpi"], malformed),
    ];
    for caller in Caller::both(&doorward).await {
        for (authorization, text) in rows {
            let headers: Vec<_> = authorization.iter().map(|value| ("authorization", *value)).collect();
            assert_refused(&caller.send("POST", "/auth/session", &headers, "").await, 401, text);
        }
        // A token's only place is the header.
        let path = format!("/auth/session?token={0}&access_token={0}", &jwt[7..]);
        let cookie = format!("session={0}; __session={0}", &jwt[7..]);
        let form = format!("access_token={}", &jwt[7..]);
        assert_refused(&caller.send("POST", &path, &[("cookie", &cookie)], &form).await, 401, missing);
    }
}

#[tokio::test]
async fn a_token_without_a_session_is_told_apart_by_what_it_says_itself() {
    let doorward = Doorward::builder().config(&known_key()).start().await;
    let soon = now().plus(Duration::from_mins(10));
    let past = doorward::time::Timestamp(now().0 - 10_000);
    let stray = stray_token(TokenKind::Access, soon);
    let mut forged = stray.clone();
    forged.replace_range(20..21, if &stray[20..21] == "A" { "B" } else { "A" });
    for (token, text) in [
        (stray_token(TokenKind::Access, past).as_str(), "Token expired"),
        (&stray, "Invalid token: session revoked"),
        (&forged, "Invalid token: unknown session"),
        (&stray_token(TokenKind::Refresh, soon), "Invalid token: unknown session"),
        ("dw_garbage", "Invalid token: malformed"),
        ("garbage", "Invalid token: malformed"),
        (&stray.replacen("dw_", "", 1), "Invalid token: malformed"),
        ("a.b.c", "Invalid token: expected a session token"),
    ] {
        assert_guard_refuses(&doorward, token, text).await;
        for (method, path) in [("DELETE", "/auth/session"), ("POST", "/auth/revoke"), ("POST", "/auth/logout")] {
            let request = doorward.client().request(method.parse().expect("a method"), path);
            assert_refused(&request.bearer(token).send().await, 401, text);
        }
    }
}

#[tokio::test]
async fn one_session_too_many_ends_the_oldest_on_every_replica() {
    let (idp, redis, upstream) = (Idp::start().await, Redis::start().await, Upstream::start().await);
    let replica = || {
        let builder = Doorward::builder().idp(&idp).upstream(upstream.url());
        builder.config("sessions: { max_per_principal: 2 }")
    };
    let (embedded, first, second) = tokio::join!(
        replica().start(),
        replica().store(&redis.url()).config(PATIENT).start(),
        replica().store(&redis.url()).config(PATIENT).start()
    );
    for (mints, judges) in [(&embedded, vec![&embedded]), (&first, vec![&first, &second])] {
        let oldest = sign_in(mints, &idp, "user_alice").await;
        let older = sign_in(mints, &idp, "user_alice").await;
        let other = sign_in(mints, &idp, "user_bob").await;
        for judge in &judges {
            // Into every cache, from where the third sign-in has to take it.
            identity_of(judge, &upstream, &oldest).await;
        }
        let newest = sign_in(mints, &idp, "user_alice").await;
        for judge in judges {
            if std::ptr::eq(judge, mints) {
                assert_guard_refuses(judge, &oldest, "Invalid token: session revoked").await;
            } else {
                crate::support::eventually("the other replica to hear of it", async || {
                    (judge.client().get("/").bearer(&oldest).send().await.status == 401).then_some(())
                })
                .await;
            }
            assert_refused(
                &judge.client().delete("/auth/session").bearer(&oldest).send().await,
                401,
                "Invalid token: session revoked",
            );
            for live in [&older, &newest, &other] {
                identity_of(judge, &upstream, live).await;
            }
        }
        let metrics = mints.admin_get("/metrics").await.text();
        assert!(metrics.contains("doorward_sessions_revoked_total{reason=\"evicted\"} 1\n"), "{metrics}");
    }
}

#[tokio::test]
async fn starts_and_ends_are_in_the_audit_log_with_ids_only() {
    let idp = Idp::start().await;
    let builder = Doorward::builder().idp(&idp).config("clerk: { allow_impersonation: true }");
    let mut doorward = builder.config("telemetry: { log_level: error }").start().await;
    let jwt = idp.mint(&json!({"sub": "user_alice", "o": {"id": "org_1"}, "act": {"sub": "user_support"}}));
    let token = token_of(&doorward.client().post("/auth/session").bearer(&jwt).send().await);
    let ended = doorward.client().delete("/auth/session").bearer(&token).send().await;
    assert_eq!(ended.status, 200);
    guest(&doorward, "a device").await;
    // What fails started nothing and ended nothing; that it failed is told in lines of their own.
    doorward.client().post("/auth/session").bearer("a.b.c").send().await;
    doorward.client().delete("/auth/session").bearer(&token).send().await;
    doorward.signal("TERM");
    doorward.wait_exit().await;

    let logs = doorward.logs();
    let lines = logs.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let other = [json!("started"), json!("login-denied")];
    let ours = |line: &serde_json::Value| line["log.logger"] == "audit" && !other.contains(&line["event.action"]);
    let lines: Vec<_> = lines.filter(ours).collect();
    let actions: Vec<_> = lines.iter().map(|line| line["event.action"].as_str().unwrap_or_default()).collect();
    assert_eq!(actions, ["session-started", "session-ended", "session-started"]);
    for (line, (user, kind, tenant)) in lines.iter().zip([
        ("user_alice", "user", "org_1"),
        ("user_alice", "user", "org_1"),
        ("anon:", "anonymous", "default"),
    ]) {
        let keys: Vec<_> = line.as_object().expect("an object").keys().map(String::as_str).collect();
        let mut expected = vec!["@timestamp", "actor.id", "client.ip", "event.action", "log.level", "log.logger"];
        expected.extend(["organization.id", "session.id", "user.id", "user.kind"]);
        expected.retain(|key| kind == "user" || *key != "actor.id");
        assert_eq!(keys, expected, "{line}");
        assert!(line["user.id"].as_str().is_some_and(|id| id.starts_with(user)), "{line}");
        assert_eq!((&line["user.kind"], &line["organization.id"]), (&json!(kind), &json!(tenant)), "{line}");
        assert_eq!(line["client.ip"], "127.0.0.1");
        assert!(line["session.id"].as_str().is_some_and(|id| uuid::Uuid::parse_str(id).is_ok()), "{line}");
    }
    assert_eq!(lines[0]["session.id"], lines[1]["session.id"]);
    assert_eq!(lines[0]["actor.id"], "user_support");
}
