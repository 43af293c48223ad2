//! `doorward outbox`: lists undelivered events and retries dead ones.
//!
//! Works on the configured directory beside running servers, which find retried events within
//! `outbox.poll_interval`. An event holds ids of users and guests, and no secret.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;
use uuid::Uuid;

use super::{ConfigFiles, Environment, SUCCESS, block_on, print};
use crate::config::Config;
use crate::directory::{Directory, DirectoryError, EventId, EventState, ListedEvent};
use crate::telemetry::with_causes;
use crate::time::{Clock, Timestamp};

/// What to do with the outbox.
#[derive(Debug, clap::Subcommand)]
pub enum OutboxCommand {
    /// Print events that are not delivered, oldest first.
    List(Listing),
    /// Make dead events pending again, as if they had never been tried.
    Retry(Revival),
}

/// Which events to print, and how.
#[derive(Args, Debug)]
pub struct Listing {
    /// Only pending events, or only dead ones.
    #[arg(long, value_enum, value_name = "STATE")]
    state: Option<State>,
    /// The largest number of events to print.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: u32,
    /// One JSON object a line, for scripts.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    files: ConfigFiles,
}

/// Which events to revive.
#[derive(Args, Debug)]
pub struct Revival {
    /// The ids that `outbox list` prints.
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<Uuid>,
    /// Every dead event.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    files: ConfigFiles,
}

/// Which events to list.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    /// Events that will be tried again.
    Pending,
    /// Events that will not, unless retried here.
    Dead,
}

/// Why nothing was listed or retried.
#[derive(Debug, thiserror::Error)]
enum OutboxCommandError {
    #[error("{}", with_causes(.0))]
    Directory(#[from] DirectoryError),
    #[error("{0}")]
    Runtime(#[from] std::io::Error),
    #[error("only {revived} of {asked} events were dead")]
    NotDead { revived: u64, asked: usize },
}

/// Lists or revives; returns the exit code.
pub fn run(command: &OutboxCommand, clock: &Arc<dyn Clock>, environment: &mut Environment<'_>) -> u8 {
    let (OutboxCommand::List(Listing { files, .. }) | OutboxCommand::Retry(Revival { files, .. })) = command;
    let config = match environment.read(files) {
        Ok(loaded) => loaded.config,
        Err(code) => return code,
    };
    match block_on(carry_out(command, &config, clock.now())).map_err(OutboxCommandError::from).flatten() {
        Ok(text) => {
            print(environment.stdout, &text);
            SUCCESS
        }
        Err(failure) => environment.fail(&failure),
    }
}

async fn carry_out(command: &OutboxCommand, config: &Config, now: Timestamp) -> Result<String, OutboxCommandError> {
    let directory = Directory::open(&config.directory)?;
    match command {
        OutboxCommand::List(listing) => list(&directory, listing).await,
        OutboxCommand::Retry(revival) => retry(&directory, revival, now).await,
    }
}

async fn list(directory: &Directory, listing: &Listing) -> Result<String, OutboxCommandError> {
    let state = listing.state.map(|state| match state {
        State::Pending => EventState::Pending,
        State::Dead => EventState::Dead,
    });
    let events = directory.list_events(state, listing.limit).await?;
    if listing.json {
        return Ok(events.iter().flat_map(|event| [object(event).to_string(), "\n".to_owned()]).collect());
    }
    if events.is_empty() {
        return Ok("no such event\n".to_owned());
    }
    let head = format!(
        "{:<36}  {:<12}  {:<7}  {:>8}  {:<20}  {:<20}  {:<32}  ERROR\n",
        "EVENT", "KIND", "STATE", "ATTEMPTS", "CREATED", "DUE", "PERSON"
    );
    Ok(std::iter::once(head).chain(events.iter().map(line)).collect())
}

async fn retry(directory: &Directory, revival: &Revival, now: Timestamp) -> Result<String, OutboxCommandError> {
    let revived = if revival.all {
        directory.retry_all_events(now).await?
    } else {
        let ids: Vec<_> = revival.ids.iter().map(|id| EventId::new(id.to_string())).collect();
        let revived = directory.retry_events(&ids, now).await?;
        if revived < ids.len() as u64 {
            return Err(OutboxCommandError::NotDead { revived, asked: ids.len() });
        }
        revived
    };
    let plural = if revived == 1 { "" } else { "s" };
    Ok(format!("{revived} event{plural} will be tried again\n"))
}

fn object(event: &ListedEvent) -> serde_json::Value {
    json!({
        "id": event.id.as_str(),
        "kind": event.kind,
        "person": event.person,
        "state": event.state.as_str(),
        "attempts": event.attempts,
        "created_at": event.created_at.rfc3339_seconds(),
        "due_at": event.due_at.rfc3339_seconds(),
        "error": event.error,
    })
}

fn line(event: &ListedEvent) -> String {
    let due = match event.state {
        EventState::Pending => event.due_at.rfc3339_seconds(),
        EventState::Dead => "-".to_owned(),
    };
    format!(
        "{:<36}  {:<12}  {:<7}  {:>8}  {:<20}  {due:<20}  {:<32}  {}\n",
        plain(event.id.as_str()),
        plain(&event.kind),
        event.state.as_str(),
        event.attempts,
        event.created_at.rfc3339_seconds(),
        plain(&event.person),
        event.error.as_deref().map(plain).unwrap_or_default(),
    )
}

// Ids and errors come from other systems: escape what a terminal would obey.
fn plain(text: &str) -> String {
    text.escape_debug().to_string()
}
