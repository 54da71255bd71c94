//! The same commands, forked and executed.

use crate::common::{err, out};
use crate::modules::{KINDS, Modules};
use crate::place;
use hedge_exec::{Launch, Scratch, Source, Stdin};

/// Files that the commands below run.
fn fill(modules: &Modules) -> Scratch {
    let mut scratch = modules.scratch();
    let about = "import os, sys\n\
        print(__name__, os.path.basename(__file__), sys.argv, sorted(globals()), __spec__ and __spec__.name)\n\
        print(os.path.basename(os.getcwd()), os.path.basename(sys.path[0]), os.environ['HOME'] == os.getcwd())\n\
        print(sys.stdin.read(), sorted(os.environ), os.getpgid(0) == os.getpid(), os.umask(0o22))\n\
        import near\nprint(near.x, sys.orig_argv, sys.flags, sys.executable, sys.prefix)\n";
    place(&mut scratch, "about.py", about);
    place(&mut scratch, "near.py", "x = 5\n");
    place(&mut scratch, "pack/__init__.py", "");
    place(&mut scratch, "pack/part.py", about);
    place(
        &mut scratch,
        "pack/__main__.py",
        "import sys\nprint(sys.argv, __package__)\n",
    );
    place(
        &mut scratch,
        "fails.py",
        "def f(x):\n    return 1 / x\n\n\nf(0)\n",
    );
    place(&mut scratch, "syntax.py", "x = = 1\n");
    let threads = "import atexit, threading\natexit.register(print, 'exit')\ngo = threading.Event()\n\
        threading.Thread(target=lambda: (go.wait(), print('thread'))).start()\nprint('main')\ngo.set()\n";
    place(&mut scratch, "threads.py", threads);
    let pools = "import multiprocessing, subprocess, sys\ndef f(x): return x * x\nif __name__ == '__main__':\n    \
        for kind in ('fork', 'spawn'):\n        with multiprocessing.get_context(kind).Pool(2) as pool:\n            \
        print(pool.map(f, range(4)))\n    print(subprocess.run([sys.executable, '-c', 'print(1)'], \
        capture_output=True).stdout)\n";
    place(&mut scratch, "pools.py", pools);
    place(
        &mut scratch,
        "hook.py",
        "import sys\nsys.excepthook = lambda *error: print(error[1])\n1 / 0\n",
    );
    scratch.place_stdin(Source::Bytes(b"read me")).unwrap();
    scratch
}

const COMMANDS: &[&[&str]] = &[
    &["about.py", "1", "-m"],
    &["./about.py"],
    &["-m", "pack.part", "x"],
    &["-m", "pack"],
    &["pack", "y"],
    &["-uB", "-W", "error", "about.py"],
    &["-s", "-Xutf8", "about.py"],
    &[
        "-c",
        "import sys; print(sys.argv, sys.path[0], __name__, sorted(globals()))",
        "1",
        "2",
    ],
    &[
        "-c",
        "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:4])",
    ],
    &[
        "-c",
        "import os; os.write(3, b'0.5\\n'); print(os.getuid(), os.getgid(), os.getgroups())",
    ],
    &[
        "-c",
        "import os; print(os.sched_getscheduler(0), os.sched_getaffinity(0), os.nice(0))",
    ],
    &[
        "-c",
        "import signal; print(signal.getsignal(2), signal.getsignal(13), signal.getsignal(15))",
    ],
    &["-c", "import signal; print(signal.pthread_sigmask(0, []))"],
    &[
        "-c",
        "import resource as r; print([r.getrlimit(n) for n in range(r.RLIM_NLIMITS)])",
    ],
    &[
        "-c",
        "import gc, locale; print(gc.isenabled(), locale.setlocale(locale.LC_ALL))",
    ],
    &["-c", "open('/dev/stdout', 'w').write('opened again')"],
    &["-m", "no_such_module"],
    &["no_such_file.py"],
    &["fails.py"],
    &["syntax.py"],
    &["threads.py"],
    &["pools.py"],
    &["hook.py"],
    &["-c", "import sys; sys.exit('words')"],
    &["-c", "import sys; sys.exit(7)"],
    &["-c", "import os; os._exit(8)"],
    &["-c", "raise KeyboardInterrupt"],
    &["-c", "import os; os.kill(os.getpid(), 9)"],
    &["-c", "import os; os.kill(os.getpid(), 15)"],
    &["-c", "import os; os.abort()"],
    &["-c", "x = ("],
    &[
        "-c",
        "import atexit\nclass A:\n    def __del__(self): print('gone')\na = A()\natexit.register(print, 'exit')\n\
         file = open('/dev/stdout', 'w')\nfile.write('never flushed')",
    ],
    // These are executed whatever the runtime.
    &["-", "z"],
    &["-V"],
];

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_in_a_forked_interpreter_does_what_it_does_in_one_of_its_own() {
    for kind in KINDS {
        let modules = Modules::new(kind).await;
        for command in COMMANDS {
            let mut seen = Vec::new();
            // In one folder, so that paths are the same.
            for launch in [modules.cold(command), modules.warm(command)] {
                let scratch = fill(&modules);
                let launch = Launch {
                    stdin: Stdin::Placed,
                    ..launch
                };
                let exit = modules.grid.spawner.run(&scratch, launch).await;
                seen.push((exit.outcome.clone(), out(&exit), err(&exit)));
            }
            let warm = seen.pop().unwrap();
            assert_eq!(seen[0], warm, "{kind:?} {command:?}");
        }
    }
}
