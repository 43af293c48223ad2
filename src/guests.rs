//! Guests: who a device's guest is, and how a guest becomes a user.
//!
//! A guest is derived from its device and never stored; [`Rebinds`] moves what a guest made to the
//! user who signs in on the same device, exactly once.

mod hook;
mod identity;
mod rebind;

pub use self::hook::{HookError, NewHookSecret};
pub use self::identity::Guests;
pub use self::rebind::{InvalidHook, RebindError, Rebinds, Rebound};
