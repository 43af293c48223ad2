//! What a path needs.

use super::read::{FromKeys, FromTree, Notes, SectionKeys, TreePlace};
use crate::model::Dialect;

/// One rule: what requests under a path need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRule {
    /// The rule's name in logs and metrics; its position (`route-0`) when absent.
    pub id: Option<String>,
    /// A normalised path: literal, `*` for one segment, a last `**` for any rest.
    pub path: String,
    /// Methods it applies to; empty for all.
    pub methods: Vec<String>,
    /// Whether a session is needed.
    pub auth: Auth,
    /// Whether guests may pass where a session is needed.
    pub allow_anonymous: bool,
    /// Roles of which the principal must have one; empty for none.
    pub require_any_role: Vec<String>,
    /// Resets the session's end to now plus its lifetime when such an exchange begins.
    pub stream: bool,
    /// Forwards `Authorization` and the session cookie instead of removing them.
    pub keep_credentials: bool,
    /// The shape of refusals: `detail`, `envelope`, `nest` or `clerk`.
    pub errors: Dialect,
}

impl FromKeys for RouteRule {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self {
            id: keys.take("id"),
            path: keys.take("path"),
            methods: keys.take_or("methods", Vec::new()),
            auth: keys.take("auth"),
            allow_anonymous: keys.take_or("allow_anonymous", true),
            require_any_role: keys.take_or("require_any_role", Vec::new()),
            stream: keys.take_or("stream", false),
            keep_credentials: keys.take_or("keep_credentials", false),
            errors: keys.take_or("errors", Dialect::Detail),
        }
    }
}

/// Whether a session is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// No session is looked for; no identity is forwarded.
    None,
    /// A valid session is forwarded; none at all is fine; a bad one is refused.
    Optional,
    /// Only live sessions pass.
    Required,
}

impl FromTree for Auth {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        let words = [("none", Self::None), ("optional", Self::Optional), ("required", Self::Required)];
        place.one_of(notes, &words, Self::None)
    }
}

/// Identity headers beside `X-User-ID` and `X-Client-ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four independent switches of one YAML section")]
pub struct IdentityHeaders {
    /// Sends `X-Session-ID`.
    pub session_id: bool,
    /// Sends `X-User-Roles`, comma-separated.
    pub roles: bool,
    /// Sends `X-User-Kind`: `user`, `anonymous` or `admin`.
    pub kind: bool,
    /// Sends `X-Actor-ID` when another person acts for the user.
    pub actor: bool,
}

impl FromKeys for IdentityHeaders {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self {
            session_id: keys.take("session_id"),
            roles: keys.take("roles"),
            kind: keys.take("kind"),
            actor: keys.take("actor"),
        }
    }
}

impl RouteRule {
    /// Returns the rule's name, given its position in the list.
    pub fn id_at(&self, position: usize) -> String {
        self.id.clone().unwrap_or_else(|| format!("route-{position}"))
    }
}
