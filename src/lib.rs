//! Doorward: a reverse-proxy authentication sidecar.
//!
//! It stands in front of an HTTP application, answers the authentication endpoints itself, lets
//! only requests with a live session through, and names the caller to the application in
//! `X-User-ID` and `X-Client-ID`. `docs/architecture.md` has the walkthroughs; the modules
//! below are in reading order, and each may name only those above it
//! (`tests/it/architecture.rs` holds the table).

pub mod secret;
pub mod time;

pub mod metrics;
pub mod model;
pub mod outgoing;
pub mod wire;

pub mod config;
pub mod telemetry;

pub mod directory;
pub mod identity;
pub mod store;

pub mod session;

pub mod accounts;
pub mod bootstrap;
pub mod guests;
pub mod outbox;

pub mod api;

pub mod proxy;

pub mod server;

pub mod cli;
