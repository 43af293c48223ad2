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
                roles: rules.roles.clone(),
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

    /// Returns what the issuer's `role` is called here.
    pub(super) fn role(&self, role: Role) -> Result<Role, Reason> {
        let Scope::Own { roles, .. } = &self.scope else { return Ok(role) };
        if let Some(role) = roles.get(role.as_str()) {
            return Ok(role.clone());
        }
        let name = self.provider.qualified(role.as_str()).map_err(|_| Reason::Malformed)?;
        name.parse().map_err(|_| Reason::Malformed)
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

fn parsed(name: &str) -> Result<ProviderId, String> {
    name.parse().map_err(|problem| format!("the name {problem}"))
}
