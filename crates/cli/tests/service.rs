//! What comes with the program for a person's desktop.

use std::fs;
use std::process::Command;

const UNIT: &str = include_str!("../../../share/hedge-worker.service");

/// The service as systemd reads it. There it finds the program by its own search path, here at its place.
#[test]
fn the_service_of_a_persons_session_is_one_that_systemd_accepts() {
    let program = env!("CARGO_BIN_EXE_hedge");
    let found = UNIT.replace("ExecStart=hedge ", &format!("ExecStart={program} "));
    assert_ne!(found, UNIT, "the service starts something else");
    assert_eq!(verify(&found), "");
    let wrong = found.replace("Restart=on-failure", "Restart=sometimes");
    assert!(verify(&wrong).contains("sometimes"), "nothing is looked at");
}

/// What systemd has against a service.
fn verify(unit: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hedge-worker.service");
    fs::write(&path, unit).unwrap();
    let output = Command::new("systemd-analyze")
        .args(["--user", "verify"])
        .arg(&path)
        .env("XDG_RUNTIME_DIR", folder.path())
        .output()
        .expect("systemd-analyze, of the package systemd");
    // It reads the machine's own units too.
    let told = String::from_utf8_lossy(&output.stderr);
    let ours = told.lines().filter(|line| line.contains("hedge-worker"));
    ours.collect::<Vec<_>>().join("\n")
}

/// The ticket is read as the service says: from a file, which is named where it is missing.
#[test]
fn the_services_command_is_one_of_the_programs() {
    let line = UNIT
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=hedge "));
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    let args = line.unwrap().replace("%h", home);
    let output = Command::new(env!("CARGO_BIN_EXE_hedge"))
        .args(args.split(' '))
        .args(["--dir", home])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("worker.ticket"), "{told}");
}
