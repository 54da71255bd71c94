//! Programs that compute beside this process, and what is noticed of them.

mod common;

use common::{Process, watch};
use hedge_host::Options;
use hedge_model::owner::{Activity, Signal};
use std::process::Command;
use std::time::{Duration, Instant};

const HOG: &str = "while :; do :; done";

/// Runs one test of this program where there are no other processes: the machine may be busy with anything.
fn alone(test: &str) -> bool {
    if std::env::var_os("HEDGE_TEST_ALONE").is_some() {
        return true;
    }
    let own = std::env::current_exe().unwrap();
    let own = own.to_str().unwrap();
    // The shell stays as the first process there, and takes in orphans.
    let script = format!("'{own}' --exact {test} --nocapture; exit $?");
    let status = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["sh", "-c", &script])
        .env("HEDGE_TEST_ALONE", "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    false
}

#[test]
fn a_foreign_program_is_noticed_within_a_second_and_our_own_never() {
    if !alone("a_foreign_program_is_noticed_within_a_second_and_our_own_never") {
        return;
    }
    let options = Options {
        // On a machine that is busy with other things a program gets only its share.
        foreign_cores: 0.1,
        ..Options::default()
    };
    let watched = watch(options, &["processes"]);
    watched.ready("processes");
    watched.wait_for(Signal::Watched(false));
    // Our own, at the priority of tasks, on every core: children, and one of a child that made itself a daemon
    // below the process that takes in orphans for us.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let idle = ["--idle", "0", "sh", "-c"];
    let cores = std::thread::available_parallelism().unwrap().get();
    let start = |_| Process(Command::new("chrt").args(idle).arg(HOG).spawn().unwrap());
    let _children: Vec<Process> = (0..cores).map(start).collect();
    let daemon = format!("setsid -f sh -c '{HOG}'");
    let status = Command::new("chrt").args(idle).arg(&daemon).status();
    assert!(status.unwrap().success());
    let own = watched.next(Duration::from_secs(3));
    assert!(own.is_none(), "our own was taken for another's: {own:?}");
    // Another's: not below us.
    rustix::process::set_child_subreaper(None).unwrap();
    assert!(
        Command::new("sh")
            .args(["-c", &daemon])
            .status()
            .unwrap()
            .success()
    );
    let since = Instant::now();
    let noticed = watched.wait_for(Signal::Lasting(Activity::Processes, true));
    println!("noticed after {:?}", noticed.at - since);
}
