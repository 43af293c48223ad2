//! The table, and what follows from a row of it.

use std::collections::BTreeMap;

use axum::body::Body;
use http::header::ALLOW;
use http::{Method, Request};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::api::tests::{core, surfaces};
use crate::cli::explain;
use crate::config::RouteRule;
use crate::model::surface::Mount;
use crate::proxy::route::{Route, RouteTable};

/// A surface that is added: this module, one row, one variant.
pub(in crate::api::mount) mod example {
    use super::*;
    use crate::api::json::Json;
    use crate::api::problem::{Problem, Resource, What};

    pub(in crate::api::mount) const ROW: SurfaceRow = SurfaceRow { dialect: Dialect::Clerk, shared: false, operations };

    fn operations() -> Vec<Operation> {
        vec![
            Operation::new(Method::GET, "/things", "list_things", list),
            Operation::new(Method::DELETE, "/things/{id}", "delete_thing", delete),
        ]
    }

    async fn list() -> Json<[u8; 0]> {
        Json([])
    }

    async fn delete(axum::extract::Path(id): axum::extract::Path<String>) -> Problem {
        What::NotFound(Resource::Session(id)).into()
    }
}

fn with_example() -> Surfaces {
    let mut mounts = surfaces().mounts().to_vec();
    mounts.push(Mount::below(SurfaceId::Example, "/example"));
    Surfaces::new(mounts)
}

async fn send(router: &Router, method: &Method, path: &str) -> (u16, http::HeaderMap, String) {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let (head, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), head.headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn every_endpoint_is_answered_and_other_methods_are_told_which_ones_are() {
    let core = core();
    let surfaces = with_example();
    let router = router(&core, &surfaces);
    for mount in surfaces.mounts() {
        let mut paths: BTreeMap<&str, Vec<Method>> = BTreeMap::new();
        for operation in (row(mount.surface).operations)() {
            paths.entry(operation.path).or_default().push(operation.method);
        }
        for (path, methods) in paths {
            let whole = format!("{}{path}", mount.path).replace("{id}", "7");
            let (status, headers, _) = send(&router, &Method::from_bytes(b"PROPFIND").unwrap(), &whole).await;
            assert_eq!(status, 405, "{whole}");
            let allowed: Vec<&str> =
                headers[ALLOW].to_str().unwrap().split(',').filter(|name| *name != "HEAD").collect();
            assert_eq!(allowed, methods.iter().map(Method::as_str).collect::<Vec<_>>(), "{whole}");
            for method in methods {
                let (status, _, body) = send(&router, &method, &whole).await;
                assert!(status != 405 && !body.contains("Cannot "), "{method} {whole}: {status} {body}");
            }
        }
    }
}

#[test]
fn routing_and_explain_follow_a_row() {
    let rules: Vec<RouteRule> = Config::load(&[], &BTreeMap::new()).unwrap().config.routes;
    let table = RouteTable::new(&rules, with_example()).unwrap();
    let get = |path| table.classify(&Method::GET, path);
    for path in ["/example", "/example/things", "/example/nothing"] {
        assert!(matches!(get(path), Route::Terminate(SurfaceId::Example)), "{path}: {:?}", get(path));
        assert_eq!(get(path).dialect(), Dialect::Clerk, "{path}");
    }
    assert!(matches!(get("/examples"), Route::Guard(_)));
    let config = Config::load(&[], &BTreeMap::new()).unwrap().config;
    let explained = |path| explain::explained(&table, &config, &Method::GET, path);
    assert!(explained("/example/things").contains(&"answered by Doorward itself; rules do not apply".to_owned()));
    assert!(!explained("/examples").contains(&"answered by Doorward itself; rules do not apply".to_owned()));
}

#[tokio::test]
async fn what_a_surface_has_not_is_told_in_its_dialect() {
    let (core, surfaces) = (core(), with_example());
    let router = router(&core, &surfaces);
    let not_found = |body: &str| {
        assert!(body.starts_with(r#"{"errors":[{"message":"not found","long_message":"Resource not found""#), "{body}");
    };
    let (status, headers, body) = send(&router, &Method::GET, "/example/nothing").await;
    not_found(&body);
    assert_eq!((status, headers["x-clerk-trace-id"].len()), (404, 32));
    let (status, headers, body) = send(&router, &Method::POST, "/example/things").await;
    not_found(&body);
    assert_eq!((status, headers[ALLOW].to_str().unwrap()), (405, "GET,HEAD"));
    let (status, headers, body) = send(&router, &Method::GET, "/example/things").await;
    assert_eq!((status, body.as_str(), headers["x-clerk-trace-id"].len()), (200, "[]", 32));
    let (status, _, body) = send(&router, &Method::DELETE, "/example/things/sess_x").await;
    assert!(status == 404 && body.contains("No session was found with id sess_x"), "{body}");
    let (status, _, body) = send(&router, &Method::GET, "/_doorward/nothing").await;
    assert_eq!((status, body.as_str()), (404, r#"{"detail":"Not Found"}"#));
}

#[tokio::test]
async fn operations_are_counted_by_surface_and_name() {
    let (core, surfaces) = (core(), with_example());
    let router = router(&core, &surfaces);
    let count = |op, status| core.metrics.auth_requests.with_label_values(&["example", op, status]).get();
    let timed = |op| core.metrics.auth_request_duration.with_label_values(&["example", op]).get_sample_count();
    assert_eq!((count("list_things", "200"), timed("list_things")), (0, 0));
    send(&router, &Method::GET, "/example/things").await;
    send(&router, &Method::HEAD, "/example/things").await;
    send(&router, &Method::DELETE, "/example/things/7").await;
    send(&router, &Method::POST, "/example/things").await;
    send(&router, &Method::GET, "/example/nothing").await;
    assert_eq!((count("list_things", "200"), timed("list_things")), (2, 2));
    assert_eq!((count("delete_thing", "404"), timed("delete_thing")), (1, 1));
    assert_eq!((count("none", "405"), count("none", "404"), timed("none")), (1, 1, 2));
}
