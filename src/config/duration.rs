//! Durations as people write them: `30m`, `500ms`, `1h 30m`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

/// Reads a duration; for `#[serde(deserialize_with)]`.
pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(input)?;
    humantime::parse_duration(&text).map_err(|_| D::Error::custom("is not a duration; write e.g. \"30m\" or \"500ms\""))
}
