//! Aliases, as PostHog's own libraries send them (contracts §5.3).

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};

use super::backoff::retry_after;
use super::lane::{Destination, Verdict};
use super::sink::{Answer, Sink};
use crate::directory::{EventKind, Leased};
use crate::time::{Clock, Timestamp};

/// Tells the sink that guests became users.
pub(super) struct Aliases {
    pub(super) sink: Sink,
    pub(super) clock: Arc<dyn Clock>,
}

#[derive(Deserialize)]
struct Alias {
    distinct_id: String,
    alias: String,
}

#[async_trait]
impl Destination for Aliases {
    fn kind(&self) -> EventKind {
        EventKind::Alias
    }

    async fn deliver(&self, events: &[Leased]) -> Verdict {
        let Some(batch) = events.iter().map(in_posthogs_form).collect() else {
            return Verdict::Refused("the event is not one that Doorward wrote".to_owned());
        };
        match self.sink.send(batch).await {
            Answer::Accepted => Verdict::Delivered,
            Answer::Refused(status) => Verdict::Refused(format!("the sink answered {}", status.as_u16())),
            Answer::Turned(status, headers) => Verdict::Failed {
                error: format!("the sink answered {}", status.as_u16()),
                after: retry_after(&headers, self.clock.now()),
            },
            Answer::None(error) => Verdict::Failed { error, after: None },
        }
    }
}

fn in_posthogs_form(event: &Leased) -> Option<Value> {
    let Alias { distinct_id, alias } = serde_json::from_str(&event.body).ok()?;
    Some(json!({
        "event": "$create_alias",
        // The same at every attempt: a sink that looks at it counts the event once.
        "uuid": event.id.as_str(),
        "timestamp": rfc3339(event.created_at),
        "distinct_id": distinct_id,
        // The sink would take our address for the person's place.
        "properties": { "distinct_id": distinct_id, "alias": alias, "$geoip_disable": true },
    }))
}

fn rfc3339(at: Timestamp) -> String {
    // Bounded by the year 9999, which is all that the format can show.
    let at = Duration::from_millis(at.0).min(Duration::from_secs(253_402_300_799));
    humantime::format_rfc3339_millis(UNIX_EPOCH + at).to_string()
}
