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
    Owner,
    SupFreeze,
    SupCrash,
    SupCut,
    SupLink,
    Wipe,
    Move,
    AllCrash,
    Revoke,
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
        if faults.owners {
            menu.extend([Fault::Owner; 4]);
        }
        if faults.supervisor {
            menu.extend([
                Fault::SupFreeze,
                Fault::SupCrash,
                Fault::SupCrash,
                Fault::Move,
            ]);
        }
        if faults.supervisor && self.sups.len() > 1 {
            menu.extend([
                Fault::SupFreeze,
                Fault::SupCut,
                Fault::SupCut,
                Fault::SupLink,
                Fault::Wipe,
                Fault::AllCrash,
            ]);
        }
        if faults.revoke {
            menu.extend([Fault::Revoke]);
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
                let sup = self.dice.below(self.sups.len() as u64) as usize;
                let sup = self
                    .journal
                    .leader
                    .filter(|_| self.dice.permille(600))
                    .unwrap_or(sup);
                let conn = if self.dice.permille(250) {
                    self.clients[client].conns[sup]
                } else {
                    self.workers[ix].conns[sup]
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
            Fault::Owner => self.owner_acts(ix),
            Fault::Revoke => self.shut_out(client),
            Fault::Look => self.client_asks_around(client),
            Fault::Vanish if clients > 1 => self.client_vanishes(client),
            Fault::Vanish => {}
            about_supervisors => self.inject_at_supervisors(about_supervisors),
        }
        Ok(())
    }

    fn inject_at_supervisors(&mut self, fault: Fault) {
        // The leader is what it hurts most to lose.
        let any = self.dice.below(self.sups.len() as u64) as usize;
        let leader = self.journal.leader.filter(|_| self.dice.permille(600));
        let sup = leader.unwrap_or(any);
        match fault {
            Fault::SupFreeze => {
                let span = self.dice.millis(20, 4000);
                self.freeze_supervisor(sup, span);
            }
            Fault::SupCrash => self.crash_supervisor(sup, false),
            Fault::SupCut => {
                let span = self.dice.millis(50, 5000);
                self.cut_supervisor(sup, span);
            }
            Fault::SupLink => {
                let conns = self.sups[sup].conns.values().copied();
                let linked = |conn: &usize| matches!(self.conns[*conn].peer, Peer::Supervisor(_));
                let links: Vec<usize> = conns.filter(linked).collect();
                if !links.is_empty() {
                    let conn = *self.dice.pick(&links);
                    self.break_conn(conn);
                }
            }
            Fault::Wipe if self.all_is_held() => self.crash_supervisor(sup, true),
            Fault::AllCrash => {
                (0..self.sups.len()).for_each(|sup| self.crash_supervisor(sup, false));
            }
            Fault::Move => self.unsettle(true),
            _ => {}
        }
    }

    /// A worker is revoked, if enough others are left to do everything.
    fn shut_out(&mut self, client: usize) {
        let ix = self.workers.len() - 1;
        if ix >= 3 && self.truth().revoked.is_empty() {
            self.revoke(client, ix);
        }
    }

    /// Whether one disk can be lost without losing what was promised to survive that.
    fn all_is_held(&self) -> bool {
        let wiped = self.sups.iter().any(|it| it.wiped);
        let jobs = self.truth().jobs.values();
        let mut promised = jobs.flat_map(|job| job.promised());
        let twice = |hash: hedge_model::Hash| {
            let holders = self.sups.iter().filter(|it| it.store.contains(&hash));
            holders.count() >= 2
        };
        !wiped && promised.all(twice)
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
            self.owner_works(ix, false);
        }
        if self.tracing() {
            self.note(format_args!("healed"));
        }
    }
}
