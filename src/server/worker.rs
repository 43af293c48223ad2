//! Work in the background that is told to end, and then waited for.
//!
//! The wait is bounded by the patience that the work was started with: what is not done then is left behind.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Work under way.
pub(super) struct Worker {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    patience: Duration,
}

impl Worker {
    /// Starts work that ends soon after what it is handed has become true.
    pub(super) fn start<W>(
        background: &Handle,
        patience: Duration,
        work: impl FnOnce(watch::Receiver<bool>) -> W,
    ) -> Self
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        Self { stop, task: background.spawn(work(stopped)), patience }
    }

    /// Returns what tells it to end before it is waited for.
    pub(super) fn stopper(&self) -> watch::Sender<bool> {
        self.stop.clone()
    }

    /// Tells it to end; returns whether it did so in time.
    pub(super) async fn end(self) -> bool {
        self.stop.send_replace(true);
        tokio::time::timeout(self.patience, self.task).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_told_to_end_and_waited_for() {
        let worker = Worker::start(&Handle::current(), Duration::MAX, async |mut stopped| {
            stopped.wait_for(|stop| *stop).await.expect("the worker tells it");
        });
        assert!(worker.end().await);
    }

    #[tokio::test]
    async fn work_that_does_not_end_is_left_behind() {
        let worker = Worker::start(&Handle::current(), Duration::ZERO, |_| std::future::pending());
        assert!(!worker.end().await);
    }
}
