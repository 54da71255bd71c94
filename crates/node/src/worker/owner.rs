//! Turns the activity that the machine's sources notice into events of the worker's core.

use super::Input;
use crate::NodeError;
use hedge_core::worker::Event;
use hedge_exec::Runner;
use hedge_host::{Options, Watch};
use hedge_model::owner::{OwnerResponse, OwnerRules, Signal};
use std::time::Duration;
use tokio::sync::mpsc;

/// How often the local time is read, which may jump by an hour.
const CLOCK_EVERY: Duration = Duration::from_secs(600);

/// A worker's rules for its owner, and its sources of activity.
#[derive(Clone, Debug, Default)]
pub struct OwnerConfig {
    /// The responses to activity, and how soon they apply.
    pub rules: OwnerRules,
    /// The settings of the sources of activity.
    pub sources: Options,
    /// Whether the memory of suspended attempts is moved to swap.
    pub free_memory: bool,
}

/// Logs how attempts will be suspended, which depends on this machine and this user's rights.
pub(super) fn tell_how(config: &OwnerConfig, runner: &Runner) {
    if runner.report().freezer {
        tracing::info!(
            "while the owner is there the kernel stops tasks, in a control group of their own"
        );
    } else {
        tracing::info!(
            "while the owner is there tasks are stopped by signals: no control group may be made here"
        );
    }
    if config.free_memory && !runner.may_free_memory() {
        tracing::warn!(
            "free_memory is set, but the kernel does not let this user push out other processes' memory: tasks keep \
             theirs while they are stopped; give the worker the right (AmbientCapabilities=CAP_SYS_NICE of a service)"
        );
    }
}

/// Starts all sources of activity, which stop when the returned value is dropped, and a clock where the rules name hours,
/// which stops with the queue of inputs.
pub(super) async fn watch(
    config: &OwnerConfig,
    inputs: &mpsc::Sender<Input>,
) -> Result<Watch, NodeError> {
    let handed = inputs.clone();
    let needs_input = config.rules.unwatched != OwnerResponse::Work;
    // Runs on the sources' own threads, which may block.
    let hand = move |notice: hedge_host::Notice| {
        if needs_input && notice.signal == Signal::Watched(false) {
            tracing::warn!(
                "no source of input: the machine is taken to be in use, and NO TASK IS RUN here; if nobody uses this \
                 machine, start the worker with --dedicated (or HEDGE_DEDICATED=1); else `hedge doctor` says what \
                 would let it notice its owner"
            );
        }
        tracing::debug!(source = notice.source, signal = ?notice.signal, "owner");
        _ = handed.blocking_send(Input::Core(Event::Owner(notice.signal)));
    };
    let sources = config.sources.clone();
    // The first notices are sent by the starting thread, which may block too.
    let watch = tokio::task::spawn_blocking(move || Watch::start(sources, hand)).await;
    let watch = watch.map_err(std::io::Error::other).flatten();
    let watch = watch.map_err(|error| {
        NodeError::Other(format!(
            "the owner's activity cannot be watched: {error}; the worker has not started; free some of this user's \
             processes and open files"
        ))
    })?;
    if !config.rules.hours.is_empty() {
        let inputs = inputs.clone();
        tokio::spawn(async move {
            let mut every = tokio::time::interval(CLOCK_EVERY);
            loop {
                every.tick().await;
                let minute = Event::Owner(Signal::Clock(hedge_host::minute_of_week()));
                if inputs.send(Input::Core(minute)).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(watch)
}
