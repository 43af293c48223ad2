-- The directory, in the SQL that SQLite and PostgreSQL share: TEXT ids, BIGINT milliseconds since
-- 1970, BIGINT 0 or 1 for a flag, JSON as TEXT. Times are always passed in.

-- Devices and whose guests they are. `device` is a keyed hash: the id itself is a secret.
create table doorward_devices (
    tenant text not null,
    device text not null,
    -- Which guest of this device is the current one, counted from 0.
    generation bigint not null,
    -- 1 once the current guest has signed in: only then is there anything to rebind.
    guest_seen bigint not null,
    -- The user that the device was rebound to, for good.
    user_id text,
    rebound_at bigint,
    -- A rebind through a hook whose end is not known yet: its user, its idempotency key, its guest,
    -- and when the hook was asked last.
    pending_user text,
    pending_key text,
    pending_guest text,
    pending_at bigint,
    created_at bigint not null,
    primary key (tenant, device)
);

create index doorward_devices_pending on doorward_devices (pending_at);

-- People that a provider vouched for.
create table doorward_users (
    -- The provider's own name for the user where that is the user's id here too (Clerk), or else a
    -- UUIDv7 that Doorward made.
    id text primary key,
    name text,
    email text,
    created_at bigint not null,
    -- When the provider last changed name or email, by its own clock; 0 until it said anything.
    updated_at bigint not null,
    -- Set for good: a deleted user never returns.
    deleted_at bigint,
    -- Logins from before are refused everywhere. It moves whenever all of the user's sessions end.
    not_before bigint not null default 0
);

-- Which user a provider means by a subject, where the subject is not the user's id itself.
create table doorward_identities (
    provider text not null,
    subject text not null,
    user_id text not null,
    created_at bigint not null,
    primary key (provider, subject)
);
create index doorward_identities_user on doorward_identities (user_id);

-- Where a user has signed in: what must be searched for sessions when the user goes.
create table doorward_user_tenants (
    user_id text not null,
    tenant text not null,
    -- Separated by commas, which no role contains.
    roles text not null,
    seen_at bigint not null,
    -- Logins from before are refused in this tenant. It moves whenever the user's sessions in it end.
    not_before bigint not null default 0,
    primary key (user_id, tenant)
);

-- Logins that the provider ended: no session may be started from them.
create table doorward_ended_logins (
    provider text not null,
    provider_session text not null,
    until bigint not null,
    primary key (provider, provider_session)
);
create index doorward_ended_logins_until on doorward_ended_logins (until);

-- What must happen after a commit, at least once, in order for each person.
create table doorward_outbox (
    id text primary key,
    kind text not null,
    person text not null,
    body text not null,
    -- pending or dead; what was delivered is deleted.
    state text not null,
    attempts bigint not null,
    due_at bigint not null,
    leased_until bigint not null,
    created_at bigint not null,
    error text
);
create index doorward_outbox_due on doorward_outbox (kind, state, id);
create index doorward_outbox_person on doorward_outbox (person, id);

-- What was done already and must not be done again: webhook deliveries, idempotency keys.
create table doorward_receipts (
    scope text not null,
    id text not null,
    body text,
    until bigint not null,
    primary key (scope, id)
);
create index doorward_receipts_until on doorward_receipts (until);
