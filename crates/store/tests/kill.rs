//! A real process, killed in the middle.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use support::{Hub, Node, disk};

#[tokio::test]
async fn nothing_acknowledged_is_missing_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 0..6_u64 {
        let mut child = Command::new(scribe())
            .arg(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = last + 500 + round * 4000;
        for line in lines {
            let number: u64 = line.unwrap().parse().unwrap();
            assert_eq!(
                number,
                last + 1,
                "each comes once, and none is forgotten over a restart"
            );
            last = number;
            if last == enough {
                // SIGKILL; what was printed meanwhile is read on.
                child.kill().unwrap();
            }
        }
        assert!(last >= enough);
        child.wait().unwrap();
        // The next life goes on behind the last that was committed, which may not have been printed.
        let hub = Hub::default();
        let copy = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let file = file.unwrap().path();
            std::fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
        }
        let node = Node::open(&hub, 1, disk(copy.path())).await.unwrap();
        node.heard.until("leader again", |told| told.leading).await;
        let (first, end) = node
            .heard
            .with(|told| (told.numbers[0], *told.numbers.last().unwrap()));
        assert!(
            end >= last,
            "{last} was acknowledged, {first} to {end} are there"
        );
        last = end;
        node.close(&hub).await;
    }
}

/// The example that is built along with the tests.
fn scribe() -> std::path::PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples")
        .join("scribe")
}
