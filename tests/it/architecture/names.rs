//! One word, one meaning: what types are called, and words that the vocabulary has replaced.

use std::collections::BTreeMap;

use super::{production_code, read, sources};

/// Type names that stand in several files, and why.
const SHARED_TYPE_NAMES: &[(&str, &str)] = &[];

/// Words that the vocabulary has replaced, as whole words in code and comments, whatever their case.
const REPLACED_WORDS: &[(&str, &str)] = &[
    ("lent", "shared"),
    ("lender", "H2Owner"),
    ("loan", "shared stream"),
    ("take_back", "into_stream"),
    ("shelf", "shard"),
    ("shelves", "shards"),
    ("last words", "pending refusal"),
    ("last_words", "pending_refusal"),
    ("leave_last_words", "set_pending_refusal"),
    ("tally", "metric handles"),
    ("tallies", "metric handles"),
    ("heads", "transform, or `each head`"),
    ("short way", "fast path"),
    ("hearing", "subscriber"),
    ("ears", "subscription"),
    ("standing", "login status"),
    ("hears_of_ends", "checks_ended_logins"),
    ("dice", "sample_value"),
    ("hearsay", "unverified"),
    ("asker", "Peer"),
    ("doorkeeper", "PeerFilter"),
    ("misspelt", "non-canonical"),
    ("sidedoor", "UpstreamExposure"),
    ("side door", "exposure of the upstream"),
    ("see_to", "process"),
    ("see_guest", "record_guest_sign_in"),
    ("bury", "dead_letter"),
    ("woken", "wakers"),
    ("surroundings", "environment"),
    ("untold", "SignalError"),
    ("takes down", "records"),
    ("took down", "recorded"),
];

/// Pronouns that leave open who it is: name the caller, the peer, the operator or the replica.
const PRONOUNS: [&str; 6] = ["whoever", "whatever", "nobody", "somebody", "anybody", "whom"];

/// Words of the two lists above that stand in rooms which are still to be cleared of them.
const STILL_THERE: &[(&str, &[&str])] = &[];

#[test]
fn a_type_name_stands_for_one_type() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in sources() {
        for name in type_names(&production_code(&file)) {
            places.entry(name).or_default().push(file.display().to_string());
        }
    }
    let twice: BTreeMap<_, _> = places.into_iter().filter(|(_, files)| files.len() > 1).collect();
    let listed: Vec<&str> = SHARED_TYPE_NAMES.iter().map(|(name, _)| *name).collect();
    let found: Vec<&str> = twice.keys().map(String::as_str).collect();
    assert_eq!(found, listed, "{twice:#?}");
}

#[test]
fn replaced_words_do_not_come_back() {
    let replaced = REPLACED_WORDS.iter().map(|(word, _)| *word);
    let mut found = Vec::new();
    for file in sources() {
        let text = read(&file).to_lowercase();
        for word in replaced.clone().chain(PRONOUNS).filter(|word| has_word(&text, word)) {
            let rooms = STILL_THERE.iter().find(|(still, _)| *still == word).map_or(&[] as &[&str], |(_, rooms)| rooms);
            if !rooms.iter().any(|room| file.starts_with(room)) {
                found.push(format!("{}: {word}", file.display()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn names_and_words_are_found_where_they_stand() {
    let code = "pub(super) struct One<'a>(&'a str);\nenum Two {\n    Three,\n}\n    struct Inner;\npub unsafe trait Four {}\n// struct Five;\ntype Six = u8;\nconst fn struct_like() {}\n";
    assert_eq!(type_names(code), ["One", "Two", "Four", "Six"]);
    assert!(has_word("it is lent.", "lent") && has_word("fn lent(", "lent") && has_word("a side door", "side door"));
    assert!(!has_word("silently excellent lentil", "lent") && !has_word("was_lent", "lent"));
}

/// Returns the types that a file defines at its top level.
fn type_names(code: &str) -> Vec<String> {
    let defined = |line: &str| {
        let mut words = line.split([' ', '<', '(', '{', ';', ':', '=']).filter(|word| !word.is_empty());
        let line_is_item = line.starts_with(|first: char| first.is_ascii_lowercase());
        let keyword = words
            .by_ref()
            .find(|word| !["pub", "super)", "crate)", "in", "unsafe"].contains(word) && !word.ends_with(')'))?;
        let is_type = line_is_item && ["struct", "enum", "trait", "type", "union"].contains(&keyword);
        is_type.then(|| words.next().map(str::to_owned)).flatten()
    };
    code.lines().filter_map(defined).collect()
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |next: char| next.is_alphanumeric() || next == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}
