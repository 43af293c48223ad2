//! A day in the life of two replicas, watched by a real Prometheus with our rules.
//!
//! Alerts fire when they should and at no other time, and afterwards every panel and every rule has
//! something to show. The script waits for what Prometheus knows, never for time to pass.

use std::collections::{BTreeMap, BTreeSet};

use doorward::time::{Clock, SystemClock};
use serde_json::{Value, json};

use super::files::{Target, rules, targets, text};
use super::prometheus::{Prometheus, Series};
use super::shop::{LATER, MISTAKE, ROUTES, Shop, ask, failing_sign_in, get};
use crate::support::client::sign_in;
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::surface::answers::identity_of;

/// What happens on that day is what these are for.
const MUST_FIRE: [&str; 14] = [
    "DoorwardBudgetBurnPageFast",
    "DoorwardBudgetBurnPageSlow",
    "DoorwardBudgetBurnTicketFast",
    "DoorwardBudgetBurnTicketSlow",
    "DoorwardConfigDrift",
    "DoorwardConfigReloadFailed",
    "DoorwardDenySpike",
    "DoorwardDown",
    "DoorwardInvalidationStreamDown",
    "DoorwardLoginFailureSpike",
    "DoorwardOutboxDead",
    "DoorwardRevocationsUnconfirmed",
    "DoorwardStoreUnreachable",
    "DoorwardStoreUnreachableEverywhere",
];

/// Nothing happens on that day that these are for.
const MUST_STAY_SILENT: [&str; 8] = [
    "DoorwardCertificateExpiry",
    "DoorwardInvalidationLagHigh",
    "DoorwardJwksStale",
    "DoorwardLatencyHigh",
    "DoorwardOutboxDelayed",
    "DoorwardPanicsSeen",
    "DoorwardServingStaleSessions",
    "DoorwardUpstreamExposed",
];

/// Panels that are at zero on a day on which what they are for does not happen.
const MAY_BE_ZERO: [&str; 6] = [
    "guard / Dropped from the cache / A",
    "guard / Revocations applied again / A",
    "overview / Panics / A",
    "overview / Reachable past Doorward / A",
    "overview / Spans exported / A",
    "sessions / Oldest event / A",
];

/// Returns the time, in Unix seconds.
pub(super) fn now() -> u64 {
    SystemClock::new().now().unix_seconds()
}

/// The day: the shop, its replicas, and who watches.
struct Day {
    shop: Shop,
    /// In clear.
    one: Doorward,
    /// Behind TLS.
    two: Doorward,
    prometheus: Prometheus,
    alice: String,
    start: f64,
}

impl Day {
    async fn begin() -> Self {
        let shop = Shop::open().await;
        let (one, two) = tokio::join!(shop.replica(ROUTES, false), shop.replica(ROUTES, true));
        let prometheus = Prometheus::start(&[&one, &two]).await;
        let start = prometheus.query("vector(time())").await[0].values[0];
        let alice = sign_in(&one, &shop.idp, "user_alice").await;
        Self { shop, one, two, prometheus, alice, start }
    }

    /// Callers come and go, as they should and not quite.
    async fn morning(&self) {
        let (one, upstream) = (&self.one, &self.shop.upstream);
        let allowed = ask(one, &get("/work", &self.alice), 300).await;
        assert_eq!(allowed, BTreeMap::from([(200, 1200)]));
        assert_eq!(self.shop.ask_over_tls(&self.two, &self.alice, 50).await, BTreeMap::from([(200, 50)]));
        let client = one.client();
        assert_eq!(client.get("/open/page").header("x-user-id", "root").send().await.status, 200);
        assert_eq!(client.get("/auth/bootstrap").bearer(&self.alice).send().await.status, 200);
        upstream.respond("/garbage", "this is not HTTP\r\n\r\n");
        assert_eq!(client.get("/garbage").bearer(&self.alice).send().await.status, 502);
        let jwt = crate::support::idp::Key::generate("nobody's").sign(&self.shop.idp.claims(&json!({})));
        assert_eq!(client.post("/auth/session").bearer(&jwt).send().await.status, 401);
        let bob = sign_in(one, &self.shop.idp, "user_bob").await;
        let mut events = client.get("/sse").bearer(&bob).stream().await;
        assert!(events.next().await.is_some());
        self.prometheus.until("sum(doorward_http_requests_in_flight) > 0").await;
        self.prometheus.until("sum(doorward_session_cache_entries) > 0").await;
        // On the other replica the end is heard of.
        assert_eq!(self.shop.ask_over_tls(&self.two, &bob, 1).await, BTreeMap::from([(200, 1)]));
        assert_eq!(client.delete("/auth/session").bearer(&bob).send().await.status, 200);
        assert!(!events.ended().await, "the stream is cut");
        eventually("the other replica to refuse", async || {
            self.shop.ask_over_tls(&self.two, &bob, 1).await.contains_key(&401).then_some(())
        })
        .await;
        self.nothing_but(&[]).await;
    }

    /// Somebody tries tokens. Meanwhile one replica has a configuration that the other has not.
    async fn attack(&self) {
        Shop::rewrite(&self.two, LATER);
        let (guess, sign_in) = (get("/work", "dw_guessed"), failing_sign_in());
        let (denied, refused) = tokio::join!(ask(&self.one, &guess, 450), ask(&self.one, &sign_in, 450));
        assert_eq!([denied, refused], [BTreeMap::from([(401, 1800)]), BTreeMap::from([(401, 1800)])]);
        eventually("the limit on guests to be met", async || {
            let visit = self.one.client().post("/auth/anonymous").json(&json!({ "device_id": "somebody" }));
            (visit.send().await.status == 429).then_some(())
        })
        .await;
        self.prometheus.until_fires("DoorwardDenySpike").await;
        self.prometheus.until_fires("DoorwardLoginFailureSpike").await;
        self.nothing_but(&["DenySpike", "LoginFailureSpike", "ConfigDrift"]).await;
    }

    /// Guests become users; the analytics take one of them and not the other. A user is deleted.
    async fn noon(&self) {
        let (one, two) = (&self.one, &self.two);
        assert_eq!(self.rebind("a-phone").await, 200);
        self.shop.sink.wait_for(|request| request.target == "/batch/").await;
        self.prometheus.until("sum(doorward_outbox_deliveries_total{kind='alias', outcome='delivered'}) == 1").await;
        let no = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        self.shop.sink.respond("/batch/", no);
        assert_eq!(self.rebind("a-tablet").await, 200);
        self.prometheus.until_fires("DoorwardOutboxDead").await;
        assert_eq!(self.shop.webhook(one, "user_gone", false).await.status, 200);
        assert_eq!(self.shop.webhook(one, "user_other", true).await.status, 400);
        assert_eq!(self.shop.ask_over_tls(two, &self.alice, 1).await, BTreeMap::from([(200, 1)]));
        self.nothing_but(&["DenySpike", "LoginFailureSpike", "ConfigDrift", "OutboxDead"]).await;
    }

    /// The guest of a device, who has one row, becomes Alice; returns the answer's status.
    async fn rebind(&self, device: &str) -> u16 {
        // The limit on guests is per address and used up on the first replica.
        let (name, token) = self.guest(device).await;
        assert!(!token.is_empty());
        self.shop.database.app(&format!("insert into app.notes (id, owner) values (1, '{name}')")).await;
        let body = json!({ "device_id": device });
        self.one.client().post("/auth/rebind").bearer(&self.alice).json(&body).send().await.status
    }

    async fn guest(&self, device: &str) -> (String, String) {
        let signed_in = async || {
            let body = json!({ "device_id": device });
            let answer = self.one.client().post("/auth/anonymous").json(&body).send().await;
            (answer.status == 200).then(|| text(&answer.json()["token"]).to_owned())
        };
        let token = eventually("the limit to let a guest in", signed_in).await;
        (identity_of(&self.one, &self.shop.upstream, &token).await.0, token)
    }

    /// A mistake in a file, which is then put right. Providers and we get new keys.
    async fn configuration(&self) {
        Shop::rewrite(&self.one, MISTAKE);
        self.prometheus.until_fires("DoorwardConfigReloadFailed").await;
        self.prometheus.until_fires("DoorwardConfigDrift").await;
        assert_eq!(self.one.client().get("/help/me").send().await.status, 401, "the old one is in force");
        Shop::rewrite(&self.one, ROUTES);
        Shop::rewrite(&self.two, ROUTES);
        self.prometheus.until_silent("DoorwardConfigReloadFailed").await;
        self.prometheus.until_silent("DoorwardConfigDrift").await;
        Shop::rewrite(&self.one, LATER);
        Shop::rewrite(&self.two, LATER);
        let one = self.one.client();
        eventually("the new configuration to be in force", async || {
            (one.get("/help/me").send().await.status == 200).then_some(())
        })
        .await;
        self.shop.idp.add_key("ins_2second000000000000000000");
        let carol = async || {
            let jwt = self.shop.idp.mint_for("user_carol");
            let answer = one.post("/auth/session").bearer(&jwt).send().await;
            (answer.status == 200).then(|| text(&answer.json()["token"]).to_owned())
        };
        let carol = eventually("the new key to be fetched", carol).await;
        for token in [&self.alice, &carol] {
            assert_eq!(self.shop.ask_over_tls(&self.two, token, 1).await, BTreeMap::from([(200, 1)]));
        }
        self.prometheus.until("min(doorward_jwks_keys) == 1 and max(doorward_jwks_keys) == 2").await;
        let so_far = ["DenySpike", "LoginFailureSpike", "ConfigDrift", "OutboxDead", "ConfigReloadFailed"];
        self.nothing_but(&so_far).await;
    }

    /// Redis goes and comes back.
    async fn outage(&mut self) {
        let client = self.one.client();
        let leaving = sign_in(&self.one, &self.shop.idp, "user_dave").await;
        let mut events = client.get("/sse").bearer(&self.alice).stream().await;
        assert!(events.next().await.is_some());
        self.shop.redis.kill();
        eventually("the lease to lapse", async || {
            (client.get("/").bearer(&self.alice).send().await.status == 503).then_some(())
        })
        .await;
        assert_eq!(ask(&self.one, &get("/work", &self.alice), 100).await, BTreeMap::from([(503, 400)]));
        assert_eq!(client.delete("/auth/session").bearer(&leaving).send().await.status, 503);
        let jwt = self.shop.idp.mint_for("user_late");
        assert_eq!(client.post("/auth/session").bearer(&jwt).send().await.status, 503);
        assert!(!events.ended().await, "nobody can say whether its session lives");
        for alert in MUST_FIRE.into_iter().filter(|alert| alert.contains("Budget")) {
            self.prometheus.until_fires(alert).await;
        }
        let away =
            ["StoreUnreachable", "StoreUnreachableEverywhere", "InvalidationStreamDown", "RevocationsUnconfirmed"]
                .map(|name| format!("Doorward{name}"));
        for alert in &away {
            self.prometheus.until_fires(alert).await;
        }
        self.shop.redis.restart().await;
        for alert in &away {
            self.prometheus.until_silent(alert).await;
        }
        assert_eq!(client.get("/").bearer(&self.alice).send().await.status, 200, "nobody was signed out");
        assert_eq!(client.get("/").bearer(&leaving).send().await.status, 401, "but who wanted to be");
    }

    /// One replica drains, ends, and is replaced.
    async fn replacement(&mut self) {
        self.two.signal("TERM");
        self.prometheus.until("sum(doorward_draining) == 1").await;
        assert_eq!(self.two.wait_exit().await.code(), Some(0));
        self.prometheus.until_fires("DoorwardDown").await;
        self.two = self.shop.replica(LATER, true).await;
        self.prometheus.find(&[&self.one, &self.two]);
        self.prometheus.until_silent("DoorwardDown").await;
        self.prometheus.until("sum(up{job='shop'}) == 2 and sum(doorward_store_up) == 2").await;
        assert_eq!(self.shop.ask_over_tls(&self.two, &self.alice, 50).await, BTreeMap::from([(200, 50)]));
    }

    /// Fails the test if anything else has fired until now.
    async fn nothing_but(&self, names: &[&str]) {
        let expected: BTreeSet<String> = names.iter().map(|name| format!("Doorward{name}")).collect();
        let fired = self.prometheus.fired().await;
        assert!(fired.is_subset(&expected), "{fired:?} fired, not only {names:?}");
    }

    /// Returns the panels' queries that have nothing to show, or not what their legend promises.
    async fn empty_panels(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for target in targets() {
            let query = [("$job", ".+"), ("$instance", ".+"), ("$__rate_interval", "15s"), ("$__range", "1h")]
                .into_iter()
                .fold(target.expr.clone(), |query, (name, value)| query.replace(name, value));
            let found = self.prometheus.history(&query, self.start).await;
            wrong.extend(complaint(&target, &found).map(|why| format!("{}: {why}: {query}", target.place)));
        }
        wrong
    }
}

/// Says what is wrong with a panel's answer, if anything is.
fn complaint(target: &Target, found: &[Series]) -> Option<String> {
    let values = || found.iter().flat_map(|series| &series.values).filter(|value| !value.is_nan());
    if values().next().is_none() {
        return Some("no data".to_owned());
    }
    let zero = values().all(|value| value.abs() < f64::EPSILON);
    if zero && !MAY_BE_ZERO.contains(&target.place.as_str()) {
        return Some("always zero".to_owned());
    }
    let names: Vec<&str> =
        target.legend.split("{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0.trim())).collect();
    let lacks = |series: &&Series| names.iter().any(|name| series.labels.get(*name).is_none_or(Value::is_null));
    // What stands in for an empty answer has no labels.
    let unnamed = found.iter().filter(lacks).find(|series| series.labels != json!({}));
    unnamed.map(|series| format!("{} in {}", target.legend, series.labels))
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_day_with_everything_in_it_alerts_fire_when_they_should_and_every_panel_has_data() {
    let mut day = Day::begin().await;
    day.morning().await;
    day.attack().await;
    day.noon().await;
    day.configuration().await;
    day.outage().await;
    day.replacement().await;

    let fired = day.prometheus.fired().await;
    assert_eq!(fired, MUST_FIRE.map(str::to_owned).into());
    let known: BTreeSet<String> = rules().into_iter().filter(|rule| rule.alert).map(|rule| rule.name).collect();
    assert_eq!(known, MUST_FIRE.into_iter().chain(MUST_STAY_SILENT).map(str::to_owned).collect());
    for rule in day.prometheus.rules().await {
        assert_eq!((&rule["health"], &rule["lastError"]), (&json!("ok"), &Value::Null), "{rule}");
    }
    for record in rules().iter().filter(|rule| !rule.alert) {
        let found = day.prometheus.query(&format!("{}{{namespace='web', job='shop'}}", record.name)).await;
        assert!(found.iter().any(|series| series.values[0] > 0.0), "{}: {found:?}", record.name);
    }
    let wrong = day.empty_panels().await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}
