//! Rules about the outbox and its sink.

use std::time::Duration;

use super::{duration_in, file_exists, web_host};
use crate::config::Config;
use crate::config::outbox::Alias;
use crate::config::problem::{Finding, KeyPath};

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_hours(1);
/// What a request is kept within: an alias takes about 300 bytes.
const BATCH_MAX: u32 = 1000;

pub(super) fn check(config: &Config, found: &mut Vec<Finding>) {
    let outbox = &config.outbox;
    alias(&outbox.alias, found);
    if !(1..=BATCH_MAX).contains(&outbox.batch) {
        found.push(Finding::new(KeyPath::of("outbox.batch"), format!("must be from 1 to {BATCH_MAX}")));
    }
    duration_in("outbox.poll_interval", outbox.poll_interval, 10 * MILLISECOND..=HOUR, found);
    duration_in("outbox.alias.timeout", outbox.alias.timeout, 10 * MILLISECOND..=HOUR, found);
    duration_in("outbox.lease", outbox.lease, MILLISECOND..=24 * HOUR, found);
    // Taken, used, and given back by deleting what was delivered.
    let least = outbox.alias.timeout + 2 * config.directory.timeout;
    if outbox.lease <= least {
        let message = "must be longer than outbox.alias.timeout and twice directory.timeout together, or two \
                       replicas deliver the same";
        let finding = Finding::new(KeyPath::of("outbox.lease"), message);
        found.push(finding.resting_on("outbox.alias.timeout").resting_on("directory.timeout"));
    }
    let retry = &outbox.retry;
    duration_in("outbox.retry.first", retry.first, MILLISECOND..=HOUR, found);
    duration_in("outbox.retry.max", retry.max, MILLISECOND..=24 * HOUR, found);
    if retry.max < retry.first {
        let finding = Finding::new(KeyPath::of("outbox.retry.max"), "must not be shorter than outbox.retry.first");
        found.push(finding.resting_on("outbox.retry.first"));
    }
    if retry.attempts_max == 0 {
        found.push(Finding::new(KeyPath::of("outbox.retry.attempts_max"), "must be at least 1"));
    }
}

fn alias(alias: &Alias, found: &mut Vec<Finding>) {
    let url = alias.url.as_deref();
    if url.is_some_and(|url| web_host(url).is_none() || url.contains(['?', '#'])) {
        let message = "must be an http or https URL without credentials and query, e.g. \"https://eu.i.posthog.com\"";
        found.push(Finding::new(KeyPath::of("outbox.alias.url"), message));
    }
    if url.is_some() && alias.api_key.is_none() {
        let finding = Finding::new(KeyPath::of("outbox.alias.api_key"), "is needed by outbox.alias.url");
        found.push(finding.resting_on("outbox.alias.url"));
    }
    if alias.ca.is_some() && url.is_some_and(|url| !url.starts_with("https://")) {
        let message = "needs an outbox.alias.url that begins with https://";
        found.push(Finding::new(KeyPath::of("outbox.alias.ca"), message).resting_on("outbox.alias.url"));
    }
    file_exists(KeyPath::of("outbox.alias.ca"), alias.ca.as_deref(), found);
}
