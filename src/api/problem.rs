//! What went wrong with a request, without a status and without a text: a dialect has those.
//!
//! Every row of contracts §3.1 and §0.7 is a [`What`]; where a row leaves the words to the
//! operation, the variant says which operation's words they are. 401 says no, 503 says that the
//! answer cannot be known now; no conversion below turns one into the other.

use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Method};

use crate::accounts::SignInError;
use crate::api::bearer::BearerError;
use crate::bootstrap::BootstrapError;
use crate::directory::DirectoryError;
use crate::identity::{IdentityError, Reason};
use crate::model::PrincipalKind;
use crate::session::Refusal;

/// Why a request was not answered as asked.
#[derive(Clone, Debug)]
pub struct Problem {
    /// What went wrong, for the caller: never a secret.
    pub what: What,
    /// What caused it, for the log.
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The closed set of outcomes that are not a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The request's framing, target or head can be read in two ways, or its body broke off.
    BadRequest,
    /// No credential was sent.
    MissingToken,
    /// The credential was good once.
    Expired,
    /// The credential is not good.
    InvalidToken(TokenFault),
    /// A sign-in by password was refused.
    BadCredentials(CredentialFault),
    /// The caller is known and may not.
    Forbidden(Why),
    /// The path is none of the surface's.
    NoRoute {
        /// The request's method.
        method: Method,
        /// The request's path, without its query: callers put secrets there by mistake.
        path: String,
    },
    /// The path exists; what it names does not.
    NotFound(Resource),
    /// The path exists, but not for this method.
    MethodNotAllowed {
        /// The value of `Allow`.
        allow: HeaderValue,
    },
    /// The caller named something that another caller has.
    Conflict(Clash),
    /// The body is larger than the operation reads.
    TooLarge,
    /// The body is not of a type that the operation reads.
    UnsupportedMediaType {
        /// The type that came, if it is a text.
        actual: Option<String>,
    },
    /// The body is not one JSON object.
    MalformedBody,
    /// Fields of the body, the query or the head break rules; at least one.
    InvalidFields(Vec<FieldFault>),
    /// A new password breaks the policy.
    WeakPassword(PasswordFault),
    /// A webhook delivery is not accepted.
    RefusedWebhook(WebhookFault),
    /// Too many requests in a short time.
    RateLimited {
        /// Seconds until a request may pass.
        retry_after: u64,
    },
    /// A fault of ours.
    Internal,
    /// The application cannot be reached, or answered nonsense.
    BadGateway(Awaited),
    /// The application took too long.
    TimedOut(Awaited),
    /// Something that the answer depends on cannot be asked now.
    Unavailable(Dependency),
}

/// Why a credential is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// It cannot be a token, or came more than once.
    Malformed,
    /// A provider's JWT did not verify.
    Proof(Reason),
    /// No session of ours is behind it.
    UnknownSession,
    /// Its session was ended before its time.
    SessionRevoked,
    /// Its user is gone.
    UserDeleted,
    /// It may be used once, and was.
    AlreadyUsed,
    /// A provider's JWT is asked for here.
    NotAJwt,
    /// A session token is asked for here.
    NotASessionToken,
    /// A user is asked for here, and this is another kind of principal.
    NotAUser(PrincipalKind),
}

/// Why a sign-in by password was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialFault {
    /// There is no such account, or the password is another.
    Mismatch,
    /// The password is right and the e-mail address was never verified.
    Unverified,
}

/// Why a known caller may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The caller's roles or kind do not suffice.
    Permissions,
    /// A cookie came with a request that another site may have caused.
    CrossOrigin,
    /// The deployment has no licence.
    License,
    /// The sessions asked for are another user's.
    ForeignSessions,
    /// The session to end is another user's.
    ForeignSession,
    /// The password to change is another user's.
    ForeignPassword,
}

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A session, by the id that was asked for.
    Session(String),
    /// A device, which the wire calls a client.
    Device(String),
    /// A user.
    User(String),
    /// An e-mail address or a phone number.
    Contact,
    /// A JWT template, by name.
    Template(String),
}

/// What the caller named and another caller has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clash {
    /// The device is another user's for good.
    Device(String),
    /// The contact belongs to another account; its kind in words, e.g. `email address`.
    Contact(&'static str),
}

/// A field that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldFault {
    /// The field's name on the wire.
    pub name: &'static str,
    /// The rule.
    pub broken: Constraint,
    /// The operation's own words, where its contract has some; else they are made from the rule.
    pub words: Option<&'static str>,
}

/// A rule about a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// It has to be there and not empty.
    Required,
    /// It is of one JSON type: `string`, `boolean` …
    Type(&'static str),
    /// It is written in one way: `a valid email address` …
    Format(&'static str),
    /// It lies in a range: `1-200 characters` …
    Range(&'static str),
}

/// Why a password is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordFault {
    /// It lacks one of the classes of characters, or is too short.
    Classes,
    /// It is among those that are tried first.
    Guessable,
}

/// Why a webhook delivery is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookFault {
    /// It was not signed, now, for us. Why exactly is for the log.
    Signature,
    /// It was signed and cannot be understood.
    Payload,
}

/// Whose answer did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The application's, to a forwarded request.
    Application,
    /// The source's of a required section of bootstrap, by the section's name.
    Bootstrap(&'static str),
}

/// What cannot be asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependency {
    /// A provider's keys were never loaded.
    Keys,
    /// The session store or the directory.
    Store,
    /// What moves a guest's rows; nothing changed.
    Rebind,
}

impl Problem {
    /// Returns the same problem with its cause, which the log shows and the caller does not see.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}

impl What {
    /// Returns the stable name for metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::MissingToken => "missing_token",
            Self::Expired => "expired",
            Self::InvalidToken(_) => "invalid_token",
            Self::BadCredentials(_) => "bad_credentials",
            Self::Forbidden(_) => "forbidden",
            Self::NoRoute { .. } => "no_route",
            Self::NotFound(_) => "not_found",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::Conflict(_) => "conflict",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType { .. } => "unsupported_media_type",
            // One label for both: the body was read and says nothing usable.
            Self::MalformedBody | Self::InvalidFields(_) => "unprocessable",
            Self::WeakPassword(_) => "weak_password",
            Self::RefusedWebhook(WebhookFault::Signature) => "invalid_signature",
            Self::RefusedWebhook(WebhookFault::Payload) => "invalid_payload",
            Self::RateLimited { .. } => "rate_limited",
            Self::Internal => "internal",
            Self::BadGateway(_) => "bad_gateway",
            Self::TimedOut(_) => "gateway_timeout",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// Returns one field's fault; `words` are the operation's own, if it has some.
    pub fn field(name: &'static str, broken: Constraint, words: Option<&'static str>) -> Self {
        Self::InvalidFields(vec![FieldFault { name, broken, words }])
    }
}

impl TokenFault {
    /// Returns the reason in the vocabulary of contracts §11.3, which is safe to show to every caller.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Proof(reason) => reason.as_str(),
            Self::UnknownSession => "unknown session",
            Self::SessionRevoked => "session revoked",
            Self::UserDeleted => "user deleted",
            Self::AlreadyUsed => "already used",
            Self::NotAJwt => "expected a Clerk JWT",
            Self::NotASessionToken => "expected a session token",
            Self::NotAUser(_) => "expected a user's token",
        }
    }
}

impl fmt::Display for FieldFault {
    /// Writes the fault in the operation's words, or in those of its rule.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words {
            Some(words) => formatter.write_str(words),
            None => write!(formatter, "{} {}", self.name, self.broken),
        }
    }
}

impl fmt::Display for Constraint {
    /// Writes what follows the field's name.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Required => formatter.write_str("is required"),
            Self::Type(kind) => write!(formatter, "must be a {kind}"),
            Self::Format(form) => write!(formatter, "must be {form}"),
            Self::Range(range) => write!(formatter, "must be {range}"),
        }
    }
}

impl From<What> for Problem {
    fn from(what: What) -> Self {
        Self { what, source: None }
    }
}

impl From<TokenFault> for Problem {
    fn from(fault: TokenFault) -> Self {
        What::InvalidToken(fault).into()
    }
}

impl From<BearerError> for Problem {
    fn from(error: BearerError) -> Self {
        match error {
            BearerError::Missing => What::MissingToken.into(),
            BearerError::Invalid => TokenFault::Malformed.into(),
        }
    }
}

impl From<IdentityError> for Problem {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Expired => What::Expired.into(),
            IdentityError::Invalid(reason) => TokenFault::Proof(reason).into(),
            IdentityError::KeysNotLoaded => What::Unavailable(Dependency::Keys).into(),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed => TokenFault::Malformed.into(),
            Refusal::Unknown => TokenFault::UnknownSession.into(),
            Refusal::Revoked => TokenFault::SessionRevoked.into(),
            Refusal::Expired => What::Expired.into(),
            Refusal::Unavailable => What::Unavailable(Dependency::Store).into(),
        }
    }
}

impl From<SignInError> for Problem {
    fn from(error: SignInError) -> Self {
        match error {
            SignInError::UserDeleted => TokenFault::UserDeleted.into(),
            SignInError::LoginEnded => TokenFault::SessionRevoked.into(),
            SignInError::AlreadyUsed => TokenFault::AlreadyUsed.into(),
            SignInError::StoreUnavailable => What::Unavailable(Dependency::Store).into(),
            SignInError::Directory(error) => error.into(),
        }
    }
}

// Whether the database is away or broken, what the answer would have been cannot be known.
impl From<DirectoryError> for Problem {
    fn from(error: DirectoryError) -> Self {
        Self::from(What::Unavailable(Dependency::Store)).because(error)
    }
}

impl From<BootstrapError> for Problem {
    fn from(error: BootstrapError) -> Self {
        match error {
            BootstrapError::Unavailable(section) => What::BadGateway(Awaited::Bootstrap(section)).into(),
            BootstrapError::TimedOut(section) => What::TimedOut(Awaited::Bootstrap(section)).into(),
        }
    }
}
