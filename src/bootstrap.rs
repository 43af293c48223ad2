//! Composes the answer of `GET /auth/bootstrap` (contracts §5.5, §12.2).
//!
//! Three sections come from three sources, which are asked at the same time, each for no longer than
//! its own timeout. Nothing is cached between two calls, because the application may act on being
//! asked. Every secret is masked, also one that its source calls harmless, and no text from a source
//! is logged.

mod application;
mod call;
mod creation;
mod secrets;
mod section_error;
mod shape;
mod source;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use serde::Serialize;
use serde_json::Value;

pub use self::application::ApplicationError;
use self::call::{Document, SourceCall};
use self::section_error::SectionError;
use self::source::SectionSources;
use crate::config::{self, Config, IdentityHeaders};
use crate::directory::Directory;
use crate::metrics::Metrics;
use crate::model::PrincipalKind;
use crate::session::Caller;
use crate::wire::headers::X_REQUEST_ID;

const OUTCOMES: [&str; 3] = ["ok", "unavailable", "timed_out"];

/// Asks the sources and composes their answers.
pub struct BootstrapComposer {
    config: config::Bootstrap,
    sources: SectionSources,
    identity_headers: Box<dyn Fn() -> IdentityHeaders + Send + Sync>,
    metrics: Arc<Metrics>,
}

/// The answer.
#[derive(Debug)]
pub struct Composed {
    /// The body for the caller.
    pub body: Body,
    /// The optional sections that failed, in the order of the answer.
    pub degraded: Vec<&'static str>,
}

/// The body of the answer: exactly these keys.
#[derive(Debug, Serialize)]
pub struct Body {
    profile: Option<Document>,
    subscription: Option<Document>,
    secrets: Option<Document>,
}

/// A required section failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// Its source cannot be asked, or returned no document.
    #[error("Bootstrap source unavailable: {0}")]
    Unavailable(&'static str),
    /// Its source took too long.
    #[error("Bootstrap source timed out: {0}")]
    TimedOut(&'static str),
}

impl BootstrapComposer {
    /// Returns the composer; `identity_headers` returns which headers the guard sends upstream under
    /// the configuration in force.
    pub fn new(
        config: &Config,
        directory: Arc<Directory>,
        identity_headers: Box<dyn Fn() -> IdentityHeaders + Send + Sync>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ApplicationError> {
        for (name, _) in config.bootstrap.sections() {
            for outcome in OUTCOMES {
                metrics.bootstrap_sections.with_label_values(&[name, outcome]);
            }
            metrics.bootstrap_section_duration.with_label_values(&[name]);
        }
        let sources = SectionSources::new(config, directory)?;
        Ok(Self { config: config.bootstrap.clone(), sources, identity_headers, metrics })
    }

    /// Returns whether callers of this kind get an answer (`bootstrap.allow_anonymous`).
    pub fn admits(&self, kind: PrincipalKind) -> bool {
        kind != PrincipalKind::Anonymous || self.config.allow_anonymous
    }

    /// Returns the sections for `caller`; sources on the application see the exchange's `request_id`.
    pub async fn compose(
        &self,
        caller: Caller<'_>,
        request_id: Option<HeaderValue>,
    ) -> Result<Composed, BootstrapError> {
        let call = SourceCall {
            principal: caller.principal.clone(),
            roles: caller.roles.iter().map(ToString::to_string).collect(),
            headers: headers(caller, (self.identity_headers)(), request_id),
        };
        let [profile, subscription, secrets] = self.config.sections();
        let (profile, subscription, secrets) = tokio::join!(
            self.section(profile, &call),
            self.section(subscription, &call),
            self.section(secrets, &call),
        );
        let mut degraded = Vec::new();
        let mut kept = |(name, found): (&'static str, Result<Option<Document>, BootstrapError>)| {
            found.inspect(|found| degraded.extend(found.is_none().then_some(name)))
        };
        let (mut profile, mut subscription) = (kept(profile)?, kept(subscription)?);
        let mut secrets = kept(secrets)?;
        shape::agree_on_credits(profile.as_mut(), subscription.as_mut());
        if let Some(secrets) = &mut secrets {
            secrets::derive_presence(secrets);
        }
        shape::fill_in(profile.as_mut(), &self.config.profile.defaults);
        shape::fill_in(subscription.as_mut(), &self.config.subscription.defaults);
        shape::fill_in(secrets.as_mut(), &self.config.secrets.defaults);
        shape::mirror_credits(profile.as_ref(), subscription.as_mut());
        if let Some(secrets) = &mut secrets {
            secrets::derive_presence(secrets);
            secrets::mask(secrets);
        }
        if let Some(profile) = profile.as_mut().filter(|_| call.principal.kind == PrincipalKind::Anonymous) {
            profile.insert("name".to_owned(), Value::Null);
            profile.insert("email".to_owned(), Value::Null);
        }
        Ok(Composed { body: Body { profile, subscription, secrets }, degraded })
    }

    // Returns no document for an optional section that failed.
    async fn section(
        &self,
        (name, section): (&'static str, &config::bootstrap::Section),
        call: &SourceCall,
    ) -> (&'static str, Result<Option<Document>, BootstrapError>) {
        let timer = self.metrics.bootstrap_section_duration.with_label_values(&[name]).start_timer();
        let found = self.sources.read(name, section, call).await;
        timer.observe_duration();
        let outcome = match &found {
            Ok(_) => "ok",
            Err(SectionError::TimedOut) => "timed_out",
            Err(_) => "unavailable",
        };
        self.metrics.bootstrap_sections.with_label_values(&[name, outcome]).inc();
        let answer = match found {
            Ok(document) => Ok(Some(document)),
            Err(failure) => {
                tracing::warn!(section = name, error = %failure.for_log(), "A source of bootstrap failed");
                match failure {
                    _ if !section.required => Ok(None),
                    SectionError::TimedOut => Err(BootstrapError::TimedOut(name)),
                    _ => Err(BootstrapError::Unavailable(name)),
                }
            }
        };
        (name, answer)
    }
}

fn headers(caller: Caller<'_>, which: IdentityHeaders, request_id: Option<HeaderValue>) -> HeaderMap {
    caller.headers(which).chain(request_id.map(|id| (X_REQUEST_ID, id))).collect()
}
