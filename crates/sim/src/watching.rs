//! The monitor beside each virtual supervisor: heartbeats, questions and plans on their way, checks when they are due.

use crate::actors::{ConnId, Event, Peer};
use crate::grid::{Grid, Violation};
use hedge_core::monitor::{Attention, Monitor, Output, Settings, WatchId};
use hedge_core::supervisor::Event as Heard;
use hedge_model::msg::{Heartbeat, HeartbeatPlan};
use hedge_model::{PeerId, Time};
use std::collections::BTreeMap;

/// What a heartbeat takes on the wire, about.
const HEARTBEAT_BYTES: usize = 40;

/// The monitor of one life of the supervisor's process.
#[derive(Debug)]
pub(crate) struct Watching {
    monitor: Monitor,
    watched: BTreeMap<PeerId, (ConnId, WatchId)>,
    check_at: Option<Time>,
    outputs: Vec<Output>,
    /// Heartbeats that came while the process was frozen.
    backlog: Vec<(ConnId, Heartbeat)>,
}

impl Default for Watching {
    fn default() -> Self {
        Self {
            monitor: Monitor::new(Settings::default()),
            watched: BTreeMap::new(),
            check_at: None,
            outputs: Vec::new(),
            backlog: Vec::new(),
        }
    }
}

impl Grid {
    /// Carries out what the core wants of the monitor.
    pub(crate) fn watch(
        &mut self,
        sup: usize,
        peer: PeerId,
        attention: Option<Attention>,
    ) -> Result<(), Violation> {
        let now = self.now;
        let conn = self.sups[sup].conns.get(&peer).copied();
        let watching = &mut self.sups[sup].watching;
        let known = watching.watched.get(&peer).copied();
        match (attention, known, conn) {
            (Some(attention), known, Some(conn)) => {
                let id = match known {
                    Some((_, id)) => id,
                    None => watching.monitor.start(now, peer, &mut watching.outputs),
                };
                watching.watched.insert(peer, (conn, id));
                let out = &mut watching.outputs;
                watching.monitor.set_attention(now, id, attention, out);
            }
            (_, Some((_, id)), _) => {
                watching.watched.remove(&peer);
                watching.monitor.stop(now, id, &mut watching.outputs);
            }
            _ => {}
        }
        self.watched(sup)
    }

    pub(crate) fn watch_settings(
        &mut self,
        sup: usize,
        settings: Settings,
    ) -> Result<(), Violation> {
        let watching = &mut self.sups[sup].watching;
        watching
            .monitor
            .set(self.now, settings, &mut watching.outputs);
        self.watched(sup)
    }

    /// A heartbeat reaches the supervisor's process.
    pub(crate) fn heartbeat_arrives(
        &mut self,
        conn: ConnId,
        heartbeat: Heartbeat,
    ) -> Result<(), Violation> {
        let now = self.now;
        let line = &self.conns[conn];
        let (peer, sup) = (line.peer.id(), line.sup);
        if !line.up {
            return Ok(());
        }
        let frozen = self.sups[sup].frozen_until > now;
        let watching = &mut self.sups[sup].watching;
        if frozen {
            watching.backlog.push((conn, heartbeat));
            return Ok(());
        }
        let Some((_, id)) = watching.watched.get(&peer).filter(|(of, _)| *of == conn) else {
            return Ok(());
        };
        let out = &mut watching.outputs;
        watching
            .monitor
            .heartbeat(now, *id, &heartbeat, HEARTBEAT_BYTES, out);
        self.watched(sup)
    }

    /// The monitor's deadline.
    pub(crate) fn check(&mut self, sup: usize, life: u64) -> Result<(), Violation> {
        if life != self.sups[sup].life || self.sups[sup].frozen_until > self.now {
            return Ok(());
        }
        let watching = &mut self.sups[sup].watching;
        watching.check_at = None;
        if watching
            .monitor
            .next_check()
            .is_some_and(|at| at <= self.now)
        {
            watching.monitor.check(self.now, &mut watching.outputs);
        }
        self.watched(sup)
    }

    /// The process runs on: it looks at the time first, then at what came meanwhile.
    pub(crate) fn watch_thawed(&mut self, sup: usize) -> Result<(), Violation> {
        self.check(sup, self.sups[sup].life)?;
        let backlog = std::mem::take(&mut self.sups[sup].watching.backlog);
        backlog
            .into_iter()
            .try_for_each(|(conn, heartbeat)| self.heartbeat_arrives(conn, heartbeat))
    }

    /// A plan reaches a worker: it sends a heartbeat at once.
    pub(crate) fn planned(&mut self, ix: usize, conn: ConnId, plan: HeartbeatPlan) {
        let worker = &mut self.workers[ix];
        if worker.conn == Some(conn) && worker.up && !worker.left {
            if let Some(schedule) = &mut worker.schedule {
                schedule.follow(self.now, &plan);
            }
            self.send_due_heartbeats(ix, conn);
        }
    }

    /// A status request reaches a worker.
    pub(crate) fn asked(&mut self, ix: usize, conn: ConnId, seq: u64) {
        let now = self.now;
        let worker = &mut self.workers[ix];
        let here = worker.conn == Some(conn) && worker.up && !worker.left;
        if here
            && worker.frozen_until <= now
            && let Some(schedule) = &mut worker.schedule
        {
            let answer = schedule.answer(now, seq);
            self.send_heartbeat(ix, conn, answer);
        }
    }

    /// Carries out what the monitor wants.
    fn watched(&mut self, sup: usize) -> Result<(), Violation> {
        let mut found = Vec::new();
        for output in std::mem::take(&mut self.sups[sup].watching.outputs) {
            let (id, peer) = match &output {
                Output::Found(finding) => {
                    found.push(*finding);
                    continue;
                }
                Output::Plan { id, peer, .. } | Output::Ask { id, peer, .. } => (*id, *peer),
            };
            let watched = self.sups[sup].watching.watched.get(&peer);
            let conn = match watched {
                Some((conn, of)) if *of == id => *conn,
                _ => continue,
            };
            let Some(Peer::Worker(ix)) = Peer::of(peer) else {
                continue;
            };
            match output {
                Output::Plan { plan, .. } => self.send_down(conn, Event::Planned(ix, conn, plan)),
                Output::Ask { seq, .. } => self.send_down(conn, Event::Asked(ix, conn, seq)),
                Output::Found(_) => {}
            }
        }
        let due = self.sups[sup].watching.monitor.next_check();
        if let Some(at) = due
            && self.sups[sup].watching.check_at.is_none_or(|set| at < set)
        {
            self.sups[sup].watching.check_at = Some(at);
            self.after(at.since(self.now), Event::Check(sup, self.sups[sup].life));
        }
        found
            .into_iter()
            .try_for_each(|finding| self.sup_handle(sup, Heard::Found(finding)))
    }
}
