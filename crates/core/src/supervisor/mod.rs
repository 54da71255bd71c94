//! The supervisor's state machine: jobs, workers and attempts in; assignments, records and answers out.
//!
//! Durable is what [`State`] holds; it changes by committed records alone. Everything else lives on the
//! leader only and is dropped when it is deposed.

mod attach;
mod body;
mod check;
mod choose;
mod critical;
mod data;
mod durable;
mod jobs;
mod keep;
mod ledger;
mod live;
mod monitor;
mod placement;
mod ready;
pub mod redundancy;
mod requests;
mod views;
mod workers;

pub use critical::CriticalSet;
pub use durable::{State, Verdict};
pub use monitor::{Finding, Liveness, Monitor, Watch};

use hedge_model::msg::{
    Answer, Beat, FromWorker, Refusal, RefusalKind, Reply, Request, Role, SharedSpec, ToWorker,
};
use hedge_model::record::{Record, Ticket};
use hedge_model::{Epoch, FileEntry, Hash, PeerAddr, PeerId, Source, SubmitKey, Time};
use live::{Live, Timer};
use std::collections::BTreeMap;
use std::time::Duration;

/// Names one appended record until it is committed.
pub type ProposalId = u64;

/// What a supervisor is and how it behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Itself, and where others reach it.
    pub me: PeerAddr,
    /// How workers are watched.
    pub watch: Watch,
    /// How long content of a worker that is gone is still counted on. It trades needless repetition of
    /// tasks against waiting for a machine that does not come back; 3 s is a restart of the process.
    pub content_grace: Duration,
    /// How long a worker that keeps failing is given nothing, at first; doubles each time.
    pub aside_for: Duration,
}

impl Config {
    /// The defaults for a supervisor reached at `me`.
    pub fn new(me: PeerAddr) -> Self {
        Self {
            me,
            watch: Watch::default(),
            content_grace: Duration::from_secs(3),
            aside_for: Duration::from_secs(60),
        }
    }
}

/// What happens to a supervisor.
#[derive(Clone, Debug)]
pub enum Event {
    /// This core is to lead: it begins an epoch and is live once that is committed.
    Lead {
        /// Content in its own store.
        holds: Vec<Hash>,
    },
    /// Another leads; everything live is dropped.
    Deposed,
    /// A record is committed; proposed here, or by another leader.
    Committed {
        /// The proposal, if it was made by this core.
        proposal: Option<ProposalId>,
        /// The record.
        record: Record,
    },
    /// A peer that is no member yet shows a ticket's secret, by its hash. A member is let in without.
    Joining {
        /// Who.
        peer: PeerId,
        /// As what.
        role: Role,
        /// The hash of the secret it showed.
        ticket: Option<Hash>,
    },
    /// A worker's message.
    FromWorker {
        /// Whose.
        peer: PeerId,
        /// What.
        msg: FromWorker,
    },
    /// A heartbeat.
    Beat {
        /// Whose.
        peer: PeerId,
        /// What it says.
        beat: Beat,
    },
    /// A client wants a job done; its specification is decoded.
    Submit {
        /// Who.
        peer: PeerId,
        /// The question's id.
        ask: u64,
        /// The submission.
        key: SubmitKey,
        /// The job.
        spec: SharedSpec,
        /// Where the client serves the inputs.
        from: PeerAddr,
    },
    /// A client asks for anything else.
    Ask {
        /// Who.
        peer: PeerId,
        /// The question's id.
        ask: u64,
        /// The question.
        request: Request,
        /// A fresh random secret for a new ticket, where the question is for one.
        secret: Option<(Hash, String)>,
    },
    /// A peer's connection is closed.
    Gone {
        /// Whose.
        peer: PeerId,
    },
    /// Nobody waits for the answers to these questions any more.
    Unasked(Vec<u64>),
    /// A pull of content into the own store ended.
    Pulled {
        /// Which.
        hash: Hash,
        /// How.
        result: Result<(), PullFailure>,
    },
    /// The deadline of [`Supervisor::next_deadline`] is reached.
    Tick,
}

/// Why content could not be pulled, a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullFailure {
    /// This machine cannot keep it, like a full disk: says nothing of those who hold it.
    Here(String),
    /// Nobody who was named gave it.
    Sources(String),
}

/// What a supervisor wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make this record durable, then hand it back as [`Event::Committed`].
    Append {
        /// Its name.
        proposal: ProposalId,
        /// The record.
        record: Record,
    },
    /// Tell a worker.
    Send {
        /// Whom.
        to: PeerId,
        /// What.
        msg: ToWorker,
    },
    /// Answer a client.
    Answer {
        /// Whom.
        to: PeerId,
        /// What.
        answer: Answer,
    },
    /// Let a peer in, or refuse it.
    Admit {
        /// Whom.
        peer: PeerId,
        /// Nothing, or why not.
        refused: Option<NotAdmitted>,
    },
    /// Fetch content into the own store, then say [`Event::Pulled`].
    Pull {
        /// Which.
        hash: Hash,
        /// Its length in bytes.
        size: u64,
        /// Who holds it, likeliest first.
        sources: Vec<Source>,
    },
    /// Content that the own store need not keep.
    Drop(Vec<Hash>),
}

/// Why a peer is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// It is no member and showed no valid ticket.
    Stranger,
    /// Its ticket was valid once.
    Expired,
    /// Its ticket, or its membership, is for another role.
    WrongRole,
}

/// What is to be said once a proposal is committed.
#[derive(Clone, Debug)]
enum Pending {
    Accepted {
        client: PeerId,
        ask: u64,
    },
    Joined {
        peer: PeerId,
    },
    Ticket {
        client: PeerId,
        ask: u64,
        secret: String,
    },
    Cancelled {
        client: PeerId,
        ask: u64,
    },
    /// Nothing: whoever asked is gone, and a later connection of the same peer counts its questions anew.
    Unheard,
    /// What an attempt left that did not win.
    Unwanted {
        worker: PeerId,
        outputs: Vec<FileEntry>,
    },
}

/// A supervisor.
#[derive(Debug)]
pub struct Supervisor {
    config: Config,
    state: State,
    live: Option<Live>,
    monitor: Monitor,
    now: Time,
    last_proposal: ProposalId,
    pending: BTreeMap<ProposalId, Pending>,
    own_content: Vec<Hash>,
    /// Decides on redundancy in the place of what jobs ask for.
    policy: Option<Box<dyn redundancy::Policy>>,
}

impl Supervisor {
    /// A supervisor with this durable state, not live yet.
    pub fn new(config: Config, state: State) -> Self {
        let monitor = Monitor::new(config.watch);
        let now = state.recorded_time();
        Self {
            config,
            state,
            live: None,
            monitor,
            now,
            last_proposal: 0,
            pending: BTreeMap::new(),
            own_content: Vec::new(),
            policy: None,
        }
    }

    /// Takes one event at `now` and adds what is to be done to `out`, in order.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Action>) {
        self.now = self.now.max(now);
        let beat = matches!(event, Event::Beat { .. });
        match event {
            Event::Lead { holds } => {
                self.own_content = holds;
                let epoch = Epoch(self.state.epoch().0 + 1);
                self.append(
                    Record::Epoch {
                        epoch,
                        at: self.now,
                    },
                    None,
                    out,
                );
            }
            Event::Deposed => {
                self.live = None;
                self.pending.clear();
                self.monitor = Monitor::new(self.config.watch);
            }
            Event::Committed { proposal, record } => self.on_committed(proposal, record, out),
            Event::Joining { peer, role, ticket } => self.on_joining(peer, role, ticket, out),
            Event::Submit { peer, ask, .. } | Event::Ask { peer, ask, .. }
                if self.live.is_none() =>
            {
                let why = "this supervisor does not lead now; ask again in a moment".into();
                answer(
                    peer,
                    ask,
                    Reply::No(Refusal {
                        kind: RefusalKind::Busy,
                        why,
                    }),
                    out,
                );
            }
            _ if self.live.is_none() => {}
            Event::FromWorker { peer, msg } => self.on_worker(peer, msg, out),
            Event::Beat { peer, beat } => {
                if let Some(found) = self.monitor.beat(self.now, peer, beat) {
                    self.on_finding(found, out);
                }
            }
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
            Event::Gone { peer } => self.on_gone(peer, out),
            Event::Unasked(asks) => self.live().unwatch(&asks),
            Event::Pulled { hash, result } => self.on_pulled(hash, result, out),
            Event::Tick => self.on_tick(out),
        }
        if let Some(live) = &mut self.live {
            live.looks.changed(!beat);
            if std::mem::take(&mut live.leaving_due) {
                self.let_leave(out);
            }
            self.schedule(out);
            self.look(out);
        }
    }

    /// When [`Event::Tick`] is due, and why.
    pub fn next_deadline(&self) -> Option<(Time, &'static str)> {
        let live = self.live.as_ref()?;
        let check = self.monitor.next_check().map(|at| (at, "heartbeats"));
        let timers = live.timers.first();
        let timer = timers.map(|(at, timer)| (*at, timer.why()));
        [check, timer]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    /// The durable state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether this core leads.
    pub fn is_live(&self) -> bool {
        self.live.is_some()
    }

    /// How workers are to beat.
    pub fn watch(&self) -> Watch {
        self.config.watch
    }

    fn live(&mut self) -> &mut Live {
        self.live.get_or_insert_default()
    }

    fn append(&mut self, record: Record, pending: Option<Pending>, out: &mut Vec<Action>) {
        self.last_proposal += 1;
        if let Some(pending) = pending {
            self.pending.insert(self.last_proposal, pending);
        }
        out.push(Action::Append {
            proposal: self.last_proposal,
            record,
        });
    }

    fn on_committed(
        &mut self,
        proposal: Option<ProposalId>,
        record: Record,
        out: &mut Vec<Action>,
    ) {
        let lost = match &record {
            Record::OutputsLost { task, .. } => self.state.task(*task),
            _ => None,
        };
        let lost = lost.and_then(|task| Some(task.done.as_ref()?.outputs.clone()));
        let verdict = self.state.apply(&record);
        let pending = proposal.and_then(|id| self.pending.remove(&id));
        if self.live.is_none() {
            if matches!(record, Record::Epoch { .. })
                && proposal.is_some()
                && verdict == Verdict::Applied
            {
                self.go_live(out);
            }
            return;
        }
        match record {
            Record::JobAccepted { spec, .. } => {
                if let Verdict::Job(job) = verdict {
                    self.activate(job, out);
                }
                if pending.is_some() {
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
                self.keep_log(log.as_deref(), worker, out);
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
                self.keep_log(log.as_deref(), worker, out);
                self.after_attempt_ended(attempt, worker, &end, out);
            }
            Record::OutputsLost { task, .. } if verdict == Verdict::Applied => {
                self.after_outputs_lost(task, &lost.unwrap_or_default());
            }
            Record::JobEnded { job, .. } if verdict == Verdict::Applied => {
                self.after_job_ended(job, out)
            }
            Record::JobEnded { job, .. } => self.after_stale_end(job, out),
            _ => {}
        }
        if let Some(pending) = pending {
            self.fulfil(pending, verdict, out);
        }
    }

    fn fulfil(&mut self, pending: Pending, verdict: Verdict, out: &mut Vec<Action>) {
        match pending {
            Pending::Accepted { client, ask } => {
                if let Verdict::Job(job) = verdict {
                    answer(client, ask, Reply::Accepted(job), out);
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
            Pending::Cancelled { client, ask } => answer(client, ask, Reply::Ok, out),
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
                | Pending::Cancelled { client, .. }
                    if *client == peer =>
                {
                    *pending = Pending::Unheard;
                }
                _ => {}
            }
        }
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
        self.live = Some(live);
        self.keep_results();
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
    }

    fn on_joining(
        &mut self,
        peer: PeerId,
        role: Role,
        ticket: Option<Hash>,
        out: &mut Vec<Action>,
    ) {
        if let Some(known) = self.state.member(peer) {
            let refused = (known != role).then_some(NotAdmitted::WrongRole);
            return out.push(Action::Admit { peer, refused });
        }
        let refused = match ticket.and_then(|hash| self.state.tickets.get(&hash)) {
            None => NotAdmitted::Stranger,
            Some(Ticket { role: wanted, .. }) if *wanted != role => NotAdmitted::WrongRole,
            Some(Ticket {
                expires: Some(end), ..
            }) if *end <= self.now => NotAdmitted::Expired,
            Some(Ticket { uses: Some(0), .. }) => NotAdmitted::Expired,
            Some(Ticket { hash, .. }) => {
                let record = Record::MemberJoined {
                    peer,
                    role,
                    ticket: *hash,
                    at: self.now,
                };
                return self.append(record, Some(Pending::Joined { peer }), out);
            }
        };
        out.push(Action::Admit {
            peer,
            refused: Some(refused),
        });
    }

    fn on_tick(&mut self, out: &mut Vec<Action>) {
        let now = self.now;
        if self.monitor.next_check().is_some_and(|at| at <= now) {
            let mut found = Vec::new();
            self.monitor.check(now, &mut found);
            found
                .into_iter()
                .for_each(|finding| self.on_finding(finding, out));
        }
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
                Timer::Feed => self.feed_starved(),
                Timer::Settled => self.give_up_absent_holders(out),
                Timer::Look => self.live().looks.timer_fired(),
            }
        }
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
