//! Admission, listing and revocation of members, and changes of the grid's settings.

use crate::supervisor::api::name;
use crate::supervisor::api::requests::refuse;
use crate::supervisor::contract::Pending;
use crate::supervisor::durable::state::Member;
use crate::supervisor::leader::{LeaderView, Leadership};
use crate::supervisor::{Action, send};
use hedge_model::group::PeerSupervisor;
use hedge_model::msg::{RefusalKind, Reply, Role, ToWorker};
use hedge_model::record::Record;
use hedge_model::view::MemberView;
use hedge_model::{Hash, PeerId};

type Refused = (RefusalKind, String);

impl Leadership<'_> {
    pub(crate) fn announce_leadership(&mut self, peer: PeerId, role: Role) {
        let epoch = self.state.epoch();
        match role {
            Role::Worker => send(peer, ToWorker::Lead(epoch), self.out),
            Role::Client | Role::Admin | Role::Relay => self.out.push(Action::Tell {
                to: peer,
                reply: Reply::Lead(epoch),
            }),
            Role::Supervisor => self.introduce_to(peer),
        }
    }

    /// Revokes a member, and first the ticket with which it joined.
    pub(crate) fn revoke(&mut self, requester: PeerId, request_id: u64, name: &str) {
        let record = self.view().revoke_named(requester, name);
        if let Ok(Record::MemberRevoked { peer, .. }) = &record
            && let Some(ticket) = self.view().revoke_ticket_of(*peer)
        {
            self.append(ticket, None);
        }
        self.decide(requester, request_id, record);
    }

    /// Handles the committed revocation of a member: the leader loses it as a worker, and tells all other workers.
    pub(crate) fn after_revoked(&mut self, peer: PeerId) {
        self.on_gone(peer, false);
        if let Some(ix) = self.leader.pool.find(peer) {
            self.lose_checkpoints(ix);
        }
        self.note_reported(peer);
        let linked = self.peers.linked.iter();
        let workers = linked.filter(|(other, role)| **role == Role::Worker && **other != peer);
        for (worker, _) in workers {
            send(*worker, ToWorker::Revoked(vec![peer]), self.out);
        }
    }

    /// Appends the requested record, or refuses the request.
    pub(crate) fn decide(
        &mut self,
        client: PeerId,
        request_id: u64,
        record: Result<Record, Refused>,
    ) {
        match record {
            Ok(record) => self.append(record, Some(Pending::Done { client, request_id })),
            Err((kind, why)) => refuse(client, request_id, kind, why, self.out),
        }
    }
}

impl LeaderView<'_> {
    /// Returns whether a relay may carry a peer's packets. A peer that holds a ticket may be about to join, or may
    /// serve a client's files under a separate key. It is allowed even if the ticket is used up.
    pub(crate) fn may_relay(&self, peer: PeerId, ticket: Option<Hash>) -> Result<Reply, Refused> {
        let supervisors = || {
            self.peers
                .supervisors(&self.config.me)
                .into_iter()
                .any(|addr| addr.peer == peer)
        };
        let ticket = ticket.and_then(|hash| self.state.tickets.get(&hash));
        let invited = ticket.is_some_and(|ticket| ticket.expires.is_none_or(|end| end > self.now));
        if self.state.is_revoked(peer) {
            return Err((RefusalKind::NotAllowed, "it was revoked".into()));
        }
        if self.state.member(peer).is_some() || supervisors() || invited {
            return Ok(Reply::Ok);
        }
        let why = "it is no member of the grid and holds no ticket of it";
        Err((RefusalKind::NotAllowed, why.into()))
    }

    pub(crate) fn member_views(&self) -> Vec<MemberView> {
        let view = |(peer, member): (&PeerId, &Member)| MemberView {
            peer: peer.to_string(),
            role: member.role.to_string(),
            joined_unix_s: member.joined.0 / 1_000_000_000,
            connected: self.peers.linked.contains_key(peer) || *peer == self.config.me.peer,
            place: self.place_of(*peer),
            disk_fault: self.disk_fault_of(*peer).map(str::to_owned),
            ticket: member.ticket.map(|ticket| ticket.to_string()),
        };
        let mut views: Vec<MemberView> = self.state.members.iter().map(view).collect();
        // The founder of a grid joined without a ticket and is not in the list of members.
        let founders = self
            .peers
            .group
            .iter()
            .map(|peer_supervisor| peer_supervisor.addr.peer);
        for peer in founders.filter(|peer| !self.state.members.contains_key(peer)) {
            views.push(MemberView {
                peer: peer.to_string(),
                role: Role::Supervisor.to_string(),
                joined_unix_s: 0,
                connected: self.peers.linked.contains_key(&peer) || peer == self.config.me.peer,
                place: self.place_of(peer),
                disk_fault: self.disk_fault_of(peer).map(str::to_owned),
                ticket: None,
            });
        }
        views
    }

    fn place_of(&self, peer: PeerId) -> Option<String> {
        let peer_supervisor = self
            .peers
            .group
            .iter()
            .find(|peer_supervisor| peer_supervisor.addr.peer == peer)?;
        let place = match peer_supervisor {
            _ if peer == self.config.me.peer => "leader",
            peer_supervisor if peer_supervisor.votes => "voter",
            _ => "learner",
        };
        Some(place.to_owned())
    }

    /// Returns the record that revokes a member. `name` is the beginning of its id, or a worker's host.
    pub(crate) fn revoke_named(&self, requester: PeerId, name: &str) -> Result<Record, Refused> {
        let host = |peer: PeerId| {
            let leader = self.leader;
            Some(&*leader.worker(peer)?.info().host)
        };
        // The supervisor that founded the grid is not in the list of members.
        let seated = self
            .peers
            .group
            .iter()
            .map(|peer_supervisor| peer_supervisor.addr.peer);
        let seated = seated.filter(|peer| self.state.member(*peer).is_none());
        let members = self.state.members.keys().copied().chain(seated);
        let members = members.map(|peer| (peer, peer, host(peer)));
        let peer = name::only(name, "member", "hedge members", members)?;
        if peer == requester {
            let why = "this is your own id, and you could not undo it; nothing was changed: let another \
                       administrator do it";
            return Err((RefusalKind::Bad, why.into()));
        }
        let mut voters = self
            .peers
            .group
            .iter()
            .filter(|peer_supervisor| peer_supervisor.votes);
        let votes = |peer_supervisor: &PeerSupervisor| peer_supervisor.addr.peer == peer;
        if voters.clone().any(votes) && voters.all(votes) {
            let why = "this is the grid's only supervisor with a vote, and the grid would end with it; nothing was \
                       changed: let another join first";
            return Err((RefusalKind::Bad, why.into()));
        }
        Ok(Record::MemberRevoked { peer, at: self.now })
    }

    /// Checks a setting and returns the record that changes it.
    pub(crate) fn setting(&self, name: &str, value: &str) -> Result<Record, Refused> {
        let mut changed = (**self.state.settings()).clone();
        match changed.set(name, value) {
            Ok(()) => Ok(Record::Set {
                name: name.into(),
                value: value.into(),
                at: self.now,
            }),
            Err(error) => Err((RefusalKind::Bad, error.to_string())),
        }
    }

    /// Returns the record that switches the group to the newest format that all supervisors speak.
    pub(crate) fn upgrade(&self) -> Result<Record, Refused> {
        let spoken = self
            .peers
            .group
            .iter()
            .map(|peer_supervisor| peer_supervisor.format_max);
        let level = spoken.fold(self.config.format_max, u32::min);
        if level <= self.state.format() {
            let why = format!(
                "the group writes format {} already, the newest that all its members speak; nothing was changed",
                self.state.format()
            );
            return Err((RefusalKind::Bad, why));
        }
        Ok(Record::Format {
            level,
            at: self.now,
        })
    }
}
