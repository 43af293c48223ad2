//! Sizes, counts and deadlines.

use std::time::Duration;

use serde::Deserialize;

use super::duration;

/// Sizes, counts and deadlines.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Proxy threads; 0 for one per CPU that the process may use.
    pub workers: usize,
    /// Connections at once; further ones are closed.
    pub max_connections: usize,
    /// How long a client may take to send a request head.
    #[serde(deserialize_with = "duration::deserialize")]
    pub header_timeout: Duration,
    /// How large a request head may be, in bytes.
    pub header_bytes_max: usize,
    /// How large a forwarded request body may be, in bytes; 0 for any size.
    pub body_bytes_max: u64,
    /// How long a client may pause inside a request body.
    #[serde(deserialize_with = "duration::deserialize")]
    pub body_read_timeout: Duration,
    /// How long a single write to a client may block.
    #[serde(deserialize_with = "duration::deserialize")]
    pub write_timeout: Duration,
    /// How long an idle client connection is kept.
    #[serde(deserialize_with = "duration::deserialize")]
    pub keepalive: Duration,
    /// Accept HTTP/2 in clear on the proxy port.
    pub h2c: bool,
    /// `POST /auth/anonymous`, per client address and minute; 0 for no limit.
    pub anonymous_per_minute: u32,
    /// `POST /auth/session`, per subject and minute; 0 for no limit.
    pub exchange_per_minute: u32,
}
