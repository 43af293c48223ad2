//! Rules about answering for other proxies.

use crate::config::problem::{Finding, KeyPath};
use crate::config::{Address, Config};

// A proxy that may ask learns who a token belongs to, and is believed about the request it asks for.
pub(super) fn check(config: &Config, found: &mut Vec<Finding>) {
    let none_trusted = config.trusted_proxies.is_empty();
    let mut needs_proxies = |key| {
        let finding = Finding::new(KeyPath::of(key), "answers only trusted_proxies, which is empty");
        found.push(finding.resting_on("trusted_proxies"));
    };
    if config.forward_auth.enabled && none_trusted {
        needs_proxies("forward_auth.enabled");
    }
    let Some(grpc) = &config.forward_auth.grpc else { return };
    if matches!(grpc, Address::Tcp(_)) && none_trusted {
        needs_proxies("forward_auth.grpc");
    }
    let admin = Address::Tcp(config.admin.listen);
    for (other, key) in [(&config.listen, "listen"), (&admin, "admin.listen")] {
        let same = match (grpc, other) {
            (Address::Tcp(own), Address::Tcp(other)) => own.port() == other.port() && own.port() != 0,
            (own, other) => own == other,
        };
        if same {
            let message = format!("must have another address than {key}");
            found.push(Finding::new(KeyPath::of("forward_auth.grpc"), message).resting_on(key));
        }
    }
}
