//! What `doorward demo` runs beside Doorward: an identity provider, an application, and instructions.
//!
//! Both listen on loopback only and live as long as [`Demo`]. The provider signs a JWT for every
//! caller, with a key made at the start, so its issuer must never be configured anywhere else. Doorward
//! itself is not started here; [`Demo::config`] returns its configuration.

pub mod app;
pub mod idp;
pub mod run;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::secret::Secret;
use crate::time::Clock;
use idp::{DemoIdp, KeyError};

/// The provider and the application, serving until this is dropped.
#[derive(Debug)]
pub struct Demo {
    /// `http://127.0.0.1:port` of the identity provider: also the `iss` of its JWTs.
    pub idp_url: String,
    /// `http://127.0.0.1:port` of the application.
    pub app_url: String,
    /// What Doorward sends the application's rebind hook to prove itself.
    secret: Secret,
    /// A device that has never been seen.
    device: String,
    _tasks: JoinSet<()>,
}

/// Why the demo cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// No key for the provider.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No port for the provider or the application.
    #[error("cannot listen on 127.0.0.1")]
    Listen(#[from] io::Error),
}

/// Starts the identity provider and the application on free ports.
pub async fn start(clock: Arc<dyn Clock>) -> Result<Demo, DemoError> {
    let (idp_listener, idp_url) = listen().await?;
    let (app_listener, app_url) = listen().await?;
    let idp = DemoIdp::generate(idp_url.clone(), clock)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(idp_listener, idp::routes(idp)));
    let unguessable = || uuid::Uuid::new_v4().simple().to_string();
    let secret = Secret::new(unguessable());
    tasks.spawn(serve(app_listener, app::routes(secret.clone())));
    Ok(Demo { idp_url, app_url, secret, device: unguessable(), _tasks: tasks })
}

impl Demo {
    /// Returns the configuration that puts Doorward between the two, as YAML to lay over the
    /// defaults: listening on `proxy` and `admin`, with its sessions in `directory`.
    pub fn config(&self, proxy: SocketAddr, admin: SocketAddr, directory: &Path) -> String {
        // JSON is YAML, and its quoting leaves no doubt.
        json!({
            "listen": proxy.to_string(),
            "admin": { "listen": admin.to_string() },
            "upstream": { "url": self.app_url },
            "sessions": { "store": format!("sqlite://{}", directory.join("sessions.db").display()) },
            "directory": { "url": format!("sqlite://{}", directory.join("directory.db").display()) },
            "rebind": { "backend": "http", "hook": { "url": app::REBIND_PATH, "secret": self.secret.expose() } },
            "clerk": { "issuer": self.idp_url, "jwks_url": format!("{}{}", self.idp_url, idp::JWKS_PATH) },
        })
        .to_string()
    }

    /// Writes what to try, as lines to paste into a shell that has curl and sed, for a Doorward
    /// that listens on `proxy`.
    pub fn print_story(&self, proxy: SocketAddr, out: &mut dyn Write) -> io::Result<()> {
        let (idp, app, device) = (&self.idp_url, &self.app_url, &self.device);
        write!(
            out,
            r#"
Doorward listens on http://{proxy}, in front of an application ({app}) that keeps notes
and answers anything else with what it received. An identity provider ({idp}) signs
JWTs for anyone: this is a demo. Paste into another terminal:

1. Come as a guest, known by nothing but a device, and leave two notes with the application.

    DEVICE='{{"device_id":"{device}"}}'
    GUEST=$(curl -s -X POST -H 'Content-Type: application/json' -d "$DEVICE" http://{proxy}/auth/anonymous | sed 's/.*"token": *"\([^"]*\)".*/\1/')
    curl -s -X POST -H "Authorization: Bearer $GUEST" -d 'buy milk' http://{proxy}/notes
    curl -s -X POST -H "Authorization: Bearer $GUEST" -d 'call home' http://{proxy}/notes

2. Sign in: exchange a JWT of the provider for a session.

    JWT=$(curl -s -X POST '{idp}/token?user=alice')
    TOKEN=$(curl -s -X POST -H "Authorization: Bearer $JWT" http://{proxy}/auth/session | sed 's/.*"token": *"\([^"]*\)".*/\1/')

3. Rebind: the guest's notes are alice's now, and the guest is no more. Again, and nothing is left to do.

    curl -s -X POST -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d "$DEVICE" http://{proxy}/auth/rebind; echo
    curl -s -X POST -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d "$DEVICE" http://{proxy}/auth/rebind; echo
    curl -s -H "Authorization: Bearer $TOKEN" http://{proxy}/notes
    curl -s -w ' %{{http_code}}\n' -H "Authorization: Bearer $GUEST" http://{proxy}/notes

4. Fetch what a front end needs first: profile, subscription and masked secrets.

    curl -s -H "Authorization: Bearer $TOKEN" http://{proxy}/auth/bootstrap; echo

5. Call the application and claim to be mallory. It is told user_alice, and never sees the token.

    curl -s -H "Authorization: Bearer $TOKEN" -H 'X-User-ID: mallory' http://{proxy}/hello

6. Sign out. The same call is now answered 401.

    curl -s -X DELETE -H "Authorization: Bearer $TOKEN" http://{proxy}/auth/session; echo
    curl -s -w ' %{{http_code}}\n' -H "Authorization: Bearer $TOKEN" http://{proxy}/hello

Stop with Ctrl-C; nothing is kept.
"#
        )?;
        out.flush()
    }
}

async fn listen() -> io::Result<(TcpListener, String)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    Ok((listener, url))
}

async fn serve(listener: TcpListener, routes: Router) {
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "a part of the demo stopped");
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::Request;
    use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};
    use axum::response::{IntoResponse, Response};
    use axum::routing::post;
    use tower::ServiceExt;

    use super::*;
    use crate::time::SystemClock;

    const TOKEN: &str = "dw_token";
    const GUEST_TOKEN: &str = "dw_guest";

    /// The shell lines of the story, in order.
    fn commands(story: &str) -> String {
        story.lines().filter_map(|line| line.strip_prefix("    ")).collect::<Vec<_>>().join("\n")
    }

    fn bearer(headers: &HeaderMap) -> &str {
        let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default()
    }

    /// Answers as Doorward answers, so that the shell lines can be run without it.
    fn stand_in(secret: &Secret) -> Router {
        let signed_in = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let guest_is_here = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let order = std::sync::atomic::Ordering::SeqCst;
        let app = app::routes(secret.clone());
        let (start, end, check) = (Arc::clone(&signed_in), Arc::clone(&signed_in), signed_in);
        let start = async move |headers: HeaderMap| {
            assert_eq!(bearer(&headers).split('.').count(), 3, "a JWT");
            start.store(true, order);
            json!({ "token": TOKEN, "expires_in": 1800 }).to_string()
        };
        let end = async move |headers: HeaderMap| {
            assert_eq!(bearer(&headers), TOKEN);
            end.store(false, order);
            json!({ "revoked": true }).to_string()
        };
        let anonymous = async |body: String| {
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["device_id"].as_str().map(str::len), Some(32));
            json!({ "token": GUEST_TOKEN, "expires_in": 1800 }).to_string()
        };
        let (hook, still_here) = (app.clone(), Arc::clone(&guest_is_here));
        let authorization = format!("Bearer {}", secret.expose());
        let rebind = async move |headers: HeaderMap| {
            assert_eq!(bearer(&headers), TOKEN);
            if !still_here.swap(false, order) {
                return json!({ "rebound": false, "rows_updated": 0, "anonymous_id": null }).to_string();
            }
            let body = json!({ "from": "anon:1", "to": "user_alice", "idempotency_key": "1" }).to_string();
            let request =
                Request::post(app::REBIND_PATH).header(AUTHORIZATION, authorization).body(axum::body::Body::from(body));
            let answer = hook.oneshot(request.unwrap()).await.unwrap();
            assert_eq!(answer.status(), 200);
            json!({ "rebound": true, "rows_updated": 2, "anonymous_id": "1" }).to_string()
        };
        let guarded = async move |mut request: Request| -> Response {
            let caller = match bearer(request.headers()) {
                TOKEN if check.load(order) => "user_alice",
                GUEST_TOKEN if guest_is_here.load(order) => "anon:1",
                _ => return (StatusCode::UNAUTHORIZED, "no session").into_response(),
            };
            request.headers_mut().remove(AUTHORIZATION);
            request.headers_mut().insert("x-user-id", caller.parse().unwrap());
            app.oneshot(request).await.into_response()
        };
        Router::new()
            .route("/auth/session", post(start).delete(end))
            .route("/auth/anonymous", post(anonymous))
            .route("/auth/rebind", post(rebind))
            .route("/auth/bootstrap", axum::routing::get(async || "{}"))
            .fallback(guarded)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_story_works_when_pasted() {
        let demo = start(Arc::new(SystemClock::new())).await.unwrap();
        let proxy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut story = Vec::new();
        demo.print_story(proxy.local_addr().unwrap(), &mut story).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(proxy, stand_in(&demo.secret)));
        let commands = commands(&String::from_utf8(story).unwrap());
        let shell = move || std::process::Command::new("sh").args(["-e", "-c", &commands]).output();
        let output = tokio::task::spawn_blocking(shell).await.unwrap().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}: install curl; it printed {printed}", output.status);
        let lines: Vec<_> = printed.lines().collect();
        let [milk, home, moved, again, owned, gone, bootstrap, hello, revoked, refused] = lines.as_slice() else {
            panic!("ten answers, not {printed}")
        };
        assert_eq!(*milk, r#"{"owner":"anon:1","text":"buy milk"}"#);
        assert_eq!(*home, r#"{"owner":"anon:1","text":"call home"}"#);
        assert!(moved.contains(r#""rebound":true"#) && again.contains(r#""rebound":false"#), "{moved} {again}");
        let expected = r#"[{"owner":"user_alice","text":"buy milk"},{"owner":"user_alice","text":"call home"}]"#;
        assert_eq!((*owned, *gone, *bootstrap), (expected, "no session 401", "{}"));
        let hello: serde_json::Value = serde_json::from_str(hello).unwrap();
        assert_eq!(hello["path"], "/hello");
        assert_eq!(hello["headers"]["x-user-id"], json!(["user_alice"]));
        assert_eq!(hello["headers"].get("authorization"), None);
        assert_eq!((*revoked, *refused), (r#"{"revoked":true}"#, "no session 401"));
    }

    #[tokio::test]
    async fn the_configuration_is_yaml_that_names_both() {
        let demo = start(Arc::new(SystemClock::new())).await.unwrap();
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let yaml = demo.config(address(8080), address(9090), Path::new("/tmp/the \"demo\""));
        let parsed: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
        let expected = json!({
            "listen": "127.0.0.1:8080",
            "admin": { "listen": "127.0.0.1:9090" },
            "upstream": { "url": demo.app_url },
            "sessions": { "store": "sqlite:///tmp/the \"demo\"/sessions.db" },
            "directory": { "url": "sqlite:///tmp/the \"demo\"/directory.db" },
            "rebind": { "backend": "http", "hook": { "url": "/rebind", "secret": demo.secret.expose() } },
            "clerk": { "issuer": demo.idp_url, "jwks_url": format!("{}/.well-known/jwks.json", demo.idp_url) },
        });
        assert_eq!(parsed, expected);
    }
}
