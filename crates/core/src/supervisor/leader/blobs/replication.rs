//! The other supervisors of the group: what a leader says to them and how they obey, and the content that they
//! hold so that no input and no result is on one machine alone.

use crate::supervisor::Action;
use crate::supervisor::leader::blobs::Content;
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{LeaderView, Leadership};
use hedge_model::group::{FromLeader, LeaderSays, ToLeader};
use hedge_model::msg::HASHES_MAX;
use hedge_model::{Hash, PeerAddr, PeerId};
use std::time::Duration;

/// Until content is offered again to a peer supervisor that could not take it.
const SPREAD_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Most supervisors of a group: their places are bits of one byte in each content's entry.
const PEER_SUPERVISORS_MAX: usize = 8;

/// Another supervisor of the group, as the leader sees it. Its position in the list names it in [`Content`].
#[derive(Debug)]
pub(crate) struct GroupMember {
    pub addr: PeerAddr,
    pub link: MemberLink,
    /// Why it cannot store anything now.
    pub disk_fault: Option<String>,
}

/// Whether a group member is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberLink {
    /// It has no connection, or has left the group.
    Away,
    /// It is connected and has not said yet what it holds.
    Linked,
    /// It is connected and has said what it holds.
    Listed,
}

impl GroupMember {
    /// Whether it can be talked to.
    pub fn linked(&self) -> bool {
        self.link != MemberLink::Away
    }
}

impl Leadership<'_> {
    /// The supervisors of the group have changed.
    pub(crate) fn on_group(&mut self) {
        for peer in self.count_peer_supervisors() {
            if self.peers.linked.contains_key(&peer) {
                self.greet_peer_supervisor(peer);
            }
        }
        self.spread_wanted();
    }

    /// Brings the places of the peer supervisors in line with the group; gives those who are new. A place is given
    /// to another once nothing that was said of whom it was is counted any more.
    pub(crate) fn count_peer_supervisors(&mut self) -> Vec<PeerId> {
        let me = self.config.me.peer;
        let others = self
            .peers
            .group
            .iter()
            .map(|peer_supervisor| &peer_supervisor.addr);
        let others: Vec<PeerAddr> = others.filter(|addr| addr.peer != me).cloned().collect();
        let member = |peer: PeerId| others.iter().any(|addr| addr.peer == peer);
        let linked = &self.peers.linked;
        let leader = &mut *self.leader;
        let mut left = 0u8;
        for (at, peer_supervisor) in leader.peer_supervisors.iter_mut().enumerate() {
            if !member(peer_supervisor.addr.peer) {
                peer_supervisor.link = MemberLink::Away;
                left |= 1 << at;
            }
        }
        if left != 0 {
            for content in leader.content.values_mut() {
                content.kept_at &= !left;
                content.offered_to &= !left;
                content.refused_by &= !left;
            }
        }
        let mut newcomers = Vec::new();
        for addr in &others {
            let mut known = leader.peer_supervisors.iter_mut();
            if let Some(known) = known.find(|known| known.addr.peer == addr.peer) {
                known.addr = addr.clone();
                continue;
            }
            let new = GroupMember {
                addr: addr.clone(),
                link: match linked.contains_key(&addr.peer) {
                    true => MemberLink::Linked,
                    false => MemberLink::Away,
                },
                disk_fault: None,
            };
            newcomers.push(addr.peer);
            let free = leader
                .peer_supervisors
                .iter()
                .position(|old| !member(old.addr.peer));
            match free {
                Some(at) => leader.peer_supervisors[at] = new,
                None if leader.peer_supervisors.len() < PEER_SUPERVISORS_MAX => {
                    leader.peer_supervisors.push(new)
                }
                None => {}
            }
        }
        leader.others = u32::try_from(others.len()).unwrap_or(u32::MAX);
        newcomers
    }

    /// Offers content that this supervisor holds to as many others as are to hold it too.
    pub(crate) fn spread(&mut self, hash: Hash) {
        let (epoch, me) = (self.state.epoch(), self.config.me.clone());
        let keep = self.state.settings().keep;
        let leader = &mut *self.leader;
        let wanted = keep.min(1 + leader.others);
        let Some(content) = leader.content.get_mut(&hash) else {
            return;
        };
        if !content.own || !content.to_be_kept() {
            return;
        }
        let count = leader.peer_supervisors.len();
        // Different content begins at different peer supervisors, so that all have their share.
        let places = (0..count).map(|at| (at + usize::from(hash.0[0])) % count);
        for at in places {
            let (peer_supervisor, bit) = (&leader.peer_supervisors[at], 1 << at);
            let has = content.kept_at | content.offered_to;
            if 1 + has.count_ones() >= wanted {
                break;
            }
            if peer_supervisor.link == MemberLink::Listed
                && has & bit == 0
                && content.refused_by & bit == 0
            {
                content.offered_to |= bit;
                let what = LeaderSays::Hold {
                    hash,
                    size: content.size,
                    sources: vec![me.clone()],
                };
                self.out.push(Action::ToSupervisor {
                    to: peer_supervisor.addr.peer,
                    msg: FromLeader { epoch, what },
                });
            }
        }
    }

    /// Offers again whatever is to be kept by more supervisors than have it, after the group has changed or
    /// a peer supervisor has come.
    pub(crate) fn spread_wanted(&mut self) {
        let leader = &mut *self.leader;
        if leader.others == 0 && leader.submits.is_empty() && leader.jobs.is_empty() {
            return;
        }
        let all = leader
            .content
            .iter()
            .filter(|(_, content)| content.own && content.to_be_kept());
        let all: Vec<Hash> = all.map(|(hash, _)| *hash).collect();
        for hash in all {
            self.spread(hash);
            if self.view().secure(hash) {
                self.content_arrived(hash);
            }
        }
    }

    /// Another supervisor, linked to this one which leads, is told so and of all that goes on.
    pub(crate) fn greet_peer_supervisor(&mut self, peer: PeerId) {
        let epoch = self.state.epoch();
        let leader = &mut *self.leader;
        if let Some(peer_supervisor) = leader
            .peer_supervisors
            .iter_mut()
            .find(|known| known.addr.peer == peer)
        {
            if !peer_supervisor.linked() {
                peer_supervisor.link = MemberLink::Linked;
            }
            peer_supervisor.disk_fault = None;
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

    pub(crate) fn peer_supervisor_gone(&mut self, peer: PeerId) {
        let leader = &mut *self.leader;
        let found = leader
            .peer_supervisors
            .iter()
            .position(|known| known.addr.peer == peer);
        let Some(at) = found else { return };
        leader.peer_supervisors[at].link = MemberLink::Away;
        for content in leader.content.values_mut() {
            content.offered_to &= !(1 << at);
        }
    }

    /// A peer supervisor answers to what this leader said.
    pub(crate) fn on_to_leader(&mut self, peer: PeerId, msg: ToLeader) {
        let leader = &mut *self.leader;
        let found = leader
            .peer_supervisors
            .iter()
            .position(|known| known.addr.peer == peer);
        let Some(at) = found else { return };
        let bit = 1 << at;
        match msg {
            ToLeader::Holds(hashes) => {
                if leader.peer_supervisors[at].linked() {
                    leader.peer_supervisors[at].link = MemberLink::Listed;
                }
                for content in leader.content.values_mut() {
                    content.kept_at &= !bit;
                    content.offered_to &= !bit;
                }
                self.take_peer_supervisors_stock(at, hashes);
            }
            ToLeader::HoldsMore(hashes) => self.take_peer_supervisors_stock(at, hashes),
            ToLeader::Disk(fault) => leader.peer_supervisors[at].disk_fault = fault,
            ToLeader::Held(hash) => {
                let Some(content) = leader
                    .content
                    .get_mut(&hash)
                    .filter(|content| content.to_be_kept())
                else {
                    return self.tell_drop(peer, vec![hash]);
                };
                content.kept_at |= bit;
                content.offered_to &= !bit;
                content.refused_by = 0;
                if self.view().secure(hash) {
                    self.content_arrived(hash);
                }
            }
            ToLeader::NotHeld(hash, _) => {
                if let Some(content) = leader.content.get_mut(&hash) {
                    content.offered_to &= !bit;
                    content.refused_by |= bit;
                    let at = self.now + SPREAD_AGAIN_AFTER;
                    self.leader.timers.set_once(at, Timer::Spread(hash));
                    self.spread(hash);
                }
            }
        }
    }

    /// Content that others could not take is offered to all of them again.
    pub(crate) fn spread_again(&mut self, hash: Hash) {
        if let Some(content) = self.leader.content.get_mut(&hash) {
            content.refused_by = 0;
            self.spread(hash);
        }
    }

    fn take_peer_supervisors_stock(&mut self, at: usize, hashes: Vec<Hash>) {
        let leader = &mut *self.leader;
        let (peer, bit) = (leader.peer_supervisors[at].addr.peer, 1 << at);
        let kept = |content: &Content| content.to_be_kept();
        let (wanted, unwanted): (Vec<Hash>, Vec<Hash>) = hashes
            .into_iter()
            .partition(|hash| leader.content.get(hash).is_some_and(kept));
        for hash in &wanted {
            if let Some(content) = leader.content.get_mut(hash) {
                content.kept_at |= bit;
            }
        }
        self.tell_drop(peer, unwanted);
        for hash in wanted {
            self.pull(hash);
        }
        self.spread_wanted();
        self.feed_starved();
    }

    pub(crate) fn tell_drop(&mut self, to: PeerId, hashes: Vec<Hash>) {
        let epoch = self.state.epoch();
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
    /// Whether as many supervisors hold this content as are to.
    pub(crate) fn secure(&self, hash: Hash) -> bool {
        let leader = self.leader;
        let wanted = self.state.settings().keep.min(1 + leader.others);
        leader
            .content
            .get(&hash)
            .is_some_and(|content| content.own && 1 + content.kept_at.count_ones() >= wanted)
    }

    /// PeerSupervisors that hold this content and are there.
    pub(crate) fn keepers_of(&self, hash: Hash) -> impl Iterator<Item = &'a PeerAddr> + use<'a> {
        let leader = self.leader;
        let bits = leader.content.get(&hash);
        let bits = bits.map_or(0, |content| content.kept_at);
        let peer_supervisors = leader.peer_supervisors.iter().enumerate();
        peer_supervisors
            .filter(move |(at, peer_supervisor)| peer_supervisor.linked() && bits & (1 << at) != 0)
            .map(|(_, peer_supervisor)| &peer_supervisor.addr)
    }
}
