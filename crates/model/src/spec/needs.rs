//! Checks completion thresholds and the quality of service of a job.

use super::addition::Addition;
use super::validate::{Checked, Place, job, wrong};
use super::{Draft, MaxFailures, Need, OPEN_TIMEOUT_MAX, OPEN_TIMEOUT_MIN};
use std::collections::BTreeMap;

/// Returns the dependencies with a completion threshold below all tasks.
pub(super) fn relax(
    addition: &Addition<'_>,
    waits_for: &[Vec<u32>],
) -> Checked<BTreeMap<(u32, u32), u32>> {
    let mut relaxed = BTreeMap::new();
    for (at, group) in addition.groups.iter().enumerate() {
        for (item, (name, need)) in group.needs.iter().enumerate() {
            let place = Place {
                group: Some(at),
                key: "need",
                item: Some(item),
            };
            check_need(place, *need)?;
            let other = addition.position(name);
            let Some(other) = other.filter(|other| waits_for[at].contains(other)) else {
                return wrong(
                    place,
                    format!("task {:?} does not wait for {name:?}", group.id),
                    "say `need` of a task that is among its `inputs` or `deps`",
                );
            };
            let all = addition.group(other).count();
            if need.of(all) < all {
                let at = (addition.before() + at) as u32;
                relaxed.insert((at, other), need.of(all));
            }
        }
    }
    Ok(relaxed)
}

fn check_need(place: Place, need: Need) -> Checked<()> {
    let right = match need {
        Need::Share(share) => share > 0.0 && share <= 1.0,
        Need::Count(count) => count > 0,
    };
    if right {
        return Ok(());
    }
    wrong(
        place,
        "none of it is needed",
        "write more than \"0%\" and at most \"100%\", or a number from 1",
    )
}

pub(super) fn check_qos(draft: &Draft) -> Checked<()> {
    let qos = &draft.qos;
    check_need(job("need"), qos.need)?;
    if !(qos.confidence > 0.0 && qos.confidence < 1.0) {
        return wrong(
            job("confidence"),
            format!("{} is no chance that can be aimed at", qos.confidence),
            "write more than \"0%\" and less than \"100%\", like \"95%\"",
        );
    }
    if qos.finish_by.is_some_and(|by| by.is_zero()) {
        return wrong(
            job("finish_by"),
            "no job is done in no time",
            "write the time from its acceptance, like \"2h\"",
        );
    }
    if let Some(timeout) = qos.open_timeout
        && !(OPEN_TIMEOUT_MIN..=OPEN_TIMEOUT_MAX).contains(&timeout)
    {
        return wrong(
            job("open_timeout"),
            "an open job cannot wait for its client for so short or so long a time",
            "write \"1s\" to \"30d\"",
        );
    }
    if let Some(MaxFailures::Share(share)) = qos.max_failures
        && !(0.0..=1.0).contains(&share)
    {
        return wrong(
            job("max_failures"),
            "this is no share of the tasks",
            "write \"0%\" to \"100%\", or a number of tasks",
        );
    }
    let weight_ok = |weight: f64| weight.is_finite() && weight > 0.0;
    if draft
        .critical
        .by
        .iter()
        .any(|(_, weight)| !weight_ok(*weight))
    {
        return wrong(
            job("by"),
            "a weight is not above 0",
            "leave a measure out that is not to count",
        );
    }
    Ok(())
}
