//! Checkpoints of made-up processes: each is a blob of its own, of which the grid knows how far its task was.

use super::Input;
use crate::grid::{Grid, Violation};
use crate::program::blob;
use hedge_core::worker;
use hedge_model::{AttemptId, Checkpoint, CheckpointId, FileEntry};
use std::sync::Arc;
use std::time::Duration;

/// How often of a thousand times a process that is asked to end saves how far it is.
const SAVES_LAST_PERMILLE: u32 = 800;

/// How long a process takes that saves how far it is, where it would take `took` otherwise: a hundredth more.
pub(super) fn with_cost(took: u64) -> u64 {
    took + took / 100
}

impl Grid {
    /// How far a task was when it left these files, in thousandths.
    pub(super) fn share_of(&self, files: &[FileEntry]) -> u16 {
        let blobs = files.iter().filter_map(|file| file.data.hash());
        let shares = blobs.filter_map(|hash| self.saved.get(&hash).map(|(_, share)| *share));
        shares.max().unwrap_or(0)
    }

    /// A process renames its files into place, and will again.
    pub(super) fn saves(&mut self, ix: usize, id: AttemptId) -> Result<(), Violation> {
        let Some(busy) = self.workers[ix].busy.get(&id) else {
            return Ok(());
        };
        let Some(rule) = busy.body.checkpoint.clone().filter(|_| !busy.ending) else {
            return Ok(());
        };
        if busy.left.is_none() && busy.running {
            self.save(ix, id)?;
        }
        let after = rule.every + self.dice.millis(0, 50);
        self.in_worker_life(ix, after, Input::Saves(id));
        Ok(())
    }

    /// The worker has a process end by itself: it may save how far it is before.
    pub(super) fn stop(&mut self, ix: usize, id: AttemptId, grace: Duration) {
        let saves_last = self.dice.permille(SAVES_LAST_PERMILLE);
        let worker = &mut self.workers[ix];
        worker.token += 1;
        let token = worker.token;
        let Some(busy) = worker.busy.get_mut(&id) else {
            return;
        };
        (busy.ending, busy.saves_last, busy.token) = (true, saves_last, token);
        let most = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let took = self.dice.millis(0, most);
        self.in_worker_life(ix, took, Input::Ended(id, token));
    }

    /// The last checkpoint of a process that is about to end.
    pub(super) fn save_last(
        &mut self,
        ix: usize,
        id: AttemptId,
        token: u64,
    ) -> Result<(), Violation> {
        let busy = self.workers[ix].busy.get_mut(&id);
        let ends =
            busy.is_some_and(|busy| busy.token == token && std::mem::take(&mut busy.saves_last));
        match ends {
            true => self.save(ix, id),
            false => Ok(()),
        }
    }

    fn save(&mut self, ix: usize, id: AttemptId) -> Result<(), Violation> {
        let (now, salt) = (self.now, self.dice.any());
        let Some(busy) = self.workers[ix].busy.get_mut(&id) else {
            return Ok(());
        };
        let Some(rule) = &busy.body.checkpoint else {
            return Ok(());
        };
        busy.saved += 1;
        let (ran, all) = (now.since(busy.since), busy.due.since(busy.since));
        let ran = ran.saturating_sub(busy.paused).as_secs_f64() / all.as_secs_f64().max(1e-6);
        let left = f64::from(1000 - busy.begun_at);
        let permille = busy.begun_at + (ran.clamp(0.0, 1.0) * left) as u16;
        let number = busy.saved;
        let id = CheckpointId {
            attempt: id,
            number,
        };
        let task = id.attempt.task;
        let parts = [6, task.job.0, u64::from(task.number), salt];
        let file = |path: &Arc<str>| blob(path, &parts);
        let files: Vec<FileEntry> = rule.files.iter().map(file).collect();
        for hash in files.iter().filter_map(|file| file.data.hash()) {
            self.workers[ix].disk.insert(hash);
            self.saved.insert(hash, (task, permille));
        }
        let saved = Checkpoint {
            id,
            files,
            permille: Some(permille),
        };
        let saved = Ok(Arc::new(saved));
        self.worker_handle(ix, worker::Event::Checkpoint { id, saved })
    }
}
