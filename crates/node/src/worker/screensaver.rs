//! Serves screensavers over a socket in the worker's directory. While one is connected, the owner is away. It draws
//! the figures that the worker sends.

use super::Input;
use crate::NodeError;
use hedge_core::worker::Event;
use hedge_model::AttemptId;
use hedge_model::msg::{Assignment, Body, Outcome, Report};
use hedge_model::owner::Signal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

/// The most screensavers served at the same time: one for each screen.
const SAVERS_MAX: usize = 16;
/// The shortest interval between two lines.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// The most tasks that are named.
const NAMED_MAX: usize = 32;

/// What a screensaver is sent, each time as one line of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaverView {
    /// Whether the worker is connected to a grid.
    pub connected: bool,
    /// Labels of the tasks that run, at most 32.
    pub running: Vec<String>,
    /// Tasks done since the worker started.
    pub done: u64,
    /// CPU time that they used, in milliseconds.
    pub cpu_ms: u64,
}

/// Returns the socket at which a worker with this directory listens for screensavers.
pub fn saver_socket(dir: &Path) -> PathBuf {
    dir.join("screensaver.sock")
}

/// What runs here, for screensavers.
pub(super) struct Shown {
    view: watch::Sender<SaverView>,
    running: BTreeMap<AttemptId, String>,
}

impl Shown {
    /// Creates an empty view, and its receiver.
    pub fn new() -> (Shown, watch::Receiver<SaverView>) {
        let (view, seen) = watch::channel(SaverView::default());
        let running = BTreeMap::new();
        (Shown { view, running }, seen)
    }

    /// Sets whether the worker is connected to a grid.
    pub fn connected(&self, connected: bool) {
        self.view.send_modify(|view| view.connected = connected);
    }

    /// Adds an attempt whose process starts.
    pub fn started(&mut self, body: &Body, order: &Assignment) {
        if self.view.receiver_count() == 0 || self.running.len() >= NAMED_MAX {
            return;
        }
        let label = match order.index {
            Some(index) => format!("{}.{index}", body.id),
            None => body.id.to_string(),
        };
        self.running.insert(order.attempt, label);
        self.tell(|_| {});
    }

    /// Removes an attempt that is over, and counts it.
    pub fn ended(&mut self, report: &Report) {
        if self.view.receiver_count() == 0 {
            return;
        }
        self.running.remove(&report.attempt);
        let done = matches!(report.outcome, Outcome::Done(_));
        let cpu_ms = u64::try_from(report.usage.cpu.as_millis()).unwrap_or(u64::MAX);
        self.tell(|view| {
            view.done += u64::from(done);
            view.cpu_ms = view.cpu_ms.saturating_add(cpu_ms);
        });
    }

    fn tell(&self, change: impl FnOnce(&mut SaverView)) {
        self.view.send_modify(|view| {
            change(view);
            view.running = self.running.values().cloned().collect();
        });
    }
}

/// Listens for screensavers. Only the worker's user can enter the directory.
pub(super) fn listen(
    dir: &Path,
    inputs: mpsc::Sender<Input>,
    view: watch::Receiver<SaverView>,
) -> Result<(), NodeError> {
    let path = saver_socket(dir);
    // Left by a killed worker.
    _ = std::fs::remove_file(&path);
    let listener =
        UnixListener::bind(&path).map_err(|error| NodeError::io("listen at", &path, error))?;
    tokio::spawn(async move {
        let mut savers = tokio::task::JoinSet::new();
        let mut shown = false;
        loop {
            tokio::select! {
                accepted = listener.accept(), if savers.len() < SAVERS_MAX => match accepted {
                    Ok((stream, _)) => _ = savers.spawn(tell(stream, view.clone())),
                    Err(_) => tokio::time::sleep(TELL_EVERY).await,
                },
                Some(_) = savers.join_next() => {}
            }
            let now = !savers.is_empty();
            if now != std::mem::replace(&mut shown, now) {
                let signal = Input::Core(Event::Owner(Signal::Saver(now)));
                if inputs.send(signal).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(())
}

/// Serves one screensaver until it is gone.
async fn tell(mut stream: UnixStream, mut view: watch::Receiver<SaverView>) {
    let (mut from, mut to) = stream.split();
    let mut nothing = [0; 64];
    loop {
        let mut line = serde_json::to_vec(&*view.borrow_and_update()).unwrap_or_default();
        line.push(b'\n');
        if to.write_all(&line).await.is_err() {
            return;
        }
        tokio::select! {
            // A screensaver sends nothing: a read means that it is gone.
            read = from.read(&mut nothing) => if !matches!(read, Ok(1..)) { return },
            changed = view.changed() => {
                if changed.is_err() {
                    return;
                }
                tokio::time::sleep(TELL_EVERY).await;
            }
        }
    }
}
