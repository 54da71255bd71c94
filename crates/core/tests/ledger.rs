//! Every attempt's time is stored and charged, once, by its class; the cost is told with the job's end.

mod support;

use hedge_model::Ending;
use hedge_model::JobId;
use hedge_model::Resources;
use hedge_model::capacity::Class;
use hedge_model::ledger::{Charge, Tariff};
use hedge_model::msg::{FromWorker, Request};
use hedge_model::view::{CostView, JobView};
use std::time::Duration;
use support::*;

fn view(rig: &Rig) -> JobView {
    rig.core.job_view(JobId(1)).expect("a job")
}

fn price(class: Class, occupied: Duration) -> u64 {
    let charge = Charge {
        class,
        occupied,
        moved: 0,
    };
    Tariff::default().price(&charge, &Resources::cpus(1000))
}

#[test]
fn a_jobs_cost_is_computed_from_the_times_of_its_attempts() {
    let mut rig = Rig::new();
    rig.attach(1, 2);
    rig.submit(1, 1, &plain(vec![array(2, group("a", &[]))]));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body a v1",
        "worker 1: assign 1.0/0.1.1",
        "worker 1: assign 1.1/0.1.1",
        "watch worker 1: assigned",
    ]);
    rig.done_after(1, attempt(0, 1), Duration::from_secs(3));
    rig.done_after(1, attempt(1, 1), Duration::from_secs(4));
    rig.commit();
    rig.expect(&[
        "append done 1.0/0.1.1 by worker 1",
        "append done 1.1/0.1.1 by worker 1",
        "worker 1: settled 1.0/0.1.1",
        "append job 1 done",
        "worker 1: settled 1.1/0.1.1",
        "watch worker 1: idle",
        "worker 1: forget 1",
    ]);
    let cost = view(&rig).cost;
    assert_eq!(cost.useful.occupied_ns, 7_000_000_000);
    assert_eq!(cost.useful.micro, 70, "10 for each CPU-second");
    assert_eq!((cost.redundant.micro, cost.lost.micro), (0, 0));
    assert_eq!((cost.total_micro, cost.billed_micro), (70, 70));
}

#[test]
fn time_of_faster_workers_costs_more() {
    let mut rig = Rig::new();
    for (number, clock) in [(1, 2_000), (2, 2_000), (3, 2_000), (4, 4_000)] {
        let mut info = info(number, 1);
        info.hardware.clock_mhz = clock;
        rig.from(number, FromWorker::Attach(Box::new(info)));
    }
    rig.commit();
    rig.submit(1, 1, &plain(vec![array(2, group("a", &[]))]));
    rig.commit();
    let places = assigned(&rig.said());
    let span = Duration::from_secs(5);
    for (worker, attempt) in &places {
        rig.done_after(*worker, *attempt, span);
    }
    rig.commit();
    rig.expect(&[
        "append done 1.0/0.1.1 by worker 4",
        "append done 1.1/0.1.1 by worker 1",
        "worker 4: settled 1.0/0.1.1",
        "watch worker 4: idle",
        "append job 1 done",
        "worker 1: settled 1.1/0.1.1",
        "watch worker 1: idle",
        "worker 1: forget 1",
        "worker 4: forget 1",
    ]);
    let cost = view(&rig).cost;
    let (fast, plain) = (price(Class::Higher, span), price(Class::Normal, span));
    assert!(fast > plain);
    assert_eq!(cost.useful.micro, fast + plain, "{places:?}");
    assert_eq!(cost.useful.higher_ns, 5_000_000_000);
}

#[test]
fn losers_are_charged_up_to_the_decision_and_lost_attempts_up_to_their_last_sign_of_life() {
    let mut rig = Rig::new();
    (1..=3).for_each(|number| rig.attach(number, 1));
    let vital = hedge_model::spec::Group {
        critical: true,
        ..group("a", &[])
    };
    rig.submit(1, 1, &redundant(3, 0, vec![vital]));
    rig.commit();
    let places = assigned(&rig.said());
    assert_eq!(places.len(), 3);
    rig.pass_with_heartbeats(Duration::from_secs(2), &[1, 2, 3]);
    // The third falls silent, and its connection is closed a while later.
    rig.pass_with_heartbeats(Duration::from_millis(500), &[1, 2]);
    rig.gone(3);
    rig.commit();
    rig.pass_with_heartbeats(Duration::from_millis(500), &[1, 2]);
    let (winner, first) = places[0];
    rig.done_after(winner, first, Duration::from_secs(3));
    rig.commit();
    let ended = view(&rig).cost;
    assert_eq!(
        ended.useful.micro,
        price(Class::Normal, Duration::from_secs(3))
    );
    assert_eq!(ended.redundant.attempts, 1);
    assert_eq!(
        ended.redundant.occupied_ns, 3_000_000_000,
        "up to the decision"
    );
    assert_eq!(ended.lost.attempts, 1);
    let lost = ended.lost.occupied_ns as f64 / 1e9;
    assert!(
        (1.9..=2.1).contains(&lost),
        "up to the last heartbeat, not {lost} s"
    );
    assert_eq!(
        ended.billed_micro,
        ended.useful.micro + ended.redundant.micro,
        "the client pays for redundancy and not for what the grid lost"
    );
    // What the loser says later changes nothing: the cost was final with the job's end.
    let (loser, second) = places[1];
    rig.reports(
        loser,
        second,
        hedge_model::msg::Outcome::Ended(Ending::Cancelled),
    );
    rig.commit();
    rig.expect(&[
        "append lost 1.0/0.1.3",
        "stop watching worker 3",
        "append done 1.0/0.1.1 by worker 1",
        "append job 1 done",
        "worker 1: settled 1.0/0.1.1",
        "worker 2: cancel 1.0/0.1.2",
        "watch worker 1: idle",
        "worker 1: forget 1",
        "worker 2: forget 1",
        "append cancelled 1.0/0.1.2",
        "worker 2: settled 1.0/0.1.2",
        "watch worker 2: idle",
    ]);
    assert_eq!(view(&rig).cost, ended);
}

#[test]
fn the_cost_is_told_with_the_jobs_end_and_is_the_same_after_a_fail_over() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![group("a", &[])]));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body a v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: assigned",
    ]);
    rig.ask(1, Request::Watch(JobId(1)));
    rig.expect(&["client 1 #99: job 1 Running 0/1"]);
    rig.done_after(1, attempt(0, 1), Duration::from_millis(1_500));
    rig.commit();
    let told = rig.told_views();
    rig.expect(&[
        "append done 1.0/0.1.1 by worker 1",
        "append job 1 done",
        "worker 1: settled 1.0/0.1.1",
        "watch worker 1: idle",
        "client 1 #99: job 1 Done 1/1",
        "worker 1: forget 1",
    ]);
    let last: &CostView = &told.last().expect("the watching client is told").cost;
    assert_eq!((last.total_micro, &*last.currency), (15, "credit"));
    let next = Rig::with(rig.core.state().clone(), &[]);
    assert_eq!(&view(&next).cost, last);
}
