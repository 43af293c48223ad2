//! The one place that removes and writes identity headers.
//!
//! Names are compared with everything but letters and digits folded away: `X_User_ID` and
//! `X.User-ID` become the same variable as `X-User-ID` in CGI, WSGI, Rack and PHP
//! (CVE-2025-64484, CVE-2026-52845, GHSA-5m6w-wvh7-57vm).

use std::net::IpAddr;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Version};
use pingora::http::RequestHeader;

use super::guard::Permit;
use crate::config::IdentityHeaders;
use crate::metrics::Metrics;
use crate::session::Caller;
pub use crate::session::headers::{X_CLIENT_ID, X_USER_ID};
use crate::wire::headers::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};

/// The exchange's name in every log.
pub use crate::wire::headers::X_REQUEST_ID;

/// How an identity header is spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// As Doorward writes it.
    Ours,
    /// In another way, which an application may fold.
    Other,
}

/// What an application could write into its answer to look like Doorward.
pub const IDENTITY_IN_RESPONSES: [HeaderName; 2] = [X_USER_ID, X_CLIENT_ID];

/// Folded names that only Doorward may write, and their label.
const IDENTITY: [(&str, &str); 6] = [
    ("xuserid", "x-user-id"),
    ("xclientid", "x-client-id"),
    ("xsessionid", "x-session-id"),
    ("xuserroles", "x-user-roles"),
    ("xuserkind", "x-user-kind"),
    ("xactorid", "x-actor-id"),
];

/// Folded names that only a trusted proxy may write.
const FORWARDED: [&str; 19] = [
    "forwarded",
    "xforwardedfor",
    "xforwardedproto",
    "xforwardedhost",
    "xforwardedport",
    "xforwardeduri",
    "xforwardedprefix",
    "xforwardedmethod",
    "xforwardedserver",
    "xoriginalurl",
    "xrewriteurl",
    "xrealip",
    "xoriginaluri",
    "xoriginalmethod",
    "xforwardedscheme",
    "xforwardedssl",
    "xclientip",
    "xclusterclientip",
    "trueclientip",
];

/// Returns what the metrics call the identity headers.
pub(super) fn identity_labels() -> [&'static str; 6] {
    IDENTITY.map(|(_, label)| label)
}

/// Returns the identity headers that Doorward may ever write.
pub(super) fn identity_headers() -> [HeaderName; 6] {
    identity_labels().map(HeaderName::from_static)
}

/// Removes identity headers in every spelling, and from a stranger what only proxies may say.
///
/// Returns whether one came in a spelling that is not the one Doorward writes.
pub fn strip(request: &mut RequestHeader, peer_is_trusted: bool, metrics: &Metrics) -> bool {
    let suspicious = |name: &HeaderName| {
        matches!(name.as_str().as_bytes().first(), Some(b'x' | b'f' | b't' | b'-')) || !is_plain(name)
    };
    let foreign: Vec<HeaderName> = request.headers.keys().filter(|name| suspicious(name)).cloned().collect();
    let mut misspelt = false;
    for name in foreign {
        let folded = fold(&name);
        let spelling = count_identity_header(&name, &folded, metrics);
        misspelt |= spelling == Some(Spelling::Other);
        if spelling.is_some() || !peer_is_trusted && FORWARDED.contains(&folded.as_str()) {
            request.remove_header(&name);
        }
    }
    misspelt
}

/// Counts the identity headers; returns those in a spelling that Doorward does not write.
pub(super) fn count_identity_headers(headers: &HeaderMap, metrics: &Metrics) -> Vec<HeaderName> {
    let mut misspelt = Vec::new();
    for name in headers.keys() {
        if count_identity_header(name, &fold(name), metrics) == Some(Spelling::Other) {
            misspelt.push(name.clone());
        }
    }
    misspelt
}

/// Writes who calls. Needs the guard's permit; one that names nobody writes nothing.
pub fn inject(request: &mut RequestHeader, permit: &Permit, which: IdentityHeaders) -> pingora::Result<()> {
    let Some(session) = permit.session() else { return Ok(()) };
    for (name, text) in Caller::from(&**session).headers(which) {
        request.insert_header(name, value(&text)?)?;
    }
    Ok(())
}

/// Removes what opened the door, so that the application cannot leak or misread it.
pub fn strip_credentials(request: &mut RequestHeader, cookie: &str) -> pingora::Result<()> {
    request.remove_header(&header::AUTHORIZATION);
    let Some(kept) = without_cookie(&request.headers, cookie) else { return Ok(()) };
    request.remove_header(&header::COOKIE);
    if kept.is_empty() { Ok(()) } else { request.insert_header(header::COOKIE, kept.as_slice()) }
}

/// Tells the application where the request really came from; `peer` is the address it came from.
pub fn forward(
    request: &mut RequestHeader,
    peer: Option<HeaderValue>,
    peer_is_trusted: bool,
    tls: bool,
) -> pingora::Result<()> {
    // What a stranger said was removed by `strip`: only a trusted proxy's word can be there.
    let said = |request: &RequestHeader, name| peer_is_trusted && request.headers.contains_key(name);
    if let Some(peer) = peer {
        let chain = if said(request, X_FORWARDED_FOR) { lengthen(&request.headers, &peer)? } else { peer };
        request.insert_header(X_FORWARDED_FOR, chain)?;
    }
    if !said(request, X_FORWARDED_PROTO) {
        let scheme = HeaderValue::from_static(if tls { "https" } else { "http" });
        request.insert_header(X_FORWARDED_PROTO, scheme)?;
    }
    if !said(request, X_FORWARDED_HOST)
        && let Some(host) = request.headers.get(header::HOST).cloned()
    {
        request.insert_header(X_FORWARDED_HOST, host)?;
    }
    Ok(())
}

/// Gives an HTTP/2 upstream the one `TE` that HTTP/2 knows (RFC 9113 §8.2.2), which gRPC asks for:
/// pingora has removed it from the `request` that it made of what was `received`.
pub fn restore_te(request: &mut RequestHeader, received: &RequestHeader) -> pingora::Result<()> {
    let trailers = received.headers.get(header::TE).filter(|te| *te == "trailers");
    match trailers {
        Some(trailers) if request.version == Version::HTTP_2 && received.version == Version::HTTP_2 => {
            request.insert_header(header::TE, trailers.clone())
        }
        _ => Ok(()),
    }
}

/// Returns the client behind trusted proxies: the right-most address that is not one of them.
pub fn client_address(headers: &HeaderMap, peer: IpAddr, trusted: &[ipnet::IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(&peer) {
        return peer;
    }
    let values: Vec<&str> = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let mut nearest = peer;
    for hop in values.iter().rev().flat_map(|value| value.rsplit(',')) {
        // What cannot be read ends the chain: everything left of it is hearsay.
        let Ok(address) = hop.trim().parse::<IpAddr>() else { return nearest };
        nearest = address;
        if !is_trusted(&address) {
            return nearest;
        }
    }
    nearest
}

fn lengthen(headers: &HeaderMap, peer: &HeaderValue) -> pingora::Result<HeaderValue> {
    let before = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let chain: Vec<&str> = before.chain(peer.to_str()).collect();
    value(&chain.join(", "))
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

fn value(text: &str) -> pingora::Result<HeaderValue> {
    HeaderValue::from_str(text)
        .map_err(|error| pingora::Error::because(pingora::ErrorType::InternalError, "identity header", error))
}

fn is_plain(name: &HeaderName) -> bool {
    name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Counts a header, called `folded` when folded, if only Doorward may write it.
fn count_identity_header(name: &HeaderName, folded: &str, metrics: &Metrics) -> Option<Spelling> {
    let (_, label) = IDENTITY.iter().find(|(identity, _)| *identity == folded)?;
    metrics.identity_headers_stripped.with_label_values(&[label]).inc();
    Some(if name.as_str() == *label { Spelling::Ours } else { Spelling::Other })
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
    fn only_http2_to_http2_keeps_the_te_that_grpc_asks_for() {
        for (te, received, sent, kept) in [
            ("trailers", Version::HTTP_2, Version::HTTP_2, true),
            ("trailers", Version::HTTP_2, Version::HTTP_11, false),
            ("trailers", Version::HTTP_11, Version::HTTP_2, false),
            ("gzip", Version::HTTP_2, Version::HTTP_2, false),
        ] {
            let (mut from, mut to) = (request(&[("te", te)]), request(&[]));
            from.set_version(received);
            to.set_version(sent);
            restore_te(&mut to, &from).unwrap();
            assert_eq!(to.headers.contains_key("te"), kept, "{te} {received:?} {sent:?}");
        }
    }

    #[test]
    fn the_client_is_the_last_hop_that_is_no_proxy_of_ours() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let client = |peer: &str, chain: &str| {
            let request = request(&[("x-forwarded-for", chain)]);
            client_address(&request.headers, peer.parse().unwrap(), &trusted).to_string()
        };
        assert_eq!(client("192.0.2.1", "1.1.1.1"), "192.0.2.1", "a stranger is not believed");
        assert_eq!(client("10.0.0.1", "6.6.6.6, 1.1.1.1, 10.0.0.2"), "1.1.1.1");
        assert_eq!(client("10.0.0.1", "6.6.6.6, junk, 10.0.0.2"), "10.0.0.2");
        assert_eq!(client("10.0.0.1", ""), "10.0.0.1");
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
