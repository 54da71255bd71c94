//! The worker's side of the spawners: starts one for each slot, sends it attempts, and reports how they ended.

mod bounds;
mod output;
mod slot;

use crate::disk::{DiskLimit, SetBy};
use crate::memory;
use crate::process;
use crate::scratch::Lease;
use crate::wire::{self, Request, Setup};
use crate::{
    Advanced, ExecError, Exit, Launch, Permissions, Priority, Report, Scratch, SharedFolder,
};
use hedge_model::Ending;
pub use output::Output;
use output::Readings;
use slot::SlotSpawner;
use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

/// The reason given for attempts that end with their worker.
const ENDING: &str = "it is ending";
/// The variables that attempts get from the worker's own environment.
const ENV_KEPT: [&str; 5] = ["PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ"];

/// The most processes and threads of one attempt; then the fewest, for machines with few process ids.
const PROCESSES_MAX: u64 = 4096;
const PROCESSES_MIN: u64 = 256;

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
    /// Folders that attempts can be given, see [`crate::Permissions::shares`].
    pub shares: Vec<SharedFolder>,
    /// Whether attempts run in a sandbox. Without it every job can do what this user may do.
    pub sandbox: bool,
    /// Whether a sandbox with [`Report::weaknesses`] is accepted. Without effect unless `sandbox` is set.
    pub accept_weak: bool,
    /// Most processes and threads of one attempt.
    pub processes_max: u64,
    /// Most memory of all attempts together, bytes.
    pub memory_max: Option<u64>,
    /// Most disk space of one attempt, whatever it asks for, bytes.
    pub disk_max: Option<u64>,
    /// Whether the memory of paused attempts is pushed out: to swap, or to the files that it is mapped from. Needs
    /// `CAP_SYS_NICE`; see [`Spawner::may_free_memory`].
    pub free_memory: bool,
    /// Whether attempts get the machine's network; `false` leaves them a loopback interface. Without a sandbox they
    /// always have it.
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
            shares: Vec::new(),
            sandbox: true,
            accept_weak: false,
            processes_max: processes_max(),
            memory_max: None,
            disk_max: None,
            free_memory: false,
            network: false,
            priority: Priority::Idle,
            env: ENV_KEPT.iter().filter_map(kept).collect(),
            running_max: 1024,
        }
    }
}

/// Returns how many processes an attempt may have, so that all attempts together leave the machine's owner half of the
/// kernel's process ids.
fn processes_max() -> u64 {
    let number = |path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(32_768)
    };
    let all = number("/proc/sys/kernel/pid_max").min(number("/proc/sys/kernel/threads-max"));
    let attempts = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    (all / 2 / (2 * attempts)).clamp(PROCESSES_MIN, PROCESSES_MAX)
}

/// Runs attempts; clones are handles to the same one. Its processes end with the last of them.
#[derive(Clone)]
pub struct Spawner {
    shared: Arc<Shared>,
    alive: Arc<Alive>,
}

/// Notifies the tasks that keep spawners running when the last handle is dropped, and the handle when they have ended.
struct Alive {
    gone: watch::Sender<()>,
    working: mpsc::Sender<Infallible>,
}

/// An attempt that was handed to a spawner. Dropping it ends the attempt.
pub struct Running {
    id: u64,
    exit: oneshot::Receiver<Exit>,
    shared: Arc<Shared>,
    over: bool,
    disk: Option<Arc<DiskLimit>>,
    _permit: OwnedSemaphorePermit,
}

struct Shared {
    config: SpawnerConfig,
    /// The setup of all spawners, without the slot.
    setup: Setup,
    state: Mutex<State>,
    /// Ends when no spawner is left.
    ended: tokio::sync::Mutex<mpsc::Receiver<Infallible>>,
    next_id: AtomicU64,
    permits: Arc<Semaphore>,
    /// Notified when an attempt is sent to a spawner.
    busy: Notify,
    /// Held while memory is pushed out.
    pushing: Mutex<()>,
}

struct State {
    /// Spawners by slot.
    slots: HashMap<u32, SlotSpawner>,
    running: HashMap<u64, InHand>,
    /// Folders of attempts that are over but whose killed processes still exist.
    leaving: HashMap<u64, (u32, Arc<Lease>)>,
    report: Report,
    /// Whether attempts are paused. A spawner that starts is told so.
    paused: bool,
    /// Whether attempts get idle priority even if the configuration says otherwise. A spawner that starts is told so.
    lowered: bool,
    /// How often progress is measured. A spawner that starts is told so.
    look_every: Option<Duration>,
    readings: Readings,
}

/// Replies to a request to pause when the last spawner has replied or is gone.
struct PauseAnswer(Option<oneshot::Sender<()>>);

impl Drop for PauseAnswer {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            let _ = done.send(());
        }
    }
}

/// Called with the progress of an attempt.
type Observer = Box<dyn Fn(Advanced) + Send>;

struct InHand {
    exit: oneshot::Sender<Exit>,
    slot: u32,
    folders: Vec<PathBuf>,
    lease: Arc<Lease>,
    observer: Option<Observer>,
    /// Whether its task has a limit on memory.
    has_memory_limit: bool,
    /// Who set its limit on disk space, or would have set it.
    disk_set_by: SetBy,
    /// Its limit on disk space, if it has one.
    disk: Option<bounds::MeasuredFolders>,
    /// What it uses; none once it is ended because all attempts use too much.
    uses: Option<bounds::Uses>,
}

impl Spawner {
    /// Starts the first slot's spawner and waits until it has set itself up; the result's [`Spawner::report`] says how
    /// well. Fails where no sandbox can be made and one is asked for.
    pub async fn start(config: SpawnerConfig) -> Result<Spawner, ExecError> {
        let setup = process::setup(&config)?;
        let first = setup.for_slot(0, Permissions::default());
        let started = process::start(&config, &first).await?;
        let (gone, _) = watch::channel(());
        let (working, ended) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                slots: HashMap::new(),
                running: HashMap::new(),
                leaving: HashMap::new(),
                report: started.report.clone(),
                paused: false,
                lowered: false,
                look_every: None,
                readings: Readings::default(),
            }),
            setup,
            ended: tokio::sync::Mutex::new(ended),
            next_id: AtomicU64::new(1),
            permits: Arc::new(Semaphore::new(config.running_max)),
            busy: Notify::new(),
            pushing: Mutex::default(),
            config,
        });
        tokio::spawn(bounds::enforce(Arc::downgrade(&shared), gone.subscribe()));
        let alive = Arc::new(Alive { gone, working });
        slot::keep(&shared, &alive, 0, Permissions::default(), Some(started));
        Ok(Spawner { shared, alive })
    }

    /// What the spawner could set up here.
    pub fn report(&self) -> Report {
        self.shared.lock().report.clone()
    }

    /// The process id of the first slot's outermost process, for tests that kill it.
    pub fn process(&self) -> u32 {
        let state = self.shared.lock();
        state
            .slots
            .get(&0)
            .and_then(|slot| slot.process)
            .unwrap_or(0)
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
        mut launch: Launch,
        observer: Option<Observer>,
    ) -> Running {
        let permit = self.shared.permits.clone().acquire_owned().await;
        let permit = permit.unwrap_or_else(|_| unreachable!("the semaphore is never closed"));
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, exit) = oneshot::channel();
        let offered = self.shared.config.disk_max;
        let disk_set_by = match launch.limits.disk {
            Some(_) => SetBy::Task,
            None => SetBy::Worker,
        };
        launch.limits.disk = launch.limits.disk.into_iter().chain(offered).min();
        let disk = match launch.limits.disk {
            Some(limit) => {
                let reserve = self.shared.setup.disk_reserve;
                Some(DiskLimit::new(scratch, limit, disk_set_by, reserve).await)
            }
            None => None,
        };
        let slot = scratch.slot();
        let in_hand = InHand {
            exit: sender,
            slot,
            folders: scratch.folders(),
            lease: scratch.lease(),
            observer,
            has_memory_limit: launch.limits.memory.is_some(),
            disk_set_by,
            disk: disk.clone().map(bounds::MeasuredFolders::new),
            uses: Some(bounds::Uses::default()),
        };
        let permissions = std::mem::take(&mut launch.permissions);
        if !self.shared.permit(slot, &permissions) {
            slot::keep(&self.shared, &self.alive, slot, permissions, None);
        }
        self.shared.submit(id, scratch.is_filled(), launch, in_hand);
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

    /// Ends all spawners and attempts, once this is the last handle, and waits until they are gone.
    pub async fn stop(self) {
        let Spawner { shared, alive } = self;
        drop(alive);
        let _ = shared.ended.lock().await.recv().await;
    }

    /// Stops every process of every attempt where it is, or lets them go on; the answer comes when that is
    /// done, or the spawners are gone. While attempts are stopped none is started, their time does not count
    /// towards limits, and ending them works as ever.
    pub fn pause(&self, on: bool) -> oneshot::Receiver<()> {
        let (done, answer) = oneshot::channel();
        let done = Arc::new(PauseAnswer(Some(done)));
        let mut state = self.shared.lock();
        state.paused = on;
        for slot in state.slots.values_mut().filter(|slot| slot.is_up()) {
            if slot.say(&Request::Pause(on)) {
                slot.pausing.push((on, done.clone()));
            }
        }
        answer
    }

    /// Gives all attempts idle priority. `false` gives further ones the priority of the configuration again;
    /// those that were lowered stay so.
    pub fn lower(&self, on: bool) {
        let mut state = self.shared.lock();
        state.lowered = on;
        state.say_all(&Request::Lower(on));
    }

    /// Looks at the progress of attempts this often from now on; until the first call nobody looks. Where a look takes
    /// long, because an attempt has very many processes, there are fewer.
    pub fn look_every(&self, every: Duration) {
        let mut state = self.shared.lock();
        if state.look_every != Some(every) {
            state.look_every = Some(every);
            state.say_all(&Request::LookEvery(every));
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

    /// Reads what the attempt prints.
    pub fn output(&self) -> Output {
        Output {
            id: self.id,
            shared: Arc::downgrade(&self.shared),
        }
    }

    /// Ends the attempt with all its processes; [`Running::wait`] then tells.
    pub fn cancel(&self) {
        self.shared.end(self.id, Ending::Cancelled);
    }

    /// Sends the attempt's processes SIGTERM, and ends those that are left after `grace`; [`Running::wait`] then tells.
    pub fn stop(&self, grace: Duration) {
        self.shared
            .say(self.id, &Request::Stop { id: self.id, grace });
    }

    /// Waits for the end. Nothing of the attempt runs any more then.
    pub async fn wait(mut self) -> Exit {
        self.ended().await
    }

    /// Like [`Running::wait`]; may be given up and called again until it has said how the attempt ended.
    pub async fn ended(&mut self) -> Exit {
        let exit = (&mut self.exit).await;
        self.over = true;
        let mut exit = exit.unwrap_or_else(|_| Exit::without_process(Ending::worker(ENDING)));
        if let Some(disk) = &self.disk {
            exit.outcome = disk.corrected(exit.outcome, &exit.stderr).await;
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

impl State {
    /// Says something to all spawners that run. Those that start hear of it then.
    fn say_all(&mut self, request: &Request) {
        for slot in self.slots.values_mut().filter(|slot| slot.is_up()) {
            slot.say(request);
        }
    }
}

impl Shared {
    /// A panic elsewhere leaves the state whole: every change is one step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the slot's spawner started anew where its attempts have other permissions; `false` where there is none.
    fn permit(&self, slot: u32, permissions: &Permissions) -> bool {
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(&slot) else {
            return false;
        };
        if slot.permissions != *permissions {
            slot.permissions = permissions.clone();
            slot.renew = true;
            slot.broken = None;
            slot.wake.notify_one();
        }
        true
    }

    fn submit(&self, id: u64, filled: bool, launch: Launch, in_hand: InHand) {
        let mut state = self.lock();
        let refused = match state.slots.get_mut(&in_hand.slot) {
            None => Some(Ending::worker(ENDING)),
            Some(slot) => match &slot.broken {
                Some(why) => Some(Ending::worker(why)),
                None => {
                    let launch = Box::new(launch);
                    let request = Request::Launch { id, filled, launch };
                    let said = wire::encode(&request, &mut slot.outbox);
                    slot.wake.notify_one();
                    said.err().map(|error| Ending::NotStarted {
                        why: format!("its command cannot be handed over: {}", error.0),
                    })
                }
            },
        };
        match refused {
            Some(ending) => drop(in_hand.exit.send(Exit::without_process(ending))),
            None => {
                state.running.insert(id, in_hand);
                drop(state);
                self.busy.notify_one();
            }
        }
    }

    fn end(&self, id: u64, ending: Ending) {
        self.say(id, &Request::End { id, ending });
    }

    /// Says something to the spawner of an attempt that has not ended.
    fn say(&self, id: u64, request: &Request) {
        let mut state = self.lock();
        let State { running, slots, .. } = &mut *state;
        let slot = running
            .get(&id)
            .and_then(|in_hand| slots.get_mut(&in_hand.slot));
        if let Some(slot) = slot {
            slot.say(request);
        }
    }
}
