//! Rules about the sources of `GET /auth/bootstrap`.

use std::time::Duration;

use super::duration_in;
use crate::config::Config;
use crate::config::bootstrap::{HttpSource, SectionSource, SqlSource};
use crate::config::problem::{Finding, KeyPath};

pub(super) fn check(config: &Config, found: &mut Vec<Finding>) {
    for (name, section) in config.bootstrap.sections() {
        let at = KeyPath::of("bootstrap").key(name);
        let range = Duration::from_millis(1)..=Duration::from_mins(1);
        duration_in(&format!("bootstrap.{name}.timeout"), section.timeout, range, found);
        match &section.source {
            SectionSource::Http(_) if config.upstream.url.is_none() => {
                let finding = Finding::new(at.key("source"), "asks the application, and upstream.url is null");
                found.push(finding.resting_on("upstream.url"));
            }
            SectionSource::Http(source) => http(&at.key("http"), source, found),
            SectionSource::Sql(source) => sql(&at.key("sql"), source, found),
            SectionSource::Directory | SectionSource::Static => {}
        }
    }
}

fn http(at: &KeyPath, source: &HttpSource, found: &mut Vec<Finding>) {
    let create = source.create.as_ref().and_then(|create| create.path.as_deref());
    let paths = [(at.key("path"), Some(source.path.as_str())), (at.key("create").key("path"), create)];
    for (key, path) in paths {
        let wrong = path.is_some_and(|path| !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err());
        if wrong {
            found.push(Finding::new(key, "must be a path of the application, e.g. \"/profile\""));
        }
    }
}

fn sql(at: &KeyPath, source: &SqlSource, found: &mut Vec<Finding>) {
    let statements = [("select", Some(source.select.as_str())), ("create", source.create.as_deref())];
    for (key, statement) in statements.into_iter().filter_map(|(key, text)| Some((key, text?))) {
        if statement.trim().is_empty() {
            found.push(Finding::new(at.key(key), "is empty"));
        }
        if SqlSource::placeholders(statement) > 2 {
            found.push(Finding::new(at.key(key), "may name $1 (the user) and $2 (the tenant), and no other"));
        }
    }
}
