//! The audit stream: sign-ins, refusals, and changes to what is allowed.
//!
//! An event holds ids, counts and reasons from closed sets, and never a token, a device id, an e-mail
//! address or text that a caller wrote. Every event is written, at every log level.

use std::net::IpAddr;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Doorward serves.
    Started,
    /// A session was started.
    SessionStarted,
    /// A caller ended a session (logout).
    SessionEnded,
    /// A refresh token that had just been used got the same answer again.
    RefreshRepeated,
    /// A refresh token was used that had been replaced: it was stolen, and its session has ended.
    RefreshReused,
    /// The oldest sessions of a principal made room for a new one.
    SessionsEvicted,
    /// A sign-in was refused.
    LoginDenied,
    /// A guest became a user, with all of its rows.
    GuestRebound,
    /// A rebind was refused.
    RebindDenied,
    /// The sessions of a guest who became a user were ended later than in the rebind.
    GuestEnded,
    /// A provider's user signed in for the first time and got an id here.
    UserCreated,
    /// The provider reported that a user was deleted.
    UserDeleted,
    /// The provider reported that a user was banned or locked.
    UserBarred,
    /// The provider reported changes to a user.
    UserRefreshed,
    /// The provider reported that a login ended.
    LoginEnded,
    /// The provider reported that a user left an organization.
    MembershipEnded,
    /// A webhook delivery had no valid signature.
    WebhookRefused,
    /// A provider publishes other keys than before.
    ProviderKeysChanged,
    /// The keys of tokens were read again and differ.
    TokenKeysReloaded,
    /// The certificate was read again and differs.
    CertificateReloaded,
    /// A new configuration is in force.
    ConfigReloaded,
    /// A new configuration was refused; the old one stays in force.
    ConfigRefused,
}

/// One event, with the fields that apply to it.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// What happened.
    pub action: Action,
    /// Why, from a closed set.
    pub reason: Option<&'a str>,
    /// The session, by its public id.
    pub session_id: Option<String>,
    /// The user or guest.
    pub user_id: Option<&'a str>,
    /// The kind of principal.
    pub user_kind: Option<&'a str>,
    /// The tenant.
    pub organization_id: Option<&'a str>,
    /// Who acts on the user's behalf (the provider's actor).
    pub actor_id: Option<&'a str>,
    /// The guest that became the user.
    pub guest_id: Option<&'a str>,
    /// The provider's session.
    pub login_id: Option<&'a str>,
    /// The caller's address.
    pub client_ip: Option<IpAddr>,
    /// The method of the sign-in: the label of `login_attempts_total`.
    pub method: Option<&'a str>,
    /// How many sessions ended.
    pub sessions_ended: Option<u64>,
    /// How many rows changed hands.
    pub rows: Option<u64>,
    /// The provider, as the configuration calls it.
    pub provider: Option<&'a str>,
    /// How many keys there are now.
    pub keys: Option<u64>,
    /// The hash of the configuration in force.
    pub config_hash: Option<&'a str>,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 22] = [
        Self::Started,
        Self::SessionStarted,
        Self::SessionEnded,
        Self::RefreshRepeated,
        Self::RefreshReused,
        Self::SessionsEvicted,
        Self::LoginDenied,
        Self::GuestRebound,
        Self::RebindDenied,
        Self::GuestEnded,
        Self::UserCreated,
        Self::UserDeleted,
        Self::UserBarred,
        Self::UserRefreshed,
        Self::LoginEnded,
        Self::MembershipEnded,
        Self::WebhookRefused,
        Self::ProviderKeysChanged,
        Self::TokenKeysReloaded,
        Self::CertificateReloaded,
        Self::ConfigReloaded,
        Self::ConfigRefused,
    ];

    /// Returns the value of `event.action`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::SessionStarted => "session-started",
            Self::SessionEnded => "session-ended",
            Self::RefreshRepeated => "refresh-repeated",
            Self::RefreshReused => "refresh-reused",
            Self::SessionsEvicted => "sessions-evicted",
            Self::LoginDenied => "login-denied",
            Self::GuestRebound => "guest-rebound",
            Self::RebindDenied => "rebind-denied",
            Self::GuestEnded => "guest-ended",
            Self::UserCreated => "user-created",
            Self::UserDeleted => "user-deleted",
            Self::UserBarred => "user-barred",
            Self::UserRefreshed => "user-refreshed",
            Self::LoginEnded => "login-ended",
            Self::MembershipEnded => "membership-ended",
            Self::WebhookRefused => "webhook-refused",
            Self::ProviderKeysChanged => "provider-keys-changed",
            Self::TokenKeysReloaded => "token-keys-reloaded",
            Self::CertificateReloaded => "certificate-reloaded",
            Self::ConfigReloaded => "config-reloaded",
            Self::ConfigRefused => "config-refused",
        }
    }

    /// Returns an event of this action, without any other field.
    pub fn event<'a>(self) -> Event<'a> {
        Event {
            action: self,
            reason: None,
            session_id: None,
            user_id: None,
            user_kind: None,
            organization_id: None,
            actor_id: None,
            guest_id: None,
            login_id: None,
            client_ip: None,
            method: None,
            sessions_ended: None,
            rows: None,
            provider: None,
            keys: None,
            config_hash: None,
        }
    }
}

impl Event<'_> {
    /// Writes one line.
    pub fn write(&self) {
        tracing::event!(
            target: super::AUDIT,
            tracing::Level::INFO,
            event.action = self.action.as_str(),
            event.reason = self.reason,
            session.id = self.session_id.as_deref(),
            user.id = self.user_id,
            user.kind = self.user_kind,
            organization.id = self.organization_id,
            actor.id = self.actor_id,
            guest.id = self.guest_id,
            login.id = self.login_id,
            client.ip = self.client_ip.map(tracing::field::display),
            auth.method = self.method,
            sessions.ended = self.sessions_ended,
            rows = self.rows,
            provider = self.provider,
            keys = self.keys,
            config.hash = self.config_hash,
        );
    }
}
