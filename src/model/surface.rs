//! The surfaces: families of endpoints that Doorward answers itself, and the paths they take.
//!
//! Which paths are Doorward's own is said here and nowhere else. The routes of the proxy, `explain`,
//! the warnings of `check` and the router all ask a [`Surfaces`].

/// Doorward's own corner: nothing below it is an application's.
pub const OWN: &str = "/_doorward";
/// Where other proxies ask for decisions; what follows may be the path of the request they ask about.
pub const FORWARD_AUTH: &str = "/_doorward/verify";

/// A family of endpoints. `api::mount` says, for each, what is there and who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SurfaceId {
    /// Tokens for proofs (contracts §5).
    SessionExchange,
    /// What a provider tells of users and logins (contracts §10).
    Webhooks,
    /// What other proxies ask about requests of theirs.
    ForwardAuth,
    /// The surface of the test that adds one.
    #[cfg(test)]
    Example,
}

/// Which paths a mount takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The path itself.
    Exact,
    /// The path, and everything below it.
    Below,
}

/// One place where a surface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Which surface.
    pub surface: SurfaceId,
    /// A normalised path without a slash at its end.
    pub path: String,
    /// How much belongs to it.
    pub reach: Reach,
}

/// Every place where a surface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surfaces(Vec<Mount>);

impl SurfaceId {
    /// Returns the name in the configuration, in metrics and in logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::SessionExchange => "session_exchange",
            Self::Webhooks => "webhooks",
            Self::ForwardAuth => "forward_auth",
            #[cfg(test)]
            Self::Example => "example",
        }
    }
}

impl Mount {
    /// Returns the place of a surface that takes a path and everything below it.
    pub fn below(surface: SurfaceId, path: impl Into<String>) -> Self {
        Self { surface, path: path.into(), reach: Reach::Below }
    }

    /// Returns the place of a surface that takes one path.
    pub fn at(surface: SurfaceId, path: impl Into<String>) -> Self {
        Self { surface, path: path.into(), reach: Reach::Exact }
    }

    /// Returns what follows this place in `path`: nothing, or a slash and more; `None` for other paths.
    pub fn rest<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(self.path.as_str())?;
        match self.reach {
            Reach::Exact => rest.is_empty().then_some(rest),
            Reach::Below => (rest.is_empty() || rest.starts_with('/')).then_some(rest),
        }
    }
}

impl Surfaces {
    /// Returns the table of `mounts`.
    pub fn new(mut mounts: Vec<Mount>) -> Self {
        // The longest place owns a path, also inside of another surface's.
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.path.len()));
        Self(mounts)
    }

    /// Returns the place that owns a normalised path; `None` for the application's paths.
    pub fn owner(&self, path: &str) -> Option<&Mount> {
        self.0.iter().find(|mount| mount.rest(path).is_some())
    }

    /// Returns every place, the longest first.
    pub fn mounts(&self) -> &[Mount] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surfaces() -> Surfaces {
        Surfaces::new(vec![
            Mount::below(SurfaceId::Example, "/v1"),
            Mount::below(SurfaceId::SessionExchange, "/v1/auth"),
            Mount::at(SurfaceId::Webhooks, "/v1/hook"),
        ])
    }

    #[test]
    fn the_longest_place_owns_a_path() {
        let surfaces = surfaces();
        let owner = |path| surfaces.owner(path).map(|mount| (mount.surface, mount.rest(path).unwrap().to_owned()));
        let expected = |surface, rest: &str| Some((surface, rest.to_owned()));
        assert_eq!(owner("/v1"), expected(SurfaceId::Example, ""));
        assert_eq!(owner("/v1/x/y"), expected(SurfaceId::Example, "/x/y"));
        assert_eq!(owner("/v1/auth"), expected(SurfaceId::SessionExchange, ""));
        assert_eq!(owner("/v1/auth/session"), expected(SurfaceId::SessionExchange, "/session"));
        assert_eq!(owner("/v1/authors"), expected(SurfaceId::Example, "/authors"));
        assert_eq!(owner("/v1/hook"), expected(SurfaceId::Webhooks, ""));
        assert_eq!(owner("/v1/hook/"), expected(SurfaceId::Example, "/hook/"), "an exact place takes one path");
    }

    #[test]
    fn a_path_that_only_begins_like_a_place_is_the_applications() {
        for path in ["/", "/v10", "/v1x", "/V1", "/a/v1"] {
            assert_eq!(surfaces().owner(path), None, "{path}");
        }
    }
}
