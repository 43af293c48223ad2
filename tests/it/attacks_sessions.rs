//! Sessions, cookies and the cache: what peers let through, as tests against the running gateway.
//!
//! Each test is named after the advisories it repeats. Other surfaces' rows are in their own files.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use doorward::model::{TokenKey, TokenKeys, TokenKind};
use doorward::time::{Clock, SystemClock, Timestamp};
use std::time::Duration;

use crate::support::client::{RawConnection, sign_in_guest};
use crate::support::idp::Idp;
use crate::support::stage::{Stage, USER};
use crate::support::tokens::stray;

/// A key that the test and the gateway share, so that the test can mint what no endpoint hands out.
const SECRET: &str = "a-key-for-tests-of-at-least-32-bytes";

fn mint(secret: &str, key: u8, kind: TokenKind, expires_at: Timestamp) -> String {
    let key = TokenKey::new(key, secret.as_bytes()).expect("the secret is long enough");
    let keys = TokenKeys::new("dw_".to_owned(), key, Vec::new());
    stray(&keys, kind, expires_at)
}

fn in_an_hour() -> Timestamp {
    SystemClock::new().now().plus(Duration::from_hours(1))
}

/// Signs `subject` in with a role and returns the token.
async fn sign_in_as(stage: &Stage, subject: &str, role: &str) -> String {
    let jwt = stage.idp.mint(&serde_json::json!({"sub": subject, "o": {"id": "org_1", "rol": role}}));
    let response = stage.doorward.client().post("/auth/session").bearer(&jwt).send().await;
    response.json()["token"].as_str().expect("the answer has a token").to_owned()
}

#[tokio::test]
async fn ghsa_4mq7_cve_2021_32701_a_cached_session_is_judged_anew_by_every_route() {
    let stage = Stage::start("").await;
    let admin = sign_in_as(&stage, "user_admin", "admin").await;
    let member = sign_in_as(&stage, "user_member", "member").await;
    let owner = sign_in_as(&stage, "user_owner", "owner").await;
    for round in 0..5 {
        for (token, who, users, admins) in [
            (&admin, "user_admin", 200, 200),
            (&owner, "user_owner", 200, 200),
            (&member, "user_member", 200, 403),
            (&stage.user, USER, 200, 403),
            (&stage.guest, "anon:", 403, 403),
        ] {
            let field = [format!("Authorization: Bearer {token}")];
            for (path, expected) in [("/app", 200), ("/admins/a", admins), ("/users/a", users), ("/optional/a", 200)] {
                let asked = stage.request(&format!("GET {path}"), &field).await;
                if expected == 200 {
                    assert!(asked.forwarded().header("x-user-id").is_some_and(|id| id.starts_with(who)), "{asked:?}");
                } else {
                    asked.refused(403, "Insufficient permissions");
                }
                assert_eq!(asked.status(), expected, "round {round}, {who}, {path}");
            }
        }
    }
    let metrics = stage.doorward.admin_get("/metrics").await.text();
    let hits = metrics.lines().find(|line| line.contains("session_cache_requests") && line.contains("\"hit\""));
    let count = hits.and_then(|line| line.rsplit(' ').next()).and_then(|count| count.parse::<f64>().ok());
    assert!(count.is_some_and(|count| count >= 80.0), "almost all of it was judged from the cache: {hits:?}");
}

#[tokio::test]
async fn cve_2026_25748_no_mutation_of_a_token_passes_for_one() {
    let stage = Stage::start("").await;
    let mut connection = RawConnection::open(stage.doorward.proxy_addr()).await;
    let token = stage.user.as_bytes();
    let mut mutants: Vec<Vec<u8>> = (0..token.len()).map(|length| token[..length].to_vec()).collect();
    for at in 0..token.len() {
        for byte in [b'A', b'B', b'_', b'-', b'=', b'+', b'/', b'.', b'~'] {
            let mut mutant = token.to_vec();
            mutant[at] = byte;
            mutants.push(mutant);
        }
        let mut swapped = token.to_vec();
        swapped.swap(at, (at + 1) % token.len());
        mutants.push(swapped);
    }
    mutants.extend([b"A".as_slice(), b"=", b"==", b".x.y", b"AAAA"].map(|tail| [token, tail].concat()));
    mutants.push(stage.user.to_uppercase().into_bytes());
    mutants.push(stage.user.replacen("dw_", "dw_rt_", 1).into_bytes());
    mutants.retain(|mutant| mutant != token);
    let before = stage.upstream.count();
    for mutant in &mutants {
        let mutant = String::from_utf8_lossy(mutant).into_owned();
        for (path, field) in [
            ("/app", format!("Authorization: Bearer {mutant}")),
            ("/optional/a", format!("Cookie: session={mutant}")),
            ("/optional/a", format!("Authorization: Bearer {mutant}")),
        ] {
            connection.write(stage.head(&format!("GET {path}"), &[field])).await;
            let response = connection.response().await.expect("the connection stays open");
            // Nothing after the scheme, or an empty cookie, is no credential at all.
            let nothing = mutant.is_empty() && path == "/optional/a";
            assert_eq!(response.status, if nothing { 200 } else { 401 }, "{path} {mutant}: {}", response.text());
        }
    }
    let forwarded = stage.upstream.requests_after(before);
    assert!(forwarded.len() == 2 && forwarded.iter().all(|seen| seen.header("x-user-id").is_none()), "{forwarded:?}");
}

#[tokio::test]
async fn cve_2023_35941_a_byte_moved_across_fields_is_a_forgery() {
    let stage = Stage::start("").await;
    let raw = URL_SAFE_NO_PAD.decode(stage.user.strip_prefix("dw_").expect("the prefix")).expect("base64url");
    let guest = URL_SAFE_NO_PAD.decode(stage.guest.strip_prefix("dw_").expect("the prefix")).expect("base64url");
    let rotated = |from: usize, to: usize| {
        let mut bytes = raw.clone();
        bytes[from..to].rotate_left(1);
        bytes
    };
    let mut forged = vec![rotated(1, 42), rotated(2, 18), rotated(18, 42), rotated(26, 54), rotated(0, 54)];
    // The head of one token with the MAC of another, and a later expiry.
    forged.push([&raw[..42], &guest[42..]].concat());
    forged.push([&guest[..18], &raw[18..]].concat());
    forged.push([&raw[..18], &[0xFF; 4], &raw[22..]].concat());
    forged.retain(|bytes| *bytes != raw);
    for bytes in forged {
        let field = format!("Authorization: Bearer dw_{}", URL_SAFE_NO_PAD.encode(&bytes));
        let asked = stage.request("GET /app", &[field]).await;
        let malformed = bytes[0] != raw[0];
        let reason = if malformed { "malformed" } else { "unknown session" };
        asked.refused(401, &format!("Invalid token: {reason}"));
    }
}

#[tokio::test]
async fn cve_2024_47616_a_token_of_another_kind_or_key_is_refused() {
    let config = format!("sessions: {{ token: {{ keys: [{{ id: 1, secret: '{SECRET}' }}] }} }}");
    let stage = Stage::start(&config).await;
    let past = Timestamp(0).plus(Duration::from_secs(1_700_000_000));
    let jwt = stage.idp.mint_for(USER);
    let other = "another-key-of-at-least-32-bytes-long";
    for (token, detail) in [
        (mint(SECRET, 1, TokenKind::Refresh, in_an_hour()), "Invalid token: unknown session"),
        (mint(other, 1, TokenKind::Access, in_an_hour()), "Invalid token: unknown session"),
        (mint(SECRET, 2, TokenKind::Access, in_an_hour()), "Invalid token: unknown session"),
        (mint(SECRET, 1, TokenKind::Access, in_an_hour()), "Invalid token: session revoked"),
        (mint(SECRET, 1, TokenKind::Access, past), "Token expired"),
        (jwt, "Invalid token: expected a session token"),
    ] {
        for fields in [format!("Authorization: Bearer {token}"), format!("Cookie: session={token}")] {
            for path in ["/app", "/optional/a", "/users/a", "/admins/a"] {
                stage.request(&format!("GET {path}"), &[&fields]).await.refused(401, detail);
            }
        }
    }
    // And a session token is no Clerk JWT.
    let fields = [stage.user_field(), "Content-Length: 0".to_owned()];
    stage.request("POST /auth/session", &fields).await.refused(401, "Invalid token: expected a Clerk JWT");
}

#[tokio::test]
async fn cve_2026_34454_after_every_sign_out_the_old_token_is_refused() {
    let stage = Stage::start("").await;
    for start in ["DELETE /auth/session", "POST /auth/revoke", "POST /auth/logout"] {
        let token = sign_in_guest(&stage.doorward, start).await;
        let field = [format!("Authorization: Bearer {token}"), "Content-Length: 0".to_owned()];
        stage.request("GET /app", &field).await.forwarded();
        assert_eq!(stage.request(start, &field).await.text(), r#"{"revoked":true}"#);
        for path in ["/app", "/optional/a", "/kept/a"] {
            stage.request(&format!("GET {path}"), &field).await.refused(401, "Invalid token: session revoked");
            let cookie = [format!("Cookie: session={token}")];
            stage.request(&format!("GET {path}"), &cookie).await.refused(401, "Invalid token: session revoked");
        }
        stage.request(start, &field).await.refused(401, "Invalid token: session revoked");
    }
    stage.request("GET /app", &[stage.guest_field()]).await.forwarded();
}

#[tokio::test]
async fn mod_auth_openidc_2026_08_07_a_planted_cookie_or_token_is_never_adopted() {
    let stage = Stage::start("").await;
    let planted = sign_in_guest(&stage.doorward, "the-attacker's-device").await;
    let jwt = stage.idp.mint_for("user_victim");
    for cookie in [planted.as_str(), "dw_chosen-by-the-attacker", "x"] {
        let request = stage.doorward.client().post("/auth/session").bearer(&jwt);
        let response = request.cookie("session", cookie).send().await;
        let token = response.json()["token"].as_str().expect("a token").to_owned();
        assert!(token != planted && token != cookie);
        assert_eq!(response.header("set-cookie"), None);
        let asked = stage.request("GET /app", &[format!("Authorization: Bearer {planted}")]).await;
        assert!(asked.forwarded().header("x-user-id").is_some_and(|id| id.starts_with("anon:")), "it stays a guest's");
    }
}

#[tokio::test]
async fn portswigger_2025_only_the_exact_cookie_name_and_value_count() {
    let stage = Stage::start("cookie: { name: __Host-session }").await;
    let user = &stage.user;
    let ask = async |cookie: &[u8]| stage.request("GET /app", &[[b"Cookie: ", cookie].concat()]).await;
    assert_eq!(ask(format!("__Host-session={user}").as_bytes()).await.forwarded().header("x-user-id"), Some(USER));
    let good = format!("a=b; __Host-session={user} ; $Version=1");
    assert_eq!(ask(good.as_bytes()).await.forwarded().headers.all("cookie"), ["a=b; $Version=1"]);
    for prefix in ["\u{a0}", "\u{2000}", "\u{2009}", "\u{3000}", "\u{feff}", "\u{85}"] {
        ask(format!("{prefix}__Host-session={user}").as_bytes()).await.refused(401, "Invalid token: malformed");
        ask(format!("a=b; {prefix}__Host-session={user}").as_bytes()).await.refused(401, "Invalid token: malformed");
        let tossed = format!("__Host-session={user}; {prefix}__Host-session={}", stage.guest);
        ask(tossed.as_bytes()).await.refused(401, "Invalid token: malformed");
    }
    for quoted in [
        format!("__Host-session=\"{user}\""),
        format!("$Version=1; __Host-session=\"{user}\"; $Path=/"),
        format!("__Host-session={user}, a=b"),
        format!("__Host-session={user} x"),
        format!("__Host-session= {user}"),
        format!("__Host-session==\"{user}\""),
        format!("__Host-session=\"a=b; __Host-session={user}"),
        format!("__Host-session={user}; __Host-session={user}"),
    ] {
        ask(quoted.as_bytes()).await.refused(401, "Invalid token: malformed");
    }
    for other in [
        format!("__host-session={user}"),
        format!("__HOST-SESSION={user}"),
        format!("session={user}"),
        format!("x__Host-session={user}"),
        format!("\"__Host-session\"={user}"),
        format!("__Host-session ={user}"),
        format!("__Host-session;={user}"),
        format!("a=\"; __Host-session\"={user}"),
        format!("$Version=1, __Host-session={user}"),
        "__Host-session".to_owned(),
    ] {
        ask(other.as_bytes()).await.refused(401, "Missing Bearer token");
    }
    for control in [&b"\x0b"[..], b"\x0c", b"\x1c", b"\0"] {
        let asked = ask(&[control, format!("__Host-session={user}").as_bytes()].concat()).await;
        assert!([400, 401].contains(&asked.status()) && asked.seen.is_empty(), "{control:?}: {asked:?}");
    }
}

#[tokio::test]
async fn cve_2024_24814_cve_2023_28625_no_amount_or_shape_of_cookies_opens_or_breaks_anything() {
    let stage = Stage::start("").await;
    let crumbs = |count: usize| (0..count).map(|number| format!("session_{number}=v")).collect::<Vec<_>>();
    for cookie in ["session=", ";;;", ";", "=", "==", "", "session", "; session=", "=session", "session=;", ";=;=;"] {
        let field = format!("Cookie: {cookie}");
        stage.request("GET /app", &[&field]).await.refused(401, "Missing Bearer token");
        let asked = stage.request("GET /optional/a", &[&field]).await;
        assert_eq!(asked.forwarded().header("x-user-id"), None);
    }
    let thousand = format!("Cookie: {}", crumbs(1000).join("; "));
    stage.request("GET /app", &[&thousand]).await.refused(401, "Missing Bearer token");
    let with_session = format!("{thousand}; session={}", stage.user);
    let asked = stage.request("GET /app", &[&with_session]).await;
    assert_eq!(asked.forwarded().headers.all("cookie"), [thousand.strip_prefix("Cookie: ").expect("as written")]);
    assert_eq!(asked.forwarded().header("x-user-id"), Some(USER));
    // A thousand lines are more than a head may have, 64 KiB more than one may take.
    let lines: Vec<String> = crumbs(1000).iter().map(|crumb| format!("Cookie: {crumb}")).collect();
    let large = [format!("Cookie: session={}", "x".repeat(64 * 1024))];
    let token = [format!("Authorization: Bearer {}", "x".repeat(64 * 1024))];
    for fields in [lines.as_slice(), &large, &token] {
        for path in ["/app", "/open/a", "/auth/session"] {
            let asked = stage.request(&format!("GET {path}"), fields).await;
            assert!(asked.seen.is_empty() && [0, 400, 431].contains(&asked.status()), "{path}: {}", asked.status());
        }
    }
    let long = [format!("Authorization: Bearer dw_{}", "x".repeat(9000))];
    stage.request("GET /optional/a", &long).await.refused(401, "Invalid token: malformed");
    stage.request("GET /app", &[stage.user_field()]).await.forwarded();
}

#[tokio::test]
async fn cve_2024_24814_a_head_over_http2_may_be_no_larger_than_over_http1() {
    let stage = Stage::start("").await;
    let bearer = format!("Bearer {}", stage.user);
    for (bytes, passes) in [(20_000, true), (40_000, false), (64_000, false)] {
        let cookie = format!("a={}", "x".repeat(bytes));
        let fields: [(&str, &[u8]); 2] = [("authorization", bearer.as_bytes()), ("cookie", cookie.as_bytes())];
        let asked = stage.h2("/app", &fields).await;
        if passes {
            assert_eq!(asked.forwarded().header("x-user-id"), Some(USER));
        } else {
            assert!(asked.seen.is_empty() && asked.status() != 200, "{bytes}: {}", asked.status());
        }
    }
    let crumbs: Vec<String> = (0..100).map(|number| format!("c{number}=v")).collect();
    let mut fields: Vec<(&str, &[u8])> = crumbs.iter().map(|crumb| ("cookie", crumb.as_bytes())).collect();
    fields.push(("authorization", bearer.as_bytes()));
    assert_eq!(stage.h2("/app", &fields).await.forwarded().headers.all("cookie"), [crumbs.join("; ")]);
}

#[tokio::test]
async fn cve_2022_29226_cve_2026_0707_a_bearer_token_in_any_but_its_one_shape_opens_nothing() {
    let stage = Stage::start("").await;
    let user = &stage.user;
    let cookie = format!("Cookie: session={user}");
    for bad in [
        "Bearer garbage".to_owned(),
        format!("Bearer\t{user}"),
        format!("Bearer \t{user}"),
        format!("bearer\t {user}"),
        format!("Bearer {user}, Bearer {user}"),
        format!("Bearer {user},{user}"),
        format!("Bearer {user} {user}"),
        format!("Bearer \"{user}\""),
        format!("Bearer token={user}"),
        format!("Bearer {user};"),
        format!("Bearer Bearer {user}"),
        format!("Bearer  {user}\t{user}"),
    ] {
        let field = format!("Authorization: {bad}");
        for path in ["/app", "/optional/a"] {
            for fields in [vec![&field], vec![&field, &cookie], vec![&cookie, &field]] {
                let asked = stage.request(&format!("GET {path}"), &fields).await;
                asked.refused(401, "Invalid token: malformed");
            }
        }
        assert_eq!(stage.h2("/app", &[("authorization", bad.as_bytes())]).await.status(), 401, "{bad:?}");
    }
    for none in ["", "Bearer", "bearer", "Bearer ", "Bearer    ", "Basic Og==", user, "Bearer:", "Bearertoken"] {
        let field = format!("Authorization: {none}");
        stage.request("GET /app", &[&field]).await.refused(401, "Missing Bearer token");
        assert_eq!(stage.request("GET /optional/a", &[&field]).await.forwarded().header("x-user-id"), None);
    }
    for good in
        [format!("Bearer {user}"), format!("bearer {user}"), format!("BEARER    {user}"), format!("Bearer {user}  ")]
    {
        let field = format!("Authorization: {good}");
        assert_eq!(stage.request("GET /app", &[field]).await.forwarded().header("x-user-id"), Some(USER), "{good:?}");
    }
    // HTTP/1 takes white space off a field's ends; HTTP/2 has none to take.
    let trailing = format!("Bearer {user} ");
    assert_eq!(stage.h2("/app", &[("authorization", trailing.as_bytes())]).await.status(), 401);
}

#[tokio::test]
async fn cve_2024_39315_no_token_device_or_jwt_appears_in_logs_metrics_or_answers() {
    let stage = Stage::start("telemetry: { log_level: trace }").await;
    let device = "canary-device-8A6E0804";
    let guest = sign_in_guest(&stage.doorward, device).await;
    let jwt = stage.idp.mint_for("user_canary");
    let response = stage.doorward.client().post("/auth/session").bearer(&jwt).send().await;
    let user = response.json()["token"].as_str().expect("a token").to_owned();
    for token in [&guest, &user] {
        for start in [
            "GET /app",
            "GET /users/a",
            "GET /admins/a",
            &format!("GET /app?token={token}"),
            "DELETE /auth/session",
            "GET /app",
        ] {
            for field in [format!("Authorization: Bearer {token}"), format!("Cookie: session={token}")] {
                let asked = stage.request(start, &[field]).await;
                let answer =
                    asked.response.as_ref().map(|response| format!("{:?}", response.headers)).unwrap_or_default();
                assert!(!answer.contains(token.as_str()), "{start}");
                // The application's own answer repeats what it was sent: its address, but no credential.
                assert!(
                    start.contains("token=") || !asked.text().contains(token.as_str()),
                    "{start}: {}",
                    asked.text()
                );
            }
        }
        let twisted = format!("{token}x");
        stage
            .request("GET /app", &[format!("Authorization: Bearer {twisted}")])
            .await
            .refused(401, "Invalid token: malformed");
    }
    stage
        .request("GET /app", &[format!("Authorization: Bearer {jwt}")])
        .await
        .refused(401, "Invalid token: expected a session token");
    let metrics = stage.doorward.admin_get("/metrics").await.text();
    let logs = stage.doorward.logs();
    assert!(logs.contains("/users/a"), "the log is there");
    let signature = jwt.rsplit('.').next().expect("a JWT has dots");
    for secret in [guest.as_str(), &user, &jwt, signature, device, &guest["dw_".len()..], &user["dw_".len()..]] {
        assert!(!logs.contains(secret), "a secret is in the logs: {secret}");
        assert!(!metrics.contains(secret), "a secret is in the metrics: {secret}");
    }
    let other = Idp::start().await;
    let foreign = other.mint_for("user_canary");
    assert_eq!(stage.doorward.client().post("/auth/session").bearer(&foreign).send().await.status, 401);
    assert!(!stage.doorward.logs().contains(foreign.rsplit('.').next().expect("a JWT has dots")));
}
