//! Receipts: what was done already and must not be done again.
//!
//! A receipt is kept in the transaction of what it is for, or not at all.

use super::Directory;
use super::sql::{Result, Tx};
use crate::time::Timestamp;

impl Tx {
    /// Returns the body of a receipt that is still good; the inner `None` is a receipt without one.
    pub(super) async fn find_receipt(
        &mut self,
        scope: &str,
        id: &str,
        now: Timestamp,
    ) -> Result<Option<Option<String>>> {
        let sql = "select body from doorward_receipts where scope = $1 and id = $2 and until > $3";
        let rows = self.rows(sql, &[scope.into(), id.into(), now.into()]).await?;
        rows.first().map(|row| row.maybe_text(0)).transpose()
    }

    /// Keeps a receipt until a time, in place of one that has run out.
    pub(super) async fn keep_receipt(
        &mut self,
        scope: &str,
        id: &str,
        body: Option<&str>,
        until: Timestamp,
    ) -> Result<()> {
        let sql = "insert into doorward_receipts (scope, id, body, until) values ($1, $2, $3, $4) \
                   on conflict (scope, id) do update set body = excluded.body, until = excluded.until";
        self.execute(sql, &[scope.into(), id.into(), body.into(), until.into()]).await.map(drop)
    }
}

impl Directory {
    /// Forgets receipts that have run out.
    pub async fn prune_receipts(&self, now: Timestamp) -> Result<()> {
        self.pool.execute("delete from doorward_receipts where until <= $1", &[now.into()]).await.map(drop)
    }
}
