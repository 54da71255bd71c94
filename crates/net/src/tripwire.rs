//! An idle TCP connection beside a control connection, which the kernel closes when a process dies: QUIC says
//! nothing then. Only where a direct path exists, and it proves nothing but a death.

use crate::pending::PendingConnections;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// Proves that a TCP connection belongs to a control connection; told over that, valid once.
pub type Nonce = [u8; 16];

/// How long a peer that connects may take to show its nonce, and a nonce waits for its peer.
const SHOWN_WITHIN: Duration = Duration::from_secs(3);
/// How long to try one address.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Connections that have shown nothing yet.
const PENDING_MAX: usize = 128;
/// Those of one source: all workers of a machine or a site may connect at once.
const PENDING_PER_SOURCE_MAX: usize = 64;
/// Nonces that nobody has shown yet: as many peers as join within [`SHOWN_WITHIN`].
const EXPECTED_MAX: usize = 16_384;

type Expected = Arc<Mutex<BTreeMap<Nonce, oneshot::Sender<TcpStream>>>>;

/// A port at which other peers connect by TCP: their tripwires, links that are measured, and large blobs. Cheap to clone;
/// dropping the last clone closes the port.
#[derive(Clone, Debug)]
pub struct TcpPort(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    port: u16,
    expected: Expected,
    accepting: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl TcpPort {
    /// Listens at this address: at its port if that is free for TCP, else at any.
    ///
    /// # Errors
    /// No port can be opened; everything else works without tripwires.
    pub async fn bind(addr: SocketAddr) -> io::Result<TcpPort> {
        let listener = match TcpListener::bind(addr).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind(SocketAddr::new(addr.ip(), 0)).await?,
        };
        let port = listener.local_addr()?.port();
        let expected = Expected::default();
        let accepting = tokio::spawn(accept(listener, expected.clone())).abort_handle();
        Ok(TcpPort(Arc::new(Inner {
            port,
            expected,
            accepting,
        })))
    }

    /// The TCP port that peers are to connect to.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Expects the peer that is told this nonce, from now on. The future gives none where too many are
    /// expected, or it does not come within 3 s.
    pub fn expect(&self, nonce: Nonce) -> impl Future<Output = Option<Tripwire>> + Send + 'static {
        let shown = self.expect_stream(nonce);
        async move { shown.await.map(Tripwire) }
    }

    /// The same for a connection over which a link is measured: see [`crate::Probe`].
    pub fn expect_probe(
        &self,
        nonce: Nonce,
    ) -> impl Future<Output = Option<crate::Probe>> + Send + 'static {
        let shown = self.expect_stream(nonce);
        async move {
            shown
                .await
                .and_then(|stream| crate::Probe::new(stream).ok())
        }
    }

    pub(crate) fn expect_stream(
        &self,
        nonce: Nonce,
    ) -> impl Future<Output = Option<TcpStream>> + Send + 'static {
        let (found, wait) = oneshot::channel();
        let mut all = lock(&self.0.expected);
        if all.len() < EXPECTED_MAX {
            all.insert(nonce, found);
        }
        drop(all);
        let place = Place(self.0.expected.clone(), nonce);
        async move {
            let _place = place;
            let shown = tokio::time::timeout(SHOWN_WITHIN, wait).await;
            shown.ok()?.ok()
        }
    }
}

/// The place of an expected nonce, which is free again when this is dropped.
struct Place(Expected, Nonce);

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.0).remove(&self.1);
    }
}

/// How a tripwire broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The other process has ended, or its machine took the connection away.
    Died,
    /// The other process lives and has given up the connection that this one stands beside.
    LetGo,
}

/// A connected tripwire.
#[derive(Debug)]
pub struct Tripwire(TcpStream);

impl Tripwire {
    /// Connects to a peer at one of these addresses and shows it the nonce.
    ///
    /// # Errors
    /// No address answers: there is no direct path for TCP.
    pub async fn connect(
        ips: impl IntoIterator<Item = IpAddr>,
        port: u16,
        nonce: Nonce,
    ) -> io::Result<Tripwire> {
        connect(ips, port, nonce).await.map(Tripwire)
    }

    /// Waits until the other process has died or has let go; says which.
    pub async fn broken(&mut self) -> Broken {
        match self.0.read(&mut [0; 1]).await {
            Ok(1) => Broken::LetGo,
            _ => Broken::Died,
        }
    }

    /// Lets go, and says so: this process lives on.
    pub async fn let_go(mut self) {
        // Where it cannot be said, the other side takes this process for dead, and hears of it again.
        _ = self.0.write_all(&[1]).await;
    }
}

/// Opens a TCP connection to a peer at one of these addresses and shows it the nonce.
pub(crate) async fn connect(
    ips: impl IntoIterator<Item = IpAddr>,
    port: u16,
    nonce: Nonce,
) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for ip in ips {
        let connect = TcpStream::connect(SocketAddr::new(ip, port));
        let connected = tokio::time::timeout(CONNECT_WITHIN, connect).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(mut stream) => {
                stream.set_nodelay(true)?;
                stream.write_all(&nonce).await?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn accept(listener: TcpListener, expected: Expected) {
    let all_pending = PendingConnections::new(PENDING_MAX, PENDING_PER_SOURCE_MAX);
    loop {
        let Ok((mut stream, from)) = listener.accept().await else {
            // Out of file descriptors, most likely.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let mut pending = all_pending.enter(from.ip().into());
        let expected = expected.clone();
        tokio::spawn(async move {
            let mut nonce = Nonce::default();
            let shown = tokio::select! {
                () = pending.evicted() => return,
                shown = tokio::time::timeout(SHOWN_WITHIN, stream.read_exact(&mut nonce)) => shown,
            };
            if !matches!(shown, Ok(Ok(_))) {
                return;
            }
            let waiting = lock(&expected).remove(&nonce);
            if let Some(waiting) = waiting {
                _ = waiting.send(stream);
            }
        });
    }
}

fn lock(
    expected: &Expected,
) -> std::sync::MutexGuard<'_, BTreeMap<Nonce, oneshot::Sender<TcpStream>>> {
    expected.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn both_sides_notice_that_the_other_let_go() {
        let wires = TcpPort::bind((LOCALHOST, 0).into()).await.unwrap();
        for theirs_first in [false, true] {
            let nonce = [7; 16];
            let expected = wires.expect(nonce);
            let mine = Tripwire::connect([LOCALHOST], wires.port(), nonce)
                .await
                .unwrap();
            let theirs = expected.await.expect("the nonce is shown");
            let (goes, mut stays) = if theirs_first {
                (theirs, mine)
            } else {
                (mine, theirs)
            };
            let mut broken = tokio::spawn(async move { stays.broken().await });
            let early = tokio::time::timeout(Duration::from_millis(50), &mut broken).await;
            assert!(early.is_err(), "both are there");
            // As the kernel does when a process ends.
            drop(goes);
            let broken = tokio::time::timeout(Duration::from_secs(10), broken).await;
            assert_eq!(broken.unwrap().unwrap(), Broken::Died);
        }
    }

    #[tokio::test]
    async fn one_that_lives_on_says_so() {
        let wires = TcpPort::bind((LOCALHOST, 0).into()).await.unwrap();
        let nonce = [8; 16];
        let expected = wires.expect(nonce);
        let mine = Tripwire::connect([LOCALHOST], wires.port(), nonce);
        let (mine, mut theirs) = (mine.await.unwrap(), expected.await.unwrap());
        mine.let_go().await;
        let broken = tokio::time::timeout(Duration::from_secs(10), theirs.broken()).await;
        assert_eq!(broken.unwrap(), Broken::LetGo);
    }

    #[tokio::test]
    async fn a_stranger_is_no_tripwire() {
        let wires = TcpPort::bind((LOCALHOST, 0).into()).await.unwrap();
        let expected = wires.expect([1; 16]);
        let mut stranger = Tripwire::connect([LOCALHOST], wires.port(), [2; 16])
            .await
            .unwrap();
        // A peer that shows a wrong nonce is disconnected.
        tokio::time::timeout(Duration::from_secs(10), stranger.broken())
            .await
            .unwrap();
        assert!(expected.await.is_none(), "nobody showed the right one");
    }

    #[tokio::test]
    async fn idle_connections_of_strangers_keep_no_tripwire_out() {
        let wires = TcpPort::bind((LOCALHOST, 0).into()).await.unwrap();
        let mut idle = Vec::new();
        for _ in 0..300 {
            idle.push(TcpStream::connect((LOCALHOST, wires.port())).await.unwrap());
        }
        let expected = wires.expect([9; 16]);
        let mine = Tripwire::connect([LOCALHOST], wires.port(), [9; 16]).await;
        assert!(expected.await.is_some(), "the nonce is shown: {mine:?}");
    }
}
