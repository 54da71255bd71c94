//! A machine that is short of descriptors or processes: attempts wait for others to end, or are given back as the
//! machine's fault; none fails.
#![allow(missing_docs)]

mod common;

use common::{grid, sh};
use hedge_exec::Spawner;
use hedge_model::Ending;
use hedge_model::ending::Shortage;
use rustix::process::Pid;
use tempfile::TempDir;

/// The process that starts attempts, below the spawner's watcher.
fn starter(spawner: &Spawner) -> Pid {
    let watcher = spawner.process();
    let children = std::fs::read_to_string(format!("/proc/{watcher}/task/{watcher}/children"));
    let first = children.unwrap().split(' ').next().unwrap().parse();
    Pid::from_raw(first.unwrap()).unwrap()
}

/// Sets the limit that counts; gives the one before.
fn set(pid: Pid, resource: libc::__rlimit_resource_t, current: u64) -> u64 {
    let pid = pid.as_raw_nonzero().get();
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure is valid for both calls.
    unsafe {
        assert_eq!(
            libc::prlimit(pid, resource, std::ptr::null(), &raw mut limit),
            0
        );
        let before = std::mem::replace(&mut limit.rlim_cur, current);
        let done = libc::prlimit(pid, resource, &raw const limit, std::ptr::null_mut());
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        before
    }
}

fn is_short(ending: &Ending, wanted: Shortage) -> bool {
    matches!(ending, Ending::Short { of, .. } if *of == wanted)
}

#[tokio::test]
async fn what_finds_no_descriptors_is_given_back_or_waits_for_some() {
    let grid = grid().await;
    let starter = starter(&grid.spawner);
    let scratch = grid.scratch();
    let before = set(starter, libc::RLIMIT_NOFILE, 0);
    let exit = grid.spawner.run(&scratch, sh("exit 0")).await;
    match &exit.outcome {
        Err(ending) => assert!(is_short(ending, Shortage::Files), "{ending:?}"),
        Ok(()) => panic!("it ran"),
    }
    // One that waits runs as soon as there are some.
    let waiting = grid.spawner.launch(&scratch, sh("exit 3")).await;
    set(starter, libc::RLIMIT_NOFILE, before);
    assert_eq!(waiting.wait().await.outcome, common::exited(3));
}

/// Six are for its pipes; others have to be left for ending it.
#[tokio::test]
async fn a_start_that_would_leave_too_few_descriptors_is_not_made() {
    let grid = grid().await;
    let starter = starter(&grid.spawner);
    let scratch = grid.scratch();
    let Ok(open) = std::fs::read_dir(format!("/proc/{}/fd", starter.as_raw_nonzero())) else {
        return eprintln!("only root may see what a spawner has open");
    };
    let numbers = open.map(|one| one.unwrap().file_name().into_string().unwrap());
    let next = numbers
        .map(|number| number.parse::<u64>().unwrap() + 1)
        .max()
        .unwrap();
    for (left, enough) in [(5, false), (8, false), (20, true)] {
        set(starter, libc::RLIMIT_NOFILE, next + left);
        let exit = grid.spawner.run(&scratch, sh("exit 0")).await;
        match &exit.outcome {
            Err(ending) => assert!(
                is_short(ending, Shortage::Files) && !enough,
                "{left}: {ending:?}"
            ),
            Ok(()) => assert!(enough, "{left}: it ran"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_spawner_has_no_descriptors_can_be_ended() {
    let grid = grid().await;
    let scratch = grid.scratch();
    let sleep = common::odd_sleep();
    let script = format!("sleep {sleep} & setsid sleep {sleep}");
    let running = grid.spawner.launch(&scratch, sh(&script)).await;
    common::until("both sleep", || common::able_with(&sleep).len() >= 2);
    set(starter(&grid.spawner), libc::RLIMIT_NOFILE, 0);
    running.cancel();
    assert_eq!(running.wait().await.outcome, Err(Ending::Cancelled));
    common::until("all are gone", || common::able_with(&sleep).is_empty());
}

#[test]
fn a_machine_without_processes_gives_attempts_back_until_it_has_some() {
    let dir = TempDir::new().unwrap();
    let helper = common::public_helper(&dir);
    let base = dir.path().join("base");
    std::fs::create_dir(&base).unwrap();
    // The kernel does not limit root.
    common::without_privileges(&base, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let pool = hedge_exec::ScratchPool::open(base.join("scratch")).unwrap();
            let mut config = common::config(&pool);
            config.program.0 = helper;
            let spawner = Spawner::start(config).await.unwrap();
            let starter = starter(&spawner);
            let before = set(starter, libc::RLIMIT_NPROC, 0);
            let scratch = pool.create().unwrap();
            let exit = spawner.run(&scratch, sh("exit 0")).await;
            match &exit.outcome {
                Err(ending) => assert!(is_short(ending, Shortage::Processes), "{ending:?}"),
                Ok(()) => panic!("it ran"),
            }
            // One that waits runs as soon as there are some.
            let waiting = spawner.launch(&scratch, sh("exit 3")).await;
            set(starter, libc::RLIMIT_NPROC, before);
            assert_eq!(waiting.wait().await.outcome, common::exited(3));
        });
    });
}

/// Each attempt that runs has a spawner, for which the worker needs descriptors.
#[test]
fn what_a_worker_has_no_descriptors_for_is_given_back_until_it_has_some() {
    let dir = TempDir::new().unwrap();
    let base = dir.path().join("scratch");
    let told = std::process::Command::new(common::HELPER)
        .arg("short")
        .arg(&base)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&told.stdout);
    let said = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{text} {said}");
    let then: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("then"))
        .collect();
    // The first has its spawner already.
    assert_eq!(then.len(), 8, "{text}");
    assert!(then[0].contains("Exited { status: 3"), "{text}");
    let machines = |line: &&str| line.contains("Worker {") || line.contains("Short {");
    assert!(then[1..].iter().all(machines), "{text}");
    let later = text.lines().filter(|line| line.starts_with("later"));
    let (ran, given_back): (Vec<&str>, Vec<&str>) =
        later.partition(|line| line.contains("Exited { status: 3"));
    assert_eq!(ran.len(), 8, "{text}");
    assert!(given_back.iter().all(machines), "{text}");
}

#[tokio::test]
async fn a_spawner_that_died_is_the_workers_fault() {
    let grid = grid().await;
    let scratch = grid.scratch();
    let running = grid.spawner.launch(&scratch, sh("sleep 1000")).await;
    rustix::process::kill_process(starter(&grid.spawner), rustix::process::Signal::KILL).unwrap();
    let ended = running.wait().await.outcome;
    assert!(matches!(&ended, Err(Ending::Worker { .. })), "{ended:?}");
    assert_eq!(grid.sh("exit 0").await.outcome, Ok(()));
}
