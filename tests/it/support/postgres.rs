//! A real PostgreSQL on loopback: one server for the whole test process, a database for each test.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::OnceCell;

use super::eventually;
use super::ports::free_port;

/// The server, started by the first test that needs one. It outlives no process: its keeper waits
/// for the end of our standard input to it.
static SERVER: OnceCell<Server> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A database of its own, empty.
pub struct Postgres {
    port: u16,
    name: String,
    bin: PathBuf,
}

struct Server {
    port: u16,
    bin: PathBuf,
    _keeper: Child,
}

/// Makes a cluster in `$1` with the programs in `$2`, serves it on port `$3`, and ends it with our input.
/// PostgreSQL refuses to run as root.
const KEEPER: &str = r#"
set -e
directory=$1 bin=$2 port=$3
run() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; else "$@"; fi; }
mkdir "$directory"
if [ "$(id -u)" = 0 ]; then chown postgres "$directory"; fi
chmod 700 "$directory"
cd "$directory"
run "$bin/initdb" -D data -U doorward -A trust --no-sync --locale=C -E UTF8 >initdb.log 2>&1
# Whoever is a member of this role has to know a password.
printf '%s\n' 'host all +with_password 127.0.0.1/32 scram-sha-256' | cat - data/pg_hba.conf >hba
cat hba >data/pg_hba.conf
run "$bin/postgres" -D data -h 127.0.0.1 -p "$port" -k "$directory" -c fsync=off -c max_connections=400 \
    -c max_prepared_transactions=0 >server.log 2>&1 </dev/null &
read -r _ || true
run "$bin/pg_ctl" -D data -m immediate stop >stop.log 2>&1 || true
wait
rm -rf "$directory"
"#;

impl Postgres {
    /// Makes an empty database, and starts the server if nobody has.
    pub async fn start() -> Self {
        let server = SERVER.get_or_init(Server::start).await;
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let postgres = Self { port: server.port, name, bin: server.bin.clone() };
        postgres.psql_in("postgres", &format!("create database {}", postgres.name));
        postgres
    }

    /// Returns the URL that belongs into `directory.url`.
    pub fn url(&self) -> String {
        format!("postgres://doorward@127.0.0.1:{}/{}", self.port, self.name)
    }

    /// Returns the URL for another role, whose password, if any, is not in it.
    pub fn url_as(&self, role: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{}", self.port, self.name)
    }

    /// Returns the port of the server, which all databases share.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs SQL through psql; returns its answer, a line a row, `|` between columns.
    pub fn psql(&self, sql: &str) -> String {
        self.psql_in(&self.name, sql)
    }

    /// Ends every connection to this database but psql's own.
    pub fn cut_connections(&self) {
        self.psql_in(
            "postgres",
            &format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{}'", self.name),
        );
    }

    fn psql_in(&self, database: &str, sql: &str) -> String {
        let port = self.port.to_string();
        let output = Command::new(self.bin.join("psql"))
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &port])
            .args(["-U", "doorward", "-d", database, "-c", sql])
            .output()
            .expect("psql is installed");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

impl Server {
    async fn start() -> Self {
        let (port, bin) = (free_port(), programs());
        let directory = std::env::temp_dir().join(format!("doorward-postgres-{}", uuid::Uuid::new_v4().simple()));
        let keeper = Command::new("bash")
            .args(["-c", KEEPER, "keeper"])
            .args([&directory, &bin])
            .arg(port.to_string())
            .stdin(Stdio::piped())
            // Whoever reads the tests' output must not wait for the server.
            .stdout(Stdio::null())
            .spawn()
            .expect("bash is installed");
        eventually("PostgreSQL to answer", async || answers(port).then_some(())).await;
        Self { port, bin, _keeper: keeper }
    }
}

// A server that is still starting refuses a start-up packet with an error; a ready one asks on.
fn answers(port: u16) -> bool {
    const STARTUP: &[u8] = b"\0\0\0\x29\0\x03\0\0user\0doorward\0database\0postgres\0\0";
    let ask = || -> std::io::Result<u8> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(STARTUP)?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(first[0])
    };
    ask().is_ok_and(|first| first == b'R')
}

fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("postgresql is installed");
    let newest = versions.filter_map(|entry| Some(entry.ok()?.path())).max();
    let bin = newest.expect("postgresql is installed").join("bin");
    assert!(Path::new(&bin).join("postgres").exists(), "no server in {}", bin.display());
    bin
}
