//! Real workers and a real supervisor: heartbeats come as often as was set, and a supervisor that is frozen for a
//! while takes nobody's work away.

mod common;

use common::{Grid, until};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Tasks that run until they may go on.
fn submit(grid: &Grid, marks: &Path, count: usize) -> String {
    let marks = marks.display();
    let job = format!(
        r#"
name = "patient"
[qos]
redundancy = "none"
[critical]
by = []
[[task]]
id = "wait"
array = "0..{count}"
command = ["sh", "-c", "echo >> {marks}/begun; while [ ! -e {marks}/go ]; do sleep 0.05; done"]
"#
    );
    fs::write(grid.place.folder.join("job.toml"), job).unwrap();
    let job = grid.place.submit("job.toml");
    let all = || (begun_in(marks.to_string().as_ref()) == count).then_some(());
    until("all to run", all);
    job
}

fn begun_in(marks: &Path) -> usize {
    fs::read_to_string(marks.join("begun")).map_or(0, |text| text.lines().count())
}

#[test]
fn after_a_supervisor_was_frozen_for_5_s_nothing_runs_again() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::with(folder.path(), 3, &["--no-sandbox"]);
    let place = &grid.place;
    let job = submit(&grid, folder.path(), 3);
    grid.supervisor.signal("-STOP");
    std::thread::sleep(Duration::from_secs(5));
    grid.supervisor.signal("-CONT");
    place.await_workers(3);
    fs::write(folder.path().join("go"), "").unwrap();
    let view = place.wait(&job);
    assert_eq!(view["state"], "done", "{view}");
    assert_eq!(begun_in(folder.path()), 3, "nothing ran again: {view}");
    assert_eq!(view["attempts"]["total"], 3, "{view}");
    assert_eq!(view["attempts"]["lost"], 0, "{view}");
    for worker in place.workers() {
        assert_eq!(worker["lost"], 0, "nobody was given up: {worker}");
    }
}

#[test]
fn a_busy_worker_is_heard_as_often_as_was_set() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::with(folder.path(), 1, &["--no-sandbox"]);
    let place = &grid.place;
    let job = submit(&grid, folder.path(), 1);
    let worker = || place.workers().into_iter().next();
    let heartbeats = |view: &Value| view["heartbeats"].as_u64().unwrap_or(0);
    for (mode, prefix) in [("heartbeats", ""), ("poll", "poll ")] {
        for (every, ms) in [("1s", 1000_u32), ("100ms", 100), ("10ms", 10), ("1ms", 1)] {
            let way = format!("{prefix}{every}");
            place.ask(&["config", "set", "watch_assigned", &way]);
            // Heartbeats take a twentieth of the link at most: where a busy machine measured a slow one, there are
            // fewer, and the worker's view says so.
            let shown = |view: &Value| view["heartbeat_interval_ms"].as_f64().unwrap_or(0.0);
            let set = until("the worker to be watched like this", || {
                worker().filter(|view| {
                    let longer = shown(view) / f64::from(ms);
                    (1.0..10.0).contains(&longer) && view["heartbeat_mode"] == mode
                })
            });
            // More than at twice the interval, or, where a slow machine may not manage that, than at the one before. Where
            // the machine is busy with other things, the next look counts.
            let least = (500.0 / shown(&set)).min(110.0);
            let span = Duration::from_millis(u64::from(3 * ms).max(300));
            let mut since = (Instant::now(), heartbeats(&set));
            until("heartbeats as often as was set", || {
                let took = since.0.elapsed();
                let view = worker().filter(|_| took >= span)?;
                let came = heartbeats(&view).saturating_sub(since.1);
                since = (Instant::now(), heartbeats(&view));
                (f64::from(came as u32) > took.as_secs_f64() * least).then_some(())
            });
        }
    }
    fs::write(folder.path().join("go"), "").unwrap();
    assert_eq!(place.wait(&job)["state"], "done");
    until("it to be watched less when its task is over", || {
        worker().filter(|view| view["heartbeat_interval_ms"] == 500.0)
    });
}
