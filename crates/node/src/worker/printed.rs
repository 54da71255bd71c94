//! Reads what running attempts print, for clients.

use super::Input;
use super::attempt::Tools;
use hedge_exec::Output;
use hedge_model::AttemptId;
use hedge_model::msg::{FromWorker, PrintedPart, ReadPrinted};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a spawner may take to answer. It must be less than the leader waits for this worker.
const READ_WITHIN: Duration = Duration::from_secs(2);

/// The readable outputs of running attempts.
#[derive(Clone, Default)]
pub(super) struct Outputs(Arc<Mutex<HashMap<AttemptId, Output>>>);

/// Keeps an attempt's output readable until it is dropped.
pub(super) struct Readable {
    outputs: Outputs,
    attempt: AttemptId,
}

impl Outputs {
    /// Makes the attempt readable until the result is dropped.
    pub fn add(&self, attempt: AttemptId, output: Output) -> Readable {
        self.lock().insert(attempt, output);
        Readable {
            outputs: self.clone(),
            attempt,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AttemptId, Output>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Readable {
    fn drop(&mut self) {
        self.outputs.lock().remove(&self.attempt);
    }
}

/// Reads what the leader requested in a separate task, and sends the result. The leader bounds how many readings are
/// open.
pub(super) fn answer(tools: &Arc<Tools>, read: ReadPrinted) {
    let output = tools.outputs.lock().get(&read.attempt).cloned();
    let inputs = tools.inputs.clone();
    tokio::spawn(async move {
        let pieces = match output {
            Some(output) => tokio::time::timeout(READ_WITHIN, output.read(read.from)).await,
            None => Ok(None),
        };
        let pieces = pieces.ok().flatten().map(Box::new);
        let part = Box::new(PrintedPart { read, pieces });
        _ = inputs.send(Input::Told(FromWorker::Printed(part))).await;
    });
}
