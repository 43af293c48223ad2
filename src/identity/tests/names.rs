//! What each issuer may name, without the configuration's word and with it.

use super::*;
use crate::model::TenantId;

const PARTNER: &str = "https://partner.example.com";

/// A Clerk instance and a partner, whose keys are in files.
struct Two {
    bench: Bench,
    _files: [TempFile; 2],
}

/// What an identity says of tenant, roles and actor.
type Named = (Option<String>, Vec<String>, Option<String>);

impl Two {
    /// Starts both; `configure` changes what is configured of the partner.
    async fn start(configure: impl FnOnce(&mut Issuer)) -> Self {
        let keys = |key: &SigningKey| TempFile::new(&json!({"keys": [key.jwk(KID)]}).to_string());
        let files = [keys(&KEY), keys(&OTHER_KEY)];
        let [clerk, mut partner] = files.each_ref().map(|file| {
            let jwks_file = Some(file.path().to_owned());
            Issuer { jwks_file, allow_impersonation: true, ..rules() }
        });
        partner.issuer = PARTNER.to_owned();
        configure(&mut partner);
        let bench = Bench::start(Some(clerk), &[("partner", partner)]);
        eventually("keys are loaded", || bench.providers.loaded()).await;
        Self { bench, _files: files }
    }

    async fn of_clerk(&self, claims: Value) -> Result<Identity, IdentityError> {
        self.bench.verify(&KEY.sign(&header(KID), &laid_over(ISSUER, &claims))).await
    }

    async fn of_partner(&self, claims: Value) -> Result<Identity, IdentityError> {
        self.bench.verify(&OTHER_KEY.sign(&header(KID), &laid_over(PARTNER, &claims))).await
    }
}

fn laid_over(issuer: &str, claims: &Value) -> Value {
    let mut all = claims_at(START);
    all["iss"] = issuer.into();
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    all
}

fn named(identity: Identity) -> Named {
    let roles = identity.roles.iter().map(ToString::to_string).collect();
    (identity.tenant.map(|tenant| tenant.to_string()), roles, identity.actor.map(|actor| actor.as_str().to_owned()))
}

fn expected(tenant: Option<&str>, role: Option<&str>, actor: Option<&str>) -> Named {
    let text = |text: Option<&str>| text.map(str::to_owned);
    (text(tenant), text(role).into_iter().collect(), text(actor))
}

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn admin_of(organization: &str) -> Value {
    json!({"o": {"id": organization, "rol": "admin"}, "act": {"sub": "user_support"}})
}

#[tokio::test]
async fn without_a_word_of_the_configuration_an_issuer_names_only_its_own() {
    let two = Two::start(|_| {}).await;
    let by_clerk = two.of_clerk(admin_of("org_main")).await.unwrap();
    let by_partner = two.of_partner(admin_of("org_main")).await.unwrap();
    assert_eq!((by_clerk.provider.as_str(), by_partner.provider.as_str()), ("clerk", "partner"));
    assert_eq!(by_clerk.subject, by_partner.subject, "what it calls its user is the resolver's to tell apart");
    assert_eq!(named(by_clerk), expected(Some("org_main"), Some("org:admin"), Some("user_support")));
    let qualified = expected(Some("partner:org_main"), Some("partner:org:admin"), Some("partner:user_support"));
    assert_eq!(named(by_partner), qualified);

    assert_eq!(named(two.of_clerk(json!({})).await.unwrap()), expected(None, None, None), "the default tenant");
    assert_eq!(named(two.of_partner(json!({})).await.unwrap()), expected(Some("partner"), None, None));
}

#[tokio::test]
async fn what_the_configuration_lists_is_named_and_nothing_beside_it() {
    let two = Two::start(|partner| {
        partner.tenant = Some(tenant("default"));
        partner.organizations = [("org_p".to_owned(), tenant("org_main"))].into();
        partner.roles = [("org:admin".to_owned(), "org:viewer".parse().unwrap())].into();
    })
    .await;
    for (claims, expected) in [
        (json!({}), expected(Some("default"), None, None)),
        (json!({"o": {"id": "org_p", "rol": "admin"}}), expected(Some("org_main"), Some("org:viewer"), None)),
        (json!({"o": {"id": "org_p", "rol": "viewer"}}), expected(Some("org_main"), Some("partner:org:viewer"), None)),
        (
            json!({"o": {"id": "org_main", "rol": "admin"}}),
            expected(Some("partner:org_main"), Some("org:viewer"), None),
        ),
        (json!({"o": {"id": "default"}}), expected(Some("partner:default"), None, None)),
    ] {
        assert_eq!(named(two.of_partner(claims.clone()).await.unwrap()), expected, "{claims}");
    }
}

#[tokio::test]
async fn an_issuer_that_is_the_same_as_another_speaks_for_it() {
    let two = Two::start(|partner| partner.same_as = Some("clerk".to_owned())).await;
    let both = [two.of_clerk(admin_of("org_main")).await.unwrap(), two.of_partner(admin_of("org_main")).await.unwrap()];
    assert_eq!(both[0], both[1]);
    assert_eq!(both[0].provider.as_str(), "clerk");
}

#[tokio::test]
async fn not_even_clerk_names_what_is_a_partners() {
    let two = Two::start(|_| {}).await;
    for claims in [
        json!({"o": {"id": "partner"}}),
        json!({"o": {"id": "partner:org_main", "rol": "admin"}}),
        json!({"act": {"sub": "partner:user_support"}}),
    ] {
        let refused = two.of_clerk(claims.clone()).await.map(drop);
        assert_eq!(refused, invalid(Reason::Malformed), "{claims}");
    }
    assert_eq!(two.of_clerk(json!({"o": {"id": "partners"}})).await.unwrap().tenant, Some(tenant("partners")));
}

#[tokio::test]
async fn a_name_that_is_too_long_with_the_issuers_in_front_is_refused() {
    let two = Two::start(|_| {}).await;
    let [longest, longer] = [248, 249].map(|length| "x".repeat(length));
    let role = |name: &str| json!({"o": {"id": "org_1", "rol": &name[..name.len() - 4]}});
    let actor = |name: &str| json!({"act": {"sub": name}});
    for claims in [json!({"o": {"id": longest}}), role(&longest), actor(&longest)] {
        assert!(two.of_partner(claims.clone()).await.is_ok(), "{claims}");
    }
    for claims in [json!({"o": {"id": longer}}), role(&longer), actor(&longer)] {
        assert_eq!(two.of_partner(claims.clone()).await.map(drop), invalid(Reason::Malformed), "{claims}");
    }
}

#[tokio::test]
async fn names_that_no_issuer_can_have_are_refused() {
    let (clock, metrics) = (Arc::new(ManualClock::at(START)), Metrics::new().unwrap());
    let file = TempFile::new(&json!({"keys": [KEY.jwk(KID)]}).to_string());
    let issuer = Issuer { jwks_file: Some(file.path().to_owned()), ..rules() };
    for name in ["clerk", "Partner", "a:b", "a_b", ""] {
        assert!(providers(None, &[(name, issuer.clone())], &clock, &metrics).is_err(), "{name:?}");
    }
    let stranger = Issuer { same_as: Some("stranger".to_owned()), ..issuer };
    assert!(providers(None, &[("partner", stranger)], &clock, &metrics).is_err());
}
