//! One call of `GET /auth/bootstrap`, as the sources see it.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use serde_json::{Map, Value};

use crate::model::Principal;

/// A section as its source gave it.
pub(super) type Document = Map<String, Value>;

/// The caller, as the sources see it.
#[derive(Clone)]
pub(super) struct SourceCall {
    pub(super) principal: Principal,
    pub(super) roles: Vec<String>,
    /// The identity headers and the request id that the application receives.
    pub(super) headers: HeaderMap,
}

impl SourceCall {
    /// Returns the idempotency key under which a caller's document in `section` is created: the same every time.
    pub(super) fn key(&self, section: &str) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [section, self.principal.tenant.as_str(), self.principal.id.as_str()] {
            context.update(part.as_bytes());
            context.update(&[0]);
        }
        URL_SAFE_NO_PAD.encode(context.finish())
    }
}
