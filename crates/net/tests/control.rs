//! Control connections between real endpoints: what peers rely on and what strangers cannot do.

mod common;

use bytes::Bytes;
use common::*;
use hedge_model::PeerAddr;
use hedge_net::{
    CloseReason, Hello, IDLE_TIMEOUT, Net, NetConfig, NetError, SecretKey, VersionRange, encode,
};
use iroh::endpoint::Connection;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// Connections of one address that have not authenticated.
const SILENT_MAX: usize = 128;

fn closed<T: std::fmt::Debug>(result: Result<T, NetError>) -> CloseReason {
    match result {
        Err(NetError::Closed(reason)) => reason,
        other => panic!("expected a close, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_announced_with_its_key_its_words_and_its_address() {
    let (supervisor, worker) = (net().await, net().await);
    let to = supervisor.local_addr();
    assert!(!to.addrs.is_empty());
    let hello = hello();
    let (dialled, ()) = tokio::join!(worker.connect(&to, &hello), async {
        let incoming = supervisor.accept().await.unwrap();
        assert_eq!(incoming.peer, worker.peer());
        assert_eq!(incoming.hello, hello);
        assert_eq!(incoming.addrs, worker.local_addr().addrs);
        assert_eq!(incoming.version(), 1);
        assert!(!format!("{incoming:?}").contains("7, 7"));
        incoming.refuse(CloseReason::Stranger);
    });
    let error = dialled.unwrap_err();
    assert!(
        matches!(error, NetError::Closed(CloseReason::Stranger)),
        "{error:?}"
    );
    assert!(error.to_string().contains("hedge ticket"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_frames_each_way_arrive_in_order() {
    let (supervisor, worker) = (net().await, net().await);
    let (mut a, mut b) = linked(&worker, &supervisor).await;
    let send = async |sender: &hedge_net::LinkSender| {
        for number in 0..1000u32 {
            sender
                .send(encode(&[(number, vec![number as u8; 700])]).unwrap())
                .await
                .unwrap();
        }
    };
    let receive = async |receiver: &mut hedge_net::LinkReceiver| {
        for number in 0..1000u32 {
            let batch = receiver.recv::<(u32, Vec<u8>)>().await.unwrap();
            assert_eq!(batch, [(number, vec![number as u8; 700])]);
        }
    };
    within(async {
        tokio::join!(
            send(&a.sender),
            send(&b.sender),
            receive(&mut a.receiver),
            receive(&mut b.receiver)
        )
    })
    .await;
    assert!(a.sender.traffic().sent_bytes > 700_000);
    assert!(b.sender.traffic().received_bytes > 700_000);
    assert!(a.sender.rtt().is_some());
    assert_eq!(a.sender.remote_addrs(), supervisor.local_addr().addrs);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_frame_passes_and_what_is_queued_is_read_before_the_end() {
    let (supervisor, worker) = (net().await, net().await);
    let (a, mut b) = linked(&worker, &supervisor).await;
    let big = vec![5u8; hedge_net::FRAME_BYTES_MAX - 100];
    let frame = encode(&[&big]).unwrap();
    within(async {
        a.sender.send(frame).await.unwrap();
        a.sender
            .send(encode(&[b"last".to_vec()]).unwrap())
            .await
            .unwrap();
        let finish = a.sender.clone().finish(LIMIT);
        let read = async {
            assert!(b.receiver.recv::<Vec<u8>>().await.unwrap() == [big]);
            assert_eq!(b.receiver.recv::<Vec<u8>>().await.unwrap(), [b"last"]);
            assert_eq!(
                closed(b.receiver.recv::<Vec<u8>>().await),
                CloseReason::Done
            );
        };
        tokio::join!(finish, read)
    })
    .await;
    assert_eq!(a.sender.closed().await, CloseReason::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_fills_a_bounded_queue() {
    let (supervisor, worker) = (net().await, net().await);
    let (a, b) = linked(&worker, &supervisor).await;
    let frame = encode(&[vec![0u8; 1 << 20]]).unwrap();
    let mut queued = 0;
    let full = loop {
        match a.sender.try_send(frame.clone()) {
            Ok(()) => queued += 1,
            Err(error) => break error,
        }
        assert!(queued < 100, "the queue has no bound");
    };
    assert!(matches!(full, NetError::QueueFull), "{full:?}");
    b.sender.close(CloseReason::Revoked);
    assert_eq!(within(a.sender.closed()).await, CloseReason::Revoked);
    assert_eq!(
        closed(within(a.sender.send(frame)).await),
        CloseReason::Revoked
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_arrive_and_one_that_is_too_long_is_refused() {
    let (supervisor, worker) = (net().await, net().await);
    let (a, mut b) = linked(&worker, &supervisor).await;
    let mut heartbeats = vec![Bytes::new(); 16];
    let mut seen = 0u32;
    within(async {
        for number in 1..=50u32 {
            a.sender
                .send_heartbeat(Bytes::copy_from_slice(&number.to_le_bytes()))
                .unwrap();
            let count = b.heartbeats.recv(&mut heartbeats).await.unwrap();
            for heartbeat in &heartbeats[..count] {
                let number = u32::from_le_bytes(heartbeat[..].try_into().unwrap());
                assert!(number > seen);
                seen = number;
            }
        }
    })
    .await;
    assert_eq!(seen, 50);
    let long = Bytes::from(vec![0; a.sender.heartbeat_bytes_max() + 1]);
    assert!(matches!(
        a.sender.send_heartbeat(long),
        Err(NetError::TooLarge { .. })
    ));
    assert!(a.sender.heartbeat_bytes_max() >= 1100);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_is_told_so() {
    let supervisor = net().await;
    let config = NetConfig {
        versions: VersionRange { min: 7, max: 9 },
        ..NetConfig::new(SecretKey::generate(), loopback())
    };
    let newer = Net::bind(config).await.unwrap();
    let reason = closed(within(newer.connect(&supervisor.local_addr(), &hello())).await);
    assert_eq!(reason, CloseReason::WrongVersion);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_message_that_is_oversized_cut_or_nonsense_is_closed_with_its_code() {
    let supervisor = net().await;
    let raw = raw_endpoint().await;
    let gib = (1u32 << 30).to_le_bytes().to_vec();
    let nonsense = [&10u32.to_le_bytes()[..], &[1, 0, 1, 0], &[255; 6]].concat();
    let short = [&2u32.to_le_bytes()[..], &[1, 0]].concat();
    let cases = [
        (gib, CloseReason::Oversized),
        (nonsense, CloseReason::Malformed),
        (short, CloseReason::Malformed),
    ];
    for (bytes, reason) in cases {
        let connection = raw_connect(&raw, &supervisor.local_addr()).await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        assert_eq!(close_reason(&connection).await, reason);
    }
    let connection = raw_connect(&raw, &supervisor.local_addr()).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&raw_hello(&hello())[..20]).await.unwrap();
    send.finish().unwrap();
    assert_eq!(close_reason(&connection).await, CloseReason::Malformed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_peer_is_closed_in_time() {
    let supervisor = net().await;
    let raw = raw_endpoint().await;
    let connection = raw_connect(&raw, &supervisor.local_addr()).await;
    let start = Instant::now();
    assert_eq!(
        close_reason(&connection).await,
        CloseReason::HandshakeTimeout
    );
    assert!(start.elapsed() < Duration::from_secs(30));
}

/// A member that turns bad: its link to a supervisor that goes on with others.
async fn after_a_good_hello(bytes: &[u8]) -> (CloseReason, NetError) {
    let (supervisor, worker) = (net().await, net().await);
    let (good, mut good_there) = linked(&worker, &supervisor).await;
    let raw = raw_endpoint().await;
    let to = supervisor.local_addr();
    let (connection, mut bad) = tokio::join!(
        async {
            let connection = raw_connect(&raw, &to).await;
            let (mut send, recv) = connection.open_bi().await.unwrap();
            send.write_all(&raw_hello(&hello())).await.unwrap();
            send.write_all(bytes).await.unwrap();
            (connection, send, recv)
        },
        async {
            supervisor
                .accept()
                .await
                .unwrap()
                .accept(b"")
                .await
                .unwrap()
        }
    );
    let before = resident_bytes();
    let error = within(bad.receiver.recv::<String>()).await.unwrap_err();
    let reason = close_reason(&connection.0).await;
    assert!(resident_bytes() < before + (64 << 20));

    good.sender
        .send(encode(&["still here"]).unwrap())
        .await
        .unwrap();
    let batch = within(good_there.receiver.recv::<String>()).await.unwrap();
    assert_eq!(batch, ["still here"]);
    (reason, error)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_header_of_one_gibibyte_closes_that_peer_alone() {
    let (reason, error) = after_a_good_hello(&(1u32 << 30).to_le_bytes()).await;
    assert_eq!(reason, CloseReason::Oversized);
    assert!(matches!(error, NetError::TooLarge { bytes, .. } if bytes == 1 << 30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_does_not_decode_closes_that_peer_alone() {
    let bytes = [&4u32.to_le_bytes()[..], &[1, 200, 1, 2]].concat();
    let (reason, error) = after_a_good_hello(&bytes).await;
    assert_eq!(reason, CloseReason::Malformed);
    assert!(matches!(error, NetError::Decode(_)));
    let (reason, error) = after_a_good_hello(&[1, 0, 0, 0, 77]).await;
    assert_eq!(reason, CloseReason::WrongVersion);
    assert!(matches!(error, NetError::FrameVersion(77)));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_port_changes_nothing() {
    let (supervisor, worker) = (net().await, net().await);
    let (a, mut b) = linked(&worker, &supervisor).await;
    let socket = UdpSocket::bind(loopback()).unwrap();
    let to = supervisor.local_addr().addrs[0];
    for round in 0..2000usize {
        let bytes: Vec<u8> = (0..round % 1400)
            .map(|i| (i * 31 + round * 17) as u8 ^ 0xc3)
            .collect();
        socket.send_to(&bytes, to).unwrap();
    }
    a.sender
        .send(encode(&["unimpressed"]).unwrap())
        .await
        .unwrap();
    assert_eq!(
        within(b.receiver.recv::<String>()).await.unwrap(),
        ["unimpressed"]
    );
    let newcomer = net().await;
    linked(&newcomer, &supervisor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_strangers_of_one_address_are_bounded_and_keep_nobody_out() {
    let supervisor = net().await;
    let raw = raw_endpoint().await;
    let to = raw_addr(&supervisor.local_addr());
    let before = resident_bytes();
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..600 {
        let (raw, to) = (raw.clone(), to.clone());
        flood.spawn(async move { raw.connect(to, hedge_net::ALPN_CONTROL).await });
    }
    let mut silent = Vec::new();
    within(async {
        while let Some(connected) = flood.join_next().await {
            silent.extend(connected.unwrap());
        }
    })
    .await;
    assert!(resident_bytes() < before + (400 << 20));
    let worker = net().await;
    let (dialled, accepted) = linked(&worker, &supervisor).await;
    assert_eq!(dialled.peer(), supervisor.peer());
    assert_eq!(accepted.peer(), worker.peer());
    // All others lose their places to those who came later, or because they stay silent.
    within(async {
        let open = |silent: &[Connection]| {
            let open = silent.iter().filter(|one| one.close_reason().is_none());
            open.count()
        };
        while open(&silent) > SILENT_MAX {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_at_the_address_is_said_so() {
    let worker = net().await;
    let gone = net().await;
    let to = gone.local_addr();
    gone.close().await;
    let error = within(worker.connect(&to, &hello())).await.unwrap_err();
    assert!(matches!(error, NetError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_of_someone_else_does_not_keep_us_from_the_right_one() {
    let (right, wrong, worker) = (net().await, net().await, net().await);
    let addrs = [wrong.local_addr().addrs, right.local_addr().addrs].concat();
    let to = PeerAddr {
        peer: right.peer(),
        addrs,
    };
    let hello = Hello {
        proof: None,
        ..hello()
    };
    let (dialled, accepted) = tokio::join!(within(worker.connect(&to, &hello)), async {
        within(right.accept()).await.unwrap().accept(b"").await
    });
    assert_eq!(dialled.unwrap().0.peer(), right.peer());
    assert_eq!(accepted.unwrap().peer(), worker.peer());

    // At nobody's own address there is someone else: that is not the peer we asked for.
    let to = PeerAddr {
        peer: net().await.peer(),
        addrs: wrong.local_addr().addrs,
    };
    let error = within(worker.connect(&to, &hello)).await.unwrap_err();
    assert!(matches!(error, NetError::Unreachable { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unspecified_address_offers_the_interfaces_with_loopback_last() {
    let config = NetConfig::new(SecretKey::generate(), "0.0.0.0:0".parse().unwrap());
    let supervisor = Net::bind(config).await.unwrap();
    let addr = supervisor.local_addr();
    assert!(
        addr.addrs
            .iter()
            .all(|addr| addr.port() != 0 && !addr.ip().is_unspecified())
    );
    assert!(addr.addrs.last().unwrap().ip().is_loopback(), "{addr:?}");
    linked(&net().await, &supervisor).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() {
    let first = net().await;
    let addr = first.local_addr().addrs[0];
    let error = Net::bind(NetConfig::new(SecretKey::generate(), addr))
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
}

/// Plays both parts: it starts itself as a process of its own that dials back.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_killed_is_lost_within_the_idle_timeout() {
    const DIAL: &str = "HEDGE_NET_TEST_DIAL";
    if let Ok(dial) = std::env::var(DIAL) {
        let (peer, addr) = dial.split_once(' ').unwrap();
        let addrs = vec![addr.parse().unwrap()];
        let peer = peer.parse().unwrap();
        let worker = net().await;
        let to = PeerAddr { peer, addrs };
        let _link = worker.connect(&to, &hello()).await.unwrap();
        return std::future::pending().await;
    }
    let supervisor = net().await;
    let own = supervisor.local_addr();
    let name = "a_peer_that_is_killed_is_lost_within_the_idle_timeout";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact"])
        .env(DIAL, format!("{} {}", own.peer, own.addrs[0]))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut child = KilledOnDrop(child);
    let incoming = within(supervisor.accept()).await.unwrap();
    let link = incoming.accept(b"").await.unwrap();
    // The keep-alive goes on for as long as the peer lives.
    let alive = tokio::time::timeout(Duration::from_secs(3), link.sender.closed()).await;
    assert!(alive.is_err(), "closed although the peer lives: {alive:?}");
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    let start = Instant::now();
    assert_eq!(within(link.sender.closed()).await, CloseReason::Lost);
    let took = start.elapsed();
    // The timeout starts with the last packet; the rest is for a loaded machine.
    assert!(took < IDLE_TIMEOUT + Duration::from_secs(20), "{took:?}");
    println!("noticed after {took:?}");
}

struct KilledOnDrop(std::process::Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
