//! Answers other proxies whether a request of theirs may pass, without forwarding it.
//!
//! The rules and the guard are those of the requests that are forwarded. What differs is that the
//! request is only told of: a telling that could be read in two ways is refused, and nothing in it
//! is believed unless a trusted proxy tells it. An answer names every identity header that Doorward
//! may ever write, empty when there is nothing to say: one that is left out would let a header that
//! the client made up through to the application.

mod endpoint;
mod grpc;
mod original;

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

pub use self::grpc::{Asker, Checker, Doorkeeper};
use self::original::Original;
use super::exchange::Context;
use super::guard::{self, Permit, Rejection};
use super::headers;
use crate::api::problem::{Problem, What};
use crate::config::{Auth, IdentityHeaders};
use crate::session::{Caller, Refusal, Sessions};

/// The label of exchanges that ask about other ones.
pub(super) const VERIFY: &str = "verify";

/// Decides about `original` and takes the decision down; returns the identity headers of the answer.
async fn decide(sessions: &Sessions, original: &Original, context: &mut Context) -> Result<HeaderMap, Problem> {
    let settings = context.settings.clone();
    let rule = settings.routes.rule_for(original.method(), original.path());
    context.speak(rule.dialect);
    let permit = if rule.policy.auth == Auth::None {
        Permit::open()
    } else {
        let started = Instant::now();
        let asked = guard::authorize_and_extend(sessions, &rule.policy, original.head(), &settings.cookie);
        let (decided, calls) = asked.await;
        context.trace_store(calls);
        let decided = decided.and_then(|permit| unless_revoked(sessions, permit));
        context.decided(&decided, started);
        match decided {
            Ok(permit) => permit,
            Err(rejection) => {
                context.deny(rule, rejection);
                return Err(rejection.problem());
            }
        }
    };
    let identity = identity(&permit, settings.identity_headers)?;
    context.allow(rule, permit);
    Ok(identity)
}

// There is no exchange to cut afterwards: what ended by now must be noticed now.
fn unless_revoked(sessions: &Sessions, permit: Permit) -> Result<Permit, Rejection> {
    match permit.session() {
        Some(session) if sessions.is_revoked(session) => Err(Rejection::Refused(Refusal::Revoked)),
        _ => Ok(permit),
    }
}

/// Returns every identity header, once, with what an answer says of the caller.
fn identity(permit: &Permit, which: IdentityHeaders) -> Result<HeaderMap, Problem> {
    let mut identity: HeaderMap =
        headers::identity_headers().into_iter().map(|name| (name, HeaderValue::from_static(""))).collect();
    let Some(session) = permit.session() else { return Ok(identity) };
    for (name, text) in Caller::from(&**session).headers(which) {
        let value = HeaderValue::from_str(&text).map_err(|error| Problem::from(What::Internal).because(error))?;
        identity.insert(name, value);
    }
    Ok(identity)
}
