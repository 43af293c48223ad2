//! The real `doorward` binary as a child process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use super::child::Ended;
use super::client::{Client, Response};
use super::idp::Idp;
use super::ports::free_port;
use super::temp::TempDir;
use super::{eventually, signal};

/// A running Doorward, killed on drop.
pub struct Doorward {
    // Before its directory: it writes there until it has ended.
    child: Ended,
    proxy: SocketAddr,
    admin: SocketAddr,
    directory: TempDir,
}

/// How to start one.
#[must_use]
pub struct Builder {
    program: PathBuf,
    proxy: SocketAddr,
    admin: SocketAddr,
    base: Vec<String>,
    overlays: Vec<String>,
    files: Vec<PathBuf>,
    store: Option<String>,
    database: Option<String>,
    environment: Vec<(String, String)>,
    directory: TempDir,
}

impl Doorward {
    /// Returns a builder: free ports, the embedded store in a directory of its own, no rate limits.
    pub fn builder() -> Builder {
        Builder {
            program: env!("CARGO_BIN_EXE_doorward").into(),
            proxy: loopback(free_port()),
            admin: loopback(free_port()),
            // The tests sign in more often than any caller does; those about limits set them.
            base: vec![
                "limits: { workers: 2, anonymous_per_minute: 0, exchange_per_minute: 0 }".to_owned(),
                "lifecycle: { drain_delay: 0s }".to_owned(),
            ],
            overlays: Vec::new(),
            files: Vec::new(),
            store: None,
            database: None,
            environment: Vec::new(),
            directory: TempDir::new("serve"),
        }
    }

    /// Returns the proxy port's address.
    pub fn proxy_addr(&self) -> SocketAddr {
        self.proxy
    }

    /// Returns the admin port's address.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// Returns a caller of the proxy port.
    pub fn client(&self) -> Client {
        Client::new(self.proxy)
    }

    /// Asks the admin port.
    pub async fn admin_get(&self, path: &str) -> Response {
        Client::new(self.admin).get(path).send().await
    }

    /// Returns the directory with its configuration, logs and embedded store.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Returns all that it has written to standard output and standard error.
    pub fn logs(&self) -> String {
        self.child.logs()
    }

    /// Waits until `text` stands in its logs.
    pub async fn wait_log(&self, text: &str) {
        let what = format!("{text:?} in the logs");
        eventually(&what, async || self.logs().contains(text).then_some(())).await;
    }

    /// Returns the process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal: `TERM`, `HUP`, `INT`, `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits until the process has ended.
    pub async fn wait_exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("doorward to end", async || child.status()).await
    }
}

impl Builder {
    /// Listens at a given address, e.g. again where another was.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.proxy = address;
        self
    }

    /// Keeps sessions at `url`; one Redis may serve several replicas, which all get the same token key.
    pub fn store(mut self, url: &str) -> Self {
        self.store = Some(url.to_owned());
        self
    }

    /// Keeps the directory at `url`, which several replicas may share.
    pub fn database(mut self, url: &str) -> Self {
        self.database = Some(url.to_owned());
        self
    }

    /// Sets the application's URL, and speaks what the scheme says.
    pub fn upstream(mut self, url: &str) -> Self {
        self.base.push(format!("upstream: {{ url: '{url}' }}"));
        self
    }

    /// Believes the JWTs of `idp`.
    pub fn idp(mut self, idp: &Idp) -> Self {
        self.base.push(format!("clerk: {{ issuer: '{}', jwks_url: '{}' }}", idp.issuer(), idp.jwks_url()));
        self
    }

    /// Lays `yaml` over everything before, as a `--config` file of its own.
    pub fn config(mut self, yaml: &str) -> Self {
        self.overlays.push(yaml.to_owned());
        self
    }

    /// Lays a file of the caller's over everything else, as it is when the process reads it.
    pub fn config_file(mut self, path: PathBuf) -> Self {
        self.files.push(path);
        self
    }

    /// Sets an environment variable of the process.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Asks `address` whether the process is ready, without telling the process: for a stand-in.
    pub fn stand_in(mut self, program: &Path, admin: SocketAddr) -> Self {
        self.program = program.to_owned();
        self.admin = admin;
        self
    }

    /// Starts the process and waits until it is ready; fails the test with its logs when it ends instead.
    pub async fn start(self) -> Doorward {
        let mut doorward = self.spawn();
        let Doorward { child, admin, .. } = &mut doorward;
        eventually("doorward to be ready", async || {
            child.assert_runs();
            let answer = Client::new(*admin).get("/readyz").try_send().await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        doorward
    }

    /// Starts the process without waiting: for starts that must fail, or must not become ready yet.
    pub fn spawn(self) -> Doorward {
        let mut command = Command::new(&self.program);
        command.arg("serve");
        for (number, yaml) in std::iter::once(&self.base_file()).chain(&self.overlays).enumerate() {
            let file = self.directory.join(&format!("{number}.yaml"));
            std::fs::write(&file, yaml).expect("the directory is writable");
            command.arg("--config").arg(file);
        }
        for file in &self.files {
            command.arg("--config").arg(file);
        }
        command.envs(self.environment).current_dir(self.directory.path());
        let child = Ended::start("doorward", "cargo build", &mut command, &self.directory);
        Doorward { child, proxy: self.proxy, admin: self.admin, directory: self.directory }
    }

    fn base_file(&self) -> String {
        let sessions = match &self.store {
            Some(url) if !url.starts_with("sqlite:") => format!(
                "sessions: {{ store: '{url}', token: {{ keys: [{{ id: 1, secret: 'integration-tests-only-0123456789abcdef' }}] }} }}"
            ),
            Some(url) => format!("sessions: {{ store: '{url}' }}"),
            None => format!("sessions: {{ store: 'sqlite://{}' }}", self.directory.join("sessions.db").display()),
        };
        let embedded = || format!("sqlite://{}", self.directory.join("directory.db").display());
        let database = self.database.clone().unwrap_or_else(embedded);
        format!(
            "listen: '{}'\nadmin: {{ listen: '{}' }}\n{sessions}\ndirectory: {{ url: '{database}' }}\n{}\n",
            self.proxy,
            self.admin,
            self.base.join("\n")
        )
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
