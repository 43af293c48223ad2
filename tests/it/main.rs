//! Integration tests: the real binary as a child process, real Redis, real sockets.
//!
//! One file per behaviour; `support` holds the parts they share. Nothing here is skipped: a part
//! that is not installed fails the test that needs it.

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod reload;
#[cfg(test)]
#[expect(unreachable_pub, reason = "a test binary exports nothing: here `pub` marks what other files may use")]
mod support;
#[cfg(test)]
mod support_works;
