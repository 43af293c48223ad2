//! What Doorward remembers beyond sessions: devices, users, what is still to be delivered.
//!
//! One database, `SQLite` for one replica or PostgreSQL for several, and one source of SQL for
//! both. Nothing is half done: what belongs together is one transaction. A database that cannot be
//! asked is an error of its own ([`DirectoryError::Unavailable`]), which callers answer with 503.

mod devices;
mod identities;
mod logins;
mod open;
mod outbox;
mod rebind;
mod receipts;
mod reown;
mod sql;
mod statements;
mod users;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

pub use self::devices::Generation;
pub use self::identities::LocalUser;
pub use self::logins::{LoginStatus, RevocationEpochs};
pub use self::open::DirectoryCredentials;
use self::outbox::Wakers;
#[cfg(test)]
pub(crate) use self::outbox::tests::embedded;
pub use self::outbox::{Depth, EventId, EventKind, EventState, Lease, Leased, ListedEvent, OutboxEvent};
pub use self::rebind::{ClaimOutcome, Moved, RebindClaim, RebindOutcome, RebindRequest};
pub use self::receipts::Receipt;
pub use self::reown::Reown;
use self::sql::Database;
pub use self::users::{UserProfile, UserRecord};

/// The directory.
pub struct Directory {
    pool: Database,
    wakers: Wakers,
    /// Room for sign-ins that are recorded in the background.
    notes: Arc<Semaphore>,
}

/// Why the directory did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// `directory.url` cannot be read.
    #[error("directory.url is no postgres:// URL")]
    Url,
    /// The database's file cannot be made or opened.
    #[error("the directory's file cannot be made")]
    File(#[source] std::io::Error),
    /// The schema cannot be brought up to date, or is newer than this build.
    #[error("the directory's schema cannot be brought up to date")]
    Migration(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database did not answer in time.
    #[error("the directory did not answer within {0:?}")]
    TimedOut(Duration),
    /// The database cannot be reached, or refused the statement.
    #[error("the directory cannot be asked")]
    Unavailable(#[from] self::sql::EngineError),
    /// Tables cannot be re-owned as they are configured; one text for each thing that is wrong.
    #[error("{}", .0.join("; "))]
    Tables(Vec<String>),
    /// The database holds what Doorward never wrote.
    #[error("the directory contradicts itself: {0}")]
    Inconsistent(&'static str),
}
