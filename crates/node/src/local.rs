//! A grid on one machine, for one job: the supervisor in this process, workers as child processes, so that
//! one that crashes takes nothing else with it.

use crate::supervisor::{Supervisor, SupervisorConfig};
use crate::temporary::Temporary;
use crate::{Client, ClientError, NodeError};
use hedge_model::msg::Role;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A worker that dies is started again after this time, doubled each time it dies soon.
const RESTART_AFTER: Duration = Duration::from_millis(50);
const RESTART_AFTER_MAX: Duration = Duration::from_secs(5);
/// A worker that lived this long is started again after the shortest time.
const LIVED_WELL: Duration = Duration::from_secs(10);
/// A worker that gave up by itself this many times in a row, each time soon after its start, cannot work here.
const GIVEN_UP_MAX: u32 = 3;
/// Workers that are told to stop get this long.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// How to make a grid on this machine.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// How many workers.
    pub workers: usize,
    /// Thousandths of a CPU that each offers.
    pub cpus_milli: u64,
    /// Further arguments of `hedge worker` for each, like `--no-sandbox`.
    pub worker_args: Vec<String>,
    /// The program to start as workers; this program by default.
    pub program: PathBuf,
}

impl LocalConfig {
    /// At least four workers, one for each CPU.
    pub fn new() -> Result<Self, ClientError> {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let program = std::env::current_exe()
            .map_err(|error| ClientError::Local(format!("where is hedge? {error}")))?;
        Ok(Self {
            workers: cpus.max(4),
            cpus_milli: 1000,
            worker_args: Vec::new(),
            program,
        })
    }
}

/// A running grid on this machine.
#[derive(Debug)]
pub struct LocalGrid {
    supervisor: Supervisor,
    pids: Arc<Mutex<Vec<Option<u32>>>>,
    keepers: JoinSet<()>,
    stopping: watch::Sender<bool>,
    /// Workers that have not given up.
    hopeful: watch::Receiver<usize>,
    dir: Temporary,
}

impl LocalGrid {
    /// Starts the supervisor and its workers; does not wait for these.
    pub async fn start(config: LocalConfig) -> Result<Self, ClientError> {
        let dir = Temporary::new("hedge-run-");
        let dir =
            dir.map_err(|error| ClientError::Local(format!("no folder for the run: {error}")))?;
        let supervisor = SupervisorConfig::temporary(dir.path().join("supervisor"));
        let supervisor = Supervisor::start(supervisor).await?;
        let ticket = supervisor.ticket(Role::Worker).await?.to_string();
        let pids = Arc::new(Mutex::new(vec![None; config.workers]));
        let (stopping, stopped) = watch::channel(false);
        let (hopes, hopeful) = watch::channel(config.workers);
        let hopes = Arc::new(hopes);
        let mut keepers = JoinSet::new();
        for number in 0..config.workers {
            let keeper = Keeper {
                number,
                dir: dir.path().join(format!("worker-{number}")),
                ticket: ticket.clone(),
                config: config.clone(),
                supervisor: supervisor.clone(),
                pids: pids.clone(),
                stopped: stopped.clone(),
                hopes: hopes.clone(),
            };
            keepers.spawn(keeper.keep());
        }
        Ok(Self {
            supervisor,
            pids,
            keepers,
            stopping,
            hopeful,
            dir,
        })
    }

    /// A client of this grid.
    pub fn client(&self) -> Client {
        Client::here(self.supervisor.clone())
    }

    /// Where supervisor and workers keep what they have; removed at the end.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns once no worker can work here: each gave up by itself soon after its start, several times in a row,
    /// and said why on standard error. One that was killed did not give up.
    pub async fn hopeless(&self) {
        let mut hopeful = self.hopeful.clone();
        if hopeful.wait_for(|left| *left == 0).await.is_err() {
            std::future::pending().await
        }
    }

    /// Process ids of the workers that run now.
    pub fn worker_pids(&self) -> Vec<u32> {
        self.pids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .copied()
            .flatten()
            .collect()
    }

    /// Stops workers and supervisor and removes what they had.
    pub async fn stop(mut self) {
        _ = self.stopping.send(true);
        let all = async { while self.keepers.join_next().await.is_some() {} };
        _ = tokio::time::timeout(STOP_WITHIN, all).await;
        self.keepers.shutdown().await;
        self.supervisor.stop().await;
    }
}

/// Keeps one worker process running.
struct Keeper {
    number: usize,
    dir: PathBuf,
    ticket: String,
    config: LocalConfig,
    supervisor: Supervisor,
    pids: Arc<Mutex<Vec<Option<u32>>>>,
    stopped: watch::Receiver<bool>,
    hopes: Arc<watch::Sender<usize>>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut wait = RESTART_AFTER;
        let mut given_up = 0_u32;
        while !*self.stopped.borrow() {
            let started = Instant::now();
            let mut by_itself = true;
            match self.start().await {
                Ok((mut child, _leash)) => {
                    let pid = child.id().unwrap_or(0);
                    self.note(Some(pid));
                    let ended = tokio::select! {
                        status = child.wait() => Some(status),
                        _ = self.stopped.wait_for(|stopped| *stopped) => None,
                    };
                    self.note(None);
                    let Some(ended) = ended else {
                        _ = child.kill().await;
                        return;
                    };
                    by_itself = ended.as_ref().is_ok_and(|status| status.code().is_some());
                    self.supervisor.worker_process_ended(pid).await;
                    tracing::warn!(
                        worker = self.number,
                        ?ended,
                        "a worker process ended; it is started again"
                    );
                }
                Err(error) => {
                    tracing::warn!(worker = self.number, %error, "a worker could not be started")
                }
            }
            if started.elapsed() >= LIVED_WELL {
                wait = RESTART_AFTER;
                by_itself = false;
            }
            let before = given_up >= GIVEN_UP_MAX;
            given_up = if by_itself { given_up + 1 } else { 0 };
            match (before, given_up >= GIVEN_UP_MAX) {
                (false, true) => self.hopes.send_modify(|left| *left -= 1),
                (true, false) => self.hopes.send_modify(|left| *left += 1),
                _ => {}
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = self.stopped.wait_for(|stopped| *stopped) => return,
            }
            wait = (wait * 2).min(RESTART_AFTER_MAX);
        }
    }

    /// This worker's part of the machine. CPUs are shared out more than once where there are more workers
    /// than CPUs, memory and disk are not.
    fn share(&self) -> [String; 6] {
        let all = crate::worker::offer(&self.dir);
        let part = |amount: u64| format!("{} B", amount / self.config.workers.max(1) as u64);
        let cpus = self.config.cpus_milli as f64 / 1000.0;
        [
            "--cpus".to_owned(),
            cpus.to_string(),
            "--memory".to_owned(),
            part(all.memory),
            "--disk".to_owned(),
            part(all.disk),
        ]
    }

    fn note(&self, pid: Option<u32>) {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner)[self.number] = pid;
    }

    /// Starts the process. It reads its ticket from standard input, which no other user can see, and ends
    /// when that closes: however this process ends, so do its workers.
    async fn start(&self) -> Result<(Child, ChildStdin), NodeError> {
        let spawned = Command::new(&self.config.program)
            .arg("worker")
            .arg("--dir")
            .arg(&self.dir)
            .args(["--join", "-", "--listen", "127.0.0.1:0"])
            .args(self.share())
            .args(&self.config.worker_args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn();
        let mut child =
            spawned.map_err(|source| NodeError::io("start", &self.config.program, source))?;
        // Taken out, because waiting for the child would close it.
        let Some(mut leash) = child.stdin.take() else {
            return Err(NodeError::Other(
                "a worker was started without standard input".into(),
            ));
        };
        let line = format!("{}\n", self.ticket);
        let written = leash.write_all(line.as_bytes()).await;
        written.map_err(|source| NodeError::io("write to", &self.config.program, source))?;
        Ok((child, leash))
    }
}
