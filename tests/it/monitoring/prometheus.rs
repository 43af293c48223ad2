//! A real Prometheus with our rules and our way of finding replicas, in a hurry.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::files::{list, rules_file, text};
use super::path;
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::prometheus::{CONFIG, Prometheus as Process};
use crate::support::temp::TempDir;

/// How much sooner than in production an alert that is pending fires. Windows are as they are.
const HURRY: u32 = 120;

/// A running Prometheus; it ends on drop.
pub(super) struct Prometheus(Process);

/// One series of an answer.
#[derive(Debug)]
pub(super) struct Series {
    /// Its labels.
    pub(super) labels: Value,
    /// Its values, from the first to the last.
    pub(super) values: Vec<f64>,
}

impl Prometheus {
    /// Starts one that scrapes `replicas` as pods of `web/shop`, and waits until it has.
    pub(super) async fn start(replicas: &[&Doorward]) -> Self {
        let directory = TempDir::new("prometheus");
        let write = |name: &str, content: &Value| {
            std::fs::write(directory.join(name), content.to_string()).expect("the directory is writable");
        };
        // JSON is YAML too.
        write("rules.yaml", &hurried(rules_file()));
        let mut hashes = Vec::new();
        for replica in replicas {
            hashes.push(config_hash(replica).await);
        }
        write(CONFIG, &scrape_config(&hashes));
        find(&directory, replicas);
        let prometheus = Self(Process::start(directory, &[]));
        prometheus.until(&format!("sum(up{{namespace='web', job='shop'}}) == {}", replicas.len())).await;
        prometheus
    }

    /// From now on scrapes these.
    pub(super) fn find(&self, replicas: &[&Doorward]) {
        find(self.0.directory(), replicas);
    }

    /// Returns what a query gives now.
    pub(super) async fn query(&self, query: &str) -> Vec<Series> {
        self.try_query(query).await.unwrap_or_else(|said| panic!("{query}: {said}"))
    }

    /// Returns what a query gave second by second since `start`, a Unix time.
    pub(super) async fn history(&self, query: &str, start: f64) -> Vec<Series> {
        let end = self.query("vector(time())").await[0].values[0];
        let step = "1".to_owned();
        let parameters =
            [("query", query.to_owned()), ("start", start.to_string()), ("end", end.to_string()), ("step", step)];
        let found = self.get("/api/v1/query_range", &parameters).await;
        found.unwrap_or_else(|said| panic!("{query}: {said}"))
    }

    /// Waits until a query gives anything.
    pub(super) async fn until(&self, query: &str) {
        eventually(&format!("Prometheus to find {query}"), async || {
            // It may not listen yet.
            self.try_query(query).await.is_ok_and(|found| !found.is_empty()).then_some(())
        })
        .await;
    }

    /// Waits until an alert of the shop fires.
    pub(super) async fn until_fires(&self, alert: &str) {
        self.until(&format!("ALERTS{{alertname='{alert}', alertstate='firing', namespace='web', job='shop'}}")).await;
    }

    /// Waits until an alert does not fire any more.
    pub(super) async fn until_silent(&self, alert: &str) {
        self.until(&format!("absent(ALERTS{{alertname='{alert}', alertstate='firing'}})")).await;
    }

    /// Returns the alerts that have fired until now.
    pub(super) async fn fired(&self) -> BTreeSet<String> {
        let found = self.query("count by (alertname) (count_over_time(ALERTS{alertstate='firing'}[1h]))").await;
        found.iter().map(|series| text(&series.labels["alertname"]).to_owned()).collect()
    }

    /// Returns the rules, each with its health.
    pub(super) async fn rules(&self) -> Vec<Value> {
        let answer = self.0.client().get("/api/v1/rules").send().await.json();
        let groups = list(&answer["data"]["groups"]).iter();
        groups.flat_map(|group| list(&group["rules"])).cloned().collect()
    }

    async fn try_query(&self, query: &str) -> Result<Vec<Series>, String> {
        self.get("/api/v1/query", &[("query", query.to_owned())]).await
    }

    async fn get(&self, api: &str, parameters: &[(&str, String)]) -> Result<Vec<Series>, String> {
        let url = reqwest::Url::parse_with_params("http://prometheus", parameters).expect("it is a URL");
        let path = format!("{api}?{}", url.query().unwrap_or_default());
        let answer = self.0.client().get(&path).try_send().await.map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(answer.text());
        }
        Ok(list(&answer.json()["data"]["result"]).iter().map(series).collect())
    }
}

fn series(json: &Value) -> Series {
    let number = |sample: &Value| text(&sample[1]).parse().expect("a number");
    let values = match &json["values"] {
        Value::Null => vec![number(&json["value"])],
        values => list(values).iter().map(number).collect(),
    };
    Series { labels: json["metric"].clone(), values }
}

/// Writes down what Kubernetes would say of these pods.
fn find(directory: &TempDir, replicas: &[&Doorward]) {
    let pod = |replica: &&Doorward| {
        let labels = json!({
            "__meta_kubernetes_namespace": "web",
            "__meta_kubernetes_pod_name": format!("shop-{}", replica.admin_addr().port()),
            "__meta_kubernetes_pod_phase": "Running",
            "__meta_kubernetes_pod_label_app_kubernetes_io_name": "shop",
            "__meta_kubernetes_pod_container_name": "doorward",
            "__meta_kubernetes_pod_container_port_number": "9090",
        });
        json!({ "targets": [replica.admin_addr()], "labels": labels })
    };
    let other = json!({
        "targets": ["127.0.0.1:1"],
        "labels": { "__meta_kubernetes_namespace": "web", "__meta_kubernetes_pod_container_name": "app" },
    });
    let pods: Vec<Value> = replicas.iter().map(pod).chain([other]).collect();
    // In one step: Prometheus may look at any time.
    let new = directory.join("pods.new");
    std::fs::write(&new, json!(pods).to_string()).expect("the directory is writable");
    std::fs::rename(new, directory.join("pods.json")).expect("a rename is one step");
}

async fn config_hash(replica: &Doorward) -> String {
    let text = replica.admin_get("/metrics").await.text();
    let hash = text.lines().find_map(|line| line.strip_prefix("doorward_config_info{hash=\"")?.strip_suffix("\"} 1"));
    hash.expect("a configuration has a hash").to_owned()
}

/// Returns the example's configuration with a file in the place of Kubernetes, looking every second.
///
/// Replicas on one machine listen on ports of their own, and that alone makes their configurations
/// differ: these hashes are taken for one.
fn scrape_config(hashes: &[String]) -> Value {
    let example = std::fs::read_to_string(path("deploy/prometheus/scrape.yaml")).expect("it is in the tree");
    let mut config: Value = serde_saphyr::from_str(&example).expect("it is YAML");
    config["global"] = json!({ "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "500ms" });
    let [scrape] = config["scrape_configs"].as_array_mut().expect("a list").as_mut_slice() else {
        panic!("one scrape");
    };
    let scrape = scrape.as_object_mut().expect("an object");
    assert_eq!(scrape.remove("kubernetes_sd_configs"), Some(json!([{ "role": "pod" }])));
    let same = json!({
        "source_labels": ["hash"], "regex": hashes.join("|"), "target_label": "hash", "replacement": "first",
    });
    scrape.insert("metric_relabel_configs".to_owned(), json!([same]));
    scrape.insert("file_sd_configs".to_owned(), json!([{ "files": ["pods.json"], "refresh_interval": "1s" }]));
    config
}

/// Returns the rules with every `for` so much shorter.
fn hurried(mut rules: Value) -> Value {
    let groups = rules["groups"].as_array_mut().expect("a list").iter_mut();
    for rule in groups.flat_map(|group| group["rules"].as_array_mut().expect("a list")) {
        if let Some(hold) = rule.get_mut("for") {
            let whole = humantime::parse_duration(text(hold)).expect("a duration");
            let short: Duration = whole / HURRY;
            *hold = json!(format!("{}ms", short.as_millis()));
        }
    }
    rules
}
