//! What goes into tasks and what comes out of them, as a user meets it: files, folders, globs, programs, big
//! content, many files, printed text.

mod common;

use common::{Grid, Place, json, text, told, until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn make_executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).unwrap().permissions().mode() & 0o111 != 0
}

/// Bytes that do not repeat, the same each time.
fn bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let words = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as u32
    });
    words.flat_map(u32::to_le_bytes).take(count).collect()
}

#[test]
fn files_folders_globs_and_programs_go_in_and_files_folders_and_globs_come_out() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let here = folder.path();
    let long = bytes(300_000, 1);
    write(&here.join("job/tree/deep/leaf"), "leaf");
    write(&here.join("job/tree/big"), &long);
    write(&here.join("job/a-1.txt"), "1");
    write(&here.join("job/a-2.txt"), "2");
    write(&here.join("job/b-3.txt"), "not asked for");
    write(&here.join("job/words"), "read from standard input");
    // Long enough to go by its hash, so that both ways keep the bit.
    let program = format!(
        "#!/bin/sh\nset -e\n{}\nlist=$(find . -type f | sort)\necho \"$list\" > listing\nmkdir -p out/deep\ncp tree/big out/deep/copy\n\
         cp tool out/tool\ncat > said\n./tool > out/tool-said\necho r1 > r-1.res\necho r2 > r-2.res\n",
        "# padding\n".repeat(3000)
    );
    write(&here.join("job/make.sh"), program);
    write(&here.join("job/tool"), "#!/bin/sh\necho the tool ran\n");
    make_executable(&here.join("job/make.sh"));
    make_executable(&here.join("job/tool"));
    let job = r#"
name = "shapes"
[[task]]
id = "make"
command = ["./make.sh"]
stdin = "words"
inputs = ["make.sh", "tool", "tree", "a-*.txt"]
outputs = ["listing", "said", "out", "*.res"]
"#;
    write(&here.join("job/job.toml"), job);
    let output = place.call(&["run", "job/job.toml", "--out", "results", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let listing = fs::read_to_string(here.join("results/listing")).unwrap();
    let seen: Vec<&str> = listing.lines().collect();
    assert_eq!(
        seen,
        [
            "./a-1.txt",
            "./a-2.txt",
            "./make.sh",
            "./tool",
            "./tree/big",
            "./tree/deep/leaf"
        ]
    );
    let said = fs::read_to_string(here.join("results/said")).unwrap();
    assert_eq!(said, "read from standard input");
    assert_eq!(fs::read(here.join("results/out/deep/copy")).unwrap(), long);
    assert_eq!(
        fs::read_to_string(here.join("results/out/tool-said")).unwrap(),
        "the tool ran\n"
    );
    assert!(is_executable(&here.join("results/out/tool")));
    assert!(!is_executable(&here.join("results/out/deep/copy")));
    assert_eq!(
        fs::read_to_string(here.join("results/r-2.res")).unwrap(),
        "r2\n"
    );
}

#[test]
fn a_big_input_outlives_the_client_that_brought_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::start(folder.path(), 0);
    let ticket = grid.place.ticket("client");
    let content = bytes(100 << 20, 2);
    let client = Place::here(&folder.path().join("client"));
    write(&client.folder.join("big"), &content);
    let job = r#"
name = "big"
[[task]]
id = "copy"
command = ["sh", "-c", "cp big copy; tail -c 100 big > stdin-end; cat | cmp - big"]
stdin = "big"
inputs = ["big"]
outputs = ["copy", "stdin-end"]
"#;
    write(&client.folder.join("job.toml"), job);
    // No worker yet: nobody but the supervisor can take the input from the client.
    let submitted = client.ask(&["submit", "job.toml", "--join", &ticket]);
    let id = submitted["job"].to_string();
    fs::remove_dir_all(&client.folder).unwrap();
    grid.add_worker(&[]);
    let ended = grid.place.wait(&id);
    assert_eq!(ended["state"], "done", "{ended}");
    grid.place.ask(&["fetch", &id, "--out", "results"]);
    let copy = fs::read(folder.path().join("results/copy")).unwrap();
    assert!(copy == content, "{} bytes came back", copy.len());
    let end = fs::read(folder.path().join("results/stdin-end")).unwrap();
    assert_eq!(end, content[content.len() - 100..]);
}

#[test]
fn a_folder_of_two_thousand_files_comes_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 2);
    let here = folder.path();
    // Every hundredth is too long to travel inside a message.
    let job = r#"
name = "many"
[[task]]
id = "make"
command = ["sh", "-c", "mkdir all; for n in $(seq 2000); do echo $n > all/$n; done; for n in $(seq 100 100 2000); do seq $n $((n + 9000)) > all/$n; done"]
outputs = ["all"]
[[task]]
id = "count"
command = ["sh", "-c", "ls all | wc -l > count; cat all/* | cksum > sum; mkdir back; mv all back"]
inputs = [{ task = "make" }]
outputs = ["count", "sum", "back"]
"#;
    write(&here.join("job.toml"), job);
    let output = grid
        .place
        .call(&["submit", "job.toml", "--wait", "--out", "results", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let mut names: Vec<u32> = fs::read_dir(here.join("results/back/all"))
        .unwrap()
        .map(|entry| {
            let name = entry.unwrap().file_name();
            name.to_str().unwrap().parse().unwrap()
        })
        .collect();
    names.sort_unstable();
    assert_eq!(names, (1..=2000).collect::<Vec<u32>>());
    let lines = |name: &str| fs::read_to_string(here.join("results").join(name)).unwrap();
    assert_eq!(lines("back/all/1999"), "1999\n");
    assert_eq!(lines("back/all/300").lines().last(), Some("9300"));
    assert_eq!(lines("count").trim(), "2000");
    let own = grid
        .place
        .program("sh")
        .args(["-c", "cat results/back/all/* | cksum"])
        .output()
        .unwrap();
    assert_eq!(lines("sum"), text(&own.stdout));
}

/// Dropping what one task made must not take it from another that made the same.
#[test]
fn two_tasks_may_make_the_same_content() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 2);
    let here = folder.path();
    let job = r#"
name = "same"
[[task]]
id = "make"
array = "0..4"
command = ["sh", "-c", "seq 20000 > same-${index}; seq 20000 > twin-${index}"]
outputs = ["same-${index}", "twin-${index}"]
[[task]]
id = "compare"
command = ["sh", "-c", "cat same-* twin-* | sort -u | wc -l > lines"]
inputs = [{ task = "make" }]
outputs = ["lines"]
"#;
    write(&here.join("job.toml"), job);
    let [first, second] = [(); 2].map(|()| grid.place.submit("job.toml"));
    for id in [&first, &second] {
        let ended = grid.place.wait(id);
        assert_eq!(ended["state"], "done", "{ended}");
    }
    for id in [&first, &second] {
        let out = format!("out-{id}");
        grid.place.ask(&["fetch", id, "--out", &out]);
        let lines = fs::read_to_string(here.join(&out).join("lines")).unwrap();
        assert_eq!(lines.trim(), "20000");
    }
}

#[test]
fn what_tasks_print_is_there_also_when_it_is_long_or_they_failed() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 2);
    let here = folder.path();
    let job = r#"
name = "talk"
[[task]]
id = "short"
command = ["sh", "-c", "echo out; echo err >&2"]
[[task]]
id = "long"
command = ["seq", "10000"]
[[task]]
id = "huge"
command = ["sh", "-c", "seq 2000000; echo the end"]
[[task]]
id = "silent"
command = ["true"]
"#;
    write(&here.join("job.toml"), job);
    let id = grid.place.submit("job.toml");
    assert_eq!(grid.place.wait(&id)["state"], "done");
    let logs = |task: &str| grid.place.call(&["logs", &id, task]);
    let short = logs("short");
    assert_eq!(
        (text(&short.stdout), text(&short.stderr)),
        ("out\n", "err\n")
    );
    let whole: String = (1..=10_000).map(|number| format!("{number}\n")).collect();
    let long = logs("long");
    assert!(text(&long.stdout) == whole, "{} bytes", long.stdout.len());
    let huge = logs("huge");
    let whole: usize = (1..=2_000_000)
        .map(|number: u32| number.to_string().len() + 1)
        .sum();
    assert!(text(&huge.stdout).ends_with("2000000\nthe end\n"));
    assert_eq!(huge.stdout.len(), whole + 8);
    assert_eq!(text(&huge.stderr), "");
    let silent = logs("silent");
    assert_eq!(silent.status.code(), Some(0), "{}", told(&silent));
    assert_eq!(text(&silent.stdout), "");

    let failing = r#"
name = "fail"
[[task]]
id = "bad"
command = ["sh", "-c", "seq 5000; echo short of luck >&2; exit 7"]
retries = 1
"#;
    write(&here.join("failing.toml"), failing);
    let id = grid.place.submit("failing.toml");
    let waited = grid.place.call(&["wait", &id, "--json"]);
    assert_eq!(waited.status.code(), Some(1), "{}", told(&waited));
    let why = json(&waited)["why"].as_str().unwrap().to_owned();
    assert!(why.contains("bad") && why.contains("exit code 7"), "{why}");
    let logs = grid.place.call(&["logs", &id, "bad"]);
    assert_eq!(logs.status.code(), Some(0), "{}", told(&logs));
    assert!(
        text(&logs.stdout).ends_with("4999\n5000\n"),
        "{}",
        told(&logs)
    );
    assert!(
        text(&logs.stderr).contains("short of luck"),
        "{}",
        told(&logs)
    );
}

/// What one job was the last to need is dropped while the next job brings it again.
#[test]
fn the_same_input_may_come_again_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 2);
    let here = folder.path();
    write(&here.join("in"), bytes(200_000, 3));
    let job = r#"
name = "again"
[qos]
redundancy = "none"
[[task]]
id = "copy"
array = "0..2"
command = ["sh", "-c", "cat in in > out-${index}"]
inputs = ["in"]
outputs = ["out-${index}"]
"#;
    write(&here.join("job.toml"), job);
    for round in 0..20 {
        #[rustfmt::skip]
        let args = ["submit", "job.toml", "--wait", "--out", "out", "--json"];
        let output = grid.place.call(&args);
        assert_eq!(
            output.status.code(),
            Some(0),
            "round {round}: {}",
            told(&output)
        );
        let ended = json(&output);
        assert_eq!(ended["attempts"]["total"], 2, "round {round}: {ended}");
        assert_eq!(fs::metadata(here.join("out/out-1")).unwrap().len(), 400_000);
    }
}

#[test]
fn a_place_where_results_cannot_go_is_told_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    write(&folder.path().join("notes"), "a file");
    let job = "[[task]]\nid = \"a\"\ncommand = [\"touch\", \"a\"]\noutputs = [\"a\"]\n";
    write(&folder.path().join("job.toml"), job);
    let output = place.call(&["run", "job.toml", "--out", "notes/deep"]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(text(&output.stderr).contains("notes is no folder"));
    assert!(text(&output.stderr).contains("nothing was started"));
    let output = place.call(&["run", "job.toml", "--out", "new/deep"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(folder.path().join("new/deep/a").is_file());
}

#[test]
fn results_are_held_for_later_and_for_other_clients() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::start(folder.path(), 1);
    let job = r#"
name = "later"
[[task]]
id = "make"
command = ["sh", "-c", "seq 100000 > numbers"]
outputs = ["numbers"]
"#;
    write(&folder.path().join("job.toml"), job);
    let id = grid.place.submit("job.toml");
    assert_eq!(grid.place.wait(&id)["state"], "done");
    // The worker that made them leaves: the grid, not the worker, holds results.
    let mut worker = grid.workers.remove(0);
    worker.signal("-TERM");
    assert_eq!(worker.end().code(), Some(0), "{}", worker.told());
    until("the worker to be gone", || {
        let workers = grid.place.workers();
        (!workers.iter().any(|worker| worker["liveness"] == "live")).then_some(())
    });
    let ticket = grid.place.ticket("admin");
    let other = Place::here(&folder.path().join("other"));
    let fetched = other.ask(&["fetch", &id, "--join", &ticket]);
    assert_eq!(fetched["results"][0], "later-results/numbers");
    let numbers = fs::read_to_string(other.folder.join("later-results/numbers")).unwrap();
    assert_eq!(numbers.lines().count(), 100_000);
    let listed = other.ask(&["manifest", &id, "--join", &ticket]);
    assert_eq!(listed, fetched["manifest"]);
    assert_eq!(listed["missing_count"], 0, "{listed}");
    let file = &listed["files"][0];
    assert_eq!(file["path"], "numbers", "{listed}");
    assert_eq!(file["bytes"], numbers.len(), "{listed}");
    assert_eq!(file["blake3"].as_str().unwrap().len(), 64, "{listed}");
    assert_eq!(file["worker"].as_str().unwrap().len(), 64, "{listed}");
}
