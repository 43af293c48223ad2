//! What the handlers of every surface share.

use std::sync::Arc;

use aws_lc_rs::rand::SecureRandom;

use crate::accounts::{Resolver, SignIn};
use crate::api::limit::Limits;
use crate::api::webhooks::sender::WebhookSender;
use crate::bootstrap::BootstrapComposer;
use crate::config::rebind::Fields;
use crate::directory::Directory;
use crate::guests::Rebinds;
use crate::identity::Providers;
use crate::metrics::Metrics;
use crate::session::Sessions;
use crate::time::Clock;

/// The services behind the operations, put together once by `server`.
pub struct Core {
    /// Starts sessions.
    pub sign_in: Arc<SignIn>,
    /// Knows which users a provider speaks of.
    pub resolver: Arc<Resolver>,
    /// Finds and ends sessions.
    pub sessions: Arc<Sessions>,
    /// Puts together what a front end needs first.
    pub bootstrap: Arc<BootstrapComposer>,
    /// Devices, users, and the deliveries that were processed.
    pub directory: Arc<Directory>,
    /// Makes guests users.
    pub rebinds: Arc<Rebinds>,
    /// What two keys of a rebind's answer are called.
    pub rebind_fields: Arc<Fields>,
    /// Verifies providers' JWTs.
    pub providers: Arc<Providers>,
    /// Whose webhook deliveries are accepted; without it there is no such operation.
    pub sender: Option<Arc<WebhookSender>>,
    /// How often callers may try.
    pub limits: Arc<Limits>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counts sign-ins, deliveries and answers.
    pub metrics: Arc<Metrics>,
    /// Makes request ids for requests that came without one.
    pub random: Arc<dyn SecureRandom + Send + Sync>,
}
