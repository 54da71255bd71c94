//! What really goes on at the machines: for rules that are given exact progress. The core never sees it.

use hedge_model::{TaskId, Time};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

type Running = BTreeMap<(TaskId, usize), (Time, f64)>;

/// Shared between the machines of a run and a rule that may know.
#[derive(Clone, Debug, Default)]
pub struct Truth(Arc<Mutex<Running>>);

impl Truth {
    /// A task's attempt starts at a machine and takes `takes` seconds there.
    pub(crate) fn began(&self, task: TaskId, machine: usize, now: Time, takes: f64) {
        self.with(|running| running.insert((task, machine), (now, takes)));
    }

    /// It is over.
    pub(crate) fn ended(&self, task: TaskId, machine: usize) {
        self.with(|running| running.remove(&(task, machine)));
    }

    /// How much of a task's attempt at a machine is done, `0.0..=1.0`.
    pub fn progress(&self, task: TaskId, machine: usize, now: Time) -> Option<f64> {
        let (from, takes) = self.with(|running| running.get(&(task, machine)).copied())?;
        Some((now.since(from).as_secs_f64() / takes.max(1e-9)).min(1.0))
    }

    fn with<T>(&self, then: impl FnOnce(&mut Running) -> T) -> T {
        then(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
