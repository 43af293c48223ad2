//! What a JWT with a good signature says: rules 7 to 14 of contracts §11.1, in that order.
//!
//! A claim of the wrong JSON type never passes for an absent one. The tenant comes only from the
//! claims that Clerk itself reserves in that version of its tokens: an application may fill any
//! other claim from what its users type in. Tenant, role and actor leave here under the names
//! that the issuer may use for them.

use std::time::Duration;

use serde_json::{Map, Value};

use super::namespace::Namespace;
use super::{IdentityError, Reason};
use crate::config::Issuer;
use crate::model::{ActorId, Identity, Role, Subject, TenantId};
use crate::time::Timestamp;
use crate::wire::headers::is_visible_ascii;

type Claims = Map<String, Value>;

const SKEW: Duration = Duration::from_secs(5);
const TEXT_BYTES_MAX: usize = 256;
/// The end of the year 9999: later is no date.
const SECONDS_MAX: u64 = 253_402_300_799;
/// Clerk's machines, and the names Doorward gives to guests.
const SUBJECTS_REFUSED: [&str; 2] = ["mch_", "anon:"];

/// Returns the identity that `claims` assert at `now`, its proof id left open.
pub(super) fn identify(
    rules: &Issuer,
    namespace: &Namespace,
    claims: &Claims,
    now: Timestamp,
) -> Result<Identity, IdentityError> {
    if text(claims, "iss") != Some(&rules.issuer) {
        return Err(Reason::IssuerMismatch.into());
    }
    let issued_at = check_times(claims, now)?;
    check_parties(rules, claims)?;
    let subject = subject(rules, claims)?;
    let provider_session = text(claims, "sid").filter(|sid| is_visible_ascii(sid, TEXT_BYTES_MAX));
    let provider_session = provider_session.ok_or(Reason::MissingSessionId)?.to_owned();
    if claims.get("sts").is_some_and(|status| status != "active") {
        return Err(Reason::SessionPending.into());
    }
    let actor = actor(rules, namespace, claims)?;
    let (tenant, role) = organization(namespace, claims)?;
    Ok(Identity {
        provider: namespace.provider().clone(),
        subject,
        tenant,
        roles: role.into_iter().collect(),
        provider_session: Some(provider_session),
        actor,
        authenticated_at: issued_at,
        proof_id: None,
    })
}

/// Rule 8. Returns when the JWT was issued, never later than `now`.
fn check_times(claims: &Claims, now: Timestamp) -> Result<Timestamp, IdentityError> {
    let expires_at = time(claims, "exp")?.ok_or(Reason::Malformed)?;
    if now >= expires_at.plus(SKEW) {
        return Err(IdentityError::Expired);
    }
    let not_before = time(claims, "nbf")?;
    let issued_at = time(claims, "iat")?;
    if not_before.is_some_and(|at| at > now.plus(SKEW)) {
        return Err(Reason::NotYetValid.into());
    }
    if issued_at.is_some_and(|at| at > now.plus(SKEW)) {
        return Err(Reason::IssuedInTheFuture.into());
    }
    // An issuer's clock that is ahead must not carry a login past a revocation made after it.
    Ok(issued_at.map_or(now, |at| at.min(now)))
}

/// Rules 9 and 10.
fn check_parties(rules: &Issuer, claims: &Claims) -> Result<(), Reason> {
    let authorized = match claims.get("azp") {
        _ if rules.authorized_parties.is_empty() => true,
        None => rules.allow_missing_azp,
        Some(party) => is_listed(&rules.authorized_parties, party),
    };
    if !authorized {
        return Err(Reason::AuthorizedPartyMismatch);
    }
    let addressed = match claims.get("aud") {
        _ if rules.audiences.is_empty() => true,
        None => false,
        Some(Value::Array(several)) => several.iter().any(|audience| is_listed(&rules.audiences, audience)),
        Some(audience) => is_listed(&rules.audiences, audience),
    };
    if addressed { Ok(()) } else { Err(Reason::AudienceMismatch) }
}

/// Rule 11.
fn subject(rules: &Issuer, claims: &Claims) -> Result<Subject, Reason> {
    text(claims, "sub").and_then(|sub| subject_of(&rules.subject_prefix, sub)).ok_or(Reason::MissingSubject)
}

/// Returns `id` as a subject of the issuer whose subjects begin with `subject_prefix`; `None` when none of its
/// users can be called so.
pub fn subject_of(subject_prefix: &str, id: &str) -> Option<Subject> {
    let refused = SUBJECTS_REFUSED.iter().any(|refused| id.starts_with(refused));
    if refused || !id.starts_with(subject_prefix) { None } else { id.parse().ok() }
}

/// Rule 14.
fn actor(rules: &Issuer, namespace: &Namespace, claims: &Claims) -> Result<Option<ActorId>, Reason> {
    let Some(act) = claims.get("act") else { return Ok(None) };
    if !rules.allow_impersonation {
        return Err(Reason::ImpersonationNotAllowed);
    }
    let actor = act.get("sub").and_then(Value::as_str).ok_or(Reason::Malformed)?;
    namespace.actor(actor).map(Some)
}

/// Returns the organisation as tenant and the role in it, which the issuer calls `org:<role>` (contracts
/// §11.2): claim `o` in version 2, `org_id` and `org_role` before.
fn organization(namespace: &Namespace, claims: &Claims) -> Result<(Option<TenantId>, Option<Role>), Reason> {
    let version = match claims.get("v") {
        None => 1,
        Some(version) => version.as_u64().ok_or(Reason::Malformed)?,
    };
    let (id, role) = match version {
        1 => (claims.get("org_id"), claims.get("org_role")),
        2 => match claims.get("o") {
            None | Some(Value::Null) => (None, None),
            Some(Value::Object(organization)) => (organization.get("id"), organization.get("rol")),
            Some(_) => return Err(Reason::Malformed),
        },
        _ => return Err(Reason::Malformed),
    };
    // A role is a role somewhere: without an organisation it means nothing.
    let Some(id) = optional_text(id)? else { return Ok((namespace.tenant(None)?, None)) };
    let role = optional_text(role)?.map(role_name).transpose()?;
    Ok((namespace.tenant(Some(id))?, role.map(|name| namespace.role(name)).transpose()?))
}

fn role_name(role: &str) -> Result<Role, Reason> {
    let name = role.strip_prefix("org:").unwrap_or(role);
    let role = format!("org:{name}").parse().ok().filter(|_| !name.is_empty());
    role.ok_or(Reason::Malformed)
}

fn text<'a>(claims: &'a Claims, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str)
}

fn optional_text(value: Option<&Value>) -> Result<Option<&str>, Reason> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Reason::Malformed),
    }
}

fn is_listed(list: &[String], value: &Value) -> bool {
    list.iter().any(|listed| value == listed.as_str())
}

// RFC 7519 §2: a NumericDate is a JSON number, possibly with a fraction.
fn time(claims: &Claims, name: &str) -> Result<Option<Timestamp>, Reason> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().ok_or(Reason::Malformed)?;
    let since_epoch = Duration::try_from_secs_f64(seconds).map_err(|_| Reason::Malformed)?;
    if since_epoch.as_secs() > SECONDS_MAX { Err(Reason::Malformed) } else { Ok(Some(Timestamp(0).plus(since_epoch))) }
}
