//! The supervisor's side of a virtual grid: its process, journal and store, restarts, and a deposed leader
//! that wakes late.

use crate::actors::{Conn, ConnId, Event, Peer, addr, supervisor_id};
use crate::grid::{Grid, Violation};
use crate::watching::Watching;
use crate::worker::Input;
use hedge_core::supervisor::{Action, Config, Event as Heard, PullFailure, State, Supervisor};
use hedge_model::msg::Role;
use hedge_model::record::{Record, Ticket};
use hedge_model::{Epoch, Hash, PeerId, Source, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Debug, Default)]
pub(crate) struct Leader {
    pub core: Option<Supervisor>,
    /// Counts the lives of the process.
    pub life: u64,
    pub frozen_until: Time,
    backlog: Vec<Heard>,
    pub store: BTreeSet<Hash>,
    /// Connections that it takes for open.
    pub conns: BTreeMap<PeerId, ConnId>,
    in_flight: VecDeque<(u64, Record)>,
    last_commit: Time,
    tick_at: Option<Time>,
    /// What is durable and not applied to the shadow yet, and what was before.
    log: Vec<Record>,
    pub applied: usize,
    ghost: Option<Ghost>,
    pub watching: Watching,
}

/// A leader that was frozen while another took over.
#[derive(Debug)]
struct Ghost {
    core: Supervisor,
    life: u64,
    epoch: Epoch,
    backlog: Vec<Heard>,
}

impl Leader {
    pub fn serves(&self, now: Time) -> bool {
        self.core.is_some() && self.frozen_until <= now
    }
}

impl Grid {
    /// Lets a peer connect, if the supervisor's process is there to do so.
    pub(crate) fn accept(&mut self, peer: Peer) -> Result<Option<ConnId>, Violation> {
        let now = self.now;
        let leader = &self.leader;
        let live = leader.core.as_ref().filter(|core| core.is_live());
        let (Some(core), true) = (live, leader.serves(now)) else {
            return Ok(None);
        };
        let (life, epoch) = (leader.life, core.state().epoch());
        let id = peer.id();
        if let Some(old) = self.leader.conns.remove(&id) {
            self.conns[old].up = false;
            let noticed = matches!(peer, Peer::Client(_)) || self.dice.permille(500);
            if noticed {
                self.leader_handle(Heard::Gone { peer: id })?;
            }
        }
        self.conns.push(Conn {
            peer,
            life,
            epoch,
            up: true,
            last_up: now,
            last_down: now,
        });
        let conn = self.conns.len() - 1;
        self.leader.conns.insert(id, conn);
        Ok(Some(conn))
    }

    pub(crate) fn arrive_up(&mut self, conn: ConnId, event: Heard) -> Result<(), Violation> {
        let line = &self.conns[conn];
        let id = line.peer.id();
        if !line.up {
            return Ok(());
        }
        if line.life == self.leader.life && self.leader.conns.get(&id) == Some(&conn) {
            return self.leader_handle(event);
        }
        let life = line.life;
        if let Some(ghost) = &mut self.leader.ghost
            && ghost.life == life
        {
            ghost.backlog.push(event);
        }
        Ok(())
    }

    pub(crate) fn noticed_gone(&mut self, conn: ConnId) -> Result<(), Violation> {
        let peer = self.conns[conn].peer.id();
        if self.leader.conns.get(&peer) != Some(&conn) {
            return Ok(());
        }
        self.leader.conns.remove(&peer);
        self.leader_handle(Heard::Gone { peer })
    }

    /// Hands an event to the supervisor, or keeps it until the process runs on; checks what must hold.
    pub(crate) fn leader_handle(&mut self, event: Heard) -> Result<(), Violation> {
        if self.leader.frozen_until > self.now {
            self.leader.backlog.push(event);
            return Ok(());
        }
        let Some(mut core) = self.leader.core.take() else {
            return Ok(());
        };
        self.stats.supervisor_events += 1;
        if self.tracing() && !matches!(event, Heard::Tick) {
            self.note(format_args!("supervisor <- {event:?}"));
        }
        let change = self.before(&event);
        let mut out = Vec::new();
        core.handle(self.now, event, &mut out);
        let checked = if self.options.check {
            core.check()
        } else {
            Ok(())
        };
        self.leader.core = Some(core);
        for action in &out {
            if self.tracing() {
                self.note(format_args!("supervisor -> {action:?}"));
            }
        }
        if let Err(what) = checked {
            return self.violated(what);
        }
        self.after_event(change, &out)?;
        out.into_iter()
            .try_for_each(|action| self.carry_out(action))?;
        self.schedule_tick();
        Ok(())
    }

    fn carry_out(&mut self, action: Action) -> Result<(), Violation> {
        let life = self.leader.life;
        match action {
            Action::Append { proposal, record } => {
                let (low, high) = self.options.commit_ms;
                let at = self.now + self.dice.millis(low, high);
                let at = at.max(self.leader.last_commit);
                self.leader.last_commit = at;
                self.leader.in_flight.push_back((proposal, record));
                self.after(at.since(self.now), Event::Commit(life));
            }
            Action::Send { to, msg } => {
                if let (Some(conn), Some(Peer::Worker(ix))) =
                    (self.leader.conns.get(&to).copied(), Peer::of(to))
                {
                    self.send_down(conn, Event::AtWorker(ix, Input::Order(conn, msg)));
                }
            }
            Action::Answer { to, answer } => {
                if let Some(conn) = self.leader.conns.get(&to).copied() {
                    self.send_down(conn, Event::Answered(conn, answer));
                }
            }
            Action::Pull { hash, sources, .. } => {
                let after = self.dice.millis(1, 60);
                self.after(after, Event::Pulled(life, hash, sources));
            }
            Action::Drop(hashes) => {
                for hash in hashes {
                    self.leader.store.remove(&hash);
                }
            }
            // One supervisor, and nobody joins or is shut out.
            Action::Watch { peer, attention } => self.watch(peer, attention)?,
            Action::WatchSettings(settings) => self.watch_settings(settings)?,
            Action::Admit { .. }
            | Action::Tell { .. }
            | Action::ToSupervisor { .. }
            | Action::ToLeader { .. }
            | Action::TellHoldings { .. }
            | Action::Expel(_) => {}
        }
        Ok(())
    }

    pub(crate) fn commit(&mut self, life: u64) -> Result<(), Violation> {
        if life != self.leader.life {
            return Ok(());
        }
        let Some((proposal, record)) = self.leader.in_flight.pop_front() else {
            return Ok(());
        };
        self.leader.log.push(record.clone());
        self.leader_handle(Heard::Committed {
            proposal: Some(proposal),
            record,
        })
    }

    pub(crate) fn pulled(
        &mut self,
        life: u64,
        hash: Hash,
        sources: &[Source],
    ) -> Result<(), Violation> {
        if life != self.leader.life || self.leader.core.is_none() {
            return Ok(());
        }
        let given = sources.iter().any(|source| self.serves(source.peer, hash));
        let result = if given {
            self.leader.store.insert(hash);
            Ok(())
        } else {
            self.doubted.insert(hash);
            Err(PullFailure::Sources("no source gave it".to_owned()))
        };
        self.leader_handle(Heard::Pulled { hash, result })
    }

    fn schedule_tick(&mut self) {
        let due = self
            .leader
            .core
            .as_ref()
            .and_then(|core| core.next_deadline());
        let Some((at, _)) = due else { return };
        if self.leader.tick_at.is_none_or(|set| at < set) {
            self.leader.tick_at = Some(at);
            let life = self.leader.life;
            self.after(at.since(self.now), Event::Tick(life));
        }
    }

    pub(crate) fn tick(&mut self, life: u64) -> Result<(), Violation> {
        if life != self.leader.life || self.leader.frozen_until > self.now {
            return Ok(());
        }
        self.leader.tick_at = None;
        let due = self
            .leader
            .core
            .as_ref()
            .and_then(|core| core.next_deadline());
        match due {
            Some((at, _)) if at <= self.now => self.leader_handle(Heard::Tick),
            Some(_) => {
                self.schedule_tick();
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(crate) fn freeze_leader(&mut self, span: std::time::Duration) {
        self.leader.frozen_until = self.leader.frozen_until.max(self.now + span);
        let after = self.leader.frozen_until.since(self.now);
        self.after(after, Event::ThawLeader(self.leader.life));
    }

    pub(crate) fn thaw_leader(&mut self, life: u64) -> Result<(), Violation> {
        if life != self.leader.life || self.leader.frozen_until > self.now {
            return Ok(());
        }
        self.watch_thawed()?;
        let backlog = std::mem::take(&mut self.leader.backlog);
        backlog
            .into_iter()
            .try_for_each(|event| self.leader_handle(event))?;
        self.leader.tick_at = None;
        self.schedule_tick();
        Ok(())
    }

    /// The supervisor's process ends, or is frozen and taken for dead; another life begins.
    pub(crate) fn replace_leader(&mut self, frozen: bool) {
        let Some(core) = self.leader.core.take() else {
            return;
        };
        self.stats.takeovers += 1;
        let mut backlog = std::mem::take(&mut self.leader.backlog);
        let kept = self.dice.below(self.leader.in_flight.len() as u64 + 1) as usize;
        let in_flight = std::mem::take(&mut self.leader.in_flight);
        for (proposal, record) in in_flight.into_iter().take(kept) {
            self.leader.log.push(record.clone());
            backlog.push(Heard::Committed {
                proposal: Some(proposal),
                record,
            });
        }
        for conn in std::mem::take(&mut self.leader.conns).into_values() {
            let noticed = self.dice.millis(10, 2500);
            self.after(noticed, Event::Closed(conn));
            self.conns[conn].up &= frozen;
        }
        let old_ghost = self.leader.ghost.take();
        if frozen && old_ghost.is_none() {
            let epoch = core.state().epoch();
            let life = self.leader.life;
            self.leader.ghost = Some(Ghost {
                core,
                life,
                epoch,
                backlog,
            });
            let wakes = self.dice.millis(100, 6000);
            self.after(wakes, Event::Ghost);
        } else {
            self.leader.ghost = old_ghost;
        }
        self.leader.life += 1;
        self.leader.frozen_until = Time(0);
        self.leader.tick_at = None;
        self.leader.watching = Watching::default();
        self.told.clear();
        let after = self.dice.millis(10, 900);
        self.after(after, Event::Restart);
    }

    pub(crate) fn restart(&mut self) -> Result<(), Violation> {
        let mut state = State::default();
        let ticket = Ticket {
            hash: Hash([1; 32]),
            role: Role::Admin,
            expires: None,
            uses: None,
        };
        state.apply(&Record::TicketMade(ticket.clone()));
        for client in 0..self.clients.len() {
            state.apply(&Record::MemberJoined {
                peer: Peer::Client(client).id(),
                role: Role::Admin,
                ticket: ticket.hash,
                at: Time(0),
            });
        }
        for record in &self.leader.log {
            state.apply(record);
        }
        self.catch_up();
        let config = Config {
            watch: self.options.watch,
            ..Config::new(addr(supervisor_id()))
        };
        let core = Supervisor::new(config, state);
        for id in self.shadow.jobs.keys() {
            if core.job_view(*id).is_none() {
                return self.violated(format!("job {id} is forgotten after a restart"));
            }
        }
        self.leader.core = Some(core);
        let holds = self.leader.store.iter().copied().collect();
        self.leader_handle(Heard::Lead {
            holds,
            secret: [7; 32],
        })
    }

    /// Brings the shadow up to the end of the journal.
    pub(crate) fn catch_up(&mut self) {
        while let Some(record) = self.leader.log.get(self.leader.applied) {
            let change = self.shadow.apply(record);
            self.leader.applied += 1;
            self.count(change);
        }
    }

    /// Applies the next record of the journal to the shadow.
    pub(crate) fn follow(&mut self) -> crate::shadow::Change {
        let Some(record) = self.leader.log.get(self.leader.applied) else {
            return crate::shadow::Change::None;
        };
        let change = self.shadow.apply(record);
        self.leader.applied += 1;
        self.count(change);
        if !self.options.faults.supervisor {
            self.leader.log.clear();
            self.leader.applied = 0;
        }
        change
    }

    /// A deposed leader wakes, acts on what it slept through, and what it orders arrives late.
    pub(crate) fn ghost_wakes(&mut self) -> Result<(), Violation> {
        let Some(mut ghost) = self.leader.ghost.take() else {
            return Ok(());
        };
        let mut out = Vec::new();
        let backlog = std::mem::take(&mut ghost.backlog);
        for event in backlog.into_iter().chain([Heard::Tick]) {
            if self.tracing() {
                self.note(format_args!("old leader <- {event:?}"));
            }
            ghost.core.handle(self.now, event, &mut out);
            if self.options.check
                && let Err(what) = ghost.core.check()
            {
                return self.violated(format!("the old leader: {what}"));
            }
        }
        for action in out {
            if self.tracing() {
                self.note(format_args!("old leader -> {action:?}"));
            }
            if let Action::Send { to, msg } = action
                && let Some(Peer::Worker(ix)) = Peer::of(to)
            {
                let after = self.delay();
                self.after(after, Event::Late(ix, ghost.epoch, msg));
            }
        }
        self.conns
            .iter_mut()
            .filter(|conn| conn.life == ghost.life)
            .for_each(|conn| conn.up = false);
        Ok(())
    }
}
