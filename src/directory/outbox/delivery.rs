//! The delivering side of the outbox: lease, then settle.
//!
//! The end of a lease fences it: a replica whose lease was taken over by another changes nothing of
//! the event any more.

use std::time::Duration;

use super::{EventId, EventKind};
use crate::directory::Directory;
use crate::directory::sql::{Result, SqlRow, Value};
use crate::time::Timestamp;

/// Events under one lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Oldest first, no two of one person.
    pub events: Vec<Leased>,
    /// When the lease ends.
    pub until: Timestamp,
}

/// A leased event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// Which event.
    pub id: EventId,
    /// JSON, by its kind.
    pub body: String,
    /// How many times it was leased, including this one.
    pub attempts: u32,
    /// When it was written.
    pub created_at: Timestamp,
}

// `|| ''` keeps the planner from the index that finds every pending event instead of one person's:
// a table that was just filled has no statistics, and each look would read all of it.
macro_rules! leasing {
    ($locking:literal) => {
        concat!(
            "with due as materialized (\
             select id from doorward_outbox event \
             where kind = $1 and state = 'pending' and due_at <= $2 and leased_until <= $2 and not exists (\
             select 1 from doorward_outbox older where older.person = event.person and older.id < event.id \
             and older.kind || '' = event.kind and older.state || '' = 'pending') \
             order by id limit $3",
            $locking,
            ") update doorward_outbox set leased_until = $4, attempts = attempts + 1 \
             where id in (select id from due) returning id, body, attempts, created_at"
        )
    };
}

macro_rules! for_ids {
    ($before:literal, $after:literal) => {
        Statement {
            sqlite: concat!($before, " id in (select value from json_each($1))", $after),
            postgres: concat!($before, " id in (select value from json_array_elements_text($1::json))", $after),
        }
    };
}

/// One statement in the two spellings of "the ids in this JSON array".
#[derive(Clone, Copy)]
pub(super) struct Statement {
    sqlite: &'static str,
    postgres: &'static str,
}

const DELIVERED: Statement = for_ids!("delete from doorward_outbox where", "");
const RENEWED: Statement = for_ids!(
    "update doorward_outbox set leased_until = $2 where leased_until = $3 and state = 'pending' and",
    " returning id"
);
const FAILED: Statement = for_ids!(
    "update doorward_outbox set leased_until = 0, due_at = $2, error = $3 \
     where leased_until = $4 and state = 'pending' and",
    ""
);
const DEAD_LETTERED: Statement = for_ids!(
    "update doorward_outbox set state = 'dead', leased_until = 0, error = $2 \
     where leased_until = $3 and state = 'pending' and",
    ""
);
pub(super) const RETRIED: Statement = for_ids!(
    "update doorward_outbox set state = 'pending', attempts = 0, due_at = $2, leased_until = 0 \
     where state = 'dead' and",
    ""
);

impl Directory {
    /// Leases up to `limit` events of a kind that are due, the oldest first and one of each person.
    ///
    /// `length` must be longer than a delivery takes, or another replica delivers the same again.
    pub async fn lease_events(&self, kind: EventKind, limit: u32, length: Duration, now: Timestamp) -> Result<Lease> {
        const SQLITE: &str = leasing!("");
        // Rows that another replica is leasing at this moment are skipped.
        const POSTGRES: &str = leasing!(" for update skip locked");
        let until = now.plus(length);
        let values = [kind.as_str().into(), now.into(), i64::from(limit).into(), until.into()];
        let rows = self.pool.rows(if self.pool.is_postgres() { POSTGRES } else { SQLITE }, &values).await?;
        let mut events = rows.iter().map(leased).collect::<Result<Vec<_>>>()?;
        // `returning` has no order.
        events.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(Lease { events, until })
    }

    /// Makes a lease last `length` from now; leaves out events that another replica has leased since.
    pub async fn renew_lease(&self, lease: Lease, length: Duration, now: Timestamp) -> Result<Lease> {
        let until = now.plus(length);
        let values = [until.into(), lease.until.into()];
        let rows = self.pool.rows(self.spelling(RENEWED), &with_ids(&ids(&lease.events), &values)).await?;
        let kept = rows.iter().map(|row| row.text(0)).collect::<Result<Vec<_>>>()?;
        let events = lease.events.into_iter().filter(|event| kept.iter().any(|id| id == event.id.as_str())).collect();
        Ok(Lease { events, until })
    }

    /// Deletes delivered events, also those that another replica has leased since.
    pub async fn events_delivered<'a>(&self, delivered: impl IntoIterator<Item = &'a EventId>) -> Result<()> {
        self.pool.execute(self.spelling(DELIVERED), &with_ids(&json_array(delivered), &[])).await?;
        Ok(())
    }

    /// Releases a lease; its events are tried again at `retry_at`.
    pub async fn events_failed(&self, lease: &Lease, retry_at: Timestamp, error: &str) -> Result<()> {
        let values = [retry_at.into(), error.into(), lease.until.into()];
        self.pool.execute(self.spelling(FAILED), &with_ids(&ids(&lease.events), &values)).await?;
        Ok(())
    }

    /// Releases a lease and marks its events dead until an operator retries them.
    pub async fn dead_letter_events(&self, lease: &Lease, error: &str) -> Result<()> {
        let values = [error.into(), lease.until.into()];
        self.pool.execute(self.spelling(DEAD_LETTERED), &with_ids(&ids(&lease.events), &values)).await?;
        Ok(())
    }

    pub(super) fn spelling(&self, statement: Statement) -> &'static str {
        if self.pool.is_postgres() { statement.postgres } else { statement.sqlite }
    }
}

fn leased(row: &SqlRow) -> Result<Leased> {
    Ok(Leased {
        id: EventId(row.text(0)?),
        body: row.text(1)?,
        attempts: u32::try_from(row.int(2)?).unwrap_or(u32::MAX),
        created_at: super::timestamp(row.int(3)?),
    })
}

fn ids(events: &[Leased]) -> String {
    json_array(events.iter().map(|event| &event.id))
}

/// Returns ids as the statements take them.
pub(super) fn json_array<'a>(ids: impl IntoIterator<Item = &'a EventId>) -> String {
    ids.into_iter().map(EventId::as_str).collect::<serde_json::Value>().to_string()
}

/// Returns the values of a [`Statement`], ids first.
pub(super) fn with_ids<'a>(ids: &'a str, values: &[Value<'a>]) -> Vec<Value<'a>> {
    std::iter::once(ids.into()).chain(values.iter().copied()).collect()
}
