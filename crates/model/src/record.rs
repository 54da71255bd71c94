//! Journal records: the only things that change what is durable.

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

/// One change of the durable state. Applied in log order, first wins: a late record changes nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A core goes live.
    Epoch {
        /// Its epoch, one more than the last.
        epoch: Epoch,
        /// When.
        at: Time,
        /// Drawn at random; the first that is ever committed is the secret that the supervisors share, with
        /// which they seal what they assign.
        secret: [u8; 32],
    },
    /// Peers may join with a secret of this hash; where the ticket is known, it changes.
    TicketMade(Ticket),
    /// A peer joined the grid.
    MemberJoined {
        /// Who.
        peer: PeerId,
        /// As what.
        role: Role,
        /// With which ticket, by the hash of its secret.
        ticket: Hash,
        /// When.
        at: Time,
    },
    /// A job is accepted; its number is the next one.
    JobAccepted {
        /// The submission.
        key: SubmitKey,
        /// Whose.
        client: PeerId,
        /// What; nothing that only a later format has.
        #[serde(with = "crate::spec::positional")]
        spec: Arc<JobSpec>,
        /// When.
        at: Time,
    },
    /// A task is done.
    TaskDone {
        /// The winner.
        attempt: AttemptId,
        /// Whether it was a redundant one.
        redundant: bool,
        /// Where it ran.
        worker: PeerId,
        /// What it left.
        outputs: Arc<[FileEntry]>,
        /// What it took.
        usage: Usage,
        /// The class of its worker, which decides what its time costs.
        class: Class,
        /// Its siblings, which are stopped by this.
        stopped: Vec<Stopped>,
        /// What it printed.
        log: Option<Box<Log>>,
        /// When the supervisor heard of it.
        at: Time,
    },
    /// An attempt ended without deciding its task.
    AttemptEnded {
        /// Which.
        attempt: AttemptId,
        /// Whether it was a redundant one.
        redundant: bool,
        /// Where it ran.
        worker: PeerId,
        /// How.
        #[serde(with = "crate::ending::recorded")]
        end: Ending,
        /// What it took, as far as known.
        usage: Usage,
        /// What it is charged for, unless an earlier record stopped it.
        charge: Charge,
        /// What it printed.
        log: Option<Box<Log>>,
        /// When.
        at: Time,
    },
    /// All holders of a needed output are gone: the task's next generation opens.
    OutputsLost {
        /// Which.
        task: TaskId,
        /// The generation whose outputs were lost.
        generation: u32,
        /// When.
        at: Time,
    },
    /// A job is over.
    JobEnded {
        /// Which.
        job: JobId,
        /// How.
        end: JobEnd,
        /// Attempts that are stopped by this.
        stopped: Vec<Stopped>,
        /// When.
        at: Time,
    },
    /// What benchmark tasks found on a worker.
    Benchmarked {
        /// Which.
        peer: PeerId,
        /// What.
        scores: BenchScores,
        /// When.
        at: Time,
    },
    /// A peer is a member no more, and never again.
    MemberRevoked {
        /// Who.
        peer: PeerId,
        /// When.
        at: Time,
    },
    /// A setting of the grid is changed; see [`crate::Settings`].
    Set {
        /// Its name.
        name: Arc<str>,
        /// Its value, as text.
        value: Arc<str>,
        /// When.
        at: Time,
    },
    /// An ended job is dropped.
    JobForgotten {
        /// Which.
        job: JobId,
        /// When.
        at: Time,
    },
    /// From here on records are written in this format.
    Format {
        /// Its level.
        level: u32,
        /// When.
        at: Time,
    },
    /// A job is accepted whose specification names its fields; its number is the next one.
    JobAcceptedNamed {
        /// The submission.
        key: SubmitKey,
        /// Whose.
        client: PeerId,
        /// What.
        spec: Arc<JobSpec>,
        /// When.
        at: Time,
    },
    /// A task is given up: its retries are used up, or nobody has its inputs.
    TaskFailed {
        /// Which.
        task: TaskId,
        /// The generation that failed.
        generation: u32,
        /// Its other attempts, which are stopped by this.
        stopped: Vec<Stopped>,
        /// When.
        at: Time,
    },
    /// A job that failed goes on: what is not done is tried again.
    JobRetried {
        /// Which.
        job: JobId,
        /// When.
        at: Time,
    },
    /// Groups are added to an open job.
    GroupsAdded {
        /// Which.
        job: JobId,
        /// The extension.
        key: SubmitKey,
        /// What.
        #[serde(with = "crate::spec::stored::named")]
        extension: Arc<Extension>,
        /// When.
        at: Time,
    },
    /// The client of an open job was there: the job stays open.
    ClientSeen {
        /// Which.
        job: JobId,
        /// When.
        at: Time,
    },
    /// What tasks of an open job leave is kept for nobody who may come.
    OutputsReleased {
        /// Which.
        job: JobId,
        /// Numbers of the tasks: the first of a range, and the one behind its last.
        tasks: Vec<(u32, u32)>,
        /// When.
        at: Time,
    },
    /// Nothing more is added to an open job.
    JobClosed {
        /// Which.
        job: JobId,
        /// Why.
        by: ClosedBy,
        /// When.
        at: Time,
    },
    /// A task has a newer checkpoint, which as many supervisors hold as are to. It replaces the one before.
    Checkpointed {
        /// What.
        checkpoint: Arc<Checkpoint>,
        /// Where it was made.
        worker: PeerId,
        /// When it was made, by the leader's clock.
        made: Time,
        /// When.
        at: Time,
    },
}

/// Why a job is open no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClosedBy {
    /// Somebody asked for it.
    Request,
    /// Its client was gone for too long.
    Timeout,
}

/// The oldest format of records that is read here.
pub const FORMAT_MIN: u32 = 1;
/// The newest format of records that is read and written here. In the second, measurements of machines are
/// records too. In the third, specifications name their fields, tasks fail one by one and have checkpoints, and jobs are
/// retried or open.
pub const FORMAT_MAX: u32 = 3;

/// Records that could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Another version wrote them.
    #[error(
        "the records are in format {0}; this version reads {FORMAT_MIN} to {FORMAT_MAX}: nothing was changed; \
         use a version of hedge that knows format {0}"
    )]
    Format(u32),
    /// A record that this format has not.
    #[error(
        "a record cannot be written in format {0}; nothing was changed; once all supervisors are new enough, \
         `hedge members --upgrade` lets the group use a newer one"
    )]
    TooNew(u32),
    /// They are not what they are said to be.
    #[error("the records are damaged ({0}); nothing was changed")]
    Damaged(String),
}

impl Record {
    /// A job is accepted; in the oldest format that has all that it asks for.
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

    /// The oldest format that has this record.
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

    /// About how many bytes the record takes, cheaply: those that are always small are not measured.
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

/// The bytes of some records, in the format `level`.
///
/// # Errors
/// The level is none that is written here.
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

/// The records in `bytes`, of the format `level`.
///
/// # Errors
/// The level is none that is read here, or the bytes are damaged.
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

/// What lets peers in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// BLAKE3 of the secret.
    pub hash: Hash,
    /// What the peers become.
    pub role: Role,
    /// Until when.
    pub expires: Option<Time>,
    /// How many more peers.
    pub uses: Option<u32>,
}

impl Ticket {
    /// The ticket as it is once it was revoked: it ended before all time.
    pub fn revoked(&self) -> Self {
        Self {
            expires: Some(Time(0)),
            uses: Some(0),
            ..self.clone()
        }
    }

    /// Whether it was revoked.
    pub fn is_revoked(&self) -> bool {
        self.expires == Some(Time(0))
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobEnd {
    /// All its tasks are done and the results are held.
    Done,
    /// A sentence, and the task that caused it.
    Failed {
        /// The task.
        task: Option<TaskId>,
        /// Why.
        why: String,
    },
    /// By its client.
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
