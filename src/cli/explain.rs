//! `doorward explain METHOD PATH`: which rule a request meets, and what it then needs.
//!
//! Uses the proxy's own route table, so that both give the same answer.

use clap::Args;
use http::Method;

use super::{ConfigFiles, Environment, FAILURE, SUCCESS, USAGE, print};
use crate::config::{Auth, Config};
use crate::model::surface::SurfaceId;
use crate::proxy::path::normalise;
use crate::proxy::policy::RoutePolicy;
use crate::proxy::route::{Route, RouteTable, Rule};

/// Which request to explain.
#[derive(Args, Debug)]
pub struct Request {
    /// The method, e.g. GET.
    method: String,
    /// The path as a client sends it, e.g. /reports/7; a query is ignored, as rules do.
    path: String,
    #[command(flatten)]
    files: ConfigFiles,
}

/// Prints what would happen to a request; returns the exit code, 1 if it is refused for its path alone.
pub fn run(request: &Request, environment: &mut Environment<'_>) -> u8 {
    let loaded = match environment.read(&request.files) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let Ok(method) = Method::from_bytes(request.method.as_bytes()) else {
        environment.fail(&"the first argument is not a method; write e.g. `doorward explain GET /reports`");
        return USAGE;
    };
    let table = match RouteTable::new(&loaded.config.routes, loaded.config.surfaces.mounts()) {
        Ok(table) => table,
        Err(problems) => {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            environment.fail(&format_args!("routes: {}", problems.join("; ")));
            return USAGE;
        }
    };
    let path = request.path.split_once('?').map_or(request.path.as_str(), |(path, _)| path);
    let (code, lines) = match normalise(path) {
        Ok(path) => (SUCCESS, explained(&table, &loaded.config, &method, &path)),
        Err(error) => (FAILURE, vec![format!("answered 400: {error}; two servers could read it differently")]),
    };
    print(environment.stdout, &format!("{method} {path}\n"));
    for line in lines {
        print(environment.stdout, &format!("  {line}\n"));
    }
    code
}

/// Returns what would happen to a request, a line each.
pub(crate) fn explained(table: &RouteTable, config: &Config, method: &Method, path: &str) -> Vec<String> {
    let seen = format!("seen as {path}, by the rules and by the application alike");
    let mut lines = vec![seen];
    if config.upstream.url.is_none() {
        lines.push("upstream.url is null: answered 404; forwarded only by another proxy that asks".to_owned());
    }
    match table.classify(method, path) {
        Route::Terminate(SurfaceId::ForwardAuth) => lines.push("answered 404: nothing is there".to_owned()),
        Route::Check if !config.forward_auth.enabled => {
            lines.push("answered 404: forward_auth.enabled is false".to_owned());
        }
        Route::Check | Route::Terminate(_) => {
            lines.push("answered by Doorward itself; rules do not apply".to_owned());
            if config.forward_auth.is_on() {
                lines.push("asked about by another proxy: needs a session; no rule can open it".to_owned());
            }
        }
        Route::Open(rule) => {
            lines.push(rule_line(rule, config));
            lines.push("forwarded without asking for a session, without an identity".to_owned());
        }
        Route::Guard(rule) => {
            lines.push(rule_line(rule, config));
            lines.extend(policy_lines(&rule.policy));
        }
    }
    lines
}

fn rule_line(rule: &Rule, config: &Config) -> String {
    let ids = config.routes.iter().enumerate();
    let mut named = ids.filter(|(index, route)| route.id_at(*index) == rule.id);
    match named.next() {
        Some((index, route)) => format!("rule {}: routes[{index}], path {}", rule.id, route.path),
        None => "no rule matches, so a session is needed".to_owned(),
    }
}

fn policy_lines(policy: &RoutePolicy) -> Vec<String> {
    let mut lines = Vec::new();
    lines.push(match policy.auth {
        Auth::None => "forwarded without asking for a session, without an identity".to_owned(),
        Auth::Optional => "without a token: forwarded without an identity; with a bad one: 401".to_owned(),
        Auth::Required => "without a token or with a bad one: 401".to_owned(),
    });
    lines.push(if policy.allow_anonymous {
        "a guest's session: forwarded".to_owned()
    } else {
        "a guest's session: 403".to_owned()
    });
    let roles = &policy.require_any_role;
    if !roles.is_empty() {
        lines.push(format!("a session with none of the roles {}: 403", roles.join(", ")));
    }
    lines.push("any other live session: forwarded with X-User-ID and X-Client-ID".to_owned());
    if policy.stream {
        lines.push("begins a new lifetime of the session".to_owned());
    }
    if policy.keep_credentials {
        lines.push("the application sees Authorization and the session cookie".to_owned());
    }
    lines
}
