//! What the documents say about configuration is true: every sample loads, every key is described.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{Config, KEY, TestDirectory};

/// What only an entry of `issuers` may say.
const NAMING: [&str; 5] = ["user_id", "tenant", "organizations", "roles", "same_as"];

/// Places that samples name and a test machine does not have.
const MOUNTS: [&str; 2] = ["/run/secrets/", "/etc/doorward/"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_in(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// Loads a sample with every file under `MOUNTS` that it names put into a directory.
#[track_caller]
fn assert_loads(what: &str, text: &str) {
    let directory = TestDirectory::new();
    let mut text = text.to_owned();
    for mount in MOUNTS {
        let mounted = format!("{}/", directory.path().display());
        for (start, _) in text.match_indices(mount) {
            let rest = &text[start + mount.len()..];
            let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && !"-_.".contains(letter));
            let name = &rest[..end.unwrap_or(rest.len())];
            let signing = format!("whsec_{}", STANDARD.encode(KEY));
            let content = if name.contains("webhook") { &signing } else { KEY };
            fs::write(directory.path().join(name), content).unwrap();
        }
        text = text.replace(mount, &mounted);
    }
    let file = directory.path().join("sample.yaml");
    fs::write(&file, &text).unwrap();
    let loaded = Config::load(&[file], &std::collections::BTreeMap::new());
    assert!(loaded.is_ok(), "{what}:\n{text}\n{}", loaded.unwrap_err());
}

/// Returns the `yaml` blocks of a document, each with its line.
fn yaml_blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.trim()) {
            (None, "```yaml") => open = Some((number + 1, String::new())),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some((_, block)), _) => block.extend([line, "\n"]),
            (None, _) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

fn leaves(prefix: &str, tree: &Value, found: &mut Vec<(String, Value)>) {
    match tree {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                leaves(&path, value, found);
            }
        }
        _ => found.push((prefix.to_owned(), tree.clone())),
    }
}

#[test]
fn every_sample_file_loads() {
    let files = files_in("conf", "yaml");
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        assert_loads(&file.display().to_string(), &fs::read_to_string(&file).unwrap());
    }
}

#[test]
fn every_yaml_block_of_the_documents_loads() {
    let mut documents = files_in("docs", "md");
    documents.extend(Some(root().join("README.md")).filter(|readme| readme.exists()));
    let mut blocks = 0;
    for document in documents {
        for (line, block) in yaml_blocks(&fs::read_to_string(&document).unwrap()) {
            assert_loads(&format!("{}:{line}", document.display()), &block);
            blocks += 1;
        }
    }
    assert!(blocks >= 5, "only {blocks} blocks found");
}

#[test]
fn every_key_is_described_with_its_default() {
    let reference = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let defaults = fs::read_to_string(root().join("conf/default.yaml")).unwrap();
    let mut keys = Vec::new();
    leaves("", &serde_saphyr::from_str(&defaults).unwrap(), &mut keys);
    let row = |(key, default): &(String, Value)| match default {
        Value::Array(list) if !list.is_empty() => format!("| `{key}` |"),
        Value::String(text) => format!("| `{key}` | `{text}` |"),
        default => format!("| `{key}` | `{default}` |"),
    };
    let mut rows: Vec<String> = keys.iter().map(row).collect();
    // What an issuer, a route, a certificate and a token key may say is not in the defaults; the
    // loader lists it for an unknown key.
    for (section, text) in [
        ("clerk", "clerk: { '?': 1 }"),
        ("routes[]", "routes: [{ '?': 1 }]"),
        ("tls", "tls: { '?': 1 }"),
        ("rebind.tables[]", "rebind: { tables: [{ '?': 1 }] }"),
        ("sessions.token.keys[]", "sessions: { token: { keys: [{ '?': 1 }] } }"),
        ("webhooks.clerk", "webhooks: { clerk: { '?': 1 } }"),
    ] {
        let section = |key: &str| if NAMING.contains(&key) { "issuers.partner" } else { section };
        rows.extend(known_keys(text).iter().map(|key| format!("| `{}.{key}` |", section(key))));
    }
    assert!(rows.len() > 80, "{rows:?}");
    let missing: Vec<&String> = rows.iter().filter(|row| !reference.contains(*row)).collect();
    assert!(missing.is_empty(), "docs/configuration.md has no row that begins with {missing:#?}");
}

fn known_keys(text: &str) -> Vec<String> {
    let problems = super::overlay(text).problems();
    let line = problems.iter().find(|line| line.contains("known here: ")).unwrap();
    let (_, keys) = line.split_once("known here: ").unwrap();
    let (keys, _) = keys.split_once(" (from").unwrap();
    keys.split(", ").map(str::to_owned).collect()
}
