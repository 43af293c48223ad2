//! Free TCP ports on loopback.
//!
//! They lie below the range from which the kernel picks ports for outgoing connections, and one
//! process never hands out the same port twice: a port that was free stays free until it is used.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 10_240;
const COUNT: u32 = 22_000;

/// How many ports this process has looked at. The one global: ports are the machine's, not a test's.
static LOOKED_AT: AtomicU32 = AtomicU32::new(0);

/// Returns a TCP port of 127.0.0.1 that nothing listens on.
pub fn free_port() -> u16 {
    // Processes that test at the same time begin far apart.
    let start = std::process::id().wrapping_mul(7919);
    for _ in 0..COUNT {
        let step = LOOKED_AT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + start.wrapping_add(step) % COUNT).expect("FIRST + COUNT is below 65536");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port among {COUNT}");
}
