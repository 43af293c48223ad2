//! What an event says (contracts §10): as much of Clerk's payload as something follows from.
//!
//! An event about a user that the issuer's rules would never let in is understood and ignored.

use serde_json::{Map, Value};

use crate::directory::UserProfile;
use crate::identity::subject_of;
use crate::model::{Subject, TenantId};
use crate::time::Timestamp;
use crate::wire::headers::is_visible_ascii;
use crate::wire::json::parse_object;

type Object = Map<String, Value>;

/// The longest id of a login, in bytes, as sign-ins have it too.
const LOGIN_BYTES_MAX: usize = 256;

/// Types of events, as far as they differ here: the label of `webhooks_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    UserCreated,
    UserUpdated,
    UserDeleted,
    SessionEnded,
    SessionRemoved,
    SessionRevoked,
    MembershipDeleted,
    Other,
}

/// What an event asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WebhookEvent {
    /// The user is gone for good.
    UserDeleted { user: Subject },
    /// What is known of the user; `barred` when the provider no longer lets them in.
    UserChanged { user: Subject, profile: UserProfile, barred: bool },
    /// One login of the user is over.
    LoginEnded { user: Subject, login: String },
    /// The user is no longer in the tenant.
    MembershipEnded { user: Subject, tenant: TenantId },
    /// Nothing.
    Ignored,
}

/// The outer object.
pub(super) struct Payload {
    kind: Type,
    object: Object,
}

impl Type {
    /// The label for what is no event at all.
    pub(super) const NONE: &'static str = "none";

    /// Every type that something follows from.
    pub(super) const KNOWN: [Self; 7] = [
        Self::UserCreated,
        Self::UserUpdated,
        Self::UserDeleted,
        Self::SessionEnded,
        Self::SessionRemoved,
        Self::SessionRevoked,
        Self::MembershipDeleted,
    ];

    /// Returns the type's own name, `other` for all that nothing follows from.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::UserCreated => "user.created",
            Self::UserUpdated => "user.updated",
            Self::UserDeleted => "user.deleted",
            Self::SessionEnded => "session.ended",
            Self::SessionRemoved => "session.removed",
            Self::SessionRevoked => "session.revoked",
            Self::MembershipDeleted => "organizationMembership.deleted",
            Self::Other => "other",
        }
    }

    fn of(name: &str) -> Self {
        Self::KNOWN.into_iter().find(|kind| kind.label() == name).unwrap_or(Self::Other)
    }
}

impl Payload {
    /// Returns the outer object of an event, which has a `type`.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let object = parse_object(body)?;
        let kind = Type::of(object.get("type")?.as_str()?);
        Some(Self { kind, object })
    }

    pub(super) fn kind(&self) -> Type {
        self.kind
    }

    pub(super) fn instance_id(&self) -> Option<&str> {
        text(&self.object, "instance_id")
    }

    /// Returns what the event asks for; `None` when it lacks what it would need for that.
    pub(super) fn event(&self, subject_prefix: &str) -> Option<WebhookEvent> {
        if self.kind == Type::Other {
            return Some(WebhookEvent::Ignored);
        }
        let data = self.object.get("data")?.as_object()?;
        let id = match self.kind {
            Type::SessionEnded | Type::SessionRemoved | Type::SessionRevoked => {
                text(data, "user_id").or_else(|| text(inner(data, "user")?, "id"))?
            }
            Type::MembershipDeleted => text(inner(data, "public_user_data")?, "user_id")?,
            _ => text(data, "id")?,
        };
        let Some(user) = subject_of(subject_prefix, id) else { return Some(WebhookEvent::Ignored) };
        Some(match self.kind {
            Type::UserDeleted => WebhookEvent::UserDeleted { user },
            Type::SessionEnded | Type::SessionRemoved | Type::SessionRevoked => {
                WebhookEvent::LoginEnded { user, login: login(data)? }
            }
            Type::MembershipDeleted => {
                let tenant = text(inner(data, "organization")?, "id")?.parse().ok()?;
                WebhookEvent::MembershipEnded { user, tenant }
            }
            _ => WebhookEvent::UserChanged { user, profile: profile(data), barred: is_barred(data) },
        })
    }
}

fn login(data: &Object) -> Option<String> {
    text(data, "id").filter(|id| is_visible_ascii(id, LOGIN_BYTES_MAX)).map(str::to_owned)
}

fn is_barred(user: &Object) -> bool {
    ["banned", "locked"].iter().any(|flag| user.get(*flag) == Some(&Value::Bool(true)))
}

fn profile(user: &Object) -> UserProfile {
    let names = ["first_name", "last_name"].map(|part| text(user, part).map(printable).unwrap_or_default());
    let name = names.join(" ").trim().to_owned();
    let changed_at = user.get("updated_at").and_then(Value::as_u64).unwrap_or(0);
    UserProfile {
        name: (!name.is_empty()).then_some(name),
        email: primary_address(user).map(printable).filter(|address| !address.is_empty()),
        changed_at: Timestamp(changed_at),
    }
}

fn primary_address(user: &Object) -> Option<&str> {
    let primary = text(user, "primary_email_address_id")?;
    let addresses = user.get("email_addresses")?.as_array()?.iter().filter_map(Value::as_object);
    addresses
        .into_iter()
        .find(|address| text(address, "id") == Some(primary))
        .and_then(|address| text(address, "email_address"))
}

// PostgreSQL keeps no NUL in a text, and no name has a line break.
fn printable(text: &str) -> String {
    text.trim().chars().filter(|letter| !letter.is_control()).collect()
}

fn text<'a>(object: &'a Object, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}

fn inner<'a>(object: &'a Object, key: &str) -> Option<&'a Object> {
    object.get(key)?.as_object()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, data: &Value) -> Option<WebhookEvent> {
        let body = json!({"object": "event", "type": kind, "data": data}).to_string();
        Payload::parse(body.as_bytes())?.event("user_")
    }

    fn alice() -> Subject {
        "user_alice".parse().unwrap()
    }

    #[test]
    fn each_type_says_what_it_asks_for() {
        let deleted = json!({"id": "user_alice", "object": "user", "deleted": true});
        assert_eq!(event("user.deleted", &deleted), Some(WebhookEvent::UserDeleted { user: alice() }));
        let session = json!({"object": "session", "id": "sess_1", "user_id": "user_alice", "status": "revoked"});
        let ended = Some(WebhookEvent::LoginEnded { user: alice(), login: "sess_1".to_owned() });
        for kind in ["session.revoked", "session.ended", "session.removed"] {
            assert_eq!(event(kind, &session), ended, "{kind}");
        }
        assert_eq!(event("session.ended", &json!({"id": "sess_1", "user": {"id": "user_alice"}})), ended);
        let membership =
            json!({"id": "orgmem_1", "organization": {"id": "org_1"}, "public_user_data": {"user_id": "user_alice"}});
        let left = WebhookEvent::MembershipEnded { user: alice(), tenant: "org_1".parse().unwrap() };
        assert_eq!(event("organizationMembership.deleted", &membership), Some(left));
    }

    #[test]
    fn a_user_is_a_name_an_address_and_a_date() {
        let read = |data: Value| match event("user.updated", &data) {
            Some(WebhookEvent::UserChanged { profile, barred, .. }) => {
                (profile.name, profile.email, profile.changed_at.0, barred)
            }
            other => panic!("{other:?}"),
        };
        let text = |text: &str| Some(text.to_owned());
        let whole = json!({
            "id": "user_alice", "first_name": " Alice\u{0}", "last_name": "Li\ndell", "updated_at": 7,
            "primary_email_address_id": "idn_2", "banned": false, "locked": false,
            "email_addresses": [{"id": "idn_1", "email_address": "old@example.com"}, {"id": "idn_2", "email_address": "alice@example.com"}],
        });
        assert_eq!(read(whole), (text("Alice Lidell"), text("alice@example.com"), 7, false));
        let bare = json!({"id": "user_alice", "first_name": null, "last_name": "", "email_addresses": []});
        assert_eq!(read(bare), (None, None, 0, false));
        assert_eq!(read(json!({"id": "user_alice", "first_name": "Alice"})).0, text("Alice"));
        assert!(read(json!({"id": "user_alice", "banned": true})).3);
        assert!(read(json!({"id": "user_alice", "locked": true})).3);
    }

    #[test]
    fn what_lacks_its_subject_is_no_event() {
        for (kind, data) in [
            ("user.deleted", json!({})),
            ("user.deleted", json!({"id": 7})),
            ("user.deleted", Value::Null),
            ("session.revoked", json!({"id": "sess_1"})),
            ("session.revoked", json!({"user_id": "user_alice"})),
            ("session.revoked", json!({"id": "", "user_id": "user_alice"})),
            ("session.revoked", json!({"id": "a b", "user_id": "user_alice"})),
            ("organizationMembership.deleted", json!({"public_user_data": {"user_id": "user_alice"}})),
            ("organizationMembership.deleted", json!({"organization": {"id": "org_1"}})),
        ] {
            assert_eq!(event(kind, &data), None, "{kind} {data}");
        }
        let outer: [&[u8]; 7] = [
            b"",
            b"[]",
            b"{}",
            br#"{"type":1}"#,
            br#"{"type":"a","type":"b"}"#,
            br#"{"type":"a","data":{"a":1,"a":2}}"#,
            b"\xff",
        ];
        for body in outer {
            assert!(Payload::parse(body).is_none(), "{body:?}");
        }
    }

    #[test]
    fn what_nothing_follows_from_is_ignored() {
        assert_eq!(event("email.created", &Value::Null), Some(WebhookEvent::Ignored));
        for id in ["client_1", "anon:0d9c1c1e", "mch_1", "user_a b", ""] {
            assert_eq!(event("user.deleted", &json!({"id": id})), Some(WebhookEvent::Ignored), "{id}");
        }
    }
}
