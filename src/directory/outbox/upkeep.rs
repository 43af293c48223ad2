//! The operator's side of the outbox: list events, retry dead ones, count.

use super::delivery::{RETRIED, json_array, with_ids};
use super::{EventId, timestamp};
use crate::directory::sql::{Result, SqlRow};
use crate::directory::{Directory, DirectoryError};
use crate::time::Timestamp;

/// Whether an event is going to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventState {
    /// It will be delivered.
    Pending,
    /// It will not, unless an operator retries it.
    Dead,
}

/// An event as `doorward outbox list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEvent {
    /// Which event.
    pub id: EventId,
    /// Its kind's name.
    pub kind: String,
    /// The user or guest that it is about.
    pub person: String,
    /// Whether it is going to be delivered.
    pub state: EventState,
    /// How many times it was leased for delivery.
    pub attempts: u64,
    /// When it was written.
    pub created_at: Timestamp,
    /// When it is tried next, if it is pending.
    pub due_at: Timestamp,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// The number of events of one kind in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Depth {
    /// The kind's name.
    pub kind: String,
    /// The state.
    pub state: EventState,
    /// How many.
    pub count: u64,
    /// When the oldest of them was written.
    pub oldest: Timestamp,
}

impl EventState {
    /// Both states.
    pub const ALL: [Self; 2] = [Self::Pending, Self::Dead];

    /// Returns the state's name in the database and as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Dead => "dead",
        }
    }

    fn named(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == name);
        found.ok_or(DirectoryError::Inconsistent("an outbox event in an unknown state"))
    }
}

impl Directory {
    /// Returns up to `limit` events, oldest first; of one state, or of both when `state` is `None`.
    pub async fn list_events(&self, state: Option<EventState>, limit: u32) -> Result<Vec<ListedEvent>> {
        let sql = "select id, kind, person, state, attempts, created_at, due_at, error from doorward_outbox \
                   where state in ($1, $2) order by id limit $3";
        let [pending, dead] = EventState::ALL.map(EventState::as_str);
        let (one, other) = state.map_or((pending, dead), |state| (state.as_str(), state.as_str()));
        let rows = self.pool.rows(sql, &[one.into(), other.into(), i64::from(limit).into()]).await?;
        rows.iter().map(listed).collect()
    }

    /// Makes dead events pending again, as if they had never been tried; returns how many were dead.
    pub async fn retry_events(&self, ids: &[EventId], now: Timestamp) -> Result<u64> {
        let (sql, ids) = (self.spelling(RETRIED), json_array(ids));
        self.pool.execute(sql, &with_ids(&ids, &[now.into()])).await
    }

    /// As [`retry_events`](Self::retry_events), with every dead event.
    pub async fn retry_all_events(&self, now: Timestamp) -> Result<u64> {
        let sql = "update doorward_outbox set state = 'pending', attempts = 0, due_at = $1, leased_until = 0 \
                   where state = 'dead'";
        self.pool.execute(sql, &[now.into()]).await
    }

    /// Returns the number of events by kind and state, without those that have none.
    pub async fn outbox_depth(&self) -> Result<Vec<Depth>> {
        let sql = "select kind, state, count(*), min(created_at) from doorward_outbox group by kind, state";
        self.pool.rows(sql, &[]).await?.iter().map(depth).collect()
    }
}

fn listed(row: &SqlRow) -> Result<ListedEvent> {
    Ok(ListedEvent {
        id: EventId(row.text(0)?),
        kind: row.text(1)?,
        person: row.text(2)?,
        state: EventState::named(&row.text(3)?)?,
        attempts: row.int(4)?.max(0).cast_unsigned(),
        created_at: timestamp(row.int(5)?),
        due_at: timestamp(row.int(6)?),
        error: row.maybe_text(7)?,
    })
}

fn depth(row: &SqlRow) -> Result<Depth> {
    Ok(Depth {
        kind: row.text(0)?,
        state: EventState::named(&row.text(1)?)?,
        count: row.int(2)?.max(0).cast_unsigned(),
        oldest: timestamp(row.int(3)?),
    })
}
