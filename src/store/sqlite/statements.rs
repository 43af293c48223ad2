//! Every SQL statement of the embedded store, and the conversion of its rows.

use sqlx::{Sqlite, SqlitePool, Transaction};
use zeroize::Zeroizing;

use super::{EndedSession, unavailable};
use crate::model::{End, EndReason, PrincipalId, Session, SessionId, TenantId};
use crate::store::{Listed, Page, StoreError, record};
use crate::time::Timestamp;

type SqliteTx<'a> = Transaction<'a, Sqlite>;
/// Id, end, tenant, principal, record.
type EndedRow = (Vec<u8>, i64, String, String, Vec<u8>);

/// Why and when sessions end, and whether they stay known.
#[derive(Clone, Copy)]
pub(super) struct EndFiling {
    pub(super) end: End,
    pub(super) keep: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("session id of {0} bytes")]
struct SessionIdLength(usize);

pub(super) async fn find(readers: &SqlitePool, id: SessionId, now: Timestamp) -> Result<Option<Session>, StoreError> {
    let row: Option<Vec<u8>> = sqlx::query_scalar("SELECT record FROM sessions WHERE id = ? AND expires_at > ?")
        .bind(&id.as_bytes()[..])
        .bind(to_sql(now))
        .fetch_optional(readers)
        .await
        .map_err(unavailable)?;
    row.map(|record| record::decode(id, &record)).transpose()
}

/// Returns the record of a live session, for a change in the same transaction.
pub(super) async fn record(
    transaction: &mut SqliteTx<'_>,
    id: SessionId,
    now: Timestamp,
) -> sqlx::Result<Option<Vec<u8>>> {
    sqlx::query_scalar("SELECT record FROM sessions WHERE id = ? AND expires_at > ?")
        .bind(&id.as_bytes()[..])
        .bind(to_sql(now))
        .fetch_optional(&mut **transaction)
        .await
}

pub(super) async fn rewrite(
    transaction: &mut SqliteTx<'_>,
    id: SessionId,
    expires_at: Timestamp,
    record: &[u8],
) -> sqlx::Result<()> {
    sqlx::query("UPDATE sessions SET record = ?, expires_at = ? WHERE id = ?")
        .bind(record)
        .bind(to_sql(expires_at))
        .bind(&id.as_bytes()[..])
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

pub(super) async fn list_live(
    readers: &SqlitePool,
    tenant: &TenantId,
    principal: &PrincipalId,
    page: Page,
    now: Timestamp,
) -> Result<Vec<Listed>, StoreError> {
    let rows: Vec<(Vec<u8>, Vec<u8>)> = sqlx::query_as(
        "SELECT id, record FROM sessions WHERE tenant = ? AND principal = ? AND expires_at > ? AND id < ?
         ORDER BY id DESC LIMIT ?",
    )
    .bind(tenant.as_str())
    .bind(principal.as_str())
    .bind(to_sql(now))
    .bind(before(page))
    .bind(limit(page))
    .fetch_all(readers)
    .await
    .map_err(unavailable)?;
    let listed = rows.into_iter().map(|(id, record)| {
        let session = record::decode(session_id(&id).map_err(corrupt)?, &record)?;
        Ok(Listed { session, ended: None })
    });
    listed.collect()
}

// An expired session stays in its table for as long as an ended one is kept; the sweep deletes both.
pub(super) async fn list_ended(
    readers: &SqlitePool,
    tenant: &TenantId,
    principal: &PrincipalId,
    page: Page,
    now: Timestamp,
) -> Result<Vec<Listed>, StoreError> {
    let rows: Vec<(Vec<u8>, bool, Vec<u8>)> = sqlx::query_as(
        "SELECT id, TRUE, record FROM ended_sessions WHERE tenant = ?1 AND principal = ?2 AND id < ?4
         UNION ALL
         SELECT id, FALSE, record FROM sessions WHERE tenant = ?1 AND principal = ?2 AND expires_at <= ?3 AND id < ?4
         ORDER BY id DESC LIMIT ?5",
    )
    .bind(tenant.as_str())
    .bind(principal.as_str())
    .bind(to_sql(now))
    .bind(before(page))
    .bind(limit(page))
    .fetch_all(readers)
    .await
    .map_err(unavailable)?;
    let listed = rows.into_iter().map(|(id, filed, bytes)| {
        let id = session_id(&id).map_err(corrupt)?;
        if filed {
            let (end, record) = record::decode_end(&bytes)?;
            return Ok(Listed { session: record::decode(id, record)?, ended: Some(end) });
        }
        let session = record::decode(id, &bytes)?;
        let end = End { reason: EndReason::Expired, at: session.expires_at };
        Ok(Listed { session, ended: Some(end) })
    });
    listed.collect()
}

pub(super) async fn claim(pool: &SqlitePool, digest: &[u8], until: Timestamp, now: Timestamp) -> sqlx::Result<bool> {
    let claimed = sqlx::query(
        "INSERT INTO claims (digest, until) VALUES (?, ?)
         ON CONFLICT (digest) DO UPDATE SET until = excluded.until WHERE claims.until <= ?",
    )
    .bind(digest)
    .bind(to_sql(until))
    .bind(to_sql(now))
    .execute(pool)
    .await?;
    Ok(claimed.rows_affected() == 1)
}

pub(super) async fn not_before(
    transaction: &mut SqliteTx<'_>,
    tenant: &TenantId,
    principal: &PrincipalId,
) -> sqlx::Result<Option<Timestamp>> {
    let at: Option<i64> = sqlx::query_scalar("SELECT at FROM not_before WHERE tenant = ? AND principal = ?")
        .bind(tenant.as_str())
        .bind(principal.as_str())
        .fetch_optional(&mut **transaction)
        .await?;
    Ok(at.map(from_sql))
}

// Never lowered: a clock that went back must not admit what was barred.
pub(super) async fn raise_not_before(
    transaction: &mut SqliteTx<'_>,
    tenant: &TenantId,
    principal: &PrincipalId,
    at: Timestamp,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO not_before (tenant, principal, at) VALUES (?, ?, ?)
         ON CONFLICT (tenant, principal) DO UPDATE SET at = max(at, excluded.at)",
    )
    .bind(tenant.as_str())
    .bind(principal.as_str())
    .bind(to_sql(at))
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

pub(super) async fn insert(transaction: &mut SqliteTx<'_>, session: &Session, record: &[u8]) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO sessions (id, tenant, principal, expires_at, record) VALUES (?, ?, ?, ?, ?)")
        .bind(&session.id.as_bytes()[..])
        .bind(session.principal.tenant.as_str())
        .bind(session.principal.id.as_str())
        .bind(to_sql(session.expires_at))
        .bind(record)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Makes room for one more session under `cap`; returns what had to go, oldest first.
pub(super) async fn end_oldest(
    transaction: &mut SqliteTx<'_>,
    tenant: &TenantId,
    principal: &PrincipalId,
    cap: u32,
    filing: EndFiling,
) -> sqlx::Result<Vec<EndedSession>> {
    let beyond: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT id FROM sessions WHERE tenant = ? AND principal = ? AND expires_at > ?
         ORDER BY id DESC LIMIT -1 OFFSET ?",
    )
    .bind(tenant.as_str())
    .bind(principal.as_str())
    .bind(to_sql(filing.end.at))
    .bind(i64::from(cap.saturating_sub(1)))
    .fetch_all(&mut **transaction)
    .await?;
    let oldest_first: sqlx::Result<Vec<SessionId>> = beyond.iter().rev().map(|id| session_id(id)).collect();
    end(transaction, &oldest_first?, filing).await
}

/// Ends sessions; returns those that lived, in the order given.
pub(super) async fn end(
    transaction: &mut SqliteTx<'_>,
    ids: &[SessionId],
    filing: EndFiling,
) -> sqlx::Result<Vec<EndedSession>> {
    let mut ended = Vec::with_capacity(ids.len());
    for id in ids {
        let row: Option<EndedRow> = sqlx::query_as(
            "DELETE FROM sessions WHERE id = ? AND expires_at > ?
                 RETURNING id, expires_at, tenant, principal, record",
        )
        .bind(&id.as_bytes()[..])
        .bind(to_sql(filing.end.at))
        .fetch_optional(&mut **transaction)
        .await?;
        if let Some(row) = row {
            ended.push(file(transaction, row, filing).await?);
        }
    }
    Ok(ended)
}

pub(super) async fn end_principal(
    transaction: &mut SqliteTx<'_>,
    tenant: &TenantId,
    principal: &PrincipalId,
    filing: EndFiling,
) -> sqlx::Result<Vec<EndedSession>> {
    let rows: Vec<EndedRow> = sqlx::query_as(
        "DELETE FROM sessions WHERE tenant = ? AND principal = ? AND expires_at > ?
         RETURNING id, expires_at, tenant, principal, record",
    )
    .bind(tenant.as_str())
    .bind(principal.as_str())
    .bind(to_sql(filing.end.at))
    .fetch_all(&mut **transaction)
    .await?;
    let mut ended = Vec::with_capacity(rows.len());
    for row in rows {
        ended.push(file(transaction, row, filing).await?);
    }
    Ok(ended)
}

async fn file(transaction: &mut SqliteTx<'_>, row: EndedRow, filing: EndFiling) -> sqlx::Result<EndedSession> {
    let (id, expires_at, tenant, principal, record) = row;
    if filing.keep {
        let record = [record::encode_end(filing.end).as_slice(), &record].concat();
        sqlx::query(
            "INSERT OR REPLACE INTO ended_sessions (id, tenant, principal, ended_at, record) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(&id)
        .bind(tenant)
        .bind(principal)
        .bind(to_sql(filing.end.at))
        .bind(record)
        .execute(&mut **transaction)
        .await?;
    }
    Ok(EndedSession { id: session_id(&id)?, expires_at: from_sql(expires_at) })
}

pub(super) async fn ends_of_principal(
    readers: &SqlitePool,
    tenant: &TenantId,
    principal: &PrincipalId,
) -> sqlx::Result<Vec<EndedSession>> {
    let rows: Vec<(Vec<u8>, i64)> =
        sqlx::query_as("SELECT id, expires_at FROM sessions WHERE tenant = ? AND principal = ?")
            .bind(tenant.as_str())
            .bind(principal.as_str())
            .fetch_all(readers)
            .await?;
    rows.into_iter().map(|(id, at)| Ok(EndedSession { id: session_id(&id)?, expires_at: from_sql(at) })).collect()
}

/// Deletes up to `batch` sessions that ended, by themselves or otherwise, at `until` or earlier; returns how many.
pub(super) async fn sweep(writer: &SqlitePool, until: Timestamp, now: Timestamp, batch: u32) -> sqlx::Result<u64> {
    let swept =
        sqlx::query("DELETE FROM sessions WHERE rowid IN (SELECT rowid FROM sessions WHERE expires_at <= ? LIMIT ?)")
            .bind(to_sql(until))
            .bind(i64::from(batch))
            .execute(writer)
            .await?;
    let forgotten = sqlx::query(
        "DELETE FROM ended_sessions WHERE id IN (SELECT id FROM ended_sessions WHERE ended_at <= ? LIMIT ?)",
    )
    .bind(to_sql(until))
    .bind(i64::from(batch))
    .execute(writer)
    .await?;
    sqlx::query("DELETE FROM claims WHERE until <= ?").bind(to_sql(now)).execute(writer).await?;
    Ok(swept.rows_affected().max(forgotten.rows_affected()))
}

/// Stores `candidate` under `name` unless something is there already; returns what is there.
pub(super) async fn keep(
    durable: &SqlitePool,
    name: &'static str,
    candidate: &[u8],
) -> sqlx::Result<Zeroizing<Vec<u8>>> {
    let mut transaction = durable.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING")
        .bind(name)
        .bind(candidate)
        .execute(&mut *transaction)
        .await?;
    let kept = sqlx::query_scalar("SELECT value FROM meta WHERE key = ?")
        .bind(name)
        .fetch_one(&mut *transaction)
        .await
        .map(Zeroizing::new)?;
    transaction.commit().await?;
    Ok(kept)
}

pub(super) async fn announce_outside_revocation(transaction: &mut SqliteTx<'_>) -> sqlx::Result<()> {
    sqlx::query("UPDATE outside_revocations SET count = count + 1").execute(&mut **transaction).await?;
    Ok(())
}

pub(super) async fn outside_revocations(watcher: &SqlitePool) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT count FROM outside_revocations").fetch_one(watcher).await
}

fn before(page: Page) -> Vec<u8> {
    // Longer than every id, and greater.
    page.after.map_or_else(|| vec![0xFF; 17], |id| id.as_bytes().to_vec())
}

fn limit(page: Page) -> i64 {
    i64::try_from(page.limit).unwrap_or(i64::MAX)
}

fn session_id(bytes: &[u8]) -> sqlx::Result<SessionId> {
    let id = bytes.try_into().map(SessionId::from_bytes);
    id.map_err(|_| sqlx::Error::Decode(SessionIdLength(bytes.len()).into()))
}

fn corrupt(error: sqlx::Error) -> StoreError {
    StoreError::Corrupt(error.into())
}

fn to_sql(at: Timestamp) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

fn from_sql(at: i64) -> Timestamp {
    Timestamp(u64::try_from(at).unwrap_or_default())
}
