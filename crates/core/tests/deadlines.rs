//! Deadlines and budgets: what they change in what is repeated, and what is said of them.

mod support;

use hedge_model::JobId;
use hedge_model::spec::{Group, Qos, Redundancy};
use hedge_model::view::DeadlineView;
use std::time::Duration;
use support::*;

fn by(seconds: u64) -> Qos {
    Qos {
        redundancy: Redundancy::Auto,
        finish_by: Some(Duration::from_secs(seconds)),
        ..Qos::default()
    }
}

fn deadline(rig: &Rig) -> DeadlineView {
    let view = rig.core.job_view(JobId(1)).expect("a job");
    view.deadline.expect("a deadline")
}

#[test]
fn whether_a_deadline_will_be_met_is_known_early() {
    let chain = || vec![timed("a", 100, &[]), timed("b", 100, &["a"])];
    for (seconds, low, high) in [(2_000, 0.95, 1.0), (150, 0.0, 0.05)] {
        let mut rig = Rig::new();
        (1..=2).for_each(|number| rig.attach(number, 1));
        rig.submit(1, 1, &job(by(seconds), 0, chain()));
        rig.commit();
        rig.said();
        let view = deadline(&rig);
        assert!((low..=high).contains(&view.chance), "{view:?}");
        assert_eq!(view.at_risk, high < 0.5, "said when the job has just begun");
    }
}

#[test]
fn the_chance_falls_as_a_task_runs_late() {
    let mut rig = Rig::new();
    (1..=2).for_each(|number| rig.attach(number, 1));
    let mut qos = by(250);
    qos.redundancy = Redundancy::None;
    rig.submit(1, 1, &job(qos, 0, vec![timed("a", 100, &[])]));
    rig.commit();
    rig.said();
    let first = deadline(&rig).chance;
    rig.pass_beating(Duration::from_secs(200), &[1, 2]);
    rig.said();
    let late = deadline(&rig).chance;
    assert!(
        first > 0.9 && late < 0.5,
        "{first} at first, {late} when it should long be done"
    );
}

#[test]
fn a_budget_ends_redundancy_and_never_first_attempts() {
    let groups = || {
        let vital = |id: &str| Group {
            critical: true,
            ..timed(id, 100, &[])
        };
        vec![vital("a"), vital("b")]
    };
    // Two first attempts cost 2,000 micro-units by the default tariff.
    for (budget, attempts) in [(None, 4), (Some(1_000_000), 4), (Some(1_500), 2)] {
        let mut rig = Rig::new();
        (1..=4).for_each(|number| rig.attach(number, 1));
        let qos = Qos {
            redundancy: Redundancy::Critical,
            budget,
            ..Qos::default()
        };
        rig.submit(1, 1, &job(qos, 0, groups()));
        rig.commit();
        assert_eq!(
            assigned(&rig.said()).len(),
            attempts,
            "with a budget of {budget:?}"
        );
    }
}
