//! The HTTP endpoints that Doorward answers itself: one router for the surfaces, one for operators.
//!
//! Handlers know nothing of the proxy: a surface takes an `http::Request` and gives a response.
//! They return one [`Problem`]; the surface's dialect turns it into the answer its callers know.
//! Nothing a caller sent in secret (token, device id) is ever put into an error or a log line.

pub mod admin;
mod answer;
pub mod bearer;
pub mod core;
pub mod credential;
pub mod dialect;
pub mod extract;
mod json;
pub mod limit;
pub mod mount;
pub mod operation;
pub mod problem;
pub mod request_id;
pub mod session_exchange;
pub mod webhooks;

pub use dialect::Dialect;
pub use extract::ClientAddr;
pub use problem::{Problem, What};
pub use request_id::RequestId;

#[cfg(test)]
mod tests;
