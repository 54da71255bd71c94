//! How clients, workers, supervisors and whole runs end: killed, interrupted, told to stop, drained. Jobs go on
//! where they can, people are told, and nothing is left behind.

mod common;

use common::lab::Lab;
use common::tasks::{Marks, attempts, count, processes_below, workers_of};
use common::{Grid, Place, ended, json, signal, text, told, until};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const NO_COPIES: &str = "[qos]\nredundancy = \"none\"\n";

fn spawn(command: &mut Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn write_job(place: &Place, parts: &[&str]) {
    fs::write(place.folder.join("job.toml"), parts.concat()).unwrap();
}

/// The grid's only busy worker, by its place in the grid.
fn busy(grid: &Grid) -> usize {
    until("a busy worker", || {
        let views = grid.place.workers();
        let busy = views.iter().find(|view| view["in_hand"] == 1)?;
        let pid = busy["pid"].as_u64()? as u32;
        grid.workers.iter().position(|worker| worker.pid() == pid)
    })
}

fn await_nothing_below(folder: &Path) {
    until("all processes to end", || {
        processes_below(folder).is_empty().then_some(())
    });
}

/// `hedge run` with a folder for temporary files of its own.
fn run(place: &Place, args: &[&str]) -> (Child, PathBuf) {
    let temporary = place.folder.join("tmp");
    fs::create_dir_all(&temporary).unwrap();
    let mut command = place.hedge(&[&["run"], args].concat());
    // As a terminal does it: a group of its own, which Ctrl-C reaches as a whole.
    command.env("TMPDIR", &temporary).process_group(0);
    (spawn(&mut command), temporary)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).unwrap();
    all.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_picture_is_the_same_when_workers_of_a_run_are_killed_and_frozen() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/deepzoom");
    let job = fs::read_to_string(example.join("small.toml")).unwrap();
    fs::copy(example.join("deepzoom"), folder.path().join("deepzoom")).unwrap();
    write_job(&place, &[&job.replace("\"20000\"", "\"4000\"")]);
    let picture = |args: &[&str], disturb: &dyn Fn(&Child, &Path)| {
        let (child, temporary) = run(&place, &[&["job.toml", "--json", "--out"], args].concat());
        disturb(&child, &temporary);
        let output = ended(child, "run");
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        assert_eq!(entries(&temporary), Vec::<PathBuf>::new());
        await_nothing_below(&temporary);
        let path = place.folder.join(args[0]).join("zoom.png");
        (json(&output), fs::read(path).unwrap())
    };
    let (view, calm) = picture(&["calm"], &|_, _| ());
    assert_eq!(
        (&view["state"], &view["tasks"]),
        (&"done".into(), &49.into())
    );
    let (view, disturbed) = picture(&["disturbed"], &|_, temporary| {
        // A third of the tiles have begun.
        until("the middle of the run", || {
            let begun = processes_with_arguments(temporary, &["./deepzoom", "render", "--index"]);
            let index = |line: &Vec<String>| line.iter().position(|word| word == "--index");
            let late = begun.iter().any(|(_, line)| {
                index(line).is_some_and(|at| line[at + 1].parse::<u32>().unwrap() >= 16)
            });
            late.then_some(())
        });
        let workers = processes_with_arguments(temporary, &["worker", "--join"]);
        assert_eq!(workers.len(), 4, "{workers:?}");
        signal(workers[0].0, "-9");
        signal(workers[1].0, "-STOP");
    });
    let made = |key: &str| view["attempts"][key].as_u64().unwrap();
    assert_eq!(view["state"], "done", "{view}");
    assert!(made("lost") > 0, "{view}");
    // Whatever was made beyond one attempt a task was a copy, or stood for something that was lost.
    assert!(
        made("total") <= 49 + made("redundant") + made("lost") + made("outputs_lost"),
        "{view}"
    );
    assert!(calm == disturbed, "the pictures differ");
}

/// Processes below a folder that have these among their arguments, with all of them.
fn processes_with_arguments(folder: &Path, words: &[&str]) -> Vec<(u32, Vec<String>)> {
    let line = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.split('\0').map(str::to_owned).collect::<Vec<_>>()
    };
    let all = processes_below(folder).into_iter();
    let all = all.map(|pid| (pid, line(&pid)));
    all.filter(|(_, line)| {
        words
            .iter()
            .all(|word| line.iter().any(|other| other == word))
    })
    .collect()
}

#[test]
fn ctrl_c_ends_a_run_with_all_its_processes() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let marks = Marks::new(folder.path());
    write_job(&place, &[&marks.task("t", "", "array = \"0..6\"")]);
    let (child, temporary) = run(&place, &["--no-sandbox", "job.toml"]);
    marks.await_starts("t.0", 1);
    let group = format!("-{}", child.id());
    let sent = Command::new("kill").args(["-INT", "--", &group]).status();
    assert!(sent.unwrap().success());
    let output = ended(child, "run");
    assert_eq!(output.status.code(), Some(5), "{}", told(&output));
    assert!(text(&output.stderr).contains("cancel"), "{}", told(&output));
    assert_eq!(entries(&temporary), Vec::<PathBuf>::new());
    marks.await_no_processes();
    await_nothing_below(&temporary);
}

#[test]
fn a_run_that_is_killed_takes_its_workers_and_tasks_along() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let marks = Marks::new(folder.path());
    write_job(&place, &[&marks.task("t", "", "array = \"0..6\"")]);
    let (mut child, temporary) = run(&place, &["--no-sandbox", "job.toml"]);
    marks.await_starts("t.0", 1);
    signal(child.id(), "-9");
    child.wait().unwrap();
    marks.await_no_processes();
    await_nothing_below(&temporary);
    // Its folder could not be removed by itself; the next run does that.
    let (child, _) = run(&place, &["--", "true"]);
    assert_eq!(ended(child, "run").status.code(), Some(0));
    assert_eq!(entries(&temporary), Vec::<PathBuf>::new());
}

#[test]
fn a_large_result_of_a_run_is_one_file_at_worker_and_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let marks = Marks::new(folder.path());
    let make = "[[task]]\nid = \"make\"\noutputs = [\"out\"]\n\
                command = [\"sh\", \"-c\", \"head -c 3000000 /dev/urandom > out\"]\n";
    write_job(&place, &[NO_COPIES, make, &marks.task("hold", "", "")]);
    let (child, temporary) = run(&place, &["--no-sandbox", "job.toml", "--out", "results"]);
    let blobs = |peer: &Path| {
        let shards = fs::read_dir(peer.join("content/blobs"))
            .into_iter()
            .flatten();
        let files = shards.flat_map(|shard| entries(&shard.unwrap().path()));
        let inodes = files.filter_map(|file| Some(file.metadata().ok()?.ino()));
        inodes.collect::<BTreeSet<u64>>()
    };
    until("both to have the result", || {
        let run = entries(&temporary).pop()?;
        let supervisor = blobs(&run.join("supervisor"));
        let of_worker = |number| blobs(&run.join(format!("worker-{number}/worker")));
        let shared = |number| !supervisor.is_disjoint(&of_worker(number));
        (0..4).any(shared).then_some(())
    });
    marks.let_go("hold");
    assert_eq!(ended(child, "run").status.code(), Some(0));
    let out = fs::metadata(folder.path().join("results/out")).unwrap();
    assert_eq!(out.len(), 3_000_000);
}

#[test]
fn a_job_goes_on_when_its_client_vanishes() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let grid = Grid::with(folder.path(), 1, &["--no-sandbox"]);
    let task = marks.task("t", "echo made > made", "outputs = [\"made\"]");
    write_job(&grid.place, &[&task]);
    let client = grid.place.start(&["submit", "--wait", "job.toml"]);
    marks.await_starts("t", 1);
    client.signal("-9");
    drop(client);
    marks.let_go("t");
    let args = ["wait", "1", "--out", "got", "--json"];
    let view = json(&grid.place.call(&args));
    assert_eq!(view["state"], "done", "{view}");
    assert_eq!(
        fs::read_to_string(folder.path().join("got/made")).unwrap(),
        "made\n"
    );
    assert_eq!(marks.starts("t"), 1);
}

#[test]
fn a_client_that_vanishes_while_it_sends_its_inputs_leaves_no_job() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::new(2);
    let place = lab.place(0, &folder.path().join("supervisor"));
    let _supervisor = place.supervisor(&format!("{}:0", lab.address(0)));
    let client = lab.place(1, &folder.path().join("client"));
    let ticket = place.ticket("client");
    fs::write(client.folder.join("big"), vec![7; 8 << 20]).unwrap();
    let job = "[[task]]\nid = \"t\"\ncommand = [\"true\"]\ninputs = [\"big\"]\n";
    write_job(&client, &[job]);
    // 8 MiB take 8 s.
    lab.slow(0, "8mbit");
    let key = "000102030405060708090a0b0c0d0e0f";
    let args = ["submit", "job.toml", "--join", &ticket, "--key", key];
    let mut vanishing = client.start(&args);
    let (before, _) = lab.traffic(0);
    until("the inputs to be on their way", || {
        assert!(vanishing.running(), "{}", vanishing.told());
        (lab.traffic(0).0 > before + 1_000_000).then_some(())
    });
    vanishing.signal("-9");
    drop(vanishing);
    assert_eq!(place.ask(&["jobs"]).as_array().unwrap().len(), 0);
    lab.slow(0, "10gbit");
    let again = client.ask(&args);
    assert_eq!(again["job"], 1, "{again}");
    assert_eq!(place.ask(&["jobs"]).as_array().unwrap().len(), 1);
}

#[test]
fn two_submissions_of_one_key_at_once_are_one_job() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let grid = Grid::with(folder.path(), 2, &["--no-sandbox"]);
    write_job(&grid.place, &[NO_COPIES, &marks.task("t", "", "")]);
    let key = "101112131415161718191a1b1c1d1e1f";
    let args = ["submit", "job.toml", "--wait", "--json", "--key", key];
    let both = [(); 2].map(|()| spawn(&mut grid.place.hedge(&args)));
    marks.await_starts("t", 1);
    marks.let_go("t");
    for child in both {
        let output = ended(child, "submit");
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        assert_eq!(json(&output)["job"], 1);
    }
    assert_eq!(grid.place.submit("job.toml"), "2", "a key of its own");
    let late = json(&grid.place.call(&args));
    assert_eq!((&late["job"], &late["state"]), (&1.into(), &"done".into()));
    assert_eq!(grid.place.ask(&["jobs"]).as_array().unwrap().len(), 2);
}

#[test]
fn everybody_goes_on_when_a_supervisor_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let mut grid = Grid::with(folder.path(), 1, &["--no-sandbox"]);
    let tasks = [
        marks.task("t", "", ""),
        marks.task("next", "", "deps = [\"t\"]"),
    ];
    write_job(&grid.place, &[NO_COPIES, &tasks.concat()]);
    let mut client = grid.place.start(&["submit", "--wait", "job.toml"]);
    marks.await_starts("t", 1);
    grid.supervisor.signal("-TERM");
    assert_eq!(grid.supervisor.end().code(), Some(0));
    let worker = &grid.workers[0];
    until("the worker to say so", || {
        // By the supervisor's word, or by the tripwire, whichever is first.
        worker.err().contains("connection closed").then_some(())
    });
    // What ends while nobody is there to hear of it is told later.
    marks.let_go("t");
    until("the end of the first task", || {
        marks.finished().contains_key("t").then_some(())
    });
    grid.supervisor = grid.place.supervisor("127.0.0.1:0");
    marks.await_starts("next", 1);
    marks.let_go("next");
    assert_eq!(client.end().code(), Some(0), "{}", client.told());
    assert_eq!((marks.starts("t"), marks.starts("next")), (1, 1));
    let output = grid.place.call(&["submit", "--wait", "--", "echo", "hi"]);
    assert_eq!(text(&output.stdout), "hi\n", "{}", told(&output));
}

#[test]
fn clients_say_when_no_supervisor_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let mut grid = Grid::with(folder.path(), 1, &["--no-sandbox"]);
    write_job(&grid.place, &[&marks.task("t", "", "")]);
    let mut client = grid.place.start(&["submit", "--wait", "job.toml"]);
    marks.await_starts("t", 1);
    let mut impatient = grid.place.start(&["wait", "1"]);
    until("the second client to show progress", || {
        impatient.err().contains("1 running").then_some(())
    });
    grid.supervisor.signal("-9");
    until("the client to say that it tries again", || {
        impatient.err().contains("trying again").then_some(())
    });
    impatient.signal("-INT");
    assert_eq!(impatient.end().code(), Some(5), "{}", impatient.told());
    assert_eq!(client.end().code(), Some(3), "{}", client.told());
    assert!(client.err().contains("hedge wait 1"), "{}", client.told());
    // A worker without a supervisor can be stopped: its task has its time to end, once more ends it at once.
    let worker = &mut grid.workers[0];
    worker.signal("-TERM");
    until("the worker to say that it leaves", || {
        worker.err().contains("leaving when").then_some(())
    });
    assert!(worker.running());
    worker.signal("-TERM");
    assert_eq!(worker.end().code(), Some(5), "{}", worker.told());
    marks.await_no_processes();
}

#[test]
fn a_worker_told_to_stop_finishes_what_runs_there() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let mut grid = Grid::with(folder.path(), 1, &["--no-sandbox"]);
    write_job(
        &grid.place,
        &[NO_COPIES, &marks.task("t", "", "array = \"0..2\"")],
    );
    let job = grid.place.submit("job.toml");
    marks.await_starts("t.0", 1);
    grid.workers[0].signal("-TERM");
    until("the worker to drain", || {
        (grid.place.workers()[0]["usage"] == "draining").then_some(())
    });
    marks.let_go("t.0");
    assert_eq!(grid.workers[0].end().code(), Some(0));
    let view = grid.place.ask(&["job", &job]);
    assert_eq!(
        (&view["state"], &view["done"]),
        (&"waiting".into(), &1.into())
    );
    assert_eq!(marks.starts("t.1"), 0, "a draining worker starts nothing");
    marks.let_go("t.1");
    grid.add_worker(&["--no-sandbox"]);
    assert_eq!(grid.place.wait(&job)["state"], "done");
    assert_eq!(marks.starts("t.0"), 1);
}

#[test]
fn what_runs_on_a_worker_told_to_stop_is_begun_elsewhere_too() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let mut grid = Grid::with(folder.path(), 2, &["--no-sandbox"]);
    write_job(&grid.place, &[NO_COPIES, &marks.task("t", "", "")]);
    let job = grid.place.submit("job.toml");
    let first = marks.await_starts("t", 1);
    let leaving = busy(&grid);
    grid.workers[leaving].signal("-TERM");
    marks.await_starts("t", 2);
    let all = attempts(&grid.place, &job, "t");
    assert_eq!(workers_of(&all).len(), 2, "{all:?}");
    let other = all.iter().find(|one| one["attempt"] != *first[0]).unwrap();
    marks.let_one_go("t", other["attempt"].as_str().unwrap());
    assert_eq!(grid.place.wait(&job)["state"], "done");
    // Its own attempt is not needed any more.
    let leaving = &mut grid.workers[leaving];
    assert_eq!(leaving.end().code(), Some(0), "{}", leaving.told());
    assert_eq!(marks.finished()["t"].len(), 1);
    marks.await_no_processes();
}

#[test]
fn a_drained_worker_hands_over_what_only_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let mut grid = Grid::with(folder.path(), 2, &["--no-sandbox"]);
    let tasks = [
        marks.task(
            "early",
            "head -c 300000 /dev/urandom > early",
            "outputs = [\"early\"]",
        ),
        marks.task("middle", "", "deps = [\"early\"]"),
        marks.task(
            "last",
            "wc -c < early > size",
            "deps = [\"middle\"]\ninputs = [{ task = \"early\" }]\noutputs = [\"size\"]",
        ),
    ];
    write_job(&grid.place, &[NO_COPIES, &tasks.concat()]);
    let job = grid.place.submit("job.toml");
    marks.await_starts("early", 1);
    let holder = busy(&grid);
    marks.let_go("early");
    marks.await_starts("middle", 1);
    let pid = grid.workers[holder].pid();
    let views = grid.place.workers();
    let view = views.iter().find(|view| view["pid"] == pid).unwrap();
    let output = grid.place.call(&["drain", view["peer"].as_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    // The middle task may run on that worker: then it runs elsewhere as well, or ends there.
    let name = view["peer"].as_str().unwrap();
    let there = attempts(&grid.place, &job, "middle");
    let there = there.iter().find(|one| {
        let worker = one["worker"].as_str().unwrap().split(' ').next().unwrap();
        name.starts_with(worker)
    });
    if let Some(one) = there {
        marks.let_one_go("middle", one["attempt"].as_str().unwrap());
    }
    assert_eq!(grid.workers[holder].end().code(), Some(0));
    marks.let_go("middle");
    marks.let_go("last");
    let view = grid.place.wait(&job);
    assert_eq!(view["state"], "done", "{view}");
    assert_eq!(view["attempts"]["outputs_lost"], 0, "{view}");
    assert_eq!(marks.starts("early"), 1);
    assert_eq!(
        count(&attempts(&grid.place, &job, "early"), "state", "won"),
        1
    );
    grid.place.ask(&["fetch", &job, "--out", "got"]);
    let size = fs::read_to_string(folder.path().join("got/size")).unwrap();
    assert_eq!(size.trim(), "300000");
}
