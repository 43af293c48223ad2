//! A real `redis-server` on loopback, which a test may pause, kill and bring back.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::{Child, Command};

use redis::{FromRedisValue, RedisResult};

use super::ports::free_port;
use super::temp::TempDir;
use super::{eventually, signal};

/// A running Redis server, ended on drop.
pub struct Redis {
    options: Options,
    port: u16,
    directory: TempDir,
    server: Option<Child>,
}

/// What a server is started with.
#[derive(Clone, Default)]
pub struct Options {
    arguments: Vec<String>,
    password: Option<String>,
}

/// How often each command was called; from `INFO commandstats`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calls(BTreeMap<String, u64>);

impl Options {
    /// Adds a directive of redis.conf, e.g. `["maxmemory", "2mb"]`.
    #[must_use]
    pub fn directive(mut self, words: &[&str]) -> Self {
        let [name, values @ ..] = words else { panic!("a directive has a name") };
        self.arguments.push(format!("--{name}"));
        self.arguments.extend(values.iter().map(|&value| value.to_owned()));
        self
    }

    /// Requires `password` of every client; [`Redis::url`] carries it.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.directive(&["requirepass", password])
    }

    /// Keeps data over a restart, in the server's own directory.
    #[must_use]
    pub fn append_only(self) -> Self {
        self.directive(&["appendonly", "yes"]).directive(&["appendfsync", "always"])
    }

    /// Follows `primary`.
    #[must_use]
    pub fn replica_of(self, primary: &Redis) -> Self {
        let replica = self.directive(&["replicaof", "127.0.0.1", &primary.port.to_string()]);
        match &primary.options.password {
            Some(password) => replica.directive(&["masterauth", password]),
            None => replica,
        }
    }

    /// Starts the server and waits until it answers.
    pub async fn start(self) -> Redis {
        let mut redis = Redis { options: self, port: free_port(), directory: TempDir::new("redis"), server: None };
        redis.restart().await;
        redis
    }
}

impl Redis {
    /// Starts a server that keeps nothing on disk.
    pub async fn start() -> Self {
        Self::options().start().await
    }

    /// Returns options to start a server with.
    pub fn options() -> Options {
        Options::default()
    }

    /// Returns the server's URL, with the password if it has one.
    pub fn url(&self) -> String {
        self.url_through(self.port)
    }

    /// Returns the URL for reaching the server through `port`, e.g. a [`Chaos`](super::chaos::Chaos) proxy's.
    pub fn url_through(&self, port: u16) -> String {
        match &self.options.password {
            Some(password) => format!("redis://:{password}@127.0.0.1:{port}/"),
            None => format!("redis://127.0.0.1:{port}/"),
        }
    }

    /// Returns the server's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs one command and returns its answer; an error fails the test.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_command(words).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Runs one command on a connection of its own.
    pub async fn try_command<T: FromRedisValue>(&self, words: &[&str]) -> RedisResult<T> {
        let [name, arguments @ ..] = words else { panic!("a command has a name") };
        let mut connection = redis::Client::open(self.url())?.get_multiplexed_async_connection().await?;
        redis::cmd(name).arg(arguments).query_async(&mut connection).await
    }

    /// Stops the process without closing its sockets (SIGSTOP).
    pub fn pause(&self) {
        signal(self.pid(), "STOP");
    }

    /// Lets a paused process go on.
    pub fn resume(&self) {
        signal(self.pid(), "CONT");
    }

    /// Kills the process at once (SIGKILL); [`Redis::restart`] brings it back.
    pub fn kill(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        server.kill().expect("the server is our child");
        server.wait().expect("the server is our child");
    }

    /// Starts the server, killing it first if it runs, on the same port; waits until it answers.
    pub async fn restart(&mut self) {
        self.kill();
        let log = self.directory.join("log");
        let output = File::options().create(true).append(true).open(&log).expect("the directory is writable");
        let server = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--daemonize", "no"])
            // By default a primary waits five seconds for more replicas before it serves the first.
            .args(["--repl-diskless-sync-delay", "0"])
            .arg("--dir")
            .arg(self.directory.path())
            .args(&self.options.arguments)
            .stdin(std::process::Stdio::null())
            .stdout(output)
            .spawn()
            .unwrap_or_else(|error| panic!("redis-server: {error}; install it: apt-get install redis-server"));
        let url = self.url();
        let server = self.server.insert(server);
        eventually("redis-server to answer", async || {
            if let Some(status) = server.try_wait().expect("the server is our child") {
                panic!("redis-server ended: {status}\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            let mut connection =
                redis::Client::open(url.as_str()).ok()?.get_multiplexed_async_connection().await.ok()?;
            redis::cmd("PING").query_async::<String>(&mut connection).await.ok()
        })
        .await;
    }

    /// Returns how often each command has been called, leaving out what asking costs by itself.
    pub async fn calls(&self) -> Calls {
        let text: String = self.command(&["INFO", "commandstats"]).await;
        let calls = text.lines().filter_map(|line| {
            let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            let count = figures.strip_prefix("calls=")?.split(',').next()?.parse().ok()?;
            Some((name.to_owned(), count))
        });
        let own = ["info", "client|setinfo", "hello", "auth", "ping"];
        Calls(calls.filter(|(name, _)| !own.contains(&name.as_str())).collect())
    }

    /// Returns how often each command was called since `before`; commands that were not are absent.
    pub async fn calls_since(&self, before: &Calls) -> Calls {
        let grown = self.calls().await.0.into_iter().filter_map(|(name, count)| {
            let more = count - before.of(&name);
            (more > 0).then_some((name, more))
        });
        Calls(grown.collect())
    }

    fn pid(&self) -> u32 {
        self.server.as_ref().expect("the server runs").id()
    }
}

impl Calls {
    /// Returns how often `command` (lower case, `client|list` for a subcommand) was called.
    pub fn of(&self, command: &str) -> u64 {
        self.0.get(command).copied().unwrap_or(0)
    }

    /// Returns the commands that were called at all.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns how many commands were called in all.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
