//! The rebind service: a guest becomes the user who signed in, exactly once (contracts §5.3, §12.3).
//!
//! What is recorded is the directory's; what ends is the guest's sessions, here, right after. A
//! crash in between leaves an event that ends them. A hook whose answer was lost is asked again,
//! under the same key, until it has answered: by the same user's next try or by [`Rebinds::run`].

mod hook;

use std::sync::Arc;
use std::time::Duration;

pub use self::hook::NewHookSecret;
use self::hook::{Hook, HookError};
use super::Sessions;
use crate::config::rebind::Backend;
use crate::config::{self, Config};
use crate::directory::{Answer, Asked, Claim, Claimed, Directory, DirectoryError, Moved, Reown};
use crate::metrics::Metrics;
use crate::model::{Principal, PrincipalId, PrincipalKind, TenantId};
use crate::telemetry::audit::{Action, Event};
use crate::telemetry::with_causes;
use crate::time::Clock;

/// How often claims that nobody ended are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// How many of them are taken at once.
const TAKEN: i64 = 16;
/// How often receipts that have run out are forgotten.
const PRUNE: Duration = Duration::from_hours(1);
/// Every label of `doorward_rebinds_total`.
const OUTCOMES: [&str; 6] = ["moved", "no_op", "replayed", "other_user", "refused", "failed"];

/// The rebind service.
pub struct Rebinds {
    directory: Arc<Directory>,
    sessions: Arc<Sessions>,
    way: Way,
    alias: bool,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// How a rebind ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebound {
    /// The guest is the user from now on; rows that changed hands.
    Moved {
        /// How many rows.
        rows: u64,
        /// The guest that was.
        guest: PrincipalId,
    },
    /// There was nothing to do.
    NoOp,
}

/// Why nothing was rebound.
#[derive(Debug, thiserror::Error)]
pub enum RebindError {
    /// The device is another user's for good.
    #[error("the device is another user's")]
    OtherUser,
    /// The database failed; nothing changed.
    #[error("the directory failed")]
    Directory(#[from] DirectoryError),
    /// The application did not say that it moved the rows.
    #[error("the hook failed")]
    Hook(#[from] HookError),
    /// Another user's rebind of the device is not known to have ended.
    #[error("another rebind of the device is under way")]
    Busy,
}

/// The hook cannot be asked as it is configured.
#[derive(Debug, thiserror::Error)]
#[error("rebind.hook: {0}")]
pub struct InvalidHook(String);

enum Way {
    /// With `none` there are no tables.
    Sql {
        reown: Reown,
        deadline: Duration,
    },
    Http(Hook),
}

impl Rebinds {
    /// Returns the service as configured; nothing is asked yet. `alias` says whether a sink learns of it.
    pub fn new(
        config: &Config,
        directory: Arc<Directory>,
        sessions: Arc<Sessions>,
        alias: bool,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, InvalidHook> {
        for outcome in OUTCOMES {
            metrics.rebinds.with_label_values(&[outcome]);
        }
        let deadline = config.rebind.timeout;
        let way = match config.rebind.backend {
            Backend::None => Way::Sql { reown: Reown::new(Vec::new()), deadline },
            Backend::Sql => Way::Sql { reown: Reown::new(config.rebind.tables.clone()), deadline },
            Backend::Http => Way::Http(Hook::new(&config.rebind.hook, &config.upstream).map_err(InvalidHook)?),
        };
        Ok(Self { directory, sessions, way, alias, clock, metrics })
    }

    /// Returns the secret of `hook`, `None` where no hook is asked; nothing changes yet.
    pub fn check_hook_secret(&self, hook: &config::rebind::Hook) -> Result<Option<NewHookSecret>, InvalidHook> {
        match &self.way {
            Way::Sql { .. } => Ok(None),
            Way::Http(_) => NewHookSecret::new(hook).map(Some).map_err(InvalidHook),
        }
    }

    /// Sends the hook, if there is one, this secret from now on.
    pub fn use_hook_secret(&self, secret: NewHookSecret) {
        if let Way::Http(hook) = &self.way {
            hook.use_secret(secret);
        }
    }

    /// Looks at the tables that are to be re-owned; [`DirectoryError::Tables`] is a mistake in the configuration.
    pub async fn check(&self) -> Result<(), DirectoryError> {
        match &self.way {
            Way::Sql { reown, .. } => self.directory.check_tables(reown).await,
            Way::Http(_) => Ok(()),
        }
    }

    /// Makes the guest of a device the user. With an idempotency key, an answer of the last 24 hours is repeated.
    pub async fn rebind(
        &self,
        user: &Principal,
        device_id: &str,
        idempotency_key: Option<String>,
    ) -> Result<Rebound, RebindError> {
        let asked = Asked {
            tenant: self.sessions.default_tenant().clone(),
            device: self.sessions.device_key(device_id),
            user: user.clone(),
            idempotency_key,
            alias: self.alias,
            now: self.clock.now(),
        };
        let guest = |generation| self.sessions.guest(device_id, generation).id;
        let answer = match &self.way {
            Way::Sql { reown, deadline } => {
                self.directory.rebind(&asked, reown, guest, *deadline).await.map_err(RebindError::from)
            }
            Way::Http(hook) => match self.directory.claim_rebind(&asked, guest).await {
                Ok(Claimed::Yes(claim)) => self.ask(hook, &asked, &claim).await,
                Ok(Claimed::Answered(answer)) => Ok(answer),
                Ok(Claimed::Busy) => Err(RebindError::Busy),
                Err(error) => Err(error.into()),
            },
        };
        self.conclude(&asked, answer).await
    }

    /// Asks again about claims that nobody ended, and forgets old receipts, until the runtime ends.
    pub async fn run(&self) {
        let (mut look, mut prune) = (tokio::time::interval(LOOK), tokio::time::interval(PRUNE));
        loop {
            tokio::select! {
                _ = look.tick() => {
                    if let Way::Http(hook) = &self.way {
                        self.take_up(hook).await;
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

    async fn take_up(&self, hook: &Hook) {
        let now = self.clock.now();
        // Whoever asked last may still be waiting for the answer, and then recording it.
        let Some(before) = now.0.checked_sub(millis(hook.deadline() * 2)).map(crate::time::Timestamp) else { return };
        let claims = match self.directory.take_claims(before, TAKEN, now).await {
            Ok(claims) => claims,
            Err(error) => return tracing::debug!(error = %with_causes(&error), "Claims cannot be looked for"),
        };
        futures_util::future::join_all(claims.iter().map(|claim| self.take_up_one(hook, claim))).await;
    }

    async fn take_up_one(&self, hook: &Hook, claim: &Claim) {
        let user = Principal { kind: PrincipalKind::User, id: claim.user.clone(), tenant: claim.tenant.clone() };
        let asked = Asked {
            tenant: claim.tenant.clone(),
            device: claim.device.clone(),
            user,
            idempotency_key: None,
            alias: self.alias,
            now: self.clock.now(),
        };
        let answer = self.ask(hook, &asked, claim).await;
        if let Err(error) = self.conclude(&asked, answer).await {
            tracing::warn!(user.id = %claim.user, error = %with_causes(&error), "A rebind is still not known to have ended");
        }
    }

    async fn ask(&self, hook: &Hook, asked: &Asked, claim: &Claim) -> Result<Answer, RebindError> {
        match hook.call(&claim.guest, &claim.user, &claim.key).await {
            Ok(rows) => Ok(self.directory.finish_claim(asked, claim, rows).await?),
            Err(error) => {
                // Only a refusal says for certain that nothing was moved.
                if let HookError::Refused(_) = error {
                    self.directory.release_claim(claim).await?;
                }
                Err(error.into())
            }
        }
    }

    async fn conclude(&self, asked: &Asked, answer: Result<Answer, RebindError>) -> Result<Rebound, RebindError> {
        let (outcome, rebound) = match answer {
            Ok(Answer::Moved(moved)) => {
                audit(asked, Action::GuestRebound, Some(&moved));
                self.end_guest(&asked.tenant, &moved).await;
                ("moved", Ok(Rebound::Moved { rows: moved.rows, guest: moved.guest }))
            }
            Ok(Answer::Replayed(Some((rows, guest)))) => ("replayed", Ok(Rebound::Moved { rows, guest })),
            Ok(Answer::Replayed(None)) => ("replayed", Ok(Rebound::NoOp)),
            Ok(Answer::NoOp) => ("no_op", Ok(Rebound::NoOp)),
            Ok(Answer::OtherUser) => {
                audit(asked, Action::RebindDenied, None);
                ("other_user", Err(RebindError::OtherUser))
            }
            Err(error @ RebindError::Hook(HookError::Refused(_))) => ("refused", Err(error)),
            Err(error) => ("failed", Err(error)),
        };
        self.metrics.rebinds.with_label_values(&[outcome]).inc();
        rebound
    }

    // The event is deleted only when nothing is left to do; until then it is anybody's.
    async fn end_guest(&self, tenant: &TenantId, moved: &Moved) {
        self.metrics.rebound_rows.inc_by(moved.rows);
        let ended = self.sessions.end_principal(tenant, &moved.guest).await;
        if ended.is_err() || self.directory.forget_event(&moved.revocation).await.is_err() {
            tracing::warn!(guest.id = %moved.guest, "The guest's sessions will be ended later");
        }
        self.directory.wake_outbox();
    }
}

fn audit(asked: &Asked, action: Action, moved: Option<&Moved>) {
    Event {
        user_id: Some(asked.user.id.as_str()),
        guest_id: moved.map(|moved| moved.guest.as_str()),
        organization_id: Some(asked.user.tenant.as_str()),
        rows: moved.map(|moved| moved.rows),
        ..action.event()
    }
    .write();
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
