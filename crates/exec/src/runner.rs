//! The boundary between a worker and the runtimes of its tasks. The worker starts, suspends, resumes and ends attempts
//! here, and gets their progress and usage, independent of the runtime.
//!
//! A new runtime is an arm in [`Runner::start`]; one without processes is also a module beside this one and a variant of
//! [`Attempt`].
//! Suspension, priority and progress concern only processes of the [`Spawner`]. A runtime that needs processes therefore
//! has the [`Spawner`] start them, so that sandbox, limits, suspension and accounting hold for it too.

use crate::{
    Advanced, ExecError, Exit, Launch, Output, Report, Running, Sandbox, Scratch, ScratchPool,
    Spawner, SpawnerConfig, Warm,
};
use hedge_model::msg::Body;
use hedge_model::spec::Runtime;

/// Runs attempts of every runtime.
pub struct Runner {
    scratch: ScratchPool,
    processes: Spawner,
}

/// An attempt that was started. Dropping it ends the attempt.
pub enum Attempt {
    /// An attempt of [`Runtime::Process`] or [`Runtime::Python`].
    Process(Running),
    /// An attempt of [`Runtime::Noop`], which has ended already.
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

    /// Returns the sandbox in force, and its weaknesses.
    pub fn report(&self) -> Report {
        self.processes.report()
    }

    /// Returns whether file modes bind attempts, so that an input may be a link to a file that others need.
    pub fn respects_modes(&self) -> bool {
        self.processes.report().sandbox != Sandbox::None
    }

    /// Returns whether attempts have a view of their own of the file system, in which trees can be shown.
    pub fn has_view(&self) -> bool {
        matches!(self.processes.report().sandbox, Sandbox::View { .. })
    }

    /// Returns the folder that holds the scratch directories.
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

    /// Starts an attempt of a task of `body` in `scratch`, which must be kept until it has ended. `progress` is called
    /// when the attempt's progress has changed, at the interval of [`Runner::watch_progress`]. It must not block.
    pub async fn start(
        &self,
        body: &Body,
        scratch: &Scratch,
        mut launch: Launch,
        progress: impl Fn(Advanced) + Send + 'static,
    ) -> Attempt {
        launch.warm = match body.runtime {
            Runtime::Noop => return Attempt::Noop,
            Runtime::Process => None,
            Runtime::Python => Some(Box::new(Warm {
                job: body.job.0,
                preload: body.preload.iter().map(ToString::to_string).collect(),
            })),
        };
        let started = self.processes.launch_observed(scratch, launch, progress);
        Attempt::Process(started.await)
    }

    /// Stops all attempts where they are, and starts none until [`Runner::resume`].
    pub fn suspend(&self) {
        drop(self.processes.pause(true));
    }

    /// Lets all attempts go on.
    pub fn resume(&self) {
        drop(self.processes.pause(false));
    }

    /// With `on`, gives all attempts the lowest priority. Otherwise attempts that start later get the configured one; those
    /// that run keep the lowest.
    pub fn lower(&self, on: bool) {
        self.processes.lower(on);
    }

    /// Sets the interval at which progress is measured. Before the first call it is not measured.
    pub fn watch_progress(&self, every: std::time::Duration) {
        self.processes.look_every(every);
    }

    /// Returns whether the kernel lets this process push the memory of suspended attempts out to swap.
    pub fn may_free_memory(&self) -> bool {
        self.processes.may_free_memory()
    }
}

impl Attempt {
    /// Kills the attempt with all that it started; [`Attempt::ended`] then returns.
    pub fn end(&self) {
        match self {
            Attempt::Process(running) => running.cancel(),
            Attempt::Noop => {}
        }
    }

    /// Sends the attempt's processes SIGTERM and kills those that are left after `grace`; [`Attempt::ended`] then returns.
    pub fn stop(&self, grace: std::time::Duration) {
        match self {
            Attempt::Process(running) => running.stop(grace),
            Attempt::Noop => {}
        }
    }

    /// Returns a reader of what the attempt prints; none if its runtime prints nothing.
    pub fn output(&self) -> Option<Output> {
        match self {
            Attempt::Process(running) => Some(running.output()),
            Attempt::Noop => None,
        }
    }

    /// Waits for the end. Returns how the attempt ended and what it used. It may be dropped and called again until it has
    /// returned.
    pub async fn ended(&mut self) -> Exit {
        match self {
            Attempt::Process(running) => running.ended().await,
            Attempt::Noop => Exit::success(),
        }
    }
}
