//! JSON objects read without leniency: what comes from outside must mean the same to every reader.
//!
//! Refuses a key that occurs twice in any object at any depth (serde keeps the last one, other
//! readers the first), anything after the value, nesting of more than 127 levels (the parser's own
//! bound), and a top level that is not an object (serde's derived structs would accept an array in
//! field order).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

struct Strict(Value);

struct StrictVisitor;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(StrictVisitor).map(Self)
    }
}

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON without duplicate keys")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = input.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Strict(value))) = input.next_entry::<String, Strict>()? {
            if object.insert(key, value).is_some() {
                return Err(A::Error::custom("duplicate key"));
            }
        }
        Ok(Value::Object(object))
    }
}

/// Returns the one JSON object in `bytes`, or `None` if there is anything else.
///
/// The parser's message is dropped, because it may quote the bytes, and they may be secret.
pub fn parse_object(bytes: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(bytes) {
        Ok(Strict(Value::Object(object))) => Some(object),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_reads_as_serde_json_reads_it() {
        let text = r#" {"a":[1,-2,3.5,true,null,"x"],"b":{"c":{}},"\u0064":"\n"} "#;
        assert_eq!(parse_object(text.as_bytes()), serde_json::from_str(text).unwrap());
        assert!(parse_object(text.as_bytes()).unwrap().contains_key("d"));
    }

    #[test]
    fn what_two_readers_could_disagree_about_is_refused() {
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"o":{"id":"x","id":"y"}}"#,
            r#"{"o":[{"id":"x","id":"y"}]}"#,
            r#"{"data":{"a":1,"a":2}}"#,
            r#"{"a":1} {"#,
            r#"{"a":1}{"a":1}"#,
            r#"{"a":1e400}"#,
            r#"["RS256"]"#,
            r#""{}""#,
            "null",
            "",
            "{",
            "{a:1}",
            "\u{feff}{}",
        ] {
            assert_eq!(parse_object(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(parse_object(b"{\"a\":\"\xff\"}"), None);
        for (depth, fits) in [(127, true), (128, false), (4000, false)] {
            let text = format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
            assert_eq!(parse_object(text.as_bytes()).is_some(), fits, "{depth}");
        }
    }
}
