//! Journal records: the only things that change the durable state.

use crate::capacity::{BenchScores, Class};
use crate::ledger::{Charge, Stopped};
use crate::msg::{Log, Role, Usage};
use crate::spec::Extension;
use crate::{
    AttemptId, Checkpoint, Ending, Epoch, FileEntry, Hash, JobId, JobSpec, PeerId, SubmitKey,
    TaskId, Time,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A change of the durable state. Records are applied in log order, and the first one wins: a late record changes
/// nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A leader begins its epoch.
    Epoch {
        /// The epoch, one more than the last.
        epoch: Epoch,
        /// When it began.
        at: Time,
        /// Random bytes. Those of the first committed epoch become the secret with which the supervisors seal
        /// assignments.
        secret: [u8; 32],
    },
    /// Peers may join with a secret that has this hash. If the ticket is known, it is replaced.
    TicketMade(Ticket),
    /// A peer joined the grid.
    MemberJoined {
        /// The peer.
        peer: PeerId,
        /// Its role.
        role: Role,
        /// The hash of its ticket's secret.
        ticket: Hash,
        /// When it joined.
        at: Time,
    },
    /// A job is accepted. It gets the next job id.
    JobAccepted {
        /// The submission key.
        key: SubmitKey,
        /// The client.
        client: PeerId,
        /// The job; nothing that only a later format has.
        #[serde(with = "crate::spec::positional")]
        spec: Arc<JobSpec>,
        /// When it was accepted.
        at: Time,
    },
    /// A task is done.
    TaskDone {
        /// The winning attempt.
        attempt: AttemptId,
        /// Whether it was redundant.
        redundant: bool,
        /// The worker that ran it.
        worker: PeerId,
        /// Its outputs.
        outputs: Arc<[FileEntry]>,
        /// What it used.
        usage: Usage,
        /// The class of its worker, which decides what its time costs.
        class: Class,
        /// The task's other attempts, which this record stops.
        stopped: Vec<Stopped>,
        /// Its printed output.
        log: Option<Box<Log>>,
        /// When the supervisor received the report.
        at: Time,
    },
    /// An attempt ended without deciding its task.
    AttemptEnded {
        /// The attempt.
        attempt: AttemptId,
        /// Whether it was redundant.
        redundant: bool,
        /// The worker that ran it.
        worker: PeerId,
        /// How it ended.
        #[serde(with = "crate::ending::recorded")]
        end: Ending,
        /// What it used, as far as known.
        usage: Usage,
        /// Its charge, unless an earlier record stopped and charged it.
        charge: Charge,
        /// Its printed output.
        log: Option<Box<Log>>,
        /// When the supervisor learned of it.
        at: Time,
    },
    /// All holders of a needed output are gone: the task's next generation opens.
    OutputsLost {
        /// The task.
        task: TaskId,
        /// The generation whose outputs were lost.
        generation: u32,
        /// When this was decided.
        at: Time,
    },
    /// A job has ended.
    JobEnded {
        /// The job.
        job: JobId,
        /// How it ended.
        end: JobEnd,
        /// Its active attempts, which this record stops.
        stopped: Vec<Stopped>,
        /// When it ended.
        at: Time,
    },
    /// Benchmark kernels measured a worker.
    Benchmarked {
        /// The worker.
        peer: PeerId,
        /// The scores.
        scores: BenchScores,
        /// When they were reported.
        at: Time,
    },
    /// A peer's membership was revoked, for good.
    MemberRevoked {
        /// The peer.
        peer: PeerId,
        /// When it was revoked.
        at: Time,
    },
    /// A setting of the grid was changed; see [`crate::Settings`].
    Set {
        /// Its name.
        name: Arc<str>,
        /// Its value, as text.
        value: Arc<str>,
        /// When it was changed.
        at: Time,
    },
    /// An ended job is removed.
    JobForgotten {
        /// The job.
        job: JobId,
        /// When it was removed.
        at: Time,
    },
    /// From here on, records have this format.
    Format {
        /// The format.
        level: u32,
        /// When the group switched to it.
        at: Time,
    },
    /// A job is accepted, with a specification that names its fields. It gets the next job id.
    JobAcceptedNamed {
        /// The submission key.
        key: SubmitKey,
        /// The client.
        client: PeerId,
        /// The job.
        spec: Arc<JobSpec>,
        /// When it was accepted.
        at: Time,
    },
    /// A task has failed for good: its retries are used up, or no peer has its inputs.
    TaskFailed {
        /// The task.
        task: TaskId,
        /// The generation that failed.
        generation: u32,
        /// Its active attempts, which this record stops.
        stopped: Vec<Stopped>,
        /// When this was decided.
        at: Time,
    },
    /// A failed job runs again: tasks that are not done are retried.
    JobRetried {
        /// The job.
        job: JobId,
        /// When it was retried.
        at: Time,
    },
    /// Groups are added to an open job.
    GroupsAdded {
        /// The job.
        job: JobId,
        /// The key of the extension.
        key: SubmitKey,
        /// The groups, with their files.
        #[serde(with = "crate::spec::stored::named")]
        extension: Arc<Extension>,
        /// When they were added.
        at: Time,
    },
    /// The client of an open job was seen, so that the job stays open.
    ClientSeen {
        /// The job.
        job: JobId,
        /// When it was seen.
        at: Time,
    },
    /// The client released outputs of tasks of an open job: groups added later do not read them.
    OutputsReleased {
        /// The job.
        job: JobId,
        /// Ranges of task numbers: the first, and the one after the last.
        tasks: Vec<(u32, u32)>,
        /// When they were released.
        at: Time,
    },
    /// An open job was closed.
    JobClosed {
        /// The job.
        job: JobId,
        /// Why.
        by: ClosedBy,
        /// When it was closed.
        at: Time,
    },
    /// A task has a newer checkpoint, which enough supervisors hold. It replaces the previous one.
    Checkpointed {
        /// The checkpoint.
        checkpoint: Arc<Checkpoint>,
        /// The worker that made it.
        worker: PeerId,
        /// When it was made, by the leader's clock.
        made: Time,
        /// When enough supervisors held it.
        at: Time,
    },
}

/// Why an open job was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClosedBy {
    /// A client or administrator asked for it.
    Request,
    /// Its client was gone for too long.
    Timeout,
}

/// The oldest record format that this version reads.
pub const FORMAT_MIN: u32 = 1;
/// The newest record format that this version reads and writes. Format 2 adds measurements of machines. Format 3 adds
/// specifications with named fields, tasks that fail one by one, checkpoints, and jobs that are retried or open.
pub const FORMAT_MAX: u32 = 3;

/// Records could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Another version wrote the records.
    #[error(
        "the records are in format {0}; this version reads {FORMAT_MIN} to {FORMAT_MAX}: nothing was changed; \
         use a version of hedge that knows format {0}"
    )]
    Format(u32),
    /// The format does not have this record.
    #[error(
        "a record cannot be written in format {0}; nothing was changed; once all supervisors are new enough, \
         `hedge members --upgrade` lets the group use a newer one"
    )]
    TooNew(u32),
    /// The bytes are damaged.
    #[error("the records are damaged ({0}); nothing was changed")]
    Damaged(String),
}

impl Record {
    /// Returns the record of an accepted job, in the oldest format that can express the job.
    pub fn accepted(key: SubmitKey, client: PeerId, spec: Arc<JobSpec>, at: Time) -> Self {
        if spec.format() < 3 {
            return Self::JobAccepted {
                key,
                client,
                spec,
                at,
            };
        }
        Self::JobAcceptedNamed {
            key,
            client,
            spec,
            at,
        }
    }

    /// Returns the oldest format that has this record.
    pub fn format(&self) -> u32 {
        match self {
            Record::Benchmarked { .. } => 2,
            Record::JobAccepted { spec, .. } => spec.format(),
            Record::JobAcceptedNamed { .. }
            | Record::TaskFailed { .. }
            | Record::JobRetried { .. }
            | Record::GroupsAdded { .. }
            | Record::ClientSeen { .. }
            | Record::OutputsReleased { .. }
            | Record::JobClosed { .. }
            | Record::Checkpointed { .. } => 3,
            _ => 1,
        }
    }

    /// Returns the record's approximate size in bytes. To be cheap, it does not measure records that are always
    /// small.
    pub fn weight(&self) -> usize {
        const SMALL: usize = 1024;
        match self {
            Record::JobAccepted { .. }
            | Record::JobAcceptedNamed { .. }
            | Record::GroupsAdded { .. }
            | Record::OutputsReleased { .. }
            | Record::JobEnded { .. }
            | Record::AttemptEnded { .. }
            | Record::Checkpointed { .. } => {
                postcard::experimental::serialized_size(self).unwrap_or(usize::MAX)
            }
            Record::TaskDone { outputs, log, .. } if !outputs.is_empty() || log.is_some() => {
                postcard::experimental::serialized_size(self).unwrap_or(usize::MAX)
            }
            _ => SMALL,
        }
    }
}

/// Encodes records in the format `level`.
///
/// # Errors
/// This version does not write that format, or the format does not have one of the records.
pub fn encode(level: u32, records: &[Record]) -> Result<Vec<u8>, RecordError> {
    let needed = records.iter().map(Record::format).max();
    match level {
        FORMAT_MIN..=FORMAT_MAX if needed.is_none_or(|needed| needed <= level) => {
            postcard::to_stdvec(records).map_err(|error| RecordError::Damaged(error.to_string()))
        }
        FORMAT_MIN..=FORMAT_MAX => Err(RecordError::TooNew(level)),
        other => Err(RecordError::Format(other)),
    }
}

/// Decodes records of the format `level`.
///
/// # Errors
/// This version does not read that format, or the bytes are damaged.
pub fn decode(level: u32, bytes: &[u8]) -> Result<Vec<Record>, RecordError> {
    if !(FORMAT_MIN..=FORMAT_MAX).contains(&level) {
        return Err(RecordError::Format(level));
    }
    let records: Vec<Record> =
        postcard::from_bytes(bytes).map_err(|error| RecordError::Damaged(error.to_string()))?;
    if records.iter().any(|record| record.format() > level) {
        let what = format!("a record does not belong into format {level}");
        return Err(RecordError::Damaged(what));
    }
    Ok(records)
}

/// A ticket, which admits peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// BLAKE3 of the secret.
    pub hash: Hash,
    /// The role of these peers.
    pub role: Role,
    /// When it expires.
    pub expires: Option<Time>,
    /// How many more peers it admits.
    pub uses: Option<u32>,
}

impl Ticket {
    /// Returns the ticket in revoked form: with an expiry before all time.
    pub fn revoked(&self) -> Self {
        Self {
            expires: Some(Time(0)),
            uses: Some(0),
            ..self.clone()
        }
    }

    /// Returns whether it was revoked.
    pub fn is_revoked(&self) -> bool {
        self.expires == Some(Time(0))
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobEnd {
    /// Enough of its tasks are done, and the supervisors hold its results.
    Done,
    /// It failed.
    Failed {
        /// The task that caused it, if one did.
        task: Option<TaskId>,
        /// Why, as a sentence.
        why: String,
    },
    /// Somebody cancelled it.
    Cancelled,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{CriticalRule, Draft, Group, Qos};

    #[test]
    fn a_job_is_written_in_the_layout_of_its_record() {
        let draft = Draft {
            name: "t".into(),
            qos: Qos::default(),
            critical: CriticalRule::default(),
            files: Vec::new(),
            groups: vec![Group::program("a", &["true"])],
            outline: false,
        };
        let spec = Arc::new(JobSpec::new(draft).unwrap());
        let (key, client, at) = (SubmitKey([1; 16]), PeerId([2; 32]), Time(3));
        let plain = Record::accepted(key, client, spec.clone(), at);
        assert!(matches!(plain, Record::JobAccepted { .. }));
        let named = Record::JobAcceptedNamed {
            key,
            client,
            spec,
            at,
        };
        for level in FORMAT_MIN..=FORMAT_MAX {
            let bytes = encode(level, std::slice::from_ref(&plain)).unwrap();
            assert_eq!(decode(level, &bytes).unwrap(), std::slice::from_ref(&plain));
        }
        let new = std::slice::from_ref(&named);
        assert_eq!(encode(2, new), Err(RecordError::TooNew(2)));
        let bytes = encode(3, new).unwrap();
        assert_eq!(decode(3, &bytes).unwrap(), new);
        assert!(matches!(decode(2, &bytes), Err(RecordError::Damaged(_))));
    }

    #[test]
    fn a_format_has_its_own_records_and_those_of_older_ones() {
        let (peer, at) = (PeerId([1; 32]), Time(5));
        let old = [Record::MemberRevoked { peer, at }];
        let scores = crate::capacity::BenchScores::default();
        let new = [Record::Benchmarked { peer, scores, at }];
        for level in FORMAT_MIN..=FORMAT_MAX {
            let bytes = encode(level, &old).unwrap();
            assert_eq!(decode(level, &bytes).unwrap(), old);
        }
        assert_eq!(encode(1, &new), Err(RecordError::TooNew(1)));
        let bytes = encode(2, &new).unwrap();
        assert_eq!(decode(2, &bytes).unwrap(), new);
        assert!(matches!(decode(1, &bytes), Err(RecordError::Damaged(_))));
        assert_eq!(
            decode(FORMAT_MAX + 1, &bytes),
            Err(RecordError::Format(FORMAT_MAX + 1))
        );
    }
}
