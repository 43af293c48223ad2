//! Rules about rebinding. Whether the tables are there is for the database to say.

use std::time::Duration;

use super::{duration_in, file_exists};
use crate::config::Config;
use crate::config::directory::DirectoryUrl;
use crate::config::problem::{Finding, KeyPath};
use crate::config::rebind::{Backend, Fields, Hook, Rebind, TableName};
use crate::wire::headers::is_visible_ascii;

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_hours(1);
/// What Doorward's own tables begin with: their rows are never re-owned.
const OWN_TABLES: &str = "doorward_";

pub(super) fn check(config: &Config, found: &mut Vec<Finding>) {
    let rebind = &config.rebind;
    duration_in("rebind.timeout", rebind.timeout, MILLISECOND..=HOUR, found);
    duration_in("rebind.hook.timeout", rebind.hook.timeout, MILLISECOND..=HOUR, found);
    file_exists(KeyPath::of("rebind.hook.ca"), rebind.hook.ca.as_deref(), found);
    fields(&rebind.fields, found);
    tables(rebind, &config.directory.url, found);
    if let Some(url) = &rebind.hook.url {
        hook_url(url, &rebind.hook, found);
    }
    match rebind.backend {
        Backend::Sql if rebind.tables.is_empty() => {
            let finding = Finding::new(KeyPath::of("rebind.tables"), "is empty: backend sql has nothing to re-own");
            found.push(finding.resting_on("rebind.backend"));
        }
        Backend::None | Backend::Sql => {}
        Backend::Http if rebind.hook.upstream_path().is_some() && config.upstream.url.is_none() => {
            let finding =
                Finding::new(KeyPath::of("rebind.hook.url"), "is a path at the upstream, and upstream.url is null");
            found.push(finding.resting_on("upstream.url"));
        }
        Backend::Http => needs_hook(&rebind.hook, found),
    }
}

fn needs_hook(hook: &Hook, found: &mut Vec<Finding>) {
    if hook.url.is_none() {
        let finding = Finding::new(KeyPath::of("rebind.hook.url"), "is missing: backend http asks it");
        found.push(finding.resting_on("rebind.backend"));
    }
    // A caller who may call the application through Doorward may call this path too.
    if hook.upstream_path().is_some() && hook.secret.is_none() {
        let message =
            "is missing: callers can reach a path of the upstream too, and only this tells them from Doorward";
        let finding = Finding::new(KeyPath::of("rebind.hook.secret"), message);
        found.push(finding.resting_on("rebind.hook.url"));
    }
}

fn hook_url(url: &str, hook: &Hook, found: &mut Vec<Finding>) {
    let is_path = url.starts_with('/') && !url.starts_with("//") && url.parse::<http::uri::PathAndQuery>().is_ok();
    if !is_path && hook.own_target().is_none() {
        let expected = "must be a path at the upstream, e.g. \"/internal/rebind\", or a URL that begins with http";
        found.push(Finding::new(KeyPath::of("rebind.hook.url"), expected));
    }
    if hook.ca.is_some() && !url.starts_with("https://") {
        let finding = Finding::new(KeyPath::of("rebind.hook.ca"), "needs a rebind.hook.url that begins with https://");
        found.push(finding.resting_on("rebind.hook.url"));
    }
    if hook.secret.as_ref().is_some_and(|secret| !is_visible_ascii(secret.expose(), usize::MAX)) {
        let message = "must be visible ASCII characters without spaces";
        found.push(Finding::new(KeyPath::of("rebind.hook.secret"), message));
    }
}

fn tables(rebind: &Rebind, directory: &DirectoryUrl, found: &mut Vec<Finding>) {
    for (index, table) in rebind.tables.iter().enumerate() {
        let at = KeyPath::of("rebind.tables").index(index);
        if let Some(message) = misnamed(&table.table, directory) {
            found.push(Finding::new(at.key("table"), message).resting_on("directory.url"));
        }
        if table.column.is_empty() {
            found.push(Finding::new(at.key("column"), "is empty"));
        }
        if table.tenant_column.as_deref() == Some("") {
            found.push(Finding::new(at.key("tenant_column"), "is empty; leave it out or write null"));
        }
        if table.tenant_column.as_ref() == Some(&table.column) {
            found.push(Finding::new(at.key("tenant_column"), "must be another column than column"));
        }
        let earlier = rebind.tables.iter().take(index);
        if earlier.clone().any(|other| other.table == table.table && other.column == table.column) {
            found.push(Finding::new(at, "names the table and column of an earlier one"));
        }
    }
}

fn misnamed(table: &TableName, directory: &DirectoryUrl) -> Option<&'static str> {
    match (directory, &table.schema) {
        _ if table.name.starts_with(OWN_TABLES) => Some("is Doorward's own"),
        (DirectoryUrl::Postgres(_), None) => Some("needs its schema, e.g. \"public.projects\""),
        (DirectoryUrl::Sqlite(_), Some(schema)) if schema != "main" => Some("must be in the schema main, or name none"),
        _ => None,
    }
}

fn fields(fields: &Fields, found: &mut Vec<Finding>) {
    for (key, name) in
        [("rebind.fields.rows_updated", &fields.rows_updated), ("rebind.fields.anonymous_id", &fields.anonymous_id)]
    {
        if name.is_empty() || name == "rebound" {
            found.push(Finding::new(KeyPath::of(key), "must be a name, and another one than \"rebound\""));
        }
    }
    if fields.rows_updated == fields.anonymous_id {
        let finding = Finding::new(KeyPath::of("rebind.fields.anonymous_id"), "must differ from rows_updated");
        found.push(finding.resting_on("rebind.fields.rows_updated"));
    }
}
