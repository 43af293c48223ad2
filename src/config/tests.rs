//! Loading as a whole: layers, environment, every problem at once, secrets, and the documents.

mod documents;
mod forward_auth;
mod issuers;
mod rebind;
mod telemetry;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::sessions::StoreUrl;
use super::upstream::UpstreamUrl;
use super::{Auth, Config, Loaded, Problems};

const CLERK: &str = "{ issuer: https://clerk.example.com, jwks_url: https://clerk.example.com/jwks, \
                     authorized_parties: [https://app.example.com] }";
const KEY: &str = "correct-horse-battery-staple-0123456789";

/// A directory of its own, removed with everything in it when dropped.
pub(crate) struct TestDirectory(PathBuf);

/// Files and variables to load a configuration from.
struct Sources {
    directory: TestDirectory,
    files: Vec<PathBuf>,
    environment: BTreeMap<String, String>,
}

impl TestDirectory {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("doorward-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        // A test that failed half-way has nothing to add about its leftovers.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Sources {
    fn new() -> Self {
        Self { directory: TestDirectory::new(), files: Vec::new(), environment: BTreeMap::new() }
    }

    fn file(mut self, name: &str, text: &str) -> Self {
        let path = self.write(name, text);
        self.files.push(path);
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn load(&self) -> Result<Loaded, Problems> {
        Config::load(&self.files, &self.environment)
    }

    #[track_caller]
    fn loaded(&self) -> Loaded {
        self.load().unwrap_or_else(|problems| panic!("should load:\n{problems}"))
    }

    /// Returns the problems' lines, the directory's random name cut out.
    #[track_caller]
    fn problems(&self) -> Vec<String> {
        let Err(problems) = self.load() else { panic!("should not load") };
        let directory = format!("{}/", self.directory.path().display());
        problems.to_string().lines().map(|line| line.replace(&directory, "")).collect()
    }
}

fn overlay(text: &str) -> Sources {
    Sources::new().file("a.yaml", text)
}

#[track_caller]
fn only_problem(text: &str) -> String {
    let problems = overlay(text).problems();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].clone()
}

#[test]
fn the_defaults_load_alone() {
    let Loaded { config, warnings, hash, .. } = Sources::new().loaded();
    assert_eq!(config.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(config.sessions.ttl, Duration::from_mins(30));
    assert!(config.clerk.is_none());
    assert_eq!(hash.len(), 12);
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["clerk: no issuer is configured: nobody can sign in with a JWT, only guests get sessions"]);
}

#[test]
fn later_files_win_key_by_key_and_the_environment_wins_over_all() {
    let sources = Sources::new()
        .file("a.yaml", "sessions: { ttl: 10m, max_per_principal: 3 }\nlisten: 127.0.0.1:1")
        .file("b.yaml", "sessions: { ttl: 20m }\nlisten: 127.0.0.1:2")
        .variable("DOORWARD__LISTEN", "127.0.0.1:3");
    let config = sources.loaded().config;
    assert_eq!(config.sessions.ttl, Duration::from_mins(20), "b over a");
    assert_eq!(config.sessions.max_per_principal, 3, "a stands where b says nothing");
    assert_eq!(config.listen.to_string(), "127.0.0.1:3", "environment over b");
    assert_eq!(config.sessions.cache.capacity, 100_000, "default where nobody says anything");
}

#[test]
fn lists_are_replaced_and_null_takes_a_section_away() {
    let sources = Sources::new()
        .file("a.yaml", &format!("routes: [{{ path: /x, auth: none }}]\nclerk: {CLERK}"))
        .file("b.yaml", "routes: [{ path: /y, auth: optional }]\nclerk: null");
    let config = sources.loaded().config;
    assert_eq!(config.routes.len(), 1);
    assert_eq!((config.routes[0].path.as_str(), config.routes[0].auth), ("/y", Auth::Optional));
    assert!(config.clerk.is_none());
}

#[test]
fn an_empty_file_changes_nothing() {
    let defaults = Sources::new().loaded().effective;
    assert_eq!(overlay("").loaded().effective, defaults);
    assert_eq!(overlay("# nothing yet\n").loaded().effective, defaults);
}

#[test]
fn the_environment_holds_numbers_lists_and_maps() {
    let sources = Sources::new()
        .variable("DOORWARD__LIMITS__MAX_CONNECTIONS", "7")
        .variable("DOORWARD__COOKIE__ENABLED", "false")
        .variable("DOORWARD__ROUTES", "[{path: /a, auth: none}, {path: '/**', auth: required}]")
        .variable("DOORWARD__CLERK", CLERK)
        .variable("DOORWARD__CLERK__ISSUER", "https://other.example.com")
        .variable("DOORWARD__ISSUERS__PARTNER", &CLERK.replace("clerk.", "partner."))
        .variable("DOORWARD__UPSTREAM__URL", "unix:/run/app.sock")
        .variable("DOORWARD_PORT", "tcp://10.0.0.1:80")
        .variable("UNRELATED__KEY", "x");
    let config = sources.loaded().config;
    assert_eq!(config.limits.max_connections, 7);
    assert!(!config.cookie.enabled);
    assert_eq!(config.routes.len(), 2);
    assert_eq!(config.clerk.unwrap().issuer, "https://other.example.com", "the longer name refines the shorter");
    assert!(config.issuers.contains_key("partner"));
    assert_eq!(config.upstream.url, Some(UpstreamUrl::Unix("/run/app.sock".into())));
}

#[test]
fn all_problems_are_told_at_once_with_key_value_expectation_and_file() {
    let sources = Sources::new()
        .file("a.yaml", "listen: 8080\nsessions: { tll: 1h, ttl: soon }\nroutes: [{ path: /a, auth: requried }]")
        .file("b.yaml", "limits: { max_connections: -1 }\nclerk: { jwks_url: https://x.example.com/jwks }")
        .variable("DOORWARD__TELEMETRY__ACCESS_LOG_SAMPLE", "2")
        .variable("DOORWARD__ADMIN__LISTEN", "everywhere");
    let mut problems = sources.problems();
    problems.sort();
    assert_eq!(
        problems,
        [
            r#"admin.listen: "everywhere" is not an address; write e.g. "0.0.0.0:9090" (from DOORWARD__ADMIN__LISTEN)"#,
            "clerk.issuer: is missing (from b.yaml)",
            "limits.max_connections: -1 must be a whole number, 0 or more (from b.yaml)",
            "listen: 8080 must be text; put quotes around a number (from a.yaml)",
            r#"routes[0].auth: "requried" must be one of "none", "optional", "required" (from a.yaml)"#,
            "sessions.tll: is not a known key; known here: store, ttl, max_per_principal, token, on_unavailable, \
             max_stale, cache, revocation, redis (from a.yaml)",
            r#"sessions.ttl: "soon" is not a duration; write e.g. "30m" or "500ms" (from a.yaml)"#,
            "telemetry.access_log_sample: 2 must be from 0 to 1 (from DOORWARD__TELEMETRY__ACCESS_LOG_SAMPLE)",
        ]
    );
}

#[test]
fn list_positions_are_those_of_the_file_however_many_are_wrong() {
    let text = r"
        trusted_proxies: [10.0.0.0/8, nowhere, 192.168.0.0/16, neither]
        routes:
          - { path: /a, auth: no, methods: [GET, 1, POST, 2] }
          - { path: /b, auth: none }
          - { path: /c, auth: none, colour: red }
          - {}
          - { path: nowhere, auth: none }
    ";
    let problems = overlay(text).problems();
    let keys: Vec<&str> = problems.iter().map(|line| line.split_once(": ").unwrap().0).collect();
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        [
            "routes[0].auth",
            "routes[0].methods[1]",
            "routes[0].methods[3]",
            "routes[2].colour",
            "routes[3].auth",
            "routes[3].path",
            "routes[4].path",
            "trusted_proxies[1]",
            "trusted_proxies[3]",
        ],
        "{problems:#?}"
    );
}

#[test]
fn mistakes_are_told_however_many_there_are() {
    let keys: Vec<String> = (0..300).map(|number| format!("unknown_{number}: {number}")).collect();
    let routes: Vec<&str> = (0..300).map(|_| "{ path: 1, auth: 2 }").collect();
    let problems = overlay(&format!("limits: {{ {} }}\nroutes: [{}]", keys.join(", "), routes.join(", "))).problems();
    assert_eq!(problems.len(), 300 + 2 * 300);
    let unknown = |line: &&String| line.contains(": is not a known key; known here: workers, max_connections, ");
    assert_eq!(problems.iter().filter(unknown).count(), 300);
}

#[test]
fn what_stands_in_for_a_wrong_value_is_not_complained_about() {
    for (text, key) in [
        (
            &format!("sessions: {{ token: {{ keys: [{{ secret: {KEY} }}, {{ id: 0, secret: {KEY} }}] }} }}"),
            "sessions.token.keys[0].id",
        ),
        (&"upstream: { ca: 5 }".to_owned(), "upstream.ca"),
        (&"bootstrap: { profile: { source: htp, http: { path: /a } } }".to_owned(), "bootstrap.profile.source"),
        (&"trusted_proxies: 5\nforward_auth: { enabled: true }".to_owned(), "trusted_proxies"),
    ] {
        assert!(only_problem(text).starts_with(&format!("{key}: ")), "{text}");
    }
}

#[test]
fn what_stands_beside_a_missing_or_wrong_key_is_looked_at_too() {
    let table = [
        ("clerk: { jwks_url: 'ftp://c/j' }", ["clerk.issuer", "clerk.jwks_url"].as_slice()),
        ("issuers: { x: { audiences: 1 } }", &["issuers.x", "issuers.x.audiences", "issuers.x.issuer"]),
        ("tls: {}", &["tls.cert", "tls.key"]),
        ("tls: { cert: /nowhere }", &["tls.cert", "tls.key"]),
        (
            "sessions: { token: { keys: [{}, { id: 300, secret: short }] } }",
            &[
                "sessions.token.keys[0].id",
                "sessions.token.keys[0].secret",
                "sessions.token.keys[1].id",
                "sessions.token.keys[1].secret",
            ],
        ),
        (
            "outbox: { alias: { url: 'https://me@sink/', ca: /nowhere }, batch: 0, poll_interval: 1ms, lease: 14s, \
             retry: { first: 2s, max: 1s, attempts_max: 0 } }",
            &[
                "outbox.alias.api_key",
                "outbox.alias.ca",
                "outbox.alias.url",
                "outbox.batch",
                "outbox.lease",
                "outbox.poll_interval",
                "outbox.retry.attempts_max",
                "outbox.retry.max",
            ],
        ),
        ("sessions: null", &["sessions"]),
        ("sessions: 7\nlimits: 5\nroutes: {}", &["limits", "routes", "sessions"]),
    ];
    for (text, expected) in table {
        let problems = overlay(text).problems();
        let mut keys: Vec<&str> = problems.iter().map(|line| line.split_once(": ").unwrap().0).collect();
        keys.sort_unstable();
        assert_eq!(keys, expected, "{text}: {problems:#?}");
    }
}

#[test]
fn misspelt_sections_and_variables_are_refused() {
    let problem = only_problem("sesions: { ttl: 1h }");
    assert!(problem.starts_with("sesions: is not a known key; known here: listen, tls, admin, "), "{problem}");
    let problems = Sources::new().variable("DOORWARD__SESIONS__TTL", "1h").problems();
    assert!(problems[0].starts_with("sesions: is not a known key"), "{problems:?}");
    assert!(problems[0].ends_with("(from DOORWARD__SESIONS__TTL)"), "{problems:?}");
    let problems = Sources::new().variable("DOORWARD__SESSIONS____TTL", "1h").problems();
    assert_eq!(problems, ["DOORWARD__SESSIONS____TTL: is not a key; write e.g. DOORWARD__SESSIONS__TTL"]);
}

#[test]
fn broken_yaml_is_located_and_hides_the_line() {
    let problem = only_problem("listen: 127.0.0.1:1\nsessions:\n  redis: { password: hunter2hunter2\n");
    assert!(problem.starts_with("a.yaml:"), "{problem}");
    assert!(problem.split(':').nth(1).unwrap().parse::<u32>().unwrap() >= 3, "{problem}");
    assert!(!problem.contains("hunter2"), "{problem}");
    assert!(only_problem("listen: a\nlisten: b").starts_with("a.yaml:2:1: is not YAML: "));
    assert_eq!(only_problem("- a list"), "a.yaml: must be a map of sections");
}

#[test]
fn a_file_that_is_not_there_is_named_and_the_rest_is_still_read() {
    let mut sources = overlay("sessions: { ttl: soon }");
    sources.files.push(sources.directory.path().join("absent.yaml"));
    let problems = sources.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("absent.yaml: cannot be read: No such file"), "{problems:?}");
    assert!(problems[1].starts_with("sessions.ttl: "), "{problems:?}");
}

#[test]
fn secrets_come_from_files_without_the_last_line_break() {
    let sources = Sources::new();
    let key = sources.write("token-key", &format!("{KEY}\n"));
    let keys = format!("[{{ id: 1, secret: {{ file: {} }} }}]", key.display());
    let loaded = sources.variable("DOORWARD__SESSIONS__TOKEN__KEYS", &keys).loaded();
    assert_eq!(loaded.config.sessions.token.keys[0].secret.expose(), KEY);
    assert!(loaded.effective.contains(&key.display().to_string()), "which file is no secret: {}", loaded.effective);
    assert_ne!(loaded.hash, Sources::new().loaded().hash);
}

#[test]
fn a_secret_file_that_is_not_there_is_a_problem_of_its_key() {
    let problem = only_problem("sessions: { redis: { password: { file: /nowhere/password } } }");
    assert_eq!(
        problem,
        "sessions.redis.password: {\"file\":\"/nowhere/password\"} cannot read /nowhere/password: \
         No such file or directory (os error 2) (from a.yaml)"
    );
}

#[test]
fn a_password_variable_is_text_whatever_it_looks_like() {
    for password in ["12345", "true", "a: b", "[x", "*alias", "null"] {
        let config = Sources::new().variable("DOORWARD__SESSIONS__REDIS__PASSWORD", password).loaded().config;
        assert_eq!(config.sessions.redis.password.unwrap().expose(), password);
        let config = Sources::new().variable("DOORWARD__OUTBOX__ALIAS__API_KEY", password).loaded().config;
        assert_eq!(config.outbox.alias.api_key.unwrap().expose(), password);
    }
}

#[test]
fn nothing_secret_is_shown_of_a_good_configuration() {
    let text = format!(
        "sessions: {{ store: 'redis://me:hunter2/h@nter2@redis:6379/0', redis: {{ password: hunter2 }}, \
         token: {{ keys: [{{ id: 1, secret: {KEY} }}] }} }}\n\
         outbox: {{ alias: {{ url: 'http://sink.example.com', api_key: hunter2 }} }}"
    );
    let loaded = overlay(&text).loaded();
    assert!(loaded.warnings.iter().any(|warning| warning.to_string().starts_with("outbox.alias.url: ")));
    let shown = format!("{loaded:?} {}", loaded.effective);
    assert!(!shown.contains("hunter2") && !shown.contains("nter2") && !shown.contains(KEY), "{shown}");
    assert!(loaded.effective.contains("redis://[redacted]@redis:6379/0"), "{}", loaded.effective);
}

#[test]
fn nothing_secret_is_shown_of_a_bad_configuration() {
    for text in [
        "sessions: { token: { keys: [{ id: 1, secret: hunter2 }] } }",
        "sessions: { token: { keys: [{ id: 1, secret: [hunter2] }] } }",
        "sessions: { token: { keys: [{ id: 1, secret: { fil: hunter2 } }] } }",
        "sessions: { token: { keys: [{ id: 1, secret: { file: /nowhere, or: hunter2 } }] } }",
        "sessions: { token: { keys: [hunter2] } }",
        "sessions: { token: { keys: 'hunter2, expected hunter2' } }",
        "sessions: { token: hunter2 }",
        "webhooks: { clerk: { secrets: [hunter2] } }",
        "webhooks: { clerk: { secrets: [{ file: /nowhere, or: hunter2 }] } }",
        "webhooks: { clerk: { secrets: hunter2 } }",
        "webhooks: { clerk: hunter2 }",
        "sessions: { redis: hunter2 }",
        "sessions: { redis: { pasword: hunter2 } }",
        "sessions: { redis: { timeout: { password: hunter2 } } }",
        "sessions: { store: 'redis:/me:hunter2@redis' }",
        "sessions: { store: 'redsi://:hunter2@redis' }",
        "upstream: { url: 'http://me:hunter2@app' }",
        "outbox: { alias: { api_key: [hunter2] } }",
        "outbox: { alias: hunter2 }",
    ] {
        let problem = only_problem(text);
        assert!(!problem.contains("hunter2"), "{problem}");
    }
    for name in ["DOORWARD__SESSIONS__TOKEN__KEYS", "DOORWARD__SESSIONS__REDIS", "DOORWARD__SESSIONS"] {
        let problems = Sources::new().variable(name, "[{ secret: hunter2").problems();
        assert_eq!(problems, [format!("{name}: is not YAML")]);
    }
}

#[test]
fn the_effective_configuration_loads_to_itself() {
    let loaded = overlay(&format!(
        "clerk: {CLERK}\nissuers: {{ 'a-b': {{ issuer: https://p.example.com, jwks_url: 'https://p/x' }} }}\n\
         routes: [{{ path: '/**', auth: required, methods: [GET, POST] }}]\ntrusted_proxies: [10.0.0.0/8]"
    ))
    .loaded();
    let again = overlay(&loaded.effective).loaded();
    assert_eq!(again.effective, loaded.effective);
    assert_eq!(again.hash, loaded.hash);
}

#[test]
fn stores_are_told_apart_by_their_url() {
    let keys = format!("token: {{ keys: [{{ id: 1, secret: {KEY} }}] }}");
    let store = |url: &str| overlay(&format!("sessions: {{ store: '{url}', {keys} }}")).loaded().config.sessions.store;
    assert!(matches!(store("sqlite:///a/b.db"), StoreUrl::Sqlite(path) if path == Path::new("/a/b.db")));
    assert!(matches!(store("rediss://redis:6380"), StoreUrl::Redis(_)));
    assert!(matches!(store("redis+sentinel://a:1,b:2/main/3"), StoreUrl::Sentinel { nodes, .. } if nodes.len() == 2));
    assert!(matches!(store("redis+cluster://a:1,b:2"), StoreUrl::Cluster(nodes) if nodes.len() == 2));
}

/// Each text alone has one problem, which begins as said. `KEY` and `FILE` are replaced in both.
#[track_caller]
fn assert_each_has_one_problem(table: &[(&str, &str)]) {
    for &(text, expected) in table {
        let sources = Sources::new();
        let file = sources.write("some-file", "x");
        let file = file.display().to_string();
        let problems = sources.file("a.yaml", &text.replace("KEY", KEY).replace("FILE", &file)).problems();
        let expected = expected.replace("FILE", "some-file");
        assert_eq!(problems.len(), 1, "{text}: {problems:#?}");
        assert!(problems[0].starts_with(&expected), "{text}:\n  is       {}\n  expected {expected}", problems[0]);
    }
}

#[test]
fn rules_about_sessions() {
    assert_each_has_one_problem(&[
        ("sessions: { ttl: 999ms }", r#"sessions.ttl: "999ms" must be at least 1s"#),
        ("sessions: { ttl: 31days }", r#"sessions.ttl: "31days" must be at most 30days"#),
        ("sessions: { max_per_principal: 0 }", "sessions.max_per_principal: 0 must be at least 1"),
        ("sessions: { cache: { max_ttl: 2h } }", r#"sessions.cache.max_ttl: "2h" must be at most 1h"#),
        (
            "sessions: { revocation: { heartbeat: 49ms } }",
            r#"sessions.revocation.heartbeat: "49ms" must be at least 50ms"#,
        ),
        ("sessions: { revocation: { lease: 61s } }", r#"sessions.revocation.lease: "61s" must be at most 1m"#),
        (
            "sessions: { revocation: { lease: 500ms } }",
            r#"sessions.revocation.lease: "500ms" must be longer than sessions.revocation.heartbeat (500ms)"#,
        ),
        (
            "sessions: { store: 'redis://redis:6379' }",
            "sessions.token.keys: [] is empty: several replicas need a configured key; `doorward keys generate` makes one",
        ),
        (
            "sessions: { token: { keys: [{ id: 1, secret: '0123456789012345678901234567890' }] } }",
            r#"sessions.token.keys[0].secret: "[redacted]" has 31 bytes and needs at least 32"#,
        ),
        (
            "sessions: { token: { keys: [{ id: 1, secret: KEY }, { id: 1, secret: KEY }] } }",
            "sessions.token.keys[1].id: 1 is the id of an earlier key too",
        ),
        ("sessions: { token: { prefix: '' } }", r#"sessions.token.prefix: "" must be 1 to 16 letters, digits, - or _"#),
        ("sessions: { redis: { key_prefix: 'a{b}' } }", r#"sessions.redis.key_prefix: "a{b}" must be 1 to 64"#),
        (
            "sessions: { redis: { client_cert: FILE } }",
            r#"sessions.redis.client_cert: "FILE" needs client_key beside it"#,
        ),
        (
            "sessions: { store: 'redis://r', redis: { ca: FILE }, token: { keys: [{ id: 1, secret: KEY }] } }",
            r#"sessions.redis.ca: "FILE" needs a sessions.store that begins with rediss"#,
        ),
    ]);
}

#[test]
fn rules_about_webhooks() {
    let good = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";
    assert_each_has_one_problem(&[
        (
            &format!("webhooks: {{ clerk: {{ secrets: [{good}] }} }}"),
            "webhooks.clerk: needs the section clerk, whose users the events are about",
        ),
        (&format!("clerk: {CLERK}\nwebhooks: {{ clerk: {{ secrets: [] }} }}"), "webhooks.clerk.secrets: [] is empty"),
        (&format!("clerk: {CLERK}\nwebhooks: {{ clerk: {{}} }}"), "webhooks.clerk.secrets: is missing"),
        (
            &format!("clerk: {CLERK}\nwebhooks: {{ clerk: {{ secrets: [{good}, whsec_c2hvcnQ=] }} }}"),
            r#"webhooks.clerk.secrets[1]: "[redacted]" is not a signing secret; expected whsec_ and base64 of at least 24 bytes"#,
        ),
        (
            &format!("clerk: {CLERK}\nwebhooks: {{ clerk: {{ secrets: [{good}], instance_id: '' }} }}"),
            r#"webhooks.clerk.instance_id: "" is empty; leave it out to believe any instance"#,
        ),
    ]);
}

#[test]
fn rules_about_the_network() {
    assert_each_has_one_problem(&[
        ("admin: { listen: '127.0.0.1:8080' }", r#"admin.listen: "127.0.0.1:8080" must have another port than listen"#),
        ("tls: { cert: /nowhere, key: FILE }", r#"tls.cert: "/nowhere" is not a readable file: No such file"#),
        (
            "upstream: { server_name: app }",
            r#"upstream.server_name: "app" needs an upstream.url that begins with https"#,
        ),
        (
            "upstream: { url: 'http://localhost:8080' }",
            r#"upstream.url: "http://localhost:8080" is where Doorward itself"#,
        ),
        ("upstream: { url: 'http://a:1/path' }", r#"upstream.url: "http://a:1/path" must not have a path"#),
        ("upstream: { connect_timeout: 0s }", r#"upstream.connect_timeout: "0s" must be at least 1ms"#),
        ("trusted_proxies: ['10.0.0.0/8', '0.0.0.0/0']", r#"trusted_proxies[1]: "0.0.0.0/0" trusts every peer"#),
        ("trusted_proxies: ['::/0']", r#"trusted_proxies[0]: "::/0" trusts every peer"#),
        ("cookie: { name: 'a b' }", r#"cookie.name: "a b" must be a cookie name"#),
        ("cookie: { allowed_origins: ['https://a.example/x'] }", "cookie.allowed_origins[0]: "),
        ("telemetry: { access_log_sample: 1.1 }", "telemetry.access_log_sample: 1.1 must be from 0 to 1"),
        ("limits: { header_bytes_max: 10 }", "limits.header_bytes_max: 10 must be from 1024 to 1048576"),
        ("lifecycle: { drain_timeout: 2h }", r#"lifecycle.drain_timeout: "2h" must be at most 1h"#),
        (
            "lifecycle: { drain_delay: 5s, drain_timeout: 25s, termination_grace: 33s }",
            r#"lifecycle.termination_grace: "33s" must be longer than drain_delay, drain_timeout and 3s together"#,
        ),
        ("upstream: { exposed: maybe }", "upstream.exposed: "),
    ]);
}

#[test]
fn rules_about_issuers() {
    assert_each_has_one_problem(&[
        (
            "clerk: { issuer: 'https://c' }",
            "clerk: needs exactly one of jwks_url, jwks_file and pem_file, and has 0 (from a.yaml)",
        ),
        ("clerk: { issuer: 'https://c', jwks_url: 'https://c/j', pem_file: FILE }", "clerk: needs exactly one of"),
        ("clerk: { issuer: clerk, jwks_url: 'https://c/j' }", r#"clerk.issuer: "clerk" must be a URL"#),
        ("clerk: { issuer: 'https://c', jwks_url: 'ftp://c/j' }", r#"clerk.jwks_url: "ftp://c/j" must be a URL"#),
        (
            "clerk: { issuer: 'https://c', jwks_file: /nowhere }",
            r#"clerk.jwks_file: "/nowhere" is not a readable file"#,
        ),
        (
            "clerk: { issuer: 'https://c', jwks_file: FILE }\nissuers: { x: { issuer: 'https://c', pem_file: FILE } }",
            r#"issuers.x.issuer: "https://c" is the issuer of clerk too"#,
        ),
    ]);
}

#[test]
fn rules_about_routes() {
    assert_each_has_one_problem(&[
        (
            "routes: [{ id: a, path: /a, auth: none }, { id: a, path: /b, auth: none }]",
            r#"routes[1].id: "a" is the id of an earlier"#,
        ),
        (
            "routes: [{ path: /a, auth: none }, { id: route-0, path: /b, auth: none }]",
            r#"routes[1].id: "route-0" is the id of"#,
        ),
        ("routes: [{ path: /a, auth: none, methods: [get] }]", r#"routes[0].methods[0]: "get" must be a method in"#),
        (
            "routes: [{ path: /a, auth: none, require_any_role: [x] }]",
            r#"routes[0].require_any_role: ["x"] needs auth"#,
        ),
    ]);
}

#[test]
fn rules_about_bootstrap() {
    assert_each_has_one_problem(&[
        (
            "bootstrap: { profile: { source: http } }",
            "bootstrap.profile: has source: http and needs http: { path: … } beside it (from a.yaml)",
        ),
        (
            "bootstrap: { profile: { source: sql } }",
            "bootstrap.profile: has source: sql and needs sql: { select: … } beside it",
        ),
        (
            "bootstrap: { secrets: { http: { path: /a } } }",
            "bootstrap.secrets: has an http section that only source: http reads (from a.yaml)",
        ),
        (
            "bootstrap: { secrets: { sql: { select: x } } }",
            "bootstrap.secrets: has a sql section that only source: sql reads",
        ),
        (
            "bootstrap: { profile: { source: http, http: { path: a } } }",
            r#"bootstrap.profile.http.path: "a" must be a path of the application"#,
        ),
        (
            "bootstrap: { profile: { source: http, http: { path: /a, create: { path: 'http://b/' } } } }",
            r#"bootstrap.profile.http.create.path: "http://b/" must be a path of the application"#,
        ),
        (
            "bootstrap: { profile: { source: sql, sql: { select: 'select $3' } } }",
            r#"bootstrap.profile.sql.select: "select $3" may name $1 (the user) and $2 (the tenant)"#,
        ),
        (
            "bootstrap: { profile: { source: sql, sql: { select: 'select 1', create: ' ' } } }",
            r#"bootstrap.profile.sql.create: " " is empty"#,
        ),
        ("bootstrap: { secrets: { timeout: 2m } }", r#"bootstrap.secrets.timeout: "2m" must be at most 1m"#),
        ("bootstrap: { profile: { defaults: 3 } }", "bootstrap.profile.defaults: 3 must be a map"),
        ("bootstrap: { profile: { htp: 3 } }", "bootstrap.profile.htp: is not a known key; known here: source, http"),
        ("bootstrap: { profile: { source: http, http: {} } }", "bootstrap.profile.http.path: is missing"),
    ]);
    overlay("bootstrap: { profile: { defaults: null }, secrets: { source: directory } }").loaded();
}

#[test]
fn route_paths_that_no_request_can_have_are_refused() {
    for good in ["/", "/a", "/a/", "/a/*/b", "/a/**", "/**", "/*", "/.well-known/x", "/a%20b", "/a%2A", "/%C3%A9"] {
        overlay(&format!("routes: [{{ path: '{good}', auth: none }}]")).loaded();
    }
    for bad in [
        "", "a", "//a", "/a//b", "/a/../b", "/./a", "/**/a", "/a*", "/a/***", "/a?b", "/a#b", "/a\\b", "/..;x", "/%61",
        "/%2F", "/%2a", "/%", "/%+1", "/é", "/a b",
    ] {
        let problem = only_problem(&format!("routes: [{{ path: '{bad}', auth: none }}]"));
        assert!(problem.starts_with("routes[0].path: "), "{bad}: {problem}");
    }
}

#[test]
fn rules_do_not_complain_about_values_already_found_wrong() {
    let problem = only_problem("sessions: { store: 'redis://r', token: { keys: [x] } }");
    assert!(problem.starts_with("sessions.token.keys[0]: "), "{problem}");
    let problem = only_problem("sessions: { revocation: { heartbeat: x, lease: 400ms } }");
    assert!(problem.starts_with("sessions.revocation.heartbeat: "), "{problem}");
}

#[test]
fn risky_combinations_are_warned_of() {
    let table = [
        ("sessions: { on_unavailable: serve_stale }", "sessions.on_unavailable"),
        (
            "sessions: { store: 'redis+cluster://r', token: { keys: [{ id: 1, secret: KEY }] } }\nDATABASE",
            "sessions.cache.max_ttl",
        ),
        ("sessions: { store: 'sqlite:///tmp/x.db' }", "sessions.store"),
        ("sessions: { revocation: { lease: 900ms } }", "sessions.revocation.lease"),
        (
            "sessions: { store: 'redis://r', redis: { password: x }, token: { keys: [{ id: 1, secret: KEY }] } }\nDATABASE",
            "sessions.store",
        ),
        ("sessions: { store: 'redis://r', token: { keys: [{ id: 1, secret: KEY }] } }", "directory.url"),
        ("issuers: { x: { issuer: 'https://p', jwks_url: 'https://p/j' } }", "issuers.x.authorized_parties"),
        (
            "issuers: { x: { issuer: 'https://p', jwks_url: 'http://p/j', authorized_parties: [a] } }",
            "issuers.x.jwks_url",
        ),
        ("routes: [{ path: '/**', auth: required }, { path: /a, auth: none }]", "routes[1]"),
        ("routes: [{ path: '/auth/x', auth: none }]", "routes[0].path"),
        ("lifecycle: { drain_timeout: 60s }", "lifecycle.drain_timeout"),
        (
            "telemetry: { traces: { endpoint: 'http://collector:4318', headers: { key: x } } }",
            "telemetry.traces.endpoint",
        ),
    ];
    for (text, expected) in table {
        let text = text.replace("KEY", KEY).replace("DATABASE", "directory: { url: 'postgres://d' }");
        let loaded = overlay(&format!("clerk: {CLERK}\n{text}")).loaded();
        let keys: Vec<String> = loaded.warnings.iter().map(|warning| warning.key.to_string()).collect();
        assert_eq!(keys, [expected], "{text}");
    }
    for text in ["", "lifecycle: { drain_timeout: 60s, termination_grace: 69s }"] {
        let quiet = overlay(&format!("clerk: {CLERK}\n{text}")).loaded();
        assert_eq!(quiet.warnings, [], "{text}");
    }
}
