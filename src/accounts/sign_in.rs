//! The one way in: every session begins here.
//!
//! A login that a provider vouched for is resolved to a principal, and may be over already
//! (contracts §11.1 rule 15). Only the provider's webhooks can say so: without them the directory
//! learns of sign-ins when it has time, and no caller waits for it. With them it is asked before a
//! session starts and once more when it has: what ends between the two looks is seen by the
//! second, and what ends later finds the session in the store.

use std::net::IpAddr;
use std::sync::Arc;

use super::Resolver;
use crate::directory::{Directory, DirectoryError, LoginStatus};
use crate::guests::Guests;
use crate::metrics::Metrics;
use crate::model::{EndReason, Identity, NewSession, Principal};
use crate::session::{self, Handout, Refusal, Sessions, StartError, Started};
use crate::telemetry::audit::{Action, Event};
use crate::time::Clock;

/// Starts sessions, and counts and audits who got one and who did not.
pub struct SignIn {
    sessions: Arc<Sessions>,
    directory: Arc<Directory>,
    guests: Arc<Guests>,
    resolver: Arc<Resolver>,
    checks_ended_logins: bool,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// What the service is made of.
pub struct SignInSetup {
    /// Mints the sessions.
    pub sessions: Arc<Sessions>,
    /// Knows devices, and which users and logins are over.
    pub directory: Arc<Directory>,
    /// Says who the guest of a device is.
    pub guests: Arc<Guests>,
    /// Knows who an identity is.
    pub resolver: Arc<Resolver>,
    /// Whether webhooks tell of users and logins that end: then every sign-in asks the directory.
    pub checks_ended_logins: bool,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counts sign-ins.
    pub metrics: Arc<Metrics>,
}

/// How a caller signs in: the label of `login_attempts` and of `sessions_created`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignInMethod {
    /// A provider's session JWT.
    Clerk,
    /// A device id.
    Anonymous,
}

/// A caller who is signed in.
#[derive(Debug)]
pub struct SignedIn {
    /// The session, and what its holder is handed.
    pub started: Started,
}

/// Why a proven caller was not signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// The user was deleted.
    #[error("Invalid token: user deleted")]
    UserDeleted,
    /// The login, or all that the user had, ended at or after the time of the proof.
    #[error("Invalid token: session revoked")]
    LoginEnded,
    /// The proof is good for one session and was used.
    #[error("Invalid token: already used")]
    AlreadyUsed,
    /// The store cannot be written.
    #[error("Session store unavailable")]
    StoreUnavailable,
    /// The directory cannot say who the caller is, or whether the login is over.
    #[error("Session store unavailable")]
    Directory(#[from] DirectoryError),
}

impl SignIn {
    /// Returns the service. Every series of its metrics exists from then on.
    pub fn new(setup: SignInSetup) -> Self {
        let SignInSetup { sessions, directory, guests, resolver, checks_ended_logins, clock, metrics } = setup;
        for method in [SignInMethod::Clerk, SignInMethod::Anonymous] {
            for outcome in method.outcomes() {
                metrics.login_attempts.with_label_values(&[method.as_str(), outcome]);
            }
        }
        Self { sessions, directory, guests, resolver, checks_ended_logins, clock, metrics }
    }

    /// Starts a session for what a provider proved. The caller's address is for the audit log.
    pub async fn with_identity(&self, identity: Identity, client_ip: Option<IpAddr>) -> Result<SignedIn, SignInError> {
        let outcome = self.start(identity).await;
        self.conclude(SignInMethod::Clerk, client_ip, outcome)
    }

    /// Starts a session for the guest of a device. The caller's address is for the audit log.
    pub async fn as_guest(&self, device_id: &str, client_ip: Option<IpAddr>) -> Result<SignedIn, SignInError> {
        let outcome = match self.start_guest(device_id).await {
            // A rebind ended that guest meanwhile: the device has a new one.
            Err(SignInError::LoginEnded) => self.start_guest(device_id).await,
            outcome => outcome,
        };
        self.conclude(SignInMethod::Anonymous, client_ip, outcome)
    }

    /// Returns who an identity is, unless user or login are over: for callers who get no session.
    pub async fn find_principal(&self, identity: &Identity) -> Result<Principal, SignInError> {
        let principal = self.resolver.resolve(identity).await?;
        if self.checks_ended_logins {
            let login = NewSession::of(principal.clone(), identity.clone());
            match self.directory.find_login_status(&login, self.clock.now()).await? {
                LoginStatus::Active(_) => {}
                over => return Err(refusal(over)),
            }
        }
        Ok(principal)
    }

    /// Counts and audits a sign-in that was refused; handlers call it for what they refuse themselves.
    ///
    /// `reason` is one of the outcomes of the method.
    pub fn record_refusal(&self, method: SignInMethod, client_ip: Option<IpAddr>, reason: &'static str) {
        self.count(method, reason);
        let (reason, method) = (Some(reason), Some(method.as_str()));
        Event { reason, client_ip, method, ..Action::LoginDenied.event() }.write();
    }

    async fn start(&self, identity: Identity) -> Result<Started, SignInError> {
        let method = SignInMethod::Clerk.as_str();
        let login = NewSession::of(self.resolver.resolve(&identity).await?, identity);
        if !self.checks_ended_logins {
            let started = self.sessions.start(&login, method, Handout::OPAQUE).await?;
            self.directory.record_sign_in_later(login, self.clock.now());
            return Ok(started);
        }
        let before = self.directory.record_sign_in(&login, self.clock.now()).await?;
        if !matches!(before, LoginStatus::Active(_)) {
            return Err(refusal(before));
        }
        let started = self.sessions.start(&login, method, Handout::OPAQUE).await?;
        let after = self.directory.find_login_status(&login, self.clock.now()).await;
        if after.as_ref().is_ok_and(|after| *after == before) {
            return Ok(started);
        }
        // Best effort: the token was never returned, but the record counts toward the session cap.
        let _: Result<(), Refusal> = self.sessions.end(&started.session, EndReason::Admin).await;
        Err(after.map_or_else(SignInError::from, refusal))
    }

    // The guest is asked for before the session starts, and dated before that: one that a rebind
    // ends in between is refused by the store.
    async fn start_guest(&self, device_id: &str) -> Result<Started, SignInError> {
        let asked_at = self.clock.now();
        let (tenant, device) = (self.guests.tenant(), self.guests.device_key(device_id));
        let generation = self.directory.record_guest_sign_in(tenant, &device, asked_at).await?;
        let guest = NewSession::guest(self.guests.principal(device_id, generation), asked_at);
        Ok(self.sessions.start(&guest, SignInMethod::Anonymous.as_str(), Handout::OPAQUE).await?)
    }

    fn conclude(
        &self,
        method: SignInMethod,
        client_ip: Option<IpAddr>,
        outcome: Result<Started, SignInError>,
    ) -> Result<SignedIn, SignInError> {
        match outcome {
            Ok(started) => {
                self.count(method, "success");
                Event { client_ip, ..session::audit::event(Action::SessionStarted, &started.session) }.write();
                Ok(SignedIn { started })
            }
            Err(error) => {
                self.record_refusal(method, client_ip, error.reason());
                Err(error)
            }
        }
    }

    fn count(&self, method: SignInMethod, outcome: &str) {
        self.metrics.login_attempts.with_label_values(&[method.as_str(), outcome]).inc();
    }
}

impl SignInMethod {
    /// Returns the stable name for metrics and the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clerk => "clerk",
            Self::Anonymous => "anonymous",
        }
    }

    // Every outcome that can happen, so that each series has a zero to begin from.
    fn outcomes(self) -> &'static [&'static str] {
        match self {
            Self::Clerk => &["success", "missing_token", "invalid_token", "expired", "rate_limited", "unavailable"],
            Self::Anonymous => &[
                "success",
                "bad_request",
                "too_large",
                "unsupported_media_type",
                "unprocessable",
                "rate_limited",
                "invalid_token",
                "unavailable",
            ],
        }
    }
}

impl SignInError {
    // The outcome that it is in metrics and in the audit log.
    fn reason(&self) -> &'static str {
        match self {
            Self::UserDeleted | Self::LoginEnded | Self::AlreadyUsed => "invalid_token",
            Self::StoreUnavailable | Self::Directory(_) => "unavailable",
        }
    }
}

impl From<StartError> for SignInError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Superseded => Self::LoginEnded,
            StartError::AlreadyUsed => Self::AlreadyUsed,
            StartError::Unavailable => Self::StoreUnavailable,
        }
    }
}

// Epochs that moved say that all sessions ended meanwhile, this login's among them.
fn refusal(status: LoginStatus) -> SignInError {
    match status {
        LoginStatus::UserDeleted => SignInError::UserDeleted,
        LoginStatus::Ended | LoginStatus::Active(_) => SignInError::LoginEnded,
    }
}
