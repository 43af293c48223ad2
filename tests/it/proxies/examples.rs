//! The shipped files as they are: their own programs accept them.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::front::{example, read, write};
use super::{caddy, envoy, nginx};
use crate::support::temp::TempDir;

#[test]
fn nginx_accepts_its_example() {
    let directory = TempDir::new("nginx");
    let main = write(directory.path(), "nginx.conf", &nginx::around(directory.path(), &example("nginx/doorward.conf")));
    accepted(nginx::nginx(directory.path(), &main).arg("-t"));
}

#[test]
fn caddy_accepts_its_example() {
    let directory = TempDir::new("caddy");
    accepted(&mut caddy::caddy("validate", directory.path(), &example("caddy/Caddyfile")));
}

#[test]
fn haproxy_accepts_its_example() {
    accepted(Command::new("haproxy").arg("-c").arg("-f").arg(example("haproxy/haproxy.cfg")));
}

#[test]
fn envoy_accepts_its_examples() {
    for file in ["envoy-http/envoy.yaml", "envoy-grpc/envoy.yaml"] {
        accepted(Command::new(envoy::program()).args(["--mode", "validate", "-c"]).arg(example(file)));
    }
}

#[test]
fn manifests_fail_closed_and_replace_every_identity_header() {
    let identity = ["X-User-ID", "X-Client-ID", "X-Session-ID", "X-User-Roles", "X-User-Kind", "X-Actor-ID"];
    let lower = identity.map(str::to_lowercase);
    let address = "http://127.0.0.1:8080/_doorward/verify";
    let annotation = "/metadata/annotations/nginx.ingress.kubernetes.io~1";
    for (file, document, pointer, expected) in [
        ("traefik/dynamic.yaml", 0, "/http/middlewares/doorward/forwardAuth/address", json!(address)),
        ("traefik/dynamic.yaml", 0, "/http/middlewares/doorward/forwardAuth/trustForwardHeader", json!(false)),
        ("traefik/dynamic.yaml", 0, "/http/middlewares/doorward/forwardAuth/authResponseHeaders", json!(identity)),
        (
            "traefik/dynamic.yaml",
            0,
            "/http/routers/application/middlewares",
            json!(["hearsay", "no-upgrade", "doorward", "token"]),
        ),
        (
            "traefik/dynamic.yaml",
            0,
            "/http/routers/web-socket/middlewares",
            json!(["hearsay", "web-socket", "doorward", "token"]),
        ),
        ("traefik/dynamic.yaml", 0, "/http/middlewares/no-upgrade/headers/customRequestHeaders/Upgrade", json!("")),
        (
            "traefik/dynamic.yaml",
            0,
            "/http/middlewares/web-socket/headers/customRequestHeaders/Upgrade",
            json!("websocket"),
        ),
        ("ingress-nginx/ingress.yaml", 0, "/data/X-Original-URI", json!("$request_uri")),
        ("ingress-nginx/ingress.yaml", 1, &format!("{annotation}auth-response-headers"), json!(identity.join(","))),
        ("gateway-api/httproute-grpc.yaml", 0, "/spec/rules/1/filters/0/type", json!("ExternalAuth")),
        ("gateway-api/httproute-grpc.yaml", 0, "/spec/rules/1/filters/0/externalAuth/protocol", json!("GRPC")),
        ("gateway-api/httproute-http.yaml", 0, "/spec/rules/1/filters/0/type", json!("ExternalAuth")),
        (
            "gateway-api/httproute-http.yaml",
            0,
            "/spec/rules/1/filters/0/externalAuth/http/allowedResponseHeaders",
            json!(identity),
        ),
        ("envoy-gateway/securitypolicy-grpc.yaml", 0, "/spec/extAuth/failOpen", json!(false)),
        ("envoy-gateway/securitypolicy-http.yaml", 0, "/spec/extAuth/failOpen", json!(false)),
        ("envoy-gateway/securitypolicy-http.yaml", 0, "/spec/extAuth/http/path", json!("/_doorward/verify")),
        ("envoy-gateway/securitypolicy-http.yaml", 0, "/spec/extAuth/http/headersToBackend", json!(lower)),
        ("envoy-gateway/routes.yaml", 2, "/spec/headers/withUnderscoresAction", json!("DropHeader")),
        ("istio/mesh.yaml", 0, "/extensionProviders/0/envoyExtAuthzGrpc/failOpen", json!(false)),
        ("istio/policy.yaml", 0, "/spec/action", json!("CUSTOM")),
        ("istio/policy.yaml", 0, "/spec/provider/name", json!("doorward-grpc")),
        (
            "istio/policy.yaml",
            0,
            "/spec/rules/1/to/0/operation",
            json!({ "notHosts": ["app.example.com", "app.example.com:*"] }),
        ),
    ] {
        let documents = documents(file);
        assert_eq!(documents[document].pointer(pointer), Some(&expected), "{file} {pointer}");
    }
}

#[test]
fn every_manifest_sends_doorwards_own_paths_to_doorward() {
    for file in [
        "traefik/dynamic.yaml",
        "ingress-nginx/ingress.yaml",
        "gateway-api/httproute-grpc.yaml",
        "gateway-api/httproute-http.yaml",
        "envoy-gateway/routes.yaml",
        "istio/policy.yaml",
    ] {
        let text: String = documents(file).iter().map(Value::to_string).collect();
        assert!(text.contains("/auth") && text.contains("/webhooks/clerk"), "{file}");
    }
    // Proved through the real one; the others must not fall behind.
    let own = documents("envoy-http/envoy.yaml");
    let filter = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0";
    let spelling =
        format!("{filter}/typed_config/mutations/request_mutations/0/remove_on_match/key_matcher/safe_regex/regex");
    let spelling = own[0].pointer(&spelling).and_then(Value::as_str).expect("it removes spellings");
    for file in ["traefik/dynamic.yaml", "envoy-gateway/routes.yaml", "envoy-grpc/envoy.yaml"] {
        assert!(read(file).contains(spelling), "{file}");
    }
}

fn documents(file: &str) -> Vec<Value> {
    let text = read(file);
    let parse = |text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{file}: {error}"));
    text.split("\n---\n").map(parse).collect()
}

fn accepted(command: &mut Command) {
    let output = command.current_dir(Path::new("/")).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
}
