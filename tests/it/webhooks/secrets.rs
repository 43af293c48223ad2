//! Signing secrets and signatures come out nowhere, however talkative the process is.

use serde_json::json;

use super::{Database, NEXT_SECRET, SECRET, Site, event, new_id, send, signed, signed_with};

#[tokio::test]
async fn nothing_secret_is_in_logs_metrics_or_answers() {
    for database in Database::both().await {
        let mut site = Site::start(database, |builder| builder.config("telemetry: { log_level: trace }")).await;
        let canary = "canary-5d1c0b5e";
        let person = json!({
            "id": "user_alice", "first_name": canary, "updated_at": 1, "primary_email_address_id": "idn_1",
            "email_addresses": [{ "id": "idn_1", "email_address": format!("{canary}@example.com") }],
        });
        let body = event("user.updated", &person);
        let good = signed(&site.svix, &new_id(), &body);
        let next = signed_with(&site.svix, NEXT_SECRET, &new_id(), super::now(), &body);
        let stale = signed_with(&site.svix, SECRET, &new_id(), 1, &body);
        let malformed = signed(&site.svix, &new_id(), &format!("{{{body}"));
        let mut shown = String::new();
        for (delivery, status) in [(&good, 200), (&good, 200), (&next, 200), (&stale, 400), (&malformed, 400)] {
            let answer = send(&site.doorward, delivery).await;
            assert_eq!(answer.status, status, "{}", answer.text());
            shown.extend([format!("{:?}", answer.headers), answer.text()]);
        }
        assert_eq!(site.person("user_alice").await, format!("{canary} {canary}@example.com"));
        shown += &site.doorward.admin_get("/metrics").await.text();
        site.doorward.signal("TERM");
        site.doorward.wait_exit().await;
        shown += &site.doorward.logs();
        assert!(shown.contains("user-refreshed"), "the logs are there");
        let mut secrets = vec![canary.to_owned()];
        for secret in [SECRET, NEXT_SECRET] {
            secrets.push(secret["whsec_".len()..].trim_end_matches('=').to_owned());
        }
        secrets.extend(["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"].map(str::to_owned));
        for delivery in [&good, &next, &stale, &malformed] {
            let signature = delivery.headers.iter().find(|(name, _)| *name == "svix-signature").expect("it is signed");
            secrets.push(signature.1["v1,".len()..].to_owned());
        }
        for secret in secrets {
            assert!(!shown.contains(&secret), "{secret} is in {shown}");
        }
    }
}
