//! Begins sessions: the only mint.

use std::sync::Arc;
use std::time::Duration;

use super::{Sessions, StartError, audit, unavailable, whole_seconds};
use crate::model::session::{ClientInfo, RefreshTurn, Shard};
use crate::model::{EndReason, NewSession, Session, SessionId, SessionSecret, SessionToken, TokenKeys, TokenKind};
use crate::secret::random_bytes;
use crate::store::{Created, shard_of};
use crate::telemetry::audit::{Action, Event};
use crate::time::Timestamp;

/// How long a single-use proof is remembered: longer than any Clerk session JWT lives.
const PROOF_MEMORY: Duration = Duration::from_hours(24);

/// Which credentials a sign-in hands out. The record lives as long as the longest of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handout {
    /// An opaque token.
    pub opaque: bool,
    /// A cookie.
    pub cookie: Option<CookieLife>,
    /// A refresh token.
    pub refresh: bool,
}

/// How long a cookie lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieLife {
    /// As long as an opaque token, used or not.
    Fixed,
    /// Until it goes unused for [`Policy::cookie_idle`](super::Policy), and no longer than
    /// [`Policy::cookie_max`](super::Policy).
    Sliding,
}

/// A session just started: the only moment at which its credentials can be made.
#[derive(Debug)]
pub struct Started {
    /// The record behind them.
    pub session: Arc<Session>,
    /// How long an opaque token lives.
    pub expires_in: Duration,
    keys: Arc<TokenKeys>,
    secret: SessionSecret,
    deadlines: CredentialDeadlines,
}

/// When each credential ends; the start of time for one that was not asked for.
#[derive(Clone, Copy, Debug, Default)]
struct CredentialDeadlines {
    opaque: Timestamp,
    cookie: Timestamp,
    refresh: Timestamp,
}

impl Handout {
    /// An opaque token alone.
    pub const OPAQUE: Self = Self { opaque: true, cookie: None, refresh: false };
}

impl Started {
    /// Returns the opaque token. It is refused at once if the handout has none.
    pub fn opaque(&self) -> SessionToken {
        self.keys.mint(TokenKind::Access, self.session.id, &self.secret, self.deadlines.opaque, 0)
    }

    /// Returns the cookie's value. It is refused at once if the handout has none.
    pub fn cookie(&self) -> SessionToken {
        self.keys.mint(TokenKind::Cookie, self.session.id, &self.secret, self.deadlines.cookie, 0)
    }

    /// Returns the first refresh token. It is refused at once if the handout has none.
    pub fn refresh(&self) -> SessionToken {
        let turn = self.session.refresh.turn;
        self.keys.mint(TokenKind::Refresh, self.session.id, &self.secret, self.deadlines.refresh, turn)
    }
}

impl Sessions {
    /// Starts a session for a resolved sign-in. `method` is the metric label of the way in.
    pub async fn start(
        &self,
        sign_in: &NewSession,
        method: &'static str,
        handout: Handout,
    ) -> Result<Started, StartError> {
        let now = self.clock.now();
        self.claim_proof(sign_in, now).await?;
        let principal = sign_in.principal.clone();
        let deadlines = self.deadlines(handout, now);
        let id = self.new_id(now, shard_of(&principal.tenant, &principal.id))?;
        let secret = SessionSecret::new(self.random.as_ref()).map_err(|_| StartError::Unavailable)?;
        let session = Session {
            id,
            principal,
            roles: sign_in.roles.clone(),
            provider_session: sign_in.origin.provider_session.clone(),
            actor: sign_in.actor.clone(),
            method: method.to_owned(),
            verifier: secret.verifier(id),
            authenticated_at: sign_in.authenticated_at,
            expires_at: deadlines.opaque.max(deadlines.cookie).max(deadlines.refresh),
            extended_until: Timestamp(0),
            idle: (handout.cookie == Some(CookieLife::Sliding)).then_some(self.policy.cookie_idle),
            last_seen: now,
            refresh: RefreshTurn::default(),
            device: None,
            client: ClientInfo::default(),
        };
        self.store_new(&session, now).await?;
        self.metrics.sessions_created.with_label_values(&[sign_in.principal.kind.as_str(), method]).inc();
        let keys = self.keys.load_full();
        Ok(Started { session: Arc::new(session), expires_in: self.policy.ttl, keys, secret, deadlines })
    }

    async fn store_new(&self, session: &Session, now: Timestamp) -> Result<(), StartError> {
        match self.store.create(session, self.policy.max_per_principal, now).await {
            Ok(Created::Stored { evicted }) => {
                self.revocations.revoke(&evicted, session.expires_at);
                self.note_evicted(session, evicted.len() as u64);
                Ok(())
            }
            Ok(Created::Superseded) => Err(StartError::Superseded),
            Err(error) => Err(unavailable(&error, StartError::Unavailable)),
        }
    }

    fn deadlines(&self, handout: Handout, now: Timestamp) -> CredentialDeadlines {
        let (opaque, refresh) = (now.plus(self.policy.ttl), now.plus(self.policy.refresh_ttl));
        let cookie = handout.cookie.map(|life| match life {
            CookieLife::Fixed => opaque,
            CookieLife::Sliding => now.plus(self.policy.cookie_max),
        });
        CredentialDeadlines {
            opaque: if handout.opaque { whole_seconds(opaque) } else { Timestamp(0) },
            cookie: cookie.map(whole_seconds).unwrap_or_default(),
            refresh: if handout.refresh { whole_seconds(refresh) } else { Timestamp(0) },
        }
    }

    fn new_id(&self, now: Timestamp, shard: Shard) -> Result<SessionId, StartError> {
        let random = random_bytes::<10>(self.random.as_ref()).map_err(|_| StartError::Unavailable)?;
        Ok(SessionId::new(now, shard, &random))
    }

    async fn claim_proof(&self, sign_in: &NewSession, now: Timestamp) -> Result<(), StartError> {
        let Some(proof) = &sign_in.proof_id else { return Ok(()) };
        let provider = sign_in.origin.provider.as_str();
        let digest = self.guest_key.digest("proof", &[provider.as_bytes(), proof.as_bytes()]);
        let until = now.plus(PROOF_MEMORY);
        match self.store.claim_once(&digest, until, now).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(StartError::AlreadyUsed),
            Err(error) => Err(unavailable(&error, StartError::Unavailable)),
        }
    }

    fn note_evicted(&self, by: &Session, count: u64) {
        self.count_ended(EndReason::Evicted, count);
        if count > 0 {
            let evicted = Event { session_id: None, actor_id: None, ..audit::event(Action::SessionsEvicted, by) };
            Event { sessions_ended: Some(count), ..evicted }.write();
        }
    }
}
