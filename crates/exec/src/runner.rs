//! The boundary between a worker and the runtimes of its tasks: the worker starts, suspends, resumes and ends attempts
//! here, hears of their progress and learns what they used, whatever executes them.
//!
//! A new runtime is a module beside this one, a variant of [`Attempt`], and the arms that the compiler then asks for.
//! Suspension, priority and progress reach the processes of the [`Spawner`] alone. One that needs processes starts them by
//! the [`Spawner`], so that the sandbox, limits, suspension and accounting hold for it too.

use crate::{
    Advanced, ExecError, Exit, Launch, Output, Report, Running, Sandbox, Scratch, ScratchPool,
    Spawner, SpawnerConfig,
};
use hedge_model::spec::Runtime;

/// Runs attempts of every runtime.
pub struct Runner {
    scratch: ScratchPool,
    processes: Spawner,
}

/// An attempt that was started. Dropping it ends the attempt.
pub enum Attempt {
    /// Of [`Runtime::Process`] and [`Runtime::Python`].
    Process(Running),
    /// Of [`Runtime::Noop`]: it has ended.
    Noop,
}

impl Runner {
    /// Sets up the runtimes of a worker, in its folder for scratch directories.
    ///
    /// # Errors
    /// No sandbox can be made, or one of the folders cannot be used.
    pub async fn start_up(scratch: ScratchPool, config: SpawnerConfig) -> Result<Self, ExecError> {
        let processes = Spawner::start(config).await?;
        Ok(Self { scratch, processes })
    }

    /// What protects the machine from attempts.
    pub fn report(&self) -> Report {
        self.processes.report()
    }

    /// Whether attempts can change files only where their modes allow it, so that an input may be a link to a file that
    /// others need.
    pub fn respects_modes(&self) -> bool {
        self.processes.report().sandbox != Sandbox::None
    }

    /// The folder that holds the scratch directories.
    pub fn scratch_base(&self) -> &std::path::Path {
        self.scratch.base()
    }

    /// Makes an empty scratch directory.
    ///
    /// # Errors
    /// The disk is full, or the system refuses it.
    pub fn scratch(&self) -> Result<Scratch, ExecError> {
        self.scratch.create()
    }

    /// Starts an attempt in `scratch`, which must be kept until it has ended. `progress` hears how far the attempt is
    /// whenever that has changed, as often as [`Runner::watch_progress`] says; it must not wait.
    pub async fn start(
        &self,
        runtime: Runtime,
        scratch: &Scratch,
        launch: Launch,
        progress: impl Fn(Advanced) + Send + 'static,
    ) -> Attempt {
        match runtime {
            // What it is forked from, if it is, the launch says.
            Runtime::Process | Runtime::Python => {
                let started = self.processes.launch_observed(scratch, launch, progress);
                Attempt::Process(started.await)
            }
            Runtime::Noop => Attempt::Noop,
        }
    }

    /// Stops all attempts where they are, and starts none until [`Runner::resume`].
    pub fn suspend(&self) {
        drop(self.processes.pause(true));
    }

    /// Lets all attempts go on.
    pub fn resume(&self) {
        drop(self.processes.pause(false));
    }

    /// Gives all attempts the lowest priority, or further ones that of the configuration.
    pub fn lower(&self, on: bool) {
        self.processes.lower(on);
    }

    /// Looks at the progress of attempts this often from now on; until the first call, never.
    pub fn watch_progress(&self, every: std::time::Duration) {
        self.processes.look_every(every);
    }

    /// Whether the kernel lets this process push out the memory of suspended attempts.
    pub fn may_free_memory(&self) -> bool {
        self.processes.may_free_memory()
    }
}

impl Attempt {
    /// Ends the attempt with all that it started; [`Attempt::ended`] then tells.
    pub fn end(&self) {
        match self {
            Attempt::Process(running) => running.cancel(),
            Attempt::Noop => {}
        }
    }

    /// Sends the attempt's processes SIGTERM, and ends those that are left after `grace`; [`Attempt::ended`] then tells.
    pub fn stop(&self, grace: std::time::Duration) {
        match self {
            Attempt::Process(running) => running.stop(grace),
            Attempt::Noop => {}
        }
    }

    /// Reads what the attempt prints while it runs; none where it prints nothing.
    pub fn output(&self) -> Option<Output> {
        match self {
            Attempt::Process(running) => Some(running.output()),
            Attempt::Noop => None,
        }
    }

    /// Waits for the end, and tells how it came and what the attempt used. May be given up and called again until it
    /// has told.
    pub async fn ended(&mut self) -> Exit {
        match self {
            Attempt::Process(running) => running.ended().await,
            Attempt::Noop => Exit::success(),
        }
    }
}
