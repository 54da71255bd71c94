//! Metrics of supervisors and workers: what is counted, their form, and a Prometheus that reads them.

mod common;

use common::http::At;
use common::tasks::Marks;
use common::{Grid, Kept, Place, json, told, until};
use serde_json::Value;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a process says that its metrics are.
fn address(process: &Kept) -> SocketAddr {
    until("the address of the metrics", || {
        let said = process.err();
        let (_, rest) = said.split_once("metrics are at http://")?;
        rest.split_once("/metrics")?.0.parse().ok()
    })
}

/// The metrics of a process, as it shows them.
fn scrape(process: &Kept) -> String {
    let response = At::Tcp(address(process), String::new()).ask("GET", "/metrics", &[], b"");
    assert_eq!(response.status, 200, "{}", response.text());
    response.text()
}

/// The value of a series; none where there is no such series.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.parse().ok()
}

fn grid(folder: &Path, workers: usize) -> Grid {
    let place = Place::here(folder);
    let command = place.hedge(&[
        "supervisor",
        "--listen",
        "127.0.0.1:0",
        "--json",
        "--metrics",
        "0",
    ]);
    let supervisor = place.listening(command);
    let mut grid = Grid {
        place,
        workers: Vec::new(),
        supervisor,
    };
    for _ in 0..workers {
        grid.add_worker(&["--no-sandbox", "--metrics", "0"]);
    }
    grid.place.await_workers(workers);
    grid
}

fn share(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../share")
        .join(path)
}

/// Has promtool check something.
fn promtool(args: &[&str], input: &str) {
    let mut child = Command::new("promtool")
        .args(args)
        .current_dir(share("prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{args:?}: {}\n{input}",
        told(&output)
    );
}

#[test]
fn the_end_of_a_worker_is_counted_and_timed() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let grid = grid(folder.path(), 2);
    let file = folder.path().join("job.toml");
    let job = format!(
        "[qos]\nredundancy = \"none\"\n{}",
        marks.task("a", "true", "")
    );
    std::fs::write(&file, job).unwrap();
    let job = grid.place.submit("job.toml");
    until("the task to run", || {
        marks.started().contains_key("a").then_some(())
    });
    let runs = |worker: &&Kept| value(&scrape(worker), "hedge_worker_running") == Some(1.0);
    let busy = grid
        .workers
        .iter()
        .find(runs)
        .expect("no worker runs the task");
    busy.signal("-9");
    until("the task to run elsewhere", || {
        (marks.started()["a"].len() == 2).then_some(())
    });
    marks.let_go("a");
    grid.place.wait(&job);
    let text = scrape(&grid.supervisor);
    let counted = |series: &str| value(&text, series).unwrap_or_else(|| panic!("{series}: {text}"));
    assert_eq!(
        counted("hedge_attempts_total{copy=\"primary\",outcome=\"won\"}"),
        1.0
    );
    assert_eq!(
        counted("hedge_attempts_total{copy=\"primary\",outcome=\"lost\"}"),
        1.0
    );
    assert_eq!(
        counted("hedge_attempts_total{copy=\"redundant\",outcome=\"won\"}"),
        0.0
    );
    assert_eq!(counted("hedge_recovery_seconds_count"), 1.0);
    assert!(counted("hedge_recovery_seconds_sum") > 0.0);
    assert_eq!(
        counted("hedge_attempt_seconds_count{copy=\"primary\"}"),
        2.0
    );
    assert_eq!(counted("hedge_leader"), 1.0);
    assert_eq!(counted("hedge_leaderships_total"), 1.0);
    assert_eq!(counted("hedge_jobs{state=\"done\"}"), 1.0);
    // No series has an id.
    let peers = grid.place.workers();
    for peer in peers.iter().map(|worker| worker["peer"].as_str().unwrap()) {
        assert!(!text.contains(&peer[..8]), "{peer}: {text}");
    }
    for text in [
        &text,
        &scrape(
            grid.workers
                .iter()
                .find(|one| one.pid() != busy.pid())
                .unwrap(),
        ),
    ] {
        promtool(&["check", "metrics"], text);
    }
}

#[test]
fn metrics_are_shown_to_scrapers_alone() {
    let folder = tempfile::tempdir().unwrap();
    let grid = grid(folder.path(), 0);
    let at = At::Tcp(address(&grid.supervisor), String::new());
    assert_eq!(at.ask("GET", "/v1/jobs", &[], b"").status, 404);
    assert_eq!(at.ask("POST", "/metrics", &[], b"").status, 405);
    // A page of a browser that had its own name point here.
    let foreign = at.ask("GET", "/metrics", &[("host", "example.org")], b"");
    assert_eq!(foreign.status, 421, "{}", foreign.text());
    let taken = address(&grid.supervisor).to_string();
    let place = Place::here(&folder.path().join("second"));
    let second = place.call(&["supervisor", "--listen", "127.0.0.1:0", "--metrics", &taken]);
    assert_eq!(second.status.code(), Some(2), "{}", told(&second));
    assert!(
        told(&second).contains("nothing was started"),
        "{}",
        told(&second)
    );
}

#[test]
fn alert_rules_are_valid_and_fire() {
    promtool(&["check", "rules", "hedgerow.rules.yml"], "");
    promtool(&["test", "rules", "hedgerow.rules.test.yml"], "");
}

/// A Prometheus that reads these targets.
struct Prometheus {
    process: Kept,
    port: SocketAddr,
}

impl Prometheus {
    fn start(place: &Place, targets: &[SocketAddr]) -> Prometheus {
        let targets: Vec<String> = targets.iter().map(|at| format!("'{at}'")).collect();
        let rules = share("prometheus/hedgerow.rules.yml")
            .canonicalize()
            .unwrap();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: ['{}']\n\
             scrape_configs: [{{ job_name: hedgerow, static_configs: [{{ targets: [{}] }}] }}]\n",
            rules.display(),
            targets.join(", ")
        );
        let file = place.folder.join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        // Free until a moment ago.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let mut command = place.program("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                place.folder.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={port}"));
        let process = Kept::start(command, &place.folder);
        let mut prometheus = Prometheus { process, port };
        until("Prometheus to be ready", || {
            let running = prometheus.process.running();
            assert!(running, "{}", prometheus.process.told());
            let at = At::Tcp(port, String::new());
            std::net::TcpStream::connect(port).ok()?;
            (at.ask("GET", "/-/ready", &[], b"").status == 200).then_some(())
        });
        prometheus
    }

    /// What a query gives.
    fn ask(&self, query: &str) -> Value {
        let server = format!("http://{}", self.port);
        let output = Command::new("promtool")
            .args(["query", "instant", "--format", "json", &server, query])
            .output()
            .unwrap();
        assert!(output.status.success(), "{query}: {}", told(&output));
        json(&output)
    }

    /// Whether a query gives anything.
    fn has(&self, query: &str) -> bool {
        self.ask(query)
            .as_array()
            .is_some_and(|found| !found.is_empty())
    }
}

#[test]
fn a_prometheus_reads_everything_that_the_board_shows() {
    let folder = tempfile::tempdir().unwrap();
    let grid = grid(folder.path(), 1);
    let ended = grid.place.call(&["submit", "--wait", "--", "true"]);
    assert!(ended.status.success(), "{}", told(&ended));
    let targets = [address(&grid.supervisor), address(&grid.workers[0])];
    let prometheus = Prometheus::start(&grid.place, &targets);
    until("the targets to be read", || {
        prometheus.has("sum(up) == 2").then_some(())
    });
    let won = "sum(hedge_attempts_total{outcome=\"won\"}) == 1";
    until("the attempt to be counted", || {
        prometheus.has(won).then_some(())
    });
    assert!(prometheus.has("hedge_worker_attempts_total{outcome=\"done\"} == 1"));
    let ratio = "hedge:attempts_lost:ratio";
    let board = std::fs::read_to_string(share("grafana/hedgerow.json")).unwrap();
    let board: Value = serde_json::from_str(&board).unwrap();
    let panels = board["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries: Vec<String> = targets
        .map(|target| {
            target["expr"]
                .as_str()
                .unwrap()
                .replace("$__rate_interval", "1m")
        })
        .collect();
    assert!(queries.len() > 15, "{queries:?}");
    for query in &queries {
        prometheus.ask(query);
        // Every metric that the board names exists; an owner's return may never have happened.
        let names = query.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        let names = names.filter(|name| name.starts_with("hedge"));
        for name in names.filter(|name| ![ratio, "hedge_worker_owner_returns_total"].contains(name))
        {
            assert!(prometheus.has(name), "{name} in {query}");
        }
    }
}
