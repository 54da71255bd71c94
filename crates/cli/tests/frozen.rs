//! A supervisor that is frozen for a while takes nobody's work from them: what ran goes on and wins.

mod common;

use common::{Grid, until};
use std::fs;
use std::time::Duration;

#[test]
fn after_a_supervisor_was_frozen_for_5_s_nothing_runs_again() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::with(folder.path(), 3, &["--no-sandbox"]);
    let place = &grid.place;
    let marks = folder.path().display();
    let job = format!(
        r#"
name = "patient"
[critical]
by = []
[[task]]
id = "wait"
array = "0..3"
command = ["sh", "-c", "echo >> {marks}/begun; while [ ! -e {marks}/go ]; do sleep 0.05; done"]
"#
    );
    fs::write(place.folder.join("job.toml"), job).unwrap();
    let job = place.submit("job.toml");
    let begun =
        || fs::read_to_string(folder.path().join("begun")).map_or(0, |text| text.lines().count());
    until("all three to run", || (begun() == 3).then_some(()));
    grid.supervisor.signal("-STOP");
    std::thread::sleep(Duration::from_secs(5));
    grid.supervisor.signal("-CONT");
    place.await_workers(3);
    fs::write(folder.path().join("go"), "").unwrap();
    let view = place.wait(&job);
    assert_eq!(view["state"], "done", "{view}");
    assert_eq!(begun(), 3, "nothing ran again: {view}");
    assert_eq!(view["attempts"]["total"], 3, "{view}");
    assert_eq!(view["attempts"]["lost"], 0, "{view}");
    for worker in place.workers() {
        assert_eq!(worker["lost"], 0, "nobody was given up: {worker}");
    }
}
