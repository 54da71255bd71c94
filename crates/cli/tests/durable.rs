//! One supervisor and its journal on disk: what it has acknowledged outlives it, and damage is told.

mod common;

use common::tasks::Marks;
use common::{Grid, Place, told, until};
use std::fs;
use std::path::{Path, PathBuf};

const NO_COPIES: &str = "[qos]\nredundancy = \"none\"\n";

fn journal(place: &Place) -> PathBuf {
    place.folder.join("state/hedgerow/supervisor/journal")
}

/// The longest file of a journal.
fn log_of(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let files = files.filter(|entry| entry.file_type().unwrap().is_file());
    files
        .max_by_key(|entry| entry.metadata().unwrap().len())
        .unwrap()
        .path()
}

#[test]
fn a_supervisor_that_is_killed_goes_on_with_its_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let mut grid = Grid::with(folder.path(), 1, &["--no-sandbox", "--cpus", "2"]);
    let tasks = [
        marks.task("a", "echo made > a", "outputs = [\"a\"]"),
        marks.task("b", "true", ""),
        marks.task(
            "last",
            "cat a > sum",
            "deps = [\"b\"]\ninputs = [{ task = \"a\" }]\noutputs = [\"sum\"]",
        ),
    ];
    let job = [NO_COPIES, &tasks.concat()].concat();
    fs::write(grid.place.folder.join("job.toml"), job).unwrap();
    let mut client = grid
        .place
        .start(&["submit", "--wait", "--out", "got", "job.toml"]);
    marks.await_starts("a", 1);
    marks.await_starts("b", 1);
    marks.let_go("a");
    until("the first task", || {
        let view = grid.place.ask(&["job", "1"]);
        (view["done"] == 1).then_some(())
    });
    for round in 0..2 {
        grid.supervisor.signal("-9");
        grid.supervisor.end();
        grid.supervisor = grid.place.supervisor("127.0.0.1:0");
        let view = grid.place.ask(&["job", "1"]);
        // It waits until the worker is connected again.
        let open = ["waiting", "running"]
            .iter()
            .any(|state| view["state"] == *state);
        assert!(open && view["done"] == 1, "{round}: {view}");
    }
    marks.let_go("b");
    marks.await_starts("last", 1);
    marks.let_go("last");
    assert_eq!(client.end().code(), Some(0), "{}", client.told());
    let got = fs::read_to_string(folder.path().join("got/sum")).unwrap();
    assert_eq!(got, "made\n");
    for task in ["a", "b", "last"] {
        assert_eq!(marks.starts(task), 1, "{task}");
    }
}

#[test]
fn inputs_of_accepted_jobs_are_there_after_a_kill_at_once() {
    const ROUNDS: u8 = 4;
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::start(folder.path(), 0);
    for round in 0..ROUNDS {
        // Too much to travel with the job's description.
        fs::write(folder.path().join("in"), vec![b'a' + round; 40_000]).unwrap();
        let job = format!(
            "{NO_COPIES}[[task]]\nid = \"t{round}\"\ncommand = [\"cp\", \"in\", \"out\"]\n\
             inputs = [\"in\"]\noutputs = [\"out\"]\n"
        );
        fs::write(folder.path().join("job.toml"), job).unwrap();
        let mut client = grid.place.start(&["submit", "job.toml", "--json"]);
        until("the job to be accepted", || {
            client.out().contains("\"job\"").then_some(())
        });
        grid.supervisor.signal("-9");
        grid.supervisor.end();
        client.end();
        grid.supervisor = grid.place.supervisor("127.0.0.1:0");
    }
    grid.add_worker(&[]);
    for round in 0..ROUNDS {
        let job = (round + 1).to_string();
        assert_eq!(grid.place.wait(&job)["state"], "done", "{round}");
    }
}

#[test]
fn tickets_settings_and_ended_jobs_are_remembered_and_forgotten_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::start(folder.path(), 1);
    grid.place.ask(&["config", "set", "keep_jobs_for", "7days"]);
    let client = Place::here(&folder.path().join("client"));
    let ticket = grid.place.ticket("client");
    let args = ["submit", "--wait", "--join", &ticket, "--", "echo", "hi"];
    assert_eq!(client.call(&args).status.code(), Some(0));
    grid.supervisor.signal("-9");
    grid.supervisor.end();
    grid.supervisor = grid.place.supervisor("127.0.0.1:0");
    assert_eq!(
        grid.place.ask(&["config", "get", "keep_jobs_for"])["value"],
        "7days"
    );
    let jobs = client.ask(&["jobs", "--join", &ticket]);
    assert_eq!(jobs[0]["state"], "done", "{jobs}");
    let refused = client.call(&["revoke", "x", "--yes", "--join", &ticket]);
    assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
    grid.place.ask(&["forget", "1", "--yes"]);
    assert_eq!(grid.place.ask(&["jobs"]).as_array().unwrap().len(), 0);
    // Who did what is on record.
    let audit = fs::read_to_string(
        grid.place
            .folder
            .join("state/hedgerow/supervisor/audit.jsonl"),
    );
    let audit = audit.unwrap();
    for what in [
        "set keep_jobs_for = 7days",
        "ticket client",
        "submit key",
        "revoke x",
        "forget job 1",
    ] {
        assert!(audit.contains(what), "{what}: {audit}");
    }
    assert!(audit.contains("refused: only an administrator"), "{audit}");
}

#[test]
fn a_flipped_byte_keeps_a_supervisor_that_is_alone_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::start(folder.path(), 1);
    let args = ["submit", "--wait", "--", "true"];
    assert_eq!(grid.place.call(&args).status.code(), Some(0));
    grid.supervisor.signal("-9");
    grid.supervisor.end();
    let log = log_of(&journal(&grid.place));
    let whole = fs::read(&log).unwrap();
    // In the middle of what was written; what follows it may be room that is not used yet.
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let mut flipped = whole.clone();
    flipped[used / 2] ^= 4;
    fs::write(&log, &flipped).unwrap();
    let output = grid.place.call(&["supervisor", "--listen", "127.0.0.1:0"]);
    assert_ne!(output.status.code(), Some(0));
    let said = told(&output);
    assert!(
        said.contains("hedge journal repair") && said.contains("byte"),
        "{said}"
    );
    assert_eq!(fs::read(&log).unwrap(), flipped, "it was left as it is");
    fs::write(&log, &whole).unwrap();
    grid.supervisor = grid.place.supervisor("127.0.0.1:0");
    assert_eq!(grid.place.ask(&["job", "1"])["state"], "done");
}

#[test]
fn a_journal_can_be_read_copied_started_from_and_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::start(folder.path(), 1);
    let args = ["submit", "--wait", "--", "true"];
    assert_eq!(grid.place.call(&args).status.code(), Some(0));
    let dump = grid.place.call(&["journal", "dump", "--json"]);
    let dump = common::text(&dump.stdout);
    assert!(
        dump.contains("JobAccepted") && dump.contains("TaskDone"),
        "{dump}"
    );
    // A copy made while it runs is what another supervisor starts from.
    let other = Place::here(&folder.path().join("other"));
    let copy = journal(&other);
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    grid.place
        .ask(&["journal", "backup", copy.to_str().unwrap()]);
    let start = [
        "supervisor",
        "--listen",
        "127.0.0.1:0",
        "--recover",
        "--json",
    ];
    let again = other.start(&start);
    until("the copy to be at work", || {
        again.out().contains("\"peer\"").then_some(())
    });
    assert_eq!(other.ask(&["job", "1"])["state"], "done");
    grid.supervisor.signal("-9");
    grid.supervisor.end();
    assert_eq!(
        grid.place.ask(&["journal", "check"])["damage"],
        serde_json::json!([])
    );
    // Damage near the end costs what was last, and no more.
    let log = log_of(&journal(&grid.place));
    let mut bytes = fs::read(&log).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used - 2] ^= 4;
    fs::write(&log, &bytes).unwrap();
    let found = grid.place.call(&["journal", "check", "--json"]);
    assert_eq!(found.status.code(), Some(1), "{}", told(&found));
    let repaired = grid.place.ask(&["journal", "repair"]);
    assert_eq!(
        repaired["damage"].as_array().unwrap().len(),
        1,
        "{repaired}"
    );
    assert!(Path::new(repaired["copy"].as_str().unwrap()).exists());
    grid.supervisor = grid.place.supervisor("127.0.0.1:0");
    grid.place.ask(&["jobs"]);
}
