//! Job files for open jobs: what begins one, and what is added to one.

use crate::{Found, Mistake, Places};
use hedge_model::spec::{Draft, Extension, Group, Input, OPEN_TIMEOUT, SpecError};
use hedge_model::{Hash, JobSpec};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a job file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A job.
    Job,
    /// An open job; it need not have tasks yet.
    Open,
    /// Tasks for an open job. They may wait for tasks that are not in the file.
    Extension,
}

impl Purpose {
    /// Brings a job that was read in line with what it is for.
    pub(crate) fn apply(self, draft: &mut Draft, places: &Places) -> Result<(), Vec<Mistake>> {
        if self == Purpose::Job {
            return Ok(());
        }
        draft.qos.open_timeout.get_or_insert(OPEN_TIMEOUT);
        let keys: &[&str] = match self {
            Purpose::Extension => &["name", "qos", "critical"],
            _ => &[],
        };
        let given = keys
            .iter()
            .filter_map(|key| Some((key, places.job.get(key)?)));
        let mistakes = given.map(|(key, spans)| {
            let what = format!("`{key}` says something of the job, which is open already");
            Mistake::new(
                spans.whole.clone(),
                what,
                "leave it out: only tasks are added".to_owned(),
            )
        });
        match mistakes.collect::<Vec<_>>() {
            none if none.is_empty() => Ok(()),
            mistakes => Err(mistakes),
        }
    }

    /// The job that is checked in the place of the draft. Tasks that only the open job has are made up: whether it has
    /// them, the grid says.
    pub(crate) fn checkable(self, draft: &Draft) -> Draft {
        let mut whole = draft.clone();
        if self == Purpose::Extension {
            whole.groups.extend(others(&draft.groups));
        }
        whole
    }
}

/// The groups that groups wait for and that are not among them.
fn others(groups: &[Group]) -> Vec<Group> {
    let mut known: BTreeSet<&str> = groups.iter().map(|group| &*group.id).collect();
    let mut others = Vec::new();
    for group in groups {
        let array = |each: bool| each.then(|| (0, group.count()));
        let inputs = group.inputs.iter().filter_map(|input| {
            let id = input.task()?;
            Some((id, matches!(input, Input::TaskEach(_))))
        });
        let deps = group.deps.iter().map(|id| (id, false));
        let each = group.deps_each.iter().map(|id| (id, true));
        for (id, each) in inputs.chain(each).chain(deps) {
            if known.insert(id) {
                others.push(other(id, array(each).filter(|_| group.array.is_some())));
            }
        }
    }
    others
}

fn other(id: &Arc<str>, array: Option<(u32, u32)>) -> Group {
    Group {
        array,
        ..Group::program(id, &["true"])
    }
}

impl Found {
    /// The tasks of a file that is an extension, given hash and length in bytes of each of [`Found::uploads`] in
    /// their order.
    ///
    /// # Errors
    /// As for [`Found::job`].
    pub fn extension(self, content: &[(Hash, u64)]) -> Result<Extension, SpecError> {
        let draft = self.with_content(content)?;
        JobSpec::for_submission(Purpose::Extension.checkable(&draft))?;
        Ok(Extension {
            files: draft.files,
            groups: draft.groups,
        })
    }
}
