//! What `doorward demo` puts around Doorward: an identity provider, an application, and the story.
//!
//! Both listen on loopback only and live as long as [`Demo`]. The provider signs a JWT for whoever
//! asks, with a key made at the start: its issuer must never be configured anywhere else. Doorward
//! itself is not started here; [`Demo::config`] says how.

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

use crate::time::Clock;
use idp::{Idp, KeyError};

/// The provider and the application, serving until this is dropped.
#[derive(Debug)]
pub struct Demo {
    /// `http://127.0.0.1:port` of the identity provider: also the `iss` of its JWTs.
    pub idp_url: String,
    /// `http://127.0.0.1:port` of the application.
    pub app_url: String,
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
    let idp = Idp::generate(idp_url.clone(), clock)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(idp_listener, idp::routes(idp)));
    tasks.spawn(serve(app_listener, app::routes()));
    Ok(Demo { idp_url, app_url, _tasks: tasks })
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
            "clerk": { "issuer": self.idp_url, "jwks_url": format!("{}{}", self.idp_url, idp::JWKS_PATH) },
        })
        .to_string()
    }

    /// Writes what to try, as lines to paste into a shell that has curl and sed, for a Doorward
    /// that listens on `proxy`.
    pub fn tell(&self, proxy: SocketAddr, out: &mut dyn Write) -> io::Result<()> {
        let (idp, app) = (&self.idp_url, &self.app_url);
        write!(
            out,
            r#"
Doorward listens on http://{proxy}, in front of an application ({app}) that answers with
what it received. An identity provider ({idp}) signs JWTs for anyone: this is a demo.
Paste into another terminal:

1. Sign in: exchange a JWT of the provider for a session.

    JWT=$(curl -s -X POST '{idp}/token?user=alice')
    TOKEN=$(curl -s -X POST -H "Authorization: Bearer $JWT" http://{proxy}/auth/session | sed 's/.*"token": *"\([^"]*\)".*/\1/')

2. Call the application and claim to be mallory. It is told user_alice, and never sees the token.

    curl -s -H "Authorization: Bearer $TOKEN" -H 'X-User-ID: mallory' http://{proxy}/hello

3. Sign out. The same call is now answered 401.

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

    /// The shell lines of the story, in order.
    fn commands(story: &str) -> String {
        story.lines().filter_map(|line| line.strip_prefix("    ")).collect::<Vec<_>>().join("\n")
    }

    fn bearer(headers: &HeaderMap) -> &str {
        let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default()
    }

    /// Answers as Doorward answers, so that the shell lines can be run without it.
    fn stand_in() -> Router {
        let signed_in = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let order = std::sync::atomic::Ordering::SeqCst;
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
        let guarded = async move |mut request: Request| -> Response {
            if !check.load(order) || bearer(request.headers()) != TOKEN {
                return (StatusCode::UNAUTHORIZED, "no session").into_response();
            }
            request.headers_mut().remove(AUTHORIZATION);
            request.headers_mut().insert("x-user-id", "user_alice".parse().unwrap());
            app::routes().oneshot(request).await.into_response()
        };
        Router::new().route("/auth/session", post(start).delete(end)).fallback(guarded)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_story_works_when_pasted() {
        let demo = start(Arc::new(SystemClock::new())).await.unwrap();
        let proxy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut story = Vec::new();
        demo.tell(proxy.local_addr().unwrap(), &mut story).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(proxy, stand_in()));
        let commands = commands(&String::from_utf8(story).unwrap());
        let shell = move || std::process::Command::new("sh").args(["-e", "-c", &commands]).output();
        let output = tokio::task::spawn_blocking(shell).await.unwrap().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}: install curl; it printed {printed}", output.status);
        let lines: Vec<_> = printed.lines().collect();
        let [hello, revoked, refused] = lines.as_slice() else { panic!("three answers, not {printed}") };
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
            "clerk": { "issuer": demo.idp_url, "jwks_url": format!("{}/.well-known/jwks.json", demo.idp_url) },
        });
        assert_eq!(parsed, expected);
    }
}
