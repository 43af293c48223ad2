//! Answering for other proxies, and having no application.

use super::{CLERK, assert_each_has_one_problem, only_problem, overlay};

#[test]
fn rules_about_forward_auth_and_a_missing_application() {
    assert_each_has_one_problem(&[
        ("forward_auth: { enabled: true }", "forward_auth.enabled: true answers only trusted_proxies, which is empty"),
        (
            "forward_auth: { grpc: '0.0.0.0:9001' }",
            r#"forward_auth.grpc: "0.0.0.0:9001" answers only trusted_proxies, which is empty"#,
        ),
        ("forward_auth: { grpc: nowhere }", r#"forward_auth.grpc: "nowhere" is not an address"#),
        (
            "forward_auth: { grpc: '127.0.0.1:8080' }\ntrusted_proxies: ['10.0.0.0/8']",
            r#"forward_auth.grpc: "127.0.0.1:8080" must have another address than listen"#,
        ),
        (
            "forward_auth: { grpc: '127.0.0.1:9090' }\ntrusted_proxies: ['10.0.0.0/8']",
            r#"forward_auth.grpc: "127.0.0.1:9090" must have another address than admin.listen"#,
        ),
        (
            "forward_auth: { grpc: 'unix:/run/a.sock' }\nlisten: unix:/run/a.sock",
            r#"forward_auth.grpc: "unix:/run/a.sock" must have another address than listen"#,
        ),
        (
            "forward_auth: { enabled: false, path: /x }",
            "forward_auth.path: is not a known key; known here: enabled, grpc",
        ),
        (
            "upstream: { url: null }\nbootstrap: { profile: { source: http, http: { path: /profile } } }",
            r#"bootstrap.profile.source: "http" asks the application, and upstream.url is null"#,
        ),
        (
            "upstream: { url: null }\nrebind: { backend: http, hook: { url: /rebind, secret: KEY } }",
            r#"rebind.hook.url: "/rebind" is a path at the upstream, and upstream.url is null"#,
        ),
        (
            "upstream: { url: null, server_name: app }",
            r#"upstream.server_name: "app" needs an upstream.url that begins with https"#,
        ),
    ]);
    assert!(only_problem("upstream: { url: 5 }").starts_with("upstream.url: "));
}

#[test]
fn a_unix_socket_needs_no_trusted_proxies_and_a_free_port_collides_with_none() {
    for text in [
        "forward_auth: { grpc: 'unix:/run/authz.sock' }",
        "forward_auth: { grpc: '127.0.0.1:0' }\nlisten: 127.0.0.1:0\ntrusted_proxies: ['127.0.0.1/32']",
    ] {
        let config = overlay(text).loaded().config;
        assert!(config.forward_auth.is_on() && !config.forward_auth.enabled, "{text}");
    }
    assert!(!overlay("").loaded().config.forward_auth.is_on());
    assert_eq!(overlay("upstream: { url: null }").loaded().config.upstream.url, None);
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let on = "forward_auth: { enabled: true }\ntrusted_proxies";
    for (text, expected) in [
        (format!("{on}: ['10.0.0.0/8', 'fd00::/16']"), vec![]),
        (format!("{on}: ['10.0.0.0/8', '128.0.0.0/1']"), vec!["trusted_proxies[1]"]),
        (format!("{on}: ['2000::/3']"), vec!["trusted_proxies[0]"]),
        (
            format!("{on}: ['10.0.0.0/8']\nroutes: [{{ path: /events, auth: required, stream: true }}]"),
            vec!["routes[0].stream"],
        ),
        (format!("{on}: ['10.0.0.0/8']\nupstream: {{ url: null }}"), vec![]),
        ("upstream: { url: null }".to_owned(), vec!["upstream.url"]),
        ("routes: [{ path: '/_doorward/verify/x', auth: none }]".to_owned(), vec!["routes[0].path"]),
        ("routes: [{ path: '/_doorwardx', auth: none }]".to_owned(), vec![]),
    ] {
        let loaded = overlay(&format!("clerk: {CLERK}\n{text}")).loaded();
        let keys: Vec<String> = loaded.warnings.iter().map(|warning| warning.key.to_string()).collect();
        assert_eq!(keys, expected, "{text}");
    }
}
