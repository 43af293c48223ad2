//! The request that is asked about, as the asking proxy describes it.
//!
//! Proxies describe it in different headers, and some of them pass on what a client writes into
//! those of another one. So everything that is said must agree; what is missing is never guessed; and a path
//! that would be refused if it were forwarded is refused here (GHSA-7rh7-c77v-6434: the query never
//! takes part).

use http::header::{self, HeaderName};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Method, Request};

use crate::model::surface::FORWARD_AUTH;
use crate::proxy::path::{below, normalise};
use crate::wire::headers::{X_FORWARDED_HOST, X_FORWARDED_METHOD, X_FORWARDED_URI};

const X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");

/// What the guard looks at besides method and host.
const KEPT: [HeaderName; 4] =
    [header::AUTHORIZATION, header::COOKIE, header::ORIGIN, HeaderName::from_static("sec-fetch-site")];
/// What tells a handshake of a WebSocket. Proxies drop `Upgrade` as hop-by-hop, and keep the others.
const HANDSHAKE: [HeaderName; 3] = [header::UPGRADE, header::SEC_WEBSOCKET_KEY, header::SEC_WEBSOCKET_VERSION];

/// The head of the request that is asked about: its path is normalised, its headers are those that
/// the guard looks at.
#[derive(Debug)]
pub(super) struct Original {
    head: Parts,
    target: PathAndQuery,
}

/// What is said cannot be read in one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the original request cannot be read in one way only")]
pub(super) struct UnreadableOriginal;

impl Original {
    /// Reads what a check over HTTP says: behind the path, or in headers.
    pub(super) fn from_check(check: &Parts) -> Result<Self, UnreadableOriginal> {
        let headers = &check.headers;
        // Where a proxy may put the original path: Envoy's `path_prefix`.
        let suffix = below(check.uri.path(), FORWARD_AUTH).filter(|rest| !rest.is_empty());
        let asked = suffix.map(|path| match check.uri.query() {
            Some(query) => target(&format!("{path}?{query}")),
            None => target(path),
        });
        let url = said(headers, &X_ORIGINAL_URL)?.map(split_url).transpose()?;
        let method = agreed([
            suffix.map(|_| check.method.clone()),
            said(headers, &X_FORWARDED_METHOD)?.map(method).transpose()?,
            said(headers, &X_ORIGINAL_METHOD)?.map(method).transpose()?,
        ])?;
        let target = agreed([
            asked.transpose()?,
            said(headers, &X_FORWARDED_URI)?.map(target).transpose()?,
            said(headers, &X_ORIGINAL_URI)?.map(target).transpose()?,
            url.map(|(_, rest)| target(rest)).transpose()?,
        ])?;
        let forwarded = said(headers, &X_FORWARDED_HOST)?.map(str::to_ascii_lowercase);
        let host = agreed([forwarded, url.map(|(authority, _)| authority.to_ascii_lowercase())])?;
        let host = host.or_else(|| {
            Some(check.uri.authority()?.as_str().to_ascii_lowercase()).filter(|_| !headers.contains_key(header::HOST))
        });
        Self::new(method.ok_or(UnreadableOriginal)?, target.ok_or(UnreadableOriginal)?, host.as_deref(), headers)
    }

    /// Reads what is said as a whole: nothing is in the headers.
    pub(super) fn from_parts(
        verb: &str,
        path: &str,
        host: &str,
        headers: &HeaderMap,
    ) -> Result<Self, UnreadableOriginal> {
        let host = Some(host).filter(|host| !host.is_empty()).map(str::to_ascii_lowercase);
        Self::new(method(verb)?, target(path)?, host.as_deref(), headers)
    }

    /// Returns the request with the `headers` that the guard looks at; `host` counts before theirs.
    fn new(
        method: Method,
        target: PathAndQuery,
        host: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Self, UnreadableOriginal> {
        let mut head = Request::new(()).into_parts().0;
        head.method = method;
        head.uri = Uri::from(target.clone());
        for name in KEPT {
            for value in headers.get_all(&name) {
                head.headers.try_append(name.clone(), value.clone()).map_err(|_| UnreadableOriginal)?;
            }
        }
        if HANDSHAKE.iter().any(|name| headers.contains_key(name)) {
            head.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        match (host, headers.get(header::HOST)) {
            (Some(host), _) => {
                let host = HeaderValue::from_str(host).map_err(|_| UnreadableOriginal)?;
                head.headers.insert(header::HOST, host);
            }
            (None, Some(host)) => {
                head.headers.insert(header::HOST, host.clone());
            }
            (None, None) => {}
        }
        Ok(Self { head, target })
    }

    /// Returns what the guard looks at.
    pub(super) fn head(&self) -> &Parts {
        &self.head
    }

    /// Returns the method.
    pub(super) fn method(&self) -> &Method {
        &self.head.method
    }

    /// Returns the normalised path.
    pub(super) fn path(&self) -> &str {
        self.target.path()
    }

    /// Returns the normalised path and the query.
    pub(super) fn target(&self) -> &PathAndQuery {
        &self.target
    }
}

// One occurrence: two would be read as the first, the last or both.
fn said<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, UnreadableOriginal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(UnreadableOriginal);
    }
    std::str::from_utf8(value.as_bytes()).map(Some).map_err(|_| UnreadableOriginal)
}

fn agreed<T: PartialEq>(said: impl IntoIterator<Item = Option<T>>) -> Result<Option<T>, UnreadableOriginal> {
    let mut said = said.into_iter().flatten();
    let first = said.next();
    if said.all(|other| first.as_ref() == Some(&other)) { Ok(first) } else { Err(UnreadableOriginal) }
}

fn method(text: &str) -> Result<Method, UnreadableOriginal> {
    Method::from_bytes(text.as_bytes()).map_err(|_| UnreadableOriginal)
}

// The rules of `framing`: origin form, no fragment, one reading of the path.
fn target(text: &str) -> Result<PathAndQuery, UnreadableOriginal> {
    if text.contains('#') {
        return Err(UnreadableOriginal);
    }
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    let normal = normalise(path).map_err(|_| UnreadableOriginal)?;
    let target = match query {
        Some(query) => format!("{normal}?{query}"),
        None => normal.into_owned(),
    };
    target.parse().map_err(|_| UnreadableOriginal)
}

/// Returns authority and target of an absolute URL.
fn split_url(url: &str) -> Result<(&str, &str), UnreadableOriginal> {
    let (scheme, rest) = url.split_once("://").ok_or(UnreadableOriginal)?;
    let (authority, _) = rest.split_once('/').ok_or(UnreadableOriginal)?;
    let is_web = ["http", "https"].iter().any(|web| scheme.eq_ignore_ascii_case(web));
    if !is_web || authority.is_empty() || authority.contains(['@', '?', '#', '\\']) {
        return Err(UnreadableOriginal);
    }
    rest.split_at_checked(authority.len()).ok_or(UnreadableOriginal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::id_sequence::IdSequence;

    fn check(path: &str, fields: &[(HeaderName, &[u8])]) -> Parts {
        let mut check = Request::get(path).body(()).unwrap().into_parts().0;
        for (name, value) in fields {
            check.headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        check
    }

    #[test]
    fn what_is_read_is_what_the_rules_would_see_of_a_forwarded_request() {
        let read = Original::from_check(&check("/_doorward/verify/%61/b%2a?c=%61/../d", &[])).unwrap();
        assert_eq!((read.path(), read.target().as_str()), ("/a/b%2A", "/a/b%2A?c=%61/../d"));
        let fields = [(X_FORWARDED_METHOD, b"PUT".as_slice()), (X_ORIGINAL_URL, b"HTTPS://App.example:8443/%61?b")];
        let read = Original::from_check(&check("/_doorward/verify", &fields)).unwrap();
        assert_eq!((read.method().as_str(), read.target().as_str()), ("PUT", "/a?b"));
        assert_eq!(read.head().headers[header::HOST], "app.example:8443");
    }

    #[test]
    fn only_what_the_guard_looks_at_is_kept() {
        let fields = [
            (header::COOKIE, b"a=1".as_slice()),
            (header::COOKIE, b"b=\xff"),
            (header::ACCEPT, b"text/html"),
            (header::SEC_WEBSOCKET_KEY, b"x"),
            (X_FORWARDED_HOST, b"app.example"),
            (header::HOST, b"doorward"),
        ];
        let read = Original::from_check(&check("/_doorward/verify/", &fields)).unwrap();
        let headers = &read.head().headers;
        assert_eq!(headers.get_all(header::COOKIE).iter().count(), 2);
        assert_eq!(
            (&headers[header::UPGRADE], &headers[header::HOST]),
            (&"websocket".parse().unwrap(), &"app.example".parse().unwrap())
        );
        assert_eq!(headers.keys_len(), 3);
    }

    #[test]
    fn no_description_panics_and_what_is_read_is_normal() {
        let pieces: [&[u8]; 24] = [
            b"/",
            b"//",
            b".",
            b"..",
            b"%",
            b"%2",
            b"%2e",
            b"%2F",
            b"%25",
            b"?",
            b"#",
            b"a",
            b"open",
            b"\\",
            b"://",
            b"http",
            b"@",
            b":",
            b"[",
            b"]",
            b",",
            b"\xc3\xa9",
            b"\xff",
            b"\t",
        ];
        let names =
            [X_FORWARDED_METHOD, X_FORWARDED_URI, X_FORWARDED_HOST, X_ORIGINAL_METHOD, X_ORIGINAL_URI, X_ORIGINAL_URL];
        let chance = IdSequence::new(0x5EED_0D00_12A4);
        let below = |bound: usize| usize::try_from(chance.next() >> 33).unwrap() % bound;
        let mut read = 0;
        for _ in 0..50_000 {
            let mut fields = vec![(X_FORWARDED_METHOD, b"GET".to_vec())];
            for _ in 0..=below(2) {
                let mut value = if below(3) == 0 { Vec::new() } else { b"/a".to_vec() };
                (0..below(5)).for_each(|_| value.extend(pieces[below(pieces.len())]));
                fields.push((names[below(names.len())].clone(), value));
            }
            let fields: Vec<(HeaderName, &[u8])> =
                fields.iter().map(|(name, value)| (name.clone(), value.as_slice())).collect();
            let Ok(original) = Original::from_check(&check("/_doorward/verify", &fields)) else { continue };
            read += 1;
            assert_eq!(normalise(original.path()).as_deref(), Ok(original.path()));
            assert_eq!(original.method(), Method::GET);
        }
        assert!(read > 1_000, "{read} of 50000 can be read");
    }
}
