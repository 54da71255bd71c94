//! Other forms of what the grid shows: `hedge watch`, `hedge trace` and `hedge report`.

mod common;

use common::browser::Page;
use common::group::Group;
use common::tasks::Marks;
use common::{Grid, json, signal, told, tool, until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `hedge watch` with what it prints.
struct Watch {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Watch {
    fn start(mut command: Command) -> Watch {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Watch { child, lines }
    }

    /// The next line; none at the end.
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.next().expect("the events ended");
            if wanted(&line) {
                return line;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn job_is(line: &Value, job: &str, state: &str) -> bool {
    let id: u64 = job.parse().unwrap();
    line["event"] == "job" && line["data"]["id"] == id && line["data"]["state"] == state
}

#[test]
fn watch_tells_what_changes_until_it_is_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::with(folder.path(), 1, &["--no-sandbox"]);
    let mut watch = Watch::start(grid.place.hedge(&["watch"]));
    assert_eq!(watch.next().unwrap()["event"], "reset");
    let worker = watch.until(|line| line["event"] == "worker");
    assert_eq!(worker["data"]["liveness"], "live");
    watch.until(|line| line["event"] == "ready");
    let submitted = json(&grid.place.call(&["submit", "--json", "--", "true"]));
    let submitted = submitted["job"].to_string();
    watch.until(|line| job_is(line, &submitted, "done"));
    signal(watch.child.id(), "-INT");
    while watch.next().is_some() {}
    assert_eq!(watch.child.wait().unwrap().code(), Some(0));
    // A pipe that is closed ends it too, although nothing is printed any more.
    let mut watch = Watch::start(grid.place.hedge(&["watch"]));
    watch.until(|line| line["event"] == "ready");
    let (mut child, lines) = (
        std::mem::replace(&mut watch.child, Command::new("true").spawn().unwrap()),
        std::mem::replace(&mut watch.lines, BufReader::new(piped())),
    );
    drop(lines);
    let status = until("the end of the command", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

fn piped() -> std::process::ChildStdout {
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    let out = child.stdout.take().unwrap();
    child.wait().unwrap();
    out
}

#[test]
fn watching_a_job_ends_with_it_and_outlives_the_leader() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let mut group = Group::start(folder.path(), 3, 1);
    let file = folder.path().join("job.toml");
    std::fs::write(&file, marks.task("a", "exit 3", "retries = 0")).unwrap();
    let job = group
        .client
        .ask(&group.args(&["submit", file.to_str().unwrap()]))["job"]
        .to_string();
    let mut watch = Watch::start(group.client.hedge(&group.args(&["watch", &job])));
    watch.until(|line| job_is(line, &job, "running"));
    group.kill(group.leader());
    marks.let_go("a");
    watch.until(|line| job_is(line, &job, "failed"));
    assert!(watch.next().is_none());
    assert_eq!(watch.child.wait().unwrap().code(), Some(1));
    // One that has ended is shown once.
    let again = group.client.call(&group.args(&["watch", &job]));
    assert_eq!(again.status.code(), Some(1), "{}", told(&again));
    assert!(job_is(&json(&again), &job, "failed"), "{}", told(&again));
    let unknown = group.client.call(&group.args(&["watch", "99"]));
    assert_eq!(unknown.status.code(), Some(2), "{}", told(&unknown));
}

/// A job with two groups that wait for each other element-wise, one that waits for all, and one task that fails.
const JOB: &str = r#"
name = "shapes </script>"
[qos]
max_failures = 2
redundancy = "none"
[[task]]
id = "part"
array = "0..4"
command = ["true"]
[[task]]
id = "each"
array = "0..4"
deps = [{ task = "part", each = true }]
command = ["true"]
[[task]]
id = "all"
deps = ["each"]
command = ["true"]
[[task]]
id = "bad"
retries = 1
command = ["sh", "-c", "echo 'it broke </script><b>' >&2; exit 3"]
"#;

/// Runs the job and gives its number.
fn run_job(grid: &Grid, folder: &Path) -> String {
    let file = folder.join("shapes.toml");
    std::fs::write(&file, JOB).unwrap();
    let job = grid.place.submit("shapes.toml");
    grid.place.wait(&job);
    job
}

/// What a trace has, by Perfetto's own messages.
fn read_trace(path: &Path) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trace.py");
    let mut command = Command::new(tool("python/bin/python"));
    json(&command.arg(script).arg(path).output().unwrap())
}

#[test]
fn a_trace_has_every_attempt_and_every_dependency() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::with(folder.path(), 2, &["--no-sandbox"]);
    let job = run_job(&grid, folder.path());
    let wrote = grid.place.call(&["trace", &job, "-o", "job.pftrace"]);
    assert_eq!(wrote.status.code(), Some(0), "{}", told(&wrote));
    let trace = read_trace(&folder.path().join("job.pftrace"));
    let slices = trace["slices"].as_array().unwrap();
    let named = |name: &str, state: &str| {
        let mut found = slices.iter().filter(|slice| {
            let category = |known: &Value| known == state;
            slice["name"] == name && slice["categories"].as_array().unwrap().iter().any(category)
        });
        found.next().unwrap_or_else(|| panic!("{name} {state}"))
    };
    let attempts: BTreeSet<&str> = slices
        .iter()
        .filter_map(|slice| slice["notes"]["attempt"].as_str())
        .collect();
    let view = grid.place.ask(&["job", &job]);
    assert_eq!(
        Some(attempts.len() as u64),
        view["attempts"]["total"].as_u64()
    );
    let joined = |from: &Value, to: &Value| {
        let ends = to["ends"].as_array().unwrap();
        from["flows"]
            .as_array()
            .unwrap()
            .iter()
            .any(|flow| ends.contains(flow))
    };
    for place in 0..4 {
        let part = named(&format!("part.{place}"), "won");
        let each = named(&format!("each.{place}"), "won");
        assert!(joined(part, each), "each.{place}");
        assert!(joined(each, named("all", "won")), "{place}");
        let other = named(&format!("each.{}", (place + 1) % 4), "won");
        assert!(!joined(part, other), "{place}");
    }
    assert!(joined(named("part", "group"), named("each", "group")));
    assert!(joined(named("each", "group"), named("all", "group")));
    let failed = slices.iter().filter(|slice| slice["name"] == "bad");
    assert_eq!(
        failed
            .filter(|slice| slice["notes"]["state"] == "failed")
            .count(),
        2
    );
    let instants = trace["instants"].as_array().unwrap();
    let faults = instants.iter().filter(|one| one["name"] == "failed");
    assert_eq!(faults.count(), 2);
    let names: Vec<&str> = trace["tracks"]
        .as_object()
        .unwrap()
        .values()
        .map(|track| track["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"slot 1") && names.contains(&"groups"),
        "{names:?}"
    );
    // What was there is kept where nothing can be written.
    let nowhere = grid.place.call(&["trace", &job, "-o", "no/such/folder"]);
    assert_eq!(nowhere.status.code(), Some(1), "{}", told(&nowhere));
}

#[test]
fn a_report_shows_a_job_without_a_grid() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::with(folder.path(), 2, &["--no-sandbox"]);
    let job = run_job(&grid, folder.path());
    let wrote = grid.place.call(&["report", &job, "-o", "report.html"]);
    assert_eq!(wrote.status.code(), Some(0), "{}", told(&wrote));
    drop(grid);
    let path = folder.path().join("report.html");
    let mut page = Page::open(folder.path(), &format!("file://{}", path.display()));
    page.await_text("4 groups");
    page.await_text("11 attempts on ");
    page.await_text("it broke </script><b>");
    page.check("report");
    let buttons =
        "[...document.querySelectorAll('button')].filter((one) => one.checkVisibility()).length";
    assert_eq!(page.value(buttons), 0, "nothing can be done here");
    // A group that failed is thought to take longer than those that are known. Yet the other two ended the job.
    let path = "import('hedge/graph.js').then(({ criticalPath }) => {
        const group = (group, waits_for, expected_s, done) => ({ group, waits_for, expected_s, tail_s: 0, done, tasks: 1 });
        const groups = [group(0, [], 0.01, 1), group(1, [0], 0.01, 1), group(2, [], 1, 0)];
        return [...criticalPath(groups, new Map([[0, 5], [1, 9], [2, 3]]))].sort();
    })";
    assert_eq!(page.value(path), serde_json::json!([0, 1]));
    page.go(&format!("#/job/{job}/task/part.2"));
    page.await_text("Attempts of part.2");
    assert!(page.errors.is_empty(), "{:?}", page.errors);
}
