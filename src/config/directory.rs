//! Where devices, users and the outbox are kept.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use super::sessions::secret_option;
use super::{duration, listen::from_text};
use crate::secret::Secret;

/// Where devices, users and the outbox are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// The database: `sqlite:///path` for one replica, `postgres://user@host/database` for several.
    #[serde(deserialize_with = "from_text")]
    pub url: DirectoryUrl,
    /// Overrides the URL's password.
    #[serde(deserialize_with = "secret_option")]
    pub password: Option<Secret>,
    /// PEM file of the authorities that PostgreSQL's certificate must come from; TLS is then required.
    pub ca: Option<PathBuf>,
    /// How long a connection or a statement may take.
    #[serde(deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    /// How many connections there may be.
    pub max_connections: u32,
    /// Whether a server brings the schema up to date when it starts; if not, `doorward migrate` must.
    pub migrate: bool,
}

/// A database.
#[derive(Clone, Debug, PartialEq)]
pub enum DirectoryUrl {
    /// A `SQLite` file: one replica only.
    Sqlite(PathBuf),
    /// PostgreSQL, as libpq's URL says it.
    Postgres(Secret),
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
