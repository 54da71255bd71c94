//! A client of a real grid names by hash what it does not hold, and what it does.

mod common;

use common::*;
use hedge_model::spec::{CriticalRule, Draft, Group, Input, Qos};
use hedge_model::{Data, FileEntry, Hash, JobSpec};
use hedge_net::{DataStore, Ticket};
use hedge_node::client::{Client, InputFiles, new_key};
use hedge_node::{ClientError, Folders};
use std::fs;
use std::path::Path;

/// A job whose only task reads this blob and prints it.
fn reads(hash: Hash, size: u64) -> JobSpec {
    let file = FileEntry {
        path: "in".into(),
        executable: false,
        data: Data::Blob { hash, size },
    };
    let group = Group {
        inputs: vec![Input::File(0)],
        ..Group::program("read", &["cat", "in"])
    };
    let draft = Draft {
        name: "read".into(),
        qos: Qos::default(),
        critical: CriticalRule::default(),
        files: vec![file],
        groups: vec![group],
        outline: false,
    };
    JobSpec::new(draft).unwrap()
}

/// The hash and length of a file's content.
async fn named(folder: &Path, file: &Path) -> (Hash, u64) {
    let store = DataStore::open(&folder.join("names")).await.unwrap();
    store.add_file(file).await.unwrap()
}

/// The refusal of a job that names this blob, which the client does not hold. The client serves another file.
async fn refusal(client: &Client, folder: &Path, (hash, size): (Hash, u64)) -> String {
    let other = folder.join("mine");
    fs::write(&other, vec![7; 100_000]).unwrap();
    let (files, _) = InputFiles::read(vec![other]);
    let job = reads(hash, size);
    match client.submit_with(new_key().unwrap(), &job, &files).await {
        Err(ClientError::Refused(refusal)) => refusal.why,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_client_reads_by_hash_only_what_it_holds_or_its_own_jobs_made() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let here = folder.path();
    let secret: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    fs::write(here.join("secret"), &secret).unwrap();
    let job = r#"
name = "owner"
[[task]]
id = "make"
command = ["sh", "-c", "cat secret secret > made"]
inputs = ["secret"]
outputs = ["made"]
[[task]]
id = "hold"
command = ["sleep", "600"]
inputs = ["secret"]
"#;
    fs::write(here.join("job.toml"), job).unwrap();
    let id = grid.place.submit("job.toml");
    until("the output to be made", || {
        let jobs = grid.place.ask(&["jobs"]);
        (jobs[0]["done"] == 1).then_some(())
    });
    fs::write(here.join("made"), [&secret[..], &secret[..]].concat()).unwrap();
    let ticket: Ticket = grid.place.ticket("client").parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let input = named(here, &here.join("secret")).await;
        let output = named(here, &here.join("made")).await;
        let folders = Folders::new(Some(here.join("other"))).unwrap();
        let client = Client::connect(&folders, &ticket).await.unwrap();
        for blob in [input, output] {
            let why = refusal(&client, here, blob).await;
            let expected = "the inputs could not be fetched from the client";
            assert!(
                why.contains(expected) && why.contains("nothing was accepted"),
                "{why}"
            );
        }
        assert!(client.jobs().await.unwrap().is_empty());
        // Who holds the file gets its job accepted, and names it from then on without serving it.
        let (files, _) = InputFiles::read(vec![here.join("secret")]);
        let (hash, size) = input;
        let (key, job) = (new_key().unwrap(), reads(hash, size));
        client.submit_with(key, &job, &files).await.unwrap();
        let again = client.submit(new_key().unwrap(), &reads(hash, size)).await;
        again.unwrap();
        client.close().await;
    });
    let cancelled = grid.place.call(&["cancel", &id]);
    assert_eq!(cancelled.status.code(), Some(0), "{}", told(&cancelled));
}
