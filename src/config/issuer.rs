//! Issuers of JWTs that may be exchanged for a session.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::{duration, listen};
use crate::model::{Role, TenantId};

/// One issuer of session JWTs: a Clerk instance, or another that signs the same shape.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "four independent switches of one YAML section")]
pub struct Issuer {
    /// The exact `iss` claim.
    pub issuer: String,
    /// Where its key set is published. Exactly one of `jwks_url`, `jwks_file` and `pem_file` is set.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// A file with its key set, reread when it changes.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// A PEM file with its one public key, reread when it changes.
    #[serde(default)]
    pub pem_file: Option<PathBuf>,
    /// PEM file with the authorities to trust for `jwks_url`; the system's when absent.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Accepted `azp` claims; empty accepts any.
    #[serde(default)]
    pub authorized_parties: Vec<String>,
    /// Accept a JWT without `azp` although `authorized_parties` is set: native apps send none.
    #[serde(default)]
    pub allow_missing_azp: bool,
    /// Accepted `aud` claims; empty does not look.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Accept JWTs made from a template, which Clerk signs with the same key.
    #[serde(default)]
    pub accept_template_tokens: bool,
    /// Accept JWTs whose `act` claim names another subject who acts in the user's name.
    #[serde(default)]
    pub allow_impersonation: bool,
    /// Refuse a second exchange of the same JWT.
    #[serde(default)]
    pub single_use: bool,
    /// What `sub` must begin with.
    #[serde(default = "clerk_subject")]
    pub subject_prefix: String,
    /// The least time between two key fetches that tokens provoke.
    #[serde(default = "refetch_interval", deserialize_with = "duration::deserialize")]
    pub refetch_interval: Duration,
    /// What its users are to the application; [`UserId::Local`] when absent. In `issuers` only, like
    /// all that follows: the section `clerk` names users, tenants and roles as they stand.
    #[serde(default)]
    pub user_id: Option<UserId>,
    /// The tenant of its users who come without an organisation; one named like the issuer when absent.
    #[serde(default, deserialize_with = "tenant")]
    pub tenant: Option<TenantId>,
    /// Which tenant an organisation is; one that is not listed is a tenant of the issuer's own.
    #[serde(default, deserialize_with = "names")]
    pub organizations: BTreeMap<String, TenantId>,
    /// Which role `org:<role>` is; one that is not listed is a role of the issuer's own.
    #[serde(default, deserialize_with = "names")]
    pub roles: BTreeMap<String, Role>,
    /// The provider whose users, tenants and roles these are: `clerk`, or another entry of `issuers`.
    #[serde(default)]
    pub same_as: Option<String>,
}

/// What becomes `X-User-ID` of an issuer's users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserId {
    /// An id that the directory gives them.
    Local,
    /// `sub`, as it stands.
    Subject,
}

/// Anything that parses from text, inside a map or an option.
#[derive(Deserialize)]
#[serde(transparent, bound = "T: FromStr<Err: fmt::Display>")]
struct Parsed<T>(#[serde(deserialize_with = "listen::from_text")] T);

fn tenant<'de, D: Deserializer<'de>>(input: D) -> Result<Option<TenantId>, D::Error> {
    Ok(Option::<Parsed<TenantId>>::deserialize(input)?.map(|Parsed(tenant)| tenant))
}

fn names<'de, D, T>(input: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let listed = BTreeMap::<String, Parsed<T>>::deserialize(input)?;
    Ok(listed.into_iter().map(|(theirs, Parsed(ours))| (theirs, ours)).collect())
}

// An issuer appears only in maps and options, where the embedded defaults cannot reach.
fn clerk_subject() -> String {
    "user_".to_owned()
}

fn refetch_interval() -> Duration {
    Duration::from_secs(10)
}
