//! The store over TLS, as an ACL user, behind Sentinel and on a cluster.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use super::server::{RedisServer, Replica, config, end, eventually, free_port, session};
use super::{STORED, assert_unavailable};
use crate::config;
use crate::config::sessions::StoreUrl;
use crate::metrics::Metrics;
use crate::model::EndReason;
use crate::store::redis::{RedisConfigError, RedisStore};
use crate::store::{KEEP_ENDED, SessionStore, conformance, shard_of};
use crate::time::SystemClock;

const ACL: &str = "~dw:* &dw:* -@all +get +mget +exists +eval +evalsha +script|load +hmget +hsetnx +role \
                   +subscribe +publish +wait +hello +ping +set +del +unlink +hset +hincrby \
                   +pexpire +pttl +getrange +setrange +time +zadd +zcard +zrange +zrem \
                   +zrevrangebylex";

/// An authority, and what it signed for a server and a client.
struct Pki {
    dir: PathBuf,
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Pki {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("doorward-pki-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&dir).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap();
        std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        for (name, usage) in
            [("server", ExtendedKeyUsagePurpose::ServerAuth), ("client", ExtendedKeyUsagePurpose::ClientAuth)]
        {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![usage];
            let certificate = params.signed_by(&key, &issuer).unwrap();
            std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Self { dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

#[tokio::test]
async fn it_speaks_mutual_tls_and_trusts_the_configured_authority_only() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (pki, stranger) = (Pki::new(), Pki::new());
    let paths = ["server.pem", "server.key", "ca.pem"].map(|name| pki.file(name).to_str().unwrap().to_owned());
    let [cert, key, ca] = &paths;
    let server = RedisServer::start(&[
        "--port",
        "0",
        "--tls-port",
        "{port}",
        "--tls-auth-clients",
        "yes",
        "--tls-cert-file",
        cert,
        "--tls-key-file",
        key,
        "--tls-ca-cert-file",
        ca,
    ])
    .await;
    let mut config = config(&format!("rediss://127.0.0.1:{}", server.port));
    config.redis.ca = Some(pki.file("ca.pem"));
    config.redis.client_cert = Some(pki.file("client.pem"));
    config.redis.client_key = Some(pki.file("client.key"));
    let doorward = Replica::live(&config).await;
    assert_eq!(doorward.create(&session("user")).await.unwrap(), STORED);

    let mut wary = config.clone();
    wary.redis.ca = Some(stranger.file("ca.pem"));
    let mut anonymous = config.clone();
    (anonymous.redis.client_cert, anonymous.redis.client_key) = (None, None);
    for config in [wary, anonymous] {
        let refused = Replica::new(&config);
        let attempts = refused.generation() + 3;
        eventually("it tried several times", async || refused.generation() > attempts).await;
        assert_unavailable(refused.find(&session("user")).await);
    }
}

#[tokio::test]
async fn it_needs_few_rights() {
    let server = RedisServer::start(&[]).await;
    let mut rule = vec!["ACL", "SETUSER", "doorward", "on", ">hunter2"];
    rule.extend(ACL.split_whitespace());
    server.ask::<()>(&rule).await;
    let url = format!("redis://doorward:hunter2@127.0.0.1:{}", server.port);
    let doorward = Replica::live(&config(&url)).await;
    conformance::run(async || doorward.store.clone() as Arc<dyn SessionStore>).await;
    assert!(doorward.store.revocations().is_current());
}

#[tokio::test]
async fn sentinel_leads_it_to_the_new_primary() {
    let old = RedisServer::start(&[]).await;
    let new = RedisServer::start(&["--replicaof", "127.0.0.1", &old.port.to_string()]).await;
    let sentinel = RedisServer::start(&[
        "--sentinel",
        &format!(
            "port {{port}}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 3000\n",
            old.port
        ),
    ])
    .await;
    let doorward = Replica::live(&config(&format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port))).await;
    let (kept, ended) = (session("user"), session("user"));
    doorward.create(&kept).await.unwrap();
    doorward.create(&ended).await.unwrap();
    doorward.revoke(&ended).await.unwrap();
    let port = old.port.to_string();
    eventually("the replica has everything", async || {
        let role: Vec<redis::Value> = new.ask(&["ROLE"]).await;
        let seq = new.try_ask::<Option<u64>>(&["HGET", "dw:ctl", "seq"]).await;
        role.len() == 5 && seq == Ok(Some(1))
    })
    .await;
    eventually("sentinel knows the replica", async || {
        let replicas: Vec<redis::Value> = sentinel.ask(&["SENTINEL", "REPLICAS", "main"]).await;
        replicas.len() == 1
    })
    .await;
    let before = doorward.generation();
    drop(old);
    eventually("its generation ended", async || doorward.generation() > before).await;
    eventually("sentinel has promoted the replica", async || {
        let address: Vec<String> = sentinel.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]).await;
        address[1] != port
    })
    .await;
    doorward.becomes_current().await;
    assert_eq!(doorward.find(&kept).await.unwrap().as_ref(), Some(&kept));
    assert_eq!(doorward.find(&ended).await.unwrap(), None);
    assert_eq!(doorward.create(&session("user")).await.unwrap(), STORED);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms_on_a_cluster_and_replicas_receive_from_each_other() {
    let nodes = cluster().await;
    let hosts: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let config = config(&format!("redis+cluster://{}", hosts.join(",")));
    let (one, two) = (Replica::live(&config).await, Replica::live(&config).await);
    assert_eq!(one.store.cache_ttl_cap(), Some(std::time::Duration::from_secs(5)));
    conformance::run(async || one.store.clone() as Arc<dyn SessionStore>).await;
    for principal in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let (first, second) = (session(principal), session(principal));
        one.create(&first).await.unwrap();
        one.create(&second).await.unwrap();
        assert_eq!(two.find(&first).await.unwrap().as_ref(), Some(&first));
        one.revoke(&first).await.unwrap();
        eventually("the other replica refuses it", async || two.refuses(&first)).await;
        let principal = &second.principal;
        let ended = one.store.end_principal(&principal.tenant, &principal.id, end(EndReason::Principal)).await;
        assert_eq!(ended.unwrap(), 1);
        eventually("the other replica refuses it", async || two.refuses(&second)).await;
    }
    for node in &nodes {
        assert!(node.ask::<u64>(&["DBSIZE"]).await > 0, "the keys are spread");
    }
    let lost = session("a");
    one.create(&lost).await.unwrap();
    let before = two.generation();
    for node in &nodes {
        node.ask::<()>(&["FLUSHALL"]).await;
    }
    eventually("a flush is noticed", async || two.generation() > before).await;
    two.becomes_current().await;
    assert_eq!(two.find(&lost).await.unwrap(), None);
    assert_eq!(lost.id.shard(), shard_of(&lost.principal.tenant, &lost.principal.id));
}

async fn cluster() -> Vec<RedisServer> {
    let mut nodes = Vec::new();
    for number in 0..3_u32 {
        let bus = free_port().to_string();
        let node = RedisServer::start(&["--cluster-enabled", "yes", "--cluster-port", &bus]).await;
        let first = (16384 * number / 3).to_string();
        let last = (16384 * (number + 1) / 3 - 1).to_string();
        node.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
        node.ask::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]).await;
        nodes.push((node, bus));
    }
    let (seed, seed_bus) = (nodes[0].0.port.to_string(), nodes[0].1.clone());
    for (node, _) in &nodes[1..] {
        node.ask::<()>(&["CLUSTER", "MEET", "127.0.0.1", &seed, &seed_bus]).await;
    }
    let nodes: Vec<RedisServer> = nodes.into_iter().map(|(node, _)| node).collect();
    for node in &nodes {
        eventually("the cluster has formed", async || {
            let info: String = node.ask(&["CLUSTER", "INFO"]).await;
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        })
        .await;
    }
    nodes
}

#[test]
fn what_cannot_be_right_is_refused_at_once_and_without_secrets() {
    let connect = |config: &config::Sessions| {
        let metrics = Arc::new(Metrics::new().unwrap());
        RedisStore::connect(config, KEEP_ENDED, Arc::new(SystemClock::new()), metrics).err().expect("refused")
    };
    let sqlite = config::Sessions { store: StoreUrl::Sqlite("/x".into()), ..config("redis://h") };
    assert!(matches!(connect(&sqlite), RedisConfigError::NotRedis));
    for url in
        ["redis://:hunter2@", "redis://:hunter2@h:99999", "rediss://:hunter2@h/#insecure", "redis://:hunter2@h/x"]
    {
        let error = connect(&config(url));
        assert!(matches!(error, RedisConfigError::Url(_)), "{url}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
    let mut clear = config("redis://h");
    clear.redis.ca = Some("/dev/null".into());
    assert!(matches!(connect(&clear), RedisConfigError::NotTls));
    let mut half = config("rediss://h");
    half.redis.client_cert = Some("/dev/null".into());
    assert!(matches!(connect(&half), RedisConfigError::HalfCertificate));
    let mut missing = config("rediss://h");
    missing.redis.ca = Some("/nonexistent/ca.pem".into());
    assert!(matches!(connect(&missing), RedisConfigError::File(..)));
}
