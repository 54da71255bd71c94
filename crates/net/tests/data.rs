//! Content between real peers: served under grants alone, fetched from any holder, verified, kept.

mod common;

use common::peer::*;
use common::*;
use hedge_model::Hash;
use hedge_net::{
    ALPN_DATA, DataServer, DataStore, FetchError, Grant, Net, NetConfig, NetError, Refusal,
    SecretKey, SourceFailure, Trust,
};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use tokio::runtime::Handle;

/// One peer with a store, serving it and able to fetch.
fn content(bytes: usize) -> Vec<u8> {
    (0..bytes as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8)
        .collect()
}

fn hash_of(bytes: &[u8]) -> Hash {
    Hash(*blake3::hash(bytes).as_bytes())
}

fn failures(error: FetchError) -> Vec<SourceFailure> {
    match error {
        FetchError::Sources { failures, .. } => failures.into_iter().map(|(_, f)| f).collect(),
        other => panic!("expected failures of sources, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_of_every_size_passes_from_one_peer_to_the_next() {
    let (leader, [holder, reader, third]) = grid().await;
    let mut hashes = Vec::new();
    let sizes = [0, 1, 1024, 16 << 10, (16 << 10) + 1, 1 << 20, (3 << 20) + 7];
    for size in sizes {
        let bytes = content(size);
        let hash = holder.store.add_bytes(bytes.clone()).await.unwrap();
        assert_eq!(hash, hash_of(&bytes));
        hashes.push(hash);
    }
    for peer in [&reader, &third] {
        // The third takes it from the second: each holder serves content.
        let source = if peer.net.peer() == third.net.peer() {
            &reader
        } else {
            &holder
        };
        let grant = Grant::sign(&leader, peer.net.peer(), hashes.clone(), 1, soon());
        for (hash, size) in hashes.iter().zip(sizes) {
            let sources = [source.addr()];
            peer.fetch(*hash, size as u64, &sources, Some(&grant))
                .await
                .unwrap();
            assert_eq!(
                peer.store.read(*hash, 4 << 20).await.unwrap(),
                content(size)
            );
        }
    }
    assert_eq!(
        holder.server.served_bytes().into_keys().collect::<Vec<_>>(),
        [reader.net.peer()]
    );
    assert_eq!(third.store.bytes_held(), sizes.iter().sum::<usize>() as u64);
    assert!(third.fetcher.fetched_bytes()[&reader.net.peer()] > 4 << 20);
    let error = third.store.read(hashes[5], 1000).await.unwrap_err();
    assert!(matches!(error, NetError::TooLarge { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_content_comes_from_the_living_one_of_two_sources() {
    let (leader, [dead, holder, reader]) = grid().await;
    let bytes = content(64 << 20);
    let path = holder.path("input");
    fs::write(&path, &bytes).unwrap();
    let (hash, size) = holder.store.add_file_by_reference(&path).await.unwrap();
    assert_eq!((hash, size), (hash_of(&bytes), 64 << 20));
    let dead_addr = dead.addr();
    dead.net.close().await;
    let grant = Grant::sign(&leader, reader.net.peer(), vec![hash], 1, soon());
    // Two at a time become one transfer.
    let sources = [dead_addr, holder.addr()];
    let one = reader.fetcher.fetch(hash, size, &sources, Some(&grant));
    let two = reader.fetcher.fetch(hash, size, &sources, Some(&grant));
    let (one, two) = within(async { tokio::join!(one, two) }).await;
    one.unwrap();
    two.unwrap();
    assert!(holder.served() < (64 << 20) + (64 << 20) / 100);
    let target = reader.path("copy");
    reader.store.export(hash, &target, true).await.unwrap();
    assert!(fs::read(&target).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fitting_grant_not_a_byte_is_served() {
    let (leader, [holder, reader, other]) = grid().await;
    let bytes = content(100_000);
    let hash = holder.store.add_bytes(bytes.clone()).await.unwrap();
    let (me, size) = (reader.net.peer(), bytes.len() as u64);
    let cases = [
        (None, Refusal::NotGranted),
        (
            Some(Grant::sign(
                &leader,
                other.net.peer(),
                vec![hash],
                1,
                soon(),
            )),
            Refusal::NotGranted,
        ),
        (
            Some(Grant::sign(&leader, me, vec![Hash([9; 32])], 1, soon())),
            Refusal::NotGranted,
        ),
        (
            Some(Grant::sign(&leader, me, vec![hash], 1, 1_000_000_000)),
            Refusal::Expired,
        ),
        (
            Some(Grant::sign(
                &SecretKey::generate(),
                me,
                vec![hash],
                1,
                soon(),
            )),
            Refusal::BadSignature,
        ),
    ];
    for (grant, refusal) in cases {
        let error = reader
            .fetch(hash, size, &[holder.addr()], grant.as_ref())
            .await
            .unwrap_err();
        assert_eq!(failures(error), [SourceFailure::Refused(refusal)]);
    }
    // Whether it holds something is not told to strangers either.
    let error = reader
        .fetch(Hash([1; 32]), 5, &[holder.addr()], None)
        .await
        .unwrap_err();
    assert_eq!(
        failures(error),
        [SourceFailure::Refused(Refusal::NotGranted)]
    );
    assert_eq!(holder.served(), 0);
    assert!(!reader.store.has(hash));

    holder.trust.raise_epoch_min(2);
    let old = Grant::sign(&leader, me, vec![hash], 1, soon());
    let error = reader.fetch(hash, size, &[holder.addr()], Some(&old)).await;
    assert_eq!(
        failures(error.unwrap_err()),
        [SourceFailure::Refused(Refusal::OldEpoch)]
    );
    let new = Grant::sign(&leader, me, vec![hash], 2, soon());
    reader
        .fetch(hash, size, &[holder.addr()], Some(&new))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_reads_from_its_members_without_a_grant() {
    let leader = SecretKey::generate();
    let id = hedge_net::peer_id(&leader);
    let (supervisor, client) = (Peer::with_key(leader, id).await, Peer::new(id).await);
    let hash = client.store.add_bytes(content(200_000)).await.unwrap();
    supervisor
        .fetch(hash, 200_000, &[client.addr()], None)
        .await
        .unwrap();
    let error = client
        .fetch(Hash([4; 32]), 1, &[supervisor.addr()], None)
        .await
        .unwrap_err();
    assert_eq!(
        failures(error),
        [SourceFailure::Refused(Refusal::NotGranted)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_open_transfers_and_refuses_new_ones() {
    let (leader, [holder, reader]) = grid().await;
    let size = 64 << 20;
    let hash = holder.store.add_bytes(content(size)).await.unwrap();
    let grant = Grant::sign(&leader, reader.net.peer(), vec![hash], 1, soon());
    let sources = [holder.addr()];
    let fetch = reader
        .fetcher
        .fetch(hash, size as u64, &sources, Some(&grant));
    let revoke = async {
        while holder.served() < 1 << 20 {
            tokio::task::yield_now().await;
        }
        holder.trust.revoke(reader.net.peer());
    };
    let (fetched, ()) = within(async { tokio::join!(fetch, revoke) }).await;
    assert!(
        matches!(fetched, Err(FetchError::Sources { .. })),
        "{fetched:?}"
    );
    assert!(holder.served() < size as u64);
    assert!(!reader.store.has(hash));
    assert!(
        reader
            .fetch(hash, size as u64, &sources, Some(&grant))
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrived_before_a_break_is_not_sent_again() {
    let (leader, [first, second, reader]) = grid().await;
    let size = 64u64 << 20;
    let bytes = content(size as usize);
    let hash = first.store.add_bytes(bytes.clone()).await.unwrap();
    second.store.add_bytes(bytes).await.unwrap();
    let grant = Grant::sign(&leader, reader.net.peer(), vec![hash], 1, soon());
    let sources = [first.addr(), second.addr()];
    let fetch = reader.fetcher.fetch(hash, size, &sources, Some(&grant));
    let break_off = async {
        while first.served() < size / 2 {
            tokio::task::yield_now().await;
        }
        first.trust.revoke(reader.net.peer());
    };
    let (fetched, ()) = within(async { tokio::join!(fetch, break_off) }).await;
    fetched.unwrap();
    let sent_twice = first.served() + second.served() - size;
    assert!(sent_twice < size / 3, "{sent_twice} bytes were sent twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_a_damaged_file_is_found_out_and_another_one_helps() {
    let (leader, [damaged, sound, reader]) = grid().await;
    let bytes = content(5 << 20);
    let hash = damaged.store.add_bytes(bytes.clone()).await.unwrap();
    sound.store.add_bytes(bytes.clone()).await.unwrap();
    let file = stored(&damaged.path("data"), hash);
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(b"rot", 3 << 20).unwrap();

    let grant = Grant::sign(&leader, reader.net.peer(), vec![hash], 1, soon());
    let size = bytes.len() as u64;
    let error = reader
        .fetch(hash, size, &[damaged.addr()], Some(&grant))
        .await
        .unwrap_err();
    assert_eq!(failures(error), [SourceFailure::Refused(Refusal::Damaged)]);
    assert!(!damaged.store.has(hash));
    let sources = [damaged.addr(), sound.addr()];
    reader
        .fetch(hash, size, &sources, Some(&grant))
        .await
        .unwrap();
    assert!(reader.store.read(hash, 8 << 20).await.unwrap() == bytes);

    // It gave its copy up, and may take a sound one in its place.
    let grant = Grant::sign(&leader, damaged.net.peer(), vec![hash], 1, soon());
    damaged
        .fetch(hash, size, &[sound.addr()], Some(&grant))
        .await
        .unwrap();
    assert!(damaged.store.read(hash, 8 << 20).await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_noticed_when_content_is_read_or_written_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = DataStore::open(&dir.path().join("data")).await.unwrap();
    let path = dir.path().join("input");
    for exported in [false, true] {
        fs::write(&path, content(1 << 20)).unwrap();
        let (hash, _) = store.add_file_by_reference(&path).await.unwrap();
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .write_all_at(b"x", 99)
            .unwrap();
        let target = dir.path().join("out");
        let error = match exported {
            true => store.export(hash, &target, false).await.unwrap_err(),
            false => store.read(hash, 1 << 20).await.unwrap_err(),
        };
        assert!(
            matches!(error, NetError::Damaged(h) if h == hash),
            "{error:?}"
        );
        assert!(!target.exists());
        assert!(!store.has(hash));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_out_is_a_copy_with_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let store = DataStore::open(&dir.path().join("data")).await.unwrap();
    for (size, executable, mode) in [
        (0, false, 0o644),
        (100, true, 0o755),
        (1 << 20, true, 0o755),
    ] {
        let hash = store.add_bytes(content(size)).await.unwrap();
        let target = dir.path().join(format!("out-{size}"));
        store.export(hash, &target, executable).await.unwrap();
        let metadata = fs::metadata(&target).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode);
        assert_eq!(metadata.nlink(), 1);
        assert_eq!(hash_of(&fs::read(&target).unwrap()), hash);
        fs::write(&target, "changed by the task").unwrap();
        assert_eq!(store.read(hash, 1 << 20).await.unwrap(), content(size));

        let error = store.export(hash, &target, executable).await.unwrap_err();
        assert!(
            error.to_string().contains(target.to_str().unwrap()),
            "{error}"
        );
        assert_eq!(fs::read(&target).unwrap(), b"changed by the task");
    }
    let missing = store
        .export(Hash([1; 32]), &dir.path().join("none"), false)
        .await;
    assert!(matches!(missing, Err(NetError::NotHeld(_))));
    for bad in ["nowhere", "data"] {
        let error = store.add_file(&dir.path().join(bad)).await.unwrap_err();
        assert!(error.to_string().contains(bad), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_outlives_its_process_until_it_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = DataStore::open(dir.path()).await.unwrap();
    let kept = store.add_bytes(content(300_000)).await.unwrap();
    let small = store.add_bytes(&b"small"[..]).await.unwrap();
    let gone = store.add_bytes(content(400_000)).await.unwrap();
    store.forget([gone]).await.unwrap();
    assert!(!store.has(gone));
    assert!(matches!(
        store.read(gone, 1 << 20).await,
        Err(NetError::NotHeld(_))
    ));
    let second = DataStore::open(dir.path()).await.unwrap_err();
    assert!(
        second.to_string().contains(dir.path().to_str().unwrap()),
        "{second}"
    );
    store.close();
    drop(store);

    let store = DataStore::open(dir.path()).await.unwrap();
    let mut held = store.list();
    held.sort();
    let mut expected = [(kept, 300_000), (small, 5)];
    expected.sort();
    assert_eq!(held, expected);
    assert_eq!(store.bytes_held(), 300_005);
    assert_eq!(store.read(kept, 1 << 20).await.unwrap(), content(300_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_needed_again_while_it_is_being_forgotten_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = DataStore::open(dir.path()).await.unwrap();
    let hash = store.add_bytes(content(300_000)).await.unwrap();
    let other = store.add_bytes(content(200_000)).await.unwrap();
    // From the call on nobody takes it for held, whenever its bytes are given up.
    let forgetting = store.forget([other, hash]);
    assert!(!store.has(hash) && !store.has(other));
    store.add_bytes(content(300_000)).await.unwrap();
    forgetting.await.unwrap();
    assert!(store.has(hash) && !store.has(other));
    store.close();
    drop(store);
    let store = DataStore::open(dir.path()).await.unwrap();
    assert_eq!(store.list(), [(hash, 300_000)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_on_the_data_protocol_is_refused_and_others_are_served() {
    let (leader, [holder, reader]) = grid().await;
    let hash = holder.store.add_bytes(content(50_000)).await.unwrap();
    let raw = raw_endpoint().await;
    let to = raw_addr(&holder.addr());
    let connection = within(raw.connect(to, ALPN_DATA)).await.unwrap();
    for nonsense in [vec![], vec![1], vec![77; 300], vec![1; 200 << 10]] {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        // Too long a request is cut off while it is being written.
        _ = send.write_all(&nonsense).await;
        _ = send.finish();
        let answer = within(recv.read_to_end(100)).await.unwrap();
        assert_eq!(answer, [8], "{} bytes of nonsense", nonsense.len());
    }
    let reason = close_reason(&connection).await;
    assert_eq!(reason, hedge_net::CloseReason::HandshakeTimeout);
    let grant = Grant::sign(&leader, reader.net.peer(), vec![hash], 1, soon());
    reader
        .fetch(hash, 50_000, &[holder.addr()], Some(&grant))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_size_and_no_source_are_named() {
    let (leader, [holder, reader]) = grid().await;
    let hash = holder.store.add_bytes(content(50_000)).await.unwrap();
    let grant = Grant::sign(&leader, reader.net.peer(), vec![hash], 1, soon());
    let found = failures(
        reader
            .fetch(hash, 60_000, &[holder.addr()], Some(&grant))
            .await
            .unwrap_err(),
    );
    assert_eq!(
        found,
        [SourceFailure::WrongSize {
            expected: 60_000,
            found: 50_000
        }]
    );
    assert!(matches!(
        reader
            .fetch(hash, 50_000, &[reader.addr()], Some(&grant))
            .await,
        Err(FetchError::NoSource { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_started_anew_is_found_again_at_its_old_address() {
    let (leader, key) = (SecretKey::generate(), SecretKey::generate());
    let trusted = hedge_net::peer_id(&leader);
    let reader = Peer::new(trusted).await;
    let first = Peer::with_key(key.clone(), trusted).await;
    let (old, new) = (content(70_000), content(80_000));
    let (old_hash, new_hash) = (hash_of(&old), hash_of(&new));
    let grant = Grant::sign(
        &leader,
        reader.net.peer(),
        vec![old_hash, new_hash],
        1,
        soon(),
    );
    first.store.add_bytes(old).await.unwrap();
    let sources = [first.addr()];
    let fetched = reader.fetch(old_hash, 70_000, &sources, Some(&grant));
    fetched.await.unwrap();
    let (link, there) = linked(&reader.net, &first.net).await;
    let listen = first.addr().addrs[0];
    first.net.close().await;
    assert_eq!(
        within(link.sender.closed()).await,
        hedge_net::CloseReason::Done
    );
    drop((first, there));

    let store_dir = tempfile::tempdir().unwrap();
    let store = DataStore::open(store_dir.path()).await.unwrap();
    store.add_bytes(new.clone()).await.unwrap();
    let server = DataServer::new(store, Trust::new([trusted]));
    let data = Some((server, Handle::current()));
    let second = within(async {
        loop {
            // The port is free once the last task of its former owner has ended.
            let config = NetConfig {
                data: data.clone(),
                ..NetConfig::new(key.clone(), listen)
            };
            match Net::bind(config).await {
                Ok(net) => break net,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    let fetched = reader.fetch(new_hash, 80_000, &sources, Some(&grant));
    fetched.await.unwrap();
    assert_eq!(reader.store.read(new_hash, 1 << 20).await.unwrap(), new);
    linked(&reader.net, &second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_a_blob_proves_it_without_sending_it() {
    let leader = SecretKey::generate();
    let id = hedge_net::peer_id(&leader);
    let supervisor = Peer::with_key(leader, id).await;
    let (holder, other) = (Peer::new(id).await, Peer::new(id).await);
    let mut blobs = Vec::new();
    for size in [1, 100_000, 1 << 20, (3 << 20) + 7] {
        let bytes = content(size);
        let hash = holder.store.add_bytes(bytes.clone()).await.unwrap();
        supervisor.store.add_bytes(bytes).await.unwrap();
        blobs.push((hash, size as u64));
    }
    let failed = within(supervisor.fetcher.prove(&holder.addr(), &blobs)).await;
    assert!(failed.is_empty(), "{failed:?}");
    assert!(holder.served() < 1000, "{} bytes", holder.served());
    // One that does not hold them proves nothing.
    let failed = within(supervisor.fetcher.prove(&other.addr(), &blobs)).await;
    assert_eq!(failed.len(), blobs.len());
    for error in failed {
        assert_eq!(failures(error), [SourceFailure::Refused(Refusal::NotHeld)]);
    }
    // Nobody but a supervisor is shown anything.
    other.store.add_bytes(content(100_000)).await.unwrap();
    let failed = within(other.fetcher.prove(&holder.addr(), &blobs[1..2])).await;
    let [error] = &failed[..] else {
        panic!("{failed:?}");
    };
    assert_eq!(
        failures(error.clone()),
        [SourceFailure::Refused(Refusal::NotGranted)]
    );
    // A wrong length is no proof.
    let longer = [(blobs[1].0, blobs[1].1 + 1)];
    let failed = within(supervisor.fetcher.prove(&holder.addr(), &longer)).await;
    assert_eq!(failed.len(), 1, "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_names_who_sent_the_whole_blob_and_what_was_there_before() {
    let leader = SecretKey::generate();
    let id = hedge_net::peer_id(&leader);
    let (supervisor, holder) = (Peer::with_key(leader, id).await, Peer::new(id).await);
    let (old, small, large) = (content(20_000), content(50_000), content((2 << 20) + 5));
    let mut blobs = Vec::new();
    for bytes in [&old, &small, &large] {
        let hash = holder.store.add_bytes(bytes.clone()).await.unwrap();
        blobs.push((hash, bytes.len() as u64));
    }
    supervisor.store.add_bytes(old).await.unwrap();
    let sources = [holder.addr()];
    let fetched = within(supervisor.fetcher.fetch_from(&blobs, &sources, None)).await;
    assert!(fetched.failed.is_empty(), "{:?}", fetched.failed);
    let sender = holder.net.peer();
    let mut delivered = fetched.delivered;
    delivered.sort();
    let mut expected = vec![(blobs[1].0, sender), (blobs[2].0, sender)];
    expected.sort();
    assert_eq!(delivered, expected);
    // What is read without being stored comes from that peer, whatever is held here.
    for ((hash, size), bytes) in blobs.iter().zip([content(20_000), small, large]) {
        let read = within(supervisor.fetcher.read(*hash, *size, &holder.addr())).await;
        assert!(read.unwrap() == bytes);
    }
    let none = Peer::new(id).await;
    let read = within(
        supervisor
            .fetcher
            .read(blobs[0].0, blobs[0].1, &none.addr()),
    )
    .await;
    assert_eq!(
        failures(read.unwrap_err()),
        [SourceFailure::Refused(Refusal::NotHeld)]
    );
}
