//! What is the same wherever bytes from outside are read or written: strict JSON, header names, visible ASCII.

pub mod headers;
pub mod json;
