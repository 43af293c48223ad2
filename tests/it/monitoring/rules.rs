//! Rules are valid, tested, and explained.

use std::collections::BTreeSet;

use super::files::{RULES, list, rules, text};
use super::{path, promtool};

const TESTS: &str = "deploy/prometheus/rules_test.yaml";
const RUNBOOKS: &str = "docs/runbooks";

/// Returns `DoorwardStoreUnreachable` as `doorward-store-unreachable`.
fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.push(letter.to_ascii_lowercase());
    }
    kebab
}

#[test]
fn promtool_has_no_complaint_about_the_rules() {
    let (content, said) = promtool(&["check", "rules", "--lint=all", "--lint-fatal"], &path(RULES));
    assert!(content, "{said}");
    let count = format!("SUCCESS: {} rules found", rules().len());
    assert!(said.contains(&count), "{said}");
}

#[test]
fn the_unit_tests_of_the_rules_pass() {
    let (content, said) = promtool(&["test", "rules"], &path(TESTS));
    assert!(content, "{said}");
}

#[test]
fn every_alert_has_a_case_that_fires_and_one_that_does_not() {
    let tests = std::fs::read_to_string(path(TESTS)).expect("the tests are in the tree");
    let tests: serde_json::Value = serde_saphyr::from_str(&tests).expect("the tests are YAML");
    let cases = list(&tests["tests"]).iter();
    let cases: Vec<_> = cases.filter_map(|test| test["alert_rule_test"].as_array()).flatten().collect();
    for alert in rules().iter().filter(|rule| rule.alert) {
        let own: Vec<_> = cases.iter().filter(|case| case["alertname"] == alert.name).collect();
        assert!(own.iter().any(|case| !list(&case["exp_alerts"]).is_empty()), "{}: none fires", alert.name);
        assert!(own.iter().any(|case| list(&case["exp_alerts"]).is_empty()), "{}: none is silent", alert.name);
    }
    let text = tests.to_string();
    for record in rules().iter().filter(|rule| !rule.alert) {
        assert!(text.contains(&record.name), "{} has no value", record.name);
    }
}

#[test]
fn every_rule_says_what_whoever_is_woken_needs_to_know() {
    let all = rules();
    assert_eq!(all.iter().filter(|rule| !rule.alert).count(), 7);
    let names: BTreeSet<&str> = all.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names.len(), all.len(), "each name once");
    for rule in &all {
        if !rule.alert {
            let parts: Vec<&str> = rule.name.split(':').collect();
            assert!(matches!(parts[..], [_, metric, _] if metric.starts_with("doorward_")), "{}", rule.name);
            continue;
        }
        assert!(rule.name.starts_with("Doorward"), "{}", rule.name);
        let severity = text(&rule.json["labels"]["severity"]);
        assert!(["critical", "warning"].contains(&severity), "{}: {severity}", rule.name);
        for key in ["summary", "description"] {
            assert!(text(&rule.json["annotations"][key]).len() > 20, "{}: {key}", rule.name);
        }
        let url = text(&rule.json["annotations"]["runbook_url"]);
        assert!(url.ends_with(&format!("/{RUNBOOKS}/{}.md", kebab(&rule.name))), "{}: {url}", rule.name);
    }
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let alerts: BTreeSet<String> = rules().iter().filter(|rule| rule.alert).map(|rule| kebab(&rule.name)).collect();
    let files = std::fs::read_dir(path(RUNBOOKS)).expect("the runbooks are in the tree");
    let names = files.map(|file| file.expect("the directory is readable").file_name().to_string_lossy().into_owned());
    let pages: BTreeSet<String> =
        names.filter(|name| name != "README.md").map(|name| name.trim_end_matches(".md").to_owned()).collect();
    assert_eq!(pages, alerts);
    let index = std::fs::read_to_string(path(&format!("{RUNBOOKS}/README.md"))).expect("there is an index");
    for rule in rules().iter().filter(|rule| rule.alert) {
        let file = format!("{}.md", kebab(&rule.name));
        assert!(index.contains(&format!("[{}]({file})", rule.name)), "the index leads to {file}");
        let page = std::fs::read_to_string(path(&format!("{RUNBOOKS}/{file}"))).expect("it is text");
        assert!(page.starts_with(&format!("# {}\n", rule.name)), "{file} is about {}", rule.name);
        for part in ["Callers", "Confirm", "Causes", "Do", "Escalate", "Do not"] {
            assert!(page.contains(&format!("\n## {part}\n")), "{file}: {part}");
        }
    }
}
