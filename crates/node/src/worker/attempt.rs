//! Carries out one attempt at a worker: stages inputs, runs the process, collects and stores the outputs.

use super::Input;
use super::checkpoints::Saver;
use super::gpus::{Gpus, HeldGpus};
use super::heartbeats::HeartbeatSender;
use super::permissions::{cwd, permissions};
use super::printed::Outputs;
use super::staging::{MountedAt, Staged, stage};
use super::trees::TreeCache;
use hedge_core::worker::Event;
use hedge_exec::{
    Advanced, Exit, Launch, Limits, OutputFile, Runner, Scratch, SharedFolder, Stdin, StreamKind,
    Tail, told_shortage,
};
use hedge_model::data::{INLINE_BYTES_MAX, PRINTED_BYTES_MAX};
use hedge_model::ending::OutputFault;
use hedge_model::msg::{
    Assignment, Body, FromWorker, GrantedBody, Log, MESSAGE_BYTES_MAX, Outcome, Report, Usage,
};
use hedge_model::spec::placeholders::{self, TaskValues};
use hedge_model::{AttemptId, Checkpoint, Data, Ending, FileEntry, Hash, JobId};
use hedge_net::{DataStore, Fetcher, Transfer};
use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::mpsc;

/// Printed output up to this many bytes is sent inside the report.
const LOG_INLINE_MAX: usize = 2 << 10;
/// The most characters reported of a line that a task printed.
const LINE_CHARS_MAX: usize = 200;

/// The longest list of a task's outputs in bytes. It must fit into one message together with the content of small
/// files and printed output.
const LIST_BYTES_MAX: usize = MESSAGE_BYTES_MAX - (1 << 20);
/// Bytes that a file takes in the list without its path: hash, length and flags.
const ENTRY_BYTES: usize = 48;

/// What attempts need to run.
pub(super) struct Tools {
    pub runner: Runner,
    pub gpus: Arc<Gpus>,
    /// Folders that the owner shares with attempts, by name.
    pub shares: Vec<(String, SharedFolder)>,
    pub store: DataStore,
    pub trees: TreeCache,
    pub fetcher: Fetcher,
    pub inputs: mpsc::Sender<Input>,
    pub heartbeats: HeartbeatSender,
    /// Outputs, printed output and checkpoints of attempts that are not reported yet.
    pub stored: Arc<Mutex<Vec<(AttemptId, Hash)>>>,
    /// The readable outputs of running attempts.
    pub outputs: Outputs,
}

impl Tools {
    /// Returns blobs that no supervisor knows of yet. They are not reported as held blobs: a supervisor would have
    /// them dropped before the report that names them arrives.
    pub fn fresh(&self) -> BTreeSet<Hash> {
        self.lock_stored().iter().map(|(_, hash)| *hash).collect()
    }

    /// Removes the blobs of a checkpoint, which is reported separately.
    pub fn announced(&self, checkpoint: &Checkpoint) {
        let named = |hash| checkpoint.blobs().any(|(other, _)| other == hash);
        let id = checkpoint.id.attempt;
        self.lock_stored()
            .retain(|(of, hash)| *of != id || !named(*hash));
    }

    /// Removes the blobs of an attempt whose report is made.
    pub fn reported(&self, id: AttemptId) {
        self.lock_stored().retain(|(of, _)| *of != id);
    }

    fn store_output(&self, id: AttemptId, hash: Hash) {
        self.lock_stored().push((id, hash));
    }

    fn lock_stored(&self) -> MutexGuard<'_, Vec<(AttemptId, Hash)>> {
        lock(&self.stored)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The attempts that are staging or running here.
#[derive(Default)]
pub(super) struct Attempts(HashMap<AttemptId, Phase>);

enum Phase {
    Staging(tokio::task::AbortHandle),
    Staged(Box<Staged>),
    Running(mpsc::Sender<Halt>),
}

/// How to end a running attempt.
enum Halt {
    /// End it at once.
    End,
    /// Send SIGTERM and give it this long to save a checkpoint.
    Stop(Duration),
}

/// The most pending orders to end an attempt: one to stop, one to end at once, and repetitions.
const HALTS_MAX: usize = 4;

/// What was staged for an attempt, or why it was not.
pub(super) type StageResult = Result<Staged, Ending>;

impl Attempts {
    /// Stages an attempt. One without inputs is ready at once; for others the result comes later as an input of the
    /// loop.
    pub fn stage(
        &mut self,
        tools: &Arc<Tools>,
        body: Arc<GrantedBody>,
        order: Assignment,
    ) -> Option<Result<(), Ending>> {
        let id = order.attempt;
        let own = order.own_inputs().is_empty() && order.checkpoint().is_empty();
        if own && body.inputs.is_empty() && body.stdin.is_none() && body.mounts.is_empty() {
            return Some(match tools.runner.scratch() {
                Ok(scratch) => {
                    let trees = Vec::new();
                    let staged = Staged { scratch, trees };
                    self.0.insert(id, Phase::Staged(Box::new(staged)));
                    Ok(())
                }
                Err(error) => Err(error.ending()),
            });
        }
        let (tools, handed) = (tools.clone(), tools.inputs.clone());
        let task = tokio::spawn(async move {
            let result = guarded(stage(&tools, &body, &order)).await.flatten();
            for Transfer { bytes, took } in tools.fetcher.large_transfers() {
                let told = FromWorker::Fetched { bytes, took };
                _ = handed.send(Input::Told(told)).await;
            }
            _ = handed.send(Input::Folder(id, result)).await;
        });
        self.0.insert(id, Phase::Staging(task.abort_handle()));
        None
    }

    /// Records the end of an attempt's staging. Returns the event for the core.
    pub fn staged(&mut self, id: AttemptId, result: StageResult) -> Option<Event> {
        if !matches!(self.0.get(&id), Some(Phase::Staging(_))) {
            return None;
        }
        let result = match result {
            Ok(staged) => {
                self.0.insert(id, Phase::Staged(Box::new(staged)));
                Ok(())
            }
            Err(why) => {
                self.0.remove(&id);
                Err(why)
            }
        };
        Some(Event::Staged(id, result))
    }

    /// Starts a staged attempt's process.
    pub fn start(&mut self, tools: &Arc<Tools>, body: &Arc<GrantedBody>, order: &Assignment) {
        let id = order.attempt;
        let Some(Phase::Staged(staged)) = self.0.remove(&id) else {
            return;
        };
        let (halt, halts) = mpsc::channel(HALTS_MAX);
        self.0.insert(id, Phase::Running(halt));
        let (tools, body, order) = (tools.clone(), body.clone(), order.clone());
        tokio::spawn(async move {
            let report = guarded(run(&tools, &body, &order, *staged, halts)).await;
            let report = report.unwrap_or_else(|ending| ended(id, ending));
            _ = tools
                .inputs
                .send(Input::Core(Event::Finished(Box::new(report))))
                .await;
        });
    }

    /// Ends an attempt. One that is staging is over at once.
    pub fn end(&mut self, id: AttemptId) -> Option<Event> {
        match self.0.get(&id)? {
            Phase::Running(halt) => {
                _ = halt.try_send(Halt::End);
                None
            }
            Phase::Staging(task) => {
                task.abort();
                self.0.remove(&id);
                Some(Event::Staged(id, Err(Ending::Cancelled)))
            }
            // It was cancelled before it could start.
            Phase::Staged(_) => {
                self.0.remove(&id);
                None
            }
        }
    }

    /// Asks a running attempt to end within this time.
    pub fn stop(&self, id: AttemptId, grace: Duration) {
        if let Some(Phase::Running(halt)) = self.0.get(&id) {
            _ = halt.try_send(Halt::Stop(grace));
        }
    }

    /// Removes an attempt that is over.
    pub fn forget(&mut self, id: AttemptId) {
        self.0.remove(&id);
    }

    /// How many are staged or run.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Returns the report of an attempt that has used nothing.
fn ended(id: AttemptId, ending: Ending) -> Report {
    Report {
        attempt: id,
        outcome: Outcome::Ended(ending),
        usage: Usage::default(),
        log: None,
    }
}

/// Runs a part of an attempt. If it panics, for example because the system has no thread for it, the attempt is
/// reported with a fault of the worker.
async fn guarded<T>(work: impl Future<Output = T>) -> Result<T, Ending> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => Poll::Ready(Err(Ending::worker(
                "it panicked; its own output says where",
            ))),
        }
    })
    .await
}

/// Returns the ending of an attempt if this worker's own store failed.
pub(super) fn failed(error: &impl std::fmt::Display) -> Ending {
    let why = error.to_string();
    match told_shortage(&why) {
        Some(of) => Ending::Short {
            of,
            doing: format!("keep its files ({why})"),
        },
        None => Ending::worker(why),
    }
}

fn launch(
    tools: &Tools,
    body: &Body,
    order: &Assignment,
    uses: (&HeldGpus, &[MountedAt]),
) -> Result<Launch, Ending> {
    let id = order.attempt;
    let (index, values) = (order.index, body.task_values(order));
    let words: Vec<String> = body
        .command
        .iter()
        .map(|word| expand(word, &values))
        .collect();
    let label = match index {
        Some(index) => format!("{}.{index}", body.id),
        None => body.id.to_string(),
    };
    let mut env: Vec<(String, String)> = vec![
        ("HEDGE_JOB_ID".into(), id.task.job.to_string()),
        ("HEDGE_TASK_ID".into(), label),
        ("HEDGE_ATTEMPT".into(), id.to_string()),
    ];
    env.extend(index.map(|index| ("HEDGE_INDEX".into(), index.to_string())));
    env.extend((!order.checkpoint().is_empty()).then(|| ("HEDGE_CHECKPOINT".into(), "1".into())));
    env.extend(
        body.env
            .iter()
            .map(|(name, value)| (name.to_string(), expand(value, &values))),
    );
    env.extend(uses.0.environment(tools.runner.respects_modes()));
    let some = |amount: u64| (amount > 0).then_some(amount);
    Ok(Launch {
        program: words.first().cloned().unwrap_or_default(),
        args: words.into_iter().skip(1).collect(),
        env,
        cwd: cwd(&tools.shares, body),
        stdin: if body.stdin.is_some() {
            Stdin::Placed
        } else {
            Stdin::Null
        },
        limits: Limits {
            time: body.time_limit,
            memory: some(body.resources_of(order).memory),
            disk: some(body.resources.disk),
        },
        permissions: permissions(&tools.shares, body, uses.0, uses.1)?,
        kept_bytes: Some(body.printed_max.min(PRINTED_BYTES_MAX)),
        // The runner adds what the task's runtime needs.
        warm: None,
    })
}

/// Replaces a task's placeholders, and `${hedge}` by the path of this program.
fn expand(text: &str, values: &TaskValues<'_>) -> String {
    let value = |name: &str| match name {
        "hedge" => std::env::current_exe()
            .ok()
            .map(|hedge| hedge.to_string_lossy().into_owned()),
        name => values.value(name),
    };
    placeholders::expand(text, value).into_owned()
}

async fn run(
    tools: &Tools,
    body: &Body,
    order: &Assignment,
    staged: Staged,
    mut halts: mpsc::Receiver<Halt>,
) -> Report {
    let id = order.attempt;
    let Staged { mut scratch, trees } = staged;
    let (mut saver, saver_told) = Saver::begin(tools, body, order, &mut scratch);
    let scratch = Arc::new(scratch);
    let heartbeats = tools.heartbeats.clone();
    let (inputs, told) = (tools.inputs.clone(), Mutex::new(None));
    let observer = move |to: Advanced| {
        heartbeats.advanced(id, to);
        saver_told.hear(&to);
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let news = Input::Core(Event::Waits(id, to.waits_for.map(JobId)));
        // If the queue is full, a later progress report repeats it.
        if *told != to.waits_for && inputs.try_send(news).is_ok() {
            *told = to.waits_for;
        }
    };
    let gpus = match tools.gpus.take(body.resources.named("gpus")) {
        Ok(gpus) => gpus,
        Err(ending) => return ended(id, ending),
    };
    let launch = match launch(tools, body, order, (&gpus, &trees)) {
        Ok(launch) => launch,
        Err(ending) => return ended(id, ending),
    };
    let started = tools.runner.start(body, &scratch, launch, observer);
    let mut attempt = started.await;
    let readable = attempt.output().map(|output| tools.outputs.add(id, output));
    let exit = loop {
        tokio::select! {
            exit = attempt.ended() => break exit,
            Some(halt) = halts.recv() => match halt {
                Halt::End => attempt.end(),
                Halt::Stop(grace) => attempt.stop(grace),
            },
            () = saver.save_due(tools) => {}
        }
    };
    drop((gpus, readable, trees));
    // A cancelled attempt is not continued, so it needs no checkpoint.
    if !matches!(exit.outcome, Ok(()) | Err(Ending::Cancelled)) {
        saver.save_last(tools).await;
    }
    let log = store_log(tools, id, &scratch, &exit).await;
    let ended = match exit.outcome {
        Ok(()) if body.outputs.is_empty() => Ok(Vec::new()),
        Ok(()) => collect(tools, body, order, &scratch).await,
        Err(ending) => Err(with_last_line(ending, &exit.stderr)),
    };
    let outcome = match ended {
        Ok(outputs) => Outcome::Done(outputs),
        Err(ending) => Outcome::Ended(ending),
    };
    Report {
        attempt: id,
        outcome,
        usage: reported(&exit.usage),
        log,
    }
}

fn reported(used: &hedge_exec::Usage) -> Usage {
    Usage {
        running: used.elapsed + used.paused,
        paused: used.paused,
        cpu: used.cpu,
        memory_peak: used.memory_peak,
        ..Usage::default()
    }
}

/// Finds, reads and stores the task's declared outputs.
async fn collect(
    tools: &Tools,
    body: &Body,
    order: &Assignment,
    scratch: &Arc<Scratch>,
) -> Result<Vec<FileEntry>, Ending> {
    let values = body.task_values(order);
    let patterns: Vec<String> = body
        .outputs
        .iter()
        .map(|output| values.expand(output).into_owned())
        .collect();
    // Walking a large directory takes a while and must not block the loop.
    let (folder, wanted) = (scratch.clone(), patterns);
    let found = tokio::task::spawn_blocking(move || folder.collect(&wanted)).await;
    let not_looked = |error| Ending::worker(format!("it could not look for the outputs: {error}"));
    let files = found.map_err(not_looked)??;
    check_list(&files)?;
    keep(tools, body, order, files).await
}

/// Puts small outputs into the report, as far as its limit allows, and the others into the store.
async fn keep(
    tools: &Tools,
    body: &Body,
    order: &Assignment,
    files: Vec<OutputFile>,
) -> Result<Vec<FileEntry>, Ending> {
    let mut inline_left = body.inline_max as usize;
    let is_small = |file: &OutputFile| {
        let small = file.size <= INLINE_BYTES_MAX as u64 && file.size as usize <= inline_left;
        inline_left -= if small { file.size as usize } else { 0 };
        small
    };
    let small: Vec<bool> = files.iter().map(is_small).collect();
    let large = files.iter().zip(&small).filter(|(_, small)| !**small);
    let large: Vec<PathBuf> = large.map(|(file, _)| file.file.clone()).collect();
    let added = match large.is_empty() {
        true => Vec::new(),
        false => {
            let (stored, id) = (tools.stored.clone(), order.attempt);
            let note = move |hash| lock(&stored).push((id, hash));
            let added = tools.store.take_files(large, note).await;
            added.map_err(|error| failed(&error))?
        }
    };
    let mut added = added.into_iter();
    let mut entries = Vec::with_capacity(files.len());
    for (file, small) in files.into_iter().zip(small) {
        let stored = if small { None } else { added.next() };
        let data = match stored {
            Some((hash, size)) => Data::Blob { hash, size },
            None => {
                let bytes = std::fs::read(&file.file).map_err(|error| failed(&error))?;
                Data::Inline(bytes.into())
            }
        };
        entries.push(FileEntry {
            path: file.path.into(),
            executable: file.executable,
            data,
        });
    }
    Ok(entries)
}

/// Checks that the list of outputs fits into a message.
fn check_list(files: &[OutputFile]) -> Result<(), Ending> {
    let list = files.iter().map(|file| file.path.len() + ENTRY_BYTES);
    let bytes = list.fold(0, usize::saturating_add);
    if bytes <= LIST_BYTES_MAX {
        return Ok(());
    }
    let fault = OutputFault::LongList {
        files: files.len() as u64,
        bytes: bytes as u64,
        limit: LIST_BYTES_MAX as u64,
    };
    let path = String::new();
    Err(Ending::Output { path, fault })
}

async fn store_log(
    tools: &Tools,
    id: AttemptId,
    scratch: &Arc<Scratch>,
    exit: &Exit,
) -> Option<Box<Log>> {
    if exit.stdout.total == 0 && exit.stderr.total == 0 {
        return None;
    }
    let stream = |kind, tail| store_printed(tools, id, scratch, kind, tail);
    Some(Box::new(Log {
        stdout: stream(StreamKind::Stdout, &exit.stdout).await,
        stderr: stream(StreamKind::Stderr, &exit.stderr).await,
        stdout_total: exit.stdout.total,
        stderr_total: exit.stderr.total,
    }))
}

/// Stores what was kept of a stream. If that fails, returns only its end.
async fn store_printed(
    tools: &Tools,
    id: AttemptId,
    scratch: &Arc<Scratch>,
    kind: StreamKind,
    tail: &Tail,
) -> Data {
    let stored = match tail.spilled {
        Some(_) => store_spilled(tools, scratch, kind, tail).await,
        None => None,
    };
    let stored = match stored {
        None if tail.bytes.len() > LOG_INLINE_MAX => {
            let added = tools.store.add_bytes(tail.bytes.clone()).await;
            added.ok().map(|hash| (hash, tail.bytes.len() as u64))
        }
        stored => stored,
    };
    if let Some((hash, size)) = stored {
        tools.store_output(id, hash);
        return Data::Blob { hash, size };
    }
    let from = tail.bytes.len().saturating_sub(LOG_INLINE_MAX);
    Data::Inline(tail.bytes[from..].into())
}

async fn store_spilled(
    tools: &Tools,
    scratch: &Arc<Scratch>,
    kind: StreamKind,
    tail: &Tail,
) -> Option<(Hash, u64)> {
    let (scratch, tail) = (scratch.clone(), tail.clone());
    let opened = tokio::task::spawn_blocking(move || scratch.spilled(kind, &tail));
    let stored = match opened.await.ok()? {
        // By descriptor, because no other file can take the place of an open one.
        Ok(Some(file)) => {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let added = tools.store.add_file(Path::new(&path)).await;
            added.map_err(|error| error.to_string())
        }
        Ok(None) => return None,
        Err(error) => Err(error.to_string()),
    };
    let told = |error| tracing::warn!(%error, "most of what a task printed could not be kept");
    stored.map_err(told).ok()
}

/// Adds the last line of the standard error, which is often the reason.
fn with_last_line(mut ending: Ending, stderr: &Tail) -> Ending {
    if let Ending::Exited { said, .. } | Ending::Signalled { said, .. } = &mut ending {
        let text = String::from_utf8_lossy(&stderr.bytes);
        let last = text.trim_end().lines().last().unwrap_or("");
        *said = last.chars().take(LINE_CHARS_MAX).collect();
    }
    ending
}
