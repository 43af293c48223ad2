//! One word, one meaning: what types are called, and words that the vocabulary has replaced.

use std::collections::BTreeMap;

use super::{production_code, read, sources};

/// Type names that stand in several files, and why.
const SHARED_TYPE_NAMES: &[(&str, &str)] = &[
    ("Admin", "a section of the configuration is called what it configures"),
    ("Directory", "a section of the configuration is called what it configures"),
    ("Limits", "a section of the configuration is called what it configures"),
    ("Problem", "what a caller is told, and what is wrong with a configuration"),
    ("Sessions", "a section of the configuration is called what it configures"),
];

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
    ("surroundings", "environment"),
    ("untold", "SignalError"),
    ("takes down", "records"),
    ("took down", "recorded"),
];

/// Pronouns that leave open who it is: name the caller, the peer, the operator or the replica.
const PRONOUNS: [&str; 6] = ["whoever", "whatever", "nobody", "somebody", "anybody", "whom"];

/// Names of types that the vocabulary has replaced, and what to say instead.
const REPLACED_TYPES: &[(&str, &str)] = &[
    ("Held", "Watched"),
    ("Checker", "ExtAuthzService"),
    ("Came", "RequestMeta"),
    ("Ending", "Completion"),
    ("Names", "IdSequence"),
    ("Place", "SpanContext"),
    ("Woken", "Wakers"),
    ("Person", "UserProfile"),
    ("SideDoor", "UpstreamExposure"),
    ("Surroundings", "Environment"),
];

#[test]
fn a_type_name_stands_for_one_type() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in sources() {
        for name in type_names(&production_code(&file)) {
            places.entry(name).or_default().push(file.display().to_string());
        }
    }
    places.retain(|_, files| files.len() > 1);
    let is_listed = |name: &String| SHARED_TYPE_NAMES.iter().any(|(listed, _)| listed == name);
    let gone: Vec<_> = SHARED_TYPE_NAMES.iter().filter(|(name, _)| !places.contains_key(*name)).collect();
    places.retain(|name, _| !is_listed(name));
    assert!(places.is_empty(), "{places:#?}");
    assert!(gone.is_empty(), "to be taken off the list: {gone:#?}");
}

#[test]
fn replaced_words_do_not_come_back() {
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for file in sources() {
        let text = read(&file);
        let lower = text.to_lowercase();
        let words = REPLACED_WORDS.iter().map(|(word, _)| *word).filter(|word| has_word(&lower, word));
        let defined = type_names(&text);
        let types =
            REPLACED_TYPES.iter().map(|(name, _)| *name).filter(|name| defined.iter().any(|type_| type_ == name));
        for word in words.chain(types) {
            found.entry(word).or_default().push(file.display().to_string());
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn comments_name_who_it_is() {
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for file in sources() {
        let text = read(&file).to_lowercase();
        for pronoun in PRONOUNS.into_iter().filter(|pronoun| has_word(&text, pronoun)) {
            found.entry(pronoun).or_default().push(file.display().to_string());
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

/// Returns where a word stands outside of the rooms that may still have it.
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
