//! What each event does, seen from outside.

use super::{DELETED, Database, REVOKED, Site, deleted, session, user};
use serde_json::{Value, json};

use crate::support::idp::Idp;
use crate::surface::answers::token_of;

#[tokio::test]
async fn a_deleted_user_is_signed_out_everywhere_and_never_returns() {
    for site in Site::both().await {
        let home = json!({ "sub": "user_alice" });
        let work = json!({ "sub": "user_alice", "o": { "id": "org_1", "rol": "admin" } });
        let jwt = site.idp.mint(&home);
        let tokens = [
            site.sign_in(&home).await,
            site.sign_in(&home).await,
            site.sign_in(&work).await,
            site.sign_in(&json!({ "sub": "user_alice", "o": { "id": "org_2" } })).await,
        ];
        let other = site.sign_in(&json!({ "sub": "user_bob", "o": { "id": "org_1" } })).await;
        site.tell("user.updated", &json!({ "id": "user_alice", "first_name": "Alice", "updated_at": 5 })).await;
        assert_eq!(site.person("user_alice").await, "Alice -");
        site.tell("user.deleted", &deleted("user_alice")).await;
        for token in &tokens {
            site.assert_ended(token).await;
        }
        site.assert_live(&other).await;
        let response = site.present(&jwt).await;
        assert_eq!((response.status, response.json()), (401, json!({ "detail": DELETED })));
        let later = json!({ "sub": "user_alice", "o": { "id": "org_3" }, "iat": super::now() + 3 });
        for claims in [&home, &work, &later] {
            site.assert_refused(claims, DELETED).await;
        }
        // What is left is that there was one, and is no more.
        assert_eq!(site.person("user_alice").await, "- -");
        // One who was never seen is refused too.
        site.tell("user.deleted", &deleted("user_carol")).await;
        site.assert_refused(&json!({ "sub": "user_carol" }), DELETED).await;
        assert_eq!(site.counted("user.deleted", "applied").await, 2);
    }
}

#[tokio::test]
async fn a_login_that_ends_takes_its_sessions_and_no_others() {
    for site in Site::both().await {
        for kind in ["session.revoked", "session.ended", "session.removed"] {
            let login = format!("sess_{}", uuid::Uuid::new_v4().simple());
            let home = json!({ "sub": "user_alice", "sid": login });
            let work = json!({ "sub": "user_alice", "sid": login, "o": { "id": "org_1" } });
            let (first, second) = (site.sign_in(&home).await, site.sign_in(&work).await);
            let again = site.sign_in(&home).await;
            let others = [
                site.sign_in(&json!({ "sub": "user_alice" })).await,
                site.sign_in(&json!({ "sub": "user_alice", "o": { "id": "org_1" } })).await,
                site.sign_in(&json!({ "sub": "user_bob" })).await,
            ];
            site.tell(kind, &session(&login, "user_alice")).await;
            for token in [&first, &second, &again] {
                site.assert_ended(token).await;
            }
            for token in &others {
                site.assert_live(token).await;
            }
            site.assert_refused(&home, REVOKED).await;
            site.assert_refused(&work, REVOKED).await;
            site.sign_in(&json!({ "sub": "user_alice" })).await;
            // Told before anybody came.
            let early = format!("sess_{}", uuid::Uuid::new_v4().simple());
            site.tell(kind, &session(&early, "user_dave")).await;
            site.assert_refused(&json!({ "sub": "user_dave", "sid": early }), REVOKED).await;
            assert_eq!(site.counted(kind, "applied").await, 2);
            let kept = "select case when count(*) = 1 then 'a day' else '?' end from doorward_ended_logins";
            let day = 24 * 3_600;
            let (least, most) = ((super::now() + day - 60) * 1000, (super::now() + day + 1) * 1000);
            let kept = format!("{kept} where provider_session = '{login}' and until between {least} and {most}");
            assert_eq!(site.ask(&kept).await, "a day");
        }
    }
}

#[tokio::test]
async fn a_banned_or_locked_user_is_signed_out_everywhere_until_they_sign_in_anew() {
    for site in Site::both().await {
        for (flag, name) in [("banned", "user_alice"), ("locked", "user_bob")] {
            let old = site.idp.mint(&json!({ "sub": name, "o": { "id": "org_9" } }));
            let tokens = [
                site.sign_in(&json!({ "sub": name })).await,
                site.sign_in(&json!({ "sub": name, "o": { "id": "org_1" } })).await,
            ];
            let other = site.sign_in(&json!({ "sub": "user_carol" })).await;
            let mut barred = user(name);
            site.tell("user.updated", &barred).await;
            for token in &tokens {
                site.assert_live(token).await;
            }
            barred[flag] = Value::Bool(true);
            site.tell("user.updated", &barred).await;
            for token in &tokens {
                site.assert_ended(token).await;
            }
            site.assert_live(&other).await;
            // A proof from before does not get in, whichever tenant it is for.
            let response = site.present(&old).await;
            assert_eq!((response.status, response.json()), (401, json!({ "detail": REVOKED })));
            let token = site.sign_in_later(name).await;
            site.assert_live(&token).await;
        }
    }
}

#[tokio::test]
async fn a_membership_that_ends_takes_the_sessions_in_that_tenant() {
    for site in Site::both().await {
        let work = json!({ "sub": "user_alice", "o": { "id": "org_1", "rol": "admin" } });
        let jwt = site.idp.mint(&work);
        let (inside, also) = (site.sign_in(&work).await, site.sign_in(&work).await);
        let others = [
            site.sign_in(&json!({ "sub": "user_alice" })).await,
            site.sign_in(&json!({ "sub": "user_alice", "o": { "id": "org_2" } })).await,
            site.sign_in(&json!({ "sub": "user_bob", "o": { "id": "org_1" } })).await,
        ];
        let membership = json!({
            "id": "orgmem_1", "object": "organization_membership", "role": "org:admin",
            "organization": { "id": "org_1", "object": "organization" },
            "public_user_data": { "user_id": "user_alice" },
        });
        site.tell("organizationMembership.deleted", &membership).await;
        for token in [&inside, &also] {
            site.assert_ended(token).await;
        }
        for token in &others {
            site.assert_live(token).await;
        }
        assert_eq!(site.present(&jwt).await.json(), json!({ "detail": REVOKED }));
        // Whoever joins again comes with a new proof.
        let anew = json!({ "sub": "user_alice", "o": { "id": "org_1" }, "iat": super::now() + 3 });
        site.assert_live(&site.sign_in(&anew).await).await;
        // Told of somebody who was never here, and of them once more.
        let stranger = json!({ "organization": { "id": "org_5" }, "public_user_data": { "user_id": "user_eve" } });
        site.tell("organizationMembership.deleted", &stranger).await;
        site.tell("organizationMembership.deleted", &stranger).await;
        assert_eq!(site.counted("organizationMembership.deleted", "applied").await, 3);
    }
}

#[tokio::test]
async fn names_and_addresses_are_kept_as_the_provider_last_said() {
    for site in Site::both().await {
        let person = |first: &str, at: u64| {
            json!({
                "id": "user_alice", "first_name": first, "last_name": "Lidell", "updated_at": at,
                "primary_email_address_id": "idn_2",
                "email_addresses": [
                    { "id": "idn_1", "email_address": "old@example.com" },
                    { "id": "idn_2", "email_address": format!("{first}@example.com") },
                ],
            })
        };
        site.tell("user.created", &person("Alice", 10)).await;
        assert_eq!(site.person("user_alice").await, "Alice Lidell Alice@example.com");
        site.tell("user.updated", &person("Alicia", 20)).await;
        assert_eq!(site.person("user_alice").await, "Alicia Lidell Alicia@example.com");
        let bare = json!({ "id": "user_alice", "first_name": null, "updated_at": 30, "email_addresses": [] });
        site.tell("user.updated", &bare).await;
        assert_eq!(site.person("user_alice").await, "- -");
        // One who signed in before anything was heard.
        site.sign_in(&json!({ "sub": "user_bob" })).await;
        assert_eq!(site.person("user_bob").await, "- -");
        site.tell("user.created", &json!({ "id": "user_bob", "first_name": "Bo\u{0}b", "updated_at": 1 })).await;
        assert_eq!(site.person("user_bob").await, "Bob -");
    }
}

#[tokio::test]
async fn effects_are_in_the_audit_log_with_ids_and_counts_only() {
    for mut site in Site::both().await {
        site.sign_in(&json!({ "sub": "user_alice", "sid": "sess_1" })).await;
        site.sign_in(&json!({ "sub": "user_alice", "o": { "id": "org_1" } })).await;
        site.tell("session.ended", &session("sess_1", "user_alice")).await;
        let left = json!({ "organization": { "id": "org_1" }, "public_user_data": { "user_id": "user_alice" } });
        site.tell("organizationMembership.deleted", &left).await;
        let name = json!({ "id": "user_alice", "first_name": "Alice", "banned": true, "updated_at": 1 });
        site.tell("user.updated", &name).await;
        site.tell("user.deleted", &deleted("user_alice")).await;
        site.tell("email.created", &json!({})).await;
        site.doorward.signal("TERM");
        site.doorward.wait_exit().await;
        let logs = site.doorward.logs();
        assert!(!logs.contains("\"Alice\"") && !logs.contains("msg_"), "{logs}");
        let lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let other = [json!("started"), json!("session-started")];
        let lines = lines.filter(|line| line["log.logger"] == "audit" && !other.contains(&line["event.action"]));
        let told: Vec<Value> = lines
            .map(|mut line| {
                let fields = line.as_object_mut().expect("a line is an object");
                fields.retain(|name, _| !["@timestamp", "log.level", "log.logger"].contains(&name.as_str()));
                line
            })
            .collect();
        let expected = [
            json!({ "event.action": "login-ended", "user.id": "user_alice", "login.id": "sess_1", "sessions.ended": 1 }),
            json!({ "event.action": "membership-ended", "user.id": "user_alice", "organization.id": "org_1", "sessions.ended": 1 }),
            json!({ "event.action": "user-barred", "user.id": "user_alice", "sessions.ended": 0 }),
            json!({ "event.action": "user-refreshed", "user.id": "user_alice" }),
            json!({ "event.action": "user-deleted", "user.id": "user_alice", "sessions.ended": 0 }),
        ];
        assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn sessions_in_the_default_tenant_end_even_if_their_sign_in_was_never_noted() {
    for site in Site::both().await {
        let claims = json!({ "sub": "user_alice", "sid": "sess_1" });
        let (first, second) = (site.sign_in(&claims).await, site.sign_in(&json!({ "sub": "user_alice" })).await);
        site.ask("delete from doorward_user_tenants").await;
        site.tell("session.ended", &session("sess_1", "user_alice")).await;
        site.assert_ended(&first).await;
        site.assert_live(&second).await;
        site.tell("user.deleted", &deleted("user_alice")).await;
        site.assert_ended(&second).await;
    }
}

#[tokio::test]
async fn another_providers_user_and_login_of_the_same_name_are_left_alone() {
    for database in Database::both().await {
        let partner = Idp::start().await;
        let issuer = format!(
            "issuers: {{ partner: {{ issuer: '{}', jwks_url: '{}', organizations: {{ org_1: org_1 }} }} }}",
            partner.issuer(),
            partner.jwks_url()
        );
        let site = Site::start(database, |builder| builder.config(&issuer)).await;
        let gone = [
            ("session.revoked", session("sess_0", "user_alice")),
            (
                "organizationMembership.deleted",
                json!({ "organization": { "id": "org_1" }, "public_user_data": { "user_id": "user_alice" } }),
            ),
            ("user.updated", json!({ "id": "user_alice", "banned": true })),
            ("user.deleted", deleted("user_alice")),
        ];
        for (number, (kind, data)) in gone.iter().enumerate() {
            let claims = json!({
                "sub": "user_alice", "sid": format!("sess_{number}"), "o": { "id": "org_1", "rol": "admin" },
                "iat": super::now() + 3,
            });
            let by_partner = async || token_of(&site.present(&partner.mint(&claims)).await);
            let (clerks, partners) = (site.sign_in(&claims).await, by_partner().await);
            site.tell(kind, data).await;
            site.assert_ended(&clerks).await;
            site.assert_live(&partners).await;
            site.assert_live(&by_partner().await).await;
        }
    }
}
