//! A grid on one machine for one job. The supervisor runs in this process; workers are child processes, so that a
//! crash of one affects nothing else.

use crate::supervisor::{Supervisor, SupervisorConfig};
use crate::temporary::Temporary;
use crate::{Client, ClientError, NodeError};
use hedge_model::Resources;
use hedge_model::msg::Role;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// The delay before a dead worker is restarted. It doubles each time the worker dies soon.
const RESTART_AFTER: Duration = Duration::from_millis(50);
const RESTART_AFTER_MAX: Duration = Duration::from_secs(5);
/// After this lifetime, a worker is restarted with the shortest delay.
const LIVED_WELL: Duration = Duration::from_secs(10);
/// A worker that exits by itself this many times in a row, each time soon after its start, cannot work here.
const GIVEN_UP_MAX: u32 = 3;
/// How long to read a worker's last output after its end. A process that it started may hold the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// The longest line of a worker that is passed on whole, in bytes.
const LINE_MAX: u64 = 16 << 10;
/// Where supervisor and workers meet that hand large blobs over as files. Short, as are paths of sockets.
const NEIGHBOURS: &str = "near";
/// The first worker starts alone: they would delay each other, and a short job is done before the others are of use.
const HEAD_START: Duration = Duration::from_millis(150);
/// How long workers get to stop.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// The configuration of a grid on this machine.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// The number of workers.
    pub workers: usize,
    /// The largest request of one task for each resource. Each worker offers that many CPUs; the first one also that
    /// much memory and disk, as far as this machine has them, and the GPUs.
    pub largest: Resources,
    /// Called with each line that a worker writes to its standard error.
    pub tell: fn(&str),
    /// Further arguments of `hedge worker`, like `--no-sandbox`.
    pub worker_args: Vec<String>,
    /// The program to start as a worker; by default this program.
    pub program: PathBuf,
}

impl LocalConfig {
    /// Uses one worker for each CPU, at least four.
    pub fn new() -> Result<Self, ClientError> {
        let program = std::env::current_exe()
            .map_err(|error| ClientError::Local(format!("where is hedge? {error}")))?;
        Ok(Self {
            workers: hedge_host::cores().max(4) as usize,
            largest: Resources::cpus(1000),
            tell: |_| {},
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
    /// The number of workers that have not given up.
    hopeful: watch::Receiver<usize>,
    dir: Temporary,
}

impl LocalGrid {
    /// Starts the supervisor and its workers, and does not wait for the workers.
    ///
    /// # Errors
    /// This machine has no loopback interface that is up, or no writable directory.
    pub async fn start(config: LocalConfig) -> Result<Self, ClientError> {
        loopback().map_err(|error| {
            ClientError::Local(format!(
                "supervisor and workers talk over the loopback interface, and this machine cannot use it: {error}. \
                 Nothing was started. `ip link set lo up` enables it"
            ))
        })?;
        let dir = Temporary::new("hedge-run-");
        let dir =
            dir.map_err(|error| ClientError::Local(format!("no folder for the run: {error}")))?;
        let mut supervisor = SupervisorConfig::temporary(dir.path().join("supervisor"));
        supervisor.neighbours = Some(dir.path().join(NEIGHBOURS));
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
                neighbours: dir.path().join(NEIGHBOURS),
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

    /// Returns an administrator's client of this grid.
    pub fn client(&self) -> Client {
        Client::here(self.supervisor.clone(), Role::Admin)
    }

    /// The directory of the supervisor and workers. It is removed at the end.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns once no worker can work here: each exited by itself soon after its start, several times in a row, and
    /// wrote the reason to standard error. A worker that was killed does not count.
    pub async fn hopeless(&self) {
        let mut hopeful = self.hopeful.clone();
        if hopeful.wait_for(|left| *left == 0).await.is_err() {
            std::future::pending().await
        }
    }

    /// Returns the process ids of the running workers.
    pub fn worker_pids(&self) -> Vec<u32> {
        self.pids
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .copied()
            .flatten()
            .collect()
    }

    /// Stops workers and supervisor and removes their directories.
    pub async fn stop(mut self) {
        _ = self.stopping.send(true);
        let all = async { while self.keepers.join_next().await.is_some() {} };
        _ = tokio::time::timeout(STOP_WITHIN, all).await;
        self.keepers.shutdown().await;
        self.supervisor.stop_alone().await;
    }
}

/// Keeps one worker process running.
struct Keeper {
    number: usize,
    dir: PathBuf,
    neighbours: PathBuf,
    ticket: String,
    config: LocalConfig,
    supervisor: Supervisor,
    pids: Arc<Mutex<Vec<Option<u32>>>>,
    stopped: watch::Receiver<bool>,
    hopes: Arc<watch::Sender<usize>>,
}

impl Keeper {
    async fn keep(mut self) {
        if self.number > 0 {
            tokio::select! {
                () = tokio::time::sleep(HEAD_START) => {}
                _ = self.stopped.wait_for(|stopped| *stopped) => return,
            }
        }
        let mut wait = RESTART_AFTER;
        let mut given_up = 0_u32;
        while !*self.stopped.borrow() {
            let started = Instant::now();
            let mut by_itself = true;
            match self.start().await {
                Ok((mut child, _leash, mut said)) => {
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
                    _ = tokio::time::timeout(LAST_WORDS, &mut said).await;
                    let number = self.number;
                    match ended {
                        Ok(status) => tracing::warn!(
                            "worker {number} ended ({status}); another is started in its place"
                        ),
                        Err(error) => tracing::warn!(
                            "the end of worker {number} is unknown ({error}); another is started in its place"
                        ),
                    }
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

    /// Returns the arguments for this worker's share of the machine. If there are more workers than CPUs they share
    /// CPUs, but never memory and disk.
    fn share(&self) -> Vec<String> {
        let all = crate::worker::offer(&self.dir);
        let largest = &self.config.largest;
        let part = |amount, largest| {
            let part = part_of(amount, largest, self.number, self.config.workers);
            format!("{part} B")
        };
        let cpus = largest.cpus_milli.clamp(1000, all.cpus_milli.max(1000)) as f64 / 1000.0;
        let mut args = vec![
            "--cpus".to_owned(),
            cpus.to_string(),
            "--memory".to_owned(),
            part(all.memory, largest.memory),
            "--disk".to_owned(),
            part(all.disk, largest.disk),
        ];
        // Each GPU belongs to one worker.
        if self.number > 0 {
            args.extend(["--gpus".to_owned(), "none".to_owned()]);
        }
        args
    }

    fn note(&self, pid: Option<u32>) {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner)[self.number] = pid;
    }

    /// Starts the process. It reads its ticket from standard input, which no other user can see, and exits when that
    /// closes. However this process ends, its workers end too.
    async fn start(&self) -> Result<(Child, ChildStdin, JoinHandle<()>), NodeError> {
        let spawned = Command::new(&self.config.program)
            .arg("worker")
            .arg("--dir")
            .arg(&self.dir)
            .arg("--neighbours")
            .arg(&self.neighbours)
            .args(["--leash", "--join", "-", "--listen", "127.0.0.1:0"])
            .args(self.share())
            .args(&self.config.worker_args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child =
            spawned.map_err(|source| NodeError::io("start", &self.config.program, source))?;
        // Taken out of `child`, because waiting for the child would close it.
        let (Some(mut leash), Some(stderr)) = (child.stdin.take(), child.stderr.take()) else {
            return Err(NodeError::Other(
                "a worker was started without standard input or error".into(),
            ));
        };
        let said = tokio::spawn(pass_on(stderr, self.config.tell));
        let line = format!("{}\n", self.ticket);
        // A worker that does not read has exited; its exit status says why.
        _ = leash.write_all(line.as_bytes()).await;
        Ok((child, leash, said))
    }
}

/// Sends a packet from this process to itself.
fn loopback() -> std::io::Result<()> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
    socket.send_to(b"hedge", socket.local_addr()?)?;
    Ok(())
}

/// Returns one worker's share of an amount: equal shares, but the first at least `largest`.
fn part_of(all: u64, largest: u64, number: usize, workers: usize) -> u64 {
    let equal = all / workers.max(1) as u64;
    let first = equal.max(largest.min(all));
    if number == 0 {
        first
    } else {
        (all - first) / (workers as u64 - 1).max(1)
    }
}

/// Passes on a worker's output line by line.
async fn pass_on(stderr: ChildStderr, tell: fn(&str)) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut stderr).take(LINE_MAX);
        match limited.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => tell(String::from_utf8_lossy(&line).trim_end_matches('\n')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::part_of;

    #[test]
    fn workers_together_offer_what_the_machine_has_and_one_of_them_enough_for_the_largest_task() {
        for (largest, parts) in [
            (0, [250, 250, 250, 250]),
            (200, [250, 250, 250, 250]),
            (500, [500, 166, 166, 166]),
            (1000, [1000, 0, 0, 0]),
            (5000, [1000, 0, 0, 0]),
        ] {
            let offered: Vec<u64> = (0..4)
                .map(|number| part_of(1000, largest, number, 4))
                .collect();
            assert_eq!(offered, parts, "{largest}");
        }
        assert_eq!(part_of(1000, 0, 0, 1), 1000);
    }
}
