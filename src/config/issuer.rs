//! Issuers of JWTs that may be exchanged for a session.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::read::{FromKeys, FromTree, Notes, SectionKeys, TreePlace};
use crate::model::{Role, TenantId};

/// The least time between two key fetches that tokens provoke, unless an issuer says another.
const REFETCH_INTERVAL: Duration = Duration::from_secs(10);

/// One issuer of session JWTs: a Clerk instance, or another that signs the same shape.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "four independent switches of one YAML section")]
pub struct Issuer {
    /// The exact `iss` claim.
    pub issuer: String,
    /// Where its key set is published. Exactly one of `jwks_url`, `jwks_file` and `pem_file` is set.
    pub jwks_url: Option<String>,
    /// A file with its key set, reread when it changes.
    pub jwks_file: Option<PathBuf>,
    /// A PEM file with its one public key, reread when it changes.
    pub pem_file: Option<PathBuf>,
    /// PEM file with the authorities to trust for `jwks_url`; the system's when absent.
    pub ca: Option<PathBuf>,
    /// Accepted `azp` claims; empty accepts any.
    pub authorized_parties: Vec<String>,
    /// Accept a JWT without `azp` although `authorized_parties` is set: native apps send none.
    pub allow_missing_azp: bool,
    /// Accepted `aud` claims; empty does not look.
    pub audiences: Vec<String>,
    /// Accept JWTs made from a template, which Clerk signs with the same key.
    pub accept_template_tokens: bool,
    /// Accept JWTs whose `act` claim names another subject who acts in the user's name.
    pub allow_impersonation: bool,
    /// Refuse a second exchange of the same JWT.
    pub single_use: bool,
    /// What `sub` must begin with.
    pub subject_prefix: String,
    /// The least time between two key fetches that tokens provoke.
    pub refetch_interval: Duration,
    /// What its users are to the application; [`UserId::Local`] when absent. In `issuers` only, like
    /// all that follows: the section `clerk` names users, tenants and roles as they stand.
    pub user_id: Option<UserId>,
    /// The tenant of its users who come without an organisation; one named like the issuer when absent.
    pub tenant: Option<TenantId>,
    /// Which tenant an organisation is; one that is not listed is a tenant of the issuer's own.
    pub organizations: BTreeMap<String, TenantId>,
    /// Which role `org:<role>` is; one that is not listed is a role of the issuer's own.
    pub roles: BTreeMap<String, Role>,
    /// The provider whose users, tenants and roles these are: `clerk`, or another entry of `issuers`.
    pub same_as: Option<String>,
}

/// What becomes `X-User-ID` of an issuer's users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserId {
    /// An id that the directory gives them.
    Local,
    /// `sub`, as it stands.
    Subject,
}

impl FromTree for UserId {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        place.one_of(notes, &[("local", Self::Local), ("subject", Self::Subject)], Self::Local)
    }
}

impl FromKeys for Issuer {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self {
            issuer: keys.take("issuer"),
            jwks_url: keys.take("jwks_url"),
            jwks_file: keys.take("jwks_file"),
            pem_file: keys.take("pem_file"),
            ca: keys.take("ca"),
            authorized_parties: keys.take_or("authorized_parties", Vec::new()),
            allow_missing_azp: keys.take_or("allow_missing_azp", false),
            audiences: keys.take_or("audiences", Vec::new()),
            accept_template_tokens: keys.take_or("accept_template_tokens", false),
            allow_impersonation: keys.take_or("allow_impersonation", false),
            single_use: keys.take_or("single_use", false),
            subject_prefix: keys.take_or("subject_prefix", "user_".to_owned()),
            refetch_interval: keys.take_or("refetch_interval", REFETCH_INTERVAL),
            user_id: keys.take_or("user_id", None),
            tenant: keys.take_or("tenant", None),
            organizations: keys.take_or("organizations", BTreeMap::new()),
            roles: keys.take_or("roles", BTreeMap::new()),
            same_as: keys.take_or("same_as", None),
        }
    }
}
