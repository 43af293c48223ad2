//! What the application is told of a caller, and what a caller cannot make it believe.

use super::stage::{Stage, bearer};
use crate::attacks_headers::{FORGED, spellings};
use crate::support::stage::{Asked, USER};
use crate::support::upstream::Recorded;

/// As many as every proxy takes in one request.
const FIELDS_AT_ONCE: usize = 60;

/// What stands between the words of names that are tried one by one; the others go in batches.
const SEPARATORS: [&str; 6] = ["", "-", "_", ".", "--", "~"];

const IDENTITY: [&str; 6] = ["X-User-ID", "X-Client-ID", "X-Session-ID", "X-User-Roles", "X-User-Kind", "X-Actor-ID"];

/// Bearer tokens and cookies name their session exactly once each.
pub(super) async fn sessions_made_through_the_proxy_are_named(stage: &Stage) {
    let host = stage.host();
    for (user, fields) in [
        (true, vec![stage.user_field()]),
        (true, vec![format!("Cookie: session={}", stage.user)]),
        (true, vec![format!("Cookie: session={}", stage.user), format!("Origin: http://{host}")]),
        (false, vec![stage.guest_field()]),
        (false, vec![format!("Cookie: a=b; session={}; c=d", stage.guest)]),
    ] {
        for start in ["GET /app", "GET /optional/a?x=1", "DELETE /app/7", "PUT /app", "OPTIONS /app"] {
            let safe = start.starts_with("GET") || start.starts_with("OPTIONS");
            let cookie_alone = fields.iter().any(|field| field.starts_with("Cookie")) && fields.len() == 1;
            if cookie_alone && !safe {
                stage.request(start, &fields).await.refused_with(403);
                continue;
            }
            let asked = stage.request(start, &fields).await;
            assert_named(asked.forwarded(), if user { USER } else { "anon:" });
            let (method, target) = start.split_once(' ').expect("a method and a target");
            assert_eq!((asked.seen[0].method.as_str(), asked.seen[0].target.as_str()), (method, target));
        }
    }
}

/// Open paths, and optional ones without a session.
pub(super) async fn what_needs_nobody_names_nobody(stage: &Stage) {
    let forged: Vec<String> = IDENTITY.iter().map(|name| format!("{name}: {FORGED}")).collect();
    let with_session = [forged.as_slice(), &[stage.user_field()]].concat();
    for start in ["GET /open/a", "POST /open/a?x", "GET /optional/a", "GET /read-only"] {
        assert_unnamed(stage.request(start, &[""; 0]).await.forwarded());
        assert_unnamed(stage.request(start, &forged).await.forwarded());
    }
    assert_unnamed(stage.request("GET /open/a", &with_session).await.forwarded());
    assert_named(stage.request("GET /optional/a", &with_session).await.forwarded(), USER);
    assert_named(stage.request("GET /app", &with_session).await.forwarded(), USER);
}

/// The application sees neither token nor session cookie, and every other cookie.
pub(super) async fn credentials_end_at_the_proxy(stage: &Stage) {
    let token = &stage.user;
    for (cookies, left) in [
        (format!("session={token}"), ""),
        (format!("session={token};"), ""),
        (format!("session={token}; a=b"), "a=b"),
        (format!("a=b; session={token}"), "a=b"),
        (format!("a=b; session={token}; c=d"), "a=b; c=d"),
        (format!("a=b;session={token};c=d"), "a=b; c=d"),
        (format!("my-session=1; session={token}; session2=x; a=session=1"), "my-session=1; session2=x; a=session=1"),
    ] {
        let asked = stage.request("GET /app", &[format!("Cookie: {cookies}")]).await;
        let seen = asked.forwarded();
        assert_named(seen, USER);
        assert!(!contains(&seen.head, token), "{cookies}: {seen:?}");
        assert_eq!(pairs(&seen.headers.all("cookie").join("; ")), pairs(left), "{cookies}");
    }
    for fields in [vec![bearer(token)], vec![bearer(token), "Cookie: a=b".to_owned()]] {
        let asked = stage.request("GET /open/a", &fields).await;
        assert!(!contains(&asked.forwarded().head, token), "{asked:?}");
        let asked = stage.request("GET /app", &fields).await;
        assert_eq!(asked.forwarded().headers.all("authorization"), Vec::<&str>::new());
    }
    let fields = [bearer(token), "Cookie: a=b; c=d".to_owned()];
    let asked = stage.request("GET /app", &fields).await;
    assert_eq!(asked.forwarded().headers.all("cookie"), ["a=b; c=d"]);
}

/// A client that calls our headers hop-by-hop (CVE-2024-45410) does not get rid of them.
pub(super) async fn a_nomination_removes_no_identity(stage: &Stage) {
    for nomination in [
        "Connection: X-User-ID, X-Client-ID",
        "Connection: keep-alive, x-user-id, x-client-id",
        "Connection: close, X-User-ID",
        "Connection: X-Client-ID\r\nConnection: X-User-ID",
        "Connection: X-Original-URI, X-Original-Method, X-Forwarded-Uri, X-Forwarded-Method, X-Forwarded-For",
    ] {
        let fields = [nomination.to_owned(), stage.user_field(), format!("X-User-ID: {FORGED}")];
        let asked = stage.request("GET /app", &fields).await;
        match asked.seen.as_slice() {
            [] => assert!((400..500).contains(&asked.status()), "{nomination}: {asked:?}"),
            [seen] => assert_named(seen, USER),
            _ => panic!("{nomination}: {asked:?}"),
        }
        let asked = stage.request("GET /app", &[nomination]).await;
        assert!((400..500).contains(&asked.status()) && asked.seen.is_empty(), "{nomination}: {asked:?}");
    }
}

/// All spellings there are, many in one request.
pub(super) async fn no_forged_identity_arrives_together(stage: &Stage) {
    for batch in spellings().chunks(FIELDS_AT_ONCE) {
        let forged: Vec<String> = batch.iter().map(|name| format!("{name}: {FORGED}")).collect();
        refused_or_told_the_truth(stage, "GET /open/a", &forged, None).await;
        let with_session = [forged.as_slice(), &[stage.user_field()]].concat();
        refused_or_told_the_truth(stage, "GET /app", &with_session, Some(USER)).await;
    }
}

/// The usual spellings one by one: where one of many is refused, the others were not tried.
pub(super) async fn no_forged_identity_arrives_alone(stage: &Stage) {
    for name in IDENTITY {
        let words: Vec<&str> = name.split('-').collect();
        for first in SEPARATORS {
            for second in SEPARATORS {
                let forged = format!("{}{first}{}{second}{}: {FORGED}", words[0], words[1], words[2]);
                refused_or_told_the_truth(stage, "GET /open/a", std::slice::from_ref(&forged), None).await;
                refused_or_told_the_truth(stage, "GET /app", &[forged, stage.user_field()], Some(USER)).await;
            }
        }
        let twice = [format!("{name}: {FORGED}"), stage.user_field(), format!("{name}: {FORGED}")];
        assert_named(stage.request("GET /app", &twice).await.forwarded(), USER);
        let lower = [format!("{}:{FORGED}", name.to_lowercase()), stage.user_field()];
        assert_named(stage.request("GET /app", &lower).await.forwarded(), USER);
    }
}

/// HTTP/2 names are lower-case, and its requests have no text that a parser could misread.
pub(super) async fn no_forged_identity_arrives_over_http2(stage: &Stage) {
    let bearer = format!("Bearer {}", stage.user);
    for batch in spellings().iter().map(|name| name.to_lowercase()).collect::<Vec<_>>().chunks(FIELDS_AT_ONCE) {
        let forged: Vec<(&str, &[u8])> = batch.iter().map(|name| (name.as_str(), FORGED.as_bytes())).collect();
        let mut with_session = forged.clone();
        with_session.push(("authorization", bearer.as_bytes()));
        truthful(&stage.h2("/open/a", &forged).await, None);
        truthful(&stage.h2("/app", &with_session).await, Some(USER));
        let refused = stage.h2("/app", &forged).await;
        assert!(refused.seen.is_empty(), "{refused:?}");
    }
    let asked = stage.h2("/app", &[("authorization", bearer.as_bytes())]).await;
    assert_named(asked.forwarded(), USER);
}

async fn refused_or_told_the_truth(stage: &Stage, start: &str, fields: &[String], identity: Option<&str>) {
    truthful(&stage.request(start, fields).await, identity);
}

// The fields stand in what the application saw, should it have been told something else.
fn truthful(asked: &Asked, identity: Option<&str>) {
    match asked.seen.as_slice() {
        // 0: an HTTP/2 stream was reset.
        [] => assert!((400..500).contains(&asked.status()) || asked.status() == 0, "{asked:?}"),
        [seen] => identity.map_or_else(|| assert_unnamed(seen), |identity| assert_named(seen, identity)),
        _ => panic!("{asked:?}"),
    }
}

/// Fails the test unless the application was told who calls, in one way only.
pub(super) fn assert_named(seen: &Recorded, identity: &str) {
    assert_nothing_forged(seen);
    let users = seen.headers.all("x-user-id");
    assert_eq!((users.len(), seen.headers.all("x-client-id")), (1, vec!["default"]), "{seen:?}");
    assert!(users[0] == identity || (identity == "anon:" && users[0].starts_with(identity)), "{seen:?}");
}

/// Fails the test unless the application was told of nobody.
pub(super) fn assert_unnamed(seen: &Recorded) {
    assert_nothing_forged(seen);
    for name in ["x-user-id", "x-client-id"] {
        assert!(matches!(seen.headers.all(name).as_slice(), [] | [""]), "{seen:?}");
    }
}

fn assert_nothing_forged(seen: &Recorded) {
    assert!(!contains(&seen.head, FORGED), "{}", String::from_utf8_lossy(&seen.head));
    for name in ["x-session-id", "x-user-roles", "x-user-kind", "x-actor-id"] {
        assert!(matches!(seen.headers.all(name).as_slice(), [] | [""]), "{seen:?}");
    }
}

/// Returns whether `text` is somewhere in `bytes`.
pub(super) fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Returns the cookies of a `Cookie` header.
pub(super) fn pairs(cookies: &str) -> Vec<&str> {
    cookies.split(';').map(str::trim).filter(|pair| !pair.is_empty()).collect()
}

impl Asked {
    /// Fails the test unless the request was answered `status` and not forwarded.
    pub(super) fn refused_with(&self, status: u16) {
        assert_eq!((self.status(), self.seen.len()), (status, 0), "{self:?}");
    }
}
