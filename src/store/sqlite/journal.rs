//! Revocations that the file has not confirmed and that are tried again.
//!
//! An [`Attempt`] that ends without a confirmation, by failure or because its caller gave up in
//! between, leaves its entries here. In memory only: whoever asked was not told that it is done.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;

use crate::model::{PrincipalId, TenantId, TokenId};
use crate::time::Timestamp;

/// What is to be ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Pending {
    Session(TokenId),
    Principal(TenantId, PrincipalId, Timestamp),
}

pub(super) struct Journal {
    pending: Mutex<HashSet<Pending>>,
    depth: IntGauge,
}

/// One attempt to end something.
#[must_use = "dropping it unconfirmed means that it failed"]
pub(super) struct Attempt<'a> {
    journal: &'a Journal,
    entries: Vec<Pending>,
}

impl Journal {
    pub(super) fn new(depth: IntGauge) -> Self {
        Self { pending: Mutex::default(), depth }
    }

    pub(super) fn attempt(&self, entries: Vec<Pending>) -> Attempt<'_> {
        Attempt { journal: self, entries }
    }

    pub(super) fn list(&self) -> Vec<Pending> {
        self.lock().iter().cloned().collect()
    }

    fn change(&self, change: impl FnOnce(&mut HashSet<Pending>)) {
        let mut pending = self.lock();
        change(&mut pending);
        self.depth.set(i64::try_from(pending.len()).unwrap_or(i64::MAX));
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt<'_> {
    pub(super) fn confirm(mut self) {
        let entries = std::mem::take(&mut self.entries);
        self.journal.change(|pending| {
            for entry in &entries {
                pending.remove(entry);
            }
        });
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        self.journal.change(|pending| pending.extend(entries));
    }
}
