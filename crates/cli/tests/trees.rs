//! Trees: folders that tasks see as they are on the client.

mod common;

use common::http::Gateway;
use common::{Grid, Place, told, until};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// A small environment: a program that prints the length of all its modules and its own path, and `count` modules.
fn environment(folder: &Path, count: usize) -> PathBuf {
    let env = folder.join("env");
    fs::create_dir_all(env.join("bin")).unwrap();
    fs::create_dir_all(env.join("lib")).unwrap();
    let tool = "#!/bin/sh\ncat \"$(dirname \"$0\")\"/../lib/*.txt | cksum\necho \"$0\"\n";
    fs::write(env.join("bin/tool"), tool).unwrap();
    fs::set_permissions(env.join("bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("tool", env.join("bin/same")).unwrap();
    for number in 0..count {
        let text = format!("module {number}\n").repeat(1 + number % 50);
        fs::write(env.join(format!("lib/{number:05}.txt")), text).unwrap();
    }
    env
}

/// What its program prints.
fn printed(env: &Path) -> String {
    let output = std::process::Command::new(env.join("bin/same"))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The folders of trees that a worker has.
fn trees(grid: &Grid, worker: usize) -> Vec<PathBuf> {
    let folder = grid.worker_dir(worker).join("worker/trees");
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Files of a blob store.
fn blobs(store: &Path) -> usize {
    let shards = fs::read_dir(store.join("blobs")).into_iter().flatten();
    let count = |shard: fs::DirEntry| fs::read_dir(shard.path()).unwrap().count();
    shards.map(|shard| count(shard.unwrap())).sum()
}

fn job(env: &Path, array: &str, more: &str) -> String {
    let tool = env.join("bin/same");
    format!(
        "[[task]]\nid = \"t\"\n{array}\ncommand = [{tool:?}]\nmounts = [{{ tree = \"env\" }}]\n{more}\n"
    )
}

/// Runs a job to its end and gives what its first task printed.
fn run(grid: &Grid, text: &str) -> String {
    fs::write(grid.place.folder.join("job.toml"), text).unwrap();
    let id = grid.place.submit("job.toml");
    let ended = grid.place.wait(&id);
    assert_eq!(ended["state"], "done", "{ended}");
    let logs = grid.place.call(&["logs", &id]);
    assert!(logs.status.success(), "{}", told(&logs));
    String::from_utf8(logs.stdout).unwrap()
}

#[test]
fn an_environment_works_at_its_own_path_and_travels_once() {
    const FILES: usize = 3_000;
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::start(folder.path(), 0);
    let env = environment(folder.path(), FILES);
    let expected = printed(&env);
    let store = folder.path().join("state/hedgerow/supervisor/content");
    // The grid's machines have no such folder.
    let hidden = folder.path().join("gone");
    fs::write(folder.path().join("job.toml"), job(&env, "", "")).unwrap();
    let id = grid.place.submit("job.toml");
    fs::rename(&env, &hidden).unwrap();
    let held = blobs(&store);
    assert!((2..30).contains(&held), "{held} blobs for {FILES} files");
    grid.add_worker(&[]);
    assert_eq!(grid.place.wait(&id)["state"], "done");
    let logs = grid.place.call(&["logs", &id]);
    assert_eq!(String::from_utf8_lossy(&logs.stdout), expected);
    let first = trees(&grid, 0);
    assert_eq!(first.len(), 1);
    fs::rename(&hidden, &env).unwrap();
    // Further jobs and tasks use what is there.
    let all = run(&grid, &job(&env, "array = \"0..8\"", ""));
    assert_eq!(
        all.matches(expected.lines().next().unwrap()).count(),
        8,
        "{all}"
    );
    assert_eq!(trees(&grid, 0), first);
}

#[test]
fn a_program_on_this_machine_alone_sees_a_tree() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let env = environment(folder.path(), 3);
    let run = |more: &[&str]| {
        let args = ["run", "--mount", "env", "--", "env/bin/same"];
        place.call(&[&args[..1], more, &args[1..]].concat())
    };
    let output = run(&[]);
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), printed(&env));
    let refused = run(&["--no-sandbox"]);
    assert_eq!(refused.status.code(), Some(2), "{}", told(&refused));
}

#[test]
fn a_task_cannot_change_its_tree() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    environment(folder.path(), 3);
    let script = "cd /ref; for file in bin/tool new lib/new; do echo rotten > $file; done; rm -rf lib; \
                  chmod 777 bin/tool; mv bin bine; cat lib/00001.txt | head -c 8";
    let text = format!(
        "[[task]]\nid = \"t\"\narray = \"0..3\"\ncommand = [\"sh\", \"-c\", '''{script}''']\n\
         mounts = [{{ tree = \"env\", at = \"/ref\" }}]\n"
    );
    let all = run(&grid, &text);
    assert_eq!(all.matches("module 1").count(), 3, "{all}");
}

#[test]
fn a_flipped_byte_is_found_when_the_worker_has_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::start(folder.path(), 1);
    let env = environment(folder.path(), 100);
    let expected = printed(&env);
    assert_eq!(run(&grid, &job(&env, "", "")), expected);
    drop(grid.workers.remove(0));
    let before = trees(&grid, 0);
    let file = before[0].join("root/lib/00042.txt");
    let mut bytes = fs::read(&file).unwrap();
    bytes[3] ^= 1;
    fs::write(&file, bytes).unwrap();
    grid.add_worker(&[]);
    assert_eq!(run(&grid, &job(&env, "", "")), expected);
    let warned = grid.workers[0].told();
    assert!(warned.contains("a tree is damaged"), "{warned}");
    until("the damaged tree to go", || {
        let after = trees(&grid, 0);
        (after.len() == 1 && after != before).then_some(())
    });
}

#[test]
fn a_small_cache_has_the_tree_that_is_used_and_says_what_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::with(folder.path(), 1, &["--tree-cache", "300 KiB"]);
    let env = environment(folder.path(), 50);
    let first = printed(&env);
    assert_eq!(run(&grid, &job(&env, "", "")), first);
    let before = trees(&grid, 0);
    fs::write(env.join("lib/more.txt"), "more").unwrap();
    let second = printed(&env);
    assert_ne!(first, second);
    assert_eq!(run(&grid, &job(&env, "", "")), second);
    let after = trees(&grid, 0);
    assert_eq!(after.len(), 1);
    assert_ne!(before, after);
    for number in 0..150 {
        fs::write(env.join(format!("lib/more-{number}.txt")), "more").unwrap();
    }
    fs::write(folder.path().join("job.toml"), job(&env, "", "")).unwrap();
    let id = grid.place.submit("job.toml");
    until("the grid to say why", || {
        let said = grid.place.ask(&["explain", &id, "t"]).to_string();
        said.contains("cache for trees has 300 KiB").then_some(())
    });
    grid.place.call(&["cancel", &id]);
}

#[test]
fn a_worker_that_cannot_show_trees_gets_no_such_task() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::with(folder.path(), 1, &["--no-sandbox"]);
    let env = environment(folder.path(), 3);
    let failing = job(&env, "", "[qos]\nunplaceable = \"fail\"");
    fs::write(folder.path().join("job.toml"), failing).unwrap();
    let id = grid.place.submit("job.toml");
    let ended = grid.place.wait(&id).to_string();
    assert!(ended.contains("needs a worker labelled mounts"), "{ended}");
    grid.add_worker(&[]);
    grid.place.await_workers(2);
    assert_eq!(run(&grid, &job(&env, "", "")), printed(&env));
    assert!(trees(&grid, 0).is_empty());
}

#[test]
fn a_tree_outlives_the_worker_and_comes_from_the_grid() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::start(folder.path(), 1);
    let client = Place::here(&folder.path().join("client"));
    let env = environment(&client.folder, 100);
    let expected = printed(&env);
    fs::write(
        client.folder.join("job.toml"),
        job(&env, "array = \"0..40\"", ""),
    )
    .unwrap();
    let ticket = grid.place.ticket("client");
    let submitted = client.ask(&["submit", "job.toml", "--join", &ticket]);
    let id = submitted["job"].to_string();
    fs::remove_dir_all(&client.folder).unwrap();
    until("the worker to have the tree", || {
        let finished = |path: &PathBuf| !path.to_string_lossy().contains("arriving");
        trees(&grid, 0).iter().any(finished).then_some(())
    });
    let worker = grid.workers.remove(0);
    drop(worker);
    fs::remove_dir_all(grid.worker_dir(0)).unwrap();
    grid.add_worker(&[]);
    let ended = grid.place.wait(&id);
    assert_eq!(ended["state"], "done", "{ended}");
    let logs = grid.place.call(&["logs", &id]);
    let all = String::from_utf8_lossy(&logs.stdout).into_owned();
    assert_eq!(
        all.matches(expected.lines().next().unwrap()).count(),
        40,
        "{all}"
    );
}

/// Packs a folder, uploads what it became, and gives the files of a submission that has it as `env`.
fn upload(grid: &Grid, gateway: &Gateway, env: &Path) -> Value {
    let out = grid.place.folder.join("packed");
    let (from, to) = (env.to_str().unwrap(), out.to_str().unwrap());
    let listed = grid.place.ask(&["pack", from, "--out", to]);
    let packs = listed["packs"].as_array().unwrap().iter();
    let numbered = packs
        .enumerate()
        .map(|(number, pack)| (number.to_string(), pack));
    let all = [("manifest".to_owned(), &listed["manifest"])];
    let mut files = json!({});
    for (name, blob) in all.into_iter().chain(numbered) {
        let hash = blob["blake3"].as_str().unwrap();
        let content = fs::read(blob["path"].as_str().unwrap()).unwrap();
        assert_eq!(blob["bytes"], content.len());
        let form = "application/octet-stream";
        let put = gateway.send("PUT", &format!("/v1/blobs/{hash}"), form, &content);
        assert!(put.status < 300, "{}", put.text());
        files[format!("env/{name}")] = json!({ "blake3": hash });
    }
    fs::remove_dir_all(out).unwrap();
    files
}

#[test]
fn a_submission_over_http_brings_a_tree() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let gateway = Gateway::start(&grid.place, &[]);
    let env = environment(folder.path(), 100);
    let files = upload(&grid, &gateway, &env);
    fs::rename(&env, folder.path().join("gone")).unwrap();
    let post = |path: &str, body: Value| {
        let body = body.to_string();
        let response = gateway.send("POST", path, "application/json", body.as_bytes());
        assert!(response.status < 300, "{}", response.text());
        response.json()
    };
    let open = post("/v1/jobs/open", json!({ "job": { "name": "calls" } }));
    let job = open["job"].to_string();
    // Each extension brings the tree, whose blobs the grid fetches once.
    for id in ["a", "b"] {
        let task = json!({
            "id": id,
            "command": ["/env/bin/same"],
            "mounts": [{ "tree": "env", "at": "/env" }],
        });
        let body = json!({ "job": { "task": [task] }, "files": files });
        post(&format!("/v1/jobs/{job}/extend"), body);
    }
    gateway.send("POST", &format!("/v1/jobs/{job}/close"), "", b"");
    assert_eq!(grid.place.wait(&job)["state"], "done");
    let logs = grid.place.call(&["logs", &job]);
    let printed = String::from_utf8_lossy(&logs.stdout).into_owned();
    assert_eq!(printed.matches("/env/bin/same").count(), 2, "{printed}");
    assert_eq!(trees(&grid, 0).len(), 1);
}
