//! Progress of tasks: what they say is shown, one that gets nowhere gets a copy, one that waits for a reason does not.

mod common;

use common::tasks::attempts;
use common::{Grid, Place, until};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Two tasks: the first attempt of `stuck` waits without a word for what never comes, as soon as `patient` has said
/// that it waits.
fn job(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"
name = "progress"
[qos]
redundancy = "critical"
[critical]
by = []
[[task]]
id = "stuck"
command = ["sh", "-c", """
case $HEDGE_ATTEMPT in *.1)
  while [ ! -e {folder}/said ]; do sleep 0.01; done
  read -r _ < {folder}/never;;
esac"""]
[[task]]
id = "patient"
command = ["sh", "-c", """
echo 0.25 >&$HEDGE_PROGRESS_FD
echo 'waiting for a licence' >&$HEDGE_PROGRESS_FD
touch {folder}/said
read -r _ < {folder}/licence"""]
"#
    )
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn set(place: &Place, name: &str, value: &str) {
    place.ask(&["config", "set", name, value]);
}

fn explained(place: &Place, job: &str, task: &str) -> Value {
    place.ask(&["explain", job, task])["tasks"][0].clone()
}

#[test]
fn a_task_that_gets_nowhere_gets_a_copy_and_one_that_waits_for_a_reason_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::with(folder.path(), 3, &["--no-sandbox"]);
    let place = &grid.place;
    set(place, "progress_every", "10ms");
    // Longer than a busy machine keeps a task from its first word.
    set(place, "stall_after", "4s");
    // No copy for heartbeats that a busy machine sends late.
    set(place, "suspect_max", "10m");
    set(place, "dead_heartbeats", "10000");
    set(place, "suspect_heartbeats", "1000");
    let [never, licence] = ["never", "licence"].map(|name| folder.path().join(name));
    fifo(&never);
    fifo(&licence);
    fs::write(place.folder.join("job.toml"), job(folder.path())).unwrap();
    let job = place.submit("job.toml");
    until("the copy to succeed", || {
        (explained(place, &job, "stuck")["state"] == "done").then_some(())
    });
    let stuck = attempts(place, &job, "stuck");
    let won = stuck.iter().find(|one| one["state"] == "won").unwrap();
    assert_eq!(won["kind"], "redundant", "{stuck:?}");
    // It has waited for longer, and nobody else has begun it.
    let patient = attempts(place, &job, "patient");
    assert_eq!(patient.len(), 1, "{patient:?}");
    let progress = until("what it says to be shown", || {
        let patient = attempts(place, &job, "patient");
        let progress = patient[0]["progress"].clone();
        progress.is_object().then_some(progress)
    });
    assert_eq!(
        (&progress["share"], &progress["waits"]),
        (&0.25.into(), &true.into())
    );
    // The estimate is up to a second old.
    let view = until("an estimate that knows of it", || {
        let view = place.ask(&["job", &job]);
        view["left_ms"]
            .as_f64()
            .is_some_and(|left| left > 0.0)
            .then_some(view)
    });
    assert_eq!(view["progress"], 0.625, "{view}");
    fs::write(&licence, "here it is\n").unwrap();
    let view = place.wait(&job);
    assert_eq!(view["state"], "done", "{view}");
    assert_eq!(view["attempts"]["redundant"], 1, "{view}");
}
