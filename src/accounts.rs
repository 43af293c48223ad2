//! Accounts: who an identity is, and the one way in.
//!
//! [`Resolver`] turns what a provider proved into a principal; [`SignIn`] turns that into a
//! session. Nothing else starts sessions.

mod resolve;
mod sign_in;
#[cfg(test)]
mod tests;

pub use self::resolve::Resolver;
pub use self::sign_in::{SignIn, SignInError, SignInMethod, SignInSetup, SignedIn};
