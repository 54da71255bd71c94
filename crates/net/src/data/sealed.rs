//! The groups of a large blob over TCP, which the kernel carries for a fraction of what QUIC costs a processor.
//!
//! Only where two peers reach each other directly, and one of them listens. The bytes are encrypted under a key that nobody
//! but the two ends of their QUIC connection can derive (TLS exporter, RFC 5705), a new one for each stream.

use super::fetch::SourceFailure;
use crate::tripwire::{self, Nonce, TcpPort};
use iroh::endpoint::Connection;
use ring::aead::{self, AES_256_GCM, Aad, LessSafeKey, UnboundKey};
use serde::{Deserialize, Serialize};
use std::io;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Shorter blobs come sooner over the open QUIC connection, bytes.
pub(super) const TCP_BYTES_MIN: u64 = 4 << 20;
/// Bytes that are encrypted at once.
const RECORD_BYTES: usize = 128 << 10;
/// How long one end tries to connect. The other waits meanwhile.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
const LABEL: &[u8] = b"hedgerow blob over tcp 1";

/// How a reader would take the groups of a blob over TCP, as it tells the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Offer {
    /// The reader listens at this port, and the source is to show it the nonce.
    Listens { port: u16, nonce: Nonce },
    /// The reader connects where the source listens.
    Connects,
}

/// A source's answer to an [`Offer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The groups follow over QUIC.
    Quic,
    /// The source has connected.
    Connected,
    /// The source listens at this port, and the reader is to show it the nonce.
    Listens { port: u16, nonce: Nonce },
}

impl Way {
    pub const BYTES: usize = 1 + 2 + size_of::<Nonce>();

    pub fn encode(self) -> [u8; Self::BYTES] {
        let (kind, port, nonce) = match self {
            Way::Quic => (0, 0, Nonce::default()),
            Way::Connected => (1, 0, Nonce::default()),
            Way::Listens { port, nonce } => (2, port, nonce),
        };
        let mut bytes = [0; Self::BYTES];
        bytes[0] = kind;
        bytes[1..3].copy_from_slice(&u16::to_le_bytes(port));
        bytes[3..].copy_from_slice(&nonce);
        bytes
    }

    /// None for what no source sends.
    pub fn decode(bytes: &[u8]) -> Option<Way> {
        let (kind, rest) = bytes.split_first()?;
        let (port, nonce) = rest.split_first_chunk()?;
        match kind {
            0 => Some(Way::Quic),
            1 => Some(Way::Connected),
            2 => Some(Way::Listens {
                port: u16::from_le_bytes(*port),
                nonce: nonce.try_into().ok()?,
            }),
            _ => None,
        }
    }
}

/// A stream that the other end is to connect, at this port and with this nonce.
pub(super) struct Expected {
    pub port: u16,
    pub nonce: Nonce,
    shown: Pin<Box<dyn Future<Output = Option<TcpStream>> + Send>>,
}

impl Expected {
    /// Expects it from now on; none where the system gives no random bytes.
    pub fn at(port: &TcpPort) -> Option<Expected> {
        let mut nonce = Nonce::default();
        getrandom::fill(&mut nonce).ok()?;
        Some(Expected {
            port: port.port(),
            nonce,
            shown: Box::pin(port.expect_stream(nonce)),
        })
    }

    /// The stream; none if it does not come in time.
    pub async fn stream(self, connection: &Connection) -> Option<Sealed> {
        // From the runtime that accepts, which has heartbeats to care for, to the one that is here.
        let stream = self.shown.await?.into_std().ok()?;
        let stream = TcpStream::from_std(stream).ok()?;
        Sealed::new(stream, connection, self.nonce).ok()
    }
}

/// A TCP stream that carries the groups of one blob in one direction.
#[derive(Debug)]
pub(super) struct Sealed {
    stream: TcpStream,
    key: LessSafeKey,
    /// Records so far.
    count: u64,
    record: Vec<u8>,
}

impl Sealed {
    /// Uses a stream for which this nonce was shown.
    pub fn new(stream: TcpStream, connection: &Connection, nonce: Nonce) -> io::Result<Sealed> {
        let mut key = [0; 32];
        let exported = connection.export_keying_material(&mut key, LABEL, &nonce);
        exported.map_err(|_| io::Error::other("the connection has no key for it"))?;
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(unsealed)?;
        Ok(Sealed {
            stream,
            key: LessSafeKey::new(key),
            count: 0,
            record: Vec::new(),
        })
    }

    /// Connects to the other end of a connection, which listens at this port.
    pub async fn connect(connection: &Connection, port: u16, nonce: Nonce) -> io::Result<Sealed> {
        let addrs = crate::link::remote_addrs(connection);
        let ips = addrs.into_iter().map(|addr| addr.ip());
        let connect = tripwire::connect(ips, port, nonce);
        let connected = timeout(CONNECT_WITHIN, connect).await;
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Sealed::new(stream, connection, nonce)
    }

    /// Encrypts and sends.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(RECORD_BYTES) {
            let nonce = self.next_nonce();
            self.record.clear();
            self.record.extend_from_slice(piece);
            self.key
                .seal_in_place_append_tag(nonce, Aad::empty(), &mut self.record)
                .map_err(unsealed)?;
            self.stream.write_all(&self.record).await?;
        }
        Ok(())
    }

    /// Receives and decrypts so many bytes, as they were passed to one call of [`Sealed::send`]. Some must come at least
    /// once in `stall`.
    pub async fn receive(
        &mut self,
        count: usize,
        stall: Duration,
    ) -> Result<Vec<u8>, SourceFailure> {
        let broken = |error: io::Error| SourceFailure::Broken(error.to_string());
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            let nonce = self.next_nonce();
            let piece = RECORD_BYTES.min(count - bytes.len());
            self.record.resize(piece + AES_256_GCM.tag_len(), 0);
            let mut filled = 0;
            while filled < self.record.len() {
                match timeout(stall, self.stream.read(&mut self.record[filled..])).await {
                    Ok(Ok(0)) => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
                    Ok(Ok(more)) => filled += more,
                    Ok(Err(error)) => return Err(broken(error)),
                    Err(_) => return Err(SourceFailure::Stalled(stall)),
                }
            }
            let opened = self
                .key
                .open_in_place(nonce, Aad::empty(), &mut self.record);
            bytes.extend_from_slice(opened.map_err(|_| SourceFailure::Unverified)?);
        }
        Ok(bytes)
    }

    /// Both ends count the records, which only the source encrypts.
    fn next_nonce(&mut self) -> aead::Nonce {
        let mut nonce = [0; aead::NONCE_LEN];
        nonce[..8].copy_from_slice(&self.count.to_le_bytes());
        self.count += 1;
        aead::Nonce::assume_unique_for_key(nonce)
    }
}

fn unsealed(_: ring::error::Unspecified) -> io::Error {
    io::Error::other("it cannot be encrypted")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ALPN_DATA;
    use iroh::endpoint::presets;
    use iroh::{Endpoint, EndpointAddr, RelayMode, TransportAddr};
    use std::net::{IpAddr, Ipv4Addr};
    use tokio::net::TcpListener;

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const STALL: Duration = Duration::from_secs(10);

    async fn endpoint() -> Endpoint {
        Endpoint::builder(presets::Minimal)
            .relay_mode(RelayMode::Disabled)
            .alpns(vec![ALPN_DATA.to_vec()])
            .clear_ip_transports()
            .bind_addr((LOCALHOST, 0))
            .unwrap()
            .bind()
            .await
            .unwrap()
    }

    /// Both ends of a QUIC connection, with what holds it.
    async fn connected() -> ([Endpoint; 2], [Connection; 2]) {
        let ends = [endpoint().await, endpoint().await];
        let at = ends[1].bound_sockets().into_iter().map(TransportAddr::Ip);
        let addr = EndpointAddr::from_parts(ends[1].id(), at);
        let accepting = async { ends[1].accept().await.unwrap().await.unwrap() };
        let (dialled, accepted) = tokio::join!(ends[0].connect(addr, ALPN_DATA), accepting);
        let connections = [dialled.unwrap(), accepted];
        (ends, connections)
    }

    /// Both ends of a TCP connection.
    async fn streams() -> [TcpStream; 2] {
        let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
        let connect = TcpStream::connect(listener.local_addr().unwrap());
        let (accepted, connected) = tokio::join!(listener.accept(), connect);
        [accepted.unwrap().0, connected.unwrap()]
    }

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|at| (at / 7) as u8).collect()
    }

    #[tokio::test]
    async fn bytes_of_any_count_pass() {
        let (_ends, [source, reader]) = connected().await;
        let port = TcpPort::bind((LOCALHOST, 0).into()).await.unwrap();
        let expected = Expected::at(&port).unwrap();
        let connect = Sealed::connect(&source, expected.port, expected.nonce);
        let (sending, receiving) = tokio::join!(connect, expected.stream(&reader));
        let (mut sending, mut receiving) = (sending.unwrap(), receiving.unwrap());
        for count in [0, 1, RECORD_BYTES, RECORD_BYTES + 1, 1 << 20] {
            let bytes = bytes(count);
            let (sent, received) =
                tokio::join!(sending.send(&bytes), receiving.receive(count, STALL));
            sent.unwrap();
            assert_eq!(received.unwrap(), bytes);
        }
        drop(sending);
        let ended = receiving.receive(1, STALL).await;
        assert!(matches!(ended, Err(SourceFailure::Broken(_))), "{ended:?}");
    }

    #[tokio::test]
    async fn what_was_changed_on_the_way_is_refused() {
        let (_ends, [source, reader]) = connected().await;
        let ([sent, mut changed], [mut other, received]) = (streams().await, streams().await);
        let mut sending = Sealed::new(sent, &source, [1; 16]).unwrap();
        let mut receiving = Sealed::new(received, &reader, [1; 16]).unwrap();
        let plain = bytes(100);
        sending.send(&plain).await.unwrap();
        let mut record = vec![0; plain.len() + AES_256_GCM.tag_len()];
        changed.read_exact(&mut record).await.unwrap();
        assert_ne!(record[..plain.len()], plain, "it is encrypted");
        record[50] ^= 1;
        other.write_all(&record).await.unwrap();
        let received = receiving.receive(plain.len(), STALL).await;
        assert_eq!(received, Err(SourceFailure::Unverified));
    }

    #[tokio::test]
    async fn another_connection_or_nonce_has_another_key() {
        let (_ends, [source, reader]) = connected().await;
        let (_others, [_, stranger]) = connected().await;
        for (end, nonce) in [(&stranger, [1; 16]), (&reader, [2; 16])] {
            let [sent, received] = streams().await;
            let mut sending = Sealed::new(sent, &source, [1; 16]).unwrap();
            let mut receiving = Sealed::new(received, end, nonce).unwrap();
            sending.send(&bytes(100)).await.unwrap();
            let received = receiving.receive(100, STALL).await;
            assert_eq!(received, Err(SourceFailure::Unverified));
        }
    }
}
