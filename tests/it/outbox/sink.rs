//! A PostHog-compatible sink: it counts what it accepted, and fails in the ways that sinks do.

use std::collections::{BTreeSet, VecDeque};
use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use doorward::time::{Clock, SystemClock, Timestamp};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::support::eventually;
use crate::support::http1::{Broken, Head, Wire};

/// A running sink; it ends on drop.
pub(super) struct Sink {
    url: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

/// How to answer one request.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// With this status, and header lines that each end with a line break; nothing is accepted.
    Status(u16, String),
    /// Not at all.
    Hang,
    /// By closing the connection before anything was read.
    CloseUnread,
    /// By closing the connection once everything was read.
    CloseRead,
    /// With a 200 that breaks off in its body; nothing is accepted.
    BreakOff,
    /// Properly, after a while.
    Slow(Duration),
}

/// A point in an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The connection is there, and nothing was read.
    Connected,
    /// The request was read, and not accepted.
    Received,
    /// The request was accepted, and not answered.
    Accepted,
    /// The answer was written.
    Answered,
}

/// An event that the sink has accepted, once for each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) uuid: String,
    pub(super) person: String,
    pub(super) alias: String,
}

/// A request that the sink has read.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) at: Timestamp,
    pub(super) head: Head,
    pub(super) body: Value,
}

#[derive(Default)]
struct State {
    plan: VecDeque<Answer>,
    always: Option<Answer>,
    refused: BTreeSet<String>,
    hold: Option<Step>,
    held: u64,
    requests: Vec<Request>,
    accepted: Vec<Accepted>,
}

struct Shared {
    state: Mutex<State>,
    released: Semaphore,
}

impl Sink {
    /// Starts a sink that accepts everything.
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let shared = Arc::new(Shared { state: Mutex::default(), released: Semaphore::new(0) });
        let (mut tasks, sink) = (JoinSet::new(), Arc::clone(&shared));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let sink = Arc::clone(&sink);
                connections.spawn(async move {
                    // A connection that breaks is what many tests are about.
                    let _ = sink.serve(stream).await;
                });
            }
        });
        Self { url, shared, _tasks: tasks }
    }

    /// Returns what belongs into `outbox.alias.url`.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Answers the next requests like this, and then properly again.
    pub(super) fn plan(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state(|state| state.plan.extend(answers));
    }

    /// Answers all requests like this, or properly again.
    pub(super) fn always(&self, answer: Option<Answer>) {
        self.state(|state| state.always = answer);
    }

    /// Answers 400 to every batch with an event of `person` in it; to none any more without one.
    pub(super) fn refuse(&self, person: Option<&str>) {
        self.state(|state| state.refused = person.map(str::to_owned).into_iter().collect());
    }

    /// Stops every exchange that gets to `step` until its client closes or [`Sink::release`]; a
    /// connection of which nothing was read, for good.
    pub(super) fn hold(&self, step: Option<Step>) {
        self.state(|state| (state.hold, state.held) = (step, 0));
    }

    /// Waits until an exchange is held.
    pub(super) async fn held(&self) {
        eventually("the sink to hold a request", async || self.state(|state| state.held > 0).then_some(())).await;
    }

    /// Holds no further exchange, and lets one that is held go on.
    pub(super) fn release(&self) {
        self.state(|state| state.hold = None);
        self.release_held();
    }

    /// Lets one exchange that is held go on; the next step may be held all the same.
    pub(super) fn release_held(&self) {
        self.shared.released.add_permits(1);
    }

    /// Returns all that was read.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.state(|state| state.requests.clone())
    }

    /// Returns all that was accepted, in order.
    pub(super) fn accepted(&self) -> Vec<Accepted> {
        self.state(|state| state.accepted.clone())
    }

    fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        self.shared.state(look)
    }
}

impl Shared {
    fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().expect("no holder panics"))
    }

    async fn serve(&self, stream: TcpStream) -> Result<(), Broken> {
        let mut wire = Wire::new(stream);
        loop {
            let planned = self.state(|state| state.plan.front().cloned());
            if matches!(planned, Some(Answer::CloseUnread)) {
                self.state(|state| state.plan.pop_front());
                return Ok(());
            }
            self.reached(Step::Connected, &mut wire).await?;
            let Some(head) = wire.head().await else { return Ok(()) };
            let body = wire.whole(head.request_body()).await;
            let body = decoded(&head, body);
            let request = Request { at: SystemClock::new().now(), head, body: body.clone() };
            let answer = self.state(|state| {
                state.requests.push(request);
                state.plan.pop_front().or_else(|| state.always.clone()).or_else(|| state.refusal(&body))
            });
            self.reached(Step::Received, &mut wire).await?;
            match answer {
                None => {}
                Some(Answer::Slow(time)) => tokio::time::sleep(time).await,
                Some(Answer::CloseUnread | Answer::CloseRead) => return Ok(()),
                Some(Answer::Hang) => {
                    wire.until_close().await;
                    return Ok(());
                }
                Some(Answer::BreakOff) => {
                    return wire.write(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"sta").await;
                }
                Some(Answer::Status(status, headers)) => {
                    wire.write(format!("HTTP/1.1 {status} No\r\n{headers}content-length: 0\r\n\r\n").as_bytes())
                        .await?;
                    continue;
                }
            }
            self.state(|state| state.accept(&body));
            self.reached(Step::Accepted, &mut wire).await?;
            wire.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n{\"status\":1}",
            )
            .await?;
            self.reached(Step::Answered, &mut wire).await?;
        }
    }

    async fn reached(&self, step: Step, wire: &mut Wire<TcpStream>) -> Result<(), Broken> {
        let hold = self.state(|state| {
            let hold = state.hold == Some(step);
            state.held += u64::from(hold);
            hold
        });
        // A client that has its answer closes nothing and may send the next request.
        if !hold || step == Step::Answered {
            return Ok(());
        }
        if step == Step::Connected {
            // What is not to be read cannot be watched for its end either.
            return std::future::pending().await;
        }
        tokio::select! {
            _ = wire.until_close() => Err(Broken),
            permit = self.released.acquire() => {
                permit.map_err(|_| Broken)?.forget();
                Ok(())
            }
        }
    }
}

impl State {
    fn refusal(&self, body: &Value) -> Option<Answer> {
        let refused = events(body).iter().any(|event| self.refused.contains(&event.person));
        refused.then(|| Answer::Status(400, String::new()))
    }

    fn accept(&mut self, body: &Value) {
        self.accepted.extend(events(body));
    }
}

fn events(body: &Value) -> Vec<Accepted> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let batch = body["batch"].as_array().expect("a batch");
    batch
        .iter()
        .map(|event| {
            assert_eq!(event["event"], "$create_alias");
            assert_eq!(event["distinct_id"], event["properties"]["distinct_id"]);
            Accepted {
                uuid: text(&event["uuid"]),
                person: text(&event["distinct_id"]),
                alias: text(&event["properties"]["alias"]),
            }
        })
        .collect()
}

fn decoded(head: &Head, body: Vec<u8>) -> Value {
    let mut plain = body;
    if head.headers.first("content-encoding") == Some("gzip") {
        let packed = std::mem::take(&mut plain);
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut plain).expect("gzip");
    }
    serde_json::from_slice(&plain).expect("JSON")
}
