//! Rules about rebinding.

use super::overlay;

fn wrong(yaml: &str) -> Vec<String> {
    let problems = overlay(yaml).problems();
    problems.iter().map(|line| line.split(" (from").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_backend_needs_what_it_works_with() {
    assert_eq!(wrong("rebind: { backend: sql }"), ["rebind.tables: [] is empty: backend sql has nothing to re-own"]);
    assert_eq!(wrong("rebind: { backend: http }"), ["rebind.hook.url: is missing: backend http asks it"]);
    let unguarded = wrong("rebind: { backend: http, hook: { url: /internal/rebind } }");
    assert_eq!(unguarded.len(), 1);
    assert!(unguarded[0].starts_with("rebind.hook.secret: is missing: callers can reach"), "{unguarded:?}");
    overlay("rebind: { backend: http, hook: { url: /internal/rebind, secret: s3cret } }").loaded();
    overlay("rebind: { backend: http, hook: { url: 'http://127.0.0.1:3001/rebind?v=1' } }").loaded();
}

#[test]
fn tables_are_named_as_the_database_names_them() {
    let tables = |list: &str| wrong(&format!("rebind: {{ backend: sql, tables: [{list}] }}"));
    let postgres = |list: &str| {
        wrong(&format!("directory: {{ url: 'postgres://h/d' }}\nrebind: {{ backend: sql, tables: [{list}] }}"))
    };
    let one = "{ table: notes, column: owner }";
    overlay(&format!("rebind: {{ backend: sql, tables: [{one}, {{ table: main.files, column: o }}] }}")).loaded();
    assert_eq!(postgres(one), [r#"rebind.tables[0].table: "notes" needs its schema, e.g. "public.projects""#]);
    assert_eq!(
        tables("{ table: app.notes, column: owner }"),
        [r#"rebind.tables[0].table: "app.notes" must be in the schema main, or name none"#]
    );
    assert_eq!(
        postgres("{ table: public.doorward_users, column: id }"),
        [r#"rebind.tables[0].table: "public.doorward_users" is Doorward's own"#]
    );
    assert_eq!(
        tables("{ table: notes, column: a, tenant_column: a }, { table: notes, column: a }"),
        [
            r#"rebind.tables[0].tenant_column: "a" must be another column than column"#,
            "rebind.tables[1]: names the table and column of an earlier one",
        ]
    );
    assert_eq!(tables("{ table: notes, column: '' }"), [r#"rebind.tables[0].column: "" is empty"#]);
    assert!(tables("{ table: 'notes', column: a, on_conflict: keep }")[0].contains("on_conflict"));
    assert!(tables("{ table: .notes, column: a }")[0].contains("is not a table"));
}

#[test]
fn a_hook_is_a_path_or_a_url_and_its_secret_a_header() {
    for url in ["internal/rebind", "//host/rebind", "ftp://host/rebind", "http://", "http://user:pw@host/", "/a b"] {
        let found = wrong(&format!("rebind: {{ hook: {{ url: '{url}' }} }}"));
        assert!(found.len() == 1 && found[0].starts_with("rebind.hook.url"), "{url}: {found:?}");
    }
    let secret = wrong("rebind: { hook: { url: /a, secret: 'two words' } }");
    assert_eq!(secret, ["rebind.hook.secret: \"[redacted]\" must be visible ASCII characters without spaces"]);
    let shown = overlay("rebind: { hook: { secret: hunter2 } }").loaded().effective;
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn the_answers_keys_are_told_apart() {
    assert_eq!(wrong("rebind: { fields: { rows_updated: n, anonymous_id: n } }").len(), 1);
    assert_eq!(wrong("rebind: { fields: { rows_updated: rebound } }").len(), 1);
    assert_eq!(wrong("rebind: { fields: { anonymous_id: '' } }").len(), 1);
}
