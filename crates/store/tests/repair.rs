//! Who may go on alone with what is left of a damaged journal.

mod support;

use hedge_store::StoreError;
use std::fs;
use std::path::Path;
use support::{Hub, disk, group};

/// Where the frame of an entry begins in a segment, and the length of its body.
fn frame(bytes: &[u8], number: usize) -> (usize, usize) {
    const ENTRIES_AT: usize = 66;
    const HEAD: usize = 8;
    let body = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let mut at = ENTRIES_AT;
    for _ in 0..number {
        at += HEAD + body(at);
    }
    (at + HEAD, body(at))
}

fn log(folder: &Path) -> std::path::PathBuf {
    let entries = fs::read_dir(folder).unwrap();
    let mut logs = entries.map(|entry| entry.unwrap().path());
    let is_log = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("log-")
    };
    logs.find(is_log).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_whose_log_is_damaged_before_others_joined_does_not_go_on_alone() {
    let hub = Hub::default();
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let nodes = group(&hub, folders.iter().map(|one| disk(one.path())).collect()).await;
    nodes[0].commit(0..10).await;
    for node in nodes {
        node.close(&hub).await;
    }
    let log = log(folders[0].path());
    let mut bytes = fs::read(&log).unwrap();
    // The group began with its founder alone; the first entry says so, and the others joined much later.
    let (at, length) = frame(&bytes, 1);
    bytes[at + length / 2] ^= 4;
    fs::write(&log, &bytes).unwrap();
    let repaired = hedge_store::repair(folders[0].path());
    assert!(
        matches!(repaired, Err(StoreError::Members { .. })),
        "{repaired:?}"
    );
    assert_eq!(fs::read(&log).unwrap(), bytes, "nothing was cut");
}
