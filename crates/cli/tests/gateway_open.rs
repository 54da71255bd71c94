//! Open jobs over HTTP: they grow in batches, the ends of their tasks come as they happen, and nothing is told twice.

mod common;

use common::group::Group;
use common::http::{Events, Gateway};
use common::tasks::Marks;
use common::{Grid, until};
use serde_json::{Value, json};

const JSON: &str = "application/json";

fn post(gateway: &Gateway, path: &str, body: &Value) -> Value {
    let response = gateway.send("POST", path, JSON, body.to_string().as_bytes());
    assert!(response.status < 300, "{path}: {}", response.text());
    if response.status == 204 {
        return Value::Null;
    }
    response.json()
}

fn open(gateway: &Gateway) -> u64 {
    let opened = post(
        gateway,
        "/v1/jobs/open",
        &json!({ "job": { "name": "calls" } }),
    );
    opened["job"].as_u64().unwrap()
}

fn extend(gateway: &Gateway, job: u64, tasks: &Value, files: &Value) -> Value {
    let body = json!({ "job": { "task": tasks }, "files": files });
    post(gateway, &format!("/v1/jobs/{job}/extend"), &body)
}

/// The next events until so many tasks were told; gives these, and the id behind them.
fn ended(events: &mut Events, count: usize) -> (Vec<Value>, String) {
    let (mut tasks, mut last) = (Vec::new(), String::new());
    while tasks.len() < count {
        let event = events.next().unwrap();
        assert_eq!(event.name, "ends", "{event:?}");
        tasks.extend(event.data["tasks"].as_array().unwrap().iter().cloned());
        last = event.id.unwrap();
    }
    (tasks, last)
}

fn names(tasks: &[Value]) -> Vec<&str> {
    let names = tasks.iter().map(|task| task["task"].as_str().unwrap());
    names.collect()
}

#[test]
fn an_open_job_grows_in_batches_and_tells_each_end_once() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::with(folder.path(), 1, &["--no-sandbox"]);
    let gateway = Gateway::start(&grid.place, &[]);
    let job = open(&gateway);
    let mut events = gateway.at.follow(&format!("/v1/jobs/{job}/ends"), None);
    // Many groups at once, with files that come along and one that is uploaded without its hash.
    let upload = gateway.send("POST", "/v1/blobs", "application/octet-stream", b"shared");
    assert_eq!(upload.status, 201);
    let tasks = json!([
        { "id": "a", "array": "0..2", "command": ["sh", "-c", "cat in.$0 shared > out.$0", "${index}"],
          "inputs": ["in.${index}", "shared"], "outputs": ["out.${index}"] },
        { "id": "b", "command": ["sh", "-c", "cat out.0 out.1 > both"], "inputs": [{ "task": "a" }],
          "outputs": ["both"] },
        { "id": "bad", "command": ["sh", "-c", "exit 3"], "retries": 0 },
    ]);
    let files = json!({
        "in.0": { "base64": "MA==" }, "in.1": { "base64": "MQ==" },
        "shared": { "blake3": upload.json()["blake3"] },
    });
    let added = extend(&gateway, job, &tasks, &files);
    assert_eq!(added, json!({ "job": job, "first": 0, "tasks": 4 }));
    let (tasks, after) = ended(&mut events, 4);
    let mut told = names(&tasks);
    told.sort_unstable();
    assert_eq!(told, ["a.0", "a.1", "b", "bad"]);
    let both = tasks.iter().find(|task| task["task"] == "b").unwrap();
    // "0shared1shared"
    assert_eq!(both["files"][0]["base64"], "MHNoYXJlZDFzaGFyZWQ=");
    let bad = tasks.iter().find(|task| task["task"] == "bad").unwrap();
    assert_eq!(bad["end"], "exited");
    assert!(
        bad["why"].as_str().unwrap().contains("exit code 3"),
        "{bad}"
    );
    post(
        &gateway,
        &format!("/v1/jobs/{job}/release"),
        &json!({ "tasks": ["a", "b"] }),
    );
    post(&gateway, &format!("/v1/jobs/{job}/close"), &json!({}));
    let end = events.next().unwrap();
    assert_eq!(
        (end.data["over"].as_bool(), end.id),
        (Some(true), Some(after))
    );
    assert!(events.next().is_none());
    let more = json!([{ "id": "more", "command": ["true"] }]);
    let refused = gateway.send(
        "POST",
        &format!("/v1/jobs/{job}/extend"),
        JSON,
        json!({ "job": { "task": more } }).to_string().as_bytes(),
    );
    assert_eq!(refused.status, 400, "{}", refused.text());
    let unopened = gateway.submit("[[task]]\nid = \"x\"\ncommand = [\"true\"]\n");
    let mut never = gateway
        .at
        .follow(&format!("/v1/jobs/{unopened}/ends"), None);
    assert_eq!(never.next().unwrap().name, "problem");
}

#[test]
fn a_task_that_runs_is_cancelled_and_who_knows_less_hears_that_alone() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::with(folder.path(), 1, &["--no-sandbox"]);
    let gateway = Gateway::start(&grid.place, &[]);
    let job = open(&gateway);
    let path = format!("/v1/jobs/{job}/ends");
    let mut events = gateway.at.follow(&path, None);
    let task = |id: &str, command: &[&str]| json!([{ "id": id, "command": command }]);
    extend(&gateway, job, &task("first", &["true"]), &json!({}));
    let (_, last) = ended(&mut events, 1);
    extend(
        &gateway,
        job,
        &task("sleeps", &["sleep", "1000"]),
        &json!({}),
    );
    until("the task to run", || {
        let view = gateway.get(&format!("/v1/jobs/{job}"));
        (view["running"] == 1).then_some(())
    });
    let cancelled = json!({ "tasks": ["sleeps", "first"] });
    post(
        &gateway,
        &format!("/v1/jobs/{job}/tasks/cancel"),
        &cancelled,
    );
    let (tasks, _) = ended(&mut events, 1);
    assert_eq!(
        (names(&tasks), &tasks[0]["end"]),
        (vec!["sleeps"], &json!("cancelled"))
    );
    let mut late = gateway.at.follow(&path, Some(&last));
    assert_eq!(names(&ended(&mut late, 1).0), ["sleeps"]);
}

#[test]
fn ends_go_on_behind_a_leader_and_a_gateway_that_were_killed() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let mut group = Group::start(folder.path(), 3, 1);
    let gateway = Gateway::start(&group.client, &group.args(&[])[..]);
    let job = open(&gateway);
    let path = format!("/v1/jobs/{job}/ends");
    let mut events = gateway.at.follow(&path, None);
    let task = |id: &str| {
        let toml = marks.task(id, "true", "");
        let body = json!({ "toml": toml });
        body
    };
    let add =
        |gateway: &Gateway, id: &str| post(gateway, &format!("/v1/jobs/{job}/extend"), &task(id));
    add(&gateway, "a");
    marks.let_go("a");
    assert_eq!(names(&ended(&mut events, 1).0), ["a"]);
    add(&gateway, "b");
    group.kill(group.leader());
    marks.let_go("b");
    let (tasks, last) = ended(&mut events, 1);
    assert_eq!(names(&tasks), ["b"]);
    gateway.process.signal("-9");
    drop(gateway);
    let gateway = Gateway::start(&group.client, &group.args(&[])[..]);
    add(&gateway, "c");
    marks.let_go("c");
    let mut events = gateway.at.follow(&path, Some(&last));
    assert_eq!(names(&ended(&mut events, 1).0), ["c"]);
}

#[test]
fn a_gateway_that_is_idle_ends() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::with(folder.path(), 0, &[]);
    let mut gateway = Gateway::start(&grid.place, &["--exit-when-idle", "1s"]);
    let job = open(&gateway);
    let mut events = gateway.at.follow(&format!("/v1/jobs/{job}/ends"), None);
    post(&gateway, &format!("/v1/jobs/{job}/close"), &json!({}));
    while events.next().is_some() {}
    drop(events);
    until("the gateway to end", || {
        (!gateway.process.running()).then_some(())
    });
}
