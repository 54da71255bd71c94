//! Accepts connections of peers, receives their messages, and handles the end of connections.

use super::core_loop::{ConnId, From, Loop, Worker};
use super::{core_loop, peers};
use crate::supervisor::pending_requests::ReplyTo;
use hedge_core::supervisor::{Action, Event, NotAdmitted};
use hedge_model::PeerId;
use hedge_model::msg::{FromWorker, Reply, Request, Role, ToWorker, Welcome};
use hedge_net::{Caller, CloseReason, Incoming, Link, LinkSender};
use std::collections::HashSet;

impl Loop {
    /// Returns whether this is the worker's present connection.
    pub(super) fn is_worker_on(&self, peer: PeerId, conn: ConnId) -> bool {
        let worker = self.workers.get(&peer);
        worker.is_some_and(|worker| worker.conn == conn)
    }

    pub(super) fn on_messages(&mut self, peer: PeerId, conn: ConnId, from: From) {
        match from {
            From::Worker(msgs) => self.on_worker(peer, conn, msgs),
            From::Client(asks) => {
                for ask in asks {
                    let watch = matches!(ask.request, Request::Watch(_));
                    let reply_to = ReplyTo::Remote {
                        conn,
                        request_id: ask.id,
                        watch,
                    };
                    self.ask(peer.into(), ask.request, reply_to);
                }
            }
        }
    }

    fn on_worker(&mut self, peer: PeerId, conn: ConnId, msgs: Vec<FromWorker>) {
        if !self.is_worker_on(peer, conn) {
            return;
        }
        for msg in msgs {
            if let (FromWorker::Attach(info), Some(worker)) = (&msg, self.workers.get_mut(&peer)) {
                worker.pid = info.pid;
            }
            self.feed(Event::FromWorker { peer, msg });
        }
    }

    pub(super) fn on_incoming(&mut self, incoming: Incoming) {
        let (peer, role) = (incoming.peer, incoming.hello.role);
        // The journal knows the supervisors. The first of them did not join with a ticket.
        if role == Role::Supervisor && self.trusted.contains(&peer) {
            return core_loop::decide(self, incoming, None);
        }
        let secret = incoming.hello.proof;
        let ticket = secret.map(|secret| hedge_net::secret_hash(&secret));
        self.undecided.entry(peer).or_default().push(incoming);
        self.feed(Event::Joining { peer, role, ticket });
    }

    /// Handles a connection that another supervisor dialled. If it was revoked during the handshake, it is not heard.
    pub(super) fn on_peer_supervisor(&mut self, peer: PeerId, caller: Caller) {
        match self.core.state().is_revoked(peer) && !self.trusted.contains(&peer) {
            true => self.setup.links.shut_out(peer),
            false => drop(self.peer_supervisors.insert(peer, caller)),
        }
    }

    pub(super) fn on_linked(&mut self, peer: PeerId, role: Role, link: Link) {
        // It was revoked during the handshake.
        if self.core.state().is_revoked(peer) {
            return link.sender.close(CloseReason::Revoked);
        }
        self.last_conn += 1;
        let conn = self.last_conn;
        let sender = peers::serve(
            link,
            role,
            conn,
            self.setup.inputs.clone(),
            &self.setup.watch,
        );
        match role {
            Role::Worker => {
                let worker = Worker {
                    conn,
                    sender,
                    pid: 0,
                };
                if let Some(old) = self.workers.insert(peer, worker) {
                    old.sender.close(CloseReason::Replaced);
                    self.setup.watch.unlink(old.conn);
                    // It reports what it has in hand next.
                    self.feed(Event::Gone { peer, silent: true });
                }
            }
            Role::Client | Role::Admin | Role::Supervisor | Role::Relay => {
                self.clients.insert(conn, sender);
            }
        }
        self.feed(Event::Linked { peer, role });
    }

    pub(super) fn on_gone(&mut self, peer: PeerId, conn: ConnId, silent: bool) {
        if self.is_worker_on(peer, conn) {
            self.workers.remove(&peer);
            self.setup.watch.unlink(conn);
            if !silent {
                self.setup.links.hang_up(peer);
            }
            self.feed(Event::Gone { peer, silent });
        }
        if self.clients.remove(&conn).is_some() {
            let asks = self.pending.forget(conn);
            self.feed(Event::RequestsAbandoned(asks));
            // A peer may have several connections. Only with the last one is it gone.
            let here = self.clients.values().any(|other| other.peer() == peer);
            if !here && !self.workers.contains_key(&peer) {
                self.feed(Event::Gone { peer, silent });
            }
        }
    }

    pub(super) fn on_process_ended(&mut self, pid: u32) {
        let found = self.workers.iter().find(|(_, worker)| worker.pid == pid);
        if let Some((peer, worker)) = found.map(|(peer, worker)| (*peer, worker)) {
            worker.sender.close(CloseReason::Lost);
            let conn = worker.conn;
            self.on_gone(peer, conn, false);
        }
    }

    pub(super) fn admit(&mut self, peer: PeerId, refused: Option<NotAdmitted>) {
        let Some(waiting) = self.undecided.get_mut(&peer) else {
            return;
        };
        let incoming = waiting.remove(0);
        if waiting.is_empty() {
            self.undecided.remove(&peer);
        }
        let here =
            |why: &NotAdmitted| !matches!(why, NotAdmitted::NotLeading | NotAdmitted::Redirected);
        if let Some(why) = refused.filter(here) {
            let outcome = format!("refused: {}", why.text());
            let role = Some(incoming.hello.role);
            self.setup.audit.note(peer, role, "connect", &outcome);
        }
        core_loop::decide(self, incoming, refused);
    }

    pub(super) fn welcome(&self) -> Welcome {
        Welcome {
            epoch: self.core.state().epoch(),
            heartbeat_interval: self.core.watch().idle.interval,
            supervisors: self.core.supervisors(),
            relays: self.core.state().settings().relays.to_vec(),
        }
    }

    /// Applies the relay setting here, and tells every connected peer.
    pub(super) fn follow_relays(&mut self) {
        let relays = &self.core.state().settings().relays;
        if *relays == self.relays {
            return;
        }
        self.relays = relays.clone();
        self.publish_ticket_contacts();
        let all = self.relays.to_vec();
        if let Some(known) = &self.setup.known {
            known.save_relays(&all);
        }
        for to in self.workers.keys() {
            let msg = ToWorker::Relays(all.clone());
            self.effects.actions.push(Action::Send { to: *to, msg });
        }
        let clients: HashSet<PeerId> = self.clients.values().map(LinkSender::peer).collect();
        for to in clients {
            let reply = Reply::Relays(all.clone());
            self.effects.actions.push(Action::Tell { to, reply });
        }
        self.setup.links.use_relays(all);
    }

    /// Handles a revoked member: from now on it is served nothing.
    pub(super) fn expel(&mut self, peer: PeerId) {
        self.setup.trust.revoke(peer);
        if let Some(worker) = self.workers.remove(&peer) {
            worker.sender.close(CloseReason::Revoked);
            self.setup.watch.unlink(worker.conn);
        }
        let theirs = |_: &ConnId, sender: &mut hedge_net::LinkSender| sender.peer() == peer;
        let gone: Vec<_> = self.clients.extract_if(theirs).collect();
        for (conn, sender) in gone {
            sender.close(CloseReason::Revoked);
            let asks = self.pending.forget(conn);
            self.feed(Event::RequestsAbandoned(asks));
        }
        self.peer_supervisors.remove(&peer);
        self.setup.links.shut_out(peer);
        for incoming in self.undecided.remove(&peer).into_iter().flatten() {
            incoming.refuse(CloseReason::Revoked);
        }
    }

    pub(super) fn close_all(&mut self) {
        let workers = self.workers.values().map(|worker| &worker.sender);
        for sender in self.clients.values().chain(workers) {
            sender.close(CloseReason::ShuttingDown);
        }
        for caller in self.peer_supervisors.values() {
            caller.link().close(CloseReason::ShuttingDown);
        }
    }
}
