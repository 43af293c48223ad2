//! What a store tells the metrics of itself, under the name of its backend.

use std::sync::Arc;

use prometheus::HistogramTimer;

use crate::metrics::Metrics;

/// A store's own series: operations by name and result, whether it can be used, and how often it came back.
pub(super) struct StoreMetrics {
    backend: &'static str,
    metrics: Arc<Metrics>,
}

impl StoreMetrics {
    /// Returns the series of `backend`. Every reachable one exists from then on, so that `rate()` has a
    /// zero to begin from.
    pub(super) fn new(
        backend: &'static str,
        operations: impl IntoIterator<Item = &'static str>,
        results: &[&str],
        metrics: Arc<Metrics>,
    ) -> Self {
        for operation in operations {
            metrics.store_operation_duration.with_label_values(&[backend, operation]);
            for result in results {
                metrics.store_operations.with_label_values(&[backend, operation, result]);
            }
        }
        metrics.store_reconnects.with_label_values(&[backend]);
        metrics.store_up.with_label_values(&[backend]);
        Self { backend, metrics }
    }

    /// Starts to time an operation; it counts when the timer is observed or dropped.
    pub(super) fn timer(&self, operation: &str) -> HistogramTimer {
        self.metrics.store_operation_duration.with_label_values(&[self.backend, operation]).start_timer()
    }

    /// Counts an operation that is over.
    pub(super) fn count(&self, operation: &str, result: &str) {
        self.metrics.store_operations.with_label_values(&[self.backend, operation, result]).inc();
    }

    /// Says whether the store can be used.
    pub(super) fn report(&self, up: bool) {
        self.metrics.store_up.with_label_values(&[self.backend]).set(i64::from(up));
        self.metrics.invalidation_stream_connected.set(i64::from(up));
    }

    /// Counts that the store can be used again.
    pub(super) fn reconnected(&self) {
        self.metrics.store_reconnects.with_label_values(&[self.backend]).inc();
    }
}
