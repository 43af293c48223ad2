//! Defaults, files and environment, laid over each other as raw trees.
//!
//! Maps merge key by key, anything else replaces what was there. Each value remembers where it
//! came from, so that a problem can name its file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::otel;
use super::problem::{KeyPath, Problem, Step};
use super::redact::SecretPlaces;
use super::values::file_named_by;

/// What every variable begins with; a double underscore separates keys, as single ones are part of names.
const ENVIRONMENT_PREFIX: &str = "DOORWARD__";
const DEFAULTS: &str = include_str!("../../conf/default.yaml");

/// The merged tree.
#[derive(Debug)]
pub(super) struct Layers {
    /// What the embedded file says.
    pub(super) defaults: Value,
    /// What all layers together say.
    pub(super) tree: Value,
    /// Where the types have secrets.
    pub(super) secrets: SecretPlaces,
    origins: BTreeMap<KeyPath, String>,
}

/// Returns the layers, and one problem for each file or variable that cannot be read.
pub(super) fn read(files: &[PathBuf], environment: &BTreeMap<String, String>) -> (Layers, Vec<Problem>) {
    let mut problems = Vec::new();
    let defaults = parse(DEFAULTS, "defaults").unwrap_or_else(|problem| {
        problems.push(problem);
        Value::Object(Map::new())
    });
    let secrets = SecretPlaces::of_config();
    let mut layers = Layers { tree: defaults.clone(), defaults, secrets, origins: BTreeMap::new() };
    for (path, value, name) in otel::layer(environment) {
        layers.lay(&path, value, name);
    }
    for file in files {
        match read_file(file) {
            Ok(tree) => layers.lay(&KeyPath::default(), tree, &file.display().to_string()),
            Err(problem) => problems.push(problem),
        }
    }
    // Sorted: DOORWARD__CLERK is laid before DOORWARD__CLERK__ISSUER, which refines it.
    for (name, text) in environment.iter().filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX)) {
        match read_variable(name, text, &layers.secrets) {
            Ok((path, value)) => layers.lay(&path, value, name),
            Err(problem) => problems.push(problem),
        }
    }
    (layers, problems)
}

impl Layers {
    /// Returns where the value at `path` came from.
    pub(super) fn origin(&self, path: &KeyPath) -> &str {
        let mut at = path.clone();
        loop {
            if let Some(origin) = self.origins.get(&at) {
                return origin;
            }
            match at.split_last() {
                Some((parent, _)) => at = parent,
                None => break,
            }
        }
        // A section that no layer replaced as a whole comes from the last layer that wrote inside it.
        let inside = self.origins.iter().filter(|(written, _)| path.contains(written));
        inside.map(|(_, origin)| origin.as_str()).next_back().unwrap_or("defaults")
    }

    fn lay(&mut self, path: &KeyPath, value: Value, origin: &str) {
        let place = make_place(&mut self.tree, path);
        let mut written = Vec::new();
        merge(place, value, path, &mut written);
        for path in written {
            self.origins.retain(|known, _| !path.contains(known));
            self.origins.insert(path, origin.to_owned());
        }
    }
}

/// Returns the value at `path`.
pub(super) fn find<'a>(tree: &'a Value, path: &KeyPath) -> Option<&'a Value> {
    path.steps().iter().try_fold(tree, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Index(index) => value.get(index),
    })
}

fn merge(base: &mut Value, over: Value, path: &KeyPath, written: &mut Vec<KeyPath>) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                let inner = path.key(&key);
                merge(base.entry(key).or_insert(Value::Null), value, &inner, written);
            }
        }
        (base, over) => {
            *base = over;
            written.push(path.clone());
        }
    }
}

// A value that stands in the way of the path is replaced by a map.
fn make_place<'a>(tree: &'a mut Value, path: &KeyPath) -> &'a mut Value {
    path.names().iter().fold(tree, |value, key| {
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        match value {
            Value::Object(map) => map.entry((*key).to_owned()).or_insert(Value::Null),
            other => other,
        }
    })
}

fn read_file(file: &Path) -> Result<Value, Problem> {
    let origin = file.display().to_string();
    let text = fs::read_to_string(file).map_err(|error| unreadable(&origin, format!("cannot be read: {error}")))?;
    parse(&text, &origin)
}

fn read_variable(name: &str, text: &str, secrets: &SecretPlaces) -> Result<(KeyPath, Value), Problem> {
    let dotted = name.strip_prefix(ENVIRONMENT_PREFIX).unwrap_or_default().to_ascii_lowercase();
    let keys: Vec<&str> = dotted.split("__").collect();
    if keys.iter().any(|key| key.is_empty()) {
        return Err(unreadable(name, "is not a key; write e.g. DOORWARD__SESSIONS__TTL".to_owned()));
    }
    let path: KeyPath = keys.into_iter().map(|key| Step::Key(key.to_owned())).collect();
    let parsed = serde_saphyr::from_str_with_options::<Value>(text, options());
    // A password is text even where it reads as a number or a list; only {file: …} is not.
    if secrets.include(&path) {
        let written = parsed.ok().filter(|value| file_named_by(value).is_some());
        return Ok((path, written.unwrap_or_else(|| Value::from(text))));
    }
    match parsed {
        Ok(value) => Ok((path, value)),
        Err(_) if secrets.reach_into(&path) => Err(unreadable(name, "is not YAML".to_owned())),
        Err(error) => Err(unreadable(name, format!("is not YAML: {}", error.without_snippet()))),
    }
}

/// Returns a YAML file's tree; an empty file is an empty map.
fn parse(text: &str, origin: &str) -> Result<Value, Problem> {
    match serde_saphyr::from_str_with_options::<Value>(text, options()) {
        Ok(tree @ Value::Object(_)) => Ok(tree),
        Ok(Value::Null) => Ok(Value::Object(Map::new())),
        Ok(_) => Err(unreadable(origin, "must be a map of sections".to_owned())),
        Err(error) => {
            let place = error.location().map(|at| format!("{origin}:{}:{}", at.line(), at.column()));
            let message = error.without_snippet().to_string();
            // The place is said once, in front, where editors and terminals make a link of it.
            let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
            let message = format!("is not YAML: {message}");
            Err(unreadable(&place.unwrap_or_else(|| origin.to_owned()), message))
        }
    }
}

// No snippet: the line with the mistake may hold a secret.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { with_snippet: false, strict_booleans: true }
}

fn unreadable(origin: &str, message: String) -> Problem {
    Problem { key: None, value: None, message, origin: origin.to_owned() }
}
