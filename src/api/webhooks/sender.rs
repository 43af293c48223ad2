//! Whose deliveries are accepted.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::config::webhooks::SigningSecret;

/// The Clerk instance whose events are accepted.
pub struct WebhookSender {
    pub(super) secrets: ArcSwap<Vec<SigningSecret>>,
    pub(super) instance_id: Option<String>,
    pub(super) subject_prefix: String,
}

impl WebhookSender {
    /// Returns the sender that a configuration names, if it names one.
    pub fn from_config(config: &Config) -> Option<Self> {
        let (clerk, issuer) = (config.webhooks.clerk.as_ref()?, config.clerk.as_ref()?);
        Some(Self {
            secrets: ArcSwap::from_pointee(clerk.secrets.clone()),
            instance_id: clerk.instance_id.clone(),
            subject_prefix: issuer.subject_prefix.clone(),
        })
    }

    /// Accepts what one of `secrets` signed, and nothing else, from now on.
    pub fn use_secrets(&self, secrets: &[SigningSecret]) {
        self.secrets.store(Arc::new(secrets.to_vec()));
    }
}
