//! Handles client requests: dispatch, submissions, and requests about one job.

use crate::supervisor::api::name;
use crate::supervisor::contract::Pending;
use crate::supervisor::leader::blobs::submissions::{NewSubmission, Submissions};
use crate::supervisor::leader::jobs::quota::QuotaUse;
use crate::supervisor::leader::{LeaderView, Leadership};
use crate::supervisor::{Action, GrantRequest, Offer, Requester, answer};
use hedge_model::msg::{
    Concern, GrantedReply, JOBS_MAX, Refusal, RefusalKind, Reply, Request, Role, SharedSpec,
};
use hedge_model::record::{JobEnd, Record, Ticket};
use hedge_model::view::JobView;
use hedge_model::{Hash, JobId, PeerId};
use std::ops::Bound;

/// The most submissions with inputs in transfer. Further clients are asked to try again.
const SUBMISSIONS_MAX: usize = 256;

const NO_SECRET: &str = "no secret was drawn for the ticket";
const NOT_DECODED: &str = "a submission must be decoded first";

impl Leadership<'_> {
    pub(crate) fn on_submit(&mut self, requester: Requester, new: NewSubmission, held: &[Hash]) {
        let (client, request_id) = (requester.peer(), new.request_id);
        let Offer::Job(spec) = &new.offer else {
            return self.on_extend(requester, new, held);
        };
        if let Some(known) = self.state.keys.get(&(client, new.key)) {
            let reply = self.state.accepted_before(known.job, spec);
            return answer(client, request_id, reply, self.out);
        }
        let allowed = self.view().may_submit(requester, spec);
        if let Err((kind, why)) = allowed.and_then(|()| too_many(&self.leader.submissions)) {
            return refuse(client, request_id, kind, why, self.out);
        }
        self.begin_submission(requester, new, held);
    }

    pub(crate) fn on_request(
        &mut self,
        requester: Requester,
        request_id: u64,
        request: Request,
        secret: Option<(Hash, String)>,
    ) {
        let peer = requester.peer();
        let concern = request.concern();
        if let Err((kind, why)) = self.view().may(requester, concern) {
            return refuse(peer, request_id, kind, why, self.out);
        }
        if let Concern::Job(job) = concern {
            self.note_client(job, peer);
        }
        if let Some(record) = self.view().record_of(&request) {
            return self.decide(peer, request_id, record);
        }
        let reply = match request {
            Request::Revoke(name) => return self.revoke(peer, request_id, &name),
            Request::Cancel(id) => return self.cancel(peer, request_id, id),
            open @ (Request::Close(_)
            | Request::Release { .. }
            | Request::Ends { .. }
            | Request::CancelTasks { .. }) => {
                return self.on_open_job_request(peer, request_id, open);
            }
            Request::Printed(request) => {
                return self.on_printed_request(peer, request_id, &request);
            }
            Request::Ticket {
                role,
                valid_for,
                uses,
            } => match secret {
                Some((hash, secret)) => {
                    let ticket = Ticket {
                        hash,
                        role,
                        expires: valid_for.map(|span| self.now + span),
                        uses,
                    };
                    return self.make_ticket(peer, request_id, ticket, secret);
                }
                None => Err((RefusalKind::Bad, NO_SECRET.into())),
            },
            Request::Watch(id) => {
                let view = self.watch_job(peer, request_id, id);
                view.map(|view| Reply::Job(Box::new(view)))
            }
            Request::Drain(name) => self.drain_named(&name).map(|()| Reply::Ok),
            Request::Workers => {
                let (to, id, workers) = (peer, request_id, self.view().worker_views());
                return self.out.push(Action::AnswerWorkers { to, id, workers });
            }
            granted @ (Request::Results { .. } | Request::Outputs { .. } | Request::Logs(..)) => {
                let reply = self.view().granted(granted);
                return self.answer_granted(peer, request_id, reply);
            }
            Request::Submit { .. } | Request::Extend { .. } => {
                Err((RefusalKind::Bad, NOT_DECODED.into()))
            }
            shown => self.show(requester, shown),
        };
        match reply {
            Ok(reply) => answer(peer, request_id, reply, self.out),
            Err((kind, why)) => refuse(peer, request_id, kind, why, self.out),
        }
    }

    /// Replies with something that names blobs, and asks for a grant that lets the client read them.
    pub(crate) fn answer_granted(
        &mut self,
        to: PeerId,
        id: u64,
        reply: Result<(GrantedReply, Vec<Hash>), (RefusalKind, String)>,
    ) {
        let (reply, blobs) = match reply {
            Ok(granted) => granted,
            Err((kind, why)) => return refuse(to, id, kind, why, self.out),
        };
        let grant = GrantRequest {
            reader: to,
            blobs: blobs.into(),
            epoch: self.state.epoch(),
        };
        self.out.push(Action::AnswerGranted {
            to,
            id,
            reply,
            grant,
        });
    }

    /// Subscribes a client to a job's changes, which are sent as further replies to its request.
    fn watch_job(
        &mut self,
        peer: PeerId,
        request_id: u64,
        id: JobId,
    ) -> Result<JobView, (RefusalKind, String)> {
        self.refresh_forecast();
        let view = self.view().known_view(id)?;
        if let Some(job) = self.leader.jobs.get_mut(id) {
            job.watch(peer, request_id);
        }
        Ok(view)
    }

    fn cancel(&mut self, peer: PeerId, request_id: u64, id: JobId) {
        match self.state.jobs.get(&id) {
            None => {
                let (kind, why) = no_such_job(id);
                refuse(peer, request_id, kind, why, self.out);
            }
            // A repeated request has no further effect.
            Some(job) if !job.active() => answer(peer, request_id, Reply::Ok, self.out),
            Some(_) => {
                let record = Record::JobEnded {
                    job: id,
                    end: JobEnd::Cancelled,
                    stopped: self.view().stopped_of_job(id),
                    at: self.now,
                };
                self.append(
                    record,
                    Some(Pending::Done {
                        client: peer,
                        request_id,
                    }),
                );
            }
        }
    }

    /// Answers a request that changes nothing, with a new forecast if the last one is old.
    fn show(
        &mut self,
        requester: Requester,
        request: Request,
    ) -> Result<Reply, (RefusalKind, String)> {
        self.refresh_forecast();
        self.view().show(requester, request)
    }

    fn drain_named(&mut self, name: &str) -> Result<(), (RefusalKind, String)> {
        let leader = &mut *self.leader;
        let connected = (0..).zip(leader.pool.iter());
        let connected = connected.filter(|(_, worker)| worker.state().connected());
        let workers = connected.map(|(ix, worker)| (ix, worker.peer(), Some(&*worker.info().host)));
        let ix: u32 = name::only(name, "worker", "hedge workers", workers)?;
        self.drain(ix);
        Ok(())
    }
}

impl LeaderView<'_> {
    /// Returns the record that carries out a request, or why it cannot be carried out. Returns none for a request that
    /// takes more than one record.
    fn record_of(&self, request: &Request) -> Option<Result<Record, (RefusalKind, String)>> {
        Some(match request {
            Request::RevokeTicket(name) => self.revoke_ticket_named(name),
            Request::Set { name, value } => self.setting(name, value),
            Request::Forget(id) => self.forgettable(*id),
            Request::Retry(id) => self.retriable(*id),
            Request::Upgrade => self.upgrade(),
            _ => return None,
        })
    }

    /// Answers a request that changes nothing.
    fn show(&self, requester: Requester, request: Request) -> Result<Reply, (RefusalKind, String)> {
        match request {
            Request::MayRelay { peer, ticket } => self.may_relay(peer, ticket),
            Request::Members => Ok(Reply::Members(self.member_views())),
            Request::Settings => Ok(Reply::Settings(self.state.settings().views())),
            Request::Tickets => Ok(Reply::Tickets(self.ticket_views())),
            Request::Jobs(after) => Ok(Reply::Jobs(self.jobs_shown_to(requester, after))),
            Request::Job(id) => self.known_view(id).map(|view| Reply::Job(Box::new(view))),
            Request::Explain(id, task) => self
                .explain(id, task.as_deref())
                .map(|view| Reply::Explain(Box::new(view))),
            Request::Tasks { job, filter, from } => self
                .tasks_listed(job, filter, from)
                .map(|view| Reply::Tasks(Box::new(view))),
            Request::Groups { job, from } => self
                .groups_listed(job, from)
                .map(|view| Reply::Groups(Box::new(view))),
            Request::Attempts { job, from, since } => self
                .attempts_listed(job, from, since)
                .map(|view| Reply::Attempts(Box::new(view))),
            Request::Submit { .. }
            | Request::Extend { .. }
            | Request::Close(_)
            | Request::Release { .. }
            | Request::Ends { .. }
            | Request::CancelTasks { .. }
            | Request::Watch(_)
            | Request::Cancel(_)
            | Request::Printed(_)
            | Request::Drain(_)
            | Request::Ticket { .. }
            | Request::RevokeTicket(_)
            | Request::Revoke(_)
            | Request::Set { .. }
            | Request::Forget(_)
            | Request::Retry(_)
            | Request::Upgrade
            | Request::Workers
            | Request::Results { .. }
            | Request::Outputs { .. }
            | Request::Logs(..) => Err((
                RefusalKind::Bad,
                "this request needs more than a look, and nothing was changed".into(),
            )),
        }
    }

    /// Returns the jobs after `after` that the requester may see, as many as fit into one reply. Administrators see
    /// all jobs, others their own.
    fn jobs_shown_to(&self, requester: Requester, after: Option<JobId>) -> Vec<JobView> {
        let peer = requester.peer();
        let all = self.role_of(requester) == Some(Role::Admin);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.state
            .jobs
            .range((from, Bound::Unbounded))
            .filter(|(_, job)| all || job.client == peer)
            .filter_map(|(id, _)| self.job_view(*id))
            .take(JOBS_MAX)
            .collect()
    }

    fn may_submit(
        &self,
        requester: Requester,
        spec: &SharedSpec,
    ) -> Result<(), (RefusalKind, String)> {
        match self.role_of(requester) {
            Some(Role::Client | Role::Admin) => {
                let small = spec.check_size();
                small.map_err(|error| {
                    let why = format!("{error}. Nothing was accepted");
                    (RefusalKind::Bad, why)
                })?;
                self.can_record(spec)?;
                self.within_limits(requester.peer(), QuotaUse::of(spec))?;
                self.can_store()
            }
            Some(role) => Err((
                RefusalKind::NotAllowed,
                format!("a {role} submits no jobs; use a client's ticket. Nothing was accepted"),
            )),
            None => Err((
                RefusalKind::NotAllowed,
                "this peer is not a member of the grid; ask for a ticket. Nothing was accepted"
                    .into(),
            )),
        }
    }

    /// Returns whether all supervisors of the group can read the record of this job; the error says why not.
    fn can_record(&self, spec: &SharedSpec) -> Result<(), (RefusalKind, String)> {
        let (needed, written) = (spec.format(), self.state.format());
        let coming = self.state.begins() && needed <= self.config.format_max;
        if needed <= written || coming {
            return Ok(());
        }
        let why = format!(
            "the job asks for something that records have from format {needed} on, and the group writes format \
             {written}. Nothing was accepted. Once all supervisors are new enough, `hedge members --upgrade` lets \
             the group use a newer format"
        );
        Err((RefusalKind::Bad, why))
    }

    fn known_view(&self, id: JobId) -> Result<JobView, (RefusalKind, String)> {
        self.job_view(id).ok_or_else(|| no_such_job(id))
    }

    /// Returns the record that removes a job; the error says why it cannot be removed.
    fn forgettable(&self, id: JobId) -> Result<Record, (RefusalKind, String)> {
        match self.state.jobs.get(&id) {
            None => Err(no_such_job(id)),
            Some(job) if job.active() => Err((
                RefusalKind::Bad,
                format!("job {id} has not ended; `hedge cancel {id}` ends it"),
            )),
            Some(_) => Ok(Record::JobForgotten {
                job: id,
                at: self.now,
            }),
        }
    }

    /// Returns the record that retries a failed job; the error says why it cannot be retried.
    fn retriable(&self, id: JobId) -> Result<Record, (RefusalKind, String)> {
        let job = self.state.jobs.get(&id).ok_or_else(|| no_such_job(id))?;
        let why = match &job.ended {
            None => format!("job {id} has not ended, and tries again by itself what fails"),
            Some((JobEnd::Done, _)) => format!("job {id} is done; submit it again to run it again"),
            Some((JobEnd::Cancelled, _)) => format!(
                "job {id} was cancelled, and only failed jobs are kept whole; submit it again"
            ),
            Some(_) if !job.can_be_retried() => {
                format!("job {id} failed when this grid kept no failed jobs whole; submit it again")
            }
            Some(_) => {
                self.within_limits(job.client, QuotaUse::of(&job.spec))?;
                self.can_store()?;
                return Ok(Record::JobRetried {
                    job: id,
                    at: self.now,
                });
            }
        };
        Err((RefusalKind::Bad, why))
    }
}

/// Returns whether one more submission may begin.
pub(crate) fn too_many(submissions: &Submissions) -> Result<(), (RefusalKind, String)> {
    if submissions.iter().len() < SUBMISSIONS_MAX {
        return Ok(());
    }
    let why = "too many submissions at once; submit again in a moment, with the same key";
    Err((RefusalKind::Busy, why.into()))
}

pub(crate) fn no_such_job(id: JobId) -> (RefusalKind, String) {
    (
        RefusalKind::Unknown,
        format!("there is no job {id}; `hedge jobs` lists them"),
    )
}

pub(crate) fn refuse(to: PeerId, id: u64, kind: RefusalKind, why: String, out: &mut Vec<Action>) {
    answer(to, id, Reply::No(Refusal { kind, why }), out);
}
