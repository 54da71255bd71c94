//! Tasks that submit jobs to their own grid and wait for them.

mod common;

use common::{Grid, json, until};
use std::fs;

#[test]
fn tasks_that_submit_and_wait_on_every_slot_do_not_stop_the_grid() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::with(folder.path(), 1, &["--no-sandbox", "--allow-network"]);
    let place = &grid.place;
    let ticket = place.ticket("client");
    let go = folder.path().join("go");
    let inner = format!("until [ -e {} ]; do sleep 0.02; done", go.display());
    let job = format!(
        "[[task]]\nid = \"outer\"\ncommand = [\"${{hedge}}\", \"submit\", \"--wait\", \"--dir\", \"state\", \
         \"--join\", \"{ticket}\", \"--\", \"sh\", \"-c\", \"{inner}\"]\n"
    );
    fs::write(place.folder.join("job.toml"), job).unwrap();
    let job = place.submit("job.toml");
    until("the inner job to run on the only CPU", || {
        let jobs = place.ask(&["jobs"]);
        (jobs[1]["running"] == 1).then_some(())
    });
    let explained = place.ask(&["explain", &job, "outer"]);
    let attempt = &explained["tasks"][0]["attempts"][0];
    assert_eq!(attempt["state"], "waiting", "{explained}");
    assert!(
        attempt["why"].as_str().unwrap().contains("waits for job 2"),
        "{explained}"
    );
    fs::write(&go, "").unwrap();
    let view = json(&place.call(&["wait", &job, "--json"]));
    assert_eq!(view["state"], "done", "{view}");
}
