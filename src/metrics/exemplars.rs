//! Exemplars: for each bucket of two histograms, the last sampled exchange that fell into it.
//!
//! Only sampled exchanges are kept. Their number is bounded by the histograms' own series.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{DECISION_SECONDS, HTTP_SECONDS};
use crate::time::Timestamp;

/// The exemplars of both histograms.
#[derive(Default)]
pub struct Exemplars {
    held: Mutex<BTreeMap<Series, Vec<Option<Exemplar>>>>,
}

/// A histogram that has exemplars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measured {
    /// `http_request_duration_seconds`; labels: handler, route.
    Exchange,
    /// `auth_decision_duration_seconds`; label: source.
    Decision,
}

/// One exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// The exchange's trace, in hex.
    pub trace_id: String,
    /// What was measured, in seconds.
    pub seconds: f64,
    /// When.
    pub at: Timestamp,
}

/// The family's full name, and the values of its labels in the order of their names.
type Series = (&'static str, Vec<String>);

impl Exemplars {
    /// Keeps an exemplar in place of the last one of its bucket. `labels` are in the order of their names.
    pub fn keep(&self, measured: Measured, labels: &[&str], exemplar: Exemplar) {
        let (name, bounds) = measured.family();
        let bucket = bounds.iter().position(|bound| exemplar.seconds <= *bound).unwrap_or(bounds.len());
        let series = (name, labels.iter().map(|&label| label.to_owned()).collect());
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let buckets = held.entry(series).or_insert_with(|| vec![None; bounds.len() + 1]);
        if let Some(place) = buckets.get_mut(bucket) {
            *place = Some(exemplar);
        }
    }

    /// Returns the exemplars of a series by bucket, the one without an upper bound last.
    pub(super) fn of(&self, name: &str, labels: &[&str]) -> Vec<Option<Exemplar>> {
        let Some(measured) =
            [Measured::Exchange, Measured::Decision].into_iter().find(|known| known.family().0 == name)
        else {
            return Vec::new();
        };
        let series = (measured.family().0, labels.iter().map(|&label| label.to_owned()).collect());
        self.held.lock().unwrap_or_else(PoisonError::into_inner).get(&series).cloned().unwrap_or_default()
    }
}

impl Measured {
    fn family(self) -> (&'static str, &'static [f64]) {
        match self {
            Self::Exchange => ("doorward_http_request_duration_seconds", HTTP_SECONDS),
            Self::Decision => ("doorward_auth_decision_duration_seconds", DECISION_SECONDS),
        }
    }
}
