//! What breaks in a virtual grid, and how it is healed.

use crate::actors::{Event, Peer};
use crate::grid::{Grid, Violation};
use crate::worker::Input;

#[derive(Clone, Copy)]
enum Fault {
    Cut,
    Unreachable,
    Crash,
    Freeze,
    Rot,
    Drain,
    LeaderFreeze,
    LeaderRestart,
    LeaderTakeover,
    Look,
    Vanish,
}

impl Grid {
    /// Something breaks, and the next fault is drawn.
    pub(crate) fn fault(&mut self) -> Result<(), Violation> {
        let Some(every) = self.options.faults.every.filter(|_| !self.healed) else {
            return Ok(());
        };
        let mean = every.as_millis() as u64;
        let next = self.dice.millis(mean / 4, mean * 2);
        self.after(next, Event::Fault);
        let faults = self.options.faults;
        let mut menu = vec![Fault::Look, Fault::Look];
        if faults.network {
            menu.extend([Fault::Cut, Fault::Cut, Fault::Cut, Fault::Unreachable]);
        }
        if faults.workers {
            menu.extend([
                Fault::Crash,
                Fault::Crash,
                Fault::Freeze,
                Fault::Freeze,
                Fault::Rot,
            ]);
        }
        if faults.drains {
            menu.extend([Fault::Drain]);
        }
        if faults.supervisor {
            menu.extend([
                Fault::LeaderFreeze,
                Fault::LeaderRestart,
                Fault::LeaderTakeover,
            ]);
        }
        if self.dice.permille(30) {
            menu = vec![Fault::Vanish];
        }
        self.stats.faults += 1;
        let fault = *self.dice.pick(&menu);
        self.inject(fault)
    }

    fn inject(&mut self, fault: Fault) -> Result<(), Violation> {
        let (workers, clients) = (self.workers.len() as u64, self.clients.len() as u64);
        let ix = self.dice.below(workers) as usize;
        let client = self.dice.below(clients) as usize;
        match fault {
            Fault::Cut => {
                let conn = if self.dice.permille(250) {
                    self.clients[client].conn
                } else {
                    self.workers[ix].conn
                };
                if let Some(conn) = conn {
                    self.break_conn(conn);
                }
            }
            Fault::Unreachable => {
                let span = self.dice.millis(50, 4000);
                self.workers[ix].unreachable_until = self.now + span;
            }
            Fault::Crash => self.crash(ix),
            Fault::Freeze => {
                let span = self.dice.millis(50, 7000);
                let worker = &mut self.workers[ix];
                worker.frozen_until = worker.frozen_until.max(self.now + span);
                let after = worker.frozen_until.since(self.now);
                self.after(after, Event::Thaw(ix));
            }
            Fault::Rot => {
                let kept: Vec<_> = self.workers[ix].disk.iter().copied().collect();
                if !kept.is_empty() {
                    let hash = *self.dice.pick(&kept);
                    self.workers[ix].disk.remove(&hash);
                }
            }
            Fault::Drain if self.dice.permille(500) => return self.at_worker(ix, Input::Drain),
            Fault::Drain => self.drain(client, ix),
            Fault::LeaderFreeze => {
                let span = self.dice.millis(20, 3000);
                self.freeze_leader(span);
            }
            Fault::LeaderRestart => self.replace_leader(false),
            Fault::LeaderTakeover => self.replace_leader(true),
            Fault::Look => self.client_asks_around(client),
            Fault::Vanish if clients > 1 => self.client_vanishes(client),
            Fault::Vanish => {}
        }
        Ok(())
    }

    /// A worker's process dies, perhaps with its disk, and comes back later.
    pub fn crash(&mut self, ix: usize) {
        if !self.workers[ix].up {
            return;
        }
        self.lose_process(ix);
        if self.dice.permille(400) {
            self.workers[ix].disk.clear();
        }
        let after = self.dice.millis(50, 9000);
        self.after(after, Event::Reboot(ix));
    }

    /// Nothing breaks any more, and everybody who is away comes back.
    pub fn heal(&mut self) {
        self.healed = true;
        for ix in 0..self.workers.len() {
            let after = self.dice.millis(0, 1000);
            self.after(after, Event::Reboot(ix));
        }
        if self.tracing() {
            self.note(format_args!("healed"));
        }
    }

    /// Whether a peer is connected to the present life of the supervisor.
    pub(crate) fn connected(&self, peer: Peer) -> bool {
        self.leader.conns.contains_key(&peer.id())
    }
}
