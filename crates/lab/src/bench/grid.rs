//! A grid to be measured: supervisor and workers as processes of their own.

use super::network::{self, Network};
use crate::failure::{Failure, unexpected};
use hedge_model::msg::{Reply, Request, Role};
use hedge_model::settings::WatchMode;
use hedge_model::spec::{CriticalRule, Draft, Group, Qos, Redundancy, Runtime};
use hedge_model::view::{JobState, JobView};
use hedge_model::{JobId, JobSpec};
use hedge_net::Ticket;
use hedge_node::Folders;
use hedge_node::client::{Client, new_key};
use hedge_node::worker::{Senders, WorkerConfig};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// How long a process may take to be ready.
const START_MAX: Duration = Duration::from_secs(20);
/// How much longer each of many may take that are started together.
const JOIN_MAX: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Ended when dropped.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Starts a program.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command) -> Result<Self, Failure> {
        let started = command.stdin(Stdio::null()).spawn();
        let failed = |error| Failure::Local(format!("cannot start a program: {error}"));
        started.map(Self).map_err(failed)
    }

    /// User and system time so far, all threads.
    pub fn cpu(&self) -> Duration {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
        let ticks = |at: usize| {
            fields
                .get(at)
                .and_then(|text| text.parse::<u64>().ok())
                .unwrap_or(0)
        };
        // Linux reports these in hundredths of a second, whatever the kernel's own tick.
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    /// Memory in RAM now, bytes.
    pub fn resident(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap_or("");
        line.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .unwrap_or(0)
            * 1024
    }
}

/// What a grid is to be made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// How many workers.
    pub workers: u16,
    /// CPUs of each.
    pub cpus: u32,
    /// Further arguments of each.
    pub args: &'a [&'a str],
    /// A folder with the rules of each worker's owner, as `0.toml` for the first; none where they have no owners.
    pub owners: Option<&'a Path>,
    /// Whether the supervisor's journal is in memory.
    pub in_memory: bool,
    /// How many supervisors.
    pub supervisors: u16,
    /// Whether they use the fast timeouts.
    pub fast: bool,
    /// Whether each peer is on a machine of its own.
    pub apart: bool,
}

impl Plan<'_> {
    fn supervisor(&self) -> Vec<&'static str> {
        let mut line = vec!["supervisor"];
        line.extend(self.in_memory.then_some("--in-memory"));
        line.extend(self.fast.then_some("--fast"));
        line
    }

    /// One supervisor with its journal on disk.
    pub fn new(workers: u16, cpus: u32) -> Self {
        Self {
            workers,
            cpus,
            args: &[],
            owners: None,
            in_memory: false,
            supervisors: 1,
            fast: false,
            apart: false,
        }
    }
}

/// A running grid.
pub struct Grid {
    /// Open for the whole measurement.
    pub client: Client,
    /// Its supervisor, the first of its group.
    pub supervisor: Process,
    /// The others of its group.
    pub others: Vec<Process>,
    /// Its workers.
    pub workers: Vec<Process>,
    line: Vec<String>,
    secret: String,
    machines: Machines,
    in_memory: bool,
    /// Where it keeps what it has; removed at the end.
    pub dir: tempfile::TempDir,
}

/// Where the peers are: on this machine, or each on one of its own, the supervisors first.
struct Machines {
    network: Option<Network>,
    supervisors: usize,
}

impl Machines {
    fn new(plan: Plan<'_>) -> Result<Self, Failure> {
        let mut network = plan.apart.then(Network::new).transpose()?;
        if let Some(network) = &mut network {
            for _ in 0..plan.supervisors + plan.workers {
                network.add()?;
            }
        }
        let supervisors = plan.supervisors.into();
        Ok(Self {
            network,
            supervisors,
        })
    }

    fn start(
        &self,
        machine: usize,
        dir: &Path,
        args: &[&str],
        ticket: Option<&str>,
    ) -> Result<Process, Failure> {
        let failed = |error: std::io::Error| Failure::Local(format!("cannot start hedge: {error}"));
        let program = hedge()?;
        let (mut command, listen) = match &self.network {
            None => (Command::new(program), "127.0.0.1:0".to_owned()),
            Some(network) => {
                let mut command = network.enter(machine);
                command.arg(program);
                (command, format!("{}:7700", network::address(machine)))
            }
        };
        let stdin = if ticket.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        command.args(args).args(["--listen", &listen]);
        let command = command.arg("--dir").arg(dir).env("HEDGE_LOG", "error");
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        if let (Some(stdin), Some(ticket)) = (&mut child.stdin, ticket) {
            writeln!(stdin, "{}", ticket.trim()).map_err(failed)?;
        }
        Ok(Process(child))
    }
}

impl Grid {
    /// Starts what the plan says, and waits until all have joined.
    ///
    /// # Errors
    /// A process does not start or does not join in time.
    pub async fn start(plan: Plan<'_>) -> Result<Grid, Failure> {
        let dir = tempfile::Builder::new().prefix("hedge-bench-").tempdir();
        let dir =
            dir.map_err(|error| Failure::Local(format!("no folder for the grid: {error}")))?;
        let folders = Folders::new(Some(dir.path().to_owned()))
            .map_err(|error| Failure::Local(error.to_string()))?;
        let machines = Machines::new(plan)?;
        let supervisor = machines.start(0, dir.path(), &plan.supervisor(), None)?;
        let ticket = folders.worker_ticket();
        wait(
            async || ticket.exists().then_some(()),
            "the supervisor's ticket",
        )
        .await?;
        let secret =
            std::fs::read_to_string(&ticket).map_err(|error| Failure::Local(error.to_string()))?;
        let client = connect(&folders).await?;
        let others = join_others(&client, dir.path(), plan, &machines).await?;
        let cpus = plan.cpus.to_string();
        let mut started = Vec::new();
        let mut kept = Vec::new();
        for number in 0..plan.workers {
            let mut line = vec!["worker", "--leash", "--join", "-", "--cpus", &cpus];
            line.extend(plan.args);
            let rules = plan.owners.map(|dir| dir.join(format!("{number}.toml")));
            let rules = rules.map(|path| path.to_string_lossy().into_owned());
            line.extend(rules.iter().flat_map(|path| ["--owner", path]));
            kept = line.iter().map(|word| (*word).to_owned()).collect();
            let dir = dir.path().join(number.to_string());
            let machine = usize::from(plan.supervisors + number);
            started.push(machines.start(machine, &dir, &line, Some(&secret))?);
        }
        let grid = Grid {
            client,
            supervisor,
            others,
            workers: started,
            line: kept,
            secret,
            machines,
            in_memory: plan.in_memory,
            dir,
        };
        grid.await_workers(plan.workers).await?;
        Ok(grid)
    }

    /// Adds workers that only send heartbeats, from within this process, and waits until all have joined.
    ///
    /// # Errors
    /// They cannot be started, or do not join in time.
    pub async fn senders(&self, count: u16) -> Result<Senders, Failure> {
        let ticket = self.secret.trim().parse::<Ticket>();
        let ticket = ticket.map_err(|error| Failure::Local(error.to_string()))?;
        let folders = Folders::new(Some(self.dir.path().to_owned()))
            .map_err(|error| Failure::Local(error.to_string()))?;
        let configs = (0..count).map(|number| WorkerConfig {
            dir: self.dir.path().join(format!("sender-{number}")),
            listen: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
            ..WorkerConfig::new(&folders, ticket.clone())
        });
        let senders = Senders::start(configs.collect()).await;
        let senders = senders.map_err(|error| Failure::Local(error.to_string()))?;
        self.await_workers(count).await?;
        Ok(senders)
    }

    async fn await_workers(&self, count: u16) -> Result<(), Failure> {
        let joined = async || match self.client.ask(Request::Workers).await {
            Ok(Reply::Workers(all)) if all.len() >= count.into() => Some(()),
            _ => None,
        };
        // Each makes a key and a connection, and a thousand do so at the same time.
        let each = JOIN_MAX * u32::from(count);
        wait_for(joined, "the workers", START_MAX + each).await
    }

    /// Workers send heartbeats like this from now on, whatever they have in hand and whatever it costs.
    ///
    /// # Errors
    /// The supervisor refuses.
    pub async fn watch(&self, way: WatchMode) -> Result<(), Failure> {
        let text = way_text(way);
        let all = [
            ("heartbeats_per_second", "10000000"),
            ("watch_idle", &text),
            ("watch_assigned", &text),
            ("watch_critical", &text),
        ];
        for (name, value) in all {
            self.set(name, value).await?;
        }
        Ok(())
    }

    /// Changes a setting.
    ///
    /// # Errors
    /// The supervisor refuses.
    pub async fn set(&self, name: &str, value: &str) -> Result<(), Failure> {
        let (name, value) = (name.to_owned(), value.to_owned());
        match self.client.ask(Request::Set { name, value }).await? {
            Reply::Ok => Ok(()),
            Reply::No(refusal) => Err(Failure::Local(refusal.why)),
            _ => Err(unexpected()),
        }
    }

    /// Ends a worker and starts it again in its folder.
    ///
    /// # Errors
    /// It cannot be started, or there was none.
    pub fn restart(&mut self, pid: u32) -> Result<(), Failure> {
        self.kill(pid)?;
        self.replace(pid)
    }

    /// Kills a worker.
    ///
    /// # Errors
    /// There was none.
    pub fn kill(&mut self, pid: u32) -> Result<(), Failure> {
        let worker = self.workers.iter_mut().find(|worker| worker.0.id() == pid);
        let worker = worker.ok_or_else(|| Failure::Local("no such worker".to_owned()))?;
        let _ = worker.0.kill();
        Ok(())
    }

    /// Starts a worker again in the folder of one that was killed.
    ///
    /// # Errors
    /// It cannot be started, or there was none.
    pub fn replace(&mut self, pid: u32) -> Result<(), Failure> {
        let at = self.workers.iter().position(|worker| worker.0.id() == pid);
        let at = at.ok_or_else(|| Failure::Local("no such worker".to_owned()))?;
        let line: Vec<&str> = self.line.iter().map(String::as_str).collect();
        let dir = self.dir.path().join(at.to_string());
        let _ = self.workers[at].0.wait();
        let machine = self.machines.supervisors + at;
        let ticket = Some(self.secret.as_str());
        self.workers[at] = self.machines.start(machine, &dir, &line, ticket)?;
        Ok(())
    }

    /// Submits a job and waits for its end; the wall time of both.
    ///
    /// # Errors
    /// The job does not end done.
    pub async fn run(&self, spec: &JobSpec) -> Result<(Duration, JobView), Failure> {
        let since = Instant::now();
        let job = self.client.submit(new_key()?, spec).await?;
        let view = self.end(job).await?;
        Ok((since.elapsed(), view))
    }

    async fn end(&self, job: JobId) -> Result<JobView, Failure> {
        let mut news = self.client.watch(job).await?;
        let mut last = None;
        while let Some(view) = news.recv().await {
            last = Some(view);
        }
        match last {
            Some(view) if view.state == JobState::Done => Ok(view),
            Some(view) => Err(Failure::Local(format!(
                "a measured job did not end done: {:?}",
                view.why
            ))),
            None => Err(Failure::Local(
                "the supervisor ended while it was measured".into(),
            )),
        }
    }
}

impl Grid {
    /// The folder of the supervisor with this number, the first being 0.
    pub fn supervisor_dir(&self, number: usize) -> PathBuf {
        match number {
            0 => self.dir.path().to_owned(),
            number => self.dir.path().join(format!("supervisor-{number}")),
        }
    }

    /// How often another leader began than the first, as the first supervisor's journal says.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn elections(&self) -> Result<usize, Failure> {
        if self.in_memory {
            return Ok(0);
        }
        let journal = self.supervisor_dir(0).join("supervisor/journal");
        let failed = |error: hedge_store::StoreError| Failure::Local(error.to_string());
        let mut terms = std::collections::BTreeSet::new();
        for line in hedge_store::dump(&journal).map_err(failed)? {
            terms.insert(line.map_err(failed)?.term);
        }
        // The group begins in term 0, before anybody leads.
        terms.remove(&0);
        Ok(terms.len().saturating_sub(1))
    }

    /// Its process.
    pub fn supervisor(&mut self, number: usize) -> &mut Process {
        match number {
            0 => &mut self.supervisor,
            number => &mut self.others[number - 1],
        }
    }

    /// Kills a supervisor; gives the moment.
    pub fn kill_supervisor(&mut self, number: usize) -> SystemTime {
        let process = self.supervisor(number);
        let at = SystemTime::now();
        let _ = process.0.kill();
        let _ = process.0.wait();
        at
    }

    /// Starts a supervisor again in its folder.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart_supervisor(&mut self, number: usize, plan: Plan<'_>) -> Result<(), Failure> {
        let dir = self.supervisor_dir(number);
        let started = self
            .machines
            .start(number, &dir, &plan.supervisor(), None)?;
        *self.supervisor(number) = started;
        Ok(())
    }
}

/// The `hedge` beside this program.
///
/// # Errors
/// It is not there.
pub fn hedge() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe();
    let own = own.map_err(|error| Failure::Local(format!("this program is not found: {error}")))?;
    let hedge = own.with_file_name("hedge");
    if hedge.is_file() {
        return Ok(hedge);
    }
    Err(Failure::Local(format!(
        "there is no {}, which is to be measured; nothing was measured: `cargo build --release -p hedge-cli -p hedge-lab` \
         builds both programs",
        hedge.display()
    )))
}

/// A connection as the administrator of the supervisor in these folders.
async fn connect(folders: &Folders) -> Result<Client, Failure> {
    let path = folders.client_ticket();
    let ticket = std::fs::read_to_string(&path);
    let ticket = ticket.map_err(|error| error.to_string()).and_then(|text| {
        let parsed = text.trim().parse::<Ticket>();
        parsed.map_err(|error| error.to_string())
    });
    let ticket = ticket.map_err(|error| Failure::Local(format!("{}: {error}", path.display())))?;
    Ok(Client::connect(folders, &ticket).await?)
}

/// Starts the other supervisors and waits until all have their votes.
async fn join_others(
    client: &Client,
    dir: &Path,
    plan: Plan<'_>,
    machines: &Machines,
) -> Result<Vec<Process>, Failure> {
    let all = plan.supervisors;
    let mut others = Vec::new();
    for number in 1..all {
        let request = Request::Ticket {
            role: Role::Supervisor,
            valid_for: None,
            uses: Some(1),
        };
        let Reply::Ticket(ticket) = client.ask(request).await? else {
            return Err(unexpected());
        };
        let mut line = plan.supervisor();
        line.extend(["--join", "-"]);
        let dir = dir.join(format!("supervisor-{number}"));
        others.push(machines.start(number.into(), &dir, &line, Some(&ticket))?);
    }
    let votes = async || {
        let Ok(Reply::Members(members)) = client.ask(Request::Members).await else {
            return None;
        };
        let places = members.iter().filter_map(|member| member.place.as_deref());
        let voters = places.filter(|place| *place != "learner").count();
        (voters >= all.into()).then_some(())
    };
    if all > 1 {
        wait(votes, "the other supervisors").await?;
    }
    Ok(others)
}

/// How to watch workers.
pub fn way(interval: Duration, asks: bool) -> WatchMode {
    if asks {
        WatchMode::poll(interval)
    } else {
        WatchMode::heartbeats(interval)
    }
}

/// The same as a setting's value.
pub fn way_text(way: WatchMode) -> String {
    way.to_string()
}

/// A task that a worker answers without a process.
pub fn noop() -> Group {
    Group {
        runtime: Runtime::Noop,
        ..Group::program("noop", &["noop"])
    }
}

/// A job of `count` tasks like this one.
///
/// # Errors
/// Never, for the jobs of this module.
pub fn job(group: Group, count: u32) -> Result<JobSpec, Failure> {
    let draft = Draft {
        name: "bench".into(),
        qos: Qos {
            redundancy: Redundancy::Critical,
            ..Qos::default()
        },
        critical: CriticalRule::default(),
        files: Vec::new(),
        groups: vec![Group {
            array: (count > 1).then_some((0, count)),
            ..group
        }],
        outline: false,
    };
    JobSpec::new(draft).map_err(|error| Failure::Local(error.to_string()))
}

/// Looks again and again until there is something.
///
/// # Errors
/// Nothing for longer than a process may take to be ready.
pub async fn wait<T>(look: impl AsyncFnMut() -> Option<T>, what: &str) -> Result<T, Failure> {
    wait_for(look, what, START_MAX).await
}

/// The same for at most so long.
async fn wait_for<T>(
    mut look: impl AsyncFnMut() -> Option<T>,
    what: &str,
    limit: Duration,
) -> Result<T, Failure> {
    let since = Instant::now();
    while since.elapsed() < limit {
        if let Some(found) = look().await {
            return Ok(found);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(Failure::Local(format!(
        "{what} did not appear within {limit:?}"
    )))
}
