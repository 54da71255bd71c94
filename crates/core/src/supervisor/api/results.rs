//! Output files of tasks: the results of an ended job, or the outputs of single tasks of any job.

use crate::supervisor::api::requests::no_such_job;
use crate::supervisor::api::views::find_task;
use crate::supervisor::durable::job::{Done, Job};
use crate::supervisor::leader::LeaderView;
use crate::supervisor::leader::blobs::transfers::result_tasks;
use hedge_model::msg::{GrantedReply, OUTPUT_TASKS_MAX, RefusalKind, Request};
use hedge_model::view::{MISSING_MAX, ResultFile, ResultsView};
use hedge_model::{Data, Hash, JobId};

type Refused = (RefusalKind, String);

/// Approximate size of a page of results in bytes: a quarter of a frame, which leaves room for other replies.
const RESULTS_PAGE_BYTES: usize = 4 << 20;
/// The most bytes that a listed file takes besides its path, its task's label and its inline content: ids, hash, and
/// its place in a grant.
const RESULT_FILE_BYTES: usize = 200;

impl LeaderView<'_> {
    /// Answers a request whose reply names blobs.
    pub(crate) fn granted(&self, request: Request) -> Result<(GrantedReply, Vec<Hash>), Refused> {
        match request {
            Request::Results { job, from } => self.results(job, from),
            Request::Outputs { job, tasks, from } => self.outputs(job, &tasks, from),
            Request::Logs(job, task) => self.logs(job, &task),
            _ => Err((
                RefusalKind::Bad,
                "the answer to this request names no blobs".into(),
            )),
        }
    }

    /// Returns one page of an ended job's results, from the file at position `from` on.
    fn results(&self, id: JobId, from: u64) -> Result<(GrantedReply, Vec<Hash>), Refused> {
        let job = self.state.jobs.get(&id).ok_or_else(|| no_such_job(id))?;
        if job.active() {
            let why = format!("job {id} is still running; `hedge wait {id}` waits for its end");
            return Err((RefusalKind::Busy, why));
        }
        Ok(self.page(id, job, from, || result_tasks(job)))
    }

    /// Returns one page of the outputs of these tasks, whether the job has ended or not.
    fn outputs(
        &self,
        id: JobId,
        tasks: &[String],
        from: u64,
    ) -> Result<(GrantedReply, Vec<Hash>), Refused> {
        let job = self.state.jobs.get(&id).ok_or_else(|| no_such_job(id))?;
        if tasks.len() > OUTPUT_TASKS_MAX {
            let why = format!(
                "{} tasks are named, and {OUTPUT_TASKS_MAX} may be; nothing was fetched",
                tasks.len()
            );
            return Err((RefusalKind::Bad, why));
        }
        let numbers = tasks.iter().map(|task| find_task(job, task));
        let numbers = numbers.collect::<Result<Vec<u32>, Refused>>()?;
        let named = || {
            let done = |number: u32| job.tasks[number as usize].done();
            numbers.iter().map(move |number| (*number, done(*number)))
        };
        for (number, done) in named().filter_map(|(number, done)| Some((number, done?))) {
            if self.are_gone(job, number, done) {
                let hint = match job.tasks[number as usize].is_released() {
                    true => "they were released",
                    false => "`keep = true` in the job file keeps them with the results",
                };
                let why = format!(
                    "the outputs of {} are not kept any more, because no task needs them; nothing was fetched: {hint}",
                    job.spec.label(number)
                );
                return Err((RefusalKind::Unknown, why));
            }
        }
        Ok(self.page(id, job, from, named))
    }

    /// Returns whether a task has outputs that are not results and that no reachable peer holds any more.
    fn are_gone(&self, job: &Job, number: u32, done: &Done) -> bool {
        let has_holder = |hash: Hash| {
            let blob = self.leader.blobs.get(hash);
            blob.is_some_and(|blob| {
                let reachable = |ix: &_| self.leader.pool[*ix].state().reachable();
                blob.is_here() || blob.workers().iter().any(reachable)
            })
        };
        let mut blobs = done.outputs.iter().filter_map(|file| file.data.hash());
        !job.keeps(number) && blobs.any(|hash| !has_holder(hash))
    }

    fn page<'a, T>(
        &self,
        id: JobId,
        job: &'a Job,
        from: u64,
        tasks: impl Fn() -> T,
    ) -> (GrantedReply, Vec<Hash>)
    where
        T: Iterator<Item = (u32, Option<&'a Done>)>,
    {
        let (mut missing, mut missing_count) = (Vec::new(), 0);
        if from == 0 {
            for (number, _) in tasks().filter(|(_, done)| done.is_none()) {
                missing_count += 1;
                if missing.len() < MISSING_MAX {
                    missing.push(job.spec.label(number));
                }
            }
        }
        let made = tasks()
            .filter_map(|(number, done)| Some((number, done?)))
            .flat_map(|(number, done)| done.outputs.iter().map(move |file| (number, done, file)));
        let mut made = made
            .skip(usize::try_from(from).unwrap_or(usize::MAX))
            .peekable();
        let (mut files, mut bytes) = (Vec::new(), 0);
        while bytes < RESULTS_PAGE_BYTES
            && let Some((number, done, file)) = made.next()
        {
            let listed = ResultFile {
                task: job.spec.label(number),
                attempt: done.attempt,
                worker: done.worker,
                hash: content_hash(&file.data),
                file: file.clone(),
            };
            let inline = match &file.data {
                Data::Inline(inline) => inline.len(),
                Data::Blob { .. } => 0,
            };
            bytes += RESULT_FILE_BYTES + file.path.len() + listed.task.len() + inline;
            files.push(listed);
        }
        let next = made.peek().map(|_| from + files.len() as u64);
        let blobs: Vec<Hash> = files
            .iter()
            .filter_map(|made| made.file.data.hash())
            .collect();
        let view = ResultsView {
            job: id,
            files,
            next,
            missing,
            missing_count,
            sources: self.sources_for_clients(&blobs),
        };
        (GrantedReply::Results(Box::new(view)), blobs)
    }
}

fn content_hash(data: &Data) -> Hash {
    match data {
        Data::Inline(bytes) => Hash(*blake3::hash(bytes).as_bytes()),
        Data::Blob { hash, .. } => *hash,
    }
}
