//! What tasks print: output of ended attempts from the durable state, output of running attempts from their workers.

use crate::supervisor::answer;
use crate::supervisor::api::requests::{no_such_job, refuse};
use crate::supervisor::api::views::find_task;
use crate::supervisor::durable::job::{Done, EndedAttempt, Job};
use crate::supervisor::leader::attempts::active::Attempt;
use crate::supervisor::leader::attempts::state::AttemptState;
use crate::supervisor::leader::readings::Reading;
use crate::supervisor::leader::{LeaderView, Leadership, WorkerIx};
use hedge_model::msg::{GrantedReply, Log, PrintedRequest, PrintedView, RefusalKind, Reply};
use hedge_model::view::LogView;
use hedge_model::{AttemptId, Ending, Hash, JobId, PeerId, TaskId};

type Refused = (RefusalKind, String);

/// Where the output of an attempt can be read.
enum Output {
    /// At the worker that runs it.
    At(WorkerIx, AttemptId),
    /// In the log of the ended attempt; and whether that is the task's final output.
    Over(Box<LogView>, bool),
    /// Nowhere, for this reason; and whether that is final.
    Nowhere(String, bool),
}

impl Leadership<'_> {
    /// Handles a client's request for what an attempt has printed so far.
    pub(crate) fn on_printed_request(
        &mut self,
        client: PeerId,
        request_id: u64,
        request: &PrintedRequest,
    ) {
        let refused = match self.view().output(request) {
            Ok(Output::At(worker, attempt)) => {
                let reading = Reading::new(client, request_id, attempt, worker, request.from);
                self.open_reading(reading).err()
            }
            Ok(Output::Over(log, last)) => {
                let blobs = log.log.iter().flat_map(Log::blobs).collect();
                let reply = GrantedReply::Printed { log, last };
                return self.answer_granted(client, request_id, Ok((reply, blobs)));
            }
            Ok(Output::Nowhere(why, last)) => {
                let view = PrintedView::Nothing { why, last };
                return answer(client, request_id, Reply::Printed(view), self.out);
            }
            Err(refused) => Some(refused),
        };
        if let Some((kind, why)) = refused {
            refuse(client, request_id, kind, why, self.out);
        }
    }
}

impl LeaderView<'_> {
    fn output(&self, request: &PrintedRequest) -> Result<Output, Refused> {
        let id = request.job;
        let job = self.state.jobs.get(&id).ok_or_else(|| no_such_job(id))?;
        let number = find_task(job, &request.task)?;
        let task = TaskId { job: id, number };
        match request.attempt {
            Some(attempt) if attempt.task != task => {
                let label = job.spec.label(number);
                let why = format!("attempt {attempt} is none of task {label}; nothing was read");
                Err((RefusalKind::Bad, why))
            }
            Some(attempt) => Ok(self.output_of(job, attempt)),
            None => match self.running(task).or_else(|| deciding(job, task)) {
                Some(attempt) => Ok(self.output_of(job, attempt)),
                None => {
                    let known = self.leader.tasks.get(&task);
                    let (_, why) = self.task_state(id, job, number, known);
                    Ok(Output::Nowhere(why, !job.active()))
                }
            },
        }
    }

    /// Returns the attempt of an open task to read: the primary one if it runs, otherwise the one that has run
    /// longest.
    fn running(&self, task: TaskId) -> Option<AttemptId> {
        let open = self.state.task(task)?.is_open();
        let known = self.leader.tasks.get(&task).filter(|_| open)?;
        let running = known
            .attempts()
            .iter()
            .filter(|attempt| self.is_readable(attempt));
        let first = running.min_by_key(|attempt| (attempt.redundant(), attempt.since()));
        first.map(|attempt| attempt.id())
    }

    fn is_readable(&self, attempt: &Attempt) -> bool {
        let state = attempt.state();
        let connected = self.leader.pool[attempt.worker()].state().connected();
        state.runs() && !state.reported() && connected
    }

    fn output_of(&self, job: &Job, id: AttemptId) -> Output {
        let number = id.task.number;
        let known = self.leader.tasks.attempt(id);
        let done = job.tasks[number as usize].done();
        let last = deciding(job, id.task) == Some(id);
        if let Some(done) = done.filter(|done| done.attempt == id) {
            return Output::Over(Box::new(self.log_of_done(job, number, done)), last);
        }
        if let Some(attempt) = known.filter(|attempt| self.is_readable(attempt)) {
            return Output::At(attempt.worker(), id);
        }
        let mut ended = job.ended_attempts(id.task);
        if let Some(ended) = ended.find(|ended| ended.attempt == id) {
            return Output::Over(Box::new(self.log_of_ended(job, number, ended)), last);
        }
        match known {
            Some(attempt) if done.is_none() && attempt.state() != AttemptState::Lost => {
                Output::Nowhere(self.unreadable(attempt), false)
            }
            None if done.is_none() && self.may_be_reported(id) => {
                let why = "another supervisor leads now, and the task's worker has not reported to it yet";
                Output::Nowhere(why.into(), false)
            }
            _ => {
                let log = LogView {
                    attempt: Some(id),
                    ..self.no_log(job, number, Ending::Lost.to_string())
                };
                Output::Over(Box::new(log), false)
            }
        }
    }

    /// Returns whether an earlier leader may have assigned the attempt and its worker may still report it.
    fn may_be_reported(&self, id: AttemptId) -> bool {
        let led_for = self.now.since(self.leader.recovery.since());
        id.epoch < self.state.epoch() && led_for < self.config.content_grace
    }

    /// Returns why the output of an active attempt cannot be read.
    fn unreadable(&self, attempt: &Attempt) -> String {
        let worker = &self.leader.pool[attempt.worker()];
        let name = self.name(worker.peer());
        if !worker.state().connected() {
            format!("worker {name}, where it runs, is not connected")
        } else if attempt.state().reported() {
            "its end is being recorded".to_owned()
        } else {
            format!("its program has not started at worker {name}")
        }
    }

    /// Returns the output of the attempt that won, or else of the last attempt that ended with a log.
    pub(crate) fn logs(&self, id: JobId, task: &str) -> Result<(GrantedReply, Vec<Hash>), Refused> {
        let job = self.state.jobs.get(&id).ok_or_else(|| no_such_job(id))?;
        let number = find_task(job, task)?;
        let task = TaskId { job: id, number };
        let mut ended = job.ended_attempts(task).rev();
        let last = ended.find(|ended| ended.log.is_some());
        let view = match (job.tasks[number as usize].done(), last) {
            (Some(done), _) => self.log_of_done(job, number, done),
            (None, Some(ended)) => self.log_of_ended(job, number, ended),
            (None, None) => self.no_log(job, number, "no attempt has ended yet".to_owned()),
        };
        let (exit_code, signal) = job.exit_of(task);
        let view = LogView {
            exit_code,
            signal,
            ..view
        };
        let blobs = view.log.iter().flat_map(Log::blobs).collect();
        Ok((GrantedReply::Log(Box::new(view)), blobs))
    }

    fn log_of_done(&self, job: &Job, number: u32, done: &Done) -> LogView {
        LogView {
            worker: Some(done.worker),
            attempt: Some(done.attempt),
            exit_code: Some(0),
            ..self.with_log(
                self.no_log(job, number, "done".to_owned()),
                done.log.as_deref(),
            )
        }
    }

    fn log_of_ended(&self, job: &Job, number: u32, ended: &EndedAttempt) -> LogView {
        let end = ended.end.tell(&self.name(ended.worker));
        LogView {
            worker: Some(ended.worker),
            attempt: Some(ended.attempt),
            exit_code: ended.end.exit_code(),
            signal: ended.end.signal(),
            ..self.with_log(self.no_log(job, number, end), ended.log.as_deref())
        }
    }

    fn with_log(&self, view: LogView, log: Option<&Log>) -> LogView {
        let blobs: Vec<Hash> = log.into_iter().flat_map(Log::blobs).collect();
        LogView {
            log: log.cloned(),
            sources: self.sources_for_clients(&blobs),
            ..view
        }
    }

    fn no_log(&self, job: &Job, number: u32, end: String) -> LogView {
        LogView {
            task: job.spec.label(number),
            worker: None,
            end,
            log: None,
            sources: Vec::new(),
            attempt: None,
            exit_code: None,
            signal: None,
        }
    }
}

/// Returns the attempt whose output counts as the task's: the winner. If the task failed or the job ended without
/// one, the last attempt with a log.
fn deciding(job: &Job, task: TaskId) -> Option<AttemptId> {
    let known = &job.tasks[task.number as usize];
    if let Some(done) = known.done() {
        return Some(done.attempt);
    }
    if job.active() && !known.has_failed() {
        return None;
    }
    let ended = || job.ended_attempts(task).rev();
    let printed = ended().find(|ended| ended.log.is_some());
    printed
        .or_else(|| ended().next())
        .map(|ended| ended.attempt)
}
