//! Who a session acts for.

use std::fmt;
use std::str::FromStr;

/// The longest value that may become an identity header, in bytes (contracts §2.2).
pub(super) const HEADER_VALUE_MAX: usize = 256;

/// What a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrincipalKind {
    /// A signed-in person.
    User,
    /// A guest known only by a device.
    Anonymous,
    /// An operator.
    Admin,
}

/// A principal's identifier exactly as it appears in `X-User-ID`: 1 to 256 visible ASCII bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PrincipalId(String);

/// A tenant's identifier exactly as it appears in `X-Client-ID`: 1 to 256 visible ASCII bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TenantId(String);

/// Who acts in a principal's name (Clerk `act.sub`), exactly as in `X-Actor-ID`: 1 to 256 visible
/// ASCII bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ActorId(String);

/// Who a session acts for, always within a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// What the principal is.
    pub kind: PrincipalKind,
    /// Its identifier, unique within the tenant.
    pub id: PrincipalId,
    /// The customer scope it acts in.
    pub tenant: TenantId,
}

/// Refused as an identifier: empty, too long, or with a byte that a header cannot carry safely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {HEADER_VALUE_MAX} visible ASCII characters")]
pub struct InvalidIdentifier;

impl PrincipalKind {
    /// Returns the stable lower-case name used on the wire, in stores and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Anonymous => "anonymous",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for PrincipalKind {
    type Err = InvalidIdentifier;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "user" => Ok(Self::User),
            "anonymous" => Ok(Self::Anonymous),
            "admin" => Ok(Self::Admin),
            _ => Err(InvalidIdentifier),
        }
    }
}

impl PrincipalId {
    /// Returns the identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Wraps text that was found fit for a header before.
    pub(super) fn from_safe(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for PrincipalId {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        header_safe(text).map(Self)
    }
}

impl TenantId {
    /// Returns the identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Wraps text that was found fit for a header before.
    pub(super) fn from_safe(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for TenantId {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        header_safe(text).map(Self)
    }
}

impl ActorId {
    /// Returns the identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ActorId {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        header_safe(text).map(Self)
    }
}

impl fmt::Display for PrincipalId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

// CR, LF, NUL and non-ASCII are refused here, once, so that no later layer can be made to write a
// header that splits (mod_auth_openidc advisory of 2026-05-23).
pub(super) fn header_safe(text: &str) -> Result<String, InvalidIdentifier> {
    let fits = (1..=HEADER_VALUE_MAX).contains(&text.len());
    if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) { Ok(text.to_owned()) } else { Err(InvalidIdentifier) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_carry_only_visible_ascii() {
        for good in ["user_2b", "anon:0d9c1c1e", "a", &"x".repeat(256)] {
            assert_eq!(good.parse::<PrincipalId>().unwrap().as_str(), good);
        }
        for bad in ["", " ", "a b", "a\r\nX-Admin: 1", "a\0", "é", &"x".repeat(257)] {
            assert_eq!(bad.parse::<PrincipalId>(), Err(InvalidIdentifier), "{bad:?}");
            assert_eq!(bad.parse::<TenantId>(), Err(InvalidIdentifier), "{bad:?}");
        }
    }
}
