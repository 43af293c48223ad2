//! The first call makes the profile: once, however many come at the same time.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::json;

use super::application::Application;
use super::{Database, PATIENT, ask, whole};
use crate::support::client::sign_in;
use crate::support::doorward::Doorward;
use crate::support::idp::Idp;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::surface::answers::assert_refused;

const AT_ONCE: usize = 50;

fn config(method: &str) -> String {
    format!(
        "bootstrap: {{ profile: {{ source: http, http: {{ path: /profile, create: {{ method: {method}, \
         body: {{ id: '{{user_id}}', tenant: 'in {{client_id}}', plan: trial }} }} }} }} }}"
    )
}

#[tokio::test]
async fn fifty_first_calls_make_one_profile_at_the_application() {
    let idp = Idp::start().await;
    for method in ["PUT", "POST"] {
        let application = Application::start().await;
        let builder = Doorward::builder().idp(&idp).upstream(application.url()).config(PATIENT);
        let doorward = builder.config(&config(method)).start().await;
        let token = sign_in(&doorward, &idp, "user_jordan").await;
        let answers = join_all((0..AT_ONCE).map(|_| ask(&doorward, &token))).await;
        for answer in &answers {
            let profile = &whole(answer)["profile"];
            assert_eq!((&profile["id"], &profile["plan"]), (&json!("user_jordan"), &json!("trial")), "{method}");
            assert_eq!(profile["tenant"], "in default");
        }
        let makings = application.makings();
        assert_eq!(makings.len(), 1, "{makings:?}");
        assert_eq!((makings[0].0.as_str(), makings[0].2.as_str()), (method, "user_jordan"));
        assert_eq!(application.documents("user_jordan").len(), 1);
        whole(&ask(&doorward, &token).await);
        whole(&ask(&doorward, &sign_in(&doorward, &idp, "user_sam").await).await);
        assert_eq!(application.makings().len(), 2, "one more for another user, and no more for the first");
    }
}

#[tokio::test]
async fn replicas_that_make_it_at_once_leave_one_profile() {
    let (idp, application) = (Idp::start().await, Application::start().await);
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let replica = || {
        let builder = Doorward::builder().idp(&idp).upstream(application.url()).store(&redis.url());
        builder.database(&postgres.url()).config(PATIENT).config(&config("PUT")).start()
    };
    let (one, two) = tokio::join!(replica(), replica());
    let jwt = idp.mint_for("user_jordan");
    let calls = (0..AT_ONCE).map(|number| ask(if number % 2 == 0 { &one } else { &two }, &jwt));
    for answer in join_all(calls).await {
        assert_eq!(whole(&answer)["profile"]["id"], "user_jordan");
    }
    let makings = application.makings();
    assert!((1..=2).contains(&makings.len()), "one a replica at most: {makings:?}");
    let keys: BTreeSet<&String> = makings.iter().map(|(_, key, _)| key).collect();
    assert_eq!(keys.len(), 1, "the application can tell a repetition: {makings:?}");
    assert_eq!(application.documents("user_jordan").len(), 1);
}

#[tokio::test]
async fn fifty_first_calls_make_one_row() {
    let idp = Idp::start().await;
    for database in Database::both().await {
        let config = "bootstrap: { profile: { source: sql, sql: { \
            select: 'select body from app_profiles where owner = $1', \
            create: \"insert into app_profiles (owner, tenant, body) values ($1, $2, '{\\\"plan\\\":\\\"trial\\\"}') on conflict do nothing\" } } }\n\
            directory: { timeout: 20s }";
        let doorward = database.of(Doorward::builder().idp(&idp).config(PATIENT).config(config)).start().await;
        let table = "create table app_profiles (owner text primary key, tenant text, body text); \
                     create table app_log (owner text);";
        database.run(&doorward, table).await;
        let trigger = if matches!(database, Database::Sqlite) {
            "create trigger noted after insert on app_profiles begin insert into app_log values (new.owner); end"
        } else {
            "create function noted() returns trigger language plpgsql as \
             'begin insert into app_log values (new.owner); return new; end'; \
             create trigger noted after insert on app_profiles for each row execute function noted()"
        };
        database.run(&doorward, trigger).await;
        let jwt = idp.mint_for("user_jordan");
        for answer in join_all((0..AT_ONCE).map(|_| ask(&doorward, &jwt))).await {
            assert_eq!(whole(&answer)["profile"]["plan"], "trial");
        }
        assert_eq!(database.run(&doorward, "select owner || tenant from app_profiles").await, "user_jordandefault");
        assert_eq!(database.run(&doorward, "select count(*) from app_log").await, "1");
    }
}

#[tokio::test]
async fn what_is_not_there_after_it_was_made_is_a_failure() {
    let (idp, application) = (Idp::start().await, Application::start().await);
    let config = "bootstrap: { profile: { source: http, http: { path: /never, create: {} } } }";
    let builder = Doorward::builder().idp(&idp).upstream(application.url()).config(PATIENT).config(config);
    let doorward = builder.start().await;
    assert_refused(&ask(&doorward, &idp.mint_for("user_jordan")).await, 502, "Bootstrap source unavailable: profile");
}
