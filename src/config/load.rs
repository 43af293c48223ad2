//! Loads a configuration: layers, types, rules between keys. Every problem is found in one go.

use std::collections::BTreeMap;
use std::path::PathBuf;

use aws_lc_rs::digest;

use super::layers::{self, Layers};
use super::problem::{Finding, KeyPath, Problem, Problems, Warning};
use super::{Config, check, redact, repair, risk};

/// A configuration that may be served, and how to talk about it.
#[derive(Clone, Debug)]
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
        let (config, repair) = repair::read(&layers);
        problems.extend(repair.problems.iter().cloned());
        // With a layer missing, rules between keys would complain about what that layer says.
        if let (Some(config), true) = (&config, whole) {
            let findings = check::findings(config).into_iter().map(|finding| finding.at(|key| repair.original(key)));
            let mut findings: Vec<Finding> = findings.collect();
            findings.retain(|finding| !problems.iter().any(|problem| finding.follows_from(problem)));
            problems.extend(findings.into_iter().map(|finding| explained(&layers, finding)));
        }
        match config {
            Some(config) if problems.is_empty() => Ok(loaded(config, &layers)),
            _ => Err(Problems(problems)),
        }
    }
}

fn loaded(config: Config, layers: &Layers) -> Loaded {
    let effective = redact::to_yaml(&redact::redacted(&KeyPath::default(), &layers.tree));
    let digest = digest::digest(&digest::SHA256, effective.as_bytes());
    let first = digest.as_ref().iter().take(6).fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    let warnings = risk::findings(&config).into_iter().map(|Finding { key, message, .. }| Warning { key, message });
    Loaded { warnings: warnings.collect(), config, hash: format!("{first:012x}"), effective }
}

fn explained(layers: &Layers, finding: Finding) -> Problem {
    let value = layers::find(&layers.tree, &finding.key);
    let scalar = value.filter(|value| !value.is_object() && !value.is_null());
    Problem {
        value: scalar.map(|value| redact::shown(&finding.key, value)),
        origin: layers.origin(&finding.key).to_owned(),
        key: Some(finding.key),
        message: finding.message,
    }
}
