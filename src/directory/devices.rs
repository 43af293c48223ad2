//! Devices, and which guest of each is the current one.

use super::sql::Result;
use super::{Directory, DirectoryError};
use crate::model::TenantId;
use crate::time::Timestamp;

/// Which guest of a device, counted from 0: a rebind ends one and makes room for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(pub u64);

impl Directory {
    /// Records that a guest signs in on `device`, a keyed hash; returns which guest of it that is.
    ///
    /// From now on there is something to rebind. Two first calls agree.
    pub async fn record_guest_sign_in(&self, tenant: &TenantId, device: &str, now: Timestamp) -> Result<Generation> {
        let known = "select generation from doorward_devices where tenant = $1 and device = $2 and guest_seen = 1";
        let key = [tenant.as_str().into(), device.into()];
        // Most guests come back: they need no write.
        if let Some(row) = self.pool.rows(known, &key).await?.first() {
            return generation(row.int(0)?);
        }
        let seen = "insert into doorward_devices (tenant, device, generation, guest_seen, created_at) \
                    values ($1, $2, 0, 1, $3) \
                    on conflict (tenant, device) do update set guest_seen = 1 returning generation";
        let rows = self.pool.rows(seen, &[key[0], key[1], now.into()]).await?;
        generation(rows.first().ok_or(DirectoryError::Inconsistent("an upsert returned no row"))?.int(0)?)
    }
}

fn generation(number: i64) -> Result<Generation> {
    u64::try_from(number).map(Generation).map_err(|_| DirectoryError::Inconsistent("a generation below zero"))
}
