//! What somebody sees who tries Hedgerow for the first time: whole screens of 80 columns.

mod common;

use common::Place;
use common::group::Group;
use common::pty::screen;
use std::fs;

/// A screen with what differs from run to run replaced: ids, times, costs, speeds, ports, this host.
fn assert_screen(name: &str, shown: &str) {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = format!(r"\b{}\b", host.trim());
    let filters = [
        (r"\b[0-9a-f]{10}\b", "[id]"),
        (r"\d+ min \d+ s\b|\b\d+(\.\d+)? (ms|s)\b", "[time]"),
        (r"\d+\.\d{6}", "[cost]"),
        (
            r"\d+\.\d\d( higher)? \((hardware|history|benchmark|nothing)[^)]*\)",
            "[speed]",
        ),
        (r"\d+(\.\d+)? [kMG]?bit/s", "[rate]"),
        (&host, "[host]"),
        (r"\(there is no .*/state", "(there is no [folder]/state"),
        (r" {2,}", "  "),
    ];
    insta::with_settings!({ filters => filters }, {
        insta::assert_snapshot!(name, shown);
    });
}

/// A job of two tasks, the second of which runs this.
fn job(second: &str) -> String {
    format!(
        "name = \"first\"
[qos]
redundancy = \"none\"
[[task]]
id = \"good\"
command = [\"true\"]
[[task]]
id = \"second\"
deps = [\"good\"]
retries = 1
command = [\"sh\", \"-c\", \"{second}\"]
outputs = [\"hello.txt\"]
"
    )
}

const BAD: &str = "echo no such luck >&2; exit 3";
const GOOD: &str = "echo hello > hello.txt";

#[test]
fn on_one_machine() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    assert_screen("program", &screen(&place, &["run", "--", "echo", "hello"]));
    fs::write(folder.path().join("job.toml"), job(BAD)).unwrap();
    assert_screen(
        "own_job_with_a_failing_task",
        &screen(&place, &["run", "job.toml"]),
    );
    // The run before has left its folder of results, and a second would get another name.
    let other = Place::here(&folder.path().join("other"));
    fs::write(other.folder.join("job.toml"), job(GOOD)).unwrap();
    assert_screen("own_job", &screen(&other, &["run", "job.toml"]));
    let made = fs::read_to_string(other.folder.join("first-results/hello.txt"));
    assert_eq!(made.unwrap(), "hello\n");
    assert_screen("no_grid", &screen(&place, &["jobs"]));
}

#[test]
fn over_three_machines_whose_leader_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut group = Group::start(folder.path(), 3, 3);
    let see = |group: &Group, args: &[&str]| screen(&group.client, &group.args(args));
    group.write_job(&[&job(BAD)]);
    assert_screen("submitted", &see(&group, &["submit", "--wait", "job.toml"]));
    assert_screen("jobs", &see(&group, &["jobs"]));
    assert_screen("job", &see(&group, &["job", "1"]));
    assert_screen("explain", &see(&group, &["explain", "1"]));
    let leader = group.leader();
    group.kill(leader);
    group.leader();
    group.await_workers(3);
    group.write_job(&[&job(GOOD)]);
    assert_screen(
        "after_the_leader",
        &see(&group, &["submit", "--wait", "job.toml"]),
    );
    assert_screen("jobs_after_the_leader", &see(&group, &["jobs"]));
}
