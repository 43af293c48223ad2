//! `DELETE /auth/session` and its aliases: contracts §5.4.

use super::answers::{Caller, PATIENT, assert_answer, assert_guard_refuses, assert_refused, guest, identity_of};
use crate::support::client::sign_in;
use crate::support::doorward::Doorward;
use crate::support::idp::Idp;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;

pub(super) const LOGOUTS: [(&str, &str); 3] =
    [("DELETE", "/auth/session"), ("POST", "/auth/revoke"), ("POST", "/auth/logout")];

const REVOKED: &str = "Invalid token: session revoked";

#[tokio::test]
async fn every_way_out_ends_one_session_and_no_other() {
    let (upstream, idp, redis) = (Upstream::start().await, Idp::start().await, Redis::start().await);
    let builder = || Doorward::builder().upstream(upstream.url()).idp(&idp);
    let (embedded, shared) = tokio::join!(builder().start(), builder().store(&redis.url()).config(PATIENT).start());
    for doorward in [&embedded, &shared] {
        let stays = sign_in(doorward, &idp, "user_alice").await;
        for caller in Caller::both(doorward).await {
            for (method, path) in LOGOUTS {
                for token in [sign_in(doorward, &idp, "user_alice").await, guest(doorward, "x").await] {
                    identity_of(doorward, &upstream, &token).await;
                    let bearer = [("authorization", &*format!("Bearer {token}"))];
                    let ended = caller.send(method, path, &bearer, "").await;
                    assert_answer(&ended, 200, r#"{"revoked":true}"#);
                    assert_guard_refuses(doorward, &token, REVOKED).await;
                    for (method, path) in LOGOUTS {
                        assert_refused(&caller.send(method, path, &bearer, "").await, 401, REVOKED);
                    }
                }
            }
        }
        identity_of(doorward, &upstream, &stays).await;
    }
}

#[tokio::test]
async fn without_a_usable_token_nothing_ends() {
    let (upstream, idp) = (Upstream::start().await, Idp::start().await);
    let doorward = Doorward::builder().upstream(upstream.url()).idp(&idp).start().await;
    let token = sign_in(&doorward, &idp, "user_alice").await;
    let (bearer, cookie) = (format!("Bearer {token}"), format!("session={token}"));
    let jwt = format!("Bearer {}", idp.mint_for("user_alice"));
    let rows: [(&[(&str, &str)], &str); 7] = [
        (&[], "Missing Bearer token"),
        // A cookie comes along with what another site makes a browser send.
        (&[("cookie", &cookie)], "Missing Bearer token"),
        (&[("authorization", "Basic YTpi"), ("x-session-token", &token)], "Missing Bearer token"),
        (&[("authorization", &bearer), ("authorization", &bearer)], "Invalid token: malformed"),
        (&[("authorization", "Bearer nonsense")], "Invalid token: malformed"),
        (&[("authorization", &jwt)], "Invalid token: expected a session token"),
        (&[("authorization", "Bearer a b")], "Invalid token: malformed"),
    ];
    for caller in Caller::both(&doorward).await {
        for (method, path) in LOGOUTS {
            for (headers, text) in rows {
                assert_refused(&caller.send(method, path, headers, "").await, 401, text);
            }
        }
    }
    identity_of(&doorward, &upstream, &token).await;
}
