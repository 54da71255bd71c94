//! Tasks that no connected worker could ever run: finds them, fails jobs that ask for that, and says why.

use crate::supervisor::leader::placement::queue::{Entry, Shape, offers_share};
use crate::supervisor::leader::pool::worker::Worker;
use crate::supervisor::leader::{Leader, Leadership};
use hedge_model::resources::nearest;
use hedge_model::spec::Unplaceable;
use hedge_model::{JobId, TaskId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Values of a label that an error message lists if none of them fits.
const VALUES_SHOWN_MAX: usize = 3;

impl Leadership<'_> {
    /// Checks new offers, and all offers after the pool has changed: if no connected worker could ever run one, its
    /// job fails, provided that it asked for that.
    pub(crate) fn find_unplaceable(&mut self) {
        let leader = &mut *self.leader;
        for lane in leader.fit.take_unchecked() {
            let leader = &mut *self.leader;
            let shape = leader.shapes.get(lane.shape);
            if unplaceable(leader, shape, "").is_none() {
                leader.fit.fits(lane.shape, leader.pool.version());
                continue;
            }
            let entries: Vec<Entry> = leader.ready.in_lane(lane).collect();
            for Entry { job: id, group, .. } in entries {
                self.notify_watchers_soon(id);
                self.fail_if_unplaceable(id, group as usize);
            }
        }
    }

    /// Fails a job that asks for it if no connected worker could ever run tasks of a group.
    fn fail_if_unplaceable(&mut self, id: JobId, group: usize) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        let leader = &*self.leader;
        let begun = leader.recovery.since();
        // The workers of the previous leader connect one by one.
        let coming = job.accepted < begun && self.now.since(begun) < self.config.content_grace;
        if job.spec.qos().unplaceable != Unplaceable::Fail || coming {
            return;
        }
        let number = job.spec.first(group);
        let shape = leader.shapes.get(leader.jobs[id].group(group).shape());
        if let Some(why) = unplaceable(leader, shape, &job.spec.groups()[group].id) {
            self.fail_job(id, Some(TaskId { job: id, number }), why);
        }
    }
}

/// Returns why no connected worker could ever run a task `id` of this shape; none if one could, or if none is
/// connected.
pub(crate) fn unplaceable(leader: &Leader, shape: &Shape, id: &str) -> Option<String> {
    let here: Vec<_> = leader
        .pool
        .iter()
        .filter(|worker| worker.state().connected())
        .collect();
    if here.is_empty() || here.iter().any(|w| shape.fits(w.info())) {
        return None;
    }
    let labels = || here.iter().flat_map(|worker| &worker.info().labels);
    let unknown = |label: &&(Arc<str>, Arc<str>)| !labels().any(|known| known == *label);
    if let Some((name, value)) = shape.labels.iter().find(unknown) {
        let hint = label_hint(name, value, labels());
        return Some(format!(
            "task {id:?} needs a worker labelled {name} = {value:?}, and none is{hint}"
        ));
    }
    let labelled = |worker: &&&Worker| {
        let labels = &worker.info().labels;
        shape.labels.iter().all(|label| labels.contains(label))
    };
    let labelled: Vec<_> = here.iter().filter(labelled).collect();
    if labelled.is_empty() {
        return Some(format!(
            "no worker has all the labels that task {id:?} needs"
        ));
    }
    if let Some(why) = not_allowed(shape, id, &labelled) {
        return Some(why);
    }
    let wanted = &shape.resources;
    let most = |name: &str| {
        let amounts = labelled
            .iter()
            .map(|worker| worker.info().resources.amount(name));
        amounts.max().unwrap_or(0)
    };
    let lacking = wanted.names().find(|name| wanted.amount(name) > most(name));
    let Some(name) = lacking else {
        return Some(format!(
            "no worker alone has all that task {id:?} asks for: {wanted}"
        ));
    };
    let show = |amount| hedge_model::resources::show_amount(name, amount);
    let (need, have) = (show(wanted.amount(name)), most(name));
    if have > 0 || hedge_model::resources::OWN.contains(&name) {
        let which = if shape.labels.is_empty() {
            "any worker"
        } else {
            "any worker with its labels"
        };
        return Some(format!(
            "task {id:?} asks for {name} {need}, and the most that {which} has is {}",
            show(have)
        ));
    }
    let known = here
        .iter()
        .flat_map(|worker| &worker.info().resources.named);
    let known = known.map(|(known, _)| &**known);
    let hint = nearest(name, known.chain(hedge_model::resources::OWN));
    let hint = hint.filter(|known| *known != name);
    let hint = hint.map_or_else(String::new, |known| format!("; did you mean {known:?}?"));
    Some(format!(
        "task {id:?} asks for {name} {need}, and no worker offers {name:?}{hint}"
    ))
}

/// Returns why the owners of these workers do not allow a task `id` of this shape what it uses; none if one does.
fn not_allowed(shape: &Shape, id: &str, workers: &[&&Worker]) -> Option<String> {
    if workers
        .iter()
        .any(|worker| shape.is_allowed_by(worker.info()))
    {
        return None;
    }
    let which = if shape.labels.is_empty() {
        ""
    } else {
        " with its labels"
    };
    let network = shape.network.filter(|network| {
        let allows = |worker: &&&Worker| worker.info().network >= *network;
        !workers.iter().any(allows)
    });
    if let Some(network) = network {
        return Some(format!(
            "task {id:?} needs network = {:?}, and no worker{which} allows that: it takes `hedge worker --allow-network`",
            network.name()
        ));
    }
    let shared = |name: &&Arc<str>| workers.iter().any(|one| offers_share(one.info(), name));
    let Some(name) = shape.shares.iter().find(|name| !shared(name)) else {
        return Some(format!(
            "no worker{which} allows task {id:?} all the shared folders and the network that it asks for"
        ));
    };
    let known = workers.iter().flat_map(|worker| &worker.info().shares);
    let hint = nearest(name, known.map(|(known, _)| &**known));
    let hint = hint.map_or_else(String::new, |known| format!("; did you mean {known:?}?"));
    Some(format!(
        "task {id:?} needs the shared folder {name:?}, and no worker{which} has it{hint}"
    ))
}

/// Suggests a similar label or value for one that no worker has.
fn label_hint<'a>(
    name: &str,
    value: &str,
    known: impl Iterator<Item = &'a (Arc<str>, Arc<str>)> + Clone,
) -> String {
    let values = known.clone().filter(|(known, _)| **known == *name);
    let values: BTreeSet<&str> = values.map(|(_, value)| &**value).collect();
    if let Some(near) = nearest(value, values.iter().copied()) {
        return format!("; did you mean {near:?}?");
    }
    if !values.is_empty() {
        let some: Vec<String> = values
            .iter()
            .take(VALUES_SHOWN_MAX)
            .map(|value| format!("{value:?}"))
            .collect();
        let more = if values.len() > some.len() {
            ", …"
        } else {
            ""
        };
        return format!("; workers have {name} = {}{more}", some.join(", "));
    }
    match nearest(name, known.map(|(known, _)| &**known)) {
        Some(near) => format!("; did you mean the label {near:?}?"),
        None => format!("; no worker has a label {name:?}"),
    }
}
