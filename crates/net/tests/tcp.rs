//! Large blobs over TCP between real peers.

mod common;

use common::peer::*;
use hedge_model::Hash;
use hedge_net::{FetchError, Grant, Refusal, SecretKey, SourceFailure, TcpPort};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

/// A blob of several groups, the last of which is short.
const BYTES: usize = (6 << 20) + 7;

async fn add(holder: &Peer) -> (Hash, Vec<u8>) {
    let bytes: Vec<u8> = (0..BYTES).map(|at| (at / 3) as u8).collect();
    let hash = holder.store.add_bytes(bytes.clone()).await.unwrap();
    (hash, bytes)
}

async fn listen(peer: &Peer, ip: &str) {
    let port = TcpPort::bind((ip.parse::<std::net::IpAddr>().unwrap(), 0).into());
    peer.net.use_tcp(port.await.unwrap());
}

async fn fetch(
    leader: &SecretKey,
    reader: &Peer,
    hash: Hash,
    holder: &Peer,
) -> Result<(), FetchError> {
    let grant = Grant::sign(leader, reader.net.peer(), vec![hash], 1, soon());
    let sources = [holder.addr()];
    reader
        .fetch(hash, BYTES as u64, &sources, Some(&grant))
        .await
}

/// Fetches a blob; gives how many of its bytes came over TCP.
async fn bytes_by_tcp(leader: &SecretKey, reader: &Peer, holder: &Peer) -> u64 {
    let (hash, bytes) = add(holder).await;
    fetch(leader, reader, hash, holder).await.unwrap();
    assert_eq!(reader.store.read(hash, BYTES).await.unwrap(), bytes);
    holder.server.tcp_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_comes_over_tcp_where_its_source_listens() {
    let (leader, [holder, reader]) = grid().await;
    listen(&holder, "127.0.0.1").await;
    let by_tcp = bytes_by_tcp(&leader, &reader, &holder).await;
    assert_eq!(by_tcp, BYTES as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_comes_over_tcp_where_its_reader_listens() {
    let (leader, [holder, reader]) = grid().await;
    listen(&reader, "127.0.0.1").await;
    let by_tcp = bytes_by_tcp(&leader, &reader, &holder).await;
    assert_eq!(by_tcp, BYTES as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_listener_it_comes_over_quic() {
    let (leader, [holder, reader]) = grid().await;
    assert_eq!(bytes_by_tcp(&leader, &reader, &holder).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_comes_over_quic_where_tcp_does_not_get_through() {
    // Both peers are at 127.0.0.1, where nobody listens.
    let (leader, [holder, reader]) = grid().await;
    listen(&holder, "127.0.0.2").await;
    assert_eq!(bytes_by_tcp(&leader, &reader, &holder).await, 0);
    let (leader, [holder, reader]) = grid().await;
    listen(&reader, "127.0.0.2").await;
    assert_eq!(bytes_by_tcp(&leader, &reader, &holder).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_breaks_off_says_why() {
    let (leader, [holder, reader]) = grid().await;
    listen(&holder, "127.0.0.1").await;
    let (hash, _) = add(&holder).await;
    let path = stored(&holder.path("data"), hash);
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"damage", 5 << 20).unwrap();
    match fetch(&leader, &reader, hash, &holder).await {
        Err(FetchError::Sources { failures, .. }) => {
            assert_eq!(failures[0].1, SourceFailure::Refused(Refusal::Damaged));
        }
        other => panic!("expected that the source refuses, got {other:?}"),
    }
    let came = holder.server.tcp_bytes();
    assert!(
        (4 << 20..6 << 20).contains(&came),
        "{came} bytes before that"
    );
}
