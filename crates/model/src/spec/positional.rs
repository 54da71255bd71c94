//! The specification in records of formats 1 and 2: postcard, which identifies fields by position. Old journals stay
//! readable, and a job that needs nothing newer is still written in this layout.
//!
//! These types never change. A field of [`super::Group`] or [`super::Qos`] that they lack is read as its default. A
//! job in which it has another value has format 3, see [`super::JobSpec::format`].

use super::{
    CriticalPlacement, CriticalRule, Estimate, JobSpec, Need, Redundancy, SpecError, Unplaceable,
};
use crate::ledger::MicroUnits;
use crate::{Data, FileEntry, Resources};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use std::sync::Arc;
use std::time::Duration;

type Names = Vec<(Arc<str>, Arc<str>)>;

#[derive(Serialize, Deserialize)]
struct Draft {
    name: Arc<str>,
    qos: Qos,
    critical: CriticalRule,
    files: Vec<FileEntry>,
    groups: Vec<Group>,
}

#[derive(Serialize, Deserialize)]
struct Qos {
    redundancy: Redundancy,
    copies: u32,
    unplaceable: Unplaceable,
    need: Need,
    critical_placement: CriticalPlacement,
    finish_by: Option<Duration>,
    confidence: f64,
    budget: Option<MicroUnits>,
}

#[derive(Serialize, Deserialize)]
struct Group {
    id: Arc<str>,
    array: Option<(u32, u32)>,
    runtime: Runtime,
    command: Vec<Arc<str>>,
    env: Names,
    stdin: Option<Data>,
    deps: Vec<Arc<str>>,
    inputs: Vec<Input>,
    outputs: Vec<Arc<str>>,
    resources: Resources,
    labels: Names,
    priority: i32,
    crash_limit: u32,
    time_limit: Option<Duration>,
    critical: bool,
    estimate: Estimate,
    kind: Option<Arc<str>>,
    needs: Vec<(Arc<str>, Need)>,
}

#[derive(Serialize, Deserialize)]
enum Runtime {
    Process,
    Noop,
}

#[derive(Serialize, Deserialize)]
enum Input {
    File(u32),
    FileEach(u32),
    Task(Arc<str>),
}

/// Returns the oldest record format that can express a job.
pub(super) fn format(draft: &super::Draft) -> u32 {
    let same = super::Qos::from(Qos::from(&draft.qos)) == draft.qos
        && draft
            .groups
            .iter()
            .all(|group| super::Group::from(Group::from(group)) == *group);
    let layout = if same { 1 } else { 3 };
    draft.qos.redundancy.format().max(layout)
}

/// Writes a specification.
///
/// # Errors
/// The serializer failed, or the job has format 3.
pub fn serialize<S: Serializer>(spec: &Arc<JobSpec>, to: S) -> Result<S::Ok, S::Error> {
    if to.is_human_readable() {
        return spec.serialize(to);
    }
    if spec.format >= 3 {
        return Err(ser::Error::custom("the job needs records of format 3"));
    }
    Draft::from(&spec.draft).serialize(to)
}

/// Reads a specification.
///
/// # Errors
/// The deserializer failed, or the job is not valid.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<JobSpec>, D::Error> {
    if from.is_human_readable() {
        return Arc::deserialize(from);
    }
    let draft = Draft::deserialize(from)?;
    let spec: Result<JobSpec, SpecError> = super::Draft::from(draft).try_into();
    spec.map(Arc::new).map_err(de::Error::custom)
}

/// Returns the bytes of a specification in this layout; none if it cannot be written.
pub fn bytes(spec: &JobSpec) -> Option<Vec<u8>> {
    postcard::to_stdvec(&Draft::from(&spec.draft)).ok()
}

impl From<&super::Draft> for Draft {
    fn from(draft: &super::Draft) -> Self {
        Self {
            name: draft.name.clone(),
            qos: Qos::from(&draft.qos),
            critical: draft.critical.clone(),
            files: draft.files.clone(),
            groups: draft.groups.iter().map(Group::from).collect(),
        }
    }
}

impl From<Draft> for super::Draft {
    fn from(draft: Draft) -> Self {
        Self {
            name: draft.name,
            qos: draft.qos.into(),
            critical: draft.critical,
            files: draft.files,
            groups: draft.groups.into_iter().map(super::Group::from).collect(),
            outline: false,
        }
    }
}

impl From<&super::Qos> for Qos {
    fn from(qos: &super::Qos) -> Self {
        Self {
            redundancy: qos.redundancy,
            copies: qos.copies,
            unplaceable: qos.unplaceable,
            need: qos.need,
            critical_placement: qos.critical_placement,
            finish_by: qos.finish_by,
            confidence: qos.confidence,
            budget: qos.budget,
        }
    }
}

impl From<Qos> for super::Qos {
    fn from(qos: Qos) -> Self {
        Self {
            redundancy: qos.redundancy,
            copies: qos.copies,
            unplaceable: qos.unplaceable,
            need: qos.need,
            critical_placement: qos.critical_placement,
            finish_by: qos.finish_by,
            confidence: qos.confidence,
            budget: qos.budget,
            ..Self::default()
        }
    }
}

impl From<&super::Group> for Group {
    fn from(group: &super::Group) -> Self {
        Self {
            id: group.id.clone(),
            array: group.array,
            runtime: group.runtime.into(),
            command: group.command.clone(),
            env: group.env.clone(),
            stdin: group.stdin.clone(),
            deps: group.deps.clone(),
            inputs: group.inputs.iter().map(Input::from).collect(),
            outputs: group.outputs.clone(),
            resources: group.resources.clone(),
            labels: group.labels.clone(),
            priority: group.priority,
            crash_limit: group.retries.saturating_add(1),
            time_limit: group.time_limit,
            critical: group.critical,
            estimate: *group.estimate,
            kind: group.kind.clone(),
            needs: group.needs.clone(),
        }
    }
}

impl From<Group> for super::Group {
    fn from(group: Group) -> Self {
        Self {
            array: group.array,
            runtime: group.runtime.into(),
            command: group.command,
            env: group.env,
            stdin: group.stdin,
            deps: group.deps,
            inputs: group.inputs.into_iter().map(super::Input::from).collect(),
            outputs: group.outputs,
            resources: group.resources,
            labels: group.labels,
            priority: group.priority,
            retries: group.crash_limit.saturating_sub(1),
            time_limit: group.time_limit,
            critical: group.critical,
            estimate: group.estimate.into(),
            kind: group.kind,
            needs: group.needs,
            ..Self::program(&group.id, &[])
        }
    }
}

impl From<super::Runtime> for Runtime {
    fn from(runtime: super::Runtime) -> Self {
        match runtime {
            super::Runtime::Noop => Self::Noop,
            _ => Self::Process,
        }
    }
}

impl From<Runtime> for super::Runtime {
    fn from(runtime: Runtime) -> Self {
        match runtime {
            Runtime::Process => Self::Process,
            Runtime::Noop => Self::Noop,
        }
    }
}

impl From<&super::Input> for Input {
    fn from(input: &super::Input) -> Self {
        match input {
            super::Input::File(at) => Self::File(*at),
            super::Input::FileEach(at) => Self::FileEach(*at),
            super::Input::Task(id) | super::Input::TaskEach(id) => Self::Task(id.clone()),
        }
    }
}

impl From<Input> for super::Input {
    fn from(input: Input) -> Self {
        match input {
            Input::File(at) => Self::File(at),
            Input::FileEach(at) => Self::FileEach(at),
            Input::Task(id) => Self::Task(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Draft, Group, Qos};

    #[test]
    fn a_job_has_the_format_that_its_redundancy_needs_and_no_older_one_than_its_fields_need() {
        for (word, redundancy, _) in Redundancy::WORDS {
            let mut draft = Draft {
                name: "job".into(),
                qos: Qos {
                    redundancy,
                    ..Qos::default()
                },
                critical: CriticalRule::default(),
                files: Vec::new(),
                groups: vec![Group::program("a", &["true"])],
                outline: false,
            };
            assert_eq!(format(&draft), redundancy.format(), "{word}");
            draft.groups[0].once = true;
            assert_eq!(format(&draft), redundancy.format().max(3), "{word}");
        }
    }
}
