//! Revocations that the file has not confirmed and that are tried again.
//!
//! An [`Attempt`] that ends without a confirmation, by failure or because its caller gave up in
//! between, leaves its entries here. In memory only: the caller was not told that it is done.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;

use crate::model::{End, PrincipalId, SessionId, TenantId};

/// What is to be ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pending {
    Session(SessionId),
    Principal(TenantId, PrincipalId),
}

pub(super) struct AttemptJournal {
    /// Each with the latest end that was asked for.
    pending: Mutex<HashMap<Pending, End>>,
    depth: IntGauge,
}

/// One attempt to end something.
#[must_use = "dropping it unconfirmed means that it failed"]
pub(super) struct Attempt<'a> {
    journal: &'a AttemptJournal,
    entries: Vec<Pending>,
    end: End,
}

impl AttemptJournal {
    pub(super) fn new(depth: IntGauge) -> Self {
        Self { pending: Mutex::default(), depth }
    }

    pub(super) fn attempt(&self, entries: Vec<Pending>, end: End) -> Attempt<'_> {
        Attempt { journal: self, entries, end }
    }

    pub(super) fn list(&self) -> Vec<(Pending, End)> {
        self.lock().iter().map(|(entry, end)| (entry.clone(), *end)).collect()
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<Pending, End>)) {
        let mut pending = self.lock();
        change(&mut pending);
        self.depth.set(i64::try_from(pending.len()).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Pending, End>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt<'_> {
    /// The file has it. What a later attempt on the same asked for stays until that one is confirmed.
    pub(super) fn confirm(mut self) {
        let (entries, confirmed) = (std::mem::take(&mut self.entries), self.end);
        self.journal.change(|pending| {
            for entry in &entries {
                if pending.get(entry).is_some_and(|end| end.at <= confirmed.at) {
                    pending.remove(entry);
                }
            }
        });
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let (entries, failed) = (std::mem::take(&mut self.entries), self.end);
        self.journal.change(|pending| {
            for entry in entries {
                let end = pending.entry(entry).or_insert(failed);
                if end.at < failed.at {
                    *end = failed;
                }
            }
        });
    }
}
