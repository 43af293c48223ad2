//! What a provider asserted about a caller.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::model::principal::{HEADER_VALUE_MAX, InvalidIdentifier, header_safe};
use crate::model::{ActorId, PrincipalId, Role, TenantId};
use crate::time::Timestamp;

/// The longest name of a provider, in bytes: with a tenant's or role's own name it fits a header.
const PROVIDER_MAX: usize = 32;

/// What the configuration calls a provider: `clerk`, or the key of an entry of `issuers`.
///
/// One to 32 of `a` to `z`, `0` to `9` and `-`, the first of them a letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProviderId(Cow<'static, str>);

/// What a provider calls one of its users: 1 to 256 visible ASCII bytes, proven, meaningless without the provider.
///
/// Two providers may call different people the same. `accounts::Resolver` knows who is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(String);

/// A proof from outside that a caller is who they say, already verified.
///
/// `tenant`, `roles` and `actor` are what the provider is allowed to name; whose account the
/// subject is has not been looked up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The provider that vouches.
    pub provider: ProviderId,
    /// The provider's name for the user.
    pub subject: Subject,
    /// The tenant; `None` when the provider named none and the deployment's default is meant.
    pub tenant: Option<TenantId>,
    /// Roles inside the tenant.
    pub roles: Vec<Role>,
    /// The provider's own session (Clerk `sid`), so that its end can end ours.
    pub provider_session: Option<String>,
    /// Who acts in the user's name, when the provider says so (Clerk `act.sub`).
    pub actor: Option<ActorId>,
    /// When the provider authenticated the user; a later revoke-all refuses earlier logins.
    pub authenticated_at: Timestamp,
    /// Identifies this very proof, so that a provider can be configured for single use.
    pub proof_id: Option<String>,
}

/// Refused as the name of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {PROVIDER_MAX} of a-z, 0-9 and \"-\", and begin with a letter")]
pub struct InvalidProviderId;

impl ProviderId {
    /// The section `clerk`.
    pub const CLERK: Self = Self(Cow::Borrowed("clerk"));
    /// Doorward itself, which derives guests from device ids.
    pub const DEVICE: Self = Self(Cow::Borrowed("device"));

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns `<provider>:<name>`: what the provider calls `name`, and no other provider can mean.
    ///
    /// An error when that is longer than an identity header can be.
    pub fn qualified(&self, name: &str) -> Result<String, InvalidIdentifier> {
        header_safe(&format!("{self}:{name}"))
    }

    /// Returns whether `text` is this provider's name or qualified by it.
    pub fn owns(&self, text: &str) -> bool {
        text.strip_prefix(self.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }
}

impl FromStr for ProviderId {
    type Err = InvalidProviderId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = text.len() <= PROVIDER_MAX && text.starts_with(|first: char| first.is_ascii_lowercase());
        if fits && text.bytes().all(allowed) { Ok(Self(text.to_owned().into())) } else { Err(InvalidProviderId) }
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl From<ProviderId> for TenantId {
    fn from(provider: ProviderId) -> Self {
        Self::from_safe(provider.0.into_owned())
    }
}

impl Subject {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Subject {
    type Err = InvalidIdentifier;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        header_safe(text).map(Self)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// For providers whose subjects are ids of this deployment as they stand.
impl From<&Subject> for PrincipalId {
    fn from(subject: &Subject) -> Self {
        Self::from_safe(subject.0.clone())
    }
}

// A provider's name alone has to fit where a qualified one does.
const _: () = assert!(PROVIDER_MAX < HEADER_VALUE_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_has_a_name_that_qualifies_others() {
        for good in ["clerk", "a", "partner-2", &"x".repeat(32)] {
            assert_eq!(good.parse::<ProviderId>().unwrap().as_str(), good);
        }
        for bad in ["", "Partner", "2nd", "-a", "a.b", "a:b", "a_b", "a b", "é", &"x".repeat(33)] {
            assert_eq!(bad.parse::<ProviderId>(), Err(InvalidProviderId), "{bad:?}");
        }
        let partner: ProviderId = "partner".parse().unwrap();
        assert_eq!(partner.qualified("org_1").unwrap(), "partner:org_1");
        assert_eq!(partner.qualified(&"x".repeat(248)).unwrap().len(), 256);
        for bad in [&"x".repeat(249), "a b", "a\r\nb"] {
            assert_eq!(partner.qualified(bad), Err(InvalidIdentifier), "{bad:?}");
        }
    }

    #[test]
    fn a_provider_owns_its_name_and_what_it_qualifies() {
        let partner: ProviderId = "partner".parse().unwrap();
        for own in ["partner", "partner:", "partner:org_1", "partner:a:b"] {
            assert!(partner.owns(own), "{own}");
        }
        for other in ["", "partners", "partner-2:org_1", "org_1", "Partner", "x:partner:"] {
            assert!(!partner.owns(other), "{other}");
        }
    }

    #[test]
    fn a_subject_is_visible_ascii() {
        for good in ["user_2b", "42", &"x".repeat(256)] {
            let subject: Subject = good.parse().unwrap();
            assert_eq!(PrincipalId::from(&subject).as_str(), good);
        }
        for bad in ["", "a b", "a\r\nX-Admin: 1", "é", &"x".repeat(257)] {
            assert_eq!(bad.parse::<Subject>(), Err(InvalidIdentifier), "{bad:?}");
        }
    }
}
