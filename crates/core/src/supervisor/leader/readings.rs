//! Readings of what running attempts print: a client asks the leader, which asks the attempt's worker.

use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{Leadership, WorkerIx};
use crate::supervisor::{answer, send};
use hedge_model::msg::{
    Offsets, Pieces, PrintedPart, PrintedView, ReadPrinted, RefusalKind, Reply, ToWorker,
};
use hedge_model::{AttemptId, PeerId, Time};
use std::collections::BTreeMap;
use std::time::Duration;

/// Maximum number of open readings: with two full pieces each, the answers are 128 MiB.
const OPEN_MAX: usize = 1024;
/// Maximum number of open readings of one client, so that others can read too.
const OPEN_OF_CLIENT_MAX: usize = 128;
/// How long a worker may take to answer before the client is told that it does not: as long as a live worker may need
/// under load.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

/// The open readings, by number.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    last: u64,
    open: BTreeMap<u64, Reading>,
}

/// What one client wants to read of one attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub client: PeerId,
    /// The id of the client's request.
    pub request_id: u64,
    pub attempt: AttemptId,
    pub worker: WorkerIx,
    pub from: Offsets,
    /// When the client is told that the worker does not answer.
    by: Time,
}

impl Reading {
    pub fn new(
        client: PeerId,
        request_id: u64,
        attempt: AttemptId,
        worker: WorkerIx,
        from: Offsets,
    ) -> Self {
        Self {
            client,
            request_id,
            attempt,
            worker,
            from,
            by: Time(0),
        }
    }

    /// Returns whether a worker's answer belongs to this reading.
    fn is_answered_by(&self, ix: WorkerIx, part: &PrintedPart) -> bool {
        let fit = |pieces: &Pieces| {
            pieces.stdout.answers(self.from.stdout) && pieces.stderr.answers(self.from.stderr)
        };
        self.worker == ix
            && (self.attempt, self.from) == (part.read.attempt, part.read.from)
            && part.pieces.as_deref().is_none_or(fit)
    }
}

impl Readings {
    /// Removes and returns the readings that `is` selects.
    fn extract(&mut self, is: impl Fn(&Reading) -> bool) -> Vec<Reading> {
        let gone = self.open.extract_if(.., |_, reading| is(reading));
        gone.map(|(_, reading)| reading).collect()
    }

    /// Removes and returns all readings.
    pub fn take(&mut self) -> Vec<Reading> {
        self.extract(|_| true)
    }

    /// When the first reading is late. All have the same time limit, so they are late in the order of their numbers.
    pub fn next(&self) -> Option<Time> {
        self.open.values().next().map(|reading| reading.by)
    }

    /// Checks the number and the order of the readings.
    pub fn check(&self) -> bool {
        let ordered = self.open.values().map(|reading| reading.by).is_sorted();
        ordered && self.open.len() <= OPEN_MAX
    }
}

impl Leadership<'_> {
    /// Asks a worker what an attempt has printed. The client is answered when the worker answers or is late.
    pub(crate) fn open_reading(&mut self, reading: Reading) -> Result<(), (RefusalKind, String)> {
        let readings = &mut self.leader.readings;
        let theirs = readings.open.values();
        let theirs = theirs
            .filter(|other| other.client == reading.client)
            .count();
        if readings.open.len() >= OPEN_MAX || theirs >= OPEN_OF_CLIENT_MAX {
            let why = "the output of too many tasks is read at once; nothing was read: ask again in a moment";
            return Err((RefusalKind::Busy, why.into()));
        }
        readings.last += 1;
        let number = readings.last;
        let by = self.now + ANSWERED_WITHIN;
        readings.open.insert(number, Reading { by, ..reading });
        let order = ReadPrinted {
            reading: number,
            attempt: reading.attempt,
            from: reading.from,
        };
        let worker = self.leader.pool[reading.worker].peer();
        send(worker, ToWorker::ReadPrinted(order), self.out);
        self.time_readings();
        Ok(())
    }

    /// Handles a worker's answer about what an attempt has printed.
    pub(crate) fn on_printed(&mut self, ix: WorkerIx, part: PrintedPart) {
        let open = &mut self.leader.readings.open;
        let known = open.get(&part.read.reading).copied();
        let Some(reading) = known.filter(|reading| reading.is_answered_by(ix, &part)) else {
            return;
        };
        open.remove(&part.read.reading);
        let worker = self.leader.pool[ix].peer();
        let place = self.view().name(worker);
        let view = match part.pieces {
            Some(pieces) => PrintedView::Part {
                attempt: reading.attempt,
                worker,
                place,
                pieces,
            },
            None => not_now(match self.leader.tasks.attempt(reading.attempt) {
                Some(_) => format!("its program does not run at worker {place} now"),
                None => "its end is being recorded".to_owned(),
            }),
        };
        answer(
            reading.client,
            reading.request_id,
            Reply::Printed(view),
            self.out,
        );
        self.time_readings();
    }

    /// Tells clients whose readings are overdue that the worker does not answer.
    pub(crate) fn expire_readings(&mut self) {
        let now = self.now;
        let late = self.leader.readings.extract(|reading| reading.by <= now);
        self.not_answered(&late);
    }

    /// Ends the readings of a worker that has disconnected.
    pub(crate) fn end_readings_of_worker(&mut self, ix: WorkerIx) {
        let its = self.leader.readings.extract(|reading| reading.worker == ix);
        self.not_answered(&its);
    }

    /// Drops the readings of a client that has disconnected.
    pub(crate) fn forget_readings_of(&mut self, client: PeerId) {
        self.leader
            .readings
            .extract(|reading| reading.client == client);
        self.time_readings();
    }

    /// Drops the readings whose requests were abandoned.
    pub(crate) fn forget_readings(&mut self, request_ids: &[u64]) {
        self.leader
            .readings
            .extract(|reading| request_ids.contains(&reading.request_id));
        self.time_readings();
    }

    fn not_answered(&mut self, readings: &[Reading]) {
        for reading in readings {
            let worker = self.view().name(self.leader.pool[reading.worker].peer());
            let view = not_now(format!("worker {worker} does not answer"));
            answer(
                reading.client,
                reading.request_id,
                Reply::Printed(view),
                self.out,
            );
        }
        self.time_readings();
    }

    fn time_readings(&mut self) {
        match self.leader.readings.next() {
            Some(by) => self.leader.timers.set(by, Timer::Readings),
            None => self.leader.timers.clear(Timer::Readings),
        }
    }
}

fn not_now(why: String) -> PrintedView {
    PrintedView::Nothing { why, last: false }
}
