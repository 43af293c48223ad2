//! Where sections come from, and why one did not come.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::StatusCode;
use serde_json::json;

use super::application::{Application, ApplicationError, document};
use super::creation::Creations;
use super::{Call, Document};
use crate::config::Config;
use crate::config::bootstrap::{HttpSource, Section, SectionSource, SqlSource};
use crate::directory::{Directory, DirectoryError};
use crate::model::PrincipalKind;
use crate::telemetry::with_causes;

/// All that sections may come from.
pub(super) struct Sources {
    directory: Arc<Directory>,
    /// Absent when no section comes from there.
    application: Option<Application>,
    creations: Creations,
}

/// Why a section did not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("it took too long")]
    TimedOut,
    #[error("there is no document, and nothing that would make one")]
    Absent,
    #[error("the application answered {0}")]
    Status(StatusCode),
    #[error("the application cannot be asked")]
    Request(#[source] reqwest::Error),
    #[error("the path makes no URL")]
    Path,
    #[error("the answer is too large")]
    TooLarge,
    #[error("the answer is no JSON object")]
    NotAnObject,
    #[error("the making of the document was interrupted")]
    Interrupted,
    #[error("the directory failed")]
    Directory(DirectoryError),
}

impl Sources {
    pub(super) fn new(config: &Config, directory: Arc<Directory>) -> Result<Self, ApplicationError> {
        let is_http = |section: &Section| matches!(section.source, SectionSource::Http(_));
        let asked = config.bootstrap.sections().iter().any(|(_, section)| is_http(section));
        let application = asked.then(|| Application::new(&config.upstream)).transpose()?;
        Ok(Self { directory, application, creations: Creations::default() })
    }

    /// Returns what the source of a section says, or why it said nothing in time.
    pub(super) async fn read(&self, name: &'static str, section: &Section, call: &Call) -> Result<Document, Failure> {
        let reading = async {
            match &section.source {
                SectionSource::Http(source) => self.http(name, source, section.timeout, call).await,
                SectionSource::Sql(source) => self.sql(source, call).await,
                SectionSource::Directory => self.account(call).await,
                SectionSource::Static => Ok(Document::new()),
            }
        };
        tokio::time::timeout(section.timeout, reading).await.unwrap_or(Err(Failure::TimedOut))
    }

    async fn http(
        &self,
        name: &'static str,
        source: &HttpSource,
        deadline: Duration,
        call: &Call,
    ) -> Result<Document, Failure> {
        let application = self.application.as_ref().ok_or(Failure::Path)?;
        match (application.find(&source.path, &call.headers).await?, &source.create) {
            (Some(document), _) => Ok(document),
            (None, None) => Err(Failure::Absent),
            (None, Some(create)) => self.creations.create(name, application, (source, create), call, deadline).await,
        }
    }

    async fn sql(&self, source: &SqlSource, call: &Call) -> Result<Document, Failure> {
        let find = async || {
            let placeholders = SqlSource::placeholders(&source.select);
            self.directory.find_document(&source.select, placeholders, &call.principal).await
        };
        let mut text = find().await?;
        if let (None, Some(create)) = (&text, &source.create) {
            let placeholders = SqlSource::placeholders(create);
            self.directory.create_document(create, placeholders, &call.principal).await?;
            text = find().await?;
        }
        document(text.ok_or(Failure::Absent)?.as_bytes())
    }

    async fn account(&self, call: &Call) -> Result<Document, Failure> {
        let account = match call.principal.kind {
            PrincipalKind::Anonymous => None,
            PrincipalKind::User | PrincipalKind::Admin => self.directory.find_user(&call.principal.id).await?,
        };
        let created_at = account.as_ref().map(|account| {
            let since = UNIX_EPOCH + Duration::from_millis(account.created_at.0);
            humantime::format_rfc3339_millis(since).to_string()
        });
        let (name, email) = account.map(|account| (account.name, account.email)).unwrap_or_default();
        let account = json!({ "name": name, "email": email, "roles": call.roles, "created_at": created_at });
        document(account.to_string().as_bytes())
    }
}

impl Failure {
    /// Returns what went wrong, for the log: nothing that a source said.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Directory(error) => error.without_values(),
            other => with_causes(other),
        }
    }
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        if error.is_timeout() { Self::TimedOut } else { Self::Directory(error) }
    }
}
