//! Owners who come back to their machines: real desktops and programs, real workers of a real grid, and what the
//! supervisor is told.

mod common;

use common::desktop::{Desktop, Sound, point, touch};
use common::tasks::{Marks, attempts};
use common::{Grid, Kept, until};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// How long the owners of these tests must be quiet.
const QUIET: &str = "2s";

/// A grid whose first worker has an owner; it runs one task that waits, and a second worker has none.
struct Scene {
    marks: Marks,
    grid: Grid,
    owned: Kept,
    folder: TempDir,
}

impl Scene {
    /// Runs the first worker behind `before`, with these sources alone, which set it up as `sources` says.
    fn new(before: &[&str], on: &str, sources: &[&str], display: &str) -> Scene {
        Scene::with_quiet(QUIET, before, on, sources, display)
    }

    /// The same, whose owner must be quiet for so long.
    fn with_quiet(
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
        let all = [
            "evdev",
            "x11",
            "wayland",
            "processes",
            "sessions",
            "logind",
            "screensaver",
            "mutter",
            "microphone",
            "power",
        ];
        let without: Vec<_> = all.iter().filter(|name| !sources.contains(name)).collect();
        let text = format!(
            "[on]\n{on}\n[when]\nresume_after = {quiet:?}\n\
             [sources]\nwithout = {without:?}\ndisplay = {display:?}\n"
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
        grid.place.await_workers(1);
        let job = format!("[critical]\nby = []\n{}", marks.task("t", "", ""));
        fs::write(folder.path().join("job.toml"), job).unwrap();
        Scene {
            marks,
            grid,
            owned,
            folder,
        }
    }

    /// Submits the job, waits until it runs at the owner's, and adds the other worker.
    fn run(&mut self) -> (String, String) {
        let job = self.grid.place.submit("job.toml");
        let started = self.marks.await_starts("t", 1);
        self.grid.add_worker(&["--no-sandbox"]);
        self.grid.place.await_workers(2);
        (job, started[0].clone())
    }

    /// What the supervisor knows of the owner's worker, which came first.
    fn view(&self) -> Value {
        self.grid.place.workers().swap_remove(0)
    }

    /// Waits until the supervisor was told that the owner is back, and why.
    fn away(&self, why: &str) {
        let told = format!("the supervisor to be told of {why}: {}", self.owned.told());
        until(&told, || {
            let view = self.view();
            let causes = view["owner"]["why"].as_array()?.clone();
            (view["usage"] == "away" && causes.contains(&Value::from(why))).then_some(())
        });
    }

    /// Waits until it was told that the owner has gone.
    fn back(&self) {
        until("the supervisor to be told that the owner has gone", || {
            (self.view()["usage"] == "ready").then_some(())
        });
    }

    /// States of the processes of the task's first attempt, by the kernel's letters.
    fn states(&self) -> Vec<char> {
        let state = |pid: u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.rsplit_once(") ")?.1.chars().next()
        };
        self.marks
            .processes()
            .into_iter()
            .filter_map(state)
            .collect()
    }

    /// The whole story: what runs is stopped at `act`, which lasts until what it gives is dropped; it goes on
    /// elsewhere and, when the owner has gone again, here; the one that finishes first wins.
    fn owner_comes_and_goes<T>(&mut self, why: &str, act: impl FnOnce() -> T) {
        let (job, first) = self.run();
        let busy = act();
        self.away(why);
        self.marks.await_starts("t", 2);
        until("the task to be stopped", || {
            self.states().contains(&'T').then_some(())
        });
        drop(busy);
        self.back();
        until("the task to go on", || {
            (!self.states().contains(&'T')).then_some(())
        });
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

#[test]
fn a_key_press_stops_the_task_and_tells_the_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let desktop = Desktop::virtual_one(folder.path());
    let mut scene = Scene::new(&[], "", &["x11"], &desktop.display);
    scene.back();
    scene.owner_comes_and_goes("keyboard", || desktop.xdotool(&["key", "a"]));
}

#[test]
fn a_moved_mouse_stops_the_task_and_tells_the_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let desktop = Desktop::virtual_one(folder.path());
    let mut scene = Scene::new(&[], "", &["x11"], &desktop.display);
    scene.back();
    scene.owner_comes_and_goes("mouse", || {
        desktop.xdotool(&["mousemove_relative", "3", "3"])
    });
}

#[test]
fn a_touched_screen_stops_the_task_and_tells_the_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let desktop = Desktop::with_devices(folder.path());
    let mut scene = Scene::new(&[], "", &["x11"], &desktop.display);
    scene.back();
    scene.owner_comes_and_goes("touchscreen", || touch(folder.path()));
}

#[test]
fn a_moved_pointer_stops_the_task_and_tells_the_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let desktop = Desktop::with_devices(folder.path());
    let mut scene = Scene::new(&[], "", &["x11"], &desktop.display);
    scene.back();
    scene.owner_comes_and_goes("pointer", || point(folder.path()));
}

#[test]
fn a_microphone_in_use_stops_the_task_and_tells_the_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let sound = Sound::start(folder.path());
    let on = "unwatched = \"work\"";
    let mut scene = Scene::new(&sound.before(), on, &["microphone"], "");
    scene.back();
    scene.owner_comes_and_goes("voice", || sound.record(folder.path()));
}

/// The worker lives where there are no other processes than its own and one that is let loose.
#[test]
fn another_program_at_work_stops_the_task_and_tells_the_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let wait = format!("until [ -e {0} ]; do sleep 0.05; done", go.display());
    let hog = format!("while [ -e {} ]; do :; done", go.display());
    // Both are children of the first process there: the hog is not below the worker.
    let loose = format!("({wait}; {hog}) & \"$@\"");
    let before = [
        "unshare",
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
        &loose,
        "sh",
    ];
    let on = "unwatched = \"work\"";
    let mut scene = Scene::new(&before, on, &["processes"], "");
    scene.back();
    scene.owner_comes_and_goes("processes", || Going::start(&go));
}

/// A file that is there for as long as this is.
struct Going(PathBuf);

impl Going {
    fn start(path: &Path) -> Going {
        fs::write(path, "").unwrap();
        Going(path.to_owned())
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_machine_without_sources_of_input_is_taken_to_be_in_use() {
    let mut scene = Scene::new(&[], "", &[], "");
    scene.away("no source of input");
    let job = scene.grid.place.submit("job.toml");
    scene.grid.add_worker(&["--no-sandbox"]);
    scene.marks.await_starts("t", 1);
    scene.marks.let_go("t");
    assert_eq!(scene.grid.place.wait(&job)["state"], "done");
    let attempts = attempts(&scene.grid.place, &job, "t");
    assert_eq!(
        attempts.len(),
        1,
        "the owner's worker was given nothing: {attempts:?}"
    );
    assert!(
        scene.owned.err().contains("no source of input"),
        "{}",
        scene.owned.told()
    );
}

/// The saver is a screen of the worker: shown, it says that the owner is away; ended, that the owner is back.
#[test]
fn while_the_screensaver_is_shown_the_owner_is_known_to_be_away() {
    let folder = tempfile::tempdir().unwrap();
    let desktop = Desktop::virtual_one(folder.path());
    let mut scene = Scene::with_quiet("1h", &[], "", &["x11"], &desktop.display);
    scene.back();
    desktop.xdotool(&["key", "a"]);
    scene.away("keyboard");
    let dir = scene.folder.path().join("owned");
    let mut saver =
        scene
            .grid
            .place
            .hedge(&["--dir", dir.to_str().unwrap(), "screensaver", "--root"]);
    saver.env("DISPLAY", &desktop.display);
    let saver = Kept::start(saver, scene.folder.path());
    until(&format!("the worker to work: {}", saver.told()), || {
        (scene.view()["usage"] == "ready").then_some(())
    });
    let (job, _) = scene.run();
    saver.signal("-TERM");
    scene.away("input");
    scene.marks.await_starts("t", 2);
    scene.marks.let_go("t");
    assert_eq!(scene.grid.place.wait(&job)["state"], "done");
}

#[test]
fn the_doctor_says_which_kinds_are_noticed_and_shows_them_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let desktop = Desktop::virtual_one(folder.path());
    let place = common::Place::here(folder.path());
    let mut command = place.hedge(&["doctor", "--json"]);
    command.env("DISPLAY", &desktop.display);
    let output = command.output().unwrap();
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let of = |what: &str| {
        findings
            .iter()
            .find(|finding| finding["what"] == what)
            .unwrap()
    };
    assert!(
        of("keyboard")["found"].as_str().unwrap().contains("x11"),
        "{findings:?}"
    );
    assert_eq!(of("mouse")["verdict"], "good");
    let mut command = place.hedge(&["doctor", "--watch"]);
    command.env("DISPLAY", &desktop.display);
    let watching = Kept::start(command, folder.path());
    until("the doctor to watch", || {
        watching.out().contains("x11").then_some(())
    });
    until("the key to be shown", || {
        desktop.xdotool(&["key", "q"]);
        watching.out().contains("keyboard (x11)").then_some(())
    });
}
