//! Peers are let in, listed and shut out; the grid's settings are changed.

use super::contract::Pending;
use super::{Action, NotAdmitted, Supervisor, answer, name, send};
use crate::monitor::Settings as Watch;
use hedge_model::group::Colleague;
use hedge_model::msg::{RefusalKind, Reply, Role, ToWorker};
use hedge_model::record::{Record, Ticket};
use hedge_model::view::MemberView;
use hedge_model::{Hash, PeerAddr, PeerId};

type Refused = (RefusalKind, String);

/// How the names of settings begin that say how workers are watched.
const WATCHING: [&str; 6] = [
    "watch_",
    "beats_",
    "suspect_",
    "dead_",
    "progress_",
    "stall_",
];

impl Supervisor {
    /// A peer that is not connected yet wants in.
    pub(crate) fn on_joining(
        &mut self,
        peer: PeerId,
        role: Role,
        ticket: Option<Hash>,
        out: &mut Vec<Action>,
    ) {
        let refused = match self.admission(peer, role, ticket) {
            Ok(Some(ticket)) if self.live.is_some() => {
                let record = Record::MemberJoined {
                    peer,
                    role,
                    ticket,
                    at: self.now,
                };
                return self.append(record, Some(Pending::Joined { peer }), out);
            }
            Ok(Some(_)) => Some(NotAdmitted::Redirected),
            Ok(None) => None,
            // What a ticket is worth the leader knows first.
            Err(NotAdmitted::Stranger) if self.live.is_none() => Some(NotAdmitted::NotLeading),
            Err(refused) => Some(refused),
        };
        out.push(Action::Admit { peer, refused });
    }

    /// Whether a peer may come in, and with which ticket where it is no member yet.
    fn admission(
        &self,
        peer: PeerId,
        role: Role,
        ticket: Option<Hash>,
    ) -> Result<Option<Hash>, NotAdmitted> {
        if let Some(known) = self.state.member(peer) {
            return if known == role {
                Ok(None)
            } else {
                Err(NotAdmitted::WrongRole)
            };
        }
        if self.state.revoked.contains_key(&peer) {
            return Err(NotAdmitted::Revoked);
        }
        let ticket = ticket.ok_or(NotAdmitted::Stranger)?;
        self.invitation(ticket, role).map(|()| Some(ticket))
    }

    /// Whether a ticket lets peers of this role in, by the hash of its secret.
    pub fn invites(&self, ticket: Hash, role: Role) -> bool {
        self.invitation(ticket, role).is_ok()
    }

    fn invitation(&self, ticket: Hash, role: Role) -> Result<(), NotAdmitted> {
        match self.state.tickets.get(&ticket) {
            None => Err(NotAdmitted::Stranger),
            Some(Ticket { role: wanted, .. }) if *wanted != role => Err(NotAdmitted::WrongRole),
            Some(Ticket {
                expires: Some(end), ..
            }) if *end <= self.now => Err(NotAdmitted::Expired),
            Some(Ticket { uses: Some(0), .. }) => Err(NotAdmitted::Expired),
            Some(_) => Ok(()),
        }
    }

    /// Whether a relay may carry a peer's packets. One that holds a ticket may be on its way to join, or serve a
    /// client's files under a key of their own; that the ticket has let in all its peers is no reason against.
    pub(crate) fn may_relay(&self, peer: PeerId, ticket: Option<Hash>) -> Result<Reply, Refused> {
        let supervisors = || self.supervisors().into_iter().any(|addr| addr.peer == peer);
        let ticket = ticket.and_then(|hash| self.state.tickets.get(&hash));
        let invited = ticket.is_some_and(|ticket| ticket.expires.is_none_or(|end| end > self.now));
        if self.state.is_revoked(peer) {
            return Err((RefusalKind::NotAllowed, "it was shut out".into()));
        }
        if self.state.member(peer).is_some() || supervisors() || invited {
            return Ok(Reply::Ok);
        }
        let why = "it is no member of the grid and holds no ticket of it";
        Err((RefusalKind::NotAllowed, why.into()))
    }

    /// A peer that was let in has a connection.
    pub(crate) fn on_linked(&mut self, peer: PeerId, role: Role, out: &mut Vec<Action>) {
        *self.linked.entry(peer).or_insert(role) = role;
        if self.live.is_some() {
            self.tell_that_i_lead(peer, role, out);
        }
    }

    pub(crate) fn tell_that_i_lead(&mut self, peer: PeerId, role: Role, out: &mut Vec<Action>) {
        let epoch = self.state.epoch();
        match role {
            Role::Worker => send(peer, ToWorker::Lead(epoch), out),
            Role::Client | Role::Admin | Role::Relay => out.push(Action::Tell {
                to: peer,
                reply: Reply::Lead(epoch),
            }),
            Role::Supervisor => self.greet_colleague(peer, out),
        }
    }

    /// All supervisors of the grid, for others to connect to. Where this one is it knows before its group does.
    pub fn supervisors(&self) -> Vec<PeerAddr> {
        let me = &self.config.me;
        if self.group.is_empty() {
            return vec![me.clone()];
        }
        let addrs = self.group.iter().map(|colleague| &colleague.addr);
        addrs
            .map(|addr| if addr.peer == me.peer { me } else { addr })
            .cloned()
            .collect()
    }

    pub(crate) fn member_views(&self) -> Vec<MemberView> {
        let view = |(peer, member): (&PeerId, &super::durable::Member)| MemberView {
            peer: peer.to_string(),
            role: member.role.to_string(),
            joined_unix_s: member.joined.0 / 1_000_000_000,
            connected: self.linked.contains_key(peer) || *peer == self.config.me.peer,
            place: self.place_of(*peer),
            disk_fault: self.disk_fault_of(*peer).map(str::to_owned),
            ticket: member.ticket.map(|ticket| ticket.to_string()),
        };
        let mut views: Vec<MemberView> = self.state.members.iter().map(view).collect();
        // The founder of a grid joined nobody.
        let founders = self.group.iter().map(|colleague| colleague.addr.peer);
        for peer in founders.filter(|peer| !self.state.members.contains_key(peer)) {
            views.push(MemberView {
                peer: peer.to_string(),
                role: Role::Supervisor.to_string(),
                joined_unix_s: 0,
                connected: self.linked.contains_key(&peer) || peer == self.config.me.peer,
                place: self.place_of(peer),
                disk_fault: self.disk_fault_of(peer).map(str::to_owned),
                ticket: None,
            });
        }
        views
    }

    fn place_of(&self, peer: PeerId) -> Option<String> {
        let colleague = self
            .group
            .iter()
            .find(|colleague| colleague.addr.peer == peer)?;
        let place = match colleague {
            _ if peer == self.config.me.peer && self.live.is_some() => "leader",
            colleague if colleague.votes => "voter",
            _ => "learner",
        };
        Some(place.to_owned())
    }

    /// Ends a membership, and first the ticket by which it began.
    pub(crate) fn revoke(&mut self, asker: PeerId, ask: u64, name: &str, out: &mut Vec<Action>) {
        let record = self.revoke_named(asker, name);
        if let Ok(Record::MemberRevoked { peer, .. }) = &record
            && let Some(ticket) = self.revoke_ticket_of(*peer)
        {
            self.append(ticket, None, out);
        }
        self.decide(asker, ask, record, out);
    }

    /// Asks for the end of a membership, named by the beginning of an id or a worker's host.
    pub(crate) fn revoke_named(&self, asker: PeerId, name: &str) -> Result<Record, Refused> {
        let host = |peer: PeerId| {
            let live = self.live.as_ref()?;
            Some(&*live.worker(peer)?.info.host)
        };
        // The supervisor that founded the grid joined nobody.
        let seated = self.group.iter().map(|colleague| colleague.addr.peer);
        let seated = seated.filter(|peer| self.state.member(*peer).is_none());
        let members = self.state.members.keys().copied().chain(seated);
        let members = members.map(|peer| (peer, peer, host(peer)));
        let peer = name::only(name, "member", "hedge members", members)?;
        if peer == asker {
            let why = "this is the id of whoever asks, who could not undo it; nothing was changed: let another \
                       administrator do it";
            return Err((RefusalKind::Bad, why.into()));
        }
        let mut voters = self.group.iter().filter(|colleague| colleague.votes);
        let votes = |colleague: &Colleague| colleague.addr.peer == peer;
        if voters.clone().any(votes) && voters.all(votes) {
            let why = "this is the grid's only supervisor with a vote, and the grid would end with it; nothing was \
                       changed: let another join first";
            return Err((RefusalKind::Bad, why.into()));
        }
        Ok(Record::MemberRevoked { peer, at: self.now })
    }

    /// A member was shut out: on every supervisor at once.
    pub(crate) fn after_revoked(&mut self, peer: PeerId, out: &mut Vec<Action>) {
        out.push(Action::Expel(peer));
        if self.live.is_some() {
            self.on_gone(peer, false, out);
            self.heard_from(peer);
            let workers = self
                .linked
                .iter()
                .filter(|(other, role)| **role == Role::Worker && **other != peer);
            let workers: Vec<PeerId> = workers.map(|(other, _)| *other).collect();
            for worker in workers {
                send(worker, ToWorker::Revoked(vec![peer]), out);
            }
        }
        self.linked.remove(&peer);
    }

    /// Checks a setting, and asks for the record that makes it.
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

    /// Brings what follows from the settings in line with them.
    pub(crate) fn follow_settings(&mut self, out: &mut Vec<Action>) {
        self.follow_min_link(out);
        let settings = self.state.settings();
        let changed = settings.changed();
        if changed.contains_key("content_grace") {
            self.config.content_grace = settings.content_grace;
        }
        let watching = |name: &str| WATCHING.iter().any(|word| name.starts_with(word));
        if changed.keys().any(|name| watching(name)) {
            let watch = Watch::of(settings);
            if std::mem::replace(&mut self.config.watch, watch) != watch {
                out.push(Action::WatchSettings(watch));
            }
        }
    }

    /// Asks for the newest format that all supervisors speak.
    pub(crate) fn upgrade(&self) -> Result<Record, Refused> {
        let spoken = self.group.iter().map(|colleague| colleague.format_max);
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

    /// Appends what was asked for, or says why not.
    pub(crate) fn decide(
        &mut self,
        client: PeerId,
        ask: u64,
        record: Result<Record, Refused>,
        out: &mut Vec<Action>,
    ) {
        match record {
            Ok(record) => self.append(record, Some(Pending::Done { client, ask }), out),
            Err((kind, why)) => super::requests::refuse(client, ask, kind, why, out),
        }
    }

    /// Whoever waits for an answer of this supervisor asks the one that leads.
    pub(crate) fn send_askers_away(&mut self, out: &mut Vec<Action>) {
        let mut open: Vec<(PeerId, u64)> = Vec::new();
        for pending in std::mem::take(&mut self.pending).into_values() {
            match pending {
                Pending::Accepted { client, ask, .. }
                | Pending::Ticket { client, ask, .. }
                | Pending::Done { client, ask } => open.push((client, ask)),
                Pending::Joined { peer } => out.push(Action::Admit {
                    peer,
                    refused: Some(NotAdmitted::NotLeading),
                }),
                Pending::Unheard | Pending::Unwanted { .. } => {}
            }
        }
        if let Some(live) = &self.live {
            open.extend(
                live.submits
                    .iter()
                    .map(|submit| (submit.client, submit.ask)),
            );
            open.extend(
                live.jobs
                    .values()
                    .flat_map(|job| job.watchers.iter().copied()),
            );
        }
        for (client, ask) in open {
            answer(client, ask, Reply::No(super::not_leading()), out);
        }
    }
}
