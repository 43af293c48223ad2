//! A real redis-server for one test, and replicas of the store connected to it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use redis::FromRedisValue;
use serde_json::json;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::config;
use crate::metrics::Metrics;
use crate::model::{End, EndReason, Principal, PrincipalKind, Session};
use crate::secret::Secret;
use crate::store::redis::RedisStore;
use crate::store::{Created, KEEP_ENDED, SessionStore, StoreError, shard_of};
use crate::time::{Clock, SystemClock, Timestamp};

pub(super) struct RedisServer {
    child: Child,
    pub(super) port: u16,
    pub(super) dir: PathBuf,
    password: Option<String>,
}

/// One replica of Doorward as far as the store is concerned.
pub(super) struct Replica {
    pub(super) store: Arc<RedisStore>,
    pub(super) metrics: Arc<Metrics>,
    task: JoinHandle<()>,
}

impl RedisServer {
    pub(super) async fn start(options: &[&str]) -> Self {
        for _ in 0..5 {
            let port = free_port();
            if let Some(server) = Self::start_on(port, options).await {
                return server;
            }
        }
        panic!("redis-server did not start; is it installed?");
    }

    /// Starts on `port`; `None` if another process took it meanwhile.
    pub(super) async fn start_on(port: u16, options: &[&str]) -> Option<Self> {
        let dir = std::env::temp_dir().join(format!("doorward-redis-{}", Uuid::new_v4()));
        std::fs::create_dir(&dir).unwrap();
        let mut command = Command::new("redis-server");
        if let Some(sentinel) = options.iter().position(|option| *option == "--sentinel") {
            let file = dir.join("sentinel.conf");
            std::fs::write(&file, options[sentinel + 1].replace("{port}", &port.to_string())).unwrap();
            command.arg(file).arg("--sentinel");
        } else {
            command
                .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"])
                .args(["--port", &port.to_string(), "--dir"])
                .arg(&dir)
                .args(options.iter().map(|option| option.replace("{port}", &port.to_string())));
        }
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server must be installed for these tests");
        let password =
            options.iter().position(|option| *option == "--requirepass").map(|at| options[at + 1].to_owned());
        let mut server = Self { child, port, dir, password };
        let up = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                if server.child.try_wait().unwrap().is_some() {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            true
        };
        let up = tokio::time::timeout(Duration::from_secs(10), up).await.expect("redis-server does not listen");
        up.then_some(server)
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(super) async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).await.unwrap()
    }

    pub(super) async fn try_ask<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let password = self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        let client = redis::Client::open(format!("redis://{password}127.0.0.1:{}", self.port)).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await
    }

    pub(super) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Replica {
    pub(super) fn new(config: &config::Sessions) -> Self {
        Self::with(config, KEEP_ENDED)
    }

    pub(super) async fn keeping(config: &config::Sessions, keep_ended: Duration) -> Self {
        let replica = Self::with(config, keep_ended);
        replica.becomes_current().await;
        replica
    }

    fn with(config: &config::Sessions, keep_ended: Duration) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let store = RedisStore::connect(config, keep_ended, Arc::new(SystemClock::new()), metrics.clone()).unwrap();
        let task = tokio::spawn(store.clone().run());
        Self { store, metrics, task }
    }

    pub(super) async fn live(config: &config::Sessions) -> Self {
        let replica = Self::new(config);
        replica.becomes_current().await;
        replica
    }

    pub(super) async fn becomes_current(&self) {
        eventually("the replica is live", async || self.store.revocations().is_current()).await;
    }

    pub(super) fn generation(&self) -> u64 {
        self.store.revocations().generation()
    }

    pub(super) async fn create(&self, session: &Session) -> Result<Created, StoreError> {
        self.store.create(session, 100, now()).await
    }

    pub(super) async fn find(&self, session: &Session) -> Result<Option<Session>, StoreError> {
        let stamp = self.store.revocations().stamp(&session.id);
        self.store.find(session.id, stamp, now()).await
    }

    pub(super) async fn revoke(&self, session: &Session) -> Result<(), StoreError> {
        self.store.end(&[session.id], end(EndReason::Logout)).await
    }

    pub(super) fn refuses(&self, session: &Session) -> bool {
        self.store.revocations().is_revoked(&session.id)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let polling = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let met = tokio::time::timeout(Duration::from_secs(20), polling).await;
    assert!(met.is_ok(), "waited in vain until {what}");
}

pub(super) fn config(url: &str) -> config::Sessions {
    let overlay = json!({
        "cache": {"capacity": 1000},
        "revocation": {"heartbeat": "100ms", "lease": "1s"},
        // Generous: the machine runs other tests at the same time.
        "redis": {"timeout": "2s", "connect_timeout": "2s"},
    });
    let environment = [("DOORWARD__SESSIONS".to_owned(), overlay.to_string())].into();
    let mut config = config::Config::load(&[], &environment).unwrap().config.sessions;
    config.store = if url.starts_with("redis://") || url.starts_with("rediss://") {
        config::sessions::StoreUrl::Redis(Secret::new(url.to_owned()))
    } else {
        url.parse().unwrap()
    };
    config
}

pub(super) fn session(principal: &str) -> Session {
    let now = now();
    let principal =
        Principal { kind: PrincipalKind::User, id: principal.parse().unwrap(), tenant: "acme".parse().unwrap() };
    let shard = shard_of(&principal.tenant, &principal.id);
    Session::plain(principal, shard, now, now.plus(Duration::from_mins(10)))
}

pub(super) fn end(reason: EndReason) -> End {
    End { reason, at: now() }
}

pub(super) fn now() -> Timestamp {
    SystemClock::new().now()
}

pub(super) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
