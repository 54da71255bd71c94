//! What people are told of why a job, a task or a worker is where it is.

mod support;

use hedge_model::msg::{FromWorker, Outcome, Reply, Request};
use hedge_model::spec::Group;
use hedge_model::view::ExplainView;
use hedge_model::{JobId, Resources};
use std::fmt::Write;
use support::*;

/// One line for each task and attempt, and the reasons why tasks are critical.
fn explain(rig: &mut Rig, task: Option<&str>) -> String {
    let task = task.map(str::to_owned);
    let mut out = hedge_core::supervisor::Effects::default();
    let event = hedge_core::supervisor::Event::Request {
        requester: client(1).into(),
        request_id: 1,
        request: Request::Explain(JobId(1), task),
        secret: None,
    };
    rig.core.handle(rig.now, event, &mut out);
    match &out.actions[..] {
        [hedge_core::supervisor::Action::Answer { answer, .. }] => match &answer.reply {
            Reply::Explain(view) => text(view),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn text(view: &ExplainView) -> String {
    let mut text = String::new();
    let job = &view.job;
    let _ = writeln!(
        text,
        "job: {} tasks, {} critical, {} done, {} running, {} ready, {} waiting",
        job.tasks, job.critical, job.done, job.running, job.ready, job.waiting
    );
    for one in &view.critical {
        let _ = writeln!(text, "critical {}: {}", one.task, one.reason);
    }
    for task in &view.tasks {
        let _ = writeln!(text, "{} {}: {}", task.task, task.state, task.why);
        for one in &task.attempts {
            let _ = writeln!(
                text,
                "  {} {} on {}: {}; {}",
                one.kind, one.attempt, one.worker, one.state, one.why
            );
        }
    }
    text
}

#[test]
fn a_jobs_way_is_told_in_words() {
    let mut rig = Rig::new();
    let groups = vec![
        group("split", &[]),
        array(2, reader("part", &["split"])),
        reader("join", &["part"]),
    ];
    rig.submit(1, 1, &redundant(2, 1, groups));
    rig.commit();
    rig.expect(&["append accepted", "client 1 #1: accepted 1"]);
    insta::assert_snapshot!("no_worker", explain(&mut rig, None));
    rig.attach(1, 1);
    rig.attach(2, 1);
    rig.from(1, FromWorker::Started(attempt(0, 1)));
    rig.fails(1, attempt(0, 1));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "worker 1: body split v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: critical",
        "measure worker 2: 131072 bytes",
        "worker 2: body split v1",
        "worker 2: assign 1.0/0.1.2",
        "watch worker 2: critical",
        "append failed 1.0/0.1.1: it ended with exit code 1",
        "worker 1: settled 1.0/0.1.1",
        "watch worker 1: idle",
    ]);
    insta::assert_snapshot!("critical_and_failed", explain(&mut rig, None));
    let outcome = Outcome::Done(vec![blob("out", 7)]);
    rig.reports(2, attempt(0, 2), outcome);
    rig.commit();
    rig.expect(&[
        "append done 1.0/0.1.2 by worker 2",
        "worker 2: settled 1.0/0.1.2",
        "worker 1: body part v1, may read 7",
        "worker 1: assign 1.1/0.1.1",
        "worker 2: body part v1, may read 7",
        "worker 2: assign 1.2/0.1.1",
        "watch worker 1: assigned",
        "watch worker 2: assigned",
    ]);
    insta::assert_snapshot!("won", explain(&mut rig, Some("split")));
    rig.gone(1);
    rig.commit();
    rig.expect(&["append lost 1.1/0.1.1", "stop watching worker 1"]);
    insta::assert_snapshot!("lost", explain(&mut rig, Some("part.0")));
    rig.gone(2);
    rig.attach(1, 1);
    rig.commit();
    rig.expect(&[
        "append lost 1.2/0.1.1",
        "stop watching worker 2",
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
    ]);
    insta::assert_snapshot!("out_of_reach", explain(&mut rig, Some("part.0")));
}

#[test]
fn what_waits_says_for_what() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    let groups = vec![
        array(3, group("busy", &[])),
        Group {
            resources: Resources {
                memory: 64 << 30,
                ..Resources::cpus(1000)
            },
            ..group("big", &[])
        },
        Group {
            labels: vec![("arch".into(), "riscv64".into())],
            ..group("odd", &[])
        },
    ];
    rig.submit(1, 1, &plain(groups));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body busy v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: assigned",
    ]);
    insta::assert_snapshot!("turns", explain(&mut rig, None));
    rig.ask(1, Request::Explain(JobId(1), Some("nothing".into())));
    rig.expect(&[
        "client 1 #99: no, Unknown: the job has no task \"nothing\"; its tasks are called like \"busy.0\"",
    ]);
}
