//! Names of header fields that several rooms read or write, and what a value of one may hold.

use http::HeaderName;

/// Names an exchange, towards the caller and towards the application.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The addresses that a request came through, the caller's first.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The scheme that the caller used.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host that the caller asked for.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The method that the caller used.
pub const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
/// The path and query that the caller asked for.
pub const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// Names one request across its repetitions.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Returns whether a text is 1 to `bytes_max` visible ASCII characters: no space, no control character.
///
/// Such a text can be a header value or part of a log line and cannot end either of them early.
pub fn is_visible_ascii(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_ascii_has_neither_spaces_nor_control_characters() {
        for good in ["a", "!", "~", "user_2b", "\"quoted\"", &"x".repeat(16)] {
            assert!(is_visible_ascii(good, 16), "{good:?}");
        }
        for bad in ["", " ", "a b", "a\tb", "a\r\nb", "a\0", "\u{7f}", "é", &"x".repeat(17)] {
            assert!(!is_visible_ascii(bad, 16), "{bad:?}");
        }
    }
}
