//! What the tests share: a worker's runner on a folder of its own.
#![allow(dead_code, missing_docs)]

use hedge_exec::{Exit, Launch, Scratch, ScratchPool, Spawner, SpawnerConfig};
use hedge_model::Ending;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Generous, for loaded machines; every wait ends as soon as it can.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub const HELPER: &str = env!("CARGO_BIN_EXE_hedge-exec-helper");

pub struct Grid {
    pub pool: ScratchPool,
    pub spawner: Spawner,
    /// The worker's own folder, with a key in it.
    pub dir: TempDir,
}

pub async fn grid() -> Grid {
    grid_with(|_| {}).await
}

pub async fn grid_with(change: impl FnOnce(&mut SpawnerConfig)) -> Grid {
    let dir = TempDir::new().unwrap();
    // Root's tasks run as another user, who names his folder by its path where there is no view.
    let open: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(dir.path(), open).unwrap();
    std::fs::write(dir.path().join("key"), "secret").unwrap();
    let pool = ScratchPool::open(dir.path().join("scratch")).unwrap();
    let mut config = config(&pool);
    config.hidden = vec![dir.path().to_owned()];
    change(&mut config);
    config.accept_weak = config.program.1.iter().any(|word| word == "namespaces");
    let spawner = Spawner::start(config).await.unwrap();
    Grid { pool, spawner, dir }
}

pub fn config(pool: &ScratchPool) -> SpawnerConfig {
    let mut config = SpawnerConfig::new(pool.base());
    config.program = (HELPER.into(), vec![hedge_exec::spawner::ARGUMENT.into()]);
    config
}

/// Whether the machine lets workers make namespaces.
pub fn allow_namespaces(config: &mut SpawnerConfig, on: bool) {
    allow(config, "namespaces", on);
}

/// Whether the machine lets workers make control groups.
pub fn allow_groups(config: &mut SpawnerConfig, on: bool) {
    allow(config, "groups", on);
}

fn allow(config: &mut SpawnerConfig, what: &str, on: bool) {
    if !on {
        config.program.1.push(what.into());
    }
}

impl Grid {
    pub fn scratch(&self) -> Scratch {
        self.pool.create().unwrap()
    }

    /// A folder with the helper in it, as `helper`.
    pub fn scratch_with_helper(&self) -> Scratch {
        let mut scratch = self.scratch();
        let source = hedge_exec::Source::File(Path::new(HELPER));
        scratch.place("helper", true, source).unwrap();
        scratch
    }

    /// Runs a shell script in a folder of its own.
    pub async fn sh(&self, script: &str) -> Exit {
        self.spawner.run(&self.scratch(), sh(script)).await
    }

    /// What is left in all folders, after waiting for it to be nothing.
    pub fn left_over(&self) -> Vec<PathBuf> {
        let since = Instant::now();
        loop {
            let left = files_below(self.pool.base());
            if (left.is_empty() && self.pool.cleaning() == 0) || since.elapsed() > PATIENCE {
                return left;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

pub fn sh(script: &str) -> Launch {
    Launch::new("sh", ["-c", script])
}

/// Runs something on a thread of its own as an ordinary user who owns `base` and all in it.
pub fn without_privileges<T: Send>(base: &Path, run: impl FnOnce() -> T + Send) -> T {
    let mut waiting = vec![base.to_owned()];
    while let Some(path) = waiting.pop() {
        if std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0 {
            std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
        }
        let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
        waiting.extend(entries.map(|entry| entry.path()));
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // The system call alone changes this thread and no other.
            // SAFETY: a plain system call.
            unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
            run()
        });
        thread.join().unwrap()
    })
}

/// The end of a program with an exit status other than 0.
pub fn exited(status: i32) -> Result<(), Ending> {
    Err(Ending::Exited {
        status,
        said: String::new(),
    })
}

pub fn signalled(signal: i32) -> Result<(), Ending> {
    Err(Ending::Signalled {
        signal,
        said: String::new(),
    })
}

pub fn out(exit: &Exit) -> String {
    String::from_utf8_lossy(&exit.stdout.bytes).into_owned()
}

pub fn err(exit: &Exit) -> String {
    String::from_utf8_lossy(&exit.stderr.bytes).into_owned()
}

/// Waits for something that has no event of its own.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        // What is gone by now is not left.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => waiting.push(entry.path()),
                Ok(_) => found.push(entry.path()),
                Err(_) => {}
            }
        }
    }
    found
}

/// Processes of this machine whose command line holds `word`. Zombies have none.
pub fn processes_with(word: &str) -> Vec<i32> {
    let holds = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(holds)
        .collect()
}

/// Those of [`processes_with`] that can still do something. One that was killed cannot, but at idle
/// priority it may take seconds on a busy machine until it is gone.
pub fn able_with(word: &str) -> Vec<i32> {
    const EXITING: u64 = 0x4;
    const SIGNALED: u64 = 0x400;
    const KILL_PENDING: u64 = 1 << 8;
    let is_able = |pid: &i32| {
        // In this order: one that is gone after the first look has no flags at the second.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let flags = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split(' ').nth(7)?.parse().ok());
        let pending = status
            .lines()
            .filter(|line| line.starts_with("SigPnd") || line.starts_with("ShdPnd"))
            .filter_map(|line| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok())
            .fold(0, |all, some| all | some);
        flags.is_some_and(|flags: u64| flags & (EXITING | SIGNALED) == 0)
            && pending & KILL_PENDING == 0
    };
    processes_with(word).into_iter().filter(is_able).collect()
}

/// A process and all below it, parents before their children.
pub fn tree_of(process: u32) -> Vec<i32> {
    let mut all = vec![process as i32];
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten();
        let lists = threads
            .flatten()
            .map(|thread| thread.path().join("children"));
        let text: String = lists.flat_map(std::fs::read_to_string).collect();
        all.extend(
            text.split_whitespace()
                .filter_map(|pid| pid.parse::<i32>().ok()),
        );
        at += 1;
    }
    all
}

/// A number of seconds that no other process sleeps, to know one's own processes by.
pub fn odd_sleep() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!(
        "{}.{}",
        1000 + std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A copy of the helper that any user may execute, in a folder that any user may enter.
pub fn public_helper(dir: &TempDir) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let helper = dir.path().join("helper");
    // By another process: were the copy open for writing here, it could not be executed while another
    // test starts a process that inherits the descriptor.
    let install = std::process::Command::new("install")
        .args(["-m", "755", HELPER])
        .arg(&helper)
        .status();
    assert!(install.unwrap().success());
    helper
}

/// Makes the command run as an ordinary user that owns `paths`, where these tests are run by root.
pub fn as_ordinary_user(command: &mut std::process::Command, paths: &[&Path]) {
    use std::os::unix::process::CommandExt;
    let about = std::fs::metadata("/proc/self").unwrap();
    if std::os::unix::fs::MetadataExt::uid(&about) == 0 {
        for path in paths {
            std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
        }
        command.uid(65534).gid(65534);
    }
}
