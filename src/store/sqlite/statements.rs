//! Every SQL statement of the embedded store, and the conversion of its rows.

use sqlx::{Sqlite, SqlitePool, Transaction};
use zeroize::Zeroizing;

use super::{Ended, unavailable};
use crate::model::{PrincipalId, Session, TenantId, TokenId};
use crate::store::{StoreError, record};
use crate::time::Timestamp;

type Tx<'a> = Transaction<'a, Sqlite>;

#[derive(Debug, thiserror::Error)]
#[error("token id of {0} bytes")]
struct TokenIdLength(usize);

pub(super) async fn find(readers: &SqlitePool, id: TokenId, now: Timestamp) -> Result<Option<Session>, StoreError> {
    let row: Option<(Vec<u8>, i64)> =
        sqlx::query_as("SELECT record, expires_at FROM sessions WHERE token_id = ? AND expires_at > ?")
            .bind(&id.0[..])
            .bind(to_sql(now))
            .fetch_optional(readers)
            .await
            .map_err(unavailable)?;
    row.map(|(record, expires_at)| session(id, &record, expires_at)).transpose()
}

pub(super) async fn list(
    readers: &SqlitePool,
    tenant: &TenantId,
    principal: &PrincipalId,
    now: Timestamp,
) -> Result<Vec<Session>, StoreError> {
    let rows: Vec<(Vec<u8>, Vec<u8>, i64)> = sqlx::query_as(
        "SELECT token_id, record, expires_at FROM sessions WHERE tenant = ? AND principal = ? AND expires_at > ?
         ORDER BY created_at DESC, rowid DESC",
    )
    .bind(tenant.as_str())
    .bind(principal.as_str())
    .bind(to_sql(now))
    .fetch_all(readers)
    .await
    .map_err(unavailable)?;
    rows.into_iter()
        .map(|(id, record, expires_at)| {
            let id = token_id(&id).map_err(|error| StoreError::Corrupt(error.into()))?;
            session(id, &record, expires_at)
        })
        .collect()
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
    transaction: &mut Tx<'_>,
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
    transaction: &mut Tx<'_>,
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

pub(super) async fn insert(transaction: &mut Tx<'_>, session: &Session, record: &[u8]) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO sessions (token_id, tenant, principal, created_at, expires_at, record) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(&session.token_id.0[..])
    .bind(session.principal.tenant.as_str())
    .bind(session.principal.id.as_str())
    .bind(to_sql(session.created_at))
    .bind(to_sql(session.expires_at))
    .bind(record)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Makes room for one more session under `cap`; returns what had to go, oldest first.
pub(super) async fn delete_oldest(
    transaction: &mut Tx<'_>,
    tenant: &TenantId,
    principal: &PrincipalId,
    cap: u32,
    now: Timestamp,
) -> sqlx::Result<Vec<Ended>> {
    let beyond: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT token_id FROM sessions WHERE tenant = ? AND principal = ? AND expires_at > ?
         ORDER BY created_at DESC, rowid DESC LIMIT -1 OFFSET ?",
    )
    .bind(tenant.as_str())
    .bind(principal.as_str())
    .bind(to_sql(now))
    .bind(i64::from(cap.saturating_sub(1)))
    .fetch_all(&mut **transaction)
    .await?;
    let oldest_first: sqlx::Result<Vec<TokenId>> = beyond.iter().rev().map(|id| token_id(id)).collect();
    delete(transaction, &oldest_first?).await
}

/// Deletes sessions; returns those that existed, in the order given.
pub(super) async fn delete(transaction: &mut Tx<'_>, ids: &[TokenId]) -> sqlx::Result<Vec<Ended>> {
    let mut ended = Vec::with_capacity(ids.len());
    for id in ids {
        let expires_at: Option<i64> =
            sqlx::query_scalar("DELETE FROM sessions WHERE token_id = ? RETURNING expires_at")
                .bind(&id.0[..])
                .fetch_optional(&mut **transaction)
                .await?;
        ended.extend(expires_at.map(|at| Ended { id: *id, expires_at: from_sql(at) }));
    }
    Ok(ended)
}

pub(super) async fn delete_principal(
    transaction: &mut Tx<'_>,
    tenant: &TenantId,
    principal: &PrincipalId,
) -> sqlx::Result<Vec<Ended>> {
    let rows = sqlx::query_as("DELETE FROM sessions WHERE tenant = ? AND principal = ? RETURNING token_id, expires_at")
        .bind(tenant.as_str())
        .bind(principal.as_str())
        .fetch_all(&mut **transaction)
        .await?;
    ended(rows)
}

pub(super) async fn ends_of_principal(
    readers: &SqlitePool,
    tenant: &TenantId,
    principal: &PrincipalId,
) -> sqlx::Result<Vec<Ended>> {
    let rows = sqlx::query_as("SELECT token_id, expires_at FROM sessions WHERE tenant = ? AND principal = ?")
        .bind(tenant.as_str())
        .bind(principal.as_str())
        .fetch_all(readers)
        .await?;
    ended(rows)
}

pub(super) async fn extend(
    writer: &SqlitePool,
    id: TokenId,
    expires_at: Timestamp,
    now: Timestamp,
) -> sqlx::Result<bool> {
    let changed = sqlx::query("UPDATE sessions SET expires_at = ? WHERE token_id = ? AND expires_at > ?")
        .bind(to_sql(expires_at))
        .bind(&id.0[..])
        .bind(to_sql(now))
        .execute(writer)
        .await?;
    Ok(changed.rows_affected() > 0)
}

/// Deletes up to `batch` sessions whose time has passed; returns how many.
pub(super) async fn sweep(writer: &SqlitePool, now: Timestamp, batch: u32) -> sqlx::Result<u64> {
    let swept =
        sqlx::query("DELETE FROM sessions WHERE rowid IN (SELECT rowid FROM sessions WHERE expires_at <= ? LIMIT ?)")
            .bind(to_sql(now))
            .bind(i64::from(batch))
            .execute(writer)
            .await?;
    sqlx::query("DELETE FROM claims WHERE until <= ?").bind(to_sql(now)).execute(writer).await?;
    Ok(swept.rows_affected())
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

pub(super) async fn announce_outside_revocation(transaction: &mut Tx<'_>) -> sqlx::Result<()> {
    sqlx::query("UPDATE outside_revocations SET count = count + 1").execute(&mut **transaction).await?;
    Ok(())
}

pub(super) async fn outside_revocations(watcher: &SqlitePool) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT count FROM outside_revocations").fetch_one(watcher).await
}

fn ended(rows: Vec<(Vec<u8>, i64)>) -> sqlx::Result<Vec<Ended>> {
    rows.into_iter().map(|(id, at)| Ok(Ended { id: token_id(&id)?, expires_at: from_sql(at) })).collect()
}

fn session(id: TokenId, record: &[u8], expires_at: i64) -> Result<Session, StoreError> {
    record::decode(id, record).map(|session| Session { expires_at: from_sql(expires_at), ..session })
}

fn token_id(bytes: &[u8]) -> sqlx::Result<TokenId> {
    bytes.try_into().map(TokenId).map_err(|_| sqlx::Error::Decode(TokenIdLength(bytes.len()).into()))
}

fn to_sql(at: Timestamp) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

fn from_sql(at: i64) -> Timestamp {
    Timestamp(u64::try_from(at).unwrap_or_default())
}
