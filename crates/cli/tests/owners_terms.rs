//! What owners allow tasks and tasks ask for: shared folders, the network; tasks that run only once, tasks that get more
//! memory, and values of parameters in what people are shown.

mod common;

use common::tasks::{Marks, attempts, count, submit_and_wait, task};
use common::{Grid, Place, json, text, told, until};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn write(place: &Place, job: &str) {
    fs::write(place.folder.join("job.toml"), job).unwrap();
}

fn why(place: &Place, job: &str, task: &str) -> Value {
    place.ask(&["explain", job, task])["tasks"][0].clone()
}

/// A folder outside of all that tasks see, in which everybody may write.
fn open_folder() -> (tempfile::TempDir, PathBuf) {
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().canonicalize().unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let shared = path.join("data");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(shared.join("in"), "from the owner\n").unwrap();
    fs::write(path.join("secret"), "secret").unwrap();
    (outside, shared)
}

#[test]
fn a_task_sees_the_shared_folder_that_it_asks_for_and_goes_only_where_it_is() {
    let (outside, shared) = open_folder();
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::start(folder.path(), 1);
    let path = shared.display();
    let script = format!(
        "cat {path}/in && cd {path} && echo made > made-$HEDGE_TASK_ID; cat {}/secret",
        outside.path().display()
    );
    let asks = task("asks", &script, "shares = [\"data\"]");
    write(&grid.place, &asks);
    let id = grid.place.submit("job.toml");
    let waits = "task \"asks\" needs the shared folder \"data\", and no worker has it";
    until("the task to say why it waits", || {
        (grid.place.ask(&["job", &id])["waits"][0] == waits).then_some(())
    });
    grid.add_worker(&["--share", &format!("data={path}")]);
    let view = grid.place.wait(&id);
    assert_eq!(view["state"], "failed", "the secret is not there: {view}");
    assert_eq!(
        view["attempts"]["total"], 1,
        "no retry unless it says so: {view}"
    );
    let printed = grid.place.call(&["logs", &id, "asks"]);
    assert!(
        told(&printed).contains("from the owner"),
        "{}",
        told(&printed)
    );
    assert_eq!(
        fs::read_to_string(shared.join("made-asks")).unwrap(),
        "made\n"
    );
    let workers = grid.place.workers();
    let shares: Vec<&Value> = workers.iter().map(|worker| &worker["shares"]).collect();
    assert!(shares.contains(&&serde_json::json!(["data"])), "{shares:?}");
    let listed = grid.place.call(&["workers"]);
    assert!(told(&listed).contains("shares data"), "{}", told(&listed));
    // One that does not ask sees nothing of it, on that worker too.
    let script = format!("test ! -e {path}");
    let others = task("other", &script, "array = \"0..8\"");
    let output = submit_and_wait(&grid.place, &others, &["--json"]);
    assert_eq!(json(&output)["done"], 8, "{}", told(&output));
    // The same from the command line.
    let read = format!("{path}/in");
    let output = grid.place.call(&[
        "submit",
        "--wait",
        "--uses-share",
        "data",
        "--",
        "cat",
        &read,
    ]);
    assert_eq!(
        text(&output.stdout),
        "from the owner\n",
        "{}",
        told(&output)
    );
}

#[test]
fn a_task_starts_in_the_shared_folder_that_it_names_and_leaves_its_outputs_in_its_own() {
    let (_outside, shared) = open_folder();
    fs::create_dir(shared.join("below")).unwrap();
    fs::write(
        shared.join("below/hello"),
        "#!/bin/sh\necho hello from $PWD\n",
    )
    .unwrap();
    let all = fs::Permissions::from_mode(0o755);
    fs::set_permissions(shared.join("below/hello"), all).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let place = shared.display();
    let grid = Grid::with(folder.path(), 1, &["--share", &format!("data={place}")]);
    fs::write(grid.place.folder.join("given"), "given").unwrap();
    let script = "cat in; ls; ./below/hello > $HOME/out; cat $HOME/given >> $HOME/out";
    let more = "shares = [\"data\"]\ncwd = \"data\"\ninputs = [\"given\"]\noutputs = [\"out\"]";
    let output = submit_and_wait(&grid.place, &task("t", script, more), &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let id = json(&output)["job"].to_string();
    let printed = grid.place.call(&["logs", &id, "t"]);
    assert_eq!(text(&printed.stdout), "from the owner\nbelow\nin\n");
    let fetched = grid.place.call(&["fetch", &id, "--out", "results"]);
    assert!(fetched.status.success(), "{}", told(&fetched));
    let out = fs::read_to_string(grid.place.folder.join("results/out")).unwrap();
    assert_eq!(out, format!("hello from {place}\ngiven"));
    // The same from the command line, below it.
    let run = |cwd: &str| {
        let args = ["submit", "--wait", "--uses-share", "data", "--cwd", cwd];
        grid.place.call(&[&args[..], &["--", "./hello"]].concat())
    };
    let output = run("data/below");
    let from = format!("hello from {place}/below\n");
    assert_eq!(text(&output.stdout), from, "{}", told(&output));
    let said = told(&run("data/absent"));
    assert!(
        said.contains("the folder in `cwd` cannot be entered: No such file"),
        "{said}"
    );
    let said = told(&run("dta"));
    assert!(
        said.contains("is in no shared folder that the task uses"),
        "{said}"
    );
}

#[test]
fn a_shared_folder_to_read_cannot_be_changed() {
    let (_outside, shared) = open_folder();
    let folder = tempfile::tempdir().unwrap();
    let path = shared.display();
    let grid = Grid::with(folder.path(), 1, &["--share", &format!("data={path}:ro")]);
    let script = format!(
        "cat {path}/in > got; echo x > {path}/out && exit 7; rm {path}/in && exit 8; exit 0"
    );
    let job = task("t", &script, "shares = [\"data\"]\noutputs = [\"got\"]");
    let output = submit_and_wait(&grid.place, &job, &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(shared.join("in").exists() && !shared.join("out").exists());
    assert_eq!(grid.place.workers()[0]["shares"][0], "data:ro");
}

#[test]
fn a_worker_says_what_cannot_be_shared() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 0);
    let ticket = grid.place.ticket("worker");
    let dir = grid.worker_dir(0);
    let own = format!("own={}", folder.path().display());
    for (shares, code, what) in [
        (&["data"][..], 2, "write NAME=/path, or NAME=/path:ro"),
        (
            &["a b=/srv"][..],
            2,
            "cannot be the name of a shared folder",
        ),
        (&["data=srv"][..], 2, "is no absolute path"),
        (&["data=/not/there"][..], 2, "/not/there"),
        (&["data=/usr"][..], 2, "or see it anyway"),
        (&["data=/root", "data=/srv"][..], 2, "is given twice"),
        (&[own.as_str()][..], 1, "the worker's own files are in"),
    ] {
        let mut args = vec!["worker", "--join", &ticket, "--dir", dir.to_str().unwrap()];
        shares
            .iter()
            .for_each(|share| args.extend(["--share", *share]));
        let output = grid.place.call(&args);
        let said = told(&output);
        assert!(said.contains(what), "{shares:?}: {said}");
        assert!(!output.status.success() && (code == 1 || output.status.code() == Some(code)));
    }
}

#[test]
fn a_task_gets_the_network_that_it_asks_for_if_the_owner_allows_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::start(folder.path(), 1);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "bash -c 'echo hi > /dev/tcp/127.0.0.1/{port}' 2> /dev/null && echo machine; \
         python3 -c 'import socket; l = socket.create_server((\"127.0.0.1\", 0)); \
         socket.create_connection(l.getsockname())' 2> /dev/null && echo loopback; true"
    );
    let all = |name: &str| task(name, &script, &format!("network = {name:?}"));
    write(
        &grid.place,
        &[all("none"), all("loopback"), all("any")].concat(),
    );
    let id = grid.place.submit("job.toml");
    until(
        "the task that needs more than the owner allows to say so",
        || {
            let waits = grid.place.ask(&["job", &id])["waits"].to_string();
            let allows = "no worker allows that: it takes `hedge worker --allow-network`";
            waits.contains(allows).then_some(())
        },
    );
    grid.add_worker(&["--allow-network"]);
    assert_eq!(grid.place.wait(&id)["state"], "done");
    let printed = |task: &str| {
        let output = grid.place.call(&["logs", &id, task]);
        text(&output.stdout).to_owned()
    };
    // A sandbox without namespaces has no loopback interface of its own.
    let own = printed("loopback");
    assert!(own == "loopback\n" || own.is_empty(), "{own}");
    assert_eq!(printed("none"), "");
    assert_eq!(printed("any"), "machine\nloopback\n");
    let output = grid.place.call(&[
        "submit",
        "--wait",
        "--network",
        "any",
        "--",
        "sh",
        "-c",
        &script,
    ]);
    assert_eq!(
        text(&output.stdout),
        "machine\nloopback\n",
        "{}",
        told(&output)
    );
}

#[test]
fn a_task_that_may_not_run_again_ends_as_lost_and_is_told_apart_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let mut grid = Grid::with(folder.path(), 1, &["--no-sandbox"]);
    let pays = marks.task("pays", "", "rerun = false");
    let fails = task(
        "fails",
        "exit 3",
        "deps = [\"begins\"]\nretries = 0\nresources = { cpus = 0 }",
    );
    let begins = task("begins", "true", "resources = { cpus = 0 }");
    let after = task("after", "true", "deps = [\"pays\"]");
    write(&grid.place, &[pays, begins, fails, after].concat());
    let id = grid.place.submit("job.toml");
    marks.await_starts("pays", 1);
    until("the other task to fail", || {
        (grid.place.ask(&["job", &id])["failed"] == 1).then_some(())
    });
    grid.add_worker(&["--no-sandbox"]);
    grid.place.await_workers(2);
    grid.workers[0].signal("-9");
    let view = grid.place.wait(&id);
    let counts = ["done", "failed", "lost", "skipped"].map(|key| view[key].as_u64().unwrap());
    assert_eq!((&view["state"], counts), (&"failed".into(), [1, 1, 1, 1]));
    assert_eq!(marks.starts("pays"), 1, "it did not run elsewhere");
    let shown = |args: &[&str]| told(&grid.place.call(args));
    assert!(shown(&["job", &id]).contains("1 failed, 1 lost, 1 skipped"));
    assert!(shown(&["jobs"]).contains("1, 1 lost"));
    assert!(shown(&["wait", &id]).contains("1 failed, 1 lost, 1 skipped"));
    let why = "rerun = false keeps it from running again";
    assert!(shown(&["explain", &id, "pays"]).contains(why));
    let failed = grid.place.call(&["tasks", &id, "--failed", "--json"]);
    let states = text(&failed.stdout).lines().map(|line| {
        let task: Value = serde_json::from_str(line).unwrap();
        format!(
            "{} {}",
            task["task"].as_str().unwrap(),
            task["state"].as_str().unwrap()
        )
    });
    assert_eq!(states.collect::<Vec<_>>(), ["pays lost", "fails failed"]);
    // A person may let it run again.
    marks.let_go("pays");
    let retried = grid.place.call(&["retry", &id]);
    assert!(retried.status.success(), "{}", told(&retried));
    until("the task to be done after all", || {
        let done = grid.place.ask(&["explain", &id, "pays"])["tasks"][0]["state"].clone();
        (done == "done").then_some(())
    });
    assert_eq!(marks.starts("pays"), 2);
}

#[test]
fn a_task_that_reached_its_memory_limit_runs_again_with_more() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let script = "exec python3 -c 'x = bytes(90 << 20) + b\"1\"; import time; time.sleep(0.5)'";
    let more = "resources = { memory = \"40 MiB\" }\nretry_memory = [1, 1.5, 6]";
    let output = submit_and_wait(&grid.place, &task("t", script, more), &["--json"]);
    let view = json(&output);
    assert_eq!(view["state"], "done", "{}", told(&output));
    assert_eq!(
        (&view["attempts"]["total"], &view["attempts"]["failed"]),
        (&3.into(), &2.into())
    );
    let job = view["job"].to_string();
    let attempts = attempts(&grid.place, &job, "t");
    let ends: Vec<String> = attempts.iter().map(|one| one["why"].to_string()).collect();
    assert!(
        ends[0].contains("memory limit of 40 MiB exceeded"),
        "{ends:?}"
    );
    assert!(
        ends[1].contains("memory limit of 60 MiB exceeded"),
        "{ends:?}"
    );
    assert_eq!(count(&attempts, "state", "won"), 1);
    // Beyond what any worker has it waits, and says so.
    let more = "resources = { memory = \"40 MiB\" }\nretry_memory = [1, 1000]\nretries = 9";
    let script = "exec python3 -c 'x = bytes(90 << 20) + b\"1\"; import time; time.sleep(60)'";
    write(&grid.place, &task("big", script, more));
    let id = grid.place.submit("job.toml");
    let task = until("the task to wait", || {
        let task = why(&grid.place, &id, "big");
        task["why"]
            .as_str()?
            .contains("asks for memory 39.1 GiB")
            .then_some(task)
    });
    assert_eq!(task["memory_raised"], 40_000_u64 << 20);
    let shown = grid.place.call(&["explain", &id, "big"]);
    assert!(
        told(&shown).contains("39.1 GiB for its next attempt"),
        "{}",
        told(&shown)
    );
}

#[test]
fn people_are_shown_the_values_of_a_tasks_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let job = "[[task]]\nid = \"t\"\neach = { lr = [0.1, 0.01], seed = \"0..2\" }\n\
               command = [\"sh\", \"-c\", 'test \"$0\" != 0.01', \"${lr}\"]\nretries = 0\n\
               [[task]]\nid = \"plain\"\ncommand = [\"true\"]\n";
    write(&grid.place, job);
    let id = grid.place.submit("job.toml");
    assert_eq!(grid.place.wait(&id)["state"], "failed");
    let listed = told(&grid.place.call(&["tasks", &id]));
    assert!(listed.contains("PARAMETERS"), "{listed}");
    assert!(listed.contains("lr=0.01 seed=1"), "{listed}");
    let task = why(&grid.place, &id, "t.2");
    assert_eq!(
        task["parameters"],
        serde_json::json!({ "lr": "0.01", "seed": "0" })
    );
    let shown = told(&grid.place.call(&["explain", &id, "t.2"]));
    assert!(shown.contains("parameters lr=0.01 seed=0"), "{shown}");
    let plain = submit_and_wait(
        &grid.place,
        "[[task]]\nid = \"t\"\ncommand = [\"true\"]\n",
        &["--json"],
    );
    let plain = json(&plain)["job"].to_string();
    assert!(!told(&grid.place.call(&["tasks", &plain])).contains("PARAMETERS"));
}

#[test]
fn what_a_job_file_cannot_ask_for_is_told_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    for (line, at, what) in [
        (
            "shares = [\"a b\"]",
            "job.toml:4:11",
            "cannot be the name of a shared folder",
        ),
        ("shares = [\"a\", \"a\"]", "job.toml:4:16", "is named twice"),
        ("shares = \"a\"", "job.toml:4:10", "must be a list"),
        (
            "network = \"grid\"",
            "job.toml:4:11",
            "is no kind of network access",
        ),
        ("rerun = \"no\"", "job.toml:4:9", "must be true or false"),
        (
            "redundancy = \"critical\"",
            "job.toml:4:14",
            "is no redundancy of a task",
        ),
        (
            "rerun = false\nredundancy = \"job\"",
            "job.toml:5:14",
            "a second time",
        ),
        (
            "retry_memory = [1, 2]",
            "job.toml:4:16",
            "multiplies the memory",
        ),
        (
            "retry_memory = [1, 0]",
            "job.toml:4:20",
            "from 0.001 to 1000",
        ),
        (
            "resources = { memory = \"1 MiB\" }\nretry_memory = [2, 1]",
            "job.toml:5:20",
            "smaller than the one before it",
        ),
    ] {
        let job = format!("[[task]]\nid = \"t\"\ncommand = [\"true\"]\n{line}\n");
        fs::write(place.folder.join("job.toml"), job).unwrap();
        let output = place.call(&["run", "job.toml"]);
        // Long lines are wrapped beside a rule.
        let said = told(&output).replace('│', " ");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(2), "{line}: {said}");
        assert!(said.contains(at) && said.contains(what), "{line}: {said}");
    }
    let wrong = place.call(&["run", "--network", "grid", "--", "true"]);
    assert!(
        told(&wrong).contains("write none, loopback, any"),
        "{}",
        told(&wrong)
    );
    assert!(!Path::new(&place.folder.join("state/hedgerow/worker")).exists());
}
