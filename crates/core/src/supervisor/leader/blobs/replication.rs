//! Replication: which peer supervisors of the group hold which blobs, so that no input and no result is on one
//! machine only. Messages to and from peer supervisors are handled here too.

use crate::supervisor::Action;
use crate::supervisor::leader::blobs::state::{Blob, BlobEvent, REPLICAS_MAX, Replica};
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{LeaderView, Leadership};
use hedge_model::group::{FromLeader, LeaderSays, ToLeader};
use hedge_model::msg::HASHES_MAX;
use hedge_model::{Hash, PeerAddr, PeerId};
use std::time::Duration;

/// How long after a peer supervisor refused a blob it is offered the blob again.
const OFFER_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The current and former peer supervisors. Each keeps its position, which identifies it in every blob.
#[derive(Debug, Default)]
pub(crate) struct GroupMembers {
    members: Vec<GroupMember>,
    /// How many peer supervisors the group has.
    others: u32,
}

/// A peer supervisor as the leader knows it.
#[derive(Debug)]
pub(crate) struct GroupMember {
    addr: PeerAddr,
    link: MemberLink,
    /// Why it cannot store anything now.
    disk_fault: Option<String>,
}

/// Whether a peer supervisor is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MemberLink {
    /// It is not connected, or has left the group.
    Away,
    /// It is connected and has not reported yet what it holds.
    Linked,
    /// It is connected and has reported what it holds.
    Listed,
}

impl GroupMember {
    /// Returns whether it is connected.
    pub fn linked(&self) -> bool {
        self.link != MemberLink::Away
    }

    pub fn peer(&self) -> PeerId {
        self.addr.peer
    }

    /// Why it cannot store anything now.
    pub fn disk_fault(&self) -> Option<&str> {
        self.disk_fault.as_deref()
    }
}

impl GroupMembers {
    pub fn iter(&self) -> std::slice::Iter<'_, GroupMember> {
        self.members.iter()
    }

    /// Returns how many supervisors have to hold a blob with the replication factor `wanted`: at most all of the
    /// group.
    fn copies(&self, wanted: u32) -> u32 {
        wanted.min(1 + self.others)
    }

    fn position(&self, peer: PeerId) -> Option<usize> {
        self.iter().position(|known| known.addr.peer == peer)
    }

    /// Updates the members from the group. Returns those that are new, and the positions of those that left. New
    /// members may take over these positions, so the caller must forget the replicas there.
    fn follow(
        &mut self,
        others: &[PeerAddr],
        linked: impl Fn(PeerId) -> bool,
    ) -> (Vec<PeerId>, Vec<usize>) {
        let in_group = |peer: PeerId| others.iter().any(|addr| addr.peer == peer);
        let mut left = Vec::new();
        for (at, member) in self.members.iter_mut().enumerate() {
            if !in_group(member.addr.peer) {
                member.link = MemberLink::Away;
                left.push(at);
            }
        }
        let mut newcomers = Vec::new();
        for addr in others {
            if let Some(at) = self.position(addr.peer) {
                self.members[at].addr = addr.clone();
                continue;
            }
            let new = GroupMember {
                addr: addr.clone(),
                link: match linked(addr.peer) {
                    true => MemberLink::Linked,
                    false => MemberLink::Away,
                },
                disk_fault: None,
            };
            newcomers.push(addr.peer);
            let free = self.iter().position(|old| !in_group(old.addr.peer));
            match free {
                Some(at) => self.members[at] = new,
                None if self.members.len() < REPLICAS_MAX => self.members.push(new),
                None => {}
            }
        }
        self.others = u32::try_from(others.len()).unwrap_or(u32::MAX);
        (newcomers, left)
    }
}

impl Leadership<'_> {
    /// Handles a change of the group's supervisors.
    pub(crate) fn on_group(&mut self) {
        for peer in self.update_group_members() {
            if self.peers.linked.contains_key(&peer) {
                self.introduce_to(peer);
            }
        }
        self.replicate_wanted();
    }

    /// Updates the peer supervisors from the group. Returns those that are new.
    pub(crate) fn update_group_members(&mut self) -> Vec<PeerId> {
        let me = self.config.me.peer;
        let group = self.peers.group.iter().map(|one| &one.addr);
        let others: Vec<PeerAddr> = group.filter(|addr| addr.peer != me).cloned().collect();
        let linked = &self.peers.linked;
        let leader = &mut *self.leader;
        let linked = |peer| linked.contains_key(&peer);
        let (newcomers, left) = leader.group.follow(&others, linked);
        let all = [
            Replica::Offered,
            Replica::Held,
            Replica::Refused,
            Replica::Dropping,
        ];
        for position in left {
            leader.blobs.forget_replicas(position, &all);
        }
        newcomers
    }

    /// Offers a blob in the own store to peer supervisors, as many as the replication factor requires.
    pub(crate) fn replicate(&mut self, hash: Hash) {
        let (epoch, me) = (self.state.epoch(), self.config.me.clone());
        let keep = self.state.settings().keep;
        let leader = &mut *self.leader;
        let (group, blobs) = (&leader.group, &mut leader.blobs);
        let wanted = group.copies(keep);
        let count = group.members.len();
        // Different blobs begin at different supervisors, which balances their load.
        let positions = (0..count).map(|at| (at + usize::from(hash.0[0])) % count);
        for at in positions {
            let spread = |blob: &&Blob| blob.is_here() && blob.needs_replicas();
            let Some(blob) = blobs.get(hash).filter(spread) else {
                return;
            };
            let replicas = blob.replicas();
            if 1 + replicas.expected_count() >= wanted {
                break;
            }
            let member = &group.members[at];
            if member.link == MemberLink::Listed && replicas.at(at) == Replica::None {
                let what = LeaderSays::Hold {
                    hash,
                    size: blob.size(),
                    sources: vec![me.clone()],
                };
                blobs.transition(hash, BlobEvent::Replica(at, Replica::Offered));
                self.out.push(Action::ToSupervisor {
                    to: member.addr.peer,
                    msg: FromLeader { epoch, what },
                });
            }
        }
    }

    /// Offers all blobs with too few replicas again, after the group has changed or a peer supervisor has connected.
    pub(crate) fn replicate_wanted(&mut self) {
        let leader = &mut *self.leader;
        if leader.group.others == 0 && leader.submissions.is_empty() && leader.jobs.is_empty() {
            return;
        }
        let kept = |(_, blob): &(Hash, &Blob)| blob.is_here() && blob.needs_replicas();
        let all: Vec<Hash> = leader
            .blobs
            .iter()
            .filter(kept)
            .map(|(hash, _)| hash)
            .collect();
        for hash in all {
            self.replicate(hash);
            if self.view().is_replicated(hash) {
                self.on_blob_available(hash);
            }
        }
    }

    /// Tells a connected peer supervisor that this supervisor leads, and sends it hints for all active assignments.
    pub(crate) fn introduce_to(&mut self, peer: PeerId) {
        let epoch = self.state.epoch();
        let group = &mut self.leader.group;
        if let Some(at) = group.position(peer) {
            let member = &mut group.members[at];
            if !member.linked() {
                member.link = MemberLink::Linked;
            }
            member.disk_fault = None;
        }
        self.out.push(Action::ToSupervisor {
            to: peer,
            msg: FromLeader {
                epoch,
                what: LeaderSays::Lead,
            },
        });
        self.hint_all(peer);
    }

    /// Handles a peer supervisor that has disconnected.
    pub(crate) fn peer_supervisor_gone(&mut self, peer: PeerId) {
        let leader = &mut *self.leader;
        let Some(at) = leader.group.position(peer) else {
            return;
        };
        leader.group.members[at].link = MemberLink::Away;
        let unsure = [Replica::Offered, Replica::Dropping];
        leader.blobs.forget_replicas(at, &unsure);
    }

    /// Handles a message from a peer supervisor.
    pub(crate) fn on_to_leader(&mut self, peer: PeerId, msg: ToLeader) {
        let leader = &mut *self.leader;
        let Some(at) = leader.group.position(peer) else {
            return;
        };
        let member = &mut leader.group.members[at];
        match msg {
            ToLeader::Holds(hashes) => {
                if member.linked() {
                    member.link = MemberLink::Listed;
                }
                let before = [Replica::Held, Replica::Offered, Replica::Dropping];
                leader.blobs.forget_replicas(at, &before);
                self.reconcile_holdings(at, hashes);
            }
            ToLeader::HoldsMore(hashes) => self.reconcile_holdings(at, hashes),
            ToLeader::Disk(fault) => member.disk_fault = fault,
            ToLeader::Held(hash) => self.on_held(at, hash),
            ToLeader::NotHeld(hash, _) => {
                let blobs = &mut leader.blobs;
                let asked = |blob: &Blob| blob.replicas().at(at) != Replica::Dropping;
                if blobs.get(hash).is_some_and(asked) {
                    blobs.transition(hash, BlobEvent::Replica(at, Replica::Refused));
                    let at = self.now + OFFER_AGAIN_AFTER;
                    self.leader.timers.set_once(at, Timer::Replicate(hash));
                    self.replicate(hash);
                }
            }
            ToLeader::Dropped(hashes) => {
                for hash in hashes {
                    self.leader.blobs.confirm_drop(hash, at);
                    self.replicate(hash);
                }
            }
        }
    }

    /// Handles a peer supervisor that now holds a blob. If it is about to drop it, it does not hold it for long.
    fn on_held(&mut self, at: usize, hash: Hash) {
        let blobs = &mut self.leader.blobs;
        let blob = blobs.get(hash);
        if blob.is_some_and(|blob| blob.replicas().at(at) == Replica::Dropping) {
            return;
        }
        if !blob.is_some_and(Blob::needs_replicas) {
            return self.drop_replicas(at, vec![hash]);
        }
        blobs.transition(hash, BlobEvent::Replica(at, Replica::Held));
        blobs.transition(hash, BlobEvent::OfferedAgain);
        if self.view().is_replicated(hash) {
            self.on_blob_available(hash);
        }
    }

    /// Offers a blob again to as many peer supervisors as it still needs, including those that refused it.
    pub(crate) fn replicate_again(&mut self, hash: Hash) {
        let blobs = &mut self.leader.blobs;
        blobs.transition(hash, BlobEvent::OfferedAgain);
        self.replicate(hash);
    }

    /// Compares the blobs that a peer supervisor holds with those that it should hold: notes them as replicas, has it
    /// drop the others, and fetches what this supervisor lacks.
    fn reconcile_holdings(&mut self, at: usize, hashes: Vec<Hash>) {
        let leader = &mut *self.leader;
        let kept = |hash: &Hash| leader.blobs.get(*hash).is_some_and(Blob::needs_replicas);
        let (wanted, unwanted): (Vec<Hash>, Vec<Hash>) = hashes.into_iter().partition(kept);
        for hash in &wanted {
            let held = BlobEvent::Replica(at, Replica::Held);
            leader.blobs.transition(*hash, held);
        }
        self.drop_replicas(at, unwanted);
        for hash in wanted {
            self.fetch(hash);
        }
        self.replicate_wanted();
        self.retry_blocked_groups();
    }

    /// Has the peer supervisor at a position drop blobs.
    pub(crate) fn drop_replicas(&mut self, at: usize, hashes: Vec<Hash>) {
        let epoch = self.state.epoch();
        let leader = &mut *self.leader;
        let member = &leader.group.members[at];
        let to = member.addr.peer;
        // Any other reports what it holds once it is connected.
        if member.link == MemberLink::Listed {
            hashes
                .iter()
                .for_each(|hash| leader.blobs.begin_drop(*hash, at));
        }
        for part in hashes.chunks(HASHES_MAX) {
            let what = LeaderSays::Drop(part.to_vec());
            self.out.push(Action::ToSupervisor {
                to,
                msg: FromLeader { epoch, what },
            });
        }
    }
}

impl<'a> LeaderView<'a> {
    /// Returns whether as many supervisors hold a blob as the replication factor requires.
    pub(crate) fn is_replicated(&self, hash: Hash) -> bool {
        let leader = self.leader;
        let wanted = leader.group.copies(self.state.settings().keep);
        let held = |blob: &Blob| blob.is_here() && 1 + blob.replicas().held_count() >= wanted;
        leader.blobs.get(hash).is_some_and(held)
    }

    /// Connected peer supervisors that hold a blob.
    pub(crate) fn replica_holders(
        &self,
        hash: Hash,
    ) -> impl Iterator<Item = &'a PeerAddr> + use<'a> {
        let leader = self.leader;
        let replicas = leader.blobs.get(hash).map(Blob::replicas);
        let replicas = replicas.unwrap_or_default();
        let members = leader.group.iter().enumerate();
        members
            .filter(move |(at, member)| member.linked() && replicas.at(*at) == Replica::Held)
            .map(|(_, member)| &member.addr)
    }
}
