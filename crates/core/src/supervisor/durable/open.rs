//! Open jobs: adding groups, releasing outputs, and closing.

use crate::supervisor::durable::bounded;
use crate::supervisor::durable::change::{Added, Change, Stale};
use crate::supervisor::durable::job::{Done, Job, Task};
use crate::supervisor::durable::state::State;
use hedge_model::msg::{Extended, RefusalKind, SharedExtension};
use hedge_model::record::{ClosedBy, Record};
use hedge_model::spec::{Extension, Group, Input, Need};
use hedge_model::{Hash, JobId, SubmitKey, Time};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Whether a job is or was open.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) enum Growth {
    /// The job has had all its tasks from the start.
    #[default]
    None,
    /// The job is open.
    Open {
        /// When its client was last seen, as far as recorded.
        seen: Time,
        extensions: Extensions,
    },
    /// The job was open and is closed, by a record (`by`) or by the end of the job (none).
    Closed {
        by: Option<ClosedBy>,
        extensions: Extensions,
    },
}

/// The extensions of a job by their keys, so that none is applied twice.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Extensions(
    #[serde(deserialize_with = "bounded::map")] OrdMap<SubmitKey, Applied>,
);

/// An extension that was applied: its first task, its number of tasks, and its digest.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Applied {
    first: u32,
    tasks: u32,
    digest: Hash,
}

/// The most tasks that are added one by one.
const FEW_TASKS: u32 = 64;
/// Memory of one extension without its groups, in bytes.
const EXTENSION_BYTES: u64 = 160;

type Refused = (RefusalKind, String);

impl Growth {
    /// The state of a job that was just accepted.
    pub fn begin(open: bool, at: Time) -> Self {
        let extensions = Extensions::default();
        match open {
            true => Self::Open {
                seen: at,
                extensions,
            },
            false => Self::None,
        }
    }

    fn extensions(&self) -> Option<&Extensions> {
        match self {
            Self::None => None,
            Self::Open { extensions, .. } | Self::Closed { extensions, .. } => Some(extensions),
        }
    }

    /// Memory of the extensions without their groups, in bytes.
    pub fn bytes(&self) -> u64 {
        let count = self.extensions().map_or(0, |added| added.0.len());
        EXTENSION_BYTES * count as u64
    }
}

/// Returns a hash that tells extensions apart, and the length of the encoded extension in bytes.
fn digest(extension: &Extension) -> (Hash, u64) {
    // An extension that cannot be encoded cannot have been decoded.
    let bytes = extension.encode().unwrap_or_default();
    (Hash(*blake3::hash(&bytes).as_bytes()), bytes.len() as u64)
}

impl Job {
    /// Returns whether groups can be added.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.growth, Growth::Open { .. })
    }

    /// Returns when the client of an open job was last seen, as far as recorded.
    pub(crate) fn client_seen(&self) -> Option<Time> {
        match self.growth {
            Growth::Open { seen, .. } => Some(seen),
            _ => None,
        }
    }

    /// Returns whether a group's outputs are results of the job. In an open job all outputs are, because groups added
    /// later may read them.
    pub(crate) fn is_result(&self, group: usize) -> bool {
        self.is_open() || self.spec.is_result(group)
    }

    /// Returns whether a task's outputs are results of the job and are not released.
    pub(crate) fn keeps(&self, number: u32) -> bool {
        self.is_result(self.spec.group_of(number)) && !self.tasks[number as usize].is_released()
    }

    /// Returns what the extension under this key added; none if the key is new, an error if it belongs to another
    /// extension.
    pub(crate) fn extended(
        &self,
        id: JobId,
        key: SubmitKey,
        extension: &Extension,
    ) -> Option<Result<Extended, Refused>> {
        let added = self.growth.extensions()?.0.get(&key)?;
        if added.digest == digest(extension).0 {
            return self.added(id, key).map(Ok);
        }
        let why = format!(
            "the key of this extension belongs to another extension of job {id}; nothing was added: extend without \
             --key, or with a new one"
        );
        Some(Err((RefusalKind::Bad, why)))
    }

    /// Returns what was added under this key.
    pub(crate) fn added(&self, job: JobId, key: SubmitKey) -> Option<Extended> {
        let Applied { first, tasks, .. } = *self.growth.extensions()?.0.get(&key)?;
        Some(Extended { job, first, tasks })
    }

    /// Returns whether an extension can be added now; the error says why not.
    pub(crate) fn extensible(&self, id: JobId, extension: &Extension) -> Result<(), Refused> {
        let bad = |why| Err((RefusalKind::Bad, why));
        match &self.growth {
            _ if !self.active() => {
                return bad(format!(
                    "job {id} has ended; nothing was added: open another job"
                ));
            }
            Growth::None => {
                return bad(format!(
                    "job {id} has all its tasks from the start; nothing was added: `hedge job open` makes a job that \
                     can be extended"
                ));
            }
            Growth::Closed { by, .. } => {
                let by = match by {
                    Some(ClosedBy::Request) | None => "was closed",
                    Some(ClosedBy::Timeout) => {
                        "closed itself, because its client was gone for too long"
                    }
                };
                return bad(format!(
                    "job {id} {by}; nothing was added: open another job"
                ));
            }
            Growth::Open { .. } => {}
        }
        for group in &extension.groups {
            let mut read = group.inputs.iter().filter_map(Input::task);
            let released = |name: &&Arc<str>| {
                let other = self.spec.position(name);
                other.is_some_and(|other| self.released_of(other) > 0)
            };
            if let Some(name) = read.find(released) {
                return bad(format!(
                    "task {:?} reads the outputs of {name:?}, which were released; nothing was added",
                    group.id
                ));
            }
        }
        Ok(())
    }

    /// Returns why a new group could never start, if it depends on something that has failed.
    pub(crate) fn waits_for_failed(&self, id: JobId, group: &Group) -> Option<String> {
        let reads = group.inputs.iter().filter_map(Input::task);
        for name in reads.chain(&group.deps).chain(group.deps_each.iter()) {
            let Some(other) = self.spec.position(name) else {
                continue;
            };
            let count = self.spec.groups()[other].count();
            let need = group.needs.iter().find(|(of, _)| of == name);
            let need = need.map_or(Need::Count(count), |(_, need)| *need).of(count);
            let places = group.deps_each.iter().any(|of| of == name)
                || group.inputs.iter().any(|input| input.is_each_of(name));
            let vain = match places {
                true => self.cut_off(other) || self.failed_of(other) == count,
                false => self.possible_of(other) < need,
            };
            if vain {
                return Some(format!(
                    "task {:?} waits for {name:?}, which failed: `hedge tasks {id} --failed` shows why",
                    group.id
                ));
            }
        }
        None
    }

    /// Adds groups.
    fn extend(
        &mut self,
        id: JobId,
        key: SubmitKey,
        extension: &Extension,
        at: Time,
    ) -> Result<Added, Stale> {
        let known = self.growth.extensions();
        if known.is_some_and(|known| known.0.contains_key(&key)) {
            return Err("it was added before");
        }
        if self.extensible(id, extension).is_err() {
            return Err("it cannot be added any more");
        }
        let Growth::Open { seen, extensions } = &mut self.growth else {
            return Err("the job is not open");
        };
        let (first_group, first_file) = (self.spec.groups().len(), self.spec.files().len());
        let first = self.spec.task_count();
        if Arc::make_mut(&mut self.spec).extend(extension).is_err() {
            return Err("it does not fit to the job any more");
        }
        let tasks = extension.task_count();
        let (digest, encoded_bytes) = digest(extension);
        extensions.0.insert(
            key,
            Applied {
                first,
                tasks,
                digest,
            },
        );
        *seen = (*seen).max(at);
        let fresh = std::iter::repeat_n(Task::default(), tasks as usize);
        match tasks {
            // A list of its own, which is then joined to the others, costs more than a few tasks.
            0..=FEW_TASKS => self.tasks.extend(fresh),
            _ => self.tasks.append(fresh.collect()),
        }
        self.open.extend(extension.groups.iter().map(Group::count));
        self.note_added(first_group);
        Ok(Added {
            first_group,
            first_file,
            encoded_bytes,
        })
    }

    /// Records that the client was seen.
    fn see_client(&mut self, at: Time) -> Result<(), Stale> {
        match &mut self.growth {
            Growth::Open { seen, .. } => {
                *seen = (*seen).max(at);
                Ok(())
            }
            _ => Err("the job is not open"),
        }
    }

    /// A task is done or given up.
    pub(crate) fn note_end(&mut self, number: u32) {
        if !matches!(self.growth, Growth::None) {
            self.ends.push_back(number);
        }
    }

    /// The tasks that ended since so many had, in the order of their ends; none for a job that was never open.
    pub(crate) fn ends_after(&self, after: u64) -> Option<impl Iterator<Item = u32> + '_> {
        if matches!(self.growth, Growth::None) {
            return None;
        }
        let count = self.ends.len();
        let after = usize::try_from(after).unwrap_or(count).min(count);
        Some(self.ends.focus().narrow(after..).into_iter().copied())
    }

    /// Closes the job, by a record or by its end. Outputs that only tasks read are no longer results.
    pub(crate) fn close(&mut self, by: Option<ClosedBy>) -> Result<(), Stale> {
        if !self.is_open() {
            return Err("the job is not open");
        }
        if let Growth::Open { extensions, .. } = std::mem::take(&mut self.growth) {
            self.growth = Growth::Closed { by, extensions };
        }
        let kept = (0..).zip(&self.tasks).filter_map(|(number, task)| {
            let done = task.done()?;
            self.keeps(number).then(|| done.bytes())
        });
        self.result_bytes = kept.fold(0, u64::saturating_add);
        Ok(())
    }

    /// Releases the outputs of these tasks. Returns the tasks that were not released before.
    fn release(&mut self, ranges: &[(u32, u32)]) -> Result<Vec<u32>, Stale> {
        if !self.is_open() {
            return Err("the job is not open");
        }
        let mut released = Vec::new();
        for (from, to) in ranges {
            for number in *from..(*to).min(self.spec.task_count()) {
                let task = &mut self.tasks[number as usize];
                if task.is_released() {
                    continue;
                }
                task.release();
                self.result_bytes -= task.done().map_or(0, Done::bytes);
                self.count_released(number);
                released.push(number);
            }
        }
        Ok(released)
    }

    fn count_released(&mut self, number: u32) {
        let group = self.spec.group_of(number) as u32;
        *self.released_of.entry(group).or_default() += 1;
    }

    /// Returns how many tasks of a group are released.
    pub(crate) fn released_of(&self, group: usize) -> u32 {
        self.released_of.get(&(group as u32)).copied().unwrap_or(0)
    }

    /// Counts the released tasks anew.
    pub(crate) fn recount_released(&mut self) {
        self.released_of = OrdMap::new();
        let released = (0..)
            .zip(&self.tasks)
            .filter(|(_, task)| task.is_released());
        let released: Vec<u32> = released.map(|(number, _)| number).collect();
        released
            .into_iter()
            .for_each(|number| self.count_released(number));
    }

    /// Extends the time for which the client of an open job may be gone, by time that no leader observed.
    pub(crate) fn extend_client_seen(&mut self, unseen: Duration) {
        if let Growth::Open { seen, .. } = &mut self.growth {
            *seen = *seen + unseen;
        }
    }
}

impl State {
    /// Applies a record about an open job.
    pub(crate) fn apply_to_open(&mut self, record: &Record) -> Change {
        let (job, at) = match record {
            Record::GroupsAdded { job, at, .. }
            | Record::ClientSeen { job, at }
            | Record::OutputsReleased { job, at, .. }
            | Record::JobClosed { job, at, .. } => (*job, *at),
            _ => return Change::Stale("not a record of an open job"),
        };
        let now = self.now.max(at);
        let change = match (self.job_mut(job), record) {
            (known, Record::GroupsAdded { key, extension, .. }) => {
                let added = known.and_then(|known| known.extend(job, *key, extension, at).ok());
                let extension = extension.clone();
                return self.at(
                    now,
                    added.is_some(),
                    Change::Extended {
                        job,
                        extension,
                        added,
                    },
                );
            }
            (None, _) => Err("no such job"),
            (Some(known), Record::ClientSeen { .. }) => {
                known.see_client(at).map(|()| Change::Noted)
            }
            (Some(known), Record::OutputsReleased { tasks, .. }) => {
                let tasks = known.release(tasks);
                tasks.map(|tasks| Change::Released { job, tasks })
            }
            (Some(known), Record::JobClosed { by, .. }) => {
                known.close(Some(*by)).map(|()| Change::JobClosed(job))
            }
            (Some(_), _) => Err("not a record of an open job"),
        };
        match change {
            Ok(change) => self.at(now, true, change),
            Err(stale) => Change::Stale(stale),
        }
    }

    /// Returns the change, and advances the recorded time if something changed.
    fn at(&mut self, now: Time, changed: bool, change: Change) -> Change {
        if changed {
            self.now = now;
        }
        change
    }

    /// Returns the reply to an extension whose record is committed.
    pub(crate) fn extended(
        &self,
        id: JobId,
        key: SubmitKey,
        extension: &SharedExtension,
    ) -> Result<Extended, Refused> {
        let gone = || {
            let why = format!("job {id} was removed; nothing was added");
            (RefusalKind::Unknown, why)
        };
        let job = self.jobs.get(&id).ok_or_else(gone)?;
        if let Some(known) = job.extended(id, key, extension) {
            return known;
        }
        job.extensible(id, extension)?;
        let mistake = job.spec.check_extension(extension).err();
        let why = mistake.map_or_else(String::new, |mistake| mistake.to_string());
        Err((RefusalKind::Bad, format!("{why}; nothing was added")))
    }
}
