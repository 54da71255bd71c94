//! What an attempt cannot do, as the user who runs the tests and as an ordinary user.
#![allow(missing_docs)]

mod common;

use common::{err, grid, grid_with, out, sh};
use hedge_exec::{ExecError, Launch, Sandbox, ScratchPool, Spawner, Stdin};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Says `held WORD` for what was refused and `BROKEN WORD` for what was not.
fn attack(dir: &Path, worker: u32) -> String {
    let dir = dir.display();
    format!(
        r#"
        try() {{ word=$1; shift; if ("$@") >/dev/null 2>&1; then echo BROKEN $word; else echo held $word; fi; }}
        put() {{ echo x > "$1"; }}
        try key cat {dir}/key
        try list ls {dir}
        try neighbour ls {dir}/scratch
        try ssh ls /root/.ssh
        try root ls /root
        try home ls /home
        try shadow grep -q root /etc/shadow
        try write-dir put {dir}/new
        try write-key put {dir}/key
        try write-tmp put /tmp/hedge-escape
        try write-etc put /etc/hedge-escape
        try write-usr put /usr/hedge-escape
        try write-shm-outside put /run/hedge-escape
        try truncate truncate -s 0 {dir}/key
        try sysctl put /proc/sys/kernel/hostname
        try signal kill -0 {worker}
        try kill kill -KILL {worker}
        above=$PPID
        for step in 1 2 3; do
            [ $above -gt 0 ] || break
            try signal-ancestor-$step kill -0 $above
            above=$(cut -d ' ' -f 4 /proc/$above/stat 2>/dev/null || echo 1)
        done
        try environ cat /proc/{worker}/environ
        try root-of-worker ls /proc/{worker}/root/
        try link ln {dir}/key stolen
        try mount mount -t tmpfs none .
        try namespace unshare -U true
        try uts unshare -u true
        try chroot chroot . /bin/true
        try device mknod d c 1 3
        try journal ls /var/log
        ls ../../ > /dev/null 2>&1 && echo BROKEN base
        echo x > own && cat own > /dev/null && rm own && echo held own || echo BROKEN own
        sh -c 'exit 0' && echo held execute || echo BROKEN execute
        kill -0 $$ && sleep 1000 & kill $! && echo held own-signal || echo BROKEN own-signal
        echo over
        "#
    )
}

fn all_held(text: &str) {
    assert!(text.contains("over") && text.contains("held key"), "{text}");
    assert!(!text.contains("BROKEN"), "{text}");
}

#[tokio::test]
async fn an_attempt_sees_its_folder_and_the_system_alone() {
    let grid = grid().await;
    assert!(matches!(
        grid.spawner.report().sandbox,
        Sandbox::View { landlock: 1.. }
    ));
    let exit = grid.sh(&attack(grid.dir.path(), std::process::id())).await;
    all_held(&format!("{}{}", out(&exit), err(&exit)));
    assert_eq!(
        std::fs::read_to_string(grid.dir.path().join("key")).unwrap(),
        "secret"
    );
}

#[tokio::test]
async fn without_namespaces_landlock_holds_the_same() {
    let grid = grid_with(|config| common::allow_namespaces(config, false)).await;
    assert!(matches!(
        grid.spawner.report().sandbox,
        Sandbox::Landlock { .. }
    ));
    let exit = grid.sh(&attack(grid.dir.path(), std::process::id())).await;
    let text = format!("{}{}", out(&exit), err(&exit));
    // Without a pid namespace the processes' names are there; and root's own files in /etc are its own.
    let known = ["BROKEN namespace", "BROKEN shadow"];
    let text = known
        .iter()
        .fold(text, |text, known| text.replace(known, "known"));
    all_held(&text);
}

#[test]
fn an_ordinary_users_attempts_are_locked_in_too() {
    for setting in ["", "no-namespaces"] {
        let dir = TempDir::new().unwrap();
        let helper = common::public_helper(&dir);
        std::fs::write(dir.path().join("key"), "secret").unwrap();
        std::fs::create_dir(dir.path().join("scratch")).unwrap();
        // The worker's number is not known before it runs; its parent's will do for the signals.
        let mut command = Command::new(&helper);
        command.arg("worker").arg(dir.path().join("scratch"));
        command
            .arg(attack(dir.path(), std::process::id()))
            .arg(setting)
            .current_dir("/");
        let own = [dir.path().join("key"), dir.path().join("scratch")];
        common::as_ordinary_user(&mut command, &own.each_ref().map(|path| path.as_path()));
        let done = command.output().unwrap();
        let text = String::from_utf8_lossy(&done.stdout);
        assert!(
            done.status.success(),
            "{text} {}",
            String::from_utf8_lossy(&done.stderr)
        );
        let expected = if setting.is_empty() {
            "View"
        } else {
            "Landlock"
        };
        assert!(text.contains(&format!("sandbox: {expected}")), "{text}");
        let text = if setting.is_empty() {
            text.into_owned()
        } else {
            text.replace("BROKEN namespace", "known")
        };
        all_held(&text);
        assert_eq!(
            std::fs::read_to_string(dir.path().join("key")).unwrap(),
            "secret"
        );
    }
}

#[tokio::test]
async fn the_network_is_closed_unless_the_owner_opens_it() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "bash -c 'echo hi > /dev/tcp/127.0.0.1/{port}' && echo tcp; bash -c 'echo hi > /dev/udp/127.0.0.1/{port}' && echo udp; true"
    );
    for namespaces in [true, false] {
        let closed = grid_with(|config| common::allow_namespaces(config, namespaces)).await;
        assert!(closed.spawner.report().network_cut);
        assert!(
            !out(&closed.sh(&script).await).contains("tcp"),
            "namespaces: {namespaces}"
        );
        let open = grid_with(|config| {
            config.network = true;
            common::allow_namespaces(config, namespaces);
        })
        .await;
        assert!(!open.spawner.report().network_cut);
        let exit = open.sh(&script).await;
        assert_eq!(
            out(&exit),
            "tcp\nudp\n",
            "namespaces: {namespaces} {}",
            err(&exit)
        );
    }
}

#[tokio::test]
async fn a_service_on_a_unix_socket_cannot_be_reached() {
    let outside = TempDir::new().unwrap();
    let path = outside.path().join("service");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    let script = format!(
        "python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"{}\")'",
        path.display()
    );
    for namespaces in [true, false] {
        for network in [true, false] {
            let grid = grid_with(|config| {
                common::allow_namespaces(config, namespaces);
                config.network = network;
            })
            .await;
            let exit = grid.sh(&script).await;
            assert!(exit.outcome.is_err(), "{namespaces} {network} {exit:?}");
        }
    }
    let open = grid_with(|config| config.sandbox = false).await;
    assert!(
        open.sh(&script).await.outcome.is_ok(),
        "the attempt itself must be able to connect"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_everyone_reaches_the_attempt_alone() {
    for namespaces in [true, false] {
        let grid = grid_with(|config| common::allow_namespaces(config, namespaces)).await;
        let spawner = grid.spawner.process();
        let scratch = grid.scratch();
        let other = grid
            .spawner
            .launch(&scratch, common::sh("cat; echo lives; sleep 0.3; exit 6"))
            .await;
        for signal in ["KILL", "STOP"] {
            let exit = grid
                .sh(&format!(
                    "kill -{signal} -1; kill -{signal} 1; kill -{signal} $PPID; exit 5"
                ))
                .await;
            assert_eq!(exit.outcome, common::exited(5), "{}", err(&exit));
        }
        let exit = other.wait().await;
        assert_eq!(
            (exit.outcome.clone(), out(&exit).as_str()),
            (common::exited(6), "lives\n")
        );
        assert_eq!(grid.spawner.process(), spawner);
    }
}

#[tokio::test]
async fn ordinary_programs_work_inside() {
    let grid = grid().await;
    let script = r#"
        set -e
        python3 -c 'import multiprocessing as m; p = m.Pool(2); print(sum(p.map(abs, range(-9, 1))))'
        seq 100000 | sort -r -S 1M | tail -1
        tar cf x.tar -C /usr/share/doc bash && tar xf x.tar && rm -r bash x.tar
        mkdir a b && echo x > a/f && mv a/f b/ && cat b/f < /dev/null > /dev/null
        awk 'BEGIN { print "awk" }' > /dev/stderr
        head -c 4 /dev/urandom | wc -c
        id -u > /dev/null; nproc > /dev/null; ls / > /dev/null 2>&1 || true
    "#;
    let exit = grid.sh(script).await;
    assert_eq!(out(&exit), "45\n1\n4\n", "{}", err(&exit));
    assert_eq!(err(&exit), "awk\n");
}

#[tokio::test]
async fn nothing_is_gained_by_programs_that_change_the_user() {
    let grid = grid().await;
    let exit = grid
        .sh("grep -E '^(CapEff|CapPrm|CapBnd|NoNewPrivs)' /proc/self/status")
        .await;
    let text = out(&exit);
    assert_eq!(text.matches("0000000000000000").count(), 3, "{text}");
    assert!(text.contains("NoNewPrivs:\t1"), "{text}");
}

#[tokio::test]
async fn a_folder_that_must_be_hidden_cannot_lie_in_one_that_is_shown() {
    let dir = TempDir::new().unwrap();
    let pool = ScratchPool::open(dir.path().join("worker/scratch")).unwrap();
    let mut config = common::config(&pool);
    config.hidden = vec![dir.path().join("worker")];
    config.read_only = vec![dir.path().to_owned()];
    match Spawner::start(config).await {
        Err(error @ ExecError::Exposed { .. }) => {
            assert!(error.to_string().contains("choose another --dir"));
        }
        other => panic!("{:?}", other.map(|spawner| spawner.report())),
    }
}

/// Also shows that the attacks of the other tests would succeed.
#[tokio::test]
async fn without_a_sandbox_an_attempt_is_the_users_own_process() {
    let grid = grid_with(|config| config.sandbox = false).await;
    assert_eq!(grid.spawner.report().sandbox, Sandbox::None);
    let script = attack(grid.dir.path(), std::process::id());
    let harmless = [
        "key",
        "list",
        "neighbour",
        "write-dir",
        "signal",
        "signal-ancestor-2",
        "link",
    ];
    let mut kept = String::new();
    for line in script.lines() {
        let word = line
            .trim()
            .strip_prefix("try ")
            .and_then(|rest| rest.split(' ').next());
        if word.is_none_or(|word| harmless.contains(&word) || word.starts_with("signal-ancestor")) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    let exit = grid.sh(&kept).await;
    let text = out(&exit);
    for word in harmless {
        assert!(
            text.contains(&format!("BROKEN {word}\n")),
            "{word}: {text}{}",
            err(&exit)
        );
    }
}

/// A worker that is root gives its tasks links to files of a user of their own.
#[tokio::test(flavor = "multi_thread")]
async fn a_linked_file_of_another_user_stays_as_it_is() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for namespaces in [true, false] {
        let grid = grid_with(|config| common::allow_namespaces(config, namespaces)).await;
        let sealed = grid.dir.path().join("sealed");
        fs::write(&sealed, "sound").unwrap();
        std::os::unix::fs::chown(&sealed, Some(0x7fff_0001), None).unwrap();
        fs::set_permissions(&sealed, fs::Permissions::from_mode(0o444)).unwrap();
        let mut scratch = grid.scratch();
        fs::hard_link(&sealed, scratch.make_room("a/input").unwrap()).unwrap();
        fs::hard_link(&sealed, scratch.stdin_path()).unwrap();
        let script = "chmod 666 /dev/stdin; printf bad > /dev/stdin; cat; cd a; cat input; chmod 666 input; printf bad > input; printf bad >> input
            ln input alias; chmod 666 alias; printf bad > alias; truncate -s 0 input
            touch -d 2001-01-01 input; rm input; printf mine > input; cat input";
        let launch = Launch {
            stdin: Stdin::Placed,
            ..sh(script)
        };
        let exit = grid.spawner.run(&scratch, launch).await;
        assert_eq!(out(&exit), "soundsoundmine", "{namespaces} {}", err(&exit));
        assert_eq!(fs::read_to_string(&sealed).unwrap(), "sound");
        assert_eq!(
            fs::metadata(&sealed).unwrap().permissions().mode() & 0o777,
            0o444
        );
        assert_eq!(fs::metadata(&sealed).unwrap().uid(), 0x7fff_0001);
    }
}

/// Tries system calls that reach beyond the attempt; prints the names of those that succeed. The first argument is the
/// process that serves all attempts.
const REACHES_OUT: &str = r#"
import ctypes, os, platform, sys
above = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
x86 = platform.machine() == "x86_64"
number = dict(
    prlimit=302 if x86 else 261, sched_setaffinity=203 if x86 else 122, sched_setscheduler=144 if x86 else 119,
    setpriority=141 if x86 else 140, ioprio_set=251 if x86 else 30, add_key=248 if x86 else 217,
    keyctl=250 if x86 else 219, perf=298 if x86 else 241, userfaultfd=323 if x86 else 282,
    io_uring=425, socket=41 if x86 else 198)
def attempt(name, call, *args):
    if libc.syscall(number[call], *args) >= 0:
        print("REACHED", name)
limit = (ctypes.c_uint64 * 2)(0, 0)
mask = ctypes.c_uint64(1)
zero = ctypes.c_int(0)
ring = ctypes.create_string_buffer(120)
attempt("files of the spawner", "prlimit", above, 7, limit, None)
attempt("time of the spawner", "prlimit", above, 0, limit, None)
attempt("limits of another process", "prlimit", os.fork() or os._exit(0), 7, limit, None)
attempt("processors of the spawner", "sched_setaffinity", above, 8, ctypes.byref(mask))
attempt("policy of the spawner", "sched_setscheduler", above, 3, ctypes.byref(zero))
attempt("priority of the spawner", "setpriority", 0, above, 19)
attempt("priority of a group", "setpriority", 1, above, 19)
attempt("priority of a user", "setpriority", 2, 0, 19)
attempt("disk priority of the spawner", "ioprio_set", 1, above, 3 << 13)
attempt("disk priority of a user", "ioprio_set", 3, os.getuid(), 3 << 13)
attempt("a key", "add_key", b"user", b"a", b"b", 1, -4)
attempt("the session's keyring", "keyctl", 0, -3, 0)
attempt("revoking the session's keyring", "keyctl", 3, -3)
attempt("performance counters", "perf", ring, 0, -1, -1, 0)
attempt("userfaultfd", "userfaultfd", 1)
attempt("io_uring", "io_uring", 1, ring)
attempt("vsock", "socket", 40, 1, 0)
if libc.syscall(number["prlimit"], 0, 7, None, limit) != 0: print("own limits are unreadable")
if libc.syscall(number["sched_setaffinity"], 0, 8, ctypes.byref(mask)) != 0: print("own processors are fixed")
if libc.syscall(number["setpriority"], 0, 0, 19) != 0: print("own priority is fixed")
print("over")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_task_changes_no_process_that_serves_others_and_reads_no_keys() {
    for namespaces in [true, false] {
        let grid = grid_with(|config| common::allow_namespaces(config, namespaces)).await;
        let script =
            format!("cat > reach.py <<'END'\n{REACHES_OUT}\nEND\n/usr/bin/python3 reach.py $PPID");
        let exit = grid.sh(&script).await;
        assert_eq!(
            out(&exit),
            "over\n",
            "namespaces {namespaces}: {}",
            err(&exit)
        );
        // The spawner can still open what an attempt needs.
        let exit = grid.sh("echo sound").await;
        assert_eq!(
            out(&exit),
            "sound\n",
            "namespaces {namespaces}: {}",
            err(&exit)
        );
    }
}
