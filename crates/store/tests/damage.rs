//! What happens to files, and what is found of it.

mod support;

use hedge_store::{NodeId, Options, StoreError, What};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use support::faulty_disk::{Failure, FaultyDisk};
use support::{Hub, Node, disk, group, member};
use tempfile::TempDir;

fn options(folder: &Path) -> Options {
    Options {
        segment_bytes: 8 << 10,
        snapshot_records: 1_000_000,
        ..Options::new(disk(folder), member(1))
    }
}

/// A closed journal of many small files, with a snapshot of its beginning: records `0..count`.
async fn written(count: u64) -> (TempDir, NodeId) {
    let hub = Hub::default();
    let folder = tempfile::tempdir().unwrap();
    let snapshots = Options {
        snapshot_records: count * 2 / 3,
        ..options(folder.path())
    };
    let node = Node::open_with(&hub, snapshots).await.unwrap();
    node.journal.found().await.unwrap();
    node.heard.until("leader", |told| told.leading).await;
    for number in 0..count {
        node.propose(number..number + 1).await;
        if number % 50 == 49 {
            // Not all in one flush, which would be all in one file.
            node.heard
                .until("commit", |told| told.numbers.len() as u64 == number + 1)
                .await;
        }
    }
    node.until("snapshot", |group| group.log.snapshot.is_some())
        .await;
    let id = node.id();
    node.close(&hub).await;
    (folder, id)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|one| one.unwrap().path())
        .collect();
    files.retain(|path| fs::metadata(path).unwrap().len() > 0);
    files.sort();
    files
}

fn named(folder: &Path, begins: &str) -> Vec<PathBuf> {
    let mut files = files(folder);
    files.retain(|path| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with(begins)
    });
    files
}

fn copy_of(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in files(folder) {
        fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
    }
    copy
}

async fn opened(folder: &Path) -> Result<Vec<u64>, StoreError> {
    let hub = Hub::default();
    let node = Node::open_with(&hub, options(folder)).await?;
    node.heard.until("leader again", |told| told.leading).await;
    let numbers = node.heard.with(|told| told.numbers.clone());
    node.close(&hub).await;
    Ok(numbers)
}

#[tokio::test]
async fn every_flipped_byte_is_found_with_its_file_and_place() {
    let (folder, _) = written(3000).await;
    let all = files(folder.path());
    let bytes: u64 = all
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    let mut hit = BTreeSet::new();
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    let mut roll = |below: u64| {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % below
    };
    // Sixty anywhere, and some in each kind of file, which are of very different lengths.
    let kinds = ["member", "snapshot-", "log-"];
    for round in 0..60 + 10 * kinds.len() {
        let kind = round.checked_sub(60).map(|left| kinds[left / 10]);
        let from = kind.map_or(all.clone(), |kind| named(folder.path(), kind));
        let from_bytes: u64 = from
            .iter()
            .map(|path| fs::metadata(path).unwrap().len())
            .sum();
        let mut at = roll(from_bytes);
        let file = from
            .iter()
            .find(|path| {
                let length = fs::metadata(path).unwrap().len();
                let here = at < length;
                at = if here { at } else { at - length };
                here
            })
            .unwrap();
        let copy = copy_of(folder.path());
        let target = copy.path().join(file.file_name().unwrap());
        let mut content = fs::read(&target).unwrap();
        content[at as usize] ^= 1 << roll(8);
        fs::write(&target, &content).unwrap();
        match opened(copy.path()).await {
            Err(error @ StoreError::Damaged { .. }) => {
                let StoreError::Damaged { path, offset, .. } = &error else {
                    unreachable!()
                };
                assert_eq!(path, &target, "byte {at}");
                assert!(*offset <= content.len() as u64, "byte {at}: {offset}");
                assert!(error.to_string().contains("hedge journal repair"));
            }
            other => panic!("byte {at} of {}: {other:?}", target.display()),
        }
        let report = hedge_store::check(copy.path()).unwrap();
        assert!(
            !report.damage.is_empty(),
            "byte {at} of {}",
            target.display()
        );
        hit.insert(target.file_name().unwrap().to_owned());
    }
    assert!(hit.len() > 5 && bytes > 50_000, "{hit:?}");
}

#[tokio::test]
async fn what_was_never_acknowledged_is_cut_off_in_gap() {
    let (folder, _) = written(500).await;
    let last = named(folder.path(), "log-").pop().unwrap();
    let mut content = fs::read(&last).unwrap();
    // The half of an entry that was being written.
    let half = content[content.len() - 20..].to_vec();
    content.extend_from_slice(&half);
    fs::write(&last, content).unwrap();
    assert_eq!(opened(folder.path()).await.unwrap().len(), 500);
    assert_eq!(
        opened(folder.path()).await.unwrap().len(),
        500,
        "and once more"
    );
}

#[tokio::test]
async fn what_was_acknowledged_and_is_missing_is_found() {
    let (folder, _) = written(3000).await;
    let logs = named(folder.path(), "log-");
    assert!(logs.len() > 3, "{logs:?}");
    let cut = |bytes: u64| {
        let copy = copy_of(folder.path());
        let last = copy.path().join(logs.last().unwrap().file_name().unwrap());
        let file = fs::OpenOptions::new().write(true).open(&last).unwrap();
        file.set_len(fs::metadata(&last).unwrap().len().saturating_sub(bytes))
            .unwrap();
        copy
    };
    for bytes in [1, 10, 100] {
        let copy = cut(bytes);
        let error = opened(copy.path()).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Damaged { .. }),
            "{bytes}: {error}"
        );
    }
    let gone = [
        logs[logs.len() / 2].clone(),
        logs.last().unwrap().clone(),
        named(folder.path(), "snapshot-").remove(0),
        named(folder.path(), "member").remove(0),
    ];
    for gone in gone {
        let copy = copy_of(folder.path());
        fs::remove_file(copy.path().join(gone.file_name().unwrap())).unwrap();
        let error = opened(copy.path()).await.map(|numbers| numbers.len());
        assert!(
            matches!(error, Err(StoreError::Damaged { .. })),
            "{}: {error:?}",
            gone.display()
        );
    }
}

#[tokio::test]
async fn a_full_disk_is_reported_and_nothing_acknowledged_is_lost() {
    for failure in [Failure::FullAfter(100_000), Failure::ShortWriteAt(100_000)] {
        let acknowledged = until_it_fails(failure).await;
        assert!(acknowledged > 100, "{acknowledged}");
    }
}

/// Entries, and the marks of how far they are flushed, are hit alike.
#[tokio::test]
async fn a_disk_that_is_full_at_any_byte_leaves_what_was_acknowledged() {
    for failure in [Failure::FullAfter, Failure::ShortWriteAt] {
        for at in (2_000..2_200).step_by(11) {
            until_it_fails(failure(at)).await;
        }
    }
}

/// Proposes until the disk fails, and opens what is left; gives how many were acknowledged.
async fn until_it_fails(failure: Failure) -> usize {
    let hub = Hub::default();
    let folder = tempfile::tempdir().unwrap();
    let full = Options {
        disk: FaultyDisk::with(failure),
        ..options(folder.path())
    };
    let node = Node::open_with(&hub, full).await.unwrap();
    node.journal.found().await.unwrap();
    node.heard.until("leader", |told| told.leading).await;
    let mut next = 0;
    while node.heard.with(|told| told.failed.is_none()) {
        match node.journal.propose(next, vec![support::record(next)]) {
            Ok(()) => next += 1,
            // Refused until the failure is heard of, on this same thread.
            Err(_) => tokio::task::yield_now().await,
        }
        let open = |told: &support::Told| next - told.own.len() as u64;
        node.heard
            .until("commit or failure", |told| {
                open(told) < 10 || told.failed.is_some()
            })
            .await;
        assert!(next < 1_000_000);
    }
    let (acknowledged, leading, failed) = node
        .heard
        .with(|told| (told.own.clone(), told.leading, told.failed.take().unwrap()));
    assert!(
        matches!(&failed, StoreError::File { doing: "write", .. }),
        "{failed}"
    );
    assert!(!leading);
    node.close(&hub).await;
    // There is room again.
    let numbers = opened(folder.path()).await.unwrap();
    assert!(numbers.starts_with(&acknowledged), "{failure:?}");
    acknowledged.len()
}

#[tokio::test]
async fn a_journal_alone_is_repaired_up_to_its_first_damage_and_says_what_is_lost() {
    let (folder, _) = written(3000).await;
    let logs = named(folder.path(), "log-");
    let hurt = &logs[logs.len() - 2];
    let mut content = fs::read(hurt).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 0x10;
    fs::write(hurt, content).unwrap();
    assert!(opened(folder.path()).await.is_err());
    let repair = hedge_store::repair(folder.path()).unwrap();
    assert_eq!(repair.damage.len(), 1);
    assert_eq!(repair.unreadable.len(), 1, "only the entry that was hit");
    let lost: Vec<u64> = repair.lost.iter().flat_map(numbers_of).collect();
    let kept = opened(folder.path()).await.unwrap();
    assert_eq!(kept, (0..kept.len() as u64).collect::<Vec<_>>());
    let first_lost = kept.len() as u64 + 1;
    assert_eq!(
        lost,
        (first_lost..3000).collect::<Vec<_>>(),
        "all behind it is named"
    );
    assert!(files(&repair.copy).len() >= logs.len());
    fs::remove_dir_all(&repair.copy).unwrap();
}

fn numbers_of(line: &hedge_store::Line) -> Vec<u64> {
    match &line.what {
        What::Records { records, .. } => records.iter().map(support::number).collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn a_damaged_vote_or_head_can_be_repaired_too() {
    let (folder, id) = written(3000).await;
    let member = folder.path().join("member");
    let mut content = fs::read(&member).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs::write(&member, content).unwrap();
    let repair = hedge_store::repair(folder.path()).unwrap();
    assert!(repair.lost.is_empty() && repair.unreadable.is_empty());
    assert_eq!(opened(folder.path()).await.unwrap().len(), 3000);
    let hub = Hub::default();
    let node = Node::open_with(&hub, options(folder.path())).await.unwrap();
    assert_eq!(node.id(), id);
    node.close(&hub).await;
    fs::remove_dir_all(&repair.copy).unwrap();

    // Of each segment: the checksum of its head, what the head says, and the mark.
    let logs = named(folder.path(), "log-");
    assert!(logs.len() > 3, "{logs:?}");
    for at in [20, 30, 55] {
        for log in [&logs[0], &logs[logs.len() / 2], &logs[logs.len() - 1]] {
            let copy = copy_of(folder.path());
            let target = copy.path().join(log.file_name().unwrap());
            let mut content = fs::read(&target).unwrap();
            content[at] ^= 1;
            fs::write(&target, content).unwrap();
            let repair = hedge_store::repair(copy.path()).unwrap();
            assert_eq!(repair.damage.len(), 1, "{:?}", repair.damage);
            assert_eq!(repair.unreadable, [] as [u64; 0], "byte {at} of {log:?}");
            let kept = opened(copy.path()).await.unwrap();
            let lost: Vec<u64> = repair.lost.iter().flat_map(numbers_of).collect();
            let all: Vec<u64> = kept.iter().chain(&lost).copied().collect();
            assert_eq!(all, (0..3000).collect::<Vec<_>>(), "byte {at} of {log:?}");
            fs::remove_dir_all(&repair.copy).unwrap();
        }
    }
}

#[tokio::test]
async fn every_record_is_shown_also_while_the_journal_is_in_use() {
    let hub = Hub::default();
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open_with(&hub, options(folder.path())).await.unwrap();
    node.journal.found().await.unwrap();
    node.heard.until("leader", |told| told.leading).await;
    node.commit(0..1000).await;
    node.commit(1000..1001).await;
    let lines: Vec<_> = hedge_store::dump(folder.path())
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let numbers: Vec<u64> = lines.iter().flat_map(numbers_of).collect();
    assert_eq!(numbers, (0..1001).collect::<Vec<_>>());
    assert!(
        lines.iter().any(
            |line| matches!(&line.what, What::Members { voters, .. } if voters == &[node.id()])
        )
    );
    assert!(lines.windows(2).all(|two| two[0].index + 1 == two[1].index));
    node.close(&hub).await;
}

#[tokio::test]
async fn a_backup_made_while_records_are_written_holds_all_that_was_acknowledged_before() {
    let hub = Hub::default();
    let folder = tempfile::tempdir().unwrap();
    let busy = Options {
        snapshot_records: 5000,
        ..options(folder.path())
    };
    let node = Node::open_with(&hub, busy).await.unwrap();
    node.journal.found().await.unwrap();
    node.heard.until("leader", |told| told.leading).await;
    node.commit(0..500).await;
    let writer = {
        let journal = node.journal.clone();
        tokio::spawn(async move {
            let mut next = 500;
            while next < 200_000 {
                match journal.propose(next, vec![support::record(next)]) {
                    Ok(()) => next += 1,
                    Err(refused) if refused.why == hedge_store::Refused::NotLeading => return,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        })
    };
    node.heard
        .until("records", |told| told.own.len() > 10_000)
        .await;
    let before = node.heard.with(|told| told.own.len());
    let copy = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().to_owned(), copy.path().to_owned());
    tokio::task::spawn_blocking(move || hedge_store::backup(&from, &to))
        .await
        .unwrap()
        .unwrap();
    node.close(&hub).await;
    writer.await.unwrap();
    hedge_store::recover(copy.path(), member(7)).unwrap();
    let numbers = opened(copy.path()).await.unwrap();
    assert!(numbers.len() >= before, "{} of {before}", numbers.len());
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_survivor_of_three_starts_again_alone() {
    let hub = Hub::default();
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let nodes = group(&hub, folders.iter().map(|one| disk(one.path())).collect()).await;
    nodes[0].commit(0..100).await;
    nodes[2]
        .heard
        .until("records", |told| told.numbers.len() == 100)
        .await;
    let old = nodes[2].id();
    for node in nodes {
        node.close(&hub).await;
    }
    let survivor = folders[2].path();
    assert!(
        matches!(
            hedge_store::repair(survivor),
            Err(StoreError::Members { .. })
        ),
        "others have it all"
    );
    let id = hedge_store::recover(survivor, member(3)).unwrap();
    assert_ne!(id, old);
    let node = Node::open(&hub, 3, disk(survivor)).await.unwrap();
    assert_eq!(node.id(), id);
    node.heard.until("leader", |told| told.leading).await;
    node.heard
        .with(|told| assert_eq!(told.numbers, (0..100).collect::<Vec<_>>()));
    node.commit(100..101).await;
    let seats = node.journal.group().borrow().seats.clone();
    assert_eq!(seats.keys().copied().collect::<Vec<_>>(), [id]);
    node.close(&hub).await;
}
