//! `doorward probe URL`: a health check for images that have no curl.
//!
//! Speaks plain HTTP only: it is meant for the admin port, which never speaks TLS.

use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Environment, SUCCESS, block_on, print};

/// For connection, request and status line together.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than every status line; a longer first line is not HTTP.
const STATUS_LINE_MAX: u64 = 1024;

/// The arguments of `probe`.
#[derive(Args, Debug)]
pub struct ProbeTarget {
    /// An http:// URL; asked once, for at most 2 s.
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:9090/readyz")]
    url: http::Uri,
}

/// Why the answer is not 200.
#[derive(Debug, thiserror::Error)]
enum Unwell {
    #[error("is not an http:// URL with a host")]
    NotHttp,
    #[error("cannot be reached: {0}")]
    Unreachable(#[from] std::io::Error),
    #[error("gave no answer within 2 s")]
    TimedOut,
    #[error("did not answer in HTTP")]
    NotAnswered,
    #[error("answered {0}")]
    Status(String),
}

/// Asks once; returns the exit code, 0 on status 200.
pub fn run(target: &ProbeTarget, environment: &mut Environment<'_>) -> u8 {
    let answer =
        block_on(async { tokio::time::timeout(TIMEOUT, ask(&target.url)).await.unwrap_or(Err(Unwell::TimedOut)) });
    match answer.map_err(Unwell::from).flatten() {
        Ok(()) => {
            print(environment.stdout, "ok\n");
            SUCCESS
        }
        Err(unwell) => environment.fail(&format_args!("{} {unwell}", target.url)),
    }
}

async fn ask(url: &http::Uri) -> Result<(), Unwell> {
    let authority = url.authority().filter(|_| url.scheme_str() == Some("http")).ok_or(Unwell::NotHttp)?;
    let host = authority.host().trim_matches(['[', ']']);
    let mut stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(stream.take(STATUS_LINE_MAX)).read_line(&mut line).await?;
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split_once(' ')).ok_or(Unwell::NotAnswered)?;
    match status.1.trim_end() {
        status if status.split(' ').next() == Some("200") => Ok(()),
        status => Err(Unwell::Status(status.chars().filter(|letter| !letter.is_control()).collect())),
    }
}
