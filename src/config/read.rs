//! Reads the merged tree into types, each key on its own.
//!
//! A value that does not fit is noted and replaced by the embedded default, or by something harmless where there is
//! none, so that every other key is looked at in the same pass. A configuration with a note is never served.
//! The keys of a section are those that its [`FromKeys`] takes: any other is noted as unknown.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::problem::KeyPath;

/// Stands for every key of a map in a path that a type has.
pub(super) const ANY_KEY: &str = "*";

/// Something that a configuration can hold: a single value, a list, a section.
pub(super) trait FromTree: Sized {
    /// Returns what stands at `place`. What does not fit is noted, and something harmless returned in its stead.
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self;
}

/// A section: what its keys are called, and what they hold.
pub(super) trait FromKeys: Sized {
    /// Takes every key that the section may have.
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self;
}

/// A place in the tree.
pub(super) struct TreePlace<'t> {
    path: KeyPath,
    value: Option<&'t Value>,
    /// What the embedded file has there; nothing inside lists and sections that it leaves out.
    default: Option<&'t Value>,
}

/// The keys of one section, taken one by one.
pub(super) struct SectionKeys<'t> {
    path: KeyPath,
    written: Option<&'t Map<String, Value>>,
    defaults: Option<&'t Value>,
    known: Vec<&'static str>,
    notes: &'t mut Notes,
}

/// What was found wrong, and where secrets may be.
#[derive(Default)]
pub(super) struct Notes {
    faults: Vec<Fault>,
    mode: Mode,
    secrets: Vec<KeyPath>,
}

/// One value that does not fit, or one key that is missing or unknown.
pub(super) struct Fault {
    pub(super) key: KeyPath,
    pub(super) message: String,
    /// Whether the value may be shown: one under an unknown key may be a secret under a mistaken name.
    pub(super) shown: bool,
}

/// Why a tree is read.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Mode {
    /// To use it.
    #[default]
    Noting,
    /// For something that stands in for what was noted already.
    Silent,
    /// There is no tree: to learn which keys the types have.
    Describing,
}

/// Returns what `tree` says, and what in it does not fit.
pub(super) fn read<T: FromTree>(tree: &Value, defaults: &Value) -> (T, Vec<Fault>) {
    let mut notes = Notes::default();
    let place = TreePlace { path: KeyPath::default(), value: Some(tree), default: Some(defaults) };
    (T::from_tree(place, &mut notes), notes.faults)
}

/// Returns where a `T` holds secrets: `[0]` stands for every element of a list, [`ANY_KEY`] for every key of a map.
pub(super) fn secrets_of<T: FromTree>() -> Vec<KeyPath> {
    let mut notes = Notes { mode: Mode::Describing, ..Notes::default() };
    T::from_tree(TreePlace { path: KeyPath::default(), value: None, default: None }, &mut notes);
    notes.secrets
}

impl<'t> TreePlace<'t> {
    /// Reads a single value with `parse`, which returns what is expected instead of a value that does not fit.
    ///
    /// `stand_in` is what takes its place where the embedded file has no default.
    pub(super) fn value<T>(
        self,
        notes: &mut Notes,
        parse: impl Fn(&Value) -> Result<T, String>,
        stand_in: impl FnOnce() -> T,
    ) -> T {
        match self.value.map(&parse) {
            Some(Ok(value)) => return value,
            Some(Err(message)) => notes.unfit(&self.path, message),
            None => notes.missing(&self.path),
        }
        self.default.and_then(|default| parse(default).ok()).unwrap_or_else(stand_in)
    }

    /// Reads text with `parse`, which returns what is expected instead.
    pub(super) fn text<T>(
        self,
        notes: &mut Notes,
        parse: impl Fn(&str) -> Result<T, String>,
        stand_in: impl FnOnce() -> T,
    ) -> T {
        let parse = |value: &Value| match value {
            Value::String(text) => parse(text),
            _ => Err("must be text; put quotes around a number".to_owned()),
        };
        self.value(notes, parse, stand_in)
    }

    /// Reads text that parses as a `T`.
    pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(self, notes: &mut Notes, stand_in: impl FnOnce() -> T) -> T {
        self.text(notes, |text| text.parse().map_err(|expected: T::Err| expected.to_string()), stand_in)
    }

    /// Reads one of several words.
    pub(super) fn one_of<T: Copy>(self, notes: &mut Notes, words: &[(&str, T)], stand_in: T) -> T {
        let expected = || {
            let quoted: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            match quoted.as_slice() {
                [one, other] => format!("must be {one} or {other}"),
                _ => format!("must be one of {}", quoted.join(", ")),
            }
        };
        let find = |text: &str| words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        let parse = |value: &Value| value.as_str().and_then(find).ok_or_else(expected);
        self.value(notes, parse, || stand_in)
    }

    /// Says that a secret stands here.
    pub(super) fn is_secret(&self, notes: &mut Notes) {
        if notes.mode == Mode::Describing {
            notes.secrets.push(self.path.clone());
        }
    }

    fn inside(path: KeyPath, value: &'t Value) -> Self {
        Self { path, value: Some(value), default: None }
    }
}

impl SectionKeys<'_> {
    /// Reads a key. One that is not there is missing, unless its type says that it may be.
    pub(super) fn take<T: FromTree>(&mut self, key: &'static str) -> T {
        self.known.push(key);
        let place = TreePlace {
            path: self.path.key(key),
            value: self.written.and_then(|written| written.get(key)),
            default: self.defaults.and_then(|defaults| defaults.get(key)),
        };
        T::from_tree(place, self.notes)
    }

    /// Reads a key that may be left out: it is `default` then.
    pub(super) fn take_or<T: FromTree>(&mut self, key: &'static str, default: T) -> T {
        let absent = self.written.is_none_or(|written| !written.contains_key(key));
        if absent && self.notes.mode != Mode::Describing {
            self.known.push(key);
            return default;
        }
        self.take(key)
    }

    /// Notes that what `keys` say together does not fit, unless one of them was found wrong already.
    pub(super) fn contradict(&mut self, keys: &[&str], message: &str) {
        let wrong = |key: &&str| {
            let path = self.path.key(key);
            self.notes.faults.iter().any(|fault| path.contains(&fault.key))
        };
        if !keys.iter().any(wrong) {
            self.notes.unfit(&self.path, message.to_owned());
        }
    }

    fn note_unknown(&mut self) {
        let written = self.written.into_iter().flat_map(Map::keys);
        for key in written.filter(|key| !self.known.contains(&key.as_str())) {
            let message = format!("is not a known key; known here: {}", self.known.join(", "));
            self.notes.note(Fault { key: self.path.key(key), message, shown: false });
        }
    }
}

impl Notes {
    fn missing(&mut self, path: &KeyPath) {
        self.note(Fault { key: path.clone(), message: "is missing".to_owned(), shown: false });
    }

    fn unfit(&mut self, path: &KeyPath, message: String) {
        self.note(Fault { key: path.clone(), message, shown: true });
    }

    fn note(&mut self, fault: Fault) {
        if self.mode == Mode::Noting {
            self.faults.push(fault);
        }
    }

    fn silently<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let mode = self.mode;
        if mode == Mode::Noting {
            self.mode = Mode::Silent;
        }
        let read = read(self);
        self.mode = mode;
        read
    }
}

impl<S: FromKeys> FromTree for S {
    fn from_tree(TreePlace { path, value, default }: TreePlace<'_>, notes: &mut Notes) -> Self {
        if let Some(Value::Object(written)) = value {
            let mut keys = SectionKeys { path, written: Some(written), defaults: default, known: Vec::new(), notes };
            let section = S::from_keys(&mut keys);
            keys.note_unknown();
            return section;
        }
        match value {
            Some(_) => notes.unfit(&path, "must be a section of keys".to_owned()),
            None => notes.missing(&path),
        }
        let written = default.and_then(Value::as_object);
        notes.silently(|notes| {
            S::from_keys(&mut SectionKeys { path, written, defaults: default, known: Vec::new(), notes })
        })
    }
}

impl<T: FromTree> FromTree for Option<T> {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        if notes.mode == Mode::Describing {
            T::from_tree(place, notes);
            return None;
        }
        place.value.filter(|value| !value.is_null())?;
        let (before, path) = (notes.faults.len(), place.path.clone());
        let has_default = place.default.is_some_and(|default| !default.is_null());
        let read = T::from_tree(place, notes);
        let unfit = notes.faults.iter().skip(before).any(|fault| fault.key == path);
        (has_default || !unfit).then_some(read)
    }
}

impl<T: FromTree> FromTree for Vec<T> {
    fn from_tree(TreePlace { path, value, default }: TreePlace<'_>, notes: &mut Notes) -> Self {
        if notes.mode == Mode::Describing {
            T::from_tree(TreePlace { path: path.index(0), value: None, default: None }, notes);
            return Self::new();
        }
        let elements = |list: &[Value], notes: &mut Notes| -> Self {
            let places = list.iter().enumerate().map(|(index, value)| TreePlace::inside(path.index(index), value));
            places.map(|place| T::from_tree(place, notes)).collect()
        };
        match value {
            Some(Value::Array(list)) => return elements(list, notes),
            Some(_) => notes.unfit(&path, "must be a list".to_owned()),
            None => notes.missing(&path),
        }
        let list = default.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        notes.silently(|notes| elements(list, notes))
    }
}

impl<T: FromTree> FromTree for BTreeMap<String, T> {
    fn from_tree(TreePlace { path, value, .. }: TreePlace<'_>, notes: &mut Notes) -> Self {
        if notes.mode == Mode::Describing {
            T::from_tree(TreePlace { path: path.key(ANY_KEY), value: None, default: None }, notes);
            return Self::new();
        }
        match value {
            Some(Value::Object(map)) => {
                let entry = |(key, value): (&String, &Value), notes: &mut Notes| {
                    (key.clone(), T::from_tree(TreePlace::inside(path.key(key), value), notes))
                };
                return map.iter().map(|pair| entry(pair, notes)).collect();
            }
            Some(_) => notes.unfit(&path, "must be a map".to_owned()),
            None => notes.missing(&path),
        }
        Self::new()
    }
}
