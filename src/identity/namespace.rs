//! What an issuer may name: tenants, roles and actors.
//!
//! Only the section `clerk` names them as they stand. An entry of `issuers` names its own, which
//! carry its name in front (`partner:org_main`), and of the others exactly those that the
//! configuration lists for it. So no key but Clerk's leads into a tenant or a role that routes
//! and applications know, unless the operator wrote that down.

use std::collections::BTreeMap;

use super::Reason;
use crate::config::{Config, Issuer};
use crate::model::{ActorId, ProviderId, Role, TenantId};

/// The names that one issuer may use, and the provider that it speaks for.
pub(super) struct Namespace {
    provider: ProviderId,
    scope: Scope,
}

enum Scope {
    /// Names stand as they are, except those that belong to one of `others`.
    Verbatim { others: Vec<ProviderId> },
    /// Names are the provider's own, except those listed.
    Own { tenant: TenantId, organizations: BTreeMap<String, TenantId>, roles: BTreeMap<String, Role> },
}

impl Namespace {
    /// Returns the namespace of the issuer that is configured as `name`: its own, or that of the
    /// provider it is the `same_as`.
    pub(super) fn of(config: &Config, name: &str, rules: &Issuer) -> Result<Self, String> {
        let (name, rules) = match rules.same_as.as_deref() {
            None => (name, rules),
            Some(other) => {
                let section = config.clerk.as_ref().filter(|_| other == ProviderId::CLERK.as_str());
                let found = section.or_else(|| config.issuers.get(other));
                (other, found.ok_or_else(|| format!("same_as: no issuer is called {other:?}"))?)
            }
        };
        let provider = parsed(name)?;
        let scope = if provider == ProviderId::CLERK {
            let others = config.issuers.keys().map(|name| parsed(name)).collect::<Result<_, _>>()?;
            Scope::Verbatim { others }
        } else {
            Scope::Own {
                tenant: rules.tenant.clone().unwrap_or_else(|| provider.clone().into()),
                organizations: rules.organizations.clone(),
                roles: roles_of(rules)?,
            }
        };
        Ok(Self { provider, scope })
    }

    /// Returns the provider whose users the issuer's subjects are.
    pub(super) fn provider(&self) -> &ProviderId {
        &self.provider
    }

    /// Returns the tenant that `organization` is; `None` for the deployment's default.
    pub(super) fn tenant(&self, organization: Option<&str>) -> Result<Option<TenantId>, Reason> {
        let tenant = match (&self.scope, organization) {
            (Scope::Verbatim { .. }, None) => return Ok(None),
            (Scope::Verbatim { .. }, Some(organization)) => self.verbatim(organization)?.parse(),
            (Scope::Own { tenant, .. }, None) => Ok(tenant.clone()),
            (Scope::Own { organizations, .. }, Some(organization)) => match organizations.get(organization) {
                Some(tenant) => Ok(tenant.clone()),
                None => self.provider.qualified(organization).and_then(|name| name.parse()),
            },
        };
        tenant.map(Some).map_err(|_| Reason::Malformed)
    }

    /// Returns what the role `name` is called here.
    pub(super) fn role(&self, name: &str) -> Result<Role, Reason> {
        let role = match &self.scope {
            Scope::Verbatim { .. } => name.parse().ok(),
            Scope::Own { roles, .. } => match roles.get(name) {
                Some(role) => Some(role.clone()),
                None => self.provider.qualified(name).ok().and_then(|name| name.parse().ok()),
            },
        };
        role.ok_or(Reason::Malformed)
    }

    /// Returns what the `subject` who acts in a user's name is called here.
    pub(super) fn actor(&self, subject: &str) -> Result<ActorId, Reason> {
        let actor = match &self.scope {
            Scope::Verbatim { .. } => self.verbatim(subject)?.parse(),
            Scope::Own { .. } => self.provider.qualified(subject).and_then(|name| name.parse()),
        };
        actor.map_err(|_| Reason::Malformed)
    }

    fn verbatim<'a>(&self, name: &'a str) -> Result<&'a str, Reason> {
        let Scope::Verbatim { others } = &self.scope else { return Ok(name) };
        if others.iter().any(|other| other.owns(name)) { Err(Reason::Malformed) } else { Ok(name) }
    }
}

fn roles_of(rules: &Issuer) -> Result<BTreeMap<String, Role>, String> {
    let named = |(name, role): (&String, &String)| match role.parse() {
        Ok(role) => Ok((name.clone(), role)),
        Err(problem) => Err(format!("roles.{name}: {problem}")),
    };
    rules.roles.iter().map(named).collect()
}

fn parsed(name: &str) -> Result<ProviderId, String> {
    name.parse().map_err(|problem| format!("the name {problem}"))
}
