//! The gateway's stream of events: it goes on after the end of a gateway and of a leader.

mod common;

use common::Grid;
use common::group::Group;
use common::http::{Event, Events, Gateway};
use common::tasks::Marks;

/// The id behind everything that was known at the beginning.
fn ready(events: &mut Events) -> String {
    let first = events.next().unwrap();
    assert_eq!(first.name, "reset");
    events.until("ready", |event| {
        (event.name == "ready").then(|| event.id.clone().unwrap())
    })
}

/// The id of the event in which a job has this state.
fn job_is(events: &mut Events, job: u64, state: &str) -> String {
    events.until(state, |event| {
        let it = event.name == "job" && event.data["id"] == job && event.data["state"] == state;
        it.then(|| event.id.clone().unwrap())
    })
}

fn number(id: &str) -> u64 {
    id.rsplit('-').next().unwrap().parse().unwrap()
}

#[test]
fn events_are_numbered_on_after_the_end_of_a_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::with(folder.path(), 1, &["--no-sandbox"]);
    let run = || {
        let ended = grid.place.call(&["submit", "--wait", "--", "true"]);
        assert!(ended.status.success());
    };
    let gateway = Gateway::start(&grid.place, &[]);
    let mut events = gateway.at.follow("/v1/events", None);
    let begin = ready(&mut events);
    run();
    let done = job_is(&mut events, 1, "done");
    assert!(number(&done) > number(&begin));
    // A client that saw less gets the same event.
    let mut late = gateway.at.follow("/v1/events", Some(&begin));
    assert_eq!(job_is(&mut late, 1, "done"), done);
    gateway.process.signal("-9");
    // The stream ends with the gateway.
    while events.next().is_some() {}
    drop(gateway);
    run();
    let gateway = Gateway::start(&grid.place, &[]);
    let mut events = gateway.at.follow("/v1/events", Some(&done));
    let mut names: Vec<Event> = Vec::new();
    let again = events.until("the second job", |event| {
        names.push(event.clone());
        let second = event.name == "job" && event.data["id"] == 2;
        second.then(|| event.id.clone().unwrap())
    });
    assert!(number(&again) > number(&done));
    let told = |name: &str| names.iter().any(|event| event.name == name);
    assert!(!told("reset"), "{names:?}");
    let first = |event: &Event| event.name == "job" && event.data["id"] == 1;
    assert!(!names.iter().any(first), "{names:?}");
    drop(events);
    // Numbers of another stream mean nothing.
    let mut other = gateway.at.follow("/v1/events", Some("000000000000-1"));
    ready(&mut other);
    let forgotten = grid.place.call(&["forget", "1", "--yes"]);
    assert!(forgotten.status.success());
    other.until("job 1 to go", |event| {
        (event.name == "job_gone" && event.data["id"] == 1).then_some(())
    });
}

#[test]
fn a_stream_outlives_the_leader() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let mut group = Group::start(folder.path(), 3, 1);
    let gateway = Gateway::start(&group.client, &group.args(&[])[..]);
    let mut events = gateway.at.follow("/v1/events", None);
    ready(&mut events);
    let job = gateway.submit(&marks.task("a", "true", ""));
    job_is(&mut events, job, "running");
    group.kill(group.leader());
    marks.let_go("a");
    job_is(&mut events, job, "done");
    let jobs = gateway.get("/v1/jobs");
    assert_eq!(jobs["jobs"][0]["state"], "done");
}

#[test]
fn metrics_have_states_and_no_ids() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::with(folder.path(), 1, &["--no-sandbox"]);
    let gateway = Gateway::start(&grid.place, &[]);
    let job = gateway.submit("[[task]]\nid = \"a\"\ncommand = [\"true\"]\n");
    gateway.await_state(job, "done");
    let response = gateway.at.ask("GET", "/metrics", &[], b"");
    let form = response.header("content-type").unwrap();
    assert!(
        form.starts_with("application/openmetrics-text; version=1.0.0"),
        "{form}"
    );
    let text = response.text();
    for line in [
        "hedge_jobs{state=\"done\"} 1",
        "hedge_tasks{state=\"done\"} 1",
        "hedge_job_attempts{outcome=\"won\"} 1",
        "hedge_workers{liveness=\"live\",usage=\"ready\"} 1",
        "hedge_worker_cpus{state=\"total\"} 1.0",
    ] {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
    assert!(text.ends_with("# EOF\n"), "{text}");
    let worker = gateway.get("/v1/workers")[0]["peer"].as_str().unwrap()[..10].to_owned();
    assert!(!text.contains(&worker), "{text}");
}
