//! Loads a configuration: layers, types, rules between keys. Every problem is found in one go.

use std::collections::BTreeMap;
use std::path::PathBuf;

use aws_lc_rs::digest;

use super::layers::{self, Layers};
use super::problem::{Finding, KeyPath, Problem, Problems, Warning};
use super::read::{self, Fault};
use super::values::file_named_by;
use super::{Config, check, redact, risk};

/// A configuration that may be served, and how to talk about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The parsed form.
    pub config: Config,
    /// What works and is probably not meant.
    pub warnings: Vec<Warning>,
    /// Twelve hex digits that change with the effective configuration; secrets do not enter into it.
    pub hash: String,
    /// Every key with its effective value as YAML, secrets replaced.
    pub effective: String,
}

impl Config {
    /// Returns defaults < `files` in order < `DOORWARD__SECTION__KEY` of `environment`, or all that is wrong with them.
    pub fn load(files: &[PathBuf], environment: &BTreeMap<String, String>) -> Result<Loaded, Problems> {
        let (layers, mut problems) = layers::read(files, environment);
        let whole = problems.is_empty();
        let (config, faults) = read::read::<Config>(&layers.tree, &layers.defaults);
        problems.extend(faults.into_iter().map(|fault| noted(&layers, fault)));
        // With a layer missing, rules between keys would complain about what that layer says.
        if whole {
            let mut findings = check::findings(&config);
            findings.retain(|finding| !problems.iter().any(|problem| finding.follows_from(problem)));
            problems.extend(findings.into_iter().map(|finding| explained(&layers, finding)));
        }
        if problems.is_empty() { Ok(loaded(config, &layers)) } else { Err(Problems(problems)) }
    }
}

fn loaded(config: Config, layers: &Layers) -> Loaded {
    let effective = redact::to_yaml(&layers.secrets.redacted(&KeyPath::default(), &layers.tree));
    let digest = digest::digest(&digest::SHA256, effective.as_bytes());
    let first = digest.as_ref().iter().take(6).fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    let warnings = risk::findings(&config).into_iter().map(|Finding { key, message, .. }| Warning { key, message });
    Loaded { warnings: warnings.collect(), config, hash: format!("{first:012x}"), effective }
}

fn noted(layers: &Layers, Fault { key, message, shown }: Fault) -> Problem {
    // A whole section says nothing that its key does not.
    let value = layers::find(&layers.tree, &key).filter(|_| shown);
    let value = value.filter(|value| !value.is_object() || file_named_by(value).is_some());
    Problem {
        value: value.map(|value| layers.secrets.shown(&key, value)),
        origin: layers.origin(&key).to_owned(),
        key: Some(key),
        message,
    }
}

fn explained(layers: &Layers, finding: Finding) -> Problem {
    let value = layers::find(&layers.tree, &finding.key);
    let scalar = value.filter(|value| !value.is_object() && !value.is_null());
    Problem {
        value: scalar.map(|value| layers.secrets.shown(&finding.key, value)),
        origin: layers.origin(&finding.key).to_owned(),
        key: Some(finding.key),
        message: finding.message,
    }
}
