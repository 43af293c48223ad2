//! Composes the answer of `GET /auth/bootstrap` (contracts §5.5, §12.2).
//!
//! Three sections from three sources, asked at the same time, each for no longer than its own
//! timeout. Nothing is remembered between two calls: the application may act on being asked. No
//! secret leaves unmasked, whatever its source says, and no source's words reach a log.

mod application;
mod creation;
mod secrets;
mod shape;
mod source;

use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::{Map, Value};

pub use self::application::ApplicationError;
use self::source::{Failure, Sources};
use crate::config::{self, Config, IdentityHeaders};
use crate::directory::Directory;
use crate::metrics::Metrics;
use crate::model::{Principal, PrincipalKind};
use crate::session::Caller;

/// A section as its source gave it.
type Document = Map<String, Value>;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const OUTCOMES: [&str; 3] = ["ok", "unavailable", "timed_out"];

/// Asks the sources and puts their answers together.
pub struct Bootstrap {
    config: config::Bootstrap,
    sources: Sources,
    identity_headers: Box<dyn Fn() -> IdentityHeaders + Send + Sync>,
    metrics: Arc<Metrics>,
}

/// The answer.
#[derive(Debug)]
pub struct Composed {
    /// What the caller gets.
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
    /// Its source cannot be asked, or gave no document.
    #[error("Bootstrap source unavailable: {0}")]
    Unavailable(&'static str),
    /// Its source took too long.
    #[error("Bootstrap source timed out: {0}")]
    TimedOut(&'static str),
}

/// On whose behalf the sources are asked.
#[derive(Clone)]
struct Call {
    principal: Principal,
    roles: Vec<String>,
    /// What the application is told of the caller, and what the exchange is called.
    headers: HeaderMap,
}

impl Bootstrap {
    /// Returns the composer; `identity_headers` says what the guard sends upstream at the moment.
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
        let sources = Sources::new(config, directory)?;
        Ok(Self { config: config.bootstrap.clone(), sources, identity_headers, metrics })
    }

    /// Returns whether callers of this kind may ask.
    pub fn admits(&self, kind: PrincipalKind) -> bool {
        kind != PrincipalKind::Anonymous || self.config.allow_anonymous
    }

    /// Returns the sections for `caller`, whose exchange is called `request_id`.
    pub async fn compose(
        &self,
        caller: Caller<'_>,
        request_id: Option<HeaderValue>,
    ) -> Result<Composed, BootstrapError> {
        let call = Call {
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

    // `None`: failed, and there is an answer without it.
    async fn section(
        &self,
        (name, section): (&'static str, &config::bootstrap::Section),
        call: &Call,
    ) -> (&'static str, Result<Option<Document>, BootstrapError>) {
        let timer = self.metrics.bootstrap_section_duration.with_label_values(&[name]).start_timer();
        let found = self.sources.read(name, section, call).await;
        timer.observe_duration();
        let outcome = match &found {
            Ok(_) => "ok",
            Err(Failure::TimedOut) => "timed_out",
            Err(_) => "unavailable",
        };
        self.metrics.bootstrap_sections.with_label_values(&[name, outcome]).inc();
        let answer = match found {
            Ok(document) => Ok(Some(document)),
            Err(failure) => {
                tracing::warn!(section = name, error = %failure.told(), "A source of bootstrap failed");
                match failure {
                    _ if !section.required => Ok(None),
                    Failure::TimedOut => Err(BootstrapError::TimedOut(name)),
                    _ => Err(BootstrapError::Unavailable(name)),
                }
            }
        };
        (name, answer)
    }
}

impl Call {
    /// Returns a name for the making of a caller's document in `section`: the same every time.
    fn key(&self, section: &str) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [section, self.principal.tenant.as_str(), self.principal.id.as_str()] {
            context.update(part.as_bytes());
            context.update(&[0]);
        }
        URL_SAFE_NO_PAD.encode(context.finish())
    }
}

// A role or an actor that no header can carry is left out, here as in no other place: the guard
// answers 500 for it, and a profile without one is no less a profile.
fn headers(caller: Caller<'_>, which: IdentityHeaders, request_id: Option<HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, text) in caller.headers(which) {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    }
    headers.extend(request_id.map(|id| (X_REQUEST_ID, id)));
    headers
}
