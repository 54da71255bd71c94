//! Results reach the user whole, or he is told what is missing and where it is: printed text, listed files, and what a
//! job on this machine alone leaves where it fails, is interrupted, or cannot write.

mod common;

use common::tasks::Marks;
use common::{Grid, Kept, Place, ended, json, signal, text, told, until};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

const KEPT: usize = 64 << 20;

fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A job of one task that runs a line of shell.
fn job(name: &str, line: &str, outputs: &str) -> String {
    format!(
        "name = \"{name}\"\n[[task]]\nid = \"make\"\ncommand = [\"sh\", \"-c\", '''{line}''']\noutputs = {outputs}\n"
    )
}

/// Names of all files below a folder, parts of unfinished ones included.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(at) = waiting.pop() {
        for entry in fs::read_dir(at).into_iter().flatten().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => waiting.push(entry.path()),
                false => found.push(
                    entry
                        .path()
                        .strip_prefix(folder)
                        .unwrap()
                        .display()
                        .to_string(),
                ),
            }
        }
    }
    found.sort();
    found
}

/// The folder that a message names.
fn folder_in(message: &str) -> PathBuf {
    let at = message
        .find("hedge-results-")
        .unwrap_or_else(|| panic!("no folder: {message}"));
    let from = message[..at].rfind(' ').unwrap() + 1;
    let to = message[at..]
        .find([' ', ':', ';', '\n'])
        .map_or(message.len(), |to| at + to);
    message[from..to].into()
}

#[test]
fn what_a_program_prints_is_there_at_once_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 2);
    for round in 0..10 {
        let args = [
            "submit",
            "--wait",
            "--",
            "head",
            "-c",
            "4000",
            "/dev/urandom",
        ];
        let output = grid.place.call(&args);
        assert_eq!(
            output.status.code(),
            Some(0),
            "round {round}: {}",
            told(&output)
        );
        assert_eq!(output.stdout.len(), 4000, "round {round}");
    }
    // Of a task that failed, whose worker has it at first.
    for round in 0..5 {
        let line = "head -c 4000 /dev/urandom >&2; exit 3";
        let output = grid
            .place
            .call(&["submit", "--wait", "--", "sh", "-c", line]);
        assert_eq!(
            output.status.code(),
            Some(1),
            "round {round}: {}",
            told(&output)
        );
        assert!(
            output.stderr.len() >= 4000,
            "round {round}: {}",
            told(&output)
        );
    }
}

#[test]
fn long_output_is_whole_and_what_is_too_long_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let whole: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    let output = place.call(&["run", "--", "seq", "1", "200000"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout) == whole,
        "{} bytes",
        output.stdout.len()
    );
    assert_eq!(text(&output.stderr), "");

    let line = "seq 1 200000 >&2; seq 1 200000; exit 3";
    let output = place.call(&["run", "--", "sh", "-c", line]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stdout) == whole,
        "{} bytes",
        output.stdout.len()
    );
    assert!(
        text(&output.stderr).contains(&whole),
        "{} bytes",
        output.stderr.len()
    );

    let line = "echo start; head -c 70000000 /dev/zero | tr '\\0' x; echo; echo end";
    let output = place.call(&["run", "--json", "--", "sh", "-c", line]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let ended = json(&output);
    let kept = ended["stdout"].as_str().unwrap();
    assert_eq!(kept.len(), KEPT);
    assert!(kept.ends_with("xx\nend\n"));
    let cut = 70_000_011 - KEPT;
    assert!(text(&output.stderr).contains(&format!("the first {cut} bytes were not kept")));
}

#[test]
fn each_program_of_an_array_is_heard_where_another_fails() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let line = "echo this is $HEDGE_INDEX; test $HEDGE_INDEX != 3 || { sleep 1; exit 1; }";
    let output = place.call(&["run", "--array", "0..4", "--", "sh", "-c", line]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert_eq!(
        text(&output.stdout),
        "this is 0\nthis is 1\nthis is 2\nthis is 3\n"
    );
}

#[test]
fn a_reader_that_leaves_early_costs_no_results() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    write(
        &folder.path().join("job.toml"),
        &job("lines", "seq 9 > out", "[\"out\"]"),
    );
    let mut command = place.program("sh");
    let line = "exec 2>&1; \"$0\" run job.toml --out results | true";
    command.args(["-c", line, env!("CARGO_BIN_EXE_hedge")]);
    let output = ended(command.stdout(Stdio::piped()).spawn().unwrap(), line);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(files(&folder.path().join("results")), ["out"]);
}

#[test]
fn more_results_than_fit_into_one_message_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 2);
    let here = folder.path();
    // 24,000 names of 900 bytes are 21 MB.
    let line = "d=$(printf %0200d 0); d=$d/$d/$d/$d; mkdir -p $d; cd $d; for n in $(seq 6000); do echo $n > ${index}-$n-$(printf %080d 0); done";
    let job =
        job("many", line, "[\"0*\"]").replace("id = \"make\"", "id = \"make\"\narray = \"0..4\"");
    write(&here.join("job.toml"), &job);
    let id = grid.place.submit("job.toml");
    let ended = grid.place.wait(&id);
    assert_eq!(ended["state"], "done", "{ended}");
    let fetched = grid.place.ask(&["fetch", &id, "--out", "results"]);
    assert_eq!(fetched["results"].as_array().unwrap().len(), 24_000);
    assert_eq!(files(&here.join("results")).len(), 24_000);
    let listed = grid.place.ask(&["manifest", &id]);
    assert_eq!(listed, fetched["manifest"]);
}

#[test]
fn results_replace_their_like_and_keep_clear_of_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 2);
    let here = folder.path();
    let odd = "a b\u{1}\u{fc}'\"";
    let job = format!(
        "name = \"names\"\n[[task]]\nid = \"a\"\ncommand = [\"sh\", \"-c\", 'echo a > out; echo odd > \"$1\"', \"sh\", {odd:?}]\noutputs = [\"out\", {odd:?}]\n\
         [[task]]\nid = \"b\"\ncommand = [\"sh\", \"-c\", \"seq 20000 > out\"]\noutputs = [\"ou?\"]\n",
    )
    .replace("\\u{1}", "\\u0001");
    write(&here.join("job.toml"), &job);
    for _ in 0..2 {
        let output = grid
            .place
            .call(&["submit", "job.toml", "--wait", "--out", "out"]);
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        assert!(
            text(&output.stderr).contains("out goes to b/out"),
            "{}",
            told(&output)
        );
        assert_eq!(files(&here.join("out")), [odd, "b/out", "out"]);
        assert_eq!(fs::read_to_string(here.join("out/out")).unwrap(), "a\n");
        write(&here.join("out/out"), "older");
        write(&here.join("out/b/out"), "older");
    }
    let absolute = here.join("absolute/deep");
    for out in ["out", absolute.to_str().unwrap()] {
        grid.place.ask(&["wait", "1", "--out", out]);
        grid.place.ask(&["fetch", "1", "--out", out]);
        let lines = fs::read_to_string(here.join(out).join("b/out")).unwrap();
        assert_eq!(lines.lines().count(), 20_000);
        assert_eq!(files(&here.join(out)).len(), 3);
    }
}

#[test]
fn results_are_as_private_as_the_user_wants_them() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let line = "echo short > short; seq 9000 > long; cp short tool; cp long long-tool; chmod +x tool long-tool";
    let outputs = "[\"short\", \"long\", \"tool\", \"long-tool\"]";
    write(
        &folder.path().join("job.toml"),
        &job("private", line, outputs),
    );
    for (mask, file, tool) in [
        ("077", 0o600, 0o700),
        ("022", 0o644, 0o755),
        ("002", 0o664, 0o775),
    ] {
        let mut command = place.program("sh");
        let line = format!("umask {mask}; exec \"$0\" run job.toml --out {mask}");
        command.args(["-c", &line, env!("CARGO_BIN_EXE_hedge")]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        for (name, mode) in [
            ("short", file),
            ("long", file),
            ("tool", tool),
            ("long-tool", tool),
        ] {
            let about = fs::metadata(folder.path().join(mask).join(name)).unwrap();
            assert_eq!(about.permissions().mode() & 0o7777, mode, "{mask} {name}");
        }
    }
}

#[test]
fn a_copy_of_the_journal_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 0);
    let mut command = grid.place.program("sh");
    let line = "umask 000; exec \"$0\" journal backup copy";
    command.args(["-c", line, env!("CARGO_BIN_EXE_hedge")]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let copy = folder.path().join("copy");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&copy), 0o700);
    for name in files(&copy) {
        assert_eq!(mode(&copy.join(&name)), 0o600, "{name}");
    }
}

#[test]
fn no_place_makes_a_run_lose_its_results() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let place = Place::here(here);
    write(
        &here.join("job.toml"),
        &job(
            &"n".repeat(248),
            "mkdir d; seq 9000 > d/big; echo x > d/x",
            "[\"d\"]",
        ),
    );
    let output = place.call(&["run", "job.toml", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let big = json(&output)["results"][0].as_str().unwrap().to_owned();
    assert!(
        fs::read_to_string(here.join(big))
            .unwrap()
            .ends_with("9000\n")
    );

    // Told before anything runs.
    symlink("nowhere", here.join("link")).unwrap();
    write(&here.join("blocked/d"), "a file");
    write(
        &here.join("named.toml"),
        &job("named", "mkdir d; echo > d/x", "[\"d/x\"]"),
    );
    for (file, out) in [
        ("job.toml", "link"),
        ("job.toml", "link/deep"),
        ("named.toml", "blocked"),
    ] {
        let output = place.call(&["run", file, "--out", out]);
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
        assert!(
            text(&output.stderr).contains("nothing was started"),
            "{}",
            told(&output)
        );
    }

    // A folder on another file system.
    let other = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::create_dir(here.join("linked")).unwrap();
    symlink(other.path(), here.join("linked/d")).unwrap();
    let output = place.call(&["run", "job.toml", "--out", "linked"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(files(other.path()), ["big", "x"]);

    // A folder where a file goes: what can be written is, the rest is kept elsewhere.
    fs::create_dir_all(here.join("taken/d/big/deep")).unwrap();
    let output = place.call(&["run", "job.toml", "--out", "taken"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert_eq!(files(&here.join("taken")), ["d/x"]);
    rescued(&output, "d/big");
}

/// What a run could not write is where it says.
fn rescued(output: &Output, name: &str) {
    let told = text(&output.stderr);
    assert!(!told.contains("the grid keeps"), "{told}");
    let folder = folder_in(told);
    let big = fs::read_to_string(folder.join(name)).unwrap();
    assert!(big.ends_with("9000\n"), "{}", big.len());
    fs::remove_dir_all(folder).unwrap();
}

/// Runs `hedge` in a mount namespace where `out` is a tmpfs of this size.
fn on_small_disk(place: &Place, size: &str, args: &str) -> Output {
    let line = format!(
        "mkdir -p out && mount -t tmpfs -o size={size} none out && \"$0\" {args} > told 2>&1; code=$?; \
         cp -a out seen; cat told >&2; exit $code"
    );
    let mut command = place.program("unshare");
    command.args(["--mount", "sh", "-c", &line, env!("CARGO_BIN_EXE_hedge")]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    ended(command.spawn().unwrap(), &line)
}

#[test]
fn a_full_disk_leaves_no_part_of_a_file_and_loses_none() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let here = folder.path();
    let line = "head -c 4000000 /dev/urandom > a; seq 9000 >> a; echo x > b";
    write(&here.join("job.toml"), &job("full", line, "[\"a\", \"b\"]"));
    let output = on_small_disk(&grid.place, "1m", "run job.toml --out out");
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert_eq!(files(&here.join("seen")), ["b"]);
    let folder = folder_in(text(&output.stderr));
    assert!(fs::metadata(folder.join("a")).unwrap().len() > 4_000_000);
    fs::remove_dir_all(folder).unwrap();

    let id = grid.place.submit("job.toml");
    assert_eq!(grid.place.wait(&id)["state"], "done");
    fs::remove_dir_all(here.join("seen")).unwrap();
    let output = on_small_disk(&grid.place, "1m", &format!("fetch {id} --out out"));
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert_eq!(files(&here.join("seen")), ["b"]);
    let said = text(&output.stderr);
    assert!(
        said.contains("1 of 2 result files cannot be written: out/a: "),
        "{said}"
    );
    assert!(
        said.contains(&format!("`hedge fetch {id} --out out`")),
        "{said}"
    );
    grid.place.ask(&["fetch", &id, "--out", "results"]);
    assert_eq!(files(&here.join("results")), ["a", "b"]);
}

/// A job on this machine whose second task never ends, once the first is done; `outputs` follow the first task.
fn unfinished(place: &Place) -> Kept {
    let job = "name = \"half\"\n[[task]]\nid = \"quick\"\ncommand = [\"sh\", \"-c\", \"seq 9000 > quick; echo hello\"]\noutputs = [\"quick\"]\n\
               [[task]]\nid = \"slow\"\ncommand = [\"sleep\", \"1000\"]\n";
    write(&place.folder.join("job.toml"), job);
    let run = place.start(&["run", "job.toml", "--out", "out"]);
    until("the first task", || {
        run.err().contains("1 done").then_some(())
    });
    run
}

#[test]
fn an_interrupted_run_keeps_what_its_finished_tasks_made() {
    for name in ["-INT", "-TERM", "-HUP"] {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::here(folder.path());
        let mut run = unfinished(&place);
        run.signal(name);
        assert_eq!(run.end().code(), Some(5), "{name}: {}", run.told());
        let found = files(&folder.path().join("out"));
        assert_eq!(
            found,
            ["logs/quick.stdout", "quick"],
            "{name}: {}",
            run.told()
        );
        assert!(run.told().contains("out/quick"), "{name}: {}", run.told());
    }
}

#[test]
fn a_failed_run_keeps_what_its_finished_tasks_made() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let job = "name = \"half\"\n[[task]]\nid = \"good\"\ncommand = [\"sh\", \"-c\", \"seq 9000 > good; echo hello\"]\noutputs = [\"good\"]\n\
               [[task]]\nid = \"bad\"\ncommand = [\"sh\", \"-c\", \"sleep 2; seq 5000 >&2; exit 1\"]\nretries = 0\n";
    write(&folder.path().join("job.toml"), job);
    let output = place.call(&["run", "job.toml", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let ended = json(&output);
    assert_eq!(ended["results"][0], "half-results/good", "{ended}");
    assert_eq!(ended["logs"], "half-results/logs", "{ended}");
    let found = files(&folder.path().join("half-results"));
    assert_eq!(found, ["good", "logs/bad.stderr", "logs/good.stdout"]);
    let said = fs::read_to_string(folder.path().join("half-results/logs/bad.stderr")).unwrap();
    assert_eq!(said.lines().count(), 5000);
}

#[test]
fn a_fetch_that_is_cut_short_leaves_no_part_under_a_results_name() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let here = folder.path();
    write(
        &here.join("job.toml"),
        &job(
            "big",
            "head -c 300000000 /dev/zero > big.bin",
            "[\"big.bin\"]",
        ),
    );
    let id = grid.place.submit("job.toml");
    assert_eq!(grid.place.wait(&id)["state"], "done");
    for (name, code, left) in [
        ("-INT", Some(5), 0),
        ("-HUP", Some(5), 0),
        ("-KILL", None, 1),
    ] {
        let mut fetch = grid.place.start(&["fetch", &id, "--out", "out"]);
        let part = until("the file to be begun", || {
            assert!(fetch.running(), "{}", fetch.told());
            files(&here.join("out")).pop()
        });
        assert!(part.starts_with(".hedge-part-"), "{part}");
        signal(fetch.pid(), name);
        assert_eq!(fetch.end().code(), code, "{name}: {}", fetch.told());
        assert_eq!(files(&here.join("out")).len(), left, "{name}");
        if left == 0 {
            assert!(fetch.err().contains("hedge fetch"), "{}", fetch.told());
        }
    }
    grid.place.ask(&["fetch", &id, "--out", "out"]);
    assert_eq!(files(&here.join("out")), ["big.bin"]);
    assert_eq!(
        fs::metadata(here.join("out/big.bin")).unwrap().len(),
        300_000_000
    );
}

#[test]
fn what_single_tasks_left_is_fetched_while_the_job_runs() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let marks = Marks::new(here);
    let grid = Grid::with(here, 1, &["--no-sandbox"]);
    // Too long to travel within messages.
    let tasks = [
        marks.task("dropped", "seq 20000 > a", "outputs = [\"a\"]"),
        marks.task("kept", "seq 20001 > b", "outputs = [\"b\"]\nkeep = true"),
        marks.task(
            "reader",
            "true",
            "inputs = [{ task = \"dropped\" }, { task = \"kept\" }]",
        ),
        marks.task(
            "last",
            "echo end > c",
            "deps = [\"reader\"]\noutputs = [\"c\"]",
        ),
    ];
    let job = format!(
        "name = \"parts\"\n[qos]\nredundancy = \"none\"\n{}",
        tasks.concat()
    );
    write(&here.join("job.toml"), &job);
    let id = grid.place.submit("job.toml");
    let fetch = |tasks: &[&str], out: &str| {
        let tasks: Vec<&str> = tasks.iter().flat_map(|task| ["--task", task]).collect();
        let args = ["fetch", &id, "--out", out];
        grid.place.call(&[&args[..], &tasks].concat())
    };
    marks.let_go("dropped");
    marks.let_go("kept");
    marks.await_starts("reader", 1);
    let both = fetch(&["dropped", "kept"], "both");
    assert_eq!(both.status.code(), Some(0), "{}", told(&both));
    assert_eq!(files(&here.join("both")), ["a", "b"]);
    let early = fetch(&["kept", "last"], "early");
    assert_eq!(early.status.code(), Some(1), "{}", told(&early));
    assert_eq!(files(&here.join("early")), ["b"]);
    assert!(
        text(&early.stderr).contains("not fetched: last;"),
        "{}",
        told(&early)
    );
    marks.let_go("reader");
    marks.let_go("last");
    assert_eq!(grid.place.wait(&id)["state"], "done");
    let gone = until("the outputs that nobody reads to be dropped", || {
        let output = fetch(&["dropped"], "gone");
        (output.status.code() == Some(2)).then_some(output)
    });
    assert!(
        text(&gone.stderr).contains("keep = true"),
        "{}",
        told(&gone)
    );
    grid.place.ask(&["fetch", &id, "--out", "all"]);
    assert_eq!(files(&here.join("all")), ["b", "c"]);
}
