//! Rules 1 to 14 of contracts §11.1, one row each, and what an accepted JWT becomes.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::identity::clerk::Clerk;
use crate::identity::jwks::{KeyCache, KeySource};
use crate::identity::jws::Jws;
use crate::identity::namespace::Namespace;
use crate::model::{ProviderId, Role};

const REMOVED: &str = "(removed)";

/// One issuer with keys from a file, judging under any rules.
struct Judge {
    keys: Arc<KeyCache>,
    clock: Arc<ManualClock>,
}

/// What a row of a table changes in the good JWT, under which rules, and the answer.
struct Row(Value, Value, fn(&mut Issuer), Result<(), IdentityError>);

impl Judge {
    async fn new() -> Self {
        let file = TempFile::new(&json!({"keys": [KEY.jwk(KID)]}).to_string());
        let clock = Arc::new(ManualClock::at(START));
        let source = KeySource::JwksFile(file.path().to_owned());
        let interval = Duration::from_secs(10);
        let keys = KeyCache::new("clerk".to_owned(), source, interval, clock.clone(), &Metrics::new().unwrap());
        keys.load_if_due().await;
        assert!(keys.loaded());
        Self { keys, clock }
    }

    async fn verify(&self, rules: &Issuer, jwt: &str) -> Result<Identity, IdentityError> {
        let namespace = Namespace::of(&config(Some(rules.clone()), &[]), "clerk", rules).unwrap();
        let clerk = Clerk { rules: rules.clone(), namespace, keys: self.keys.clone(), clock: self.clock.clone() };
        clerk.verify(&Jws::parse(jwt)?).await
    }

    async fn check(&self, rows: Vec<Row>) {
        for Row(header_changes, claim_changes, change_rules, expected) in rows {
            let mut rules = rules();
            change_rules(&mut rules);
            let jwt = KEY.sign(&with(header(KID), &header_changes), &with(claims_at(START), &claim_changes));
            let outcome = self.verify(&rules, &jwt).await;
            assert_eq!(outcome.map(drop), expected, "header {header_changes} claims {claim_changes}");
        }
    }
}

fn with(mut object: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        if value == REMOVED {
            object.as_object_mut().unwrap().remove(name);
        } else {
            object[name] = value.clone();
        }
    }
    object
}

fn seconds(offset: i64) -> Value {
    json!(START.unix_seconds().cast_signed() + offset)
}

#[tokio::test]
async fn rules_2_to_5_judge_the_header() {
    use Reason::*;
    let judge = Judge::new().await;
    let header = |changes: Value, expected| Row(changes, json!({}), |_| {}, expected);
    judge
        .check(vec![
            header(json!({}), Ok(())),
            header(json!({"alg": "HS256"}), invalid(UnsupportedAlgorithm)),
            header(json!({"alg": "RS512"}), invalid(UnsupportedAlgorithm)),
            header(json!({"alg": "PS256"}), invalid(UnsupportedAlgorithm)),
            header(json!({"alg": "rs256"}), invalid(UnsupportedAlgorithm)),
            header(json!({"alg": "none"}), invalid(UnsupportedAlgorithm)),
            header(json!({"alg": ["RS256"]}), invalid(UnsupportedAlgorithm)),
            header(json!({"alg": null}), invalid(UnsupportedAlgorithm)),
            header(json!({"alg": REMOVED}), invalid(UnsupportedAlgorithm)),
            header(json!({"typ": REMOVED}), Ok(())),
            header(json!({"typ": "at+jwt"}), invalid(UnexpectedTokenType)),
            header(json!({"typ": "application/at+jwt"}), invalid(UnexpectedTokenType)),
            header(json!({"typ": null}), invalid(UnexpectedTokenType)),
            header(json!({"crit": ["b64"], "b64": false}), invalid(UnexpectedTokenType)),
            header(json!({"crit": []}), invalid(UnexpectedTokenType)),
            header(json!({"crit": null}), invalid(UnexpectedTokenType)),
            header(json!({"cat": REMOVED}), Ok(())),
            header(json!({"cat": "cl_I7d4PD111III"}), Ok(())),
            header(json!({"cat": "cl_B7d4PD333AAA"}), invalid(NotASessionToken)),
            header(json!({"cat": "cl_B7d4PD222AAA"}), invalid(NotASessionToken)),
            header(json!({"cat": "cl_B7d4PD999AAA"}), invalid(NotASessionToken)),
            header(json!({"cat": null}), invalid(NotASessionToken)),
            Row(json!({"cat": "cl_B7d4PD222AAA"}), json!({}), |rules| rules.accept_template_tokens = true, Ok(())),
            Row(
                json!({"cat": "cl_B7d4PD333AAA"}),
                json!({}),
                |rules| rules.accept_template_tokens = true,
                invalid(NotASessionToken),
            ),
            header(json!({"kid": REMOVED}), invalid(UnknownKey)),
            header(json!({"kid": null}), invalid(UnknownKey)),
            header(json!({"kid": [KID]}), invalid(UnknownKey)),
            header(json!({"kid": ""}), invalid(UnknownKey)),
            header(json!({"kid": "ins_2"}), invalid(UnknownKey)),
            header(json!({"kid": "ins_1\u{0}"}), invalid(UnknownKey)),
            header(json!({"kid": "../../etc/passwd"}), invalid(UnknownKey)),
            header(json!({"kid": "k".repeat(257)}), invalid(UnknownKey)),
        ])
        .await;
}

#[tokio::test]
async fn rules_7_and_8_judge_issuer_and_times() {
    use Reason::*;
    let judge = Judge::new().await;
    let claims = |changes: Value, expected| Row(json!({}), changes, |_| {}, expected);
    judge
        .check(vec![
            claims(json!({"iss": "https://clerk.example.com/"}), invalid(IssuerMismatch)),
            claims(json!({"iss": "https://evil.example.com"}), invalid(IssuerMismatch)),
            claims(json!({"iss": [ISSUER]}), invalid(IssuerMismatch)),
            claims(json!({"iss": null}), invalid(IssuerMismatch)),
            claims(json!({"iss": REMOVED}), invalid(IssuerMismatch)),
            claims(json!({"exp": seconds(-3)}), Ok(())),
            claims(json!({"exp": seconds(-4)}), Ok(())),
            claims(json!({"exp": seconds(-5)}), Err(IdentityError::Expired)),
            claims(json!({"exp": seconds(-6)}), Err(IdentityError::Expired)),
            claims(json!({"exp": 0}), Err(IdentityError::Expired)),
            claims(json!({"exp": seconds(50).as_f64().unwrap() + 0.5}), Ok(())),
            claims(json!({"exp": "99"}), invalid(Malformed)),
            claims(json!({"exp": seconds(50).to_string()}), invalid(Malformed)),
            claims(json!({"exp": [seconds(50)]}), invalid(Malformed)),
            claims(json!({"exp": true}), invalid(Malformed)),
            claims(json!({"exp": null}), invalid(Malformed)),
            claims(json!({"exp": -1}), invalid(Malformed)),
            claims(json!({"exp": 1e300}), invalid(Malformed)),
            claims(json!({"exp": u64::MAX}), invalid(Malformed)),
            claims(json!({"exp": 253_402_300_799_u64}), Ok(())),
            claims(json!({"exp": 253_402_300_800_u64}), invalid(Malformed)),
            claims(json!({"exp": REMOVED}), invalid(Malformed)),
            claims(json!({"nbf": seconds(3)}), Ok(())),
            claims(json!({"nbf": seconds(5)}), Ok(())),
            claims(json!({"nbf": seconds(8)}), invalid(NotYetValid)),
            claims(json!({"nbf": seconds(8).to_string()}), invalid(Malformed)),
            claims(json!({"nbf": null}), invalid(Malformed)),
            claims(json!({"nbf": [seconds(-8)]}), invalid(Malformed)),
            claims(json!({"nbf": 1e300}), invalid(Malformed)),
            claims(json!({"nbf": -1}), invalid(Malformed)),
            claims(json!({"nbf": REMOVED}), Ok(())),
            claims(json!({"iat": seconds(3)}), Ok(())),
            claims(json!({"iat": seconds(8)}), invalid(IssuedInTheFuture)),
            claims(json!({"iat": "0"}), invalid(Malformed)),
            claims(json!({"iat": REMOVED}), Ok(())),
        ])
        .await;
}

#[tokio::test]
async fn rules_9_and_10_judge_the_parties() {
    use Reason::*;
    let judge = Judge::new().await;
    let app: fn(&mut Issuer) = |rules| rules.authorized_parties = vec!["https://app.example.com".to_owned()];
    let native: fn(&mut Issuer) = |rules| {
        rules.authorized_parties = vec!["https://app.example.com".to_owned()];
        rules.allow_missing_azp = true;
    };
    let api: fn(&mut Issuer) = |rules| rules.audiences = vec!["api".to_owned(), "api2".to_owned()];
    let other = json!({"azp": "https://evil.example.com"});
    judge
        .check(vec![
            Row(json!({}), json!({}), app, Ok(())),
            Row(json!({}), other.clone(), |_| {}, Ok(())),
            Row(json!({}), other.clone(), app, invalid(AuthorizedPartyMismatch)),
            Row(json!({}), other, native, invalid(AuthorizedPartyMismatch)),
            Row(json!({}), json!({"azp": "https://app.example.com/"}), app, invalid(AuthorizedPartyMismatch)),
            Row(json!({}), json!({"azp": ["https://app.example.com"]}), app, invalid(AuthorizedPartyMismatch)),
            Row(json!({}), json!({"azp": null}), native, invalid(AuthorizedPartyMismatch)),
            Row(json!({}), json!({"azp": REMOVED}), app, invalid(AuthorizedPartyMismatch)),
            Row(json!({}), json!({"azp": REMOVED}), native, Ok(())),
            Row(json!({}), json!({"azp": REMOVED}), |_| {}, Ok(())),
            Row(json!({}), json!({"aud": "anything"}), |_| {}, Ok(())),
            Row(json!({}), json!({"aud": "api2"}), api, Ok(())),
            Row(json!({}), json!({"aud": ["other", "api"]}), api, Ok(())),
            Row(json!({}), json!({"aud": "other"}), api, invalid(AudienceMismatch)),
            Row(json!({}), json!({"aud": ["other"]}), api, invalid(AudienceMismatch)),
            Row(json!({}), json!({"aud": [["api"]]}), api, invalid(AudienceMismatch)),
            Row(json!({}), json!({"aud": {"api": "api"}}), api, invalid(AudienceMismatch)),
            Row(json!({}), json!({"aud": []}), api, invalid(AudienceMismatch)),
            Row(json!({}), json!({"aud": null}), api, invalid(AudienceMismatch)),
            Row(json!({}), json!({}), api, invalid(AudienceMismatch)),
        ])
        .await;
}

#[tokio::test]
async fn rules_11_to_14_judge_subject_session_and_actor() {
    use Reason::*;
    let judge = Judge::new().await;
    let claims = |changes: Value, expected| Row(json!({}), changes, |_| {}, expected);
    let any_subject: fn(&mut Issuer) = |rules| rules.subject_prefix = String::new();
    let impersonation: fn(&mut Issuer) = |rules| rules.allow_impersonation = true;
    judge
        .check(vec![
            claims(json!({"sub": REMOVED}), invalid(MissingSubject)),
            claims(json!({"sub": null}), invalid(MissingSubject)),
            claims(json!({"sub": 7}), invalid(MissingSubject)),
            claims(json!({"sub": ["user_2b"]}), invalid(MissingSubject)),
            claims(json!({"sub": ""}), invalid(MissingSubject)),
            claims(json!({"sub": "mch_2b"}), invalid(MissingSubject)),
            claims(json!({"sub": "admin_2b"}), invalid(MissingSubject)),
            claims(json!({"sub": "user_2b\r\nX-Client-ID: other"}), invalid(MissingSubject)),
            claims(json!({"sub": format!("user_{}", "x".repeat(252))}), invalid(MissingSubject)),
            Row(json!({}), json!({"sub": "42"}), any_subject, Ok(())),
            Row(json!({}), json!({"sub": "mch_2b"}), any_subject, invalid(MissingSubject)),
            Row(json!({}), json!({"sub": "anon:0d9c1c1e"}), any_subject, invalid(MissingSubject)),
            Row(json!({}), json!({"sub": ""}), any_subject, invalid(MissingSubject)),
            claims(json!({"sid": REMOVED}), invalid(MissingSessionId)),
            claims(json!({"sid": null}), invalid(MissingSessionId)),
            claims(json!({"sid": 7}), invalid(MissingSessionId)),
            claims(json!({"sid": ""}), invalid(MissingSessionId)),
            claims(json!({"sid": "a b"}), invalid(MissingSessionId)),
            claims(json!({"sts": "pending"}), invalid(SessionPending)),
            claims(json!({"sts": "ended"}), invalid(SessionPending)),
            claims(json!({"sts": null}), invalid(SessionPending)),
            claims(json!({"sts": REMOVED}), Ok(())),
            claims(json!({"act": {"sub": "user_admin"}}), invalid(ImpersonationNotAllowed)),
            claims(json!({"act": null}), invalid(ImpersonationNotAllowed)),
            Row(json!({}), json!({"act": {"sub": "user_admin"}}), impersonation, Ok(())),
            Row(json!({}), json!({"act": {}}), impersonation, invalid(Malformed)),
            Row(json!({}), json!({"act": "user_admin"}), impersonation, invalid(Malformed)),
            Row(json!({}), json!({"act": {"sub": "a\nb"}}), impersonation, invalid(Malformed)),
        ])
        .await;
}

#[tokio::test]
async fn rule_1_refuses_whatever_is_not_exactly_a_jwt() {
    let judge = Judge::new().await;
    let good = KEY.sign(&header(KID), &claims_at(START));
    assert!(judge.verify(&rules(), &good).await.is_ok());

    let (header, claims) = (header(KID).to_string(), claims_at(START).to_string());
    let doubled = |object: &str, member: &str| object.replacen('{', &format!("{{{member},"), 1);
    let [head, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let bad = [
        String::new(),
        "dw_AAAA".to_owned(),
        "..".to_owned(),
        format!("{head}.{payload}"),
        format!("{good}.{signature}"),
        format!("{head}.{payload}..{signature}"),
        format!("{good}="),
        format!("{good}\n"),
        format!(" {good}"),
        format!("{head}.{payload}.!"),
        KEY.sign_text(r#"["RS256","JWT"]"#, &claims),
        KEY.sign_text(&header, "[]"),
        KEY.sign_text(&header, "null"),
        KEY.sign_text(&header, "{"),
        KEY.sign_text(&format!("{header} {header}"), &claims),
        KEY.sign_text(&doubled(&header, r#""alg":"none""#), &claims),
        KEY.sign_text(&doubled(&header, r#""alg":"RS256""#), &claims),
        KEY.sign_text(&header, &doubled(&claims, r#""sub":"user_other""#)),
        KEY.sign_text(&header, &doubled(&claims, r#""\u0073ub":"user_other""#)),
        KEY.sign_text(&header, &doubled(&claims, r#""custom":1,"custom":2"#)),
        KEY.sign_text(&header, &doubled(&claims, r#""o":{"id":"org_1","id":"org_2"}"#)),
        KEY.sign(&super::header(KID), &with(claims_at(START), &json!({"custom": "x".repeat(8192)}))),
    ];
    for jwt in &bad {
        assert_eq!(judge.verify(&rules(), jwt).await.map(drop), invalid(Reason::Malformed), "{jwt}");
    }
}

#[tokio::test]
async fn the_size_limit_is_8_kib_to_the_byte() {
    let judge = Judge::new().await;
    let padded = |length: usize| {
        let claims = claims_at(START).to_string();
        KEY.sign_text(&header(KID).to_string(), &format!("{claims}{}", " ".repeat(length)))
    };
    let lengths = (5000..6000).step_by(3).map(|length| (padded(length).len(), length));
    let (_, fitting) = lengths.take_while(|(total, _)| *total <= 8192).last().unwrap();
    assert!(judge.verify(&rules(), &padded(fitting)).await.is_ok());
    let over = padded(fitting + 3);
    assert!((8193..=8196).contains(&over.len()));
    assert_eq!(judge.verify(&rules(), &over).await.map(drop), invalid(Reason::Malformed));
}

#[tokio::test]
async fn rule_6_refuses_foreign_and_tampered_signatures() {
    let judge = Judge::new().await;
    let good = KEY.sign(&header(KID), &claims_at(START));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (head, _) = message.split_once('.').unwrap();
    let other_claims = with(claims_at(START), &json!({"sub": "user_other"})).to_string();
    let mut zeroed = URL_SAFE_NO_PAD.decode(signature).unwrap();
    zeroed.fill(0);
    for jwt in [
        OTHER_KEY.sign(&header(KID), &claims_at(START)),
        format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(other_claims)),
        format!("{message}."),
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(zeroed)),
        format!("{message}.{}", &signature[..signature.len() - 2]),
    ] {
        let outcome = judge.verify(&rules(), &jwt).await.map(drop);
        assert_eq!(outcome, invalid(Reason::SignatureVerificationFailed), "{jwt}");
    }
}

#[tokio::test]
async fn no_character_of_a_jwt_can_be_exchanged_removed_or_doubled() {
    let judge = Judge::new().await;
    let good = KEY.sign(&header(KID), &claims_at(START));
    for position in 0..good.len() {
        let (before, rest) = good.split_at(position);
        let (here, after) = rest.split_at(1);
        let other = if here == "A" { "B" } else { "A" };
        for middle in [other.to_owned(), ".".to_owned(), String::new(), format!("{here}{here}")] {
            if middle == here {
                continue;
            }
            let jwt = format!("{before}{middle}{after}");
            assert!(judge.verify(&rules(), &jwt).await.is_err(), "{jwt}");
        }
    }
}

#[tokio::test]
async fn a_public_key_is_no_hmac_secret() {
    let judge = Judge::new().await;
    let jwk = KEY.jwk(KID);
    let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    for secret in [KEY.pem().as_bytes(), KEY.pem().trim().as_bytes(), &modulus, jwk.to_string().as_bytes(), b""] {
        let header = json!({"alg": "HS256", "typ": "JWT", "kid": KID}).to_string();
        let message = idp::unsigned(&header, &claims_at(START).to_string());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        let jwt = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
        assert_eq!(judge.verify(&rules(), &jwt).await.map(drop), invalid(Reason::UnsupportedAlgorithm));
    }
    for header in [r#"{"alg":"none","typ":"JWT"}"#, r#"{"alg":"None","kid":"ins_1"}"#, r#"{"alg":""}"#, "{}"] {
        let jwt = format!("{}.", idp::unsigned(header, &claims_at(START).to_string()));
        assert_eq!(judge.verify(&rules(), &jwt).await.map(drop), invalid(Reason::UnsupportedAlgorithm), "{header}");
    }
}

#[tokio::test]
async fn the_first_broken_rule_is_the_answer() {
    use Reason::*;
    let judge = Judge::new().await;
    // Everything is wrong at first; each step mends what the previous answer complained about.
    let rules = Issuer {
        authorized_parties: vec!["https://app.example.com".to_owned()],
        audiences: vec!["api".to_owned()],
        ..rules()
    };
    let mut head = json!({"alg": "HS256", "typ": "at+jwt", "cat": "cl_B7d4PD333AAA", "kid": "ins_9"});
    let mut claims = json!({
        "iss": "https://evil.example.com", "exp": seconds(-60), "nbf": seconds(60), "iat": seconds(60),
        "azp": "https://evil.example.com", "aud": "other", "sub": "mch_1", "sts": "pending",
        "act": {"sub": "user_admin"}, "v": 9,
    });
    let steps: Vec<(Result<(), IdentityError>, &str, Value)> = vec![
        (invalid(UnsupportedAlgorithm), "alg", json!("RS256")),
        (invalid(UnexpectedTokenType), "typ", json!("JWT")),
        (invalid(NotASessionToken), "cat", json!("cl_B7d4PD111AAA")),
        (invalid(UnknownKey), "kid", json!(KID)),
        (invalid(SignatureVerificationFailed), "key", json!(null)),
        (invalid(IssuerMismatch), "iss", json!(ISSUER)),
        (Err(IdentityError::Expired), "exp", seconds(60)),
        (invalid(NotYetValid), "nbf", seconds(0)),
        (invalid(IssuedInTheFuture), "iat", seconds(0)),
        (invalid(AuthorizedPartyMismatch), "azp", json!("https://app.example.com")),
        (invalid(AudienceMismatch), "aud", json!("api")),
        (invalid(MissingSubject), "sub", json!("user_2b")),
        (invalid(MissingSessionId), "sid", json!("sess_2b")),
        (invalid(SessionPending), "sts", json!("active")),
        (invalid(ImpersonationNotAllowed), "act", json!(REMOVED)),
        (invalid(Malformed), "v", json!(2)),
    ];
    let mut key = &*OTHER_KEY;
    for (expected, mended, value) in steps {
        let outcome = judge.verify(&rules, &key.sign(&head, &claims)).await.map(drop);
        assert_eq!(outcome, expected, "before {mended} is mended");
        match mended {
            "key" => key = &KEY,
            "alg" | "typ" | "cat" | "kid" => head[mended] = value,
            _ => claims = with(claims, &json!({mended: value})),
        }
    }
    assert!(judge.verify(&rules, &key.sign(&head, &claims)).await.is_ok());
}

#[tokio::test]
async fn an_accepted_jwt_becomes_an_identity() {
    let judge = Judge::new().await;
    let jwt = KEY.sign(&header(KID), &claims_at(START));
    let expected = Identity {
        provider: ProviderId::CLERK,
        subject: "user_2b".parse().unwrap(),
        tenant: None,
        roles: Vec::new(),
        provider_session: Some("sess_2b".to_owned()),
        actor: None,
        authenticated_at: Timestamp(START.0 - 10_000),
        proof_id: None,
    };
    assert_eq!(judge.verify(&rules(), &jwt).await.unwrap(), expected);

    let actor = KEY.sign(&header(KID), &with(claims_at(START), &json!({"act": {"sub": "user_admin", "iss": "x"}})));
    let rules_with_actor = Issuer { allow_impersonation: true, ..rules() };
    assert_eq!(
        judge.verify(&rules_with_actor, &actor).await.unwrap().actor.map(|actor| actor.as_str().to_owned()).as_deref(),
        Some("user_admin")
    );
}

#[tokio::test]
async fn a_login_is_never_dated_after_now() {
    let judge = Judge::new().await;
    for (iat, authenticated_at) in [
        (seconds(-30), Timestamp(START.0 - 30_000)),
        (json!(1_767_225_599.5), Timestamp(START.0 - 500)),
        (seconds(4), START),
        (json!(REMOVED), START),
    ] {
        let jwt = KEY.sign(&header(KID), &with(claims_at(START), &json!({"iat": iat})));
        assert_eq!(judge.verify(&rules(), &jwt).await.unwrap().authenticated_at, authenticated_at, "{iat}");
    }
}

#[tokio::test]
async fn tenant_and_role_come_from_the_claims_of_the_tokens_version() {
    let judge = Judge::new().await;
    let some = |tenant: &str, roles: &[&str]| {
        Ok((Some(tenant.to_owned()), roles.iter().map(|role| role.parse::<Role>().unwrap()).collect::<Vec<_>>()))
    };
    let none = || Ok((None, Vec::new()));
    let malformed = || Err(IdentityError::Invalid(Reason::Malformed));
    let v1 = |org: Value| with(json!({"v": REMOVED}), &org);
    for (changes, expected) in [
        (json!({"o": {"id": "org_1", "slg": "acme", "rol": "admin"}}), some("org_1", &["org:admin"])),
        (json!({"o": {"id": "org_1", "rol": "org:admin"}}), some("org_1", &["org:admin"])),
        (json!({"o": {"id": "org_1"}}), some("org_1", &[])),
        (json!({"o": {"rol": "admin"}}), none()),
        (json!({"o": null}), none()),
        (json!({"o": "org_1"}), malformed()),
        (json!({"o": ["org_1", "acme", "admin"]}), malformed()),
        (json!({"o": {"id": 1}}), malformed()),
        (json!({"o": {"id": ""}}), malformed()),
        (json!({"o": {"id": "org_1\r\nX-User-ID: root"}}), malformed()),
        (json!({"o": {"id": "org_1", "rol": ["admin"]}}), malformed()),
        (json!({"o": {"id": "org_1", "rol": "member,org:admin"}}), malformed()),
        (json!({"o": {"id": "org_1", "rol": ""}}), malformed()),
        // An application may define `org_id` itself in version 2, and `o` in version 1.
        (json!({"org_id": "org_evil", "org_role": "org:admin"}), none()),
        (v1(json!({"o": {"id": "org_evil", "rol": "admin"}})), none()),
        (v1(json!({"org_id": "org_1", "org_role": "org:admin"})), some("org_1", &["org:admin"])),
        (v1(json!({"org_id": "org_1", "org_role": "basic_member"})), some("org_1", &["org:basic_member"])),
        (v1(json!({"org_id": "org_1"})), some("org_1", &[])),
        (v1(json!({"org_id": null, "org_role": null})), none()),
        (v1(json!({"org_role": "org:admin"})), none()),
        (v1(json!({"org_id": ["org_1"]})), malformed()),
        (json!({"v": 1, "org_id": "org_1"}), some("org_1", &[])),
        (json!({"v": 3}), malformed()),
        (json!({"v": "2"}), malformed()),
        (json!({"v": null}), malformed()),
    ] {
        let jwt = KEY.sign(&header(KID), &with(claims_at(START), &changes));
        let outcome = judge.verify(&rules(), &jwt).await;
        let outcome = outcome.map(|identity| (identity.tenant.map(|tenant| tenant.to_string()), identity.roles));
        assert_eq!(outcome, expected, "{changes}");
    }
}

#[tokio::test]
async fn single_use_names_the_proof_by_its_signature() {
    let judge = Judge::new().await;
    let rules = Issuer { single_use: true, ..rules() };
    let mut proofs = Vec::new();
    for changes in [json!({}), json!({}), json!({"iat": seconds(-11)}), json!({"jti": REMOVED})] {
        let jwt = KEY.sign(&header(KID), &with(claims_at(START), &changes));
        let proof = judge.verify(&rules, &jwt).await.unwrap().proof_id.unwrap();
        assert!(!jwt.contains(&proof));
        proofs.push(proof);
    }
    assert_eq!(proofs[0], proofs[1], "the same JWT");
    assert_ne!(proofs[0], proofs[2], "the same jti, another JWT");
    assert_ne!(proofs[0], proofs[3]);
}
