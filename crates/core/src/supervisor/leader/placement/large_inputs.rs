//! Large inputs of a task: they favour workers that hold them or have fast links.

use crate::supervisor::durable::learned::Learned;
use crate::supervisor::leader::{Leader, WorkerIx};
use hedge_model::msg::Body;
use hedge_model::spec::Group;
use hedge_model::{Data, FileEntry, Hash};

/// Inputs of at least this size influence the choice: smaller ones arrive at once nearly everywhere.
const LARGE_BYTES: u64 = 4 << 20;
/// Largest blobs of the inputs for which holders are looked up.
const PIECES_MAX: usize = 64;
/// Assumed rate of a link that was not measured, in bytes per second: a usual local network.
const RATE_UNKNOWN: f64 = 1e9 / 8.0;

/// The large inputs of a task, and its expected time in seconds at standard speed.
pub(crate) struct LargeInputs {
    pieces: Vec<(Hash, u64)>,
    work_s: f64,
}

impl LargeInputs {
    /// Returns what a task reads, including its `own` files, if that is large.
    pub fn of(body: &Body, own: &[FileEntry], group: &Group, learned: &Learned) -> Option<Self> {
        let files = body.inputs.iter().chain(own);
        let data = files.map(|file| &file.data).chain(&body.stdin);
        // Called for each attempt, and most tasks read little.
        if data.clone().map(Data::size).fold(0, u64::saturating_add) < LARGE_BYTES {
            return None;
        }
        let mut pieces: Vec<(Hash, u64)> = data
            .filter_map(|data| match data {
                Data::Blob { hash, size } => Some((*hash, *size)),
                Data::Inline(_) => None,
            })
            .collect();
        pieces.sort_unstable_by_key(|(hash, size)| (std::cmp::Reverse(*size), *hash));
        pieces.truncate(PIECES_MAX);
        let bytes = pieces
            .iter()
            .fold(0_u64, |sum, (_, size)| sum.saturating_add(*size));
        (bytes >= LARGE_BYTES).then(|| Self {
            pieces,
            work_s: learned.expect(group).work_s,
        })
    }

    /// Returns the seconds until a worker has fetched what it lacks and completed the task.
    pub fn until_done(&self, leader: &Leader, ix: WorkerIx) -> f64 {
        let worker = &leader.pool[ix];
        let lacks = |(hash, _): &&(Hash, u64)| !leader.blobs.holds(ix, *hash);
        let bytes: f64 = self
            .pieces
            .iter()
            .filter(lacks)
            .map(|(_, size)| *size as f64)
            .sum();
        let rate = worker
            .link()
            .down()
            .map_or(RATE_UNKNOWN, |rate| rate as f64);
        bytes / rate.max(1.0) + self.work_s / worker.speed().max(1e-3)
    }
}
