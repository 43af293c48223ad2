//! The one spelling of a path that rules and upstream both see.
//!
//! The upstream receives the very string that the rules were matched against. A path that two
//! parsers could read differently (dot segments, empty segments, encoded separators, backslashes)
//! is refused with 400 rather than guessed at: GHSA-p224-6x5r-fjpm, CVE-2026-42274,
//! CVE-2021-31920 and their kin all began with a policy that saw another path than the application.

use std::borrow::Cow;

/// Why a request target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ambiguous request path")]
pub struct AmbiguousPath;

/// Returns the one spelling of a path that rules and upstream both see.
///
/// Escapes of unreserved characters are decoded and the others get upper-case digits (RFC 3986
/// §6.2.2); a path that could still be read in two ways is refused.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, AmbiguousPath> {
    let normal = if path.contains('%') { Cow::Owned(decode_unreserved(path)?) } else { Cow::Borrowed(path) };
    let rest = normal.strip_prefix('/').ok_or(AmbiguousPath)?;
    if !normal.bytes().all(is_path_byte) || is_escaped_twice(&normal) {
        return Err(AmbiguousPath);
    }
    // A trailing slash leaves one empty segment at the end, which is fine; any other is not.
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        let empty_inside = segment.is_empty() && segments.peek().is_some();
        if empty_inside || is_dot_segment(segment) {
            return Err(AmbiguousPath);
        }
    }
    Ok(normal)
}

// To an application that decodes twice, an escaped percent sign before two digits is an escape that
// no rule was matched against. Any other `%25` is only a percent sign.
fn is_escaped_twice(normal: &str) -> bool {
    let begins_with_digits = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    normal.contains('%') && normal.split("%25").skip(1).any(begins_with_digits)
}

// `..;x` is a dot segment to Java servers, which drop path parameters before resolving; behind a
// proxy that decodes for them `..%3Bx` is one too.
fn is_dot_segment(segment: &str) -> bool {
    let name = || segment.split(';').next().and_then(|name| name.split("%3B").next());
    segment.starts_with('.') && matches!(name(), Some("." | ".."))
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'#' | b'?')
}

fn decode_unreserved(path: &str) -> Result<String, AmbiguousPath> {
    let mut normal = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        normal.push_str(before);
        let (digits, after) = after.split_at_checked(2).ok_or(AmbiguousPath)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(AmbiguousPath);
        }
        match u8::from_str_radix(digits, 16).map_err(|_| AmbiguousPath)? {
            b'/' | b'\\' | 0..=0x1F | 0x7F => return Err(AmbiguousPath),
            byte @ (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~') => {
                normal.push(char::from(byte));
            }
            _ => {
                normal.push('%');
                normal.push_str(&digits.to_ascii_uppercase());
            }
        }
        rest = after;
    }
    normal.push_str(rest);
    Ok(normal)
}

/// Returns what follows `prefix` in a path: nothing, or a slash and more; `None` for other paths.
///
/// Escapes of unreserved characters count as what they stand for, so that the answer is the same
/// before and after [`normalise`]; `prefix` is made of slashes and such characters.
pub fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = prefix.bytes().try_fold(path, strip_byte)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

fn strip_byte(text: &str, wanted: u8) -> Option<&str> {
    text.strip_prefix(char::from(wanted)).or_else(|| {
        let (digits, rest) = text.strip_prefix('%')?.split_at_checked(2)?;
        let escaped = u8::from_str_radix(digits, 16).is_ok_and(|byte| byte == wanted);
        (escaped && wanted != b'/').then_some(rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_the_same_before_and_after_normalising() {
        for (path, rest) in [
            ("/_doorward/verify", Some("")),
            ("/_doorward/verify/a", Some("/a")),
            ("/_doorward/%76erify", Some("")),
            ("/%5fdoorward/%76%65rif%79/%61", Some("/%61")),
            ("/_doorward/verifya", None),
            ("/_doorward/verify%61", None),
            ("/_doorward/%56erify", None),
            ("/_doorward/verif", None),
            ("/_doorward/verif%7", None),
            ("/_doorward%2fverify", None),
            ("%2f_doorward/verify", None),
            ("/a", None),
            ("", None),
        ] {
            assert_eq!(below(path, "/_doorward/verify"), rest, "{path}");
            if let Ok(normal) = normalise(path) {
                assert_eq!(below(&normal, "/_doorward/verify").is_some(), rest.is_some(), "{path}");
            }
        }
    }

    #[test]
    fn ordinary_paths_are_left_as_they_are() {
        for path in
            ["/", "/a", "/a/", "/a/b.c/..d/d..", "/a;v=1/b", "/@:!$&'()*+,=~-_", "/a%20b", "/100%25", "/%25%25/%25of"]
        {
            assert_eq!(normalise(path).as_deref(), Ok(path), "{path}");
        }
    }

    #[test]
    fn escapes_have_one_spelling() {
        for (path, normal) in [
            ("/%61dmin", "/admin"),
            ("/%7Euser", "/~user"),
            ("/a%2db", "/a-b"),
            ("/%c3%a9", "/%C3%A9"),
            ("/a%3bb", "/a%3Bb"),
        ] {
            assert_eq!(normalise(path).as_deref(), Ok(normal), "{path}");
        }
    }

    #[test]
    fn paths_that_two_parsers_read_differently_are_refused() {
        for path in [
            "",
            "a",
            "*",
            "//",
            "//admin",
            "/a//b",
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/public/%2e%2e/admin",
            "/public/%2E%2e/admin",
            "/public/.%2e/admin",
            "/public/..;/admin",
            "/public/..;x=1/admin",
            "/public/%2e%2e;/x",
            "/public/..%3b/admin",
            "/%252e%252e",
            "/%25%32e",
            "/%252561dmin",
            "/a%252fb",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a%5Cb",
            "/a\\b",
            "/a%00",
            "/a%0d%0a",
            "/a%7f",
            "/a#b",
            "/a b",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%+1",
            "/é",
            "http://host/a",
        ] {
            assert_eq!(normalise(path), Err(AmbiguousPath), "{path}");
        }
    }

    #[test]
    fn normalising_twice_changes_nothing() {
        for path in ["/%61%2D%7e", "/%c3%a9/%25", "/x/%3B"] {
            let once = normalise(path).unwrap().into_owned();
            assert_eq!(normalise(&once).as_deref(), Ok(once.as_str()));
        }
    }
}
