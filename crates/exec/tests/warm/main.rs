//! Attempts that are forked from an interpreter that has started already are like those that are executed.
#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;

mod commands;
mod modules;
mod preload;

use common::{err, out};
use hedge_exec::{Launch, Limits, Scratch, Source};
use hedge_model::Ending;
use modules::{KINDS, Kind, Modules};
use std::time::Duration;

fn place(scratch: &mut Scratch, name: &str, text: &str) {
    let source = Source::Bytes(text.as_bytes());
    scratch.place(name, false, source).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_of_a_job_are_forked_from_one_interpreter_and_see_nothing_of_each_other() {
    for kind in KINDS {
        let modules = Modules::new(kind).await;
        let first = modules
            .code(
                "import os, stamp, sys; stamp.seen.append(1); os.environ['LEFT'] = 'x'; os.chdir('/'); os.umask(0);\
                 sys.path.append('left'); os.close(3); import decimal; print(stamp.value, len(stamp.seen))",
            )
            .await;
        let second = modules
            .code(
                "import os, stamp, sys; print(stamp.value, len(stamp.seen) + 1); assert 'LEFT' not in os.environ;\
                 assert 'left' not in sys.path and 'decimal' not in sys.modules; os.fstat(3);\
                 assert os.getcwd() == os.environ['HOME'] and os.umask(0) != 0",
            )
            .await;
        assert_eq!(first, second, "{kind:?}");
        let random = "import random; print(random.random())";
        assert_ne!(modules.code(random).await, modules.code(random).await);
        // What an attempt was given is nowhere in what the next is forked from.
        let mut launch = modules.warm(&["-c", "pass", "secret of the first"]);
        launch
            .env
            .push(("SECRET".into(), "secret of the first".into()));
        assert_eq!(modules.run(launch).await.outcome, Ok(()));
        let search = "import re\nfound = 0\nfor line in open('/proc/self/maps'):\n    place, mode = line.split()[:2]\n    \
            if mode.startswith('rw'):\n        a, b = (int(x, 16) for x in place.split('-'))\n        \
            f = open('/proc/self/mem', 'rb'); f.seek(a)\n        \
            found += len(re.findall(b'secret[ ]of the', f.read(b - a)))\nprint(found)";
        if kind != Kind::Landlock {
            assert_eq!(modules.code(search).await, "0\n", "{kind:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_interpreter_of_a_job_lives_while_another_job_runs() {
    for kind in KINDS {
        let modules = Modules::new(kind).await;
        let first = modules.stamp().await;
        assert_ne!(modules.template(), 0);
        assert_eq!(first, modules.stamp().await, "{kind:?}");
        let mut other =
            modules.warm(&["-c", &format!("import {0}; print({0}.value)", modules.word)]);
        other.warm.as_mut().unwrap().job = 2;
        assert_ne!(out(&modules.run(other).await), first);
        let again = modules.stamp().await;
        assert_ne!(again, first, "{kind:?}");
        // An attempt without an interpreter ends it too.
        let exit = modules.grid.sh("echo on; exit 3").await;
        assert_eq!(
            (exit.outcome.clone(), out(&exit).as_str()),
            (common::exited(3), "on\n")
        );
        assert!(common::able_with(&modules.word).is_empty());
        assert_ne!(modules.stamp().await, again);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_cancelling_end_an_attempt_and_spare_what_it_was_forked_from() {
    for kind in KINDS {
        let modules = Modules::new(kind).await;
        let stamp = modules.stamp().await;
        let with = |code: &str, limits| Launch {
            limits,
            ..modules.warm(&["-c", code])
        };
        // Long enough for a busy machine to get as far as the first word.
        let limit = Duration::from_secs(4);
        let sleep = common::odd_sleep();
        let code = format!(
            "import subprocess; subprocess.Popen(['sleep', '{sleep}']); print('begun', flush=True);\
             subprocess.run(['sleep', '{sleep}'])"
        );
        let time = Limits {
            time: Some(limit),
            ..Limits::default()
        };
        let exit = modules.run(with(&code, time)).await;
        assert_eq!(exit.outcome, Err(Ending::TimeLimit { limit }));
        assert_eq!(
            (out(&exit).as_str(), common::able_with(&sleep).len()),
            ("begun\n", 0)
        );
        let memory = Limits {
            memory: Some(80 << 20),
            ..Limits::default()
        };
        let grows = "x = b'x' * (200 << 20)\nwhile 1: pass";
        let exit = modules.run(with(grows, memory)).await;
        assert!(matches!(exit.outcome, Err(Ending::MemoryLimit { used, .. }) if used > 80 << 20));
        let disk = Limits {
            disk: Some(1 << 20),
            ..Limits::default()
        };
        let exit = modules
            .run(with("open('f', 'wb').write(b'x' * (2 << 20))", disk))
            .await;
        assert!(
            matches!(exit.outcome, Err(Ending::DiskLimit { .. })),
            "{exit:?}"
        );
        let scratch = modules.scratch();
        let running = modules
            .grid
            .spawner
            .launch(&scratch, with(&code, Limits::default()))
            .await;
        common::until("its child sleeps", || common::able_with(&sleep).len() == 2);
        running.cancel();
        assert_eq!(running.wait().await.outcome, Err(Ending::Cancelled));
        assert!(common::able_with(&sleep).is_empty());
        drop(scratch);
        assert_eq!(modules.stamp().await, stamp, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_attempt_leaves_is_ended_and_counted_before_the_next_begins() {
    for kind in KINDS {
        let modules = Modules::new(kind).await;
        let sleep = common::odd_sleep();
        let code = format!(
            "import os, subprocess; subprocess.Popen(['setsid', 'sleep', '{sleep}']);\
             [sum(range(10**6)) for _ in range(20)]; x = b'x' * (50 << 20); print('done')"
        );
        for _ in 0..2 {
            let exit = modules.run(modules.warm(&["-c", &code])).await;
            assert_eq!(
                (exit.outcome.clone(), out(&exit).as_str()),
                (Ok(()), "done\n")
            );
            assert!(
                exit.usage.cpu > Duration::from_millis(20),
                "{:?}",
                exit.usage
            );
            assert!(exit.usage.memory_peak > 50 << 20, "{:?}", exit.usage);
            assert!(common::able_with(&sleep).is_empty(), "{kind:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_stopped_and_goes_on_and_may_end_by_itself() {
    for groups in [true, false] {
        let modules =
            Modules::with(Kind::View, |config| common::allow_groups(config, groups)).await;
        let stamp = modules.stamp().await;
        let scratch = modules.scratch();
        let code = "import pathlib, signal, sys, time\n\
            signal.signal(15, lambda *_: (print('saved'), sys.exit(0)))\n\
            n = 0\nwhile 1:\n    n += 1; pathlib.Path('n').write_text(str(n)); time.sleep(0.005)";
        let mut running = modules
            .grid
            .spawner
            .launch(&scratch, modules.warm(&["-c", code]))
            .await;
        let file = scratch.folder().join("n");
        let count = || {
            std::fs::read_to_string(&file)
                .unwrap_or_default()
                .parse()
                .unwrap_or(0)
        };
        common::until("it counts", || count() > 3);
        modules.grid.spawner.pause(true).await.unwrap();
        let before = std::fs::metadata(&file).unwrap().modified().unwrap();
        let ended = tokio::time::timeout(Duration::from_millis(100), running.ended()).await;
        assert!(ended.is_err());
        assert_eq!(
            std::fs::metadata(&file).unwrap().modified().unwrap(),
            before
        );
        modules.grid.spawner.pause(false).await.unwrap();
        let at = count();
        common::until("it goes on", || count() > at);
        running.stop(common::PATIENCE);
        let exit = running.ended().await;
        assert_eq!(
            (exit.outcome.clone(), out(&exit).as_str()),
            (Err(Ending::Vacated), "saved\n")
        );
        assert!(exit.usage.paused >= Duration::from_millis(50));
        drop(scratch);
        assert_eq!(modules.stamp().await, stamp, "groups: {groups}");
        // Without an attempt its memory is the owner's.
        modules.grid.spawner.pause(true).await.unwrap();
        common::until("it ends", || common::able_with(&modules.word).is_empty());
        modules.grid.spawner.pause(false).await.unwrap();
        assert_ne!(modules.stamp().await, stamp);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interpreter_that_dies_or_hangs_is_replaced() {
    for kind in KINDS {
        let modules = Modules::new(kind).await;
        let first = modules.stamp().await;
        let kill = |signal| {
            // SAFETY: a process of this test, which its spawner has not reaped.
            assert_eq!(unsafe { libc::kill(modules.template(), signal) }, 0);
        };
        kill(libc::SIGKILL);
        modules.none_is_left();
        let second = modules.stamp().await;
        assert_ne!(first, second);
        // While an attempt runs, that goes on.
        let scratch = modules.scratch();
        let code = "import os, time\nopen('on', 'w')\nwhile not os.path.exists('go'): time.sleep(0.01)\nprint('done')";
        let running = modules
            .grid
            .spawner
            .launch(&scratch, modules.warm(&["-c", code]))
            .await;
        common::until("it runs", || scratch.folder().join("on").exists());
        kill(libc::SIGKILL);
        std::fs::write(scratch.folder().join("go"), "").unwrap();
        let exit = running.wait().await;
        assert_eq!(
            (exit.outcome.clone(), out(&exit).as_str()),
            (Ok(()), "done\n"),
            "{kind:?}"
        );
        drop(scratch);
        assert_ne!(modules.stamp().await, second);
        if kind == Kind::View {
            let third = modules.stamp().await;
            kill(libc::SIGSTOP);
            // The process of the next attempt was forked before.
            modules.stamp().await;
            assert_ne!(modules.stamp().await, third);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_of_an_attempt_is_forked_before_that_comes() {
    for kind in [Kind::Landlock, Kind::None] {
        let modules = Modules::new(kind).await;
        let stamp = modules.stamp().await;
        let spare = modules.spare();
        let pid = "import os; print(os.getpid())";
        assert_eq!(modules.code(pid).await, format!("{spare}\n"), "{kind:?}");
        // One that is lost is replaced, whether the spawner knows that it is lost or not.
        let spare = modules.spare();
        // SAFETY: a process of this test, which its spawner has not reaped.
        assert_eq!(unsafe { libc::kill(spare, libc::SIGKILL) }, 0);
        assert_eq!(modules.stamp().await, stamp, "{kind:?}");
        // Nothing of a job works while none of its attempts runs.
        let flag = modules.folder.path().join("flag");
        let code = format!(
            "import os\ndef work():\n    while os.path.exists({flag:?}): pass\nos.register_at_fork(after_in_child=work)"
        );
        modules.put("works", &code);
        let run = || modules.run(modules.preloading(&["works", &modules.word], &["-c", "pass"]));
        assert_eq!(run().await.outcome, Ok(()));
        modules.spare();
        std::fs::write(&flag, "").unwrap();
        assert_eq!(run().await.outcome, Ok(()), "{kind:?}");
        modules.none_is_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_does_not_look_into_what_it_was_forked_from() {
    for kind in KINDS {
        let modules = Modules::new(kind).await;
        let tries = "import os, stamp\nfor name in ('mem', 'environ', 'fd', 'maps'):\n    \
            path = f'/proc/{stamp.pid}/{name}'\n    \
            try:\n        os.listdir(path) if name == 'fd' else open(path, 'rb').read(1); print(name)\n    \
            except PermissionError: pass\n    except OSError as error: print(name, error)";
        let seen = modules.code(tries).await;
        // Without a sandbox it may be root, who may do everything.
        let root = rustix::process::geteuid().is_root() && kind == Kind::None;
        assert!(seen.is_empty() || root, "{kind:?}: {seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_commands_and_paths_of_the_attempt_arrive() {
    let modules = Modules::new(Kind::View).await;
    let word = "w".repeat(100_000);
    let words: Vec<&str> = std::iter::repeat_n(word.as_str(), 10).collect();
    let code = [
        "-c",
        "import sys; print(len(sys.argv), len(''.join(sys.argv)))",
    ];
    let exit = modules
        .run(modules.warm(&[&code[..], &words].concat()))
        .await;
    assert_eq!(
        (exit.outcome.clone(), out(&exit).as_str()),
        (Ok(()), "11 1000002\n")
    );
    // A path within the folder is the attempt's, and not the template's.
    let mut scratch = modules.scratch();
    place(&mut scratch, "lib/mine.py", "x = 'mine'\n");
    let mut launch = modules.warm(&["-c", "import mine; print(mine.x)"]);
    launch.env[0].1.push_str(":lib");
    let exit = modules.grid.spawner.run(&scratch, launch).await;
    assert_eq!(
        (exit.outcome.clone(), out(&exit).as_str()),
        (Ok(()), "mine\n"),
        "{}",
        err(&exit)
    );
}
