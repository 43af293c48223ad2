//! Opening the embedded store's file: directory, mode, lock, connections, schema.
//!
//! The file holds a MAC key: it is readable by its owner only, or refused. One server at a time
//! owns it through an advisory lock on `<path>.lock`, which the system releases when the process
//! ends, however it ends. A schema newer than this build is refused.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlitePool};

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
const READERS: u32 = 4;

/// Every step from an empty file to the current schema; each ends by raising `user_version`.
const MIGRATIONS: &[&str] = &[include_str!("../../../migrations/sqlite/0001_sessions.sql")];

/// Why the embedded store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or a file in it cannot be made, opened or protected.
    #[error("session store {}: cannot {what}: {source}", .path.display())]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process serves from this file.
    #[error(
        "session store {}: another Doorward serves from this file; several replicas need Redis (sessions.store: redis://…)",
        .0.display()
    )]
    InUse(PathBuf),
    /// The database engine refuses the file.
    #[error("session store {}: {source}", .path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// What the engine says.
        source: sqlx::Error,
    },
    /// The file was written by a newer version of Doorward, or is not a session store at all.
    #[error("session store {}: has schema version {found}, this build knows {}", .path.display(), MIGRATIONS.len())]
    Schema {
        /// The database file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
    },
}

/// The connections to one file.
pub(super) struct Connections {
    /// Creates and extends: what a power cut takes with it is a sign-in to repeat.
    pub(super) relaxed: SqlitePool,
    /// Revocations and keys: on disk before they are answered.
    pub(super) durable: SqlitePool,
    /// Look-ups.
    pub(super) readers: SqlitePool,
    /// Notices other processes; of its own, so that slow look-ups cannot delay it.
    pub(super) watcher: SqlitePool,
}

/// Makes the directory and the file if they are missing and takes the lock; the lock lasts as long
/// as the returned file.
pub(super) fn claim(path: &Path) -> Result<File, OpenError> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| failed(directory, "create the directory", source))?;
    }
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = Path::new(&lock_path);
    let lock = open_private(lock_path)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => return Err(failed(lock_path, "lock the file", source)),
    }
    // SQLite gives its -wal and -shm files the mode of the database.
    open_private(path)?;
    Ok(lock)
}

/// Connects to an existing file; an unreadable one is found here, not by the first request.
pub(super) async fn connect(path: &Path) -> Result<Connections, OpenError> {
    // Temporary files would need a writable /tmp, which a hardened pod has not.
    let reading = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        .pragma("temp_store", "MEMORY")
        .disable_statement_logging();
    let writing = reading.clone().journal_mode(SqliteJournalMode::Wal);
    let connected = async {
        Ok(Connections {
            relaxed: pool(1).connect_with(writing.clone().synchronous(SqliteSynchronous::Normal)).await?,
            durable: pool(1).connect_with(writing.synchronous(SqliteSynchronous::Full)).await?,
            readers: pool(READERS).connect_with(reading.clone().read_only(true)).await?,
            watcher: pool(1).connect_with(reading.read_only(true)).await?,
        })
    };
    connected.await.map_err(|source| OpenError::Database { path: path.to_owned(), source })
}

/// Brings the schema up to date; a newer one is refused.
pub(super) async fn migrate(path: &Path, durable: &SqlitePool) -> Result<(), OpenError> {
    let database = |source| OpenError::Database { path: path.to_owned(), source };
    let mut transaction = durable.begin_with("BEGIN IMMEDIATE").await.map_err(database)?;
    let found = schema_version(&mut *transaction).await.map_err(database)?;
    let known = usize::try_from(found).ok().and_then(|version| MIGRATIONS.get(version..));
    let Some(missing) = known else { return Err(OpenError::Schema { path: path.to_owned(), found }) };
    for &migration in missing {
        sqlx::raw_sql(migration).execute(&mut *transaction).await.map_err(database)?;
    }
    transaction.commit().await.map_err(database)
}

/// Refuses every schema but the current one, and changes nothing.
pub(super) async fn verify(path: &Path, readers: &SqlitePool) -> Result<(), OpenError> {
    let found =
        schema_version(readers).await.map_err(|source| OpenError::Database { path: path.to_owned(), source })?;
    let current = usize::try_from(found) == Ok(MIGRATIONS.len());
    if current { Ok(()) } else { Err(OpenError::Schema { path: path.to_owned(), found }) }
}

async fn schema_version(database: impl sqlx::SqliteExecutor<'_>) -> sqlx::Result<i64> {
    sqlx::query_scalar("PRAGMA user_version").fetch_one(database).await
}

// Nothing is closed for idleness or age: these are file handles, and a lookup should not wait for one.
fn pool(size: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .min_connections(1)
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

fn open_private(path: &Path) -> Result<File, OpenError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| failed(path, "open the file for writing", source))?;
    let mode = file.metadata().map_err(|source| failed(path, "read the file's mode", source))?.permissions().mode();
    if mode & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))
            .map_err(|source| failed(path, "restrict the file to its owner", source))?;
    }
    Ok(file)
}

fn failed(path: &Path, what: &'static str, source: io::Error) -> OpenError {
    OpenError::File { path: path.to_owned(), what, source }
}
