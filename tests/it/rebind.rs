//! `POST /auth/rebind` (contracts §5.3, §12.3) through the real binary, on both databases.
//!
//! What the contract fixes is asserted to the byte; what moved is asserted in the database itself.

mod concurrency;
mod conflicts;
mod contract;
mod crashes;
mod hook;
mod tables;

use serde_json::json;

use crate::support::client::{Response, sign_in, sign_in_guest};
use crate::support::database::Database;
use crate::support::doorward::{Builder, Doorward};
use crate::support::idp::Idp;
use crate::support::upstream::Upstream;
use crate::surface::answers::{PATIENT, assert_answer, identity_of};

const ALICE: &str = "user_alice";
const BOB: &str = "user_bob";

/// Makes outbox rows for the alias be written. What is never delivered stays where it can be counted.
const SINK: &str = "outbox: { alias: { url: 'http://127.0.0.1:1', api_key: nobody } }";

/// A Doorward, what is behind it, and what it keeps.
struct Scene {
    doorward: Doorward,
    database: Database,
    upstream: Upstream,
    idp: Idp,
}

impl Scene {
    /// Starts one on `database`, in which `tables` are made first, with `config` on top.
    async fn start(database: Database, tables: &str, config: impl FnOnce(&Database) -> String) -> Self {
        let (upstream, idp) = tokio::join!(Upstream::start(), Idp::start());
        database.create(tables).await;
        let config = config(&database);
        let doorward = builder(&database, &idp).upstream(upstream.url()).config(&config).start().await;
        Self { doorward, database, upstream, idp }
    }

    /// Returns a session token of `subject`.
    async fn user(&self, subject: &str) -> String {
        sign_in(&self.doorward, &self.idp, subject).await
    }

    /// Signs the guest of `device` in; returns its token and whom the application takes it for.
    async fn guest(&self, device: &str) -> (String, String) {
        let token = sign_in_guest(&self.doorward, device).await;
        let (name, tenant) = identity_of(&self.doorward, &self.upstream, &token).await;
        assert_eq!(tenant, "default");
        (token, name)
    }

    async fn rebind(&self, token: &str, device: &str) -> Response {
        rebind(&self.doorward, token, device).await
    }

    /// Returns the device's row without its times: user, generation, whether its guest was seen, claim.
    async fn devices(&self) -> String {
        let columns = "coalesce(user_id, '-'), generation, guest_seen, coalesce(pending_user, '-')";
        self.database.sql(&format!("select {columns} from doorward_devices order by created_at, device")).await
    }

    async fn events(&self, kind: &str) -> String {
        self.database.sql(&format!("select body from doorward_outbox where kind = '{kind}' order by id")).await
    }
}

fn builder(database: &Database, idp: &Idp) -> Builder {
    Doorward::builder().database(&database.url()).idp(idp).config(SINK).config(PATIENT)
}

async fn rebind(doorward: &Doorward, token: &str, device: &str) -> Response {
    doorward.client().post("/auth/rebind").bearer(token).json(&json!({ "device_id": device })).send().await
}

/// Asserts the whole answer to a rebind that moved `rows` from `guest`.
fn assert_moved(response: &Response, rows: u64, guest: &str) {
    let uuid = guest.strip_prefix("anon:").expect("a guest's name");
    assert_answer(response, 200, &format!(r#"{{"rebound":true,"rows_updated":{rows},"anonymous_id":"{uuid}"}}"#));
}

/// Asserts the whole answer to a rebind that had nothing to do.
fn assert_no_op(response: &Response) {
    assert_answer(response, 200, r#"{"rebound":false,"rows_updated":0,"anonymous_id":null}"#);
}

/// Returns the configuration that re-owns `tables`, each with what follows its name and column `owner`.
fn sql(database: &Database, tables: &[(&str, &str)]) -> String {
    let tables =
        tables.iter().map(|(name, more)| format!("{{ table: '{}', column: owner{more} }}", database.table(name)));
    format!("rebind: {{ backend: sql, tables: [{}] }}", tables.collect::<Vec<_>>().join(", "))
}
