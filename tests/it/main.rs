//! Integration tests: the real binary as a child process, real Redis, real sockets.
//!
//! One file per behaviour; `support` holds the parts they share. Nothing here is skipped: a part
//! that is not installed fails the test that needs it.

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod attacks_headers;
#[cfg(test)]
mod attacks_paths;
#[cfg(test)]
mod attacks_sessions;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod bootstrap;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod decisions;
#[cfg(test)]
mod dialects;
#[cfg(test)]
mod direct;
#[cfg(test)]
mod directory;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod framing;
#[cfg(test)]
mod guard;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod issuers;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod monitoring;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod outbox;
#[cfg(test)]
mod protocols;
#[cfg(test)]
mod proxies;
#[cfg(test)]
mod rebind;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod revocation;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod streams_http2;
#[cfg(test)]
#[expect(unreachable_pub, reason = "a test binary exports nothing: here `pub` marks what other files may use")]
mod support;
#[cfg(test)]
mod support_works;
#[cfg(test)]
mod surface;
#[cfg(test)]
mod traces;
#[cfg(test)]
mod upstream_exposure;
#[cfg(test)]
mod verify;
#[cfg(test)]
mod webhooks;
