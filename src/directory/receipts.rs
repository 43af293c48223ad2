//! What was done already and must not be done again.
//!
//! A receipt is found until its time is up; a sender does not repeat the operation later than that.
//! One that is written in the operation's transaction exists if and only if that was committed.

use super::Directory;
use super::sql::{Result, SqlRow, Tx};
use crate::time::Timestamp;

const FIND: &str = "select body from doorward_receipts where scope = $1 and id = $2 and until > $3";
const KEEP: &str = "insert into doorward_receipts (scope, id, body, until) values ($1, $2, $3, $4) \
                    on conflict (scope, id) do update set body = excluded.body, until = excluded.until";

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// What was answered then, if it has to be answered again.
    pub body: Option<String>,
}

impl Directory {
    /// Returns the receipt called `id` in `scope`, unless its time is up at `now`.
    pub async fn find_receipt(&self, scope: &str, id: &str, now: Timestamp) -> Result<Option<Receipt>> {
        receipt(&self.pool.rows(FIND, &[scope.into(), id.into(), now.into()]).await?)
    }

    /// Keeps a receipt `until` then, and throws away those whose time is up.
    pub async fn keep_receipt(
        &self,
        scope: &str,
        id: &str,
        body: Option<&str>,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<()> {
        self.prune_receipts(now).await?;
        self.pool.execute(KEEP, &[scope.into(), id.into(), body.into(), until.into()]).await.map(drop)
    }

    /// Forgets receipts whose time is up.
    pub async fn prune_receipts(&self, now: Timestamp) -> Result<()> {
        self.pool.execute("delete from doorward_receipts where until <= $1", &[now.into()]).await.map(drop)
    }
}

impl Tx {
    /// Returns the receipt called `id` in `scope`, unless its time is up at `now`.
    pub(super) async fn find_receipt(&mut self, scope: &str, id: &str, now: Timestamp) -> Result<Option<Receipt>> {
        receipt(&self.rows(FIND, &[scope.into(), id.into(), now.into()]).await?)
    }

    /// Keeps a receipt `until` then, if the transaction is committed.
    pub(super) async fn keep_receipt(
        &mut self,
        scope: &str,
        id: &str,
        body: Option<&str>,
        until: Timestamp,
    ) -> Result<()> {
        self.execute(KEEP, &[scope.into(), id.into(), body.into(), until.into()]).await.map(drop)
    }
}

fn receipt(rows: &[SqlRow]) -> Result<Option<Receipt>> {
    rows.first().map(|row| Ok(Receipt { body: row.maybe_text(0)? })).transpose()
}
