//! A role inside a tenant, in a form that a header can carry beside other roles.

use std::fmt;
use std::str::FromStr;

/// The longest role, in bytes: `org:` and a name of 256 (contracts §11.2).
const ROLE_MAX: usize = 260;

/// A role's name as it appears in `X-User-Roles`: 1 to 260 visible ASCII bytes and no comma, which
/// separates roles there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Role(String);

/// Refused as a role: empty, too long, or with a byte that a list of roles in a header cannot carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {ROLE_MAX} visible ASCII characters without a comma")]
pub struct InvalidRole;

impl Role {
    /// Returns the role as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Role {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=ROLE_MAX).contains(&text.len());
        let clean = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
        if fits && clean { Ok(Self(text.to_owned())) } else { Err(InvalidRole) }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl PartialEq<str> for Role {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

/// Returns the roles as one header value, separated by commas.
pub fn join(roles: &[Role]) -> String {
    let names: Vec<&str> = roles.iter().map(Role::as_str).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_fits_into_a_list_of_roles() {
        for good in ["admin", "org:admin", "a", &"x".repeat(260)] {
            assert_eq!(good.parse::<Role>().unwrap().as_str(), good);
        }
        for bad in ["", "a,b", "a b", "a\r\nX-Admin: 1", "é", &"x".repeat(261)] {
            assert_eq!(bad.parse::<Role>(), Err(InvalidRole), "{bad:?}");
        }
        assert_eq!(join(&["a".parse().unwrap(), "b".parse().unwrap()]), "a,b");
    }
}
