//! Many files in and out, uploads and stagings that are interrupted, and tasks that overwrite their inputs.

mod common;

use common::{Grid, Place, until};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const FILES: usize = 2_000;

/// Writes files of different content: some short, some long enough to go by their hashes, one of several MiB.
fn write_tree(folder: &Path, count: usize) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut tree = BTreeMap::new();
    for number in 0..count {
        let path = PathBuf::from(format!("{}/{number}", number % 7));
        let times = match number {
            0 => 400_000,
            _ => 1 + number % 400,
        };
        let content = format!("{number:>8},").repeat(times).into_bytes();
        let at = folder.join(&path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, &content).unwrap();
        tree.insert(path, content);
    }
    tree
}

fn read_tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut tree = BTreeMap::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(at) = waiting.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                tree.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    tree
}

fn same(found: &BTreeMap<PathBuf, Vec<u8>>, expected: &BTreeMap<PathBuf, Vec<u8>>) {
    assert_eq!(found.len(), expected.len());
    let wrong: Vec<_> = expected
        .iter()
        .filter(|(path, content)| found.get(*path) != Some(content))
        .map(|(path, _)| path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?} differ");
}

/// Files of a blob store.
fn blobs(store: &Path) -> usize {
    let shards = fs::read_dir(store.join("blobs")).into_iter().flatten();
    let count = |shard: fs::DirEntry| fs::read_dir(shard.path()).unwrap().count();
    shards.map(|shard| count(shard.unwrap())).sum()
}

#[test]
fn a_folder_of_files_goes_in_and_comes_back_through_a_client_with_few_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let client = Place::behind(
        &["prlimit", "--nofile=256:256"],
        &folder.path().join("client"),
    );
    let tree = write_tree(&client.folder.join("in"), FILES);
    let job = r#"
[[task]]
id = "copy"
command = ["cp", "-r", "in", "out"]
inputs = ["in"]
outputs = ["out"]
"#;
    fs::write(client.folder.join("job.toml"), job).unwrap();
    let ticket = grid.place.ticket("client");
    let submitted = client.ask(&["submit", "job.toml", "--join", &ticket]);
    let id = submitted["job"].to_string();
    let ended = grid.place.wait(&id);
    assert_eq!(ended["state"], "done", "{ended}");
    client.ask(&["fetch", &id, "--out", "results", "--join", &ticket]);
    same(&read_tree(&client.folder.join("results/out")), &tree);
}

#[test]
fn a_client_that_is_killed_while_the_grid_reads_its_files_may_submit_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::start(folder.path(), 0);
    let client = Place::here(&folder.path().join("client"));
    let tree = write_tree(&client.folder.join("in"), FILES);
    let job = "[[task]]\nid = \"copy\"\ncommand = [\"cp\", \"-r\", \"in\", \"out\"]\ninputs = [\"in\"]\noutputs = [\"out\"]\n";
    fs::write(client.folder.join("job.toml"), job).unwrap();
    let ticket = grid.place.ticket("client");
    let first = client.start(&["submit", "job.toml", "--join", &ticket]);
    let store = folder.path().join("state/hedgerow/supervisor/content");
    until("the grid to hold some of the files", || {
        (blobs(&store) > 0).then_some(())
    });
    drop(first);
    let submitted = client.ask(&["submit", "job.toml", "--join", &ticket]);
    let id = submitted["job"].to_string();
    grid.add_worker(&[]);
    assert_eq!(grid.place.wait(&id)["state"], "done");
    client.ask(&["fetch", &id, "--out", "results", "--join", &ticket]);
    same(&read_tree(&client.folder.join("results/out")), &tree);
}

#[test]
fn a_worker_that_is_killed_while_it_stages_leaves_nothing_that_the_next_one_trips_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::start(folder.path(), 1);
    let tree = write_tree(&folder.path().join("in"), FILES);
    let job = "[[task]]\nid = \"copy\"\ncommand = [\"cp\", \"-r\", \"in\", \"out\"]\ninputs = [\"in\"]\noutputs = [\"out\"]\n";
    fs::write(folder.path().join("job.toml"), job).unwrap();
    let store = grid.worker_dir(0).join("worker/content");
    let id = grid.place.submit("job.toml");
    until("the worker to hold some of the files", || {
        (blobs(&store) > 0).then_some(())
    });
    let worker = grid.workers.remove(0);
    drop(worker);
    grid.add_worker(&[]);
    assert_eq!(grid.place.wait(&id)["state"], "done");
    grid.place.ask(&["fetch", &id, "--out", "results"]);
    same(&read_tree(&folder.path().join("results/out")), &tree);
    let left = fs::read_dir(store.join("temp")).unwrap().count();
    assert_eq!(left, 0);
}

/// Each task tries to change its inputs for the next one, in the ways that a program has, and says what it found.
fn overwrite(args: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::with(folder.path(), 1, args);
    let here = folder.path();
    fs::write(here.join("long"), "sound ".repeat(500_000)).unwrap();
    let tool = format!("#!/bin/sh\n{}", "# sound\n".repeat(5_000));
    fs::write(here.join("tool"), tool).unwrap();
    fs::write(here.join("notes"), "begun ".repeat(10_000)).unwrap();
    let script = r#"
cksum long tool > found-$HEDGE_INDEX
for file in long tool; do
  chmod 777 $file
  printf rotten >> $file
  dd if=/dev/zero of=$file bs=1 count=9 conv=notrunc
  truncate -s 5 $file
  ln $file alias-$file
  chmod 777 alias-$file
  printf rotten >> alias-$file
done
set -e
printf more >> notes
rm -f long
printf mine > long
test "$(cat long)" = mine
mv notes notes-$HEDGE_INDEX
"#;
    let job = format!(
        "[[task]]\nid = \"t\"\narray = \"0..5\"\ncommand = [\"sh\", \"-c\", '''{script}''']\n\
         inputs = [\"long\", \"tool\", \"notes\"]\n\
         outputs = [\"found-${{index}}\", \"notes*\"]\n"
    );
    fs::write(here.join("job.toml"), &job).unwrap();
    let cksum = std::process::Command::new("cksum")
        .args(["long", "tool"])
        .current_dir(here)
        .output()
        .unwrap();
    let id = grid.place.submit("job.toml");
    let ended = grid.place.wait(&id);
    assert_eq!(ended["state"], "done", "{ended}");
    grid.place.ask(&["fetch", &id, "--out", "results"]);
    let results = read_tree(&here.join("results"));
    assert_eq!(results.len(), 10);
    for (path, content) in results {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("found") {
            assert_eq!(content, cksum.stdout, "{name}");
        } else {
            assert_eq!(content.len(), 60_004, "{name}");
        }
    }
}

#[test]
fn no_task_changes_the_input_of_another_one() {
    overwrite(&[]);
}

#[test]
fn no_task_without_a_sandbox_changes_the_input_of_another_one() {
    overwrite(&["--no-sandbox"]);
}
