//! Modules that are imported beforehand, and what is wrong with some.

use crate::common::{self, err, out};
use crate::modules::{Kind, Modules};
use hedge_model::Ending;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn modules_that_cannot_be_imported_fail_the_attempt_and_say_why() {
    let modules = Modules::new(Kind::View).await;
    let run = async |name: &str| {
        modules
            .run(modules.preloading(&[name], &["-c", "print('ran')"]))
            .await
    };
    let exit = run("no_such_module").await;
    assert_eq!(
        (exit.outcome.clone(), out(&exit).as_str()),
        (common::exited(1), "")
    );
    let said = err(&exit);
    assert!(
        said.contains("While the module no_such_module was preloaded:\n"),
        "{said}"
    );
    assert!(
        said.ends_with("ModuleNotFoundError: No module named 'no_such_module'\n"),
        "{said}"
    );
    modules.put("raises", "def f():\n    raise ValueError('inside')\nf()\n");
    let said = err(&run("raises").await);
    assert!(
        said.contains("raises.py\", line 2, in f") && said.ends_with("ValueError: inside\n"),
        "{said}"
    );
    assert!(!said.contains("<hedge>"), "{said}");
    modules.put("leaves", "import sys\nsys.exit(0)\n");
    let exit = run("leaves").await;
    assert!(
        matches!(&exit.outcome, Err(Ending::NotStarted { why }) if why.contains("ended while")),
        "{exit:?}"
    );
    modules.put("dies", "import os\nos.kill(os.getpid(), 11)\n");
    assert_eq!(run("dies").await.outcome, common::signalled(11));
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_that_leave_no_interpreter_that_could_be_forked_fail_the_attempt_and_say_why() {
    let modules = Modules::new(Kind::View).await;
    let run = async |name: &str| {
        let launch = modules.preloading(&[name], &["-c", "print('ran')"]);
        modules.run(launch).await
    };
    for (name, text, wanted) in [
        (
            "threads",
            "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n",
            "2 threads",
        ),
        ("files", "file = open(__file__)\n", "1 files open"),
        (
            "processes",
            "import subprocess\nchild = subprocess.Popen(['sleep', '1000'])\n",
            "started processes",
        ),
        (
            "shares",
            "import mmap\nmemory = mmap.mmap(-1, 4096)\n",
            "memory that all attempts would share",
        ),
    ] {
        let name = format!("{}_{name}", modules.word);
        modules.put(&name, text);
        match run(&name).await.outcome {
            Err(Ending::NotStarted { why }) => assert!(why.contains(wanted), "{why}"),
            other => panic!("{name}: {other:?}"),
        }
        common::until("it has ended", || common::able_with(&name).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_keeps_itself_open_is_no_file_that_attempts_share() {
    let modules = Modules::new(Kind::View).await;
    // As libffi 3.5 does.
    let library = "import _ctypes, os, re\n\
        loaded = re.search(r' r-xp .* (/.*libc[.-].*)', open('/proc/self/maps').read())[1]\n";
    let name = format!("{}_reads", modules.word);
    modules.put(
        &name,
        &format!("{library}kept = os.open(loaded, os.O_RDONLY)\n"),
    );
    let launch = modules.preloading(&[&name], &["-c", "print('ran')"]);
    let exit = modules.run(launch).await;
    assert_eq!((exit.outcome.clone(), &*out(&exit)), (Ok(()), "ran\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_of_an_attempt_hold_while_modules_are_imported() {
    let modules = Modules::new(Kind::View).await;
    modules.put("hangs", "while True: pass\n");
    modules.put("grows", "x = b'x' * (200 << 20)\nwhile True: pass\n");
    let mut launch = modules.preloading(&["hangs"], &["-c", "pass"]);
    launch.limits.time = Some(Duration::from_millis(300));
    assert!(matches!(
        modules.run(launch).await.outcome,
        Err(Ending::TimeLimit { .. })
    ));
    let mut launch = modules.preloading(&["grows"], &["-c", "pass"]);
    launch.limits.memory = Some(80 << 20);
    assert!(matches!(
        modules.run(launch).await.outcome,
        Err(Ending::MemoryLimit { .. })
    ));
    assert_eq!(modules.stamp().await.len(), 17);
}

#[tokio::test(flavor = "multi_thread")]
async fn libraries_are_told_to_start_no_threads_unless_the_attempt_says_otherwise() {
    let modules = Modules::new(Kind::View).await;
    modules.put(
        "asks",
        "import os\nnames = 'OPENBLAS_NUM_THREADS', 'JE_ARROW_MALLOC_CONF'\nseen = [os.environ.get(name) for name in names]\n",
    );
    let seen = async |env: &[(&str, &str)]| {
        let mut launch = modules.preloading(&["asks"], &["-c", "import asks; print(asks.seen)"]);
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        launch.env.extend(env);
        let exit = modules.run(launch).await;
        assert_eq!(exit.outcome, Ok(()), "{}", err(&exit));
        out(&exit)
    };
    assert_eq!(seen(&[]).await, "['1', 'background_thread:false']\n");
    let own = [
        ("JE_ARROW_MALLOC_CONF", "narenas:1"),
        ("OPENBLAS_NUM_THREADS", "4"),
    ];
    assert_eq!(seen(&own).await, "['4', 'narenas:1']\n");
}
