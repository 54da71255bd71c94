//! Lists a job's groups: their dependencies and their progress.

use crate::supervisor::api::requests::no_such_job;
use crate::supervisor::leader::LeaderView;
use crate::supervisor::leader::jobs::critical::b_levels;
use hedge_model::JobId;
use hedge_model::msg::RefusalKind;
use hedge_model::view::{GROUPS_LISTED_MAX, GroupLine, GroupsView};

/// How many tasks of a group have active attempts, and how many further attempts of these tasks are active.
#[derive(Clone, Copy, Debug, Default)]
struct Active {
    tasks: u32,
    copies: u32,
}

impl LeaderView<'_> {
    /// Lists groups of a job from position `from` on.
    pub(crate) fn groups_listed(
        &self,
        id: JobId,
        from: u32,
    ) -> Result<GroupsView, (RefusalKind, String)> {
        let job = self.state.jobs.get(&id).ok_or_else(|| no_such_job(id))?;
        let (spec, learned) = (&job.spec, &self.state.learned);
        let count = spec.groups().len();
        let mut active = vec![Active::default(); count];
        for (task, known) in self.tasks_of(id) {
            let running = known.active() as u32;
            let group = &mut active[spec.group_of(task.number)];
            group.tasks += u32::from(running > 0);
            group.copies += running.saturating_sub(1);
        }
        let expected = |at: usize| learned.expect(&spec.groups()[at]).work_s;
        let (b_levels, critical) = (b_levels(spec, expected), self.critical(id, job));
        let from = (from as usize).min(count);
        let until = count.min(from.saturating_add(GROUPS_LISTED_MAX));
        let line = |at: usize| {
            let group = &spec.groups()[at];
            GroupLine {
                group: at as u32,
                id: group.id.to_string(),
                first: spec.first(at),
                tasks: group.count(),
                done: group.count() - job.open[at],
                running: active[at].tasks,
                failed: job.failed_of(at),
                copies: active[at].copies,
                critical: critical.of_group(at),
                waits_for: spec.waits_for(at).to_vec(),
                each: spec.each(at).to_vec(),
                expected_s: expected(at),
                tail_s: b_levels[at],
            }
        };
        Ok(GroupsView {
            job: id,
            groups: (from..until).map(line).collect(),
            next: (until < count).then_some(until as u32),
        })
    }
}
