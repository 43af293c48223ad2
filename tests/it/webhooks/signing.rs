//! Who is believed: signature, date, instance; and what is answered to everybody else.

use super::{
    Delivery, KID, NEXT_SECRET, RECEIVED, SECRET, Site, deleted, event, new_id, now, send, session, signed, signed_with,
};
use crate::support::doorward::Doorward;
use crate::support::upstream::Upstream;
use crate::surface::answers::{Caller, assert_answer, assert_refused};
use serde_json::{Value, json};

const BAD_SIGNATURE: &str = "Invalid webhook signature";
const BAD_PAYLOAD: &str = "Invalid webhook payload";
const MEBIBYTE: usize = 1024 * 1024;

fn harmless() -> String {
    event("email.created", &json!({}))
}

fn renamed(delivery: Delivery, family: &str) -> Delivery {
    let name = |name: &'static str| match (family, name) {
        ("webhook", "svix-id") => "webhook-id",
        ("webhook", "svix-timestamp") => "webhook-timestamp",
        ("webhook", "svix-signature") => "webhook-signature",
        (_, name) => name,
    };
    Delivery {
        headers: delivery.headers.into_iter().map(|(header, value)| (name(header), value)).collect(),
        ..delivery
    }
}

fn with(delivery: Delivery, name: &'static str, change: impl Fn(&str) -> String) -> Delivery {
    let changed = |(header, value): (&'static str, String)| {
        let value = if header == name { change(&value) } else { value };
        (header, value)
    };
    Delivery { headers: delivery.headers.into_iter().map(changed).collect(), ..delivery }
}

#[tokio::test]
async fn what_the_official_library_signs_is_received() {
    for site in Site::both().await {
        let (svix, body) = (&site.svix, harmless());
        let good = || signed(svix, &new_id(), &body);
        let spaced = format!(" {}\n", harmless().replace("email", "\\u0065mail"));
        let rows = [
            ("as Clerk sends it", good()),
            ("under the names of Standard Webhooks", renamed(good(), "webhook")),
            ("with the secret that comes next", signed_with(svix, NEXT_SECRET, &new_id(), now(), &body)),
            ("almost five minutes old", signed_with(svix, SECRET, &new_id(), now() - 290, &body)),
            ("from a clock that is ahead", signed_with(svix, SECRET, &new_id(), now() + 299, &body)),
            ("one of several signatures", with(good(), "svix-signature", |value| format!("v2,x v1,AAAA {value} v3,y"))),
            ("the bytes as they came", signed(svix, &new_id(), &spaced)),
            ("with a charset", with(good(), "content-type", |_| "application/json; charset=utf-8".to_owned())),
        ];
        for (name, delivery) in rows {
            let response = send(&site.doorward, &delivery).await;
            assert_eq!(response.text(), RECEIVED, "{name}");
            assert_answer(&response, 200, RECEIVED);
        }
        let headers: Vec<(&'static str, String)> = good().headers.into_iter().skip(1).collect();
        let untyped = Delivery { headers, body: body.clone() };
        let untyped = with(untyped, "svix-id", str::to_owned);
        assert_answer(&send(&site.doorward, &untyped).await, 200, RECEIVED);
        for caller in Caller::both(&site.doorward).await {
            let delivery = good();
            let headers: Vec<_> = delivery.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_answer(&caller.send("POST", "/webhooks/clerk", &headers, &body).await, 200, RECEIVED);
        }
        assert_eq!(site.counted("other", "ignored").await, 11);
        assert_eq!(site.counted("none", "invalid_signature").await, 0);
    }
}

#[tokio::test]
async fn what_nobody_we_know_signed_now_for_us_is_refused_and_does_nothing() {
    for site in Site::both().await {
        let token = site.sign_in(&json!({ "sub": "user_alice", "sid": "sess_alice" })).await;
        let svix = &site.svix;
        let body = event("user.deleted", &deleted("user_alice"));
        let good = || signed(svix, &new_id(), &body);
        let of_instance = |instance: &Value| {
            let mut body: Value = serde_json::from_str(&body).expect("an event is JSON");
            body["instance_id"] = instance.clone();
            signed(svix, &new_id(), &body.to_string())
        };
        let other = "whsec_YW5vdGhlci1zZWNyZXQtb2YtMzItYnl0ZXMtaGVyZSE=";
        let mut rows = vec![
            ("stale", signed_with(svix, SECRET, &new_id(), now() - 301, &body)),
            ("ahead", signed_with(svix, SECRET, &new_id(), now() + 310, &body)),
            ("another secret", signed_with(svix, other, &new_id(), now(), &body)),
            ("another instance", of_instance(&json!("ins_other"))),
            ("no instance", of_instance(&Value::Null)),
            ("another version only", with(good(), "svix-signature", |value| value.replace("v1,", "v2,"))),
            ("no version", with(good(), "svix-signature", |value| value.replace("v1,", ""))),
            ("separated by commas", with(good(), "svix-signature", |value| format!("v1,AAAA,{value}"))),
            ("no signature", with(good(), "svix-signature", |_| String::new())),
            ("another id", with(good(), "svix-id", |value| format!("{value}x"))),
            ("another date", with(good(), "svix-timestamp", |value| format!("0{value}"))),
            ("no date", with(good(), "svix-timestamp", |_| "now".to_owned())),
            ("another body", Delivery { body: body.replace("alice", "alicf"), ..good() }),
            ("one byte more", Delivery { body: format!("{body} "), ..good() }),
            ("no body", Delivery { body: String::new(), ..good() }),
        ];
        for left_out in ["svix-id", "svix-timestamp", "svix-signature"] {
            let headers = good().headers.into_iter().filter(|(name, _)| *name != left_out).collect();
            rows.push((left_out, Delivery { headers, body: body.clone() }));
            let mut twice = good();
            let again = twice.headers.iter().find(|(name, _)| *name == left_out).expect("it is there").clone();
            twice.headers.push(again);
            rows.push((left_out, twice));
        }
        rows.push(("nothing at all", Delivery { headers: Vec::new(), body: body.clone() }));
        let count = rows.len() as u64;
        for (name, delivery) in rows {
            let response = send(&site.doorward, &delivery).await;
            assert_eq!((response.status, name), (400, name), "{}", response.text());
            assert_refused(&response, 400, BAD_SIGNATURE);
        }
        assert_eq!(site.counted("none", "invalid_signature").await, count);
        site.assert_live(&token).await;
        site.sign_in(&json!({ "sub": "user_alice" })).await;
    }
}

#[tokio::test]
async fn what_was_signed_and_cannot_be_understood_is_told_apart() {
    for site in Site::both().await {
        let of = |fields: &str| format!(r#"{{"instance_id":"{KID}",{fields}}}"#);
        let mut bodies = vec![String::new(), "{".to_owned(), "[]".to_owned(), "null".to_owned()];
        bodies.push(of(r#""data":{}"#));
        bodies.push(of(r#""type":7"#));
        bodies.push(of(r#""type":"email.created","type":"user.deleted""#));
        // The contract's own vector lacks what the event is about.
        bodies.push(of(r#""type":"session.revoked""#));
        bodies.push(of(r#""type":"user.deleted","data":{"id":7}"#));
        bodies.push(of(r#""type":"user.updated","data":[]"#));
        bodies.push(event("session.ended", &json!({ "user_id": "user_alice" })));
        bodies.push(event("session.ended", &json!({ "id": "sess_1" })));
        bodies.push(event("organizationMembership.deleted", &json!({ "organization": { "id": "org_1" } })));
        for body in &bodies {
            let response = send(&site.doorward, &signed(&site.svix, &new_id(), body)).await;
            assert_eq!((response.status, body), (400, body));
            assert_refused(&response, 400, BAD_PAYLOAD);
        }
        assert_eq!(site.counted("none", "invalid_payload").await, bodies.len() as u64);
        // Nobody who signs in is called so: there is nothing to do, and nothing to be told again.
        for id in ["client_1", "anon:0d9c1c1e-3f0e-4f6e-9f53-3a0c7a4d2b11", ""] {
            site.tell("user.deleted", &deleted(id)).await;
        }
        assert_eq!(site.counted("user.deleted", "ignored").await, 3);
    }
}

#[tokio::test]
async fn an_event_has_one_type_and_one_mebibyte() {
    for site in Site::both().await {
        let padded = |bytes: usize| {
            let body = harmless();
            format!("{body}{}", " ".repeat(bytes - body.len()))
        };
        let largest = signed(&site.svix, &new_id(), &padded(MEBIBYTE));
        assert_answer(&send(&site.doorward, &largest).await, 200, RECEIVED);
        let larger = signed(&site.svix, &new_id(), &padded(MEBIBYTE + 1));
        assert_refused(&send(&site.doorward, &larger).await, 413, "Request body too large");
        assert_eq!(site.counted("none", "too_large").await, 1);
        let form = signed(&site.svix, &new_id(), &harmless());
        let form = with(form, "content-type", |_| "application/x-www-form-urlencoded".to_owned());
        assert_refused(&send(&site.doorward, &form).await, 415, "Unsupported media type");
        for method in ["GET", "PUT", "DELETE", "PATCH"] {
            let request = site.doorward.client().request(method.parse().expect("a method"), "/webhooks/clerk");
            let response = request.send().await;
            assert_refused(&response, 405, "Method Not Allowed");
            assert_eq!(response.headers.all("allow"), ["POST"]);
        }
        assert!(site.upstream.requests().is_empty(), "{:?}", site.upstream.requests());
        // Its neighbours are the application's.
        for path in ["/webhooks/clerk/", "/webhooks", "/webhooks/stripe"] {
            assert_refused(&site.doorward.client().post(path).send().await, 401, "Missing Bearer token");
        }
    }
}

#[tokio::test]
async fn without_secrets_there_is_no_endpoint() {
    let upstream = Upstream::start().await;
    let builder = Doorward::builder().upstream(upstream.url());
    let doorward = builder.config("routes: [{ path: '/**', auth: none }]").start().await;
    for caller in Caller::both(&doorward).await {
        for method in ["POST", "GET", "DELETE"] {
            let response = caller.send(method, "/webhooks/clerk", &[("svix-id", "msg_1")], "").await;
            assert_refused(&response, 404, "Not Found");
        }
    }
    assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());
}

#[tokio::test]
async fn any_instance_is_believed_when_none_is_named() {
    for database in super::Database::both().await {
        let any = "webhooks: { clerk: { instance_id: null } }";
        let site = Site::start(database, |builder| builder.config(any)).await;
        let token = site.sign_in(&json!({ "sub": "user_alice", "sid": "sess_1" })).await;
        let body = json!({ "type": "session.revoked", "data": session("sess_1", "user_alice") }).to_string();
        assert_answer(&send(&site.doorward, &signed(&site.svix, &new_id(), &body)).await, 200, RECEIVED);
        site.assert_ended(&token).await;
    }
}
