//! The supervisors of a virtual grid: their processes, stores and connections, restarts, and leaders that were
//! frozen or cut off and act on what they believe.

use crate::actors::{Conn, ConnId, Event, Peer, Told, addr};
use crate::grid::{Grid, Violation};
use crate::shadow::Shadow;
use crate::watching::Watching;
use crate::worker::Input;
use crate::worker::blobs::leave;
use hedge_core::supervisor::{
    Action, Config, Effects, Event as Heard, FetchFailure, Proposal, Supervisor,
};
use hedge_model::group::{FromLeader, PeerSupervisor, ToLeader};
use hedge_model::msg::{Answer, GrantedBody, Grants, Reply, Role, ToWorker};
use hedge_model::record::FORMAT_MAX;
use hedge_model::{AttemptId, Epoch, Hash, PeerId, Source, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, Default)]
pub(crate) struct Sup {
    pub core: Option<Supervisor>,
    /// Counts the lives of the process.
    pub life: u64,
    pub frozen_until: Time,
    /// Until then it is in touch with no other supervisor.
    pub cut_until: Time,
    backlog: Vec<Heard>,
    pub store: BTreeSet<Hash>,
    /// Its disk was lost and is to be filled again; the leader may not know yet.
    pub wiped: bool,
    /// Connections that it takes for open.
    pub conns: BTreeMap<PeerId, ConnId>,
    tick_at: Option<Time>,
    pub watching: Watching,
    /// How many records of the journal it has heard of, and what they say.
    pub applied: usize,
    pub shadow: Shadow,
    /// The term in which it was told that it leads, until it hears of another.
    pub leads: Option<u64>,
    /// What it told workers to run since it leads.
    pub told: BTreeMap<AttemptId, Told>,
    /// The highest epoch of a leader that it has heard of.
    pub led_by: Epoch,
    /// What it was told by leaders that workers have in hand.
    pub hinted: BTreeMap<AttemptId, usize>,
    /// When its epoch began, and the last hints then.
    pub live_since: Option<Time>,
    pub inherited: BTreeMap<AttemptId, usize>,
    /// Workers that have attached since.
    pub came: BTreeSet<usize>,
}

impl Sup {
    pub fn serves(&self, now: Time) -> bool {
        self.core.is_some() && self.frozen_until <= now
    }
}

impl Grid {
    /// Lets a peer connect to a supervisor, if its process is there to do so; says why it never will.
    pub(crate) fn accept(
        &mut self,
        peer: Peer,
        sup: usize,
    ) -> Result<Result<ConnId, Refused>, Violation> {
        let (now, id) = (self.now, peer.id());
        let it = &self.sups[sup];
        let Some(core) = it.core.as_ref().filter(|_| it.serves(now)) else {
            return Ok(Err(Refused::Away));
        };
        let role = match peer {
            Peer::Worker(_) => Role::Worker,
            Peer::Client(_) => Role::Admin,
            Peer::Supervisor(_) => Role::Supervisor,
        };
        if role == Role::Worker && core.state().member(id).is_none() {
            return Ok(Err(Refused::ShutOut));
        }
        if let Some(old) = self.sups[sup].conns.remove(&id) {
            self.conns[old].up = false;
            if role != Role::Worker || self.dice.permille(500) {
                let silent = self.dice.permille(500);
                self.sup_handle(sup, Heard::Gone { peer: id, silent })?;
            }
        }
        self.conns.push(Conn {
            peer,
            sup,
            epoch: None,
            up: true,
            last_up: now,
            last_down: now,
        });
        let conn = self.conns.len() - 1;
        self.sups[sup].conns.insert(id, conn);
        self.sup_handle(sup, Heard::Linked { peer: id, role })?;
        Ok(Ok(conn))
    }

    /// Two supervisors connect, unless they are or cannot.
    pub(crate) fn link(&mut self, dialer: usize, sup: usize) -> Result<(), Violation> {
        let id = Peer::Supervisor(dialer).id();
        let linked = self.sups[sup].conns.get(&id).is_some_and(|conn| {
            let back = self.sups[dialer].conns.get(&Peer::Supervisor(sup).id());
            self.conns[*conn].up && back == Some(conn)
        });
        if linked || self.sups[dialer].core.is_none() {
            return Ok(());
        }
        let now = self.now;
        let cut = self.sups[sup].cut_until > now || self.sups[dialer].cut_until > now;
        let here = self.sups[dialer].serves(now) && !cut;
        let result = if here {
            self.accept(Peer::Supervisor(dialer), sup)?
        } else {
            Err(Refused::Away)
        };
        match result {
            Ok(conn) => {
                let peer = Peer::Supervisor(sup).id();
                if let Some(old) = self.sups[dialer].conns.insert(peer, conn) {
                    self.conns[old].up = false;
                    self.sup_handle(
                        dialer,
                        Heard::Gone {
                            peer,
                            silent: false,
                        },
                    )?;
                }
                let role = Role::Supervisor;
                self.sup_handle(dialer, Heard::Linked { peer, role })
            }
            Err(_) => {
                let after = self.dice.millis(50, 500);
                self.after(after, Event::Connect(Peer::Supervisor(dialer), sup));
                Ok(())
            }
        }
    }

    /// The dialling end of a connection between two supervisors notices that it is closed.
    pub(crate) fn link_closed(&mut self, dialer: usize, conn: ConnId) -> Result<(), Violation> {
        let sup = self.conns[conn].sup;
        let peer = Peer::Supervisor(sup).id();
        if self.sups[dialer].conns.get(&peer) != Some(&conn) {
            return Ok(());
        }
        self.sups[dialer].conns.remove(&peer);
        let after = self.dice.millis(1, 300);
        self.after(after, Event::Connect(Peer::Supervisor(dialer), sup));
        self.sup_handle(
            dialer,
            Heard::Gone {
                peer,
                silent: false,
            },
        )
    }

    pub(crate) fn arrive_up(&mut self, conn: ConnId, event: Heard) -> Result<(), Violation> {
        let line = &self.conns[conn];
        let (id, sup) = (line.peer.id(), line.sup);
        if line.up && self.sups[sup].conns.get(&id) == Some(&conn) {
            return self.sup_handle(sup, event);
        }
        Ok(())
    }

    pub(crate) fn arrive_down(&mut self, conn: ConnId, event: Heard) -> Result<(), Violation> {
        let line = &self.conns[conn];
        let Peer::Supervisor(dialer) = line.peer else {
            return Ok(());
        };
        let peer = Peer::Supervisor(line.sup).id();
        if line.up && self.sups[dialer].conns.get(&peer) == Some(&conn) {
            return self.sup_handle(dialer, event);
        }
        Ok(())
    }

    pub(crate) fn noticed_gone(&mut self, conn: ConnId) -> Result<(), Violation> {
        let (peer, sup) = (self.conns[conn].peer, self.conns[conn].sup);
        let id = peer.id();
        if self.sups[sup].conns.get(&id) != Some(&conn) {
            return Ok(());
        }
        self.sups[sup].conns.remove(&id);
        let silent = self.dice.permille(500);
        self.sup_handle(sup, Heard::Gone { peer: id, silent })
    }

    /// Hands an event to a supervisor, or keeps it until the process runs on; checks what must hold.
    pub(crate) fn sup_handle(&mut self, sup: usize, event: Heard) -> Result<(), Violation> {
        if self.sups[sup].frozen_until > self.now {
            self.sups[sup].backlog.push(event);
            return Ok(());
        }
        let Some(mut core) = self.sups[sup].core.take() else {
            return Ok(());
        };
        self.stats.supervisor_events += 1;
        let quiet = matches!(event, Heard::Tick);
        if self.tracing() && !quiet {
            self.note(format_args!("supervisor {sup} <- {event:?}"));
        }
        let change = self.before(sup, &event);
        let mut out = Effects::default();
        core.handle(self.now, event, &mut out);
        let silent = out.proposals.is_empty() && out.actions.is_empty();
        let checked = if self.options.check && (!quiet || !silent) {
            core.check()
        } else {
            Ok(())
        };
        self.sups[sup].core = Some(core);
        if self.tracing() {
            for proposal in &out.proposals {
                self.note(format_args!("supervisor {sup} -> {proposal:?}"));
            }
            for action in &out.actions {
                self.note(format_args!("supervisor {sup} -> {action:?}"));
            }
        }
        if let Err(what) = checked {
            return self.violated(format!("supervisor {sup}: {what}"));
        }
        self.after_event(sup, change, &out)?;
        let life = self.sups[sup].life;
        for Proposal { id, record } in out.proposals {
            self.propose(sup, id, record);
        }
        for action in out.actions {
            self.carry_out(sup, life, action)?;
        }
        self.schedule_tick(sup);
        Ok(())
    }

    fn carry_out(&mut self, sup: usize, life: u64, action: Action) -> Result<(), Violation> {
        match action {
            Action::Send { to, msg } => self.send_order(sup, to, msg),
            Action::SendBody { to, body, grant } => {
                if grant.reader != to {
                    return self.violated(format!("supervisor {sup}: {grant:?} goes to {to}"));
                }
                let grants = leave(&grant.blobs);
                let body = Arc::new(GrantedBody { body, grants });
                self.send_order(sup, to, ToWorker::Body(body));
            }
            Action::SendAssignment { to, order } => {
                if order.grant.reader != to {
                    return self.violated(format!("supervisor {sup}: {order:?} goes to {to}"));
                }
                let grants = leave(&order.grant.blobs);
                self.send_order(sup, to, ToWorker::Assign(order.with(grants)));
            }
            Action::Answer { to, answer } => self.send_answer(sup, to, answer),
            Action::AnswerWorkers { to, id, workers } => {
                let workers = workers.into_iter().map(|(_, view)| view);
                let reply = Reply::Workers(workers.collect());
                self.send_answer(sup, to, Answer { id, reply });
            }
            Action::AnswerGranted { to, id, reply, .. } => {
                let reply = reply.with(Grants::default());
                self.send_answer(sup, to, Answer { id, reply });
            }
            Action::Tell { to, reply } => {
                if let Some(conn) = self.sups[sup].conns.get(&to).copied() {
                    self.send_down(conn, Event::Told(conn, reply));
                }
            }
            Action::Fetch { hash, sources, .. } => {
                let after = self.dice.millis(1, 60);
                self.after(after, Event::Fetched(sup, life, hash, sources));
            }
            Action::Prove { holder, blobs } => {
                let after = self.dice.millis(1, 60);
                let hashes = blobs.into_iter().map(|(hash, _)| hash).collect();
                self.after(after, Event::Proved(sup, life, holder.peer, hashes));
            }
            Action::Drop(hashes) => {
                for hash in hashes {
                    self.sups[sup].store.remove(&hash);
                }
            }
            Action::ToSupervisor { to, msg } => {
                let peer = Peer::Supervisor(sup).id();
                self.tell_peer_supervisor(sup, to, Heard::FromLeader { peer, msg });
            }
            Action::ToLeader { to, msg } => self.tell_leader(sup, to, msg),
            Action::TellHoldings { to } => {
                let holds = self.sups[sup].store.iter().copied().collect();
                self.tell_leader(sup, to, ToLeader::Holds(holds));
            }
            Action::Expel(peer) => self.expel(sup, peer),
            Action::Watch { peer, attention } => self.watch(sup, peer, attention)?,
            Action::WatchSettings(settings) => self.watch_settings(sup, settings)?,
            // All links here are as fast as they need to be.
            Action::MeasureLink { .. } | Action::LinkRate { .. } => {}
            // Nobody joins here: all are members from the start.
            Action::Admit { .. } => {}
        }
        Ok(())
    }

    fn send_order(&mut self, sup: usize, to: PeerId, msg: ToWorker) {
        let conn = self.sups[sup].conns.get(&to).copied();
        if let (Some(conn), Some(Peer::Worker(ix))) = (conn, Peer::of(to)) {
            self.send_down(conn, Event::AtWorker(ix, Input::Order(conn, msg)));
        }
    }

    fn send_answer(&mut self, sup: usize, to: PeerId, answer: Answer) {
        if let Some(conn) = self.sups[sup].conns.get(&to).copied() {
            self.send_down(conn, Event::Answered(conn, answer));
        }
    }

    fn tell_leader(&mut self, sup: usize, to: PeerId, msg: ToLeader) {
        let peer = Peer::Supervisor(sup).id();
        self.tell_peer_supervisor(sup, to, Heard::ToLeader { peer, msg });
    }

    fn tell_peer_supervisor(&mut self, sup: usize, to: PeerId, event: Heard) {
        let Some(conn) = self.sups[sup].conns.get(&to).copied() else {
            return;
        };
        if self.conns[conn].sup == sup {
            self.send_down(conn, Event::Down(conn, event));
        } else {
            self.send_up(conn, event);
        }
    }

    /// A peer is a member no more: its connections here end; what it had sent may still be on its way to the
    /// core.
    fn expel(&mut self, sup: usize, peer: PeerId) {
        if let Some(conn) = self.sups[sup].conns.remove(&peer) {
            self.conns[conn].up = false;
            let noticed = self.dice.millis(1, 500);
            self.after(noticed, Event::Closed(conn));
        }
        if let Some(Peer::Worker(ix)) = Peer::of(peer) {
            for msg in self.last_words(ix) {
                let late = self.dice.millis(0, 2000);
                self.after(late, Event::Stray(sup, Heard::FromWorker { peer, msg }));
            }
        }
    }

    pub(crate) fn on_fetched(
        &mut self,
        sup: usize,
        life: u64,
        hash: Hash,
        sources: &[Source],
    ) -> Result<(), Violation> {
        if life != self.sups[sup].life || self.sups[sup].core.is_none() {
            return Ok(());
        }
        let held = self.sups[sup].store.contains(&hash);
        let gives = |source: &&Source| !held && self.serves(source.peer, hash);
        let sender = sources.iter().find(gives).map(|source| source.peer);
        let result = if held || sender.is_some() {
            self.sups[sup].store.insert(hash);
            Ok(sender)
        } else {
            self.suspected.insert(hash);
            Err(FetchFailure::Sources("no source gave it".to_owned()))
        };
        self.sup_handle(sup, Heard::Fetched { hash, result })
    }

    pub(crate) fn proved(
        &mut self,
        sup: usize,
        life: u64,
        holder: PeerId,
        hashes: Vec<Hash>,
    ) -> Result<(), Violation> {
        if life != self.sups[sup].life || self.sups[sup].core.is_none() {
            return Ok(());
        }
        let proof = |hash| match self.serves(holder, hash) {
            true => (hash, Ok(())),
            false => (hash, Err("it does not hold it".to_owned())),
        };
        let proofs = hashes.into_iter().map(proof).collect();
        self.sup_handle(sup, Heard::Proved { holder, proofs })
    }

    fn schedule_tick(&mut self, sup: usize) {
        let it = &mut self.sups[sup];
        let due = it.core.as_ref().and_then(|core| core.next_deadline());
        let Some(at) = due else { return };
        if it.tick_at.is_none_or(|set| at < set) {
            it.tick_at = Some(at);
            let life = it.life;
            self.after(at.since(self.now), Event::Tick(sup, life));
        }
    }

    pub(crate) fn tick(&mut self, sup: usize, life: u64) -> Result<(), Violation> {
        let it = &mut self.sups[sup];
        if life != it.life || it.frozen_until > self.now {
            return Ok(());
        }
        it.tick_at = None;
        match it.core.as_ref().and_then(|core| core.next_deadline()) {
            Some(at) if at <= self.now => self.sup_handle(sup, Heard::Tick),
            Some(_) => {
                self.schedule_tick(sup);
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(crate) fn freeze_supervisor(&mut self, sup: usize, span: std::time::Duration) {
        let it = &mut self.sups[sup];
        it.frozen_until = it.frozen_until.max(self.now + span);
        let (after, life) = (it.frozen_until.since(self.now), it.life);
        self.after(after, Event::ThawSupervisor(sup, life));
        if self.journal.leader == Some(sup) {
            self.unsettle(false);
        }
    }

    /// The process runs on, and first acts on what it slept through.
    pub(crate) fn thaw_supervisor(&mut self, sup: usize, life: u64) -> Result<(), Violation> {
        if life != self.sups[sup].life || self.sups[sup].frozen_until > self.now {
            return Ok(());
        }
        self.watch_thawed(sup)?;
        let backlog = std::mem::take(&mut self.sups[sup].backlog);
        backlog
            .into_iter()
            .try_for_each(|event| self.sup_handle(sup, event))?;
        self.sups[sup].tick_at = None;
        self.schedule_tick(sup);
        Ok(())
    }

    /// A supervisor has no touch with the others for a while; peers stay connected to it.
    pub(crate) fn cut_supervisor(&mut self, sup: usize, span: std::time::Duration) {
        let it = &mut self.sups[sup];
        it.cut_until = it.cut_until.max(self.now + span);
        let links: Vec<ConnId> = it
            .conns
            .values()
            .copied()
            .filter(|conn| {
                let line = &self.conns[*conn];
                matches!(line.peer, Peer::Supervisor(_))
            })
            .collect();
        links.into_iter().for_each(|conn| self.break_conn(conn));
        if self.journal.leader == Some(sup) {
            self.unsettle(false);
        }
    }

    /// A supervisor's process ends, perhaps with its disk, and starts again later.
    pub(crate) fn crash_supervisor(&mut self, sup: usize, wipe: bool) {
        let it = &mut self.sups[sup];
        if it.core.take().is_none() {
            return;
        }
        it.life += 1;
        it.backlog.clear();
        it.frozen_until = Time(0);
        it.tick_at = None;
        it.watching = Watching::default();
        it.leads = None;
        it.live_since = None;
        it.told.clear();
        it.led_by = Epoch(0);
        it.hinted.clear();
        it.inherited.clear();
        if wipe {
            it.store.clear();
            (it.wiped, it.applied) = (true, 0);
        }
        for conn in std::mem::take(&mut it.conns).into_values() {
            self.conns[conn].up = false;
            let noticed = self.dice.millis(10, 2500);
            let mine = self.conns[conn].sup == sup;
            let event = if mine {
                Event::Closed(conn)
            } else {
                Event::Gone(conn)
            };
            self.after(noticed, event);
        }
        let after = if wipe {
            self.dice.millis(500, 4000)
        } else {
            self.dice.millis(10, 1500)
        };
        self.after(after, Event::Restart(sup));
        if self.journal.leader == Some(sup) {
            self.unsettle(false);
        }
    }

    /// A supervisor's process starts with what its disk says, which may be less than it had heard before.
    pub(crate) fn restart(&mut self, sup: usize) -> Result<(), Violation> {
        if self.sups[sup].core.is_some() {
            return Ok(());
        }
        let applied = self.sups[sup].applied as u64;
        let known = (applied - self.dice.below(applied.min(4) + 1)) as usize;
        let state = self.through_bytes(self.state_at(known))?;
        let config = Config {
            watch: self.options.watch,
            ..Config::new(addr(Peer::Supervisor(sup).id()))
        };
        let shadow = self.journal.shadow_at(known);
        let it = &mut self.sups[sup];
        it.applied = known;
        it.shadow = shadow;
        it.core = Some(Supervisor::new(config, state));
        let all = self.sups.len();
        let peer_supervisor = |ix| PeerSupervisor {
            addr: addr(Peer::Supervisor(ix).id()),
            votes: true,
            format_max: FORMAT_MAX,
        };
        self.sup_handle(sup, Heard::Group((0..all).map(peer_supervisor).collect()))?;
        let (life, upto) = (self.sups[sup].life, self.journal.len());
        let after = self.dice.millis(0, 100);
        self.after(after, Event::Apply(sup, life, upto));
        for other in (0..all).filter(|other| *other != sup) {
            let after = self.dice.millis(0, 100);
            let (dialer, dialled) = (sup.max(other), sup.min(other));
            self.after(after, Event::Connect(Peer::Supervisor(dialer), dialled));
        }
        if self.journal.leader.is_none_or(|leader| leader == sup) {
            self.unsettle(false);
        }
        Ok(())
    }

    /// What a supervisor hears from a leader or a peer supervisor, for the checks.
    pub(crate) fn overhear(&mut self, sup: usize, msg: &FromLeader) {
        use hedge_model::group::LeaderSays;
        let it = &mut self.sups[sup];
        let obeyed = msg.epoch >= it.shadow.epoch.max(it.led_by) && it.live_since.is_none();
        if !obeyed {
            return;
        }
        it.led_by = msg.epoch;
        if let LeaderSays::Hints(hints) = &msg.what {
            for hint in hints {
                let Some(Peer::Worker(ix)) = Peer::of(hint.worker) else {
                    continue;
                };
                if hint.over {
                    self.sups[sup].hinted.remove(&hint.attempt);
                } else {
                    self.sups[sup].hinted.insert(hint.attempt, ix);
                }
            }
        }
    }
}

/// Why a connection does not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Nobody is there, or cannot be reached.
    Away,
    /// The peer is a member no more.
    ShutOut,
}
