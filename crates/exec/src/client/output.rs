//! Reads what an attempt prints while it runs.

use super::Shared;
use crate::wire::Request;
use hedge_model::msg::{Offsets, Pieces};
use std::collections::HashMap;
use std::sync::Weak;
use tokio::sync::oneshot;

/// Reads what an attempt prints. Does not keep the attempt alive.
#[derive(Clone)]
pub struct Output {
    pub(super) id: u64,
    pub(super) shared: Weak<Shared>,
}

/// Reads that spawners have not answered, by number.
#[derive(Default)]
pub(super) struct Readings {
    last: u64,
    open: HashMap<u64, Reading>,
}

struct Reading {
    slot: u32,
    answer: oneshot::Sender<Pieces>,
}

impl Output {
    /// Returns a bounded part of what the attempt has printed from these positions on; none if it no longer runs.
    pub async fn read(&self, from: Offsets) -> Option<Pieces> {
        let answer = {
            let shared = self.shared.upgrade()?;
            let mut state = shared.lock();
            let slot = state.running.get(&self.id)?.slot;
            let (reading, answer) = state.readings.open(slot);
            let request = Request::Read {
                id: self.id,
                reading,
                from,
            };
            if !state.slots.get_mut(&slot)?.say(&request) {
                state.readings.take(reading);
            }
            answer
        };
        answer.await.ok()
    }
}

impl Readings {
    fn open(&mut self, slot: u32) -> (u64, oneshot::Receiver<Pieces>) {
        // Nobody waits for these any more.
        self.open.retain(|_, reading| !reading.answer.is_closed());
        let (sender, answer) = oneshot::channel();
        self.last += 1;
        let reading = Reading {
            slot,
            answer: sender,
        };
        self.open.insert(self.last, reading);
        (self.last, answer)
    }

    /// Handles the reply of a spawner; none if the attempt does not run.
    pub fn answered(&mut self, reading: u64, pieces: Option<Pieces>) {
        if let (Some(answer), Some(pieces)) = (self.take(reading), pieces) {
            // The caller may have given up.
            let _ = answer.send(pieces);
        }
    }

    /// Ends the reads of a slot whose spawner is gone.
    pub fn lose(&mut self, slot: u32) {
        self.open.retain(|_, reading| reading.slot != slot);
    }

    fn take(&mut self, reading: u64) -> Option<oneshot::Sender<Pieces>> {
        self.open.remove(&reading).map(|reading| reading.answer)
    }
}
