//! `doorward sessions`: lists and ends sessions, directly in the configured store.
//!
//! Works beside running servers, which receive a revocation made here like every other one. It
//! needs no token: a session's id is safe to print, and no token can be made from the store.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use super::{ConfigFiles, Environment, SUCCESS, block_on, print};
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
pub enum SessionsCommand {
    /// Print a principal's live sessions, newest first.
    List(SessionOwner),
    /// End all sessions of a principal, or one.
    ///
    /// When this returns, the store has it; every replica refuses the sessions within
    /// sessions.revocation.lease at the latest.
    Revoke {
        /// Which principal's sessions.
        #[command(flatten)]
        whose: SessionOwner,
        /// End only this session, by the id that `sessions list` prints.
        #[arg(long, value_name = "ID")]
        session: Option<Uuid>,
    },
}

/// Which principal's sessions.
#[derive(Args, Debug)]
pub struct SessionOwner {
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
enum SessionsCommandError {
    #[error("{0}")]
    Store(String),
    #[error("no connection to Redis within {} s: check sessions.store, its credentials and TLS", CONNECT_TIMEOUT.as_secs())]
    Unreachable,
    #[error("{0} has no live session {1}")]
    NoSuchSession(String, Uuid),
}

/// Lists or ends sessions; returns the exit code.
pub fn run(command: &SessionsCommand, clock: &Arc<dyn Clock>, environment: &mut Environment<'_>) -> u8 {
    let (SessionsCommand::List(whose) | SessionsCommand::Revoke { whose, .. }) = command;
    let config = match environment.read(&whose.files) {
        Ok(loaded) => loaded.config,
        Err(code) => return code,
    };
    let done = block_on(async {
        let store = open(&config, clock).await?;
        let tenant = whose.tenant.as_ref().unwrap_or(&config.tenants.default);
        match command {
            SessionsCommand::List(_) => list(store.as_ref(), tenant, &whose.principal, clock.now()).await,
            SessionsCommand::Revoke { session, .. } => {
                revoke(store.as_ref(), tenant, &whose.principal, *session, clock.now()).await
            }
        }
    });
    match done.map_err(|error| SessionsCommandError::Store(error.to_string())).flatten() {
        Ok(text) => {
            print(environment.stdout, &text);
            SUCCESS
        }
        Err(failure) => environment.fail(&failure),
    }
}

async fn open(config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<dyn SessionStore>, SessionsCommandError> {
    let metrics = Arc::new(Metrics::new().map_err(|error| SessionsCommandError::new(&error))?);
    if let StoreUrl::Sqlite(path) = &config.sessions.store {
        let store = SqliteStore::open_beside(path, KEEP_ENDED, clock.clone(), metrics).await;
        return Ok(store.map_err(|error| SessionsCommandError::new(&error))?);
    }
    let store = RedisStore::connect(&config.sessions, KEEP_ENDED, clock.clone(), metrics);
    let store = store.map_err(|error| SessionsCommandError::new(&error))?;
    tokio::spawn(store.clone().run());
    let connected = async {
        let mut every = tokio::time::interval(CONNECT_POLL);
        while !store.revocations().is_current() {
            every.tick().await;
        }
    };
    tokio::time::timeout(CONNECT_TIMEOUT, connected).await.map_err(|_| SessionsCommandError::Unreachable)?;
    Ok(store)
}

async fn list(
    store: &dyn SessionStore,
    tenant: &TenantId,
    principal: &PrincipalId,
    now: Timestamp,
) -> Result<String, SessionsCommandError> {
    let sessions = list_live(store, tenant, principal, now).await.map_err(|error| SessionsCommandError::new(&error))?;
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
) -> Result<String, SessionsCommandError> {
    let Some(id) = session else {
        let ended = store.end_principal(tenant, principal, End { reason: EndReason::Principal, at: now }).await;
        let ended = ended.map_err(|error| SessionsCommandError::new(&error))?;
        let plural = if ended == 1 { "" } else { "s" };
        return Ok(format!("ended {ended} session{plural} of {principal} in tenant {tenant}\n"));
    };
    let sessions = list_live(store, tenant, principal, now).await.map_err(|error| SessionsCommandError::new(&error))?;
    let found = sessions.iter().find(|session| session.id.uuid() == id);
    let session =
        found.ok_or_else(|| SessionsCommandError::NoSuchSession(format!("{principal} in tenant {tenant}"), id))?;
    let end = End { reason: EndReason::Admin, at: now };
    store.end(&[session.id], end).await.map_err(|error| SessionsCommandError::new(&error))?;
    Ok(format!("ended session {id} of {principal} in tenant {tenant}\n"))
}

fn line(session: &Session) -> String {
    format!(
        "{}  {:<9}  {}  {}  {}\n",
        session.id,
        session.principal.kind.as_str(),
        session.id.created_at().rfc3339_seconds(),
        session.expires_at.rfc3339_seconds(),
        role::join(&session.roles)
    )
}

impl SessionsCommandError {
    fn new(error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        Self::Store(text)
    }
}
