//! A worker, and modules that its tasks may import.

use crate::common::{self, Grid, allow_namespaces, err, grid_with, out};
use hedge_exec::{Exit, Launch, Scratch, SpawnerConfig, Warm};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A worker that offers modules to tasks.
pub struct Modules {
    pub grid: Grid,
    pub folder: TempDir,
    /// Another word in each test, to know its processes by.
    pub word: String,
}

/// The kinds of sandbox.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    View,
    Landlock,
    None,
}

pub const KINDS: [Kind; 3] = [Kind::View, Kind::Landlock, Kind::None];

impl Modules {
    pub async fn new(kind: Kind) -> Modules {
        Modules::with(kind, |_| {}).await
    }

    pub async fn with(kind: Kind, change: impl FnOnce(&mut SpawnerConfig)) -> Modules {
        let folder = TempDir::new().unwrap();
        let open: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let word = format!("stamp_{}", common::odd_sleep().replace('.', "_"));
        let shown = folder.path().to_owned();
        let grid = grid_with(|config| {
            config.read_only.push(shown);
            config.sandbox = kind != Kind::None;
            allow_namespaces(config, kind != Kind::Landlock);
            // Not an interpreter of the developer's, which would be another outside of the sandbox.
            config.env.retain(|(name, _)| name != "PATH");
            config.env.push(("PATH".into(), "/usr/bin:/bin".into()));
            change(config);
        })
        .await;
        let modules = Modules { grid, folder, word };
        modules.put(
            &modules.word,
            "import os\nvalue = os.urandom(8).hex()\npid = os.getpid()\nseen = []\n",
        );
        modules
    }

    pub fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(format!("{name}.py"));
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A command, forked from an interpreter that has the module of this test.
    pub fn warm(&self, args: &[&str]) -> Launch {
        self.preloading(&[&self.word], args)
    }

    pub fn preloading(&self, names: &[&str], args: &[&str]) -> Launch {
        let preload = names.iter().map(|name| (*name).to_owned()).collect();
        Launch {
            warm: Some(Box::new(Warm { job: 1, preload })),
            ..self.cold(args)
        }
    }

    /// The same command, executed.
    pub fn cold(&self, args: &[&str]) -> Launch {
        let path = self.folder.path().to_str().unwrap();
        Launch {
            env: vec![("PYTHONPATH".into(), path.into())],
            ..Launch::new("python3", args.iter().copied())
        }
    }

    /// The folders of the first slot, once no process and no file of an attempt is left there: each slot has an
    /// interpreter of its own.
    pub fn scratch(&self) -> Scratch {
        let since = Instant::now();
        let mut others = Vec::new();
        loop {
            let scratch = self.grid.scratch();
            if scratch.folder().ends_with("s0/work") {
                return scratch;
            }
            assert!(since.elapsed() < common::PATIENCE, "a slot stays in use");
            others.push(scratch);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub async fn run(&self, launch: Launch) -> Exit {
        self.grid.spawner.run(&self.scratch(), launch).await
    }

    /// Runs code that is forked, and gives what it prints.
    pub async fn code(&self, code: &str) -> String {
        let code = code.replace("stamp", &self.word);
        let exit = self.run(self.warm(&["-c", &code])).await;
        assert_eq!(exit.outcome, Ok(()), "{}", err(&exit));
        out(&exit)
    }

    /// The interpreter that attempts are forked from. It is older than what is forked from it.
    pub fn template(&self) -> i32 {
        let all = common::able_with(&self.word);
        *all.iter().min().expect("no interpreter is left")
    }

    /// The process that was forked for the next attempt, once it waits for it.
    pub fn spare(&self) -> i32 {
        let waits = |pid: i32| {
            let call = std::fs::read_to_string(format!("/proc/{pid}/syscall"));
            call.is_ok_and(|call| call.starts_with(&format!("{} ", libc::SYS_recvmsg)))
        };
        let youngest = || common::able_with(&self.word).into_iter().max().unwrap_or(0);
        common::until("a process waits for the next attempt", || {
            common::able_with(&self.word).len() == 2 && waits(youngest())
        });
        youngest()
    }

    /// Waits until no interpreter and nothing that was forked from it is left.
    pub fn none_is_left(&self) {
        common::until("all end", || common::able_with(&self.word).is_empty());
    }

    /// What is the same for all attempts that are forked from one interpreter.
    pub async fn stamp(&self) -> String {
        self.code("import stamp; print(stamp.value)").await
    }
}
