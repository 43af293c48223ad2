//! `doorward sessions`: what an operator can see and end, directly in the configured store.
//!
//! Works beside running servers, which hear of what is ended here as of any other revocation. It
//! needs no token: a session's id is safe to show, and no token can be made from the store.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use uuid::Uuid;

use super::{ConfigFiles, SUCCESS, Surroundings, block_on, say};
use crate::config::Config;
use crate::config::sessions::StoreUrl;
use crate::metrics::Metrics;
use crate::model::{End, EndReason, PrincipalId, Session, TenantId, role};
use crate::store::redis::RedisStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{KEEP_ENDED, SessionStore, list_live};
use crate::time::{Clock, Timestamp};

/// How long to try to reach Redis.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_POLL: Duration = Duration::from_millis(10);

/// What to do with sessions.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Print a principal's live sessions, newest first.
    List(Whose),
    /// End all sessions of a principal, or one.
    ///
    /// When this returns, the store has it; every replica refuses the sessions within
    /// sessions.revocation.lease at the latest.
    Revoke {
        /// Whose sessions.
        #[command(flatten)]
        whose: Whose,
        /// End only this session, by the id that `sessions list` prints.
        #[arg(long, value_name = "ID")]
        session: Option<Uuid>,
    },
}

/// Whose sessions.
#[derive(Args, Debug)]
pub struct Whose {
    /// The principal's id, as in X-User-ID.
    #[arg(long, value_name = "ID")]
    principal: PrincipalId,
    /// The tenant's id, as in X-Client-ID; tenants.default when absent.
    #[arg(long, value_name = "ID")]
    tenant: Option<TenantId>,
    #[command(flatten)]
    files: ConfigFiles,
}

/// Why nothing was listed or ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Store(String),
    #[error("no connection to Redis within {} s: check sessions.store, its credentials and TLS", CONNECT_TIMEOUT.as_secs())]
    Unreachable,
    #[error("{0} has no live session {1}")]
    NoSuchSession(String, Uuid),
}

/// Lists or ends sessions; returns the exit code.
pub fn run(command: &Command, clock: &Arc<dyn Clock>, surroundings: &mut Surroundings<'_>) -> u8 {
    let (Command::List(whose) | Command::Revoke { whose, .. }) = command;
    let config = match surroundings.read(&whose.files) {
        Ok(loaded) => loaded.config,
        Err(code) => return code,
    };
    let done = block_on(async {
        let store = open(&config, clock).await?;
        let tenant = whose.tenant.as_ref().unwrap_or(&config.tenants.default);
        match command {
            Command::List(_) => list(store.as_ref(), tenant, &whose.principal, clock.now()).await,
            Command::Revoke { session, .. } => {
                revoke(store.as_ref(), tenant, &whose.principal, *session, clock.now()).await
            }
        }
    });
    match done.map_err(|error| Failure::Store(error.to_string())).flatten() {
        Ok(text) => {
            say(surroundings.stdout, &text);
            SUCCESS
        }
        Err(failure) => surroundings.fail(&failure),
    }
}

async fn open(config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<dyn SessionStore>, Failure> {
    let metrics = Arc::new(Metrics::new().map_err(|error| Failure::new(&error))?);
    if let StoreUrl::Sqlite(path) = &config.sessions.store {
        let store = SqliteStore::open_beside(path, KEEP_ENDED, clock.clone(), metrics).await;
        return Ok(store.map_err(|error| Failure::new(&error))?);
    }
    let store = RedisStore::connect(&config.sessions, KEEP_ENDED, clock.clone(), metrics);
    let store = store.map_err(|error| Failure::new(&error))?;
    tokio::spawn(store.clone().run());
    let connected = async {
        let mut every = tokio::time::interval(CONNECT_POLL);
        while !store.revocations().is_current() {
            every.tick().await;
        }
    };
    tokio::time::timeout(CONNECT_TIMEOUT, connected).await.map_err(|_| Failure::Unreachable)?;
    Ok(store)
}

async fn list(
    store: &dyn SessionStore,
    tenant: &TenantId,
    principal: &PrincipalId,
    now: Timestamp,
) -> Result<String, Failure> {
    let sessions = list_live(store, tenant, principal, now).await.map_err(|error| Failure::new(&error))?;
    if sessions.is_empty() {
        return Ok(format!("{principal} in tenant {tenant} has no live session\n"));
    }
    let mut text = format!("{:<36}  {:<9}  {:<20}  {:<20}  ROLES\n", "SESSION", "KIND", "CREATED", "EXPIRES");
    text.extend(sessions.iter().map(line));
    Ok(text)
}

async fn revoke(
    store: &dyn SessionStore,
    tenant: &TenantId,
    principal: &PrincipalId,
    session: Option<Uuid>,
    now: Timestamp,
) -> Result<String, Failure> {
    let Some(id) = session else {
        let ended = store.end_principal(tenant, principal, End { reason: EndReason::Principal, at: now }).await;
        let ended = ended.map_err(|error| Failure::new(&error))?;
        let plural = if ended == 1 { "" } else { "s" };
        return Ok(format!("ended {ended} session{plural} of {principal} in tenant {tenant}\n"));
    };
    let sessions = list_live(store, tenant, principal, now).await.map_err(|error| Failure::new(&error))?;
    let found = sessions.iter().find(|session| session.id.uuid() == id);
    let session = found.ok_or_else(|| Failure::NoSuchSession(format!("{principal} in tenant {tenant}"), id))?;
    let end = End { reason: EndReason::Admin, at: now };
    store.end(&[session.id], end).await.map_err(|error| Failure::new(&error))?;
    Ok(format!("ended session {id} of {principal} in tenant {tenant}\n"))
}

fn line(session: &Session) -> String {
    format!(
        "{}  {:<9}  {}  {}  {}\n",
        session.id,
        session.principal.kind.as_str(),
        date(session.id.created_at()),
        date(session.expires_at),
        role::join(&session.roles)
    )
}

/// Returns a time as people read it, to the second.
pub(super) fn date(at: Timestamp) -> humantime::Rfc3339Timestamp {
    // Bounded by the year 9999, which is all that the format can show.
    let at = Duration::from_millis(at.0).min(Duration::from_secs(253_402_300_799));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + at)
}

impl Failure {
    fn new(error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        Self::Store(text)
    }
}
