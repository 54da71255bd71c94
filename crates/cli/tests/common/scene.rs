//! A worker with an owner in a real grid, and what the supervisor is told of him.

use super::tasks::{Marks, attempts};
use super::{Grid, Kept, told, until};
use serde_json::Value;
use std::fs;
use tempfile::TempDir;

/// How long the owners of these tests must be quiet.
const QUIET: &str = "2s";

/// What counts of other programs, cores: on a machine that is busy with tests one gets only its share.
const FOREIGN: f64 = 0.15;

/// Every source there is, by name.
const SOURCES: &[&str] = &[
    "evdev",
    "x11",
    "wayland",
    "processes",
    "sessions",
    "logind",
    "screensaver",
    "mutter",
    "microphone",
    "voice",
    "power",
    "network",
];

/// A grid whose first worker has an owner; it runs one task that waits, and a second worker has none.
pub struct Scene {
    pub marks: Marks,
    pub grid: Grid,
    pub owned: Kept,
    pub folder: TempDir,
}

impl Scene {
    /// Runs the first worker behind `before`, with these sources alone, which set it up as `sources` says.
    pub fn new(before: &[&str], on: &str, sources: &[&str], display: &str) -> Scene {
        Scene::with_quiet(QUIET, before, on, sources, display)
    }

    /// The same, whose owner must be quiet for so long.
    pub fn with_quiet(
        quiet: &str,
        before: &[&str],
        on: &str,
        sources: &[&str],
        display: &str,
    ) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let marks = Marks::new(folder.path());
        let grid = Grid::start(folder.path(), 0);
        let rules = folder.path().join("owner.toml");
        let without: Vec<_> = SOURCES
            .iter()
            .filter(|name| !sources.contains(name))
            .collect();
        let listen = sources.contains(&"voice");
        let text = format!(
            "[on]\n{on}\n[when]\nresume_after = {quiet:?}\nforeign_cores = {FOREIGN}\n\
             [sources]\nwithout = {without:?}\ndisplay = {display:?}\nlisten = {listen}\n"
        );
        fs::write(&rules, text).unwrap();
        let ticket = grid.place.ticket("worker");
        let dir = folder.path().join("owned");
        let args = [
            "worker",
            "--join",
            &ticket,
            "--dir",
            dir.to_str().unwrap(),
            "--owner",
            rules.to_str().unwrap(),
            "--cpus",
            "1",
            "--listen",
            "127.0.0.1:0",
            "--no-sandbox",
        ];
        let command = grid.place.hedge(&args);
        let mut all = before
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>();
        all.push(command.get_program().to_str().unwrap().to_owned());
        all.extend(args.map(str::to_owned));
        let mut command = grid.place.program(&all[0]);
        command
            .args(&all[1..])
            .env_remove("HEDGE_DEDICATED")
            .env("HEDGE_LOG", "debug");
        let owned = Kept::start(command, folder.path());
        await_workers(&grid, 1);
        // What happens before its sources watch goes unnoticed.
        for source in sources {
            let watches = format!("watching source={source:?}");
            until(&watches, || owned.err().contains(&watches).then_some(()));
        }
        let job = format!("[critical]\nby = []\n{}", marks.task("t", "", ""));
        fs::write(folder.path().join("job.toml"), job).unwrap();
        Scene {
            marks,
            grid,
            owned,
            folder,
        }
    }

    /// Has the task do this before it waits, a piece of shell.
    pub fn before_task(&self, before: &str) {
        let job = self.folder.path().join("job.toml");
        let text = fs::read_to_string(&job).unwrap();
        let text = text.replace("env = { ", &format!("env = {{ BEFORE = {before:?}, "));
        fs::write(&job, text).unwrap();
    }

    /// Submits the job, waits until it runs at the owner's, and adds the other worker.
    pub fn run(&mut self) -> (String, String) {
        let job = self.grid.place.submit("job.toml");
        let started = self.marks.await_starts("t", 1);
        self.grid.add_worker(&["--no-sandbox"]);
        await_workers(&self.grid, 2);
        (job, started[0].clone())
    }

    /// What the supervisor knows of the owner's worker, which came first.
    pub fn view(&self) -> Value {
        await_workers(&self.grid, 1).swap_remove(0)
    }

    /// Waits until the supervisor was told that the owner is back, and why.
    pub fn away(&self, why: &str) {
        let told = format!("the supervisor to be told of {why}: {}", self.owned.told());
        until(&told, || {
            let view = self.view();
            let causes = view["owner"]["why"].as_array()?.clone();
            (view["usage"] == "away" && causes.contains(&Value::from(why))).then_some(())
        });
    }

    /// Waits until it was told that the owner has gone.
    pub fn back(&self) {
        until("the supervisor to be told that the owner has gone", || {
            (self.view()["usage"] == "ready").then_some(())
        });
    }

    /// Whether any process of the task is stopped, by a signal or with its control group.
    pub fn stopped(&self) -> bool {
        let mut all = self.marks.processes().into_iter();
        all.any(hedge_exec::is_stopped)
    }

    /// The whole story: what runs is stopped at `act`, which lasts until what it gives is dropped; it goes on
    /// elsewhere and, when the owner has gone again, here; the one that finishes first wins.
    pub fn owner_comes_and_goes<T>(&mut self, why: &str, act: impl FnOnce() -> T) {
        let (job, first) = self.run();
        let busy = act();
        self.away(why);
        self.marks.await_starts("t", 2);
        until("the task to be stopped", || self.stopped().then_some(()));
        drop(busy);
        self.back();
        until("the task to go on", || (!self.stopped()).then_some(()));
        self.marks.let_one_go("t", &first);
        let view = self.grid.place.wait(&job);
        assert_eq!(view["state"], "done", "{view}");
        let won = attempts(&self.grid.place, &job, "t");
        let won: Vec<_> = won
            .iter()
            .filter(|attempt| attempt["state"] == "won")
            .collect();
        assert_eq!(
            won[0]["attempt"],
            first.as_str(),
            "the one that was stopped finished first"
        );
        assert!(self.folder.path().exists());
    }
}

/// The workers, once there are so many. A machine without hardware support for what it runs in is so slow that calls
/// are lost: those are made again.
fn await_workers(grid: &Grid, count: usize) -> Vec<Value> {
    const LOST: i32 = 3;
    until(&format!("{count} workers"), || {
        let output = grid.place.call(&["workers", "--json"]);
        assert!(
            output.status.success() || output.status.code() == Some(LOST),
            "{}",
            told(&output)
        );
        let workers: Vec<Value> = serde_json::from_slice(&output.stdout).ok()?;
        (workers.len() >= count).then_some(workers)
    })
}
