//! Answers other proxies whether a request of theirs may pass, without forwarding it.
//!
//! The rules and the guard are those of the requests that are forwarded. What differs is that the
//! request is only described: a description that could be read in two ways is refused, and nothing
//! in it is believed unless a trusted proxy sends it. An answer names every identity header that
//! Doorward may ever write, empty when there is nothing to say: one that is left out would let a
//! header that the client made up through to the application.

mod decision;
pub mod endpoint;
pub mod grpc;
mod original;
