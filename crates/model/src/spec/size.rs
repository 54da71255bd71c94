//! Bounds on the size of a submission. They do not apply when a journal is read, because it may hold a larger job of
//! an older version.

use super::addition::Addition;
use super::placeholders::{Piece, pieces};
use super::stored::encoded;
use super::validate::{Checked, Place, SpecError, job, wrong};
use super::{Draft, Group, Input, JobSpec};
use crate::msg::{MESSAGE_BYTES_MAX, grant_bytes};
use crate::units::show_bytes;
use crate::{Data, FileEntry, Hash};
use std::sync::Arc;

/// The longest encoded specification in bytes. It is one journal record, which every supervisor writes to disk and
/// keeps in memory while the job runs.
pub const SPEC_BYTES_MAX: usize = 64 << 20;
/// The longest argument or environment variable of a program, in bytes. Linux allows 128 KiB, including the NUL at
/// the end.
pub const WORD_BYTES_MAX: usize = (128 << 10) - 1;
/// The longest command and environment together, in bytes. Linux allows at most 6 MiB, and usually 2 MiB.
pub const COMMAND_BYTES_MAX: usize = 6 << 20;

impl JobSpec {
    /// Checks a draft for submission, including its size.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn for_submission(draft: Draft) -> Result<Self, SpecError> {
        let spec = Self::new(draft)?;
        spec.check_size()?;
        Ok(spec)
    }

    /// Checks that the job is small enough to be submitted: programs get no more than Linux allows, each group's body
    /// and assignment fit into one message, and the job fits into one record.
    ///
    /// # Errors
    /// What is too large, and where.
    pub fn check_size(&self) -> Result<(), SpecError> {
        let bytes = self.encoded_bytes();
        if bytes > SPEC_BYTES_MAX {
            return wrong(
                job("task"),
                format!(
                    "the job's description takes {}, at most {} are taken",
                    show_bytes(bytes as u64),
                    show_bytes(SPEC_BYTES_MAX as u64)
                ),
                "split the job, use arrays for tasks that differ by an index only, and put long texts into files",
            );
        }
        check(&Addition::all_of(self))
    }
}

/// Checks for each group that programs get no more than Linux allows, and that its body and assignments fit into one
/// message.
pub(super) fn check(addition: &Addition<'_>) -> Checked<()> {
    for (at, group) in addition.groups.iter().enumerate() {
        if group.runtime.runs_command() {
            check_command(at, group)?;
        }
        check_order(addition.files, at, group)?;
    }
    Ok(())
}

/// Checks the length of what a worker is sent for the group's first task, with grants for its files and blobs.
fn check_order(files: &[FileEntry], at: usize, group: &Group) -> Checked<()> {
    // A worker is sent the names of the parameters with the body, and each task's own values with its assignment.
    let parameters = group.longest_values();
    let mut bytes = encoded(group).saturating_sub(encoded(&group.axes));
    bytes = bytes.saturating_add(encoded(&parameters));
    bytes = parameters
        .iter()
        .fold(bytes, |all, (_, longest)| all.saturating_add(*longest));
    let mut blobs: Vec<Hash> = group.stdin.iter().filter_map(Data::hash).collect();
    for input in &group.inputs {
        let listed: &[FileEntry] = match input {
            Input::File(first) => &files[*first as usize..][..1],
            Input::FileEach(first) => {
                let each = &files[*first as usize..][..group.count() as usize];
                blobs.extend(each.iter().filter_map(|file| file.data.hash()));
                let longest = each.iter().map(encoded).max().unwrap_or(0);
                bytes = bytes.saturating_add(longest);
                continue;
            }
            Input::Task(_) | Input::TaskEach(_) => continue,
        };
        blobs.extend(listed.iter().filter_map(|file| file.data.hash()));
        bytes = bytes.saturating_add(listed.iter().map(encoded).sum());
    }
    for mount in group.mounts.iter() {
        let listed = mount.files(files);
        blobs.extend(listed.iter().filter_map(|file| file.data.hash()));
        bytes = bytes.saturating_add(listed.iter().map(encoded).sum());
    }
    blobs.sort_unstable();
    blobs.dedup();
    bytes = bytes.saturating_add(grant_bytes(blobs.len()));
    if bytes > MESSAGE_BYTES_MAX {
        return wrong(
            Place {
                group: Some(at),
                key: "inputs",
                item: None,
            },
            format!(
                "what a worker is told of this task takes {}, with its {} input files, and at most {} fit into one \
                 message",
                show_bytes(bytes as u64),
                blobs.len(),
                show_bytes(MESSAGE_BYTES_MAX as u64)
            ),
            "pack the files into fewer, or split the task",
        );
    }
    Ok(())
}

fn check_command(at: usize, group: &Group) -> Checked<()> {
    let place = |key, item| Place {
        group: Some(at),
        key,
        item,
    };
    let most = show_bytes(WORD_BYTES_MAX as u64 + 1);
    let parameters = group.longest_values();
    let longest = |text: &Arc<str>| longest(&parameters, text);
    let words: Vec<usize> = group.command.iter().map(longest).collect();
    if let Some(item) = words.iter().position(|bytes| *bytes > WORD_BYTES_MAX) {
        return wrong(
            place("command", Some(item)),
            format!(
                "this argument is {} bytes long, and Linux gives a program at most {most}",
                words[item]
            ),
            "put the text into a file, or give it as stdin",
        );
    }
    let variable =
        |(name, value): &(Arc<str>, Arc<str>)| name.len().saturating_add(longest(value)) + 1;
    let variables: Vec<usize> = group.env.iter().map(variable).collect();
    if let Some(item) = variables.iter().position(|bytes| *bytes > WORD_BYTES_MAX) {
        return wrong(
            place("env", Some(item)),
            format!(
                "the variable {:?} is {} bytes long, and Linux gives a program at most {most}",
                shortened(&group.env[item].0),
                variables[item]
            ),
            "put the text into a file",
        );
    }
    let all = words.iter().chain(&variables).map(|bytes| bytes + 1);
    let all = all.fold(0, usize::saturating_add);
    if all > COMMAND_BYTES_MAX {
        return wrong(
            place("command", None),
            format!(
                "the command and its environment take {}, and Linux gives a program at most {}",
                show_bytes(all as u64),
                show_bytes(COMMAND_BYTES_MAX as u64)
            ),
            "put long texts into files",
        );
    }
    Ok(())
}

/// Returns the length of a text in bytes when its parameters have their longest values.
fn longest(parameters: &[(Arc<str>, usize)], text: &str) -> usize {
    if parameters.is_empty() || !text.contains("${") {
        return text.len();
    }
    let value = |name: &str| {
        let found = parameters.iter().find(|(other, _)| &**other == name);
        found.map(|(_, longest)| *longest)
    };
    let bytes = pieces(text).map(|piece| match piece {
        Piece::Text(text) | Piece::Literal { text, .. } => text.len(),
        Piece::Name { name, written } => value(name).unwrap_or(written.len()),
    });
    bytes.fold(0, usize::saturating_add)
}

fn shortened(name: &str) -> String {
    name.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{CriticalRule, Qos};

    fn mistake(change: impl FnOnce(&mut Draft)) -> Option<SpecError> {
        let mut draft = Draft {
            name: "t".into(),
            qos: Qos::default(),
            critical: CriticalRule::default(),
            files: vec![],
            groups: vec![Group::program("a", &["true"])],
            outline: false,
        };
        change(&mut draft);
        let spec = JobSpec::new(draft).expect("readable whatever its size");
        spec.check_size().err()
    }

    #[test]
    fn a_program_is_given_no_more_than_linux_takes() {
        let word = |bytes: usize| "x".repeat(bytes);
        let with = |bytes| mistake(|job| job.groups[0].command.push(word(bytes).into()));
        assert_eq!(with(WORD_BYTES_MAX), None);
        let long = with(20 << 20).unwrap();
        assert_eq!((long.place.key, long.place.item), ("command", Some(1)));
        let env = mistake(|job| job.groups[0].env.push(("A".into(), word(200_000).into())));
        assert_eq!(env.unwrap().place.key, "env");
        let many = mistake(|job| {
            let words = (0..70).map(|_| word(100_000).into());
            job.groups[0].command.extend(words);
        });
        assert_eq!(many.unwrap().place.key, "command");
    }

    #[test]
    fn what_a_worker_is_told_fits_into_one_message() {
        let files = |count: u32| {
            mistake(|job| {
                let file = |at: u32| FileEntry {
                    path: format!("file-{at}").into(),
                    executable: false,
                    data: Data::Blob {
                        hash: Hash(std::array::from_fn(|byte| at.to_le_bytes()[byte % 4])),
                        size: 1 << 20,
                    },
                };
                job.files = (0..count).map(file).collect();
                job.groups[0].array = Some((0, count));
                job.groups[0].inputs.push(Input::FileEach(0));
            })
        };
        assert_eq!(files(100_000), None);
        assert_eq!(files(520_000).unwrap().place.key, "inputs");
    }

    #[test]
    fn a_job_fits_into_one_record() {
        let groups = |count: usize| {
            mistake(|job| {
                let group = |at: usize| Group {
                    env: vec![("TEXT".into(), "x".repeat(100_000).into())],
                    ..Group::program(&format!("task-{at}"), &["true"])
                };
                job.groups = (0..count).map(group).collect();
            })
        };
        assert_eq!(groups(600), None);
        assert_eq!(groups(700).unwrap().place.key, "task");
    }
}
