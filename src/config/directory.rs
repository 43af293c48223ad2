//! Where devices, users and the outbox are kept.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::read::{FromKeys, FromTree, Notes, SectionKeys, TreePlace};
use super::secret_digest::SecretDigest;
use crate::secret::Secret;

/// Where devices, users and the outbox are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Directory {
    /// The database: `sqlite:///path` for one replica, `postgres://user@host/database` for several.
    pub url: DirectoryUrl,
    /// Overrides the URL's password.
    pub password: Option<Secret>,
    /// PEM file of the authorities that PostgreSQL's certificate must come from; TLS is then required.
    pub ca: Option<PathBuf>,
    /// How long a connection or a statement may take.
    pub timeout: Duration,
    /// How many connections there may be.
    pub max_connections: u32,
    /// Whether a server brings the schema up to date when it starts; if not, `doorward migrate` must.
    pub migrate: bool,
}

impl FromKeys for Directory {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self {
            url: keys.take("url"),
            password: keys.take("password"),
            ca: keys.take("ca"),
            timeout: keys.take("timeout"),
            max_connections: keys.take("max_connections"),
            migrate: keys.take("migrate"),
        }
    }
}

/// A database.
#[derive(Clone, Debug, PartialEq)]
pub enum DirectoryUrl {
    /// A `SQLite` file: one replica only.
    Sqlite(PathBuf),
    /// PostgreSQL, as libpq's URL says it.
    Postgres(Secret),
}

impl Directory {
    /// Returns what changes only with a restart, and the password.
    pub(super) fn apart(self) -> (Self, SecretDigest) {
        let Self { url, password, ca, timeout, max_connections, migrate } = self;
        let secret = SecretDigest::of_secret("directory.password", password.as_ref());
        (Self { url, password: None, ca, timeout, max_connections, migrate }, secret)
    }
}

impl FromStr for DirectoryUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once("://") {
            Some(("sqlite", rest)) if rest.starts_with('/') && rest.len() > 1 => Ok(Self::Sqlite(rest.into())),
            Some(("postgres" | "postgresql", rest)) if !rest.is_empty() => {
                Ok(Self::Postgres(Secret::new(text.to_owned())))
            }
            _ => Err("expected sqlite:///path or postgres://user@host/database"),
        }
    }
}

impl FromTree for DirectoryUrl {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        place.parsed(notes, || Self::Sqlite(PathBuf::new()))
    }
}
