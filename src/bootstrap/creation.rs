//! Creates a missing document once, however many callers found it missing.
//!
//! Within this process exactly once. Between replicas PUT makes repetition harmless, and an
//! idempotency key that is the same on all of them lets an application refuse the second POST.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http::Method;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::application::Application;
use super::call::{Document, SourceCall};
use super::section_error::SectionError;
use crate::config::bootstrap::{Create, CreateMethod, HttpSource};

type DocumentCell = OnceCell<Document>;

/// The creations in progress, by key.
#[derive(Default)]
pub(super) struct Creations(Mutex<HashMap<String, Weak<DocumentCell>>>);

impl Creations {
    /// Returns the document after it was created, for this caller or for another one at the same time.
    ///
    /// The creation goes on when the caller has gone, for no longer than `deadline`.
    pub(super) async fn create(
        &self,
        section: &'static str,
        application: &Application,
        (source, create): (&HttpSource, &Create),
        call: &SourceCall,
        deadline: Duration,
    ) -> Result<Document, SectionError> {
        let key = call.key(section);
        let shared = self.shared(&key);
        let (application, source, create, call) = (application.clone(), source.clone(), create.clone(), call.clone());
        let making = tokio::spawn(async move {
            let made = shared.get_or_try_init(|| make(&application, &source, &create, &call, &key));
            match tokio::time::timeout(deadline, made).await {
                Ok(made) => made.cloned(),
                Err(_) => Err(SectionError::TimedOut),
            }
        });
        making.await.unwrap_or(Err(SectionError::Interrupted))
    }

    // Callers share the cell while the creation lasts; later ones get another cell.
    fn shared(&self, key: &str) -> Arc<DocumentCell> {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = under_way.get(key).and_then(Weak::upgrade) {
            return cell;
        }
        under_way.retain(|_, cell| cell.strong_count() > 0);
        let cell = Arc::new(DocumentCell::new());
        under_way.insert(key.to_owned(), Arc::downgrade(&cell));
        cell
    }
}

// Asks again first: the answer that the document is missing may be older than the last creation.
async fn make(
    application: &Application,
    source: &HttpSource,
    create: &Create,
    call: &SourceCall,
    key: &str,
) -> Result<Document, SectionError> {
    if let Some(document) = application.find(&source.path, &call.headers).await? {
        return Ok(document);
    }
    let method = match create.method {
        CreateMethod::Put => Method::PUT,
        CreateMethod::Post => Method::POST,
    };
    let path = create.path.as_deref().unwrap_or(&source.path);
    let body = filled(&Value::Object(create.body.clone()), call);
    application.create(method, path, &call.headers, key, &body).await?;
    application.find(&source.path, &call.headers).await?.ok_or(SectionError::Absent)
}

fn filled(template: &Value, call: &SourceCall) -> Value {
    match template {
        Value::String(text) => {
            let text = text.replace("{client_id}", call.principal.tenant.as_str());
            Value::String(text.replace("{user_id}", call.principal.id.as_str()))
        }
        Value::Array(list) => list.iter().map(|inner| filled(inner, call)).collect(),
        Value::Object(map) => map.iter().map(|(key, inner)| (key.clone(), filled(inner, call))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => template.clone(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use serde_json::json;

    use super::*;
    use crate::model::{Principal, PrincipalKind};

    #[test]
    fn a_template_names_the_caller() {
        let principal = Principal {
            kind: PrincipalKind::User,
            id: "user_{client_id}".parse().unwrap(),
            tenant: "acme".parse().unwrap(),
        };
        let call = SourceCall { principal, roles: Vec::new(), headers: HeaderMap::new() };
        let template = json!({ "id": "{user_id}", "in": ["at {client_id}", { "n": 1 }], "null": null });
        let expected = json!({ "id": "user_{client_id}", "in": ["at acme", { "n": 1 }], "null": null });
        assert_eq!(filled(&template, &call), expected, "an id is not a template");
    }

    #[test]
    fn callers_share_a_making_only_while_it_lasts() {
        let creations = Creations::default();
        let first = creations.shared("a");
        assert!(Arc::ptr_eq(&first, &creations.shared("a")));
        assert!(!Arc::ptr_eq(&first, &creations.shared("b")));
        drop(first);
        creations.shared("c");
        assert!(creations.0.lock().unwrap().len() <= 1, "what is over is forgotten");
    }
}
