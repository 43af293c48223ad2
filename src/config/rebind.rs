//! How what a guest made becomes the user's when they sign in.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use super::sessions::secret_option;
use super::upstream::Target;
use super::{duration, listen::from_text};
use crate::secret::Secret;

/// How what a guest made becomes the user's when they sign in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rebind {
    /// What re-owns the application's rows.
    pub backend: Backend,
    /// With `sql`: the application's tables in the directory's database that say whose a row is.
    pub tables: Vec<Table>,
    /// With `http`: whom to ask to re-own.
    pub hook: Hook,
    /// How long the database may take for all of a rebind.
    #[serde(deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    /// What two keys of the answer are called.
    pub fields: Fields,
}

/// What re-owns the application's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Nothing: only that the device is the user's is recorded.
    None,
    /// `UPDATE`s in the transaction that records it.
    Sql,
    /// The application, asked over HTTP.
    Http,
}

/// A table whose rows belong to users.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// `schema.table`, exactly as the catalogue spells them; `SQLite` needs no schema.
    #[serde(deserialize_with = "from_text")]
    pub table: TableName,
    /// The column with the value of `X-User-ID`.
    pub column: String,
    /// The column with the value of `X-Client-ID`, if there is one.
    #[serde(default)]
    pub tenant_column: Option<String>,
    /// What happens when the user has a row already that a unique index allows once.
    #[serde(default)]
    pub on_conflict: OnConflict,
}

/// Names a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    /// The schema; absent for the database's only one.
    pub schema: Option<String>,
    /// The table.
    pub name: String,
}

/// What happens when both the guest and the user have a row that a unique index allows once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// Nothing is moved at all.
    #[default]
    Fail,
    /// The guest's row is deleted.
    KeepUser,
    /// The user's row is deleted.
    KeepGuest,
}

/// Whom to ask to re-own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// `/path` at the upstream, or an `http://` or `https://` URL.
    pub url: Option<String>,
    /// Sent as `Authorization: Bearer`, so that the application can tell Doorward's calls from others'.
    #[serde(deserialize_with = "secret_option")]
    pub secret: Option<Secret>,
    /// PEM file with the authorities to trust for an `https` URL of its own.
    pub ca: Option<PathBuf>,
    /// How long one call may take.
    #[serde(deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
}

/// What two keys of the answer are called (contracts §5.3).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    /// How many rows were re-owned.
    pub rows_updated: String,
    /// The guest that was.
    pub anonymous_id: String,
}

impl Hook {
    /// Returns the path at the upstream, if that is where the hook is.
    pub fn upstream_path(&self) -> Option<&str> {
        self.url.as_deref().filter(|url| url.starts_with('/'))
    }

    /// Returns the host and port of a URL of its own, if it has one that can be read.
    pub fn own_target(&self) -> Option<Target> {
        let uri: http::Uri = self.url.as_deref()?.parse().ok()?;
        format!("{}://{}", uri.scheme_str()?, uri.authority()?).parse().ok()
    }
}

impl FromStr for TableName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema.to_owned()), name.to_owned()),
            None => (None, text.to_owned()),
        };
        if name.is_empty() || schema.as_deref() == Some("") {
            return Err("is not a table; write e.g. \"app.projects\"");
        }
        Ok(Self { schema, name })
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(schema) = &self.schema {
            write!(formatter, "{schema}.")?;
        }
        formatter.write_str(&self.name)
    }
}
