//! How what a guest made becomes the user's when they sign in.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::read::{FromKeys, FromTree, Notes, SectionKeys, TreePlace};
use super::secret_digest::SecretDigest;
use super::upstream::UpstreamUrl;
use crate::secret::Secret;

/// How what a guest made becomes the user's when they sign in.
#[derive(Clone, Debug, PartialEq)]
pub struct Rebind {
    /// What re-owns the application's rows.
    pub backend: Backend,
    /// With `sql`: the application's tables in the directory's database that say whose a row is.
    pub tables: Vec<Table>,
    /// With `http`: where the application is asked to re-own.
    pub hook: Hook,
    /// How long the database may take for all of a rebind.
    pub timeout: Duration,
    /// What two keys of the answer are called.
    pub fields: Fields,
}

impl FromKeys for Rebind {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self {
            backend: keys.take("backend"),
            tables: keys.take("tables"),
            hook: keys.take("hook"),
            timeout: keys.take("timeout"),
            fields: keys.take("fields"),
        }
    }
}

/// What re-owns the application's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Nothing: only that the device is the user's is recorded.
    None,
    /// `UPDATE`s in the transaction that records it.
    Sql,
    /// The application, asked over HTTP.
    Http,
}

impl FromTree for Backend {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        let words = [("none", Self::None), ("sql", Self::Sql), ("http", Self::Http)];
        place.one_of(notes, &words, Self::None)
    }
}

/// A table whose rows belong to users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// `schema.table`, exactly as the catalogue spells them; `SQLite` needs no schema.
    pub table: TableName,
    /// The column with the value of `X-User-ID`.
    pub column: String,
    /// The column with the value of `X-Client-ID`, if there is one.
    pub tenant_column: Option<String>,
    /// What happens when the user has a row already that a unique index allows once.
    pub on_conflict: OnConflict,
}

impl FromKeys for Table {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self {
            table: keys.take("table"),
            column: keys.take("column"),
            tenant_column: keys.take("tenant_column"),
            on_conflict: keys.take_or("on_conflict", OnConflict::Fail),
        }
    }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// Nothing is moved at all.
    Fail,
    /// The guest's row is deleted.
    KeepUser,
    /// The user's row is deleted.
    KeepGuest,
}

impl FromTree for OnConflict {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        let words = [("fail", Self::Fail), ("keep_user", Self::KeepUser), ("keep_guest", Self::KeepGuest)];
        place.one_of(notes, &words, Self::Fail)
    }
}

/// Where the application is asked to re-own.
#[derive(Clone, Debug, PartialEq)]
pub struct Hook {
    /// `/path` at the upstream, or an `http://` or `https://` URL.
    pub url: Option<String>,
    /// Sent as `Authorization: Bearer`, so that the application can tell Doorward's calls from others'.
    pub secret: Option<Secret>,
    /// PEM file with the authorities to trust for an `https` URL of its own.
    pub ca: Option<PathBuf>,
    /// How long one call may take.
    pub timeout: Duration,
}

impl FromKeys for Hook {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self { url: keys.take("url"), secret: keys.take("secret"), ca: keys.take("ca"), timeout: keys.take("timeout") }
    }
}

/// What two keys of the answer are called (contracts §5.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// How many rows were re-owned.
    pub rows_updated: String,
    /// The guest that was.
    pub anonymous_id: String,
}

impl FromKeys for Fields {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self { rows_updated: keys.take("rows_updated"), anonymous_id: keys.take("anonymous_id") }
    }
}

impl Rebind {
    /// Returns what changes only with a restart, and the hook's secret.
    pub(super) fn apart(self) -> (Self, SecretDigest) {
        let Self { backend, tables, hook, timeout, fields } = self;
        let Hook { url, secret, ca, timeout: hook_timeout } = hook;
        let digest = SecretDigest::of_secret("rebind.hook.secret", secret.as_ref());
        let hook = Hook { url, secret: None, ca, timeout: hook_timeout };
        (Self { backend, tables, hook, timeout, fields }, digest)
    }
}

impl Hook {
    /// Returns the path at the upstream, if that is where the hook is.
    pub fn upstream_path(&self) -> Option<&str> {
        self.url.as_deref().filter(|url| url.starts_with('/'))
    }

    /// Returns the host and port of a URL of its own, if it has one that can be read.
    pub fn own_target(&self) -> Option<UpstreamUrl> {
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

impl FromTree for TableName {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        place.parsed(notes, || Self { schema: None, name: String::new() })
    }
}
