//! Turns the raw tree into [`Config`], and finds every value that does not fit on the way.
//!
//! Serde stops at the first error. So the value it names is noted and put back to its default (or
//! taken out where it has none), and the tree is read again, until nothing is wrong. Each round
//! changes the tree; a tree that cannot be changed ends the search.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use serde_path_to_error::Segment;

use super::layers::{self, Layers};
use super::problem::{KeyPath, Problem, Step};
use super::{Config, redact};

/// More mistakes than this are not found in one go.
const ROUNDS_MAX: usize = 200;

/// A tree under repair.
pub(super) struct Repair<'a> {
    layers: &'a Layers,
    tree: Value,
    pub(super) problems: Vec<Problem>,
    /// What was taken out because it was wrong, so that it is not then called missing.
    removed: BTreeSet<KeyPath>,
    /// For each list, the positions that were taken out: later ones have moved down since.
    gaps: BTreeMap<KeyPath, BTreeSet<usize>>,
}

/// What serde's message says, without the value that it quotes.
enum Complaint {
    UnknownKey { known: String },
    MissingKey(String),
    Unfit(String),
}

/// Returns the configuration as far as it could be read, and what is wrong with the tree.
pub(super) fn read(layers: &Layers) -> (Option<Config>, Repair<'_>) {
    let mut repair = Repair {
        layers,
        tree: layers.tree.clone(),
        problems: Vec::new(),
        removed: BTreeSet::new(),
        gaps: BTreeMap::new(),
    };
    for _ in 0..ROUNDS_MAX {
        match serde_path_to_error::deserialize::<_, Config>(&repair.tree) {
            Ok(config) => return (Some(config), repair),
            Err(error) => {
                let path = steps(error.path());
                if !repair.note_and_mend(&path, &Complaint::of(&error.inner().to_string())) {
                    break;
                }
            }
        }
    }
    (None, repair)
}

impl Repair<'_> {
    /// Returns whether the tree was changed.
    fn note_and_mend(&mut self, reported: &KeyPath, complaint: &Complaint) -> bool {
        let original = self.original(reported);
        match complaint {
            Complaint::UnknownKey { known } => {
                // The value is not shown: it may be a secret under a misspelt name.
                self.note(original, None, format!("is not a known key; known here: {known}"));
                self.remove(reported)
            }
            Complaint::MissingKey(key) => {
                let missing = original.key(key);
                if !self.removed.contains(&missing) {
                    self.note(missing, None, "is missing".to_owned());
                }
                self.fill_in(reported, key) || self.mend(reported)
            }
            Complaint::Unfit(message) => {
                // A whole section says nothing that its key does not.
                let value = layers::find(&self.layers.tree, &original);
                let value = value.filter(|value| !value.is_object() || redact::names_a_file(value));
                let value = value.map(|value| redact::shown(&original, value));
                self.note(original, value, message.clone());
                self.mend(reported)
            }
        }
    }

    fn note(&mut self, key: KeyPath, value: Option<String>, message: String) {
        let origin = self.layers.origin(&key).to_owned();
        self.problems.push(Problem { key: Some(key), value, message, origin });
    }

    fn mend(&mut self, reported: &KeyPath) -> bool {
        // In a list, the default at the same position is another element altogether.
        let in_list = reported.names().len() < reported.steps().len();
        let default = layers::find(&self.layers.defaults, reported).filter(|_| !in_list);
        match (layers::find_mut(&mut self.tree, reported), default) {
            (Some(value), Some(default)) if value != default => {
                *value = default.clone();
                true
            }
            (_, Some(_)) => false,
            (_, None) => self.remove(reported),
        }
    }

    // So that the rest of the section is looked at too.
    fn fill_in(&mut self, section: &KeyPath, key: &str) -> bool {
        match (layers::find_mut(&mut self.tree, section), stand_in(section, key)) {
            (Some(Value::Object(map)), Some(value)) => map.insert(key.to_owned(), value).is_none(),
            _ => false,
        }
    }

    fn remove(&mut self, reported: &KeyPath) -> bool {
        let original = self.original(reported);
        let Some((parent, last)) = reported.split_last() else { return false };
        let gone = match (layers::find_mut(&mut self.tree, &parent), last) {
            (Some(Value::Object(map)), Step::Key(key)) => map.remove(key).is_some(),
            (Some(Value::Array(elements)), Step::Index(index)) if *index < elements.len() => {
                elements.remove(*index);
                true
            }
            _ => false,
        };
        if let (true, Some((list, Step::Index(index)))) = (gone, original.split_last()) {
            self.gaps.entry(list).or_default().insert(*index);
        }
        self.removed.insert(original);
        gone
    }

    /// Returns where the value stood before elements were taken out of lists.
    pub(super) fn original(&self, reported: &KeyPath) -> KeyPath {
        reported.steps().iter().fold(KeyPath::default(), |path, step| match step {
            Step::Key(key) => path.key(key),
            Step::Index(index) => {
                let gaps = self.gaps.get(&path);
                let mut kept = (0..).filter(|position| gaps.is_none_or(|gaps| !gaps.contains(position)));
                path.index(kept.nth(*index).unwrap_or(*index))
            }
        })
    }
}

impl Complaint {
    fn of(message: &str) -> Self {
        let quoted = |prefix| message.strip_prefix(prefix)?.split_once('`');
        if let Some((_, rest)) = quoted("unknown field `") {
            let known = rest.trim_start_matches(", expected ").trim_start_matches("one of ").replace('`', "");
            return Self::UnknownKey { known: known.replace(" or ", ", ") };
        }
        if let Some((key, _)) = quoted("missing field `") {
            return Self::MissingKey(key.to_owned());
        }
        match message {
            "invalid socket address syntax" => {
                return Self::Unfit("is not an address; write e.g. \"0.0.0.0:9090\"".to_owned());
            }
            "invalid IP address syntax" => {
                return Self::Unfit("is not a network; write e.g. \"10.0.0.0/8\" or \"10.1.2.3/32\"".to_owned());
            }
            _ => {}
        }
        let about_value = ["invalid type: ", "invalid value: ", "invalid length ", "unknown variant `"];
        if !about_value.iter().any(|prefix| message.starts_with(prefix)) {
            return Self::Unfit(message.to_owned());
        }
        // What stands before the last "expected" quotes the value, which may be a secret.
        let expected = message.rsplit_once(", expected ").map_or("something else", |(_, expected)| expected);
        Self::Unfit(format!("must be {}", in_words(expected)))
    }
}

/// Returns something that reads as the required `key` of a section. It is never served: the key
/// was noted as a problem before.
fn stand_in(section: &KeyPath, key: &str) -> Option<Value> {
    match (section.names().as_slice(), key) {
        (["routes"] | ["bootstrap", _, "http"], "path") | (["tls"], "cert" | "key") => Some(Value::from("/")),
        (["routes"], "auth") => Some(Value::from("required")),
        (["sessions", "token", "keys"], "id") => Some(Value::from(0)),
        (["sessions", "token", "keys"], "secret") => Some(Value::from("stands in for a secret of at least 32 bytes")),
        (["bootstrap", _, "sql"], "select") => Some(Value::from("stands in for a statement")),
        (["clerk"] | ["issuers", _], "issuer") => Some(Value::from("https://missing.invalid")),
        _ => None,
    }
}

fn in_words(expected: &str) -> String {
    match expected {
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a string" | "string or map" => "text; put quotes around a number",
        "u8" => "a whole number from 0 to 255",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, 0 or more",
        "f64" => "a number",
        _ if expected.starts_with("struct ") => "a section of keys",
        _ => return expected.replace('`', "\""),
    }
    .to_owned()
}

fn steps(path: &serde_path_to_error::Path) -> KeyPath {
    let step = |segment: &Segment| match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        // An enum's variant is the value itself, not a step into it.
        Segment::Enum { .. } | Segment::Unknown => None,
    };
    path.iter().filter_map(step).collect()
}
