//! Commands from outside: output, errors and exit codes.

mod sessions;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpListener;

use super::{Environment, FAILURE, SUCCESS, USAGE};
use crate::config::tests::TestDirectory;

/// The output and exit code of a command.
struct CommandOutcome {
    code: u8,
    stdout: String,
    stderr: String,
}

fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> CommandOutcome {
    let variables: BTreeMap<String, String> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let arguments = std::iter::once("doorward").chain(arguments.iter().copied()).map(OsString::from);
    let mut environment = Environment { variables: &variables, stdout: &mut stdout, stderr: &mut stderr };
    let code = super::run(arguments, &mut environment);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    CommandOutcome { code, stdout: text(stdout), stderr: text(stderr) }
}

fn run(arguments: &[&str]) -> CommandOutcome {
    run_with(arguments, &[])
}

/// Answers one connection with `answer`; returns the address, and the request once it was made.
fn answer_once(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; 1024];
        let length = stream.read(&mut request).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request[..length].to_vec()).unwrap()
    });
    (address, server)
}

#[test]
fn the_arguments_are_well_formed() {
    use clap::CommandFactory;
    super::Arguments::command().debug_assert();
}

#[test]
fn help_is_a_result_and_a_wrong_argument_is_a_mistake() {
    let help = run(&["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (SUCCESS, ""));
    for part in ["serve", "check", "explain", "sessions", "keys", "probe", "DOORWARD__SESSIONS__TTL=15m", "Exit codes"]
    {
        assert!(help.stdout.contains(part), "{part} in {}", help.stdout);
    }
    let wrong = run(&["chekc"]);
    assert_eq!((wrong.code, wrong.stdout.as_str()), (USAGE, ""));
    assert!(wrong.stderr.contains("'check'"), "{}", wrong.stderr);
    assert_eq!(run(&[]).code, USAGE);
}

#[test]
fn check_prints_a_configuration_that_can_be_loaded() {
    let checked = run_with(&["check"], &[("DOORWARD__SESSIONS__REDIS__PASSWORD", "hunter2")]);
    assert_eq!(checked.code, SUCCESS, "{}", checked.stderr);
    assert!(checked.stdout.starts_with("# configuration is valid (hash "), "{}", checked.stdout);
    assert!(checked.stdout.contains("\nlisten: \"0.0.0.0:8080\"\n"), "{}", checked.stdout);
    assert!(!checked.stdout.contains("hunter2"));
    assert!(checked.stderr.starts_with("warning: clerk: no issuer is configured"), "{}", checked.stderr);
    let directory = TestDirectory::new();
    let file = directory.path().join("effective.yaml");
    std::fs::write(&file, checked.stdout.replace("\"[redacted]\"", "null")).unwrap();
    assert_eq!(run(&["check", "--config", file.to_str().unwrap()]).code, SUCCESS);
}

#[test]
fn check_tells_every_problem_and_exits_with_64() {
    let environment = [("DOORWARD__LISTEN", "nowhere"), ("DOORWARD__SESSIONS__TTL", "soon")];
    let checked = run_with(&["check", "--config", "/nowhere.yaml"], &environment);
    assert_eq!((checked.code, checked.stdout.as_str()), (USAGE, ""));
    let lines: Vec<&str> = checked.stderr.lines().collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!(lines[0], "the configuration has 3 problems:");
    assert!(lines[1].starts_with("/nowhere.yaml: cannot be read: "), "{lines:?}");
}

#[test]
fn generated_keys_are_good_keys_and_differ() {
    let (one, two) = (run(&["keys", "generate"]), run(&["keys", "generate"]));
    assert_eq!((one.code, one.stderr.as_str()), (SUCCESS, ""));
    assert_eq!(one.stdout.len(), 44, "43 letters and a line break");
    assert_ne!(one.stdout, two.stdout);
    let keys = format!("[{{ id: 1, secret: '{}' }}]", one.stdout.trim());
    assert_eq!(run_with(&["check"], &[("DOORWARD__SESSIONS__TOKEN__KEYS", &keys)]).code, SUCCESS);
}

#[test]
fn probe_is_content_with_200_only() {
    let (address, server) = answer_once("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let probed = run(&["probe", &format!("http://{address}/readyz?verbose")]);
    assert_eq!((probed.code, probed.stdout.as_str()), (SUCCESS, "ok\n"), "{}", probed.stderr);
    let request = server.join().unwrap();
    assert!(request.starts_with("GET /readyz?verbose HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\nHost: {address}\r\n")), "{request}");

    for (answer, said) in [
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "answered 503 Service Unavailable"),
        ("HTTP/1.0 2000 OK\r\n\r\n", "answered 2000 OK"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "did not answer in HTTP"),
        ("", "did not answer in HTTP"),
    ] {
        let (address, server) = answer_once(answer);
        let probed = run(&["probe", &format!("http://{address}")]);
        assert_eq!((probed.code, probed.stdout.as_str()), (FAILURE, ""), "{answer}");
        assert_eq!(probed.stderr, format!("doorward: http://{address}/ {said}\n"));
        server.join().unwrap();
    }
}

#[test]
fn probe_tells_what_it_cannot_ask() {
    // Bound and closed again: nothing listens there.
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let probed = run(&["probe", &format!("http://{unused}/")]);
    assert_eq!(probed.code, FAILURE);
    assert!(probed.stderr.contains("cannot be reached: Connection refused"), "{}", probed.stderr);
    for url in ["https://127.0.0.1/", "/readyz"] {
        let probed = run(&["probe", url]);
        assert_eq!(probed.code, FAILURE);
        assert!(probed.stderr.contains("is not an http:// URL"), "{}", probed.stderr);
    }
}

#[test]
fn explain_says_which_rule_and_what_it_needs() {
    let routes = "[{ path: /healthz, auth: none }, { id: public, path: '/public/**', auth: optional }, \
                  { path: '/admin/**', auth: required, allow_anonymous: false, require_any_role: [admin, ops] }]";
    let explain = |method: &str, path: &str| {
        let explained = run_with(&["explain", method, path], &[("DOORWARD__ROUTES", routes)]);
        (explained.code, explained.stdout)
    };
    assert_eq!(
        explain("GET", "/healthz?verbose"),
        (
            SUCCESS,
            "GET /healthz\n  seen as /healthz, by the rules and by the application alike\n  \
             rule route-0: routes[0], path /healthz\n  forwarded without asking for a session, without an identity\n"
                .to_owned()
        )
    );
    for (path, said) in [
        ("/public/x", "rule public: routes[1], path /public/**\n  without a token: forwarded without an identity"),
        ("/%61dmin/x", "seen as /admin/x, by"),
        ("/admin/x", "rule route-2: routes[2], path /admin/**\n  without a token or with a bad one: 401\n"),
        ("/admin/x", "a guest's session: 403\n  a session with none of the roles admin, ops: 403\n"),
        ("/other", "no rule matches, so a session is needed\n  without a token or with a bad one: 401\n"),
        ("/auth/session", "answered by Doorward itself; rules do not apply\n"),
        ("/_doorward/verify/x", "answered 404: forward_auth.enabled is false"),
        ("/_doorward/x", "answered 404: nothing is there"),
    ] {
        let (code, stdout) = explain("POST", path);
        assert_eq!(code, SUCCESS);
        assert!(stdout.contains(said), "{path}: {stdout}");
    }
    let (code, stdout) = explain("GET", "/public/../admin");
    assert_eq!(code, FAILURE);
    assert!(stdout.contains("answered 400: ambiguous request path"), "{stdout}");
    assert_eq!(explain("G T", "/").0, USAGE);
    let asked = |path: &str| {
        let forward_auth = "{ enabled: true }";
        let on = [("DOORWARD__FORWARD_AUTH", forward_auth), ("DOORWARD__TRUSTED_PROXIES", "['10.0.0.0/8']")];
        let explained =
            run_with(&["explain", "GET", path], &[on.as_slice(), &[("DOORWARD__UPSTREAM__URL", "null")]].concat());
        assert_eq!(explained.code, SUCCESS, "{}", explained.stderr);
        explained.stdout
    };
    assert!(asked("/auth/session").contains("asked about by another proxy: needs a session"));
    assert!(asked("/_doorward/verify").contains("answered by Doorward itself"));
    assert!(asked("/x").contains("upstream.url is null: answered 404; forwarded only by another proxy that asks"));
}
