//! The one place that decides whether a session is live.

use std::sync::Arc;

use tokio::time::Instant;

use super::cache::Miss;
use super::{Refusal, Sessions, Source, StoreCall, Validated, unavailable};
use crate::model::{ParsedToken, Session, SessionId, TokenKind};
use crate::store::Stamp;
use crate::time::Timestamp;

/// Where a request carries its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `Authorization: Bearer`, which takes opaque tokens only.
    Bearer,
    /// The session cookie, which takes a cookie's own value and opaque tokens.
    Cookie,
}

/// The time that a credential has, beside that of its session's record.
#[derive(Clone, Copy)]
enum Life {
    /// An opaque token's: its own expiry, or until when it was extended.
    Opaque(Timestamp),
    /// A cookie's: its own expiry, and the idle limit of the record.
    Cookie(Timestamp),
    /// None: the session is known already.
    Session,
}

impl Slot {
    fn kinds(self) -> &'static [TokenKind] {
        match self {
            Self::Bearer => &[TokenKind::Access],
            Self::Cookie => &[TokenKind::Access, TokenKind::Cookie],
        }
    }
}

impl Life {
    fn is_over(self, session: &Session, now: Timestamp) -> bool {
        let over = match self {
            Self::Opaque(until) => now >= until && now >= session.extended_until,
            Self::Cookie(until) => now >= until || session.is_idle(now),
            Self::Session => false,
        };
        over || session.is_expired(now)
    }
}

impl Sessions {
    /// Returns the live session behind a bearer token.
    pub async fn validate(&self, token: &str) -> Result<Validated, Refusal> {
        self.validate_watched(Slot::Bearer, token, &mut None).await
    }

    /// Returns the live session behind the token in `slot`; says in `asked` whether and when the store
    /// was asked.
    pub async fn validate_watched(
        &self,
        slot: Slot,
        token: &str,
        asked: &mut Option<StoreCall>,
    ) -> Result<Validated, Refusal> {
        let now = self.clock.now();
        let parsed = self.parse(slot, token)?;
        let past_its_time = parsed.nominal_expiry <= now;
        let life = match parsed.kind {
            TokenKind::Cookie => Life::Cookie(parsed.nominal_expiry),
            _ => Life::Opaque(parsed.nominal_expiry),
        };
        if past_its_time && (parsed.kind == TokenKind::Cookie || !self.policy.extendable) {
            return Err(Refusal::Expired);
        }
        match self.find(parsed.session, life, now, asked).await {
            // The MAC was right and the secret is not the session's: made by a leaked key.
            Ok(found) if found.session.verifier != parsed.verifier() => Err(Refusal::Unknown),
            // Once a record is gone, only the token's own expiry tells an end from a revocation.
            Err(Refusal::Revoked) if past_its_time => Err(Refusal::Expired),
            other => other,
        }
    }

    /// Returns the session of an exchange that is under way, if it is still live.
    pub async fn confirm(&self, session: &Session) -> Result<Validated, Refusal> {
        self.find(session.id, Life::Session, self.clock.now(), &mut None).await
    }

    pub(super) fn parse(&self, slot: Slot, token: &str) -> Result<ParsedToken, Refusal> {
        self.keys.load().parse(slot.kinds(), token).map_err(Refusal::from)
    }

    async fn find(
        &self,
        id: SessionId,
        life: Life,
        now: Timestamp,
        asked: &mut Option<StoreCall>,
    ) -> Result<Validated, Refusal> {
        if self.revocations.is_revoked(&id) {
            return Err(Refusal::Revoked);
        }
        if !self.revocations.is_current() {
            return Box::pin(self.find_unvouched(id, life, now)).await;
        }
        let stamp = self.revocations.stamp(&id);
        if let Some(session) = self.cache.find(id, stamp).await {
            if !life.is_over(&session, now) {
                self.results.hit.inc();
                return Ok(Validated { session, source: Source::Cache });
            }
            if !self.policy.extendable && session.idle.is_none() {
                return Err(Refusal::Expired);
            }
            // Another replica may have extended it, or recorded a use, since it was read.
            Box::pin(self.cache.forget(id, stamp)).await;
        }
        // Boxed, as everything but a hit is: the future of the common case stays small.
        Box::pin(self.find_stored(id, life, stamp, now, asked)).await
    }

    async fn find_stored(
        &self,
        id: SessionId,
        life: Life,
        stamp: Stamp,
        now: Timestamp,
        asked: &mut Option<StoreCall>,
    ) -> Result<Validated, Refusal> {
        if self.cache.is_gone(id, stamp) {
            return self.judge(id, life, Err(Miss::Gone), now);
        }
        let (store, began) = (self.store.clone(), Instant::now());
        let filled = self.cache.find_or_fill(id, stamp, async move { store.find(id, stamp, now).await }).await;
        *asked = Some(StoreCall::since(began, !matches!(filled, Err(Miss::Unavailable(_)))));
        self.judge(id, life, filled, now)
    }

    fn judge(
        &self,
        id: SessionId,
        life: Life,
        filled: Result<Arc<Session>, Miss>,
        now: Timestamp,
    ) -> Result<Validated, Refusal> {
        match filled {
            // The tombstone may have come while the store was answering.
            Ok(_) if self.revocations.is_revoked(&id) => Err(Refusal::Revoked),
            Ok(session) if life.is_over(&session, now) => Err(Refusal::Expired),
            Ok(session) => {
                self.results.miss.inc();
                Ok(Validated { session, source: Source::Store })
            }
            Err(Miss::Gone) => {
                self.results.negative.inc();
                Err(Refusal::Revoked)
            }
            Err(Miss::Unavailable(error)) => Err(unavailable(&error, Refusal::Unavailable)),
        }
    }

    // Revocations are not being received: until the lease lapses the last answers still stand, after it
    // only what `serve_stale` allows. A session never seen here cannot be known.
    async fn find_unvouched(&self, id: SessionId, life: Life, now: Timestamp) -> Result<Validated, Refusal> {
        let lease_until = self.revocations.lease_until();
        let monotonic = self.clock.monotonic();
        if lease_until.0 == 0 || monotonic >= lease_until.plus(self.policy.max_stale) {
            return Err(Refusal::Unavailable);
        }
        let stamp = self.revocations.last_vouched_stamp(&id);
        match self.cache.find(id, stamp).await {
            Some(session) if life.is_over(&session, now) => Err(Refusal::Expired),
            Some(session) if monotonic < lease_until => {
                self.results.hit.inc();
                Ok(Validated { session, source: Source::Cache })
            }
            Some(session) => {
                self.results.stale.inc();
                Ok(Validated { session, source: Source::Stale })
            }
            None => Err(Refusal::Unavailable),
        }
    }

    /// Returns the live session with this id, as an exchange under way would: for the conformance suite.
    #[cfg(test)]
    pub(super) async fn find_by_id(&self, id: SessionId, now: Timestamp) -> Result<Validated, Refusal> {
        self.find(id, Life::Session, now, &mut None).await
    }
}
