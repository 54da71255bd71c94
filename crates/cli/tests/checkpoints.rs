//! Tasks that save how far they are: their machines are killed, wanted back by their owners or drained, supervisors end,
//! and the next attempt goes on.

mod common;

use common::desktop::Desktop;
use common::group::Group;
use common::scene::Scene;
use common::{Grid, Place, text, told, until};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Length of a checkpoint for each step that it holds: more than travels inside messages, and no other file's.
const STEP_BYTES: u64 = 5003;

/// Counts steps in a log, which is also the checkpoint. `saved` puts it into place.
const STEPS: &str = r#"
: > log
n=0
if [ "$HEDGE_CHECKPOINT" = 1 ]; then tr -d '\0' < state > log; n=$(wc -l < log); fi
step() { n=$((n + 1)); echo "$n $HEDGE_ATTEMPT" >> log; }
saved() { cp log new; truncate -s $((n * 5003)) new; mv new state; }
"#;

/// A job of one task: `first` is what its first attempt does, and `then` what one does that goes on.
fn job(checkpoint: &str, more: &str, first: &str, then: &str) -> String {
    let script = format!("{STEPS}if [ $n = 0 ]; then {first}\nelse {then}\nfi\n");
    format!(
        "[qos]\nredundancy = \"none\"\n[[task]]\nid = \"count\"\ncommand = [\"sh\", \"-c\", '''{script}''']\n\
         outputs = [\"log\"]\ncheckpoint = {{ files = [\"state\"], {checkpoint} }}\n{more}\n"
    )
}

const FIVE_STEPS: &str = "while [ $n -lt 5 ]; do step; saved; done";
const TEN_STEPS: &str = "while [ $n -lt 10 ]; do step; saved; done";
const WAITS: &str = "while :; do sleep 0.02; done";

fn write(place: &Place, job: &str) {
    fs::write(place.folder.join("job.toml"), job).unwrap();
}

/// The view of the task.
fn explained(ask: impl Fn(&[&str]) -> Value, id: &str) -> Value {
    ask(&["explain", id, "count"])["tasks"][0].clone()
}

/// Waits until the newest checkpoint has so many steps.
fn await_checkpoint(ask: impl Fn(&[&str]) -> Value, id: &str, steps: u64) -> Value {
    until(&format!("a checkpoint of {steps} steps"), || {
        let task = explained(&ask, id);
        let checkpoint = task["checkpoint"].clone();
        (checkpoint["bytes"] == steps * STEP_BYTES).then_some(checkpoint)
    })
}

/// The steps of a finished job, with the attempts that made them: each was made once.
fn steps(log: &Path) -> Vec<(u64, String)> {
    let log = fs::read_to_string(log).unwrap();
    let steps: Vec<(u64, String)> = log
        .lines()
        .map(|line| {
            let (step, attempt) = line.split_once(' ').unwrap();
            (step.parse().unwrap(), attempt.to_owned())
        })
        .collect();
    let numbers: Vec<u64> = steps.iter().map(|(step, _)| *step).collect();
    let all: Vec<u64> = (1..=steps.len() as u64).collect();
    assert_eq!(numbers, all, "{log}");
    steps
}

/// How many steps the attempt made that made the first one.
fn first_steps(steps: &[(u64, String)]) -> usize {
    let first = &steps[0].1;
    steps.iter().filter(|(_, attempt)| attempt == first).count()
}

/// Waits until no store below these folders holds a checkpoint. Workers that have ended keep theirs until they are back.
fn await_no_checkpoints(folders: &[PathBuf]) {
    until("the checkpoints to be gone", || {
        let mut waiting: Vec<PathBuf> = folders.to_vec();
        while let Some(folder) = waiting.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let about = entry.metadata().ok()?;
                let within = entry
                    .path()
                    .components()
                    .any(|part| part.as_os_str() == "blobs");
                if about.is_dir() {
                    waiting.push(entry.path());
                } else if within && about.len() > 0 && about.len() % STEP_BYTES == 0 {
                    return None;
                }
            }
        }
        Some(())
    });
}

#[test]
fn a_task_whose_worker_is_killed_goes_on_from_its_checkpoint_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::start(folder.path(), 1);
    let first = format!("{FIVE_STEPS}; {WAITS}");
    write(
        &grid.place,
        &job("every = \"200ms\"", "", &first, TEN_STEPS),
    );
    let id = grid.place.submit("job.toml");
    let checkpoint = await_checkpoint(|args| grid.place.ask(args), &id, 5);
    assert!(
        checkpoint["age_ms"].as_f64().unwrap() >= 0.0,
        "{checkpoint}"
    );
    let shown = grid.place.call(&["explain", &id, "count"]);
    let shown = text(&shown.stdout).to_owned();
    assert!(
        shown.contains(" old, 24.4 KiB, by 1.0/0.1.1 on "),
        "{shown}"
    );
    grid.workers[0].signal("-9");
    grid.add_worker(&[]);
    assert_eq!(grid.place.wait(&id)["state"], "done");
    grid.place.call(&["fetch", &id, "--out", "got"]);
    let steps = steps(&grid.place.folder.join("got/log"));
    assert_eq!((steps.len(), first_steps(&steps)), (10, 5), "{steps:?}");
    await_no_checkpoints(&[grid.place.folder.join("state"), grid.worker_dir(1)]);
}

#[test]
fn a_checkpoint_survives_its_leader_and_its_worker() {
    let folder = tempfile::tempdir().unwrap();
    let mut group = Group::start(folder.path(), 3, 2);
    let first = format!("{FIVE_STEPS}; {WAITS}");
    group.write_job(&[&job("every = \"200ms\"", "", &first, TEN_STEPS)]);
    let id = group.ask(&["submit", "job.toml"])["job"].to_string();
    await_checkpoint(|args| group.ask(args), &id, 5);
    let task = explained(|args| group.ask(args), &id);
    let at = task["attempts"][0]["worker"].as_str().unwrap();
    let workers = group.ask(&["workers"]);
    let mut workers = workers.as_array().unwrap().iter();
    let named = |worker: &&Value| at.starts_with(&worker["peer"].as_str().unwrap()[..8]);
    let pid = &workers.find(named).unwrap()["pid"];
    let leader = group.leader();
    group.kill(leader);
    let at = group.workers.iter().position(|worker| worker.pid() == *pid);
    group.workers[at.unwrap()].signal("-9");
    assert_eq!(
        group.ask(&["wait", &id])["state"],
        "done",
        "{}",
        group.told()
    );
    group.ask(&["fetch", &id, "--out", "got"]);
    let steps = steps(&group.client.folder.join("got/log"));
    assert_eq!((steps.len(), first_steps(&steps)), (10, 5), "{steps:?}");
    group.restart(leader);
    group.await_voters(3);
    let left = ["supervisor-0", "supervisor-1", "supervisor-2"];
    await_no_checkpoints(&left.map(|name| folder.path().join(name)));
}

/// What the first attempt does that has to leave: it never renamed its file before it was asked to end.
fn saves_when_asked(mark: &Path) -> String {
    let mark = mark.display();
    format!("trap 'saved; exit 0' TERM; step; step; step; : > {mark}; {WAITS}")
}

#[test]
fn a_task_that_an_owner_sends_away_saves_and_goes_on_elsewhere() {
    let desktops = tempfile::tempdir().unwrap();
    let desktop = Desktop::virtual_one(desktops.path());
    let on = "keyboard = \"vacate\"";
    let mut scene = Scene::new(&[], on, &["x11"], &desktop.display);
    scene.back();
    let mark = scene.folder.path().join("begun");
    let place = &scene.grid.place;
    write(
        place,
        &job("every = \"1h\"", "", &saves_when_asked(&mark), TEN_STEPS),
    );
    let id = place.submit("job.toml");
    until("the task to begin", || mark.exists().then_some(()));
    scene.grid.add_worker(&["--no-sandbox"]);
    scene.grid.place.await_workers(2);
    let busy = desktop.keep_using([&["key", "a"], &["key", "b"]]);
    scene.away("keyboard");
    let view = scene.grid.place.wait(&id);
    assert_eq!(view["state"], "done", "{view}");
    drop(busy);
    let place = &scene.grid.place;
    place.call(&["fetch", &id, "--out", "got"]);
    let steps = steps(&place.folder.join("got/log"));
    assert_eq!((steps.len(), first_steps(&steps)), (10, 3), "{steps:?}");
    assert_eq!(
        view["attempts"]["total"], 2,
        "nothing was started in between: {view}"
    );
}

/// A task whose machine's owner returns when four fifths of it are done, and which makes no last checkpoint.
struct Interrupted {
    steps: usize,
    /// The length of a step, and the time between two checkpoints.
    step: Duration,
    every: Duration,
}

impl Interrupted {
    /// A few seconds; with `HEDGE_TEN_MINUTES` in the environment ten minutes, of which the owner leaves eight.
    fn new() -> Self {
        let long = std::env::var_os("HEDGE_TEN_MINUTES").is_some();
        let (steps, step, every) = if long {
            (600, 1000, 60_000)
        } else {
            (60, 100, 1000)
        };
        Self {
            steps,
            step: Duration::from_millis(step),
            every: Duration::from_millis(every),
        }
    }

    /// Steps in the time that may be lost: `every`, and two seconds for the checkpoint to arrive.
    fn lost_max(&self) -> usize {
        let span = self.every + Duration::from_secs(2);
        (span.as_secs_f64() / self.step.as_secs_f64()).ceil() as usize
    }

    /// A job of that task, which counts all steps that were made, lost ones included, in the file `all`.
    fn job(&self, all: &Path) -> String {
        let (steps, step, all) = (self.steps, self.step.as_secs_f64(), all.display());
        let works =
            format!("while [ $n -lt {steps} ]; do sleep {step}; step; saved; echo >> {all}; done");
        let every = format!("every = \"{} ms\", grace = \"0s\"", self.every.as_millis());
        job(&every, "", &works, &works)
    }
}

/// Waits until the file has so many lines, as long as there are more and more.
fn await_lines(file: &Path, count: usize) {
    let lines = || fs::read_to_string(file).map_or(0, |text| text.lines().count());
    while lines() < count {
        let before = lines();
        until("the next step", || (lines() > before).then_some(()));
    }
}

#[test]
fn a_task_whose_owner_returns_loses_no_more_than_what_it_made_since_its_checkpoint() {
    let desktops = tempfile::tempdir().unwrap();
    let desktop = Desktop::virtual_one(desktops.path());
    let mut scene = Scene::new(&[], "keyboard = \"vacate\"", &["x11"], &desktop.display);
    scene.back();
    let (task, all) = (Interrupted::new(), scene.folder.path().join("all"));
    write(&scene.grid.place, &task.job(&all));
    let id = scene.grid.place.submit("job.toml");
    await_lines(&all, 1);
    scene.grid.add_worker(&["--no-sandbox"]);
    scene.grid.place.await_workers(2);
    let before = task.steps * 4 / 5;
    await_lines(&all, before);
    let checkpoint = explained(|args| scene.grid.place.ask(args), &id)["checkpoint"].clone();
    let age = Duration::from_secs_f64(checkpoint["age_ms"].as_f64().unwrap() / 1e3);
    let steps_kept = checkpoint["bytes"].as_u64().unwrap() / STEP_BYTES;
    let busy = desktop.keep_using([&["key", "a"], &["key", "b"]]);
    scene.away("keyboard");
    let view = scene.grid.place.wait(&id);
    drop(busy);
    assert_eq!(view["state"], "done", "{view}");
    scene.grid.place.call(&["fetch", &id, "--out", "got"]);
    let steps = steps(&scene.grid.place.folder.join("got/log"));
    let made = fs::read_to_string(&all).unwrap().lines().count();
    let (first, lost) = (first_steps(&steps), made - task.steps);
    println!(
        "{made} steps of {:?} for {}: the owner's machine made {first} that count, {lost} were lost; when its owner \
         returned, the checkpoint held {steps_kept} and was {age:.1?} old",
        task.step, task.steps
    );
    assert_eq!(steps.len(), task.steps);
    assert!(
        first + task.lost_max() >= before && first < task.steps,
        "{steps:?}"
    );
    assert!(lost <= task.lost_max(), "{lost} steps were lost");
}

#[test]
fn a_task_of_a_worker_that_drains_saves_and_goes_on_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::with(folder.path(), 1, &["--no-sandbox"]);
    let mark = folder.path().join("begun");
    let job = job("every = \"1h\"", "", &saves_when_asked(&mark), TEN_STEPS);
    write(&grid.place, &job);
    let id = grid.place.submit("job.toml");
    until("the task to begin", || mark.exists().then_some(()));
    grid.add_worker(&["--no-sandbox"]);
    grid.place.await_workers(2);
    grid.workers[0].signal("-TERM");
    assert!(
        grid.workers[0].end().success(),
        "{}",
        grid.workers[0].told()
    );
    assert_eq!(grid.place.wait(&id)["state"], "done");
    grid.place.call(&["fetch", &id, "--out", "got"]);
    let steps = steps(&grid.place.folder.join("got/log"));
    assert_eq!((steps.len(), first_steps(&steps)), (10, 3), "{steps:?}");
    await_no_checkpoints(&[grid.place.folder.join("state"), grid.worker_dir(1)]);
}

#[test]
fn a_job_that_failed_goes_on_from_its_checkpoint_when_it_is_retried() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let first = format!("{FIVE_STEPS}; exit 3");
    write(
        &grid.place,
        &job("every = \"1h\"", "retries = 0", &first, TEN_STEPS),
    );
    let id = grid.place.submit("job.toml");
    assert_eq!(grid.place.wait(&id)["state"], "failed");
    assert_eq!(
        explained(|args| grid.place.ask(args), &id)["checkpoint"]["bytes"],
        5 * STEP_BYTES
    );
    let retried = grid.place.call(&["retry", &id]);
    assert!(retried.status.success(), "{}", told(&retried));
    assert_eq!(grid.place.wait(&id)["state"], "done");
    grid.place.call(&["fetch", &id, "--out", "got"]);
    let steps = steps(&grid.place.folder.join("got/log"));
    assert_eq!((steps.len(), first_steps(&steps)), (10, 5), "{steps:?}");
    await_no_checkpoints(&[grid.place.folder.join("state"), grid.worker_dir(0)]);
}

#[test]
fn a_checkpoint_is_saved_when_the_task_says_so_and_refused_where_it_is_too_large() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    // Without the word only the first would be saved.
    let first = format!(
        "step; saved; while [ $n -lt 5 ]; do step; saved; done; echo checkpoint >&$HEDGE_PROGRESS_FD; {WAITS}"
    );
    write(&grid.place, &job("every = \"1h\"", "", &first, TEN_STEPS));
    let id = grid.place.submit("job.toml");
    await_checkpoint(|args| grid.place.ask(args), &id, 5);
    grid.place.call(&["cancel", &id]);
    let small = "every = \"100ms\", size_limit = \"10 KiB\"";
    write(
        &grid.place,
        &job(small, "", &format!("{FIVE_STEPS}; {WAITS}"), TEN_STEPS),
    );
    let id = grid.place.submit("job.toml");
    // Before its fifth step it takes less, and is refused as well.
    until("the refusal", || {
        let task = explained(|args| grid.place.ask(args), &id);
        let why = task["checkpoint_fault"].as_str()?;
        let whole = "it takes 24.4 KiB, and at most 10 KiB are saved";
        why.contains(whole).then_some(())
    });
    let shown = grid.place.call(&["explain", &id, "count"]);
    assert!(
        text(&shown.stdout).contains("checkpoint not saved: it takes"),
        "{}",
        told(&shown)
    );
    grid.place.call(&["cancel", &id]);
    await_no_checkpoints(&[grid.place.folder.join("state"), grid.worker_dir(0)]);
}
