//! `cargo xtask faults`: a fault campaign. Three supervisors, five workers and some clients run as real processes
//! on machines of a network of their own, while processes are killed and frozen, links cut, clocks shifted and
//! disks filled. Then what clients were told is compared with the journals.

mod check;
mod clients;
mod dice;
mod jobs;
mod journal;
mod lab;
mod log;
mod money;
mod nemesis;
mod peers;
mod planted;

use anyhow::{Context, Result, bail};
use clients::{Client, Known, Signs};
use dice::Dice;
use log::Log;
use peers::Peers;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The exit code where the machine does not let a campaign run at all.
pub const CANNOT_RUN: u8 = 77;

/// The seed of the half of the tests that is always the same.
const TESTS_SEED: u64 = 7;
/// Clients at once: enough to keep five workers busy.
const CLIENTS: usize = 3;
/// How long what was accepted may take to end, once nothing is disturbed any more; on a machine that is slow and busy.
const SETTLE: Duration = Duration::from_secs(300);
/// How long supervisors may take to end in order.
const STOP: Duration = Duration::from_secs(60);

/// What a campaign is to do.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// How long harm is done.
    pub time: Duration,
    /// Decides on all of it.
    pub seed: u64,
    /// The command under test; built, where it is not given.
    pub hedge: Option<PathBuf>,
    /// A bug that is put into the command, and has to be found.
    pub planted: Option<&'static planted::Bug>,
    /// Logs and journals stay, also where nothing was found.
    pub keep: bool,
}

/// Why there was no campaign.
#[derive(Debug)]
pub struct NotRoot;

impl std::fmt::Display for NotRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "a fault campaign makes network namespaces and small disks, which only root may: run it with sudo",
        )
    }
}

impl std::error::Error for NotRoot {}

/// What a campaign found.
#[derive(Debug)]
struct Found {
    wrong: Vec<String>,
    again: String,
    folder: PathBuf,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (count, list) = (self.wrong.len(), self.wrong.join("\n  "));
        write!(
            f,
            "the campaign found {count} violations:\n  {list}\n`{}` repeats it, {} has logs and journals",
            self.again,
            self.folder.display()
        )
    }
}

impl std::error::Error for Found {}

impl Campaign {
    /// Reads `--minutes M --seed S --hedge PATH --planted BUG --keep`, each of which may be left out.
    ///
    /// # Errors
    /// Another word, or a value that does not fit.
    pub fn parse(args: &[&str]) -> Result<Campaign> {
        let mut campaign = Campaign {
            time: Duration::from_secs(120),
            seed: drawn_seed(),
            hedge: None,
            planted: None,
            keep: args.contains(&"--keep"),
        };
        let args: Vec<&str> = args
            .iter()
            .copied()
            .filter(|one| *one != "--keep")
            .collect();
        for pair in args.chunks(2) {
            match *pair {
                ["--minutes", minutes] => {
                    let minutes: f64 = minutes.parse().context("--minutes takes a number")?;
                    campaign.time = Duration::try_from_secs_f64(minutes * 60.0)?;
                }
                ["--seed", seed] => {
                    campaign.seed = seed.parse().context("--seed takes a whole number")?;
                }
                ["--hedge", path] => campaign.hedge = Some(PathBuf::from(path)),
                ["--planted", name] => campaign.planted = Some(planted::Bug::named(name)?),
                _ => bail!("{} is not known; see `cargo xtask`", pair.join(" ")),
            }
        }
        Ok(campaign)
    }

    /// Part of the tests: two minutes, half of them as always and half of them as never before, with the program
    /// that the tests before them have built.
    ///
    /// # Errors
    /// As for [`Campaign::run`].
    pub fn tests(root: &Path) -> Result<()> {
        let hedge = target(root).join("debug/hedge");
        for seed in [TESTS_SEED, drawn_seed()] {
            let campaign = Campaign {
                time: Duration::from_secs(60),
                seed,
                hedge: Some(hedge.clone()),
                planted: None,
                keep: false,
            };
            campaign.run(root)?;
        }
        Ok(())
    }

    /// Runs it to its end and prints its figures as JSON. Where a bug is planted, it is to be found.
    ///
    /// # Errors
    /// It could not be run, or found something; says how to repeat it and where everything is kept.
    pub fn run(&self, root: &Path) -> Result<()> {
        let Some(bug) = self.planted else {
            let hedge = match &self.hedge {
                Some(hedge) => hedge.canonicalize()?,
                None => build(root, &target(root))?,
            };
            return self.rage(&hedge);
        };
        let copy = bug.plant(root)?;
        if let planted::FoundBy::Simulator(seeds) = bug.found_by {
            return bug.simulate(root, &copy, seeds);
        }
        match self.rage(&build(&copy, &planted::target(root))?) {
            Ok(()) => bail!("{} was not found", bug.name),
            Err(found) if found.is::<Found>() => {
                println!("{} was found: {found}", bug.name);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn rage(&self, hedge: &Path) -> Result<()> {
        let id = Command::new("id").arg("-u").output()?;
        if id.stdout != b"0\n" {
            return Err(NotRoot.into());
        }
        let name = format!("hedge-faults-{}-{}", self.seed, std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder)?;
        let minutes = self.time.as_secs_f64() / 60.0;
        let again = format!(
            "cargo xtask faults --minutes {minutes} --seed {}",
            self.seed
        );
        println!("{again}");
        let wrong = self.campaign(&folder, hedge).with_context(|| {
            format!(
                "the campaign broke off; `{again}` repeats it, {} has its logs",
                folder.display()
            )
        })?;
        if wrong.is_empty() {
            match self.keep {
                true => println!("{} has logs and journals", folder.display()),
                false => std::fs::remove_dir_all(&folder)?,
            }
            return Ok(());
        }
        Err(Found {
            wrong,
            again,
            folder,
        }
        .into())
    }

    fn campaign(&self, folder: &Path, hedge: &Path) -> Result<Vec<String>> {
        let log = Arc::new(Log::new(folder));
        let peers = Peers::new(folder, hedge, self.time, log.clone())?;
        peers.start_all()?;
        let signs = Signs {
            enough: AtomicBool::new(false),
            give_up: AtomicBool::new(false),
        };
        let start = Instant::now();
        let (faults, known) = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let dice = Dice::new(self.seed, 1 + number as u64);
                    let client = Client::new(&peers, &log, &signs, number, dice);
                    scope.spawn(move || client.run())
                })
                .collect();
            let until = start + self.time;
            let faults = nemesis::rage(&peers, &log, Dice::new(self.seed, 0), until);
            signs.enough.store(true, Ordering::Relaxed);
            let healed = Instant::now();
            while healed.elapsed() < SETTLE && clients.iter().any(|one| !one.is_finished()) {
                std::thread::sleep(Duration::from_millis(100));
                if let Err(error) = peers.tend() {
                    log.add("nemesis", json!({ "cannot_start": error.to_string() }));
                }
            }
            signs.give_up.store(true, Ordering::Relaxed);
            let known = clients.into_iter().map(|one| match one.join() {
                Ok(known) => known,
                Err(_) => bail!("a client of the campaign panicked"),
            });
            let known: Result<Vec<Vec<Known>>> = known.collect();
            (faults, known)
        });
        let (faults, known): (BTreeMap<_, _>, _) = (faults?, known?);
        let took = start.elapsed();
        peers.stop_all(STOP);
        let verdict = check::check(&peers, &log, &known);
        let figures = json!({
            "seed": self.seed, "elapsed_s": took.as_secs(), "faults": faults,
            "found": verdict.figures, "violations": verdict.wrong.len(),
        });
        println!("{figures}");
        Ok(verdict.wrong)
    }
}

/// Another seed each time, which is printed.
fn drawn_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |now| now.as_millis() as u64 % 1_000_000)
}

fn build(root: &Path, target: &Path) -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command
        .args([
            "build",
            "--locked",
            "--package",
            "hedge-cli",
            "--bin",
            "hedge",
        ])
        .env("CARGO_TARGET_DIR", target)
        .current_dir(root);
    crate::tools::run(&mut command)?;
    Ok(target.join("debug/hedge"))
}

fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from)
}
