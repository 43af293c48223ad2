//! Changes to the head of a session's record: read, decide, write, in one transaction.

use sqlx::{Sqlite, Transaction};

use super::{SqliteStore, statements, unavailable};
use crate::model::SessionId;
use crate::model::session::RefreshTurn;
use crate::store::record::{self, Head};
use crate::store::{Presented, Rotated, StoreError, Touch};
use crate::time::Timestamp;

/// Records a use; `false` if the session is gone.
pub(super) async fn touch(
    store: &SqliteStore,
    id: SessionId,
    touch: Touch,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let _turn = store.gate.lock().await;
    let mut transaction = begin(store).await?;
    let Some(mut record) = statements::record(&mut transaction, id, now).await.map_err(unavailable)? else {
        return Ok(false);
    };
    let head = Head::read(&record)?;
    let extend_to = touch.extend_to.unwrap_or_default();
    let changed = Head {
        expires_at: head.expires_at.max(extend_to),
        last_seen: head.last_seen.max(touch.seen),
        extended_until: head.extended_until.max(extend_to),
        ..head
    };
    changed.write(&mut record);
    write(transaction, id, changed, &record).await?;
    Ok(true)
}

/// Moves a session to its next refresh token.
pub(super) async fn rotate(
    store: &SqliteStore,
    id: SessionId,
    presented: Presented,
    now: Timestamp,
) -> Result<Rotated, StoreError> {
    let _turn = store.gate.lock().await;
    let mut transaction = begin(store).await?;
    let Some(mut record) = statements::record(&mut transaction, id, now).await.map_err(unavailable)? else {
        return Ok(Rotated::Gone);
    };
    let head = Head::read(&record)?;
    if head.verifier != presented.verifier {
        return Ok(Rotated::Gone);
    }
    let due = head.refresh;
    if presented.turn < due.turn {
        let session = record::decode(id, &record)?;
        let again = is_repeated(due, &presented, store.clock.now());
        return Ok(if again { Rotated::Repeated(session) } else { Rotated::Reused(session) });
    }
    let next = RefreshTurn { turn: presented.turn + 1, since: store.clock.now(), agent: presented.agent };
    let changed = Head { refresh: next, ..head };
    changed.write(&mut record);
    write(transaction, id, changed, &record).await?;
    let session = record::decode(id, &record)?;
    Ok(if presented.turn == due.turn { Rotated::Next(session) } else { Rotated::Ahead(session) })
}

fn is_repeated(due: RefreshTurn, presented: &Presented, now: Timestamp) -> bool {
    let just_replaced = presented.turn.checked_add(1) == Some(due.turn);
    let within = !presented.grace.is_zero() && now.since(due.since) <= presented.grace;
    just_replaced && within && presented.agent == due.agent
}

async fn begin(store: &SqliteStore) -> Result<Transaction<'_, Sqlite>, StoreError> {
    store.connections.relaxed.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable)
}

async fn write(
    mut transaction: Transaction<'_, Sqlite>,
    id: SessionId,
    head: Head,
    record: &[u8],
) -> Result<(), StoreError> {
    statements::rewrite(&mut transaction, id, head.expires_at, record).await.map_err(unavailable)?;
    transaction.commit().await.map_err(unavailable)
}
