//! What documents name is there: tests, keys of the configuration, other documents and their headings.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{documents, read, root};

/// What looks like a key and is a file.
const EXTENSIONS: [&str; 8] = [".db", ".yaml", ".yml", ".json", ".md", ".rs", ".sh", ".conf"];

/// What looks like a key and is a field of the audit stream.
const FIELDS: [&str; 1] = ["sessions.ended"];

/// Returns a document's text with its fenced blocks left out.
fn prose(text: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            kept.extend([line, "\n"]);
        }
    }
    kept
}

/// Returns what stands between backticks.
fn quoted(prose: &str) -> impl Iterator<Item = &str> {
    prose.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Returns the anchors that a document's headings get.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose = prose(text);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for (document, text) in documents() {
        let prose = prose(&text);
        let folder = root().join(&document).parent().expect("a file is in a folder").to_owned();
        for target in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split(" \"").next().unwrap_or_default();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { root().join(&document) } else { folder.join(file) };
            let there = file.exists();
            let is_document = file.extension().is_some_and(|extension| extension == "md");
            let found = anchor.is_empty()
                || !is_document
                || std::fs::read_to_string(&file).is_ok_and(|text| anchors(&text).contains(anchor));
            if !there || !found {
                broken.push(format!("{document}: {target}"));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn every_endpoint_is_documented() {
    let document = read("docs/configuration.md");
    let config =
        doorward::config::Config::load(&[], &std::collections::BTreeMap::new()).expect("the defaults are good");
    let served = doorward::api::mount::served(&config.config);
    assert!(served.len() > 7, "{served:?}");
    let told = |method: &http::Method, path: &str| document.contains(&format!("`{method} {path}`"));
    let missing: Vec<_> = served.iter().filter(|(method, path, _)| !told(method, path)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn tests_named_in_the_threat_model_exist() {
    let text = read("docs/security.md");
    let prose = prose(&text);
    let named: Vec<&str> = quoted(&prose).filter(|word| word.contains("::")).collect();
    assert!(named.len() > 20, "{named:?}");
    for test in named {
        let (module, name) = test.rsplit_once("::").expect("it has two parts");
        let file = |module: &str| format!("tests/it/{}.rs", module.replace("::", "/"));
        let whole = root().join(file(module)).exists();
        // What has no file a macro of its parent declares, by name.
        let source =
            if whole { file(module) } else { module.rsplit_once("::").map_or(file(module), |(up, _)| file(up)) };
        let source = read(&source);
        let declared = module.rsplit("::").next().is_some_and(|last| source.contains(&format!("!({last}: ")));
        assert!(whole || declared, "{test}");
        // A helper proves nothing: it has to be a test itself.
        let lines: Vec<&str> = source.lines().map(str::trim).collect();
        let is_test = |line: &str| line.starts_with("#[test") || line.starts_with("#[tokio::test");
        let at = lines.iter().position(|line| line.contains(&format!("fn {name}(")));
        let before = at.map(|at| lines.iter().take(at).rev().take_while(|line| line.starts_with("#[")));
        assert!(before.is_some_and(|mut before| before.any(|line| is_test(line))), "{test}");
    }
}

#[test]
fn keys_named_in_documents_exist() {
    let reference = read("docs/configuration.md");
    let rows = reference.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let known: BTreeSet<&str> = rows.collect();
    let defaults: Map<String, Value> = serde_saphyr::from_str(&read("conf/default.yaml")).expect("it is YAML");
    let sections: BTreeSet<&str> = defaults.keys().map(String::as_str).collect();
    let exists = |key: &str| {
        // Issuers are named by their operators.
        let issuer = key.strip_prefix("issuers.").and_then(|rest| rest.split_once('.'));
        let own = issuer.is_some_and(|(_, rest)| known.contains(format!("issuers.partner.{rest}").as_str()));
        let key = &issuer.map_or(key.to_owned(), |(_, rest)| format!("clerk.{rest}"));
        let below = [format!("{key}."), format!("{key}[]")];
        own || known.contains(key.as_str())
            || known.iter().any(|known| below.iter().any(|below| known.starts_with(below)))
    };
    let (mut seen, mut unknown) = (0, Vec::new());
    for (document, text) in documents().into_iter().filter(|(name, _)| !name.starts_with("docs/adr/")) {
        let prose = prose(&text);
        for word in quoted(&prose) {
            let key = word.split([':', ' ', '=']).next().unwrap_or_default();
            let dotted = key.split_once(['.', '[']).is_some_and(|(section, _)| sections.contains(section));
            let is_key = key.bytes().all(|byte| byte.is_ascii_lowercase() || b"_.[]".contains(&byte));
            if !dotted
                || !is_key
                || FIELDS.contains(&key)
                || EXTENSIONS.iter().any(|extension| key.ends_with(extension))
            {
                continue;
            }
            seen += 1;
            if !exists(key) {
                unknown.push(format!("{document}: {key}"));
            }
        }
    }
    assert!(seen > 100, "{seen}");
    assert_eq!(unknown, Vec::<String>::new());
}

#[test]
fn alerts_named_in_documents_exist() {
    let rules = read("deploy/prometheus/rules.yaml");
    let known: BTreeSet<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(known.len() > 10, "{known:?}");
    let mut unknown = Vec::new();
    for (document, text) in documents() {
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
        let is_alert = |word: &&str| {
            let rest = word.strip_prefix("Doorward").unwrap_or_default();
            rest.starts_with(|letter: char| letter.is_ascii_uppercase())
        };
        unknown.extend(
            words.filter(is_alert).filter(|word| !known.contains(word)).map(|word| format!("{document}: {word}")),
        );
    }
    assert_eq!(unknown, Vec::<String>::new());
}
