//! Decides about the request that another proxy asks about.

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::original::Original;
use crate::api::problem::{Problem, What};
use crate::config::{Auth, IdentityHeaders};
use crate::proxy::context::Context;
use crate::proxy::guard::{self, Permit, Rejection};
use crate::proxy::identity_headers;
use crate::session::{Caller, Refusal, Sessions};

/// Decides about `original` and takes the decision down; returns the identity headers of the answer.
pub(super) async fn decide(
    sessions: &Sessions,
    original: &Original,
    context: &mut Context,
) -> Result<HeaderMap, Problem> {
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
        identity_headers::identity_headers().into_iter().map(|name| (name, HeaderValue::from_static(""))).collect();
    let Some(session) = permit.session() else { return Ok(identity) };
    for (name, text) in Caller::from(&**session).headers(which) {
        let value = HeaderValue::from_str(&text).map_err(|error| Problem::from(What::Internal).because(error))?;
        identity.insert(name, value);
    }
    Ok(identity)
}
