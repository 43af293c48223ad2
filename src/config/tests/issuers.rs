//! What issuers are called, and what they may name.

use super::{CLERK, assert_each_has_one_problem, overlay};

/// An issuer whose users have local ids, alone.
const LOCAL: &str = "\nissuers: { x: { issuer: 'https://p', jwks_url: 'https://p/j' } }";

/// Returns an issuer called `name`, with `more` keys, beside Clerk.
fn beside_clerk(name: &str, more: &str) -> String {
    format!("clerk: {CLERK}\nissuers: {{ {name}: {{ issuer: 'https://p', jwks_url: 'https://p/j'{more} }} }}")
}

/// Returns an issuer called `x`, with `more` keys, beside Clerk.
fn with(more: &str) -> String {
    beside_clerk("x", more)
}

/// Returns a Clerk instance with `more` keys.
fn clerk_with(more: &str) -> String {
    format!("clerk: {{ issuer: 'https://c', jwks_url: 'https://c/j', {more} }}")
}

/// Returns two issuers without Clerk: `x`, whose users are called by `sub`, and `y` with `more` keys.
fn second(more: &str) -> String {
    let first = "x: { issuer: 'https://p', jwks_url: 'https://p/j', user_id: subject, subject_prefix: x_ }";
    format!("issuers:\n  {first}\n  y: {{ issuer: 'https://y', jwks_url: 'https://y/j'{more} }}")
}

fn assert_problems(table: &[(String, &str)]) {
    let table: Vec<(&str, &str)> = table.iter().map(|(text, expected)| (text.as_str(), *expected)).collect();
    assert_each_has_one_problem(&table);
}

#[test]
fn rules_about_names() {
    assert_problems(&[
        (
            beside_clerk("Partner", ""),
            r#"issuers.Partner: the name must be 1 to 32 of a-z, 0-9 and "-", and begin with a letter"#,
        ),
        (beside_clerk("'a:b'", ""), "issuers.a:b: the name must be"),
        (beside_clerk("a_b", ""), "issuers.a_b: the name must be"),
        (beside_clerk("clerk", ""), "issuers.clerk: the name is taken; choose another"),
        (beside_clerk("org", ""), "issuers.org: the name is taken"),
        (beside_clerk("device", ""), "issuers.device: the name is taken"),
        (with(", tenant: ''"), "issuers.x.tenant: \"\" must be 1 to 256 visible ASCII characters"),
        (with(", organizations: { org_1: 'a b' }"), r#"issuers.x.organizations.org_1: "a b" must be 1 to 256"#),
        (
            with(", roles: { 'org:a': 'org:b,org:admin' }"),
            r#"issuers.x.roles.org:a: "org:b,org:admin" must be 1 to 260 visible"#,
        ),
        (
            with(", roles: { 'org:a': '' }"),
            r#"issuers.x.roles.org:a: "" must be 1 to 260 visible ASCII characters without a comma"#,
        ),
        (with(", user_id: email"), r#"issuers.x.user_id: "email" must be"#),
        (
            with(", same_as: y"),
            r#"issuers.x.same_as: "y" must be clerk, or another entry of issuers that has no same_as"#,
        ),
        (with(", same_as: x"), r#"issuers.x.same_as: "x" must be clerk"#),
        (with(", same_as: clerk, tenant: acme"), r#"issuers.x.tenant: "acme" does nothing beside same_as"#),
        (
            format!("{}\ntenants: {{ default: x }}", with("")),
            r#"tenants.default: "x" is a tenant of issuers.x: choose another, or say issuers.x.tenant: x"#,
        ),
        (format!("{}\ntenants: {{ default: 'x:a' }}", with("")), r#"tenants.default: "x:a" is a tenant of issuers.x"#),
        (clerk_with("user_id: subject"), r#"clerk.user_id: "subject" is for issuers: the section clerk names users"#),
        (clerk_with("tenant: acme"), r#"clerk.tenant: "acme" is for issuers"#),
        (clerk_with("same_as: x"), r#"clerk.same_as: "x" is for issuers"#),
    ]);
}

#[test]
fn no_two_providers_may_call_their_users_the_same() {
    assert_problems(&[
        (with(", user_id: subject"), "issuers.x.subject_prefix: lets it call its users what clerk calls others"),
        (
            with(", user_id: subject, subject_prefix: ''"),
            r#"issuers.x.subject_prefix: "" lets it call its users what clerk"#,
        ),
        (
            with(", user_id: subject, subject_prefix: user_p_"),
            r#"issuers.x.subject_prefix: "user_p_" lets it call its users what clerk calls others"#,
        ),
        (
            second(", user_id: subject, subject_prefix: x_y"),
            r#"issuers.y.subject_prefix: "x_y" lets it call its users what issuers.x"#,
        ),
        (
            clerk_with("subject_prefix: ''") + LOCAL,
            r#"clerk.subject_prefix: "" lets it call its users what the directory calls those of issuers.x"#,
        ),
        (
            clerk_with("subject_prefix: '0'") + LOCAL,
            r#"clerk.subject_prefix: "0" lets it call its users what the directory"#,
        ),
    ]);
}

#[test]
fn what_is_said_by_name_is_accepted() {
    for good in [
        with(", same_as: clerk"),
        with(", user_id: subject, subject_prefix: x_"),
        with(", user_id: local, subject_prefix: ''"),
        with(", tenant: default, organizations: { org_1: org_2 }, roles: { 'org:a': 'org:b' }"),
        second(""),
        second(", same_as: x"),
        format!("{}\ntenants: {{ default: x }}", with(", tenant: x")),
        format!("{}\ntenants: {{ default: x }}", with(", same_as: clerk")),
        clerk_with("subject_prefix: ''"),
        clerk_with("subject_prefix: ''") + &LOCAL.replace(" } }", ", same_as: clerk } }"),
    ] {
        overlay(&good).loaded();
    }
}
