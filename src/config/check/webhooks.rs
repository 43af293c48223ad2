//! Rules about senders of webhooks.

use crate::config::Config;
use crate::config::problem::{Finding, KeyPath};

pub(super) fn check(config: &Config, found: &mut Vec<Finding>) {
    let Some(webhooks) = &config.webhooks.clerk else { return };
    let at = KeyPath::of("webhooks.clerk");
    if webhooks.secrets.is_empty() {
        let message = "is empty: nothing could be believed; Clerk shows the secret beside the endpoint";
        found.push(Finding::new(at.key("secrets"), message));
    }
    if webhooks.instance_id.as_deref() == Some("") {
        found.push(Finding::new(at.key("instance_id"), "is empty; leave it out to believe any instance"));
    }
    if config.clerk.is_none() {
        found.push(Finding::new(at, "needs the section clerk, whose users the events are about").resting_on("clerk"));
    }
}
