//! The other supervisors of the group: what a leader says to them and how they obey, and the content that they
//! hold so that no input and no result is on one machine alone.

use super::live::{Content, Timer};
use super::{Action, PullFailure, Supervisor};
use hedge_model::group::{Colleague, FromLeader, LeaderSays, ToLeader};
use hedge_model::msg::{HASHES_MAX, Reply, Role, ToWorker};
use hedge_model::{Hash, PeerAddr, PeerId, Source};
use std::time::Duration;

/// Until content is offered again to a colleague that could not take it.
const SPREAD_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Most supervisors of a group: their places are bits of one byte in each content's entry.
const COLLEAGUES_MAX: usize = 8;

/// Another supervisor, as the leader sees it. Its position in the list names it in [`Content`].
#[derive(Debug)]
pub(crate) struct Kept {
    pub addr: PeerAddr,
    pub linked: bool,
    /// Whether it has said what it holds.
    pub known: bool,
    /// Why it cannot store anything now.
    pub disk_fault: Option<String>,
}

impl Supervisor {
    /// The supervisors of the group have changed.
    pub(crate) fn on_group(&mut self, group: Vec<Colleague>, out: &mut Vec<Action>) {
        self.group = group;
        let all = self.supervisors();
        for (peer, role) in &self.linked {
            match role {
                Role::Worker => super::send(*peer, ToWorker::Supervisors(all.clone()), out),
                Role::Client | Role::Admin | Role::Relay => out.push(Action::Tell {
                    to: *peer,
                    reply: Reply::Supervisors(all.clone()),
                }),
                Role::Supervisor => {}
            }
        }
        if self.live.is_some() {
            for peer in self.count_colleagues() {
                if self.linked.contains_key(&peer) {
                    self.greet_colleague(peer, out);
                }
            }
            self.spread_wanted(out);
        }
    }

    /// Brings the places of the colleagues in line with the group; gives those who are new. A place is given
    /// to another once nothing that was said of whom it was is counted any more.
    pub(crate) fn count_colleagues(&mut self) -> Vec<PeerId> {
        let me = self.config.me.peer;
        let others = self.group.iter().map(|colleague| &colleague.addr);
        let others: Vec<PeerAddr> = others.filter(|addr| addr.peer != me).cloned().collect();
        let member = |peer: PeerId| others.iter().any(|addr| addr.peer == peer);
        let linked = &self.linked;
        let live = self.live.get_or_insert_default();
        let mut left = 0u8;
        for (at, colleague) in live.colleagues.iter_mut().enumerate() {
            if !member(colleague.addr.peer) {
                colleague.linked = false;
                left |= 1 << at;
            }
        }
        if left != 0 {
            for content in live.content.values_mut() {
                content.kept_at &= !left;
                content.offered_to &= !left;
                content.refused_by &= !left;
            }
        }
        let mut newcomers = Vec::new();
        for addr in &others {
            let mut known = live.colleagues.iter_mut();
            if let Some(known) = known.find(|known| known.addr.peer == addr.peer) {
                known.addr = addr.clone();
                continue;
            }
            let new = Kept {
                addr: addr.clone(),
                linked: linked.contains_key(&addr.peer),
                known: false,
                disk_fault: None,
            };
            newcomers.push(addr.peer);
            let free = live
                .colleagues
                .iter()
                .position(|old| !member(old.addr.peer));
            match free {
                Some(at) => live.colleagues[at] = new,
                None if live.colleagues.len() < COLLEAGUES_MAX => live.colleagues.push(new),
                None => {}
            }
        }
        live.others = u32::try_from(others.len()).unwrap_or(u32::MAX);
        newcomers
    }

    /// Whether as many supervisors hold this content as are to.
    pub(crate) fn secure(&self, hash: Hash) -> bool {
        let Some(live) = &self.live else { return false };
        let wanted = self.state.settings().keep.min(1 + live.others);
        live.content
            .get(&hash)
            .is_some_and(|content| content.own && 1 + content.kept_at.count_ones() >= wanted)
    }

    /// Offers content that this supervisor holds to as many others as are to hold it too.
    pub(crate) fn spread(&mut self, hash: Hash, out: &mut Vec<Action>) {
        let (epoch, me) = (self.state.epoch(), self.config.me.clone());
        let keep = self.state.settings().keep;
        let live = self.live.get_or_insert_default();
        let wanted = keep.min(1 + live.others);
        let Some(content) = live.content.get_mut(&hash) else {
            return;
        };
        if !content.own || !content.to_be_kept() {
            return;
        }
        let count = live.colleagues.len();
        // Different content begins at different colleagues, so that all have their share.
        let places = (0..count).map(|at| (at + usize::from(hash.0[0])) % count);
        for at in places {
            let (colleague, bit) = (&live.colleagues[at], 1 << at);
            let has = content.kept_at | content.offered_to;
            if 1 + has.count_ones() >= wanted {
                break;
            }
            if colleague.linked
                && colleague.known
                && has & bit == 0
                && content.refused_by & bit == 0
            {
                content.offered_to |= bit;
                let what = LeaderSays::Hold {
                    hash,
                    size: content.size,
                    sources: vec![me.clone()],
                };
                out.push(Action::ToSupervisor {
                    to: colleague.addr.peer,
                    msg: FromLeader { epoch, what },
                });
            }
        }
    }

    /// Offers again whatever is to be kept by more supervisors than have it, after the group has changed or
    /// a colleague has come.
    pub(crate) fn spread_wanted(&mut self, out: &mut Vec<Action>) {
        let live = self.live.get_or_insert_default();
        if live.others == 0 && live.submits.is_empty() && live.jobs.is_empty() {
            return;
        }
        let all = live
            .content
            .iter()
            .filter(|(_, content)| content.own && content.to_be_kept());
        let all: Vec<Hash> = all.map(|(hash, _)| *hash).collect();
        for hash in all {
            self.spread(hash, out);
            if self.secure(hash) {
                self.content_arrived(hash, out);
            }
        }
    }

    /// Another supervisor, linked to this one which leads, is told so and of all that goes on.
    pub(crate) fn greet_colleague(&mut self, peer: PeerId, out: &mut Vec<Action>) {
        let epoch = self.state.epoch();
        let live = self.live.get_or_insert_default();
        if let Some(colleague) = live
            .colleagues
            .iter_mut()
            .find(|known| known.addr.peer == peer)
        {
            colleague.linked = true;
            colleague.disk_fault = None;
        }
        out.push(Action::ToSupervisor {
            to: peer,
            msg: FromLeader {
                epoch,
                what: LeaderSays::Lead,
            },
        });
        self.hint_all(peer, out);
    }

    pub(crate) fn colleague_gone(&mut self, peer: PeerId) {
        let Some(live) = &mut self.live else { return };
        let found = live
            .colleagues
            .iter()
            .position(|known| known.addr.peer == peer);
        let Some(at) = found else { return };
        live.colleagues[at].linked = false;
        live.colleagues[at].known = false;
        for content in live.content.values_mut() {
            content.offered_to &= !(1 << at);
        }
    }

    /// A colleague answers to what this leader said.
    pub(crate) fn on_to_leader(&mut self, peer: PeerId, msg: ToLeader, out: &mut Vec<Action>) {
        let live = self.live.get_or_insert_default();
        let found = live
            .colleagues
            .iter()
            .position(|known| known.addr.peer == peer);
        let Some(at) = found else { return };
        let bit = 1 << at;
        match msg {
            ToLeader::Holds(hashes) => {
                live.colleagues[at].known = true;
                for content in live.content.values_mut() {
                    content.kept_at &= !bit;
                    content.offered_to &= !bit;
                }
                self.take_colleagues_stock(at, hashes, out);
            }
            ToLeader::HoldsMore(hashes) => self.take_colleagues_stock(at, hashes, out),
            ToLeader::Disk(fault) => live.colleagues[at].disk_fault = fault,
            ToLeader::Held(hash) => {
                let Some(content) = live
                    .content
                    .get_mut(&hash)
                    .filter(|content| content.to_be_kept())
                else {
                    return self.tell_drop(peer, vec![hash], out);
                };
                content.kept_at |= bit;
                content.offered_to &= !bit;
                content.refused_by = 0;
                if self.secure(hash) {
                    self.content_arrived(hash, out);
                }
            }
            ToLeader::NotHeld(hash, _) => {
                if let Some(content) = live.content.get_mut(&hash) {
                    content.offered_to &= !bit;
                    content.refused_by |= bit;
                    let at = self.now + SPREAD_AGAIN_AFTER;
                    self.live().set_timer(at, Timer::Spread(hash));
                    self.spread(hash, out);
                }
            }
        }
    }

    /// Content that others could not take is offered to all of them again.
    pub(crate) fn spread_again(&mut self, hash: Hash, out: &mut Vec<Action>) {
        if let Some(content) = self.live().content.get_mut(&hash) {
            content.refused_by = 0;
            self.spread(hash, out);
        }
    }

    fn take_colleagues_stock(&mut self, at: usize, hashes: Vec<Hash>, out: &mut Vec<Action>) {
        let live = self.live.get_or_insert_default();
        let (peer, bit) = (live.colleagues[at].addr.peer, 1 << at);
        let kept = |content: &Content| content.to_be_kept();
        let (wanted, unwanted): (Vec<Hash>, Vec<Hash>) = hashes
            .into_iter()
            .partition(|hash| live.content.get(hash).is_some_and(kept));
        for hash in &wanted {
            if let Some(content) = live.content.get_mut(hash) {
                content.kept_at |= bit;
            }
        }
        self.tell_drop(peer, unwanted, out);
        for hash in wanted {
            self.pull(hash, out);
        }
        self.spread_wanted(out);
        self.feed_starved();
    }

    pub(crate) fn tell_drop(&mut self, to: PeerId, hashes: Vec<Hash>, out: &mut Vec<Action>) {
        let epoch = self.state.epoch();
        for part in hashes.chunks(HASHES_MAX) {
            let what = LeaderSays::Drop(part.to_vec());
            out.push(Action::ToSupervisor {
                to,
                msg: FromLeader { epoch, what },
            });
        }
    }

    /// Colleagues that hold this content and are there.
    pub(crate) fn keepers_of(&self, hash: Hash) -> impl Iterator<Item = &PeerAddr> {
        let live = self.live.as_ref();
        let bits = live
            .and_then(|live| live.content.get(&hash))
            .map_or(0, |content| content.kept_at);
        let colleagues = live
            .into_iter()
            .flat_map(|live| live.colleagues.iter().enumerate());
        colleagues
            .filter(move |(at, colleague)| colleague.linked && bits & (1 << at) != 0)
            .map(|(_, colleague)| &colleague.addr)
    }

    /// Obeys whoever leads by the highest epoch seen.
    pub(crate) fn on_from_leader(&mut self, peer: PeerId, msg: FromLeader, out: &mut Vec<Action>) {
        let FromLeader { epoch, what } = msg;
        if epoch < self.led_by || epoch < self.state.epoch() {
            return;
        }
        if self.live.is_some() {
            if epoch == self.state.epoch() {
                return;
            }
            // Another leads, and this core had not heard of it.
            self.step_down(out);
        }
        (self.led_by, self.leader) = (epoch, Some(peer));
        match what {
            LeaderSays::Lead => {
                out.push(Action::TellHoldings { to: peer });
                self.tell_disk_fault(peer, out);
            }
            LeaderSays::Hints(hints) => self.take_hints(hints),
            LeaderSays::Hold {
                hash,
                size,
                sources,
            } => self.hold_for(hash, size, sources, out),
            LeaderSays::Drop(hashes) => out.push(Action::Drop(hashes)),
        }
    }

    fn hold_for(&mut self, hash: Hash, size: u64, sources: Vec<Source>, out: &mut Vec<Action>) {
        self.holding.insert(hash);
        out.push(Action::Pull {
            hash,
            size,
            sources,
        });
    }

    /// A pull has ended while another leads, who asked for it or has taken over meanwhile: it hears of all
    /// that this supervisor holds.
    pub(crate) fn pulled_for_leader(
        &mut self,
        hash: Hash,
        result: Result<(), PullFailure>,
        out: &mut Vec<Action>,
    ) {
        let asked = self.holding.remove(&hash);
        let Some(to) = self.leader else { return };
        let msg = match result {
            Ok(()) => ToLeader::Held(hash),
            Err(PullFailure::Here(why) | PullFailure::Sources(why)) if asked => {
                ToLeader::NotHeld(hash, why)
            }
            Err(_) => return,
        };
        out.push(Action::ToLeader { to, msg });
    }
}
