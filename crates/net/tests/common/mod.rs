//! What the tests of this crate share: real endpoints on loopback.
#![allow(dead_code)]

pub mod peer;

use hedge_model::PeerAddr;
use hedge_net::{ALPN_CONTROL, CloseReason, Hello, Link, Net, NetConfig, Role, SecretKey};
use iroh::endpoint::{Connection, ConnectionError, presets};
use iroh::{Endpoint, EndpointAddr, RelayMode, TransportAddr};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// No test waits longer than this for anything.
pub const LIMIT: Duration = Duration::from_secs(120);

pub fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub async fn net() -> Net {
    Net::bind(NetConfig::new(SecretKey::generate(), loopback()))
        .await
        .unwrap()
}

pub fn hello() -> Hello {
    Hello {
        role: Role::Worker,
        proof: Some([7; 16]),
        payload: b"hello".to_vec(),
    }
}

/// A link between two peers: the dialler's end and the accepting end.
pub async fn linked(dialler: &Net, acceptor: &Net) -> (Link, Link) {
    let to = acceptor.local_addr();
    let hello = hello();
    let (dialled, accepted) = tokio::join!(dialler.connect(&to, &hello), async {
        acceptor.accept().await.unwrap().accept(b"welcome").await
    });
    let (link, welcome) = dialled.unwrap();
    assert_eq!(welcome, b"welcome");
    (link, accepted.unwrap())
}

pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("this took too long")
}

/// A peer that speaks QUIC but otherwise says what the test wants.
pub async fn raw_endpoint() -> Endpoint {
    Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr(loopback())
        .unwrap()
        .bind()
        .await
        .unwrap()
}

pub fn raw_addr(to: &PeerAddr) -> EndpointAddr {
    let id = hedge_net::public_key(to.peer).unwrap();
    EndpointAddr::from_parts(id, to.addrs.iter().copied().map(TransportAddr::Ip))
}

pub async fn raw_connect(endpoint: &Endpoint, to: &PeerAddr) -> Connection {
    within(endpoint.connect(raw_addr(to), ALPN_CONTROL))
        .await
        .unwrap()
}

pub fn raw_hello(hello: &Hello) -> Vec<u8> {
    let mut message = vec![1, 0, 1, 0];
    message.extend(postcard::to_allocvec(hello).unwrap());
    let mut bytes = (message.len() as u32).to_le_bytes().to_vec();
    bytes.extend(message);
    bytes
}

/// The reason that the other side gives when it closes.
pub async fn close_reason(connection: &Connection) -> CloseReason {
    match within(connection.closed()).await {
        ConnectionError::ApplicationClosed(close) => {
            CloseReason::from_code(close.error_code.into_inner())
        }
        other => panic!("not closed by the application: {other:?}"),
    }
}

/// Resident memory of this process in bytes.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 4096
}
