//! The HTTP endpoints that Doorward answers itself: one router a surface, and one for operators.
//!
//! Handlers know nothing of the proxy: a surface takes an `http::Request` and gives a response.
//! They return one [`Error`] value; the surface's dialect turns it into the body its callers know.
//! Nothing a caller sent in secret (token, device id) is ever put into an error or a log line.

pub mod admin;
pub mod credential;
pub mod error;
pub mod extract;
pub mod limit;
pub mod session;
pub mod webhooks;

pub use error::{Error, Kind};
pub use extract::{ClientAddr, RequestId};
