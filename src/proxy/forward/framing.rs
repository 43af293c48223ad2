//! Refuses requests that two servers could read differently, and leaves one path for all.

use http::{Version, header};
use pingora::http::RequestHeader;
use pingora::proxy::Session as Exchange;

use crate::api::problem::What;
use crate::proxy::path::normalise;

// RFC 9112 §6.3 would let Transfer-Encoding win over Content-Length; a sender of both is trying
// to make two servers disagree. pingora has removed the Content-Length by now: the bytes have it.
pub(in crate::proxy) fn check_framing(exchange: &Exchange) -> Result<(), What> {
    let head = exchange.req_header();
    let hosts = head.headers.get_all(header::HOST).iter().count();
    let needs_host = head.version == Version::HTTP_11;
    if hosts > 1 || (needs_host && hosts == 0) {
        return Err(What::BadRequest);
    }
    let Some(http1) = exchange.as_http1() else { return check_http2(head) };
    if !head.headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(());
    }
    let mut encodings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked_only = encodings.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    let sane = chunked_only && encodings.next().is_none() && head.version == Version::HTTP_11;
    if sane && !names_content_length(&http1.get_headers_raw_bytes()) { Ok(()) } else { Err(What::BadRequest) }
}

// RFC 9113 §8.2.2 and §8.3.1.
fn check_http2(head: &RequestHeader) -> Result<(), What> {
    let connection_specific = [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE];
    let host_agrees = match (head.headers.get(header::HOST), head.uri.authority()) {
        (Some(host), Some(authority)) => host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()),
        _ => true,
    };
    let clean = !connection_specific.iter().any(|name| head.headers.contains_key(name));
    if host_agrees && clean { Ok(()) } else { Err(What::BadRequest) }
}

fn names_content_length(head: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length";
    head.split(|byte| *byte == b'\n').any(|line| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(NAME)
    })
}

// The parser drops a fragment, which no request has (RFC 9112 §3.2): by now only the bytes have it.
fn names_fragment(head: &[u8]) -> bool {
    let request_line = head.trim_ascii_start().split(|byte| *byte == b'\n').next().unwrap_or_default();
    request_line.contains(&b'#')
}

// From here on there is one path: the one that the rules see is the one that is forwarded.
pub(in crate::proxy) fn rewrite_path(exchange: &mut Exchange) -> Result<(), What> {
    let head = exchange.req_header();
    let has_fragment = exchange.as_http1().is_some_and(|http1| names_fragment(&http1.get_headers_raw_bytes()));
    if !head.raw_path_is_utf8() || has_fragment {
        return Err(What::BadRequest);
    }
    // HTTP/2 knows no absolute form: its `:path` begins with a slash (RFC 9113 §8.3.1).
    let absolute_form = !head.raw_path().starts_with(b"/");
    if absolute_form && (exchange.as_http1().is_none() || !authority_is_host(head)) {
        return Err(What::BadRequest);
    }
    let path = head.uri.path();
    let normal = normalise(path).map_err(|_| What::BadRequest)?;
    if !absolute_form && normal == path {
        return Ok(());
    }
    let target = match head.uri.query() {
        Some(query) => format!("{normal}?{query}"),
        None => normal.into_owned(),
    };
    let mut parts = head.uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().map_err(|_| What::BadRequest)?);
    if exchange.as_http1().is_some() {
        (parts.scheme, parts.authority) = (None, None);
    }
    let uri = http::Uri::from_parts(parts).map_err(|_| What::BadRequest)?;
    exchange.req_header_mut().set_uri(uri);
    Ok(())
}

// The parser keeps the path of an absolute target and drops the rest from the URI: its bytes have it.
fn authority_is_host(head: &RequestHeader) -> bool {
    let target = String::from_utf8_lossy(head.raw_path());
    let Some((scheme, rest)) = target.split_once("://") else { return false };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host =
        head.headers.get(header::HOST).is_some_and(|host| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()));
    let is_web = ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web));
    is_web && host && !authority.is_empty()
}
