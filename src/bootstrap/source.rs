//! Reads a section from its source.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::application::{Application, ApplicationError};
use super::call::{Document, SourceCall};
use super::creation::Creations;
use super::section_error::SectionError;
use crate::config::Config;
use crate::config::bootstrap::{HttpSource, Section, SectionSource, SqlSource};
use crate::directory::Directory;
use crate::model::PrincipalKind;
use crate::wire::json::parse_object;

/// Every source of a section.
pub(super) struct SectionSources {
    directory: Arc<Directory>,
    /// Absent when no section comes from the application.
    application: Option<Application>,
    creations: Creations,
}

impl SectionSources {
    pub(super) fn new(config: &Config, directory: Arc<Directory>) -> Result<Self, ApplicationError> {
        let is_http = |section: &Section| matches!(section.source, SectionSource::Http(_));
        let asked = config.bootstrap.sections().iter().any(|(_, section)| is_http(section));
        let application = asked.then(|| Application::new(&config.upstream)).transpose()?;
        Ok(Self { directory, application, creations: Creations::default() })
    }

    /// Returns the document of a section; an error when its source failed or did not answer in time.
    pub(super) async fn read(
        &self,
        name: &'static str,
        section: &Section,
        call: &SourceCall,
    ) -> Result<Document, SectionError> {
        let reading = async {
            match &section.source {
                SectionSource::Http(source) => self.http(name, source, section.timeout, call).await,
                SectionSource::Sql(source) => self.sql(source, call).await,
                SectionSource::Directory => self.account(call).await,
                SectionSource::Static => Ok(Document::new()),
            }
        };
        tokio::time::timeout(section.timeout, reading).await.unwrap_or(Err(SectionError::TimedOut))
    }

    async fn http(
        &self,
        name: &'static str,
        source: &HttpSource,
        deadline: Duration,
        call: &SourceCall,
    ) -> Result<Document, SectionError> {
        let application = self.application.as_ref().ok_or(SectionError::NoApplication)?;
        match (application.find(&source.path, &call.headers).await?, &source.create) {
            (Some(document), _) => Ok(document),
            (None, None) => Err(SectionError::Absent),
            (None, Some(create)) => self.creations.create(name, application, (source, create), call, deadline).await,
        }
    }

    async fn sql(&self, source: &SqlSource, call: &SourceCall) -> Result<Document, SectionError> {
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
        parse_object(text.ok_or(SectionError::Absent)?.as_bytes()).ok_or(SectionError::NotAnObject)
    }

    async fn account(&self, call: &SourceCall) -> Result<Document, SectionError> {
        let account = match call.principal.kind {
            PrincipalKind::Anonymous => None,
            PrincipalKind::User | PrincipalKind::Admin => self.directory.find_user(&call.principal.id).await?,
        };
        let created_at = account.as_ref().map(|account| account.created_at.rfc3339());
        let (name, email) = account.map(|account| (account.name, account.email)).unwrap_or_default();
        Ok([
            ("name", json!(name)),
            ("email", json!(email)),
            ("roles", json!(call.roles)),
            ("created_at", json!(created_at)),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect())
    }
}
