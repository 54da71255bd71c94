//! When a worker runs the benchmark kernels.

use super::{Action, Worker};
use hedge_model::owner::OwnerResponse;

/// The benchmark kernels. Work or a returning owner stops them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Benchmark {
    #[default]
    Idle,
    /// They start once nothing else runs.
    Requested,
    Running,
}

impl Worker {
    /// Starts requested kernels once nothing runs. Neither work nor an owner waits for kernels that run: the supervisor
    /// requests them again.
    pub(super) fn update_benchmark(&mut self, out: &mut Vec<Action>) {
        let working = self.owner.response() == OwnerResponse::Work;
        let unoccupied = working && self.queue.is_empty();
        match self.benchmark {
            Benchmark::Requested if unoccupied && self.busy() == 0 => {
                self.benchmark = Benchmark::Running;
                out.push(Action::Benchmark);
            }
            Benchmark::Running if !unoccupied => {
                self.benchmark = Benchmark::Idle;
                out.push(Action::EndBenchmark);
            }
            Benchmark::Idle | Benchmark::Requested | Benchmark::Running => {}
        }
    }
}
