//! What Prometheus sees: names, labels, zeros at the start, and counters that move as they should.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use crate::support::client::{Client, sign_in};
use crate::support::collector::Collector;
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::idp::Idp;
use crate::support::ports::free_port;
use crate::support::prometheus::{CONFIG, Prometheus};
use crate::support::redis::Redis;
use crate::support::stage::Stage;
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;

/// Every metric with its type and label names, as a dashboard may rely on them.
const CONTRACT: &str = include_str!("metrics/contract.txt");

/// Every decision that the guard can come to: outcome, reason, principal.
const DECISIONS: [(&str, &str, &str); 18] = [
    ("allow", "ok", "user"),
    ("allow", "ok", "anonymous"),
    ("allow", "ok", "admin"),
    ("allow", "stale_allowed", "user"),
    ("allow", "stale_allowed", "anonymous"),
    ("bypass", "public_path", "none"),
    ("deny", "anonymous", "none"),
    ("deny", "bad_request", "none"),
    ("deny", "cross_origin", "none"),
    ("deny", "expired", "none"),
    ("deny", "identity_header", "none"),
    ("deny", "malformed", "none"),
    ("deny", "missing_token", "none"),
    ("deny", "revoked", "none"),
    ("deny", "role", "none"),
    ("deny", "unknown", "none"),
    ("deny", "untrusted_peer", "none"),
    ("error", "store_unavailable", "none"),
];

/// One scrape: the value of each series.
struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    async fn of(doorward: &Doorward) -> Self {
        let text = doorward.admin_get("/metrics").await.text();
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        Self(samples.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect())
    }

    /// Returns the value of a series, named without prefix and with sorted labels; fails when there is none.
    fn value(&self, series: &str) -> f64 {
        let found = self.0.get(&format!("doorward_{series}"));
        *found.unwrap_or_else(|| panic!("no series {series} in {:#?}", self.0.keys()))
    }
}

/// Returns `name type label,label` for every metric of an exposition.
fn contract(text: &str) -> BTreeSet<String> {
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut types = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            types.insert(name, kind);
        } else if let Some((series, _)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) {
            let (sample, pairs) = series.split_once('{').unwrap_or((series, ""));
            let base = ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| sample.strip_suffix(suffix));
            let name = base.filter(|base| types.contains_key(base)).unwrap_or(sample);
            let names = pairs.split("\",").filter_map(|pair| pair.split_once("=\"")).map(|(name, _)| name);
            labels.entry(name).or_default().extend(names.filter(|name| *name != "le"));
        }
    }
    let line = |(name, kind): (&&str, &&str)| {
        let labels: Vec<&str> = labels.get(*name).into_iter().flatten().copied().collect();
        format!("{name} {kind} {}", labels.join(",")).trim_end().to_owned()
    };
    types.iter().map(line).collect()
}

fn promtool_check(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool: {error}; install it: apt-get install prometheus"));
    let mut input = promtool.stdin.take().expect("it is piped");
    std::io::Write::write_all(&mut input, text.as_bytes()).expect("promtool reads");
    drop(input);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}: {said}", output.status);
    assert_eq!(said, "");
}

#[tokio::test]
async fn names_types_and_labels_are_a_contract_and_promtool_has_no_complaint() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    // The age of a secret is known where there is one.
    let builder = Doorward::builder().idp(&idp).upstream(upstream.url()).config("directory: { password: unused }");
    let doorward = builder.start().await;
    let token = sign_in(&doorward, &idp, "user_alice").await;
    doorward.client().get("/").bearer(&token).send().await;
    let text = doorward.admin_get("/metrics").await.text();
    promtool_check(&text);
    let ours: BTreeSet<String> = contract(&text).into_iter().filter(|line| line.starts_with("doorward_")).collect();
    let expected: BTreeSet<String> = CONTRACT.lines().map(str::to_owned).collect();
    let (missing, new) = (expected.difference(&ours), ours.difference(&expected));
    assert!(ours == expected, "missing {:#?}, new {:#?}", missing.collect::<Vec<_>>(), new.collect::<Vec<_>>());
    assert!(text.contains("\nprocess_open_fds "), "the process's own metrics are there");
}

#[tokio::test]
async fn every_closed_combination_is_at_zero_from_the_start() {
    let (redis, idp) = (Redis::start().await, Idp::start().await);
    let embedded = Doorward::builder().idp(&idp).start().await;
    let shared = Doorward::builder().idp(&idp).store(&redis.url()).start().await;
    for (doorward, backend) in [(embedded, "sqlite"), (shared, "redis")] {
        for series in [
            format!("store_operations_total{{backend=\"{backend}\",op=\"create\",result=\"ok\"}}"),
            format!("store_operations_total{{backend=\"{backend}\",op=\"end\",result=\"ok\"}}"),
        ] {
            assert!(Scrape::of(&doorward).await.value(&series).abs() < f64::EPSILON, "{series}");
        }
        let up = format!("store_up{{backend=\"{backend}\"}}");
        assert!(Scrape::of(&doorward).await.value(&up) >= 1.0, "{up}");
        let scrape = Scrape::of(&doorward).await;
        assert!(scrape.0.len() < 1_000, "{} series before any traffic", scrape.0.len());
        for (outcome, reason, principal) in DECISIONS {
            let labels = format!("outcome=\"{outcome}\",principal=\"{principal}\",reason=\"{reason}\"");
            let series = format!("auth_decisions_total{{{labels}}}");
            assert!(scrape.value(&series).abs() < f64::EPSILON, "{series}");
        }
        for series in [
            "auth_decision_duration_seconds_count{source=\"cache\"}",
            "auth_decision_duration_seconds_count{source=\"none\"}",
            "auth_decision_duration_seconds_count{source=\"stale\"}",
            "auth_decision_duration_seconds_count{source=\"store\"}",
            "bootstrap_section_duration_seconds_count{section=\"profile\"}",
            "bootstrap_sections_total{outcome=\"ok\",section=\"secrets\"}",
            "bootstrap_sections_total{outcome=\"timed_out\",section=\"profile\"}",
            "bootstrap_sections_total{outcome=\"unavailable\",section=\"subscription\"}",
            "http_requests_in_flight{handler=\"proxy\"}",
            "identity_headers_stripped_total{header=\"x-client-id\"}",
            "identity_headers_stripped_total{header=\"x-user-id\"}",
            "invalidation_resyncs_total{reason=\"heartbeat\"}",
            "jwks_unknown_kid_total{provider=\"clerk\"}",
            "login_attempts_total{method=\"anonymous\",outcome=\"success\"}",
            "login_attempts_total{method=\"clerk\",outcome=\"success\"}",
            "panics_total",
            "rate_limited_total{limit=\"anonymous\"}",
            "rate_limited_total{limit=\"exchange\"}",
            "session_cache_evictions_total{cause=\"expired\"}",
            "session_cache_evictions_total{cause=\"size\"}",
            "session_cache_requests_total{result=\"hit\"}",
            "session_cache_requests_total{result=\"miss\"}",
            "session_cache_requests_total{result=\"negative\"}",
            "session_cache_requests_total{result=\"stale\"}",
            "sessions_created_total{kind=\"anonymous\",method=\"anonymous\"}",
            "sessions_created_total{kind=\"user\",method=\"clerk\"}",
            "sessions_revoked_total{reason=\"admin\"}",
            "sessions_revoked_total{reason=\"evicted\"}",
            "sessions_revoked_total{reason=\"logout\"}",
            "sessions_revoked_total{reason=\"principal\"}",
            "streams_cut_total{reason=\"expired\"}",
            "streams_cut_total{reason=\"revoked\"}",
            "streams_cut_total{reason=\"store_unavailable\"}",
            "upstream_errors_total{kind=\"connect\"}",
            "upstream_errors_total{kind=\"protocol\"}",
            "upstream_errors_total{kind=\"reset\"}",
            "upstream_errors_total{kind=\"timeout\"}",
            "upstream_errors_total{kind=\"tls\"}",
        ] {
            assert!(scrape.value(series).abs() < f64::EPSILON, "{series}");
        }
        for series in ["config_last_reload_success_timestamp_seconds", "config_last_reload_successful"] {
            assert!(scrape.value(series) >= 1.0, "{series}");
        }
    }
}

#[tokio::test]
async fn counters_move_as_they_should_and_name_nobody() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    let doorward = Doorward::builder()
        .idp(&idp)
        .upstream(upstream.url())
        .config(
            "routes: [{ id: open, path: /open, auth: none }, { id: members, path: /members, auth: required, allow_anonymous: false }, { id: admins, path: /admins, auth: required, require_any_role: [admin] }, { id: rest, path: '/**', auth: required }]",
        )
        .start()
        .await;
    let client = doorward.client();
    let guest = client.post("/auth/anonymous").json(&serde_json::json!({"device_id": "device-canary-1"})).send().await;
    let guest = guest.json()["token"].as_str().expect("a token").to_owned();
    let token = sign_in(&doorward, &idp, "user_canary").await;
    let ask = async |path: &str, token: &str| client.get(path).bearer(token).send().await.status;
    assert_eq!([ask("/", &token).await, ask("/", &token).await, ask("/", &guest).await], [200; 3]);
    assert_eq!([ask("/members", &guest).await, ask("/admins", &token).await], [403; 2]);
    assert_eq!(client.get("/").send().await.status, 401);
    assert_eq!([ask("/", "dw_canary").await, ask("/a/%2e%2e/b", &token).await], [401, 400]);
    assert_eq!(client.get("/open").header("x_user_id", "root-canary").send().await.status, 200);
    upstream.respond("/garbage", "this is not HTTP\r\n\r\n");
    assert_eq!(ask("/garbage", &token).await, 502);
    let mut events = client.get("/sse").bearer(&token).stream().await;
    assert!(events.next().await.is_some());
    assert_eq!(client.delete("/auth/session").bearer(&token).send().await.status, 200);
    assert!(!events.ended().await, "the stream is cut");
    assert_eq!([ask("/", &token).await, ask("/", &token).await], [401; 2]);

    let idle = async || {
        let scrape = Scrape::of(&doorward).await;
        let busy = scrape.value("http_requests_in_flight{handler=\"proxy\"}") + scrape.value("downstream_connections");
        (busy < 0.5).then_some(scrape)
    };
    let scrape = eventually("everything to be over", idle).await;
    for (series, expected) in [
        ("auth_decisions_total{outcome=\"allow\",principal=\"user\",reason=\"ok\"}", 4.0),
        ("auth_decisions_total{outcome=\"allow\",principal=\"anonymous\",reason=\"ok\"}", 1.0),
        ("auth_decisions_total{outcome=\"bypass\",principal=\"none\",reason=\"public_path\"}", 1.0),
        ("auth_decisions_total{outcome=\"deny\",principal=\"none\",reason=\"anonymous\"}", 1.0),
        ("auth_decisions_total{outcome=\"deny\",principal=\"none\",reason=\"role\"}", 1.0),
        ("auth_decisions_total{outcome=\"deny\",principal=\"none\",reason=\"missing_token\"}", 1.0),
        ("auth_decisions_total{outcome=\"deny\",principal=\"none\",reason=\"malformed\"}", 1.0),
        ("auth_decisions_total{outcome=\"deny\",principal=\"none\",reason=\"bad_request\"}", 1.0),
        ("auth_decisions_total{outcome=\"deny\",principal=\"none\",reason=\"revoked\"}", 2.0),
        ("identity_headers_stripped_total{header=\"x-user-id\"}", 1.0),
        ("login_attempts_total{method=\"anonymous\",outcome=\"success\"}", 1.0),
        ("login_attempts_total{method=\"clerk\",outcome=\"success\"}", 1.0),
        ("sessions_created_total{kind=\"anonymous\",method=\"anonymous\"}", 1.0),
        ("sessions_created_total{kind=\"user\",method=\"clerk\"}", 1.0),
        ("sessions_revoked_total{reason=\"logout\"}", 1.0),
        ("session_cache_requests_total{result=\"miss\"}", 2.0),
        ("streams_cut_total{reason=\"revoked\"}", 1.0),
        ("upstream_errors_total{kind=\"protocol\"}", 1.0),
        ("http_requests_total{code=\"200\",handler=\"proxy\",route=\"open\"}", 1.0),
        ("http_requests_total{code=\"403\",handler=\"proxy\",route=\"admins\"}", 1.0),
        ("http_requests_total{code=\"502\",handler=\"proxy\",route=\"rest\"}", 1.0),
    ] {
        let value = scrape.value(series);
        assert!((value - expected).abs() < f64::EPSILON, "{series} is {value}, not {expected}");
    }
    assert!(scrape.value("session_cache_requests_total{result=\"hit\"}") >= 4.0);
    assert!(scrape.0.len() < 2_000, "{} series", scrape.0.len());
    for secret in ["canary", token.as_str(), guest.as_str(), "127.0.0.1", "/members"] {
        let found: Vec<_> = scrape.0.keys().filter(|series| series.contains(secret)).collect();
        assert_eq!(found, Vec::<&String>::new());
    }
}

#[tokio::test]
async fn an_application_that_is_not_there_is_a_failed_connection() {
    let closed = format!("http://127.0.0.1:{}", free_port());
    for url in [closed.as_str(), "http://no-such-host.invalid"] {
        let routes = "routes: [{ path: '/**', auth: none }]";
        let doorward = Doorward::builder().upstream(url).config(routes).start().await;
        assert_eq!(doorward.client().get("/").send().await.status, 502, "{url}");
        eventually("the failure to be counted", async || {
            let count = Scrape::of(&doorward).await.value("upstream_errors_total{kind=\"connect\"}");
            ((count - 1.0).abs() < f64::EPSILON).then_some(())
        })
        .await;
    }
}

/// Starts a Prometheus that scrapes `doorward` all the time, and keeps exemplars.
fn scraping(doorward: &Doorward) -> Prometheus {
    let (target, directory) = (doorward.admin_addr(), TempDir::new("prometheus"));
    let scrape = format!("{{ job_name: doorward, static_configs: [{{ targets: ['{target}'] }}] }}");
    let yaml = format!("global: {{ scrape_interval: 200ms, scrape_timeout: 200ms }}\nscrape_configs: [{scrape}]\n");
    std::fs::write(directory.join(CONFIG), yaml).expect("the directory is writable");
    Prometheus::start(directory, &["--enable-feature=exemplar-storage"])
}

async fn asked(prometheus: &Prometheus, path: &str) -> Option<serde_json::Value> {
    let answer = prometheus.client().get(path).try_send().await.ok().filter(|answer| answer.status == 200)?;
    Some(answer.json()["data"].clone())
}

#[tokio::test]
async fn a_real_prometheus_scrapes_it() {
    let upstream = Upstream::start().await;
    let routes = "routes: [{ path: '/**', auth: none }]";
    let doorward = Doorward::builder().upstream(upstream.url()).config(routes).start().await;
    assert_eq!(doorward.client().get("/").send().await.status, 200);
    let prometheus = scraping(&doorward);
    for (query, expected) in [
        ("up", "1"),
        ("doorward_http_requests_total%7Bhandler%3D%22proxy%22%2Ccode%3D%22200%22%7D", "1"),
        ("doorward_auth_decisions_total%7Boutcome%3D%22bypass%22%7D", "1"),
    ] {
        eventually(&format!("Prometheus to know {query}"), async || {
            let data = asked(&prometheus, &format!("/api/v1/query?query={query}")).await?;
            (data["result"][0]["value"][1] == expected).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_real_prometheus_finds_the_trace_behind_a_bucket() {
    let collector = Collector::start().await;
    let traces = format!("telemetry: {{ traces: {{ endpoint: '{}', sample: 1 }} }}", collector.url());
    let stage = Stage::start(&traces).await;
    let before = stage.doorward.admin_get("/metrics").await;
    assert_eq!(before.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let asked_it = stage.request("GET /x", &[stage.user_field()]).await;
    let id = asked_it.response.as_ref().and_then(|answer| answer.header("x-request-id")).expect("every answer has one");
    let (server, _) = collector.exchange(|span| span.is_of(id)).await;
    let prometheus = scraping(&stage.doorward);
    for (metric, labels) in [
        ("http_request_duration_seconds", "route%3D%22route-7%22"),
        ("auth_decision_duration_seconds", "source%3D%22store%22"),
    ] {
        let query = format!("doorward_{metric}_bucket%7B{labels}%7D");
        let found = eventually(&format!("an exemplar of {metric}"), async || {
            // Whatever was scraped until now, and a good while longer.
            let range = "start=2020-01-01T00:00:00Z&end=2100-01-01T00:00:00Z";
            let data = asked(&prometheus, &format!("/api/v1/query_exemplars?query={query}&{range}")).await?;
            data[0]["exemplars"][0]["labels"]["trace_id"].as_str().map(str::to_owned)
        })
        .await;
        assert_eq!(found, server.trace, "{metric}");
    }
    let open = Client::new(stage.doorward.admin_addr()).get("/metrics");
    let open = open.header("accept", "application/openmetrics-text; version=1.0.0").send().await;
    assert_eq!(open.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(open.text().ends_with("\n# EOF\n"));
    assert!(!stage.doorward.admin_get("/metrics").await.text().contains(" # {"), "the other format knows no exemplars");
}
