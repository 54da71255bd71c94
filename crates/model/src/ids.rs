//! Ids of peers, jobs, tasks, attempts, checkpoints and content.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $short:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Returns the first hexadecimal digits, for tables and logs.
            pub fn short(&self) -> String {
                self.to_string()[..$short].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                let mut text = [0; 2 * $len];
                for (byte, digits) in self.0.iter().zip(text.chunks_exact_mut(2)) {
                    digits[0] = DIGITS[usize::from(byte >> 4)];
                    digits[1] = DIGITS[usize::from(byte & 15)];
                }
                f.write_str(std::str::from_utf8(&text).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(s: &str) -> Result<Self, ParseIdError> {
                let digits = s.as_bytes();
                if digits.len() != 2 * $len {
                    return Err(ParseIdError);
                }
                let mut id = [0; $len];
                for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
                    let pair = std::str::from_utf8(pair).map_err(|_| ParseIdError)?;
                    *byte = u8::from_str_radix(pair, 16).map_err(|_| ParseIdError)?;
                }
                Ok(Self(id))
            }
        }
    };
}

hex_id! {
    /// A peer's identity: its ed25519 public key.
    PeerId, 32, 10
}

hex_id! {
    /// The BLAKE3 hash of some content, which identifies it.
    Hash, 32, 10
}

hex_id! {
    /// A random key that a client chooses for a submission, so that a repeated submission has no further effect.
    SubmitKey, 16, 10
}

/// A text is not the hexadecimal form of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id: wrong length or not hexadecimal; nothing was changed")]
pub struct ParseIdError;

/// A job's number in its grid, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl JobId {
    /// Returns all tasks that the job may have, as a range for ordered maps.
    pub fn tasks(self) -> std::ops::RangeInclusive<TaskId> {
        let task = |number| TaskId { job: self, number };
        task(0)..=task(u32::MAX)
    }
}

/// The term of one leader. It increases at every failover and every restart.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

/// Identifies a task of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The job the task belongs to.
    pub job: JobId,
    /// Its number in the job, from 0. It counts through the tasks of the job file with arrays unfolded.
    pub number: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.number)
    }
}

/// Identifies an attempt: one execution of one task on one worker.
///
/// The epoch excludes orders of a leader that was frozen and resumes. The generation excludes results of earlier
/// executions of a task that must run again because its committed output was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// The executed task.
    pub task: TaskId,
    /// Increases when a committed output of the task is lost.
    pub generation: u32,
    /// The epoch of the leader that assigned the attempt.
    pub epoch: Epoch,
    /// Counts the attempts of this task within the epoch, from 1.
    pub number: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}.{}.{}",
            self.task, self.generation, self.epoch.0, self.number
        )
    }
}

/// Identifies a checkpoint of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CheckpointId {
    /// The attempt that made it.
    pub attempt: AttemptId,
    /// Counts the attempt's checkpoints, from 1.
    pub number: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_their_text_form() {
        let id = Hash([0xa5; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("a5".parse::<Hash>(), Err(ParseIdError));
        assert_eq!("ä".repeat(32).parse::<Hash>(), Err(ParseIdError));
    }
}
