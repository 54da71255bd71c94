//! A sound server of its own, a virtual microphone, and a program that records from it.

mod common;

use common::{Process, SOON, watch};
use hedge_host::Options;
use hedge_model::owner::{Activity, Signal};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a program with the sound server in `folder`.
fn with_server(folder: &Path, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .env("XDG_RUNTIME_DIR", folder)
        .env("HOME", folder)
        .env("PULSE_RUNTIME_PATH", folder.join("pulse"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[test]
fn a_program_that_records_is_noticed_and_one_that_records_a_loudspeaker_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let args = [
        "-n",
        "--daemonize=no",
        "--exit-idle-time=-1",
        "--disable-shm=yes",
        "--load=module-native-protocol-unix",
        "--load=module-null-sink sink_name=room",
        "--load=module-remap-source source_name=microphone master=room.monitor",
    ];
    let _server = Process(with_server(folder, "pulseaudio", &args).spawn().unwrap());
    let since = Instant::now();
    while !with_server(folder, "pactl", &["info"])
        .status()
        .unwrap()
        .success()
    {
        assert!(since.elapsed() < SOON, "the sound server does not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    // The source finds its server by the environment, like any program.
    // SAFETY: no other thread of this test program runs yet.
    unsafe {
        std::env::set_var("XDG_RUNTIME_DIR", folder);
        std::env::set_var("PULSE_RUNTIME_PATH", folder.join("pulse"));
    }
    let watched = watch(Options::default(), &["microphone"]);
    watched.ready("microphone");
    watched.wait_for(Signal::Watched(false));
    let record = |source: &str| {
        let device = format!("--device={source}");
        Process(with_server(folder, "parec", &[&device]).spawn().unwrap())
    };
    let loudspeaker = record("room.monitor");
    let said = watched.next(Duration::from_secs(1));
    assert!(said.is_none(), "a loudspeaker is no voice: {said:?}");
    let microphone = record("microphone");
    watched.wait_for(Signal::Lasting(Activity::Voice, true));
    drop(microphone);
    watched.wait_for(Signal::Lasting(Activity::Voice, false));
    drop(loudspeaker);
}
