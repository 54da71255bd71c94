//! Sends heartbeats from a separate thread with raised priority, when [`HeartbeatSchedule`] says, so that they wait
//! neither for the worker's loop nor for its tasks. Status requests are answered where they arrive.

use crate::NodeError;
use crate::transport::raise_priority;
use hedge_core::worker::HeartbeatSchedule;
use hedge_exec::Advanced;
use hedge_model::msg::{AttemptHeartbeat, Heartbeat, HeartbeatPlan, Phase};
use hedge_model::owner::OwnerNote;
use hedge_model::{AttemptId, Time};
use hedge_net::LinkSender;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most attempts in one heartbeat. Each takes at most 65 bytes, so that all fit into [`Heartbeat::BYTES_MAX`].
const ATTEMPTS_MAX: usize = 16;

/// A worker's heartbeats; clones share them. The thread ends with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct HeartbeatSender(Arc<Ending>);

#[derive(Debug)]
struct Ending(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    start: Instant,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    link: Option<Link>,
    attempts: BTreeMap<AttemptId, Known>,
    /// Attempts that changed since they were last included.
    news: VecDeque<AttemptId>,
    /// The attempt that was last included in turn.
    turn: Option<AttemptId>,
    owner: Option<OwnerNote>,
}

/// The connection over which heartbeats are sent.
#[derive(Debug)]
struct Link {
    conn: u64,
    sender: LinkSender,
    schedule: HeartbeatSchedule,
}

#[derive(Debug)]
struct Known {
    said: AttemptHeartbeat,
    news: bool,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

impl HeartbeatSender {
    /// Starts the thread. It sends nothing until it is connected.
    pub fn start() -> Result<Self, NodeError> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            start: Instant::now(),
        });
        let sending = shared.clone();
        let thread = std::thread::Builder::new().name("heartbeats".into());
        let started = thread.spawn(move || {
            raise_priority();
            sending.run();
        });
        started.map_err(|error| {
            NodeError::Other(format!("cannot start the thread of heartbeats: {error}"))
        })?;
        Ok(Self(Arc::new(Ending(shared))))
    }

    /// Sends heartbeats over this connection from now on, every `every` until its peer sends a plan.
    pub fn connect(&self, conn: u64, sender: LinkSender, every: Duration) {
        let now = self.0.0.now();
        let mut state = self.lock();
        match state.link.as_mut().filter(|link| link.conn == conn) {
            Some(link) => {
                link.schedule.restart(now, every);
                link.sender = sender;
            }
            None => {
                let schedule = HeartbeatSchedule::new(now, every);
                state.link = Some(Link {
                    conn,
                    sender,
                    schedule,
                });
            }
        }
        self.0.0.changed.notify_all();
    }

    /// Stops sending over this connection, which has closed.
    pub fn disconnect(&self, conn: u64) {
        let mut state = self.lock();
        state.link.take_if(|link| link.conn == conn);
    }

    /// Follows the supervisor's plan from now on, and sends a heartbeat at once.
    pub fn follow(&self, conn: u64, plan: &HeartbeatPlan) {
        let mut state = self.lock();
        if let Some(link) = state.link.as_mut().filter(|link| link.conn == conn) {
            link.schedule.follow(self.0.0.now(), plan);
            self.0.0.changed.notify_all();
        }
    }

    /// Answers a status request at once.
    pub fn answer(&self, conn: u64, seq: u64) {
        let mut state = self.lock();
        if let Some(link) = state.link.as_mut().filter(|link| link.conn == conn) {
            let answer = link.schedule.answer(self.0.0.now(), seq);
            state.send(answer);
        }
    }

    /// Sets the worker's response to its owner.
    pub fn owner(&self, note: OwnerNote) {
        // Before the first change, no message about it can have been lost.
        self.lock().owner = Some(note).filter(|note| note.change > 0);
    }

    /// Sets the phase of an attempt.
    pub fn phase(&self, attempt: AttemptId, phase: Phase) {
        self.lock().change(attempt, |said| said.phase = phase);
    }

    /// Sets the progress of an attempt. Ignored if it is not in hand any more.
    pub fn advanced(&self, attempt: AttemptId, to: Advanced) {
        let mut state = self.lock();
        if !state.attempts.contains_key(&attempt) {
            return;
        }
        state.change(attempt, |said| {
            said.phase = if to.waiting {
                Phase::Waiting
            } else {
                Phase::Running
            };
            said.cpu_us = u64::try_from(to.cpu.as_micros()).unwrap_or(u64::MAX);
            (said.written, said.permille, said.notes) = (to.written, to.permille, to.notes);
        });
    }

    /// Removes an attempt that is not in hand any more.
    pub fn forget(&self, attempt: AttemptId) {
        self.lock().attempts.remove(&attempt);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time since the sender started.
    fn now(&self) -> Time {
        Time(0) + self.start.elapsed()
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.ended {
            let Some(next) = state.link.as_ref().and_then(|link| link.schedule.next()) else {
                let wait = self.changed.wait(state);
                state = wait.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let now = self.now();
            if next > now {
                let wait = self.changed.wait_timeout(state, next.since(now));
                state = wait.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let due = state.link.as_mut();
            if let Some(heartbeat) = due.and_then(|link| link.schedule.due(now)) {
                state.send(heartbeat);
            }
        }
    }
}

impl State {
    /// Adds attempts and the response to the owner, and sends the heartbeat.
    fn send(&mut self, mut heartbeat: Heartbeat) {
        heartbeat.in_hand = self.attempts.len() as u32;
        heartbeat.owner = self.owner;
        self.tell(&mut heartbeat.attempts);
        let (Some(link), Ok(bytes)) = (&self.link, heartbeat.encode()) else {
            return;
        };
        if link.sender.send_heartbeat(bytes.into()).is_err() && link.sender.is_closed() {
            self.link = None;
        }
    }

    fn change(&mut self, attempt: AttemptId, change: impl FnOnce(&mut AttemptHeartbeat)) {
        let known = self.attempts.entry(attempt).or_insert(Known {
            said: AttemptHeartbeat {
                attempt,
                phase: Phase::Queued,
                cpu_us: 0,
                written: 0,
                permille: None,
                notes: 0,
            },
            news: false,
        });
        let before = known.said;
        change(&mut known.said);
        if known.said != before && !std::mem::replace(&mut known.news, true) {
            self.news.push_back(attempt);
        }
    }

    /// Chooses attempts for the next heartbeat: first those that changed, then the others in turn.
    fn tell(&mut self, told: &mut Vec<AttemptHeartbeat>) {
        while told.len() < ATTEMPTS_MAX
            && let Some(attempt) = self.news.pop_front()
        {
            if let Some(known) = self.attempts.get_mut(&attempt) {
                known.news = false;
                told.push(known.said);
            }
        }
        let after = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let turn = self.attempts.range((after, Bound::Unbounded));
        let turn = turn.chain(&self.attempts).take(self.attempts.len());
        let news = told.len();
        for (attempt, known) in turn {
            if told.len() >= ATTEMPTS_MAX {
                break;
            }
            self.turn = Some(*attempt);
            if !told[..news].iter().any(|said| said.attempt == *attempt) {
                told.push(known.said);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hedge_model::owner::OwnerResponse;
    use hedge_model::{Epoch, JobId, TaskId};

    fn attempt(number: u32) -> AttemptId {
        AttemptId {
            task: TaskId {
                job: JobId(u64::MAX),
                number: u32::MAX - number,
            },
            generation: u32::MAX,
            epoch: Epoch(u64::MAX),
            number: u32::MAX,
        }
    }

    fn told(state: &mut State) -> Vec<AttemptId> {
        let mut told = Vec::new();
        state.tell(&mut told);
        told.into_iter().map(|said| said.attempt).collect()
    }

    #[test]
    fn all_attempts_have_their_turn_and_news_come_first() {
        let mut state = State::default();
        for number in 0..100 {
            state.change(attempt(number), |said| said.phase = Phase::Running);
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..14 {
            seen.extend(told(&mut state));
        }
        assert_eq!(seen.len(), 100);
        state.change(attempt(50), |said| said.cpu_us = 1);
        assert_eq!(told(&mut state)[0], attempt(50));
        state.attempts.clear();
        assert!(told(&mut state).is_empty());
    }

    #[test]
    fn the_longest_heartbeat_fits_into_a_packet() {
        let mut state = State::default();
        for number in 0..100 {
            state.change(attempt(number), |said| {
                *said = AttemptHeartbeat {
                    attempt: said.attempt,
                    phase: Phase::Ended,
                    cpu_us: u64::MAX,
                    written: u64::MAX,
                    permille: Some(u16::MAX),
                    notes: u32::MAX,
                };
            });
        }
        let mut heartbeat = Heartbeat {
            seq: u64::MAX,
            sent_ns: u64::MAX,
            plan: u32::MAX,
            answers: u64::MAX,
            in_hand: u32::MAX,
            attempts: Vec::new(),
            owner: Some(OwnerNote {
                change: u32::MAX,
                response: OwnerResponse::Vacate,
                why: u16::MAX,
                away_ms: u32::MAX,
            }),
        };
        state.tell(&mut heartbeat.attempts);
        assert_eq!(heartbeat.attempts.len(), ATTEMPTS_MAX);
        let bytes = heartbeat.encode().unwrap().len();
        assert!(bytes <= Heartbeat::BYTES_MAX, "{bytes}");
    }
}
