//! What rules and dashboards ask for is what the binary exposes.

use std::collections::{BTreeMap, BTreeSet};

use super::files::{rules, runbook_queries, targets};
use super::promql::{Selector, excludes, selectors};
use crate::support::client::Client;
use crate::support::doorward::Doorward;
use crate::support::idp::Idp;
use crate::support::redis::Redis;
use crate::support::tls::Authority;
use crate::support::upstream::Upstream;

/// What Prometheus puts on every series of a target.
const TARGET_LABELS: [&str; 3] = ["job", "instance", "namespace"];

/// The label values of one series name, by label.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// Series names of an exposition.
struct Exposed(BTreeMap<String, Labels>);

impl Exposed {
    fn read(text: &str) -> Self {
        let mut names: BTreeMap<String, Labels> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, _) = line.rsplit_once(' ').expect("a series has a value");
            let (name, pairs) = series.split_once('{').unwrap_or((series, ""));
            let labels = names.entry(name.to_owned()).or_default();
            for pair in pairs.trim_end_matches('}').split_terminator("\",").filter(|pair| !pair.is_empty()) {
                let (label, value) = pair.split_once("=\"").expect("a label has a value");
                labels.entry(label.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
            }
        }
        Self(names)
    }

    /// Adds what rules and Prometheus itself make.
    fn with_made_series(mut self) -> Self {
        let values = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect::<BTreeSet<_>>();
        for rule in rules().iter().filter(|rule| !rule.alert) {
            self.0.insert(rule.name.clone(), Labels::new());
        }
        let alerts = rules().iter().filter(|rule| rule.alert).map(|rule| rule.name.clone()).collect();
        let alerts = [
            ("alertname", alerts),
            ("alertstate", values(&["pending", "firing"])),
            ("severity", values(&["warning", "critical"])),
        ];
        self.0.insert("ALERTS".to_owned(), alerts.map(|(label, values)| (label.to_owned(), values)).into());
        self.0.insert("up".to_owned(), Labels::new());
        self
    }

    /// Says what is wrong with a selector, if anything is.
    fn complaint(&self, selector: &Selector) -> Option<String> {
        let Some(labels) = self.0.get(&selector.name) else { return Some("no such series".to_owned()) };
        for matcher in selector.matchers.iter().filter(|matcher| !TARGET_LABELS.contains(&matcher.name.as_str())) {
            let Some(values) = labels.get(&matcher.name) else { return Some(format!("no label {}", matcher.name)) };
            // What is excluded must be there too: or it excludes nothing.
            let chosen = values.iter().filter(|value| matcher.is_match(value)).count();
            if chosen == 0 || (excludes(matcher) && chosen == values.len()) {
                return Some(format!("{matcher} chooses {chosen} of {values:?}"));
            }
        }
        let missing = selector
            .kept
            .iter()
            .find(|label| !TARGET_LABELS.contains(&label.as_str()) && !labels.contains_key(label.as_str()));
        missing.map(|label| format!("no label {label} to keep"))
    }
}

/// Returns what a gateway exposes that has everything configured and has seen a little traffic.
async fn exposed() -> Exposed {
    let (redis, idp, upstream) = (Redis::start().await, Idp::start().await, Upstream::start().await);
    let directory = crate::support::temp::TempDir::new("contract");
    let authority = Authority::new();
    let (cert, key) = authority.identity(&["localhost"]).write(directory.path());
    let tls = format!("tls: {{ cert: '{}', key: '{}' }}", cert.display(), key.display());
    let builder = Doorward::builder().store(&redis.url()).idp(&idp).upstream(upstream.url());
    let doorward = builder.config(&tls).start().await;
    let plain = Doorward::builder().store(&redis.url()).idp(&idp).upstream(upstream.url()).start().await;
    assert_eq!(plain.client().get("/").send().await.status, 401);
    let mut text = String::new();
    for replica in [&doorward, &plain] {
        text += &Client::new(replica.admin_addr()).get("/metrics").send().await.text();
    }
    Exposed::read(&text).with_made_series()
}

#[tokio::test]
async fn rules_dashboards_and_runbooks_ask_for_series_and_labels_that_exist() {
    let exposed = exposed().await;
    let queries = targets().into_iter().map(|target| (target.place, target.expr));
    let queries = queries.chain(rules().into_iter().map(|rule| (rule.name, rule.expr)));
    let queries: Vec<(String, String)> = queries.chain(runbook_queries()).collect();
    assert!(queries.len() > 120, "{} queries were found", queries.len());
    let mut complaints = Vec::new();
    for (place, expr) in &queries {
        for selector in selectors(place, expr) {
            complaints.extend(exposed.complaint(&selector).map(|why| format!("{place}: {}: {why}", selector.name)));
        }
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[tokio::test]
async fn what_does_not_exist_is_noticed() {
    let exposed = exposed().await;
    for (expr, why) in [
        ("doorward_no_such_thing", "no such series"),
        ("doorward_store_up{shard='1'}", "no label shard"),
        ("doorward_auth_decisions_total{outcome='denied'}", "outcome=\"denied\" chooses 0 of"),
        ("doorward_auth_decisions_total{outcome=~'deny|allow'}", ""),
        ("doorward_auth_decisions_total{outcome!='denied'}", "outcome!=\"denied\" chooses 4 of"),
        ("sum by (route) (doorward_auth_decisions_total)", "no label route to keep"),
        ("sum by (job, reason) (doorward_auth_decisions_total)", ""),
    ] {
        let said = exposed.complaint(&selectors("a test", expr)[0]).unwrap_or_default();
        assert!(if why.is_empty() { said.is_empty() } else { said.starts_with(why) }, "{expr}: {said}");
    }
}
