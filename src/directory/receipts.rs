//! What was done already and must not be done again.
//!
//! A receipt is found until its time is up; by then nobody may repeat what it stands for.

use super::Directory;
use super::sql::Result;
use crate::time::Timestamp;

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// What was answered then, if it has to be answered again.
    pub body: Option<String>,
}

impl Directory {
    /// Returns the receipt called `id` in `scope`, unless its time is up at `now`.
    pub async fn find_receipt(&self, scope: &str, id: &str, now: Timestamp) -> Result<Option<Receipt>> {
        let find = "select body from doorward_receipts where scope = $1 and id = $2 and until > $3";
        let rows = self.pool.rows(find, &[scope.into(), id.into(), now.into()]).await?;
        rows.first().map(|row| Ok(Receipt { body: row.maybe_text(0)? })).transpose()
    }

    /// Keeps a receipt `until` then, and throws away those whose time is up; the first one stands.
    pub async fn keep_receipt(
        &self,
        scope: &str,
        id: &str,
        body: Option<&str>,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<()> {
        self.pool.execute("delete from doorward_receipts where until <= $1", &[now.into()]).await?;
        let keep = "insert into doorward_receipts (scope, id, body, until) values ($1, $2, $3, $4) \
                    on conflict (scope, id) do nothing";
        self.pool.execute(keep, &[scope.into(), id.into(), body.into(), until.into()]).await?;
        Ok(())
    }
}
