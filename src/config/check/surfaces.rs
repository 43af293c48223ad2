//! Rules about where surfaces are.

use crate::config::problem::{Finding, KeyPath};
use crate::config::surfaces::SurfacesSection;
use crate::model::surface::{Mount, OWN, SurfaceId};

pub(super) fn check(surfaces: &SurfacesSection, found: &mut Vec<Finding>) {
    let prefix = &surfaces.session_exchange.prefix;
    let key = || KeyPath::of("surfaces.session_exchange.prefix");
    if let Err(expected) = path(prefix) {
        found.push(Finding::new(key(), expected));
    } else if surfaces.mounts().mounts().iter().any(|mount| mount.path == *prefix && !is_exchange(mount)) {
        found.push(Finding::new(key(), "is another surface's place"));
    }
}

fn is_exchange(mount: &Mount) -> bool {
    mount.surface == SurfaceId::SessionExchange
}

// A prefix is part of patterns and of answers: nothing in it may mean anything to either.
fn path(path: &str) -> Result<(), &'static str> {
    let plain = |segment: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~.".contains(&byte);
        !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(allowed)
    };
    match path.strip_prefix('/') {
        Some(rest) if rest.split('/').all(plain) => {}
        _ => {
            return Err(
                "must be a path such as \"/auth\": segments of letters, digits, -, _, . and ~, no / at its end",
            );
        }
    }
    let own = path.strip_prefix(OWN).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if own { Err("is Doorward's own corner") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::surfaces::SurfaceSection;

    fn problem(prefix: &str) -> Option<String> {
        let session_exchange = SurfaceSection { enabled: true, prefix: prefix.to_owned() };
        let mut found = Vec::new();
        check(&SurfacesSection { session_exchange }, &mut found);
        found.pop().map(|finding| finding.message)
    }

    #[test]
    fn a_prefix_is_a_plain_path_of_its_own() {
        for prefix in ["/auth", "/v1/auth", "/my-auth_2.0~x"] {
            assert_eq!(problem(prefix), None, "{prefix}");
        }
        for prefix in ["", "/", "auth", "/auth/", "//auth", "/a/../b", "/./a", "/a b", "/{x}", "/*", "/a%41", "/a?b"] {
            assert!(problem(prefix).is_some_and(|message| message.starts_with("must be a path")), "{prefix}");
        }
        for prefix in ["/_doorward", "/_doorward/auth"] {
            assert_eq!(problem(prefix).as_deref(), Some("is Doorward's own corner"), "{prefix}");
        }
        assert_eq!(problem("/webhooks/clerk").as_deref(), Some("is another surface's place"));
    }
}
