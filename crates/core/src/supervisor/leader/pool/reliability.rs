//! How a worker has done so far, and whether it is given nothing for a while.

use hedge_model::Time;

/// A worker that failed this many tasks that others could do is excluded.
const OUTDONE_MAX: u32 = 3;

/// What became of a worker's attempts, and its exclusion.
#[derive(Debug, Default)]
pub(crate) struct Reliability {
    exclusion: Option<Exclusion>,
    /// Times that it failed a task that another could do, since it last did one itself.
    outdone: u32,
    /// Exclusions for that.
    times_outdone: u32,
    /// Exclusions for faults of its own or its machine's, since it last did a task.
    faults: u32,
    done: u64,
    failed: u64,
    lost: u64,
}

/// A worker that is given nothing for a while.
#[derive(Debug)]
pub(crate) struct Exclusion {
    why: String,
    until: Time,
}

impl Exclusion {
    /// What it did, as a clause without a subject.
    pub fn why(&self) -> &str {
        &self.why
    }

    pub fn until(&self) -> Time {
        self.until
    }
}

impl Reliability {
    /// Whether it is excluded now, and why.
    pub fn exclusion(&self) -> Option<&Exclusion> {
        self.exclusion.as_ref()
    }

    /// Tasks that it did.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Attempts that failed there by their tasks' fault.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Attempts that were lost with it.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// It did a task: what it failed before does not count any more.
    pub fn note_done(&mut self) {
        self.done += 1;
        (self.outdone, self.faults) = (0, 0);
    }

    pub fn note_failed(&mut self) {
        self.failed += 1;
    }

    pub fn note_lost(&mut self) {
        self.lost += 1;
    }

    /// It or its machine failed a task; gives the number of such faults, unless it is excluded already: what else fails
    /// for the same reason does not make that longer.
    pub fn note_fault(&mut self) -> Option<u32> {
        if self.exclusion.is_some() {
            return None;
        }
        self.faults = self.faults.saturating_add(1);
        Some(self.faults)
    }

    /// Another did a task that it failed. Where that happened too often, and `others` can take its place, it is to be
    /// excluded: gives how many tasks it failed, and how often it was excluded for that before.
    pub fn note_outdone(&mut self, others: bool) -> Option<(u32, u32)> {
        self.outdone += 1;
        if self.outdone < OUTDONE_MAX || self.exclusion.is_some() || !others {
            return None;
        }
        let tasks = std::mem::take(&mut self.outdone);
        let before = self.times_outdone;
        self.times_outdone += 1;
        Some((tasks, before))
    }

    /// It is given nothing until then.
    pub fn exclude(&mut self, why: String, until: Time) {
        self.exclusion = Some(Exclusion { why, until });
    }

    /// It gets another chance.
    pub fn readmit(&mut self) {
        self.exclusion = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_outdone_by_several_tasks_in_a_row() {
        let mut worker = Reliability::default();
        assert_eq!(worker.note_outdone(true), None);
        worker.note_outdone(true);
        worker.note_done();
        assert_eq!([true, true].map(|it| worker.note_outdone(it)), [None, None]);
        assert_eq!(worker.note_outdone(false), None, "nobody else is there");
        assert_eq!(worker.note_outdone(true), Some((4, 0)));
        worker.exclude("failed".into(), Time(5));
        assert_eq!(worker.note_fault(), None);
        assert_eq!([true; 4].map(|it| worker.note_outdone(it)), [None; 4]);
        worker.readmit();
        assert_eq!(worker.note_outdone(true), Some((5, 1)));
        assert_eq!(
            (worker.note_fault(), worker.note_fault()),
            (Some(1), Some(2))
        );
    }
}
