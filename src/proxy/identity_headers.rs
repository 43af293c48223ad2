//! The one place that removes and writes identity headers.
//!
//! Names are compared with everything but letters and digits folded away: `X_User_ID` and
//! `X.User-ID` become the same variable as `X-User-ID` in CGI, WSGI, Rack and PHP
//! (CVE-2025-64484, CVE-2026-52845, GHSA-5m6w-wvh7-57vm).

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};
use pingora::http::RequestHeader;

use super::forwarded;
use super::guard::Permit;
use crate::config::IdentityHeaders;
use crate::metrics::Metrics;
pub use crate::session::headers::{X_CLIENT_ID, X_USER_ID};

/// What an application could write into its answer to look like Doorward.
pub const IDENTITY_IN_RESPONSES: [HeaderName; 2] = [X_USER_ID, X_CLIENT_ID];

/// How an identity header is spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// As Doorward writes it.
    Canonical,
    /// In another way, which an application may fold into the same variable.
    Other,
}

/// Folded names that only Doorward may write, and their label.
const IDENTITY: [(&str, &str); 6] = [
    ("xuserid", "x-user-id"),
    ("xclientid", "x-client-id"),
    ("xsessionid", "x-session-id"),
    ("xuserroles", "x-user-roles"),
    ("xuserkind", "x-user-kind"),
    ("xactorid", "x-actor-id"),
];

/// Returns what the metrics call the identity headers.
pub(super) fn identity_labels() -> [&'static str; 6] {
    IDENTITY.map(|(_, label)| label)
}

/// Removes identity headers in every spelling, and from an untrusted peer what only proxies may say.
///
/// Returns whether one came in a spelling that is not the one Doorward writes.
pub fn strip(request: &mut RequestHeader, peer_is_trusted: bool, metrics: &Metrics) -> bool {
    let suspicious = |name: &HeaderName| {
        matches!(name.as_str().as_bytes().first(), Some(b'x' | b'f' | b't' | b'-')) || !is_plain(name)
    };
    let foreign: Vec<HeaderName> = request.headers.keys().filter(|name| suspicious(name)).cloned().collect();
    let mut non_canonical = false;
    for name in foreign {
        let folded = fold(&name);
        let spelling = count_identity_header(&name, &folded, metrics);
        non_canonical |= spelling == Some(Spelling::Other);
        if spelling.is_some() || !peer_is_trusted && forwarded::is_for_proxies(&folded) {
            request.remove_header(&name);
        }
    }
    non_canonical
}

/// Counts the identity headers; returns those in a spelling that Doorward does not write.
pub(super) fn count_identity_headers(headers: &HeaderMap, metrics: &Metrics) -> Vec<HeaderName> {
    let mut non_canonical = Vec::new();
    for name in headers.keys() {
        if count_identity_header(name, &fold(name), metrics) == Some(Spelling::Other) {
            non_canonical.push(name.clone());
        }
    }
    non_canonical
}

/// Writes who calls into what the application gets; a permit without a caller writes nothing.
pub fn inject(request: &mut RequestHeader, permit: &Permit, which: IdentityHeaders) -> pingora::Result<()> {
    of(permit, which).try_for_each(|(name, value)| request.insert_header(name, value))
}

/// Returns every identity header that Doorward may ever write, once: for an answer to another
/// proxy, in which those that say nothing are empty.
pub fn for_proxies(permit: &Permit, which: IdentityHeaders) -> HeaderMap {
    let empty = |label| (HeaderName::from_static(label), HeaderValue::from_static(""));
    let mut identity: HeaderMap = identity_labels().into_iter().map(empty).collect();
    for (name, value) in of(permit, which) {
        identity.insert(name, value);
    }
    identity
}

// The one place that says who a permit lets through.
fn of(permit: &Permit, which: IdentityHeaders) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    permit.caller().map(|caller| caller.headers(which)).into_iter().flatten()
}

/// Removes the credentials, so that the application cannot leak or misread them.
pub fn strip_credentials(request: &mut RequestHeader, cookie: &str) -> pingora::Result<()> {
    request.remove_header(&header::AUTHORIZATION);
    let Some(kept) = without_cookie(&request.headers, cookie) else { return Ok(()) };
    request.remove_header(&header::COOKIE);
    if kept.is_empty() { Ok(()) } else { request.insert_header(header::COOKIE, kept.as_slice()) }
}

/// Returns the cookies without the one called `cookie`, as one line; `None` when nothing changes.
// On bytes, because one that is no text must not hide the cookie beside it. A rewritten header is
// one line, as HTTP/1 wants it from HTTP/2's crumbs (RFC 9113 §8.2.3).
pub(super) fn without_cookie(headers: &HeaderMap, cookie: &str) -> Option<Vec<u8>> {
    let name_of = |pair: &[u8]| pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii().to_vec();
    let is_session = |pair: &&[u8]| name_of(pair) == cookie.as_bytes();
    let lines: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    let pairs = || lines.iter().flat_map(|line| line.split(|byte| *byte == b';'));
    if lines.len() < 2 && !pairs().any(|pair| is_session(&pair)) {
        return None;
    }
    let kept = pairs().filter(|pair| !is_session(pair)).map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty());
    Some(kept.collect::<Vec<_>>().join(b"; ".as_slice()))
}

fn is_plain(name: &HeaderName) -> bool {
    name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Counts a header, called `folded` when folded, if only Doorward may write it.
fn count_identity_header(name: &HeaderName, folded: &str, metrics: &Metrics) -> Option<Spelling> {
    let (_, label) = IDENTITY.iter().find(|(identity, _)| *identity == folded)?;
    metrics.identity_headers_stripped.with_label_values(&[label]).inc();
    Some(if name.as_str() == *label { Spelling::Canonical } else { Spelling::Other })
}

fn fold(name: &HeaderName) -> String {
    name.as_str().chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, text) in headers {
            request.append_header(*name, *text).unwrap();
        }
        request
    }

    #[test]
    fn every_spelling_of_an_identity_header_goes() {
        let metrics = Metrics::new().unwrap();
        for name in [
            "x-user-id",
            "X-USER-ID",
            "x_user_id",
            "X-User_ID",
            "X.User.ID",
            "x!user!id",
            "X~User-ID",
            "_x-user-id",
            "-x-user-id",
            "!x-client-id",
            "xuserid",
            "x--client--id",
            "X-Actor-Id",
        ] {
            let mut request = RequestHeader::build("GET", b"/", None).unwrap();
            request.append_header(name, "mallory").unwrap();
            strip(&mut request, true, &metrics);
            assert!(request.headers.is_empty(), "{name}");
        }
    }

    #[test]
    fn ordinary_headers_stay() {
        let metrics = Metrics::new().unwrap();
        let mut request = request(&[("x-user-identity", "a"), ("accept", "b"), ("x-request-id", "c"), ("from", "d")]);
        strip(&mut request, false, &metrics);
        assert_eq!(request.headers.len(), 4);
    }

    #[test]
    fn only_trusted_peers_may_say_where_a_request_came_from() {
        let metrics = Metrics::new().unwrap();
        let said = [
            ("x-forwarded-for", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
            ("true-client-ip", "1.2.3.4"),
            ("x-original-url", "/"),
        ];
        let mut stranger = request(&said);
        strip(&mut stranger, false, &metrics);
        assert!(stranger.headers.is_empty());
        let mut trusted = request(&said);
        strip(&mut trusted, true, &metrics);
        assert_eq!(trusted.headers.len(), said.len());
    }

    #[test]
    fn the_session_cookie_goes_and_the_others_stay() {
        for (before, after) in [
            ("session=secret", None),
            ("a=1; session=secret; b=2", Some("a=1; b=2")),
            ("a=1;session=secret", Some("a=1")),
            ("mysession=1; session2=2", Some("mysession=1; session2=2")),
            (" session =secret; a=1;", Some("a=1")),
        ] {
            let mut request = request(&[("cookie", before), ("authorization", "Bearer secret")]);
            strip_credentials(&mut request, "session").unwrap();
            assert_eq!(request.headers.get("cookie").map(|value| value.to_str().unwrap()), after, "{before}");
            assert!(!request.headers.contains_key("authorization"));
        }
    }
}
