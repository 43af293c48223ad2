//! Which principal an identity is.
//!
//! A provider's subject means something only together with the provider. The subjects of Clerk,
//! and of an issuer that says `user_id: subject`, are ids of this deployment as they stand; the
//! configuration's check keeps those apart by what they begin with. Every other subject has an id
//! that the directory gave it, which is made when its user signs in for the first time. A provider
//! that is not known to be of the first sort is of the second: its users can be no other's.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::Config;
use crate::config::issuer::UserId;
use crate::directory::{Directory, DirectoryError};
use crate::model::{Identity, Principal, PrincipalId, PrincipalKind, ProviderId, Subject, TenantId};
use crate::telemetry::audit::{Action, Event};
use crate::time::Clock;

/// Knows which users are called by their subject, and asks the directory about the others.
pub struct Resolver {
    directory: Arc<Directory>,
    by_subject: BTreeSet<ProviderId>,
    default_tenant: TenantId,
    clock: Arc<dyn Clock>,
}

impl Resolver {
    /// Returns the resolver of a configuration.
    pub fn new(config: &Config, directory: Arc<Directory>, clock: Arc<dyn Clock>) -> Self {
        let listed = config.issuers.iter().filter(|(_, issuer)| issuer.user_id == Some(UserId::Subject));
        // A name that is none was refused when the configuration was read.
        let listed = listed.filter_map(|(name, _)| name.parse().ok());
        Self {
            directory,
            by_subject: listed.chain([ProviderId::CLERK]).collect(),
            default_tenant: config.tenants.default.clone(),
            clock,
        }
    }

    /// Returns who an identity is. A user who is new to the directory is created there.
    ///
    /// An error means that the directory was needed and cannot be asked: nothing is known then.
    pub async fn resolve(&self, identity: &Identity) -> Result<Principal, DirectoryError> {
        let Identity { provider, subject, .. } = identity;
        let id = if self.by_subject.contains(provider) {
            subject.into()
        } else {
            let user = self.directory.find_or_create_user(provider, subject, self.clock.now()).await?;
            if user.created {
                let (user_id, provider) = (Some(user.id.as_str()), Some(provider.as_str()));
                Event { user_id, provider, ..Action::UserCreated.event() }.write();
            }
            user.id
        };
        let tenant = identity.tenant.clone().unwrap_or_else(|| self.default_tenant.clone());
        Ok(Principal { kind: PrincipalKind::User, id, tenant })
    }

    /// Returns the id of a provider's user; `None` when the user is not known here.
    pub async fn find_user(
        &self,
        provider: &ProviderId,
        subject: &Subject,
    ) -> Result<Option<PrincipalId>, DirectoryError> {
        if self.by_subject.contains(provider) {
            return Ok(Some(subject.into()));
        }
        self.directory.find_user_of(provider, subject).await
    }
}
