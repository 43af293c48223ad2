//! What a request shows of who sends it, classified once: the guard and the endpoints read it here.

use http::{HeaderMap, header};

use crate::api::bearer::{BearerError, bearer, is_jwt_shaped};

/// What a request shows of who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential<'a> {
    /// Nothing at all.
    None,
    /// `Authorization: Bearer`.
    Bearer(PresentedToken<'a>),
    /// The session cookie.
    Cookie(PresentedToken<'a>),
    /// Something that cannot be read in one way only: repeated, or with bytes that no token has.
    Ambiguous,
}

/// A token as it was presented: nothing of it is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresentedToken<'a> {
    /// One of ours, or at least not a JWT.
    Opaque(&'a str),
    /// A provider's: it has a JWT's two dots and not our prefix.
    Jwt(&'a str),
}

impl<'a> Credential<'a> {
    /// Returns the credential among `headers`. `cookie` is the session cookie's name, where one is
    /// accepted; `is_own` says whether a text begins like one of our tokens.
    ///
    /// A bad header is not rescued by a good cookie (contracts §9.1).
    pub fn of(headers: &'a HeaderMap, cookie: Option<&str>, is_own: impl Fn(&str) -> bool) -> Self {
        let form = |token| {
            if is_jwt_shaped(token) && !is_own(token) {
                PresentedToken::Jwt(token)
            } else {
                PresentedToken::Opaque(token)
            }
        };
        match bearer(headers) {
            Ok(token) => return Self::Bearer(form(token)),
            Err(BearerError::Invalid) => return Self::Ambiguous,
            Err(BearerError::Missing) => {}
        }
        match cookie.map_or(Ok(None), |name| session_cookie(headers, name)) {
            Ok(Some(token)) => Self::Cookie(form(token)),
            Ok(None) => Self::None,
            Err(AmbiguousCookie) => Self::Ambiguous,
        }
    }
}

/// The session cookie cannot be read in one way only.
struct AmbiguousCookie;

// Exact bytes, one occurrence: parsers disagree about quotes, `$Version` and which of two cookies
// of the same name counts, and a sibling subdomain can plant a second one.
fn session_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, AmbiguousCookie> {
    let mut found = None;
    for line in headers.get_all(header::COOKIE) {
        let Ok(line) = line.to_str() else {
            // Bytes that are no text hide nothing from us only if the name is not among them.
            if contains(line.as_bytes(), name.as_bytes()) {
                return Err(AmbiguousCookie);
            }
            continue;
        };
        for pair in line.split(';') {
            let Some((key, value)) = pair.trim_matches([' ', '\t']).split_once('=') else { continue };
            if key == name && found.replace(value).is_some() {
                return Err(AmbiguousCookie);
            }
        }
    }
    Ok(found.filter(|value| !value.is_empty()))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len().max(1)).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    type Field = (&'static str, &'static [u8]);

    fn classified(lines: &[Field], cookie: Option<&str>) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        format!("{:?}", Credential::of(&headers, cookie, |text| text.starts_with("dw_")))
    }

    #[test]
    fn a_credential_is_what_it_is_wherever_it_stands() {
        let cases: [(&[Field], &str); 13] = [
            (&[], "None"),
            (&[("authorization", b"Basic abc")], "None"),
            (&[("authorization", b"Bearer dw_x")], "Bearer(Opaque(\"dw_x\"))"),
            (&[("authorization", b"Bearer a.b.c")], "Bearer(Jwt(\"a.b.c\"))"),
            (&[("authorization", b"Bearer dw_a.b.c")], "Bearer(Opaque(\"dw_a.b.c\"))"),
            (&[("authorization", b"Bearer a b")], "Ambiguous"),
            (&[("cookie", b"a=1; session=dw_x")], "Cookie(Opaque(\"dw_x\"))"),
            (&[("cookie", b"session=a.b.c")], "Cookie(Jwt(\"a.b.c\"))"),
            (&[("cookie", b"session=")], "None"),
            (&[("cookie", b"session=x; session=x")], "Ambiguous"),
            (&[("cookie", b"session=x"), ("cookie", b"session=x")], "Ambiguous"),
            (&[("cookie", b"session=\xff")], "Ambiguous"),
            (&[("cookie", b"other=\xff"), ("cookie", b"session=x")], "Cookie(Opaque(\"x\"))"),
        ];
        for (lines, expected) in cases {
            assert_eq!(classified(lines, Some("session")), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_cookie_counts_only_where_one_is_accepted_and_rescues_no_bad_header() {
        let cookie: (&'static str, &'static [u8]) = ("cookie", b"session=dw_x");
        assert_eq!(classified(&[cookie], None), "None");
        assert_eq!(classified(&[("authorization", b"Bearer a b"), cookie], Some("session")), "Ambiguous");
        assert_eq!(
            classified(&[("authorization", b"Bearer dw_y"), cookie], Some("session")),
            "Bearer(Opaque(\"dw_y\"))"
        );
    }
}
