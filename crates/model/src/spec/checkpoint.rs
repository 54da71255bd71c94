//! How a task makes checkpoints, so that its next attempt can continue.

use super::Group;
use super::placeholders::is_glob;
use super::validate::{Checked, Place, check_path, wrong};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// The most files of one checkpoint, because one journal record lists them all.
pub const CHECKPOINT_FILES_MAX: usize = 16;
/// The shortest time between two checkpoints of an attempt, because each is a journal record.
pub const CHECKPOINT_EVERY_MIN: Duration = Duration::from_millis(100);
/// Default time between two checkpoints.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
/// The longest grace period for a last checkpoint.
pub const CHECKPOINT_GRACE_MAX: Duration = Duration::from_secs(300);
/// Default grace period for a last checkpoint.
pub const CHECKPOINT_GRACE: Duration = Duration::from_secs(10);
/// Default limit for the total size of a checkpoint's files, in bytes.
pub const CHECKPOINT_BYTES: u64 = 1 << 30;

/// Which files of a task form its checkpoint, and how often they are saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointRule {
    /// Files in the scratch directory. Each task has its own directory, so the names need no placeholders.
    pub files: Vec<Arc<str>>,
    /// The shortest time between two checkpoints of an attempt.
    pub every: Duration,
    /// How long a vacated attempt gets to write a last checkpoint.
    pub grace: Duration,
    /// The largest total size of the files, in bytes.
    pub bytes_max: u64,
}

impl CheckpointRule {
    /// Returns a rule for these files with every default.
    pub fn of(files: &[&str]) -> Self {
        Self {
            files: files.iter().map(|file| Arc::from(*file)).collect(),
            every: CHECKPOINT_EVERY,
            grace: CHECKPOINT_GRACE,
            bytes_max: CHECKPOINT_BYTES,
        }
    }
}

/// Checks a group's checkpoint rule, if it has one.
pub(super) fn check_checkpoint(at: usize, group: &Group) -> Checked<()> {
    let Some(rule) = group.checkpoint.as_deref() else {
        return Ok(());
    };
    let place = Place {
        group: Some(at),
        key: "checkpoint",
        item: None,
    };
    if rule.files.is_empty() || rule.files.len() > CHECKPOINT_FILES_MAX {
        return wrong(
            place,
            format!("the checkpoint has {} files", rule.files.len()),
            format!("name 1 to {CHECKPOINT_FILES_MAX} files"),
        );
    }
    for (item, file) in rule.files.iter().enumerate() {
        if let Err(why) = check_path(file) {
            return wrong(
                place,
                format!("the checkpoint's file {file:?} {why}"),
                "name a file within the task's folder, like \"state.ckpt\"",
            );
        }
        if is_glob(file) {
            return wrong(
                place,
                format!("the checkpoint's file {file:?} is a pattern, or has a placeholder"),
                "write the file's whole name: each task has a folder of its own",
            );
        }
        if rule.files[..item].contains(file) {
            return wrong(
                place,
                format!("the checkpoint's file {file:?} is named twice"),
                "name each file once",
            );
        }
    }
    if rule.every < CHECKPOINT_EVERY_MIN {
        return wrong(
            place,
            format!("checkpoints every {:?} are too many", rule.every),
            format!("write at least every = \"{CHECKPOINT_EVERY_MIN:?}\""),
        );
    }
    if rule.grace > CHECKPOINT_GRACE_MAX {
        return wrong(
            place,
            format!("a grace period of {:?} is too long", rule.grace),
            format!("write at most grace = \"{CHECKPOINT_GRACE_MAX:?}\""),
        );
    }
    if rule.bytes_max == 0 {
        return wrong(
            place,
            "a checkpoint of 0 bytes holds nothing",
            "write the most that its files take, like size_limit = \"1 GiB\"",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{CriticalRule, Draft, JobSpec, Qos};

    #[test]
    fn a_checkpoint_has_bounds_and_lies_in_the_folder() {
        let mistake = |change: fn(&mut CheckpointRule)| {
            let mut rule = CheckpointRule::of(&["state.ckpt"]);
            change(&mut rule);
            let group = Group {
                checkpoint: Some(rule.into()),
                ..Group::program("a", &["true"])
            };
            JobSpec::new(Draft {
                name: "t".into(),
                qos: Qos::default(),
                critical: CriticalRule::default(),
                files: vec![],
                groups: vec![group],
                outline: false,
            })
        };
        let sound = mistake(|_| {}).unwrap();
        assert_eq!(sound.format(), 3, "an earlier version would not save it");
        assert_eq!(JobSpec::decode(&sound.encode().unwrap()), Ok(sound));
        let wrong: [fn(&mut CheckpointRule); 9] = [
            |rule| rule.files.clear(),
            |rule| rule.files = vec!["../state".into()],
            |rule| rule.files = vec!["/state".into()],
            |rule| rule.files = vec!["*.ckpt".into()],
            |rule| rule.files.push("state.ckpt".into()),
            |rule| rule.files = (0..17).map(|at| format!("s{at}").into()).collect(),
            |rule| rule.every = Duration::from_millis(99),
            |rule| rule.grace = Duration::from_secs(301),
            |rule| rule.bytes_max = 0,
        ];
        for (at, change) in wrong.into_iter().enumerate() {
            let refused = mistake(change).unwrap_err();
            assert_eq!(refused.place.key, "checkpoint", "mistake {at}: {refused}");
        }
    }
}
