//! Random jobs for virtual grids.

use crate::dice::Dice;
use crate::program::{Output, Program, blob};
use hedge_model::spec::{
    Axis, CheckpointRule, CriticalRule, Draft, Extension, Few, Group, Input, Measure, Qos,
    Redundancy, Runtime, SpecError, Top, Unplaceable,
};
use hedge_model::{Data, FileEntry, JobSpec, Resources};
use std::sync::Arc;
use std::time::Duration;

/// How large random jobs are.
#[derive(Clone, Copy, Debug)]
pub struct JobShape {
    /// Most groups.
    pub groups_max: u64,
    /// Most tasks of one array.
    pub array_max: u64,
    /// Most CPUs that a task may ask for.
    pub cpus_max: u64,
    /// Whether one of its tasks fails each time.
    pub doomed: bool,
}

const OUTPUTS: [Output; 6] = [
    Output::None,
    Output::Inline,
    Output::Blob,
    Output::Vary,
    Output::Both,
    Output::Same,
];

/// A random job; `salt` names its input files, so that jobs with the same salt share them.
pub fn random_job(dice: &mut Dice, shape: JobShape, salt: u64) -> Result<JobSpec, SpecError> {
    let count = dice.between(1, shape.groups_max) as usize;
    let mut groups: Vec<Group> = Vec::new();
    let mut files = Vec::new();
    for at in 0..count {
        let group = random_group(dice, shape, &groups, &mut files, at, salt);
        groups.push(group);
    }
    if shape.doomed {
        let at = dice.below(count as u64) as usize;
        groups[at].runtime = Runtime::Process;
        let program = Program {
            fail_permille: 1000,
            ..Program::of(&groups[at].command)
        };
        groups[at].command = program.command();
    }
    let words = Redundancy::WORDS;
    let redundancy = match dice.below(10) {
        0..3 => Redundancy::Critical,
        _ => words[dice.below(words.len() as u64) as usize].1,
    };
    let unplaceable = if dice.permille(100) {
        Unplaceable::Fail
    } else {
        Unplaceable::Wait
    };
    let top = if dice.permille(500) {
        Top::Share(dice.below(101) as f64 / 100.0)
    } else {
        Top::Count(dice.below(10) as u32)
    };
    let by = if dice.permille(700) {
        vec![(Measure::Precedence, 1.0)]
    } else {
        Vec::new()
    };
    JobSpec::new(Draft {
        name: "random".into(),
        qos: Qos {
            redundancy,
            copies: dice.between(1, 3) as u32,
            unplaceable,
            ..Qos::default()
        },
        critical: CriticalRule { by, top },
        files,
        groups,
        outline: false,
    })
}

/// An open job of the first groups of a random one, and the rest of them as extensions.
pub fn random_open_job(
    dice: &mut Dice,
    shape: JobShape,
    salt: u64,
) -> Result<(JobSpec, Vec<Extension>), SpecError> {
    let mut whole = Draft::from(random_job(dice, shape, salt)?);
    // A client that vanishes leaves its job to this.
    whole.qos.open_timeout = Some(dice.millis(1000, 20_000));
    let mut extensions = Vec::new();
    let mut left = whole
        .groups
        .split_off(dice.below(whole.groups.len() as u64 + 1) as usize);
    while !left.is_empty() {
        let count = dice.between(1, left.len() as u64) as usize;
        let later = left.split_off(count);
        extensions.push(extension(left, &whole.files));
        left = later;
    }
    Ok((JobSpec::new(whole)?, extensions))
}

/// These groups with the files that they name, as an extension.
fn extension(groups: Vec<Group>, all: &[FileEntry]) -> Extension {
    let mut extension = Extension::default();
    for mut group in groups {
        let count = group.count();
        for input in &mut group.inputs {
            let (Input::File(at) | Input::FileEach(at)) = input else {
                continue;
            };
            let files = &mut extension.files;
            let from = std::mem::replace(at, files.len() as u32) as usize;
            let count = if matches!(input, Input::File(_)) {
                1
            } else {
                count
            };
            files.extend_from_slice(&all[from..from + count as usize]);
        }
        extension.groups.push(group);
    }
    extension
}

fn random_group(
    dice: &mut Dice,
    shape: JobShape,
    before: &[Group],
    files: &mut Vec<hedge_model::FileEntry>,
    at: usize,
    salt: u64,
) -> Group {
    let (array, axes) = random_array(dice, shape, before);
    let size = array.map_or(1, |(from, to)| to - from);
    let (inputs, deps, deps_each) = random_inputs(dice, before, files, size, salt);
    let program = random_program(dice);
    let noop = dice.permille(100);
    let memory = dice.below(4) << 28;
    let raises = memory > 0 && dice.permille(200);
    Group {
        array,
        axes: axes.into_iter().collect(),
        runtime: if noop {
            Runtime::Noop
        } else {
            Runtime::Process
        },
        command: program.command(),
        stdin: dice
            .permille(50)
            .then(|| blob("stdin", &[5, salt]).data)
            .filter(|data| matches!(data, Data::Blob { .. })),
        deps,
        deps_each: deps_each.into(),
        inputs,
        resources: Resources {
            cpus_milli: dice.between(0, shape.cpus_max * 2) * 500,
            memory,
            ..Resources::default()
        },
        labels: if dice.permille(80) {
            vec![("site".into(), "a".into())]
        } else {
            Vec::new()
        },
        priority: dice.below(4) as i32 - 1,
        retries: dice.between(1, 5) as u32,
        retry_memory: if raises {
            vec![1000, 1250].into()
        } else {
            Few::default()
        },
        once: dice.permille(30),
        copied: dice.permille(30).then_some(false),
        retry_delay: dice.permille(200).then(|| dice.millis(1, 2000)),
        critical: dice.permille(150),
        checkpoint: dice.permille(300).then(|| {
            let rule = CheckpointRule {
                every: dice.millis(100, 600),
                grace: dice.millis(0, 300),
                ..CheckpointRule::of(&["state"])
            };
            Arc::new(rule)
        }),
        ..Group::program(&format!("g{at}"), &[])
    }
}

/// A group's array and its parameters. Half of the arrays are as long as the group before.
fn random_array(
    dice: &mut Dice,
    shape: JobShape,
    before: &[Group],
) -> (Option<(u32, u32)>, Option<Axis>) {
    let array = dice.permille(500).then(|| {
        let from = dice.below(5) as u32;
        let same = before.last().filter(|_| dice.permille(500));
        let count = dice.between(1, shape.array_max) as u32;
        (from, from + same.map_or(count, Group::count))
    });
    let axes = array
        .filter(|_| dice.permille(200))
        .map(|(from, to)| Axis::Range {
            name: "seed".into(),
            from,
            to,
        });
    match axes {
        Some(axis) => (Some((0, axis.len() as u32)), Some(axis)),
        None => (array, None),
    }
}

/// Input files of a group's own, groups that it reads or waits for, and those of which each task waits for one.
fn random_inputs(
    dice: &mut Dice,
    before: &[Group],
    files: &mut Vec<hedge_model::FileEntry>,
    size: u32,
    salt: u64,
) -> (Vec<Input>, Vec<Arc<str>>, Vec<Arc<str>>) {
    let mut new_file = |path: String, at: u64| {
        files.push(blob(&path, &[4, salt, at]));
        files.len() as u32 - 1
    };
    let mut inputs = Vec::new();
    if dice.permille(300) {
        inputs.push(Input::File(new_file("input".into(), dice.below(4))));
    }
    if dice.permille(150) {
        let first = new_file("part".into(), 10);
        (1..size).for_each(|part| {
            new_file("part".into(), 10 + u64::from(part));
        });
        inputs.push(Input::FileEach(first));
    }
    let mut deps: Vec<Arc<str>> = Vec::new();
    let mut deps_each: Vec<Arc<str>> = Vec::new();
    for other in before {
        let alike = other.count() == size;
        if alike && dice.permille(350) {
            inputs.push(Input::TaskEach(other.id.clone()));
        } else if alike && dice.permille(150) {
            deps_each.push(other.id.clone());
        } else if dice.permille(350) {
            inputs.push(Input::Task(other.id.clone()));
        } else if dice.permille(150) {
            deps.push(other.id.clone());
        }
    }
    (inputs, deps, deps_each)
}

fn random_program(dice: &mut Dice) -> Program {
    let mean = match dice.below(4) {
        0 => Duration::from_micros(dice.between(100, 3000)),
        1 => dice.millis(3, 50),
        2 => dice.millis(50, 500),
        _ => dice.millis(200, 3000),
    };
    let fail_permille = if dice.permille(300) {
        dice.below(150) as u32
    } else {
        0
    };
    Program {
        output: *dice.pick(&OUTPUTS),
        mean,
        fail_permille,
    }
}
