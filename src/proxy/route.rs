//! What to do with a request, decided once from its method and its normalised path.
//!
//! The upstream receives the very string that the rules were matched against. A path that two
//! parsers could read differently (dot segments, empty segments, encoded separators, backslashes)
//! is refused with 400 rather than guessed at: GHSA-p224-6x5r-fjpm, CVE-2026-42274,
//! CVE-2021-31920 and their kin all began with a policy that saw another path than the application.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use http::Method;

use super::tally::RouteTally;
use crate::config::{Auth, RouteRule};
use crate::metrics::Metrics;

/// What no application has: Doorward's own, beside what the contracts name.
const RESERVED: &str = "/_doorward";

/// What to do with a request.
#[derive(Clone, Copy, Debug)]
pub enum Route<'a> {
    /// Answered here, by the surface's own handlers.
    Terminate(Surface),
    /// Forwarded if the guard permits.
    Guard(&'a Arc<Rule>),
    /// Forwarded without asking anybody, and without an identity.
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
    Verify,
    /// Whatever else is below `/_doorward`: nothing is there, and nothing goes further.
    Reserved,
}

/// A compiled route rule.
#[derive(Debug)]
pub struct Rule {
    /// The rule's name in logs and metrics.
    pub id: String,
    /// What the guard asks for.
    pub policy: Policy,
    methods: Vec<Method>,
    pattern: Vec<Segment>,
    tally: OnceLock<RouteTally>,
}

/// What the guard asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether a session is needed.
    pub auth: Auth,
    /// Whether a guest's session is enough.
    pub allow_anonymous: bool,
    /// Roles of which the principal must have one; empty for none.
    pub require_any_role: Vec<String>,
    /// Whether such an exchange begins a new lifetime of its session.
    pub stream: bool,
    /// Whether the application may see the credentials.
    pub keep_credentials: bool,
}

/// All rules, in order, and the rule for paths that none of them names.
#[derive(Clone, Debug)]
pub struct RouteTable {
    rules: Vec<Arc<Rule>>,
    unmatched: Arc<Rule>,
}

/// Why a request target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ambiguous request path")]
pub struct AmbiguousPath;

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
            Ok(Self { rules: compiled, unmatched: Arc::new(Rule::unmatched()) })
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
        if question(path).is_some() {
            return Route::Terminate(Surface::Verify);
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

    /// Returns the rule for a request that another proxy asks about, from its method and normalised path.
    ///
    /// What Doorward answers itself is none of that proxy's application's: no rule opens it.
    pub fn rule_for(&self, method: &Method, path: &str) -> &Arc<Rule> {
        match self.classify(method, path) {
            Route::Terminate(_) => &self.unmatched,
            Route::Guard(rule) | Route::Open(rule) => rule,
        }
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
            policy: Policy {
                auth: rule.auth,
                allow_anonymous: rule.allow_anonymous,
                require_any_role: rule.require_any_role.clone(),
                stream: rule.stream,
                keep_credentials: rule.keep_credentials,
            },
            methods,
            pattern: parse_pattern(&rule.path)?,
            tally: OnceLock::new(),
        })
    }

    // Deny by default: what no rule opens needs a session.
    fn unmatched() -> Self {
        Self {
            id: "unmatched".to_owned(),
            policy: Policy {
                auth: Auth::Required,
                allow_anonymous: true,
                require_any_role: Vec::new(),
                stream: false,
                keep_credentials: false,
            },
            methods: Vec::new(),
            pattern: vec![Segment::Rest],
            tally: OnceLock::new(),
        }
    }

    /// Returns where the exchanges of this route are counted.
    pub(super) fn tally(&self, metrics: &Metrics) -> &RouteTally {
        self.tally.get_or_init(|| RouteTally::new(&self.id, metrics))
    }

    fn matches(&self, method: &Method, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.contains(method)) && matches_path(&self.pattern, path)
    }
}

/// Returns what follows the path at which other proxies ask: nothing, or a slash and more; `None`
/// for other paths.
pub(super) fn question(path: &str) -> Option<&str> {
    below(below(path, RESERVED)?, "/verify")
}

/// Returns what follows `prefix` in a path: nothing, or a slash and more; `None` for other paths.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Returns the one spelling of a path that rules and upstream both see.
///
/// Escapes of unreserved characters are decoded and the others get upper-case digits (RFC 3986
/// §6.2.2); whatever could still be read in two ways is refused.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, AmbiguousPath> {
    let normal = if path.contains('%') { Cow::Owned(decode_unreserved(path)?) } else { Cow::Borrowed(path) };
    let rest = normal.strip_prefix('/').ok_or(AmbiguousPath)?;
    if !normal.bytes().all(is_path_byte) || is_escaped_twice(&normal) {
        return Err(AmbiguousPath);
    }
    // A trailing slash leaves one empty segment at the end, which is fine; any other is not.
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        let empty_inside = segment.is_empty() && segments.peek().is_some();
        if empty_inside || is_dot_segment(segment) {
            return Err(AmbiguousPath);
        }
    }
    Ok(normal)
}

// To an application that decodes twice, an escaped percent sign before two digits is an escape that
// no rule was matched against. Any other `%25` is only a percent sign.
fn is_escaped_twice(normal: &str) -> bool {
    let begins_with_digits = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    normal.contains('%') && normal.split("%25").skip(1).any(begins_with_digits)
}

// `..;x` is a dot segment to Java servers, which drop path parameters before resolving; behind a
// proxy that decodes for them `..%3Bx` is one too.
fn is_dot_segment(segment: &str) -> bool {
    let name = || segment.split(';').next().and_then(|name| name.split("%3B").next());
    segment.starts_with('.') && matches!(name(), Some("." | ".."))
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'#' | b'?')
}

fn decode_unreserved(path: &str) -> Result<String, AmbiguousPath> {
    let mut normal = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        normal.push_str(before);
        let (digits, after) = after.split_at_checked(2).ok_or(AmbiguousPath)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(AmbiguousPath);
        }
        match u8::from_str_radix(digits, 16).map_err(|_| AmbiguousPath)? {
            b'/' | b'\\' | 0..=0x1F | 0x7F => return Err(AmbiguousPath),
            byte @ (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~') => {
                normal.push(char::from(byte));
            }
            _ => {
                normal.push('%');
                normal.push_str(&digits.to_ascii_uppercase());
            }
        }
        rest = after;
    }
    normal.push_str(rest);
    Ok(normal)
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
        let environment = [("DOORWARD__ROUTES".to_owned(), rules.to_owned())].into();
        let config = crate::config::Config::load(&[], &environment).unwrap().config;
        RouteTable::new(&config.routes).unwrap()
    }

    #[test]
    fn ordinary_paths_are_left_as_they_are() {
        for path in
            ["/", "/a", "/a/", "/a/b.c/..d/d..", "/a;v=1/b", "/@:!$&'()*+,=~-_", "/a%20b", "/100%25", "/%25%25/%25of"]
        {
            assert_eq!(normalise(path).as_deref(), Ok(path), "{path}");
        }
    }

    #[test]
    fn escapes_have_one_spelling() {
        for (path, normal) in [
            ("/%61dmin", "/admin"),
            ("/%7Euser", "/~user"),
            ("/a%2db", "/a-b"),
            ("/%c3%a9", "/%C3%A9"),
            ("/a%3bb", "/a%3Bb"),
        ] {
            assert_eq!(normalise(path).as_deref(), Ok(normal), "{path}");
        }
    }

    #[test]
    fn paths_that_two_parsers_read_differently_are_refused() {
        for path in [
            "",
            "a",
            "*",
            "//",
            "//admin",
            "/a//b",
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/a/..",
            "/public/%2e%2e/admin",
            "/public/%2E%2e/admin",
            "/public/.%2e/admin",
            "/public/..;/admin",
            "/public/..;x=1/admin",
            "/public/%2e%2e;/x",
            "/public/..%3b/admin",
            "/%252e%252e",
            "/%25%32e",
            "/%252561dmin",
            "/a%252fb",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a%5Cb",
            "/a\\b",
            "/a%00",
            "/a%0d%0a",
            "/a%7f",
            "/a#b",
            "/a b",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%+1",
            "/é",
            "http://host/a",
        ] {
            assert_eq!(normalise(path), Err(AmbiguousPath), "{path}");
        }
    }

    #[test]
    fn normalising_twice_changes_nothing() {
        for path in ["/%61%2D%7e", "/%c3%a9/%25", "/x/%3B"] {
            let once = normalise(path).unwrap().into_owned();
            assert_eq!(normalise(&once).as_deref(), Ok(once.as_str()));
        }
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
