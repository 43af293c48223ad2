//! Events that must be delivered after a commit, at least once, in order for each person.
//!
//! An event is written in the transaction of its cause, and deleted after its delivery. In between it
//! is pending, or dead when another attempt makes no sense. A replica leases events before it delivers
//! them; after a lease has run out, every replica may lease its events, so a crash repeats an event and
//! never loses one. An event waits until every older pending one of the same kind and person is gone.

mod delivery;
#[cfg(test)]
pub(crate) mod tests;
mod upkeep;

use serde_json::json;
use tokio::sync::Notify;
use uuid::{NoContext, Uuid};

pub use self::delivery::{Lease, Leased};
pub use self::upkeep::{Depth, EventState, ListedEvent};
use super::Directory;
use super::sql::{Result, Tx};
use crate::model::{PrincipalId, TenantId};
use crate::time::Timestamp;

/// Something that must happen after a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboxEvent {
    /// The sink is to merge a guest into a user (contracts §5.3).
    Alias {
        /// The user.
        user: PrincipalId,
        /// The former guest.
        guest: PrincipalId,
    },
    /// The sessions of a guest who became a user are to end.
    RevokeGuest {
        /// The tenant of the guest's sessions.
        tenant: TenantId,
        /// The former guest.
        guest: PrincipalId,
    },
}

/// What kind of event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// [`OutboxEvent::Alias`].
    Alias,
    /// [`OutboxEvent::RevokeGuest`].
    RevokeGuest,
}

/// The id of an event: a UUID that begins with its time, so that ids sort in the order of events.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventId(String);

/// Wakes the lanes of this process.
#[derive(Default)]
pub(super) struct Wakers {
    alias: Notify,
    revoke_guest: Notify,
}

impl OutboxEvent {
    /// Returns the event's kind.
    pub fn kind(&self) -> EventKind {
        match self {
            Self::Alias { .. } => EventKind::Alias,
            Self::RevokeGuest { .. } => EventKind::RevokeGuest,
        }
    }

    fn person(&self) -> &PrincipalId {
        match self {
            Self::Alias { user, .. } => user,
            Self::RevokeGuest { guest, .. } => guest,
        }
    }

    fn body(&self) -> String {
        match self {
            Self::Alias { user, guest } => json!({ "distinct_id": user.as_str(), "alias": guest.as_str() }),
            Self::RevokeGuest { tenant, guest } => json!({ "tenant": tenant.as_str(), "principal": guest.as_str() }),
        }
        .to_string()
    }
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Alias, Self::RevokeGuest];

    /// Returns the kind's name in the database and as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alias => "alias",
            Self::RevokeGuest => "revoke_guest",
        }
    }
}

impl EventId {
    /// Returns the id that is stored as `text`.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the id as it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Directory {
    /// Writes an event in a transaction of its own.
    pub async fn enqueue(&self, event: &OutboxEvent, now: Timestamp) -> Result<EventId> {
        let mut tx = self.pool.begin().await?;
        let id = enqueue(&mut tx, event, now).await?;
        tx.commit().await?;
        self.wake_outbox();
        Ok(id)
    }

    /// Wakes the lanes of this process, after a commit that wrote an event.
    pub fn wake_outbox(&self) {
        for kind in EventKind::ALL {
            self.wakers.of(kind).notify_one();
        }
    }

    /// Waits for the next [`wake_outbox`](Self::wake_outbox); returns at once if there was one since the last wait.
    pub async fn outbox_woken(&self, kind: EventKind) {
        self.wakers.of(kind).notified().await;
    }
}

impl Wakers {
    fn of(&self, kind: EventKind) -> &Notify {
        match kind {
            EventKind::Alias => &self.alias,
            EventKind::RevokeGuest => &self.revoke_guest,
        }
    }
}

/// Writes an event into the transaction of what causes it. After the commit, call
/// [`Directory::wake_outbox`].
pub(super) async fn enqueue(tx: &mut Tx, event: &OutboxEvent, now: Timestamp) -> Result<EventId> {
    let (kind, person) = (event.kind().as_str().into(), event.person().as_str().into());
    let newest = "select max(id) from doorward_outbox where person = $1 and kind = $2";
    let newest = tx.rows(newest, &[person, kind]).await?.first().map(|row| row.maybe_text(0)).transpose()?.flatten();
    let id = EventId(id_after(newest.as_deref(), now).to_string());
    let sql = "insert into doorward_outbox \
               (id, kind, person, body, state, attempts, due_at, leased_until, created_at) \
               values ($1, $2, $3, $4, 'pending', 0, $5, 0, $5)";
    tx.execute(sql, &[id.as_str().into(), kind, person, event.body().as_str().into(), now.into()]).await?;
    Ok(id)
}

// Two events of a person within a millisecond, or across a clock that was set back, must keep their order.
fn id_after(newest: Option<&str>, now: Timestamp) -> Uuid {
    let (seconds, millis) = (now.0 / 1000, now.0 % 1000);
    let nanos = u32::try_from(millis * 1_000_000).unwrap_or(0);
    let fresh = Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, nanos));
    match newest.and_then(|newest| Uuid::parse_str(newest).ok()) {
        Some(newest) if newest >= fresh => Uuid::from_u128(newest.as_u128().saturating_add(1)),
        _ => fresh,
    }
}

fn timestamp(millis: i64) -> Timestamp {
    Timestamp(millis.max(0).cast_unsigned())
}
