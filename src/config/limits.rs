//! Sizes, counts and deadlines.

use std::time::Duration;

use super::read::{FromKeys, SectionKeys};

/// Sizes, counts and deadlines.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Proxy threads; 0 for one per CPU that the process may use.
    pub workers: usize,
    /// Connections at once; further ones are closed.
    pub max_connections: usize,
    /// How long a client may take to send a request head.
    pub header_timeout: Duration,
    /// How large a request head may be, in bytes.
    pub header_bytes_max: usize,
    /// How large a forwarded request body may be, in bytes; 0 for any size.
    pub body_bytes_max: u64,
    /// How long a client may pause inside a request body.
    pub body_read_timeout: Duration,
    /// How long an idle client connection is kept.
    pub keepalive: Duration,
    /// Accept HTTP/2 in clear on the proxy port.
    pub h2c: bool,
    /// `POST /auth/anonymous`, per client address and minute; 0 for no limit.
    pub anonymous_per_minute: u32,
    /// `POST /auth/session`, per subject and minute; 0 for no limit.
    pub exchange_per_minute: u32,
}

impl FromKeys for Limits {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self {
            workers: keys.take("workers"),
            max_connections: keys.take("max_connections"),
            header_timeout: keys.take("header_timeout"),
            header_bytes_max: keys.take("header_bytes_max"),
            body_bytes_max: keys.take("body_bytes_max"),
            body_read_timeout: keys.take("body_read_timeout"),
            keepalive: keys.take("keepalive"),
            h2c: keys.take("h2c"),
            anonymous_per_minute: keys.take("anonymous_per_minute"),
            exchange_per_minute: keys.take("exchange_per_minute"),
        }
    }
}
