//! Opening the directory's database and bringing its schema up to date.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, SqlSafeStr};
use tokio::sync::Semaphore;

use super::outbox::Wakers;
use super::sql::Database;
use super::{Directory, DirectoryError};
use crate::config;
use crate::config::directory::DirectoryUrl;

/// Apart from the application's own, which may live in the same database.
const MIGRATIONS_TABLE: &str = "doorward_migrations";
/// Both databases run the same files.
const MIGRATIONS: [(i64, &str, &str); 1] =
    [(1, "directory", include_str!("../../migrations/directory/0001_directory.sql"))];
/// How long several replicas may wait for the one that migrates.
const MIGRATION_DEADLINE: Duration = Duration::from_mins(5);
/// Sign-ins that may wait to be recorded in the background; more of them at once are not recorded.
const NOTES_MAX: usize = 64;

/// A way to connect that has been checked and is not in use yet.
pub struct DirectoryCredentials(PgConnectOptions);

impl Directory {
    /// Opens the directory without asking the database anything yet.
    ///
    /// An error is a mistake in the configuration or a file that cannot be made.
    pub fn open(config: &config::Directory) -> Result<Self, DirectoryError> {
        let pool = match &config.url {
            DirectoryUrl::Sqlite(path) => sqlite(path, config)?,
            DirectoryUrl::Postgres(_) => postgres(config)?,
        };
        Ok(Self { pool, wakers: Wakers::default(), notes: Arc::new(Semaphore::new(NOTES_MAX)) })
    }

    /// Returns how to connect with the password and the authorities of `config`, `None` where that needs
    /// neither; nothing changes yet.
    pub fn check_credentials(
        &self,
        config: &config::Directory,
    ) -> Result<Option<DirectoryCredentials>, DirectoryError> {
        self.pool.is_postgres().then(|| postgres_options(config).map(DirectoryCredentials)).transpose()
    }

    /// Connects with these from now on. Connections in use go on until their time is over.
    pub fn use_credentials(&self, DirectoryCredentials(options): DirectoryCredentials) {
        self.pool.use_options(options);
    }

    /// Connects once more, to learn whether the database takes the credentials.
    pub async fn try_credentials(&self) -> Result<(), DirectoryError> {
        self.pool.try_options().await
    }

    /// Brings the schema up to date; safe for several replicas at once. Returns what was applied.
    ///
    /// Refuses a schema newer than this build knows.
    pub async fn migrate(&self) -> Result<(), DirectoryError> {
        let mut migrator = Migrator::with_migrations(
            MIGRATIONS.iter().map(|(version, name, sql)| migration(*version, name, sql)).collect(),
        );
        migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
        let run = self.pool.migrate(&migrator);
        tokio::time::timeout(MIGRATION_DEADLINE, run)
            .await
            .map_err(|_| DirectoryError::TimedOut(MIGRATION_DEADLINE))?
            .map_err(unmigrated)
    }
}

// A database that is away may come back; a schema that does not fit will not.
fn unmigrated(error: MigrateError) -> DirectoryError {
    match error {
        MigrateError::Execute(error) if is_away(&error) => DirectoryError::Unavailable(error),
        other => DirectoryError::Migration(Box::new(other)),
    }
}

// PostgreSQL answers errors of class 57 while it starts or stops, of class 53 when it is full.
fn is_away(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_none_or(|code| ["57", "53", "08"].iter().any(|class| code.starts_with(class)))
}

fn migration(version: i64, name: &'static str, sql: &'static str) -> Migration {
    Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
}

// The file is made here, with its mode: no other account of the machine can read it, at any moment.
fn sqlite(path: &Path, config: &config::Directory) -> Result<Database, DirectoryError> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(DirectoryError::File)?;
    }
    let made = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    made.map_err(DirectoryError::File)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // What was answered must survive a power cut.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(config.timeout)
        .foreign_keys(true)
        .disable_statement_logging();
    let pool = SqlitePoolOptions::new().max_connections(config.max_connections).acquire_timeout(config.timeout);
    Ok(Database::sqlite(pool.connect_lazy_with(options), config.timeout))
}

fn postgres(config: &config::Directory) -> Result<Database, DirectoryError> {
    let pool = PgPoolOptions::new().max_connections(config.max_connections).acquire_timeout(config.timeout);
    Ok(Database::postgres(pool.connect_lazy_with(postgres_options(config)?), config.timeout))
}

fn postgres_options(config: &config::Directory) -> Result<PgConnectOptions, DirectoryError> {
    let DirectoryUrl::Postgres(url) = &config.url else { return Err(DirectoryError::Url) };
    let mut options = PgConnectOptions::from_str(url.expose()).map_err(|_| DirectoryError::Url)?;
    if let Some(password) = &config.password {
        options = options.password(password.expose());
    }
    if let Some(ca) = &config.ca {
        options = options.ssl_root_cert(ca).ssl_mode(PgSslMode::VerifyFull);
    }
    Ok(options.application_name("doorward").disable_statement_logging())
}
