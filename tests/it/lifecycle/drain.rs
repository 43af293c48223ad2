//! A pod is deleted under load, in both orders in which Kubernetes ends its containers.
//!
//! The settings under test, which the documentation repeats (here: in brackets, to be quick):
//!
//! Native sidecar (an init container with `restartPolicy: Always`). At the deletion both preStop
//! hooks begin; SIGTERM goes to the application when its hook is over, and to Doorward when the
//! application has ended.
//! - Doorward: `preStop: exec: ["/doorward", "drain"]`, `drain_delay` 5s [3s], `drain_timeout` 25s
//! - application: `preStop: sleep` not shorter than `drain_delay` [3.5 s]; ends on SIGTERM
//!
//! Plain container. SIGTERM goes to each container when its own hook is over.
//! - Doorward: no hook, `drain_delay` 5s [3s], `drain_timeout` 25s
//! - application: `preStop: sleep` longer than `drain_delay` [3.5 s]; finishes on SIGTERM what it has begun
//!
//! Pod: `terminationGracePeriodSeconds` 45, more than the application's sleep, its longest request,
//! `drain_timeout` and 3 s. Everybody else: endpoints leave within `drain_delay` [0.5 s].

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::{SOME, get, open_to_all, until_status};
use crate::lifecycle::load::{Fleet, Load, Tally};
use crate::support::client::{RawConnection, sign_in};
use crate::support::doorward::Doorward;
use crate::support::idp::Idp;
use crate::support::ports::free_port;
use crate::support::redis::Redis;
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;

const BINARY: &str = env!("CARGO_BIN_EXE_doorward");
const DRAIN_DELAY: Duration = Duration::from_secs(3);
/// The application's preStop hook.
const APPLICATION_SLEEPS: Duration = Duration::from_millis(3500);
const ENDPOINTS_LAG: Duration = Duration::from_millis(500);

/// Two pods under load, and a request to the first one that its application is still working on.
struct Scene {
    leaving: Pod,
    staying: Pod,
    fleet: Fleet,
    load: Load,
    under_way: RawConnection,
    token: String,
    _around: (Redis, Idp),
}

struct Pod {
    doorward: Doorward,
    application: Upstream,
}

impl Scene {
    async fn start() -> Self {
        let (redis, idp) = (Redis::start().await, Idp::start().await);
        let pod = async || {
            let application = Upstream::start().await;
            let builder = Doorward::builder().store(&redis.url()).idp(&idp).upstream(application.url());
            Pod { doorward: builder.config(&lifecycle()).start().await, application }
        };
        let (leaving, staying) = (pod().await, pod().await);
        let token = sign_in(&leaving.doorward, &idp, "user_alice").await;
        let fleet = Fleet::lagging(&[&leaving.doorward, &staying.doorward], ENDPOINTS_LAG);
        let load = Load::start(&fleet, &token, 8);
        load.answered(SOME).await;
        let mut under_way = RawConnection::open(leaving.doorward.proxy_addr()).await;
        under_way.write(get("/slow-body", &token)).await;
        leaving.application.wait_for(|request| request.target == "/slow-body").await;
        Self { leaving, staying, fleet, load, under_way, token, _around: (redis, idp) }
    }

    /// Lets the load go on at the pod that stays, and ends it.
    async fn finish(self) -> Tally {
        self.load.answered(self.load.count() + SOME).await;
        self.fleet.withdraw(&self.leaving.doorward);
        self.fleet.withdraw(&self.staying.doorward);
        self.load.finish().await
    }
}

// The timeout is far beyond any test's patience: the end must come from having nothing to do.
fn lifecycle() -> String {
    format!("lifecycle: {{ drain_delay: {DRAIN_DELAY:?}, drain_timeout: 10m }}")
}

async fn drain(program: impl AsRef<Path>, pid: Option<u32>) -> Output {
    let mut command = Command::new(program.as_ref());
    command.arg("drain").stdin(Stdio::null());
    if let Some(pid) = pid {
        command.arg("--pid").arg(pid.to_string());
    }
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it does not panic");
    output.expect("the binary can be started")
}

fn assert_nothing_lost(tally: &Tally) {
    assert_eq!(tally.lost, Vec::<String>::new());
    assert_eq!(tally.refused, 0, "endpoints left before the listener closed: {tally:?}");
    assert!(tally.closing > 0, "no request met the drain: {tally:?}");
}

#[tokio::test]
async fn no_request_is_lost_when_the_application_ends_before_its_native_sidecar() {
    let mut scene = Scene::start().await;
    // The two hooks begin together.
    let hook = tokio::time::sleep(APPLICATION_SLEEPS);
    let told = drain(BINARY, Some(scene.leaving.doorward.pid())).await;
    assert!(told.status.success(), "{told:?}");
    until_status(&scene.leaving.doorward, "/readyz", 503).await;
    assert_eq!(scene.leaving.doorward.admin_get("/livez").await.status, 200, "unready is not dead");
    let late = scene.leaving.doorward.client().get("/late").bearer(&scene.token).send().await;
    assert_eq!((late.status, late.header("connection")), (200, Some("close")), "it goes on serving");
    hook.await;
    // SIGTERM to the application, which finishes what it has begun, and ends.
    scene.leaving.application.release();
    let answer = scene.under_way.response().await.expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "first-second"));
    drop(std::mem::replace(&mut scene.leaving.application, Upstream::start().await));
    // Of two that are told to end, the one whose delay has passed does not wait for it again: it has
    // ended when the other, whose delay begins now, still accepts.
    let upstream = Upstream::start().await;
    let beginning = open_to_all(&upstream).config(&lifecycle()).start().await;
    beginning.signal("TERM");
    scene.leaving.doorward.signal("TERM");
    assert_eq!(scene.leaving.doorward.wait_exit().await.code(), Some(0));
    assert_eq!(beginning.client().get("/").send().await.status, 200, "its delay has not passed");
    assert_nothing_lost(&scene.finish().await);
}

#[tokio::test]
async fn no_request_is_lost_when_plain_containers_are_ended_side_by_side() {
    let mut scene = Scene::start().await;
    // The application's hook begins as Doorward, which has none, gets its signal.
    scene.leaving.doorward.signal("TERM");
    tokio::time::sleep(APPLICATION_SLEEPS).await;
    let ended = Upstream::start().await;
    let application = std::mem::replace(&mut scene.leaving.application, ended);
    application.release();
    let answer = scene.under_way.response().await.expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "first-second"));
    drop(application);
    assert_eq!(scene.leaving.doorward.wait_exit().await.code(), Some(0));
    assert_nothing_lost(&scene.finish().await);
}

#[tokio::test]
async fn a_drain_may_be_told_twice_and_sigterm_waits_for_the_rest_of_the_delay() {
    let upstream = Upstream::start().await;
    let lifecycle = "lifecycle: { drain_delay: 10m, drain_timeout: 10m }";
    let mut doorward = open_to_all(&upstream).config(lifecycle).start().await;
    for _ in 0..2 {
        assert!(drain(BINARY, Some(doorward.pid())).await.status.success());
        until_status(&doorward, "/readyz", 503).await;
    }
    assert_eq!(doorward.logs().matches(r#""message":"Draining""#).count(), 1, "{}", doorward.logs());
    doorward.signal("TERM");
    // Not the second signal that ends it at once.
    assert!(drain(BINARY, Some(doorward.pid())).await.status.success());
    let answer = doorward.client().get("/").send().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    doorward.signal("TERM");
    assert_eq!(doorward.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn the_server_of_the_same_image_is_found_and_nobody_else_is_signalled() {
    let (upstream, image) = (Upstream::start().await, TempDir::new("image"));
    let binary = image.join("doorward");
    std::fs::copy(BINARY, &binary).expect("the directory is writable");
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let nobody = drain(&binary, None).await;
    assert_eq!((nobody.status.code(), said(&nobody).as_str()), (Some(1), "doorward: no server is running here\n"));
    let admin = ([127, 0, 0, 1], free_port()).into();
    let config = format!("routes: [{{ path: '/**', auth: none }}]\nadmin: {{ listen: '{admin}' }}");
    let builder = Doorward::builder().upstream(upstream.url()).config(&config).stand_in(&binary, admin);
    let doorward = builder.start().await;
    let told = drain(&binary, None).await;
    assert_eq!((told.status.code(), said(&told).as_str()), (Some(0), ""));
    until_status(&doorward, "/readyz", 503).await;
    assert_eq!(doorward.client().get("/").send().await.status, 200);
    // A process that SIGUSR1 would end.
    let mut bystander = Command::new("sleep").arg("600").spawn().expect("sleep is installed");
    let refused = drain(&binary, Some(bystander.id())).await;
    let alive = bystander.try_wait().expect("it is our child").is_none();
    bystander.kill().expect("it is our child");
    bystander.wait().expect("it is our child");
    assert!(alive && refused.status.code() == Some(1), "{refused:?}");
    assert!(said(&refused).contains("is no server that can be told to drain"), "{refused:?}");
}
