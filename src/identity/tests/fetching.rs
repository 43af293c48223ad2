//! Keys from a key server: when it is asked, how often, what it may answer.

use futures_util::future::join_all;
use tracing::subscriber::set_default;

use super::idp::{Answer, unsigned};
use super::*;

const COOL_DOWN: Duration = Duration::from_secs(10);

fn published(keys: &[(&SigningKey, &str)]) -> Answer {
    Answer::Keys(keys.iter().map(|(key, kid)| key.jwk(kid)).collect())
}

async fn idp_with_key() -> Idp {
    Idp::start(published(&[(&KEY, KID)])).await
}

/// A JWT that can only be refused for its `kid`: it needs no signature.
fn of_unknown_key(kid: &str) -> String {
    format!("{}.AAAA", unsigned(&header(kid).to_string(), &claims_at(START).to_string()))
}

#[tokio::test]
async fn nothing_can_be_said_before_the_first_keys() {
    let idp = Idp::start(Answer::Status(500)).await;
    let bench = Bench::start(Some(rules_at(&idp)), &[]);
    eventually("the first attempt failed", || {
        bench.metric(r#"doorward_jwks_refreshes_total{provider="clerk",result="error"} 1"#)
    })
    .await;
    assert!(!bench.providers.loaded());
    let jwt = bench.jwt(&KEY, KID);
    assert_eq!(bench.verify(&jwt).await, Err(IdentityError::KeysNotLoaded));
    assert_eq!(bench.verify("x.y.z").await.map(drop), invalid(Reason::Malformed), "no key is needed to see that");
    assert_eq!(idp.requests(), 1, "a JWT provokes no load while there is nothing to renew");

    idp.answer(published(&[(&KEY, KID)]));
    bench.clock.advance(Duration::from_secs(1));
    eventually("the retry succeeds", || bench.providers.loaded()).await;
    assert!(bench.verify(&bench.jwt(&KEY, KID)).await.is_ok());
    assert!(bench.metric(r#"doorward_jwks_refreshes_total{provider="clerk",result="success"} 1"#));
    assert!(bench.metric(r#"doorward_jwks_keys{provider="clerk"} 1"#));
    assert!(bench.metric(r#"doorward_jwks_last_success_timestamp_seconds{provider="clerk"} 1767225601"#));
}

#[tokio::test]
async fn keys_are_fetched_again_every_five_minutes() {
    let idp = idp_with_key().await;
    let bench = Bench::with_keys_of(&idp).await;
    assert_eq!(idp.requests(), 1);
    idp.answer(published(&[(&OTHER_KEY, "ins_2"), (&KEY, KID)]));
    bench.clock.advance(Duration::from_mins(5));
    eventually("the second key is there", || bench.metric(r#"doorward_jwks_keys{provider="clerk"} 2"#)).await;
    assert_eq!(idp.requests(), 2);
    assert!(bench.verify(&bench.jwt(&OTHER_KEY, "ins_2")).await.is_ok());
    assert_eq!(idp.requests(), 2);
}

#[tokio::test]
async fn a_new_kid_is_fetched_at_once() {
    let idp = idp_with_key().await;
    let bench = Bench::with_keys_of(&idp).await;
    idp.answer(published(&[(&KEY, KID), (&OTHER_KEY, "ins_2")]));
    assert!(bench.verify(&bench.jwt(&OTHER_KEY, "ins_2")).await.is_ok());
    assert!(bench.verify(&bench.jwt(&KEY, KID)).await.is_ok());
    assert_eq!(idp.requests(), 2);
}

#[tokio::test]
async fn a_new_key_under_the_old_kid_is_fetched_at_once() {
    let idp = idp_with_key().await;
    let bench = Bench::with_keys_of(&idp).await;
    idp.answer(published(&[(&OTHER_KEY, KID)]));
    assert!(bench.verify(&bench.jwt(&OTHER_KEY, KID)).await.is_ok());
    assert_eq!(idp.requests(), 2);
    let outcome = bench.verify(&bench.jwt(&KEY, KID)).await.map(drop);
    assert_eq!(outcome, invalid(Reason::SignatureVerificationFailed), "the withdrawn key");
    assert_eq!(idp.requests(), 2);
}

#[tokio::test]
async fn ten_thousand_random_kids_cost_one_fetch_per_cool_down() {
    let idp = idp_with_key().await;
    let bench = Bench::with_keys_of(&idp).await;
    for number in 0..10_000 {
        let outcome = bench.verify(&of_unknown_key(&format!("random-{number}"))).await;
        assert_eq!(outcome.map(drop), invalid(Reason::UnknownKey));
    }
    assert_eq!(idp.requests(), 2, "one at the start, one provoked");
    assert!(bench.metric(r#"doorward_jwks_unknown_kid_total{provider="clerk"} 10000"#));

    bench.clock.advance(Duration::from_millis(9_999));
    let _ = bench.verify(&of_unknown_key("early")).await;
    assert_eq!(idp.requests(), 2);
    bench.clock.advance(Duration::from_millis(1));
    let _ = bench.verify(&of_unknown_key("late")).await;
    assert_eq!(idp.requests(), 3);
}

#[tokio::test]
async fn bad_signatures_and_unknown_kids_share_one_cool_down_and_failures_count() {
    let idp = idp_with_key().await;
    let bench = Bench::with_keys_of(&idp).await;
    idp.answer(Answer::Status(503));
    for _ in 0..100 {
        let outcome = bench.verify(&bench.jwt(&OTHER_KEY, KID)).await;
        assert_eq!(outcome.map(drop), invalid(Reason::SignatureVerificationFailed));
        assert_eq!(bench.verify(&of_unknown_key("ins_9")).await.map(drop), invalid(Reason::UnknownKey));
    }
    assert_eq!(idp.requests(), 2);
    assert!(bench.verify(&bench.jwt(&KEY, KID)).await.is_ok(), "the keys at hand stay");
}

#[tokio::test]
async fn kids_that_nobody_could_publish_provoke_nothing() {
    let idp = idp_with_key().await;
    let bench = Bench::with_keys_of(&idp).await;
    for kid in ["", " ", "a\u{0}b", "é", &"k".repeat(257)] {
        assert_eq!(bench.verify(&of_unknown_key(kid)).await.map(drop), invalid(Reason::UnknownKey), "{kid:?}");
    }
    assert_eq!(idp.requests(), 1);
}

#[tokio::test]
async fn a_hundred_callers_share_one_fetch() {
    let idp = idp_with_key().await;
    let bench = Bench::with_keys_of(&idp).await;
    idp.answer(published(&[(&KEY, KID), (&OTHER_KEY, "ins_2")]));
    idp.hold();
    let jwt = bench.jwt(&OTHER_KEY, "ins_2");
    let callers = join_all((0..100).map(|_| bench.verify(&jwt)));
    let released = async {
        eventually("the fetch is under way", || idp.requests() == 2).await;
        assert!(bench.verify(&bench.jwt(&KEY, KID)).await.is_ok(), "known keys do not wait");
        idp.release();
    };
    let (outcomes, ()) = tokio::join!(callers, released);
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 100);
    assert_eq!(idp.requests(), 2);
}

#[tokio::test]
async fn a_caller_who_hangs_up_does_not_stop_the_fetch() {
    let idp = idp_with_key().await;
    let bench = Bench::with_keys_of(&idp).await;
    idp.answer(published(&[(&KEY, KID), (&OTHER_KEY, "ins_2")]));
    idp.hold();
    let jwt = bench.jwt(&OTHER_KEY, "ins_2");
    let providers = bench.providers.clone();
    let (first_jwt, waiting) = (jwt.clone(), idp.requests());
    let first = tokio::spawn(async move { providers.verify(&first_jwt).await });
    eventually("the fetch is under way", || idp.requests() == waiting + 1).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    idp.release();
    assert!(bench.verify(&jwt).await.is_ok());
    assert_eq!(idp.requests(), 2);
}

#[tokio::test]
async fn the_last_good_keys_serve_for_24_hours() {
    let idp = idp_with_key().await;
    let bench = Bench::with_keys_of(&idp).await;
    idp.answer(Answer::Status(500));
    bench.clock.advance(Duration::from_hours(24));
    eventually("a refresh failed", || idp.requests() >= 2).await;
    assert!(bench.verify(&bench.jwt(&KEY, KID)).await.is_ok());
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(bench.verify(&bench.jwt(&KEY, KID)).await, Err(IdentityError::KeysNotLoaded));
    assert!(bench.providers.loaded(), "readiness is latched");

    idp.answer(published(&[(&KEY, KID)]));
    bench.clock.advance(Duration::from_mins(1));
    let served = || bench.metric(r#"doorward_jwks_refreshes_total{provider="clerk",result="success"} 2"#);
    eventually("a refresh succeeded", served).await;
    assert!(bench.verify(&bench.jwt(&KEY, KID)).await.is_ok());
}

#[tokio::test]
async fn answers_that_are_no_key_set_change_nothing() {
    let target = Idp::start(published(&[(&OTHER_KEY, KID)])).await;
    let other = OTHER_KEY.jwk(KID);
    let with_member = |name: &str, value: Value| {
        let mut jwk = other.clone();
        jwk[name] = value;
        Answer::Keys(vec![jwk])
    };
    let keys_doubled = format!(r#"{{"keys":[],"keys":[{other}]}}"#);
    let answers = [
        Answer::Status(204),
        Answer::Status(404),
        Answer::KeysWithStatus(203, vec![other.clone()]),
        Answer::KeysWithStatus(500, vec![other.clone()]),
        Answer::Redirect(target.jwks_url.clone()),
        Answer::Text(String::new()),
        Answer::Text("<html>".to_owned()),
        Answer::Text(json!([other]).to_string()),
        Answer::Text(json!({"keys": other}).to_string()),
        Answer::Text(keys_doubled),
        Answer::Text(format!("{}{}", json!({"keys": [other]}), " ".repeat(256 * 1024))),
        Answer::Keys(Vec::new()),
        Answer::Keys(vec![other.clone(); 65]),
        Answer::Keys(vec![
            json!("key"),
            json!({"kty": "EC", "kid": KID}),
            json!({"kty": "oct", "kid": KID, "k": "AAAA"}),
        ]),
        with_member("use", json!("enc")),
        with_member("alg", json!("RS512")),
        with_member("alg", json!("HS256")),
        with_member("key_ops", json!(["encrypt"])),
        with_member("kty", json!("oct")),
        with_member("kid", json!(null)),
        with_member("n", json!("_".repeat(171))),
        with_member("n", json!("!")),
        with_member("e", json!("")),
    ];
    let idp = idp_with_key().await;
    let bench = Bench::with_keys_of(&idp).await;
    for (number, answer) in answers.into_iter().enumerate() {
        idp.answer(answer);
        let outcome = bench.verify(&bench.jwt(&OTHER_KEY, KID)).await.map(drop);
        assert_eq!(outcome, invalid(Reason::SignatureVerificationFailed), "answer {number}");
        assert_eq!(idp.requests(), number + 2);
        let failures = format!(r#"doorward_jwks_refreshes_total{{provider="clerk",result="error"}} {}"#, number + 1);
        assert!(bench.metric(&failures), "answer {number} is a failed fetch");
        assert!(bench.verify(&bench.jwt(&KEY, KID)).await.is_ok(), "answer {number}");
        bench.clock.advance(COOL_DOWN);
    }
    assert_eq!(target.requests(), 0, "no redirect is followed");
}

#[tokio::test]
async fn a_key_server_that_never_answers_is_given_up() {
    let idp = idp_with_key().await;
    idp.hold();
    let bench = Bench::start(Some(rules_at(&idp)), &[]);
    eventually("the fetch was given up", || {
        bench.metric(r#"doorward_jwks_refreshes_total{provider="clerk",result="error"} 1"#)
    })
    .await;
    idp.release();
    bench.clock.advance(Duration::from_secs(1));
    eventually("the next one worked", || bench.providers.loaded()).await;
}

#[tokio::test]
async fn useless_entries_do_not_spoil_a_key_set() {
    let mut bare = KEY.jwk(KID);
    for optional in ["use", "alg"] {
        bare.as_object_mut().unwrap().remove(optional);
    }
    bare["x5u"] = json!("https://evil.example.com");
    let keys = vec![json!(7), json!({"kty": "EC", "crv": "P-256", "kid": "ec"}), OTHER_KEY.jwk(KID), bare];
    let idp = Idp::start(Answer::Keys(keys)).await;
    let bench = Bench::with_keys_of(&idp).await;
    assert!(bench.metric(r#"doorward_jwks_keys{provider="clerk"} 2"#));
    for key in [&*KEY, &*OTHER_KEY] {
        assert!(bench.verify(&bench.jwt(key, KID)).await.is_ok(), "two keys may share a kid");
    }
}

#[tokio::test]
async fn keys_that_a_jwt_brings_along_are_not_looked_at() {
    let attacker = Idp::start(published(&[(&OTHER_KEY, KID), (&OTHER_KEY, "evil")])).await;
    let idp = idp_with_key().await;
    let bench = Bench::with_keys_of(&idp).await;
    for (kid, reason) in [(KID, Reason::SignatureVerificationFailed), ("evil", Reason::UnknownKey)] {
        let mut header = header(kid);
        header["jwk"] = OTHER_KEY.jwk(kid);
        header["jku"] = json!(attacker.jwks_url);
        header["x5u"] = json!(attacker.jwks_url);
        header["x5c"] = json!(["MIIB"]);
        let mut claims = claims_at(START);
        assert_eq!(bench.verify(&OTHER_KEY.sign(&header, &claims)).await.map(drop), invalid(reason));
        claims["iss"] = json!(attacker.jwks_url.trim_end_matches("/.well-known/jwks.json"));
        assert_eq!(bench.verify(&OTHER_KEY.sign(&header, &claims)).await.map(drop), invalid(reason));
    }
    assert_eq!(attacker.requests(), 0);
}

#[tokio::test]
async fn each_issuer_has_its_own_keys_and_rules() {
    let clerk = Idp::start(published(&[(&KEY, KID)])).await;
    let partner = Idp::start(published(&[(&OTHER_KEY, KID)])).await;
    let partner_rules = Issuer {
        issuer: "https://partner.example.com".to_owned(),
        subject_prefix: "p:".to_owned(),
        ..rules_at(&partner)
    };
    let bench = Bench::start(Some(rules_at(&clerk)), &[("partner", partner_rules)]);
    eventually("all keys are loaded", || bench.providers.loaded()).await;

    let theirs = |key: &SigningKey, sub: &str| {
        let mut claims = claims_at(START);
        claims["iss"] = json!("https://partner.example.com");
        claims["sub"] = json!(sub);
        key.sign(&header(KID), &claims)
    };
    assert_eq!(bench.verify(&bench.jwt(&KEY, KID)).await.unwrap().provider.as_str(), "clerk");
    assert_eq!(bench.verify(&theirs(&OTHER_KEY, "p:1")).await.unwrap().provider.as_str(), "partner");
    let verify = async |jwt: String| bench.verify(&jwt).await.map(drop);
    assert_eq!(verify(theirs(&OTHER_KEY, "user_2b")).await, invalid(Reason::MissingSubject));
    assert_eq!(verify(theirs(&KEY, "p:1")).await, invalid(Reason::SignatureVerificationFailed));
    assert_eq!(verify(bench.jwt(&OTHER_KEY, KID)).await, invalid(Reason::SignatureVerificationFailed));
    let mut unknown = claims_at(START);
    for iss in [json!("https://evil.example.com"), json!([ISSUER]), json!(null)] {
        unknown["iss"] = iss;
        assert_eq!(verify(KEY.sign(&header(KID), &unknown)).await, invalid(Reason::IssuerMismatch));
    }
}

#[tokio::test]
async fn without_issuers_every_jwt_is_refused() {
    let bench = Bench::start(None, &[]);
    assert!(bench.providers.loaded());
    assert_eq!(bench.verify(&bench.jwt(&KEY, KID)).await.map(drop), invalid(Reason::IssuerMismatch));
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_ends_the_fetch() {
    let named = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let misnamed = rcgen::generate_simple_self_signed(["idp.example.com".to_owned()]).unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    for (certificate, trusted, works) in [
        (&named, Some(&named), true),
        (&named, None, false),
        (&named, Some(&misnamed), false),
        (&misnamed, Some(&misnamed), false),
    ] {
        let key = rustls_pki_types::PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], key)
            .unwrap();
        let idp = Idp::start_tls(published(&[(&KEY, KID)]), config).await;
        let ca = trusted.map(|trusted| TempFile::new(&trusted.cert.pem()));
        let rules = Issuer { ca: ca.as_ref().map(|file| file.path().to_owned()), ..rules_at(&idp) };
        let bench = Bench::start(Some(rules), &[]);
        let attempt = |result| format!(r#"doorward_jwks_refreshes_total{{provider="clerk",result="{result}"}} 1"#);
        let expected = attempt(if works { "success" } else { "error" });
        eventually(&expected, || bench.metric(&expected)).await;
        assert_eq!(bench.providers.loaded(), works);
        assert_eq!(idp.requests(), usize::from(works));
    }
}

#[tokio::test]
async fn logs_name_the_provider_and_never_a_jwt() {
    let log = Arc::new(std::sync::Mutex::new(Vec::new()));
    let subscriber = || {
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || Lines(writer.clone()))
            .finish()
    };
    // With a single subscriber alive, tracing lets whichever thread comes first to a log line
    // decide for all threads whether it is wanted; with two it asks both.
    let _second = tracing::Dispatch::new(subscriber());
    let _guard = set_default(subscriber());
    let idp = idp_with_key().await;
    let bench = Bench::with_keys_of(&idp).await;
    let good = bench.jwt(&KEY, KID);
    let foreign = bench.jwt(&OTHER_KEY, "ins_canary");
    assert!(bench.verify(&good).await.is_ok());
    idp.answer(Answer::Text(good.clone()));
    assert!(bench.verify(&foreign).await.is_err());
    let written = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert!(written.contains(r#"keys loaded provider="clerk" keys=1"#), "{written}");
    assert!(written.contains("keys could not be loaded"), "{written}");
    assert!(!written.contains("ins_canary"), "{written}");
    for part in good.split('.').chain(foreign.split('.')) {
        assert!(!written.contains(part), "{written}");
    }
}

struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
