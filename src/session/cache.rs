//! The in-process session cache.
//!
//! An answer is filed under its session's id *and* the stamp read before the store was asked. There is
//! no invalidation to race with: a revocation moves the stamp, and what was filed under the old
//! one can never be found again. Identity is cached, never a verdict: policy runs on every hit.

use std::future::Future;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use moka::notification::RemovalCause;

use crate::config::sessions::Cache as Settings;
use crate::metrics::Metrics;
use crate::model::{Session, SessionId};
use crate::store::revocations::IdHasher;
use crate::store::{Stamp, StoreError};

type Filed = (SessionId, Stamp);
type Hasher = BuildHasherDefault<IdHasher>;

/// How long the answer "no such session" is kept: a dead token in a loop costs one question in this time.
const NEGATIVE_TTL: Duration = Duration::from_secs(5);

/// The in-process session cache.
pub(super) struct SessionCache {
    live: Cache<Filed, Arc<Session>, Hasher>,
    /// What the store said is not there, so that a dead token in a loop is looked up once.
    gone: Cache<Filed, (), Hasher>,
}

/// Why a look-up brought no session.
#[derive(Clone, Debug)]
pub(super) enum Miss {
    /// The store has none.
    Gone,
    /// The store could not answer.
    Unavailable(Arc<StoreError>),
}

impl SessionCache {
    pub(super) fn new(settings: &Settings, metrics: &Metrics) -> Self {
        let dropped = |cause| metrics.session_cache_evictions.with_label_values(&[cause]);
        let (size, expired) = (dropped("size"), dropped("expired"));
        let live = Cache::builder()
            .max_capacity(settings.capacity)
            .time_to_live(settings.max_ttl)
            .eviction_listener(move |_, _, cause| match cause {
                RemovalCause::Size => size.inc(),
                RemovalCause::Expired => expired.inc(),
                // Dropped on purpose: invalidations have metrics of their own.
                RemovalCause::Explicit | RemovalCause::Replaced => {}
            })
            .build_with_hasher(Hasher::default());
        let gone = Cache::builder()
            .max_capacity(settings.capacity / 4)
            .time_to_live(NEGATIVE_TTL)
            .build_with_hasher(Hasher::default());
        Self { live, gone }
    }

    /// Returns the session filed under exactly this stamp.
    pub(super) async fn find(&self, id: SessionId, stamp: Stamp) -> Option<Arc<Session>> {
        self.live.get(&(id, stamp)).await
    }

    /// Returns whether the store said, under exactly this stamp, that it has none.
    pub(super) fn is_gone(&self, id: SessionId, stamp: Stamp) -> bool {
        self.gone.contains_key(&(id, stamp))
    }

    /// Returns the session filed under this stamp, asking `fill` once however many callers wait.
    ///
    /// The flight is keyed by the stamp too, so a caller that comes after a revocation cannot join a
    /// look-up that began before it.
    pub(super) async fn find_or_fill<F>(&self, id: SessionId, stamp: Stamp, fill: F) -> Result<Arc<Session>, Miss>
    where
        F: Future<Output = Result<Option<Session>, StoreError>> + Send + 'static,
    {
        let filed = (id, stamp);
        let fill = async move {
            match fill.await {
                Ok(Some(session)) => Ok(Arc::new(session)),
                Ok(None) => Err(Miss::Gone),
                Err(error) => Err(Miss::Unavailable(Arc::new(error))),
            }
        };
        // In a task of its own: a caller who hangs up must not make the others ask again.
        let live = self.live.clone();
        let flight = tokio::spawn(async move { live.try_get_with(filed, fill).await });
        let outcome =
            flight.await.map_err(|panic| Miss::Unavailable(Arc::new(StoreError::Unavailable(panic.into()))))?;
        let outcome = outcome.map_err(|miss| (*miss).clone());
        if let Err(Miss::Gone) = outcome {
            self.gone.insert(filed, ()).await;
        }
        outcome
    }

    /// Drops one answer, so that the next caller asks the store.
    pub(super) async fn forget(&self, id: SessionId, stamp: Stamp) {
        self.live.invalidate(&(id, stamp)).await;
        self.gone.invalidate(&(id, stamp)).await;
    }

    /// Frees what an ended generation left behind. Correctness does not depend on it.
    pub(super) fn clear(&self) {
        self.live.invalidate_all();
        self.gone.invalidate_all();
    }

    /// Returns about how many sessions are held.
    pub(super) fn len(&self) -> u64 {
        self.live.entry_count()
    }
}
