//! A lane on its own, with a scripted destination.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use aws_lc_rs::rand::SystemRandom;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::lane::DeliveryOutcome;
use super::*;
use crate::config::tests::TestDirectory;
use crate::directory::{Leased, OutboxEvent, embedded};
use crate::time::{SystemClock, Timestamp};

const PATIENCE: Duration = Duration::from_secs(20);

/// Reports the size of each batch and answers with the next scripted outcome.
struct Scripted {
    got: UnboundedSender<usize>,
    verdicts: Mutex<VecDeque<DeliveryOutcome>>,
}

/// A lane that is running.
struct Running {
    directory: Arc<Directory>,
    got: UnboundedReceiver<usize>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    _files: TestDirectory,
}

#[async_trait]
impl Destination for Scripted {
    fn kind(&self) -> EventKind {
        EventKind::Alias
    }

    async fn deliver(&self, events: &[Leased]) -> DeliveryOutcome {
        self.got.send(events.len()).unwrap();
        self.verdicts.lock().unwrap().pop_front().unwrap_or(DeliveryOutcome::Delivered)
    }
}

impl Running {
    /// Starts a lane with `events` in its outbox, which only a call of `wake_outbox` wakes.
    async fn start(events: usize, verdicts: Vec<DeliveryOutcome>) -> Self {
        Self::waiting(events, verdicts, Duration::ZERO).await
    }

    /// As [`start`](Self::start), with waits of up to `backoff` after a failure.
    async fn waiting(events: usize, verdicts: Vec<DeliveryOutcome>, backoff: Duration) -> Self {
        let files = TestDirectory::new();
        let directory = Arc::new(embedded(&files).await);
        // A millisecond apart and all of them past: events of different persons within one have no order.
        let now = SystemClock::new().now().0;
        for number in 0..events {
            let written = Timestamp(now - (events - number) as u64);
            directory.enqueue(&alias(number), written).await.unwrap();
        }
        let (sender, got) = unbounded_channel();
        let lane = EventLane {
            destination: Box::new(Scripted { got: sender, verdicts: Mutex::new(verdicts.into()) }),
            directory: directory.clone(),
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(SystemRandom::new()),
            outcomes: DeliveryCounters::new(&Metrics::new().unwrap(), EventKind::Alias),
            batch: 8,
            poll_interval: Duration::from_hours(1),
            lease: Duration::from_mins(1),
            backoff: Backoff { first: backoff, max: backoff },
            attempts_max: 100,
        };
        let (stop, stopped) = watch::channel(false);
        Self { directory, got, stop, task: tokio::spawn(lane.run(stopped)), _files: files }
    }

    async fn next(&mut self) -> usize {
        tokio::time::timeout(PATIENCE, self.got.recv()).await.expect("something is delivered").unwrap()
    }

    /// Ends the lane; returns how many events it left behind.
    async fn end(self) -> u64 {
        self.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, self.task).await.expect("it ends when it is stopped").unwrap();
        self.directory.outbox_depth().await.unwrap().iter().map(|depth| depth.count).sum()
    }
}

fn alias(number: usize) -> OutboxEvent {
    OutboxEvent::Alias { user: format!("user_{number}").parse().unwrap(), guest: "anon:1".parse().unwrap() }
}

fn failed() -> DeliveryOutcome {
    DeliveryOutcome::Failed { error: "not now".to_owned(), after: None }
}

#[tokio::test]
async fn a_commit_in_this_process_wakes_the_lane() {
    let mut running = Running::start(0, Vec::new()).await;
    for number in 0..3 {
        running.directory.enqueue(&alias(number), SystemClock::new().now()).await.unwrap();
        assert_eq!(running.next().await, 1);
    }
    assert_eq!(running.end().await, 0);
}

#[tokio::test]
async fn less_and_less_is_tried_while_the_destination_fails() {
    let mut running =
        Running::start(20, vec![failed(), failed(), failed(), failed(), DeliveryOutcome::Delivered]).await;
    let mut sizes = Vec::new();
    while sizes.iter().skip(4).sum::<usize>() < 20 {
        sizes.push(running.next().await);
    }
    assert_eq!(sizes, [8, 4, 2, 1, 1, 8, 8, 3]);
    assert_eq!(running.end().await, 0);
}

#[tokio::test]
async fn what_failed_is_tried_when_it_is_due_and_not_when_the_lane_looks_again() {
    // Lane and event draw their waits separately: after half of the failures the lane is ready first.
    let failures = (0..12).map(|_| failed()).collect();
    let mut running = Running::waiting(1, failures, Duration::from_millis(20)).await;
    for _ in 0..13 {
        assert_eq!(running.next().await, 1);
    }
    assert_eq!(running.end().await, 0);
}

#[tokio::test]
async fn a_refused_batch_is_halved_until_one_event_stands_alone() {
    let refused = || DeliveryOutcome::Refused("no".to_owned());
    // 4 of which the third is bad: 4, then 2, then 2, then 1 and 1.
    let verdicts = vec![refused(), DeliveryOutcome::Delivered, refused(), refused(), DeliveryOutcome::Delivered];
    let mut running = Running::start(4, verdicts).await;
    let mut sizes = Vec::new();
    for _ in 0..5 {
        sizes.push(running.next().await);
    }
    assert_eq!(sizes, [4, 2, 2, 1, 1]);
    let directory = running.directory.clone();
    assert_eq!(running.end().await, 1);
    let [dead] = &directory.list_events(Some(EventState::Dead), 10).await.unwrap()[..] else { panic!("one is dead") };
    assert_eq!((dead.person.as_str(), dead.error.as_deref()), ("user_2", Some("no")));
}
