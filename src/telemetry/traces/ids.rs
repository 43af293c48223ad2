//! Ids of traces and spans: never zero, never repeated by one process, not secret.

use aws_lc_rs::rand::SecureRandom;

use crate::secret::{NoEntropy, random_bytes};
use crate::telemetry::id_sequence::IdSequence;

/// The id of a trace, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub u128);

/// The id of a span within its trace, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(pub u64);

/// Where new ids come from.
pub(super) struct TraceIds {
    /// The two halves of a trace's id.
    traces: [IdSequence; 2],
    spans: IdSequence,
}

impl TraceIds {
    /// Returns sequences that begin at random.
    pub(super) fn new(random: &dyn SecureRandom) -> Result<Self, NoEntropy> {
        let ids = || random_bytes::<8>(random).map(|bytes| IdSequence::new(u64::from_ne_bytes(*bytes)));
        Ok(Self { traces: [ids()?, ids()?], spans: ids()? })
    }

    /// Returns the id of a new trace.
    pub(super) fn trace(&self) -> TraceId {
        let [high, low] = self.traces.each_ref().map(|half| u128::from(half.next()));
        TraceId((high << 64 | low).max(1))
    }

    /// Returns the id of a new span.
    pub(super) fn span(&self) -> SpanId {
        SpanId(self.spans.next().max(1))
    }
}

impl std::fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}
