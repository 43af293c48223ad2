//! What to do with a request, decided once from its method and its normalised path.
//!
//! The path is the one that [`normalise`] leaves, and the very string that the application receives.

use std::sync::Arc;

use http::Method;

use super::path::{below, normalise};
use super::policy::RoutePolicy;
use crate::config::{Auth, RouteRule};

/// What no application has: Doorward's own, beside what the contracts name.
const RESERVED: &str = "/_doorward";
/// Where other proxies ask for decisions; what follows may be the path of the request they ask about.
pub(super) const FORWARD_AUTH: &str = "/_doorward/verify";

/// What to do with a request.
#[derive(Clone, Copy, Debug)]
pub enum Route<'a> {
    /// Answered here, by the surface's own handlers.
    Terminate(Surface),
    /// Forwarded if the guard permits.
    Guard(&'a Arc<Rule>),
    /// Forwarded without asking the guard, and without an identity.
    Open(&'a Arc<Rule>),
}

/// A family of endpoints that Doorward answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// `/auth/*`: tokens for proofs (contracts §5).
    SessionExchange,
    /// `/webhooks/clerk`: what the provider tells of users and logins (contracts §10).
    Webhooks,
    /// `/_doorward/verify`: what other proxies ask about requests of theirs.
    ForwardAuth,
    /// All else below `/_doorward`: nothing is there, and nothing goes further.
    Reserved,
}

/// A compiled route rule.
#[derive(Debug)]
pub struct Rule {
    /// The rule's name in logs and metrics.
    pub id: String,
    /// What the guard asks for.
    pub policy: RoutePolicy,
    methods: Vec<Method>,
    pattern: Vec<Segment>,
    position: usize,
}

/// All rules, in order, and the rule for paths that none of them names.
#[derive(Clone, Debug)]
pub struct RouteTable {
    rules: Vec<Arc<Rule>>,
    unmatched: Arc<Rule>,
}

/// Why a rule cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// The path is not a normalised path pattern.
    #[error("path {0:?} is not a normalised path; `*` stands for one segment, a last `**` for any rest")]
    Path(String),
    /// The method is not a method.
    #[error("method {0:?} is not an upper-case HTTP method")]
    Method(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Any,
    Rest,
}

impl Route<'_> {
    /// Returns whether the request is a forward-auth check.
    pub fn is_check(&self) -> bool {
        matches!(self, Self::Terminate(Surface::ForwardAuth))
    }
}

impl RouteTable {
    /// Compiles rules; all that are wrong are named.
    pub fn new(rules: &[RouteRule]) -> Result<Self, Vec<InvalidRule>> {
        let mut compiled = Vec::new();
        let mut problems = Vec::new();
        for (position, rule) in rules.iter().enumerate() {
            match Rule::compile(rule, position) {
                Ok(rule) => compiled.push(Arc::new(rule)),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            Ok(Self { unmatched: Arc::new(Rule::unmatched(compiled.len())), rules: compiled })
        } else {
            Err(problems)
        }
    }

    /// Returns what to do with a request, from its method and normalised path.
    pub fn classify(&self, method: &Method, path: &str) -> Route<'_> {
        if path == "/auth" || path.starts_with("/auth/") {
            return Route::Terminate(Surface::SessionExchange);
        }
        if path == "/webhooks/clerk" {
            return Route::Terminate(Surface::Webhooks);
        }
        if is_check(path) {
            return Route::Terminate(Surface::ForwardAuth);
        }
        if below(path, RESERVED).is_some() {
            return Route::Terminate(Surface::Reserved);
        }
        let rule = self.rules.iter().find(|rule| rule.matches(method, path)).unwrap_or(&self.unmatched);
        match rule.policy.auth {
            Auth::None => Route::Open(rule),
            Auth::Optional | Auth::Required => Route::Guard(rule),
        }
    }

    /// Returns the rule for paths that no other rule names: a session is needed.
    pub fn unmatched(&self) -> &Arc<Rule> {
        &self.unmatched
    }

    /// Returns every rule's id, the one for unmatched paths last.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().chain(std::iter::once(&self.unmatched)).map(|rule| rule.id.as_str())
    }
}

impl Rule {
    fn compile(rule: &RouteRule, position: usize) -> Result<Self, InvalidRule> {
        let methods = rule.methods.iter().map(|name| parse_method(name)).collect::<Result<_, _>>()?;
        Ok(Self {
            id: rule.id.clone().unwrap_or_else(|| format!("route-{position}")),
            policy: RoutePolicy {
                auth: rule.auth,
                allow_anonymous: rule.allow_anonymous,
                require_any_role: rule.require_any_role.clone(),
                stream: rule.stream,
                keep_credentials: rule.keep_credentials,
            },
            methods,
            pattern: parse_pattern(&rule.path)?,
            position,
        })
    }

    // Deny by default: what no rule opens needs a session.
    fn unmatched(position: usize) -> Self {
        Self {
            id: "unmatched".to_owned(),
            policy: RoutePolicy {
                auth: Auth::Required,
                allow_anonymous: true,
                require_any_role: Vec::new(),
                stream: false,
                keep_credentials: false,
            },
            methods: Vec::new(),
            pattern: vec![Segment::Rest],
            position,
        }
    }

    /// Returns the rule's place in its table, from 0; the one for unmatched paths is the last.
    pub fn position(&self) -> usize {
        self.position
    }

    fn matches(&self, method: &Method, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.contains(method)) && matches_path(&self.pattern, path)
    }
}

/// Returns whether a path is that of a forward-auth check, normalised or not.
pub(super) fn is_check(path: &str) -> bool {
    below(path, FORWARD_AUTH).is_some()
}

fn parse_method(name: &str) -> Result<Method, InvalidRule> {
    let invalid = || InvalidRule::Method(name.to_owned());
    let upper = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    if upper { Method::from_bytes(name.as_bytes()).map_err(|_| invalid()) } else { Err(invalid()) }
}

fn parse_pattern(path: &str) -> Result<Vec<Segment>, InvalidRule> {
    let invalid = || InvalidRule::Path(path.to_owned());
    let normal = normalise(path).map_err(|_| invalid())?;
    if normal != path {
        return Err(invalid());
    }
    let names: Vec<&str> = path.split('/').skip(1).collect();
    let last = names.len() - 1;
    let segment = |(position, name): (usize, &&str)| match *name {
        "**" if position == last => Ok(Segment::Rest),
        "*" => Ok(Segment::Any),
        literal if literal.contains('*') => Err(invalid()),
        literal => Ok(Segment::Literal(literal.to_owned())),
    };
    names.iter().enumerate().map(segment).collect()
}

// `/a/**` covers `/a` too: a rule for what lies under a path should not leave out its head.
fn matches_path(pattern: &[Segment], path: &str) -> bool {
    let mut names = path.split('/').skip(1);
    for segment in pattern {
        if *segment == Segment::Rest {
            return true;
        }
        let Some(name) = names.next() else { return false };
        match segment {
            Segment::Literal(literal) if literal != name => return false,
            Segment::Any if name.is_empty() => return false,
            _ => {}
        }
    }
    names.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rules: &str) -> RouteTable {
        let rules: Vec<RouteRule> = serde_saphyr::from_str(rules).unwrap();
        RouteTable::new(&rules).unwrap()
    }

    #[test]
    fn the_first_matching_rule_decides_and_none_means_a_session() {
        let table = table(
            "[{path: /healthz, auth: none}, {path: '/public/**', auth: optional}, {path: '/users/*/avatar', methods: [GET], auth: none}]",
        );
        let decide = |method: Method, path: &str| match table.classify(&method, path) {
            Route::Open(rule) => format!("open {}", rule.id),
            Route::Guard(rule) => format!("{:?} {}", rule.policy.auth, rule.id),
            Route::Terminate(surface) => format!("{surface:?}"),
        };
        assert_eq!(decide(Method::GET, "/healthz"), "open route-0");
        assert_eq!(decide(Method::GET, "/healthz/"), "Required unmatched");
        assert_eq!(decide(Method::GET, "/public"), "Optional route-1");
        assert_eq!(decide(Method::GET, "/public/a/b"), "Optional route-1");
        assert_eq!(decide(Method::GET, "/publicity"), "Required unmatched");
        assert_eq!(decide(Method::GET, "/users/7/avatar"), "open route-2");
        assert_eq!(decide(Method::POST, "/users/7/avatar"), "Required unmatched");
        assert_eq!(decide(Method::GET, "/users//avatar"), "Required unmatched");
        assert_eq!(decide(Method::GET, "/auth/session"), "SessionExchange");
        assert_eq!(decide(Method::GET, "/authors"), "Required unmatched");
        assert_eq!(decide(Method::POST, "/webhooks/clerk"), "Webhooks");
        assert_eq!(decide(Method::POST, "/webhooks/clerk/"), "Required unmatched");
        assert_eq!(decide(Method::POST, "/webhooks/other"), "Required unmatched");
    }

    #[test]
    fn rules_that_could_never_match_are_refused() {
        for path in ["public", "/a/../b", "/a**", "/**/b", "/a//b", "/%61"] {
            let rule = RouteRule {
                id: None,
                path: path.to_owned(),
                methods: Vec::new(),
                auth: Auth::None,
                allow_anonymous: true,
                require_any_role: Vec::new(),
                stream: false,
                keep_credentials: false,
            };
            assert_eq!(RouteTable::new(&[rule]).unwrap_err(), [InvalidRule::Path(path.to_owned())], "{path}");
        }
    }
}
