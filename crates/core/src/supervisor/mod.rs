//! The supervisor's state machine: jobs, workers and attempts in; assignments, records and answers out.
//!
//! Durable is what [`State`] holds; it changes by committed records alone. Everything else lives on the
//! leader only and is dropped when it is deposed.

mod access;
mod activate;
mod attach;
mod attention;
mod away;
mod body;
mod bounded;
mod capacity;
mod check;
mod choose;
mod colleagues;
mod contract;
mod critical;
mod data;
mod deadline;
mod disk;
mod durable;
mod faults;
mod hints;
mod job_view;
mod jobs;
mod keep;
mod later;
mod learned;
mod ledger;
mod left;
mod link;
mod live;
mod members;
mod name;
mod need;
mod nested;
mod placement;
mod ready;
pub mod redundancy;
mod requests;
mod retention;
mod room;
mod snapshot;
mod submitted;
mod tickets;
mod unheard;
mod views;
mod waits;
mod workers;

pub use contract::{Action, Config, Event, NotAdmitted, ProposalId, PullFailure};
pub use critical::CriticalSet;
pub use durable::{State, Verdict};
pub use learned::Learned;
pub use link::{MeasureMost, Measured};

use crate::monitor::{Finding, Found, Settings as Watch};
use contract::Pending;
use hedge_model::group::{Colleague, Hint};
use hedge_model::msg::{Answer, HASHES_MAX, Refusal, RefusalKind, Reply, Role, ToWorker};
use hedge_model::record::Record;
use hedge_model::{AttemptId, Epoch, Hash, JobSpec, PeerId, Time};
use live::{Live, Timer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A supervisor.
#[derive(Debug)]
pub struct Supervisor {
    config: Config,
    state: State,
    live: Option<Live>,
    now: Time,
    last_proposal: ProposalId,
    pending: BTreeMap<ProposalId, Pending>,
    own_content: Vec<Hash>,
    /// Decides on redundancy in the place of what jobs ask for.
    policy: Option<Box<dyn redundancy::Policy>>,
    secret: [u8; 32],
    /// The proposal of an epoch with whose commit this core goes live.
    begins: Option<ProposalId>,
    group: Vec<Colleague>,
    linked: BTreeMap<PeerId, Role>,
    /// The highest epoch of a leader that this core, not leading itself, has heard of, and whose it is.
    led_by: Epoch,
    leader: Option<PeerId>,
    hints: BTreeMap<AttemptId, Hint>,
    /// Content that is on its way into the own store for a leader.
    holding: BTreeSet<Hash>,
    /// Why nothing can be stored here now; none where it can.
    disk_fault: Option<String>,
}

/// What a record took out of the state, for what is to be done about it.
#[derive(Default)]
struct Taken {
    /// The content of a task that was lost.
    left: Vec<Hash>,
    /// The job that was forgotten.
    job: Option<Arc<durable::Job>>,
    /// The whole specification of the job that ended.
    spec: Option<Arc<JobSpec>>,
}

impl Supervisor {
    /// A supervisor with this durable state, not live yet.
    pub fn new(config: Config, state: State) -> Self {
        let now = state.recorded_time();
        let mut supervisor = Self {
            config,
            state,
            live: None,
            now,
            last_proposal: 0,
            pending: BTreeMap::new(),
            own_content: Vec::new(),
            policy: None,
            secret: [0; 32],
            begins: None,
            group: Vec::new(),
            linked: BTreeMap::new(),
            led_by: Epoch(0),
            leader: None,
            hints: BTreeMap::new(),
            holding: BTreeSet::new(),
            disk_fault: None,
        };
        supervisor.follow_settings(&mut Vec::new());
        supervisor
    }

    /// Takes over the durable state of a snapshot, which is ahead of all that was committed here. Not for a
    /// core that leads.
    pub fn restore(&mut self, state: State) {
        self.now = self.now.max(state.recorded_time());
        self.state = state;
        let mut hints = std::mem::take(&mut self.hints);
        hints.retain(|attempt, _| !self.is_over(*attempt));
        self.hints = hints;
        self.follow_settings(&mut Vec::new());
    }

    /// Takes one event at `now` and adds what is to be done to `out`, in order.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Action>) {
        self.now = self.now.max(now);
        let news = !matches!(
            event,
            Event::Found(Finding {
                what: Found::Progress(..),
                ..
            })
        );
        match event {
            Event::Lead { holds, secret } => {
                (self.own_content, self.secret) = (holds, secret);
                self.begin_epoch(out);
            }
            Event::Deposed => {
                self.begins = None;
                self.step_down(out);
            }
            Event::Group(group) => self.on_group(group, out),
            Event::Disk(fault) => self.on_disk(fault, out),
            Event::Linked { peer, role } => self.on_linked(peer, role, out),
            Event::FromLeader { peer, msg } => self.on_from_leader(peer, msg, out),
            Event::Committed { proposal, record } => self.on_committed(proposal, record, out),
            Event::Joining { peer, role, ticket } => self.on_joining(peer, role, ticket, out),
            Event::Submit { peer, ask, .. } | Event::Ask { peer, ask, .. }
                if self.live.is_none() =>
            {
                answer(peer, ask, Reply::No(not_leading()), out);
            }
            Event::Gone { peer, .. } if self.live.is_none() => {
                self.linked.remove(&peer);
            }
            Event::Pulled { hash, result } if self.live.is_none() => {
                self.pulled_for_leader(hash, result, out);
            }
            _ if self.live.is_none() => {}
            Event::ToLeader { peer, msg } => self.on_to_leader(peer, msg, out),
            Event::FromWorker { peer, msg } => self.on_worker(peer, msg, out),
            Event::Found(finding) => self.on_found(finding, out),
            Event::LinkMeasured { peer, found } => self.link_found(peer, found, out),
            Event::Submit {
                peer,
                ask,
                key,
                spec,
                from,
            } => self.on_submit(peer, ask, key, spec, from, out),
            Event::Ask {
                peer,
                ask,
                request,
                secret,
            } => self.on_ask(peer, ask, request, secret, out),
            Event::Gone { peer, silent } => self.on_gone(peer, silent, out),
            Event::Unasked(asks) => self.live().unwatch(&asks),
            Event::Pulled { hash, result } => self.on_pulled(hash, result, out),
            Event::Tick => self.on_tick(out),
        }
        if let Some(live) = &mut self.live {
            live.looks.changed(news);
            if std::mem::take(&mut live.leaving_due) {
                self.let_leave(out);
            }
            self.classify();
            self.schedule(out);
            self.look(out);
            self.attend(out);
        }
    }

    /// When [`Event::Tick`] is due, and why.
    pub fn next_deadline(&self) -> Option<(Time, &'static str)> {
        let live = self.live.as_ref()?;
        let (at, timer) = live.timers.first()?;
        Some((*at, timer.why()))
    }

    /// The durable state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether this core leads.
    pub fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// How many records were appended that are not committed yet and promise something.
    pub fn promised(&self) -> usize {
        self.pending.len()
    }

    /// How workers are to be watched.
    pub fn watch(&self) -> Watch {
        self.config.watch
    }

    fn live(&mut self) -> &mut Live {
        self.live.get_or_insert_default()
    }

    fn append(&mut self, record: Record, pending: Option<Pending>, out: &mut Vec<Action>) {
        if pending.is_none() && record.format() > self.state.format() {
            // It only makes later decisions better; the group does without until it is upgraded.
            return;
        }
        self.last_proposal += 1;
        if let Some(pending) = pending {
            self.pending.insert(self.last_proposal, pending);
        }
        out.push(Action::Append {
            proposal: self.last_proposal,
            record,
        });
    }

    fn begin_epoch(&mut self, out: &mut Vec<Action>) {
        let record = Record::Epoch {
            epoch: Epoch(self.state.epoch().0 + 1),
            at: self.now,
            secret: self.secret,
        };
        self.append(record, None, out);
        self.begins = Some(self.last_proposal);
    }

    fn on_committed(
        &mut self,
        proposal: Option<ProposalId>,
        record: Record,
        out: &mut Vec<Action>,
    ) {
        let taken = self.taken_by(&record);
        let verdict = self.state.apply(&record);
        if verdict == Verdict::Applied {
            self.rate_after(&record);
        }
        let pending = proposal.and_then(|id| self.pending.remove(&id));
        self.forget_hints(&record);
        self.follow_grid(&record, verdict, proposal, out);
        if self.live.is_none() {
            return;
        }
        self.follow_work(record, verdict, pending.is_some(), taken, out);
        if let Some(pending) = pending {
            self.fulfil(pending, verdict, out);
        }
    }

    /// What a record takes out of the state if it applies.
    fn taken_by(&self, record: &Record) -> Taken {
        let mut taken = Taken::default();
        match record {
            Record::OutputsLost { task, .. } => {
                let done = self.state.task(*task).and_then(|task| task.done.as_ref());
                taken.left = done
                    .iter()
                    .flat_map(|done| done.left().map(|(hash, _)| hash))
                    .collect();
            }
            Record::JobForgotten { job, .. } => taken.job = self.state.jobs.get(job).cloned(),
            Record::JobEnded { job, .. } => {
                taken.spec = self.state.jobs.get(job).map(|job| job.spec.clone());
            }
            _ => {}
        }
        taken
    }

    /// What a committed record means for the grid: its settings, its members, and whether this core leads.
    fn follow_grid(
        &mut self,
        record: &Record,
        verdict: Verdict,
        proposal: Option<ProposalId>,
        out: &mut Vec<Action>,
    ) {
        match record {
            Record::MemberRevoked { peer, .. } if verdict == Verdict::Applied => {
                self.after_revoked(*peer, out);
            }
            Record::Set { .. } => self.follow_settings(out),
            Record::Epoch { .. } if proposal.is_some() && proposal == self.begins => {
                self.begins = None;
                match verdict {
                    Verdict::Applied => self.go_live(out),
                    // Another's epoch was on its way through the journal.
                    _ => self.begin_epoch(out),
                }
            }
            // Another leads, and this core had not heard of it: what it says must not bear that epoch.
            Record::Epoch { .. } if verdict == Verdict::Applied => self.step_down(out),
            _ => {}
        }
    }

    /// What a committed record means for the leader's work: jobs, tasks and attempts. `asked` says whether
    /// somebody who asked this leader waits for it.
    fn follow_work(
        &mut self,
        record: Record,
        verdict: Verdict,
        asked: bool,
        taken: Taken,
        out: &mut Vec<Action>,
    ) {
        match record {
            Record::JobAccepted { spec, .. } => {
                if let Verdict::Job(job) = verdict {
                    self.activate(job, out);
                }
                if asked {
                    self.release_inputs(&spec, out);
                }
            }
            Record::TaskDone {
                attempt,
                worker,
                outputs,
                log,
                ..
            } => {
                let applied = verdict == Verdict::Applied;
                self.keep_log(attempt.task.job, log.as_deref(), worker, out);
                self.after_task_done(attempt, worker, applied, out);
                if !applied {
                    self.drop_unwanted(worker, &outputs, out);
                }
            }
            Record::AttemptEnded {
                attempt,
                worker,
                end,
                log,
                ..
            } => {
                self.keep_log(attempt.task.job, log.as_deref(), worker, out);
                self.after_attempt_ended(attempt, worker, &end, out);
            }
            Record::OutputsLost { task, .. } if verdict == Verdict::Applied => {
                self.after_outputs_lost(task, &taken.left);
            }
            Record::JobEnded { job, .. } if verdict == Verdict::Applied => {
                if let Some(spec) = taken.spec {
                    self.after_job_ended(job, &spec, out);
                }
            }
            Record::JobEnded { job, .. } => self.after_stale_end(job, out),
            Record::JobForgotten { job, .. } => {
                self.live().removals.remove(&job);
                if let Some(forgotten) = taken.job.filter(|_| verdict == Verdict::Applied) {
                    self.drop_kept(job, &forgotten, out);
                }
                self.remove_old_jobs(out);
            }
            _ => {}
        }
    }

    fn fulfil(&mut self, pending: Pending, verdict: Verdict, out: &mut Vec<Action>) {
        match pending {
            Pending::Accepted { client, ask, spec } => {
                if let Verdict::Job(job) = verdict {
                    let reply = self.accepted_before(job, &spec);
                    answer(client, ask, reply, out);
                }
            }
            Pending::Joined { peer } => {
                let refused = match verdict {
                    Verdict::Stale(_) if self.state.member(peer).is_none() => {
                        Some(NotAdmitted::Expired)
                    }
                    _ => None,
                };
                out.push(Action::Admit { peer, refused });
            }
            Pending::Ticket {
                client,
                ask,
                secret,
            } => answer(client, ask, Reply::Ticket(secret), out),
            Pending::Done { client, ask } => answer(client, ask, Reply::Ok, out),
            Pending::Unheard => {}
            Pending::Unwanted { worker, outputs } => self.drop_unwanted(worker, &outputs, out),
        }
    }

    /// A peer's questions are not answered any more.
    fn unhear(&mut self, peer: PeerId) {
        for pending in self.pending.values_mut() {
            match pending {
                Pending::Accepted { client, .. }
                | Pending::Ticket { client, .. }
                | Pending::Done { client, .. }
                    if *client == peer =>
                {
                    *pending = Pending::Unheard;
                }
                _ => {}
            }
        }
    }

    /// Everything live is dropped; whoever waits for an answer asks elsewhere.
    fn step_down(&mut self, out: &mut Vec<Action>) {
        self.send_askers_away(out);
        self.unwatch_all(out);
        self.live = None;
    }

    fn go_live(&mut self, out: &mut Vec<Action>) {
        let mut live = Live {
            since: self.now,
            ..Live::default()
        };
        let own = std::mem::take(&mut self.own_content);
        for hash in &own {
            live.content.entry(*hash).or_default().own = true;
        }
        live.set_timer(self.now + self.config.content_grace, Timer::Settled);
        live.set_timer(self.now, Timer::Retention);
        self.live = Some(live);
        out.push(Action::WatchSettings(self.config.watch));
        self.count_colleagues();
        self.keep_results();
        self.expect_all();
        let jobs: Vec<_> = self
            .state
            .jobs
            .iter()
            .filter(|(_, job)| job.active())
            .map(|(id, _)| *id)
            .collect();
        for job in jobs {
            self.activate(job, out);
        }
        self.drop_unused(own, out);
        self.hints.clear();
        if self.state.epoch() == Epoch(1) {
            let (level, at) = (self.config.format_max, self.now);
            self.append(Record::Format { level, at }, None, out);
        }
        for (peer, role) in self.linked.clone() {
            self.tell_that_i_lead(peer, role, out);
        }
    }

    fn on_tick(&mut self, out: &mut Vec<Action>) {
        let now = self.now;
        while let Some((at, timer)) = self.live().timers.first().copied()
            && at <= now
        {
            self.live().timers.pop_first();
            match timer {
                Timer::ContentLost(ix) => self.content_of_gone_worker(ix, out),
                Timer::Readmit(ix) => self.readmit(ix),
                Timer::Tell(job) => self.tell(job, out),
                Timer::Rebalance => self.rebalance(out),
                Timer::Pull(hash) => self.pull_again(hash, out),
                Timer::Unbar(job, group, ix) => {
                    self.live().unbar(job, group, ix);
                    self.feed_starved();
                }
                Timer::Settled => {
                    self.stop_expecting();
                    self.give_up_absent_holders(out);
                }
                Timer::Later => self.live().later = None,
                Timer::Look => self.live().looks.timer_fired(),
                Timer::Benchmark(ix) => self.benchmark(ix, out),
                Timer::Link(ix) => self.link_due(ix, out),
                Timer::Expected(ix) => self.give_up_expected(ix, out),
                Timer::Returns(ix) => self.give_up_silent(ix, out),
                Timer::Spread(hash) => self.spread_again(hash, out),
                Timer::Retention => {
                    self.remove_old_jobs(out);
                    let at = self.now + retention::RETENTION_EVERY;
                    self.live().set_timer(at, Timer::Retention);
                }
            }
        }
    }
}

pub(crate) fn not_leading() -> Refusal {
    Refusal {
        kind: RefusalKind::NotLeading,
        why: "this supervisor does not lead; ask the one that does, or again in a moment".into(),
    }
}

pub(crate) fn answer(to: PeerId, id: u64, reply: Reply, out: &mut Vec<Action>) {
    out.push(Action::Answer {
        to,
        answer: Answer { id, reply },
    });
}

pub(crate) fn send(to: PeerId, msg: ToWorker, out: &mut Vec<Action>) {
    out.push(Action::Send { to, msg });
}

/// Has a worker drop content, in messages of a bounded length.
pub(crate) fn send_drop(to: PeerId, hashes: &[Hash], out: &mut Vec<Action>) {
    for part in hashes.chunks(HASHES_MAX) {
        send(to, ToWorker::Drop(part.to_vec()), out);
    }
}
