//! What a path needs.

use serde::Deserialize;

use super::listen::from_text;
use crate::model::Dialect;

/// One rule: what requests under a path need.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRule {
    /// The rule's name in logs and metrics; its position (`route-0`) when absent.
    #[serde(default)]
    pub id: Option<String>,
    /// A normalised path: literal, `*` for one segment, a last `**` for any rest.
    pub path: String,
    /// Methods it applies to; empty for all.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Whether a session is needed.
    pub auth: Auth,
    /// Whether guests may pass where a session is needed.
    #[serde(default = "yes")]
    pub allow_anonymous: bool,
    /// Roles of which the principal must have one; empty for none.
    #[serde(default)]
    pub require_any_role: Vec<String>,
    /// Resets the session's end to now plus its lifetime when such an exchange begins.
    #[serde(default)]
    pub stream: bool,
    /// Forwards `Authorization` and the session cookie instead of removing them.
    #[serde(default)]
    pub keep_credentials: bool,
    /// The shape of refusals: `detail`, `envelope`, `nest` or `clerk`.
    #[serde(default, deserialize_with = "from_text")]
    pub errors: Dialect,
}

/// Whether a session is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// Nobody is asked; no identity is forwarded.
    None,
    /// A valid session is forwarded; none at all is fine; a bad one is refused.
    Optional,
    /// Only live sessions pass.
    Required,
}

/// Identity headers beside `X-User-ID` and `X-Client-ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "four independent switches of one YAML section")]
pub struct IdentityHeaders {
    /// Sends `X-Session-ID`.
    pub session_id: bool,
    /// Sends `X-User-Roles`, comma-separated.
    pub roles: bool,
    /// Sends `X-User-Kind`: `user`, `anonymous` or `admin`.
    pub kind: bool,
    /// Sends `X-Actor-ID` when somebody acts in the user's name.
    pub actor: bool,
}

impl RouteRule {
    /// Returns the rule's name, given its position in the list.
    pub fn id_at(&self, position: usize) -> String {
        self.id.clone().unwrap_or_else(|| format!("route-{position}"))
    }
}

fn yes() -> bool {
    true
}
