//! Arrays whose tasks wait for the task at their own place, on a real grid.

mod common;

use common::tasks::Marks;
use common::{Grid, json, told, until};
use std::collections::BTreeSet;
use std::fs;

#[test]
fn each_task_starts_when_the_one_at_its_place_is_done_and_reads_its_files_alone() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let grid = Grid::with(folder.path(), 3, &["--no-sandbox"]);
    let place = &grid.place;
    // Long enough to be blobs, which each task may read of one other alone.
    let cut = marks.task(
        "cut",
        "seq 20000 > part; echo $HEDGE_INDEX > note",
        "array = \"0..3\"\noutputs = [\"part\", \"note\"]",
    );
    let fold = marks.task(
        "fold",
        "ls > seen; mkdir out; wc -l < part > out/lines; cp note seen out",
        "array = \"7..10\"\ninputs = [{ task = \"cut\", each = true }]\noutputs = [\"out/\"]",
    );
    let last = "[[task]]\nid = \"last\"\narray = \"0..3\"\ndeps = [{ task = \"cut\", each = true }]\n\
                inputs = [{ task = \"fold\", each = true }]\noutputs = [\"sum-${index}\"]\n\
                command = [\"sh\", \"-c\", \"cat out/* > sum-${index}\"]\n";
    let job = format!("[qos]\nredundancy = \"none\"\n{cut}{fold}{last}");
    fs::write(place.folder.join("job.toml"), job).unwrap();
    let id = place.submit("job.toml");
    for task in ["cut.0", "cut.1", "cut.2"] {
        marks.await_starts(task, 1);
    }
    marks.let_go("cut.1");
    marks.await_starts("fold.8", 1);
    assert_eq!(marks.starts("fold.7") + marks.starts("fold.9"), 0);
    marks.let_go("fold.8");
    // The third stage goes on as far as it can while the first is at work.
    until("last.1 to be done", || {
        let tasks = place.ask(&["job", &id])["done"].as_u64()?;
        (tasks == 3).then_some(())
    });
    let told_of = place.ask(&["explain", &id, "fold.7"]);
    assert_eq!(told_of["tasks"][0]["why"], "waits for cut.0");
    for task in ["cut.0", "cut.2", "fold.7", "fold.9"] {
        marks.let_go(task);
    }
    let output = place.call(&["wait", &id, "--out", "made", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(json(&output)["state"], "done");
    for index in 0..3 {
        let sum = fs::read_to_string(place.folder.join(format!("made/sum-{index}"))).unwrap();
        let lines: BTreeSet<&str> = sum.lines().collect();
        let own = index.to_string();
        let expected = ["20000", own.as_str(), "note", "part", "seen"];
        assert_eq!(lines, expected.into_iter().collect(), "{sum}");
    }
}
