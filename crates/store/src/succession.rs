//! Stands for election when the leader's process is known to have ended, without waiting for missed heartbeats.

use crate::entry::Types;
use crate::machine::Machine;
use crate::{NodeId, Timing};
use hedge_model::PeerId;
use openraft::Raft;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;

/// Stands for election if `gone` led, as if that had handed over its leadership: a process that has ended holds no
/// lease, so the others need not wait for its end before they vote. The followers stand one after the other, so that
/// no two compete for the same votes; who finds another term at its turn leaves it to those.
pub(crate) async fn stand_in(raft: Raft<Types, Machine>, id: NodeId, gone: PeerId, timing: Timing) {
    let known = {
        let now = raft.metrics().borrow_watched().clone();
        let led = now.current_leader.filter(|leader| {
            let member = now.membership_config.get_node(leader);
            member.is_some_and(|member| member.peer.peer == gone)
        });
        let voters = now.membership_config.voter_ids();
        let mut others: Vec<NodeId> = voters.filter(|voter| Some(*voter) != led).collect();
        // From the one behind the leader on, so that supervisors that fail again and again lead in turn.
        others.sort_unstable_by_key(|other| (Some(*other) < led, *other));
        let rank = others.iter().position(|other| *other == id);
        led.zip(rank).map(|(_, rank)| (now.vote, rank))
    };
    let Some((vote, rank)) = known else {
        return;
    };
    tokio::time::sleep(timing.heartbeat * u32::try_from(rank).unwrap_or(u32::MAX)).await;
    // Refused where this member has voted for another meanwhile, which then leads or leaves it to missed heartbeats.
    _ = raft
        .handle_transfer_leader(TransferLeaderRequest::new(vote, id, None))
        .await;
}
