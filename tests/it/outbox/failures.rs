//! Sinks that fail: nothing is lost, nothing is doubled, and everybody's order holds.

use std::time::Duration;

use doorward::time::{Clock, SystemClock};

use super::database::Database;
use super::sink::{Answer, Sink, Step};
use super::{PATIENT, assert_in_order, attempts, counted, delivered, delivering, metric, people, times};
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::temp::TempDir;
use crate::support::tls::Authority;
use crate::support::upstream::Upstream;

fn status(code: u16) -> Answer {
    Answer::Status(code, String::new())
}

async fn loses_and_doubles_nothing(database: Database) {
    let sink = Sink::start().await;
    sink.plan([
        status(500),
        Answer::CloseUnread,
        Answer::CloseRead,
        Answer::BreakOff,
        Answer::Status(429, "Retry-After: 1\r\n".to_owned()),
        Answer::Status(302, "Location: http://127.0.0.1:1/elsewhere\r\n".to_owned()),
        Answer::Hang,
        Answer::Slow(Duration::from_millis(300)),
        status(503),
        status(408),
    ]);
    let ids = database.add_aliases(&people(20), 3).await;
    let doorward = delivering(&database, &sink).start().await;
    delivered(&database).await;
    assert_eq!(times(&sink, &ids), [1; 60]);
    assert_in_order(&sink);
    assert_eq!(attempts(&doorward, "alias", "delivered").await, 60);
    counted(&doorward, "alias", "pending", 0).await;
    let logs = doorward.logs();
    for told in ["the sink answered 500", "the sink answered 302", "the sink did not answer within 2s"] {
        assert!(logs.contains(told), "{told} in {logs}");
    }
    assert!(!logs.contains("phc_canary"));
}

#[tokio::test]
async fn a_failing_sink_loses_and_doubles_nothing_on_sqlite() {
    loses_and_doubles_nothing(Database::sqlite()).await;
}

#[tokio::test]
async fn a_failing_sink_loses_and_doubles_nothing_on_postgresql() {
    loses_and_doubles_nothing(Database::postgres().await).await;
}

async fn obeys_retry_after(database: Database) {
    let sink = Sink::start().await;
    sink.plan([Answer::Status(429, "Retry-After: 2\r\n".to_owned())]);
    database.add_aliases(&people(3), 1).await;
    let _doorward = delivering(&database, &sink).start().await;
    delivered(&database).await;
    let [first, second, ..] = &sink.requests()[..] else { panic!("{:?}", sink.requests()) };
    assert!(second.at >= first.at.plus(Duration::from_secs(2)), "{first:?} {second:?}");

    let (date, refused) = (SystemClock::new().now().plus(Duration::from_secs(3)).unix_seconds(), sink.requests().len());
    sink.plan([Answer::Status(503, format!("Retry-After: {}\r\n", http_date(date)))]);
    database.add_aliases(&people(3), 1).await;
    delivered(&database).await;
    let next = &sink.requests()[refused + 1];
    assert!(next.at.unix_seconds() >= date, "{next:?} before {date}");
}

// RFC 9110's form of a date, made by somebody else's code.
fn http_date(seconds: u64) -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}"), "+%a, %d %b %Y %H:%M:%S GMT"])
        .env("LC_ALL", "C")
        .output()
        .expect("date is installed");
    String::from_utf8(output.stdout).expect("ASCII").trim().to_owned()
}

#[tokio::test]
async fn retry_after_is_obeyed_on_sqlite() {
    obeys_retry_after(Database::sqlite()).await;
}

#[tokio::test]
async fn retry_after_is_obeyed_on_postgresql() {
    obeys_retry_after(Database::postgres().await).await;
}

async fn isolates_what_is_refused(database: Database) {
    let sink = Sink::start().await;
    sink.refuse(Some("user_7"));
    let ids = database.add_aliases(&people(16), 2).await;
    let doorward = delivering(&database, &sink).start().await;
    let only_dead = async || {
        let pending = database.number("select count(*) from doorward_outbox where state = 'pending'").await;
        (pending == 0).then_some(())
    };
    eventually("everything else to be delivered", only_dead).await;
    let expected: Vec<usize> = (0..32).map(|number| usize::from(number % 16 != 7)).collect();
    assert_eq!(times(&sink, &ids), expected);
    assert_in_order(&sink);
    assert_eq!(database.depth().await, 2, "the dead do not hold their own person back either");
    assert_eq!([attempts(&doorward, "alias", "dead").await, attempts(&doorward, "alias", "retried").await], [2, 0]);
}

#[tokio::test]
async fn one_refused_event_does_not_take_its_batch_down_on_sqlite() {
    isolates_what_is_refused(Database::sqlite()).await;
}

#[tokio::test]
async fn one_refused_event_does_not_take_its_batch_down_on_postgresql() {
    isolates_what_is_refused(Database::postgres().await).await;
}

#[tokio::test]
async fn a_sink_that_turns_us_away_kills_no_event_before_its_attempts_are_used_up() {
    let (database, sink) = (Database::sqlite(), Sink::start().await);
    sink.always(Some(status(401)));
    let ids = database.add_aliases(&people(3), 1).await;
    let doorward = delivering(&database, &sink).config("outbox: { retry: { attempts_max: 1000 } }").start().await;
    let seen = async |count: usize| {
        eventually("requests", async || (sink.requests().len() >= count).then_some(())).await;
    };
    seen(6).await;
    assert_eq!(database.number("select count(*) from doorward_outbox where state = 'dead'").await, 0);
    counted(&doorward, "alias", "pending", 3).await;
    let age: f64 = metric(&doorward, "outbox_oldest_age_seconds{kind=\"alias\"}").await.parse().expect("seconds");
    assert!(age > 0.0);
    assert!(attempts(&doorward, "alias", "retried").await >= 3);
    sink.always(None);
    delivered(&database).await;
    assert_eq!(times(&sink, &ids), [1; 3]);
    drop(doorward);

    sink.always(Some(status(500)));
    database.add_aliases(&people(3), 1).await;
    let doorward = delivering(&database, &sink).config("outbox: { retry: { attempts_max: 3 } }").start().await;
    let dead = "select count(*) from doorward_outbox where state = 'dead' and attempts = 3 and error = 'the sink answered 500'";
    eventually("three dead", async || (database.number(dead).await == 3).then_some(())).await;
    counted(&doorward, "alias", "dead", 3).await;
}

#[tokio::test]
async fn a_sink_over_tls_must_be_who_it_says() {
    let (database, files) = (Database::sqlite(), TempDir::new("sink"));
    let [trusted, other] = [Authority::new(), Authority::new()];
    let sink = Upstream::tls(trusted.identity(&["127.0.0.1"]).acceptor(&["http/1.1"])).await;
    let start = async |authority: &Authority| {
        authority.write(&files.join("ca.pem"));
        let (url, ca) = (sink.url(), files.join("ca.pem"));
        let alias = format!("{{ url: '{url}', api_key: phc_canary, ca: '{}' }}", ca.display());
        let config = format!("outbox: {{ alias: {alias}, poll_interval: 50ms, retry: {{ first: 10ms, max: 50ms }} }}");
        Doorward::builder().database(&database.url()).config(&config).start().await
    };
    database.add_aliases(&people(2), 1).await;
    let doorward = start(&other).await;
    doorward.wait_log("the sink did not answer: ").await;
    assert_eq!((sink.requests().len(), database.depth().await), (0, 2));
    drop(doorward);
    // What it had leased when it was killed is anybody's after the lease, a minute by default.
    database.end_leases().await;
    let _doorward = start(&trusted).await;
    delivered(&database).await;
    assert!(sink.requests().iter().all(|request| request.target == "/batch/"));
}

#[tokio::test]
async fn two_replicas_share_the_work_and_double_nothing() {
    let (database, sink) = (Database::postgres().await, Sink::start().await);
    sink.hold(Some(Step::Received));
    let ids = database.add_aliases(&people(60), 5).await;
    let batch = "outbox: { batch: 10 }";
    let one = delivering(&database, &sink).config(PATIENT).config(batch).start().await;
    sink.held().await;
    sink.hold(None);
    // The first replica waits for an answer: whatever is accepted meanwhile comes from the second.
    let two = delivering(&database, &sink).config(PATIENT).config(batch).start().await;
    eventually("the second replica to deliver", async || (sink.accepted().len() >= 100).then_some(())).await;
    sink.release();
    delivered(&database).await;
    assert_eq!(times(&sink, &ids), vec![1; 300]);
    assert_in_order(&sink);
    let (by_one, by_two) = (attempts(&one, "alias", "delivered").await, attempts(&two, "alias", "delivered").await);
    assert!(by_one >= 10 && by_two >= 100 && by_one + by_two == 300, "{by_one} and {by_two}");
}

#[tokio::test]
async fn a_delivery_under_way_is_finished_before_the_process_ends() {
    let (database, sink) = (Database::sqlite(), Sink::start().await);
    sink.hold(Some(Step::Accepted));
    let ids = database.add_aliases(&people(4), 1).await;
    let mut doorward = delivering(&database, &sink).config(PATIENT).start().await;
    sink.held().await;
    doorward.signal("TERM");
    doorward.wait_log("Stopped").await;
    sink.release();
    assert!(doorward.wait_exit().await.success());
    assert_eq!(database.depth().await, 0);
    assert_eq!(times(&sink, &ids), [1; 4]);
}
