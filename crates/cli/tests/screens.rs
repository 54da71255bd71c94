//! What users see: text of peers cannot control a terminal, waiting commands say what they wait for, tables fit.

mod common;

use common::pty::{on_terminal, on_terminal_as};
use common::{Grid, Place, json, text, told, until};
use serde_json::json;
use std::fs;
use std::time::{Duration, Instant};

/// A name that would clear the screen, set the title, add a line, and show the rest from right to left.
const EVIL: &str = "evil\u{1b}[2J\u{1b}]0;owned\u{7}\nroot\u{202e}txt\u{9b}1m";

fn assert_harmless(shown: &str) {
    let bad = |c: &char| *c != '\n' && (c.is_control() || "\u{202e}\u{200b}".contains(*c));
    let bad: Vec<char> = shown.chars().filter(bad).collect();
    assert!(bad.is_empty(), "{bad:?} in {shown:?}");
}

/// The same where also the lines are ours.
fn assert_whole_lines(shown: &str) {
    assert_harmless(shown);
    let forged = shown.lines().any(|line| line.starts_with("root"));
    assert!(!forged, "{shown:?}");
}

#[test]
fn nothing_that_a_peer_wrote_steers_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let place = &grid.place;
    let script = format!("printf '%s' '{EVIL}' >&2; printf '%s' '{EVIL}'; exit 3");
    let job = json!({
        "name": EVIL,
        "task": [{ "id": "t", "command": ["sh", "-c", script], "retries": 0 }],
    });
    fs::write(place.folder.join("job.json"), job.to_string()).unwrap();
    let job = place.submit("job.json");
    assert_eq!(place.wait(&job)["state"], "failed");
    let unknown = format!("{EVIL}-task");
    let screens: [&[&str]; 8] = [
        &["jobs"],
        &["job", &job],
        &["explain", &job],
        &["wait", &job],
        &["logs", &job, "t"],
        &["explain", &job, &unknown],
        &["config", "get", EVIL],
        &["jobs", "--json"],
    ];
    for args in screens {
        // Long names would be shortened.
        let shown = on_terminal(place, 200, args);
        let pipe = place.call(args);
        if args[0] == "logs" {
            assert_harmless(&shown);
        } else {
            assert_whole_lines(&shown);
            assert_whole_lines(&told(&pipe));
        }
    }
    assert!(on_terminal(place, 200, &["job", &job]).contains("evil\\u{1b}[2J"));
    assert_eq!(
        place.ask(&["job", &job])["name"],
        EVIL,
        "JSON has the same value"
    );
    let pipe = place.call(&["logs", &job, "t"]);
    assert_eq!(
        text(&pipe.stdout),
        EVIL,
        "a pipe gets what the task printed"
    );
}

#[test]
fn a_waiting_client_is_told_for_what_and_when_that_changes() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::start(folder.path(), 0);
    let job = "[[task]]\nid = \"t\"\ncommand = [\"true\"]\nlabels = { room = \"12\" }\n";
    fs::write(grid.place.folder.join("job.toml"), job).unwrap();
    // Neither a pipe, nor JSON, nor a program's output, is a reason to be silent.
    let begun = Instant::now();
    let mut clients = [
        grid.place.start(&["submit", "--wait", "job.toml"]),
        grid.place
            .start(&["submit", "--wait", "job.toml", "--json"]),
        grid.place.start(&["submit", "--wait", "--", "true"]),
    ];
    for client in &clients {
        until("the client to hear that there is no worker", || {
            client
                .err()
                .contains("no worker is connected")
                .then_some(())
        });
    }
    println!("told after {:?}", begun.elapsed());
    let accepted = grid.place.call(&["submit", "job.toml"]);
    assert!(
        text(&accepted.stderr).contains("no worker is connected"),
        "{}",
        told(&accepted)
    );
    grid.add_worker(&["--label", "room=13"]);
    for client in &clients[..2] {
        until("the client to hear that no worker has the label", || {
            let err = client.err().replace("\\\"", "\"");
            err.contains("labelled room = \"12\", and none is; did you mean \"13\"?")
                .then_some(())
        });
    }
    grid.add_worker(&["--label", "room=12"]);
    for client in &mut clients {
        assert_eq!(client.end().code(), Some(0), "{}", client.told());
    }
}

#[test]
fn a_dumb_terminal_is_told_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let place = &grid.place;
    let job = "[[task]]\nid = \"t\"\ncommand = [\"true\"]\nresources = { cpus = 2 }\n";
    fs::write(place.folder.join("job.toml"), job).unwrap();
    std::thread::scope(|scope| {
        let shown = scope.spawn(|| {
            let args = ["submit", "--wait", "job.toml"];
            on_terminal_as(place, 40, &[("TERM", "dumb")], &args)
        });
        until("the job to be there", || {
            place
                .ask(&["jobs"])
                .as_array()
                .is_some_and(|jobs| !jobs.is_empty())
                .then_some(())
        });
        // Longer than it takes to be told.
        let begun = Instant::now();
        until("the client to wait", || {
            (begun.elapsed() > Duration::from_secs(4)).then_some(())
        });
        place.ask(&["cancel", "1"]);
        let shown = shown.join().unwrap();
        let why = "job waits: task \"t\" asks for cpus 2, and the most that any worker has is 1";
        assert!(shown.contains(why), "{shown}");
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    });
}

#[test]
fn run_refuses_at_once_what_this_machine_can_never_run() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    for (wants, why) in [
        (
            "resources = { memory = \"900 TiB\" }",
            "asks for memory 900 TiB, and this machine has",
        ),
        (
            "resources = { cpus = 5000 }",
            "asks for cpus 5000, and this machine has",
        ),
        (
            "resources = { gpus = 1 }",
            "asks for gpus 1, and workers of `hedge run` offer",
        ),
        (
            "labels = { room = \"12\" }",
            "labelled room = \"12\", and this machine is arch =",
        ),
    ] {
        let job = format!("[[task]]\nid = \"t\"\ncommand = [\"true\"]\n{wants}\n");
        fs::write(place.folder.join("job.toml"), job).unwrap();
        let output = place.call(&["run", "job.toml"]);
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
        assert!(text(&output.stderr).contains(why), "{}", told(&output));
        assert!(
            text(&output.stderr).contains("Nothing was started"),
            "{}",
            told(&output)
        );
    }
}

#[test]
fn run_gives_a_worker_what_the_largest_task_needs() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let info = fs::read_to_string("/proc/meminfo").unwrap();
    let total = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .unwrap();
    let total: u64 = total.trim().trim_end_matches(" kB").parse().unwrap();
    let job = format!(
        "[[task]]\nid = \"big\"\ncommand = [\"true\"]\nresources = {{ memory = \"{} KiB\" }}\n\
         [[task]]\nid = \"small\"\ncommand = [\"true\"]\nresources = {{ memory = \"1 MiB\" }}\n",
        total / 2
    );
    fs::write(place.folder.join("job.toml"), job).unwrap();
    let output = place.call(&["run", "job.toml", "--json"]);
    assert_eq!(json(&output)["state"], "done", "{}", told(&output));
}

#[test]
fn a_misspelled_resource_is_refused_with_the_right_one() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let job = "[[task]]\nid = \"t\"\ncommand = [\"true\"]\nresources = { cpu = 1 }\n";
    fs::write(place.folder.join("job.toml"), job).unwrap();
    let output = place.call(&["run", "job.toml"]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(
        text(&output.stderr).contains("did you mean `cpus`?"),
        "{}",
        told(&output)
    );
    let output = place.call(&["worker", "--resource", "mem=1"]);
    assert!(
        text(&output.stderr).contains("--memory"),
        "{}",
        told(&output)
    );
}

#[test]
fn tables_fit_the_terminal_and_keep_ids_whole() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 2);
    let place = &grid.place;
    let job = "name = \"a job with quite a long name that nobody needs\"\n[[task]]\nid = \"t\"\n\
               command = [\"sh\", \"-c\", \"echo x > out.txt\"]\noutputs = [\"out.txt\"]\n";
    fs::write(place.folder.join("job.toml"), job).unwrap();
    let job = place.submit("job.toml");
    assert_eq!(place.wait(&job)["state"], "done");
    let hash = place.ask(&["manifest", &job])["files"][0]["blake3"]
        .as_str()
        .unwrap()
        .to_owned();
    let workers = place.workers();
    let ids: Vec<&str> = workers
        .iter()
        .map(|one| &one["peer"].as_str().unwrap()[..10])
        .collect();
    let screens: [(&[&str], &[&str]); 6] = [
        (&["workers"], &ids),
        (&["jobs"], &["a job"]),
        (&["members"], &ids),
        (&["manifest", &job], &[&hash, "out.txt"]),
        (&["explain", &job, "t"], &["1.0/0.1.1"]),
        (&["cost", &job], &["useful"]),
    ];
    for (args, whole) in screens {
        let pipe = text(&place.call(args).stdout).to_owned();
        for columns in [80, 40] {
            let shown = on_terminal(place, columns, args);
            for word in whole {
                assert!(shown.contains(word), "{word} at {columns} columns: {shown}");
                assert!(pipe.contains(word), "{word}: {pipe}");
            }
            // A line of one word is as long as that; sentences are the terminal's to break.
            let table = shown.lines().skip_while(|line| !is_header(line));
            for line in
                table.filter(|line| line.trim().contains(' ') && !line.contains(" in all, "))
            {
                assert!(
                    line.chars().count() <= columns.into(),
                    "{columns}: {line:?} in {shown}"
                );
            }
        }
    }
    let pipe = text(&place.call(&["workers"]).stdout).to_owned();
    assert!(pipe.lines().next().unwrap().contains("OFFERS"), "{pipe}");
}

fn is_header(line: &str) -> bool {
    let words = line.split_whitespace();
    line.contains(' ')
        && words.clone().count() > 1
        && words.flat_map(str::chars).all(|c| !c.is_lowercase())
}

#[test]
fn the_end_of_a_worker_is_told_in_words_and_nothing_else_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let mut run = place.start(&["run", "--workers", "2", "--", "sleep", "4"]);
    let children = format!("/proc/{0}/task/{0}/children", run.pid());
    let worker = until("a worker", || {
        let children = fs::read_to_string(&children).unwrap_or_default();
        children.split_whitespace().next()?.parse().ok()
    });
    common::signal(worker, "-9");
    until("the end to be told", || {
        let told = "ended (signal: 9 (SIGKILL)); another is started in its place";
        run.err().contains(told).then_some(())
    });
    assert_eq!(run.end().code(), Some(0), "{}", run.told());
    let said = run.err();
    assert!(
        !said.contains("ExitStatus") && !said.contains("relay_recv"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn run_says_at_once_that_there_is_no_network_interface() {
    let folder = tempfile::tempdir().unwrap();
    // A network namespace begins with a loopback interface that is down.
    let place = Place::behind(&["unshare", "--net"], folder.path());
    let output = place.call(&["run", "--", "true"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let said = text(&output.stderr);
    assert!(
        said.contains("talk over the loopback interface") && said.contains("ip link set lo up"),
        "{said}"
    );
}
