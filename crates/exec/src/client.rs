//! The worker's side: starts the spawner, hands it attempts, tells how they ended.

use crate::disk::DiskLimit;
use crate::memory;
use crate::process::{self, receive};
use crate::scratch::Lease;
use crate::wire::{self, Reply, Request, Setup};
use crate::{Advanced, ExecError, Exit, Launch, Priority, Report, Scratch};
use hedge_model::Ending;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

/// Waits before starts of a spawner that died; the last one is repeated.
const BACK_OFF: [Duration; 6] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
];
/// Starts that may fail one after the other before attempts that wait for it are given back.
const FAILED_STARTS_MAX: usize = 4;
/// Why attempts end with their worker.
const ENDING: &str = "it is ending";
/// Environment that attempts get from the worker's own.
const ENV_KEPT: [&str; 5] = ["PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ"];

/// How attempts are run on this worker.
#[derive(Clone, Debug)]
pub struct SpawnerConfig {
    /// The program that calls [`crate::spawner::main`], and its arguments. By default this program itself
    /// with [`crate::spawner::ARGUMENT`].
    pub program: (PathBuf, Vec<OsString>),
    /// Where the scratch folders are: that of the [`crate::ScratchPool`].
    pub scratch: PathBuf,
    /// Folders that tasks must not see; the start fails if they lie in one that they may read.
    pub hidden: Vec<PathBuf>,
    /// Files and folders that tasks may read and execute, besides the system's. A program among the files
    /// is found by its name.
    pub read_only: Vec<PathBuf>,
    /// Whether attempts are locked in. `false` trusts every job with all that this user may do.
    pub sandbox: bool,
    /// Whether namespaces are tried; `false` leaves Landlock, for tests of that.
    pub namespaces: bool,
    /// Whether a control group for attempts is tried; `false` leaves signals to pause them, for tests of that.
    pub freezer: bool,
    /// Whether the memory of attempts is pushed out while they are stopped: to swap, and what is of files to those.
    /// Needs `CAP_SYS_NICE`; see [`Spawner::may_free_memory`].
    pub free_memory: bool,
    /// Whether attempts have the network. Without a sandbox they always have.
    pub network: bool,
    /// How attempts are ranked among the machine's other work.
    pub priority: Priority,
    /// Environment that all attempts start from.
    pub env: Vec<(String, String)>,
    /// Most attempts in hand at the same time; further launches wait.
    pub running_max: usize,
}

impl SpawnerConfig {
    /// The defaults: sandboxed, without the network, at idle priority, with the worker's `PATH`, language
    /// and time zone.
    pub fn new(scratch: impl Into<PathBuf>) -> SpawnerConfig {
        let kept = |name: &&str| Some(((*name).to_owned(), std::env::var(name).ok()?));
        SpawnerConfig {
            program: (
                "/proc/self/exe".into(),
                vec![crate::spawner::ARGUMENT.into()],
            ),
            scratch: scratch.into(),
            hidden: Vec::new(),
            read_only: Vec::new(),
            sandbox: true,
            namespaces: true,
            freezer: true,
            free_memory: false,
            network: false,
            priority: Priority::Idle,
            env: ENV_KEPT.iter().filter_map(kept).collect(),
            running_max: 1024,
        }
    }
}

/// A running spawner; clones are handles to the same one. It ends with the last of them.
#[derive(Clone)]
pub struct Spawner {
    shared: Arc<Shared>,
    /// Dropped with the last handle, which ends the keeper.
    _alive: Arc<oneshot::Sender<()>>,
}

/// An attempt that was handed to the spawner. Dropping it ends the attempt.
pub struct Running {
    id: u64,
    exit: oneshot::Receiver<Exit>,
    shared: Arc<Shared>,
    over: bool,
    disk: Option<Arc<DiskLimit>>,
    _permit: OwnedSemaphorePermit,
}

struct Shared {
    state: Mutex<State>,
    /// Something is in the outbox.
    wake: Notify,
    /// The spawner has ended for good.
    ended: Notify,
    next_id: AtomicU64,
    permits: Arc<Semaphore>,
    free_memory: bool,
    /// Held by the one that pushes memory out.
    pushing: Mutex<()>,
}

struct State {
    outbox: Vec<u8>,
    running: HashMap<u64, InHand>,
    /// Folders of attempts that are over but whose killed processes the kernel has not come round to
    /// removing.
    leaving: HashMap<u64, Arc<Lease>>,
    report: Report,
    /// Why nothing can run now, while that is so.
    broken: Option<String>,
    /// Whether attempts are to be stopped; a spawner that is started again is told.
    paused: bool,
    /// How often attempts are looked at; a spawner that is started again is told.
    look_every: Option<Duration>,
    /// Waits for a word that they are.
    pausing: Vec<(bool, oneshot::Sender<()>)>,
    /// The spawner's watcher.
    process: u32,
}

/// Hears how far an attempt is.
type Observer = Box<dyn Fn(Advanced) + Send>;

struct InHand {
    exit: oneshot::Sender<Exit>,
    lease: Arc<Lease>,
    observer: Option<Observer>,
}

impl Spawner {
    /// Starts the spawner and waits until it has set itself up; the result's [`Spawner::report`] says how
    /// well. Fails where no sandbox can be made and one is asked for.
    pub async fn start(config: SpawnerConfig) -> Result<Spawner, ExecError> {
        let setup = process::setup(&config)?;
        let (stream, child, report) = process::start(&config, &setup).await?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                outbox: Vec::new(),
                running: HashMap::new(),
                leaving: HashMap::new(),
                report,
                broken: None,
                paused: false,
                look_every: None,
                pausing: Vec::new(),
                process: child.id(),
            }),
            wake: Notify::new(),
            ended: Notify::new(),
            next_id: AtomicU64::new(1),
            permits: Arc::new(Semaphore::new(config.running_max)),
            free_memory: config.free_memory,
            pushing: Mutex::default(),
        });
        let (alive, gone) = oneshot::channel();
        let kept = shared.clone();
        tokio::spawn(async move {
            keep(config, setup, stream, child, &kept, gone).await;
            kept.ended.notify_one();
        });
        Ok(Spawner {
            shared,
            _alive: Arc::new(alive),
        })
    }

    /// What the spawner could set up here.
    pub fn report(&self) -> Report {
        self.shared.lock().report.clone()
    }

    /// The process id of the spawner's outermost process, for tests that kill it.
    pub fn process(&self) -> u32 {
        self.shared.lock().process
    }

    /// Whether the kernel lets this process push out the memory of attempts, for [`SpawnerConfig::free_memory`].
    pub fn may_free_memory(&self) -> bool {
        memory::may_push_out(self.process())
    }

    /// Starts an attempt in `scratch`, which must be kept until it has ended. Waits only while
    /// [`SpawnerConfig::running_max`] are in hand. That the program cannot be started is an
    /// [`Ending::NotStarted`] of the attempt.
    pub async fn launch(&self, scratch: &Scratch, launch: Launch) -> Running {
        self.launch_with(scratch, launch, None).await
    }

    /// Like [`Spawner::launch`]; `observer` hears how far the attempt is whenever that has changed, as often as
    /// [`Spawner::look_every`] says. It must not wait and not call the spawner.
    pub async fn launch_observed(
        &self,
        scratch: &Scratch,
        launch: Launch,
        observer: impl Fn(Advanced) + Send + 'static,
    ) -> Running {
        self.launch_with(scratch, launch, Some(Box::new(observer)))
            .await
    }

    async fn launch_with(
        &self,
        scratch: &Scratch,
        launch: Launch,
        observer: Option<Observer>,
    ) -> Running {
        let permit = self.shared.permits.clone().acquire_owned().await;
        let permit = permit.unwrap_or_else(|_| unreachable!("the semaphore is never closed"));
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, exit) = oneshot::channel();
        let disk = match launch.limits.disk {
            Some(limit) => Some(DiskLimit::new(scratch.folders(), limit).await),
            None => None,
        };
        let in_hand = InHand {
            exit: sender,
            lease: scratch.lease(),
            observer,
        };
        self.shared.submit(id, scratch.slot(), launch, in_hand);
        if let Some(disk) = disk.clone() {
            let shared = self.shared.clone();
            tokio::spawn(async move {
                let over = || !shared.lock().running.contains_key(&id);
                if let Some(ending) = disk.watch(over).await {
                    shared.end(id, ending);
                }
            });
        }
        Running {
            id,
            exit,
            shared: self.shared.clone(),
            over: false,
            disk,
            _permit: permit,
        }
    }

    /// Runs an attempt to its end.
    pub async fn run(&self, scratch: &Scratch, launch: Launch) -> Exit {
        self.launch(scratch, launch).await.wait().await
    }

    /// Ends the spawner and all attempts, once this is the last handle, and waits until it is gone.
    pub async fn stop(self) {
        let Spawner { shared, _alive } = self;
        drop(_alive);
        shared.ended.notified().await;
    }

    /// Stops every process of every attempt where it is, or lets them go on; the answer comes when that is
    /// done, or the spawner is gone. While attempts are stopped none is started, their time does not count
    /// towards limits, and ending them works as ever.
    pub fn pause(&self, on: bool) -> oneshot::Receiver<()> {
        let (done, answer) = oneshot::channel();
        let mut state = self.shared.lock();
        state.paused = on;
        if state.broken.is_none() && wire::encode(&Request::Pause(on), &mut state.outbox).is_ok() {
            state.pausing.push((on, done));
            drop(state);
            self.shared.wake.notify_one();
        }
        answer
    }

    /// Gives all attempts idle priority. `false` gives further ones the priority of the configuration again;
    /// those that were lowered stay so.
    pub fn lower(&self, on: bool) {
        let mut state = self.shared.lock();
        if wire::encode(&Request::Lower(on), &mut state.outbox).is_ok() {
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// Looks at the progress of attempts this often from now on; until the first call nobody looks. Where a look takes
    /// long, because an attempt has very many processes, there are fewer.
    pub fn look_every(&self, every: Duration) {
        let mut state = self.shared.lock();
        if state.look_every != Some(every)
            && wire::encode(&Request::LookEvery(every), &mut state.outbox).is_ok()
        {
            state.look_every = Some(every);
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// Ends an attempt with all its processes; it is then [`Ending::Cancelled`], unless it had
    /// ended before. Numbers that are not known any more do nothing.
    pub fn cancel(&self, id: u64) {
        self.shared.end(id, Ending::Cancelled);
    }
}

impl Running {
    /// The attempt's number, for [`Spawner::cancel`].
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Ends the attempt with all its processes; [`Running::wait`] then tells.
    pub fn cancel(&self) {
        self.shared.end(self.id, Ending::Cancelled);
    }

    /// Waits for the end. Nothing of the attempt runs any more then.
    pub async fn wait(mut self) -> Exit {
        let exit = (&mut self.exit).await;
        self.over = true;
        let mut exit = exit.unwrap_or_else(|_| Exit::without_process(Ending::worker(ENDING)));
        if let Some(disk) = &self.disk {
            exit.outcome = disk.judge(exit.outcome).await;
        }
        exit
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            self.shared.end(self.id, Ending::Cancelled);
        }
    }
}

impl Shared {
    /// A panic elsewhere leaves the state whole: every change is one step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, id: u64, slot: u32, launch: Launch, in_hand: InHand) {
        let mut state = self.lock();
        let refused = match &state.broken {
            Some(why) => Some(Ending::worker(why)),
            None => wire::encode(&Request::Launch { id, slot, launch }, &mut state.outbox)
                .err()
                .map(|error| Ending::NotStarted {
                    why: format!("its command cannot be handed over: {}", error.0),
                }),
        };
        if let Some(ending) = refused {
            let _ = in_hand.exit.send(Exit::without_process(ending));
            return;
        }
        state.running.insert(id, in_hand);
        drop(state);
        self.wake.notify_one();
    }

    fn end(&self, id: u64, ending: Ending) {
        let mut state = self.lock();
        if state.running.contains_key(&id) {
            let _ = wire::encode(&Request::End { id, ending }, &mut state.outbox);
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Reports everything in hand as lost.
    fn lose_all(&self, reason: &str) {
        let mut state = self.lock();
        state.outbox.clear();
        state.pausing.clear();
        let running = std::mem::take(&mut state.running);
        let leaving = std::mem::take(&mut state.leaving);
        drop(state);
        drop(leaving);
        for in_hand in running.into_values() {
            drop(in_hand.lease);
            let ending = Ending::worker(reason);
            let _ = in_hand.exit.send(Exit::without_process(ending));
        }
    }
}

/// Keeps a spawner running until the last handle is gone.
async fn keep(
    config: SpawnerConfig,
    setup: Setup,
    mut stream: UnixStream,
    mut child: Child,
    shared: &Arc<Shared>,
    mut gone: oneshot::Receiver<()>,
) {
    loop {
        let why = tokio::select! {
            why = serve(&stream, shared) => why,
            _ = &mut gone => {
                drop(stream);
                process::wait(child).await;
                shared.lock().paused = false;
                shared.lose_all(ENDING);
                return;
            }
        };
        tracing::warn!(
            why,
            "the process that runs tasks has died; starting it again"
        );
        drop(stream);
        // Its attempts are dead once it is, and their folders can be cleaned up.
        process::wait(child).await;
        shared.lose_all(&format!(
            "the process that runs tasks died ({why}); it is started again"
        ));
        (stream, child) = match restart(&config, &setup, shared, &mut gone).await {
            Some(started) => started,
            None => return,
        };
    }
}

/// Starts the spawner again, for as long as that takes; gives up only with the last handle.
async fn restart(
    config: &SpawnerConfig,
    setup: &Setup,
    shared: &Shared,
    gone: &mut oneshot::Receiver<()>,
) -> Option<(UnixStream, Child)> {
    let mut failed = 0;
    loop {
        tokio::select! {
            () = tokio::time::sleep(BACK_OFF[failed.min(BACK_OFF.len() - 1)]) => {}
            _ = &mut *gone => {
                shared.lose_all(ENDING);
                return None;
            }
        }
        match process::start(config, setup).await {
            Ok((stream, child, report)) => {
                let mut state = shared.lock();
                state.broken = None;
                state.report = report;
                state.process = child.id();
                if state.paused {
                    _ = wire::encode(&Request::Pause(true), &mut state.outbox);
                }
                if let Some(every) = state.look_every {
                    _ = wire::encode(&Request::LookEvery(every), &mut state.outbox);
                }
                return Some((stream, child));
            }
            Err(error) => tracing::warn!(%error, "cannot start the process that runs tasks"),
        }
        failed += 1;
        if failed >= FAILED_STARTS_MAX {
            let why = "the process that runs tasks died and cannot be started again so far";
            shared.lock().broken = Some(why.to_owned());
            shared.lose_all(why);
        }
    }
}

/// Moves frames both ways until the spawner is gone; says why.
async fn serve(stream: &UnixStream, shared: &Arc<Shared>) -> String {
    let mut inbox = Vec::new();
    let mut outgoing = Vec::new();
    loop {
        if outgoing.is_empty() {
            std::mem::swap(&mut outgoing, &mut shared.lock().outbox);
        }
        if !outgoing.is_empty() {
            match stream.try_write(&outgoing) {
                Ok(written) => drop(outgoing.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return error.to_string(),
            }
        }
        let blocked = !outgoing.is_empty();
        let readable = tokio::select! {
            ready = stream.readable() => ready.is_ok(),
            _ = stream.writable(), if blocked => false,
            () = shared.wake.notified(), if !blocked => false,
        };
        if readable {
            match receive(stream, &mut inbox) {
                Ok(true) => {}
                Ok(false) => return "its socket closed".to_owned(),
                Err(error) => return error.to_string(),
            }
            if let Err(error) = deliver(&mut inbox, shared) {
                return error.0;
            }
        }
    }
}

fn deliver(inbox: &mut Vec<u8>, shared: &Arc<Shared>) -> Result<(), wire::BadFrame> {
    let mut at = 0;
    while let Some(reply) = wire::decode(inbox, &mut at)? {
        match reply {
            Reply::Exited { id, gone, exit } => {
                let mut state = shared.lock();
                if let Some(in_hand) = state.running.remove(&id) {
                    if !gone {
                        state.leaving.insert(id, in_hand.lease);
                    }
                    drop(state);
                    let _ = in_hand.exit.send(exit);
                }
            }
            Reply::Gone { id } => {
                let lease = shared.lock().leaving.remove(&id);
                drop(lease);
            }
            Reply::Paused(on) => {
                let mut state = shared.lock();
                let answered: Vec<_> = state.pausing.extract_if(.., |(to, _)| *to == on).collect();
                drop(state);
                for (_, done) in answered {
                    let _ = done.send(());
                }
                if on && shared.free_memory {
                    free_memory(shared.clone());
                }
            }
            Reply::Advanced { id, to } => {
                let state = shared.lock();
                let in_hand = state.running.get(&id);
                if let Some(observer) = in_hand.and_then(|in_hand| in_hand.observer.as_ref()) {
                    observer(to);
                }
            }
            Reply::Ready(_) | Reply::Refused { .. } => {
                return Err(wire::BadFrame("it spoke out of turn".to_owned()));
            }
        }
    }
    inbox.drain(..at);
    Ok(())
}

/// Pushes out what stopped attempts hold, on a thread of its own: swap may be slow, and they may go on at any time.
fn free_memory(shared: Arc<Shared>) {
    let push = move || {
        let watcher = shared.lock().process;
        let _one = shared.pushing.lock();
        let stopped = || {
            let state = shared.lock();
            state.paused && state.process == watcher
        };
        if let Err(error) = memory::push_out(watcher, stopped) {
            tracing::debug!(%error, "the memory of stopped tasks stays where it is");
        }
    };
    let thread = std::thread::Builder::new().name("push-out".to_owned());
    if let Err(error) = thread.spawn(push) {
        tracing::debug!(%error, "the memory of stopped tasks stays where it is");
    }
}
