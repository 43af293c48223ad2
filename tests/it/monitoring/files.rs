//! Rules and dashboards as Prometheus and Grafana read them.

use serde_json::Value;

use super::path;

/// Where the rules are.
pub(super) const RULES: &str = "deploy/prometheus/rules.yaml";

/// A recording rule or an alert.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// The recorded name, or the alert's.
    pub(super) name: String,
    /// Whether it is an alert.
    pub(super) alert: bool,
    /// The expression.
    pub(super) expr: String,
    /// All that stands in the file.
    pub(super) json: Value,
}

/// A dashboard.
pub(super) struct Dashboard {
    /// The file's name without `.json`.
    pub(super) name: String,
    /// All that stands in the file.
    pub(super) json: Value,
}

/// One query of a panel.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Dashboard, panel and letter, for messages.
    pub(super) place: String,
    /// The query, with Grafana's variables.
    pub(super) expr: String,
    /// How its series are called.
    pub(super) legend: String,
}

impl Dashboard {
    /// Returns all three.
    pub(super) fn all() -> Vec<Self> {
        let directory = std::fs::read_dir(path("deploy/grafana")).expect("the dashboards are in the tree");
        let mut all: Vec<Self> = directory
            .map(|entry| {
                let file = entry.expect("the directory is readable").path();
                assert!(file.extension().is_some_and(|extension| extension == "json"), "{}", file.display());
                let name = file.file_stem().expect("it has a name").to_string_lossy().into_owned();
                let text = std::fs::read_to_string(&file).expect("it is text");
                let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
                Self { name, json }
            })
            .collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        let names: Vec<&str> = all.iter().map(|dashboard| dashboard.name.as_str()).collect();
        assert_eq!(names, ["guard", "overview", "sessions"]);
        all
    }

    /// Returns its panels, rows left out.
    pub(super) fn panels(&self) -> Vec<&Value> {
        list(&self.json["panels"]).iter().filter(|panel| panel["type"] != "row").collect()
    }

    /// Returns the queries of its panels.
    pub(super) fn targets(&self) -> Vec<Target> {
        let of = |panel: &Value| {
            let place = format!("{} / {}", self.name, text(&panel["title"]));
            let target = |target: &Value| Target {
                place: format!("{place} / {}", text(&target["refId"])),
                expr: text(&target["expr"]).to_owned(),
                legend: text(&target["legendFormat"]).to_owned(),
            };
            list(&panel["targets"]).iter().map(target).collect::<Vec<_>>()
        };
        self.panels().into_iter().flat_map(of).collect()
    }
}

/// Returns the queries of all dashboards.
pub(super) fn targets() -> Vec<Target> {
    Dashboard::all().iter().flat_map(Dashboard::targets).collect()
}

/// Returns the queries that runbooks tell their readers to make, each with its page.
pub(super) fn runbook_queries() -> Vec<(String, String)> {
    let files = std::fs::read_dir(path("docs/runbooks")).expect("the runbooks are in the tree");
    let mut queries = Vec::new();
    for file in files.map(|file| file.expect("the directory is readable").path()) {
        let text = std::fs::read_to_string(&file).expect("it is text");
        let blocks = text.split("```promql\n").skip(1).filter_map(|rest| rest.split("\n```").next());
        queries.extend(blocks.map(|query| (file.display().to_string(), query.to_owned())));
    }
    queries
}

/// Returns the rules' file.
pub(super) fn rules_file() -> Value {
    let text = std::fs::read_to_string(path(RULES)).expect("the rules are in the tree");
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{RULES}: {error}"))
}

/// Returns all rules, in the file's order.
pub(super) fn rules() -> Vec<Rule> {
    let file = rules_file();
    let rules = list(&file["groups"]).iter().flat_map(|group| list(&group["rules"]));
    let rule = |json: &Value| {
        let alert = json["record"].is_null();
        let name = text(&json[if alert { "alert" } else { "record" }]).to_owned();
        Rule { name, alert, expr: text(&json["expr"]).to_owned(), json: json.clone() }
    };
    rules.map(rule).collect()
}

/// Returns the elements of an array; anything else fails the test.
#[track_caller]
pub(super) fn list(json: &Value) -> &[Value] {
    json.as_array().unwrap_or_else(|| panic!("{json} is no list"))
}

/// Returns a text; anything else fails the test.
#[track_caller]
pub(super) fn text(json: &Value) -> &str {
    json.as_str().unwrap_or_else(|| panic!("{json} is no text"))
}
