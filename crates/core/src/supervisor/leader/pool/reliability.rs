//! A worker's failure score, and its exclusion.

use hedge_model::Time;

/// A worker is excluded after it failed this many tasks that other workers completed.
const OUTDONE_MAX: u32 = 3;

/// Counts what became of a worker's attempts, and holds its exclusion.
#[derive(Debug, Default)]
pub(crate) struct Reliability {
    exclusion: Option<Exclusion>,
    /// Tasks it failed that another worker completed, since it last completed one itself.
    outdone: u32,
    /// Exclusions for that.
    times_outdone: u32,
    /// Faults of the worker or its machine, since it last completed a task.
    faults: u32,
    done: u64,
    failed: u64,
    lost: u64,
}

/// Why and until when a worker gets no attempts.
#[derive(Debug)]
pub(crate) struct Exclusion {
    why: String,
    until: Time,
}

impl Exclusion {
    /// The reason, as a clause without a subject.
    pub fn why(&self) -> &str {
        &self.why
    }

    pub fn until(&self) -> Time {
        self.until
    }
}

impl Reliability {
    /// Its current exclusion.
    pub fn exclusion(&self) -> Option<&Exclusion> {
        self.exclusion.as_ref()
    }

    /// Tasks that it completed.
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

    /// Records that it completed a task; its failure scores return to 0.
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

    /// Counts a fault of the worker or its machine. Returns the number of such faults, or none if it is excluded
    /// already: further failures with the same cause do not prolong the exclusion.
    pub fn note_fault(&mut self) -> Option<u32> {
        if self.exclusion.is_some() {
            return None;
        }
        self.faults = self.faults.saturating_add(1);
        Some(self.faults)
    }

    /// Counts a task it failed that another worker completed. If there are too many, and `others` can replace it, the
    /// worker must be excluded: returns how many tasks it failed and how often it was excluded for that before.
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

    /// Excludes the worker until `until`.
    pub fn exclude(&mut self, why: String, until: Time) {
        self.exclusion = Some(Exclusion { why, until });
    }

    /// Ends the exclusion.
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
