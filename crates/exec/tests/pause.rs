//! Attempts stopped where they are, and let go on.

mod common;

use common::{grid, grid_with, odd_sleep, out, processes_with, sh, until};
use hedge_exec::{Launch, Limits};
use hedge_model::Ending;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Counts in a file of its folder, a child and a daemon beside it.
const COUNTING: &str = "count() { while :; do echo >> $1; done; }; \
                        count a & setsid -f sh -c 'while :; do echo >> b; done'; \
                        while [ ! -e stop ]; do echo >> c; done; wc -l < c";

/// Sizes of the files that [`COUNTING`] writes.
fn sizes(folder: &std::path::Path) -> [u64; 3] {
    ["a", "b", "c"].map(|name| std::fs::metadata(folder.join(name)).map_or(0, |about| about.len()))
}

/// Fails where more was written since than the one line that each of the three may have been writing.
fn assert_stopped(folder: &Path, then: [u64; 3], how: &str) {
    let now = sizes(folder);
    let same = now.iter().zip(then).all(|(now, then)| *now <= then + 1);
    assert!(same, "a process went on {how}: {then:?}, {now:?}");
}

async fn whole_tree_stops_and_goes_on(grid: &common::Grid) {
    let scratch = grid.scratch();
    let running = grid.spawner.launch(&scratch, sh(COUNTING)).await;
    let folder = scratch.folder().to_owned();
    until("all three write", || {
        sizes(&folder).iter().all(|size| *size > 100)
    });
    grid.spawner.pause(true).await.unwrap();
    let stopped = sizes(&folder);
    // Nothing can show that nothing happens but a while in which it does not.
    std::thread::sleep(Duration::from_millis(300));
    assert_stopped(&folder, stopped, "");
    grid.spawner.pause(false).await.unwrap();
    until("all three go on", || {
        sizes(&folder)
            .iter()
            .zip(stopped)
            .all(|(now, then)| *now > then)
    });
    std::fs::write(folder.join("stop"), "").unwrap();
    let exit = running.wait().await;
    assert_eq!(exit.outcome, Ok(()));
    assert!(
        exit.usage.paused >= Duration::from_millis(300),
        "{:?}",
        exit.usage
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_tree_stops_and_goes_on() {
    let grid = grid().await;
    assert_eq!(grid.spawner.report().freezer, may_make_groups());
    whole_tree_stops_and_goes_on(&grid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_tree_stops_and_goes_on_without_namespaces() {
    whole_tree_stops_and_goes_on(
        &grid_with(|config| common::allow_namespaces(config, false)).await,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_tree_stops_and_goes_on_by_signals() {
    let grid = grid_with(|config| common::allow_groups(config, false)).await;
    assert!(!grid.spawner.report().freezer);
    whole_tree_stops_and_goes_on(&grid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_tree_stops_and_goes_on_by_signals_without_namespaces() {
    let signals = |config: &mut hedge_exec::SpawnerConfig| {
        common::allow_namespaces(config, false);
        common::allow_groups(config, false);
    };
    whole_tree_stops_and_goes_on(&grid_with(signals).await).await;
}

/// The folder of these tests' control group, if this system has such.
fn own_group() -> Option<PathBuf> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" cgroup2 "))?;
    Some(Path::new(mount.split(' ').nth(1)?).join(group))
}

fn may_make_groups() -> bool {
    // Tests may run beside each other, in threads or processes.
    let name = format!("probe-{}-{}", std::process::id(), odd_sleep());
    let probe = own_group().map(|group| group.join(name));
    let made =
        |probe: &PathBuf| std::fs::create_dir(probe).is_ok() && std::fs::remove_dir(probe).is_ok();
    probe.as_ref().is_some_and(made)
}

/// With a control group no process is sent a signal, what makes itself a daemon included, and nothing is left of the
/// group in the end.
#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_stops_what_is_in_the_control_group() {
    if !may_make_groups() {
        return eprintln!("no control group can be made here: signals are tested alone");
    }
    let group = own_group().unwrap();
    // Of a watcher that was killed, wherever that was.
    let stale = group.join(format!("hedge-attempts-1-{}", std::process::id()));
    std::fs::create_dir(&stale).unwrap();
    let grid = grid().await;
    assert!(!stale.exists(), "what others left is cleared away");
    let namespace = std::fs::metadata("/proc/self/ns/pid").unwrap();
    let name = format!("hedge-attempts-{}-", namespace.ino());
    let own = group.join(format!("{name}{}", grid.spawner.process()));
    drop(common::grid().await);
    assert!(
        own.exists(),
        "another that starts takes it for one of the dead"
    );
    let sleep = odd_sleep();
    let scratch = grid.scratch();
    let script = sh(&format!("setsid -f sleep {sleep}; sleep {sleep}"));
    let running = grid.spawner.launch(&scratch, script).await;
    let sleepers = || {
        let pids = processes_with(&sleep).into_iter();
        pids.filter(|pid| state(*pid).1.starts_with("sleep"))
            .collect::<Vec<_>>()
    };
    until("both sleep", || sleepers().len() == 2);
    let frozen = |word: &str| {
        std::fs::read_to_string(own.join("cgroup.events")).is_ok_and(|text| text.contains(word))
    };
    assert!(frozen("frozen 0"));
    grid.spawner.pause(true).await.unwrap();
    until("all are frozen", || frozen("frozen 1"));
    let inside = std::fs::read_to_string(own.join("cgroup.procs")).unwrap();
    for pid in sleepers() {
        assert!(
            inside.lines().any(|line| line == pid.to_string()),
            "{pid} is outside: {inside}"
        );
        assert_ne!(state(pid).0, 'T', "{pid} was sent a signal");
    }
    grid.spawner.pause(false).await.unwrap();
    until("they go on", || frozen("frozen 0"));
    drop(running);
    grid.spawner.stop().await;
    until("the group is removed", || !own.exists());
}

/// A process's state and name.
fn state(pid: i32) -> (char, String) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    let name = stat.split_once('(').map_or("", |(_, rest)| rest);
    (state.unwrap_or('?'), name.to_owned())
}

/// A user for whom no control group is writable, with and without namespaces.
#[test]
fn an_ordinary_users_attempts_are_stopped_too() {
    for setting in ["", "no-namespaces", "no-sandbox"] {
        let report = stops_and_goes_on_for_an_ordinary_user(setting, None);
        if root() {
            assert!(report.contains("freezer: false"), "{report}");
        }
    }
}

/// A user whose session has its control groups to itself: the kernel stops what he runs.
#[test]
fn an_ordinary_user_with_control_groups_of_his_own_has_the_kernel_stop_his_attempts() {
    if !root() || !may_make_groups() {
        return eprintln!("only root can give somebody control groups, where there are any");
    }
    let group = Group::give();
    for setting in ["", "no-namespaces", "no-sandbox"] {
        let report = stops_and_goes_on_for_an_ordinary_user(setting, Some(&group.0));
        assert!(report.contains("freezer: true"), "{report}");
        until("nothing is left of the group", || group.within().is_empty());
    }
}

/// A control group that an ordinary user may divide, which ends with the test.
struct Group(PathBuf);

impl Group {
    fn give() -> Group {
        let path = own_group().unwrap().join(format!("given-{}", odd_sleep()));
        std::fs::create_dir(&path).unwrap();
        let group = Group(path);
        for name in ["", "cgroup.procs", "cgroup.subtree_control"] {
            std::os::unix::fs::chown(group.0.join(name), Some(65534), Some(65534)).unwrap();
        }
        group
    }

    /// Groups that were made in it.
    fn within(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.0).unwrap().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.map(|entry| entry.path()).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What a failed test left.
        _ = std::fs::write(self.0.join("cgroup.kill"), "1");
        let gone = || {
            self.within()
                .iter()
                .for_each(|path| _ = std::fs::remove_dir(path));
            std::fs::remove_dir(&self.0).is_ok()
        };
        let since = Instant::now();
        while !gone() && since.elapsed() < common::PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Says what the worker reported of its spawner.
fn stops_and_goes_on_for_an_ordinary_user(setting: &str, group: Option<&Path>) -> String {
    let dir = tempfile::TempDir::new().unwrap();
    let base = dir.path().join("base");
    std::fs::create_dir(&base).unwrap();
    let helper = common::public_helper(&dir);
    let mut command = match group {
        None => Command::new(&helper),
        Some(group) => {
            let enter = "echo $$ > \"$0/cgroup.procs\" && \
                         exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"";
            let mut command = Command::new("sh");
            command.args(["-c", enter]).args([group, &helper]);
            command
        }
    };
    command
        .arg("worker")
        .arg(&base)
        .args([COUNTING, "pauses", setting])
        .current_dir("/");
    if group.is_some() {
        std::os::unix::fs::chown(&base, Some(65534), Some(65534)).unwrap();
    } else {
        common::as_ordinary_user(&mut command, &[&base]);
    }
    let mut worker = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(worker.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let report = lines.find(|line| line.starts_with("report")).unwrap();
    let folder = PathBuf::from(lines.next().unwrap().strip_prefix("folder ").unwrap());
    until("all three write", || {
        sizes(&folder).iter().all(|size| *size > 100)
    });
    let mut input = worker.stdin.take().unwrap();
    writeln!(input, "pause").unwrap();
    assert_eq!(lines.next().as_deref(), Some("paused true"));
    let stopped = sizes(&folder);
    std::thread::sleep(Duration::from_millis(300));
    assert_stopped(&folder, stopped, setting);
    writeln!(input, "go").unwrap();
    assert_eq!(lines.next().as_deref(), Some("paused false"));
    std::fs::write(folder.join("stop"), "").unwrap();
    assert_eq!(lines.next().as_deref(), Some("outcome done"));
    drop(input);
    assert!(worker.wait().unwrap().success());
    report
}

fn root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_time_does_not_count_towards_the_limit() {
    let grid = grid().await;
    let scratch = grid.scratch();
    let limit = Duration::from_secs(5);
    let launch = Launch {
        limits: Limits {
            time: Some(limit),
            ..Limits::default()
        },
        ..sh("while [ ! -e stop ]; do sleep 0.01; done")
    };
    let since = Instant::now();
    let running = grid.spawner.launch(&scratch, launch.clone()).await;
    grid.spawner.pause(true).await.unwrap();
    std::thread::sleep(limit + Duration::from_millis(500));
    grid.spawner.pause(false).await.unwrap();
    std::fs::write(scratch.folder().join("stop"), "").unwrap();
    let exit = running.wait().await;
    assert_eq!(exit.outcome, Ok(()));
    assert!(exit.usage.elapsed + exit.usage.paused <= since.elapsed());
    assert!(exit.usage.elapsed < limit, "{:?}", exit.usage);
    let scratch = grid.scratch();
    let exit = grid.spawner.run(&scratch, launch).await;
    assert_eq!(
        exit.outcome,
        Err(Ending::TimeLimit { limit }),
        "the limit still holds"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_attempt_can_be_ended_and_none_starts() {
    let grid = grid().await;
    let (first, second) = (grid.scratch(), grid.scratch());
    let running = grid
        .spawner
        .launch(&first, sh("echo > there; sleep 1000"))
        .await;
    until("it runs", || first.folder().join("there").exists());
    grid.spawner.pause(true).await.unwrap();
    let waiting = grid.spawner.launch(&second, sh("echo started")).await;
    running.cancel();
    assert_eq!(running.wait().await.outcome, Err(Ending::Cancelled));
    grid.spawner.pause(false).await.unwrap();
    assert_eq!(out(&waiting.wait().await), "started\n");
}
