//! The rebind service: a guest becomes the user who signed in, exactly once (contracts §5.3, §12.3).
//!
//! The directory records the rebind; right after, this service ends the guest's sessions. A crash in
//! between leaves an outbox event that ends them. If a hook's answer was lost, the hook is asked again
//! under the same key until it has answered: at the user's next try, or by [`Rebinds::run`].

use std::sync::Arc;
use std::time::Duration;

use super::Guests;
use super::hook::{HookError, NewHookSecret, RebindHook};
use crate::config::rebind::Backend;
use crate::config::{self, Config};
use crate::directory::{
    ClaimOutcome, Directory, DirectoryError, Moved, RebindClaim, RebindOutcome, RebindRequest, Reown,
};
use crate::metrics::Metrics;
use crate::model::{Principal, PrincipalId, PrincipalKind, TenantId};
use crate::session::Sessions;
use crate::telemetry::audit::{Action, Event};
use crate::telemetry::with_causes;
use crate::time::{Clock, Timestamp, millis};

/// How often open claims are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// How many open claims are taken at once.
const TAKEN: i64 = 16;
/// How often expired receipts are deleted.
const PRUNE: Duration = Duration::from_hours(1);
/// Every label of `doorward_rebinds_total`.
const OUTCOMES: [&str; 6] = ["moved", "no_op", "replayed", "other_user", "refused", "failed"];

/// The rebind service.
pub struct Rebinds {
    directory: Arc<Directory>,
    sessions: Arc<Sessions>,
    guests: Arc<Guests>,
    backend: RebindBackend,
    alias: bool,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// How a rebind ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebound {
    /// The guest is the user from now on, and its rows are the user's.
    Moved {
        /// How many rows have a new owner.
        rows: u64,
        /// The former guest.
        guest: PrincipalId,
    },
    /// There was nothing to do.
    NoOp,
}

/// Why nothing was rebound.
#[derive(Debug, thiserror::Error)]
pub enum RebindError {
    /// The device was rebound to another user before, which is final.
    #[error("the device is another user's")]
    OtherUser,
    /// The database failed; nothing changed.
    #[error("the directory failed")]
    Directory(#[from] DirectoryError),
    /// The hook did not confirm that it moved the rows.
    #[error("the hook failed")]
    Hook(#[from] HookError),
    /// Another user's rebind of the device is still open.
    #[error("another rebind of the device is under way")]
    Busy,
}

/// `rebind.hook` cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
#[error("rebind.hook: {0}")]
pub struct InvalidHook(String);

enum RebindBackend {
    /// Also `none`, with no tables.
    Sql {
        reown: Reown,
        deadline: Duration,
    },
    Http(RebindHook),
}

impl Rebinds {
    /// Returns the service as configured, without any I/O. With `alias`, each rebind also writes an event for the sink.
    pub fn new(
        config: &Config,
        directory: Arc<Directory>,
        sessions: Arc<Sessions>,
        guests: Arc<Guests>,
        alias: bool,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, InvalidHook> {
        for outcome in OUTCOMES {
            metrics.rebinds.with_label_values(&[outcome]);
        }
        let deadline = config.rebind.timeout;
        let backend = match config.rebind.backend {
            Backend::None => RebindBackend::Sql { reown: Reown::new(Vec::new()), deadline },
            Backend::Sql => RebindBackend::Sql { reown: Reown::new(config.rebind.tables.clone()), deadline },
            Backend::Http => {
                RebindBackend::Http(RebindHook::new(&config.rebind.hook, &config.upstream).map_err(InvalidHook)?)
            }
        };
        Ok(Self { directory, sessions, guests, backend, alias, clock, metrics })
    }

    /// Returns the secret of `hook`, `None` where no hook is asked; nothing changes yet.
    pub fn check_hook_secret(&self, hook: &config::rebind::Hook) -> Result<Option<NewHookSecret>, InvalidHook> {
        match &self.backend {
            RebindBackend::Sql { .. } => Ok(None),
            RebindBackend::Http(_) => NewHookSecret::new(hook).map(Some).map_err(InvalidHook),
        }
    }

    /// Sends this secret to the hook from now on; does nothing without a hook.
    pub fn use_hook_secret(&self, secret: NewHookSecret) {
        if let RebindBackend::Http(hook) = &self.backend {
            hook.use_secret(secret);
        }
    }

    /// Checks the tables that are to be re-owned; [`DirectoryError::Tables`] is a mistake in the configuration.
    pub async fn check(&self) -> Result<(), DirectoryError> {
        match &self.backend {
            RebindBackend::Sql { reown, .. } => self.directory.check_tables(reown).await,
            RebindBackend::Http(_) => Ok(()),
        }
    }

    /// Makes the guest of a device the user. With an idempotency key, the outcome of an equal request
    /// within the last 24 hours is returned again.
    pub async fn rebind(
        &self,
        user: &Principal,
        device_id: &str,
        idempotency_key: Option<String>,
    ) -> Result<Rebound, RebindError> {
        let request = RebindRequest {
            tenant: self.guests.tenant().clone(),
            device: self.guests.device_key(device_id),
            user: user.clone(),
            idempotency_key,
            alias: self.alias,
            now: self.clock.now(),
        };
        let guest = |generation| self.guests.principal(device_id, generation).id;
        let answer = match &self.backend {
            RebindBackend::Sql { reown, deadline } => {
                self.directory.rebind(&request, reown, guest, *deadline).await.map_err(RebindError::from)
            }
            RebindBackend::Http(hook) => match self.directory.claim_rebind(&request, guest).await {
                Ok(ClaimOutcome::Claimed(claim)) => self.ask(hook, &request, &claim).await,
                Ok(ClaimOutcome::Answered(answer)) => Ok(answer),
                Ok(ClaimOutcome::Busy) => Err(RebindError::Busy),
                Err(error) => Err(error.into()),
            },
        };
        self.finish(&request, answer).await
    }

    /// Asks the hook again about open claims, and deletes expired receipts, until the runtime ends.
    pub async fn run(&self) {
        let (mut look, mut prune) = (tokio::time::interval(LOOK), tokio::time::interval(PRUNE));
        loop {
            tokio::select! {
                _ = look.tick() => {
                    if let RebindBackend::Http(hook) = &self.backend {
                        self.resume_claims(hook).await;
                    }
                }
                _ = prune.tick() => {
                    if let Err(error) = self.directory.prune_receipts(self.clock.now()).await {
                        tracing::debug!(error = %with_causes(&error), "Old receipts stay");
                    }
                }
            }
        }
    }

    async fn resume_claims(&self, hook: &RebindHook) {
        let now = self.clock.now();
        // The replica that asked last may still wait for the answer, and then record it.
        let Some(before) = now.0.checked_sub(millis(hook.deadline() * 2)).map(Timestamp) else { return };
        let claims = match self.directory.take_claims(before, TAKEN, now).await {
            Ok(claims) => claims,
            Err(error) => return tracing::debug!(error = %with_causes(&error), "Claims cannot be looked for"),
        };
        futures_util::future::join_all(claims.iter().map(|claim| self.resume_claim(hook, claim))).await;
    }

    async fn resume_claim(&self, hook: &RebindHook, claim: &RebindClaim) {
        let user = Principal { kind: PrincipalKind::User, id: claim.user.clone(), tenant: claim.tenant.clone() };
        let request = RebindRequest {
            tenant: claim.tenant.clone(),
            device: claim.device.clone(),
            user,
            idempotency_key: None,
            alias: self.alias,
            now: self.clock.now(),
        };
        let answer = self.ask(hook, &request, claim).await;
        if let Err(error) = self.finish(&request, answer).await {
            tracing::warn!(user.id = %claim.user, error = %with_causes(&error), "A rebind is still not known to have ended");
        }
    }

    async fn ask(
        &self,
        hook: &RebindHook,
        request: &RebindRequest,
        claim: &RebindClaim,
    ) -> Result<RebindOutcome, RebindError> {
        match hook.call(&claim.guest, &claim.user, &claim.key).await {
            Ok(rows) => Ok(self.directory.finish_claim(request, claim, rows).await?),
            Err(error) => {
                // Only a refusal proves that nothing was moved.
                if let HookError::Refused(_) = error {
                    self.directory.release_claim(claim).await?;
                }
                Err(error.into())
            }
        }
    }

    async fn finish(
        &self,
        request: &RebindRequest,
        answer: Result<RebindOutcome, RebindError>,
    ) -> Result<Rebound, RebindError> {
        let (outcome, rebound) = match answer {
            Ok(RebindOutcome::Moved(moved)) => {
                audit(request, Action::GuestRebound, Some(&moved));
                self.end_guest(&request.tenant, &moved).await;
                ("moved", Ok(Rebound::Moved { rows: moved.rows, guest: moved.guest }))
            }
            Ok(RebindOutcome::Replayed(Some((rows, guest)))) => ("replayed", Ok(Rebound::Moved { rows, guest })),
            Ok(RebindOutcome::Replayed(None)) => ("replayed", Ok(Rebound::NoOp)),
            Ok(RebindOutcome::NoOp) => ("no_op", Ok(Rebound::NoOp)),
            Ok(RebindOutcome::OtherUser) => {
                audit(request, Action::RebindDenied, None);
                ("other_user", Err(RebindError::OtherUser))
            }
            Err(error @ RebindError::Hook(HookError::Refused(_))) => ("refused", Err(error)),
            Err(error) => ("failed", Err(error)),
        };
        self.metrics.rebinds.with_label_values(&[outcome]).inc();
        rebound
    }

    // The event is deleted only after the sessions have ended; until then every replica's outbox may deliver it.
    async fn end_guest(&self, tenant: &TenantId, moved: &Moved) {
        self.metrics.rebound_rows.inc_by(moved.rows);
        let ended = self.sessions.end_principal(tenant, &moved.guest).await;
        if ended.is_err() || self.directory.forget_event(&moved.revocation).await.is_err() {
            tracing::warn!(guest.id = %moved.guest, "The guest's sessions will be ended later");
        }
        self.directory.wake_outbox();
    }
}

fn audit(request: &RebindRequest, action: Action, moved: Option<&Moved>) {
    Event {
        user_id: Some(request.user.id.as_str()),
        guest_id: moved.map(|moved| moved.guest.as_str()),
        organization_id: Some(request.user.tenant.as_str()),
        rows: moved.map(|moved| moved.rows),
        ..action.event()
    }
    .write();
}
