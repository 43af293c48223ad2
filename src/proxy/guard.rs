//! Decides whether a request may pass. Knows no pingora and does no I/O but asking `Sessions`.
//!
//! A [`Permit`] can be made nowhere else, and nothing is forwarded without one. Policy is
//! evaluated on every request: what is cached is who the caller is, never what they may do.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, header};
use tokio::time::Instant;

use super::route::Policy;
use crate::api::extract::{BearerError, bearer, is_jwt_shaped};
use crate::config::{Auth, Cookie};
use crate::model::{PrincipalKind, Session};
use crate::session::{Refusal, Sessions, Slot, Source, StoreCall, Validated};

/// Proof that the guard let a request through.
#[derive(Clone, Debug)]
pub struct Permit {
    session: Option<Arc<Session>>,
    source: Option<Source>,
}

/// Why a request was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A session is needed and no credential came.
    MissingToken,
    /// Credentials came that cannot be read in one way only.
    MalformedCredentials,
    /// A JWT came where a session token is expected.
    NotASessionToken,
    /// The token leads to no live session, or nobody can say.
    Refused(Refusal),
    /// Guests may not pass here.
    AnonymousForbidden,
    /// The principal has none of the roles that the route asks for.
    RoleMissing,
    /// A cookie came with a request that another site may have caused.
    CrossOrigin,
    /// Somebody who is no trusted proxy asked about a request.
    UntrustedPeer,
    /// An identity header came in a spelling that an answer cannot replace.
    IdentityHeader,
}

/// When the store was asked about a request, and for what.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StoreCalls {
    /// To find the session.
    pub(super) find: Option<StoreCall>,
    /// To begin a new lifetime of it.
    pub(super) extend: Option<StoreCall>,
}

/// What a request says about who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials<'a> {
    /// Nothing at all.
    None,
    /// `Authorization: Bearer`.
    Bearer(&'a str),
    /// The session cookie.
    Cookie(&'a str),
}

impl Permit {
    /// Returns the permit of a route that asks nobody: it names nobody.
    pub(super) fn open() -> Self {
        Self { session: None, source: None }
    }

    /// Returns the session that was let through; `None` where none is needed.
    pub fn session(&self) -> Option<&Arc<Session>> {
        self.session.as_ref()
    }

    /// Returns where the answer came from.
    pub fn source(&self) -> Option<Source> {
        self.source
    }
}

/// Returns the credential of a request; a bad header is not rescued by a good cookie (contracts §9.1).
pub fn credentials<'a>(headers: &'a HeaderMap, cookie: &Cookie) -> Result<Credentials<'a>, Rejection> {
    match bearer(headers) {
        Ok(token) => return Ok(Credentials::Bearer(token)),
        Err(BearerError::Invalid) => return Err(Rejection::MalformedCredentials),
        Err(BearerError::Missing) => {}
    }
    if !cookie.enabled {
        return Ok(Credentials::None);
    }
    Ok(session_cookie(headers, &cookie.name)?.map_or(Credentials::None, Credentials::Cookie))
}

/// Returns the permit to forward a request, or why there is none; and when the store was asked.
///
/// On a route for streams the session that was let through begins a new lifetime.
pub(super) async fn authorize_and_extend(
    sessions: &Sessions,
    policy: &Policy,
    request: &Parts,
    cookie: &Cookie,
) -> (Result<Permit, Rejection>, StoreCalls) {
    let mut calls = StoreCalls::default();
    let authorized = authorize(sessions, policy, request, cookie, &mut calls.find).await;
    let decided = match authorized {
        Ok(permit) if policy.stream => Box::pin(extend(sessions, permit, &mut calls.extend)).await,
        other => other,
    };
    (decided, calls)
}

/// As `authorize_and_extend`, without a new lifetime; says in `asked` whether and when the store was asked.
pub async fn authorize(
    sessions: &Sessions,
    policy: &Policy,
    request: &Parts,
    cookie: &Cookie,
    asked: &mut Option<StoreCall>,
) -> Result<Permit, Rejection> {
    let (slot, token) = match credentials(&request.headers, cookie)? {
        Credentials::Bearer(token) => (Slot::Bearer, token),
        Credentials::Cookie(token) => {
            if causes_effects(request) && !is_same_origin(request, &cookie.allowed_origins) {
                return Err(Rejection::CrossOrigin);
            }
            (Slot::Cookie, token)
        }
        Credentials::None if policy.auth == Auth::Required => return Err(Rejection::MissingToken),
        Credentials::None => return Ok(Permit::open()),
    };
    if is_jwt_shaped(token) && !sessions.is_own(token) {
        return Err(Rejection::NotASessionToken);
    }
    let validated = sessions.validate_watched(slot, token, asked).await;
    let Validated { session, source } = validated.map_err(Rejection::Refused)?;
    admit(&session, policy)?;
    Ok(Permit { session: Some(session), source: Some(source) })
}

async fn extend(sessions: &Sessions, permit: Permit, asked: &mut Option<StoreCall>) -> Result<Permit, Rejection> {
    let Some(session) = permit.session() else { return Ok(permit) };
    let began = Instant::now();
    let extended = sessions.extend(session).await;
    *asked = Some(StoreCall::since(began, extended != Err(Refusal::Unavailable)));
    Ok(Permit { session: Some(extended.map_err(Rejection::Refused)?), ..permit })
}

fn admit(session: &Session, policy: &Policy) -> Result<(), Rejection> {
    if session.principal.kind == PrincipalKind::Anonymous && !policy.allow_anonymous {
        return Err(Rejection::AnonymousForbidden);
    }
    let needed = &policy.require_any_role;
    if needed.is_empty() || needed.iter().any(|role| session.roles.iter().any(|held| held == role.as_str())) {
        Ok(())
    } else {
        Err(Rejection::RoleMissing)
    }
}

// Exact bytes, one occurrence: parsers disagree about quotes, `$Version` and which of two cookies
// of the same name counts, and a sibling subdomain can plant a second one.
fn session_cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Rejection> {
    let mut found = None;
    for line in headers.get_all(header::COOKIE) {
        let Ok(line) = line.to_str() else {
            // Bytes that are no text hide nothing from us only if the name is not among them.
            if contains(line.as_bytes(), name.as_bytes()) {
                return Err(Rejection::MalformedCredentials);
            }
            continue;
        };
        for pair in line.split(';') {
            let Some((key, value)) = pair.trim_matches([' ', '\t']).split_once('=') else { continue };
            if key == name && found.replace(value).is_some() {
                return Err(Rejection::MalformedCredentials);
            }
        }
    }
    Ok(found.filter(|value| !value.is_empty()))
}

// A WebSocket handshake is a GET that no CORS rule holds back.
fn causes_effects(request: &Parts) -> bool {
    !request.method.is_safe() || request.headers.contains_key(header::UPGRADE)
}

fn is_same_origin(request: &Parts, allowed: &[String]) -> bool {
    let headers = &request.headers;
    let Some(origin) = single(headers, header::ORIGIN.as_str()) else {
        return matches!(single(headers, "sec-fetch-site"), Some("same-origin" | "none"));
    };
    // HTTP/2 names the host in `:authority`, and where both stand they have been found to agree.
    let authority = request.uri.authority().map(http::uri::Authority::as_str);
    let host = single(headers, header::HOST.as_str()).or(authority);
    let own = origin.split_once("://").is_some_and(|(_, authority)| Some(authority) == host);
    own || allowed.iter().any(|allowed| allowed == origin)
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len().max(1)).any(|window| window == needle)
}
