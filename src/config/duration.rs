//! Durations as people write them: `30m`, `500ms`, `1h 30m`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

/// Reads a duration; for `#[serde(deserialize_with)]`.
pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(input)?;
    humantime::parse_duration(&text).map_err(|_| D::Error::custom("is not a duration; write e.g. \"30m\" or \"500ms\""))
}

/// As [`deserialize`], where it may be absent.
pub fn option<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    #[derive(Deserialize)]
    struct Wrapped(#[serde(deserialize_with = "deserialize")] Duration);
    Ok(Option::<Wrapped>::deserialize(input)?.map(|Wrapped(duration)| duration))
}
