//! Several supervisors: agreement, and members that come and go.

mod support;

use hedge_store::{Place, StoreError, Timing};
use std::ops::Range;
use std::time::Duration;
use support::faulty_disk::{Failure, FaultyDisk};
use support::{Hub, Node, PATIENT, disk, group, group_with, join, leader, member, patient};

fn memory(count: usize) -> Vec<Place> {
    vec![Place::Memory; count]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_voters_agree_and_survive_their_leader() {
    let hub = Hub::default();
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut nodes = group(&hub, folders.iter().map(|one| disk(one.path())).collect()).await;
    nodes[0].commit(0..100).await;
    agree(&nodes, 0..100).await;
    // The leader is gone, with proposals on their way.
    nodes[0].propose(100..200).await;
    let gone = nodes.remove(0);
    hub.cut(gone.peer);
    let next = leader(&nodes).await;
    let heard = next.heard.with(|told| told.numbers.clone());
    assert!(heard == (0..100).collect::<Vec<_>>() || heard == (0..200).collect::<Vec<_>>());
    next.commit(200..300).await;
    // The old one comes back, hears that it leads no longer, and what it missed.
    hub.mend(gone.peer);
    gone.heard.until("deposition", |told| !told.leading).await;
    gone.heard
        .until("the rest", |told| told.numbers.last() == Some(&299))
        .await;
    let all: Vec<_> = nodes
        .iter()
        .chain([&gone])
        .map(|node| node.heard.with(|told| told.numbers.clone()))
        .collect();
    assert!(all.iter().all(|one| *one == all[0]), "all have the same");
    for node in nodes.into_iter().chain([gone]) {
        node.close(&hub).await;
    }
}

/// Waits until all have heard these numbers and no others.
async fn agree(nodes: &[Node], numbers: Range<u64>) {
    let all: Vec<u64> = numbers.collect();
    for node in nodes {
        let heard = |told: &support::Told| told.numbers == all;
        node.heard.until("agreement", heard).await;
    }
}

/// A leader that is not heard keeps its followers for longer than any test runs.
const LONG_LEASE: Timing = Timing {
    heartbeat: Duration::from_millis(50),
    election_min: Duration::from_secs(3_000),
    election_max: Duration::from_secs(3_600),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_process_has_ended_is_replaced_before_its_lease_expires() {
    let hub = Hub::default();
    let mut nodes = group_with(&hub, memory(3), LONG_LEASE).await;
    nodes[0].commit(0..10).await;
    let gone = nodes.remove(0);
    hub.cut(gone.peer);
    nodes.iter().for_each(|one| one.journal.ended(gone.peer));
    leader(&nodes).await.commit(10..20).await;
    agree(&nodes, 0..20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_follower_stands_in_where_the_first_is_gone_too() {
    let hub = Hub::default();
    let nodes = group_with(&hub, memory(5), LONG_LEASE).await;
    nodes[0].commit(0..10).await;
    let mut left: Vec<&Node> = nodes[1..].iter().collect();
    left.sort_by_key(|node| (node.id() < nodes[0].id(), node.id()));
    let first = left.remove(0);
    hub.cut(nodes[0].peer);
    hub.cut(first.peer);
    left.iter().for_each(|one| one.journal.ended(nodes[0].peer));
    leader(left).await.commit(10..11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_lives_and_is_said_to_have_ended_learns_that_it_is_replaced() {
    let hub = Hub::default();
    let nodes = group(&hub, memory(3)).await;
    nodes[0].commit(0..10).await;
    let said = nodes[0].peer;
    nodes[1..].iter().for_each(|one| one.journal.ended(said));
    nodes[0]
        .heard
        .until("deposition", |told| !told.leading)
        .await;
    leader(&nodes).await.commit(10..11).await;
    agree(&nodes, 0..11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_process_has_ended_changes_no_leader() {
    let hub = Hub::default();
    let nodes = group(&hub, memory(3)).await;
    let term = |node: &Node| node.journal.group().borrow().term;
    let before = term(&nodes[0]);
    nodes[1].journal.ended(nodes[2].peer);
    nodes[0].commit(0..100).await;
    assert_eq!(term(&nodes[0]), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_commits_nothing() {
    let hub = Hub::default();
    let nodes = group(&hub, memory(3)).await;
    nodes[0].commit(0..1).await;
    hub.cut(nodes[0].peer);
    nodes[0].propose(1..2).await;
    let next = leader(&nodes[1..]).await;
    next.commit(10..11).await;
    let sure = |node: &Node| node.journal.group().borrow().surely_leads(&PATIENT);
    assert!(
        !sure(&nodes[0]),
        "a replaced supervisor is not sure any more"
    );
    next.until("certainty", |group| group.surely_leads(&PATIENT))
        .await;
    nodes[0].heard.with(|told| assert_eq!(told.numbers, [0]));
    hub.mend(nodes[0].peer);
    nodes[0]
        .heard
        .until("the group's record", |told| told.numbers == [0, 10])
        .await;
    nodes[0]
        .heard
        .with(|told| assert!(!told.leading && told.own == [0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_change_while_records_are_written() {
    let hub = Hub::default();
    let mut nodes = group(&hub, memory(3)).await;
    let writer = {
        let (journal, heard) = (nodes[0].journal.clone(), nodes[0].heard.clone());
        tokio::spawn(async move {
            let mut next = 0;
            while heard.with(|told| told.leading) {
                if journal.propose(next, vec![support::record(next)]).is_ok() {
                    next += 1;
                }
                tokio::task::yield_now().await;
            }
            next
        })
    };
    nodes[0]
        .heard
        .until("records", |told| told.own.len() > 100)
        .await;
    let fourth = Node::open_with(&hub, patient(Place::Memory, 4))
        .await
        .unwrap();
    join(&nodes[0], &fourth).await;
    nodes.push(fourth);
    let third = nodes.remove(2);
    nodes[0].journal.remove(third.id()).await.unwrap();
    third.heard.until("removal", |told| told.removed).await;
    let seats = nodes[0].journal.group().borrow().seats.len();
    assert!((3..=4).contains(&seats));
    let second = nodes[1].id();
    nodes[0].journal.transfer_leader(second).await.unwrap();
    nodes[1]
        .heard
        .until("leadership", |told| told.leading)
        .await;
    let proposed = writer.await.unwrap();
    let old = nodes.remove(0);
    assert!(matches!(
        old.journal.remove(second).await,
        Err(StoreError::NotLeading { .. })
    ));
    nodes[0].journal.remove(old.id()).await.unwrap();
    old.heard.until("removal", |told| told.removed).await;
    nodes[0].commit(1_000_000..1_000_001).await;
    nodes[1]
        .heard
        .until("the last record", |told| {
            told.numbers.last() == Some(&1_000_000)
        })
        .await;
    let own = old.heard.with(|told| told.own.clone());
    assert!(own.len() as u64 <= proposed && !own.is_empty());
    let numbers = nodes[0].heard.with(|told| told.numbers.clone());
    assert!(
        own.iter().all(|one| numbers.binary_search(one).is_ok()),
        "nothing acknowledged is lost"
    );
    assert!(
        numbers.windows(2).all(|two| two[0] < two[1]),
        "nothing is there twice"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_is_too_long_for_one_call_reaches_the_others() {
    let hub = Hub::default();
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let nodes = group(&hub, folders.iter().map(|one| disk(one.path())).collect()).await;
    // About 20 MiB, which is more than a call may be.
    let long = (0..20)
        .map(|number| support::long_record(number, 1 << 20))
        .collect();
    nodes[0].journal.propose(0, long).unwrap();
    nodes[0].commit(20..21).await;
    for node in &nodes {
        node.heard
            .until("agreement", |told| told.numbers.len() == 21)
            .await;
    }
    assert!(
        hub.longest() <= hedge_store::CALL_BYTES_MAX,
        "{}",
        hub.longest()
    );
    for node in nodes {
        node.close(&hub).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_of_one_does_not_hold_up_the_others() {
    let hub = Hub::default();
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut nodes = group(&hub, vec![disk(folders[0].path()), disk(folders[1].path())]).await;
    let slow = hedge_store::Options {
        disk: FaultyDisk::with(Failure::SlowFlush(Duration::from_secs(1))),
        snapshot_records: 100,
        ..patient(disk(folders[2].path()), 3)
    };
    let slow = Node::open_with(&hub, slow).await.unwrap();
    join(&nodes[0], &slow).await;
    let begun = std::time::Instant::now();
    for number in 0..200 {
        nodes[0].commit(number..number + 1).await;
    }
    // One after the other, each would take a second with the slow one: 200 s.
    assert!(begun.elapsed() < support::LIMIT);
    // It follows as fast as it can, and leaves nothing out.
    nodes.push(slow);
    for node in &nodes {
        node.heard
            .until("agreement", |told| told.numbers.len() == 200)
            .await;
        node.heard
            .with(|told| assert_eq!(told.numbers, (0..200).collect::<Vec<_>>()));
    }
    for node in nodes {
        node.close(&hub).await;
    }
}

#[tokio::test]
async fn a_member_that_cannot_read_the_groups_format_is_refused() {
    let hub = Hub::default();
    let nodes = group(&hub, memory(1)).await;
    let old = hedge_store::GroupMember {
        format_max: 0,
        ..member(2)
    };
    let refused = nodes[0].journal.add(77, old).await.unwrap_err();
    assert!(matches!(refused, StoreError::TooOld { .. }), "{refused}");
    assert_eq!(nodes[0].journal.group().borrow().seats.len(), 1);
    nodes[0].commit(0..1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_stands_by_replaces_an_absent_voter_in_one_change() {
    let hub = Hub::default();
    let mut nodes = group(&hub, memory(3)).await;
    let standby = Node::open_with(&hub, patient(Place::Memory, 4))
        .await
        .unwrap();
    let leader = nodes[0].journal.clone();
    leader.add(standby.id(), member(4)).await.unwrap();
    let absent = nodes.pop().unwrap();
    let gone = absent.id();
    absent.close(&hub).await;
    assert!(leader.replace(nodes[0].id(), standby.id()).await.is_err());
    leader.replace(gone, standby.id()).await.unwrap();
    let mut expected = vec![nodes[0].id(), nodes[1].id(), standby.id()];
    expected.sort_unstable();
    nodes[0]
        .until("replacement", |group| {
            let voters = group.seats.iter().filter(|(_, seat)| seat.voter);
            !group.seats.contains_key(&gone) && voters.map(|(id, _)| *id).eq(expected.clone())
        })
        .await;
    // The vote counts: with another member gone, the standby completes the majority.
    nodes.pop().unwrap().close(&hub).await;
    nodes[0].commit(0..10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_that_nobody_can_tell_learns_it_when_it_asks() {
    let hub = Hub::default();
    let nodes = group(&hub, memory(3)).await;
    // It can ask, but nobody can ask it: it hears no leader, and wants to be one.
    hub.deafen(nodes[2].peer);
    nodes[0].journal.remove(nodes[2].id()).await.unwrap();
    let term = nodes[0].journal.group().borrow().term;
    nodes[2].heard.until("removal", |told| told.removed).await;
    nodes[0].commit(0..10).await;
    let now = nodes[0].journal.group().borrow().term;
    assert_eq!(now, term, "nobody was disturbed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_gets_a_snapshot_of_what_is_no_longer_in_the_log() {
    let hub = Hub::default();
    let options = |number, place| hedge_store::Options {
        snapshot_records: 3000,
        ..patient(place, number)
    };
    let folder = tempfile::tempdir().unwrap();
    let first = Node::open_with(&hub, options(1, Place::Memory))
        .await
        .unwrap();
    first.journal.found().await.unwrap();
    first.heard.until("leader", |told| told.leading).await;
    for number in 0..4000 {
        first.propose(number..number + 1).await;
    }
    first
        .until("snapshot", |group| {
            group.log.purged.is_some_and(|index| index > 1000)
        })
        .await;
    let second = Node::open_with(&hub, options(2, disk(folder.path())))
        .await
        .unwrap();
    join(&first, &second).await;
    first.commit(4000..4001).await;
    second
        .heard
        .until("all records", |told| told.numbers.len() == 4001)
        .await;
    second.heard.with(|told| {
        assert!(told.restored > 0);
        assert_eq!(told.numbers, (0..4001).collect::<Vec<_>>());
    });
    // And it is there after its restart, although its log does not begin at the beginning.
    second.close(&hub).await;
    let second = Node::open_with(&hub, options(2, disk(folder.path())))
        .await
        .unwrap();
    second
        .heard
        .until("all records", |told| told.numbers.len() == 4001)
        .await;
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_with_an_error_and_changes_nothing() {
    let hub = Hub::default();
    let nodes = group(&hub, memory(1)).await;
    nodes[0].commit(0..1).await;
    let mut noise = [1_u8; 40];
    for round in 0..2000_u32 {
        let at = (round as usize * 7) % noise.len();
        noise[at] = noise[at].wrapping_mul(31).wrapping_add(round as u8 | 1);
        let length = (round as usize) % noise.len();
        // Versions that are not spoken, and messages that end too early.
        noise[0] = if round % 2 == 0 { 9 } else { 2 };
        let request = match round % 2 {
            0 => noise[..length].to_vec(),
            _ => vec![2, 0, 0, 200 + (round % 50) as u8],
        };
        let reply = support::within(
            "answer",
            nodes[0].journal.answer(support::peer(9), request.into()),
        )
        .await;
        assert!(!reply.is_empty());
    }
    nodes[0].commit(1..2).await;
}
