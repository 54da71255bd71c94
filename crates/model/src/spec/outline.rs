//! Outlines: reduced specifications of ended jobs.

use super::{Draft, Few, Group, Input, JobSpec, Rare, positional};
use std::sync::Arc;

/// The longest program name that an outline keeps, in characters.
const PROGRAM_MAX: usize = 64;

impl JobSpec {
    /// Returns what views of an ended job need: names, arrays, dependencies, resources, estimates, quality of
    /// service. It leaves out what only execution needs: files, arguments, environments, output patterns, labels,
    /// values of parameters. Tasks keep their numbers and labels.
    pub fn outline(&self) -> Self {
        let draft = Draft {
            name: self.draft.name.clone(),
            qos: self.draft.qos.clone(),
            critical: self.draft.critical.clone(),
            files: Vec::new(),
            groups: self.draft.groups.iter().map(outlined).collect(),
            outline: true,
        };
        Self {
            format: positional::format(&draft),
            draft,
            firsts: self.firsts.clone(),
            total: self.total,
            waits_for: self.waits_for.clone(),
            waited_by: self.waited_by.clone(),
            relaxed: self.relaxed.clone(),
            each: self.each.clone(),
            names: self.names.clone(),
        }
    }
}

fn outlined(group: &Group) -> Group {
    let program = |word: &Arc<str>| word.chars().take(PROGRAM_MAX).collect::<String>().into();
    let reads = |input: &&Input| input.task().is_some();
    Group {
        command: group.command.iter().take(1).map(program).collect(),
        env: Vec::new(),
        stdin: None,
        inputs: group.inputs.iter().filter(reads).cloned().collect(),
        outputs: Vec::new(),
        labels: Vec::new(),
        axes: Few::default(),
        checkpoint: None,
        preload: Few::default(),
        mounts: Few::default(),
        shares: Few::default(),
        cwd: Rare::default(),
        network: None,
        retry_memory: Few::default(),
        ..group.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{CriticalRule, Qos};
    use crate::{Data, FileEntry};

    #[test]
    fn outputs_that_others_read_can_be_results_too() {
        let job = |keep| {
            let made = Group {
                keep,
                ..Group::program("made", &["true"])
            };
            let reader = Group {
                inputs: vec![Input::Task("made".into())],
                ..Group::program("reader", &["true"])
            };
            let draft = Draft {
                name: "kept".into(),
                qos: Qos::default(),
                critical: CriticalRule::default(),
                files: Vec::new(),
                groups: vec![made, reader],
                outline: false,
            };
            JobSpec::new(draft).unwrap()
        };
        let (kept, dropped) = (job(true), job(false));
        assert!(kept.is_result(0) && kept.is_result(1) && !dropped.is_result(0));
        assert!(kept.outline().is_result(0), "also when the job has ended");
        assert_eq!(kept.format(), 3, "an earlier version would drop them");
        assert_eq!(JobSpec::decode(&kept.encode().unwrap()), Ok(kept));
    }

    #[test]
    fn an_outline_is_a_valid_job_with_the_same_tasks_and_little_else() {
        let file = FileEntry {
            path: "in".into(),
            executable: false,
            data: Data::Inline([7; 1000].into()),
        };
        let first = Group {
            array: Some((5, 9)),
            env: vec![("TEXT".into(), "x".repeat(100_000).into())],
            inputs: vec![Input::File(0)],
            outputs: vec!["out-${index}".into()],
            ..Group::program("first", &["sh", "-c", "true"])
        };
        let second = Group {
            inputs: vec![Input::File(0), Input::Task("first".into())],
            ..Group::program("second", &[&"x".repeat(1000)])
        };
        let spec = JobSpec::new(Draft {
            name: "t".into(),
            qos: Qos::default(),
            critical: CriticalRule::default(),
            files: vec![file],
            groups: vec![first, second],
            outline: false,
        });
        let spec = spec.unwrap();
        let outline = spec.outline();
        assert_eq!(JobSpec::new(outline.draft.clone()), Ok(outline.clone()));
        assert!(outline.is_outline() && !spec.is_outline());
        assert_eq!(outline.task_count(), spec.task_count());
        let labels = |spec: &JobSpec| (0..5).map(|at| spec.label(at)).collect::<Vec<_>>();
        assert_eq!(labels(&outline), labels(&spec));
        assert_eq!(outline.waits_for(1), spec.waits_for(1));
        assert!(outline.encoded_bytes() < 500, "{}", outline.encoded_bytes());
        assert_eq!(outline.outline(), outline);
    }
}
