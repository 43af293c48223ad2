//! Whether the process has started, works, and should be given traffic.
//!
//! Facts only move forward: started, the store answered once, keys were loaded once, draining.
//! None of them goes back, so no outage elsewhere can turn into a restart or an empty Service. The
//! one that may is asked for: an application that callers reach without Doorward is given no traffic.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::time::{Clock, Monotonic};

/// A runtime that has not beaten for this long is stuck (kubernetes probes: 10 s).
const HEARTBEAT_MAX: Duration = Duration::from_secs(10);

/// One thing that a probe looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// Whether it is as it should be.
    pub passed: bool,
}

/// The state behind the probes, shared by all that report to it.
pub struct Health {
    clock: Arc<dyn Clock>,
    started: AtomicBool,
    draining: AtomicBool,
    store_ready: AtomicBool,
    keys_ready: AtomicBool,
    /// Whether readiness needs `unexposed`.
    minds_exposure: bool,
    unexposed: AtomicBool,
    heartbeats: Box<[Heartbeat]>,
}

struct Heartbeat {
    runtime: String,
    last: AtomicU64,
}

impl Health {
    /// Returns the state of a process that has just begun; every runtime counts as alive now.
    pub fn new(clock: Arc<dyn Clock>, runtimes: &[&str]) -> Self {
        let now = clock.monotonic().0;
        let heartbeat = |runtime: &&str| Heartbeat { runtime: (*runtime).to_owned(), last: AtomicU64::new(now) };
        Self {
            heartbeats: runtimes.iter().map(heartbeat).collect(),
            clock,
            started: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            store_ready: AtomicBool::new(false),
            keys_ready: AtomicBool::new(false),
            minds_exposure: false,
            unexposed: AtomicBool::new(false),
        }
    }

    /// Makes readiness need that the application is known to be reached through Doorward only.
    #[must_use]
    pub fn minding_exposure(mut self, minds: bool) -> Self {
        self.minds_exposure = minds;
        self
    }

    /// Reports whether the application is known to be reached through Doorward only.
    pub fn mark_unexposed(&self, unexposed: bool) {
        self.unexposed.store(unexposed, Ordering::Release);
    }

    /// Reports that the configuration is read and all listeners are bound.
    pub fn mark_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// Reports that the process is about to stop.
    pub fn mark_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Reports that the session store has answered.
    pub fn mark_store_ready(&self) {
        self.store_ready.store(true, Ordering::Release);
    }

    /// Reports that every issuer's keys are loaded, or that there is no issuer.
    pub fn mark_keys_ready(&self) {
        self.keys_ready.store(true, Ordering::Release);
    }

    /// Reports that the runtime at this position of [`Health::new`]'s list still runs tasks; others are ignored.
    pub fn beat(&self, runtime: usize) {
        if let Some(heartbeat) = self.heartbeats.get(runtime) {
            heartbeat.last.store(self.clock.monotonic().0, Ordering::Release);
        }
    }

    /// Returns whether the process is about to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Returns what `/startupz` looks at: never the store or a provider.
    pub fn startup(&self) -> Vec<Check> {
        vec![check("started", self.started.load(Ordering::Acquire))]
    }

    /// Returns what `/livez` looks at: nothing outside the process.
    pub fn liveness(&self) -> Vec<Check> {
        let now = self.clock.monotonic();
        let beats = |heartbeat: &Heartbeat| {
            let silence = now.since(Monotonic(heartbeat.last.load(Ordering::Acquire)));
            check(format!("runtime {}", heartbeat.runtime), silence < HEARTBEAT_MAX)
        };
        self.heartbeats.iter().map(beats).collect()
    }

    /// Returns what `/readyz` looks at: whether store and keys were ever good, not whether they are now.
    pub fn readiness(&self) -> Vec<Check> {
        let mut checks = vec![
            check("started", self.started.load(Ordering::Acquire)),
            check("serving", !self.is_draining()),
            check("store", self.store_ready.load(Ordering::Acquire)),
            check("keys", self.keys_ready.load(Ordering::Acquire)),
        ];
        if self.minds_exposure {
            checks.push(check("unexposed", self.unexposed.load(Ordering::Acquire)));
        }
        checks
    }
}

impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}: {}", self.name, if self.passed { "ok" } else { "failed" })
    }
}

fn check(name: impl Into<String>, passed: bool) -> Check {
    Check { name: name.into(), passed }
}
