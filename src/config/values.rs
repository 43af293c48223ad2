//! How single values are written.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::read::{FromTree, Notes, TreePlace};
use crate::model::{Dialect, Role, TenantId};
use crate::secret::Secret;

impl FromTree for bool {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        place.value(notes, |value| value.as_bool().ok_or_else(|| "must be true or false".to_owned()), || false)
    }
}

impl FromTree for u8 {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        whole(place, notes, "a whole number from 0 to 255")
    }
}

impl FromTree for u32 {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        whole(place, notes, "a whole number from 0 to 4294967295")
    }
}

impl FromTree for u64 {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        whole(place, notes, "a whole number, 0 or more")
    }
}

impl FromTree for usize {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        whole(place, notes, "a whole number, 0 or more")
    }
}

impl FromTree for f64 {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        place.value(notes, |value| value.as_f64().ok_or_else(|| "must be a number".to_owned()), || 0.0)
    }
}

impl FromTree for String {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        place.text(notes, |text| Ok(text.to_owned()), Self::new)
    }
}

impl FromTree for PathBuf {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        place.text(notes, |text| Ok(text.into()), Self::new)
    }
}

/// As people write it: `30m`, `500ms`, `1h 30m`.
impl FromTree for Duration {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        let expected = "is not a duration; write e.g. \"30m\" or \"500ms\"";
        place.text(notes, |text| humantime::parse_duration(text).map_err(|_| expected.to_owned()), || Self::ZERO)
    }
}

impl FromTree for SocketAddr {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        let expected = "is not an address; write e.g. \"0.0.0.0:9090\"";
        let stand_in = || Self::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        place.text(notes, |text| text.parse().map_err(|_| expected.to_owned()), stand_in)
    }
}

impl FromTree for IpNet {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        let expected = "is not a network; write e.g. \"10.0.0.0/8\" or \"10.1.2.3/32\"";
        let stand_in = || Self::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
        place.text(notes, |text| text.parse().map_err(|_| expected.to_owned()), stand_in)
    }
}

impl FromTree for TenantId {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        place.parsed(notes, || "default".parse().expect("it is visible ASCII"))
    }
}

impl FromTree for Role {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        place.parsed(notes, || "stand-in".parse().expect("it is visible ASCII"))
    }
}

impl FromTree for Dialect {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        place.one_of(notes, &Self::ALL.map(|dialect| (dialect.as_str(), dialect)), Self::Detail)
    }
}

impl FromTree for Map<String, Value> {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        place.value(notes, |value| value.as_object().cloned().ok_or_else(|| "must be a map".to_owned()), Self::new)
    }
}

/// Text, or `{file: path}`; the file's last line break is not part of it.
impl FromTree for Secret {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        place.is_secret(notes);
        place.value(notes, secret, || Self::new("stands in for a secret of at least 32 bytes".to_owned()))
    }
}

/// Returns the secret that `written` is or names the file of, or what is expected instead.
pub(super) fn secret(written: &Value) -> Result<Secret, String> {
    let text = match (written, file_named_by(written)) {
        (Value::String(text), _) => text.clone(),
        (_, Some(file)) => std::fs::read_to_string(file)
            .map_err(|error| format!("cannot read {file}: {error}"))?
            .trim_end_matches(['\r', '\n'])
            .to_owned(),
        (_, None) => return Err("is not a secret; write text or {file: /path}".to_owned()),
    };
    if text.is_empty() { Err("is empty".to_owned()) } else { Ok(Secret::new(text)) }
}

/// Returns the file that `{file: …}` names.
pub(super) fn file_named_by(value: &Value) -> Option<&str> {
    let map = value.as_object().filter(|map| map.len() == 1)?;
    map.get("file").and_then(Value::as_str)
}

fn whole<T: TryFrom<u64> + Default>(place: TreePlace<'_>, notes: &mut Notes, expected: &str) -> T {
    let parse = |value: &Value| {
        let number = value.as_u64().and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("must be {expected}"))
    };
    place.value(notes, parse, T::default)
}
