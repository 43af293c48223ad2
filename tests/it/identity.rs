//! Which JWTs are exchanged, with keys from where, as whom: contracts §11 against the real binary.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{PublicEncryptingKey, PublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::support::client::{RawConnection, Response};
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::idp::{Idp, KID, Key, unsigned};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::surface::answers::{Caller, PATIENT, assert_refused, identity_of, now, seen_with, token_of};

const APP: &str = "https://app.example.com";

async fn exchange(doorward: &Doorward, jwt: &str) -> Response {
    doorward.client().post("/auth/session").bearer(jwt).send().await
}

async fn assert_invalid(doorward: &Doorward, jwt: &str, reason: &str) {
    assert_refused(&exchange(doorward, jwt).await, 401, &format!("Invalid token: {reason}"));
}

fn header() -> Value {
    json!({"alg": "RS256", "typ": "JWT", "kid": KID})
}

fn header_with(over: &Value) -> Value {
    let mut header = header();
    let (Some(into), Some(over)) = (header.as_object_mut(), over.as_object()) else { panic!("objects") };
    into.extend(over.clone());
    into.retain(|_, value| !value.is_null());
    header
}

/// Returns a PEM file's text for the public half of `key`.
fn public_pem(key: &Key) -> String {
    let jwk = serde_json::to_value(key.public()).expect("a key serialises");
    let part = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().expect("an RSA key")).expect("base64url");
    let public: PublicEncryptingKey = PublicKeyComponents { n: part("n"), e: part("e") }.try_into().expect("a key");
    let der = public.as_der().expect("a key can be written");
    let lines: Vec<String> = der.as_ref().chunks(48).map(|line| STANDARD.encode(line)).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}

type Row = (&'static str, String);

/// Returns JWTs that are refused before their signature is looked at for their shape or algorithm.
fn misshapen(key: &Key, good: &Value) -> Vec<Row> {
    let pem = public_pem(key);
    let hmac = |algorithm| {
        let header = Header { kid: Some(KID.to_owned()), ..Header::new(algorithm) };
        let secret = EncodingKey::from_secret(pem.as_bytes());
        jsonwebtoken::encode(&header, good, &secret).expect("any secret signs")
    };
    let none = |alg: &str| format!("{}.", unsigned(&header_with(&json!({"alg": alg})), good));
    let text = |name: &str| name.to_owned();
    let (head, rest) = key.sign(good).split_once('.').map(|(head, rest)| (text(head), text(rest))).expect("a JWT");
    let mut rows = vec![
        ("malformed", text("a.b.c")),
        ("malformed", text("..")),
        ("malformed", format!("{head}=.{rest}")),
        ("malformed", format!("{head}.~{rest}")),
        ("malformed", format!("{}.{}.AA", "x".repeat(4000), "x".repeat(4300))),
        ("unsupported algorithm", none("none")),
        ("unsupported algorithm", none("None")),
        ("unsupported algorithm", format!("{}AAAA", none("none"))),
        ("unsupported algorithm", hmac(Algorithm::HS256)),
        ("unsupported algorithm", hmac(Algorithm::HS512)),
    ];
    for alg in ["RS384", "RS512", "PS256"] {
        rows.push(("unsupported algorithm", key.sign_as(&header_with(&json!({"alg": alg})), good)));
    }
    rows
}

/// Returns JWTs with a good payload that are refused for their header or signature.
fn mislabelled(key: &Key, good: &Value, stranger: &Idp) -> Vec<Row> {
    let mut rows = Vec::new();
    for (reason, over) in [
        ("unexpected token type", json!({"typ": "at+jwt"})),
        ("unexpected token type", json!({"typ": "application/at+jwt"})),
        ("unexpected token type", json!({"typ": 7})),
        ("unexpected token type", json!({"crit": ["exp"]})),
        ("not a session token", json!({"cat": "cl_B7d4PD333AAA"})),
        ("not a session token", json!({"cat": "cl_B7d4PD222AAA"})),
        ("not a session token", json!({"cat": "cl_unheard_of"})),
        ("unknown key", json!({"kid": null})),
        ("unknown key", json!({"kid": "ins_other"})),
        ("unknown key", json!({"kid": null, "jwk": key.public()})),
        ("unknown key", json!({"kid": "x", "jku": stranger.jwks_url(), "x5u": stranger.jwks_url()})),
    ] {
        rows.push((reason, key.sign_as(&header_with(&over), good)));
    }
    rows.push(("signature verification failed", Key::generate(KID).sign(good)));
    rows.push(("signature verification failed", stranger.mint(&json!({}))));
    rows.push(("signature verification failed", format!("{}.AAAA", unsigned(&header(), good))));
    rows
}

/// Returns JWTs with a good signature that are refused for what they claim.
fn misclaimed(idp: &Idp, stranger: &Idp) -> Vec<Row> {
    let soon = now().unix_seconds() + 100;
    let rows = [
        ("issuer mismatch", json!({"iss": "https://evil.example.com"})),
        ("issuer mismatch", json!({"iss": format!("{}/", idp.issuer())})),
        ("issuer mismatch", json!({"iss": stranger.issuer()})),
        ("issuer mismatch", json!({"iss": null})),
        ("issuer mismatch", json!({"iss": [idp.issuer()]})),
        ("malformed", json!({"exp": null})),
        ("malformed", json!({"exp": soon.to_string()})),
        ("malformed", json!({"exp": 1e300})),
        ("malformed", json!({"nbf": "now"})),
        ("not yet valid", json!({"nbf": soon})),
        ("issued in the future", json!({"iat": soon})),
        ("authorized party mismatch", json!({"azp": "https://evil.example.com"})),
        ("authorized party mismatch", json!({"azp": null})),
        ("authorized party mismatch", json!({"azp": [APP]})),
        ("audience mismatch", json!({"aud": "other"})),
        ("audience mismatch", json!({"aud": ["other"]})),
        ("audience mismatch", json!({"aud": {"api": true}})),
        ("missing subject", json!({"sub": null})),
        ("missing subject", json!({"sub": "mch_2b"})),
        ("missing subject", json!({"sub": "anon:0d9c1c1e-3f0e-4f6e-9f53-3a0c7a4d2b11"})),
        ("missing subject", json!({"sub": "alice"})),
        ("missing subject", json!({"sub": "user_a\r\nx-admin: 1"})),
        ("missing subject", json!({"sub": 7})),
        ("missing session id", json!({"sid": null})),
        ("missing session id", json!({"sid": ""})),
        ("session pending", json!({"sts": "pending"})),
        ("session pending", json!({"sts": "anything"})),
        ("impersonation not allowed", json!({"act": {"sub": "user_support"}})),
        ("malformed", json!({"v": 3})),
        ("malformed", json!({"o": "org_1"})),
        ("malformed", json!({"o": {"id": "org 1"}})),
    ];
    rows.map(|(reason, over)| (reason, idp.key().sign(&for_api(idp, &over)))).into()
}

/// Returns good claims for the audience `api`, with `over` laid over.
fn for_api(idp: &Idp, over: &Value) -> Value {
    let mut claims = json!({"aud": "api"});
    let (Some(into), Some(over)) = (claims.as_object_mut(), over.as_object()) else { panic!("objects") };
    into.extend(over.clone());
    idp.claims(&claims)
}

#[tokio::test]
async fn every_reason_is_told_in_its_fixed_words() {
    let (idp, stranger) = (Idp::start().await, Idp::start().await);
    let rules = format!("clerk: {{ authorized_parties: ['{APP}'], audiences: [api], refetch_interval: 60s }}");
    let doorward = Doorward::builder().idp(&idp).config(&rules).start().await;
    let (key, good) = (idp.key(), for_api(&idp, &json!({})));
    let rows = [misshapen(&key, &good), mislabelled(&key, &good, &stranger), misclaimed(&idp, &stranger)].concat();
    for caller in Caller::both(&doorward).await {
        for (reason, jwt) in &rows {
            let bearer = format!("Bearer {jwt}");
            let answer = caller.send("POST", "/auth/session", &[("authorization", &bearer)], "").await;
            assert_refused(&answer, 401, &format!("Invalid token: {reason}"));
        }
    }
    for over in [json!({}), json!({"typ": null}), json!({"cat": "cl_B7d4PD111AAA"}), json!({"cat": "cl_I7d4PD111III"})]
    {
        token_of(&exchange(&doorward, &key.sign_as(&header_with(&over), &good)).await);
    }
    let unusual = for_api(&idp, &json!({"aud": ["other", "api"], "sts": null, "nbf": null}));
    token_of(&exchange(&doorward, &key.sign(&unusual)).await);
    let expired = for_api(&idp, &json!({"exp": 1}));
    assert_refused(&exchange(&doorward, &key.sign(&expired)).await, 401, "Token expired");
    // Keys come from where the configuration says, never from where a JWT does.
    assert_eq!((idp.fetches(), stranger.fetches()), (2, 0));
}

#[tokio::test]
async fn a_jwt_that_is_wrong_in_every_way_is_refused_for_the_first_of_them() {
    let idp = Idp::start().await;
    let rules = format!("clerk: {{ authorized_parties: ['{APP}'], audiences: [api], refetch_interval: 60s }}");
    let doorward = Doorward::builder().idp(&idp).config(&rules).start().await;
    let (key, stranger, later) = (idp.key(), Key::generate(KID), now().unix_seconds() + 1000);
    let mut head = json!({"alg": "RS512", "typ": "at+jwt", "cat": "cl_B7d4PD333AAA"});
    let mut claims = idp.claims(&json!({
        "iss": "https://evil.example.com", "exp": 1, "nbf": later, "iat": later, "azp": "x", "aud": "x",
        "sub": "mch_1", "sid": null, "sts": "pending", "act": {"sub": "user_support"}, "o": 7,
    }));
    for (over, reason) in [
        (json!({"alg": "RS256"}), "unsupported algorithm"),
        (json!({"typ": "JWT"}), "unexpected token type"),
        (json!({"cat": null}), "not a session token"),
        (json!({"kid": KID}), "unknown key"),
    ] {
        assert_invalid(&doorward, &key.sign_as(&head, &claims), reason).await;
        head.as_object_mut().expect("an object").extend(over.as_object().expect("an object").clone());
        head.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    }
    assert_invalid(&doorward, &stranger.sign_as(&head, &claims), "signature verification failed").await;
    for (name, value, text) in [
        ("iss", json!(idp.issuer()), "Invalid token: issuer mismatch"),
        ("exp", json!(later), "Token expired"),
        ("nbf", json!(1), "Invalid token: not yet valid"),
        ("iat", json!(1), "Invalid token: issued in the future"),
        ("azp", json!(APP), "Invalid token: authorized party mismatch"),
        ("aud", json!("api"), "Invalid token: audience mismatch"),
        ("sub", json!("user_alice"), "Invalid token: missing subject"),
        ("sid", json!("sess_1"), "Invalid token: missing session id"),
        ("sts", json!("active"), "Invalid token: session pending"),
        ("act", Value::Null, "Invalid token: impersonation not allowed"),
        ("o", Value::Null, "Invalid token: malformed"),
    ] {
        assert_refused(&exchange(&doorward, &key.sign_as(&head, &claims)).await, 401, text);
        claims[name] = value;
        claims.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    }
    token_of(&exchange(&doorward, &key.sign_as(&head, &claims)).await);
}

#[tokio::test]
async fn clocks_may_differ_by_five_seconds() {
    let idp = Idp::start().await;
    let doorward = Doorward::builder().idp(&idp).start().await;
    for (claim, early) in [("exp", false), ("nbf", true), ("iat", true)] {
        // An answer that came too late to say anything is asked for again.
        eventually("an answer in time", async || {
            let at = if early { now().unix_seconds() + 3 } else { now().unix_seconds() - 3 };
            let answer = exchange(&doorward, &idp.mint(&json!({ claim: at }))).await;
            if !early && now().unix_seconds() >= at + 5 {
                return None;
            }
            token_of(&answer);
            Some(())
        })
        .await;
    }
    for _ in 0..3 {
        let past = idp.mint(&json!({"exp": now().unix_seconds() - 6}));
        assert_refused(&exchange(&doorward, &past).await, 401, "Token expired");
    }
    for (claim, reason) in [("nbf", "not yet valid"), ("iat", "issued in the future")] {
        eventually("an answer in time", async || {
            let at = now().unix_seconds() + 8;
            let answer = exchange(&doorward, &idp.mint(&json!({ claim: at }))).await;
            if now().unix_seconds() + 5 >= at {
                return None;
            }
            assert_refused(&answer, 401, &format!("Invalid token: {reason}"));
            Some(())
        })
        .await;
    }
}

#[tokio::test]
async fn the_authorized_party_matters_where_it_is_configured() {
    let idp = Idp::start().await;
    let issuer = |name: &str, rules: &str| {
        format!("  {name}: {{ issuer: 'https://{name}.example.com', jwks_url: '{}', {rules} }}\n", idp.jwks_url())
    };
    let listed = format!("authorized_parties: ['https://first.example.com', '{APP}']");
    let issuers = [
        issuer("open", "allow_missing_azp: false"),
        issuer("opener", "allow_missing_azp: true"),
        issuer("strict", &listed),
        issuer("native", &format!("{listed}, allow_missing_azp: true")),
    ];
    let doorward = Doorward::builder().config(&format!("issuers:\n{}", issuers.concat())).start().await;
    for (name, [present, absent, wrong]) in [
        ("open", [true, true, true]),
        ("opener", [true, true, true]),
        ("strict", [true, false, false]),
        ("native", [true, true, false]),
    ] {
        for (azp, accepted) in
            [(json!(APP), present), (Value::Null, absent), (json!("https://evil.example.com"), wrong)]
        {
            let jwt = idp.mint(&json!({"iss": format!("https://{name}.example.com"), "azp": azp}));
            if accepted {
                token_of(&exchange(&doorward, &jwt).await);
            } else {
                assert_invalid(&doorward, &jwt, "authorized party mismatch").await;
            }
        }
    }
}

#[tokio::test]
async fn a_second_issuer_is_a_config_entry_and_cannot_speak_for_the_first() {
    let (idp, partner, upstream) = (Idp::start().await, Idp::start().await, Upstream::start().await);
    let rules = format!(
        "issuers: {{ partner: {{ issuer: '{}', jwks_url: '{}', subject_prefix: partner_, user_id: subject }} }}",
        partner.issuer(),
        partner.jwks_url()
    );
    let doorward = Doorward::builder().upstream(upstream.url()).idp(&idp).config(&rules).start().await;
    for (issuer, subject) in [(&idp, "user_alice"), (&partner, "partner_bob")] {
        let token = token_of(&exchange(&doorward, &issuer.mint_for(subject)).await);
        assert_eq!(identity_of(&doorward, &upstream, &token).await.0, subject);
    }
    let forged = partner.key().sign(&idp.claims(&json!({})));
    assert_invalid(&doorward, &forged, "signature verification failed").await;
    assert_invalid(&doorward, &partner.mint_for("user_alice"), "missing subject").await;
    assert_invalid(&doorward, &idp.mint(&json!({"iss": "https://third.example.com"})), "issuer mismatch").await;
    assert_invalid(&doorward, &idp.mint(&json!({"iss": null})), "issuer mismatch").await;
}

#[tokio::test]
async fn an_unknown_kid_provokes_exactly_one_fetch() {
    let idp = Idp::start().await;
    let doorward = Doorward::builder().idp(&idp).config("clerk: { refetch_interval: 60s }").start().await;
    assert_eq!(idp.fetches(), 1);
    token_of(&exchange(&doorward, &idp.mint_for("user_alice")).await);
    assert_eq!(idp.fetches(), 1);
    idp.add_key("ins_second");
    token_of(&exchange(&doorward, &idp.mint_for("user_alice")).await);
    assert_eq!(idp.fetches(), 2, "one fetch for the key that was new");
    for kid in ["ins_third", "ins_fourth"] {
        assert_invalid(&doorward, &Key::generate(kid).sign(&idp.claims(&json!({}))), "unknown key").await;
    }
    assert_eq!(idp.fetches(), 2, "none within the interval");
}

#[tokio::test]
async fn a_key_rotated_under_its_old_name_is_accepted_after_exactly_one_fetch() {
    let idp = Idp::start().await;
    let doorward = Doorward::builder().idp(&idp).config("clerk: { refetch_interval: 60s }").start().await;
    let before = idp.mint_for("user_alice");
    token_of(&exchange(&doorward, &before).await);
    idp.rotate_same_kid();
    let jwts: Vec<_> = (0..8).map(|_| idp.mint_for("user_alice")).collect();
    for answer in join_all(jwts.iter().map(|jwt| exchange(&doorward, jwt))).await {
        token_of(&answer);
    }
    assert_eq!(idp.fetches(), 2);
    assert_invalid(&doorward, &before, "signature verification failed").await;
    assert_eq!(idp.fetches(), 2);
}

#[tokio::test]
async fn a_provider_that_hangs_holds_nobody_up_whose_key_is_known() {
    let idp = Idp::start().await;
    let doorward = Doorward::builder().idp(&idp).start().await;
    idp.hang();
    let stranger = Key::generate("ins_other").sign(&idp.claims(&json!({})));
    let (unknown, ()) = tokio::join!(exchange(&doorward, &stranger), async {
        idp.wait_fetches(2).await;
        // The stranger's request waits for the provider now; these do not.
        for answer in join_all((0..8).map(async |_| exchange(&doorward, &idp.mint_for("user_alice")).await)).await {
            token_of(&answer);
        }
        idp.recover();
    });
    assert_refused(&unknown, 401, "Invalid token: unknown key");
}

#[tokio::test]
async fn keys_come_from_an_address_a_file_or_a_pinned_key() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    let files = crate::support::temp::TempDir::new("keys");
    let (listed, pinned) = (Key::generate("ins_listed"), Key::generate("whatever"));
    let set = |key: &Key| json!({"keys": [key.public()]}).to_string();
    let (jwks_file, pem_file) = (files.join("jwks.json"), files.join("key.pem"));
    std::fs::write(&jwks_file, set(&listed)).expect("the directory is writable");
    std::fs::write(&pem_file, public_pem(&pinned)).expect("the directory is writable");
    let issuers = format!(
        "issuers:\n  \
         listed: {{ issuer: 'https://listed.example.com', jwks_file: '{}', refetch_interval: 1s, same_as: clerk }}\n  \
         pinned: {{ issuer: 'https://pinned.example.com', pem_file: '{}', same_as: clerk }}\n",
        jwks_file.display(),
        pem_file.display()
    );
    let doorward = Doorward::builder().upstream(upstream.url()).idp(&idp).config(&issuers).start().await;
    let from =
        |name: &str| idp.claims(&json!({"iss": format!("https://{name}.example.com"), "sub": format!("user_{name}")}));
    for (jwt, subject) in [
        (idp.mint_for("user_address"), "user_address"),
        (listed.sign(&from("listed")), "user_listed"),
        (pinned.sign(&from("pinned")), "user_pinned"),
        // The one key counts whatever it is called.
        (pinned.sign_as(&json!({"alg": "RS256"}), &from("pinned")), "user_pinned"),
    ] {
        let token = token_of(&exchange(&doorward, &jwt).await);
        assert_eq!(identity_of(&doorward, &upstream, &token).await.0, subject);
    }
    assert_invalid(&doorward, &pinned.sign(&from("listed")), "unknown key").await;
    assert_invalid(&doorward, &listed.sign(&from("pinned")), "signature verification failed").await;

    let rotated = Key::generate("ins_listed");
    std::fs::write(&jwks_file, set(&rotated)).expect("the directory is writable");
    eventually("the changed file to be read", async || {
        (exchange(&doorward, &rotated.sign(&from("listed"))).await.status == 200).then_some(())
    })
    .await;
    assert_invalid(&doorward, &listed.sign(&from("listed")), "signature verification failed").await;
}

#[tokio::test]
async fn a_single_use_jwt_is_exchanged_once() {
    let (idp, redis) = (Idp::start().await, Redis::start().await);
    let builder = || Doorward::builder().idp(&idp).config("clerk: { single_use: true }");
    let (embedded, first, second) = tokio::join!(
        builder().start(),
        builder().store(&redis.url()).config(PATIENT).start(),
        builder().store(&redis.url()).config(PATIENT).start()
    );
    for replicas in [vec![&embedded], vec![&first, &second]] {
        for _ in 0..4 {
            let jwt = idp.mint_for("user_alice");
            let tries = (0..8).map(|n| exchange(replicas[n % replicas.len()], &jwt));
            let (won, lost): (Vec<_>, Vec<_>) =
                join_all(tries).await.into_iter().partition(|answer| answer.status == 200);
            assert_eq!(won.len(), 1);
            token_of(&won[0]);
            for answer in lost {
                assert_refused(&answer, 401, "Invalid token: already used");
            }
            for replica in &replicas {
                assert_invalid(replica, &jwt, "already used").await;
            }
        }
    }
    // Once is once in each of two separate stores, and no JWT uses up another.
    let jwt = idp.mint_for("user_alice");
    token_of(&exchange(&embedded, &jwt).await);
    token_of(&exchange(&first, &jwt).await);
}

#[tokio::test]
async fn a_jwt_may_be_exchanged_again_unless_configured_otherwise() {
    let idp = Idp::start().await;
    let doorward = Doorward::builder().idp(&idp).start().await;
    let jwt = idp.mint_for("user_alice");
    let first = token_of(&exchange(&doorward, &jwt).await);
    assert_ne!(first, token_of(&exchange(&doorward, &jwt).await));
}

#[tokio::test]
async fn an_impersonator_is_named_to_the_application() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    let doorward = Doorward::builder()
        .upstream(upstream.url())
        .idp(&idp)
        .config("clerk: { allow_impersonation: true }\nidentity_headers: { actor: true }")
        .start()
        .await;
    let jwt =
        idp.mint(&json!({"sub": "user_alice", "act": {"iss": "https://dash", "sid": "sess_9", "sub": "user_support"}}));
    let token = token_of(&exchange(&doorward, &jwt).await);
    let seen = seen_with(&doorward, &upstream, &token).await;
    assert_eq!(seen.headers.all("x-user-id"), ["user_alice"]);
    assert_eq!(seen.headers.all("x-actor-id"), ["user_support"]);
    for act in [json!({}), json!("user_support"), json!({"sub": 7}), json!({"sub": "a b"}), json!(true)] {
        assert_invalid(&doorward, &idp.mint(&json!({ "act": act })), "malformed").await;
    }
    // Nobody acts for Bob, whatever he says.
    let token = token_of(&exchange(&doorward, &idp.mint_for("user_bob")).await);
    for spelling in ["X-Actor-ID", "x_actor_id"] {
        let path = format!("/bob/{spelling}");
        doorward.client().get(&path).bearer(&token).header(spelling, "user_root").send().await;
        let seen = upstream.wait_for(|request| request.target == path).await;
        assert_eq!(seen.headers.all(spelling), <[&str; 0]>::default());
    }
}

#[tokio::test]
async fn the_organization_becomes_the_tenant() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    let doorward = Doorward::builder()
        .upstream(upstream.url())
        .idp(&idp)
        .config("tenants: { default: house }\nidentity_headers: { roles: true, kind: true }")
        .start()
        .await;
    for (claims, tenant, roles) in [
        (json!({"o": {"id": "org_1", "slg": "acme", "rol": "admin"}}), "org_1", "org:admin"),
        (json!({"o": {"id": "org_1"}}), "org_1", ""),
        (json!({"v": null, "org_id": "org_2", "org_slug": "x", "org_role": "org:member"}), "org_2", "org:member"),
        (json!({}), "house", ""),
        (json!({"o": null}), "house", ""),
        // Version 2 has its own place for it; these are an application's own claims there.
        (json!({"org_id": "org_evil", "org_role": "org:admin"}), "house", ""),
        (json!({"v": null, "o": {"id": "org_evil", "rol": "admin"}}), "house", ""),
    ] {
        let token = token_of(&exchange(&doorward, &idp.mint(&claims)).await);
        let seen = seen_with(&doorward, &upstream, &token).await;
        assert_eq!(seen.headers.all("x-client-id"), [tenant], "{claims}");
        assert_eq!(seen.headers.all("x-user-roles"), [roles], "{claims}");
        assert_eq!(seen.headers.all("x-user-kind"), ["user"]);
    }
}

#[tokio::test]
async fn ten_thousand_made_up_key_names_cause_one_fetch_with_the_store_up_or_down() {
    const CONNECTIONS: usize = 20;
    let (idp, mut redis) = (Idp::start().await, Redis::start().await);
    let rules = "clerk: { refetch_interval: 10m }\ntelemetry: { log_level: error }";
    let doorward = Doorward::builder().idp(&idp).store(&redis.url()).config(PATIENT).config(rules).start().await;
    let payload = unsigned(&header(), &idp.claims(&json!({})));
    let payload = payload.split_once('.').expect("two parts").1;
    let flood = async |count: usize| {
        let connection = async |_| {
            let mut connection = RawConnection::open(doorward.proxy_addr()).await;
            for _ in 0..count / CONNECTIONS {
                let kid = uuid::Uuid::new_v4().simple().to_string();
                let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"RS256","typ":"JWT","kid":"{kid}"}}"#));
                let bearer = format!("authorization: Bearer {header}.{payload}.AAAA");
                connection.write(format!("POST /auth/session HTTP/1.1\r\nhost: a\r\n{bearer}\r\n\r\n")).await;
                let answer = connection.response().await.expect("the connection stays open");
                let refusal = (401, r#"{"detail":"Invalid token: unknown key"}"#.to_owned());
                assert_eq!((answer.status, answer.text()), refusal);
            }
        };
        join_all((0..CONNECTIONS).map(connection)).await;
    };
    flood(5_000).await;
    assert_eq!(idp.fetches(), 2, "one at the start, one provoked");
    redis.kill();
    flood(5_000).await;
    assert_eq!(idp.fetches(), 2);
    let refused = exchange(&doorward, &idp.mint_for("user_alice")).await;
    assert_refused(&refused, 503, "Session store unavailable");
    let metrics = doorward.admin_get("/metrics").await.text();
    assert!(metrics.contains("doorward_jwks_unknown_kid_total{provider=\"clerk\"} 10000\n"), "{metrics}");
}
