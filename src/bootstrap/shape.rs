//! Fills sections with their defaults, and keeps the keys consistent that two sections share.

use serde_json::{Map, Value};

use super::call::Document;

/// The prefix of keys that the profile and the subscription share.
const MIRRORED: &str = "credits_";

/// Inserts `defaults` for the keys that a document lacks, at every depth.
pub(super) fn fill_in(document: Option<&mut Document>, defaults: &Map<String, Value>) {
    let Some(document) = document else { return };
    for (key, default) in defaults {
        match (document.get_mut(key), default) {
            (None, _) => {
                document.insert(key.clone(), default.clone());
            }
            (Some(Value::Object(inner)), Value::Object(defaults)) => fill_in(Some(inner), defaults),
            (Some(_), _) => {}
        }
    }
}

/// Copies shared keys that only the subscription has into the profile, before defaults apply.
pub(super) fn agree_on_credits(profile: Option<&mut Document>, subscription: Option<&mut Document>) {
    let (Some(profile), Some(subscription)) = (profile, subscription) else { return };
    for (key, value) in subscription.iter().filter(|(key, _)| key.starts_with(MIRRORED)) {
        profile.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

/// Overwrites the subscription's credits with the profile's (contracts §5.5).
pub(super) fn mirror_credits(profile: Option<&Document>, subscription: Option<&mut Document>) {
    let (Some(profile), Some(subscription)) = (profile, subscription) else { return };
    let credits = profile.iter().filter(|(key, _)| key.starts_with(MIRRORED));
    subscription.extend(credits.map(|(key, value)| (key.clone(), value.clone())));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(value: Value) -> Document {
        let Value::Object(document) = value else { panic!("{value} is no object") };
        document
    }

    #[test]
    fn defaults_stand_in_for_missing_keys_and_for_nothing_else() {
        let mut profile = document(json!({ "plan": "pro", "name": null, "usage": { "tokens_in": 7 }, "list": [1] }));
        let defaults = json!({ "plan": "free", "name": "unnamed", "usage": { "tokens_in": 0, "api_calls": 0 }, "list": {}, "new": 1 });
        fill_in(Some(&mut profile), &document(defaults));
        let expected =
            json!({ "plan": "pro", "name": null, "usage": { "tokens_in": 7, "api_calls": 0 }, "list": [1], "new": 1 });
        assert_eq!(Value::Object(profile), expected);
        fill_in(None, &document(json!({ "plan": "free" })));
    }

    #[test]
    fn the_profile_wins_about_credits() {
        let mut subscription = document(json!({ "plan": "free", "credits_used": 9, "credits_total": 9 }));
        let mut profile = document(json!({ "credits_used": 3 }));
        agree_on_credits(Some(&mut profile), Some(&mut subscription));
        mirror_credits(Some(&profile), Some(&mut subscription));
        assert_eq!(Value::Object(profile.clone()), json!({ "credits_used": 3, "credits_total": 9 }));
        assert_eq!(Value::Object(subscription), json!({ "plan": "free", "credits_used": 3, "credits_total": 9 }));
        mirror_credits(Some(&profile), None);
        agree_on_credits(None, None);
    }
}
