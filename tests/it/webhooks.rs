//! `POST /webhooks/clerk` (contracts §10): signed by the official library, on both databases.

mod effects;
mod order;
mod outage;
mod races;
mod secrets;
mod signing;

use doorward::time::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::support::client::Response;
use crate::support::doorward::{Builder, Doorward};
use crate::support::idp::{Idp, KID};
use crate::support::postgres::Postgres;
use crate::support::svix::Svix;
use crate::support::upstream::Upstream;
use crate::surface::answers::{assert_answer, assert_guard_refuses, assert_refused, token_of};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const NEXT_SECRET: &str = "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
const RECEIVED: &str = r#"{"received":true}"#;
const DELETED: &str = "Invalid token: user deleted";
const REVOKED: &str = "Invalid token: session revoked";

/// Where the directory is.
enum Database {
    Sqlite,
    Postgres(Postgres),
}

/// A gateway that takes webhooks, and everything around it.
struct Site {
    doorward: Doorward,
    idp: Idp,
    svix: Svix,
    upstream: Upstream,
    database: Database,
}

impl Database {
    async fn both() -> [Self; 2] {
        [Self::Sqlite, Self::Postgres(Postgres::start().await)]
    }
}

impl Site {
    /// Starts one on each database.
    async fn both() -> Vec<Self> {
        let mut sites = Vec::new();
        for database in Database::both().await {
            sites.push(Self::start(database, |builder| builder).await);
        }
        sites
    }

    async fn start(database: Database, more: impl FnOnce(Builder) -> Builder) -> Self {
        let (idp, upstream) = (Idp::start().await, Upstream::start().await);
        let mut builder = configured(&idp, &upstream);
        if let Database::Postgres(postgres) = &database {
            builder = builder.database(&postgres.url());
        }
        let doorward = more(builder).start().await;
        Self { doorward, idp, svix: Svix::start(), upstream, database }
    }

    /// Delivers an event as Clerk does, under a new id.
    async fn deliver(&self, kind: &str, data: &Value) -> Response {
        self.deliver_as(&new_id(), kind, data).await
    }

    /// Delivers an event under an id of the caller's.
    async fn deliver_as(&self, id: &str, kind: &str, data: &Value) -> Response {
        self.deliver_to(&self.doorward, id, kind, data).await
    }

    async fn deliver_to(&self, doorward: &Doorward, id: &str, kind: &str, data: &Value) -> Response {
        send(doorward, &signed(&self.svix, id, &event(kind, data))).await
    }

    /// Delivers an event and expects it to be taken.
    async fn tell(&self, kind: &str, data: &Value) {
        assert_answer(&self.deliver(kind, data).await, 200, RECEIVED);
    }

    /// Exchanges a JWT with these claims.
    async fn exchange(&self, claims: &Value) -> Response {
        self.present(&self.idp.mint(claims)).await
    }

    /// Exchanges this JWT.
    async fn present(&self, jwt: &str) -> Response {
        self.doorward.client().post("/auth/session").bearer(jwt).send().await
    }

    /// Signs in with these claims, which overrule the defaults.
    async fn sign_in(&self, claims: &Value) -> String {
        token_of(&self.exchange(claims).await)
    }

    /// Signs in with a JWT whose date is later than anything that happened until now.
    async fn sign_in_later(&self, subject: &str) -> String {
        self.sign_in(&json!({ "sub": subject, "iat": now() + 3, "nbf": now() })).await
    }

    async fn assert_live(&self, token: &str) {
        let response = self.doorward.client().get("/private").bearer(token).send().await;
        assert_eq!(response.status, 200, "{}", response.text());
    }

    async fn assert_ended(&self, token: &str) {
        assert_guard_refuses(&self.doorward, token, REVOKED).await;
    }

    async fn assert_refused(&self, claims: &Value, text: &str) {
        assert_refused(&self.exchange(claims).await, 401, text);
    }

    /// Asks the database for one text, `-` for none.
    async fn ask(&self, sql: &str) -> String {
        match &self.database {
            Database::Postgres(postgres) => postgres.psql(sql),
            Database::Sqlite => {
                let file = self.doorward.directory().join("directory.db");
                let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await;
                let pool = pool.expect("the directory is there");
                let text = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_optional(&pool).await;
                text.expect("the query is good").unwrap_or_default()
            }
        }
    }

    /// Returns name and address of a user, `-` for none.
    async fn person(&self, user: &str) -> String {
        let sql = "select coalesce(name, '-') || ' ' || coalesce(email, '-') from doorward_users where id = ";
        self.ask(&format!("{sql}'{user}'")).await
    }

    /// Returns the value of a series of `webhooks_total`.
    async fn counted(&self, kind: &str, outcome: &str) -> u64 {
        let series = format!("doorward_webhooks_total{{outcome=\"{outcome}\",type=\"{kind}\"}} ");
        let text = self.doorward.admin_get("/metrics").await.text();
        let value = text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok());
        value.unwrap_or_else(|| panic!("no {series} in {text}"))
    }
}

/// One delivery, ready to be sent: headers and body.
struct Delivery {
    headers: Vec<(&'static str, String)>,
    body: String,
}

fn configured(idp: &Idp, upstream: &Upstream) -> Builder {
    let webhooks = format!("webhooks: {{ clerk: {{ secrets: ['{SECRET}', '{NEXT_SECRET}'], instance_id: {KID} }} }}");
    Doorward::builder().idp(idp).upstream(upstream.url()).config(&webhooks)
}

fn now() -> u64 {
    SystemClock::new().now().unix_seconds()
}

fn new_id() -> String {
    format!("msg_{}", uuid::Uuid::new_v4().simple())
}

fn event(kind: &str, data: &Value) -> String {
    let attributes = json!({ "http_request": { "client_ip": "192.0.2.1", "user_agent": "a browser" } });
    json!({
        "data": data, "object": "event", "type": kind, "timestamp": now() * 1000, "instance_id": KID,
        "event_attributes": attributes,
    })
    .to_string()
}

fn signed(svix: &Svix, id: &str, body: &str) -> Delivery {
    signed_with(svix, SECRET, id, now(), body)
}

fn signed_with(svix: &Svix, secret: &str, id: &str, seconds: u64, body: &str) -> Delivery {
    let signature = svix.sign(secret, id, seconds, body);
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("svix-id", id.to_owned()),
        ("svix-timestamp", seconds.to_string()),
        ("svix-signature", signature),
    ];
    Delivery { headers, body: body.to_owned() }
}

async fn send(doorward: &Doorward, delivery: &Delivery) -> Response {
    let request = doorward.client().post("/webhooks/clerk");
    let request = delivery.headers.iter().fold(request, |request, (name, value)| request.header(name, value));
    request.body(delivery.body.clone()).send().await
}

fn user(id: &str) -> Value {
    json!({ "id": id, "object": "user", "banned": false, "locked": false, "updated_at": 1 })
}

fn deleted(id: &str) -> Value {
    json!({ "id": id, "object": "user", "deleted": true })
}

fn session(login: &str, user: &str) -> Value {
    json!({ "id": login, "object": "session", "user_id": user, "status": "ended", "user": { "id": user } })
}
