//! Ends of an open job's tasks for clients, and tasks that clients cancel.

use crate::supervisor::answer;
use crate::supervisor::api::extensions::named;
use crate::supervisor::api::requests::{no_such_job, refuse};
use crate::supervisor::contract::Pending;
use crate::supervisor::durable::job::Job;
use crate::supervisor::leader::jobs::active::AwaitedEnds;
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{LeaderView, Leadership};
use hedge_model::msg::{RefusalKind, Reply, TASK_NAMES_MAX};
use hedge_model::view::{ENDS_LISTED_MAX, EndKind, EndedTask, EndsView};
use hedge_model::{Data, JobId, PeerId, TaskId};

/// Bytes of one answer, about: a quarter of a frame, so that other answers fit beside it.
const ENDS_BYTES: usize = 4 << 20;
/// Bytes of a task beside its label, its reason and its files, and of a file beside its path and content, at most.
const ITEM_BYTES: usize = 64;

type Refused = (RefusalKind, String);

impl Leadership<'_> {
    /// Answers with the ends behind those that the client knows, now or once there is one.
    pub(crate) fn on_ends(&mut self, peer: PeerId, request_id: u64, id: JobId, after: u64) {
        let view = match self.view().ends(id, after) {
            Ok(view) => view,
            Err((kind, why)) => return refuse(peer, request_id, kind, why, self.out),
        };
        let more = view.next > after || view.over;
        let active_job = self.leader.jobs.get_mut(id).filter(|_| !more);
        match active_job {
            Some(active_job) => {
                let longest = active_job.await_ends(AwaitedEnds {
                    peer,
                    request_id,
                    after,
                });
                // Its client is told nothing new, and asks again if it is still there.
                if let Some(longest) = longest {
                    self.answer_ends(id, longest);
                }
            }
            None => answer(peer, request_id, Reply::Ends(Box::new(view)), self.out),
        }
    }

    /// A task of a job ended: clients that wait for that are answered once all that was committed with it is applied.
    pub(crate) fn notify_of_ends_soon(&mut self, id: JobId) {
        let active_job = self.leader.jobs.get(id);
        if active_job.is_some_and(|job| !job.awaited_ends().is_empty()) {
            self.leader.timers.set_once(self.now, Timer::Ends(id));
        }
    }

    /// Answers the clients that wait for ends of tasks.
    pub(crate) fn notify_of_ends(&mut self, id: JobId) {
        self.leader.timers.clear(Timer::Ends(id));
        let Some(active_job) = self.leader.jobs.get_mut(id) else {
            return;
        };
        for awaited in active_job.take_awaited_ends() {
            self.answer_ends(id, awaited);
        }
    }

    fn answer_ends(&mut self, id: JobId, awaited: AwaitedEnds) {
        let AwaitedEnds {
            peer,
            request_id,
            after,
        } = awaited;
        match self.view().ends(id, after) {
            Ok(view) => answer(peer, request_id, Reply::Ends(Box::new(view)), self.out),
            Err((kind, why)) => refuse(peer, request_id, kind, why, self.out),
        }
    }

    /// Gives up those of these tasks that have not ended and are not about to, of any job; answers once that is recorded,
    /// and at once where there are none.
    pub(crate) fn on_cancel_tasks(
        &mut self,
        peer: PeerId,
        request_id: u64,
        id: JobId,
        tasks: &[String],
    ) {
        let open = match self.view().cancellable(id, tasks) {
            Ok(open) => open,
            Err((kind, why)) => return refuse(peer, request_id, kind, why, self.out),
        };
        let before = *self.last_proposal;
        for task in open {
            self.give_up(task, "it was cancelled".to_owned());
        }
        let last = *self.last_proposal;
        if last == before {
            return answer(peer, request_id, Reply::Ok, self.out);
        }
        // The journal keeps the order, so that the last record answers for all.
        let done = Pending::Done {
            client: peer,
            request_id,
        };
        self.leader.pending_proposals.make(last, done);
    }
}

impl LeaderView<'_> {
    fn ends(&self, id: JobId, after: u64) -> Result<EndsView, Refused> {
        let job = self.state.jobs.get(&id).ok_or_else(|| no_such_job(id))?;
        let Some(ends) = job.ends_after(after) else {
            let why = format!(
                "job {id} was never open, and no list of its tasks is kept in the order of their ends; `hedge tasks \
                 {id}` lists them"
            );
            return Err((RefusalKind::Bad, why));
        };
        let known = job.ends.len() as u64;
        let (mut next, mut bytes) = (after.min(known), 0);
        let mut tasks = Vec::new();
        for number in ends {
            if tasks.len() >= ENDS_LISTED_MAX || bytes >= ENDS_BYTES {
                break;
            }
            next += 1;
            if let Some(task) = job.ended_task(id, number) {
                bytes += size(&task);
                tasks.push(task);
            }
        }
        Ok(EndsView {
            job: id,
            tasks,
            next,
            over: !job.active() && next == known,
        })
    }

    /// Those of these tasks that can be given up.
    fn cancellable(&self, id: JobId, tasks: &[String]) -> Result<Vec<TaskId>, Refused> {
        let job = self.state.jobs.get(&id).ok_or_else(|| no_such_job(id))?;
        if tasks.len() > TASK_NAMES_MAX {
            let why = format!(
                "{} tasks are named, and {TASK_NAMES_MAX} may be; nothing was cancelled",
                tasks.len()
            );
            return Err((RefusalKind::Bad, why));
        }
        let mut open = Vec::new();
        for name in tasks {
            let (from, to) = named(job, name)?;
            for number in from..to {
                let task = TaskId { job: id, number };
                let known = self.leader.tasks.get(&task);
                let decided = known.is_some_and(|known| known.committing().is_some());
                if job.active() && job.tasks[number as usize].is_open() && !decided {
                    open.push(task);
                }
            }
        }
        open.sort_unstable();
        open.dedup();
        Ok(open)
    }
}

impl Job {
    /// How a task ended; none for one that has to run again.
    fn ended_task(&self, id: JobId, number: u32) -> Option<EndedTask> {
        let task = self.tasks.get(number as usize)?;
        let label = self.spec.label(number);
        if let Some(done) = task.done() {
            return Some(EndedTask {
                task: label,
                number,
                end: EndKind::Done,
                why: String::new(),
                files: done.outputs.to_vec(),
            });
        }
        let task_id = TaskId { job: id, number };
        task.has_failed().then(|| EndedTask {
            task: label,
            number,
            end: match task.is_lost() {
                true => EndKind::Lost,
                false => EndKind::of_failed(self.ending_of_failed(task_id)),
            },
            why: self.why_task_failed(task_id),
            files: Vec::new(),
        })
    }
}

fn size(task: &EndedTask) -> usize {
    let files = task.files.iter().map(|file| {
        let inline = match &file.data {
            Data::Inline(bytes) => bytes.len(),
            Data::Blob { .. } => 0,
        };
        ITEM_BYTES + file.path.len() + inline
    });
    files.sum::<usize>() + ITEM_BYTES + task.task.len() + task.why.len()
}
