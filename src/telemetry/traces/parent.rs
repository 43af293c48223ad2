//! `traceparent`, read and written (W3C Trace Context §3.2).
//!
//! A value that does not follow the specification exactly names no parent.

use http::HeaderValue;

use super::ids::{SpanId, TraceId};

/// The caller's span, as the caller names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) sampled: bool,
    pub(super) random: bool,
}

const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

/// Returns the parent that a header value names.
pub(super) fn parse(value: &[u8]) -> Option<Parent> {
    let (known, more) = value.split_at_checked(55)?;
    let [version, trace, span, flags] =
        <[&[u8]; 4]>::try_from(known.split(|byte| *byte == b'-').collect::<Vec<_>>()).ok()?;
    let version = number(version, 2)?;
    // A later version may have more fields, after one more dash.
    let whole = if version == 0 { more.is_empty() } else { more.is_empty() || more.starts_with(b"-") };
    if version == 0xff || !whole {
        return None;
    }
    let flags = u8::try_from(number(flags, 2)?).ok()?;
    Some(Parent {
        trace: TraceId(number(trace, 32).filter(|id| *id != 0)?),
        span: SpanId(u64::try_from(number(span, 16)?).ok().filter(|id| *id != 0)?),
        sampled: flags & SAMPLED != 0,
        random: flags & RANDOM != 0,
    })
}

/// Returns the header value that names a span as the parent.
///
/// # Panics
///
/// Never: hex digits and dashes are a valid header value.
pub(super) fn render(trace: TraceId, span: SpanId, flags: u8) -> HeaderValue {
    let text = format!("00-{trace}-{:016x}-{flags:02x}", span.0);
    HeaderValue::try_from(text).expect("hex digits and dashes are a valid header value")
}

// The specification allows lower case only.
fn number(digits: &[u8], length: usize) -> Option<u128> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != length || !digits.iter().all(is_digit) {
        return None;
    }
    u128::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

    #[test]
    fn what_is_written_is_read_again() {
        for flags in 0..=3 {
            let value = render(TraceId(TRACE), SpanId(SPAN), flags);
            assert_eq!(value, format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags:02x}"));
            let (sampled, random) = (flags & 1 == 1, flags & 2 == 2);
            let expected = Parent { trace: TraceId(TRACE), span: SpanId(SPAN), sampled, random };
            assert_eq!(parse(value.as_bytes()), Some(expected));
        }
    }

    #[test]
    fn a_later_version_may_say_more_and_this_one_may_not() {
        let known = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (text, good) in [
            (format!("00-{known}"), true),
            (format!("01-{known}"), true),
            (format!("fe-{known}-what-else"), true),
            (format!("fe-{known}-"), true),
            (format!("fe-{known}x"), false),
            (format!("00-{known}-"), false),
            (format!("ff-{known}"), false),
            (format!("0-{known}0"), false),
        ] {
            assert_eq!(parse(text.as_bytes()).is_some(), good, "{text}");
        }
    }

    #[test]
    fn what_is_not_exactly_right_names_no_parent() {
        for text in [
            "",
            "00",
            "----",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7 01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0\u{301}",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
