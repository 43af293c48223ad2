//! Decides whether a request may pass. Knows no pingora and does no I/O but asking `Sessions`.
//!
//! A [`Permit`] can be made nowhere else, and nothing is forwarded without one. Policy is
//! evaluated on every request: what is cached is who the caller is, never what they may do.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, header};
use tokio::time::Instant;

use super::connection::session_watch::Watch;
use super::policy::RoutePolicy;
use crate::api::credential::{Credential, PresentedToken};
use crate::api::problem::{Problem, TokenFault, What, Why};
use crate::config::{Auth, Cookie};
use crate::model::{PrincipalKind, Session};
use crate::session::{Caller, Refusal, Sessions, Slot, Source, StoreCall, Validated};
use crate::telemetry::access::Outcome;

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
    /// The token leads to no live session, or it cannot be known whether it does.
    Refused(Refusal),
    /// Guests may not pass here.
    AnonymousForbidden,
    /// The principal has none of the roles that the route asks for.
    RoleMissing,
    /// A cookie came with a request that another site may have caused.
    CrossOrigin,
    /// A peer that is no trusted proxy sent a forward-auth check.
    UntrustedPeer,
    /// An identity header came in a spelling that an answer cannot replace.
    IdentityHeader,
    /// The request itself cannot be read in one way only, so that no rule was asked.
    Unreadable,
}

/// What the guard's metrics, the access log and the trace say about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What was decided.
    pub outcome: Outcome,
    /// Why, from a closed set.
    pub reason: &'static str,
}

/// When the store was asked about a request, and for what.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StoreCalls {
    /// To find the session.
    pub(super) find: Option<StoreCall>,
    /// To begin a new lifetime of it.
    pub(super) extend: Option<StoreCall>,
}

/// What the guard did about a request.
pub(super) struct Guarded {
    /// What it decided.
    pub(super) decided: Result<Permit, Rejection>,
    /// When it asked the store.
    pub(super) calls: StoreCalls,
    /// When it began.
    pub(super) began: Instant,
    /// When it had decided.
    pub(super) ended: Instant,
}

impl Permit {
    /// Permit for `auth: none`; carries no identity.
    pub(super) fn open() -> Self {
        Self { session: None, source: None }
    }

    /// Returns who was let through; `None` for a request without a credential.
    pub fn caller(&self) -> Option<Caller<'_>> {
        self.session.as_deref().map(Caller::from)
    }

    /// Returns the session that was let through, whose end is the permit's; `None` for a caller without one.
    pub fn session(&self) -> Option<&Arc<Session>> {
        self.session.as_ref()
    }

    /// Returns where the answer came from.
    pub fn source(&self) -> Option<Source> {
        self.source
    }

    /// Returns what metrics and logs call it.
    pub fn decision(&self) -> Decision {
        match (self.caller(), self.source) {
            (None, _) => Decision { outcome: Outcome::Bypass, reason: "public_path" },
            (Some(_), Some(Source::Stale)) => Decision { outcome: Outcome::Allow, reason: "stale_allowed" },
            (Some(_), _) => Decision { outcome: Outcome::Allow, reason: "ok" },
        }
    }

    /// Returns why a request with this permit may not go on, if its session is over or can no
    /// longer be vouched for: the one place that asks. `watch` is what the exchange is cut by, where it can be.
    pub(super) fn ended(&self, sessions: &Sessions, watch: Option<&Watch>) -> Option<Refusal> {
        let session = self.session()?;
        let revoked = || sessions.is_revoked(session).then_some(Refusal::Revoked);
        watch.and_then(Watch::ended_by).or_else(revoked)
    }
}

impl Decision {
    /// Returns whether the caller was turned away.
    pub(super) fn is_refusal(self) -> bool {
        matches!(self.outcome, Outcome::Deny | Outcome::Error)
    }
}

impl Rejection {
    /// Returns what the caller is told, in the dialect of the route (contracts §3.1, column G).
    pub fn problem(self) -> Problem {
        match self {
            Self::MissingToken => What::MissingToken.into(),
            Self::MalformedCredentials => TokenFault::Malformed.into(),
            Self::NotASessionToken => TokenFault::NotASessionToken.into(),
            Self::Refused(refusal) => refusal.into(),
            Self::CrossOrigin => What::Forbidden(Why::CrossOrigin).into(),
            Self::AnonymousForbidden | Self::RoleMissing | Self::UntrustedPeer | Self::IdentityHeader => {
                What::Forbidden(Why::Permissions).into()
            }
            Self::Unreadable => What::BadRequest.into(),
        }
    }

    /// Returns what metrics and logs call it.
    pub fn decision(self) -> Decision {
        let (outcome, reason) = match self {
            Self::MissingToken => (Outcome::Deny, "missing_token"),
            Self::MalformedCredentials | Self::NotASessionToken | Self::Refused(Refusal::Malformed) => {
                (Outcome::Deny, "malformed")
            }
            Self::Refused(Refusal::Unknown) => (Outcome::Deny, "unknown"),
            Self::Refused(Refusal::Expired) => (Outcome::Deny, "expired"),
            Self::Refused(Refusal::Revoked) => (Outcome::Deny, "revoked"),
            Self::Refused(Refusal::Unavailable) => (Outcome::Error, "store_unavailable"),
            Self::AnonymousForbidden => (Outcome::Deny, "anonymous"),
            Self::RoleMissing => (Outcome::Deny, "role"),
            Self::CrossOrigin => (Outcome::Deny, "cross_origin"),
            Self::UntrustedPeer => (Outcome::Deny, "untrusted_peer"),
            Self::IdentityHeader => (Outcome::Deny, "identity_header"),
            Self::Unreadable => (Outcome::Deny, "bad_request"),
        };
        Decision { outcome, reason }
    }
}

/// Decides about a request, puts its session under `watch` where the exchange can be cut, and then
/// looks again at whether the session ended meanwhile. The same at every door.
///
/// On a route for streams the session that was let through begins a new lifetime.
pub(super) async fn decide(
    sessions: &Sessions,
    policy: &RoutePolicy,
    request: &Parts,
    cookie: &Cookie,
    watch: Option<&Watch>,
) -> Guarded {
    let generation = sessions.revocations().vouched_generation();
    let began = Instant::now();
    let mut calls = StoreCalls::default();
    let authorized = authorize(sessions, policy, request, cookie, &mut calls.find).await;
    let decided = match authorized {
        Ok(permit) if policy.stream => Box::pin(extend(sessions, permit, &mut calls.extend)).await,
        other => other,
    };
    let decided = decided.and_then(|permit| {
        if let (Some(watch), Some(session)) = (watch, permit.session()) {
            watch.hold(session.clone(), generation);
        }
        // Only now is the sweep sure to notice a revocation; look for one that came before.
        match permit.ended(sessions, watch) {
            Some(refusal) => Err(Rejection::Refused(refusal)),
            None => Ok(permit),
        }
    });
    Guarded { decided, calls, began, ended: Instant::now() }
}

/// Returns the permit of a request by its credential and the route's policy, or why there is none;
/// says in `asked` whether and when the store was asked.
pub async fn authorize(
    sessions: &Sessions,
    policy: &RoutePolicy,
    request: &Parts,
    cookie: &Cookie,
    asked: &mut Option<StoreCall>,
) -> Result<Permit, Rejection> {
    let cookie_name = cookie.enabled.then_some(cookie.name.as_str());
    let (slot, token) = match Credential::of(&request.headers, cookie_name, |text| sessions.is_own(text)) {
        Credential::Ambiguous => return Err(Rejection::MalformedCredentials),
        Credential::None if policy.auth == Auth::Required => return Err(Rejection::MissingToken),
        Credential::None => return Ok(Permit::open()),
        Credential::Cookie(_) if causes_effects(request) && !is_same_origin(request, &cookie.allowed_origins) => {
            return Err(Rejection::CrossOrigin);
        }
        Credential::Bearer(PresentedToken::Jwt(_)) | Credential::Cookie(PresentedToken::Jwt(_)) => {
            return Err(Rejection::NotASessionToken);
        }
        Credential::Bearer(PresentedToken::Opaque(token)) => (Slot::Bearer, token),
        Credential::Cookie(PresentedToken::Opaque(token)) => (Slot::Cookie, token),
    };
    let validated = sessions.validate_watched(slot, token, asked).await;
    let Validated { session, source } = validated.map_err(Rejection::Refused)?;
    let permit = Permit { session: Some(session), source: Some(source) };
    admit(&permit, policy)?;
    Ok(permit)
}

async fn extend(sessions: &Sessions, permit: Permit, asked: &mut Option<StoreCall>) -> Result<Permit, Rejection> {
    let Some(session) = permit.session() else { return Ok(permit) };
    let began = Instant::now();
    let extended = sessions.extend(session).await;
    *asked = Some(StoreCall::since(began, extended != Err(Refusal::Unavailable)));
    Ok(Permit { session: Some(extended.map_err(Rejection::Refused)?), ..permit })
}

fn admit(permit: &Permit, policy: &RoutePolicy) -> Result<(), Rejection> {
    let Some(caller) = permit.caller() else { return Ok(()) };
    if caller.principal.kind == PrincipalKind::Anonymous && !policy.allow_anonymous {
        return Err(Rejection::AnonymousForbidden);
    }
    let needed = &policy.require_any_role;
    if needed.is_empty() || needed.iter().any(|role| caller.roles.iter().any(|held| held == role.as_str())) {
        Ok(())
    } else {
        Err(Rejection::RoleMissing)
    }
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
