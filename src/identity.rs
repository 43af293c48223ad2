//! Providers: each turns a proof from outside into a [`model::Identity`](crate::model::Identity).
//!
//! [`Providers::verify`] is the only way in. It refuses every JWT that does not pass all of
//! contracts §11.1, and says [`KeysNotLoaded`](IdentityError::KeysNotLoaded) rather than no while
//! it has nothing to judge with. JWTs never reach a log or an error.

mod claims;
mod clerk;
mod http;
mod jwks;
mod jws;
mod keys;
mod namespace;
mod providers;

pub use claims::subject_of;
pub use providers::{ProviderError, Providers};

/// Why a presented JWT was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It was good once.
    #[error("Token expired")]
    Expired,
    /// It is not good.
    #[error("Invalid token: {}", .0.as_str())]
    Invalid(Reason),
    /// No key set of the issuer was ever loaded: nothing can be said about the JWT.
    #[error("JWKS not loaded")]
    KeysNotLoaded,
}

/// The fixed vocabulary of contracts §11.3: safe to show to anyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not three base64url parts of JSON, or too long.
    Malformed,
    /// `alg` is not on the allow-list.
    UnsupportedAlgorithm,
    /// `typ` names another kind of token.
    UnexpectedTokenType,
    /// Another class of token signed by the same instance (`cat`).
    NotASessionToken,
    /// `kid` is absent or not published by the issuer.
    UnknownKey,
    /// The signature does not verify.
    SignatureVerificationFailed,
    /// `iss` is not a configured issuer.
    IssuerMismatch,
    /// `nbf` lies ahead.
    NotYetValid,
    /// `iat` lies ahead.
    IssuedInTheFuture,
    /// `azp` is not an authorised party.
    AuthorizedPartyMismatch,
    /// `aud` names another audience.
    AudienceMismatch,
    /// `sub` is absent or not a user's.
    MissingSubject,
    /// `sid` is absent.
    MissingSessionId,
    /// `sts` is `pending`.
    SessionPending,
    /// `act` is present and impersonation is not allowed.
    ImpersonationNotAllowed,
    /// The JWT was exchanged before and the issuer is configured for single use.
    AlreadyUsed,
}

impl From<Reason> for IdentityError {
    fn from(reason: Reason) -> Self {
        Self::Invalid(reason)
    }
}

impl Reason {
    /// Returns the text of contracts §11.3.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnsupportedAlgorithm => "unsupported algorithm",
            Self::UnexpectedTokenType => "unexpected token type",
            Self::NotASessionToken => "not a session token",
            Self::UnknownKey => "unknown key",
            Self::SignatureVerificationFailed => "signature verification failed",
            Self::IssuerMismatch => "issuer mismatch",
            Self::NotYetValid => "not yet valid",
            Self::IssuedInTheFuture => "issued in the future",
            Self::AuthorizedPartyMismatch => "authorized party mismatch",
            Self::AudienceMismatch => "audience mismatch",
            Self::MissingSubject => "missing subject",
            Self::MissingSessionId => "missing session id",
            Self::SessionPending => "session pending",
            Self::ImpersonationNotAllowed => "impersonation not allowed",
            Self::AlreadyUsed => "already used",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
