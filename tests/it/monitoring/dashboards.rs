//! The rules of Grafana's dashboard linter, and those of loading dashboards from files.
//!
//! One exception to the linter: a series that a rule makes has no instance, so its query needs none.

use std::collections::BTreeSet;

use promql_parser::label::MatchOp;
use serde_json::{Value, json};

use super::files::{Dashboard, list, targets, text};
use super::promql::{RANGE, RATE_INTERVAL, Selector, selectors};

/// The source of every panel, variable and query.
fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// Returns what a grid position covers: columns and rows, each from and to.
fn area(panel: &Value) -> [u64; 4] {
    let at = |key: &str| panel["gridPos"][key].as_u64().expect("a position in the grid");
    [at("x"), at("x") + at("w"), at("y"), at("y") + at("h")]
}

fn overlap(one: [u64; 4], other: [u64; 4]) -> bool {
    one[0] < other[1] && other[0] < one[1] && one[2] < other[3] && other[2] < one[3]
}

/// Returns whether rules make the series: recorded ones and alerts have no instance of their own.
fn is_made_by_rules(name: &str) -> bool {
    name.contains(':') || name == "ALERTS"
}

fn has_matcher(selector: &Selector, label: &str) -> bool {
    let variable = format!("${label}");
    let fits = |op: &MatchOp, value: &str| matches!(op, MatchOp::Re(_)) && value == variable;
    selector.matchers.iter().any(|matcher| matcher.name == label && fits(&matcher.op, &matcher.value))
}

#[test]
fn a_dashboard_can_be_loaded_from_its_file_again_and_again() {
    let mut seen = BTreeSet::new();
    for Dashboard { name, json } in &Dashboard::all() {
        assert_eq!(json["uid"], format!("doorward-{name}"), "a link to it stays good");
        assert!(json["id"].is_null(), "{name}: ids are the database's");
        assert_eq!(json["editable"], false, "{name}: what is edited is lost at the next load");
        assert!(text(&json["title"]).starts_with("Doorward / "), "{name}");
        assert!(text(&json["description"]).len() > 20, "{name}");
        assert!(list(&json["tags"]).contains(&json!("doorward")), "{name}");
        assert!(json["schemaVersion"].as_u64().is_some_and(|version| version >= 36), "{name}");
        assert!(seen.insert(text(&json["title"]).to_owned()), "{name}");
    }
}

#[test]
fn source_job_and_instance_are_chosen_from_what_there_is() {
    for Dashboard { name, json } in &Dashboard::all() {
        let variables = list(&json["templating"]["list"]);
        let names: Vec<&str> = variables.iter().map(|variable| text(&variable["name"])).collect();
        assert_eq!(names, ["datasource", "job", "instance"], "{name}");
        let [source_variable, queries @ ..] = variables else { panic!("{name}: no variables") };
        assert_eq!((&source_variable["type"], &source_variable["query"]), (&json!("datasource"), &json!("prometheus")));
        for variable in queries {
            let label = text(&variable["name"]);
            let place = format!("{name}: ${label}");
            assert_eq!(variable["type"], "query", "{place}");
            assert_eq!(variable["datasource"], source(), "{place}");
            assert_eq!((&variable["multi"], &variable["includeAll"]), (&json!(true), &json!(true)), "{place}");
            assert_eq!(variable["allValue"], ".+", "{place}");
            assert_eq!(variable["refresh"], 2, "{place}: looked up again when the time changes");
            assert!(!text(&variable["label"]).is_empty(), "{place}");
            let query = text(&variable["query"]["query"]);
            let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (series, of) = inner.and_then(|inner| inner.rsplit_once(", ")).expect("label_values(series, label)");
            assert_eq!(of, label, "{place}");
            let [asked] = &selectors(&place, series)[..] else { panic!("{place}: one series") };
            assert!(label == "job" || has_matcher(asked, "job"), "{place}: of the chosen jobs");
        }
    }
}

#[test]
fn panels_say_what_they_show_and_do_not_cover_each_other() {
    for dashboard in &Dashboard::all() {
        let name = &dashboard.name;
        let all = list(&dashboard.json["panels"]);
        let ids: BTreeSet<u64> = all.iter().map(|panel| panel["id"].as_u64().expect("a number")).collect();
        assert_eq!(ids.len(), all.len(), "{name}: each id once");
        let titles: BTreeSet<&str> = all.iter().map(|panel| text(&panel["title"])).collect();
        assert_eq!(titles.len(), all.len(), "{name}: each title once");
        assert!(dashboard.panels().len() > 10, "{name}");
        for (number, panel) in all.iter().enumerate() {
            let place = format!("{name} / {}", text(&panel["title"]));
            let here = area(panel);
            assert!(here[1] <= 24 && here[0] < here[1] && here[2] < here[3], "{place}: {here:?}");
            let covered = all[..number].iter().find(|other| overlap(here, area(other)));
            assert!(covered.is_none(), "{place} covers {covered:?}");
        }
        for panel in dashboard.panels() {
            let place = format!("{name} / {}", text(&panel["title"]));
            assert!(!text(&panel["title"]).contains('$'), "{place}");
            assert!(text(&panel["description"]).len() > 20, "{place}: a description");
            assert!(["timeseries", "stat"].contains(&text(&panel["type"])), "{place}");
            let unit = text(&panel["fieldConfig"]["defaults"]["unit"]);
            assert!(
                ["none", "percentunit", "s", "bytes", "reqps", "ops", "cps"].contains(&unit),
                "{place}: unit {unit:?}"
            );
            assert_eq!(panel["datasource"], source(), "{place}");
            let queries = list(&panel["targets"]);
            assert!(!queries.is_empty(), "{place}: a query");
            let letters: BTreeSet<&str> = queries.iter().map(|target| text(&target["refId"])).collect();
            assert_eq!(letters.len(), queries.len(), "{place}: each letter once");
            for target in queries {
                assert_eq!(target["datasource"], source(), "{place}");
                assert!(!text(&target["legendFormat"]).is_empty(), "{place}: a legend");
            }
        }
    }
}

#[test]
fn alerts_are_marked_where_they_fired() {
    for Dashboard { name, json } in &Dashboard::all() {
        let own = list(&json["annotations"]["list"]).iter().filter(|mark| mark["builtIn"].is_null());
        let own: Vec<&Value> = own.collect();
        let [mark] = own[..] else { panic!("{name}: {own:?}") };
        assert_eq!(mark["datasource"], source(), "{name}");
        let [asked] = &selectors(name, text(&mark["expr"]))[..] else { panic!("{name}: one series") };
        assert!(asked.name == "ALERTS" && has_matcher(asked, "job"), "{name}: {asked:?}");
    }
}

#[test]
fn every_query_is_about_the_chosen_jobs_and_instances() {
    for target in targets() {
        for selector in selectors(&target.place, &target.expr) {
            assert!(has_matcher(&selector, "job"), "{}: {} of the chosen jobs", target.place, selector.name);
            let instance = is_made_by_rules(&selector.name) || has_matcher(&selector, "instance");
            assert!(instance, "{}: {} of the chosen instances", target.place, selector.name);
        }
    }
}

#[test]
fn counters_are_rates_over_an_interval_that_grafana_chooses() {
    const RATES: [&str; 3] = ["rate", "irate", "increase"];
    for target in targets() {
        for selector in selectors(&target.place, &target.expr) {
            let counts = ["_total", "_bucket", "_sum", "_count"].iter().any(|suffix| selector.name.ends_with(suffix));
            let around = selector.functions.last().map(String::as_str);
            let rated = around.is_some_and(|function| RATES.contains(&function));
            assert_eq!(counts, rated, "{}: {} in {around:?}", target.place, selector.name);
            let range = selector.range.is_none_or(|range| [RATE_INTERVAL, RANGE].contains(&range));
            assert!(range, "{}: {} over {:?}", target.place, selector.name, selector.range);
            let quantile = selector.functions.iter().any(|function| function == "histogram_quantile");
            let buckets = selector.name.ends_with("_bucket");
            assert_eq!(quantile, buckets, "{}: {}", target.place, selector.name);
            assert!(!buckets || selector.kept.iter().any(|label| label == "le"), "{}: le", target.place);
        }
    }
}
