//! Holds the code to its own map: who may name whom, how long a file may be, what is documented,
//! and which words mean what.

mod circles;
mod names;
mod walks;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Modules in layers; each may name modules of its own and of earlier layers.
const LAYERS: [&[&str]; 10] = [
    &["time", "secret"],
    &["wire", "outgoing", "metrics", "model"],
    &["config", "telemetry", "keys"],
    &["store", "identity", "directory"],
    &["session"],
    &["accounts", "guests", "outbox", "bootstrap", "mail"],
    &["api"],
    &["proxy"],
    &["server"],
    &["cli"],
];

/// Crates that only some places may name.
const CONFINED: [(&str, &[&str]); 7] = [
    ("pingora", &["src/proxy", "src/server"]),
    ("reqwest", &["src/outgoing"]),
    ("redis", &["src/store/redis"]),
    ("sqlx", &["src/store/sqlite", "src/directory"]),
    ("envoy_types", &["src/proxy/forward_auth"]),
    ("tonic", &["src/proxy/forward_auth", "src/server"]),
    ("axum", &["src/api", "src/proxy", "src/server", "src/cli", "src/identity/tests"]),
];

/// Lines of a file that are not tests.
const LINES_MAX: usize = 400;

#[test]
fn modules_name_only_what_lies_below_them() {
    let mut breaches = Vec::new();
    for file in sources() {
        let Some(layer) = layer_of(&module_of(&file)) else { continue };
        let text = production_code(&file);
        let above = LAYERS.iter().skip(layer + 1).flat_map(|modules| modules.iter());
        breaches.extend(
            above
                .filter(|module| names_module(&text, module))
                .map(|module| format!("{}: crate::{module}", file.display())),
        );
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn every_module_has_a_layer() {
    let known: BTreeSet<&str> = LAYERS.iter().flat_map(|modules| modules.iter().copied()).collect();
    let modules: BTreeSet<String> = sources().iter().map(|file| module_of(file)).collect();
    let strangers: Vec<_> = modules
        .iter()
        .filter(|module| !["lib", "main"].contains(&module.as_str()) && !known.contains(module.as_str()))
        .collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}

#[test]
fn confined_crates_stay_where_they_belong() {
    let mut breaches = Vec::new();
    for file in sources() {
        let text = production_code(&file);
        for (name, places) in CONFINED {
            let allowed = places.iter().any(|place| file.to_string_lossy().starts_with(place));
            if !allowed && names_crate(&text, name) {
                breaches.push(format!("{}: {name}", file.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn sessions_begin_in_one_place() {
    let callers = sources().into_iter().filter(|file| production_code(file).contains("sessions.start("));
    assert_eq!(callers.collect::<Vec<_>>(), [PathBuf::from("src/accounts/sign_in.rs")]);
}

#[test]
fn the_model_knows_no_wire_and_no_storage_format() {
    let serde = sources()
        .into_iter()
        .filter(|file| file.starts_with("src/model"))
        .filter(|file| production_code(file).contains("serde"));
    assert_eq!(serde.collect::<Vec<_>>(), Vec::<PathBuf>::new());
}

#[test]
fn files_hold_one_idea_each() {
    let too_long = sources().into_iter().filter_map(|file| {
        let lines = production_code(&file).lines().count();
        (lines > LINES_MAX).then(|| format!("{}: {lines}", file.display()))
    });
    assert_eq!(too_long.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn nothing_is_left_to_do() {
    let words = ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("];
    let marked = sources().into_iter().filter(|file| words.iter().any(|word| read(file).contains(word)));
    assert_eq!(marked.collect::<Vec<_>>(), Vec::<PathBuf>::new());
}

#[test]
fn decisions_have_numbers_of_their_own() {
    let mut numbers: Vec<String> =
        names_in("docs/adr").into_iter().map(|name| name.chars().take(4).collect()).collect();
    let count = numbers.len();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), count);
    assert!(numbers.iter().all(|number| number.chars().all(|digit| digit.is_ascii_digit())), "{numbers:?}");
}

#[test]
fn the_map_shows_every_folder() {
    let map = read(Path::new("docs/architecture.md"));
    let folders = names_in(".").into_iter().filter(|name| root().join(name).is_dir() && !name.starts_with('.'));
    let missing: Vec<String> = folders
        .filter(|name| {
            !["target", "docs", "src", "tests"].contains(&name.as_str()) && !map.contains(&format!("`{name}/"))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(root().join(file)).unwrap()
}

fn names_in(folder: &str) -> Vec<String> {
    std::fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn sources() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for name in names_in(folder.to_str().unwrap()) {
            let path = folder.join(name);
            match path.extension() {
                Some(extension) if extension == "rs" => files.push(path),
                None => folders.push(path),
                Some(_) => {}
            }
        }
    }
    files
}

fn module_of(file: &Path) -> String {
    let first = file.iter().nth(1).unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

// Whole files of tests count as tests; in the others everything from `#[cfg(test)] mod` on does.
fn production_code(file: &Path) -> String {
    let path = file.to_string_lossy();
    if path.contains("/tests/") || path.ends_with("tests.rs") || path.ends_with("conformance.rs") {
        return String::new();
    }
    let text = read(file);
    let inline_tests = text.find("#[cfg(test)]\nmod tests {");
    text[..inline_tests.unwrap_or(text.len())].to_owned()
}

fn names_module(text: &str, module: &str) -> bool {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let direct = format!("crate::{module}");
    let braced = code.clone().any(|line| {
        line.starts_with("use crate::{")
            && line
                .split(['{', ',', ' '])
                .any(|word| word.trim_end_matches("};") == module || word.starts_with(&format!("{module}::")))
    });
    braced
        || code.clone().any(|line| {
            line.match_indices(&direct).any(|(at, _)| {
                !line[at + direct.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '_')
            })
        })
}

fn names_crate(text: &str, name: &str) -> bool {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.into_iter().any(|line| {
        line.match_indices(&format!("{name}::")).any(|(at, _)| {
            !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
        })
    })
}
