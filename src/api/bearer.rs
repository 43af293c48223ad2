//! The bearer token of a request: exactly one place and one shape (RFC 6750 §2.1).
//!
//! Two headers, or bytes that no token has, are refused rather than repaired.

use http::HeaderMap;
use http::header::AUTHORIZATION;

/// The longest token that is looked at, in bytes (contracts §3 rule 3).
const TOKEN_MAX: usize = 8192;

/// Why a request has no usable bearer token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BearerError {
    /// No `Authorization` header, another scheme, or nothing after the scheme.
    Missing,
    /// Several headers, or a text that cannot be a token.
    Invalid,
}

/// Returns the bearer token of a request (contracts §3 rule 3).
pub fn bearer(headers: &HeaderMap) -> Result<&str, BearerError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(BearerError::Missing)?.as_bytes();
    if values.next().is_some() {
        return Err(BearerError::Invalid);
    }
    // A tab ends the scheme too: `Bearer<TAB>x` is a bad bearer header, not some other scheme's.
    let end = value.iter().position(|byte| b" \t".contains(byte)).unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(BearerError::Missing);
    }
    let spaces = rest.iter().take_while(|&&byte| byte == b' ').count();
    let token = rest.get(spaces..).unwrap_or_default();
    if token.is_empty() {
        return Err(BearerError::Missing);
    }
    if token.len() > TOKEN_MAX || !is_b64token(token) {
        return Err(BearerError::Invalid);
    }
    std::str::from_utf8(token).map_err(|_| BearerError::Invalid)
}

/// Returns whether a token has a JWT's two dots; our own have none in any version.
pub fn is_jwt_shaped(token: &str) -> bool {
    token.bytes().filter(|&byte| byte == b'.').count() == 2
}

// RFC 6750 §2.1: 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
fn is_b64token(text: &[u8]) -> bool {
    let end = text.iter().rposition(|&byte| byte != b'=').map_or(0, |last| last + 1);
    let body = text.get(..end).unwrap_or_default();
    let is_plain =
        |byte: &u8| matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
    !body.is_empty() && body.iter().all(is_plain)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn authorization(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn one_token_in_one_header_is_read() {
        let longest = "x".repeat(TOKEN_MAX);
        let cases = [
            ("Bearer abc".to_owned(), "abc"),
            ("bearer abc".to_owned(), "abc"),
            ("BEARER    a.b-c_d~e+f/g==".to_owned(), "a.b-c_d~e+f/g=="),
            (format!("Bearer {longest}"), &longest),
        ];
        for (value, token) in cases {
            assert_eq!(bearer(&authorization(&[value.as_bytes()])), Ok(token));
        }
    }

    #[test]
    fn no_token_is_missing() {
        let cases: [&[&[u8]]; 8] =
            [&[], &[b""], &[b"Bearer"], &[b"Bearer "], &[b"Bearer    "], &[b"Basic abc"], &[b"Bearerabc"], &[b" "]];
        for values in cases {
            assert_eq!(bearer(&authorization(values)), Err(BearerError::Missing), "{values:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_token_is_invalid() {
        let too_long = format!("Bearer {}", "x".repeat(TOKEN_MAX + 1));
        let cases: [&[&[u8]]; 12] = [
            &[b"Bearer\tabc"],
            &[b"Bearer \tabc"],
            &[b"Bearer\t abc"],
            &[b"Bearer abc", b"Bearer abc"],
            &[b"Bearer abc", b"Basic abc"],
            &[b"Bearer a b"],
            &[b"Bearer abc, Bearer def"],
            &[b"Bearer abc "],
            &[b"Bearer \"abc\""],
            &[b"Bearer =abc"],
            &[b"Bearer \xc3\xa9"],
            &[too_long.as_bytes()],
        ];
        for values in cases {
            assert_eq!(bearer(&authorization(values)), Err(BearerError::Invalid), "{values:?}");
        }
    }
}
