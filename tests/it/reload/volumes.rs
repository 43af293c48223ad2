//! Volumes of configuration and secrets as Kubernetes mounts them, updated under a running server.

use super::{metric, served, until_answered, until_reloaded};
use crate::support::client::sign_in;
use crate::support::doorward::{Builder, Doorward};
use crate::support::eventually;
use crate::support::idp::Idp;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::volume::Volume;

const KEYS: [&str; 2] = ["first-key-of-thirty-two-bytes-0001", "second-key-of-thirty-two-bytes-002"];
const REFUSED: &str = "Configuration not reloaded";

/// Reads `config.yaml` of a volume.
fn mounted(config: &Volume, upstream: &Upstream) -> Builder {
    let builder = Doorward::builder().upstream(upstream.url()).config("lifecycle: { reload_interval: 50ms }");
    builder.config_file(config.path("config.yaml"))
}

fn routes(auth: &str) -> String {
    format!("routes: [{{ path: '/**', auth: {auth} }}]\n")
}

#[tokio::test]
async fn a_config_map_that_is_updated_changes_routes_and_leaves_the_environment_in_force() {
    let upstream = Upstream::start().await;
    let mut config = Volume::new(&[("config.yaml", &routes("none"))]);
    let doorward = mounted(&config, &upstream).env("DOORWARD__COOKIE__NAME", "from-environment").start().await;
    until_answered(&doorward, "/", 200).await;
    let before = metric(&doorward, "config_info").await;
    // The file says another name, and the environment still wins.
    config.update(&[("config.yaml", &format!("{}cookie: {{ name: from-file }}", routes("required")))]);
    until_answered(&doorward, "/", 401).await;
    config.update(&[("config.yaml", &routes("none"))]);
    until_answered(&doorward, "/", 200).await;
    assert_eq!(metric(&doorward, "config_info").await, before, "all that the file said is gone again");
    let old: Vec<_> = doorward.logs().lines().filter(|line| line.contains(REFUSED)).map(str::to_owned).collect();
    assert_eq!(old, [""; 0], "a swap is one step");
}

#[tokio::test]
async fn token_keys_are_added_and_retired_with_their_secret() {
    let (redis, idp, upstream) = (Redis::start().await, Idp::start().await, Upstream::start().await);
    let mut secrets = Volume::new(&[("key-1", KEYS[0])]);
    let key =
        |id: usize| format!("{{ id: {id}, secret: {{ file: '{}' }} }}", secrets.path(&format!("key-{id}")).display());
    let (first, second) = (key(1), key(2));
    let yaml = |keys: &[&str]| format!("sessions: {{ token: {{ keys: [{}] }} }}", keys.join(", "));
    let mut config = Volume::new(&[("config.yaml", &yaml(&[&first]))]);
    let doorward = mounted(&config, &upstream).idp(&idp).store(&redis.url()).start().await;
    let old = sign_in(&doorward, &idp, "user_alice").await;
    let since = taken_up(&doorward, "sessions.token.keys").await;
    assert!(since > 0.0);

    // The two volumes are updated on their own: the configuration may come before the key it names.
    config.update(&[("config.yaml", &yaml(&[&second, &first]))]);
    until_reloaded(&doorward, "0").await;
    let told = eventually("the refusal", async || {
        doorward.logs().lines().find(|line| line.contains(REFUSED)).map(str::to_owned)
    })
    .await;
    let file = secrets.path("key-2").display().to_string();
    assert!(told.contains("sessions.token.keys[0].secret") && told.contains(&file), "{told}");
    let ask = async |token: &str| doorward.client().get("/").bearer(token).send().await.status;
    assert_eq!(ask(&old).await, 200, "the old configuration goes on serving");
    secrets.update(&[("key-1", KEYS[0]), ("key-2", KEYS[1])]);
    until_reloaded(&doorward, "1").await;
    let new = sign_in(&doorward, &idp, "user_alice").await;
    assert_eq!([ask(&old).await, ask(&new).await], [200; 2]);

    config.update(&[("config.yaml", &yaml(&[&second]))]);
    eventually("the old key to be gone", async || (ask(&old).await == 401).then_some(())).await;
    assert_eq!(ask(&new).await, 200);
    secrets.update(&[("key-2", KEYS[1])]);
    assert_eq!(ask(&new).await, 200);
    let logs = doorward.logs();
    assert_eq!(logs.matches(REFUSED).count(), 1, "many polls met the same problem: {logs}");
    assert!(!KEYS.iter().any(|key| logs.contains(key)), "{logs}");
    assert!(!logs.contains("only with a restart"), "{logs}");
}

#[tokio::test]
async fn a_renewed_certificate_is_served() {
    let upstream = Upstream::start().await;
    let issue = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem(), made.cert.der().to_vec())
    };
    let (cert, key, first) = issue("first.example");
    let mut secret = Volume::new(&[("tls.crt", &cert), ("tls.key", &key)]);
    let (at_cert, at_key) = (secret.path("tls.crt"), secret.path("tls.key"));
    let yaml = format!("tls: {{ cert: '{}', key: '{}' }}", at_cert.display(), at_key.display());
    let config = Volume::new(&[("config.yaml", &yaml)]);
    let doorward = mounted(&config, &upstream).start().await;
    assert_eq!(served(&doorward).await, first);
    assert!(taken_up(&doorward, "tls.key").await > 0.0);
    let (cert, key, second) = issue("second.example");
    secret.update(&[("tls.crt", &cert), ("tls.key", &key)]);
    eventually("the second certificate", async || (served(&doorward).await == second).then_some(())).await;
    until_reloaded(&doorward, "1").await;
}

#[tokio::test]
async fn every_kind_of_mistake_is_refused_told_once_and_mended() {
    let upstream = Upstream::start().await;
    let mut secrets = Volume::new(&[("password", "a-password-nobody-shows")]);
    let at = secrets.path("password").display().to_string();
    let good = format!("{}directory: {{ password: {{ file: '{at}' }} }}", routes("none"));
    let mut config = Volume::new(&[("config.yaml", &good)]);
    let doorward = mounted(&config, &upstream).start().await;
    until_reloaded(&doorward, "1").await;
    let file = config.path("config.yaml").display().to_string();
    let before = metric(&doorward, "config_info").await;
    let mut told = 0;
    let mut refused = async |what: &str, named: &[&str]| {
        until_reloaded(&doorward, "0").await;
        told += 1;
        let lines = eventually("the refusal", async || {
            let logs = doorward.logs();
            let lines: Vec<_> = logs.lines().filter(|line| line.contains(REFUSED)).map(str::to_owned).collect();
            (lines.len() >= told).then_some(lines)
        })
        .await;
        assert_eq!(lines.len(), told, "{what}: {lines:#?}");
        let line = lines.last().expect("there is one");
        assert!(named.iter().all(|named| line.contains(named)), "{what}: {named:?} in {line}");
        assert_eq!(doorward.client().get("/").send().await.status, 200, "{what}: the old one goes on serving");
        assert_eq!(metric(&doorward, "config_info").await, before, "{what}");
    };
    let mend = async |config: &mut Volume| {
        config.update(&[("config.yaml", &good)]);
        until_reloaded(&doorward, "1").await;
    };
    config.update(&[("config.yaml", "routes: [{ path: /, auth: none }")]);
    refused("broken YAML", &[&file]).await;
    mend(&mut config).await;
    config.update(&[("config.yaml", &format!("{good}\nsesions: {{ ttl: 1h }}"))]);
    refused("an unknown key", &["sesions", &file]).await;
    mend(&mut config).await;
    config.update(&[]);
    refused("no file at all", &[&file]).await;
    mend(&mut config).await;
    secrets.update(&[("another", "a-password-nobody-shows")]);
    refused("a secret that is gone", &["directory.password", &at]).await;
    secrets.update(&[("password", "")]);
    until_reloaded(&doorward, "0").await;
    secrets.update(&[("password", "a-password-nobody-shows")]);
    until_reloaded(&doorward, "1").await;
    assert!(!doorward.logs().contains("nobody-shows"), "{}", doorward.logs());
}

/// Returns when a secret was taken up.
pub(super) async fn taken_up(doorward: &Doorward, name: &str) -> f64 {
    let series = format!("secret_last_reload_success_timestamp_seconds{{name=\"{name}\"}}");
    metric(doorward, &series).await.trim().parse().expect("a number")
}
