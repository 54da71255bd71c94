//! A supervisor that really runs is recorded; its core, which hears the same again, does the same.

mod common;

use common::{PATIENCE, Place};
use hedge_model::msg::{Reply, Request, Role};
use hedge_model::spec::{CriticalRule, Draft, Group, Input, Qos, Runtime};
use hedge_model::view::{JobState, JobView};
use hedge_model::{Data, FileEntry, JobId, JobSpec};
use hedge_node::client::{InputFiles, new_key};
use hedge_node::supervisor::{Recording, Supervisor, SupervisorConfig};
use hedge_node::{Client, Folders};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;

fn job(name: &str, files: Vec<FileEntry>, groups: Vec<Group>) -> JobSpec {
    let draft = Draft {
        name: name.into(),
        qos: Qos::default(),
        critical: CriticalRule::default(),
        files,
        groups,
        outline: false,
    };
    JobSpec::new(draft).expect("a job")
}

/// Two tasks that read a file, and one that reads what they make of it.
fn copies(dir: &Path) -> (JobSpec, InputFiles) {
    let path = dir.join("input");
    std::fs::write(&path, vec![7; 2 << 20]).expect("an input");
    let (files, mut read) = InputFiles::read(vec![path]);
    let (hash, size) = read.remove(0).1.expect("its hash");
    let file = FileEntry {
        path: "in".into(),
        executable: false,
        data: Data::Blob { hash, size },
    };
    let copy = Group {
        array: Some((0, 2)),
        inputs: vec![Input::File(0)],
        outputs: vec!["out.${index}".into()],
        ..Group::program("copy", &["sh", "-c", "cp in out.$HEDGE_INDEX; echo copied"])
    };
    let count = Group {
        inputs: vec![Input::Task("copy".into())],
        outputs: vec!["bytes".into()],
        ..Group::program("count", &["sh", "-c", "cat out.* | wc -c > bytes"])
    };
    (job("copies", vec![file], vec![copy, count]), files)
}

/// Many tasks that take no time.
fn noops() -> JobSpec {
    let noop = Group {
        array: Some((0, 200)),
        runtime: Runtime::Noop,
        ..Group::program("noop", &[])
    };
    job("noops", Vec::new(), vec![noop])
}

async fn submit(client: &Client, spec: &JobSpec) -> JobId {
    let submitted = client.submit(new_key().expect("a key"), spec).await;
    submitted.expect("accepted")
}

/// Waits until the grid's one worker is gone.
async fn worker_gone(client: &Client) {
    loop {
        let workers = client.ask(Request::Workers).await.expect("workers");
        if matches!(workers, Reply::Workers(all) if all[0].liveness == "dead") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn end(mut views: mpsc::Receiver<JobView>) -> JobView {
    let last = async {
        let mut last = None;
        while let Some(view) = views.recv().await {
            last = Some(view);
        }
        last
    };
    let last = tokio::time::timeout(PATIENCE, last).await;
    last.expect("it ends in time").expect("a view")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_repeats_from_what_its_supervisor_heard() {
    let dir = tempfile::tempdir().expect("a folder");
    let folders = Folders::new(Some(dir.path().to_owned())).expect("folders");
    let recording = Recording::default();
    let config = SupervisorConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        recording: Some(recording.clone()),
        ..SupervisorConfig::new(&folders)
    };
    let supervisor = Supervisor::start(config).await.expect("a supervisor");
    let ticket = supervisor.ticket(Role::Admin).await.expect("a ticket");
    let client = Client::connect(&folders, &ticket).await.expect("a client");

    let waiting = submit(&client, &noops()).await;
    let one = job(
        "cancelled",
        Vec::new(),
        vec![Group::program("a", &["true"])],
    );
    let cancelled = submit(&client, &one).await;
    client.ask(Request::Cancel(cancelled)).await.expect("done");

    let ticket = supervisor.ticket(Role::Worker).await.expect("a ticket");
    let ticket = ticket.to_string();
    let place = Place::here(&dir.path().join("worker"));
    let worker = place.start(&[
        "worker",
        "--join",
        &ticket,
        "--listen",
        "127.0.0.1:0",
        "--cpus",
        "2",
        "--dedicated",
    ]);
    let (copies, files) = copies(dir.path());
    let submitted = client.submit_with(new_key().expect("a key"), &copies, &files);
    let copies = submitted.await.expect("accepted");
    for job in [waiting, copies] {
        let view = end(client.watch(job).await.expect("views")).await;
        assert_eq!(view.state, JobState::Done, "{view:?}");
    }
    let results = client.results(copies).await.expect("results");
    assert_eq!(results.files().count(), 1);
    let printed = client.printed(copies, "copy.0").await.expect("a log");
    assert_eq!(printed.stdout, b"copied\n");
    let workers = client.ask(Request::Workers).await.expect("workers");
    assert!(matches!(workers, Reply::Workers(all) if all.len() == 1));

    drop(worker);
    let gone = tokio::time::timeout(PATIENCE, worker_gone(&client)).await;
    gone.expect("its end is noticed in time");
    client.close().await;
    supervisor.stop().await;

    let replayed = recording.replay().unwrap_or_else(|why| panic!("{why}"));
    // 203 tasks, three jobs and their ends at least.
    assert!(replayed.proposals >= 209, "{replayed:?}");
    assert!(replayed.events > replayed.proposals, "{replayed:?}");
    assert!(replayed.actions > 203, "{replayed:?}");
}
