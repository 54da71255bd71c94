//! Heartbeats of a virtual worker.

use crate::actors::{ConnId, Event};
use crate::grid::Grid;
use hedge_model::msg::Heartbeat;
use hedge_model::owner::OwnerNote;

impl Grid {
    /// Sends the heartbeats that are due by a schedule that has changed, and the others in time.
    pub(crate) fn send_due_heartbeats(&mut self, ix: usize, conn: ConnId) {
        let worker = &mut self.workers[ix];
        worker.schedules += 1;
        let schedules = worker.schedules;
        self.heartbeat(ix, conn, schedules);
    }

    pub(crate) fn heartbeat(&mut self, ix: usize, conn: ConnId, schedules: u64) {
        let now = self.now;
        let worker = &mut self.workers[ix];
        if worker.conn != Some(conn) || worker.schedules != schedules || !worker.up || worker.left {
            return;
        }
        if worker.frozen_until > now {
            let thawed = worker.frozen_until.since(now);
            return self.after(thawed, Event::Heartbeat(ix, conn, schedules));
        }
        while let Some(schedule) = &mut self.workers[ix].schedule {
            let Some(heartbeat) = schedule.due(now) else {
                if let Some(next) = schedule.next() {
                    self.after(next.since(now), Event::Heartbeat(ix, conn, schedules));
                }
                break;
            };
            self.send_heartbeat(ix, conn, heartbeat);
        }
    }

    pub(crate) fn send_heartbeat(&mut self, ix: usize, conn: ConnId, heartbeat: Heartbeat) {
        let worker = &self.workers[ix];
        let heartbeat = Heartbeat {
            in_hand: worker.busy.len() as u32,
            owner: Some(OwnerNote::from(&worker.core.owner().state(self.now)))
                .filter(|note| note.change > 0),
            ..heartbeat
        };
        let copies = match self.dice.below(100) {
            _ if !self.options.faults.network || self.healed => 1,
            0..5 => 0,
            5..8 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let late = if self.options.faults.network && self.dice.permille(20) {
                self.dice.millis(50, 1200)
            } else {
                self.delay()
            };
            self.after(late, Event::HeartbeatArrives(conn, heartbeat.clone()));
        }
    }
}
