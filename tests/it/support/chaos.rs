//! A TCP proxy that can be cut, made silent or slowed down while connections pass through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A proxy to one loopback port; it and its connections end on drop.
pub struct Chaos {
    port: u16,
    target: Arc<AtomicU16>,
    mode: Arc<watch::Sender<Mode>>,
    passed: watch::Receiver<u64>,
    _tasks: JoinSet<()>,
}

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// They pass.
    Open,
    /// Connections are closed, new ones as soon as they are accepted.
    Cut,
    /// Connections stay open and nothing passes, in either direction.
    Silent,
    /// Each piece passes after a delay.
    Slow(Duration),
}

impl Chaos {
    /// Starts a proxy to `target` on 127.0.0.1.
    pub async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let mode = Arc::new(watch::Sender::new(Mode::Open));
        let (count, passed) = watch::channel(0);
        let mut tasks = JoinSet::new();
        let modes = mode.subscribe();
        let target = Arc::new(AtomicU16::new(target));
        let towards = Arc::clone(&target);
        tasks.spawn(async move {
            let count = Arc::new(count);
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(relay(client, towards.load(Ordering::SeqCst), modes.clone(), Arc::clone(&count)));
            }
        });
        Self { port, target, mode, passed, _tasks: tasks }
    }

    /// Returns the proxy's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Leads new connections to `target`, as a service address does after a fail-over.
    pub fn turn_to(&self, target: u16) {
        self.target.store(target, Ordering::SeqCst);
    }

    /// Closes every connection; new ones are closed as soon as they are accepted.
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Keeps connections open and swallows everything: a network that drops packets. What arrives
    /// meanwhile waits in the sockets and passes after [`Chaos::restore`].
    pub fn silence(&self) {
        self.mode.send_replace(Mode::Silent);
    }

    /// Delays each piece that passes by `delay`.
    pub fn slow(&self, delay: Duration) {
        self.mode.send_replace(Mode::Slow(delay));
    }

    /// Lets everything pass again.
    pub fn restore(&self) {
        self.mode.send_replace(Mode::Open);
    }

    /// Returns how many bytes have passed, both directions together.
    pub fn passed(&self) -> u64 {
        *self.passed.borrow()
    }
}

async fn relay(client: TcpStream, target: u16, modes: watch::Receiver<Mode>, count: Arc<watch::Sender<u64>>) {
    if *modes.borrow() == Mode::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    // Either side's end is the end of both.
    tokio::select! {
        () = pump(client_in, server_out, modes.clone(), &count) => {}
        () = pump(server_in, client_out, modes, &count) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut modes: watch::Receiver<Mode>,
    count: &watch::Sender<u64>,
) {
    let mut buffer = vec![0; 16 * 1024];
    let mut held = 0;
    loop {
        let mode = *modes.borrow_and_update();
        match mode {
            Mode::Cut => return,
            Mode::Silent => {
                if modes.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Mode::Slow(delay) if held > 0 => tokio::time::sleep(delay).await,
            Mode::Slow(_) | Mode::Open => {}
        }
        if held > 0 {
            // The mode may have changed during the delay.
            if *modes.borrow() != mode {
                continue;
            }
            if to.write_all(&buffer[..held]).await.is_err() {
                return;
            }
            count.send_modify(|count| *count += held as u64);
            held = 0;
        }
        tokio::select! {
            changed = modes.changed() => if changed.is_err() { return },
            read = from.read(&mut buffer) => match read {
                Ok(length) if length > 0 => held = length,
                _ => return,
            },
        }
    }
}
