//! What to do with a request, decided once from its method and its normalised path.
//!
//! The path is the one that [`normalise`] leaves, and the very string that the application receives.

use std::sync::Arc;

use http::Method;

use super::path::{below, normalise};
use super::policy::RoutePolicy;
use crate::api::mount;
use crate::config::{Auth, RouteRule};
use crate::model::Dialect;
use crate::model::surface::{FORWARD_AUTH, SurfaceId, Surfaces};

/// What to do with a request.
#[derive(Clone, Copy, Debug)]
pub enum Route<'a> {
    /// A forward-auth check: the proxy itself answers whether another request may pass.
    Check,
    /// Answered here, by the surface's own handlers.
    Terminate(SurfaceId),
    /// Forwarded if the guard permits.
    Guard(&'a Arc<Rule>),
    /// Forwarded without asking the guard, and without an identity.
    Open(&'a Arc<Rule>),
}

/// A compiled route rule.
#[derive(Debug)]
pub struct Rule {
    /// The rule's name in logs and metrics.
    pub id: String,
    /// What the guard asks for.
    pub policy: RoutePolicy,
    /// How a refusal is told.
    pub dialect: Dialect,
    methods: Vec<Method>,
    pattern: Vec<Segment>,
    position: usize,
}

/// All rules, in order, and the rule for paths that none of them names.
#[derive(Clone, Debug)]
pub struct RouteTable {
    surfaces: Surfaces,
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
        matches!(self, Self::Check)
    }

    /// Returns how a refusal of such a request is told.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Check => mount::row(SurfaceId::ForwardAuth).dialect,
            Self::Terminate(surface) => mount::row(*surface).dialect,
            Self::Guard(rule) | Self::Open(rule) => rule.dialect,
        }
    }
}

impl RouteTable {
    /// Compiles rules for the paths that no surface owns; all that are wrong are named.
    pub fn new(rules: &[RouteRule], surfaces: Surfaces) -> Result<Self, Vec<InvalidRule>> {
        let mut compiled = Vec::new();
        let mut problems = Vec::new();
        for (position, rule) in rules.iter().enumerate() {
            match Rule::compile(rule, position) {
                Ok(rule) => compiled.push(Arc::new(rule)),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() {
            Ok(Self { surfaces, unmatched: Arc::new(Rule::unmatched(compiled.len())), rules: compiled })
        } else {
            Err(problems)
        }
    }

    /// Returns what to do with a request, from its method and normalised path.
    pub fn classify(&self, method: &Method, path: &str) -> Route<'_> {
        if let Some(mount) = self.surfaces.owner(path) {
            return if is_check(path) { Route::Check } else { Route::Terminate(mount.surface) };
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
            dialect: rule.errors,
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
            dialect: Dialect::default(),
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Config;

    fn surfaces() -> Surfaces {
        Config::load(&[], &BTreeMap::new()).unwrap().config.surfaces.mounts()
    }

    fn table(rules: &str) -> RouteTable {
        let environment = [("DOORWARD__ROUTES".to_owned(), rules.to_owned())].into();
        let config = crate::config::Config::load(&[], &environment).unwrap().config;
        RouteTable::new(&config.routes, config.surfaces.mounts()).unwrap()
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
            Route::Check => "check".to_owned(),
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
                errors: Dialect::Detail,
            };
            assert_eq!(
                RouteTable::new(&[rule], surfaces()).unwrap_err(),
                [InvalidRule::Path(path.to_owned())],
                "{path}"
            );
        }
    }
}
