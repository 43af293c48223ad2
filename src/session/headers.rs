//! What an application is told of a caller, whichever way a request takes to it.
//!
//! Both who and for which tenant, always; the rest where configured. Every value is of a type that a
//! header can carry (`model::principal`, `model::role`), so that writing one cannot fail.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};

use crate::config::IdentityHeaders;
use crate::model::{ActorId, Principal, Role, Session, SessionId, role};

/// Who calls.
pub const X_USER_ID: HeaderName = HeaderName::from_static("x-user-id");
/// For which tenant.
pub const X_CLIENT_ID: HeaderName = HeaderName::from_static("x-client-id");
/// In which session.
pub const X_SESSION_ID: HeaderName = HeaderName::from_static("x-session-id");
/// With which roles.
pub const X_USER_ROLES: HeaderName = HeaderName::from_static("x-user-roles");
/// As what kind of principal.
pub const X_USER_KIND: HeaderName = HeaderName::from_static("x-user-kind");
/// On whose behalf.
pub const X_ACTOR_ID: HeaderName = HeaderName::from_static("x-actor-id");

/// A proven caller: that of a live session, or of a provider's proof without one.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Who it is.
    pub principal: &'a Principal,
    /// Roles inside the tenant.
    pub roles: &'a [Role],
    /// Who acts in the principal's name, when the provider said so.
    pub actor: Option<&'a ActorId>,
    /// The session, if there is one.
    pub session: Option<SessionId>,
}

impl<'a> From<&'a Session> for Caller<'a> {
    fn from(session: &'a Session) -> Self {
        Self {
            principal: &session.principal,
            roles: &session.roles,
            actor: session.actor.as_ref(),
            session: Some(session.id),
        }
    }
}

impl Caller<'_> {
    /// Returns each identity header to send, exactly once.
    ///
    /// # Panics
    ///
    /// Never: every value is an identifier of visible ASCII by its type.
    pub fn headers(self, which: IdentityHeaders) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let always = [
            (X_USER_ID, Cow::Borrowed(self.principal.id.as_str())),
            (X_CLIENT_ID, Cow::Borrowed(self.principal.tenant.as_str())),
        ];
        let session = self.session.filter(|_| which.session_id);
        let session = session.map(|session| (X_SESSION_ID, Cow::Owned(session.to_string())));
        let roles = which.roles.then(|| (X_USER_ROLES, Cow::Owned(role::join(self.roles))));
        let kind = which.kind.then(|| (X_USER_KIND, Cow::Borrowed(self.principal.kind.as_str())));
        let actor = self.actor.filter(|_| which.actor).map(|actor| (X_ACTOR_ID, Cow::Borrowed(actor.as_str())));
        let texts = always.into_iter().chain([session, roles, kind, actor].into_iter().flatten());
        texts.map(|(name, text)| (name, HeaderValue::from_str(&text).expect("identifiers are visible ASCII")))
    }
}
