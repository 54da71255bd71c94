//! Heartbeats of a virtual worker.

use crate::actors::{ConnId, Event};
use crate::grid::Grid;
use hedge_model::msg::Heartbeat;
use hedge_model::owner::OwnerNote;

impl Grid {
    pub(crate) fn heartbeat(&mut self, ix: usize, conn: ConnId, beating: u64) {
        let now = self.now;
        let worker = &mut self.workers[ix];
        if worker.conn != Some(conn) || worker.beating != beating || !worker.up || worker.left {
            return;
        }
        let next = match worker.plan {
            Some(plan) => plan.every,
            None => Some(self.options.watch.idle.interval),
        };
        if worker.frozen_until > now {
            let thawed = worker.frozen_until.since(now);
            return self.after(thawed, Event::Heartbeat(ix, conn, beating));
        }
        self.send_heartbeat(ix, conn, 0);
        if let Some(next) = next {
            self.after(next, Event::Heartbeat(ix, conn, beating));
        }
    }

    pub(crate) fn send_heartbeat(&mut self, ix: usize, conn: ConnId, answers: u64) {
        let worker = &mut self.workers[ix];
        worker.heartbeats += 1;
        let heartbeat = Heartbeat {
            seq: worker.heartbeats,
            sent_ns: self.now.0,
            plan: worker.plan.map_or(0, |plan| plan.number),
            answers,
            in_hand: worker.busy.len() as u32,
            attempts: Vec::new(),
            owner: Some(OwnerNote::from(&worker.core.owner().state(self.now)))
                .filter(|note| note.change > 0),
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
