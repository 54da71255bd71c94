//! The processes of a campaign: supervisors and workers, each in a folder and on a machine of its own, that are
//! killed, frozen and started again.

use super::lab::{Lab, address, run};
use super::log::Log;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Supervisors of the group: one may always be gone.
pub const SUPERVISORS: usize = 3;
/// Workers.
pub const WORKERS: usize = 5;
/// The machine that all clients are on.
pub const CLIENT: usize = SUPERVISORS + WORKERS;
/// Room for a supervisor's folder, so small that filling it takes no time, MiB.
const DISK: u64 = 160;
/// What results of ended jobs take in a minute, at most about: they are kept, and only harm is to fill the disk.
const DISK_PER_MINUTE: u64 = 12;
/// Longest wait for the group to come up, on a machine under load.
const START: Duration = Duration::from_secs(300);
/// What a supervisor tells of: enough to see afterwards who led when, and why nobody was answered.
const TOLD: &str = "warn,hedge=info,openraft=error";
/// A peer's complaints go on in a new file after so many bytes, and only the last two are kept.
const ERRORS_BYTES: u64 = 16 << 20;
const ERRORS_BEFORE: &str = "err.before";
/// Longest wait for one answer while it does.
const START_ASK: Duration = Duration::from_secs(30);

/// A supervisor or a worker; the supervisors come first, and a peer's number is also its machine's.
struct Peer {
    child: Option<Child>,
    /// What nobody asked it to do: how it ended by itself.
    ended: Vec<ExitStatus>,
}

/// All peers of a campaign.
pub struct Peers {
    /// The network.
    pub lab: Lab,
    /// Where everything is kept.
    pub folder: PathBuf,
    hedge: PathBuf,
    shim: PathBuf,
    peers: Vec<Mutex<Peer>>,
    worker_ticket: Mutex<String>,
    client_ticket: Mutex<String>,
    log: Arc<Log>,
}

impl Peers {
    /// Machines without a process yet.
    ///
    /// # Errors
    /// Namespaces, the small disks or the shim cannot be made.
    pub fn new(folder: &Path, hedge: &Path, time: Duration, log: Arc<Log>) -> Result<Peers> {
        let lab = Lab::new(CLIENT + 1)?;
        let shim = folder.join("shim.so");
        let source = folder.join("shim.c");
        fs::write(&source, include_str!("shim.c"))?;
        let (shim_text, source) = (text(&shim)?, text(&source)?);
        run(
            "cc",
            &["-shared", "-fPIC", "-O1", "-o", shim_text, source, "-ldl"],
        )?;
        let peer = || Peer {
            child: None,
            ended: Vec::new(),
        };
        let peers = Peers {
            lab,
            folder: folder.to_owned(),
            hedge: hedge.to_owned(),
            shim: shim.clone(),
            peers: (0..CLIENT).map(|_| Mutex::new(peer())).collect(),
            worker_ticket: Mutex::default(),
            client_ticket: Mutex::default(),
            log,
        };
        for number in 0..=CLIENT {
            fs::create_dir_all(peers.home(number).join("state"))?;
            fs::write(peers.clock(number), "0\n")?;
        }
        for number in 0..SUPERVISORS {
            let state = peers.home(number).join("state");
            let size = DISK + DISK_PER_MINUTE * time.as_secs().div_ceil(60);
            let options = format!("size={size}m");
            run(
                "mount",
                &["-t", "tmpfs", "-o", &options, "hedge-faults", text(&state)?],
            )?;
        }
        Ok(peers)
    }

    /// Starts the whole grid and waits until all are there.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start_all(&self) -> Result<()> {
        self.start_with(0, &[])?;
        let supervisor = self.await_ticket(0, "supervisor")?;
        for number in 1..SUPERVISORS {
            self.start_with(number, &["--join", &supervisor])?;
        }
        self.until("the supervisors to have their votes", || {
            let members = self.ask_at(0, &["members"])?;
            let voters = members.as_array()?.iter();
            let voters =
                voters.filter(|one| matches!(one["place"].as_str(), Some("leader" | "voter")));
            (voters.count() == SUPERVISORS).then_some(())
        })?;
        *lock(&self.worker_ticket) = self.await_ticket(0, "worker")?;
        *lock(&self.client_ticket) = self.await_ticket(0, "admin")?;
        (SUPERVISORS..CLIENT).try_for_each(|number| self.start(number))?;
        self.until("the workers", || {
            let workers = self.ask_at(0, &["workers"])?;
            let live = workers.as_array()?.iter();
            (live.filter(|one| one["liveness"] == "live").count() == WORKERS).then_some(())
        })
    }

    /// Workers that are started from now on have this ticket.
    pub fn use_worker_ticket(&self, ticket: String) {
        *lock(&self.worker_ticket) = ticket;
    }

    fn await_ticket(&self, at: usize, role: &str) -> Result<String> {
        self.until("a ticket", || {
            let ticket = self.ask_at(at, &["ticket", role])?;
            Some(ticket["ticket"].as_str()?.to_owned())
        })
    }

    fn until<T>(&self, what: &str, mut done: impl FnMut() -> Option<T>) -> Result<T> {
        let start = Instant::now();
        while start.elapsed() < START {
            if let Some(value) = done() {
                return Ok(value);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        bail!(
            "waited {} s for {what}; see {}",
            START.as_secs(),
            self.folder.display()
        )
    }

    /// Starts a peer that is not running.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(&self, number: usize) -> Result<()> {
        self.start_with(number, &[])
    }

    /// Starts a supervisor, each of whose flushes takes so much longer.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start_on_slow_disk(&self, number: usize, ms: u64) -> Result<()> {
        self.spawn(number, &[], &[("FLUSH_DELAY_MS", &ms.to_string())])
    }

    fn start_with(&self, number: usize, more: &[&str]) -> Result<()> {
        self.spawn(number, more, &[])
    }

    fn spawn(&self, number: usize, more: &[&str], env: &[(&str, &str)]) -> Result<()> {
        let mut peer = lock(&self.peers[number]);
        if peer.child.is_some() {
            return Ok(());
        }
        let home = self.home(number);
        let mut command = self.lab.command(number, &home, &self.hedge);
        let listen = format!("{}:7700", address(number));
        let ticket = lock(&self.worker_ticket).clone();
        if number < SUPERVISORS {
            command.args(["supervisor", "--json", "--listen", &listen]);
        } else {
            #[rustfmt::skip]
            command.args([
                "worker", "--listen", &listen, "--cpus", "1", "--no-sandbox",
                "--task-priority", "normal", "--join", &ticket, "--dedicated",
            ]);
        }
        let out = |name: &str| -> Result<File> {
            let path = home.join(name);
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.with_context(|| format!("cannot write {}", path.display()))
        };
        let errors = home.join("err");
        if fs::metadata(&errors).is_ok_and(|file| file.len() > ERRORS_BYTES) {
            fs::rename(&errors, home.join(ERRORS_BEFORE))?;
        }
        command
            .args(more)
            .env("HEDGE_LOG", TOLD)
            .envs(env.iter().copied())
            .env("LD_PRELOAD", &self.shim)
            .env("CLOCK_SHIFT_FILE", self.clock(number))
            .stdout(out("out")?)
            .stderr(out("err")?);
        peer.child = Some(command.spawn().context("cannot start a peer")?);
        Ok(())
    }

    /// Ends a peer with a signal that it cannot notice.
    pub fn kill(&self, number: usize) {
        let mut peer = lock(&self.peers[number]);
        if let Some(mut child) = peer.child.take() {
            _ = child.kill();
            _ = child.wait();
        }
    }

    /// The process of a peer that was started.
    pub fn pid(&self, number: usize) -> Option<u64> {
        let peer = lock(&self.peers[number]);
        peer.child.as_ref().map(|child| child.id().into())
    }

    /// Takes from a peer that is not running all that it knows, its name included.
    ///
    /// # Errors
    /// The folder cannot be emptied.
    pub fn forget(&self, number: usize) -> Result<()> {
        let state = self.home(number).join("state");
        fs::remove_dir_all(&state)?;
        Ok(fs::create_dir_all(&state)?)
    }

    /// Sends a signal, like `-STOP`.
    pub fn signal(&self, number: usize, signal: &str) {
        let peer = lock(&self.peers[number]);
        if let Some(child) = &peer.child {
            _ = run("kill", &[signal, &child.id().to_string()]);
        }
    }

    /// Starts what ended by itself, and notes how that was.
    ///
    /// # Errors
    /// A process cannot be started.
    pub fn tend(&self) -> Result<()> {
        for number in 0..CLIENT {
            let ended = {
                let mut peer = lock(&self.peers[number]);
                let ended = match &mut peer.child {
                    Some(child) => child.try_wait()?,
                    None => None,
                };
                if let Some(status) = ended {
                    peer.child = None;
                    peer.ended.push(status);
                }
                ended
            };
            if let Some(status) = ended {
                self.log.add(
                    "nemesis",
                    json!({ "peer": number, "ended": status.to_string() }),
                );
                self.start(number)?;
            }
        }
        Ok(())
    }

    /// Ends all supervisors in an orderly way, as far as they do within `limit`, and the workers.
    pub fn stop_all(&self, limit: Duration) {
        let start = Instant::now();
        (0..SUPERVISORS).for_each(|number| self.signal(number, "-TERM"));
        for number in 0..SUPERVISORS {
            while start.elapsed() < limit && self.running(number) {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        (0..CLIENT).for_each(|number| self.kill(number));
    }

    fn running(&self, number: usize) -> bool {
        let mut peer = lock(&self.peers[number]);
        let child = peer.child.as_mut();
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// How each peer ended that nobody had ended.
    pub fn own_ends(&self) -> Vec<(usize, ExitStatus)> {
        let all = self.peers.iter().enumerate();
        all.flat_map(|(number, peer)| {
            let ended = lock(peer).ended.clone();
            ended.into_iter().map(move |status| (number, status))
        })
        .collect()
    }

    /// What a command prints as JSON, asked for on a peer's machine; none where it fails.
    fn ask_at(&self, number: usize, args: &[&str]) -> Option<Value> {
        let mut command = self.lab.command(number, &self.home(number), &self.hedge);
        command.args(args).arg("--json");
        call(&mut command, START_ASK).ok()?.value()
    }

    /// A command of a client, in a folder of its own.
    pub fn client(&self, folder: &Path, args: &[&str]) -> Command {
        let mut command = self.lab.command(CLIENT, folder, &self.hedge);
        let ticket = lock(&self.client_ticket).clone();
        command.args(args).args(["--json", "--join", &ticket]);
        command
    }

    /// The records in a stopped supervisor's journal, as `hedge journal dump` tells them.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn dump(&self, number: usize) -> Result<Vec<Value>> {
        let mut command = self.lab.command(number, &self.home(number), &self.hedge);
        command.args(["journal", "dump", "--json"]);
        let path = self.folder.join(format!("journal-{number}.jsonl"));
        command.stdout(File::create(&path)?).stderr(Stdio::piped());
        let output = command.spawn()?.wait_with_output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let text = fs::read_to_string(&path)?;
        let lines = text.lines().map(serde_json::from_str);
        Ok(lines.collect::<Result<_, _>>()?)
    }

    /// The complaints of a peer that are kept.
    pub fn errors(&self, number: usize) -> String {
        let home = self.home(number);
        let read = |name| fs::read(home.join(name)).unwrap_or_default();
        let all = [read(ERRORS_BEFORE), read("err")].concat();
        String::from_utf8_lossy(&all).into_owned()
    }

    /// A supervisor's id, once it has said it.
    pub fn id(&self, number: usize) -> Option<String> {
        let out = fs::read_to_string(self.home(number).join("out")).ok()?;
        let told: Value =
            serde_json::from_str(out.lines().find(|line| line.starts_with('{'))?).ok()?;
        Some(told["peer"].as_str()?.to_owned())
    }

    /// Fills a supervisor's disk, up to the last byte.
    pub fn fill_disk(&self, number: usize) {
        let file = self.home(number).join("state/filler");
        let megabyte = vec![7u8; 1 << 20];
        let Ok(mut file) = File::create(file) else {
            return;
        };
        let mut size = megabyte.len();
        while size > 0 {
            match std::io::Write::write(&mut file, &megabyte[..size]) {
                Ok(_) => {}
                Err(_) => size /= 2,
            }
        }
    }

    /// Gives the room back.
    pub fn free_disk(&self, number: usize) {
        _ = fs::remove_file(self.home(number).join("state/filler"));
    }

    /// Shifts a peer's wall clock by so many seconds.
    pub fn shift_clock(&self, number: usize, seconds: i64) {
        let path = self.clock(number);
        let new = path.with_extension("new");
        _ = fs::write(&new, format!("{seconds}\n")).and_then(|()| fs::rename(&new, &path));
    }

    /// A peer's folder.
    pub fn home(&self, number: usize) -> PathBuf {
        let kind = match number {
            CLIENT => "client".to_owned(),
            0..SUPERVISORS => format!("supervisor-{number}"),
            _ => format!("worker-{}", number - SUPERVISORS),
        };
        self.folder.join(kind)
    }

    fn clock(&self, number: usize) -> PathBuf {
        self.home(number).join("clock-shift")
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        (0..CLIENT).for_each(|number| self.kill(number));
        for number in 0..SUPERVISORS {
            // What they kept is looked at when something went wrong.
            let (state, kept) = (
                self.home(number).join("state"),
                self.home(number).join("kept"),
            );
            if let (Ok(state), Ok(kept)) = (text(&state), text(&kept)) {
                _ = run("cp", &["-a", state, kept]);
                _ = run("umount", &[state]);
            }
        }
    }
}

/// How a command ended within its time.
pub struct Called {
    /// Its exit code; none where it took too long.
    pub code: Option<i32>,
    /// What it printed.
    pub out: Vec<u8>,
    /// Its complaints.
    pub err: String,
}

impl Called {
    /// What it printed, as JSON, where it ended well.
    pub fn value(&self) -> Option<Value> {
        (self.code == Some(0)).then(|| self.json())?
    }

    /// What it printed, as JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.out).ok()
    }
}

/// Runs a command for at most `limit`. What it prints must be short: it is read when it has ended.
///
/// # Errors
/// It cannot be started.
pub fn call(command: &mut Command, limit: Duration) -> Result<Called> {
    let start = Instant::now();
    let (out, err) = (tempfile()?, tempfile()?);
    let mut child = command
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?)
        .spawn()?;
    let code = loop {
        match child.try_wait()? {
            Some(status) => break status.code(),
            None if start.elapsed() > limit => {
                child.kill()?;
                child.wait()?;
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let (out, err) = (whole(out)?, whole(err)?);
    let err = String::from_utf8_lossy(&err).into_owned();
    Ok(Called { code, out, err })
}

fn tempfile() -> Result<File> {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("hedge-faults-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn whole(mut file: File) -> Result<Vec<u8>> {
    use std::io::{Read, Seek};
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8 text", path.display()))
}

/// A panicking thread of the campaign leaves its data whole.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
