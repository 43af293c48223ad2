//! One operation of a surface, as the table of `mount` lists it.

use std::sync::Arc;

use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;

use crate::api::core::Core;

/// One operation of a surface.
pub struct Operation {
    /// The method. GET stands for HEAD too.
    pub method: Method,
    /// What follows the surface's path.
    pub path: &'static str,
    /// The operation's name in metrics.
    pub op: &'static str,
    /// Who answers.
    pub(super) handler: MethodRouter<Arc<Core>>,
    /// Whether it is there as configured; its path is answered 404 otherwise.
    pub(super) is_there: fn(&Core) -> bool,
    /// Puts metrics of its own at zero.
    pub(super) prepare: fn(&Core),
}

impl Operation {
    /// Returns the operation `op` at `path` below the surface's.
    ///
    /// # Panics
    ///
    /// When `method` is no method of HTTP's own: the tables are constants.
    pub(super) fn new<H, T>(method: Method, path: &'static str, op: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Core>>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("the tables name methods of HTTP's own");
        Self { method, path, op, handler: on(filter, handler), is_there: |_| true, prepare: |_| {} }
    }

    /// Returns the same operation, there only where `condition` holds.
    pub(super) fn only_if(self, condition: fn(&Core) -> bool) -> Self {
        Self { is_there: condition, ..self }
    }

    /// Returns the same operation with metrics of its own, which `prepare` puts at zero.
    pub(super) fn prepared_by(self, prepare: fn(&Core)) -> Self {
        Self { prepare, ..self }
    }
}
