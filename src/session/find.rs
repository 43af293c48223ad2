//! The one place that decides whether a session is live.

use std::sync::Arc;

use tokio::time::Instant;

use super::cache::Miss;
use super::{Refusal, Sessions, Source, StoreCall, Validated, unavailable};
use crate::model::Session;
use crate::store::{Key, Stamp};
use crate::time::Timestamp;

impl Sessions {
    pub(super) async fn find(
        &self,
        key: Key,
        now: Timestamp,
        asked: &mut Option<StoreCall>,
    ) -> Result<Validated, Refusal> {
        if self.revocations.is_revoked(&key.id) {
            return Err(Refusal::Revoked);
        }
        if !self.revocations.is_current() {
            return Box::pin(self.find_unvouched(key, now)).await;
        }
        let stamp = self.revocations.stamp(&key.id);
        if let Some(session) = self.cache.find(key.id, stamp).await {
            if !session.is_expired(now) {
                self.results.hit.inc();
                return Ok(Validated { session, source: Source::Cache });
            }
            if !self.policy.extendable {
                return Err(Refusal::Expired);
            }
            // Another replica may have extended it since it was read.
            Box::pin(self.cache.forget(key.id, stamp)).await;
        }
        // Boxed, as everything but a hit is: the future of the common case stays small.
        Box::pin(self.find_stored(key, stamp, now, asked)).await
    }

    async fn find_stored(
        &self,
        key: Key,
        stamp: Stamp,
        now: Timestamp,
        asked: &mut Option<StoreCall>,
    ) -> Result<Validated, Refusal> {
        if self.cache.is_gone(key.id, stamp) {
            return self.judge(key, Err(Miss::Gone), now);
        }
        let (store, began) = (self.store.clone(), Instant::now());
        let filled = self.cache.find_or_fill(key.id, stamp, async move { store.find(key, stamp, now).await }).await;
        *asked = Some(StoreCall::since(began, !matches!(filled, Err(Miss::Unavailable(_)))));
        self.judge(key, filled, now)
    }

    fn judge(&self, key: Key, filled: Result<Arc<Session>, Miss>, now: Timestamp) -> Result<Validated, Refusal> {
        match filled {
            // The tombstone may have come while the store was answering.
            Ok(_) if self.revocations.is_revoked(&key.id) => Err(Refusal::Revoked),
            Ok(session) if session.is_expired(now) => Err(Refusal::Expired),
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

    // Not hearing of revocations: until the lease lapses the last answers still stand, after it
    // only what `serve_stale` allows. A session never seen here cannot be known.
    async fn find_unvouched(&self, key: Key, now: Timestamp) -> Result<Validated, Refusal> {
        let lease_until = self.revocations.lease_until();
        let monotonic = self.clock.monotonic();
        if lease_until.0 == 0 || monotonic >= lease_until.plus(self.policy.max_stale) {
            return Err(Refusal::Unavailable);
        }
        let stamp = self.revocations.last_vouched_stamp(&key.id);
        match self.cache.find(key.id, stamp).await {
            Some(session) if session.is_expired(now) => Err(Refusal::Expired),
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
}
