//! Aliases, as PostHog's own libraries send them (contracts §5.3).

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};

use super::backoff::retry_after;
use super::lane::{DeliveryOutcome, Destination};
use super::sink::{Sink, SinkAnswer};
use crate::directory::{EventKind, Leased};
use crate::time::Clock;

/// Reports to the sink which guest became which user.
pub(super) struct Aliases {
    pub(super) sink: Sink,
    pub(super) clock: Arc<dyn Clock>,
}

#[derive(Deserialize)]
struct AliasEvent {
    distinct_id: String,
    alias: String,
}

#[async_trait]
impl Destination for Aliases {
    fn kind(&self) -> EventKind {
        EventKind::Alias
    }

    async fn deliver(&self, events: &[Leased]) -> DeliveryOutcome {
        let Some(batch) = events.iter().map(in_posthogs_form).collect() else {
            return DeliveryOutcome::Refused("the event is not one that Doorward wrote".to_owned());
        };
        match self.sink.send(batch).await {
            SinkAnswer::Accepted => DeliveryOutcome::Delivered,
            SinkAnswer::Refused(status) => DeliveryOutcome::Refused(format!("the sink answered {}", status.as_u16())),
            SinkAnswer::Unavailable(status, headers) => DeliveryOutcome::Failed {
                error: format!("the sink answered {}", status.as_u16()),
                after: retry_after(&headers, self.clock.now()),
            },
            SinkAnswer::Unknown(error) => DeliveryOutcome::Failed { error, after: None },
        }
    }
}

fn in_posthogs_form(event: &Leased) -> Option<Value> {
    let AliasEvent { distinct_id, alias } = serde_json::from_str(&event.body).ok()?;
    Some(json!({
        "event": "$create_alias",
        // The same at every attempt, so that the sink can count the event once.
        "uuid": event.id.as_str(),
        "timestamp": event.created_at.rfc3339(),
        "distinct_id": distinct_id,
        // Otherwise the sink would derive the user's location from Doorward's address.
        "properties": { "distinct_id": distinct_id, "alias": alias, "$geoip_disable": true },
    }))
}
