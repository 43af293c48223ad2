//! The one table of surfaces: which operations each has, in which dialect, and who answers.
//!
//! `model::surface` says where a surface is, this table what is there. A new surface is a variant of
//! [`SurfaceId`], a row here, and a folder: routing, `explain`, warnings, 404 and 405, metrics and
//! the documents' test follow from those.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::middleware::map_response;
use axum::response::Response;
use http::{Method, Request};
use tower::{ServiceExt, service_fn};

use crate::api::answer::{AnsweredBy, Speaker, speaking};
use crate::api::core::Core;
use crate::api::dialect::Dialect;
use crate::api::operation::Operation;
use crate::api::{session_exchange, webhooks};
use crate::config::Config;
use crate::model::surface::{SurfaceId, Surfaces};

/// One surface, wherever it is mounted.
pub struct SurfaceRow {
    /// The shape of its errors.
    pub dialect: Dialect,
    /// Whether it shares its prefix with a surface whose callers read `nest` (contracts §2.3): then
    /// a path that neither has is answered in the shapes of both.
    pub shared: bool,
    /// Its operations.
    pub operations: fn() -> Vec<Operation>,
}

const SESSION_EXCHANGE: SurfaceRow =
    SurfaceRow { dialect: Dialect::Detail, shared: true, operations: session_exchange::operations };
const WEBHOOKS: SurfaceRow = SurfaceRow { dialect: Dialect::Detail, shared: false, operations: webhooks::operations };
// The proxy answers `/verify` itself: what is asked about is not the request that came.
const FORWARD_AUTH: SurfaceRow = SurfaceRow { dialect: Dialect::Detail, shared: false, operations: Vec::new };

/// Returns the table's row of a surface.
pub fn row(surface: SurfaceId) -> &'static SurfaceRow {
    match surface {
        SurfaceId::SessionExchange => &SESSION_EXCHANGE,
        SurfaceId::Webhooks => &WEBHOOKS,
        SurfaceId::ForwardAuth => &FORWARD_AUTH,
        #[cfg(test)]
        SurfaceId::Example => &tests::example::ROW,
    }
}

/// Returns the paths and methods that a configuration serves: method, whole path, operation.
pub fn served(config: &Config) -> Vec<(Method, String, &'static str)> {
    let mounts = config.surfaces.mounts();
    let served = mounts.mounts().iter().flat_map(|mount| {
        let of_one =
            |operation: Operation| (operation.method, format!("{}{}", mount.path, operation.path), operation.op);
        (row(mount.surface).operations)().into_iter().map(of_one).collect::<Vec<_>>()
    });
    served.collect()
}

/// Returns what answers every request that `surfaces` own, in each surface's dialect.
pub fn router(core: &Arc<Core>, surfaces: &Surfaces) -> Router {
    let mut routers: Vec<(SurfaceId, Router)> = Vec::new();
    for mount in surfaces.mounts() {
        if routers.iter().all(|(known, _)| *known != mount.surface) {
            routers.push((mount.surface, of_surface(mount.surface, core, surfaces)));
        }
    }
    let (surfaces, routers) = (Arc::new(surfaces.clone()), Arc::new(routers));
    // Not a router of routers: what an outer one takes from a path, an inner handler would be given too.
    Router::new().fallback_service(service_fn(move |request: Request<Body>| {
        let owner = surfaces.owner(request.uri().path()).map(|mount| mount.surface);
        let found = routers.iter().find(|(surface, _)| Some(*surface) == owner);
        let router = found.map_or_else(Router::new, |(_, router)| router.clone());
        async move { Ok::<Response, Infallible>(infallible(router.oneshot(request).await)) }
    }))
}

fn of_surface(surface: SurfaceId, core: &Arc<Core>, surfaces: &Surfaces) -> Router {
    let SurfaceRow { dialect, shared, operations } = *row(surface);
    let mut router = Router::new();
    for mount in surfaces.mounts().iter().filter(|mount| mount.surface == surface) {
        for Operation { path, op, handler, is_there, prepare, .. } in operations() {
            create_series(core, surface, op);
            prepare(core);
            if !is_there(core) {
                continue;
            }
            let named = handler.route_layer(map_response(move |mut response: Response| async move {
                response.extensions_mut().insert(AnsweredBy(op));
                response
            }));
            router = router.route(&format!("{}{path}", mount.path), named);
        }
    }
    let (metrics, random) = (core.metrics.clone(), core.random.clone());
    speaking(router.with_state(core.clone()), Speaker { surface, dialect, shared, metrics, random })
}

// At zero from the start, like all that can be counted: `rate()` needs a zero to begin from.
fn create_series(core: &Core, surface: SurfaceId, op: &'static str) {
    for status in ["200", "500", "503"] {
        core.metrics.auth_requests.with_label_values(&[surface.label(), op, status]);
    }
    core.metrics.auth_request_duration.with_label_values(&[surface.label(), op]);
}

fn infallible<T>(result: Result<T, Infallible>) -> T {
    match result {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests;
