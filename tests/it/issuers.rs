//! Two issuers beside each other: users, organisations and roles of one are never the other's,
//! unless the configuration says so by name.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::client::Response;
use crate::support::database::Database;
use crate::support::doorward::{Builder, Doorward};
use crate::support::idp::Idp;
use crate::support::redis::Redis;
use crate::support::upstream::{Recorded, Upstream};
use crate::surface::answers::{Caller, PATIENT, assert_refused, seen_with, token_of};

const CONFIG: &str = "
identity_headers: { roles: true, actor: true }
bootstrap: { profile: { source: http, http: { path: /profile } } }
routes:
  - { path: '/admins/**', auth: required, require_any_role: ['org:admin'] }
  - { path: '/**', auth: required }
";

/// A Clerk instance, a partner, and an application.
struct Site {
    doorward: Doorward,
    clerk: Idp,
    partner: Idp,
    upstream: Upstream,
}

/// What the application is told of a caller.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    user: String,
    tenant: String,
    roles: String,
    actor: Vec<String>,
}

impl Site {
    /// Starts one; `more` is what the configuration says of the partner beside issuer and keys.
    async fn start(database: &Database, more: &str) -> Self {
        Self::start_with(more, |builder| builder.database(&database.url())).await
    }

    async fn start_with(more: &str, finish: impl FnOnce(Builder) -> Builder) -> Self {
        let (clerk, partner, upstream) = tokio::join!(Idp::start(), Idp::start(), Upstream::start());
        upstream
            .respond("/profile", "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}");
        let builder = Doorward::builder().upstream(upstream.url()).idp(&clerk).config(CONFIG);
        let builder = builder.config(&issuer(&partner, more));
        Self { doorward: finish(builder).start().await, clerk, partner, upstream }
    }

    async fn exchange(&self, jwt: &str) -> Response {
        self.doorward.client().post("/auth/session").bearer(jwt).send().await
    }

    async fn sign_in(&self, idp: &Idp, claims: &Value) -> String {
        token_of(&self.exchange(&idp.mint(claims)).await)
    }

    async fn told(&self, token: &str) -> Told {
        told(&seen_with(&self.doorward, &self.upstream, token).await)
    }

    /// Returns the status of a route that asks for the role `org:admin`.
    async fn as_admin(&self, token: &str) -> u16 {
        self.doorward.client().get("/admins/only").bearer(token).send().await.status
    }

    /// Returns what the application is told when bootstrap asks it with `jwt`.
    async fn told_by_bootstrap(&self, jwt: &str) -> Told {
        let before = self.upstream.count();
        let answer = self.doorward.client().get("/auth/bootstrap").bearer(jwt).send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let asked = self.upstream.requests_after(before);
        told(asked.iter().find(|request| request.target == "/profile").expect("the application was asked"))
    }
}

fn issuer(idp: &Idp, more: &str) -> String {
    let (issuer, jwks) = (idp.issuer(), idp.jwks_url());
    format!("issuers: {{ partner: {{ issuer: '{issuer}', jwks_url: '{jwks}', allow_impersonation: true{more} }} }}")
}

fn told(request: &Recorded) -> Told {
    let one = |name| {
        let values = request.headers.all(name);
        assert_eq!(values.len(), 1, "{name}: {values:?}");
        values[0].to_owned()
    };
    let actor = request.headers.all("x-actor-id").into_iter().map(str::to_owned).collect();
    Told { user: one("x-user-id"), tenant: one("x-client-id"), roles: one("x-user-roles"), actor }
}

/// An administrator of the main organisation, whom somebody acts for.
fn alice() -> Value {
    json!({ "sub": "user_2alice", "sid": "sess_1", "o": { "id": "org_main", "rol": "admin" } })
}

fn is_local(user: &str) -> bool {
    uuid::Uuid::parse_str(user).is_ok_and(|id| id.get_version_num() == 7) && user == user.to_lowercase()
}

#[tokio::test]
async fn a_partners_key_makes_nobody_a_user_a_member_or_an_administrator_of_the_first_one() {
    for database in Database::both().await {
        let site = Site::start(&database, "").await;
        let token = site.sign_in(&site.clerk, &alice()).await;
        let real = site.told(&token).await;
        assert_eq!(
            (real.user.as_str(), real.tenant.as_str(), real.roles.as_str()),
            ("user_2alice", "org_main", "org:admin")
        );
        assert_eq!(site.as_admin(&token).await, 200);

        let mut acted_for = alice();
        acted_for["act"] = json!({ "sub": "user_support" });
        let jwt = site.partner.mint(&acted_for);
        let mut users = Vec::new();
        for caller in Caller::both(&site.doorward).await {
            let bearer = format!("Bearer {jwt}");
            let answer = caller.send("POST", "/auth/session", &[("authorization", &bearer)], "").await;
            let token = token_of(&answer);
            let forged = site.told(&token).await;
            assert!(is_local(&forged.user), "{forged:?}");
            assert_eq!((forged.tenant.as_str(), forged.roles.as_str()), ("partner:org_main", "partner:org:admin"));
            assert_eq!(forged.actor, ["partner:user_support"]);
            assert_eq!(site.as_admin(&token).await, 403);
            assert_eq!(site.told_by_bootstrap(&jwt).await, forged, "the same at every door");
            users.push(forged.user);
        }
        assert_eq!(users[0], users[1], "the same user each time");

        let token = site.sign_in(&site.partner, &json!({ "sub": "user_2alice" })).await;
        let nowhere = site.told(&token).await;
        assert_eq!(
            (nowhere.user.as_str(), nowhere.tenant.as_str(), nowhere.roles.as_str()),
            (users[0].as_str(), "partner", "")
        );
        let other = site.sign_in(&site.partner, &json!({ "sub": "user_2bob" })).await;
        assert_ne!(site.told(&other).await.user, users[0]);
        assert_eq!(database.sql("select count(*) from doorward_identities").await, "2");
    }
}

#[tokio::test]
async fn a_partner_may_what_the_configuration_says_by_name() {
    let named = ", tenant: default, organizations: { org_p: org_main }, roles: { 'org:boss': 'org:admin' }";
    for database in Database::both().await {
        let site = Site::start(&database, named).await;
        for (organization, tenant, roles, status) in [
            (json!({ "id": "org_p", "rol": "boss" }), "org_main", "org:admin", 200),
            (json!({ "id": "org_p", "rol": "admin" }), "org_main", "partner:org:admin", 403),
            (json!({ "id": "org_main", "rol": "boss" }), "partner:org_main", "org:admin", 200),
            (Value::Null, "default", "", 403),
        ] {
            let token = site.sign_in(&site.partner, &json!({ "sub": "user_2alice", "o": organization })).await;
            let told = site.told(&token).await;
            assert!(is_local(&told.user), "{told:?}");
            assert_eq!((told.tenant.as_str(), told.roles.as_str()), (tenant, roles), "{organization}");
            assert_eq!(site.as_admin(&token).await, status, "{organization}");
        }
        let site = Site::start(&database, ", user_id: subject, subject_prefix: p_").await;
        let token = site.sign_in(&site.partner, &json!({ "sub": "p_alice" })).await;
        assert_eq!(site.told(&token).await.user, "p_alice");
        assert_refused(&site.exchange(&site.partner.mint(&alice())).await, 401, "Invalid token: missing subject");

        let site = Site::start(&database, ", same_as: clerk").await;
        let [one, two] = [site.sign_in(&site.clerk, &alice()).await, site.sign_in(&site.partner, &alice()).await];
        assert_eq!(site.told(&one).await, site.told(&two).await);
        assert_eq!(site.as_admin(&two).await, 200);
    }
}

#[tokio::test]
async fn a_device_that_one_providers_user_took_is_not_anothers_of_the_same_name() {
    for database in Database::both().await {
        let site = Site::start(&database, "").await;
        let rebind = async |bearer: &str| {
            let body = json!({ "device_id": "a-device", "clerk_user_id": "user_2alice" });
            site.doorward.client().post("/auth/rebind").bearer(bearer).json(&body).send().await
        };
        let guest = json!({ "device_id": "a-device" });
        token_of(&site.doorward.client().post("/auth/anonymous").json(&guest).send().await);
        let jwt = site.partner.mint(&alice());
        let moved = rebind(&jwt).await;
        assert_eq!((moved.status, &moved.json()["rebound"]), (200, &json!(true)), "{}", moved.text());
        let partners = site.told(&site.sign_in(&site.partner, &alice()).await).await.user;
        assert_eq!(database.sql("select user_id from doorward_devices").await, partners);
        let taken = "device a-device already rebound to a different user";
        assert_refused(&rebind(&site.clerk.mint(&alice())).await, 409, taken);
        assert_refused(&rebind(&site.sign_in(&site.clerk, &alice()).await).await, 409, taken);
        assert_eq!(rebind(&site.sign_in(&site.partner, &alice()).await).await.status, 200);
    }
}

#[tokio::test]
async fn of_several_first_sign_ins_on_two_replicas_one_makes_the_user() {
    let (redis, database) = (Redis::start().await, Database::postgres().await);
    let (partner, upstream) = (Idp::start().await, Upstream::start().await);
    let builder = Doorward::builder;
    let replica = || {
        let builder = builder().upstream(upstream.url()).store(&redis.url()).database(&database.url());
        builder.config(CONFIG).config(PATIENT).config(&issuer(&partner, "")).start()
    };
    let (one, two) = tokio::join!(replica(), replica());
    let sign_in = async |number: usize| {
        let doorward = if number.is_multiple_of(2) { &one } else { &two };
        token_of(&doorward.client().post("/auth/session").bearer(&partner.mint(&alice())).send().await)
    };
    let tokens = join_all((0..12).map(sign_in)).await;
    let mut users = Vec::new();
    for token in &tokens {
        users.push(told(&seen_with(&one, &upstream, token).await).user);
    }
    users.dedup();
    assert_eq!(users.len(), 1, "{users:?}");
    assert_eq!(database.sql("select count(*) from doorward_identities").await, "1");
    assert_eq!(database.sql(&format!("select count(*) from doorward_users where id <> '{}'", users[0])).await, "0");
    let created = |doorward: &Doorward| doorward.logs().matches("\"event.action\":\"user-created\"").count();
    assert_eq!(created(&one) + created(&two), 1);
}

#[tokio::test]
async fn without_the_directory_a_second_issuers_users_cannot_be_known_and_the_first_ones_are() {
    let nowhere = |builder: Builder| builder.database("postgres://nobody@127.0.0.1:1/none");
    let site = Site::start_with("", nowhere).await;
    let jwt = site.partner.mint(&alice());
    let bearer = format!("Bearer {jwt}");
    for caller in Caller::both(&site.doorward).await {
        for (method, path) in [("POST", "/auth/session"), ("GET", "/auth/bootstrap")] {
            let refused = caller.send(method, path, &[("authorization", &bearer)], "").await;
            assert_refused(&refused, 503, "Session store unavailable");
        }
    }
    let token = site.sign_in(&site.clerk, &alice()).await;
    assert_eq!(site.told(&token).await.user, "user_2alice");
    let metrics = site.doorward.admin_get("/metrics").await.text();
    for (outcome, count) in [("success", 1), ("unavailable", 2), ("invalid_token", 0)] {
        let line = format!("doorward_login_attempts_total{{method=\"clerk\",outcome=\"{outcome}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}
