//! Every problem in every dialect, as `snapshot.txt` shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use http::Method;

use super::*;
use crate::accounts::SignInError;
use crate::api::bearer::BearerError;
use crate::api::problem::{
    Awaited, Clash, Constraint, CredentialFault, Dependency, FieldFault, PasswordFault, Resource, TokenFault,
    WebhookFault, Why,
};
use crate::directory::DirectoryError;
use crate::identity::{IdentityError, Reason};
use crate::model::PrincipalKind;
use crate::session::Refusal;

const SNAPSHOT: &str = include_str!("snapshot.txt");
/// How many kinds of problem there are: what `kind` may answer.
const KINDS: usize = 21;

// A new problem does not compile without a number, and without a case its number is missed.
fn kind(what: &What) -> usize {
    match what {
        What::BadRequest => 0,
        What::MissingToken => 1,
        What::Expired => 2,
        What::InvalidToken(_) => 3,
        What::BadCredentials(_) => 4,
        What::Forbidden(_) => 5,
        What::NoRoute { .. } => 6,
        What::NotFound(_) => 7,
        What::MethodNotAllowed { .. } => 8,
        What::Conflict(_) => 9,
        What::TooLarge => 10,
        What::UnsupportedMediaType { .. } => 11,
        What::MalformedBody => 12,
        What::InvalidFields(_) => 13,
        What::WeakPassword(_) => 14,
        What::RefusedWebhook(_) => 15,
        What::RateLimited { .. } => 16,
        What::Internal => 17,
        What::BadGateway(_) => 18,
        What::TimedOut(_) => 19,
        What::Unavailable(_) => 20,
    }
}

fn field(name: &'static str, broken: Constraint, words: Option<&'static str>) -> FieldFault {
    FieldFault { name, broken, words }
}

fn tokens() -> Vec<What> {
    let faults = [
        TokenFault::Malformed,
        TokenFault::Proof(Reason::UnknownKey),
        TokenFault::UnknownSession,
        TokenFault::SessionRevoked,
        TokenFault::UserDeleted,
        TokenFault::AlreadyUsed,
        TokenFault::NotAJwt,
        TokenFault::NotASessionToken,
        TokenFault::NotAUser(PrincipalKind::Anonymous),
    ];
    faults.map(What::InvalidToken).into()
}

fn absences() -> Vec<What> {
    let resources = [
        Resource::Session("sess_x".to_owned()),
        Resource::Device("client_x".to_owned()),
        Resource::User("user_x".to_owned()),
        Resource::Contact,
        Resource::Template("hasura".to_owned()),
    ];
    let mut cases: Vec<What> = resources.map(What::NotFound).into();
    let no_route = |method| What::NoRoute { method, path: "/auth/\"x\"".to_owned() };
    cases.extend([no_route(Method::POST), no_route(Method::HEAD)]);
    cases.push(What::MethodNotAllowed { allow: HeaderValue::from_static("POST,DELETE") });
    cases
}

fn bodies() -> Vec<What> {
    let several = vec![
        field("email", Constraint::Required, Some("Email is required")),
        field("verified", Constraint::Type("boolean"), None),
        field("email_address", Constraint::Format("a valid email address"), None),
        field("limit", Constraint::Range("an integer between 1 and 500"), None),
    ];
    vec![
        What::TooLarge,
        What::UnsupportedMediaType { actual: Some("text/\"plain\"".to_owned()) },
        What::UnsupportedMediaType { actual: None },
        What::MalformedBody,
        What::field("device_id", Constraint::Required, Some("device_id required")),
        What::field("device_id", Constraint::Type("string"), None),
        What::field("device_id", Constraint::Range("1-200 characters"), None),
        What::InvalidFields(several),
        What::WeakPassword(PasswordFault::Classes),
        What::WeakPassword(PasswordFault::Guessable),
        What::RefusedWebhook(WebhookFault::Signature),
        What::RefusedWebhook(WebhookFault::Payload),
        What::Conflict(Clash::Device("8A6E\"0804".to_owned())),
        What::Conflict(Clash::Contact("email address")),
    ]
}

fn failures() -> Vec<What> {
    let (here, section) = (Awaited::Application, Awaited::Bootstrap("profile"));
    let mut cases = vec![What::RateLimited { retry_after: 7 }, What::Internal];
    cases.extend([here, section].map(What::BadGateway));
    cases.extend([here, section].map(What::TimedOut));
    cases.extend([Dependency::Keys, Dependency::Store, Dependency::Rebind].map(What::Unavailable));
    cases
}

fn every_case() -> Vec<What> {
    let mut cases = vec![What::BadRequest, What::MissingToken, What::Expired];
    cases.extend(tokens());
    cases.extend([CredentialFault::Mismatch, CredentialFault::Unverified].map(What::BadCredentials));
    let reasons = [
        Why::Permissions,
        Why::CrossOrigin,
        Why::License,
        Why::ForeignSessions,
        Why::ForeignSession,
        Why::ForeignPassword,
    ];
    cases.extend(reasons.map(What::Forbidden));
    cases.extend(absences());
    cases.extend(bodies());
    cases.extend(failures());
    cases
}

// The headers that differ from case to case; the common ones have a test of their own.
fn line(name: &str, response: &Response<Bytes>) -> String {
    let mut line = format!("  {name:<8} {}", response.status().as_u16());
    for header in [WWW_AUTHENTICATE, RETRY_AFTER, ALLOW] {
        if let Some(value) = response.headers().get(&header) {
            write!(line, " [{header}: {}]", value.to_str().unwrap()).unwrap();
        }
    }
    line + " " + std::str::from_utf8(response.body()).unwrap() + "\n"
}

#[test]
fn every_problem_has_a_pinned_answer_in_every_dialect() {
    let mut shown = String::new();
    for what in every_case() {
        writeln!(shown, "{what:?} ({})", what.label()).unwrap();
        let problem = Problem::from(what);
        for dialect in Dialect::ALL {
            shown += &line(dialect.as_str(), &dialect.render(&problem, RequestId::from(0xab)));
        }
        if matches!(problem.what, What::NoRoute { .. }) {
            shown += &line("both", &render_for_both(&problem, RequestId::from(0xab)));
        }
    }
    assert!(shown == SNAPSHOT, "not as in snapshot.txt:\n{shown}");
}

#[test]
fn no_problem_is_left_out() {
    let kinds: BTreeSet<usize> = every_case().iter().map(kind).collect();
    assert_eq!(kinds, (0..KINDS).collect());
}

#[test]
fn each_label_means_one_kind_of_problem() {
    let mut kinds: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for what in every_case() {
        kinds.entry(what.label()).or_default().insert(kind(&what));
    }
    let shared: Vec<&str> = kinds.iter().filter(|(_, kinds)| kinds.len() > 1).map(|(label, _)| *label).collect();
    assert_eq!(shared, ["unprocessable"]);
}

#[test]
fn the_status_is_that_of_the_rendered_answer() {
    for problem in every_case().into_iter().map(Problem::from) {
        for dialect in Dialect::ALL {
            let rendered = dialect.render(&problem, RequestId::from(0)).status();
            assert_eq!(dialect.status(&problem.what), rendered, "{dialect:?} {problem:?}");
        }
    }
}

#[test]
fn every_response_carries_the_common_headers() {
    for problem in every_case().into_iter().map(Problem::from) {
        for dialect in Dialect::ALL {
            let response = dialect.render(&problem, RequestId::from(0xab));
            let headers = response.headers();
            assert_eq!(headers[CONTENT_TYPE], "application/json", "{problem:?}");
            assert_eq!(headers[CACHE_CONTROL], "no-store", "{problem:?}");
            assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff", "{problem:?}");
            assert_eq!(headers[X_REQUEST_ID], "00000000000000ab", "{problem:?}");
            let unauthorized = response.status() == StatusCode::UNAUTHORIZED;
            assert_eq!(headers.contains_key(WWW_AUTHENTICATE), unauthorized, "{problem:?}");
            let trace = (dialect == Dialect::Clerk).then_some("000000000000000000000000000000ab");
            let sent = headers.get("x-clerk-trace-id").map(|value| value.to_str().unwrap());
            assert_eq!(sent, trace, "{dialect:?}");
        }
    }
}

#[test]
fn every_answer_has_its_dialects_keys_and_no_others() {
    for problem in every_case().into_iter().map(Problem::from) {
        let keys = |dialect: Dialect| {
            let body = dialect.render(&problem, RequestId::from(0)).into_body();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            body.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(keys(Dialect::Detail), "detail");
        assert_eq!(keys(Dialect::Envelope), "error success");
        assert_eq!(keys(Dialect::Nest), "error message statusCode");
        assert_eq!(keys(Dialect::Clerk), "clerk_trace_id errors");
    }
}

#[test]
fn every_refusal_of_the_services_has_its_contracted_text() {
    let detail = |problem: Problem| {
        let response = Dialect::Detail.render(&problem, RequestId::from(0xab));
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        (response.status().as_u16(), body["detail"].as_str().unwrap().to_owned())
    };
    let text = str::to_owned;
    assert_eq!(detail(BearerError::Missing.into()), (401, text("Missing Bearer token")));
    assert_eq!(detail(BearerError::Invalid.into()), (401, text("Invalid token: malformed")));
    assert_eq!(detail(IdentityError::Expired.into()), (401, text("Token expired")));
    let unknown_key = IdentityError::Invalid(Reason::UnknownKey);
    assert_eq!(detail(unknown_key.into()), (401, text("Invalid token: unknown key")));
    assert_eq!(detail(IdentityError::KeysNotLoaded.into()), (503, text("JWKS not loaded")));
    assert_eq!(detail(Refusal::Malformed.into()), (401, text("Invalid token: malformed")));
    assert_eq!(detail(Refusal::Expired.into()), (401, text("Token expired")));
    assert_eq!(detail(Refusal::Revoked.into()), (401, text("Invalid token: session revoked")));
    assert_eq!(detail(Refusal::Unknown.into()), (401, text("Invalid token: unknown session")));
    assert_eq!(detail(Refusal::Unavailable.into()), (503, text("Session store unavailable")));
    assert_eq!(detail(SignInError::AlreadyUsed.into()), (401, text("Invalid token: already used")));
    assert_eq!(detail(SignInError::LoginEnded.into()), (401, text("Invalid token: session revoked")));
    assert_eq!(detail(SignInError::UserDeleted.into()), (401, text("Invalid token: user deleted")));
    assert_eq!(detail(SignInError::StoreUnavailable.into()), (503, text("Session store unavailable")));
    let directory = SignInError::Directory(DirectoryError::TimedOut(std::time::Duration::ZERO));
    assert_eq!(detail(directory.into()), (503, text("Session store unavailable")));
}

#[test]
fn the_cause_stays_out_of_the_response() {
    let problem = Problem::from(What::Internal).because(std::io::Error::other("disk on fire"));
    assert_eq!(problem.source.as_ref().unwrap().to_string(), "disk on fire");
    for dialect in Dialect::ALL {
        let body = dialect.render(&problem, RequestId::from(0)).into_body();
        assert!(!String::from_utf8_lossy(&body).contains("disk"), "{dialect:?}");
    }
}
