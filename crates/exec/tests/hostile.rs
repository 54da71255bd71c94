//! Tasks that take what is not theirs: processes, memory, disk, time. The worker and its other tasks go on.
#![allow(missing_docs)]

mod common;

use common::{err, grid, grid_with, out, sh, until};
use hedge_exec::{Launch, Limits, ScratchPool, Weakness};
use hedge_model::Ending;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn python(script: &str) -> Launch {
    Launch::new("python3", ["-c", script])
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_take_the_spawners_files_away_disable_nothing() {
    let script = "import os, resource\ntry: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))\n\
                  except OSError: print('refused')\nelse: print('taken')";
    for namespaces in [true, false] {
        let grid = grid_with(|config| common::allow_namespaces(config, namespaces)).await;
        for _ in 0..60 {
            let scratch = grid.scratch();
            let exit = grid.spawner.run(&scratch, python(script)).await;
            assert_eq!(out(&exit), "refused\n", "{}", err(&exit));
        }
        assert_eq!(grid.sh("echo fine").await.outcome, Ok(()));
    }
}

/// What programs of many kinds need is allowed.
const PROGRAMS: &str = r#"
    set -e
    python3 -c 'import threading as t; a = [t.Thread(target=print, args=("",)) for _ in range(32)]; [x.start() for x in a]; [x.join() for x in a]' > /dev/null
    python3 -c 'import tempfile, os, shutil, subprocess; d = tempfile.mkdtemp(); os.chmod(d, 0o750); shutil.rmtree(d); print(subprocess.run(["true"]).returncode)'
    bash -c 'diff <(seq 3) <(seq 3) && echo same'
    printf 'int main(void) { return 0; }' > a.c && gcc -pthread a.c -o a && ./a && echo compiled
    printf 'all:\n\t@echo made\n' > Makefile && make -s
    echo '#!/bin/sh' > script && echo 'echo script' >> script && chmod +x script && ./script
    mkdir d && touch -d 2001-02-03 d/f && cp -p d/f d/g && tar cf d.tar d && rm -r d && tar xf d.tar && date -u -r d/g +%Y
    git init -q . && git -c user.name=a -c user.email=b add a.c && git -c user.name=a -c user.email=b commit -qm c && git log --format=%s
    timeout 5 sh -c 'sleep 1000 & kill $!; wait $!; echo killed'
    (trap 'echo trapped' TERM; kill -TERM $(exec sh -c 'echo $PPID'))
    if command -v java > /dev/null; then java -version 2> /dev/null && echo java; else echo java; fi
    cat < script > /dev/null; ls -l > /dev/null; sort -R script > /dev/null; xargs -P4 -n1 true < script
    echo over
"#;
const PRINTED: &str = "0\nsame\ncompiled\nmade\nscript\n2001\nc\nkilled\ntrapped\njava\nover\n";

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_programs_work_in_both_kinds_of_sandbox() {
    for namespaces in [true, false] {
        let grid = grid_with(|config| common::allow_namespaces(config, namespaces)).await;
        let exit = grid.sh(PROGRAMS).await;
        assert_eq!(
            out(&exit),
            PRINTED,
            "namespaces {namespaces}: {}",
            err(&exit)
        );
    }
}

#[test]
fn ordinary_programs_work_for_an_ordinary_user_too() {
    for setting in ["", "no-namespaces"] {
        let dir = TempDir::new().unwrap();
        let text = worker_of_an_ordinary_user(&dir, PROGRAMS, setting);
        assert!(text.contains(PRINTED), "{setting:?}: {text}");
    }
}

/// Signals that arrive while the spawner has not taken a call yet interrupt it; the kernel then repeats it.
const INTERRUPTED: &str = "python3 -c '
import os, signal
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
open(\"f\", \"w\")
for i in range(1000):
    os.chmod(\"f\", 0o600); os.utime(\"f\", (1, 1)); os.kill(os.getpid(), 0)
print(\"all done\")'";

#[test]
fn checked_calls_are_repeated_after_a_signal() {
    let dir = TempDir::new().unwrap();
    let text = worker_of_an_ordinary_user(&dir, INTERRUPTED, "no-namespaces");
    assert!(text.contains("all done\n"), "{text}");
}

/// What a worker of an ordinary user prints that runs this script.
fn worker_of_an_ordinary_user(dir: &TempDir, script: &str, setting: &str) -> String {
    let helper = common::public_helper(dir);
    let scratch = dir.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let mut command = Command::new(&helper);
    command
        .arg("worker")
        .arg(&scratch)
        .args([script, setting])
        .current_dir("/");
    common::as_ordinary_user(&mut command, &[&scratch]);
    let done = command.output().unwrap();
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_forks_without_end_leaves_processes_for_others() {
    let script = "import os, time\nn = 0\ntry:\n    while os.fork() == 0: n += 1\nexcept OSError: open('limit', 'w').write(str(n))\ntime.sleep(1000)";
    for namespaces in [true, false] {
        let grid = grid_with(|config| {
            common::allow_namespaces(config, namespaces);
            config.processes_max = 50;
        })
        .await;
        let scratch = grid.scratch();
        let running = grid.spawner.launch(&scratch, python(script)).await;
        let reached = scratch.folder().join("limit");
        until("the limit is reached", || {
            std::fs::read_to_string(&reached).is_ok_and(|text| !text.is_empty())
        });
        let count: u32 = std::fs::read_to_string(&reached).unwrap().parse().unwrap();
        // An ordinary user's other programs count too, and some may have ended meanwhile.
        assert!(count < if namespaces { 50 } else { 200 }, "{count}");
        assert_eq!(out(&grid.sh("(echo other) | cat").await), "other\n");
        running.cancel();
        assert_eq!(running.wait().await.outcome, Err(Ending::Cancelled));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_memory_counts_though_nobody_has_mapped_it() {
    let grid = grid().await;
    let limit = 100 << 20;
    let launch = Launch {
        limits: Limits {
            memory: Some(limit),
            ..Limits::default()
        },
        ..sh("head -c 200M /dev/zero > /dev/shm/x; rm /dev/shm/x; sleep 1000")
    };
    let scratch = grid.scratch();
    let exit = grid.spawner.run(&scratch, launch).await;
    assert!(
        matches!(exit.outcome, Err(Ending::MemoryLimit { limit: said, used }) if said == limit && used > limit),
        "{:?}",
        exit.outcome
    );
    let exit = grid.sh("ls /dev/shm | wc -l; df /dev/shm | tail -1").await;
    assert!(
        out(&exit).starts_with("0\n"),
        "nothing is left for the next: {}",
        out(&exit)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tasks_together_use_no_more_memory_than_the_worker_offers() {
    let grid = grid_with(|config| config.memory_max = Some(200 << 20)).await;
    let launch = || python("import time; x = bytearray(150 << 20); time.sleep(1000)");
    let (one, two) = (grid.scratch(), grid.scratch());
    let one = grid.spawner.launch(&one, launch()).await;
    let two = grid.spawner.launch(&two, launch()).await;
    let (ended, mut other) = {
        let (mut one, mut two) = (Box::pin(one.wait()), Box::pin(two.wait()));
        tokio::select! {
            exit = &mut one => (exit, two),
            exit = &mut two => (exit, one),
        }
    };
    assert!(
        matches!(ended.outcome, Err(Ending::MemoryLimit { .. })),
        "{:?}",
        ended.outcome
    );
    let goes_on = tokio::time::timeout(Duration::from_millis(300), &mut other).await;
    assert!(goes_on.is_err(), "{goes_on:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_a_name_count_as_disk_space() {
    for namespaces in [true, false] {
        let grid = grid_with(|config| common::allow_namespaces(config, namespaces)).await;
        let limit = 20 << 20;
        let launch = Launch {
            limits: Limits {
                disk: Some(limit),
                ..Limits::default()
            },
            ..python(
                "import os, time\nopen_files = []\nfor i in range(4):\n    f = open('x', 'wb'); os.unlink('x')\n    f.write(bytes(10 << 20)); f.flush(); open_files.append(f)\ntime.sleep(1000)",
            )
        };
        let scratch = grid.scratch();
        let exit = grid.spawner.run(&scratch, launch).await;
        assert!(
            matches!(exit.outcome, Err(Ending::DiskLimit { limit: said, used }) if said == limit && used > limit),
            "{:?}",
            exit.outcome
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_root_run_as_users_who_own_nothing() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("this is about workers that are root");
    }
    for namespaces in [true, false] {
        let grid = grid_with(|config| common::allow_namespaces(config, namespaces)).await;
        let mut users = Vec::new();
        let mut all = Vec::new();
        for _ in 0..2 {
            let scratch = grid.scratch();
            let launch = sh("echo x > made; exec sleep 1000");
            all.push((grid.spawner.launch(&scratch, launch).await, scratch));
        }
        for (_, scratch) in &all {
            let made = scratch.folder().join("made");
            until("it has made a file", || made.exists());
            users.push(std::fs::metadata(made).unwrap().uid());
        }
        assert!(
            users[0] != users[1] && users.iter().all(|user| *user > 1000),
            "{users:?}"
        );
        assert_eq!(
            grid.spawner.report().task_user,
            Some(users[0]).max(grid.spawner.report().task_user)
        );
    }
}

/// A key of the owner's session is out of reach even without a sandbox.
#[test]
fn the_sessions_keys_stay_with_the_owner() {
    let add = |name: &str| {
        let (kind, name) = (c"user", std::ffi::CString::new(name).unwrap());
        // SAFETY: strings and payload are valid for the calls, which change this thread's keyring alone.
        unsafe {
            libc::syscall(libc::SYS_keyctl, 1, std::ptr::null::<u8>()) >= 0
                && libc::syscall(
                    libc::SYS_add_key,
                    kind.as_ptr(),
                    name.as_ptr(),
                    c"secret".as_ptr(),
                    6,
                    -3,
                ) >= 0
        }
    };
    if !add("hedge-test") {
        return eprintln!("this kernel has no keyrings");
    }
    // On this thread, which has the keyring.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for (sandbox, namespaces) in [(true, true), (true, false), (false, true)] {
            let grid = grid_with(|config| {
                config.sandbox = sandbox;
                common::allow_namespaces(config, namespaces);
            })
            .await;
            let scratch = grid.scratch_with_helper();
            let script = sh("exec ./helper attack keyring-search key-request");
            let exit = grid.spawner.run(&scratch, script).await;
            assert_eq!(
                out(&exit).matches("held").count(),
                2,
                "{sandbox} {}",
                out(&exit)
            );
        }
    });
}

/// Two processes that wake each other, and a timer where there is one.
const WAKING: &str = r"
import os, signal, sys
signal.signal(signal.SIGCONT, lambda *_: None)
one = os.getpid()
two = os.fork()
other = two if two else one
n = 0
while True:
    try: os.kill(other, signal.SIGCONT)
    except InterruptedError: pass
    n += 1
    if n % 1000 == 0: open('count%d' % (two == 0), 'a').write('x')
";

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_wakes_itself_is_stopped_again() {
    for namespaces in [true, false] {
        let grid = grid_with(|config| {
            common::allow_namespaces(config, namespaces);
            common::allow_groups(config, false);
        })
        .await;
        let scratch = grid.scratch();
        let running = grid.spawner.launch(&scratch, python(WAKING)).await;
        let size = || {
            let size = |name| {
                std::fs::metadata(scratch.folder().join(name)).map_or(0, |about| about.len())
            };
            size("count0") + size("count1")
        };
        until("it works", || size() > 10);
        grid.spawner.pause(true).await.unwrap();
        // Nothing can show that nothing happens but a while in which it does not. Stopping it may take some tries.
        std::thread::sleep(Duration::from_millis(700));
        let then = size();
        std::thread::sleep(Duration::from_millis(700));
        assert!(size() <= then + 2, "it went on: {then}, {}", size());
        grid.spawner.pause(false).await.unwrap();
        running.cancel();
        running.wait().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_escapes_idle_priority() {
    let script = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(0.05)\n        open('policy', 'w').write('%d.' % os.sched_getscheduler(0))\n    os._exit(0)\n\
                  while not os.path.exists('policy') or not open('policy').read().endswith('.'): time.sleep(0.001)\nprint(open('policy').read())";
    let script = format!(
        "(setsid sh -c 'sleep 0.05; chrt -p $$ > early; mv early late' &); \n python3 -c \"{script}\"; while [ ! -e late ]; do sleep 0.01; done; cat late"
    );
    for namespaces in [true, false] {
        let grid = grid_with(|config| common::allow_namespaces(config, namespaces)).await;
        for _ in 0..30 {
            let exit = grid.sh(&script).await;
            let text = out(&exit);
            assert!(text.starts_with("5."), "{text} {}", err(&exit));
            // With Landlock alone `chrt` reads no threads of others from `/proc`.
            assert!(!text.contains("SCHED_OTHER"), "{text}");
        }
    }
}

/// A program could start others before the spawner, which may have to wait for the processor, has done anything.
#[tokio::test(flavor = "multi_thread")]
async fn programs_begin_at_idle_priority() {
    for namespaces in [true, false] {
        let grid = grid_with(|config| common::allow_namespaces(config, namespaces)).await;
        let mut own = rustix::thread::CpuSet::new();
        own.set(rustix::thread::sched_getcpu());
        for pid in common::tree_of(grid.spawner.process()) {
            let pid = rustix::process::Pid::from_raw(pid);
            rustix::thread::sched_setaffinity(pid, &own).unwrap();
        }
        for _ in 0..100 {
            let scratch = grid.scratch_with_helper();
            let launch = Launch::new("./helper", ["priorities"]);
            let exit = grid.spawner.run(&scratch, launch).await;
            assert_eq!(out(&exit), "5 5", "{}", err(&exit));
        }
    }
}

/// What runs already is lowered with all that it is just starting.
#[tokio::test(flavor = "multi_thread")]
async fn no_process_escapes_when_priority_is_lowered() {
    let script = "import os\nopen('begun', 'w')\nwhile not os.path.exists('end'):\n    if os.fork() == 0:\n        \
                  if os.fork() == 0:\n            while not os.path.exists('end'): os.sched_yield()\n            os._exit(0)\n        os._exit(0)\n    os.wait()";
    for (namespaces, freezer) in [(true, true), (true, false), (false, false)] {
        let grid = grid_with(|config| {
            common::allow_namespaces(config, namespaces);
            common::allow_groups(config, freezer);
            config.priority = hedge_exec::Priority::Normal;
            config.processes_max = 200;
        })
        .await;
        let scratch = grid.scratch();
        let running = grid.spawner.launch(&scratch, python(script)).await;
        until("it has begun", || scratch.folder().join("begun").exists());
        grid.spawner.lower(true);
        let tasks = || {
            let all = common::tree_of(grid.spawner.process());
            all.into_iter().skip(2).collect::<Vec<_>>()
        };
        until("all are idle", || {
            // SAFETY: only returns a number.
            let policy = |pid: &i32| unsafe { libc::sched_getscheduler(*pid) };
            tasks()
                .iter()
                .all(|pid| matches!(policy(pid), libc::SCHED_IDLE | -1))
        });
        running.cancel();
        running.wait().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_prints_without_pause_keeps_nobody_busy() {
    let grid = grid_with(|config| config.priority = hedge_exec::Priority::Normal).await;
    let watcher = grid.spawner.process();
    let children = std::fs::read_to_string(format!("/proc/{watcher}/task/{watcher}/children"));
    let spawner: u32 = children.unwrap().trim().parse().unwrap();
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{spawner}/stat")).unwrap();
        let rest = stat.rsplit_once(')').unwrap().1.to_owned();
        let fields = rest.split_whitespace().skip(11).take(2);
        fields
            .map(|ticks| ticks.parse::<u64>().unwrap())
            .sum::<u64>()
    };
    for script in ["yes", "while :; do echo x; done"] {
        let scratch = grid.pool.create().unwrap();
        let (before, since) = (ticks(), Instant::now());
        let running = grid.spawner.launch(&scratch, sh(script)).await;
        std::thread::sleep(Duration::from_secs(2));
        let (used, elapsed) = (ticks() - before, since.elapsed());
        running.cancel();
        let exit = running.wait().await;
        println!(
            "{script}: {used} ticks in {elapsed:?}, {} bytes",
            exit.stdout.total
        );
        assert!(exit.stdout.total > 10_000, "{}", exit.stdout.total);
        assert!(
            used < elapsed.as_millis() as u64 / 10 / 5,
            "{script}: {used} ticks in {elapsed:?}"
        );
        drop(scratch);
        until("the slot is free again", || grid.pool.cleaning() == 0);
    }
}

#[test]
fn a_folder_that_was_closed_is_opened_again() {
    let dir = TempDir::new().unwrap();
    let helper = common::public_helper(&dir);
    let scratch = dir.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let mut command = Command::new(&helper);
    command
        .arg("worker")
        .arg(&scratch)
        .args(["echo fine"])
        .current_dir("/");
    common::as_ordinary_user(&mut command, &[&scratch]);
    std::fs::set_permissions(&scratch, PermissionsExt::from_mode(0o000)).unwrap();
    let done = command.output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(
        text.contains("fine\n"),
        "{text} {}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(ScratchPool::open(&scratch).is_ok());
}

/// With Landlock alone other users can only run tasks where they may enter all folders above.
#[tokio::test]
async fn tasks_run_as_root_only_where_that_is_accepted_and_said() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("this is about workers that are root");
    }
    for mode in [0o700, 0o711] {
        let dir = TempDir::new().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(mode)).unwrap();
        let pool = ScratchPool::open(dir.path().join("scratch")).unwrap();
        let mut config = common::config(&pool);
        common::allow_namespaces(&mut config, false);
        let refused = hedge_exec::Spawner::start(config.clone()).await;
        let why = refused.map(|_| ()).unwrap_err().to_string();
        let says = why.contains("tasks run as root");
        let names = why.contains(&format!("{:?}", dir.path().canonicalize().unwrap()));
        assert_eq!((says, names), (mode == 0o700, mode == 0o700), "{why}");
        config.accept_weak = true;
        let spawner = hedge_exec::Spawner::start(config).await.unwrap();
        let report = spawner.report();
        let root = |weakness: &Weakness| matches!(weakness, Weakness::Root { .. });
        assert_eq!(report.weaknesses.iter().any(root), mode == 0o700);
        assert_eq!(report.task_user.is_none(), mode == 0o700);
        let exit = spawner.run(&pool.create().unwrap(), sh("id -u")).await;
        assert_eq!(out(&exit) == "0\n", mode == 0o700, "{}", out(&exit));
    }
}

#[tokio::test]
async fn a_weak_sandbox_is_refused_unless_it_is_accepted() {
    let dir = TempDir::new().unwrap();
    let pool = ScratchPool::open(dir.path().join("scratch")).unwrap();
    let mut config = common::config(&pool);
    common::allow_namespaces(&mut config, false);
    let refused = hedge_exec::Spawner::start(config.clone()).await;
    let why = refused
        .map(|spawner| spawner.report())
        .unwrap_err()
        .to_string();
    assert!(
        why.contains("names, sizes and times") && why.contains("--accept-weak-sandbox"),
        "{why}"
    );
    config.accept_weak = true;
    let spawner = hedge_exec::Spawner::start(config).await.unwrap();
    assert!(!spawner.report().weaknesses.is_empty());
}
