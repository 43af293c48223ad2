//! Keys from files, and configurations that cannot work.

use super::*;

fn jwks(key: &SigningKey) -> String {
    json!({"keys": [key.jwk(KID)]}).to_string()
}

fn from_jwks(file: &TempFile) -> Issuer {
    Issuer { jwks_file: Some(file.path().to_owned()), ..rules() }
}

fn from_pem(file: &TempFile) -> Issuer {
    Issuer { pem_file: Some(file.path().to_owned()), ..rules() }
}

async fn loaded(rules: Issuer) -> Bench {
    let bench = Bench::start(Some(rules), &[]);
    eventually("keys are loaded", || bench.providers.loaded()).await;
    bench
}

fn failures(bench: &Bench) -> u64 {
    bench.metrics.jwks_refreshes.with_label_values(&["clerk", "error"]).get()
}

fn successes(bench: &Bench) -> u64 {
    bench.metrics.jwks_refreshes.with_label_values(&["clerk", "success"]).get()
}

#[tokio::test]
async fn a_key_file_is_read_again_when_it_changes_and_a_broken_one_is_not_used() {
    for (rules, content) in [
        (from_jwks as fn(&TempFile) -> Issuer, jwks as fn(&SigningKey) -> String),
        (from_pem, SigningKey::pem as fn(&SigningKey) -> String),
    ] {
        let file = TempFile::new(&content(&KEY));
        let bench = loaded(rules(&file)).await;
        assert!(bench.verify(&bench.jwt(&KEY, KID)).await.is_ok());

        for broken in ["", "{}", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
            let before = failures(&bench);
            file.write(broken);
            eventually("the broken file was read", || failures(&bench) > before + 1).await;
            assert!(bench.verify(&bench.jwt(&KEY, KID)).await.is_ok(), "{broken:?}");
        }
        let before = successes(&bench);
        file.write(&content(&OTHER_KEY));
        eventually("the new file was read", || successes(&bench) > before).await;
        assert!(bench.verify(&bench.jwt(&OTHER_KEY, KID)).await.is_ok());
        let outcome = bench.verify(&bench.jwt(&KEY, KID)).await.map(drop);
        assert_eq!(outcome, invalid(Reason::SignatureVerificationFailed), "the key that is gone");
    }
}

#[tokio::test]
async fn a_key_file_that_comes_late_is_found() {
    let file = TempFile::new("");
    std::fs::remove_file(file.path()).unwrap();
    let bench = Bench::start(Some(from_jwks(&file)), &[]);
    eventually("it was looked for", || failures(&bench) > 0).await;
    assert_eq!(bench.verify(&bench.jwt(&KEY, KID)).await, Err(IdentityError::KeysNotLoaded));
    file.write(&jwks(&KEY));
    eventually("keys are loaded", || bench.providers.loaded()).await;
    assert!(bench.verify(&bench.jwt(&KEY, KID)).await.is_ok());
}

#[tokio::test]
async fn a_pinned_key_is_for_any_kid_and_for_none() {
    let file = TempFile::new(&KEY.pem());
    let bench = loaded(from_pem(&file)).await;
    let mut without = header(KID);
    without.as_object_mut().unwrap().remove("kid");
    for header in [header("any"), header("\u{0}"), without] {
        assert!(bench.verify(&KEY.sign(&header, &claims_at(START))).await.is_ok(), "{header}");
        let outcome = bench.verify(&OTHER_KEY.sign(&header, &claims_at(START))).await.map(drop);
        assert_eq!(outcome, invalid(Reason::SignatureVerificationFailed), "{header}");
    }
}

#[tokio::test]
async fn a_pem_file_must_hold_a_public_rsa_key() {
    let elliptic = rcgen::KeyPair::generate().unwrap();
    for content in [elliptic.public_key_pem(), elliptic.serialize_pem(), jwks(&KEY)] {
        let file = TempFile::new(&content);
        let bench = Bench::start(Some(from_pem(&file)), &[]);
        eventually("it was read", || failures(&bench) > 0).await;
        assert!(!bench.providers.loaded());
    }
}

#[tokio::test]
async fn configurations_that_cannot_work_are_refused() {
    let file = TempFile::new(&jwks(&KEY));
    let path = Some(file.path().to_owned());
    let url = |url: &str| Issuer { jwks_url: Some(url.to_owned()), ..rules() };
    let https = || url("https://clerk.example.com/jwks.json");
    let missing = Some(std::path::PathBuf::from("/nonexistent/ca.pem"));
    for (rules, expected) in [
        (rules(), "needs exactly one of jwks_url, jwks_file and pem_file"),
        (Issuer { jwks_file: path.clone(), ..https() }, "needs exactly one of jwks_url, jwks_file and pem_file"),
        (url("clerk.example.com"), "jwks_url must be an http or https URL without credentials"),
        (url("file:///etc/passwd"), "jwks_url must be an http or https URL without credentials"),
        (url("https://me:secret@clerk.example.com/"), "jwks_url must be an http or https URL without credentials"),
        (Issuer { ca: path, ..https() }, "ca holds no PEM certificate"),
        (Issuer { ca: missing, ..https() }, "ca cannot be read: No such file or directory (os error 2)"),
    ] {
        assert_eq!(refusal(Some(rules), &[]), format!("provider clerk: {expected}"));
    }
    let good = from_jwks(&file);
    let other = Issuer { issuer: "https://other.example.com".to_owned(), ..good.clone() };
    assert_eq!(
        refusal(Some(good.clone()), &[("partner", good.clone())]),
        "provider partner: another provider has the issuer \"https://clerk.example.com\""
    );
    assert_eq!(refusal(Some(good), &[("clerk", other)]), "provider clerk: the name belongs to the section \"clerk\"");
}

fn refusal(clerk: Option<Issuer>, issuers: &[(&str, Issuer)]) -> String {
    let clock = Arc::new(ManualClock::at(START));
    providers(clerk, issuers, &clock, &Metrics::new().unwrap()).err().unwrap().to_string()
}
