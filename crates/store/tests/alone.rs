//! One supervisor: a group of one.

mod support;

use hedge_store::{Journal, Options, Place, Refused, StoreError};
use support::{Hub, Line, Node, disk, member, peer, record};

async fn founded(hub: &Hub, place: Place) -> Node {
    let node = Node::open(hub, 1, place).await.unwrap();
    node.journal.found().await.unwrap();
    node.heard.until("leader", |told| told.leading).await;
    node
}

#[tokio::test]
async fn records_come_back_in_order_with_their_names() {
    let hub = Hub::default();
    let node = founded(&hub, Place::Memory).await;
    for number in 0..50 {
        node.propose(number * 10..number * 10 + 10).await;
    }
    node.heard
        .until("500 records", |told| told.numbers.len() == 500)
        .await;
    node.heard.with(|told| {
        assert_eq!(told.numbers, (0..500).collect::<Vec<_>>());
        assert_eq!(told.own, told.numbers);
    });
    assert!(matches!(
        node.journal.found().await,
        Err(StoreError::Founded)
    ));
    node.close(&hub).await;
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart() {
    let hub = Hub::default();
    let folder = tempfile::tempdir().unwrap();
    let node = founded(&hub, disk(folder.path())).await;
    let id = node.id();
    node.commit(0..1000).await;
    node.close(&hub).await;

    let node = Node::open(&hub, 1, disk(folder.path())).await.unwrap();
    assert_eq!(node.id(), id, "a member keeps its name");
    assert!(node.journal.founded());
    node.heard.until("leader again", |told| told.leading).await;
    node.heard.with(|told| {
        assert_eq!(
            told.numbers,
            (0..1000).collect::<Vec<_>>(),
            "all of it, before it leads"
        );
        assert!(told.own.is_empty(), "nothing was proposed in this life");
    });
    node.commit(1000..1001).await;
    node.close(&hub).await;
}

#[tokio::test]
async fn the_log_is_bounded_by_snapshots() {
    let hub = Hub::default();
    let folder = tempfile::tempdir().unwrap();
    let options = || Options {
        snapshot_records: 20_000,
        segment_bytes: 16 << 10,
        ..Options::new(disk(folder.path()), member(1))
    };
    let node = Node::open_with(&hub, options()).await.unwrap();
    node.journal.found().await.unwrap();
    node.heard.until("leader", |told| told.leading).await;
    for round in 0..60_u64 {
        for entry in 0..100 {
            let first = round * 1000 + entry * 10;
            node.propose(first..first + 10).await;
        }
        let last = round * 1000 + 999;
        node.heard
            .until("commit", |told| told.own.last() == Some(&last))
            .await;
    }
    // Less than its records alone would take.
    let whole = 60_000 * 8;
    node.until("log cut by snapshots", |group| {
        group.log.purged.is_some_and(|index| index > 2000) && group.log.bytes < whole
    })
    .await;
    node.close(&hub).await;

    let node = Node::open_with(&hub, options()).await.unwrap();
    node.heard.until("leader again", |told| told.leading).await;
    node.heard.with(|told| {
        assert_eq!(told.restored, 1);
        assert_eq!(told.numbers, (0..60_000).collect::<Vec<_>>());
    });
    node.close(&hub).await;
}

#[tokio::test]
async fn a_log_of_few_long_entries_is_cut_before_it_has_many() {
    const ENTRIES: u64 = 200;
    const RECORDS: u64 = 2000;
    let hub = Hub::default();
    let folder = tempfile::tempdir().unwrap();
    let options = || Options {
        snapshot_bytes: 256 << 10,
        segment_bytes: 16 << 10,
        ..Options::new(disk(folder.path()), member(1))
    };
    let node = Node::open_with(&hub, options()).await.unwrap();
    node.journal.found().await.unwrap();
    node.heard.until("leader", |told| told.leading).await;
    for entry in 0..ENTRIES {
        let first = entry * RECORDS;
        node.commit(first..first + RECORDS).await;
    }
    node.until("log cut by bytes", |group| {
        group.log.purged.is_some_and(|index| index > ENTRIES / 4)
    })
    .await;
    node.close(&hub).await;

    let node = Node::open_with(&hub, options()).await.unwrap();
    node.heard.until("leader again", |told| told.leading).await;
    node.heard.with(|told| {
        assert_eq!(told.restored, 1);
        assert_eq!(told.numbers, (0..ENTRIES * RECORDS).collect::<Vec<_>>());
    });
    node.close(&hub).await;
}

#[tokio::test]
async fn proposals_are_refused_rather_than_queued_without_end() {
    let hub = Hub::default();
    let options = Options {
        open_max: 4,
        events_max: 1,
        ..Options::new(Place::Memory, member(1))
    };
    let line = Line {
        hub: hub.clone(),
        from: peer(1),
    };
    let (journal, mut said) = Journal::open(options, line).await.unwrap();
    let refused = journal.propose(0, vec![record(0)]).unwrap_err();
    assert_eq!(refused.why, Refused::NotLeading);
    assert_eq!(refused.records, [record(0)]);
    journal.found().await.unwrap();
    let lead = support::within("leader", said.recv()).await;
    let Some(hedge_store::JournalEvent::Lead { term }) = lead else {
        panic!("{lead:?}")
    };
    for other in [term - 1, term + 1] {
        let refused = journal.propose_in(other, 0, vec![record(0)]).unwrap_err();
        assert_eq!(refused.why, Refused::NotLeading);
    }
    // Nobody listens now: what is said backs up, and then what is proposed.
    let refused = support::within("refusal", async {
        for number in 0.. {
            if let Err(refused) = journal.propose(number, vec![record(number)]) {
                return (number, refused);
            }
            tokio::task::yield_now().await;
        }
        unreachable!()
    })
    .await;
    assert_eq!(refused.1.why, Refused::Full);
    for number in 0..refused.0 {
        match support::within("commit", said.recv()).await {
            Some(hedge_store::JournalEvent::Committed { first, .. }) => {
                assert_eq!(first, Some(number))
            }
            other => panic!("{other:?}"),
        }
    }
    support::within("end", journal.close()).await;
}

#[tokio::test]
async fn a_folder_is_used_once_at_a_time() {
    let hub = Hub::default();
    let folder = tempfile::tempdir().unwrap();
    let node = founded(&hub, disk(folder.path())).await;
    let second = Node::open(&hub, 2, disk(folder.path())).await;
    assert!(matches!(second.err(), Some(StoreError::InUse { .. })));
    node.close(&hub).await;
    let again = Node::open(&hub, 1, disk(folder.path())).await.unwrap();
    again.close(&hub).await;
}
