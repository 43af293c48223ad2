//! What the documents say exists.

mod blocks;
mod claims;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use doorward::telemetry::audit::Action;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns every file of the tree, build output left out.
fn tree() -> Vec<PathBuf> {
    let (mut files, mut directories) = (Vec::new(), vec![root().to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory of ours") {
            let path = entry.expect("a directory of ours").path();
            let skipped = path == root().join("target") || path == root().join(".git");
            if path.is_dir() && !skipped {
                directories.push(path);
            } else if path.is_file() && !skipped {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 50, "the tree was found");
    files
}

/// Returns every document of the tree by its path from the root, with its text.
fn documents() -> Vec<(String, String)> {
    let is_document = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "md");
    let named = |file: PathBuf| {
        let name = file.strip_prefix(root()).expect("a file of ours").display().to_string();
        let text = std::fs::read_to_string(&file).expect("a document is text");
        (name, text)
    };
    let documents: Vec<_> = tree().into_iter().filter(is_document).map(named).collect();
    assert!(documents.len() > 10, "the documents were found");
    documents
}

/// Returns the lines of all blocks of one language in a Markdown text.
fn block_lines(markdown: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let blocks = markdown.split(&fence).skip(1).filter_map(|rest| rest.split("\n```").next());
    blocks.flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn shell_blocks_of_the_readme_use_what_exists() {
    let lines = block_lines(&read("README.md"), "sh");
    assert!(lines.len() > 5, "{lines:?}");
    for line in lines {
        let line = line.split('#').next().unwrap_or_default().trim().to_owned();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["curl", ..] => assert!(line.contains(" http://"), "{line}"),
            ["helm" | "kubectl", ..] => {
                let ours = words.iter().filter(|word| word.starts_with("./") || word.starts_with("deploy/"));
                let missing: Vec<_> = ours.filter(|word| !root().join(word).exists()).collect();
                assert!(missing.is_empty(), "{line}: {missing:?}");
            }
            ["doorward", arguments @ ..] => {
                let options: Vec<&&str> = arguments.iter().filter(|word| word.starts_with("--")).collect();
                let help = Command::new(env!("CARGO_BIN_EXE_doorward")).arg(arguments[0]).arg("--help").output();
                let help = help.expect("the binary can be started");
                assert!(help.status.success(), "{line}");
                let help = String::from_utf8_lossy(&help.stdout).into_owned();
                assert!(options.iter().all(|option| help.contains(**option)), "{line}");
            }
            [script, ..] => {
                let file = script.strip_prefix("./").unwrap_or_else(|| panic!("{line} runs what is not ours"));
                assert!(root().join(file).is_file(), "{line}");
            }
        }
    }
}

/// Returns the full names of all metrics, also of those that not every configuration shows.
fn metrics() -> BTreeSet<String> {
    let declared = include_str!("../../src/metrics.rs").split(" = ").filter_map(|rest| rest.split_once("(\""));
    let names = declared.filter_map(|(_, rest)| rest.split('"').next());
    let names: BTreeSet<String> = names.map(|name| format!("doorward_{name}")).collect();
    let shown = include_str!("metrics/contract.txt").lines().filter_map(|line| line.split(' ').next());
    let missing: Vec<&str> = shown.filter(|name| !names.contains(*name)).collect();
    assert!(missing.is_empty(), "found in the source: {missing:?}");
    names
}

#[test]
fn metrics_named_in_documents_exist() {
    let metrics = metrics();
    // Tables have the same prefix.
    let tables = include_str!("../../migrations/directory/0001_directory.sql").split([' ', '(']);
    let known: BTreeSet<&str> = metrics.iter().map(String::as_str).chain(tables).collect();
    for file in tree().iter().filter(|file| file.extension().is_some_and(|extension| extension == "md")) {
        let text = std::fs::read_to_string(file).expect("a document is text");
        // A colon is part of a recorded series' name, whose own tests are those of the rules.
        for word in text.split(|letter: char| !letter.is_ascii_alphanumeric() && !"_:".contains(letter)) {
            let word = word.trim_end_matches(':');
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
            let exists = known.contains(word) || base.is_some_and(|base| known.contains(base));
            assert!(!word.starts_with("doorward_") || exists, "{}: {word}", file.display());
        }
    }
}

#[test]
fn every_metric_and_audit_event_is_described() {
    let text = read("docs/observability.md");
    let events = Action::ALL.map(|action| action.as_str().to_owned());
    let names = metrics().into_iter().chain(events);
    let missing: Vec<String> = names.filter(|name| !text.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/observability.md says nothing of {missing:#?}");
}

#[test]
fn samples_are_accepted_by_check() {
    // What they name does not exist here: put a file in the place of every secret.
    let directory = crate::support::temp::TempDir::new("samples");
    let secret = directory.join("secret");
    std::fs::write(&secret, "a secret of more than thirty-two bytes").expect("it is writable");
    for sample in ["conf/default.yaml", "conf/sidecar.yaml", "conf/gateway.yaml"] {
        let text = read(sample);
        let text = ["token-key", "redis-password", "directory-password"]
            .iter()
            .fold(text, |text, name| text.replace(&format!("/run/secrets/{name}"), &secret.display().to_string()));
        let file = directory.join("sample.yaml");
        std::fs::write(&file, text).expect("it is writable");
        let check = Command::new(env!("CARGO_BIN_EXE_doorward")).args(["check", "--config"]).arg(&file).output();
        let check = check.expect("the binary can be started");
        assert!(check.status.success(), "{sample}: {}", String::from_utf8_lossy(&check.stderr));
    }
}

#[test]
fn scripts_are_executable_and_ci_runs_the_same_as_a_developer() {
    for script in ["demo", "test", ".ci/run"] {
        let mode = std::fs::metadata(root().join(script)).unwrap_or_else(|error| panic!("{script}: {error}"));
        assert_eq!(mode.permissions().mode() & 0o111, 0o111, "{script} is executable");
    }
    assert!(read(".ci/run").lines().any(|line| line == "exec ./test"));
    assert!(read("CHANGELOG.md").contains("## [Unreleased]"));
    assert!(read("LICENSE").contains("Apache License"));
}

#[test]
fn no_file_names_the_machine_it_was_written_on() {
    // Put together here, so that this file does not name them.
    let places = ["work", "root", "Users"].map(|name| format!("/{name}/"));
    for file in tree() {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        for place in &places {
            // Such a name may also stand inside a URL; what matters is where a path begins.
            let begins = text.match_indices(place.as_str()).any(|(at, _)| {
                !text[..at].ends_with(|before: char| before.is_ascii_alphanumeric() || "./*-_".contains(before))
            });
            assert!(!begins, "{}: {place}", file.display());
        }
    }
}
