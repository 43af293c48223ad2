//! Surface session-exchange through the proxy port: status, headers and body of every answer.
//!
//! What the contracts fix is asserted to the byte; who the application takes the caller for is
//! asserted at the recording upstream.

pub(crate) mod answers;

mod anonymous;
mod bodies;
mod exchange;
mod limits;
mod logout;
mod outage;
mod placement;
mod protocol;
