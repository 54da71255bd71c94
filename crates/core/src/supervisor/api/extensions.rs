//! Requests about open jobs: extend, close, release outputs.

use crate::supervisor::api::requests::{no_such_job, refuse, too_many};
use crate::supervisor::api::views::find_task;
use crate::supervisor::durable::job::Job;
use crate::supervisor::durable::open::Growth;
use crate::supervisor::leader::blobs::submissions::NewSubmission;
use crate::supervisor::leader::jobs::quota::QuotaUse;
use crate::supervisor::leader::{LeaderView, Leadership};
use crate::supervisor::{Offer, Requester, answer};
use hedge_model::msg::{Concern, RefusalKind, Reply, Request, SharedExtension, TASK_NAMES_MAX};
use hedge_model::record::{ClosedBy, Record};
use hedge_model::{Hash, JobId, PeerId};

type Refused = (RefusalKind, String);

impl Leadership<'_> {
    /// Begins to add an extension to an open job. A repeated extension is answered with the result of the first.
    pub(crate) fn on_extend(&mut self, requester: Requester, new: NewSubmission, held: &[Hash]) {
        let (client, request_id) = (requester.peer(), new.request_id);
        let Offer::Groups(id, extension) = &new.offer else {
            return;
        };
        if let Err((kind, why)) = self.view().may(requester, Concern::Job(*id)) {
            return refuse(client, request_id, kind, why, self.out);
        }
        self.note_client(*id, client);
        let job = self.state.jobs.get(id);
        if let Some(known) = job.and_then(|job| job.extended(*id, new.key, extension)) {
            return match known {
                Ok(extended) => answer(client, request_id, Reply::Extended(extended), self.out),
                Err((kind, why)) => refuse(client, request_id, kind, why, self.out),
            };
        }
        let allowed = self.view().may_extend(*id, extension);
        if let Err((kind, why)) = allowed.and_then(|()| too_many(&self.leader.submissions)) {
            return refuse(client, request_id, kind, why, self.out);
        }
        self.begin_submission(requester, new, held);
    }

    /// Carries out a request about an open job.
    pub(crate) fn on_open_job_request(&mut self, to: PeerId, request_id: u64, request: Request) {
        match request {
            Request::Close(id) => self.on_close(to, request_id, id),
            Request::Release { job, tasks } => self.on_release(to, request_id, job, &tasks),
            Request::Ends { job, after } => self.on_ends(to, request_id, job, after),
            Request::CancelTasks { job, tasks } => {
                self.on_cancel_tasks(to, request_id, job, &tasks);
            }
            _ => {
                let why = "this request is not about an open job; nothing was changed";
                refuse(to, request_id, RefusalKind::Bad, why.to_owned(), self.out);
            }
        }
    }

    /// Closes an open job. Closing a closed job has no effect.
    fn on_close(&mut self, to: PeerId, request_id: u64, id: JobId) {
        let Some(job) = self.state.jobs.get(&id) else {
            let (kind, why) = no_such_job(id);
            return refuse(to, request_id, kind, why, self.out);
        };
        match job.growth {
            Growth::Closed { .. } => answer(to, request_id, Reply::Ok, self.out),
            Growth::Open { .. } => {
                let (job, by, at) = (id, ClosedBy::Request, self.now);
                self.decide(to, request_id, Ok(Record::JobClosed { job, by, at }));
            }
            Growth::None => {
                let why = format!(
                    "job {id} has all its tasks from the start, and ends by itself; nothing was changed"
                );
                refuse(to, request_id, RefusalKind::Bad, why, self.out);
            }
        }
    }

    /// Releases the outputs of tasks of an open job.
    fn on_release(&mut self, to: PeerId, request_id: u64, id: JobId, tasks: &[String]) {
        let record = self.view().releasable(id, tasks);
        self.decide(to, request_id, record);
    }
}

impl LeaderView<'_> {
    fn may_extend(&self, id: JobId, extension: &SharedExtension) -> Result<(), Refused> {
        let job = self.state.jobs.get(&id).ok_or_else(|| no_such_job(id))?;
        job.extensible(id, extension)?;
        let mut groups = extension.groups.iter();
        if let Some(why) = groups.find_map(|group| job.waits_for_failed(id, group)) {
            return Err((RefusalKind::Bad, format!("{why}; nothing was added")));
        }
        let fits = job.spec.check_extension(extension);
        fits.map_err(|error| (RefusalKind::Bad, format!("{error}. Nothing was added")))?;
        let more = QuotaUse::of_extension(&job.spec, extension);
        self.within_limits(job.client, more)?;
        self.can_store()
    }

    /// Returns the record that releases the outputs of these tasks; the error says why they cannot be released.
    fn releasable(&self, id: JobId, tasks: &[String]) -> Result<Record, Refused> {
        let job = self.state.jobs.get(&id).ok_or_else(|| no_such_job(id))?;
        let bad = |why| Err((RefusalKind::Bad, why));
        if !job.is_open() {
            return bad(format!(
                "job {id} is not open, so that it keeps no more than its results; nothing was released"
            ));
        }
        if tasks.len() > TASK_NAMES_MAX {
            return bad(format!(
                "{} tasks are named, and {TASK_NAMES_MAX} may be; nothing was released",
                tasks.len()
            ));
        }
        let ranges = tasks.iter().map(|task| named(job, task));
        let mut ranges = ranges.collect::<Result<Vec<(u32, u32)>, Refused>>()?;
        ranges.sort_unstable();
        let mut joined: Vec<(u32, u32)> = Vec::new();
        for (from, to) in ranges {
            match joined.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => joined.push((from, to)),
            }
        }
        Ok(Record::OutputsReleased {
            job: id,
            tasks: joined,
            at: self.now,
        })
    }
}

/// Returns the range of task numbers with this name: all tasks of an array, or one task.
pub(crate) fn named(job: &Job, text: &str) -> Result<(u32, u32), Refused> {
    if let Some(group) = job.spec.position(text) {
        let numbers = job.spec.numbers(group);
        return Ok((numbers.start, numbers.end));
    }
    find_task(job, text).map(|number| (number, number + 1))
}
