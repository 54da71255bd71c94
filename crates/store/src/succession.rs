//! Stands for election when the leader's process is known to have ended, sooner than missed heartbeats would show it.

use crate::entry::Types;
use crate::machine::Machine;
use crate::{NodeId, Timing};
use hedge_model::PeerId;
use openraft::Raft;
use openraft::async_runtime::WatchReceiver;
use std::time::{Duration, Instant};

/// The delay between two tries, while the others still follow the leader.
const AGAIN: Duration = Duration::from_millis(10);

/// Stands for election if `gone` led, as soon as its lease has expired, because the others vote only then. The followers
/// stand one after the other, so that no two compete for the same votes.
pub(crate) async fn stand_in(raft: Raft<Types, Machine>, id: NodeId, gone: PeerId, timing: Timing) {
    let known = {
        let now = raft.metrics().borrow_watched().clone();
        let led = now.current_leader.filter(|leader| {
            let member = now.membership_config.get_node(leader);
            member.is_some_and(|member| member.peer.peer == gone)
        });
        let voters = now.membership_config.voter_ids();
        let mut others: Vec<NodeId> = voters.filter(|voter| Some(*voter) != led).collect();
        others.sort_unstable();
        let rank = others.iter().position(|other| *other == id);
        led.zip(rank).map(|(_, rank)| (now.current_term, rank))
    };
    let Some((term, rank)) = known else {
        return;
    };
    // Its last heartbeat was heard up to one interval before its end.
    let turn = timing.heartbeat * u32::try_from(rank).unwrap_or(u32::MAX);
    let lease = timing.election_max.saturating_sub(timing.heartbeat);
    tokio::time::sleep(lease.saturating_add(turn)).await;
    let start = Instant::now();
    while start.elapsed() < timing.election_max {
        // Another member stands for election or leads.
        let moved = raft.metrics().borrow_watched().current_term != term;
        if moved || raft.trigger().elect(true).await.is_err() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}
