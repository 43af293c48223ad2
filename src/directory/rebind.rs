//! A device's guest becomes a user, exactly once.
//!
//! One transaction holds all of it: the lock on the device, the re-owned rows, the device's new user,
//! the next generation of guests, the receipt, and the outbox's events. Where the application
//! re-owns its rows itself, a claim is recorded first: while it is open, no other user can rebind the
//! device, and every replica that finds the claim asks the application again under the same key.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::outbox::{EventId, OutboxEvent, enqueue};
use super::reown::{Owners, Reown, ReownPlan};
use super::sql::{Result, SqlRow, Tx};
use super::{Directory, DirectoryError, Generation};
use crate::model::{Principal, PrincipalId, TenantId};
use crate::time::Timestamp;

/// How long an idempotency key is remembered (contracts §5.3).
const KEY_MEMORY: Duration = Duration::from_hours(24);

/// A request to make the guest of a device a user.
#[derive(Clone, Debug)]
pub struct RebindRequest {
    /// The tenant of guests.
    pub tenant: TenantId,
    /// The device: a keyed hash.
    pub device: String,
    /// Who the guest becomes.
    pub user: Principal,
    /// The caller's idempotency key, if it sent one.
    pub idempotency_key: Option<String>,
    /// Whether an event for the sink is written.
    pub alias: bool,
    /// The time.
    pub now: Timestamp,
}

/// How a rebind ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RebindOutcome {
    /// The guest is the user from now on.
    Moved(Moved),
    /// The outcome of an earlier request with the same idempotency key: rows and guest, if it moved any.
    Replayed(Option<(u64, PrincipalId)>),
    /// The device has no guest, or the user has it already.
    NoOp,
    /// The device was rebound to another user before, which is final.
    OtherUser,
}

/// A guest that became a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// How many rows have a new owner.
    pub rows: u64,
    /// The former guest; its sessions must end.
    pub guest: PrincipalId,
    /// The event that ends them if the rebind service does not.
    pub revocation: EventId,
}

/// A rebind that the application was asked to carry out and has not confirmed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebindClaim {
    /// The tenant of guests.
    pub tenant: TenantId,
    /// The device: a keyed hash.
    pub device: String,
    /// The guest.
    pub guest: PrincipalId,
    /// Who the guest becomes.
    pub user: PrincipalId,
    /// The idempotency key that the application receives.
    pub key: String,
    generation: u64,
}

/// Whether the application is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// It is.
    Claimed(RebindClaim),
    /// It is not: the outcome is known.
    Answered(RebindOutcome),
    /// Another user's rebind of the device is still open.
    Busy,
}

/// A receipt's body.
#[derive(Serialize, Deserialize)]
struct RebindReceipt {
    moved: Option<(u64, String)>,
}

/// A locked device.
struct LockedDevice {
    generation: u64,
    guest_seen: bool,
    user: Option<String>,
    pending: Option<(String, String)>,
}

impl Directory {
    /// Makes the device's guest the user, with all of its rows; `guest` returns the guest of a generation.
    ///
    /// On any error nothing has changed, unless the commit's own answer was lost.
    pub async fn rebind(
        &self,
        request: &RebindRequest,
        reown: &Reown,
        guest: impl Fn(Generation) -> PrincipalId,
        deadline: Duration,
    ) -> Result<RebindOutcome> {
        let plan = self.plan(reown).await?;
        let moving = self.rebind_by(request, &plan, guest, deadline);
        let ended = tokio::time::timeout(deadline, moving).await;
        let ended = ended.unwrap_or(Err(DirectoryError::TimedOut(deadline)));
        if ended.is_err() {
            // A column, an index or a privilege may have changed since.
            reown.forget();
        }
        ended
    }

    async fn rebind_by(
        &self,
        request: &RebindRequest,
        plan: &ReownPlan,
        guest: impl Fn(Generation) -> PrincipalId,
        deadline: Duration,
    ) -> Result<RebindOutcome> {
        let mut tx = self.pool.begin().await?;
        tx.allow(deadline).await?;
        let device = match request.lock_device(&mut tx).await? {
            Ok(device) => device,
            Err(answer) => return request.complete(tx, answer).await,
        };
        let guest = guest(Generation(device.generation));
        let owners = Owners {
            from: guest.as_str(),
            to: request.user.id.as_str(),
            from_tenant: request.tenant.as_str(),
            to_tenant: request.user.tenant.as_str(),
        };
        let rows = plan.run(&mut tx, owners).await?;
        let moved = request.record(&mut tx, rows, guest).await?;
        request.complete(tx, RebindOutcome::Moved(moved)).await
    }

    /// Records that the application is about to be asked; returns the same user's open claim if there is one.
    pub async fn claim_rebind(
        &self,
        request: &RebindRequest,
        guest: impl Fn(Generation) -> PrincipalId,
    ) -> Result<ClaimOutcome> {
        let mut tx = self.pool.begin().await?;
        let device = match request.lock_device(&mut tx).await? {
            Ok(device) => device,
            Err(answer) => return request.complete(tx, answer).await.map(ClaimOutcome::Answered),
        };
        let key = match device.pending {
            Some((user, _)) if user != request.user.id.as_str() => return Ok(ClaimOutcome::Busy),
            Some((_, key)) => key,
            None => Uuid::now_v7().to_string(),
        };
        let claim = RebindClaim {
            tenant: request.tenant.clone(),
            device: request.device.clone(),
            guest: guest(Generation(device.generation)),
            user: request.user.id.clone(),
            key,
            generation: device.generation,
        };
        let sql = "update doorward_devices \
                   set pending_user = $3, pending_key = $4, pending_guest = $5, pending_at = $6 \
                   where tenant = $1 and device = $2";
        let named = [claim.user.as_str().into(), claim.key.as_str().into(), claim.guest.as_str().into()];
        let [tenant, device] = [request.tenant.as_str().into(), request.device.as_str().into()];
        tx.execute(sql, &[tenant, device, named[0], named[1], named[2], request.now.into()]).await?;
        tx.commit().await?;
        Ok(ClaimOutcome::Claimed(claim))
    }

    /// Records that the application has moved a claim's rows.
    pub async fn finish_claim(&self, request: &RebindRequest, claim: &RebindClaim, rows: u64) -> Result<RebindOutcome> {
        let mut tx = self.pool.begin().await?;
        match request.lock_device(&mut tx).await? {
            Ok(device) if device.generation == claim.generation => {
                let moved = request.record(&mut tx, rows, claim.guest.clone()).await?;
                request.complete(tx, RebindOutcome::Moved(moved)).await
            }
            // Another replica finished the claim, and the device has a new guest since.
            Ok(_) => request.complete(tx, RebindOutcome::NoOp).await,
            Err(answer) => request.complete(tx, answer).await,
        }
    }

    /// Records that the application refused a claim and moved nothing.
    pub async fn release_claim(&self, claim: &RebindClaim) -> Result<()> {
        let sql = "update doorward_devices \
                   set pending_user = null, pending_key = null, pending_guest = null, pending_at = null \
                   where tenant = $1 and device = $2 and pending_key = $3";
        let values = [claim.tenant.as_str().into(), claim.device.as_str().into(), claim.key.as_str().into()];
        self.pool.execute(sql, &values).await.map(drop)
    }

    /// Takes up to `count` claims about which the application was last asked before `before`.
    ///
    /// No two replicas take the same one at the same time.
    pub async fn take_claims(&self, before: Timestamp, count: i64, now: Timestamp) -> Result<Vec<RebindClaim>> {
        let left = "select tenant, device, pending_guest, pending_user, pending_key, generation, pending_at \
                    from doorward_devices where pending_at < $1 and pending_user is not null \
                    order by pending_at limit $2";
        let take = "update doorward_devices set pending_at = $4 \
                    where tenant = $1 and device = $2 and pending_key = $3 and pending_at = $5";
        let mut taken = Vec::new();
        for row in self.pool.rows(left, &[before.into(), count.into()]).await? {
            let claim = claim(&row)?;
            let [tenant, device] = [claim.tenant.as_str().into(), claim.device.as_str().into()];
            let values = [tenant, device, claim.key.as_str().into(), now.into(), row.int(6)?.into()];
            if self.pool.execute(take, &values).await? == 1 {
                taken.push(claim);
            }
        }
        Ok(taken)
    }

    /// Deletes an event whose effect is already there, so that no lane delivers it again.
    pub async fn forget_event(&self, event: &EventId) -> Result<()> {
        self.pool.execute("delete from doorward_outbox where id = $1", &[event.as_str().into()]).await.map(drop)
    }
}

impl RebindRequest {
    /// Locks the device; returns the outcome instead if it is known already.
    async fn lock_device(&self, tx: &mut Tx) -> Result<std::result::Result<LockedDevice, RebindOutcome>> {
        let key = [self.tenant.as_str().into(), self.device.as_str().into()];
        let columns = "select generation, guest_seen, user_id, pending_user, pending_key \
                       from doorward_devices where tenant = $1 and device = $2";
        let locked = "select generation, guest_seen, user_id, pending_user, pending_key \
                      from doorward_devices where tenant = $1 and device = $2 for update";
        // SQLite has locked the whole database already.
        let rows = tx.rows(if tx.is_postgres() { locked } else { columns }, &key).await?;
        // Only after the lock: an equal request may just have finished.
        if let Some(receipt) = self.find_receipt(tx).await? {
            return Ok(Err(RebindOutcome::Replayed(receipt)));
        }
        let Some(row) = rows.first() else { return Ok(Err(RebindOutcome::NoOp)) };
        let device = device(row)?;
        Ok(match &device.user {
            Some(user) if user != self.user.id.as_str() => Err(RebindOutcome::OtherUser),
            _ if !device.guest_seen => Err(RebindOutcome::NoOp),
            _ => Ok(device),
        })
    }

    /// Writes the device's new user and the events that follow.
    async fn record(&self, tx: &mut Tx, rows: u64, guest: PrincipalId) -> Result<Moved> {
        let sql = "update doorward_devices \
                   set user_id = $3, rebound_at = $4, generation = generation + 1, guest_seen = 0, \
                       pending_user = null, pending_key = null, pending_guest = null, pending_at = null \
                   where tenant = $1 and device = $2";
        let [tenant, device] = [self.tenant.as_str().into(), self.device.as_str().into()];
        tx.execute(sql, &[tenant, device, self.user.id.as_str().into(), self.now.into()]).await?;
        if self.alias {
            let alias = OutboxEvent::Alias { user: self.user.id.clone(), guest: guest.clone() };
            enqueue(tx, &alias, self.now).await?;
        }
        let revoke = OutboxEvent::RevokeGuest { tenant: self.tenant.clone(), guest: guest.clone() };
        let revocation = enqueue(tx, &revoke, self.now).await?;
        Ok(Moved { rows, guest, revocation })
    }

    /// Stores the receipt of a success and commits.
    async fn complete(&self, mut tx: Tx, answer: RebindOutcome) -> Result<RebindOutcome> {
        let receipt = match &answer {
            RebindOutcome::Replayed(_) | RebindOutcome::OtherUser => return Ok(answer),
            RebindOutcome::NoOp => RebindReceipt { moved: None },
            RebindOutcome::Moved(moved) => RebindReceipt { moved: Some((moved.rows, moved.guest.as_str().to_owned())) },
        };
        if let Some((scope, id)) = self.receipt_name() {
            let body = serde_json::to_string(&receipt).map_err(|_| DirectoryError::Inconsistent("a receipt"))?;
            tx.keep_receipt(&scope, &id, Some(&body), self.now.plus(KEY_MEMORY)).await?;
        }
        tx.commit().await?;
        Ok(answer)
    }

    async fn find_receipt(&self, tx: &mut Tx) -> Result<Option<Option<(u64, PrincipalId)>>> {
        let Some((scope, id)) = self.receipt_name() else { return Ok(None) };
        let Some(found) = tx.find_receipt(&scope, &id, self.now).await? else { return Ok(None) };
        let receipt: RebindReceipt = serde_json::from_str(found.body.as_deref().unwrap_or_default())
            .map_err(|_| DirectoryError::Inconsistent("a receipt of a rebind cannot be read"))?;
        receipt.moved.map(|(rows, guest)| Ok((rows, parsed(&guest)?))).transpose().map(Some)
    }

    // The device is part of the name: a key that is used for two devices must not answer for a rebind that never took place.
    fn receipt_name(&self) -> Option<(String, String)> {
        let key = self.idempotency_key.as_ref()?;
        let Principal { tenant, id, .. } = &self.user;
        Some((format!("rebind {tenant} {id}"), format!("{} {key}", self.device)))
    }
}

fn device(row: &SqlRow) -> Result<LockedDevice> {
    Ok(LockedDevice {
        generation: generation(row.int(0)?)?,
        guest_seen: row.int(1)? == 1,
        user: row.maybe_text(2)?,
        pending: row.maybe_text(3)?.zip(row.maybe_text(4)?),
    })
}

fn claim(row: &SqlRow) -> Result<RebindClaim> {
    Ok(RebindClaim {
        tenant: parsed(&row.text(0)?)?,
        device: row.text(1)?,
        guest: parsed(&row.text(2)?)?,
        user: parsed(&row.text(3)?)?,
        key: row.text(4)?,
        generation: generation(row.int(5)?)?,
    })
}

fn generation(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| DirectoryError::Inconsistent("a generation below zero"))
}

fn parsed<T: FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| DirectoryError::Inconsistent("an identifier that no header can carry"))
}
