//! What is wrong or risky in a configuration, in words for the person who wrote it.
//!
//! Values are redacted before they get here: everything in this file may be printed.

use std::fmt;

/// Where in the configuration: `sessions.token.keys[0].secret`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPath(Vec<Step>);

/// One step into the tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Into a section or map.
    Key(String),
    /// Into a list.
    Index(usize),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which key; absent when a file or variable as a whole cannot be read.
    pub key: Option<KeyPath>,
    /// The value as JSON, redacted, where showing it helps.
    pub value: Option<String>,
    /// What is expected instead; reads on from the value.
    pub message: String,
    /// The file or environment variable it came from.
    pub origin: String,
}

/// Everything that is wrong, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

/// Something that works and is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Which key.
    pub key: KeyPath,
    /// What it leads to.
    pub message: String,
}

/// What a check found, before value and origin are looked up.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) key: KeyPath,
    /// Keys whose values the finding rests on.
    pub(super) rests_on: Vec<KeyPath>,
    pub(super) message: String,
}

impl KeyPath {
    /// Returns the path to `dotted`, a text without list positions.
    pub fn of(dotted: &str) -> Self {
        Self(dotted.split('.').map(|key| Step::Key(key.to_owned())).collect())
    }

    /// Returns the path to `key` inside this one.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    /// Returns the path to the list element `index` inside this one.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    /// Returns the steps from the root.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Returns the path without its last step, and that step; `None` for the root.
    pub fn split_last(&self) -> Option<(Self, &Step)> {
        self.0.split_last().map(|(last, parents)| (Self(parents.to_vec()), last))
    }

    /// Returns the names on the way, list positions left out.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().filter_map(Step::name).collect()
    }

    /// Returns whether `other` is this key, or lies inside it.
    pub fn contains(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl Step {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(key),
            Self::Index(_) => None,
        }
    }
}

impl FromIterator<Step> for KeyPath {
    fn from_iter<I: IntoIterator<Item = Step>>(steps: I) -> Self {
        Self(steps.into_iter().collect())
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => formatter.write_str(key)?,
                Step::Key(key) => write!(formatter, ".{key}")?,
                Step::Index(index) => write!(formatter, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, message, origin } = self;
        match (key, value) {
            (Some(key), Some(value)) => write!(formatter, "{key}: {value} {message} (from {origin})"),
            (Some(key), None) => write!(formatter, "{key}: {message} (from {origin})"),
            (None, _) => write!(formatter, "{origin}: {message}"),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.key, self.message)
    }
}

impl Finding {
    /// Returns a finding about one key.
    pub(super) fn new(key: KeyPath, message: impl Into<String>) -> Self {
        Self { rests_on: vec![key.clone()], key, message: message.into() }
    }

    /// Returns a finding about some `keys` of a section, and not about what else is in it.
    pub(super) fn about(section: KeyPath, keys: &[&str], message: impl Into<String>) -> Self {
        let rests_on = keys.iter().map(|key| section.key(key)).collect();
        Self { key: section, rests_on, message: message.into() }
    }

    /// Says that the finding rests on `dotted` too.
    pub(super) fn resting_on(mut self, dotted: &str) -> Self {
        self.rests_on.push(KeyPath::of(dotted));
        self
    }

    /// Returns whether this finding rests on a value that was already found wrong.
    pub(super) fn follows_from(&self, problem: &Problem) -> bool {
        let Some(wrong) = &problem.key else { return true };
        wrong.contains(&self.key) || self.rests_on.iter().any(|key| key.contains(wrong) || wrong.contains(key))
    }
}
