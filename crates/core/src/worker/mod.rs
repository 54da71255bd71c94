//! The worker's state machine: orders in; staging, starts, ends and reports out.
//!
//! A worker obeys only the highest epoch that it has seen, so that a leader that was frozen has no effect when it
//! resumes. It repeats every report on each new connection until the supervisor confirms that the report is settled.

mod benchmark;
mod checkpoints;
mod content;
mod heartbeats;
pub mod owner;

use benchmark::Benchmark;
use checkpoints::{Leaving, Saved};
use content::Content;
pub use heartbeats::HeartbeatSchedule;
use hedge_model::capacity::BenchScores;
use hedge_model::msg::{
    Assignment, FromWorker, GrantedBody, HeldAttempt, Outcome, Report, ToWorker, Usage,
};
use hedge_model::owner::{OwnerResponse, OwnerRules, Signal};
use hedge_model::spec::Runtime;
use hedge_model::{
    AttemptId, Checkpoint, CheckpointId, Ending, Epoch, Hash, JobId, Resources, Time,
};
use owner::Owner;
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The most attempts in hand. Further assignments are refused. The supervisor sends far fewer ahead.
const IN_HAND_MAX: usize = 100_000;

/// An input of the worker's state machine.
#[derive(Clone, Debug)]
pub enum Event {
    /// A supervisor with this epoch accepted the connection.
    Connected(Epoch),
    /// The connection has closed. Attempts continue.
    Disconnected,
    /// A message from a supervisor, over a connection of this epoch.
    Order(Epoch, ToWorker),
    /// Staging ended: the attempt can start, or failed with this ending.
    Staged(AttemptId, Result<(), Ending>),
    /// The attempt's process reports that it waits for a job of its grid, or that it continues.
    Waits(AttemptId, Option<JobId>),
    /// An attempt's checkpoint was stored, or could not be.
    Checkpoint {
        /// The checkpoint.
        id: CheckpointId,
        /// The stored checkpoint, or why it was not stored.
        saved: Result<Arc<Checkpoint>, String>,
    },
    /// The attempt's process has ended and its outputs are stored.
    Finished(Box<Report>),
    /// The process of this worker was asked to stop.
    Drain,
    /// The benchmark kernels ended; none if they failed.
    Benchmarked(Option<BenchScores>),
    /// A source of activity reports about the owner.
    Owner(Signal),
    /// A deadline has passed.
    Tick,
}

/// An action for the shell.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Fetch inputs and make the scratch directory, then report [`Event::Staged`].
    Stage(Arc<GrantedBody>, Assignment),
    /// Start the process, then report [`Event::Finished`] when it ends.
    Start(Arc<GrantedBody>, Assignment),
    /// End the process or the staging, and report [`Event::Finished`] or [`Event::Staged`].
    End(AttemptId),
    /// Ask the process to end within this time, so that it can save a checkpoint, and report [`Event::Finished`].
    Stop(AttemptId, Duration),
    /// Send this to the supervisor, if connected.
    Tell(FromWorker),
    /// These blobs are not needed any more.
    Drop(Vec<Hash>),
    /// Exit: nothing is left to do here.
    Leave,
    /// Run the benchmark kernels, then report [`Event::Benchmarked`].
    Benchmark,
    /// Stop the benchmark kernels; their result is not wanted any more.
    EndBenchmark,
    /// Suspend all processes of attempts and start none, or resume them, before any other action.
    Pause(bool),
    /// Give all processes of attempts the lowest priority, or their former one.
    Lower(bool),
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum State {
    Queued,
    Staging,
    Running,
    /// Runs and waits for this job. The resources that it releases meanwhile are free for others until it continues.
    /// If others hold them by then, they stay released until it ends.
    Waiting(JobId),
    /// Ended, and the report is not settled.
    Reported,
}

impl State {
    /// Returns whether it is staging or has a process.
    fn busy(self) -> bool {
        matches!(self, Self::Staging | Self::Running | Self::Waiting(_))
    }
}

#[derive(Debug)]
struct InHand {
    body: Arc<GrantedBody>,
    order: Assignment,
    state: State,
    since: Time,
    usage: Usage,
    cancelled: bool,
    leaving: Leaving,
    /// Its newest checkpoint.
    checkpoint: Option<Saved>,
    report: Option<Box<Report>>,
}

impl InHand {
    /// Returns what it takes while it runs.
    fn need(&self) -> Cow<'_, Resources> {
        self.body.resources_of(&self.order)
    }
}

/// The state of a worker: its attempts in hand, its free resources, and its response to the owner.
#[derive(Debug)]
pub struct Worker {
    epoch: Epoch,
    connected: bool,
    free: Resources,
    bodies: BTreeMap<(JobId, u32), Arc<GrantedBody>>,
    in_hand: BTreeMap<AttemptId, InHand>,
    queue: VecDeque<AttemptId>,
    draining: bool,
    content: Content,
    benchmark: Benchmark,
    owner: Owner,
}

impl Worker {
    /// Creates a worker that offers `resources` and has no owner to yield to.
    pub fn new(resources: Resources) -> Self {
        Self {
            epoch: Epoch(0),
            connected: false,
            free: resources,
            bodies: BTreeMap::new(),
            in_hand: BTreeMap::new(),
            queue: VecDeque::new(),
            draining: false,
            content: Content::default(),
            benchmark: Benchmark::default(),
            owner: Owner::new(OwnerRules::dedicated()),
        }
    }

    /// Makes the worker yield to its machine's owner by these rules.
    pub fn with_owner(mut self, rules: OwnerRules) -> Self {
        self.owner = Owner::new(rules);
        self
    }

    /// Handles one event at `now` and appends the resulting actions to `out`, in order.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Action>) {
        let (before, first) = (self.stance(), out.len());
        match event {
            Event::Connected(epoch) => {
                self.epoch = self.epoch.max(epoch);
                self.connected = true;
                self.bodies.clear();
                self.content.attached(&self.in_hand);
                if self.owner.response() != OwnerResponse::Work {
                    out.push(Action::Tell(FromWorker::Owner(self.owner.state(now))));
                }
                self.resend_unsettled(now, out);
            }
            Event::Disconnected => self.connected = false,
            Event::Order(epoch, _) if epoch < self.epoch => {}
            Event::Order(epoch, order) => {
                self.epoch = epoch;
                self.on_message(now, order, out);
            }
            Event::Staged(id, result) => self.on_staged(now, id, result, out),
            Event::Waits(id, job) => self.on_waits(id, job, out),
            Event::Checkpoint { id, saved } => self.on_checkpoint(now, id, saved, out),
            Event::Finished(report) => self.on_finished(*report, out),
            Event::Drain => {
                self.start_draining(out);
                out.push(Action::Tell(FromWorker::Draining));
            }
            Event::Owner(signal) => {
                if self.owner.signal(now, signal) {
                    self.apply_owner_response(now, out);
                }
            }
            Event::Tick => {
                if self.owner.update(now) {
                    self.apply_owner_response(now, out);
                }
            }
            Event::Benchmarked(scores) => {
                // Kernels that were stopped may have run beside a task.
                if self.benchmark == Benchmark::Running {
                    self.benchmark = Benchmark::Idle;
                    out.extend(scores.map(|scores| Action::Tell(FromWorker::Benchmarked(scores))));
                }
            }
        }
        let after = self.stance();
        // Yielding the machine to its owner comes before all other actions.
        if before.lowered != after.lowered {
            out.insert(first, Action::Lower(after.lowered));
        }
        if before.paused != after.paused {
            out.insert(first, Action::Pause(after.paused));
        }
        let working = self.owner.response() == OwnerResponse::Work;
        self.update_benchmark(out);
        if working {
            self.start_queued(now, out);
        }
    }

    /// Returns the attempts in hand, including those with unsettled reports.
    pub fn in_hand(&self) -> Vec<HeldAttempt> {
        let held = |(id, attempt): (&AttemptId, &InHand)| HeldAttempt {
            attempt: *id,
            redundant: attempt.order.redundant,
            seal: attempt.order.seal,
        };
        self.in_hand.iter().map(held).collect()
    }

    /// Returns the state of the response to the machine's owner.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Returns when an [`Event::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.owner.next_deadline()
    }

    /// Returns how many attempts are staging or running.
    pub fn busy(&self) -> usize {
        self.in_hand.values().filter(|a| a.state.busy()).count()
    }

    /// Returns how many attempts wait here for resources.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Returns how many reports are not settled.
    pub fn unsettled(&self) -> usize {
        self.in_hand
            .values()
            .filter(|attempt| attempt.report.is_some())
            .count()
    }

    fn on_message(&mut self, now: Time, order: ToWorker, out: &mut Vec<Action>) {
        match order {
            ToWorker::Body(body) => {
                self.bodies.insert((body.job, body.group), body);
            }
            ToWorker::Assign(order) => self.accept(now, order, out),
            ToWorker::Cancel(id) => self.cancel(id, out),
            ToWorker::Return(id) => {
                if self
                    .in_hand
                    .get(&id)
                    .is_some_and(|attempt| attempt.state == State::Queued)
                {
                    self.end(id, Outcome::Returned, Usage::default(), out);
                }
            }
            ToWorker::Settled(id) => {
                if self
                    .in_hand
                    .get(&id)
                    .is_some_and(|attempt| attempt.state == State::Reported)
                {
                    self.in_hand.remove(&id);
                }
            }
            ToWorker::Forget(job) => {
                self.bodies.retain(|(of, _), _| *of != job);
                self.content.forget(job, &self.in_hand, out);
            }
            ToWorker::Drop(hashes) => {
                self.forget_checkpoints(&hashes);
                self.content.drop(hashes, &self.in_hand, out);
            }
            ToWorker::Drain => self.start_draining(out),
            ToWorker::Leave => out.push(Action::Leave),
            // Kernels that run already report their scores in any case.
            ToWorker::Benchmark if self.benchmark == Benchmark::Running => {}
            ToWorker::Benchmark => self.benchmark = Benchmark::Requested,
            // The shell handles heartbeats and probes, so that they never wait for anything here.
            ToWorker::Heartbeat(_) | ToWorker::Tripwire { .. } | ToWorker::Probe { .. } => {}
            // The core does not see what attempts print.
            ToWorker::ReadPrinted(_) => {}
            // These concern connections, which the shell handles.
            ToWorker::Lead(_)
            | ToWorker::Supervisors(_)
            | ToWorker::Revoked(_)
            | ToWorker::Relays(_) => {}
        }
    }

    fn accept(&mut self, now: Time, order: Assignment, out: &mut Vec<Action>) {
        let id = order.attempt;
        if self.in_hand.contains_key(&id) {
            return;
        }
        let body = self
            .bodies
            .get(&(id.task.job, order.group))
            .filter(|body| body.version == order.version);
        let refuse = |why: &str| Report {
            attempt: id,
            outcome: Outcome::Ended(Ending::worker(why)),
            usage: Usage::default(),
            log: None,
        };
        let Some(body) = body else {
            return out.push(report_end(refuse("it does not know what to run")));
        };
        if self.in_hand.len() >= IN_HAND_MAX {
            return out.push(report_end(refuse("it has too many attempts in hand")));
        }
        let attempt = InHand {
            body: body.clone(),
            order,
            state: State::Queued,
            since: now,
            usage: Usage::default(),
            cancelled: false,
            leaving: Leaving::Stays,
            checkpoint: None,
            report: None,
        };
        self.in_hand.insert(id, attempt);
        self.queue.push_back(id);
        if self.draining || self.owner.response() != OwnerResponse::Work {
            self.end(id, Outcome::Returned, Usage::default(), out);
        }
    }

    fn cancel(&mut self, id: AttemptId, out: &mut Vec<Action>) {
        let Some(attempt) = self.in_hand.get_mut(&id) else {
            return;
        };
        attempt.cancelled = true;
        match attempt.state {
            State::Queued => self.end(id, Outcome::Ended(Ending::Cancelled), Usage::default(), out),
            State::Staging | State::Running | State::Waiting(_) => out.push(Action::End(id)),
            State::Reported => {}
        }
    }

    /// Starts queued attempts in order, as far as resources suffice.
    fn start_queued(&mut self, now: Time, out: &mut Vec<Action>) {
        while let Some(id) = self.queue.front().copied() {
            let Some(attempt) = self
                .in_hand
                .get_mut(&id)
                .filter(|attempt| attempt.state == State::Queued)
            else {
                self.queue.pop_front();
                continue;
            };
            if !self.free.covers(&attempt.need()) {
                break;
            }
            self.queue.pop_front();
            attempt.usage.queued = now.since(attempt.since);
            attempt.since = now;
            if attempt.body.runtime == Runtime::Noop {
                let usage = attempt.usage;
                self.end(id, Outcome::Done(Vec::new()), usage, out);
                continue;
            }
            self.free.take(&attempt.need());
            attempt.state = State::Staging;
            attempt.usage.moved = self.content.fetch(&attempt.body, &attempt.order);
            out.push(Action::Stage(attempt.body.clone(), attempt.order.clone()));
        }
    }

    fn on_staged(
        &mut self,
        now: Time,
        id: AttemptId,
        result: Result<(), Ending>,
        out: &mut Vec<Action>,
    ) {
        let Some(attempt) = self
            .in_hand
            .get_mut(&id)
            .filter(|attempt| attempt.state == State::Staging)
        else {
            return;
        };
        attempt.usage.staging = now.since(attempt.since);
        attempt.since = now;
        let usage = attempt.usage;
        let outcome = match result {
            _ if attempt.cancelled => Outcome::Ended(Ending::Cancelled),
            _ if attempt.leaving != Leaving::Stays => Outcome::Ended(Ending::Vacated),
            Err(ending) => Outcome::Ended(ending),
            Ok(()) => {
                attempt.state = State::Running;
                out.push(Action::Start(attempt.body.clone(), attempt.order.clone()));
                return out.push(Action::Tell(FromWorker::Started(id)));
            }
        };
        self.end(id, outcome, usage, out);
    }

    /// Handles a process that begins to wait for a job, and so releases resources, or that continues.
    fn on_waits(&mut self, id: AttemptId, job: Option<JobId>, out: &mut Vec<Action>) {
        let Some(attempt) = self.in_hand.get_mut(&id) else {
            return;
        };
        let (given, _) = attempt.need().while_waiting();
        attempt.state = match (attempt.state, job) {
            (State::Running, Some(job)) => {
                self.free.give(&given);
                State::Waiting(job)
            }
            (State::Waiting(_), Some(job)) => State::Waiting(job),
            (State::Waiting(_), None) if self.free.covers(&given) => {
                self.free.take(&given);
                State::Running
            }
            _ => return,
        };
        if self.connected {
            out.push(Action::Tell(FromWorker::Waits(id, job)));
        }
    }

    fn on_finished(&mut self, report: Report, out: &mut Vec<Action>) {
        let Some(attempt) = self
            .in_hand
            .get(&report.attempt)
            .filter(|attempt| matches!(attempt.state, State::Running | State::Waiting(_)))
        else {
            return;
        };
        let usage = Usage {
            queued: attempt.usage.queued,
            staging: attempt.usage.staging,
            moved: attempt.usage.moved,
            ..report.usage
        };
        let id = report.attempt;
        let done = matches!(report.outcome, Outcome::Done(_));
        let outcome = if attempt.cancelled && !done {
            Outcome::Ended(Ending::Cancelled)
        } else if attempt.leaving != Leaving::Stays && !done {
            Outcome::Ended(Ending::Vacated)
        } else {
            report.outcome
        };
        let log = report.log;
        self.end_with(
            id,
            Report {
                attempt: id,
                outcome,
                usage,
                log,
            },
            out,
        );
    }

    fn end(&mut self, id: AttemptId, outcome: Outcome, usage: Usage, out: &mut Vec<Action>) {
        self.end_with(
            id,
            Report {
                attempt: id,
                outcome,
                usage,
                log: None,
            },
            out,
        );
    }

    fn end_with(&mut self, id: AttemptId, report: Report, out: &mut Vec<Action>) {
        let Some(attempt) = self.in_hand.get_mut(&id) else {
            return;
        };
        match attempt.state {
            State::Staging | State::Running => self.free.give(&attempt.need()),
            State::Waiting(_) => self.free.give(&attempt.need().while_waiting().1),
            State::Queued | State::Reported => {}
        }
        attempt.state = State::Reported;
        if let Outcome::Done(outputs) = &report.outcome {
            self.content.made(outputs);
        }
        let checkpoint = match report.outcome {
            Outcome::Done(_) => attempt.checkpoint.take(),
            _ => None,
        };
        let job = attempt.body.job;
        let report = Box::new(report);
        attempt.report = Some(report.clone());
        if self.connected {
            out.push(Action::Tell(FromWorker::Ended(report)));
        }
        self.drop_unreported(checkpoint, out);
        self.content.ended(job, &self.in_hand, out);
    }

    /// Repeats unsettled reports, starts and checkpoints on a new connection.
    fn resend_unsettled(&mut self, now: Time, out: &mut Vec<Action>) {
        for attempt in self.in_hand.values_mut() {
            out.extend(attempt.checkpoint.as_mut().map(|saved| saved.report(now)));
            match (&attempt.report, attempt.state) {
                (Some(report), _) => out.push(Action::Tell(FromWorker::Ended(report.clone()))),
                (None, State::Running) => {
                    out.push(Action::Tell(FromWorker::Started(attempt.order.attempt)))
                }
                (None, State::Waiting(job)) => {
                    let id = attempt.order.attempt;
                    out.push(Action::Tell(FromWorker::Started(id)));
                    out.push(Action::Tell(FromWorker::Waits(id, Some(job))));
                }
                _ => {}
            }
        }
        if self.draining {
            out.push(Action::Tell(FromWorker::Draining));
        }
    }

    /// Stops taking attempts. Attempts with checkpoints move to other workers; the rest run to their end.
    fn start_draining(&mut self, out: &mut Vec<Action>) {
        self.draining = true;
        self.return_queued(out);
        self.vacate_saving(out);
    }

    /// Returns attempts that have not started to the supervisor.
    fn return_queued(&mut self, out: &mut Vec<Action>) {
        for id in std::mem::take(&mut self.queue) {
            self.end(id, Outcome::Returned, Usage::default(), out);
        }
    }

    /// Applies a changed response to the owner.
    fn apply_owner_response(&mut self, now: Time, out: &mut Vec<Action>) {
        let response = self.owner.response();
        if self.connected {
            out.push(Action::Tell(FromWorker::Owner(self.owner.state(now))));
        }
        if response != OwnerResponse::Work {
            self.return_queued(out);
        }
        if response == OwnerResponse::Vacate {
            self.vacate_all(out);
        }
    }
}

fn report_end(report: Report) -> Action {
    Action::Tell(FromWorker::Ended(Box::new(report)))
}
