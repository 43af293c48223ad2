//! An application that callers reach without Doorward is noticed, and so is that they no longer do.

use std::net::SocketAddr;

use crate::support::doorward::{Builder, Doorward};
use crate::support::eventually;
use crate::support::ports::free_port;
use crate::support::upstream::Upstream;

const TOLD: &str = "The application can be reached without Doorward";

fn everywhere(port: u16) -> SocketAddr {
    ([0, 0, 0, 0], port).into()
}

fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn in_front_of(port: u16, exposed: &str) -> Builder {
    let config = format!("upstream: {{ exposed: {exposed} }}\nroutes: [{{ path: '/**', auth: none }}]");
    Doorward::builder().upstream(&format!("http://127.0.0.1:{port}")).config(&config)
}

async fn metric(doorward: &Doorward) -> String {
    let text = doorward.admin_get("/metrics").await.text();
    let found = text.lines().find_map(|line| line.strip_prefix("doorward_upstream_exposed "));
    found.expect("the series is always there").to_owned()
}

async fn until_metric(doorward: &Doorward, value: &str) {
    eventually("the metric to change", async || (metric(doorward).await == value).then_some(())).await;
}

/// Starts an application where another one was, whose listener takes a moment to go.
async fn moved(from: Upstream, to: SocketAddr) -> Upstream {
    drop(from);
    eventually("the port to be free", async || std::net::TcpListener::bind(to).is_ok().then_some(())).await;
    Upstream::at(to).await
}

#[tokio::test]
async fn an_application_on_all_addresses_is_told_once_per_change_and_still_served() {
    let port = free_port();
    let application = Upstream::at(everywhere(port)).await;
    let silent = in_front_of(port, "ignore").start().await;
    let doorward = in_front_of(port, "warn").start().await;
    until_metric(&doorward, "1").await;
    doorward.wait_log(&format!(r#""addresses":"0.0.0.0:{port}""#)).await;
    assert_eq!(doorward.client().get("/").send().await.status, 200);
    assert_eq!(
        doorward.admin_get("/readyz?verbose").await.text(),
        "started: ok\nserving: ok\nstore: ok\nkeys: ok\nok\n"
    );

    let application = moved(application, loopback(port)).await;
    until_metric(&doorward, "0").await;
    doorward.wait_log("The application's port is not open beyond loopback").await;
    assert_eq!(doorward.client().get("/").send().await.status, 200);
    assert_eq!(doorward.logs().matches(TOLD).count(), 1, "{}", doorward.logs());

    let _application = moved(application, everywhere(port)).await;
    until_metric(&doorward, "1").await;
    assert_eq!(doorward.logs().matches(TOLD).count(), 2, "{}", doorward.logs());
    assert_eq!(metric(&silent).await, "0");
    assert!(!silent.logs().contains(TOLD), "{}", silent.logs());
}

#[tokio::test]
async fn an_exposed_application_gets_no_traffic_where_that_is_asked_for() {
    let port = free_port();
    let application = Upstream::at(everywhere(port)).await;
    let doorward = in_front_of(port, "unready").spawn();
    eventually("the exposure to be seen", async || doorward.logs().contains(TOLD).then_some(())).await;
    let ready = async || {
        let answer = doorward.admin_get("/readyz?verbose").await;
        (answer.status, answer.text())
    };
    eventually("everything else to be ready", async || {
        let expected = "started: ok\nserving: ok\nstore: ok\nkeys: ok\nunexposed: failed\nfailed\n";
        (ready().await == (503, expected.to_owned())).then_some(())
    })
    .await;
    assert!(doorward.admin_get("/metrics").await.text().contains("doorward_ready{check=\"unexposed\"} 0\n"));
    for path in ["/startupz", "/livez"] {
        assert_eq!(doorward.admin_get(path).await.status, 200, "{path}: a restart would not help");
    }
    let application = moved(application, loopback(port)).await;
    eventually("readiness", async || (ready().await.0 == 200).then_some(())).await;
    assert!(ready().await.1.ends_with("unexposed: ok\nok\n"));
    let _application = moved(application, everywhere(port)).await;
    eventually("readiness to end", async || (ready().await.0 == 503).then_some(())).await;
}

#[tokio::test]
async fn an_application_on_loopback_is_no_finding_whatever_else_listens() {
    // Its neighbour's port is open to everybody.
    let application = Upstream::start().await;
    let _neighbour = Upstream::at(everywhere(0)).await;
    let port = application.url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a URL with a port");
    // Ready only once somebody has looked.
    let doorward = in_front_of(port, "unready").start().await;
    assert_eq!(metric(&doorward).await, "0");
    assert!(!doorward.logs().contains(TOLD), "{}", doorward.logs());
}
