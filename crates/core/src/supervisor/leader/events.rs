//! Dispatches events and committed records to the leader's procedures.

use crate::supervisor::contract::Pending;
use crate::supervisor::durable::change::Change;
use crate::supervisor::follower::{Follower, Hints};
use crate::supervisor::leader::Leadership;
use crate::supervisor::leader::blobs::state::{BlobEvent, CopyEvent};
use crate::supervisor::leader::blobs::submissions::NewSubmission;
use crate::supervisor::leader::jobs::retention::RETENTION_EVERY;
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::{Action, Event, NotAdmitted, ProposalId, answer, not_leading};
use hedge_model::msg::{Refusal, Reply, Role};
use hedge_model::record::Record;
use hedge_model::{Hash, JobId, PeerId};

impl Leadership<'_> {
    /// Handles an event that concerns only a leader.
    pub fn on_event(&mut self, event: Event) {
        match event {
            Event::ToLeader { peer, msg } => self.on_to_leader(peer, msg),
            Event::FromWorker { peer, msg } => self.on_worker(peer, msg),
            Event::Found(finding) => self.on_finding(finding),
            Event::LinkMeasured { peer, found } => self.on_link_measured(peer, found),
            Event::Submit {
                requester,
                request_id,
                key,
                offer,
                from,
                held,
            } => {
                let new = NewSubmission {
                    request_id,
                    key,
                    offer,
                    from,
                };
                self.on_submit(requester, new, &held);
            }
            Event::Request {
                requester,
                request_id,
                request,
                secret,
            } => self.on_request(requester, request_id, request, secret),
            Event::RequestsAbandoned(request_ids) => {
                self.leader
                    .jobs
                    .unwatch(|_, request_id| request_ids.contains(&request_id));
                self.forget_readings(&request_ids);
            }
            Event::Fetched { hash, result } => self.on_fetched(hash, result),
            Event::Proved { holder, proofs } => self.on_proved(holder, proofs),
            Event::Tick => self.on_tick(),
            // These concern every supervisor and are handled before.
            Event::Lead { .. }
            | Event::Deposed
            | Event::Group(_)
            | Event::Disk(_)
            | Event::Linked { .. }
            | Event::FromLeader { .. }
            | Event::Committed { .. }
            | Event::Joining { .. }
            | Event::Gone { .. } => {}
        }
    }

    /// Updates what is derived from the leader's state after an event. `news` says whether policies may decide
    /// differently now.
    pub fn update_after_event(&mut self, news: bool) {
        self.leader.evaluations.changed(news);
        self.release_leaving();
        self.update_speed_classes();
        self.schedule();
        self.evaluate_policies();
        self.update_attention();
    }

    /// Starts this leader with what the supervisor knew as a follower and the blobs that its store `holds`.
    pub fn begin(&mut self, before: &Follower, holds: Vec<Hash>) {
        for hash in &holds {
            let arrived = BlobEvent::Own(CopyEvent::Arrived);
            self.leader.blobs.transition(*hash, arrived);
        }
        let (now, grace) = (self.now, self.config.content_grace);
        self.leader.timers.set(now + grace, Timer::RecoveryOver);
        self.leader.timers.set(now, Timer::Retention);
        self.out.push(Action::WatchSettings(self.config.watch));
        self.update_group_members();
        self.keep_results();
        self.await_workers(before.led_by);
        let state = self.state;
        for (id, _) in state.jobs.iter().filter(|(_, job)| job.active()) {
            self.activate(*id, &before.hints);
        }
        self.drop_unused(holds);
        if state.begins() {
            let (level, at) = (self.config.format_max, now);
            self.append(Record::Format { level, at }, None);
        }
        let peers = self.peers;
        for (peer, role) in &peers.linked {
            self.announce_leadership(*peer, *role);
        }
    }

    /// Ends this leader. Clients with pending requests are told to ask the next leader, and workers are no longer
    /// watched.
    pub fn step_down(&mut self) {
        let mut open: Vec<(PeerId, u64)> = Vec::new();
        for pending in self.leader.pending_proposals.take_all() {
            match pending {
                Pending::Accepted {
                    client, request_id, ..
                }
                | Pending::Extended {
                    client, request_id, ..
                }
                | Pending::Ticket {
                    client, request_id, ..
                }
                | Pending::Done { client, request_id } => open.push((client, request_id)),
                Pending::Joined { peer } => self.out.push(Action::Admit {
                    peer,
                    refused: Some(NotAdmitted::NotLeading),
                }),
                Pending::Abandoned | Pending::Unwanted { .. } => {}
            }
        }
        let readings = self.leader.readings.take().into_iter();
        open.extend(readings.map(|reading| (reading.client, reading.request_id)));
        let submits = self.leader.submissions.iter();
        open.extend(submits.map(|submit| (submit.client, submit.new.request_id)));
        let jobs = self.leader.jobs.iter();
        open.extend(jobs.flat_map(|(_, job)| job.watchers().iter().copied()));
        for (client, request_id) in open {
            answer(client, request_id, Reply::No(not_leading()), self.out);
        }
        self.unwatch_all();
    }

    /// Proposes to admit a peer with a valid ticket.
    pub fn admit(&mut self, peer: PeerId, role: Role, ticket: Hash) {
        let at = self.now;
        let record = Record::MemberJoined {
            peer,
            role,
            ticket,
            at,
        };
        self.append(record, Some(Pending::Joined { peer }));
    }

    /// Handles a committed record: applies its change to the leader's state and answers the pending request, if any.
    pub fn on_committed(&mut self, proposal: Option<ProposalId>, change: Change) {
        let pending = proposal.and_then(|id| self.leader.pending_proposals.take(id));
        let job = match &change {
            Change::Accepted { job, .. } => Some(*job),
            _ => None,
        };
        let stale = matches!(
            change,
            Change::Stale(_) | Change::Extended { added: None, .. }
        );
        self.follow(change, pending.is_some());
        if let Some(pending) = pending {
            self.complete_pending(pending, job, stale);
        }
    }

    /// Handles a change of the durable state. `asked` says whether a request to this leader waits for it.
    fn follow(&mut self, change: Change, asked: bool) {
        match change {
            Change::Stale(_) | Change::Epoch | Change::Noted | Change::Settings => {}
            Change::Format => self.accept_complete(),
            Change::Revoked(peer) => self.after_revoked(peer),
            Change::Accepted { job, spec } => {
                self.activate(job, &Hints::default());
                if asked {
                    self.release_inputs(spec.input_blobs());
                }
            }
            Change::Succeeded(it) => {
                if it.won && it.timed {
                    self.update_speed_of(it.worker);
                }
                self.keep_log(it.attempt.task.job, &it.printed, it.worker);
                if it.won {
                    self.end_checkpoints(it.attempt.task, it.checkpoint);
                }
                self.after_task_done(it.attempt, it.worker, it.won);
                if !it.won {
                    self.drop_unwanted(it.worker, &it.outputs);
                }
            }
            Change::Ended {
                attempt,
                worker,
                end,
                printed,
                checkpoint,
            } => {
                self.keep_log(attempt.task.job, &printed, worker);
                self.release_checkpoint(attempt.task, checkpoint);
                self.after_attempt_ended(attempt, worker, &end);
            }
            Change::OutputsLost { task, left } => self.after_outputs_lost(task, &left),
            Change::TaskFailed(task) => self.after_task_failed(task),
            Change::JobRetried(job) => self.after_job_retried(job),
            Change::Extended {
                job,
                extension,
                added,
            } => {
                self.after_extended(job, &extension, added);
                if asked {
                    self.release_inputs(extension.input_blobs());
                }
            }
            Change::Released { job, tasks } => self.after_released(job, &tasks),
            Change::JobClosed(job) => self.after_job_closed(job),
            Change::Checkpointed { task, dropped } => self.after_checkpointed(task, dropped),
            Change::JobEnded {
                job,
                spec,
                checkpoints,
            } => self.after_job_ended(job, &spec, checkpoints),
            Change::JobNotEnded(job) => self.after_stale_end(job),
            Change::JobForgotten { job, known } => {
                self.leader.removals.end(job);
                if let Some(known) = known {
                    self.drop_kept(job, &known);
                }
                self.remove_old_jobs();
            }
            Change::Benchmarked(peer) => self.update_speed_of(peer),
        }
    }

    /// Answers a pending request. `job` is the accepted job of a submission; `stale` says that the record was void.
    fn complete_pending(&mut self, pending: Pending, job: Option<JobId>, stale: bool) {
        match pending {
            Pending::Accepted {
                client,
                request_id,
                spec,
            } => {
                if let Some(job) = job {
                    let reply = self.state.accepted_before(job, &spec);
                    answer(client, request_id, reply, self.out);
                }
            }
            Pending::Extended {
                client,
                request_id,
                job,
                key,
                extension,
            } => {
                // Where the record was applied, its key is enough: comparing the extension would encode it again.
                let known = self.state.jobs.get(&job).filter(|_| !stale);
                let extended = match known.and_then(|known| known.added(job, key)) {
                    Some(extended) => Ok(extended),
                    None => self.state.extended(job, key, &extension),
                };
                let reply = match extended {
                    Ok(extended) => Reply::Extended(extended),
                    Err((kind, why)) => Reply::No(Refusal { kind, why }),
                };
                answer(client, request_id, reply, self.out);
            }
            Pending::Joined { peer } => {
                let late = stale && self.state.member(peer).is_none();
                let refused = late.then_some(NotAdmitted::Expired);
                self.out.push(Action::Admit { peer, refused });
            }
            Pending::Ticket {
                client,
                request_id,
                secret,
            } => answer(client, request_id, Reply::Ticket(secret), self.out),
            Pending::Done { client, request_id } => answer(client, request_id, Reply::Ok, self.out),
            Pending::Abandoned => {}
            Pending::Unwanted { worker, outputs } => self.drop_unwanted(worker, &outputs),
        }
    }

    fn on_tick(&mut self) {
        let now = self.now;
        while let Some(timer) = self.leader.timers.take_due(now) {
            match timer {
                Timer::ContentLost(ix) => self.rerun_after_gone_holder(ix),
                Timer::Readmit(ix) => self.readmit(ix),
                Timer::NotifyWatchers(job) => self.notify_watchers(job),
                Timer::Ends(job) => self.notify_of_ends(job),
                Timer::Readings => self.expire_readings(),
                Timer::Retry(task) => self.retry_task(task),
                Timer::Recompute(job) => self.recompute_critical_set(job),
                Timer::Client(job) => self.check_client(job),
                Timer::Checkpoint(task) => self.report_overdue(task),
                Timer::Rebalance => self.rebalance(),
                Timer::Fetch(hash) => self.retry_fetch(hash),
                Timer::Prove(holder) => self.prove_again(holder),
                Timer::ReadmitToGroup(job, group, ix) => {
                    self.leader.readmit_to_group(job, group, ix);
                    self.retry_blocked_groups();
                }
                Timer::RecoveryOver => {
                    self.lift_recovery_barrier();
                    self.rerun_after_absent_holders();
                }
                // Deferred tasks are offered again after each event.
                Timer::Deferred => {}
                Timer::Evaluate => self.leader.evaluations.timer_fired(),
                Timer::Benchmark(ix) => self.benchmark(ix),
                Timer::Link(ix) => self.on_link_timer(ix),
                Timer::Expected(ix) => self.forget_expected(ix),
                Timer::Returns(ix) => self.give_up_returning(ix),
                Timer::Replicate(hash) => self.replicate_again(hash),
                Timer::Retention => {
                    self.remove_old_jobs();
                    self.leader
                        .timers
                        .set(now + RETENTION_EVERY, Timer::Retention);
                }
            }
        }
    }
}
