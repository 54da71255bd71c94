//! The gateway: jobs over HTTP as over the command line, and nobody else gets in.

mod common;

use common::http::{At, Gateway};
use common::tasks::Marks;
use common::{Grid, until};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TOML: &str = "application/toml";
const JSON: &str = "application/json";

/// Leaves a file that is too long for a message, and prints.
const JOB: &str = r#"
name = "made"
[[task]]
id = "write"
array = "0..2"
command = ["sh", "-c", "echo told ${index}; echo wrong >&2; yes ${index} | head -c 3000000 > out${index}"]
outputs = ["out*"]
"#;

fn grid(folder: &tempfile::TempDir) -> Grid {
    Grid::with(folder.path(), 1, &["--no-sandbox"])
}

#[test]
fn a_job_goes_its_way_through_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let grid = grid(&folder);
    let gateway = Gateway::start(&grid.place, &[]);
    assert_eq!(gateway.get("/v1")["role"], "admin");
    assert_eq!(gateway.get("/v1/workers")[0]["liveness"], "live");
    let key = "00112233445566778899aabbccddeeff";
    let path = format!("/v1/jobs?key={key}");
    let response = gateway.send("POST", &path, TOML, JOB.as_bytes());
    assert_eq!(response.status, 201, "{}", response.text());
    assert_eq!(response.json(), json!({ "job": 1, "key": key }));
    assert_eq!(response.header("location"), Some("/v1/jobs/1"));
    let again = gateway.send("POST", &path, TOML, JOB.as_bytes());
    assert_eq!(again.json()["job"], 1, "the same submission");
    let view = gateway.await_state(1, "done");
    // What the command line shows, but for its age.
    let mut shown = grid.place.ask(&["job", "1"]);
    shown["age_ms"] = view["age_ms"].clone();
    assert_eq!(view, shown);
    assert_eq!(gateway.get("/v1/jobs/1/cost"), view["cost"]);
    let jobs = gateway.get("/v1/jobs?state=done&name=mad");
    assert_eq!(jobs["jobs"][0]["id"], 1);
    assert_eq!(jobs["next"], Value::Null);
    assert_eq!(gateway.get("/v1/jobs?after=1")["jobs"], json!([]));
    let tasks = gateway.get("/v1/jobs/1/tasks?state=done&from=1");
    assert_eq!(tasks["tasks"][0]["task"], "write.1");
    assert_eq!(
        gateway.get("/v1/jobs/1/tasks?state=failed")["tasks"],
        json!([])
    );
    let task = gateway.get("/v1/jobs/1/tasks/write.1");
    assert_eq!(task["tasks"][0]["attempts"][0]["state"], "won");
    assert_eq!(gateway.get("/v1/jobs/1/explain")["job"]["id"], 1);
    let log = gateway.get("/v1/jobs/1/tasks/write.0/log");
    assert_eq!(
        (&log["stdout"], &log["stderr"]),
        (&json!("told 0\n"), &json!("wrong\n"))
    );
    assert_eq!(log["exit_code"], 0);
    let results = gateway.get("/v1/jobs/1/results");
    let manifest = grid.place.ask(&["manifest", "1"]);
    assert_eq!(results["files"], manifest["files"]);
    let hash = results["files"][1]["blake3"].as_str().unwrap();
    let path = format!("/v1/jobs/1/blobs/{hash}?task=write.1");
    let whole = gateway.at.ask("GET", &path, &[], b"");
    assert_eq!((whole.status, whole.body.len()), (200, 3_000_000));
    assert!(whole.body.starts_with(b"1\n1\n"));
    let head = gateway.at.ask("HEAD", &path, &[], b"");
    assert_eq!(head.header("content-length"), Some("3000000"));
    let part = gateway
        .at
        .ask("GET", &path, &[("range", "bytes=1048574-2097155")], b"");
    assert_eq!((part.status, part.body.len()), (206, 1_048_582));
    assert_eq!(
        part.header("content-range"),
        Some("bytes 1048574-2097155/3000000")
    );
    assert!(part.body == whole.body[1_048_574..=2_097_155]);
    let behind = gateway
        .at
        .ask("GET", &path, &[("range", "bytes=3000000-")], b"");
    assert_eq!(behind.status, 416);
    assert_eq!(
        gateway.send("POST", "/v1/jobs/1/cancel", JSON, b"").status,
        204
    );
    assert_eq!(gateway.send("DELETE", "/v1/jobs/1", JSON, b"").status, 204);
    assert_eq!(gateway.at.ask("GET", "/v1/jobs/1", &[], b"").status, 404);
}

#[test]
fn problems_have_the_text_of_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let grid = grid(&folder);
    let gateway = Gateway::start(&grid.place, &[]);
    let detail = |method: &str, path: &str, form: &str, body: &str| {
        let response = gateway.send(method, path, form, body.as_bytes());
        assert_eq!(
            response.header("content-type"),
            Some("application/problem+json"),
            "{path}"
        );
        let problem = response.json();
        assert_eq!(problem["status"], response.status);
        (
            response.status,
            problem["detail"].as_str().unwrap().to_owned(),
            problem,
        )
    };
    let told = |args: &[&str]| {
        let output = grid.place.call(&[args, &["--json"]].concat());
        let error: Value = serde_json::from_slice(&output.stderr).unwrap();
        error["error"].as_str().unwrap().to_owned()
    };
    let (status, text, _) = detail("GET", "/v1/jobs/77", JSON, "");
    assert_eq!((status, text), (404, told(&["job", "77"])));
    let (status, text, _) = detail("PUT", "/v1/settings/keep", JSON, r#"{ "value": "x" }"#);
    assert_eq!((status, text), (400, told(&["config", "set", "keep", "x"])));
    let (status, text, _) = detail("POST", "/v1/workers/nobody/drain", JSON, "");
    assert_eq!((status, text), (404, told(&["drain", "nobody"])));
    let wrong = "[[task]]\nid = \"a\"\ncomand = [\"true\"]\n";
    std::fs::write(grid.place.folder.join("job"), wrong).unwrap();
    let (status, text, problem) = detail("POST", "/v1/jobs", TOML, wrong);
    assert_eq!((status, text), (400, told(&["submit", "job"])));
    let mut lines = problem["mistakes"].as_array().unwrap().iter();
    assert!(lines.any(|mistake| mistake["line"] == 3), "{problem}");
    for (method, path, form, body, status) in [
        ("GET", "/v1/jobs/x", JSON, "", 404),
        ("GET", "/v1/jobs?state=odd", JSON, "", 400),
        ("GET", "/v1/jobs?odd=1", JSON, "", 400),
        ("GET", "/v1/nothing", JSON, "", 404),
        ("PATCH", "/v1/jobs", JSON, "", 405),
        ("POST", "/v1/jobs", "text/plain", "x", 415),
        ("POST", "/v1/jobs", JSON, "{", 400),
        ("POST", "/v1/batch", JSON, "{}", 400),
        ("PUT", "/v1/settings/keep", JSON, "[]", 400),
    ] {
        let (found, text, _) = detail(method, path, form, body);
        assert_eq!(found, status, "{method} {path}: {text}");
    }
    let odd = gateway.send("PATCH", "/v1/jobs", JSON, b"");
    assert_eq!(odd.header("allow"), Some("GET,HEAD,POST"));
}

#[test]
fn jobs_bring_their_files_and_read_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let grid = grid(&folder);
    let gateway = Gateway::start(&grid.place, &[]);
    let content = b"line\n".repeat(100_000);
    let hash = blake3::hash(&content).to_hex();
    let script = b"#!/bin/sh\nwc -l < big\n";
    let program = blake3::hash(script).to_hex();
    let put = |hash: &str, content: &[u8]| {
        let path = format!("/v1/blobs/{hash}");
        gateway
            .send("PUT", &path, "application/octet-stream", content)
            .status
    };
    assert_eq!(put(&hash, b"other"), 400, "another hash");
    assert_eq!([put(&hash, &content), put(&hash, &content)], [201, 200]);
    assert_eq!(put(&program, script), 201);
    let back = gateway.at.ask(
        "GET",
        &format!("/v1/blobs/{hash}"),
        &[("range", "bytes=-5")],
        b"",
    );
    assert_eq!((back.status, &*back.body), (206, &b"line\n"[..]));
    let command =
        json!({ "task": [{ "id": "count", "command": ["./run"], "inputs": ["big", "run"] }] });
    let files = json!({
        "big": { "blake3": *hash }, "run": { "blake3": *program, "executable": true },
    });
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let stolen = json!({ "task": [{ "id": "a", "command": ["cat"], "stdin": secret }] });
    let missing = json!({ "x": { "blake3": "00".repeat(32) } });
    // Side by side: none takes the files of another.
    let batch = json!({ "jobs": [
        { "job": command, "files": files }, { "job": stolen },
        { "toml": "[[task]]\nid = \"a\"\ncommand = [\"true\"]\n" },
        { "job": command, "files": files }, { "job": command, "files": missing },
    ] });
    let response = gateway.send("POST", "/v1/batch", JSON, batch.to_string().as_bytes());
    assert_eq!(response.status, 200, "{}", response.text());
    let jobs = response.json()["jobs"].clone();
    let problem = |at: usize| jobs[at]["problem"]["detail"].as_str().unwrap().to_owned();
    assert!(problem(1).contains("outside of the submission"), "{jobs}");
    assert!(problem(4).contains("upload it"), "{jobs}");
    for at in [0, 3] {
        let job = jobs[at]["job"].as_u64().unwrap();
        gateway.await_state(job, "done");
        let log = gateway.get(&format!("/v1/jobs/{job}/tasks/count/log"));
        assert_eq!(log["stdout"], "100000\n");
    }
    gateway.await_state(jobs[2]["job"].as_u64().unwrap(), "done");
}

#[test]
fn what_a_task_prints_is_followed_and_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let grid = grid(&folder);
    let gateway = Gateway::start(&grid.place, &[]);
    let text = marks.task("a", "echo after", "");
    let text = text.replace(
        "env = {",
        "env = { BEFORE = \"printf 'before \\\\342\\\\202'\",",
    );
    let job = gateway.submit(&text);
    let path = format!("/v1/jobs/{job}/tasks/a/log/events");
    let (id, stdout) = until("output", || {
        let mut events = gateway.at.follow(&path, None);
        let event = events.next()?;
        (event.name == "output").then(|| (event.id, event.data["stdout"].clone()))
    });
    assert_eq!(stdout, "before ", "the character is not whole yet");
    let mut events = gateway.at.follow(&path, id.as_deref());
    marks.let_go("a");
    let mut rest = String::new();
    let end = events.until("the end", |event| {
        rest += event.data["stdout"].as_str().unwrap_or_default();
        (event.name == "end").then(|| event.data.clone())
    });
    assert_eq!(rest, "\u{fffd}after\n");
    assert_eq!((&end["last"], &end["exit_code"]), (&json!(true), &json!(0)));
    assert!(events.next().is_none(), "nothing follows");
    let none = gateway.at.ask(
        "GET",
        &format!("/v1/jobs/{job}/tasks/x/log/events"),
        &[],
        b"",
    );
    assert_eq!(none.status, 404);
}

#[test]
fn only_this_machines_owner_is_answered_over_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let grid = grid(&folder);
    let gateway = Gateway::start(&grid.place, &["--listen", "127.0.0.1:0"]);
    let At::Tcp(address, token) = &gateway.at else {
        panic!("no address");
    };
    assert_eq!(gateway.get("/v1")["role"], "admin");
    let status = |name, value: &str| {
        let response = gateway.at.ask("GET", "/v1/jobs", &[(name, value)], b"");
        for name in ["content-security-policy", "x-content-type-options"] {
            assert!(response.header(name).is_some(), "{name}");
        }
        assert!(response.header("set-cookie").is_none());
        response.status
    };
    assert_eq!(status("authorization", &format!("Bearer {token}0")), 401);
    assert_eq!(status("authorization", "Bearer"), 401);
    assert_eq!(status("origin", "http://example.org"), 403);
    assert_eq!(status("host", "example.org"), 421);
    assert_eq!(status("origin", &format!("http://{address}")), 200);
    // A stranger's body is not read.
    let huge = [("authorization", ""), ("content-length", "1000000000000")];
    assert_eq!(gateway.at.ask("PUT", "/v1/blobs/x", &huge, b"").status, 401);
    let long = vec![b'x'; (1 << 20) + 1];
    let response = gateway.send("PUT", "/v1/settings/keep", JSON, &long);
    assert_eq!(response.status, 413, "{}", response.text());
    let refused = grid.place.call(&["gateway", "--listen", "0.0.0.0:0"]);
    assert_eq!(refused.status.code(), Some(2));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("other machines"), "{told}");
}

#[test]
fn slow_strangers_keep_nobody_out() {
    const STRANGERS: usize = 300;
    let folder = tempfile::tempdir().unwrap();
    let grid = grid(&folder);
    let gateway = Gateway::start(&grid.place, &["--listen", "127.0.0.1:0"]);
    let At::Tcp(address, _) = &gateway.at else {
        panic!("no address");
    };
    let open = |address: &SocketAddr| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /v1/jobs HT").unwrap();
        stream
    };
    let mut strangers: Vec<TcpStream> = (0..STRANGERS).map(|_| open(address)).collect();
    // The owner is answered, and one stranger after the other gives way.
    for _ in 0..20 {
        assert_eq!(gateway.get("/v1/jobs")["jobs"], json!([]));
    }
    let closed = |stream: &mut TcpStream| {
        stream
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        matches!(stream.read(&mut [0]), Ok(0)) || {
            let error = stream.read(&mut [0]).map_err(|error| error.kind());
            error == Err(std::io::ErrorKind::ConnectionReset)
        }
    };
    until("strangers to give way", || {
        let gone = strangers
            .iter_mut()
            .filter_map(|stream| closed(stream).then_some(()));
        (gone.count() >= STRANGERS - 256).then_some(())
    });
}

#[test]
fn a_clients_ticket_gives_a_clients_rights() {
    let folder = tempfile::tempdir().unwrap();
    let grid = grid(&folder);
    let ticket = grid.place.ask(&["ticket", "client"])["ticket"]
        .as_str()
        .unwrap()
        .to_owned();
    let submitted = grid.place.call(&["submit", "--", "true"]);
    assert!(submitted.status.success());
    let gateway = Gateway::start(&grid.place, &["--join", &ticket, "--socket", "s"]);
    assert_eq!(gateway.get("/v1")["role"], "client");
    assert_eq!(
        gateway.get("/v1/jobs")["jobs"],
        json!([]),
        "the administrator's job"
    );
    let response = gateway.at.ask("GET", "/v1/tickets", &[], b"");
    assert_eq!(response.status, 403, "{}", response.text());
    let second = grid
        .place
        .call(&["gateway", "--join", &ticket, "--socket", "s"]);
    assert_eq!(second.status.code(), Some(2), "it listens there already");
}

#[test]
fn the_dashboards_address_holds_a_token_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let grid = grid(&folder);
    let ui = grid.place.start(&["ui", "--no-browser", "--json"]);
    let told: Value = until("the dashboard", || serde_json::from_str(&ui.out()).ok());
    let url = told["url"].as_str().unwrap().strip_prefix("http://");
    let (address, token) = url.unwrap().split_once("/#token=").unwrap();
    let at = At::Tcp(address.parse().unwrap(), token.to_owned());
    assert_eq!(at.ask("GET", "/v1", &[], b"").status, 200);
    let nobody = [("authorization", "")];
    let page = at.ask("GET", "/", &nobody, b"");
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(page.text().contains("/ui/main.js"));
    assert_eq!(at.ask("GET", "/ui/main.js", &nobody, b"").status, 200);
    assert_eq!(at.ask("GET", "/ui/../v1", &nobody, b"").status, 404);
    assert_eq!(at.ask("GET", "/v1", &nobody, b"").status, 401);
    let place = &grid.place.folder;
    assert!(!place.join("state/hedgerow/gateway/token").exists());
}

#[test]
fn ctrl_c_ends_a_gateway_and_a_dashboard_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let grid = grid(&folder);
    let mut gateway = Gateway::start(&grid.place, &[]);
    // It asks the grid all the time while somebody follows.
    let mut events = gateway.at.follow("/v1/events", None);
    events.until("the state of the grid", |event| {
        (event.name == "ready").then_some(())
    });
    let mut ui = grid.place.start(&["ui", "--no-browser", "--json"]);
    until("the dashboard", || ui.out().ends_with('\n').then_some(()));
    for process in [&mut gateway.process, &mut ui] {
        process.signal("-INT");
        assert_eq!(process.end().code(), Some(0), "{}", process.told());
        assert_eq!(process.err(), "");
    }
}

#[test]
fn groups_and_attempts_say_what_a_drawing_needs() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let grid = grid(&folder);
    let gateway = Gateway::start(&grid.place, &[]);
    let parts = [
        marks.task("a", "true", ""),
        marks.task("b", "true", "deps = [\"a\"]\ncritical = true"),
    ];
    let job = gateway.submit(&parts.concat());
    gateway.await_state(job, "running");
    let groups = gateway.get(&format!("/v1/jobs/{job}/groups"))["groups"].clone();
    let ids = [&groups[0]["id"], &groups[1]["id"]];
    assert_eq!(ids, ["a", "b"]);
    assert_eq!(
        (&groups[1]["waits_for"], &groups[1]["critical"]),
        (&json!([0]), &json!(1))
    );
    assert_eq!(groups[0]["running"], 1);
    assert!(groups[0]["tail_s"].as_f64() > groups[1]["tail_s"].as_f64());
    let path = format!("/v1/jobs/{job}/attempts");
    let runs = gateway.get(&path)["attempts"][0].clone();
    assert_eq!(
        (&runs["task"], &runs["end_ms"]),
        (&json!("a"), &Value::Null)
    );
    marks.let_go("a");
    marks.let_go("b");
    gateway.await_state(job, "done");
    let all = gateway.get(&path);
    let first = &all["attempts"][0];
    assert_eq!(
        (&first["attempt"], &first["state"]),
        (&runs["attempt"], &json!("won"))
    );
    let time = |value: &Value| value.as_f64().unwrap();
    let second = &all["attempts"][1];
    assert!(time(&first["end_ms"]) <= time(&second["end_ms"]), "{all}");
    assert!(time(&second["end_ms"]) <= time(&all["now_ms"]), "{all}");
    let between = (time(&first["end_ms"]) + time(&second["end_ms"])) / 2.0;
    let late = gateway.get(&format!("{path}?since_ms={between}"));
    assert_eq!(late["attempts"].as_array().unwrap().len(), 1, "{late}");
    assert_eq!(
        gateway.get(&format!("{path}?from=1"))["attempts"][0]["task"],
        "b"
    );
}
