//! Which of the four error shapes a caller reads (contracts §3.1). `api::dialect` writes them.

use std::str::FromStr;

/// A shape of error bodies, with the statuses and texts that belong to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `{"detail": text}`.
    #[default]
    Detail,
    /// `{"success": false, "error": {"message", "code"}}`.
    Envelope,
    /// `{"statusCode", "message", "error"}`.
    Nest,
    /// `{"errors": [{"message", "long_message", "code"}], "clerk_trace_id"}`.
    Clerk,
}

/// A text names no dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be \"detail\", \"envelope\", \"nest\" or \"clerk\"")]
pub struct UnknownDialect;

impl Dialect {
    /// Every dialect, the default one first.
    pub const ALL: [Self; 4] = [Self::Detail, Self::Envelope, Self::Nest, Self::Clerk];

    /// Returns the name that the configuration knows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detail => "detail",
            Self::Envelope => "envelope",
            Self::Nest => "nest",
            Self::Clerk => "clerk",
        }
    }
}

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(text: &str) -> Result<Self, UnknownDialect> {
        Self::ALL.into_iter().find(|dialect| dialect.as_str() == text).ok_or(UnknownDialect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialect_is_known_by_its_exact_name() {
        for dialect in Dialect::ALL {
            assert_eq!(dialect.as_str().parse(), Ok(dialect));
        }
        for text in ["", "Detail", "json", "detail "] {
            assert_eq!(text.parse::<Dialect>(), Err(UnknownDialect), "{text}");
        }
    }
}
